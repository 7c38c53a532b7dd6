"""The greatest numbers that are taken, in study files and as options: what is beyond them is a slip of the keyboard."""

from __future__ import annotations

COUNT = 10**9
"""Of examples."""
EPOCHS = 10**6
BATCH = 10**7
"""Examples or subwords at a time."""
BEAM = 1_000
"""Hypotheses kept a sentence."""
TOKENS = 10**5
"""Subwords of a sentence."""
PIXELS = 10**4
"""Of a side of an image."""
JOBS = 256
"""Trainings at a time."""

"""Upper bounds of the numbers in study files and options: a larger one is taken for a typing error."""

from __future__ import annotations

COUNT = 10**9
"""Examples."""
EPOCHS = 10**6
BATCH = 10**7
"""Examples or subwords in a batch."""
BEAM = 1_000
"""Hypotheses kept for each sentence."""
TOKENS = 10**5
"""Subwords of a sentence."""
ROUNDS = 10**4
"""Rounds of measurement."""
PIXELS = 10**4
"""The side of an image."""
JOBS = 256
"""Trainings that run at once."""
THREADS = 4_096
"""CPU threads of one process."""

"""``python -m leanformer.runtime.memory``: the memory of a process that opens an exported model and uses it once.

It reads one JSON object from standard input and writes a number of 10^6 bytes to standard output, or ``null``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from leanformer.runtime.classifier import Classifier
from leanformer.runtime.loading import load


def measure(request: dict[str, Any]) -> float | None:
    """The peak memory of this process, in 10^6 bytes, after a model has answered.

    Args:
        request: ``directory`` and ``threads``; ``images``, their number, or ``sentences`` and ``settings``.
    """
    model = load(request["directory"], request["threads"])
    if isinstance(model, Classifier):
        shape = (request["images"], model.images.channels, model.images.height, model.images.width)
        model.logits(np.zeros(shape, dtype=np.float32))
    else:
        model.translate(request["sentences"], **request["settings"])
    return peak()


def peak() -> float | None:
    """The most memory that this process has had, in 10^6 bytes; None where the system does not tell."""
    status = Path("/proc/self/status")
    if status.exists():
        # On Linux ``getrusage`` says no less than the memory of the process that started this one.
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        if "VmHWM" in lines:
            return int(lines["VmHWM"].split()[0]) * 1024 / 1e6  # in kibibytes
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kibibytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


if __name__ == "__main__":
    print(json.dumps(measure(json.load(sys.stdin))))

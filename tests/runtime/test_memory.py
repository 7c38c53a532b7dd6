"""The memory of a process that runs an exported model."""

from __future__ import annotations

import subprocess
import sys

import pytest

from leanformer.runtime.memory import peak

PEAK = "from leanformer.runtime.memory import peak; print(peak())"


def _peak_of_a_process() -> float:
    return float(subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell")
def test_the_memory_of_the_process_that_started_it_does_not_count() -> None:
    held = bytearray(b"x") * 300_000_000
    before = peak()
    assert before is not None and before > len(held) / 1e6
    assert 5 < _peak_of_a_process() < 200

"""The memory of an exported model is that of its own process, whatever the process that asks has taken."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from exported import write_classifier

from leanformer.core.errors import LeanformerError
from leanformer.measure.engine_memory import classifying_memory


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process does not inherit this figure")
def test_the_memory_of_the_process_that_asks_does_not_count(tmp_path: Path) -> None:
    write_classifier(tmp_path)
    held = np.ones(400_000_000, np.uint8)  # as a study holds its data
    found = classifying_memory(tmp_path, 2, 1)
    assert found is not None
    assert 20 < found < held.nbytes / 1e6


def test_a_process_that_fails(tmp_path: Path) -> None:
    with pytest.raises(LeanformerError, match=r"its memory could not be measured: .*not an exported directory"):
        classifying_memory(tmp_path, 2, 1)

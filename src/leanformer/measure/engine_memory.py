"""The memory that an exported model takes, in a process of its own: an engine says nothing of its memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from leanformer.core.errors import LeanformerError


def classifying_memory(directory: Path, images: int, threads: int) -> float | None:
    """The memory of classifying a batch of images.

    Args:
        directory: The exported directory.
        images: In the batch; their content does not matter.
        threads: CPU threads.

    Returns:
        The peak memory of the whole process, Python and engine included, in 10^6 bytes; None where the system does not
        tell.

    Raises:
        LeanformerError: The process failed.
    """
    return _memory({"directory": str(directory), "threads": threads, "images": images})


def translating_memory(
    directory: Path, sentences: Sequence[str], settings: Mapping[str, Any], threads: int
) -> float | None:
    """The memory of translating sentences; see ``classifying_memory``.

    Args:
        directory: The exported directory.
        sentences: The sentences.
        settings: The arguments of ``Translator.translate``.
        threads: CPU threads.
    """
    request = {
        "directory": str(directory),
        "threads": threads,
        "sentences": list(sentences),
        "settings": dict(settings),
    }
    return _memory(request)


def _memory(request: Mapping[str, Any]) -> float | None:
    done = subprocess.run(
        [sys.executable, "-m", "leanformer.runtime.memory"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise LeanformerError(f"{request['directory']}: its memory could not be measured: {last}")
    found: float | None = json.loads(done.stdout)
    return found

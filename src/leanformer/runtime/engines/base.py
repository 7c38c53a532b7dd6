"""What an engine does for the runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from leanformer.core.extras import not_installed
from leanformer.core.registry import Registry
from leanformer.runtime.manifest import Manifest


@dataclass(frozen=True)
class EngineOptions:
    """How an engine runs.

    Args:
        threads: CPU threads of one call; None: what the engine takes.
        device: ``cpu``, or ``auto``, ``cuda``, ``tensorrt``, ``directml``, ``coreml`` where the engine has it.
    """

    threads: int | None = None
    device: str = "cpu"


class Classifies(Protocol):
    """An engine with a classifier."""

    def logits(self, pixel_values: NDArray[np.float32]) -> NDArray[np.float32]:
        """(batch, channels, height, width) of normalized pixels -> (batch, classes)."""


class Generates(Protocol):
    """An engine with a translator."""

    def generate(self, sources: Sequence[Sequence[int]], *, beam: int, max_tokens: int) -> list[list[int]]:
        """The ids of translations.

        Args:
            sources: Ids of the sources, each with its end mark; all are one batch.
            beam: Hypotheses per source; 1 is greedy.
            max_tokens: Most ids of a translation, the end mark included.

        Returns:
            For each source the ids, without the start mark, with the end mark where the translation has ended.

        Raises:
            LeanformerError: The engine cannot search with a beam.
        """


OpenEngine = Callable[[Path, Manifest, EngineOptions], Classifies | Generates]
"""Opens the engine's files in an exported directory.

Raises a ``LeanformerError`` where the engine is not installed (the message names the extra), or lacks the device.
"""

ENGINES: Registry[OpenEngine] = Registry("leanformer.runtime.engines", order=("onnx", "ctranslate2"))
"""Name of the format -> how its engine opens what is exported to it."""


def library(name: str, directory: Path) -> Any:
    """An engine's library, imported.

    Args:
        name: Of the module.
        directory: The exported directory that needs it, for the message.

    Raises:
        LeanformerError: It is not installed; the message says how to install it.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        missing = not_installed(error, str(directory))
        if missing is None:
            raise
        raise missing from None

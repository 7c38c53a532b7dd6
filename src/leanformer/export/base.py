"""What a format is: how a model is written in an engine's own form."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

from leanformer.core.extras import not_installed, require
from leanformer.core.registry import Registry
from leanformer.runtime.manifest import Precision

Logits = NDArray[np.float32]
"""A translation's logits, shape (subwords written, vocabulary)."""
WritesLogits = Callable[[Sequence[Sequence[int]], int], list[Logits]]
"""Ids of the sources of one batch, each with its end mark, and most ids of a translation -> for each source the logits
of every subword that is written, the end mark included. Those of subwords that are never written may be minus infinity.
"""
OpenWriter = Callable[[], WritesLogits]


class Format(ABC):
    """A form in which models are shipped, and the engine that runs it.

    A format registers itself in its module with ``FORMATS.add``. The module of the same name in ``runtime.engines``
    runs what it writes.

    Class attributes:
        name: Its name: ``onnx``.
        precisions: The precisions of weights that it can write.
        packages: The packages that write it and run it. The manifest records their versions.
    """

    name: ClassVar[str]
    precisions: ClassVar[tuple[Precision, ...]]
    packages: ClassVar[tuple[str, ...]]

    def check_installed(self) -> None:
        """Checks that the format's packages are there: a model is written by some, and then compared in the engine.

        Raises:
            LeanformerError: One is not; the message says which extra installs it.
        """
        for package in self.packages:
            try:
                require(package)
            except ModuleNotFoundError as error:
                raise not_installed(error, f"exporting to {self.name}") or error from None

    @abstractmethod
    def check(self, model: PreTrainedModel, precision: Precision) -> None:
        """Checks that the format can hold a model, before anything is written. It needs no weights.

        Args:
            model: A model of a supported family or a student; its weights may be on the device ``meta``.
            precision: The precision of the weights.

        Raises:
            LeanformerError: It cannot; the message names the site that stands in the way.
        """

    @abstractmethod
    def write(self, model: PreTrainedModel, directory: Path, precision: Precision) -> OpenWriter | None:
        """Writes the engine's files. Tokenizers, manifest and card are written by the caller.

        Args:
            model: On the CPU, in float32 and evaluation mode. It is not changed.
            directory: It exists, and is empty or holds other files.
            precision: The precision of the weights.

        Returns:
            Of a translator, what opens it in the engine to see its logits, for the check of parity in float32.

        Raises:
            LeanformerError: As ``check``.
        """


FORMATS: Registry[Format] = Registry("leanformer.export", order=("onnx", "ctranslate2"))
"""Name -> format."""

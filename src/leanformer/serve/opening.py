"""Opens the model that a command names: an exported one by its engine, any other by PyTorch."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from leanformer.core.errors import LeanformerError
from leanformer.core.extras import not_installed, require
from leanformer.core.translating import Ids, Tokenizer
from leanformer.runtime import Classifier, TextClassifier, load
from leanformer.runtime.manifest import is_exported
from leanformer.runtime.translator import BATCH_TOKENS


class Translates(Protocol):
    """A translator, whatever runs it.

    Attributes:
        tokenizer: Of both sides.
        max_source_tokens: Most subwords of a source, the end mark included.
    """

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def max_source_tokens(self) -> int: ...

    def translate(
        self,
        lines: Sequence[str],
        beam: int = 1,
        max_tokens: int | None = None,
        batch_tokens: int = BATCH_TOKENS,
        progress: Callable[[int], object] | None = None,
    ) -> list[str]:
        """As ``runtime.Translator.translate``."""

    def generate(self, sources: Sequence[Sequence[int]], *, beam: int = 1, max_tokens: int | None = None) -> Ids:
        """As ``runtime.Translator.generate``."""


def open_model(model: str, device: str, threads: int | None) -> Classifier | TextClassifier | Translates:
    """Opens a model.

    Args:
        model: An exported directory, any other model's directory, or a hub id.
        device: ``auto`` or a device's name.
        threads: CPU threads; None: what the engine or PyTorch takes.

    Raises:
        LeanformerError: There is no such model, it cannot be opened, or there is no such device.
    """
    if is_exported(Path(os.path.expanduser(model))):
        return load(model, threads, device)
    _require_torch(model)
    from leanformer.serve.torch_models import open_torch_model  # loads PyTorch, which takes seconds

    return open_torch_model(model, device, threads)


def open_translator(model: str, device: str, threads: int | None) -> Translates:
    """Opens a translator; arguments as of ``open_model``.

    Raises:
        LeanformerError: As of ``open_model``; or the model is no translator.
    """
    if is_exported(Path(os.path.expanduser(model))):
        opened = load(model, threads, device)
        if isinstance(opened, Classifier):
            raise LeanformerError(f"{model}: a model for image-classification, not a translator")
        return opened
    _require_torch(model)
    from leanformer.serve.torch_models import open_torch_translator

    return open_torch_translator(model, device, threads)


def _require_torch(model: str) -> None:
    """Without PyTorch a path may as well be mistyped, unless a model for it is there: then both are told.

    Raises:
        LeanformerError: PyTorch is not installed, and there is no such model's directory.
        ModuleNotFoundError: PyTorch is not installed.
    """
    try:
        require("torch")
    except ModuleNotFoundError as error:
        if Path(os.path.expanduser(model), "config.json").is_file():
            raise
        what = f"{model}: not an exported directory (it has no manifest.json), and any other model"
        raise not_installed(error, what) or error from None

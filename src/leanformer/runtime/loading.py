"""Opens an exported directory."""

from __future__ import annotations

import os
from typing import cast

from leanformer.core.bounds import THREADS
from leanformer.core.errors import LeanformerError, quoted
from leanformer.core.paths import as_path
from leanformer.runtime.classifier import Classifier
from leanformer.runtime.engines.base import ENGINES, Classifies, EngineOptions, Generates
from leanformer.runtime.manifest import read_manifest
from leanformer.runtime.translator import TextTokenizer, Translator


def load(directory: str | os.PathLike[str], threads: int | None = None, device: str = "cpu") -> Classifier | Translator:
    """Opens what ``leanformer export`` wrote, with numpy, pillow, tokenizers and the engine alone.

    Args:
        directory: The exported directory. Its files are checked against the manifest before any is opened.
        threads: CPU threads of a call; by default what the engine takes.
        device: ``cpu``, ``cuda`` or ``auto``, which takes a GPU if the engine has one; for ONNX ``tensorrt``,
            ``directml`` and ``coreml`` too.

    Returns:
        A classifier of images, or a translator.

    Raises:
        LeanformerError: It is no exported directory, a file is missing or changed, the engine is not installed (the
            message says which extra installs it), or has no such device.
    """
    place = as_path(directory, "directory")
    if threads is not None and (not isinstance(threads, int) or not 1 <= threads <= THREADS):
        raise LeanformerError(f"threads: give a whole number from 1 to {THREADS:,}, not {quoted(threads)}")
    manifest = read_manifest(place)
    if manifest.format not in ENGINES:
        raise LeanformerError(
            f"{place}: of the format {quoted(manifest.format)}, which this leanformer does not know; it runs "
            f"{', '.join(ENGINES)}: install a later version"
        )
    engine = ENGINES[manifest.format](place, manifest, EngineOptions(threads, device))
    if manifest.texts is not None:
        return Translator(manifest.texts, TextTokenizer(place, manifest.texts), cast(Generates, engine))
    if manifest.images is not None:
        return Classifier(manifest.images, cast(Classifies, engine))
    raise LeanformerError(f"{place}: its manifest says neither images nor texts; export the model again")

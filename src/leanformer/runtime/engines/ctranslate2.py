"""CTranslate2: translators of plain layers, greedily or with a beam (https://github.com/OpenNMT/CTranslate2)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

from leanformer.core.errors import LeanformerError, first_line
from leanformer.runtime.engines.base import ENGINES, Classifies, EngineOptions, Generates, library
from leanformer.runtime.manifest import Manifest

MODEL = "ctranslate2"
"""The directory of the engine's own files in an exported one."""
DEVICES = ("cpu", "cuda")


@ENGINES.register("ctranslate2")
def open_ctranslate2(directory: Path, manifest: Manifest, options: EngineOptions) -> Classifies | Generates:
    """Opens an exported directory's translator; see ``OpenEngine``."""
    ctranslate2 = library("ctranslate2", directory)
    present = DEVICES if ctranslate2.get_cuda_device_count() else DEVICES[:1]
    if options.device not in ("auto", *DEVICES):
        raise LeanformerError(f"device {options.device}: ctranslate2 runs on none of this name; choose auto, cpu, cuda")
    if options.device not in ("auto", *present):
        raise LeanformerError(f"device {options.device}: ctranslate2 finds none here; choose {', '.join(present)}")
    try:
        translator = open_translator(directory / MODEL, options.device, options.threads)
    except (RuntimeError, ValueError) as error:
        raise LeanformerError(
            f"{directory / MODEL}: ctranslate2 {ctranslate2.__version__} cannot open it ({first_line(error)}); install "
            f"ctranslate2 {manifest.versions.get('ctranslate2', 'of a later version')}, or export the model again"
        ) from error
    return CTranslate2Translator(translator, directory / MODEL, manifest)


def open_translator(place: Path, device: str, threads: int | None) -> Any:
    """CTranslate2's own translator; the number of threads of nothing else in the process changes.

    Opening one sets the number of OpenMP's threads of the thread that opens it, and so PyTorch's: it is opened in a
    thread of its own.

    Args:
        place: The directory of the engine's files.
        device: Of ``DEVICES``, or ``auto``.
        threads: CPU threads that a translation takes; None for the engine's own choice.

    Raises:
        RuntimeError, ValueError: The engine's, if it cannot open the files.
    """
    make = import_module("ctranslate2").Translator
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(make, str(place), device=device, inter_threads=1, intra_threads=threads or 0).result()


class CTranslate2Translator:
    """A translator; see ``Generates``.

    Args:
        translator: CTranslate2's.
        directory: Of its files; its vocabularies list a token for each id.
        manifest: With ``texts``.
    """

    def __init__(self, translator: Any, directory: Path, manifest: Manifest) -> None:
        assert manifest.texts is not None
        self._translator = translator
        self._eos_id = manifest.texts.eos_id
        self._source_tokens = _vocabulary(directory, "source")
        self._target_ids = {token: number for number, token in enumerate(_vocabulary(directory, "target"))}

    def generate(self, sources: Sequence[Sequence[int]], *, beam: int, max_tokens: int) -> list[list[int]]:
        if max_tokens == 1:  # the end mark alone
            return [[self._eos_id] for _ in sources]
        try:
            results = self._translator.translate_batch(
                [[self._source_tokens[number] for number in ids] for ids in sources],
                beam_size=beam,
                max_input_length=0,  # no limit
                min_decoding_length=0,  # a translation may be empty
                max_decoding_length=max_tokens - 1,  # the last place is the end mark's, as transformers forces it
            )
        except RuntimeError as error:
            if "alloc" not in str(error) and "out of memory" not in str(error):
                raise
            raise LeanformerError(f"out of memory with a batch of {len(sources):,}; take smaller batches") from error
        return [[self._target_ids[token] for token in result.hypotheses[0]] + [self._eos_id] for result in results]


def _vocabulary(directory: Path, side: str) -> list[str]:
    """CTranslate2's tokens of a side, in the order of their ids; one file serves both sides where they are equal."""
    shared = directory / "shared_vocabulary.json"
    file = shared if shared.is_file() else directory / f"{side}_vocabulary.json"
    return json.loads(file.read_text(encoding="utf-8"))

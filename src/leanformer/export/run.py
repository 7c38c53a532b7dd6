"""Exports a model: checks it, writes it beside its place, compares it, and moves it into place."""

from __future__ import annotations

import copy
import importlib.metadata
import os
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from leanformer.core.errors import LeanformerError, quoted
from leanformer.core.files import replace_directory, sha256, write_atomically
from leanformer.core.paths import check_directory
from leanformer.data.tokenizers import TranslationTokenizer
from leanformer.export.base import FORMATS, Format, OpenWriter
from leanformer.export.card import card
from leanformer.export.parity import Comparison, Progress, compare_classifiers, compare_translators
from leanformer.measure.inputs import image_input
from leanformer.model.directory import hash_of_weights
from leanformer.model.family import find_family
from leanformer.model.generate import UNLIMITED, most_tokens
from leanformer.model.hf import STUDENT_PREFIX
from leanformer.model.weights import HALF, in_float32, parameter_count
from leanformer.runtime.engines.base import ENGINES, Classifies, EngineOptions, Generates
from leanformer.runtime.manifest import (
    CARD,
    PRECISIONS,
    ImageInput,
    Manifest,
    Parity,
    Precision,
    Source,
    TextInput,
    content_of,
    files_of_others,
    read_manifest,
    write_manifest,
)
from leanformer.runtime.translator import BATCH_TOKENS, TextTokenizer

TOKENIZERS = ("tokenizer.json", "target_tokenizer.json")
"""The tokenizer's files: of the source side or of both, and of the target side."""
_NOT_COMPARED = Parity(inputs=0, described="", agreement=0.0, largest_difference=None, near_ties=0)


@dataclass(frozen=True)
class Samples:
    """Real inputs of a model.

    Args:
        items: Prepared images, (channels, height, width) each; or sentences to translate.
        described: What they are, in words.
    """

    items: Iterable[NDArray[np.float32]] | Iterable[str]
    described: str


@dataclass(frozen=True)
class Origin:
    """The run that a model comes from.

    Args:
        study: The study's name.
        candidate: The candidate's.
        seed: The training's.
        decision: As in ``Manifest``.
    """

    study: str | None = None
    candidate: str | None = None
    seed: int | None = None
    decision: dict[str, Any] | None = None


def find_format(name: object, precision: object) -> tuple[Format, Precision]:
    """The format and the precision of these names.

    Raises:
        LeanformerError: There is no such format, it has no such precision, or its packages are not installed.
    """
    if not isinstance(name, str) or name not in FORMATS:
        raise LeanformerError(f"there is no format {quoted(name)}; formats: {', '.join(FORMATS)}")
    found = FORMATS[name]
    if precision not in found.precisions:
        known = f"precisions of {name}: {', '.join(found.precisions)}"
        if precision in PRECISIONS:
            raise LeanformerError(f"{name} does not write {precision}; {known}")
        raise LeanformerError(f"there is no precision {quoted(precision)}; {known}")
    found.check_installed()
    return found, precision


def check_place(out: Path) -> None:
    """Makes sure that a directory can be written: it is new, empty, or an earlier export alone, which is replaced.

    Raises:
        LeanformerError: It is something else.
    """
    check_directory(out)
    if Path(os.path.abspath(out)) in (here := Path.cwd(), *here.parents):
        raise LeanformerError(f"{out}: the directory that this runs in cannot be replaced; give the name of a new one")
    other = next(files_of_others(out), None) if os.path.lexists(out) else None
    if other is not None:
        raise LeanformerError(
            f"{out}: holds files that are no part of an exported model ({other}); give a new or empty directory"
        )


def export_model(
    model: PreTrainedModel,
    source: str,
    samples: Samples,
    out: Path,
    *,
    to: str,
    precision: Precision = "float32",
    origin: Origin | None = None,
    progress: Progress = lambda further: None,
) -> Manifest:
    """Writes a model in the form of an engine, if the engine says the same as the model.

    The directory holds the engine's files, the tokenizer's, ``manifest.json`` and a card, ``README.md``. It is written
    beside its place and renamed: on any error nothing is left, and an earlier export is kept.

    Args:
        model: In float32, float16 or bfloat16; in the latter two it is written, and compared, as the same numbers in
            float32. It is not changed.
        source: Its directory or hub id, which has the tokenizer, or the preparation of images.
        samples: What it is compared on with its model.
        out: The directory; new, empty or an earlier export.
        to: A format's name: ``onnx`` or ``ctranslate2``.
        precision: Of the weights.
        origin: The run that it comes from.
        progress: Called with the number of further inputs that were compared.

    Raises:
        LeanformerError: The format cannot hold the model, its engine is not installed, or what was written does not
            say the same as the model in float32. In another precision the agreement is recorded.
    """
    form, precision = find_format(to, precision)
    check_place(out)
    form.check(model, precision)
    images: ImageInput | None = None
    tokenizer: TranslationTokenizer | None = None
    ready = _ready(model)
    if model.config.is_encoder_decoder:
        tokenizer = TranslationTokenizer.load(source)
        # As ``translate`` has them.
        ready.generation_config.eos_token_id = tokenizer.eos_id
        ready.generation_config.pad_token_id = tokenizer.pad_id
    else:
        images = image_input(source, model)
    origin = origin or Origin()
    written: list[Manifest] = []

    def fill(directory: Path) -> None:
        opener = form.write(ready, directory, precision)
        size = sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())
        texts = None if tokenizer is None else _write_tokenizer(tokenizer, ready, directory)
        manifest = Manifest(
            version=1 if texts is None else texts.version,
            format=form.name,
            precision=precision,
            task=find_family(model).task or model.config.model_type,
            source=Source(
                model=source,
                weights=hash_of_weights(source),
                architecture=str(model.config.model_type).removeprefix(STUDENT_PREFIX),
                parameters=parameter_count(model),
                study=origin.study,
                candidate=origin.candidate,
                seed=origin.seed,
            ),
            plan=getattr(model.config, "plan", None) or {},
            images=images,
            texts=texts,
            bytes=size,
            parity=_NOT_COMPARED,
            decision=origin.decision,
            versions=_versions(form),
        )
        found = _compare(opener, ready, directory, manifest, tokenizer, samples, progress)
        if not found.inputs:
            raise LeanformerError(f"{samples.described}: holds no input that the model can read; give other data")
        if precision == "float32":
            found.check(f"{form.name} {precision}")
        parity = found.parity(samples.described, with_logits=precision == "float32")
        manifest = manifest.model_copy(update={"parity": parity})
        write_atomically(directory / CARD, card(manifest, directory))
        written.append(write_manifest(directory, manifest))

    replace_directory(out, fill)
    return written[-1]


def decided_manifest(directory: Path, decision: dict[str, Any]) -> bytes | None:
    """The manifest of an exported directory with what a study decided on the model; its card is told at once.

    Args:
        directory: The exported directory. Its card is written anew, unless somebody has changed it.
        decision: As in ``Manifest``.

    Returns:
        The content of the new ``manifest.json``, which the caller writes; None where it says so already.

    Raises:
        LeanformerError: The directory is damaged, or cannot be written.
    """
    manifest = read_manifest(directory)
    decided = manifest.model_copy(update={"decision": decision})
    if decided.model_dump(mode="json") == manifest.model_dump(mode="json"):
        return None
    file = directory / CARD
    if file.is_file() and sha256(file) == manifest.files.get(CARD):
        write_atomically(file, card(decided, directory))
        decided = decided.model_copy(update={"files": {**manifest.files, CARD: sha256(file)}})
    return content_of(decided)


def _ready(model: PreTrainedModel) -> PreTrainedModel:
    """The model on the CPU, in float32 and evaluation mode, with generation settings that may be changed.

    Raises:
        LeanformerError: Its weights are in a precision that float32 does not hold.
    """
    if model.dtype in HALF:
        model = in_float32(model)  # exactly
    if model.dtype != torch.float32:
        raise LeanformerError(
            f"the model's weights are in {str(model.dtype).removeprefix('torch.')}; models in float32 are "
            "exported, and those in float16 and bfloat16"
        )
    ready = copy.copy(model) if model.device.type == "cpu" and not model.training else copy.deepcopy(model).cpu().eval()
    if ready.can_generate():
        ready.generation_config = copy.deepcopy(model.generation_config)
    return ready


def _write_tokenizer(tokenizer: TranslationTokenizer, model: PreTrainedModel, directory: Path) -> TextInput:
    """Writes the tokenizer's files, in the form of the library ``tokenizers``.

    Raises:
        LeanformerError: It has no such form.
    """
    source, target = tokenizer.library_forms()
    names = TOKENIZERS[:1] if source is target else TOKENIZERS
    for name, side in zip(names, (source, target), strict=False):
        write_atomically(directory / name, side.to_str())
    most_of_source, most_of_target = most_tokens(model)
    return TextInput(
        source_tokenizer=names[0],
        target_tokenizer=names[-1],
        pad_id=tokenizer.pad_id,
        eos_id=tokenizer.eos_id,
        max_source_tokens=most_of_source,
        # A model whose positions do not end may write without end.
        max_target_tokens=BATCH_TOKENS if most_of_target == UNLIMITED else most_of_target,
        split_special_tokens=tokenizer.splits_marks,
        clean_up=tokenizer.cleans_up,
        prefix=tokenizer.prefix,
    )


def _compare(
    opener: OpenWriter | None,
    model: PreTrainedModel,
    directory: Path,
    manifest: Manifest,
    tokenizer: TranslationTokenizer | None,
    samples: Samples,
    progress: Progress,
) -> Comparison:
    """Compares what was written with its model, in its engine."""
    engine = ENGINES[manifest.format](directory, manifest, EngineOptions(threads=torch.get_num_threads()))
    if tokenizer is None:
        images = cast(Iterable[NDArray[np.float32]], samples.items)
        return compare_classifiers(model, cast(Classifies, engine), images, progress)
    assert manifest.texts is not None
    return compare_translators(
        model,
        cast(Generates, engine),
        opener() if opener is not None and manifest.precision == "float32" else None,
        tokenizer,
        TextTokenizer(directory, manifest.texts),
        cast(Iterable[str], samples.items),
        progress,
    )


def _versions(form: Format) -> dict[str, str]:
    """The versions of what made an exported directory."""
    packages = ("leanformer", "torch", "transformers", "tokenizers", *form.packages)
    return {name: _version(name) for name in packages}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # of a distribution with another name, such as onnxruntime-gpu
        return str(import_module(package).__version__)

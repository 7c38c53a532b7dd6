"""``leanformer convert``: writes a model's pickled weights as safetensors, without running code from the pickle."""

from __future__ import annotations

import json
import os
import shutil
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import PreTrainedModel

from leanformer.core.errors import LeanformerError
from leanformer.core.files import replace_directory
from leanformer.core.progress import quiet_libraries
from leanformer.core.torch_internals import unpickling_problem
from leanformer.model.directory import (
    PICKLES,
    SAFETENSORS,
    check_outline,
    find_directory,
    one_line,
    path_of,
    read_architecture,
    read_json,
    stored_tensors,
    weight_files,
)
from leanformer.model.hf import computed_tensors, read_generation_config
from leanformer.model.students import check_finite, check_fit, load

COMPANIONS = (
    "added_tokens.json",
    "generation_config.json",
    "merges.txt",
    "preprocessor_config.json",
    "processor_config.json",
    "sentencepiece.bpe.model",
    "source.spm",
    "special_tokens_map.json",
    "spiece.model",
    "target.spm",
    "target_vocab.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)
"""The files that are copied too: a tokenizer's and an image processor's, which are data. No other is, and no code."""
_SIDES = ("source_tokenizer", "target_tokenizer")


def convert(source: str | os.PathLike[str], out: str | os.PathLike[str]) -> Path:
    """Writes a model whose weights are pickled (``pytorch_model.bin``) with safetensors.

    Pickles are read by ``torch.load(weights_only=True)``, which makes tensors and plain containers and calls nothing
    else. The result is written beside its place, loaded once to prove it, and moved there whole.

    Args:
        source: A model's directory, or a hub id; of a supported family.
        out: The directory to make; it must not exist, or be empty.

    Returns:
        ``out``.

    Raises:
        LeanformerError: There is no such model, it is of no supported family, its weights are safetensors already, hold
            more than tensors, are not numbers or do not fit its configuration; or ``out`` is in use or cannot be
            written.
    """
    name = path_of(source)
    target = free_directory(out)
    directory = find_directory(name, [PICKLES[0], PICKLES[1], "pytorch_model-*.bin", *COMPANIONS])
    try:
        architecture = read_architecture(directory)
        tensors = _read_pickles(directory, name)
        stored = stored_tensors(tensors, PICKLES[0])
        check_outline(architecture, stored.numbers)
        with quiet_libraries():
            model, info = architecture.model_class.from_pretrained(
                None,
                config=architecture.config,
                state_dict=tensors,
                dtype=stored.precision,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                local_files_only=True,
                trust_remote_code=False,
            )
        if model.can_generate():
            model.generation_config = read_generation_config(directory)
    except Exception as error:  # of many types: a configuration may say anything
        raise LeanformerError(f"{name}: not a model that can be converted: {one_line(error)}") from error
    check_fit(info, name)
    check_finite(model, name)

    def fill(temporary: Path) -> None:
        model.save_pretrained(temporary)
        copy_companions(directory, temporary)
        _prove(temporary, model)

    try:
        replace_directory(target, fill)
    except (SafetensorError, ValueError) as error:
        raise LeanformerError(f"{out}: the model cannot be written: {one_line(error)}") from error
    return Path(out)


def free_directory(out: str | os.PathLike[str]) -> Path:
    """A directory to write, without symbolic links.

    Raises:
        LeanformerError: It is in use, or a broken link.
    """
    given = path_of(out, "out")
    if os.path.islink(given) and not os.path.exists(given):
        raise LeanformerError(f"{out}: is a broken link; remove it, or give a new directory")
    target = Path(os.path.realpath(given))
    if (
        target == target.parent
        or (target.exists() and not target.is_dir())
        or (target.is_dir() and any(target.iterdir()))
    ):
        raise LeanformerError(f"{out}: exists already; give a new directory, or an empty one")
    return target


def _read_pickles(directory: Path, name: str) -> dict[str, Tensor]:
    """All tensors of a model's pickled files, by name."""
    if any((directory / file).is_file() for file in SAFETENSORS):
        raise LeanformerError(f"its weights are safetensors already; take {name} as it is")
    files = weight_files(directory, *PICKLES)
    if not files:
        raise LeanformerError("it holds neither pytorch_model.bin nor pytorch_model.bin.index.json")
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors |= _read_pickle(file)
    return tensors


def _read_pickle(file: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings(action="ignore"):  # about formats that it may fail to read
            # Files of the older format, which are not archives, cannot be mapped into memory.
            found: Any = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except Exception as error:  # of any type, for a damaged or malicious file; none of its code has run
        raise LeanformerError(
            f"{file.name} is damaged, or holds more than tensors, which is not read ({unpickling_problem(error)}); get "
            "the weights as safetensors from where the model was made"
        ) from error
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise LeanformerError(f"{file.name} holds no mapping of names to tensors, but a {type(found).__name__}")
    for key, tensor in found.items():
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise LeanformerError(f"{file.name}: {key[:60]!r} is not a plain tensor; save the model's state_dict alone")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise LeanformerError(f"{file.name}: {key[:60]!r} claims more numbers than the file holds")
    return dict(found)


def copy_companions(directory: Path, to: Path) -> None:
    """Copies the files of a tokenizer or an image processor from one model's directory to another, without code."""
    for place in (".", *_SIDES):
        for name in COMPANIONS:
            file = directory / place / name
            if not file.is_file() or (to / place / name).exists():
                continue
            (to / place).mkdir(exist_ok=True)
            if name.endswith("_config.json"):
                settings = {key: value for key, value in read_json(file).items() if key != "auto_map"}
                (to / place / name).write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", "utf-8")
            else:
                shutil.copyfile(file, to / place / name)


def _prove(directory: Path, model: PreTrainedModel) -> None:
    """Loads what was written, and compares every number that is stored."""
    found = load(directory).state_dict()
    computed = computed_tensors(model)
    for name, tensor in model.state_dict().items():
        if name not in computed and not torch.equal(tensor, found[name]):
            raise LeanformerError(f"the written {name} is not what was read; the disk may be damaged")

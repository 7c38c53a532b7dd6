"""Model directories, read as data: their code never runs, they cannot start a download, and no question is asked.

What a directory says is checked before transformers sees it: which architecture it is, that its sizes are sane, and
that its weights are safetensors in this directory.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedConfig, PreTrainedModel

from leanformer.core.errors import LeanformerError
from leanformer.core.paths import as_path, other_kind
from leanformer.model.family import FAMILIES, Family, family_of
from leanformer.model.hf import (
    ATTENTION_KEYS,
    STUDENT_PREFIX,
    computed_tensors,
    configuration_of_type,
    with_decoded_floats,
)
from leanformer.model.sizes import check_memory, check_settings, mistake_of, outline
from leanformer.model.vision import model_class_named

CONFIG_FILES = ("config.json", "generation_config.json")
SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")  # whole, or the index of its parts
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_LARGEST_JSON = 64 * 2**20  # bytes; the names of a million classes take less

# transformers would load a quantizer's library, other code in place of a layer, or weights from elsewhere.
_REFUSED = {
    "quantization_config": "its weights are quantized; save it in float32, float16 or bfloat16 without that key",
    "fusion_config": "it asks for fused layers; remove that key",
    "transformers_weights": "it names a weights file of its own; name the file model.safetensors and remove that key",
    "per_layer_config": "its layers differ from each other in their configuration, which leanformer cannot reduce",
}
ATTENTIONS = ("eager", "sdpa", "flex_attention")
"""Attention implementations that PyTorch brings; transformers may fetch any other from the hub."""
RECOMMENDED = ("eager", "sdpa")  # flex_attention cannot be trained on a CPU
# Left out: the address of code, which never runs; other names of keys; and requests for more outputs, which are not
# used here, and with which transformers refuses to save any attention but eager.
_LEFT_OUT = ("auto_map", "attribute_map", "output_attentions", "output_hidden_states")
_FEW_NUMBERS = 1_000_000


@dataclass(frozen=True)
class Architecture:
    """The model that a configuration describes.

    Args:
        family: The family.
        config: The configuration.
        model_class: The installed class that is made of it: a student's, or the family's own.
    """

    family: Family
    config: PreTrainedConfig
    model_class: type[PreTrainedModel]


def path_of(source: str | os.PathLike[str], argument: str = "source") -> str:
    """A path or hub id as text, with ``~`` expanded.

    Args:
        source: What the user gave.
        argument: Its name, for messages.

    Raises:
        LeanformerError: It is neither, or no file can have that name.
    """
    name = os.fspath(source) if isinstance(source, str | os.PathLike) else None
    if not isinstance(name, str) or not name or "\0" in name:
        shown = repr(name) if isinstance(name, str) else type(source).__name__
        raise LeanformerError(f"{argument}: give a path, as text or as a Path, not {shown}")
    as_path(name, argument)
    return os.path.expanduser(name)


def find_directory(source: str | os.PathLike[str], weights: Sequence[str]) -> Path:
    """The directory of a model; for a hub id the one that its files are downloaded to.

    Args:
        source: A directory or hub id.
        weights: Patterns of the weights' files, for the hub.

    Raises:
        LeanformerError: There is no such directory, it holds no model, or the hub gives none.
    """
    name = path_of(source)
    directory = Path(name)
    if os.path.isdir(directory):
        if not os.path.lexists(directory / "config.json"):
            raise LeanformerError(f"{name}: not a model directory: it holds no config.json")
        return directory
    if os.path.exists(directory):
        raise LeanformerError(f"{name}: not a model directory, but a file; give the directory that it is in")
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name) or name.startswith((".", "/")):
        hub = "" if "/" in name else ", and no hub id, which has the form owner/name"
        raise LeanformerError(f"{name[:200]}: no such model directory{hub}")
    there = _fetch(name, None, CONFIG_FILES)
    if not (there / "config.json").is_file():
        raise LeanformerError(f"{name}: not a model of transformers: the hub has no config.json of it")
    try:
        read_architecture(there)  # before many bytes are fetched for nothing
    except LeanformerError as error:
        raise LeanformerError(f"{name}: not a model that can be loaded: {error}") from error
    # The cache's directory is named after the commit: the weights are of the same.
    return _fetch(name, there.name, [*CONFIG_FILES, *weights])


def _fetch(name: str, revision: str | None, patterns: Sequence[str]) -> Path:
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    except Exception as error:  # whatever the network's libraries raise
        raise LeanformerError(
            f"{name}: not a model that can be loaded: no such directory here, and the hub does not give it "
            f"({one_line(error)})"
        ) from error


def read_architecture(directory: Path) -> Architecture:
    """Reads and checks ``config.json``.

    A model type that is known here is made of the installed class, whatever code the directory brings (``auto_map``).

    Raises:
        LeanformerError: The file cannot be read, describes no supported model, or one that leanformer does not read as
            it stands; the message does not name the directory.
    """
    settings = with_decoded_floats(read_json(directory / "config.json"))
    model_type = settings.get("model_type")
    if model_type == "timm_wrapper" or (model_type is None and "architecture" in settings):
        raise LeanformerError(
            f"a timm model ({settings.get('architecture', 'of no named architecture')}), which leanformer does not "
            "read; take a ViT or DeiT in the form of transformers, such as google/vit-base-patch16-224"
        )
    if settings.get("architectures") == ["DeiTForImageClassificationWithTeacher"]:
        raise LeanformerError(
            "a distilled DeiT with two classifiers (DeiTForImageClassificationWithTeacher), which leanformer does not "
            "reduce; take a DeiT with one, such as facebook/deit-base-patch16-224, or keep its body with "
            "DeiTForImageClassification.from_pretrained(DIR).save_pretrained(OUT) and train the new classifier"
        )
    for key, problem in _REFUSED.items():
        if settings.get(key) is not None:
            raise LeanformerError(f"config.json: {key}: {problem}")
    _check_attention(settings)
    check_settings(settings, "config.json")
    family = _family_of(settings)
    student = model_type != family.name
    if student:
        _check_plan(settings.get("plan"))
    config_class = family.student_config_class if student else family.config_class
    model_class = family.student_model_class if student else family.model_class
    try:
        left_out = _LEFT_OUT if student else (*_LEFT_OUT, "plan")
        config = config_class.from_dict({key: value for key, value in settings.items() if key not in left_out})
        family.check_config(config, "config.json")
    except LeanformerError:
        raise
    except StrictDataclassError as error:
        raise LeanformerError(f"config.json: {mistake_of(error, settings)}") from error
    except Exception as error:  # of many types: every key may have any value
        raise LeanformerError(f"config.json: {one_line(error)}") from error
    return Architecture(family, config, model_class)


def _family_of(settings: Mapping[str, Any]) -> Family:
    """The family of the model that a configuration describes.

    Raises:
        LeanformerError: It names no architecture of transformers.
    """
    model_type, names = settings.get("model_type"), settings.get("architectures")
    if not isinstance(model_type, str):
        raise LeanformerError(
            f"config.json: model_type is {str(model_type)[:60]}; it must name an architecture of transformers"
        )
    if configuration_of_type(model_type.removeprefix(STUDENT_PREFIX)) is None:
        raise LeanformerError(f"model type {model_type[:60]!r} is not supported: transformers has no such architecture")
    own = FAMILIES.get(model_type.removeprefix(STUDENT_PREFIX))
    name = names[0] if isinstance(names, list) and len(names) == 1 and isinstance(names[0], str) else None
    student = model_type.startswith(STUDENT_PREFIX)
    other = None if name is None else model_class_named(name.removeprefix("Lean") if student else name)
    if own is not None and other in (None, own.model_class):  # who wrote an unknown name has meant this architecture
        return own
    if name is None:
        raise LeanformerError(
            f"config.json: architectures is {str(names)[:60]}; it must name the class of the model, as save_pretrained "
            "writes it"
        )
    if other is None:
        raise LeanformerError(f"model type {model_type!r} with the class {name[:60]} is not one of transformers")
    family = family_of(other)
    if family.name != model_type.removeprefix(STUDENT_PREFIX):
        raise LeanformerError(
            f"config.json: model_type {model_type!r} and the class {name[:60]} do not belong together"
        )
    return family


def read_json(path: Path) -> dict[str, Any]:
    """The object that a file of JSON holds.

    Raises:
        LeanformerError: It holds none, or cannot be read; the message names the file without its directory.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise LeanformerError(f"{path.name} is not a regular file")
        if path.stat().st_size > _LARGEST_JSON:
            raise LeanformerError(f"{path.name} has more than {_LARGEST_JSON:,} bytes; it is no configuration")
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LeanformerError(f"{path.name} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, numbers or nesting beyond all bounds
        raise LeanformerError(f"{path.name} is not JSON: {one_line(error)}") from error
    if not isinstance(value, dict):
        raise LeanformerError(f"{path.name} holds no JSON object, but a {type(value).__name__}")
    return value


def _check_attention(settings: Mapping[str, Any]) -> None:
    for key in ATTENTION_KEYS:
        given = settings.get(key)
        if given is not None and given not in ATTENTIONS:
            raise LeanformerError(
                f"config.json: {key} is {str(given)[:60]!r}, and transformers may fetch code for it; remove the key, "
                f"or write one of {', '.join(RECOMMENDED)}"
            )


def _check_plan(plan: Any) -> None:
    """Checks the form alone: the content is checked where its blocks are built."""
    if plan is not None and not (isinstance(plan, dict) and all(isinstance(entry, dict) for entry in plan.values())):
        raise LeanformerError("config.json: plan must be a mapping of sites to blocks with their arguments")


def safetensors_files(directory: Path, name: str) -> list[Path]:
    """The files that hold a model's weights.

    Args:
        directory: The model's directory.
        name: The user's name for it, for the command in messages.

    Raises:
        LeanformerError: There are none, or transformers would read other files than these.
    """
    if os.path.lexists(directory / "adapter_config.json"):
        raise LeanformerError(
            "adapter_config.json: a PEFT adapter is beside the weights; merge it into the model (merge_and_unload) "
            "and save that, or remove the file"
        )
    if any(re.match(r"shard-\d{5}-model-", path.name) for path in directory.iterdir()):
        raise LeanformerError("a distributed checkpoint of PyTorch; save the model whole with save_pretrained")
    files = weight_files(directory, *SAFETENSORS)
    if files:
        return files
    if any(os.path.lexists(directory / file) for file in PICKLES):
        raise LeanformerError(
            f"its weights are pickled (pytorch_model.bin), and a pickle can run code; write them as safetensors "
            f"first: leanformer convert {name} OUT"
        )
    others = sorted(path.name for path in directory.iterdir() if path.suffix in _OTHER_WEIGHTS)[:3]
    found = f", only {', '.join(others)}, which leanformer does not read" if others else ""
    raise LeanformerError(f"it holds no model.safetensors{found}; save it with save_pretrained of transformers")


def hash_of_weights(source: str | os.PathLike[str]) -> str:
    """SHA-256 of a model's weights, file after file: by it a model is known wherever it lies.

    Args:
        source: Its directory or hub id.

    Raises:
        LeanformerError: There is no such model.
    """
    digest = hashlib.sha256()
    for path in files_of_weights(source):
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def files_of_weights(source: str | os.PathLike[str]) -> list[Path]:
    """The files of a model's weights, sorted; arguments and errors as of ``hash_of_weights``."""
    directory = find_directory(source, [*SAFETENSORS, "model-*.safetensors"])
    return sorted(safetensors_files(directory, os.fspath(source)))


def precision_of(source: str | os.PathLike[str]) -> str:
    """The type in which a model is loaded, such as ``float32``; arguments and errors as of ``hash_of_weights``."""
    return str(stored_in(files_of_weights(source)).precision).removeprefix("torch.")


_OTHER_WEIGHTS = (".bin", ".ckpt", ".gguf", ".h5", ".msgpack", ".npz", ".onnx", ".pt", ".pth", ".safetensors")


def weight_files(directory: Path, whole: str, index: str) -> list[Path]:
    """The file of the weights, or the files that an index names; empty where there is neither.

    Raises:
        LeanformerError: The index cannot be read, or names a file that is missing or elsewhere.
    """
    if (directory / whole).is_file():
        return [directory / whole]
    for name in (whole, index):
        if kind := other_kind(directory / name):
            raise LeanformerError(f"{name} is {kind}; put the file itself in its place")
    if not os.path.lexists(directory / index):
        return []
    names = read_json(directory / index).get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise LeanformerError(f"{index} holds no weight_map of tensors to files")
    files = []
    for name in sorted(set(names.values())):
        if name != os.path.basename(name) or name in ("", ".", "..") or "\\" in name or "\0" in name:
            raise LeanformerError(f"{index} names {name[:60]!r}; the weights must be in the directory itself")
        if not (directory / name).is_file():
            kind = other_kind(directory / name)
            problem = f"which is {kind}" if kind else "and there is no such file"
            raise LeanformerError(f"{index} names {name[:60]!r}, {problem}")
        files.append(directory / name)
    return files


_FLOATING = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}
_WHOLE = ("BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64")
_NO_NUMBERS = "which no model here holds; save it in float32, float16 or bfloat16"


@dataclass(frozen=True)
class Stored:
    """The content of files of weights.

    Args:
        numbers: How many numbers.
        precision: The narrowest floating type that holds all of them exactly.
    """

    numbers: int
    precision: torch.dtype


def stored_in(files: Sequence[Path]) -> Stored:
    """How many numbers safetensors files hold, and of which type, from their headers.

    Raises:
        LeanformerError: A file is damaged, is not a safetensors file, or holds numbers of a type that no model has.
    """
    total = 0
    types: set[torch.dtype] = set()
    for file in files:
        try:
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118  (not a mapping)
                    part = tensors.get_slice(name)
                    total += math.prod(part.get_shape())
                    kind = part.get_dtype()
                    if kind in _FLOATING:
                        types.add(_FLOATING[kind])
                    elif kind not in _WHOLE:
                        raise LeanformerError(f"{file.name}: {name[:60]!r} is of type {kind}, {_NO_NUMBERS}")
        except (SafetensorError, OSError) as error:
            raise LeanformerError(f"{file.name}: {one_line(error)}") from error
    return Stored(total, widest(types))


def stored_tensors(tensors: Mapping[str, torch.Tensor], file: str) -> Stored:
    """As ``stored_in``, for tensors that are read already.

    Args:
        tensors: The tensors by name.
        file: The file that they are from, for messages.

    Raises:
        LeanformerError: One is of a type that no model has.
    """
    types = set()
    for name, tensor in tensors.items():
        if tensor.dtype in _FLOATING.values():
            types.add(tensor.dtype)
        elif tensor.is_complex() or tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise LeanformerError(f"{file}: {name[:60]!r} is of type {kind}, {_NO_NUMBERS}")
    return Stored(sum(tensor.numel() for tensor in tensors.values()), widest(types))


def widest(types: Iterable[torch.dtype]) -> torch.dtype:
    """The narrowest floating type that holds the numbers of all given ones exactly; float32 where there are none."""
    return reduce(torch.promote_types, types) if (types := set(types)) else torch.float32


def check_outline(architecture: Architecture, stored: int) -> None:
    """Checks, without memory for it, that a configuration describes a model of about as many numbers as are stored.

    A smaller model is reported while loading, tensor by tensor; a far larger one must not be allocated.

    Args:
        architecture: What the configuration describes.
        stored: Numbers in the files.

    Raises:
        LeanformerError: It describes no model that can be made, or one that is far larger.
    """
    try:
        model = outline(architecture.model_class, architecture.config)
    except LeanformerError:
        raise
    except Exception as error:  # of many types: every key may have any value
        raise LeanformerError(f"config.json: {one_line(error)}") from error
    computed = computed_tensors(model)
    described = sum(parameter.numel() for name, parameter in model.named_parameters() if name not in computed)
    if described > 2 * stored + _FEW_NUMBERS:
        raise LeanformerError(
            f"the weights do not fit the configuration: it describes {described:,} numbers, the files hold {stored:,}"
        )
    check_memory(model, "config.json")


def one_line(error: BaseException) -> str:
    """A library's error on one line of bounded length."""
    return " ".join(str(error).split())[:300] or type(error).__name__

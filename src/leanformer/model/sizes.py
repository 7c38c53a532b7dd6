"""How large a model may be: bounds on configurations, and its memory, before anything is allocated."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import psutil
import torch
from transformers import PreTrainedConfig, PreTrainedModel

from leanformer.core.errors import LeanformerError, quoted
from leanformer.model.hf import use_eager_attention

# Each far above any published model, and low enough that a model of that many layers is checked in seconds.
_MOST = {
    "hidden_size": 65_536,
    "d_model": 65_536,
    "num_hidden_layers": 1_000,
    "encoder_layers": 1_000,
    "decoder_layers": 1_000,
    "num_attention_heads": 65_536,
    "encoder_attention_heads": 65_536,
    "decoder_attention_heads": 65_536,
    "intermediate_size": 1_048_576,
    "encoder_ffn_dim": 1_048_576,
    "decoder_ffn_dim": 1_048_576,
    "pooler_output_size": 1_048_576,
    "image_size": 16_384,
    "patch_size": 16_384,
    "encoder_stride": 16_384,
    "num_channels": 4_096,
    "num_labels": 1_048_576,
    "vocab_size": 16_777_216,
    "decoder_vocab_size": 16_777_216,
    "max_position_embeddings": 16_777_216,
}
_SIDES = ("image_size", "patch_size")  # a number, or height and width
_OF_STAGES = ("num_attention_heads",)  # a number, or one for each stage
_OPTIONAL = ("pooler_output_size", "decoder_vocab_size", "num_labels", "classifier_dropout")
_PROBABILITIES = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "dropout",
    "attention_dropout",
    "activation_dropout",
    "classifier_dropout",
    "encoder_layerdrop",
    "decoder_layerdrop",
)
_FLAGS = ("output_hidden_states", "output_attentions", "return_dict")
PRECISIONS = ("float64", "float32", "float16", "bfloat16")
_MOST_OF_ANY = 2**53  # what JSON holds exactly


def check_settings(settings: Mapping[str, Any], where: str) -> None:
    """Checks the numbers of a configuration before transformers reads it: some would make loops that never end.

    Args:
        settings: Configuration keys; only those of a size and of a probability have bounds of their own.
        where: What an error names as the place.

    Raises:
        LeanformerError: A size is not a whole number within its bounds, or another number is not finite.
    """
    for key, value in settings.items():
        if value is None and key in _OPTIONAL:
            continue
        if key in _MOST:
            _check_size(key, value, where)
        elif key in _PROBABILITIES:
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
                raise LeanformerError(f"{where}: {key} is {shown(value)}; it must be from 0 to less than 1")
        elif key in _FLAGS:
            if not isinstance(value, bool) or (key == "return_dict" and not value):
                right = "true, as outputs are read by their names" if key == "return_dict" else "true or false"
                raise LeanformerError(f"{where}: {key} is {shown(value)}; it must be {right}")
        elif key == "id2label":
            if value is not None and not (isinstance(value, Mapping) and all(str(key).isdecimal() for key in value)):
                raise LeanformerError(
                    f"{where}: id2label is {quoted(value)}; it must be a mapping of whole numbers to names"
                )
        elif key in ("dtype", "torch_dtype"):
            if value is not None and str(value).removeprefix("torch.") not in PRECISIONS:
                raise LeanformerError(f"{where}: {key} is {shown(value)}; it must be one of {', '.join(PRECISIONS)}")
        elif isinstance(value, float) and not math.isfinite(value):
            raise LeanformerError(f"{where}: {key} is {value}; it must be a finite number")
        elif isinstance(value, int) and abs(value) > _MOST_OF_ANY:
            raise LeanformerError(f"{where}: {key} is {shown(value)}; it must be at most {_MOST_OF_ANY:,}")


def _check_size(key: str, value: Any, where: str) -> None:
    several = isinstance(value, list | tuple) and (
        (key in _SIDES and len(value) == 2) or (key in _OF_STAGES and len(value) > 0)
    )
    numbers = value if several else [value]
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= _MOST[key]:
            form = "a whole number, or height and width," if key in _SIDES else "a whole number,"
            bounds = "1 or more" if isinstance(number, int) and number < 1 else f"from 1 to {_MOST[key]:,}"
            raise LeanformerError(f"{where}: {key} is {shown(value)}; it must be {form} {bounds}")


_TYPES = {"str": "a text", "bool": "true or false", "int": "a whole number", "float": "a number with a point"}


def mistake_of(error: Exception, settings: Mapping[str, Any]) -> str:
    """What transformers says of a value of a wrong type, in plain words.

    Args:
        error: The error of transformers.
        settings: The settings that were given.
    """
    text = " ".join(str(error).split())
    field = re.search(r"field '(\w+)'", text)
    wanted = dict.fromkeys(_TYPES[name] for name in re.findall(r"expected (\w+)", text) if name in _TYPES)
    if field is None or not wanted or field[1] not in settings:
        return text[:200]
    return f"{field[1]} is {quoted(settings[field[1]])}; it must be {' or '.join(wanted)}"


def shown(value: Any) -> str:
    """A value in few characters; a number may have more digits than Python writes."""
    if isinstance(value, int) and abs(value) > 10**30:
        return "a number of more than 30 digits"
    text = repr(value) if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
    return text if len(text) <= 40 else f"{text[:40]}..."


def check_heads(config: Any, keys: Sequence[str], width_key: str, where: str) -> None:
    """Checks that heads divide the width of the hidden states.

    Args:
        config: A configuration.
        keys: Its keys of numbers of heads.
        width_key: Its key of the width.
        where: What an error names as the place.

    Raises:
        LeanformerError: They do not.
    """
    width = getattr(config, width_key)
    for key in keys:
        heads = getattr(config, key)
        if width % heads:
            raise LeanformerError(f"{where}: {key} {heads} does not divide {width_key} {width}")


def outline(model_class: type[PreTrainedModel], config: PreTrainedConfig) -> PreTrainedModel:
    """The model that a configuration describes, on the device "meta": without memory for its weights.

    Random generators are not changed, nor is the configuration: the model has a copy. Called with inputs on that
    device, without masks, it does all products that the model would do.
    """
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        model = model_class(copy.deepcopy(config))
    use_eager_attention(model)
    return model


def check_memory(model: torch.nn.Module, where: str) -> None:
    """Checks that a model without memory of its own (see ``outline``) fits into what this machine has free.

    Args:
        model: The model; its numbers take 4 bytes each.
        where: What an error names as the place.

    Raises:
        LeanformerError: It does not.
    """
    numbers = sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers()))
    free = psutil.virtual_memory().available
    if 4 * numbers > free:
        raise LeanformerError(
            f"{where}: a model of {numbers:,} parameters takes {4 * numbers / 1e9:,.1f} GB in float32, and "
            f"{free / 1e9:,.1f} GB are free on this machine; make it smaller"
        )

"""The configuration keys that a study gives a fresh model: which have an effect here, and which values they may have.

transformers accepts the keys of any model, and ignores most of those that do nothing in a classifier or translator.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers.activations import ACT2FN

from leanformer.core.errors import LeanformerError, quoted
from leanformer.model.family import Family

_WHAT_IT_RETURNS = "a study asks its models for the outputs that it needs"
_WRITTEN_BY_TRANSFORMERS = "transformers writes it into a saved model"
_SAID_BY_THE_FAMILY = "it follows from the family"
_PRECISION = "models are kept in float32, and train.precision is the precision of training"
_WITHOUT_EFFECT = {
    "architectures": _WRITTEN_BY_TRANSFORMERS,
    "chunk_size_feed_forward": "the family's layers do not read it",
    "dtype": _PRECISION,
    "is_decoder": _SAID_BY_THE_FAMILY,
    "is_encoder_decoder": _SAID_BY_THE_FAMILY,
    "label2id": "the names of classes come from id2label or from the data",
    "model_type": _SAID_BY_THE_FAMILY,
    "output_attentions": _WHAT_IT_RETURNS,
    "output_hidden_states": _WHAT_IT_RETURNS,
    "problem_type": "the task is the study's",
    "return_dict": _WHAT_IT_RETURNS,
    "torch_dtype": _PRECISION,
    "transformers_version": _WRITTEN_BY_TRANSFORMERS,
    "use_cache": "translations are always generated with the cache, and training does not use it",
}
"""Key -> why it would do nothing in a model of any family; each shape of families has more."""
_MOST = {"initializer_range": 10, "init_std": 10, "layer_norm_eps": 0.1}
"""The greatest values of numbers above 0; beyond them no model learns."""
_ACTIVATIONS = ("hidden_act", "activation_function")


def check_fresh_settings(settings: Mapping[str, Any], family: Family, where: str) -> None:
    """Checks what a study gives a fresh model, beyond its sizes.

    Args:
        settings: Configuration keys.
        family: The model's family.
        where: What an error names as the place.

    Raises:
        LeanformerError: A key has no effect, or a value with which no model could learn.
    """
    without_effect = {**_WITHOUT_EFFECT, **family.without_effect}
    for key, value in settings.items():
        if key == "label2id" and value == _numbers_of(settings.get("id2label")):
            continue  # it repeats id2label
        if key in without_effect:
            raise LeanformerError(f"{where}: {key} has no effect here: {without_effect[key]}; leave it out")
        if key in _MOST:
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not 0 < value <= _MOST[key]:
                raise LeanformerError(
                    f"{where}: {key} is {quoted(value)}; it must be a number above 0, {_MOST[key]:g} at most"
                )
        elif key in _ACTIVATIONS:
            if not isinstance(value, str) or value not in ACT2FN:
                raise LeanformerError(
                    f"{where}: {key} is {quoted(value)}; it must be one of transformers' activations, such as gelu, "
                    "relu or silu"
                )
        elif key == "id2label":
            _check_names(value, f"{where}: {key}")


def _numbers_of(names: object) -> dict[str, int] | None:
    """The ``label2id`` of an ``id2label``."""
    if not isinstance(names, Mapping) or not all(str(number).isdecimal() for number in names):
        return None
    return {str(name): int(number) for number, name in names.items()}


def with_decimal_points(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, with whole numbers as floats where transformers takes nothing else."""
    return {key: float(value) if key in _MOST and type(value) is int else value for key, value in settings.items()}


def _check_names(names: object, where: str) -> None:
    wanted = "write each class's number, from 0 on, and its name, such as {0: cat, 1: dog}"
    if not isinstance(names, Mapping):
        raise LeanformerError(f"{where} is {quoted(names)}; {wanted}")
    if sorted(str(number) for number in names) != sorted(str(number) for number in range(len(names))):
        raise LeanformerError(f"{where} numbers {quoted(list(names))}; {wanted}")
    if not all(isinstance(name, str) for name in names.values()) or len(set(names.values())) < len(names):
        raise LeanformerError(f"{where} names {quoted(list(names.values()))}; {wanted}, each with a name of its own")

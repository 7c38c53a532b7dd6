"""The two parts of a classifier: a body, which may have been trained for something else, and a head for its classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

from leanformer.core.errors import LeanformerError
from leanformer.model.finding.finder import find
from leanformer.model.vision import seeing_config


def class_names(config: Any) -> tuple[str, ...]:
    """The names of a classifier's outputs, in their order."""
    return tuple(str(config.id2label.get(number, f"LABEL_{number}")) for number in range(config.num_labels))


def body_of(model: PreTrainedModel) -> PreTrainedModel:
    """The part of a model that turns its inputs into tokens: what stays where a classifier gets another head."""
    # Some bodies call a part of themselves their base.
    body = model if type(model).__name__ in MODEL_MAPPING_NAMES.values() else model.base_model
    return body if seeing_config(model.config) is model.config else getattr(body, "vision_model", body)


def head_parameters(model: PreTrainedModel) -> set[str]:
    """The names of the parameters that a classifier has beside its body."""
    inside = {id(parameter) for parameter in body_of(model).parameters()}
    return {name for name, parameter in model.named_parameters() if id(parameter) not in inside}


def check_complete(model: PreTrainedModel, missing: Sequence[str], where: str) -> None:
    """Checks that a body lacks no weights but of what follows its layers, such as a norm before the pooling.

    Args:
        model: The classifier.
        missing: The names of the tensors of its body that have no trained weights.
        where: How messages call the trained model.
    """
    if not missing:
        return
    body = body_of(model)
    paths = {id(module): path for path, module in body.named_modules()}
    last = paths[id(model.get_submodule(next(iter(find(model).values())).layers[-1].path))]
    names = [name for name, _ in body.named_parameters()]
    end = max(number for number, name in enumerate(names) if name.startswith(f"{last}."))
    for name in missing:
        if name in names[: end + 1]:
            raise LeanformerError(f"baseline.model: {where} has no weights for {name}; take a model that is complete")

"""Models that read images: which part of them does, and what images they take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import transformers
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
)

from leanformer.model.finding import facts

TASK = "image-classification"
"""The study's task that image classifiers are for."""


@dataclass(frozen=True)
class PixelInput:
    """The images that a model takes.

    Args:
        channels: How many.
        size: Height and width in pixels; None where the model prescribes none.
        patch: Height and width in pixels of the patches that it cuts; None where they are no keys of its configuration.
    """

    channels: int
    size: tuple[int, int] | None
    patch: tuple[int, int] | None


def seeing_config(config: Any) -> Any:
    """The configuration of a model's part that reads images: of CLIP's image tower, or of the whole model."""
    return getattr(config, "vision_config", None) or config


def pixel_input(config: Any) -> PixelInput:
    """The images that a model takes, as its configuration says."""
    seeing = seeing_config(config)
    size, patch = (getattr(seeing, key, None) for key in ("image_size", "patch_size"))
    channels = getattr(seeing, "num_channels", 3)
    return PixelInput(int(channels), None if size is None else sides(size), None if patch is None else sides(patch))


def sides(size: Any) -> tuple[int, int]:
    """Height and width of what a configuration gives as one number or two."""
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def is_classifier(model_class: type[PreTrainedModel]) -> bool:
    """Whether a class of models is one of transformers' image classifiers, or ``PooledClassifier``."""
    entries = MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES.values()
    names = {name for entry in entries for name in ([entry] if isinstance(entry, str) else entry)}
    return any(known.__name__ in names or known is PooledClassifier for known in model_class.__mro__)


def prefix_tokens(model: nn.Module) -> int:
    """How many tokens stand before an image's patches: class, distillation and register tokens."""
    return sum(
        parameter.shape[1] if parameter.dim() == 3 else 1
        for name, parameter in model.named_parameters()
        if name.rpartition(".")[2] in facts.PREFIX_TOKENS
    )


class PooledClassifier(PreTrainedModel):
    """A classifier for a body that transformers has none for: the mean of its patches, and a linear map.

    Its subclasses are also of the base class of their body's architecture (``pooled_classifier``).
    """

    body_class: ClassVar[type[PreTrainedModel]]
    base_model_prefix = "body"

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.body = self.body_class(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.prefix_tokens = prefix_tokens(self.body)
        self.post_init()

    def forward(
        self, pixel_values: torch.Tensor | None = None, labels: torch.Tensor | None = None, **kwargs: Any
    ) -> ImageClassifierOutput:
        """(batch, channels, height, width) -> logits (batch, labels), and the loss where labels are given."""
        outputs = self.body(pixel_values, **kwargs)
        patches = outputs.last_hidden_state[:, self.prefix_tokens :]  # (batch, patches, d_model)
        logits = self.classifier(patches.mean(dim=1))
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        return ImageClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


POOLED = "Pooled"
"""The name of a ``PooledClassifier`` is this prefix and the name of its body's class."""


_POOLED: dict[type[PreTrainedModel], type[PreTrainedModel]] = {}


def pooled_classifier(body_class: type[PreTrainedModel]) -> type[PreTrainedModel]:
    """The classifier whose body is of a class of transformers; always the same one."""
    if body_class not in _POOLED:
        base = next(known for known in body_class.__mro__[1:] if issubclass(known, PreTrainedModel))
        _POOLED[body_class] = type(
            f"{POOLED}{body_class.__name__}",
            (PooledClassifier, base),
            {
                "__doc__": f"A classifier of a {body_class.__name__}'s patches.",
                "__module__": __name__,
                "body_class": body_class,
                "config_class": body_class.config_class,
            },
        )
    return _POOLED[body_class]


def model_class_named(name: str) -> type[PreTrainedModel] | None:
    """The class that ``config.json`` names: one of transformers, or a ``PooledClassifier``; None for any other name."""
    found = getattr(transformers, name.removeprefix(POOLED), None)
    if not (isinstance(found, type) and issubclass(found, PreTrainedModel)):
        return None
    return pooled_classifier(found) if name.startswith(POOLED) else found

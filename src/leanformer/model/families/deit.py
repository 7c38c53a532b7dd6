"""DeiT."""

from __future__ import annotations

from typing import Any

from transformers import DeiTConfig, DeiTForImageClassification
from transformers.models.deit.modeling_deit import DeiTAttention, DeiTLayer

from leanformer.model.family import register
from leanformer.model.hf import STUDENT_PREFIX
from leanformer.model.layers import OpenEncoderLayer
from leanformer.model.shapes.image import ImageFamily, ImageStudent


class OpenDeiTLayer(OpenEncoderLayer, DeiTLayer):
    """A DeiT's layer; also of the architecture's own class, so that transformers records hidden states."""


class LeanDeiTConfig(DeiTConfig):
    """A DeiT's configuration and the resolved plan of its student."""

    model_type = f"{STUDENT_PREFIX}deit"
    plan: dict[str, Any] | None = None


class LeanDeiTForImageClassification(ImageStudent, DeiTForImageClassification):
    """A reduced DeiT."""

    config_class = LeanDeiTConfig


register(
    ImageFamily(
        name="deit",
        config_class=DeiTConfig,
        model_class=DeiTForImageClassification,
        attention_class=DeiTAttention,
        encoder_layer_class=OpenDeiTLayer,
        student_config_class=LeanDeiTConfig,
        student_model_class=LeanDeiTForImageClassification,
        special_tokens=2,  # class and distillation
    )
)

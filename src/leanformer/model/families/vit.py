"""ViT."""

from __future__ import annotations

from typing import Any

from transformers import ViTConfig, ViTForImageClassification
from transformers.models.vit.modeling_vit import ViTAttention, ViTLayer

from leanformer.model.family import register
from leanformer.model.hf import STUDENT_PREFIX
from leanformer.model.layers import OpenEncoderLayer
from leanformer.model.shapes.image import ImageFamily, ImageStudent


class OpenViTLayer(OpenEncoderLayer, ViTLayer):
    """A ViT's layer; also of the architecture's own class, so that transformers records hidden states."""


class LeanViTConfig(ViTConfig):
    """A ViT's configuration and the resolved plan of its student."""

    model_type = f"{STUDENT_PREFIX}vit"
    plan: dict[str, Any] | None = None


class LeanViTForImageClassification(ImageStudent, ViTForImageClassification):
    """A reduced ViT."""

    config_class = LeanViTConfig


register(
    ImageFamily(
        name="vit",
        config_class=ViTConfig,
        model_class=ViTForImageClassification,
        attention_class=ViTAttention,
        encoder_layer_class=OpenViTLayer,
        student_config_class=LeanViTConfig,
        student_model_class=LeanViTForImageClassification,
        special_tokens=1,
    )
)

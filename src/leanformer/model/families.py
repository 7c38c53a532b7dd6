"""The adapters to Hugging Face architectures: where a model's sites are, and how its layers are opened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import (
    DeiTConfig,
    DeiTForImageClassification,
    PreTrainedConfig,
    PreTrainedModel,
    ViTConfig,
    ViTForImageClassification,
)
from transformers.models.deit.modeling_deit import DeiTAttention, DeiTLayer
from transformers.models.vit.modeling_vit import ViTAttention, ViTLayer

from leanformer.blocks.base import AttentionWeights
from leanformer.errors import LeanformerError
from leanformer.model.layers import OpenLayer, PatchProjection, PatchTokens, Sublayer

STUDENT_PREFIX = "leanformer_"


class OpenViTLayer(OpenLayer, ViTLayer):
    """An open layer that transformers knows as a ViT layer, so that it records hidden states."""


class OpenDeiTLayer(OpenLayer, DeiTLayer):
    """An open layer that transformers knows as a DeiT layer, so that it records hidden states."""


@dataclass(frozen=True)
class ImageFamily:
    """A pre-norm image classifier of Hugging Face: embeddings, layers, norm, classifier.

    Args:
        name: The configuration's ``model_type``.
        config_class: Its configuration.
        model_class: Its image classifier.
        open_layer_class: What its layers are exchanged for.
        attention_class: Its attention module.
        special_tokens: Tokens before the patches (class, distillation).
    """

    name: str
    config_class: type[PreTrainedConfig]
    model_class: type[PreTrainedModel]
    open_layer_class: type[OpenLayer]
    attention_class: type[nn.Module]
    special_tokens: int

    def open_layer(self, layer: Any) -> OpenLayer:
        """The layer as an open one that holds the same modules; an open layer is given back as it is."""
        if isinstance(layer, OpenLayer):
            return layer
        dropout = layer.dropout.p
        return self.open_layer_class(
            Sublayer(layer.layernorm_before, layer.attention, dropout),
            Sublayer(layer.layernorm_after, layer.mlp, dropout),
        )

    def open_embeddings(self, model: PreTrainedModel) -> None:
        """Exchanges the convolution that cuts images into patches for the matrix product that it is."""
        patches = model.base_model.embeddings.patch_embeddings
        if not isinstance(patches.projection, PatchProjection):
            patches.projection = PatchProjection(patches.projection)

    def attention_weights(self, module: nn.Module) -> AttentionWeights | None:
        """The weights of this family's own attention in the common layout; None for any other module."""
        if not isinstance(module, self.attention_class):
            return None
        attention: Any = module

        def weight(projection: nn.Linear) -> torch.Tensor:
            return projection.weight.detach().T

        def bias(projection: nn.Linear) -> torch.Tensor | None:
            return None if projection.bias is None else projection.bias.detach()

        return AttentionWeights(
            query=weight(attention.q_proj),
            key=weight(attention.k_proj),
            value=weight(attention.v_proj),
            output=weight(attention.o_proj),
            query_bias=bias(attention.q_proj),
            key_bias=bias(attention.k_proj),
            value_bias=bias(attention.v_proj),
            output_bias=bias(attention.o_proj),
            num_heads=attention.num_attention_heads,
            scaling=attention.scaling,
        )

    def drop_special_tokens(self, model: PreTrainedModel) -> None:
        """Takes class and distillation tokens, and their positions, out of the embeddings."""
        body = model.base_model
        if not isinstance(body.embeddings, PatchTokens):
            body.embeddings = PatchTokens(body.embeddings, self.special_tokens)


FAMILIES = {
    family.name: family
    for family in (
        ImageFamily("vit", ViTConfig, ViTForImageClassification, OpenViTLayer, ViTAttention, special_tokens=1),
        ImageFamily("deit", DeiTConfig, DeiTForImageClassification, OpenDeiTLayer, DeiTAttention, special_tokens=2),
    )
}


def find_family(model: PreTrainedModel) -> ImageFamily:
    """The family of a Hugging Face model or of a student.

    Raises:
        LeanformerError: The model is of no supported architecture, or has no classifier.
    """
    if not isinstance(model, PreTrainedModel):
        raise LeanformerError(
            f"leanformer reduces Hugging Face models, not {type(model).__name__}; families: {', '.join(FAMILIES)}"
        )
    model_type = str(model.config.model_type).removeprefix(STUDENT_PREFIX)
    family = FAMILIES.get(model_type)
    if family is None:
        raise LeanformerError(f"model type {model_type!r} is not supported; families: {', '.join(FAMILIES)}")
    if not isinstance(model, family.model_class):
        raise LeanformerError(
            f"a {type(model).__name__} is not an image classifier; load it as {family.model_class.__name__}"
        )
    return family


def device_and_dtype(model: PreTrainedModel) -> tuple[torch.device, torch.dtype]:
    """Where a model's weights are, and in which precision."""
    weight = next(model.parameters())
    return weight.device, weight.dtype

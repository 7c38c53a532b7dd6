"""The shape of image classifiers: embeddings, pre-norm layers, a norm, a classifier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import AutoModelForImageClassification, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput

from leanformer.blocks.pooling import ClassTokenPooling
from leanformer.core.errors import LeanformerError
from leanformer.model.hf import asks_for_more
from leanformer.model.layers import OpenLayer, Sublayer
from leanformer.model.patches import PatchProjection, PatchTokens
from leanformer.model.shapes.open import OpenFamily
from leanformer.model.shapes.student import Student
from leanformer.model.sizes import check_heads
from leanformer.model.stacks import real_tokens
from leanformer.model.vision import TASK, sides

_NO_POOLER = "an image classifier has no pooler"


@dataclass(frozen=True, kw_only=True)
class ImageFamily(OpenFamily):
    """A pre-norm image classifier: embeddings, layers, norm, classifier."""

    task: ClassVar[str] = TASK
    auto_class: ClassVar[Any] = AutoModelForImageClassification
    described: ClassVar[str] = "an image classifier"
    has_pooling: ClassVar[bool] = True
    shape_keys: ClassVar[tuple[str, ...]] = (
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "patch_size",
    )
    without_effect: ClassVar[Mapping[str, str]] = {
        "encoder_stride": "it is for models that reconstruct images",
        "pooler_act": _NO_POOLER,
        "pooler_output_size": _NO_POOLER,
    }
    projections: ClassVar[tuple[str, str, str, str]] = ("q_proj", "k_proj", "v_proj", "o_proj")
    heads_attribute: ClassVar[str] = "num_attention_heads"
    activation_key: ClassVar[str] = "hidden_act"

    def stacks(self, model: PreTrainedModel) -> dict[str, nn.ModuleList]:
        return {"encoder": model.base_model.layers}

    def heads(self, config: Any, stack: str) -> int:
        return int(config.num_attention_heads)

    def check_config(self, config: Any, where: str) -> None:
        """Heads divide the width, and no patch is larger than the image; see ``Family``."""
        check_heads(config, ("num_attention_heads",), "hidden_size", where)
        for image, patch in zip(sides(config.image_size), sides(config.patch_size), strict=True):
            if patch > image:
                raise LeanformerError(f"{where}: patch_size {patch} is more than image_size {image}")

    def open_layer(self, layer: Any, stack: str, index: int) -> OpenLayer:
        if isinstance(layer, OpenLayer):
            return layer
        dropout = layer.dropout.p
        return self.encoder_layer_class(
            Sublayer(layer.layernorm_before, layer.attention, dropout, pre_norm=True),
            Sublayer(layer.layernorm_after, layer.mlp, dropout, pre_norm=True),
            index,
        )

    def open(self, model: PreTrainedModel) -> None:
        super().open(model)
        # The convolution that cuts images into patches becomes the equivalent matrix product.
        patches = model.base_model.embeddings.patch_embeddings
        if not isinstance(patches.projection, PatchProjection):
            patches.projection = PatchProjection(patches.projection)
        if not hasattr(model, "pooling"):
            model.pooling = ClassTokenPooling()

    def grid(self, model: PreTrainedModel) -> tuple[int, int] | None:
        patches = model.base_model.embeddings.patch_embeddings
        rows, columns = (pixels // side for pixels, side in zip(patches.image_size, patches.patch_size, strict=True))
        return rows, columns

    def special_tokens_left(self, model: PreTrainedModel) -> int:
        return 0 if isinstance(model.base_model.embeddings, PatchTokens) else self.special_tokens

    def drop_special_tokens(self, model: PreTrainedModel) -> None:
        body = model.base_model
        if not isinstance(body.embeddings, PatchTokens):
            body.embeddings = PatchTokens(body.embeddings, self.special_tokens)

    def _attention_dropout(self, attention: Any) -> float:
        return float(attention.attention_dropout)


class ImageStudent(Student):
    """Mixed into a Hugging Face image classifier: reduced as its plan says, pooled by a site."""

    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        interpolate_pos_encoding: bool | None = None,
        attention_mask: torch.Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> ImageClassifierOutput | tuple[torch.Tensor, ...]:
        """(batch, channels, height, width) -> logits (batch, labels), and the loss where labels are given.

        Where only the class token is read, the last layer computes nothing else, unless hidden states or attentions are
        asked for: its MLP has one token, and a ``minimal_attention`` one query.
        """
        first_token_of = None
        if self.pooling.needs_class_token and not asks_for_more(self.config, kwargs):
            present = [layer.index for layer in self.base_model.layers if layer.present]
            first_token_of = present[-1] if present else None
        outputs = self.base_model(
            pixel_values,
            interpolate_pos_encoding=interpolate_pos_encoding,
            attention_mask=attention_mask,
            padding_mask=real_tokens(attention_mask),
            first_token_of=first_token_of,
            **kwargs,
        )
        logits = self.classifier(self.pooling(outputs.last_hidden_state))
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        output = ImageClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )
        wants_dict = self.config.return_dict if return_dict is None else return_dict
        return output if wants_dict else output.to_tuple()

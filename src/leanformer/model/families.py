"""The adapters to Hugging Face architectures: where a model's sites are, and how its layers are opened."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForImageClassification,
    AutoModelForSeq2SeqLM,
    BartConfig,
    BartForConditionalGeneration,
    DeiTConfig,
    DeiTForImageClassification,
    MarianConfig,
    MarianMTModel,
    PreTrainedConfig,
    PreTrainedModel,
    ViTConfig,
    ViTForImageClassification,
)
from transformers.models.bart.modeling_bart import (
    BartAttention,
    BartDecoder,
    BartDecoderLayer,
    BartEncoder,
    BartEncoderLayer,
)
from transformers.models.deit.modeling_deit import DeiTAttention, DeiTLayer
from transformers.models.marian.modeling_marian import (
    MarianAttention,
    MarianDecoder,
    MarianDecoderLayer,
    MarianEncoder,
    MarianEncoderLayer,
)
from transformers.models.vit.modeling_vit import ViTAttention, ViTLayer
from transformers.utils.output_capturing import _CAN_RECORD_REGISTRY, OutputRecorder

from leanformer.blocks.kit.base import AttentionWeights
from leanformer.blocks.pooling import ClassTokenPooling
from leanformer.core.errors import LeanformerError
from leanformer.model.layers import (
    OpenDecoderLayer,
    OpenEncoderLayer,
    OpenLayer,
    OpenMlp,
    PatchProjection,
    PatchTokens,
    Sublayer,
    TellsDecoderBlocks,
    TellsEncoderBlocks,
)

STUDENT_PREFIX = "leanformer_"


# Open layers that transformers knows as the family's own, so that it records hidden states.


class OpenViTLayer(OpenEncoderLayer, ViTLayer):
    """A ViT's layer."""


class OpenDeiTLayer(OpenEncoderLayer, DeiTLayer):
    """A DeiT's layer."""


class OpenMarianEncoderLayer(OpenEncoderLayer, MarianEncoderLayer):
    """A layer of Marian's encoder."""


class OpenMarianDecoderLayer(OpenDecoderLayer, MarianDecoderLayer):
    """A layer of Marian's decoder."""


class OpenBartEncoderLayer(OpenEncoderLayer, BartEncoderLayer):
    """A layer of BART's encoder."""


class OpenBartDecoderLayer(OpenDecoderLayer, BartDecoderLayer):
    """A layer of BART's decoder."""


class OpenMarianEncoder(TellsEncoderBlocks, MarianEncoder):
    """Marian's encoder of open layers."""


class OpenMarianDecoder(TellsDecoderBlocks, MarianDecoder):
    """Marian's decoder of open layers."""

    def embed(self, input_ids: torch.Tensor, position: int) -> torch.Tensor:
        return self.embed_tokens(input_ids) * self.embed_scale + self.embed_positions.weight[position]

    _can_record_outputs = {  # noqa: RUF012  (transformers' own form)
        "hidden_states": MarianDecoderLayer,
        "attentions": OutputRecorder(MarianAttention, index=1, layer_name="self_attention"),
        "cross_attentions": OutputRecorder(MarianAttention, index=1, layer_name="cross_attention"),
    }


class OpenBartEncoder(TellsEncoderBlocks, BartEncoder):
    """BART's encoder of open layers."""


class OpenBartDecoder(TellsDecoderBlocks, BartDecoder):
    """BART's decoder of open layers."""

    def embed(self, input_ids: torch.Tensor, position: int) -> torch.Tensor:
        positions = self.embed_positions.weight[position + self.embed_positions.offset]
        return self.layernorm_embedding(self.embed_tokens(input_ids) + positions)

    _can_record_outputs = {  # noqa: RUF012  (transformers' own form)
        "hidden_states": BartDecoderLayer,
        "attentions": OutputRecorder(BartAttention, index=1, layer_name="self_attention"),
        "cross_attentions": OutputRecorder(BartAttention, index=1, layer_name="cross_attention"),
    }


@dataclass(frozen=True)
class Family:
    """One Hugging Face architecture.

    Args:
        name: The configuration's ``model_type``.
        config_class: Its configuration.
        model_class: Its model for the family's task.
        auto_class: What loads models of this task.
        attention_class: Its attention module.
        encoder_layer_class: What the encoder's layers are exchanged for.
    """

    name: str
    config_class: type[PreTrainedConfig]
    model_class: type[PreTrainedModel]
    auto_class: Any
    attention_class: type[nn.Module]
    encoder_layer_class: type[OpenLayer]

    @property
    def task(self) -> str:
        """The study's task that such models are for."""
        raise NotImplementedError

    def stacks(self, model: PreTrainedModel) -> dict[str, nn.ModuleList]:
        """``encoder`` (and ``decoder``) -> its layers."""
        raise NotImplementedError

    def heads(self, config: Any, stack: str) -> int:
        """Attention heads in a stack's layers."""
        raise NotImplementedError

    def max_positions(self, config: Any) -> int | None:
        """Most tokens that the model takes; None where it is the image that says."""
        return None

    def grid(self, model: PreTrainedModel) -> tuple[int, int] | None:
        """Rows and columns of an image's patches; None in texts."""
        return None

    def special_tokens_left(self, model: PreTrainedModel) -> int:
        """Tokens before an image's patches, as far as they have not been dropped."""
        return 0

    def open_layer(self, layer: Any, stack: str, index: int) -> OpenLayer:
        """The layer as an open one that holds the same modules; an open layer is given back as it is."""
        raise NotImplementedError

    def open(self, model: PreTrainedModel) -> None:
        """Opens all layers of a model, and what else has to be opened. Changes the model; more than once is once."""
        for stack, layers in self.stacks(model).items():
            for index, layer in enumerate(layers):
                layers[index] = self.open_layer(layer, stack, index)

    def attention_weights(self, module: nn.Module) -> AttentionWeights | None:
        """The weights of this family's own attention in the common layout; None for any other module."""
        if not isinstance(module, self.attention_class):
            return None
        attention: Any = module
        query, key, value, output = self._projections(attention)

        def weight(projection: nn.Linear) -> torch.Tensor:
            return projection.weight.detach().T

        def bias(projection: nn.Linear) -> torch.Tensor | None:
            return None if projection.bias is None else projection.bias.detach()

        return AttentionWeights(
            query=weight(query),
            key=weight(key),
            value=weight(value),
            output=weight(output),
            query_bias=bias(query),
            key_bias=bias(key),
            value_bias=bias(value),
            output_bias=bias(output),
            num_heads=self._num_heads(attention),
            scaling=attention.scaling,
            dropout=self._attention_dropout(attention),
        )

    def output_projection(self, module: Any) -> nn.Module:
        """Of the family's own attention: the projection that its heads, side by side, go through at the end."""
        return self._projections(module)[3]

    def _projections(self, attention: Any) -> tuple[nn.Linear, nn.Linear, nn.Linear, nn.Linear]:
        """Of queries, keys, values and output."""
        raise NotImplementedError

    def _num_heads(self, attention: Any) -> int:
        raise NotImplementedError

    def _attention_dropout(self, attention: Any) -> float:
        """Probability with which a weight of it is dropped in training."""
        raise NotImplementedError


@dataclass(frozen=True)
class ImageFamily(Family):
    """A pre-norm image classifier: embeddings, layers, norm, classifier.

    Args:
        special_tokens: Tokens before the patches (class, distillation).
    """

    special_tokens: int

    @property
    def task(self) -> str:
        return "image-classification"

    def stacks(self, model: PreTrainedModel) -> dict[str, nn.ModuleList]:
        return {"encoder": model.base_model.layers}

    def heads(self, config: Any, stack: str) -> int:
        return int(config.num_attention_heads)

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
        # The convolution that cuts images into patches becomes the matrix product that it is.
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
        """Takes class and distillation tokens, and their positions, out of the embeddings."""
        body = model.base_model
        if not isinstance(body.embeddings, PatchTokens):
            body.embeddings = PatchTokens(body.embeddings, self.special_tokens)

    def _projections(self, attention: Any) -> tuple[nn.Linear, nn.Linear, nn.Linear, nn.Linear]:
        return attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj

    def _num_heads(self, attention: Any) -> int:
        return int(attention.num_attention_heads)

    def _attention_dropout(self, attention: Any) -> float:
        return float(attention.attention_dropout)


@dataclass(frozen=True)
class TranslationFamily(Family):
    """A post-norm encoder and decoder.

    Args:
        decoder_layer_class: What the decoder's layers are exchanged for.
        encoder_class: What its encoder becomes with open layers.
        decoder_class: Likewise its decoder.
    """

    decoder_layer_class: type[OpenDecoderLayer]
    encoder_class: type[PreTrainedModel]
    decoder_class: type[PreTrainedModel]

    @property
    def task(self) -> str:
        return "translation"

    def stacks(self, model: PreTrainedModel) -> dict[str, nn.ModuleList]:
        return {"encoder": model.base_model.encoder.layers, "decoder": model.base_model.decoder.layers}

    def heads(self, config: Any, stack: str) -> int:
        return int(config.encoder_attention_heads if stack == "encoder" else config.decoder_attention_heads)

    def max_positions(self, config: Any) -> int | None:
        return int(config.max_position_embeddings)

    def open_layer(self, layer: Any, stack: str, index: int) -> OpenLayer:
        if isinstance(layer, OpenLayer):
            return layer
        dropout = layer.dropout
        self_attention = Sublayer(layer.self_attn_layer_norm, layer.self_attn, dropout, pre_norm=False)
        mlp = OpenMlp(layer.fc1, layer.fc2, layer.activation_fn, layer.activation_dropout)
        mlp_sublayer = Sublayer(layer.final_layer_norm, mlp, dropout, pre_norm=False)
        if stack == "encoder":
            return self.encoder_layer_class(self_attention, mlp_sublayer, index)
        cross_attention = Sublayer(layer.encoder_attn_layer_norm, layer.encoder_attn, dropout, pre_norm=False)
        return self.decoder_layer_class(self_attention, cross_attention, mlp_sublayer, index)

    def open(self, model: PreTrainedModel) -> None:
        super().open(model)
        for part, opened in (
            (model.base_model.encoder, self.encoder_class),
            (model.base_model.decoder, self.decoder_class),
        ):
            # The same modules with one method more: nothing of their making has to be repeated, but for what a model's
            # own initialization tells transformers of where its hidden states and attentions are to be recorded.
            part.__class__ = opened
            _CAN_RECORD_REGISTRY[part] = opened._can_record_outputs

    def _projections(self, attention: Any) -> tuple[nn.Linear, nn.Linear, nn.Linear, nn.Linear]:
        return attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj

    def _num_heads(self, attention: Any) -> int:
        return int(attention.num_heads)

    def _attention_dropout(self, attention: Any) -> float:
        return float(attention.dropout)


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        ImageFamily(
            "vit",
            ViTConfig,
            ViTForImageClassification,
            AutoModelForImageClassification,
            ViTAttention,
            OpenViTLayer,
            special_tokens=1,
        ),
        ImageFamily(
            "deit",
            DeiTConfig,
            DeiTForImageClassification,
            AutoModelForImageClassification,
            DeiTAttention,
            OpenDeiTLayer,
            special_tokens=2,
        ),
        TranslationFamily(
            "marian",
            MarianConfig,
            MarianMTModel,
            AutoModelForSeq2SeqLM,
            MarianAttention,
            OpenMarianEncoderLayer,
            OpenMarianDecoderLayer,
            OpenMarianEncoder,
            OpenMarianDecoder,
        ),
        TranslationFamily(
            "bart",
            BartConfig,
            BartForConditionalGeneration,
            AutoModelForSeq2SeqLM,
            BartAttention,
            OpenBartEncoderLayer,
            OpenBartDecoderLayer,
            OpenBartEncoder,
            OpenBartDecoder,
        ),
    )
}


def find_family(model: PreTrainedModel, argument: str = "model") -> Family:
    """The family of a Hugging Face model or of a student.

    Args:
        model: The model.
        argument: What it is called where it was given, for messages.

    Raises:
        LeanformerError: It is no model, of no supported architecture, or not made for the family's task.
    """
    if not isinstance(model, PreTrainedModel):
        hint = ""
        if isinstance(model, str | os.PathLike):
            hint = "; load it first: lf.load(...)"
        elif isinstance(model, PreTrainedConfig):
            hint = "; make a model of the configuration first"
        raise LeanformerError(
            f"{argument}: leanformer reduces Hugging Face models, not {type(model).__name__}{hint}; families: "
            f"{', '.join(FAMILIES)}"
        )
    model_type = str(model.config.model_type).removeprefix(STUDENT_PREFIX)
    family = FAMILIES.get(model_type)
    if family is None:
        raise LeanformerError(
            f"{argument}: model type {model_type!r} is not supported; families: {', '.join(FAMILIES)}"
        )
    if not isinstance(model, family.model_class):
        what = {"image-classification": "an image classifier", "translation": "a translator"}[family.task]
        raise LeanformerError(
            f"{argument}: a {type(model).__name__} is not {what}; load it as {family.model_class.__name__}"
        )
    return family


def device_and_dtype(model: PreTrainedModel) -> tuple[torch.device, torch.dtype]:
    """Where a model's weights are, and in which precision."""
    weight = next(model.parameters())
    return weight.device, weight.dtype


def check_weights_are_there(model: PreTrainedModel, argument: str = "model") -> None:
    """Refuses a model that is a mere outline, or whose weights were moved to a disk.

    Args:
        model: The model.
        argument: What it is called where it was given, for messages.

    Raises:
        LeanformerError: A weight is on the device "meta", which holds shapes alone.
    """
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_meta:
            raise LeanformerError(
                f"{argument}: {name} is on the device 'meta' and has no numbers; load the model with its weights onto "
                "one device"
            )


HALF = (torch.float16, torch.bfloat16)
"""What weights may be kept in, but are not trained in: their steps would round most of what is learned away."""


def in_float32(model: PreTrainedModel) -> PreTrainedModel:
    """A copy in float32, of the configuration too."""
    copied = copy.deepcopy(model).float()
    copied.config.dtype = torch.float32
    return copied

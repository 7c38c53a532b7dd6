"""What a family knows of an architecture: where its sites are, how its layers are opened, what its students are."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from leanformer.blocks.kit.base import AttentionWeights, MlpWeights, set_linear
from leanformer.core.errors import LeanformerError
from leanformer.core.registry import Registry
from leanformer.model.layers import OpenLayer

STUDENT_PREFIX = "leanformer_"
"""The ``model_type`` of a family's students is this prefix and the family's name."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """One Hugging Face architecture.

    Args:
        name: The configuration's ``model_type``.
        config_class: Its configuration.
        model_class: Its model for the family's task.
        attention_class: Its attention module.
        encoder_layer_class: The open layer that replaces a layer of the encoder.
        student_config_class: The configuration of its students, which carries their plan.
        student_model_class: The model of its students.
        special_tokens: Tokens before an image's patches (class, distillation); 0 in texts.
        has_decoder_vocabulary: Whether the configuration can give a decoder a vocabulary of its own
            (``decoder_vocab_size``).

    Class attributes:
        task: The study's task that such models are for.
        auto_class: The class of transformers that loads models of this task.
        described: Such a model in words, with an article.
        has_pooling: Whether a classifier reads the last layer's tokens at a site of its own.
        shape_keys: The configuration keys that say how large a model is; each is 1 or more.
        without_effect: Configuration key -> why it would do nothing in a fresh model; besides those of every family.
        projections: The attributes of the attention module that project queries, keys, values and output.
        heads_attribute: Its attribute that says how many heads it has.
        activation_key: The configuration key of the MLPs' activation.
    """

    name: str
    config_class: type[PreTrainedConfig]
    model_class: type[PreTrainedModel]
    attention_class: type[nn.Module]
    encoder_layer_class: type[OpenLayer]
    student_config_class: type[PreTrainedConfig]
    student_model_class: type[PreTrainedModel]
    special_tokens: int = 0
    has_decoder_vocabulary: bool = False

    task: ClassVar[str]
    auto_class: ClassVar[Any]
    described: ClassVar[str]
    has_pooling: ClassVar[bool] = False
    shape_keys: ClassVar[tuple[str, ...]]
    without_effect: ClassVar[Mapping[str, str]]
    projections: ClassVar[tuple[str, str, str, str]]
    heads_attribute: ClassVar[str]
    activation_key: ClassVar[str]

    def stacks(self, model: PreTrainedModel) -> dict[str, nn.ModuleList]:
        """``encoder`` (and ``decoder``) -> its layers."""
        raise NotImplementedError

    def heads(self, config: Any, stack: str) -> int:
        """Attention heads in a stack's layers."""
        raise NotImplementedError

    def check_config(self, config: Any, where: str) -> None:
        """Checks the keys of a configuration that must fit each other.

        Args:
            config: The configuration.
            where: What an error names as the place.

        Raises:
            LeanformerError: They do not; the message names both.
        """
        raise NotImplementedError

    def max_positions(self, config: Any) -> int | None:
        """Most tokens that the model takes; None where their number follows from the image."""
        return None

    def grid(self, model: PreTrainedModel) -> tuple[int, int] | None:
        """Rows and columns of an image's patches; None in texts."""
        return None

    def special_tokens_left(self, model: PreTrainedModel) -> int:
        """Tokens before an image's patches, as far as they have not been dropped."""
        return 0

    def drop_special_tokens(self, model: PreTrainedModel) -> None:
        """Removes class and distillation tokens, and their positions, from the embeddings. Changes the model."""
        raise NotImplementedError

    def open_layer(self, layer: Any, stack: str, index: int) -> OpenLayer:
        """The layer as an open one that holds the same modules; an open layer is returned unchanged."""
        raise NotImplementedError

    def open(self, model: PreTrainedModel) -> None:
        """Opens all layers of a model, and what else has to be opened. Changes the model; a second call does not."""
        for stack, layers in self.stacks(model).items():
            for index, layer in enumerate(layers):
                layers[index] = self.open_layer(layer, stack, index)

    def attention_weights(self, module: nn.Module | None) -> AttentionWeights | None:
        """The weights of this family's own attention in the common layout; None for any other module."""
        if not isinstance(module, self.attention_class):
            return None
        attention: Any = module
        query, key, value, output = (getattr(attention, name) for name in self.projections)

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
            num_heads=int(getattr(attention, self.heads_attribute)),
            scaling=attention.scaling,
            dropout=self._attention_dropout(attention),
        )

    def output_projection(self, module: Any) -> nn.Module:
        """The output projection of the family's own attention, which its heads, side by side, go through."""
        projection: nn.Module = getattr(module, self.projections[3])
        return projection

    def with_heads(self, attention: Any, heads: AttentionWeights) -> nn.Module:
        """The family's own attention with some of its heads: smaller projections, heads as wide as before.

        Args:
            attention: The present attention, which is not changed. The new one has its settings and its configuration.
            heads: The weights of the heads that stay.
        """
        # The configuration is not copied: it says, also later, by which implementation all layers attend.
        narrow = copy.deepcopy(attention, {id(attention.config): attention.config})
        weights = (heads.query, heads.key, heads.value, heads.output)
        biases = (heads.query_bias, heads.key_bias, heads.value_bias, heads.output_bias)
        for name, weight, bias in zip(self.projections, weights, biases, strict=True):
            channels_in, channels_out = weight.shape
            projection = nn.Linear(channels_in, channels_out, bias is not None, weight.device, weight.dtype)
            set_linear(projection, weight, bias)
            setattr(narrow, name, projection)
        setattr(narrow, self.heads_attribute, heads.num_heads)
        return narrow

    def mlp_weights(self, mlp: Any, config: Any) -> MlpWeights:
        """The weights of an MLP, the family's own or a block's, in the common layout.

        Args:
            mlp: The MLP, whose linear maps are ``fc1`` and ``fc2``; a block's has the attribute ``activation_name``.
            config: The model's configuration.
        """
        return MlpWeights(
            inner=mlp.fc1.weight.detach().T,
            output=mlp.fc2.weight.detach().T,
            inner_bias=mlp.fc1.bias.detach(),
            output_bias=mlp.fc2.bias.detach(),
            activation=getattr(mlp, "activation_name", None) or getattr(config, self.activation_key),
        )

    def _attention_dropout(self, attention: Any) -> float:
        """Probability with which an attention weight is dropped in training."""
        raise NotImplementedError


FAMILIES: Registry[Family] = Registry("leanformer.model.families", order=("vit", "deit", "marian", "bart"))
"""Name -> family, in the order in which messages list them."""


def register(family: Family) -> None:
    """Makes a family known by its name."""
    FAMILIES.add(family.name, family)


def find_family(model: PreTrainedModel, argument: str = "model") -> Family:
    """The family of a Hugging Face model or of a student.

    Args:
        model: The model.
        argument: The caller's name for it, for messages.

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
        raise LeanformerError(
            f"{argument}: a {type(model).__name__} is not {family.described}; load it as {family.model_class.__name__}"
        )
    return family

"""Families whose layers are opened: each layer becomes one of ours, whose sublayers are exchangeable."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import PreTrainedModel

from leanformer.blocks.kit.base import AttentionWeights, BlockModule, MlpWeights, set_linear
from leanformer.blocks.kit.site import SiteKind
from leanformer.model.family import Family, Part
from leanformer.model.layers import OpenLayer, Slot, Sublayer
from leanformer.model.weights import parameter_count

_SUBLAYER_KINDS: dict[SiteKind, SiteKind] = {
    "self_attention": "self_attention_sublayer",
    "cross_attention": "cross_attention_sublayer",
}


@dataclass(frozen=True, kw_only=True)
class OpenFamily(Family):
    """A family of open layers, in which layers and sublayers are sites too.

    Args:
        attention_class: Its attention module.
        encoder_layer_class: The open layer that replaces a layer of the encoder.

    Class attributes:
        projections: The attributes of the attention module that project queries, keys, values and output.
        heads_attribute: Its attribute that says how many heads it has.
        activation_key: The configuration key of the MLPs' activation.
    """

    attention_class: type[nn.Module]
    encoder_layer_class: type[OpenLayer]

    projections: ClassVar[tuple[str, str, str, str]]
    heads_attribute: ClassVar[str]
    activation_key: ClassVar[str]

    def stacks(self, model: PreTrainedModel) -> dict[str, nn.ModuleList]:
        """``encoder`` (and ``decoder``) -> its layers."""
        raise NotImplementedError

    def heads(self, config: Any, stack: str) -> int:
        """Attention heads in a stack's layers."""
        raise NotImplementedError

    def parts(self, model: PreTrainedModel) -> Iterator[Part]:
        for stack, layers in self.stacks(model).items():
            heads = self.heads(model.config, stack)
            width, causal = int(model.config.hidden_size), stack == "decoder"
            for number, own_layer in enumerate(layers):
                prefix = f"{stack}.{number}"
                layer = self.open_layer(own_layer, stack, number)
                for kind, slot in layer.slots().items():
                    block, norm = (slot.block, slot.norm) if isinstance(slot, Sublayer) else (None, None)
                    numbers = (parameter_count(block), parameter_count(norm))
                    present = isinstance(slot, Sublayer)
                    yield Part(f"{prefix}.{kind}", kind, present, *numbers, width, heads, causal, module=block)
                    if kind in _SUBLAYER_KINDS:
                        wide = _SUBLAYER_KINDS[kind]
                        parameters = parameter_count(slot)
                        yield Part(f"{prefix}.{wide}", wide, slot is not None, parameters, 0, width, heads, causal)
                whole = parameter_count(layer)
                yield Part(f"{prefix}.layer", "layer", layer.present, whole, 0, width, heads, causal)

    def open_layer(self, layer: Any, stack: str, index: int) -> OpenLayer:
        """The layer as an open one that holds the same modules; an open layer is returned unchanged."""
        raise NotImplementedError

    def open(self, model: PreTrainedModel) -> None:
        for stack, layers in self.stacks(model).items():
            for index, layer in enumerate(layers):
                layers[index] = self.open_layer(layer, stack, index)

    def module_at(self, model: PreTrainedModel, name: str) -> nn.Module | None:
        layer, kind = self._layer(model, name)
        if kind == "layer":
            return layer if layer.block is None else layer.block
        slot = layer.slots()[kind.removesuffix("_sublayer")]  # type: ignore[index]
        return slot.block if isinstance(slot, Sublayer) and not kind.endswith("_sublayer") else slot

    def put(self, model: PreTrainedModel, name: str, module: nn.Module | None) -> None:
        layer, kind = self._layer(model, name)
        place = kind.removesuffix("_sublayer")
        if kind == "layer":
            assert module is None or isinstance(module, BlockModule)
            layer.replace(module)
        elif module is None or kind != place:
            setattr(layer, place, module)
        else:
            slot: Slot = getattr(layer, place)
            assert isinstance(slot, Sublayer)
            slot.block = module

    @contextmanager
    def without_layers(self, model: PreTrainedModel, names: Iterable[str]) -> Iterator[None]:
        held = [(layer, layer.block, layer.slots()) for layer in (self._layer(model, name)[0] for name in names)]
        for layer, _, _ in held:
            layer.replace(None)
        try:
            yield
        finally:
            for layer, block, slots in held:
                layer.block = block
                for kind, slot in slots.items():
                    setattr(layer, kind, slot)

    def _layer(self, model: PreTrainedModel, name: str) -> tuple[OpenLayer, str]:
        """The open layer of a site, and the site's kind. A layer that is not open yet stays as it is in the model."""
        stack, number, kind = name.split(".")
        return self.open_layer(self.stacks(model)[stack][int(number)], stack, int(number)), kind

    def is_own_attention(self, module: nn.Module | None) -> bool:
        return isinstance(module, self.attention_class)

    def attention_weights(self, module: nn.Module | None) -> AttentionWeights | None:
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
        projection: nn.Module = getattr(module, self.projections[3])
        return projection

    def with_heads(self, attention: Any, heads: AttentionWeights) -> nn.Module:
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
        # Its linear maps are ``fc1`` and ``fc2``; a block's has the attribute ``activation_name``.
        return MlpWeights(
            inner=mlp.fc1.weight.detach().T,
            output=mlp.fc2.weight.detach().T,
            inner_bias=mlp.fc1.bias.detach(),
            output_bias=mlp.fc2.bias.detach(),
            activation=getattr(mlp, "activation_name", None) or getattr(config, self.activation_key),
        )

    def output_of_mlp(self, mlp: Any) -> nn.Module | None:
        projection: nn.Module = mlp.fc2
        return projection

    def _attention_dropout(self, attention: Any) -> float:
        """Probability with which an attention weight is dropped in training."""
        raise NotImplementedError

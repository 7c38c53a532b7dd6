"""The weights of attentions and MLPs that were found, in the common layout, where they are of the plain kind."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from leanformer.blocks.kit.base import AttentionWeights, MlpWeights, set_linear
from leanformer.model.finding import facts

_HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head")
"""Attributes that say how many heads an attention has."""
_DROPOUTS = ("attention_dropout", "dropout_prob", "dropout_p", "dropout")
"""Attributes of the probability with which its weights are dropped: a number, or a module."""
_ACTIVATION_KEYS = ("hidden_act", "activation_function", "hidden_activation", "activation", "activation_dropout")


def own_attention(module: Any) -> Any:
    """The architecture's own attention, with or without an output projection."""
    return getattr(module, "core", module)


def output_map(module: Any) -> nn.Module | None:
    """The map that an attention's heads, side by side, go through; None where it was not found."""
    if hasattr(module, "core"):
        beside: nn.Module = module.output
        return beside
    return _child(module, facts.OUTPUTS)


def attention_weights(module: Any) -> AttentionWeights | None:
    """The weights of an attention that scores by products of queries and keys alone; None for any other.

    Args:
        module: The attention, or an ``OpenedCore``.
    """
    core = own_attention(module)
    maps = [_child(core, names) for names in facts.PROJECTIONS.values()]
    output = output_map(module)
    parameters = type(core).forward.__code__.co_varnames[: type(core).forward.__code__.co_argcount]
    heads = next((getattr(core, name) for name in _HEADS if isinstance(getattr(core, name, None), int)), None)
    known = [*maps, output]
    if (
        heads is None
        or any(not isinstance(one, nn.Linear) for one in known)
        or set(parameters) & set(facts.IN_ATTENTION)
    ):
        return None
    if any(parameter is not None for parameter in _others(core, known)):
        return None  # norms of queries, tables of positions, gates
    query, key, value, out = (cast_linear(one) for one in known)
    if not query.weight.shape == key.weight.shape == value.weight.shape or query.out_features % heads:
        return None
    dropout = next((getattr(core, name) for name in _DROPOUTS if hasattr(core, name)), 0.0)
    return AttentionWeights(
        query=query.weight.detach().T,
        key=key.weight.detach().T,
        value=value.weight.detach().T,
        output=out.weight.detach().T,
        query_bias=_bias(query),
        key_bias=_bias(key),
        value_bias=_bias(value),
        output_bias=_bias(out),
        num_heads=heads,
        scaling=float(getattr(core, "scaling", None) or (query.out_features // heads) ** -0.5),
        dropout=float(getattr(dropout, "p", dropout)),
    )


def cast_linear(module: nn.Module | None) -> nn.Linear:
    """A module that is known to be linear, for the type checker."""
    assert isinstance(module, nn.Linear)
    return module


def with_heads(module: Any, heads: AttentionWeights) -> nn.Module:
    """As ``Family.with_heads``."""
    core = own_attention(module)
    kept = {id(core.config): core.config} if hasattr(core, "config") else {}
    narrow = copy.deepcopy(module, kept)
    inside = own_attention(narrow)
    named = [(inside, _name(inside, names)) for names in facts.PROJECTIONS.values()]
    named.append((narrow, "output") if inside is not narrow else (inside, _name(inside, facts.OUTPUTS)))
    weights = (heads.query, heads.key, heads.value, heads.output)
    biases = (heads.query_bias, heads.key_bias, heads.value_bias, heads.output_bias)
    for (holder, name), weight, bias in zip(named, weights, biases, strict=True):
        channels_in, channels_out = weight.shape
        projection = nn.Linear(channels_in, channels_out, bias is not None, weight.device, weight.dtype)
        set_linear(projection, weight, bias)
        setattr(holder, name, projection)
    for name in _HEADS:
        if hasattr(inside, name):
            setattr(inside, name, heads.num_heads)
    for name in ("all_head_size", "inner_dim"):
        if hasattr(inside, name):
            setattr(inside, name, heads.output.shape[0])
    return narrow


def mlp_weights(mlp: Any, config: Any) -> MlpWeights | None:
    """The weights of an MLP of two maps with an activation between them; None for any other."""
    first, second = getattr(mlp, "fc1", None), getattr(mlp, "fc2", None)
    first = getattr(first, "dense", first)  # BERT's comes with its activation
    if not isinstance(first, nn.Linear) or not isinstance(second, nn.Linear):
        return None
    activation = getattr(mlp, "activation_name", None) or next(
        (getattr(config, key) for key in _ACTIVATION_KEYS if isinstance(getattr(config, key, None), str)), None
    )
    if activation is None or any(parameter is not None for parameter in _others(mlp, [first, second])):
        return None
    inner_bias, output_bias = (
        torch.zeros_like(one.weight[:, 0]) if one.bias is None else one.bias.detach() for one in (first, second)
    )
    return MlpWeights(first.weight.detach().T, second.weight.detach().T, inner_bias, output_bias, activation)


def _others(module: nn.Module, known: Sequence[nn.Module | None]) -> list[nn.Parameter]:
    """The parameters of a module that are not of these maps."""
    theirs = {id(parameter) for one in known if one is not None for parameter in one.parameters()}
    return [parameter for parameter in module.parameters() if id(parameter) not in theirs]


def _name(module: nn.Module, names: Sequence[str]) -> str:
    return next(name for name in names if hasattr(module, name))


def _child(module: nn.Module, names: Sequence[str]) -> nn.Module | None:
    children = dict(module.named_children())
    found = (children[name] for name in names if name in children)
    return next((child for child in found if isinstance(child, nn.Linear | Conv1D)), None)


def _bias(linear: nn.Linear) -> torch.Tensor | None:
    return None if linear.bias is None else linear.bias.detach()

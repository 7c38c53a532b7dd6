"""Changing a model: finding its sites, resolving a plan against them, putting blocks in place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from leanformer.blocks.base import AttentionWeights, check_arguments, find_block
from leanformer.blocks.pooling import ClassTokenPooling
from leanformer.errors import LeanformerError
from leanformer.model.families import ImageFamily, device_and_dtype, find_family
from leanformer.model.layers import OpenLayer, Sublayer
from leanformer.model.plan import Plan, match
from leanformer.model.sites import Site, SiteKind

ResolvedPlan = dict[str, dict[str, Any]]
"""Site name -> {"block": name, every argument}: what was changed at a model, complete enough to rebuild it."""

_KEPT: dict[SiteKind, str] = {
    "self_attention": "attention",
    "mlp": "mlp",
    "layer": "layer",
    "pooling": "class_token",
}


def parameter_count(module: nn.Module | None) -> int:
    """Stored numbers of a module; 0 for None."""
    return 0 if module is None else sum(parameter.numel() for parameter in module.parameters())


def sites(model: PreTrainedModel) -> list[Site]:
    """The places in a model that a plan can name, in the model's order.

    Args:
        model: A Hugging Face image classifier of a supported family (ViT, DeiT), or a student. It is left as it is.

    Raises:
        LeanformerError: The model is of no supported family.
    """
    family = find_family(model)
    plan: ResolvedPlan = getattr(model.config, "plan", None) or {}
    found: list[Site] = []

    def add(name: str, kind: SiteKind, present: bool, heads: int, parameters: int, norm_parameters: int = 0) -> None:
        block = plan.get(name, {}).get("block", _KEPT[kind]) if present else "none"
        found.append(Site(name, kind, block, model.config.hidden_size, heads, parameters, norm_parameters))

    for number, hf_layer in enumerate(model.base_model.layers):
        layer = family.open_layer(hf_layer)
        heads = model.config.num_attention_heads
        sublayers: dict[SiteKind, Sublayer | None] = {"self_attention": layer.self_attention, "mlp": layer.mlp}
        for kind, sublayer in sublayers.items():
            name = f"encoder.{number}.{kind}"
            if sublayer is None:
                add(name, kind, False, heads, 0)
            else:
                norm_parameters = parameter_count(sublayer.norm)
                add(name, kind, True, heads, parameter_count(sublayer.block), norm_parameters)
        present = layer.self_attention is not None or layer.mlp is not None
        add(f"encoder.{number}.layer", "layer", present, heads, parameter_count(layer))
    pooling = getattr(model, "pooling", None)
    add("pooling", "pooling", True, model.config.num_attention_heads, parameter_count(pooling))
    return found


def resolve(model: PreTrainedModel, plan: Plan) -> ResolvedPlan:
    """What a plan changes at a model, every argument written out. The model is left as it is.

    Raises:
        LeanformerError: Anything in the plan that does not fit the model.
    """
    family = find_family(model)
    all_sites = {site.name: site for site in sites(model)}
    choices = match(plan, list(all_sites.values()))
    emptied = {name.removesuffix("layer") for name, choice in choices.items() if all_sites[name].kind == "layer"}
    resolved: ResolvedPlan = {}
    for name, choice in choices.items():
        site = all_sites[name]
        inside_emptied = site.kind != "layer" and any(name.startswith(prefix) for prefix in emptied)
        if inside_emptied:
            continue
        if choice.block.keeps(choice.arguments):
            if site.block != choice.block.name:
                raise LeanformerError(
                    f"plan {choice.pattern!r}: {choice.block.name!r} keeps what stands there, but {name} is "
                    f"{site.block!r} in this student already; reduce the teacher instead"
                )
            continue
        if site.block == "none":
            if choice.block.name == "none":
                continue
            raise LeanformerError(
                f"plan {choice.pattern!r}: {name} was emptied when this student was made; reduce the teacher instead"
            )
        teacher = _teacher(model, family, site)
        resolved[name] = {"block": choice.block.name, **choice.block.resolve(choice.arguments, site, teacher)}
    return resolved


def combine(before: ResolvedPlan, change: ResolvedPlan) -> ResolvedPlan:
    """The plan of a student of a student: the later change wins, and an emptied layer takes its inner sites along."""
    emptied = tuple(name.removesuffix("layer") for name in change if name.endswith(".layer"))
    kept = {name: entry for name, entry in before.items() if not (emptied and name.startswith(emptied))}
    # Through JSON and back, so that a plan in memory is what the file will give.
    merged: ResolvedPlan = json.loads(json.dumps({**kept, **change}))
    return merged


def install(model: PreTrainedModel, plan: Mapping[str, Mapping[str, Any]], take_over: bool) -> None:
    """Opens a model's layers and puts a resolved plan's blocks in place. Changes the model.

    Args:
        model: The model to change.
        plan: A resolved plan.
        take_over: Whether ``init: teacher`` collapses the weights that stand there now; False builds the structure
            alone, for weights that are about to be loaded.
    """
    family = find_family(model)
    body = model.base_model
    for number, layer in enumerate(body.layers):
        body.layers[number] = family.open_layer(layer)
    family.open_embeddings(model)
    if not hasattr(model, "pooling"):
        model.pooling = ClassTokenPooling()
    places = {site.name: site for site in sites(model)}
    device, dtype = device_and_dtype(model)
    for name, entry in plan.items():
        if name not in places or "block" not in entry:
            raise LeanformerError(f"plan {name!r}: the model has no such site, or the entry names no block")
        arguments = dict(entry)
        block = find_block(arguments.pop("block"), name)
        site = places[name]
        teacher = _teacher(model, family, site) if take_over else None
        module = block.build(check_arguments(block, arguments, name), site, teacher)
        _put(model, family, site, None if module is None else module.to(device=device, dtype=dtype))


def _layer(model: PreTrainedModel, site: Site) -> nn.Module:
    layer: nn.Module = model.base_model.layers[int(site.name.split(".")[1])]
    return layer


def _teacher(model: PreTrainedModel, family: ImageFamily, site: Site) -> AttentionWeights | None:
    """The trained attention at a site, where one of the family's own stands there."""
    if site.kind != "self_attention" or site.block != "attention":
        return None
    sublayer = family.open_layer(_layer(model, site)).self_attention
    return None if sublayer is None else family.attention_weights(sublayer.block)


def _put(model: PreTrainedModel, family: ImageFamily, site: Site, module: nn.Module | None) -> None:
    if site.kind == "pooling":
        model.pooling = module
        if module is not None and not module.needs_class_token:
            family.drop_special_tokens(model)
        return
    layer = _layer(model, site)
    assert isinstance(layer, OpenLayer)
    if site.kind == "layer":
        layer.self_attention = layer.mlp = None
    elif module is None:
        setattr(layer, site.kind, None)
    else:
        getattr(layer, site.kind).block = module

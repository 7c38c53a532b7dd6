"""Changing a model: finding its sites, resolving a plan against them, putting blocks in place."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from leanformer.blocks.kit.activity import Activity
from leanformer.blocks.kit.base import AttentionWeights, Block, MlpWeights, check_arguments, find_block
from leanformer.blocks.kit.site import Site, SiteKind
from leanformer.blocks.kit.some_heads import replace_heads
from leanformer.core.errors import LeanformerError
from leanformer.core.memory import memory_named
from leanformer.model.family import Family, find_family
from leanformer.model.plan import TARGET_VOCABULARY, Choice, Plan, match
from leanformer.model.vocabulary import check_kept, composed, resolve_vocabulary, trim_decoder
from leanformer.model.weights import device_and_dtype, parameter_count

ResolvedPlan = dict[str, dict[str, Any]]
"""Site name -> {"block": name, every argument}: what was changed at a model, complete enough to rebuild it.

``target_vocabulary``, which is no site, has an entry of the same form."""

_KEPT: dict[SiteKind, str] = {
    "self_attention": "attention",
    "cross_attention": "attention",
    "mlp": "mlp",
    "self_attention_sublayer": "sublayer",
    "cross_attention_sublayer": "sublayer",
    "layer": "layer",
    "pooling": "class_token",
}


def sites(model: PreTrainedModel) -> list[Site]:
    """The places in a model that a plan can name, in the model's order.

    Args:
        model: A Hugging Face model, or a student. It is not changed.

    Raises:
        LeanformerError: Nothing in the model can be replaced.
    """
    return [site for site, _ in _standing(model)]


def _standing(model: PreTrainedModel) -> list[tuple[Site, nn.Module | None]]:
    """The sites of a model with what stands at each as one module, where that is an attention or an MLP.

    One look at the model, which may be found by searching it.
    """
    family = find_family(model)
    plan: ResolvedPlan = getattr(model.config, "plan", None) or {}
    parts = list(family.parts(model))
    grid, max_positions = family.grid(model), family.max_positions(model.config)
    special_tokens = family.special_tokens_left(model)
    found = [
        Site(
            part.name,
            part.kind,
            plan.get(part.name, {}).get("block", _KEPT[part.kind]) if part.present else "none",
            part.d_model,
            part.heads,
            part.parameters,
            part.norm_parameters,
            causal=part.causal,
            reads_source=part.kind.startswith("cross_attention") or (part.causal and part.kind == "layer"),
            max_positions=max_positions,
            grid=grid,
            special_tokens=special_tokens,
            rotary=part.rotary,
            unplaced=part.unplaced and grid is None,
            max_distance=part.max_distance,
        )
        for part in parts
    ]
    modules = [part.module for part in parts]
    if family.has_pooling:
        pooling = getattr(model, "pooling", None)
        block = plan.get("pooling", {}).get("block", _KEPT["pooling"])
        heads = model.config.num_attention_heads
        found.append(Site("pooling", "pooling", block, model.config.hidden_size, heads, parameter_count(pooling)))
        modules.append(pooling)
    return list(zip(found, modules, strict=True))


def holds(wide: str, name: str) -> bool:
    """Whether a wide site (a layer, a sublayer) holds another site: ``encoder.0.layer`` holds ``encoder.0.mlp``."""
    if wide.endswith(".layer"):
        return wide != name and name.startswith(wide.removesuffix("layer"))
    return wide.endswith("_sublayer") and name == wide.removesuffix("_sublayer")


def resolve(model: PreTrainedModel, plan: Plan) -> ResolvedPlan:
    """What a plan changes in a model, every argument written out. The model is not changed.

    A wide site that is replaced or emptied includes the sites in it, whatever else the plan says of them.

    Raises:
        LeanformerError: Anything in the plan that does not fit the model.
    """
    family = find_family(model)
    standing = {site.name: (site, module) for site, module in _standing(model)}
    all_sites = {name: site for name, (site, _) in standing.items()}
    choices = match(plan, list(all_sites.values()))
    if _drops_special_tokens(choices.get("pooling"), all_sites):
        all_sites = {name: replace(site, special_tokens=0) for name, site in all_sites.items()}  # as it will be
    wide = [name for name, choice in choices.items() if not choice.block.keeps(choice.arguments)]
    resolved: ResolvedPlan = {}
    for name, choice in choices.items():
        site = all_sites[name]
        if any(holds(other, name) for other in wide):
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
        family.check_choice(name, choice.block.name == "none")
        teacher = _weights(family, model.config, site, standing[name][1])
        if not _may_read(choice.block, teacher, site):
            teacher, site = None, replace(site, block="attention of fewer heads")
        resolved[name] = {"block": choice.block.name, **choice.block.resolve(choice.arguments, site, teacher)}
    if TARGET_VOCABULARY in plan:
        resolved[TARGET_VOCABULARY] = resolve_vocabulary(model, family, plan[TARGET_VOCABULARY])
    return resolved


def _drops_special_tokens(pooling: Choice | None, places: Mapping[str, Site]) -> bool:
    """Whether the block that a plan puts at the pooling drops class and distillation tokens."""
    if pooling is None or pooling.block.keeps(pooling.arguments):
        return False
    module: Any = pooling.block.build(pooling.arguments, places["pooling"], None)
    return not module.needs_class_token


def combine(before: ResolvedPlan, change: ResolvedPlan) -> ResolvedPlan:
    """The plan of a student of a student: the later change wins, and one at a wide site replaces those in it."""
    kept = {name: entry for name, entry in before.items() if not any(holds(other, name) for other in change)}
    if TARGET_VOCABULARY in before and TARGET_VOCABULARY in change:
        change = {**change, TARGET_VOCABULARY: composed(before[TARGET_VOCABULARY], change[TARGET_VOCABULARY])}
    # Through JSON and back, so that a plan in memory equals what the file will give.
    merged: ResolvedPlan = json.loads(json.dumps({**kept, **change}))
    return merged


def choosing_sites(entries: Iterable[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """The sites where a block chooses, by what they do on data, which heads or neurons it keeps.

    Args:
        entries: Sites with their entries of resolved plans.
    """
    found = []
    for name, entry in entries:
        if name == TARGET_VOCABULARY:
            continue
        arguments = dict(entry)
        block = find_block(arguments.pop("block"), name)
        if block.chooses(check_arguments(block, arguments, name)):
            found.append(name)
    return found


def install(
    model: PreTrainedModel,
    plan: Mapping[str, Mapping[str, Any]],
    take_over: bool,
    activities: Mapping[str, Activity] | None = None,
) -> dict[str, Site]:
    """Opens a model's layers and puts a resolved plan's blocks in place. Changes the model.

    Args:
        model: The model to change.
        plan: A resolved plan.
        take_over: Whether blocks take over weights that stand there now (``init: teacher``, a kept projection); False
            builds the structure alone, for weights that are about to be loaded.
        activities: As of ``reduce``.

    Returns:
        The sites that the plan names, as the blocks were told of them.
    """
    family = find_family(model)
    family.open(model)
    places = {site.name: site for site in sites(model)}
    told: dict[str, Site] = {}
    for name, entry in plan.items():
        if name == TARGET_VOCABULARY and take_over:
            trim_decoder(model, entry["ids"])
            continue
        if name == TARGET_VOCABULARY and family.has_decoder_vocabulary:
            check_kept(entry, model.config)  # the structure follows from the configuration's sizes
            continue
        if name not in places or "block" not in entry:
            raise LeanformerError(f"plan {name!r}: the model has no such site, or the entry names no block")
        told[name] = places[name]
        put(model, places[name], build(model, places[name], entry, take_over, (activities or {}).get(name)))
    return told


def build(
    model: PreTrainedModel,
    site: Site,
    entry: Mapping[str, Any],
    take_over: bool,
    activity: Activity | None = None,
) -> nn.Module | None:
    """The module that an entry of a resolved plan makes for a site, on the model's device and in its precision.

    Args:
        model: A model with open layers.
        site: The site.
        entry: Its entry.
        take_over: As of ``install``.
        activity: What the heads or neurons that stand there do on data.

    Raises:
        LeanformerError: The entry is wrong, or the module does not fit into the memory.
    """
    arguments = dict(entry)
    block = find_block(arguments.pop("block"), site.name)
    checked = check_arguments(block, arguments, site.name)
    family = find_family(model)
    teacher = _weights(family, model.config, site, module_at(model, site.name), activity)
    if not _may_read(block, teacher, site):
        teacher = None
    device, dtype = kept_at(model, site)
    with memory_named(f"making block {block.name!r} at {site.name}", "give it smaller arguments"):
        module: nn.Module | None
        if isinstance(entry.get("heads"), list):
            assert isinstance(teacher, AttentionWeights)  # the plan was resolved against it
            module = replace_heads(block, checked, site, teacher, take_over)
        elif block.own_attention:
            assert isinstance(teacher, AttentionWeights)
            module = family.with_heads(module_at(model, site.name), block.kept_heads(checked, teacher, take_over))
        else:
            module = block.build(checked, site, teacher if take_over else None)
        return None if module is None else module.to(device=device, dtype=dtype)


def kept_at(model: PreTrainedModel, site: Site) -> tuple[torch.device, torch.dtype]:
    """The device and the precision of what stands at a site, or else of the model."""
    there = module_at(model, site.name)
    has_weights = there is not None and next(there.parameters(), None) is not None
    return device_and_dtype(there if there is not None and has_weights else model)


def module_at(model: PreTrainedModel, name: str) -> nn.Module | None:
    """The module at a site of a model with open layers, such as a student: block, sublayer or layer; None if empty."""
    if name == "pooling":
        pooling: nn.Module = model.pooling
        return pooling
    return find_family(model).module_at(model, name)


def put(model: PreTrainedModel, site: Site, module: nn.Module | None) -> None:
    """Puts a module at a site of a model with open layers, or empties it."""
    if site.kind == "pooling":
        model.pooling = module
        if module is not None and not module.needs_class_token:
            find_family(model).drop_special_tokens(model)
        return
    find_family(model).put(model, site.name, module)


def without_layers(model: PreTrainedModel, names: Iterable[str]) -> AbstractContextManager[None]:
    """Takes layers out of a model with open layers, and puts them back at the end of the context.

    Args:
        model: The model.
        names: The layers' sites, such as ``decoder.1.layer``.
    """
    return find_family(model).without_layers(model, names)


def _weights(
    family: Family, config: Any, site: Site, module: nn.Module | None, activity: Activity | None = None
) -> AttentionWeights | MlpWeights | None:
    """The weights of the family's own attention, or of an MLP, where one stands at a site.

    Args:
        family: The model's family.
        config: Its configuration.
        site: The site.
        module: What stands there.
        activity: What its heads or neurons do on data.
    """
    if module is None or site.kind not in ("self_attention", "cross_attention", "mlp"):
        return None
    weights: AttentionWeights | MlpWeights | None
    weights = family.mlp_weights(module, config) if site.kind == "mlp" else family.attention_weights(module)
    return None if weights is None else replace(weights, activity=activity)


def _may_read(block: type[Block], weights: AttentionWeights | MlpWeights | None, site: Site) -> bool:
    """Whether a block can start from a trained part: one that replaces an attention needs all d_model channels."""
    narrow = isinstance(weights, AttentionWeights) and len(weights.output) < site.d_model
    return not narrow or block.own_attention

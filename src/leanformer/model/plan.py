"""A plan says what stands where: glob patterns over site names -> a block's name and arguments.

``decoder.layers: {keep: 2}`` says how many layers of a stack stay; it stands for ``none`` at each of the others.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from leanformer.blocks.kit.base import Arguments, Block, blocks_at, check_arguments, find_block
from leanformer.blocks.kit.site import Site
from leanformer.core.errors import LeanformerError, quoted

LONGEST_PATTERN = 200
TARGET_VOCABULARY = "target_vocabulary"
"""The key of a plan that says which subwords a decoder keeps (``model/vocabulary.py``); it is no site."""

Plan = Mapping[str, str | Mapping[str, Any]]


@dataclass(frozen=True)
class Choice:
    """The block that a plan puts at one site."""

    block: type[Block]
    arguments: Arguments
    pattern: str


def match(plan: Plan, sites: Sequence[Site]) -> dict[str, Choice]:
    """The blocks that a plan puts at the sites that it names; later patterns override earlier ones.

    Args:
        plan: Patterns (``*``, ``?``, ``[0-3]``) to a block's name, or to ``{"block": name, argument: value, ...}``; and
            patterns of stacks (``decoder.layers``) to ``{"keep": number or list of layers}``.
        sites: All sites of the model.

    Returns:
        Site name -> choice, for the sites that some pattern matches.

    Raises:
        LeanformerError: The plan is empty or not a mapping, a pattern matches nothing, a block is unknown or cannot
            stand at a site that its pattern matches, an argument is unknown or wrong, or the layers to keep are.
    """
    if not isinstance(plan, Mapping):
        raise LeanformerError(f"a plan is a mapping of site patterns to blocks, not {quoted(plan)}")
    chosen: dict[str, Choice] = {}
    for pattern, entry in plan.items():
        if pattern == TARGET_VOCABULARY:
            continue
        if not isinstance(pattern, str) or not pattern or len(pattern) > LONGEST_PATTERN:
            raise LeanformerError(
                f"plan {quoted(pattern)}: a pattern of site names is a text of 1 to {LONGEST_PATTERN} characters"
            )
        where = f"plan {pattern!r}"
        if pattern.endswith("layers"):
            emptied = find_block("none", where)
            for name, stays in _layers(pattern, entry, sites, where).items():
                chosen.pop(name, None)
                if not stays:
                    chosen[name] = Choice(emptied, emptied.Arguments(), pattern)
            continue
        name, given = _entry(entry, where)
        block = find_block(name, where)
        arguments = check_arguments(block, given, where)
        matched = [site for site in sites if fnmatchcase(site.name, pattern)]
        if not matched:
            raise LeanformerError(f"{where} matches no site; {_suggestion(pattern, sites)}")
        for site in matched:
            if site.kind not in block.kinds:
                raise LeanformerError(
                    f"{where}: block {name!r} cannot stand at {site.name}; "
                    f"blocks that can: {', '.join(blocks_at(site.kind))}"
                )
            chosen[site.name] = Choice(block, arguments, pattern)
    return chosen


def _layers(pattern: str, entry: Any, sites: Sequence[Site], where: str) -> dict[str, bool]:
    """Whether each layer of the stacks that a pattern matches stays, by the name of its site.

    Raises:
        LeanformerError: The pattern matches no stack, or the entry does not say which of its layers to keep.
    """
    stacks: dict[str, list[Site]] = {}
    for site in sites:
        if site.kind == "layer":
            stacks.setdefault(site.name.split(".")[0], []).append(site)
    matched = {stack: layers for stack, layers in stacks.items() if fnmatchcase(f"{stack}.layers", pattern)}
    if not matched:
        known = " and ".join(f"'{stack}.layers'" for stack in stacks)
        raise LeanformerError(f"{where} matches no stack of layers; the model has {known or 'none'}")
    keep = entry.get("keep") if isinstance(entry, Mapping) and set(entry) == {"keep"} else None
    stay: dict[str, bool] = {}
    for stack, layers in matched.items():
        kept = _kept_layers(
            keep, [int(site.name.split(".")[1]) for site in layers if site.block != "none"], where, stack
        )
        stay |= {site.name: int(site.name.split(".")[1]) in kept for site in layers}
    return stay


def _kept_layers(keep: Any, present: list[int], where: str, stack: str) -> list[int]:
    """The layers of a stack that stay.

    Args:
        keep: As the plan says it.
        present: The layers that the stack has.
        where: The place of a mistake, for messages.
        stack: The stack's name, for messages.
    """
    there = f"the {stack} has {len(present)} layers: {', '.join(map(str, present))}"
    if type(keep) is int:
        if not 1 <= keep <= len(present):
            raise LeanformerError(f"{where}: keep = {keep} is not a number of layers that can stay; {there}")
        return evenly(present, keep)
    if not isinstance(keep, list) or not keep or any(type(layer) is not int for layer in keep):
        raise LeanformerError(
            f"{where}: write {{keep: 2}}, how many layers stay, or {{keep: [0, 2]}}, which ones; {there}"
        )
    for layer in keep:
        if layer not in present:
            raise LeanformerError(f"{where}: keep = {keep} names layer {layer}, but {there}")
        if keep.count(layer) > 1:
            raise LeanformerError(f"{where}: keep = {keep} names layer {layer} twice; name it once")
    return keep


def evenly(layers: Sequence[int], count: int) -> list[int]:
    """So many layers at the greatest even distance: the first, the last, and others between; one alone is the first.

    Source: Shleifer and Rush 2020, "Pre-trained Summarization Distillation" (arXiv 2010.13002), section 4, "shrink and
    fine-tune".

    Args:
        layers: The layers to choose from, at least ``count``.
        count: 1 or more.
    """
    if count == 1:
        return [layers[0]]
    steps, last = count - 1, len(layers) - 1
    return [layers[(2 * step * last + steps) // (2 * steps)] for step in range(count)]  # rounded, halves upwards


def _entry(entry: Any, where: str) -> tuple[str, dict[str, Any]]:
    if isinstance(entry, str):
        return entry, {}
    if not isinstance(entry, Mapping):
        raise LeanformerError(f"{where}: write a block's name or {{block: name, argument: value}}, not {quoted(entry)}")
    for key in entry:
        if not isinstance(key, str):
            raise LeanformerError(f"{where}: the name of a block's argument is a text, not {quoted(key)}")
    given = dict(entry)
    name = given.pop("block", None)
    if not isinstance(name, str):
        raise LeanformerError(f"{where}: the key 'block' with the block's name is missing")
    return name, given


def _suggestion(pattern: str, sites: Sequence[Site]) -> str:
    names = [site.name for site in sites]
    close = difflib.get_close_matches(pattern, names, n=1, cutoff=0.0)
    kinds = sorted({name.rsplit(".", 1)[-1] for name in names})
    return f"sites look like {close[0]!r} and end in: {', '.join(kinds)}" if close else "the model has no sites"

"""A plan says what stands where: glob patterns over site names -> a block's name and arguments."""

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
        plan: Patterns (``*``, ``?``, ``[0-3]``) to a block's name, or to ``{"block": name, argument: value, ...}``.
        sites: All sites of the model.

    Returns:
        Site name -> choice, for the sites that some pattern matches.

    Raises:
        LeanformerError: The plan is empty or not a mapping, a pattern matches nothing, a block is unknown or cannot
            stand at a site that its pattern matches, an argument is unknown or wrong.
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

"""What each plan changes, site by site and in groups of like sites, and where each model's parameters are."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from leanformer.report.style import NEUTRAL, empty_figure, row_axis, row_height, safe
from leanformer.results import formats
from leanformer.results.schema import rows_of

KINDS = (("#2a78b5", ""), ("#d98c00", "/"), ("#1f9d7a", "."), ("#a8588f", "\\"), ("#56b4e9", "x"))
"""Color and pattern of each kind of site, in the order of the kinds."""


PLACES = {"self_attention": "self", "cross_attention": "cross", "mlp": "MLP", "layer": "layer"}
"""Kind of a site -> its short name; a sublayer has its attention's name."""


@dataclass(frozen=True)
class SiteGroup:
    """Like sites of neighboring layers, and what a plan did to them.

    Args:
        sites: Such as ``encoder.0-5.mlp``.
        block: The block that stands there now.
        arguments: The block's arguments, as text; empty where there are none.
        removed: Parameters of the baseline that were removed, at all sites together.
        added: Parameters of the blocks that replace them.
        r2: Held-out R² of the taught blocks there, mean over the sites; None where none was taught.
    """

    sites: str
    block: str
    arguments: str
    removed: int
    added: int
    r2: float | None

    @property
    def net(self) -> int:
        """The change in parameters; below 0 where the sites have fewer."""
        return self.added - self.removed


def changed_sites(changes: Sequence[Mapping[str, Any]]) -> list[SiteGroup]:
    """What a plan changed, with like sites of neighboring layers in one group.

    Args:
        changes: A row's ``changes``, one entry per site in the model's order. The parts of a layer that was replaced as
            a whole do not count as changed.
    """
    return [_group(run) for run in _runs([change for change in changes if change["changed"]])]


def each_site(changes: Sequence[Mapping[str, Any]]) -> list[SiteGroup]:
    """What a plan changed, one entry per site, with like sites next to each other."""
    changed = [change for change in changes if change["changed"]]
    return [_group([change]) for run in _runs(changed) for change in run]


def in_all(groups: Sequence[SiteGroup]) -> SiteGroup:
    """The sum of several groups."""
    known = [group.r2 for group in groups if group.r2 is not None]
    return SiteGroup(
        "all",
        "",
        "",
        sum(group.removed for group in groups),
        sum(group.added for group in groups),
        statistics.fmean(known) if known else None,
    )


def kept_sites(changes: Sequence[Mapping[str, Any]]) -> list[SiteGroup]:
    """The sites that a plan left unchanged, grouped likewise, without layers and sublayers, whose parts are listed."""
    kept = [
        change
        for change in changes
        if not change["changed"]
        and not change["kind"].endswith("layer")
        # Parts of a layer that was replaced as a whole have changed too.
        and change["parameters_before"] == change["parameters_after"]
    ]
    return [_group(run) for run in _runs(kept)]


Run = list[Mapping[str, Any]]
"""Changes of like sites of neighboring layers."""


def _runs(changes: Sequence[Mapping[str, Any]]) -> list[Run]:
    places: dict[tuple[str, str], list[Run]] = {}
    for change in changes:
        before, layer, after = _split(change["site"])
        runs = places.setdefault((before, after), [])
        if runs and layer_of(runs[-1][-1]["site"]) == layer - 1 and _alike(runs[-1][-1], change):
            runs[-1].append(change)
        else:
            runs.append([change])
    return [run for runs in places.values() for run in runs]


def _group(run: Run) -> SiteGroup:
    first, last = run[0], run[-1]
    before, layer, after = _split(first["site"])
    r2 = [change["r2"] for change in run if change["r2"] is not None]
    return SiteGroup(
        sites=first["site"] if first is last else f"{before}{layer}-{layer_of(last['site'])}{after}",
        block=first["block"],
        # Null arguments were left to the block.
        arguments=", ".join(f"{key}: {plain(value)}" for key, value in first["arguments"].items() if value is not None),
        removed=sum(change["removed"] for change in run),
        added=sum(change["added"] for change in run),
        r2=statistics.fmean(r2) if r2 else None,
    )


def _alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return bool((one["block"], one["arguments"]) == (other["block"], other["arguments"]))


def _split(site: str) -> tuple[str, int, str]:
    """``encoder.3.mlp`` -> ("encoder.", 3, ".mlp"); a site outside the layers -> (its name, -1, "")."""
    found = re.fullmatch(r"(.*?\.)(\d+)(\..*)", site)
    return (found[1], int(found[2]), found[3]) if found else (site, -1, "")


def layer_of(site: str) -> int:
    """``encoder.3.mlp`` -> 3; -1 for a site outside the layers."""
    return _split(site)[1]


def place_of(site: str) -> str:
    """A site's place in the model without its layer: ``encoder self``, ``cross``, ``decoder layer``."""
    stack, _, rest = site.partition(".")
    word = PLACES.get(rest.rpartition(".")[2].removesuffix("_sublayer"))
    return site if word is None else word if word == "cross" else f"{stack} {word}"


def plain(value: Any) -> str:
    """A value as the study file writes it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def kinds_of(results: Mapping[str, Any]) -> list[str]:
    """The kinds of site that hold parameters in any model, in the order of the sites; ``other`` is last."""
    rows = rows_of(results)
    kinds = dict.fromkeys(kind for row in rows for kind, count in row["parameters_by_kind"].items() if count)
    return sorted(kinds, key=lambda kind: kind == "other")


def parameters_by_kind(results: Mapping[str, Any]) -> go.Figure:
    """Each model's parameters by kind of site, one bar per model; the empty rest of a bar is what the plan removed."""
    rows = rows_of(results)
    figure = empty_figure(
        height=row_height(rows),
        barmode="stack",
        bargap=0.35,
        xaxis={"title": {"text": "parameters"}, "tickformat": "~s"},
        yaxis=row_axis(results, rows),
    )

    def add(name: str, counts: list[int], marker: dict[str, Any]) -> None:
        figure.add_bar(
            name=name,
            orientation="h",
            x=counts,
            y=list(range(len(rows))),
            marker=marker,
            customdata=[f"{safe(row['name'])}: {formats.count(n)}" for row, n in zip(rows, counts, strict=True)],
            hovertemplate="%{customdata}<extra>%{fullData.name}</extra>",
        )

    kinds = kinds_of(results)
    styles = dict(zip((kind for kind in kinds if kind != "other"), KINDS * len(kinds), strict=False))
    for kind in kinds:
        color, shape = styles.get(kind, (NEUTRAL, ""))
        pattern = {"shape": shape, "fillmode": "overlay", "fgcolor": "#ffffff", "solidity": 0.2, "size": 7}
        counts = [row["parameters_by_kind"].get(kind, 0) for row in rows]
        add(safe(kind.replace("_", " ")), counts, {"color": color, "pattern": pattern})
    removed = [max(0, rows[0]["parameters"] - row["parameters"]) for row in rows]
    add("removed", removed, {"color": "rgba(127,135,145,0.08)", "line": {"color": NEUTRAL, "width": 1}})
    return figure

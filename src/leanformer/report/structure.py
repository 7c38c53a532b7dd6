"""What each plan changes: like sites together, and where each model's parameters are."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from leanformer.report import numbers
from leanformer.report.style import NEUTRAL, empty_figure, row_axis, row_height, safe

KINDS = (("#2a78b5", ""), ("#d98c00", "/"), ("#1f9d7a", "."), ("#a8588f", "\\"), ("#56b4e9", "x"))
"""Color and pattern by kind of site, in the order in which kinds come."""


@dataclass(frozen=True)
class SiteGroup:
    """Like sites of neighboring layers, and what a plan did to them.

    Args:
        sites: Such as ``encoder.0-5.mlp``.
        block: What stands there now.
        arguments: The block's arguments, as text; empty where there are none.
        before: Parameters there in the baseline, all sites together.
        after: Parameters there now.
    """

    sites: str
    block: str
    arguments: str
    before: int
    after: int


def changed_sites(changes: Sequence[Mapping[str, Any]]) -> list[SiteGroup]:
    """What a plan changed, like sites of neighboring layers in one group.

    Args:
        changes: A row's ``changes``, one entry a site in the model's order.
    """
    return _grouped([change for change in changes if change["changed"]])


def kept_sites(changes: Sequence[Mapping[str, Any]]) -> list[SiteGroup]:
    """What a plan left as it was, grouped likewise; whole layers not counted, whose parts are."""
    return _grouped(
        [
            change
            for change in changes
            if not change["changed"]
            and change["kind"] != "layer"
            # Parts of a layer that went whole are no longer what they were.
            and change["parameters_before"] == change["parameters_after"]
        ]
    )


def _grouped(changes: Sequence[Mapping[str, Any]]) -> list[SiteGroup]:
    places: dict[tuple[str, str], list[list[tuple[int, Mapping[str, Any]]]]] = {}
    for change in changes:
        before, layer, after = _split(change["site"])
        runs = places.setdefault((before, after), [])
        if runs and runs[-1][-1][0] == layer - 1 and _alike(runs[-1][-1][1], change):
            runs[-1].append((layer, change))
        else:
            runs.append([(layer, change)])
    return [
        SiteGroup(
            sites=run[0][1]["site"] if len(run) == 1 else f"{before}{run[0][0]}-{run[-1][0]}{after}",
            block=run[0][1]["block"],
            arguments=", ".join(f"{key}: {_plain(value)}" for key, value in run[0][1]["arguments"].items()),
            before=sum(change["parameters_before"] for _, change in run),
            after=sum(change["parameters_after"] for _, change in run),
        )
        for (before, after), runs in places.items()
        for run in runs
    ]


def _alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return bool((one["block"], one["arguments"]) == (other["block"], other["arguments"]))


def _split(site: str) -> tuple[str, int, str]:
    """``encoder.3.mlp`` -> ("encoder.", 3, ".mlp"); a site outside the layers is its own, at -1."""
    found = re.fullmatch(r"(.*?\.)(\d+)(\..*)", site)
    return (found[1], int(found[2]), found[3]) if found else (site, -1, "")


def _plain(value: Any) -> str:
    """A value as the study file writes it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def kinds_of(results: Mapping[str, Any]) -> list[str]:
    """The kinds of site that hold parameters in any model, in the order in which they come; ``other`` last."""
    rows = [results["baseline"], *results["candidates"]]
    kinds = dict.fromkeys(kind for row in rows for kind, count in row["parameters_by_kind"].items() if count)
    return sorted(kinds, key=lambda kind: kind == "other")


def parameters_by_kind(results: Mapping[str, Any]) -> go.Figure:
    """What each model's parameters are for, a bar a model; the empty rest of a bar is what the plan took away."""
    rows = [results["baseline"], *results["candidates"]]
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
            customdata=[f"{safe(row['name'])}: {numbers.count(n)}" for row, n in zip(rows, counts, strict=True)],
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

"""What the blocks of distilled candidates learned from their teacher: R² on held-out data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from leanformer.report.heatmap import heat_map
from leanformer.report.structure import KINDS, layer_of, place_of
from leanformer.report.style import empty_figure, safe
from leanformer.results import formats

DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
MOST_LAYERS_WITH_NUMBERS = 8
LOWEST_SHOWN = -0.5
"""Lower values are not shown, because they would squeeze all curves."""


def teaching_figures(results: Mapping[str, Any]) -> dict[str, dict[str, go.Figure]]:
    """R² of each distilled candidate's blocks.

    Returns:
        Name of the candidate -> kind of figure (R² by layer, by epoch) -> the figure. All figures of one kind share
        their axes. A candidate that was not distilled, or whose teaching failed in its first epoch, has no entry.
    """
    rows = [
        row
        for row in results["candidates"]
        if row["teaching"] and any(change["r2"] is not None for change in row["changes"])
    ]
    epochs = max((row["teaching"]["epochs"] for row in rows), default=1)
    curves = [curve["r2"] for row in rows for curve in row["teaching"]["curves"]]
    low = max(LOWEST_SHOWN, min((value for values in curves for value in values), default=0.0))
    axes = {
        "xaxis": {"range": [0, epochs * 1.03], "nticks": 5},
        "yaxis": {"range": [min(0.0, low) - 0.02, 1.02], "nticks": 6},
    }
    places = list(dict.fromkeys(place_of(curve["site"]) for row in rows for curve in row["teaching"]["curves"]))
    return {row["name"]: {"R² by layer": _by_layer(row), "R² by epoch": _by_epoch(row, places, axes)} for row in rows}


def _by_layer(row: Mapping[str, Any]) -> go.Figure:
    taught = {
        (place_of(change["site"]), layer_of(change["site"])): change
        for change in row["changes"]
        if change["r2"] is not None
    }
    places = list(dict.fromkeys(place for place, _ in taught))
    layers = sorted({layer for _, layer in taught})
    found = [[taught.get((place, layer)) for layer in layers] for place in places]
    return heat_map(
        [[None if change is None else change["r2"] for change in line] for line in found],
        [["" if change is None else formats.r_squared(change["r2"]) for change in line] for line in found]
        if len(layers) <= MOST_LAYERS_WITH_NUMBERS
        else None,
        [["" if change is None else _seeds(change) for change in line] for line in found],
        (0, 1),
        height=84 + 34 * len(places),
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        xaxis={"title": {"text": "layer"}, "tickvals": list(range(len(layers))), "ticktext": [str(n) for n in layers]},
        yaxis={"tickvals": list(range(len(places))), "ticktext": places},
    )


def _seeds(change: Mapping[str, Any]) -> str:
    per_seed = ", ".join(formats.r_squared(value) for value in change["r2_per_seed"])
    return f"{safe(change['site'])}: {safe(change['block'])}<br>R² by seed: {per_seed}"


def _by_epoch(row: Mapping[str, Any], places: Sequence[str], axes: Mapping[str, Any]) -> go.Figure:
    figure = empty_figure(height=220, margin={"l": 42, "r": 8, "t": 34, "b": 26}, **axes)
    shown: set[str] = set()
    for curve in row["teaching"]["curves"]:
        place = place_of(curve["site"])
        style = places.index(place)
        figure.add_scatter(
            name=place,
            legendgroup=place,
            showlegend=place not in shown,
            x=list(range(1, len(curve["r2"]) + 1)),
            y=[formats.significant(value) for value in curve["r2"]],
            mode="lines" if len(curve["r2"]) > 1 else "markers",
            line={"color": KINDS[style % len(KINDS)][0], "width": 1.2, "dash": DASHES[style % len(DASHES)]},
            hovertemplate=f"{safe(curve['site'])}, seed {curve['seed']}, epoch %{{x}}: %{{y}}<extra></extra>",
        )
        shown.add(place)
    return figure

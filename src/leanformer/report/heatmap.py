"""The report's heat maps: orange is worse, blue is better, and every cell shows its number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from leanformer.report.style import empty_figure, reach
from leanformer.results import formats
from leanformer.results.metrics import Metric

# Color-blind readers can tell these apart; in gray, the numbers help.
COLORSCALE = [[0, "#b35806"], [0.25, "#f1a340"], [0.5, "#f4f5f6"], [0.75, "#79b2d9"], [1, "#0b5394"]]

Grid = Sequence[Sequence[Any]]
"""One list for each line, from top to bottom."""


def heat_map(
    values: Grid,
    texts: Grid | None,
    hovers: Grid,
    limits: tuple[float, float],
    unit: str = "",
    less_is_better: bool = False,
    **layout: Any,
) -> go.Figure:
    """A heat map; cells are at whole numbers, counted from the upper left.

    Args:
        values: The values that the colors show; None leaves a cell empty.
        texts: The texts in the cells; None where there are too many cells.
        hovers: The hover texts.
        limits: The values of the deepest orange and the deepest blue; white is in the middle.
        unit: The title of the color scale; without it, there is no scale.
        less_is_better: Reverses the colors.
        layout: The figure's layout: height, axes.
    """
    figure = empty_figure(**layout)
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(showgrid=False, range=[len(values) - 0.5, -0.5])
    written = [list(line) for line in texts or ()]
    for down, line in enumerate(written):
        for across, text in enumerate(line):
            if text and values[down][across] is None:
                # Plotly would write this text in a color for white paper; an annotation takes the page's color.
                figure.add_annotation(x=across, y=down, text=text, showarrow=False)
                line[across] = ""
    figure.add_heatmap(
        z=[[formats.significant(value) for value in line] for line in values],
        zmin=limits[0],
        zmax=limits[1],
        colorscale=COLORSCALE,
        reversescale=less_is_better or None,
        xgap=1 if texts else 0,
        ygap=1,
        text=written or None,
        texttemplate="%{text}" if texts else None,
        customdata=hovers,
        hovertemplate="%{customdata}<extra></extra>",
        hoverongaps=False,
        showscale=bool(unit),
        colorbar={
            "orientation": "h",
            "title": {"text": unit, "side": "right"},
            "thickness": 10,
            "lenmode": "pixels",
            "len": 220,
            "x": 0,
            "xanchor": "left",
            "y": 1,
            "yanchor": "bottom",
            "ypad": 4,
        },
    )
    return figure


def difference_limits(values: Grid, results: Mapping[str, Any], metric: Metric) -> tuple[float, float]:
    """Limits of a color scale: a difference of 0 is white, and the scale ends at the largest value or at ``reach``.

    Args:
        values: The shown differences.
        results: The content of ``results.json``.
        metric: The study's metric.
    """
    largest = max((abs(value) for line in values for value in line if value is not None), default=0.0) or 1.0
    limit = min(largest, reach(results) * metric.scale)
    return -limit, limit

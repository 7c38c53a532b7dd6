"""The report's one form of heat map: orange is worse, blue is better, and every cell says its number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from leanformer.report.style import empty_figure, reach
from leanformer.results import formats
from leanformer.results.metrics import Metric

# Apart for every reader, and in gray the number tells.
COLORSCALE = [[0, "#b35806"], [0.25, "#f1a340"], [0.5, "#f4f5f6"], [0.75, "#79b2d9"], [1, "#0b5394"]]

Grid = Sequence[Sequence[Any]]
"""One list a line, from top to bottom."""


def heat_map(
    values: Grid,
    texts: Grid | None,
    hovers: Grid,
    limits: tuple[float, float],
    unit: str = "",
    less_is_better: bool = False,
    **layout: Any,
) -> go.Figure:
    """A heat map; cells stand at whole numbers, counted from the upper left.

    Args:
        values: What the colors show; None leaves a cell empty.
        texts: Written into the cells; None where there are too many.
        hovers: What a cell says when it is pointed at.
        limits: The values of the deepest orange and the deepest blue; equally far from white.
        unit: Written beside the scale of colors; there is none without it.
        less_is_better: Turns the colors round.
        layout: Of the figure: height, axes.
    """
    figure = empty_figure(**layout)
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(showgrid=False, range=[len(values) - 0.5, -0.5])
    written = [list(line) for line in texts or ()]
    for down, line in enumerate(written):
        for across, text in enumerate(line):
            if text and values[down][across] is None:
                # There plotly would write in a color for white paper; a note takes the page's.
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
    """Limits at which no difference is white, and what is far is as deep as what is farther.

    Args:
        values: Differences as they are shown.
        results: The content of ``results.json``.
        metric: The study's.
    """
    largest = max((abs(value) for line in values for value in line if value is not None), default=0.0) or 1.0
    limit = min(largest, reach(results) * metric.scale)
    return -limit, limit

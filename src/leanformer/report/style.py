"""What the report's figures share: colors, symbols, labels, and the empty figure.

Colors are from Okabe and Ito's palette, which color-blind readers can tell apart, darkened where white paper needs it.
A symbol, a pattern or a number always says the same as the color.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from leanformer.report.cells import margin_drop

NEUTRAL = "#7f8791"  # readable on white and on the dark page
COLORS = {"accept": "#2a78b5", "undecided": "#c98500", "reject": "#c4441c", "failed": NEUTRAL, "baseline": NEUTRAL}
SYMBOLS = {
    "accept": "circle",
    "undecided": "diamond-open",
    "reject": "x-thin-open",
    "failed": "x-thin-open",
    "baseline": "square",
}
LONGEST_TICK = 20
FAR = 10
"""Losses of more margins than this are shown at the edge, so that one failed model does not squeeze all others."""


def empty_figure(**layout: Any) -> go.Figure:
    """A figure in the report's style; the page adds the colors of its light or dark theme.

    Args:
        layout: Further settings of this figure's layout, by plotly's names.
    """
    axis = {"automargin": True, "zeroline": False}
    layout = {
        "template": "none",
        "margin": {"l": 8, "r": 12, "t": 30, "b": 8},
        "legend": {
            "orientation": "h",
            "xref": "container",
            "yref": "container",
            "x": 0,
            "y": 1,
            "yanchor": "top",
            "traceorder": "normal",
        },
        "font": {"size": 12},
        "hoverlabel": {"align": "left"},
        "hovermode": "closest",
        **layout,
    }
    return go.Figure(layout=layout).update_xaxes(axis, title={"standoff": 8}).update_yaxes(axis)


def reach(results: Mapping[str, Any]) -> float:
    """The loss at which axes and color scales of differences end; infinite where the margin is 0."""
    return FAR * margin_drop(results) or math.inf


def row_axis(results: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A vertical axis with one line per model, the first on top, labelled with its shortened name and its number."""
    places = number_of(results)
    return {
        "tickvals": list(range(len(rows))),
        "ticktext": [f"{safe(shortened(row['name'], LONGEST_TICK))} <b>{places[row['name']]}</b>" for row in rows],
        "range": [len(rows) - 0.4, -0.6],
        "showgrid": False,
    }


def row_height(rows: Sequence[Mapping[str, Any]]) -> int:
    """The height in pixels of a figure with a ``row_axis``."""
    return 110 + 30 * len(rows)


def number_of(results: Mapping[str, Any]) -> dict[str, str]:
    """Candidate -> its number in the table, which replaces its name where there is little space; the baseline is B."""
    return {results["baseline"]["name"]: "B"} | {
        row["name"]: str(number) for number, row in enumerate(results["candidates"], start=1)
    }


def shortened(text: str, longest: int) -> str:
    """At most this many characters of a text, with an ellipsis for the rest."""
    return text if len(text) <= longest else f"{text[: longest - 1]}\N{HORIZONTAL ELLIPSIS}"


def safe(text: str) -> str:
    """Text that plotly shows literally; without this, it would read some HTML tags in labels."""
    return html.escape(text, quote=False)


def scaled(value: float | None, scale: float) -> float | None:
    """A value times a scale; None stays None."""
    return None if value is None else value * scale

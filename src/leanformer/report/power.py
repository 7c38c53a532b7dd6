"""plan-test.html and the table for the terminal, from plan-test.json alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from markupsafe import Markup
from plotly.offline import get_plotlyjs
from rich.table import Table

from leanformer.core.files import write_atomically
from leanformer.report.page import make_environment
from leanformer.report.style import NEUTRAL, empty_figure
from leanformer.results import formats
from leanformer.results.metrics import METRICS

NONE = "none"
"""The text where no number of examples suffices."""
LINES = (("#2a78b5", "solid"), ("#c4441c", "dash"), ("#c98500", "dashdot"), ("#1a7f6b", "dot"), ("#7b4f9d", "longdash"))
"""Color and dashes of the curves, in turn."""


def power_table(results: Mapping[str, Any]) -> Table:
    """One row per number of seeds, with the test examples that each decision needs, for 80 columns.

    Args:
        results: The content of ``plan-test.json``.
    """
    table = Table(
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
        title=headline(results),
        title_justify="left",
        title_style="bold",
        caption=" ".join(results["assumptions"]),
        caption_justify="left",
        caption_style="dim",
    )
    table.add_column("seeds", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for level in results["levels"]:
        table.add_column(level["title"], justify="right", no_wrap=True)
    table.add_row("", "p at most", *(f"{level['level']:.4g}" for level in results["levels"]))
    table.add_row("", "if no example differs", *(formats.count(level["without_losses"]) for level in results["levels"]))
    for plan in results["plans"]:
        table.add_row(str(plan["seeds"]), scope(plan["seeds"]), *cells(results, plan))
    return table


def headline(results: Mapping[str, Any]) -> str:
    """What the numbers in the table are."""
    margin = METRICS[results["metric"]].margin(results["margin"])
    return f"Test examples that show a margin of {margin}, with a power of {formats.confidence(results['power'])}"


def scope(seeds: int) -> str:
    """What so many seeds decide on."""
    return "one trained pair" if seeds == 1 else "a recipe"


def cells(results: Mapping[str, Any], plan: Mapping[str, Any]) -> list[str]:
    """The numbers of examples of one number of seeds, a level each."""
    numbers = (plan["examples"][level["key"]] for level in results["levels"])
    return [NONE if number is None else formats.count(number) for number in numbers]


def write_page(results: Mapping[str, Any], path: Path) -> Path:
    """Writes the page, whole or not at all.

    Args:
        results: The content of ``plan-test.json``.
        path: The page.

    Raises:
        LeanformerError: It cannot be written.
    """
    page = (
        make_environment()
        .get_template("power.html.jinja")
        .render(
            results=results,
            metric=METRICS[results["metric"]],
            headline=headline(results),
            scope=scope,
            cells=lambda plan: cells(results, plan),
            none_suffices=any(NONE in cells(results, plan) for plan in results["plans"]),
            plots={"power": {level["title"]: _curves(results, level).to_plotly_json() for level in results["levels"]}},
            plotly=Markup(get_plotlyjs()),
        )
    )
    write_atomically(path, page)
    return path


def _curves(results: Mapping[str, Any], level: Mapping[str, Any]) -> go.Figure:
    """Power against the number of examples at one level, a line for each number of seeds."""
    figure = empty_figure(
        height=380,
        margin={"l": 8, "r": 16, "t": 64, "b": 8},
        xaxis={"title": {"text": "test examples"}, "type": "log", "tickformat": ",~s", "nticks": 6},
        yaxis={"title": {"text": "power in %"}, "range": [0, 102]},
    )
    figure.add_hline(y=100 * results["power"], line={"color": NEUTRAL, "width": 1, "dash": "dot"})
    curves = [curve for curve in results["curves"] if curve["level"] == level["key"]]
    for place, curve in enumerate(curves):
        color, dash = LINES[place % len(LINES)]
        seeds = "1 seed" if curve["seeds"] == 1 else f"{curve['seeds']} seeds"
        figure.add_scatter(
            x=curve["examples"],
            y=[formats.significant(100 * value, 4) for value in curve["power"]],
            mode="lines",
            name=seeds,
            line={"color": color, "dash": dash, "width": 2},
            hovertemplate=f"{seeds}, %{{x:,}} examples: %{{y:.0f}} %<extra></extra>",
        )
    return figure

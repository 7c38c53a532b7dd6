"""comparison.html, and the table and sentences for the terminal, from comparison.json alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup
from plotly.offline import get_plotlyjs
from rich.table import Table
from rich.text import Text

from leanformer.core.errors import printable
from leanformer.core.files import write_atomically
from leanformer.report import figures
from leanformer.report.cells import interval, margin_words, verdict
from leanformer.report.columns import Column
from leanformer.report.page import MARKS, make_environment
from leanformer.report.style import number_of
from leanformer.report.summary import STYLES, what_would_decide
from leanformer.results import formats
from leanformer.results.formats import or_missing
from leanformer.results.metrics import find_metric
from leanformer.results.schema import rows_of


def comparison_table(results: Mapping[str, Any]) -> Table:
    """One row per model, for a terminal of 80 columns or more.

    Args:
        results: The content of ``comparison.json``.
    """
    metric = find_metric(results)
    table = Table(
        box=None,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        caption_justify="left",
        caption_style="dim",
        caption=(
            f"{metric.titled}; difference to the baseline in {metric.difference_unit}; in brackets the "
            f"{formats.confidence(results['accept']['confidence'])} interval; {_counted(results)}"
        ),
    )
    columns = _columns(results)
    table.add_column("model", overflow="fold", min_width=8)
    for column in columns:
        table.add_column(column.head, justify="right" if column.kind == "number" else "left", no_wrap=True)
    for row in rows_of(results):
        texts = [column.on_terminal(row) for column in columns]
        table.add_row(
            Text(printable(row["name"])),
            *(
                Text(text, style=STYLES[text]) if column.kind == "verdict" else text
                for column, text in zip(columns, texts, strict=True)
            ),
        )
    return table


def decided_lines(results: Mapping[str, Any]) -> list[str]:
    """The decision on each new model, in a line each.

    Args:
        results: The content of ``comparison.json``.
    """
    return [f"{row['name']}: {row['decision']}. {row['reason']}" for row in results["candidates"]]


def further_lines(results: Mapping[str, Any]) -> list[str]:
    """What the decisions hold for, what would decide what is undecided, and what is decided on recipes, in a line each.

    Args:
        results: The content of ``comparison.json``.
    """
    rows = results["candidates"]
    lines = [
        f"Not decided: {row['name']}; {what_would_decide(row, 'example', results['data'])}."
        for row in rows
        if row["decision"] == "undecided"
    ]
    if results["pair"] is not None:
        old, new = results["pair"]
        lines.append(f"This holds for the models of seed {old} (the baseline's) and of seed {new}.")
    elif any(row["scope"] == "one trained pair" for row in rows):
        lines.append("This holds for these trained models, and says nothing about other trainings.")
    lines += [
        f"The recipe of {row['name']}, over all seeds: {row['recipe']['decision']}. {row['recipe']['reason']}"
        for row in rows
        if row["recipe"] is not None
    ]
    return lines


def write_page(results: Mapping[str, Any], path: Path) -> Path:
    """Writes the page, whole or not at all.

    Args:
        results: The content of ``comparison.json``.
        path: The page's path.

    Raises:
        LeanformerError: It cannot be written.
    """
    difference = figures.difference(results)
    assert difference is not None  # every candidate has one
    headline, *lines = [*decided_lines(results), *further_lines(results)]
    page = (
        make_environment()
        .get_template("comparison.html.jinja")
        .render(
            results=results,
            metric=find_metric(results),
            rows=rows_of(results),
            columns_shown=[*_columns(results), Column("reason", lambda row: row.get("reason") or "", kind="words")],
            headline=headline,
            lines=lines,
            counted=_counted(results),
            confidence=formats.confidence(results["accept"]["confidence"]),
            margin=margin_words(results, find_metric(results)),
            places=number_of(results),
            chosen=None,
            verdict=verdict,
            marks=MARKS,
            plots={"difference": {"": difference.to_plotly_json()}},
            plotly=Markup(get_plotlyjs()),
        )
    )
    write_atomically(path, page)
    return path


def _columns(results: Mapping[str, Any]) -> list[Column]:
    """The columns of both tables."""
    metric, p_value = find_metric(results), or_missing(formats.p_value)
    return [
        Column(metric.name, lambda row: interval(row["quality"], metric.number), metric.unit, label=metric.titled),
        Column(
            "difference",
            lambda row: interval(row.get("difference"), metric.signed),
            metric.difference_unit,
            label=f"difference, {metric.difference_unit}",
        ),
        Column("p", lambda row: p_value(row.get("p_adjusted"))),
        Column("decision", verdict, kind="verdict"),
    ]


def _counted(results: Mapping[str, Any]) -> str:
    """How many examples there are, in words."""
    data = results["data"]
    text = f"{formats.count(data['test'])} examples"
    if data["groups"] is not None:
        text += f" in {formats.count(data['groups'])} groups"
    if data["effective"] is not None:
        units = "examples" if data["groups"] is None else "groups"
        text += f", by their weights as good as {formats.count(data['effective'])} {units} of equal weight"
    return text

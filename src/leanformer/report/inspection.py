"""inspection.html and the table for the terminal, from inspection.json alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup
from plotly import graph_objects as go
from plotly.offline import get_plotlyjs
from rich.table import Table
from rich.text import Text

from leanformer.core.errors import printable
from leanformer.core.files import write_atomically
from leanformer.report.heatmap import heat_map
from leanformer.report.page import make_environment
from leanformer.report.style import safe
from leanformer.results import formats
from leanformer.results.inspection import best_probe

LINE = 26  # pixels
CELL = 58
NAMES = 210
DEEPEST_LOSS = 1.0  # nats: beyond this a site is needed anyway, and a longer color scale would make all others pale

Row = Mapping[str, Any]
Value = Callable[[Row, Any], float | None]


def inspection_table(results: Mapping[str, Any]) -> Table:
    """One line per site, for 80 columns."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    for name in ("site", "linear", "probe", "entropy", "rank", "emptied", "probe", "which"):
        table.add_column(name, justify="left" if name in ("site", "which") else "right", no_wrap=True)
    for row in results["sites"]:
        best = best_probe(row, results["probes"])
        table.add_row(
            Text(row["site"]),
            _r2(row["r2"]["linear"]),
            "" if best is None else _r2(row["r2"][best[0]]),
            "" if row["entropy"] is None else f"{_mean(row['entropy']):.2f}",
            "" if row["effective_rank"] is None else f"{_mean(row['effective_rank']):.1f}",
            formats.signed(row["replaced"]["none"]["loss"], 2),
            "" if best is None else formats.signed(best[1], 2),
            Text("" if best is None else printable(best[0])),
        )
    return table


def layers_table(results: Mapping[str, Any]) -> Table | None:
    """One line for each number of layers of a stack, as a plan says it; None where every stack has a single layer."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("layers that stay", no_wrap=True, overflow="fold")
    table.add_column("loss", justify="right")
    for stack, step in layer_steps(results):
        table.add_row(Text(layers_plan(stack, step)), formats.signed(step["change"]["loss"], 2))
    return table if table.row_count else None


def layer_steps(results: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The stacks' names with the numbers of layers that were tried, the most first."""
    return [(stack, step) for stack, steps in results["layers"].items() for step in steps]


def layers_plan(stack: str, step: Mapping[str, Any]) -> str:
    """The line of a plan in a study file that keeps the layers of a step."""
    return f'"{stack}.layers": {{keep: [{", ".join(map(str, step["keep"]))}]}}'


LEGEND = (
    "R² of the best linear map and of the best probe; entropy (1: all weights equal) and effective rank, mean over "
    "heads; rise of the loss where the site is emptied, and where the best probe (least rise) replaces it."
)
"""The meaning of the table's columns."""

LEGEND_OF_LAYERS = (
    "A plan's line for each number of layers, and the rise of the loss with these alone, before any tuning; one more "
    "layer goes each time, the one that is missed least."
)
"""The meaning of the table of layers."""


def write_page(results: Mapping[str, Any], path: Path) -> Path:
    """Writes the page, whole or not at all.

    Raises:
        LeanformerError: It cannot be written.
    """
    environment = make_environment()
    environment.filters |= {"r_squared": formats.r_squared}
    plots = {
        place: {name: figure.to_plotly_json() for name, figure in shown.items()}
        for place, shown in _plots(results).items()
    }
    template = environment.get_template("inspection.html.jinja")
    page = template.render(
        results=results,
        plots=plots,
        places={},
        chosen=None,
        best=lambda row: best_probe(row, results["probes"]),
        mean=_mean,
        layers=[(layers_plan(stack, step), step) for stack, step in layer_steps(results)],
        signed=lambda value: formats.signed(value, 3),
        plotly=Markup(get_plotlyjs()),
    )
    write_atomically(path, page)
    return path


def _plots(results: Mapping[str, Any]) -> dict[str, dict[str, go.Figure]]:
    """Place on the page -> choice of what it shows -> the figure."""
    rows = results["sites"]
    tried = ["linear", *results["probes"]]
    attentions = [row for row in rows if row["entropy"] is not None]
    by_head = [row for row in rows if row["heads"]]
    plots = {
        "explained": {"": _grid(rows, tried, lambda row, name: row["r2"][name], _r2, (0.0, 1.0), "R²")},
        "replaced": {
            "": _grid(
                rows,
                ["none", *tried],
                lambda row, name: None if row["replaced"][name] is None else -row["replaced"][name]["loss"],
                lambda value: formats.signed(-value, 2),
                (-DEEPEST_LOSS, DEEPEST_LOSS),
                "rise of the loss, nats",
                ["emptied", *tried],
            )
        },
        "heads": {
            name: _heads(by_head, lambda row, name=name: row["r2_by_head"][name], _r2, (0.0, 1.0), "R²")  # type: ignore[misc]
            for name in tried
            if any(row["r2_by_head"][name] for row in by_head)
        },
        "entropy": {},
        "rank": {},
    }
    if attentions:
        plots["entropy"][""] = _heads(attentions, lambda row: row["entropy"], "{:.2f}".format, (0.0, 1.0), "entropy")
        largest = max(max(row["effective_rank"]) for row in attentions)
        plots["rank"][""] = _heads(
            attentions, lambda row: row["effective_rank"], "{:.1f}".format, (1.0, max(2.0, largest)), "effective rank"
        )
    return plots


def _grid(
    rows: list[Row],
    keys: list[str],
    value: Value,
    write: Callable[[float], str],
    limits: tuple[float, float],
    unit: str,
    titles: list[str] | None = None,
) -> go.Figure:
    """A figure with a line for each site and a column for each module that was tried there."""
    cells = [[value(row, key) for key in keys] for row in rows]
    return _map([row["site"] for row in rows], titles or keys, cells, write, limits, unit)


def _heads(
    rows: list[Row],
    values: Callable[[Row], list[float] | None],
    write: Callable[[float], str],
    limits: tuple[float, float],
    unit: str,
) -> go.Figure:
    """A figure with a line for each site and a column for each head."""
    lists = [values(row) or [] for row in rows]
    most = max(map(len, lists))
    cells = [[*line, *[None] * (most - len(line))] for line in lists]
    return _map([row["site"] for row in rows], [f"head {head}" for head in range(most)], cells, write, limits, unit)


def _map(
    sites: list[str],
    titles: list[str],
    cells: list[list[float | None]],
    write: Callable[[float], str],
    limits: tuple[float, float],
    unit: str,
) -> go.Figure:
    texts = [["" if value is None else write(value) for value in line] for line in cells]
    hovers = [
        [f"{safe(site)}, {safe(title)}: {text or 'not measured'}" for title, text in zip(titles, line, strict=True)]
        for site, line in zip(sites, texts, strict=True)
    ]
    return heat_map(
        cells,
        texts,
        hovers,
        limits,
        unit,
        height=110 + LINE * len(sites),
        margin={"l": 8, "r": 12, "t": 42, "b": 8},
        xaxis={"tickvals": list(range(len(titles))), "ticktext": [safe(title) for title in titles], "tickangle": 0},
        yaxis={"tickvals": list(range(len(sites))), "ticktext": [safe(site) for site in sites]},
        meta={"least_width": NAMES + CELL * len(titles)},
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _r2(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}" if value > -9.995 else "<-10"

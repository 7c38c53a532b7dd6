"""report.html: one page that needs nothing but itself, from results.json alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from leanformer.core.files import write_atomically
from leanformer.report import figures, numbers
from leanformer.report.ablation import ablation
from leanformer.report.curves import learning_curves
from leanformer.report.examples import side_by_side
from leanformer.report.numbers import METRICS, MISSING, find_metric
from leanformer.report.slices import by_part, difference_by_part, greatest_losses
from leanformer.report.structure import changed_sites, each_site, in_all, kept_sites, kinds_of, parameters_by_kind
from leanformer.report.style import number_of, reach
from leanformer.report.summary import PREFERENCES, decision_lines, interval, one_pair_only, speed_ratio, verdict
from leanformer.report.taught import teaching_figures
from leanformer.results.schema import read_results, rows_of

MARKS = {"accept": "●", "undecided": "◇", "reject": "✕", "failed": "✕", "baseline": "■"}
"""The symbols of the figures, as text."""


def write_report(directory: Path) -> Path:
    """Writes a run directory's ``report.html`` from its ``results.json``, whole or not at all.

    Args:
        directory: The run directory.

    Returns:
        The page's path.

    Raises:
        LeanformerError: ``results.json`` is missing, damaged or not leanformer's, or the page cannot be written.
    """
    directory = Path(directory)
    page = render(read_results(directory))
    path = directory / "report.html"
    write_atomically(path, page)
    return path


def make_environment() -> Environment:
    """Where a page's templates are found and filled in."""
    environment = Environment(
        loader=PackageLoader("leanformer", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["count"] = _or_missing(numbers.count)
    return environment


def render(results: Mapping[str, Any]) -> str:
    """The page's HTML.

    Args:
        results: The content of ``results.json``.
    """
    metric = find_metric(results)
    environment = make_environment()
    environment.filters |= {
        "change": _or_missing(numbers.change),
        "percent": _or_missing(numbers.percent),
        "short": _or_missing(numbers.short),
        "seconds": _or_missing(numbers.seconds),
        "milliseconds": _or_missing(numbers.milliseconds),
        "megabytes": _or_missing(numbers.megabytes),
        "bytes": _or_missing(numbers.size),
        "times": _or_missing(numbers.times),
        "p_value": _or_missing(numbers.p_value),
        "r_squared": _or_missing(numbers.r_squared),
        "rate": _or_missing(lambda value: f"{value:g}"),
        "number": _or_missing(metric.number),
        "signed": _or_missing(metric.signed),
        "quality": lambda value: interval(value, metric.number),
        "difference": lambda value: interval(value, metric.signed),
    }
    rows = rows_of(results)
    chosen = next((row for row in rows if row["name"] == results["recommended"]), None)
    places = number_of(results)
    plots = _plots(results)
    headline, *lines = decision_lines(results)
    template = environment.get_template("page.html.jinja")
    return template.render(
        results=results,
        metric=metric,
        metrics=METRICS,
        interval=interval,
        example=numbers.EXAMPLES[results["task"]],
        translation=results["task"] == "translation",
        rows=rows,
        chosen=chosen,
        headline=headline,
        lines=lines,
        one_pair=one_pair_only(results),
        places=places,
        verdict=verdict,
        marks=MARKS,
        speed_ratio=lambda row: speed_ratio(row, results["baseline"]),
        part_of=lambda mine, other: numbers.percent(mine / other) if other else "",
        prefer=PREFERENCES[results["prefer"]],
        confidence=numbers.confidence(results["accept"]["confidence"]),
        margin=metric.drop(results["accept"]["max_drop"]),
        far=metric.drop(reach(results)) if math.isfinite(reach(results)) else None,
        far_rows=[row for row in rows if row["difference"] and row["difference"]["mean"] < -reach(results)],
        distilled=[row for row in results["candidates"] if row["method"] == "distill"],
        changed={row["name"]: changed_sites(row["changes"]) for row in rows},
        kept={row["name"]: kept_sites(row["changes"]) for row in rows},
        each_site=each_site,
        in_all=in_all,
        kinds=kinds_of(results),
        greatest=[(row, greatest_losses(row, metric)) for row in results["candidates"]],
        parts=by_part(results),
        side_by_side=side_by_side,
        plots=plots,
        learned=[row for row in rows if plots[f"curves-{places[row['name']]}"]],
        taught=[row for row in rows if plots[f"taught-{places[row['name']]}"]],
        study=yaml.safe_dump(results["study"], sort_keys=False, allow_unicode=True, width=100),
        # Its licence comment goes along; nothing in it ends a script element.
        plotly=Markup(get_plotlyjs()),
    )


def _plots(results: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Place on the page -> what can be shown there -> the figure as plotly.js reads it."""
    difference = figures.difference(results)
    by_parts = difference_by_part(results)
    curves = learning_curves(results)
    taught = teaching_figures(results)
    plots = {
        "difference": {} if difference is None else {"": difference},
        "cost": figures.quality_against_cost(results),
        "ablation": ablation(results),
        "parameters": {"": parameters_by_kind(results)},
        "parts": {} if by_parts is None else {"": by_parts},
    }
    # By number: a name is no key that a page's scripts should meet.
    for name, place in number_of(results).items():
        plots |= {f"curves-{place}": curves.get(name, {}), f"taught-{place}": taught.get(name, {})}
    return {place: {name: figure.to_plotly_json() for name, figure in shown.items()} for place, shown in plots.items()}


def _or_missing(write: Callable[[Any], str]) -> Callable[[Any], str]:
    """A way to write numbers that writes a dash for what was not measured."""
    return lambda value: MISSING if value is None else write(value)

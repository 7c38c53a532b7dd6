"""report.html: one self-contained page, from results.json and the confirmations on new data alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from leanformer.core.files import write_atomically
from leanformer.report import figures
from leanformer.report.ablation import ablation
from leanformer.report.cells import interval, margin_words, one_pair_only, verdict
from leanformer.report.columns import (
    PAGE,
    cost_columns,
    export_columns,
    result_columns,
    robustness_columns,
    score_columns,
    scored_metrics,
    speed_columns,
    writing_columns,
)
from leanformer.report.confirmation import confirmation_row
from leanformer.report.confusion import confusions
from leanformer.report.curves import learning_curves
from leanformer.report.examples import side_by_side
from leanformer.report.slices import by_slice, difference_by_slice, greatest_losses
from leanformer.report.structure import changed_sites, each_site, in_all, kept_sites, kinds_of, parameters_by_kind
from leanformer.report.style import number_of, reach
from leanformer.report.summary import decision_lines
from leanformer.report.taught import teaching_figures
from leanformer.results import formats
from leanformer.results.confirmation import read_confirmations
from leanformer.results.costs import COSTS
from leanformer.results.formats import or_missing
from leanformer.results.metrics import Metric, find_metric, finest
from leanformer.results.reader import read_results
from leanformer.results.schema import form_of, rows_of

MARKS = {"accept": "●", "undecided": "◇", "reject": "✕", "failed": "✕", "baseline": "■"}
"""The symbols of the figures, as text."""


def write_report(directory: Path) -> Path:
    """Writes a run directory's ``report.html`` from its results and confirmations, whole or not at all.

    Args:
        directory: The run directory.

    Returns:
        The page's path.

    Raises:
        LeanformerError: ``results.json`` is missing, damaged or not leanformer's, or the page cannot be written.
    """
    directory = Path(directory)
    page = render(read_results(directory), *read_confirmations(directory))
    path = directory / "report.html"
    write_atomically(path, page)
    return path


def make_environment() -> Environment:
    """The environment that finds and renders the pages' templates."""
    environment = Environment(
        loader=PackageLoader("leanformer", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["count"] = or_missing(formats.count)
    return environment


@cache
def _environment(metric: Metric) -> Environment:
    """The environment of a study's page, which compiles its templates once in a process."""
    environment = make_environment()
    environment.filters |= {
        "change": or_missing(formats.change),
        "percent": or_missing(formats.percent),
        "seconds": or_missing(formats.seconds),
        "p_value": or_missing(formats.p_value),
        "r_squared": or_missing(formats.r_squared),
        "rate": or_missing(lambda value: f"{value:g}"),
        "number": or_missing(metric.number),
        "signed": or_missing(metric.signed),
        "difference": lambda value: interval(value, metric.signed),
    }
    return environment


def render(results: Mapping[str, Any], confirmed: Sequence[Mapping[str, Any]] = (), damaged: Sequence[str] = ()) -> str:
    """The page's HTML.

    Args:
        results: The content of ``results.json``.
        confirmed: The content of the ``result.json`` of each confirmation on new data.
        damaged: Paths of confirmations that cannot be read.
    """
    metric = find_metric(results)
    rows = rows_of(results)
    chosen = next((row for row in rows if row["name"] == results["recommended"]), None)
    places = number_of(results)
    plots = _plots(results)
    headline, *lines = decision_lines(results)
    columns = result_columns(results)
    template = _environment(metric).get_template("page.html.jinja")
    return template.render(
        results=results,
        metric=metric,
        slice_metric=form_of(results).slice_metric(results),
        finest=finest(form_of(results).answers),
        wording=form_of(results).wording,
        columns_shown=[columns[key] for key in PAGE if key != "recipe" or _has_recipes(results)],
        score_columns=score_columns(results),
        cost_columns=cost_columns(results),
        export_columns=export_columns(results),
        speed_columns=speed_columns(results),
        robustness_columns=robustness_columns(results),
        writing_columns=writing_columns(results),
        scored=scored_metrics(results),
        costs=COSTS,
        rows=rows,
        chosen=chosen,
        headline=headline,
        lines=lines,
        one_pair=one_pair_only(results) and results["shipped"] is None,
        places=places,
        verdict=verdict,
        marks=MARKS,
        speed=or_missing(formats.times)(None if chosen is None else COSTS["throughput"].multiple(chosen, rows[0])),
        prefer=COSTS[results["prefer"]].name,
        confidence=formats.confidence(results["accept"]["confidence"]),
        margin=margin_words(results, metric),
        far=metric.margin(reach(results)) if math.isfinite(reach(results)) else None,
        far_rows=[
            row for row in rows if row["difference"] and metric.sign * row["difference"]["mean"] < -reach(results)
        ],
        distilled=[row for row in results["candidates"] if row["method"] == "distill"],
        changed={row["name"]: changed_sites(row["changes"]) for row in rows},
        kept={row["name"]: kept_sites(row["changes"]) for row in rows},
        each_site=each_site,
        in_all=in_all,
        kinds=kinds_of(results),
        greatest=[(row, greatest_losses(results, row)) for row in results["candidates"]],
        slices=by_slice(results),
        confusions=confusions(results),
        confirmations=[confirmation_row(result) for result in confirmed],
        damaged=damaged,
        side_by_side=side_by_side,
        plots=plots,
        learned=[row for row in rows if plots[f"curves-{places[row['name']]}"]],
        taught=[row for row in rows if plots[f"taught-{places[row['name']]}"]],
        study=yaml.safe_dump(results["study"], sort_keys=False, allow_unicode=True, width=100),
        # With its licence comment; nothing in it ends a script element.
        plotly=Markup(get_plotlyjs()),
    )


def _has_recipes(results: Mapping[str, Any]) -> bool:
    """Whether statements on recipes stand beside those on models, in the table of results: exports have their own."""
    return results["shipped"] is None and any(row["recipe"] is not None for row in rows_of(results))


def _plots(results: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Place on the page -> choice of what it shows -> the figure as plotly.js reads it."""
    difference = figures.difference(results)
    by_slices = difference_by_slice(results)
    curves = learning_curves(results)
    taught = teaching_figures(results)
    plots = {
        "difference": {} if difference is None else {"": difference},
        "cost": figures.quality_against_cost(results),
        "ablation": ablation(results),
        "parameters": {"": parameters_by_kind(results)},
        "parts": {} if by_slices is None else {"": by_slices},
    }
    # By number, because a name may hold characters that are special in the page's scripts.
    for name, place in number_of(results).items():
        plots |= {f"curves-{place}": curves.get(name, {}), f"taught-{place}": taught.get(name, {})}
    return {place: {name: figure.to_plotly_json() for name, figure in shown.items()} for place, shown in plots.items()}

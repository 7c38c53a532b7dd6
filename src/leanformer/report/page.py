"""report.html: one page that needs nothing but itself, from results.json alone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from leanformer.files import write_atomically
from leanformer.report import figures, numbers
from leanformer.report.numbers import MISSING, Metric, find_metric
from leanformer.report.read import read_results
from leanformer.report.table import PREFERENCES, decision_lines, interval, one_pair_only, speed_ratio, verdict

MARKS = {"accept": "●", "undecided": "◇", "reject": "✕", "failed": "✕", "baseline": "■"}
"""The symbols of the figures, as text."""
MOST_NAMED_CLASSES = 3


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


def render(results: Mapping[str, Any]) -> str:
    """The page's HTML.

    Args:
        results: The content of ``results.json``.
    """
    metric = find_metric(results)
    environment = Environment(
        loader=PackageLoader("leanformer", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": _or_missing(numbers.count),
        "percent": _or_missing(numbers.percent),
        "short": _or_missing(numbers.short),
        "seconds": _or_missing(numbers.seconds),
        "milliseconds": _or_missing(numbers.milliseconds),
        "megabytes": _or_missing(numbers.megabytes),
        "times": _or_missing(numbers.times),
        "p_value": _or_missing(numbers.p_value),
        "rate": _or_missing(lambda value: f"{value:g}"),
        "number": _or_missing(metric.number),
        "signed": _or_missing(metric.signed),
        "quality": lambda value: interval(value, metric.number),
        "difference": lambda value: interval(value, metric.signed),
    }
    rows = [results["baseline"], *results["candidates"]]
    chosen = next((row for row in rows if row["name"] == results["recommended"]), None)
    places = figures.number_of(results)
    plots = _plots(results)
    headline, *lines = decision_lines(results)
    template = environment.get_template("page.html.jinja")
    return template.render(
        results=results,
        metric=metric,
        rows=rows,
        chosen=chosen,
        headline=headline,
        lines=lines,
        one_pair=one_pair_only(results),
        places=places,
        verdict=verdict,
        marks=MARKS,
        speed_ratio=lambda row: speed_ratio(row, results["baseline"]),
        prefer=PREFERENCES[results["prefer"]],
        confidence=numbers.confidence(results["accept"]["confidence"]),
        margin=metric.drop(results["accept"]["max_drop"]),
        changes={row["name"]: (changed_sites(row["changes"]), kept_sites(row["changes"])) for row in rows},
        kinds=figures.kinds_of(results),
        greatest=[(row, greatest_losses(row, metric)) for row in results["candidates"]],
        classes=_by_class(results),
        plots=plots,
        learned=[row for row in rows if plots[f"curves-{places[row['name']]}"]],
        study=yaml.safe_dump(results["study"], sort_keys=False, allow_unicode=True, width=100),
        # Its licence comment goes along; nothing in it ends a script element.
        plotly=Markup(get_plotlyjs()),
    )


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


def greatest_losses(row: Mapping[str, Any], metric: Metric) -> str:
    """The classes that lost most to the baseline, in words.

    Args:
        row: A candidate's row.
        metric: The study's metric.
    """
    losses = [entry for entry in row["per_class"] if (entry["difference"] or 0) < 0]
    losses.sort(key=lambda entry: entry["difference"])
    if not row["per_class"]:
        return "not measured"
    if not losses:
        return "no class lost"
    return ", ".join(
        f"{entry['class']} ({metric.difference(entry['difference'])}, {entry['examples']} examples)"
        for entry in losses[:MOST_NAMED_CLASSES]
    )


def _by_class(results: Mapping[str, Any]) -> list[tuple[str, int, list[Mapping[str, Any] | None]]]:
    """Class, its test examples, and what was measured of it for the baseline and each candidate."""
    rows = [results["baseline"], *results["candidates"]]
    found = [{entry["class"]: entry for entry in row["per_class"]} for row in rows]
    names = dict.fromkeys(name for entries in found for name in entries)
    return [
        (
            name,
            next(entries[name]["examples"] for entries in found if name in entries),
            [entries.get(name) for entries in found],
        )
        for name in names
    ]


def _plots(results: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Place on the page -> what can be shown there -> the figure as plotly.js reads it."""
    difference = figures.difference(results)
    per_class = figures.per_class(results)
    curves = figures.learning_curves(results)
    plots = {
        "difference": {} if difference is None else {"": difference},
        "cost": figures.quality_against_cost(results),
        "parameters": {"": figures.parameters_by_kind(results)},
        "classes": {} if per_class is None else {"": per_class},
        # By number: a name is no key that a page's scripts should meet.
        **{f"curves-{place}": curves.get(name, {}) for name, place in figures.number_of(results).items()},
    }
    return {place: {name: figure.to_plotly_json() for name, figure in shown.items()} for place, shown in plots.items()}


def _or_missing(write: Callable[[Any], str]) -> Callable[[Any], str]:
    """A way to write numbers that writes a dash for what was not measured."""
    return lambda value: MISSING if value is None else write(value)

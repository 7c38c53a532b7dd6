"""Quality on parts of the test data: by class of images, by length of sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from leanformer.report import numbers
from leanformer.report.heatmap import difference_limits, heat_map
from leanformer.report.numbers import Metric, find_metric
from leanformer.report.style import number_of, row_axis, row_height, safe, scaled, shortened
from leanformer.results.schema import rows_of

MOST_PARTS_WITH_NUMBERS = 14
MOST_NAMED_CLASSES = 3


@dataclass(frozen=True)
class Part:
    """What was measured of one model on a part of the test data.

    Args:
        name: A class, or a range of lengths in words such as ``1-5`` and ``31+``.
        examples: Test examples of this part.
        quality: In the study's metric.
        difference: To the baseline's; None where there is none to compare with.
    """

    name: str
    examples: int
    quality: float
    difference: float | None


def parts_of(row: Mapping[str, Any]) -> list[Part]:
    """A model's quality by class, or where it translates by length of the source; empty where nothing was measured."""
    if "by_length" in row:
        return [
            Part(_words(entry), entry["sentences"], entry["score"], entry["difference"]) for entry in row["by_length"]
        ]
    return [
        Part(entry["class"], entry["examples"], entry["accuracy"], entry["difference"]) for entry in row["per_class"]
    ]


def _words(entry: Mapping[str, Any]) -> str:
    return f"{entry['low']}+" if entry["high"] is None else f"{entry['low']}-{entry['high']}"


def by_part(results: Mapping[str, Any]) -> list[tuple[str, int, list[Part | None]]]:
    """Part, its test examples, and what was measured of it for the baseline and each candidate."""
    found = [{part.name: part for part in parts_of(row)} for row in rows_of(results)]
    examples = {name: part.examples for parts in found for name, part in parts.items()}
    return [(name, count, [parts.get(name) for parts in found]) for name, count in examples.items()]


def difference_by_part(results: Mapping[str, Any]) -> go.Figure | None:
    """Difference to the baseline on each part, candidates down, parts across; None where there is none."""
    metric = find_metric(results)
    rows = [row for row in results["candidates"] if any(part.difference is not None for part in parts_of(row))]
    if not rows:
        return None
    found = [{part.name: part for part in parts_of(row)} for row in rows]
    names = list(dict.fromkeys(name for parts in found for name in parts))
    values = [
        [scaled(parts[name].difference, metric.scale) if name in parts else None for name in names] for parts in found
    ]
    examples = {name: part.examples for parts in found for name, part in parts.items()}
    translation = results["task"] == "translation"

    def tick(name: str) -> str:
        return f"{name}<br>({numbers.count(examples[name])})" if translation else safe(shortened(name, 14))

    few = len(names) <= MOST_PARTS_WITH_NUMBERS
    places = number_of(results)
    return heat_map(
        values,
        [["" if value is None else numbers.signed(value, 1) for value in line] for line in values] if few else None,
        [
            [f"{safe(row['name'])}, {_hover(name, parts.get(name), results, metric)}" for name in names]
            for row, parts in zip(rows, found, strict=True)
        ],
        difference_limits(values, results, metric),
        metric.difference_unit,
        height=row_height(rows) + (40 if translation else 20),
        margin={"l": 8, "r": 12, "t": 42, "b": 8},
        xaxis={
            "showticklabels": few,
            "tickvals": list(range(len(names))) if few else [],
            "ticktext": [tick(name) for name in names] if few else [],
        },
        yaxis=row_axis(results, rows),
        # On a phone the names would take the room that the numbers need.
        meta={"narrow": {"yaxis": {"ticktext": [f"<b>{places[row['name']]}</b>" for row in rows]}}},
    )


def _hover(name: str, part: Part | None, results: Mapping[str, Any], metric: Metric) -> str:
    if part is None or part.difference is None:
        return f"{safe(_in_words(name, results))}<br>not measured"
    return (
        f"{safe(_in_words(name, results))}<br>{metric.value(part.quality)}, {metric.difference(part.difference)}<br>"
        f"{numbers.count(part.examples)} test {numbers.EXAMPLES[results['task']]}s"
    )


def greatest_losses(row: Mapping[str, Any], metric: Metric) -> str:
    """The classes that lost most to the baseline, in words.

    Args:
        row: A candidate's row.
        metric: The study's metric.
    """
    parts = parts_of(row)
    losses = [(part.difference, part) for part in parts if part.difference is not None and part.difference < 0]
    if not parts:
        return "not measured"
    if not losses:
        return "no class lost"
    losses.sort(key=lambda loss: loss[0])
    return ", ".join(
        f"{part.name} ({metric.difference(loss)}, {part.examples} examples)"
        for loss, part in losses[:MOST_NAMED_CLASSES]
    )


def _in_words(name: str, results: Mapping[str, Any]) -> str:
    return f"{name} words" if results["task"] == "translation" else f"class {name}"

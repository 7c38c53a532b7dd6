"""Quality on parts of the test data: by class of images, or by length of sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

from leanformer.report.heatmap import difference_limits, heat_map
from leanformer.report.style import number_of, row_axis, row_height, safe, scaled, shortened
from leanformer.results import formats
from leanformer.results.metrics import Metric
from leanformer.results.schema import Slice, form_of, rows_of

MOST_SLICES_WITH_NUMBERS = 14
MOST_NAMED_SLICES = 3


def slices_of(results: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Slice]:
    """A model's quality on each part of the test data, by the parts' names."""
    return {part.name: part for part in form_of(results).slices(row)}


def by_slice(results: Mapping[str, Any]) -> list[tuple[str, int, list[Slice | None]]]:
    """Name of a part, its number of test examples, and the slices of the baseline and each candidate."""
    found = [slices_of(results, row) for row in rows_of(results)]
    examples = {name: part.examples for parts in found for name, part in parts.items()}
    return [(name, count, [parts.get(name) for parts in found]) for name, count in examples.items()]


def difference_by_slice(results: Mapping[str, Any]) -> go.Figure | None:
    """Difference to the baseline, with candidates as rows and parts as columns; None where there is none."""
    form = form_of(results)
    metric = form.slice_metric(results)
    rows = [row for row in results["candidates"] if any(part.difference is not None for part in form.slices(row))]
    if not rows:
        return None
    found = [slices_of(results, row) for row in rows]
    names = list(dict.fromkeys(name for parts in found for name in parts))
    values = [
        [scaled(parts[name].difference, metric.scale) if name in parts else None for name in names] for parts in found
    ]
    examples = {name: part.examples for parts in found for name, part in parts.items()}
    counted = form.wording.slices_counted

    def tick(name: str) -> str:
        return f"{name}<br>({formats.count(examples[name])})" if counted else safe(shortened(name, 14))

    few = len(names) <= MOST_SLICES_WITH_NUMBERS
    places = number_of(results)
    return heat_map(
        values,
        [["" if value is None else formats.signed(value, 1) for value in line] for line in values] if few else None,
        [
            [f"{safe(row['name'])}, {_hover(name, parts.get(name), results, metric)}" for name in names]
            for row, parts in zip(rows, found, strict=True)
        ],
        difference_limits(values, results, metric),
        metric.difference_unit,
        metric.sign < 0,
        height=row_height(rows) + (40 if counted else 20),
        margin={"l": 8, "r": 12, "t": 42, "b": 8},
        xaxis={
            "showticklabels": few,
            "tickvals": list(range(len(names))) if few else [],
            "ticktext": [tick(name) for name in names] if few else [],
        },
        yaxis=row_axis(results, rows),
        # On a phone, names would take the space that the numbers need.
        meta={"narrow": {"yaxis": {"ticktext": [f"<b>{places[row['name']]}</b>" for row in rows]}}},
    )


def _hover(name: str, part: Slice | None, results: Mapping[str, Any], metric: Metric) -> str:
    wording = form_of(results).wording
    named = safe(wording.slice_named.format(name))
    if part is None or part.difference is None:
        return f"{named}<br>not measured"
    return (
        f"{named}<br>{metric.value(part.quality)}, {metric.difference(part.difference)}<br>"
        f"{formats.count(part.examples)} test {wording.example}s"
    )


def greatest_losses(results: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """The parts of the test data with the greatest losses to the baseline, in words.

    Args:
        results: The content of ``results.json``.
        row: A candidate's row.
    """
    form = form_of(results)
    metric = form.slice_metric(results)
    parts = form.slices(row)
    known = [(part.difference, part) for part in parts if part.difference is not None]
    losses = [(difference, part) for difference, part in known if metric.sign * difference < 0]
    if not parts:
        return "not measured"
    if not losses:
        return f"no {form.wording.slice} lost"
    losses.sort(key=lambda loss: metric.sign * loss[0])
    return ", ".join(
        f"{part.name} ({metric.difference(loss)}, {part.examples} examples)"
        for loss, part in losses[:MOST_NAMED_SLICES]
    )

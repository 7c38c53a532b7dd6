"""The figures of quality, from the content of results.json: difference to the baseline, and quality against cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from leanformer.report.cells import margin_drop, verdict
from leanformer.report.style import (
    COLORS,
    NEUTRAL,
    SYMBOLS,
    empty_figure,
    number_of,
    reach,
    row_axis,
    row_height,
    safe,
)
from leanformer.results import formats
from leanformer.results.costs import COSTS
from leanformer.results.metrics import Metric, find_metric
from leanformer.results.schema import form_of, rows_of

MARGIN = {"line": {"color": COLORS["reject"], "width": 1.5, "dash": "dash"}, "name": "margin", "showlegend": True}


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """The points that no other point dominates.

    Args:
        points: (cost, quality) of each; less cost and more quality is better.

    Returns:
        Positions, by rising cost, of the points for which no other is at least as good in both and better in one.
    """
    front = [
        position
        for position, (cost, quality) in enumerate(points)
        if not any(
            other_cost <= cost and other_quality >= quality and (other_cost, other_quality) != (cost, quality)
            for other_cost, other_quality in points
        )
    ]
    return sorted(front, key=lambda position: points[position])


def difference(results: Mapping[str, Any]) -> go.Figure | None:
    """Each candidate's difference to the baseline with its interval, and the margin; None where there is none."""
    metric = find_metric(results)
    rows = [row for row in results["candidates"] if row["difference"] is not None]
    if not rows:
        return None
    margin = margin_drop(results)
    sign = metric.sign
    farthest = -reach(results)
    far = [(place, row) for place, row in enumerate(rows) if sign * row["difference"]["mean"] < farthest]
    # From the worst to the best, so that worse is on the left also where less is better.
    ends = [0, -margin, *(max(farthest, sign * row["difference"][end]) for row in rows for end in ("low", "high"))]
    room = 0.05 * (max(ends) - min(ends)) or 0.001
    figure = empty_figure(
        height=row_height(rows),
        xaxis={
            "title": {"text": f"difference, {metric.difference_unit}"},
            "range": [sign * (min(ends) - room) * metric.scale, sign * (max(ends) + room) * metric.scale],
        },
        yaxis=row_axis(results, rows),
    )
    for word in ("accept", "undecided", "reject"):
        chosen = [(place, row) for place, row in enumerate(rows) if verdict(row) == word and (place, row) not in far]
        figure.add_scatter(
            **_points(word, [row for _, row in chosen], metric),
            mode="markers",
            x=[row["difference"]["mean"] * metric.scale for _, row in chosen],
            y=[place for place, _ in chosen],
            error_x=_errors([row["difference"] for _, row in chosen], metric, word),
        )
    if far:
        figure.add_scatter(
            **_far_points("farther left", "triangle-left", [row for _, row in far], metric),
            x=[sign * farthest * metric.scale] * len(far),
            y=[place for place, _ in far],
            text=[metric.signed(row["difference"]["mean"]) for _, row in far],
        )
    figure.add_vline(x=0, line={"color": NEUTRAL, "width": 1})
    figure.add_vline(x=-sign * margin * metric.scale, **MARGIN)
    return figure


def quality_against_cost(results: Mapping[str, Any]) -> dict[str, go.Figure]:
    """Quality with its interval against each measured cost, the study's preferred one first.

    Returns:
        Name of the cost -> the figure, with the Pareto front of the means.
    """
    example = form_of(results).wording.example
    costs = [cost for cost in COSTS.values() if cost.axis]
    measured = [row for row in rows_of(results) if row["quality"] is not None]
    figures = {}
    for cost in sorted(costs, key=lambda cost: cost.key != results["prefer"]):
        rows = [(row, found) for row in measured if (found := cost.of(row)) is not None]
        if rows:
            figures[cost.name] = _quality_against(results, rows, cost.axis.format(example=example), cost.write)
    return figures


def _quality_against(
    results: Mapping[str, Any],
    rows: Sequence[tuple[Mapping[str, Any], float]],
    title: str,
    write: Callable[[float], str],
) -> go.Figure:
    metric = find_metric(results)
    sign = metric.sign
    places = number_of(results)
    prices = [cost for _, cost in rows]
    # On a linear axis, a tenth and a twentieth of the baseline's cost would overlap.
    logarithmic = min(prices) > 0 and max(prices) / min(prices) > 4
    figure = empty_figure(
        height=430,
        xaxis={
            "title": {"text": title + (" (logarithmic)" if logarithmic else "")},
            # Thousands as 10k; but half a millisecond not as "500m".
            "tickformat": "~s" if min(prices) >= 1 and max(prices) >= 1000 else "~g",
        },
        yaxis={"title": {"text": metric.titled}} | ({"autorange": "reversed"} if sign < 0 else {}),
    )
    figure.update_xaxes({"type": "log", "dtick": "D2"} if logarithmic else {"rangemode": "tozero"})
    across = _side_by_side(prices, logarithmic)
    up = [row["quality"]["mean"] * metric.scale for row, _ in rows]
    baseline = results["baseline"]["quality"]
    floor = -sign * math.inf if baseline is None else (baseline["mean"] - sign * reach(results)) * metric.scale
    far = [place for place, quality in enumerate(up) if sign * quality < sign * floor]
    front = pareto_front([(price, sign * quality) for price, quality in zip(prices, up, strict=True)])
    figure.add_scatter(
        name="Pareto front",
        mode="lines",
        x=[across[place] for place in front],
        y=[floor if place in far else up[place] for place in front],
        line={"color": NEUTRAL, "width": 1.5, "dash": "dot"},
        hoverinfo="skip",
        # A front of one point is not a line, and needs no entry.
        showlegend=len(front) > 1,
    )
    for word in ("baseline", "accept", "undecided", "reject"):
        chosen = [place for place, (row, _) in enumerate(rows) if verdict(row) == word and place not in far]
        labels = {place: places[rows[place][0]["name"]] for place in chosen}
        figure.add_scatter(
            **_points(word, [rows[place][0] for place in chosen], metric, [write(prices[place]) for place in chosen]),
            mode="markers+text",
            x=[across[place] for place in chosen],
            y=[up[place] for place in chosen],
            text=[f"<b>{label}</b>*" if place in front else label for place, label in labels.items()],
            # Between the interval, which goes up, and the front, which goes right; away from models of the same cost.
            textposition=[f"top {'left' if across[place] < prices[place] else 'right'}" for place in chosen],
            error_y=_errors([rows[place][0]["quality"] for place in chosen], metric, word),
        )
    if far:
        figure.add_scatter(
            **_far_points(
                "farther down",
                "triangle-down",
                [rows[place][0] for place in far],
                metric,
                [write(prices[place]) for place in far],
            ),
            x=[across[place] for place in far],
            y=[floor] * len(far),
            text=[f"{places[rows[place][0]['name']]}: {up[place]:.{metric.digits}f}" for place in far],
        )
    if baseline is not None:
        figure.add_hline(y=(baseline["mean"] - sign * margin_drop(results)) * metric.scale, **MARGIN)
    return figure


def _side_by_side(prices: Sequence[float], logarithmic: bool) -> list[float]:
    """Horizontal positions: the cost of each point; points of the same cost are moved a little apart."""
    ends = [math.log10(price) if logarithmic else price for price in (min(prices), max(prices))]
    step = 0.015 * (ends[1] - ends[0])
    across = []
    for place, cost in enumerate(prices):
        shift = step * (prices[:place].count(cost) - (prices.count(cost) - 1) / 2)
        across.append(cost * 10**shift if logarithmic else cost + shift)
    return across


def _points(
    word: str, rows: Sequence[Mapping[str, Any]], metric: Metric, details: Sequence[str] | None = None
) -> dict[str, Any]:
    """Name, symbols and hover texts of the points of one verdict; a detail is a further line of a hover text."""
    texts = [_hover(row, metric) for row in rows]
    if details is not None:
        texts = [f"{text}<br>{detail}" for text, detail in zip(texts, details, strict=True)]
    return {
        "name": word,
        "marker": {
            "color": COLORS[word],
            "symbol": SYMBOLS[word],
            "size": 10,
            "line": {"width": 2, "color": COLORS[word]},
        },
        "customdata": texts,
        "hovertemplate": "%{customdata}<extra></extra>",
    }


def _far_points(
    name: str, symbol: str, rows: Sequence[Mapping[str, Any]], metric: Metric, details: Sequence[str] | None = None
) -> dict[str, Any]:
    """The same for candidates that lost more than an axis shows: triangles at its end."""
    return _points("reject", rows, metric, details) | {
        "name": name,
        "mode": "markers+text",
        "textposition": "middle right",
        "marker": {"symbol": symbol, "size": 10, "color": [COLORS[verdict(row)] for row in rows]},
    }


def _errors(intervals: Sequence[Mapping[str, float]], metric: Metric, word: str) -> dict[str, Any]:
    return {
        "type": "data",
        "array": [(value["high"] - value["mean"]) * metric.scale for value in intervals],
        "arrayminus": [(value["mean"] - value["low"]) * metric.scale for value in intervals],
        "color": COLORS[word],
        "thickness": 1.5,
        "width": 4,
    }


def _hover(row: Mapping[str, Any], metric: Metric) -> str:
    lines = [f"<b>{safe(row['name'])}</b>: {verdict(row)}"]
    quality = row["quality"]
    if quality is not None:
        lines.append(
            f"{metric.name} {metric.value(quality['mean'])} "
            f"({metric.number(quality['low'])} to {metric.number(quality['high'])})"
        )
    if row["difference"] is not None:
        gap = row["difference"]
        lines.append(
            f"difference {metric.difference(gap['mean'])} ({metric.signed(gap['low'])} to {metric.signed(gap['high'])})"
        )
    if "parameters" in row:  # not of models that are known by their predictions alone
        lines.append(f"{formats.count(row['parameters'])} parameters ({formats.percent(row['parameters_ratio'])})")
    return "<br>".join(lines)

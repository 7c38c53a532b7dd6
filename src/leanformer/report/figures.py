"""The report's figures, from the content of results.json.

Colors are of Okabe and Ito's palette, which color-blind readers can tell apart, darkened where white paper needs it; a
symbol, a pattern or a number always says the same as the color.
"""

from __future__ import annotations

import html
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from leanformer.report import numbers
from leanformer.report.numbers import Metric, find_metric
from leanformer.report.table import price, verdict

NEUTRAL = "#7f8791"  # readable on white and on the dark page
COLORS = {"accept": "#2a78b5", "undecided": "#c98500", "reject": "#c4441c", "failed": NEUTRAL, "baseline": NEUTRAL}
SYMBOLS = {
    "accept": "circle",
    "undecided": "diamond-open",
    "reject": "x-thin-open",
    "failed": "x-thin-open",
    "baseline": "square",
}
KINDS = (("#2a78b5", ""), ("#d98c00", "/"), ("#1f9d7a", "."), ("#a8588f", "\\"), ("#56b4e9", "x"))
"""Color and pattern by kind of site, in the order in which kinds come."""
LONGEST_TICK = 20
MOST_CLASSES_WITH_NUMBERS = 14


def number_of(results: Mapping[str, Any]) -> dict[str, str]:
    """Candidate -> its number in the table, which stands for its name where there is no room; the baseline's is B."""
    return {results["baseline"]["name"]: "B"} | {
        row["name"]: str(number) for number, row in enumerate(results["candidates"], start=1)
    }


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which points no other beats.

    Args:
        points: (cost, quality) each; less cost and more quality is better.

    Returns:
        Positions of the points for which no other costs as little and is as good, and better in one of the two; by
        rising cost.
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
    labels = _labels(results)
    margin = results["accept"]["max_drop"]
    ends = [0, -margin, *(row["difference"][end] for row in rows for end in ("low", "high"))]
    room = 0.05 * (max(ends) - min(ends)) or 0.001
    figure = _figure(
        height=110 + 30 * len(rows),
        xaxis={
            "title": {"text": f"difference, {metric.difference_unit}"},
            "range": [(min(ends) - room) * metric.scale, (max(ends) + room) * metric.scale],
        },
        yaxis={
            "tickvals": list(range(len(rows))),
            "ticktext": [labels[row["name"]] for row in rows],
            "range": [len(rows) - 0.4, -0.6],
            "showgrid": False,
        },
    )
    for word in ("accept", "undecided", "reject"):
        chosen = [(place, row) for place, row in enumerate(rows) if verdict(row) == word]
        figure.add_scatter(
            **_points(word),
            x=[row["difference"]["mean"] * metric.scale for _, row in chosen],
            y=[place for place, _ in chosen],
            error_x=_errors([row["difference"] for _, row in chosen], metric, word),
            customdata=[_hover(row, metric) for _, row in chosen],
            hovertemplate="%{customdata}<extra></extra>",
        )
    figure.add_vline(x=0, line={"color": NEUTRAL, "width": 1})
    figure.add_vline(
        x=-margin * metric.scale,
        line={"color": COLORS["reject"], "width": 1.5, "dash": "dash"},
        annotation={
            "text": f"may lose {metric.drop(margin)}",
            "y": 1,
            "yanchor": "bottom",
            # On the side where there is room for it.
            "xanchor": "left" if -margin < (min(ends) + max(ends)) / 2 else "right",
        },
    )
    return figure


def quality_against_cost(results: Mapping[str, Any]) -> dict[str, go.Figure]:
    """Quality with its interval against each cost that was measured, the study's preferred one first.

    Returns:
        What the cost is called -> the figure, with the Pareto front of the means.
    """
    costs = {
        "parameters": ("parameters", "parameters", numbers.count),
        "latency": ("latency", "latency of one example (p50), ms", numbers.milliseconds),
        "train_seconds": ("training time", "training of one model, s", numbers.seconds),
        "flops_per_example": ("operations", "operations an example", numbers.short),
    }
    order = sorted(costs, key=lambda cost: cost != results["prefer"])
    figures = {}
    for cost in order:
        name, title, write = costs[cost]
        rows = [
            row
            for row in (results["baseline"], *results["candidates"])
            if row["quality"] is not None and price(row, cost) is not None
        ]
        if rows:
            figures[name] = _quality_against(
                results, rows, [float(price(row, cost) or 0) for row in rows], title, write
            )
    return figures


def _quality_against(
    results: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], prices: Sequence[float], title: str, write: Any
) -> go.Figure:
    metric = find_metric(results)
    places = number_of(results)
    # On a linear axis a tenth and a twentieth of the baseline's cost would be one heap.
    logarithmic = min(prices) > 0 and max(prices) / min(prices) > 4
    figure = _figure(
        height=430,
        xaxis={"title": {"text": title + (" (logarithmic)" if logarithmic else "")}},
        yaxis={"title": {"text": f"{metric.name}, {metric.unit}"}},
    )
    if logarithmic:
        figure.update_xaxes(type="log", dtick="D2", tickformat="~s")
    else:
        figure.update_xaxes(rangemode="tozero", tickformat="~s")
    front = pareto_front([(cost, row["quality"]["mean"]) for cost, row in zip(prices, rows, strict=True)])
    figure.add_scatter(
        name="Pareto front",
        mode="lines",
        x=[prices[place] for place in front],
        y=[rows[place]["quality"]["mean"] * metric.scale for place in front],
        line={"color": NEUTRAL, "width": 1.5, "dash": "dot"},
        hoverinfo="skip",
        # A front of one point is no line; its entry would explain nothing.
        showlegend=len(front) > 1,
    )
    for word in ("baseline", "accept", "undecided", "reject"):
        chosen = [place for place, row in enumerate(rows) if verdict(row) == word]
        figure.add_scatter(
            **_points(word, text=True),
            x=[prices[place] for place in chosen],
            y=[rows[place]["quality"]["mean"] * metric.scale for place in chosen],
            text=[
                f"<b>{places[rows[place]['name']]}</b>*" if place in front else places[rows[place]["name"]]
                for place in chosen
            ],
            textposition="middle right",
            error_y=_errors([rows[place]["quality"] for place in chosen], metric, word),
            customdata=[f"{_hover(rows[place], metric)}<br>{write(prices[place])}" for place in chosen],
            hovertemplate="%{customdata}<extra></extra>",
        )
    baseline = results["baseline"]["quality"]
    if baseline is not None:
        figure.add_hline(
            y=(baseline["mean"] - results["accept"]["max_drop"]) * metric.scale,
            line={"color": COLORS["reject"], "width": 1, "dash": "dash"},
            annotation={
                "text": f"baseline less {metric.drop(results['accept']['max_drop'])}",
                "x": 0,
                "xanchor": "left",
                "yanchor": "top",
            },
        )
    return figure


def learning_curves(results: Mapping[str, Any]) -> dict[str, dict[str, go.Figure]]:
    """How each model learned, a thin line a seed, the mean of the baseline's seeds behind it.

    Returns:
        Name of the model -> what is shown (validation quality, validation loss, training loss) -> the figure. A model
        whose training ended before its first epoch has no entry. All figures of one kind share their axes.
    """
    metric = find_metric(results)
    shown = {
        f"validation {metric.name}, {metric.unit}": (f"validation_{metric.name}", metric.scale),
        "validation loss": ("validation_loss", 1.0),
        "training loss": ("train_loss", 1.0),
    }
    rows = [row for row in (results["baseline"], *results["candidates"]) if any(c["epochs"] for c in row["curves"])]
    figures: dict[str, dict[str, go.Figure]] = {row["name"]: {} for row in rows}
    for title, (key, scale) in shown.items():
        curves = {row["name"]: _curves(row, key, scale) for row in rows}
        axes = _shared_axes(curves, logarithmic=key.endswith("loss"))
        for row in rows:
            figure = _figure(height=180, margin={"l": 42, "r": 8, "t": 8, "b": 26}, showlegend=False, **axes)
            if row is not results["baseline"] and results["baseline"]["name"] in curves:
                epochs, values = _mean_curve(curves[results["baseline"]["name"]])
                figure.add_scatter(
                    x=epochs,
                    y=values,
                    mode="lines",
                    line={"color": NEUTRAL, "width": 1.5, "dash": "dot"},
                    hovertemplate="baseline: %{y}<extra></extra>",
                )
            color = COLORS[verdict(row)]
            failed = {failure["seed"] for failure in row["failures"]}
            for seed, (epochs, values) in curves[row["name"]].items():
                figure.add_scatter(
                    x=epochs,
                    y=values,
                    mode="lines" if len(epochs) > 1 else "markers",
                    line={"color": color, "width": 1},
                    marker={"color": color, "size": 5},
                    hovertemplate=f"seed {seed}, epoch %{{x}}: %{{y}}<extra></extra>",
                )
                if seed in failed and epochs:
                    figure.add_scatter(
                        x=epochs[-1:],
                        y=values[-1:],
                        mode="markers",
                        marker={"symbol": "x", "color": COLORS["reject"], "size": 9},
                        hovertemplate=f"seed {seed} failed here<extra></extra>",
                    )
            figures[row["name"]][title] = figure
    return figures


def parameters_by_kind(results: Mapping[str, Any]) -> go.Figure:
    """What each model's parameters are for, a bar a model; the empty rest of a bar is what the plan took away."""
    rows = [results["baseline"], *results["candidates"]]
    labels = _labels(results)
    names = [labels[row["name"]] for row in rows]
    figure = _figure(
        height=110 + 30 * len(rows),
        barmode="stack",
        bargap=0.35,
        xaxis={"title": {"text": "parameters"}, "tickformat": "~s"},
        yaxis={
            "tickvals": list(range(len(rows))),
            "ticktext": names,
            "range": [len(rows) - 0.4, -0.6],
            "showgrid": False,
        },
    )
    kinds = kinds_of(results)
    styles = dict(zip((kind for kind in kinds if kind != "other"), KINDS * len(kinds), strict=False))
    for kind in kinds:
        color, pattern = styles.get(kind, (NEUTRAL, ""))
        counts = [row["parameters_by_kind"].get(kind, 0) for row in rows]
        figure.add_bar(
            name=_safe(kind.replace("_", " ")),
            orientation="h",
            x=counts,
            y=list(range(len(rows))),
            marker={
                "color": color,
                "pattern": {"shape": pattern, "fillmode": "overlay", "fgcolor": "#ffffff", "solidity": 0.2, "size": 7},
            },
            customdata=[
                f"{_safe(row['name'])}: {numbers.count(count)}" for row, count in zip(rows, counts, strict=True)
            ],
            hovertemplate="%{customdata}<extra>%{fullData.name}</extra>",
        )
    removed = [max(0, results["baseline"]["parameters"] - row["parameters"]) for row in rows]
    figure.add_bar(
        name="removed",
        orientation="h",
        x=removed,
        y=list(range(len(rows))),
        marker={"color": "rgba(127,135,145,0.08)", "line": {"color": NEUTRAL, "width": 1}},
        customdata=[f"{_safe(row['name'])}: {numbers.count(count)}" for row, count in zip(rows, removed, strict=True)],
        hovertemplate="%{customdata}<extra>removed</extra>",
    )
    return figure


def kinds_of(results: Mapping[str, Any]) -> list[str]:
    """The kinds of site that hold parameters in any model, in the order in which they come; ``other`` last."""
    rows = [results["baseline"], *results["candidates"]]
    kinds = dict.fromkeys(kind for row in rows for kind, count in row["parameters_by_kind"].items() if count)
    return sorted(kinds, key=lambda kind: kind == "other")


def per_class(results: Mapping[str, Any]) -> go.Figure | None:
    """Difference to the baseline for each class, candidates down, classes across; None where there is none."""
    metric = find_metric(results)
    rows = [row for row in results["candidates"] if any(entry["difference"] is not None for entry in row["per_class"])]
    if not rows:
        return None
    classes = list(dict.fromkeys(entry["class"] for row in rows for entry in row["per_class"]))
    found = [{entry["class"]: entry for entry in row["per_class"]} for row in rows]
    values = [
        [numbers.significant(_scaled(entries.get(name, {}).get("difference"), metric.scale)) for name in classes]
        for entries in found
    ]
    limit = max((abs(value) for line in values for value in line if value is not None), default=0) or 1
    labels = _labels(results)
    few = len(classes) <= MOST_CLASSES_WITH_NUMBERS
    figure = _figure(
        height=120 + 30 * len(rows),
        xaxis={
            "title": {"text": "class"},
            "showgrid": False,
            "tickvals": list(range(len(classes))),
            "ticktext": [_safe(_shortened(name, 14)) for name in classes],
        }
        | ({} if few else {"tickmode": "auto", "showticklabels": False, "title": {"text": f"{len(classes)} classes"}}),
        yaxis={
            "tickvals": list(range(len(rows))),
            "ticktext": [labels[row["name"]] for row in rows],
            "autorange": "reversed",
            "showgrid": False,
        },
    )
    figure.add_heatmap(
        z=values,
        zmin=-limit,
        zmax=limit,
        # Orange is worse, blue is better: apart for every reader, and in gray the number's sign tells.
        colorscale=[[0, "#b35806"], [0.25, "#f1a340"], [0.5, "#f4f5f6"], [0.75, "#79b2d9"], [1, "#0b5394"]],
        xgap=1 if few else 0,
        ygap=1,
        text=[["" if value is None else f"{value:+.1f}" if value else "0" for value in line] for line in values],
        texttemplate="%{text}" if few else None,
        customdata=[
            [
                f"{_safe(row['name'])}, class {_safe(name)}<br>{_class_words(entries.get(name), metric)}"
                for name in classes
            ]
            for row, entries in zip(rows, found, strict=True)
        ],
        hovertemplate="%{customdata}<extra></extra>",
        colorbar={"title": {"text": metric.difference_unit, "side": "top"}, "thickness": 10, "len": 0.9},
    )
    return figure


def _class_words(entry: Mapping[str, Any] | None, metric: Metric) -> str:
    if entry is None or entry["difference"] is None:
        return "not measured"
    return (
        f"{metric.value(entry['accuracy'])}, {metric.difference(entry['difference'])}<br>"
        f"{numbers.count(entry['examples'])} test examples"
    )


Curve = tuple[list[float], list[float | None]]


def _curves(row: Mapping[str, Any], key: str, scale: float) -> dict[int, Curve]:
    """Seed -> epochs and values."""
    return {
        curve["seed"]: (
            [epoch["epoch"] for epoch in curve["epochs"]],
            [numbers.significant(_scaled(epoch.get(key), scale)) for epoch in curve["epochs"]],
        )
        for curve in row["curves"]
    }


def _mean_curve(curves: Mapping[int, Curve]) -> Curve:
    """The mean over the seeds that came as far, epoch by epoch."""
    by_epoch: dict[float, list[float]] = {}
    for epochs, values in curves.values():
        for epoch, value in zip(epochs, values, strict=True):
            if value is not None:
                by_epoch.setdefault(epoch, []).append(value)
    return sorted(by_epoch), [numbers.significant(statistics.fmean(by_epoch[epoch])) for epoch in sorted(by_epoch)]


def _shared_axes(curves: Mapping[str, Mapping[int, Curve]], logarithmic: bool) -> dict[str, Any]:
    """Axes that show every curve, so that small figures side by side can be compared by eye."""
    all_curves = [curve for by_seed in curves.values() for curve in by_seed.values()]
    last = max((epoch for epochs, _ in all_curves for epoch in epochs), default=1)
    xaxis = {"range": [0, last * 1.03], "nticks": 5}
    known = [value for _, values in all_curves for value in values if value is not None]
    if logarithmic:
        known = [math.log10(value) for value in known if value > 0]
    if not known:
        return {"xaxis": xaxis}
    low, high = min(known), max(known)
    margin = 0.04 * (high - low) or 0.1
    yaxis: dict[str, Any] = {"range": [low - margin, high + margin], "nticks": 5}
    if logarithmic:
        yaxis |= {"type": "log", "dtick": "D2" if high - low < 2 else 1, "tickformat": "~g"}
    return {"xaxis": xaxis, "yaxis": yaxis}


def _figure(**layout: Any) -> go.Figure:
    """An empty figure in the report's style; the page adds the colors of its light or dark theme."""
    axis = {"automargin": True, "zeroline": False}
    layout = {
        "template": "none",
        "margin": {"l": 8, "r": 12, "t": 30, "b": 8},
        "legend": {"orientation": "h", "yref": "container", "y": 1, "yanchor": "top", "x": 0, "traceorder": "normal"},
        "font": {"size": 12},
        "hoverlabel": {"align": "left"},
        "hovermode": "closest",
        **layout,
    }
    return go.Figure(layout=layout).update_xaxes(axis).update_yaxes(axis)


def _points(word: str, text: bool = False) -> dict[str, Any]:
    """Name, color and symbol of the points of one verdict."""
    return {
        "name": word,
        "mode": "markers+text" if text else "markers",
        "marker": {
            "color": COLORS[word],
            "symbol": SYMBOLS[word],
            "size": 10,
            "line": {"width": 2, "color": COLORS[word]},
        },
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
    lines = [f"<b>{_safe(row['name'])}</b>: {verdict(row)}"]
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
    lines.append(f"{numbers.count(row['parameters'])} parameters ({numbers.percent(row['parameters_ratio'])})")
    return "<br>".join(lines)


def _labels(results: Mapping[str, Any]) -> dict[str, str]:
    """Name -> number and shortened name, for an axis."""
    rows = (results["baseline"], *results["candidates"])
    places = number_of(results)
    return {row["name"]: f"{_safe(_shortened(row['name'], LONGEST_TICK))} <b>{places[row['name']]}</b>" for row in rows}


def _shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}\N{HORIZONTAL ELLIPSIS}"


def _safe(text: str) -> str:
    """Text that plotly shows as it is: it reads a few HTML tags in labels."""
    return html.escape(text, quote=False)


def _scaled(value: float | None, scale: float) -> float | None:
    return None if value is None else value * scale

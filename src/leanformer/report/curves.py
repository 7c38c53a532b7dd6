"""The figures of the learning curves, from the content of results.json."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

from leanformer.report.cells import verdict
from leanformer.report.style import COLORS, NEUTRAL, empty_figure, scaled
from leanformer.results import formats
from leanformer.results.schema import form_of

Curve = tuple[list[float], list[float | None]]
"""Epochs, and the value after each epoch."""


def learning_curves(results: Mapping[str, Any]) -> dict[str, dict[str, go.Figure]]:
    """The learning curves of each model, one thin line per seed, with the mean of the baseline's seeds behind them.

    Returns:
        Name of the model -> quantity (validation quality, validation loss, training loss) -> the figure. A model whose
        training ended before its first epoch has no entry. All figures of one quantity share their axes.
    """
    wording = form_of(results).wording
    shown = {
        f"validation {wording.learned} in %": (wording.learned_key, 100.0),
        "validation loss": ("validation_loss", 1.0),
        "training loss": ("train_loss", 1.0),
    }
    baseline = results["baseline"]
    rows = [row for row in (baseline, *results["candidates"]) if any(curve["epochs"] for curve in row["curves"])]
    figures: dict[str, dict[str, go.Figure]] = {row["name"]: {} for row in rows}
    for title, (key, scale) in shown.items():
        curves = {row["name"]: _curves(row, key, scale) for row in rows}
        axes = _shared_axes(curves, logarithmic=key.endswith("loss"))
        for row in rows:
            figure = empty_figure(height=180, margin={"l": 42, "r": 8, "t": 8, "b": 26}, showlegend=False, **axes)
            if row is not baseline and baseline["name"] in curves:
                epochs, values = _mean_curve(curves[baseline["name"]])
                figure.add_scatter(
                    x=epochs,
                    y=values,
                    mode="lines",
                    line={"color": NEUTRAL, "width": 1.5, "dash": "dot"},
                    hovertemplate="baseline: %{y}<extra></extra>",
                )
            _add_seeds(figure, row, curves[row["name"]])
            figures[row["name"]][title] = figure
    return figures


def _add_seeds(figure: go.Figure, row: Mapping[str, Any], curves: Mapping[int, Curve]) -> None:
    color = COLORS[verdict(row)]
    failed = {failure["seed"] for failure in row["failures"]}
    for seed, (epochs, values) in curves.items():
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
                hovertemplate=f"seed {seed} failed after this<extra></extra>",
            )


def _curves(row: Mapping[str, Any], key: str, scale: float) -> dict[int, Curve]:
    """Seed -> the curve of a quantity."""
    return {
        curve["seed"]: (
            [epoch["epoch"] for epoch in curve["epochs"]],
            [formats.significant(scaled(epoch.get(key), scale)) for epoch in curve["epochs"]],
        )
        for curve in row["curves"]
    }


def _mean_curve(curves: Mapping[int, Curve]) -> Curve:
    """The mean at each epoch over the seeds that reached it."""
    by_epoch: dict[float, list[float]] = {}
    for epochs, values in curves.values():
        for epoch, value in zip(epochs, values, strict=True):
            if value is not None:
                by_epoch.setdefault(epoch, []).append(value)
    return sorted(by_epoch), [formats.significant(statistics.fmean(by_epoch[epoch])) for epoch in sorted(by_epoch)]


def _shared_axes(curves: Mapping[str, Mapping[int, Curve]], logarithmic: bool) -> dict[str, Any]:
    """Axes that fit every curve, so that small figures side by side can be compared."""
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
        yaxis |= {"type": "log", "tickformat": "~g"}
    return {"xaxis": xaxis, "yaxis": yaxis}

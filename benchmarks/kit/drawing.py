"""Draws the page's plots by matplotlib, as SVG that is the same each time."""

from __future__ import annotations

import io
import re
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmarks.kit.plots import Differences, Panel, Panels, Plot, Points

# Okabe and Ito's palette, which color-blind readers can tell apart; a marker says the same as the color.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = "osD^vP"
GREY = "#7f8791"
STYLE: dict[Any, Any] = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "grid.alpha": 0.3,
    "legend.fontsize": 7,
    "legend.edgecolor": "none",
    "legend.framealpha": 0.7,
    "lines.markersize": 5,
    "savefig.facecolor": "white",  # the page may be read on a dark one
    "svg.fonttype": "none",
    "svg.hashsalt": "leanformer",  # names in the file follow from it, which would be random
}
FEW = 6
"""Sizes that an axis has a mark for each of."""
NUMBER = re.compile(r"-?\d+\.\d+")
LARGEST_APART = 0.01
"""Points of coordinates that processors may round apart."""


def draw(plot: Plot) -> str:
    """A plot as SVG."""
    with rc_context(STYLE):
        figure = _panels(plot) if isinstance(plot, Panels) else _differences(plot)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def same_drawing(one: str, other: str) -> bool:
    """Whether two drawings differ by nothing but the last digits of coordinates."""
    if NUMBER.split(one) != NUMBER.split(other):
        return False
    pairs = zip(NUMBER.findall(one), NUMBER.findall(other), strict=True)
    return all(abs(float(first) - float(second)) <= LARGEST_APART for first, second in pairs)


def _panels(plot: Panels) -> Figure:
    columns = min(plot.columns, len(plot.panels))
    rows = -(-len(plot.panels) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.3 * rows))
    all_axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, panel in zip(all_axes, plot.panels, strict=False):
        _fill(axes, panel)
    for axes in all_axes[len(plot.panels) :]:
        axes.set_visible(False)
    return figure


def _fill(axes: Axes, panel: Panel) -> None:
    ours = [name for name, own in panel.points.items() if not own.dashed]
    for name, own in panel.points.items():
        if own.dashed:
            axes.plot(own.x, own.y, color=GREY, linestyle="--", linewidth=1, label=name, zorder=1)
        else:
            _add_points(axes, name, own, ours.index(name))
    axes.set(title=panel.title, xlabel=panel.x, ylabel=panel.y)
    if panel.log_x:
        axes.set_xscale("log")
        _write_numbers_out(axes.xaxis, *axes.get_xlim())
    if panel.log_y:
        axes.set_yscale("log")
        _write_numbers_out(axes.yaxis, *axes.get_ylim())
    sizes = sorted({value for own in panel.points.values() for value in own.x})
    if len(sizes) <= FEW and all(isinstance(size, int) for size in sizes):
        axes.set_xticks(sizes)
    if panel.from_zero:
        axes.set_ylim(bottom=0)
    axes.legend()


def _add_points(axes: Axes, name: str, own: Points, number: int) -> None:
    errors = None
    if own.low:
        errors = [
            [mean - low for mean, low in zip(own.y, own.low, strict=True)],
            [high - mean for mean, high in zip(own.y, own.high, strict=True)],
        ]
    color = COLORS[number]
    axes.errorbar(
        own.x,
        own.y,
        errors,
        color=color,
        marker=MARKERS[number],
        markerfacecolor="white" if own.hollow else color,
        linestyle="-" if own.joined else "none",
        linewidth=1.2,
        elinewidth=0.8,
        label=name,
    )


def _write_numbers_out(axis: Any, low: float, high: float) -> None:
    """At a logarithmic axis: 1, 2 and 5 of each power where there are few."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 500 else (1.0,)))
    axis.set_major_formatter(FuncFormatter(_number))
    axis.set_minor_formatter(NullFormatter())


def _number(value: float, _: int) -> str:
    return f"{value:,.10g}"


def _differences(plot: Differences) -> Figure:
    figure = Figure(figsize=(9.2, 1.3 + 0.33 * len(plot.rows)))
    axes = figure.subplots()
    names = [name for name in plot.names if any(name in row for row in plot.rows.values())]
    for number, name in enumerate(names):
        color = plot.names.index(name)
        places = [place for place, row in enumerate(plot.rows.values()) if name in row]
        own = [row[name] for row in plot.rows.values() if name in row]
        shift = 0.22 * (number - (len(names) - 1) / 2)
        axes.errorbar(
            [one.mean for one in own],
            [place + shift for place in places],
            xerr=[[one.mean - one.low for one in own], [one.high - one.mean for one in own]],
            color=COLORS[color],
            marker=MARKERS[color],
            linestyle="none",
            label=name,
        )
    axes.set_xscale("symlog", linthresh=plot.linear)
    low, high = axes.get_xlim()
    axes.set_xticks([tick for tick in (-50, -20, -10, -5, -2, -1, 0, 1, 2, 5) if low <= tick <= high])
    axes.xaxis.set_major_formatter(FuncFormatter(_number))
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.axvline(-plot.margin, color=GREY, linestyle="--", linewidth=1, label=f"margin, {plot.margin:g} {plot.unit}")
    axes.set_yticks(range(len(plot.rows)), [name.replace("`", "") for name in plot.rows])
    axes.invert_yaxis()
    far = f" (logarithmic beyond {plot.linear:g})" if max(-low, high) > plot.linear else ""
    axes.set_xlabel(f"difference, {plot.unit}{far}")
    figure.legend(loc="outside lower center", ncols=len(names) + 1)
    return figure

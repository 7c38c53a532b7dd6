"""What the pages' figures show: plain data, made by benchmarks from their results and drawn by ``kit/drawing.py``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.kit.interval import Interval


@dataclass(frozen=True)
class Points:
    """Points of one kind in a panel.

    Args:
        x, y: Where they stand.
        low, high: Ends of the intervals in y; nothing where there are none.
        joined: Whether a line goes through them.
        dashed: Whether they are only a line to compare with: grey, dashed, without markers.
        hollow: Whether their markers are not filled, as of others' figures.
    """

    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    joined: bool = True
    dashed: bool = False
    hollow: bool = False


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Args:
        title: Above it.
        x, y: What the axes are.
        points: Name in the legend -> the points.
        log_x, log_y: Whether an axis is logarithmic.
        from_zero: Whether y begins at 0.
    """

    title: str
    x: str
    y: str
    points: Mapping[str, Points]
    log_x: bool = True
    log_y: bool = True
    from_zero: bool = False


@dataclass(frozen=True)
class Panels:
    """Panels side by side, each with its own legend.

    Args:
        panels: Row by row.
        columns: In a row.
    """

    panels: Sequence[Panel]
    columns: int = 2


@dataclass(frozen=True)
class Differences:
    """Differences with their intervals, a line each.

    Args:
        rows: What is compared -> name in the legend -> its difference.
        names: Those of the legend that there can be: in each such plot one has the same color.
        unit: Of the differences.
        margin: What may be lost: a line stands there.
        linear: The axis is logarithmic beyond this on either side.
    """

    rows: Mapping[str, Mapping[str, Interval]]
    names: Sequence[str]
    unit: str
    margin: float
    linear: float


Plot = Panels | Differences

"""Second runs of benchmarks, and whether they land inside the intervals that the first ones state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scipy.stats import binomtest

from benchmarks.kit.interval import Interval

Figures = Mapping[str, Interval]
"""What is measured, in words -> the figure."""


def simulated(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Figures:
    """The shares of simulated studies that accept wrongly, with their binomial intervals of 95 %.

    Args:
        rows: With ``false_accepts`` and ``replicates``.
        names: The keys that tell the rows apart.
    """
    figures = {}
    for row in rows:
        hits, all_of_them = round(row["false_accepts"] * row["replicates"]), row["replicates"]
        interval = binomtest(hits, all_of_them).proportion_ci()
        what = ", ".join(f"{name} {row[name]}" for name in names)
        figures[what] = Interval(row["false_accepts"], interval.low, interval.high)
    return figures

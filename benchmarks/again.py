"""Second runs of benchmarks, and whether they land inside the intervals that the first ones state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.stats import binomtest


@dataclass(frozen=True)
class Stated:
    """A figure with the interval that its run states.

    Args:
        value: As it came out.
        low, high: The interval's ends.
    """

    value: float
    low: float
    high: float

    def holds(self, value: float) -> bool:
        """Whether another run's figure lies inside."""
        return self.low <= value <= self.high


Figures = Mapping[str, Stated]
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
        figures[what] = Stated(row["false_accepts"], interval.low, interval.high)
    return figures


def spread(what: str, rounds: Sequence[float], median: float) -> Figures:
    """A median of rounds, with the least and the largest of them."""
    return {what: Stated(median, min(rounds), max(rounds))}

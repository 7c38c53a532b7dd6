"""A figure with its interval, as plots draw it and second runs are compared by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """A figure and its interval.

    Args:
        mean: The figure: a mean, a share or a median.
        low, high: The interval's ends.
    """

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, figures: Mapping[str, float]) -> Interval:
        """From a study's figures, which have more beside these."""
        return cls(*(figures[key] for key in ("mean", "low", "high")))

    def holds(self, value: float) -> bool:
        """Whether another figure lies inside."""
        return self.low <= value <= self.high

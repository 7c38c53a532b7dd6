"""Which reductions were safe on which data: what several benchmarks found, by one rule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from benchmarks.kit.tables import with_interval

MARGINS = {"BLEU": 0.5, "points": 1.0}
"""What a reduction may cost; of translations, and of classified images in points of accuracy."""
WORDS = ("safe", "undecided", "not safe")


@dataclass(frozen=True)
class Verdict:
    """What one reduction cost on one data set.

    Args:
        data: The data set.
        reduction: What was taken out, and what was put in its place.
        parameters: Of the student, as a part of the whole model's.
        difference: To the whole model, with its interval of 95 %: ``mean``, ``low``, ``high``.
        unit: Of the difference.
        grounds: What it rests on: how it was trained, and with how many seeds.
        elsewhere: What others have found.
    """

    data: str
    reduction: str
    parameters: float
    difference: Mapping[str, float]
    unit: Literal["BLEU", "points"]
    grounds: str
    elsewhere: str = ""

    @property
    def word(self) -> str:
        """One of ``WORDS``, by the margin of the unit."""
        margin = MARGINS[self.unit]
        if self.difference["low"] > -margin:
            return "safe"
        return "not safe" if self.difference["high"] < -margin else "undecided"

    @property
    def left(self) -> str:
        """The parameters that are left, such as ``52 %``."""
        return f"{100 * self.parameters:,.0f} %"

    @property
    def cost(self) -> str:
        """The difference with its interval and unit."""
        return f"{with_interval(self.difference, 2)} {self.unit}"


def in_order(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """The safe ones first, of each word those that cost least."""
    return sorted(verdicts, key=lambda verdict: (WORDS.index(verdict.word), -verdict.difference["mean"]))

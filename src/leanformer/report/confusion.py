"""Which classes are taken for which: the baseline's confusion matrix and the recommended model's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from leanformer.results.schema import rows_of

DEEPEST = 60
"""The share of a color, in percent, that a cell of a whole row's answers has; text on it is still read."""


@dataclass(frozen=True)
class Cell:
    """A cell of a confusion matrix.

    Args:
        count: Answers, summed over the trained models.
        shade: The share of its color, in percent: the square root of its share of the row, so that rare confusions are
            seen.
        right: Whether it is on the diagonal.
    """

    count: int
    shade: int
    right: bool


@dataclass(frozen=True)
class Matrix:
    """One model's confusions.

    Args:
        row: The model's row in ``results.json``.
        lines: For each correct class that occurs, its name, its answers, and the cells; empty with many classes.
        pairs: The most frequent confusions, as in ``results.json``.
        models: The trained models whose answers are summed.
    """

    row: Mapping[str, Any]
    lines: list[tuple[str, int, list[Cell]]]
    pairs: list[Mapping[str, Any]]
    models: int


def confusions(results: Mapping[str, Any]) -> list[Matrix]:
    """The confusions of the baseline, and of the recommended model if it is another.

    Args:
        results: The content of ``results.json``.
    """
    rows = rows_of(results)
    shown = [rows[0], *(row for row in rows[1:] if row["name"] == results["recommended"])]
    return [_matrix(row, results["data"]["classes"]) for row in shown if row.get("confusion") is not None]


def _matrix(row: Mapping[str, Any], classes: list[str]) -> Matrix:
    found = row["confusion"]
    lines = []
    for place, counts in enumerate(found["matrix"] or ()):
        answers = sum(counts)
        if answers:
            cells = [
                Cell(count, round(DEEPEST * (count / answers) ** 0.5), column == place)
                for column, count in enumerate(counts)
            ]
            lines.append((classes[place], answers, cells))
    return Matrix(row, lines, found["pairs"], found["models"])

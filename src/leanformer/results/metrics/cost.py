"""The mean cost of an answer, by a matrix of costs (Elkan 2001, "The foundations of cost-sensitive learning",
IJCAI)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from leanformer.results.metrics import CorpusMetric, Labels, register

if TYPE_CHECKING:
    import numpy as np


def _counts(answers: Labels) -> np.ndarray:
    """Cost, 1, and the largest cost there is; shape (examples, 3)."""
    import numpy as np

    assert answers.costs is not None
    costs = answers.costs[answers.labels, answers.predictions]
    return np.stack([costs, np.ones_like(costs), np.full_like(costs, answers.costs.max())], axis=-1)


def _mean(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]


def _largest(sums: np.ndarray) -> float:
    return float(sums[2] / sums[1])


register(
    CorpusMetric(
        key="cost",
        name="mean cost",
        brief="cost",
        answers="labels",
        difference_unit="units of cost",
        digits=3,
        greatest=math.inf,
        max_drop=0.01,  # of the matrix of 0 and 1; with any other the study must say it
        better="smaller",
        meaning="the mean over the examples of what the study's cost_matrix says of their answers",
        needs=("costs",),
        reads=("cost_matrix",),
        requires=("cost_matrix", "max_drop"),
        counts=_counts,
        of_sums=_mean,
        heaviest=_largest,
    )
)

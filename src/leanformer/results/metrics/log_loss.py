"""Log loss: the mean over the examples of -log p for the probability p of the correct class, in nats (Good 1952,
"Rational decisions", Journal of the Royal Statistical Society B 14)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from leanformer.results.metrics import CorpusMetric, Labels, register

if TYPE_CHECKING:
    import numpy as np


def _counts(answers: Labels) -> np.ndarray:
    """Loss, and 1; shape (examples, 2)."""
    import numpy as np

    losses = np.asarray(answers.losses, dtype=np.float64)
    return np.stack([losses, np.ones_like(losses)], axis=-1)


def _mean(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]


# Not a MeanMetric, whose outcomes are right or wrong.
register(
    CorpusMetric(
        key="log_loss",
        name="log loss",
        brief="log loss",
        answers="labels",
        unit="nats",
        difference_unit="nats",
        digits=3,
        greatest=math.inf,
        max_drop=0.02,
        better="smaller",
        meaning="the mean of -log p for the probability p that the model gives to the correct class",
        needs=("losses",),
        counts=_counts,
        of_sums=_mean,
    )
)

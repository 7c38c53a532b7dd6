"""Exact match: the part of the texts that equal their references, except for spaces at both ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leanformer.results.metrics import MeanMetric, Texts, register

if TYPE_CHECKING:
    import numpy as np


def _same(answers: Texts) -> np.ndarray:
    import numpy as np

    pairs = zip(answers.hypotheses, answers.references, strict=True)
    return np.array([hypothesis.strip() == reference.strip() for hypothesis, reference in pairs])


register(
    MeanMetric(
        key="exact_match",
        name="exact match",
        brief="exact match",
        answers="texts",
        unit="%",
        difference_unit="points",
        scale=100.0,
        digits=1,
        max_drop=0.01,
        judges=False,
        meaning="the part of the sentences that equal their references",
        outcomes=_same,
    )
)

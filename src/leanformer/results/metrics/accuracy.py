"""Accuracy: the part of the answers that are correct."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leanformer.results.metrics import Labels, MeanMetric, register

if TYPE_CHECKING:
    import numpy as np


def _right(answers: Labels) -> np.ndarray:
    return answers.labels == answers.predictions


register(
    MeanMetric(
        key="accuracy",
        name="accuracy",
        brief="acc",
        answers="labels",
        unit="%",
        difference_unit="points",
        scale=100.0,
        digits=1,
        max_drop=0.01,
        outcomes=_right,
    )
)

"""Macro F1: the mean over the classes of F1, the harmonic mean of precision and recall (Sokolova and Lapalme 2009, "A
systematic analysis of performance measures for classification tasks", Information Processing and Management 45)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leanformer.results.metrics import CorpusMetric, register
from leanformer.results.metrics.kit.classes import by_class, class_counts, heaviest, mean_over_classes

if TYPE_CHECKING:
    import numpy as np


def _mean_f1(sums: np.ndarray) -> np.ndarray:
    found, labels, predictions = by_class(sums)
    return mean_over_classes(2 * found, labels + predictions, labels)


register(
    CorpusMetric(
        key="macro_f1",
        name="macro F1",
        brief="f1",
        answers="labels",
        unit="%",
        difference_unit="points",
        scale=100.0,
        digits=1,
        greatest=1.0,
        max_drop=0.01,
        meaning="the mean over the classes of F1, the harmonic mean of precision and recall",
        counts=class_counts,
        of_sums=_mean_f1,
        heaviest=heaviest(_mean_f1),
    )
)

"""Balanced accuracy: the mean over the classes of recall (Brodersen et al. 2010, "The balanced accuracy and its
posterior distribution", ICPR)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leanformer.results.metrics import CorpusMetric, register
from leanformer.results.metrics.kit.classes import by_class, class_counts, heaviest, mean_over_classes

if TYPE_CHECKING:
    import numpy as np


def _mean_recall(sums: np.ndarray) -> np.ndarray:
    found, labels, _ = by_class(sums)
    return mean_over_classes(found, labels, labels)


register(
    CorpusMetric(
        key="balanced_accuracy",
        name="balanced accuracy",
        brief="bal acc",
        answers="labels",
        unit="%",
        difference_unit="points",
        scale=100.0,
        digits=1,
        greatest=1.0,
        max_drop=0.01,
        meaning="the mean over the classes of the part of their examples that are recognized",
        counts=class_counts,
        of_sums=_mean_recall,
        heaviest=heaviest(_mean_recall),
    )
)

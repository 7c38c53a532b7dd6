"""Accuracy at a fixed coverage: of the answers that a model gives where it may abstain from those that it is least sure
of (Geifman and El-Yaniv 2017, "Selective classification for deep neural networks", NeurIPS)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leanformer.results.metrics import CorpusMetric, Labels, register
from leanformer.results.metrics.kit.classes import coverage_threshold, log_odds

if TYPE_CHECKING:
    import numpy as np

KEY = "accuracy_at_coverage"


def _counts(answers: Labels) -> np.ndarray:
    """Answered and right, answered, 1; shape (examples, 3)."""
    import numpy as np

    answered = log_odds(answers).max(axis=1) >= answers.thresholds[KEY]
    right = answered & (answers.labels == answers.predictions)
    return np.stack([right, answered, np.ones_like(answered)], axis=-1).astype(np.int32)


def _accuracy(sums: np.ndarray) -> np.ndarray:
    import numpy as np

    return sums[..., 0] / np.maximum(sums[..., 1], 1)  # 0 where nothing is answered


def _heaviest(sums: np.ndarray) -> float:
    return float(sums[2] / max(sums[1], 1))


register(
    CorpusMetric(
        key=KEY,
        name="accuracy at fixed coverage",
        brief="acc",
        answers="labels",
        unit="%",
        difference_unit="points",
        scale=100.0,
        digits=1,
        greatest=1.0,
        max_drop=0.01,
        meaning="the part of the answers that are correct among those that are as sure as the study's coverage of the "
        "validation examples",
        needs=("logits",),
        reads=("coverage",),
        threshold=coverage_threshold,
        reached=lambda sums: float(sums[1] / sums[2]),
        reached_name="coverage",
        counts=_counts,
        of_sums=_accuracy,
        heaviest=_heaviest,
    )
)

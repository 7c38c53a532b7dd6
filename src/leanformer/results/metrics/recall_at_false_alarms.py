"""Recall at a fixed false-alarm rate: a point of the ROC curve (Fawcett 2006, "An introduction to ROC analysis",
Pattern Recognition Letters 27), whose threshold is chosen on the validation split."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leanformer.results.metrics import CorpusMetric, Labels, register
from leanformer.results.metrics.kit.classes import alarm_threshold, log_odds

if TYPE_CHECKING:
    import numpy as np

KEY = "recall_at_false_alarms"


def _counts(answers: Labels) -> np.ndarray:
    """Found, of the positive class, false alarm, of another class; shape (examples, 4)."""
    import numpy as np

    positive = answers.labels == answers.positive
    alarm = log_odds(answers)[:, answers.positive] > answers.thresholds[KEY]
    return np.stack([positive & alarm, positive, ~positive & alarm, ~positive], axis=-1).astype(np.int32)


def _recall(sums: np.ndarray) -> np.ndarray:
    import numpy as np

    return sums[..., 0] / np.maximum(sums[..., 1], 1)  # 0 where a replicate has no example of the class


def _heaviest(sums: np.ndarray) -> float:
    return float((sums[1] + sums[3]) / max(sums[1], 1))


register(
    CorpusMetric(
        key=KEY,
        name="recall at a fixed false-alarm rate",
        brief="recall",
        answers="labels",
        unit="%",
        difference_unit="points",
        scale=100.0,
        digits=1,
        greatest=1.0,
        max_drop=0.02,
        meaning="the part of the positive class's examples above the threshold that the study's false_alarm_rate of "
        "the other validation examples exceed",
        needs=("logits", "positive"),
        reads=("positive", "false_alarm_rate"),
        requires=("positive",),
        threshold=alarm_threshold,
        reached=lambda sums: float(sums[2] / max(sums[3], 1)),
        reached_name="false-alarm rate",
        counts=_counts,
        of_sums=_recall,
        heaviest=_heaviest,
    )
)

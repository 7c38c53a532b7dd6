"""What metrics of classes share: counts of each class, scores of classes, and thresholds (docs/metrics.md)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from leanformer.results.metrics import Labels

if TYPE_CHECKING:
    import numpy as np

# Counts of each class


def class_counts(answers: Labels) -> np.ndarray:
    """Of each example and class: found (predicted and correct), correct, predicted; shape (examples, 3 * classes)."""
    import numpy as np

    counts = np.zeros((len(answers.labels), 3, answers.classes), dtype=np.uint8)
    each = np.arange(len(answers.labels))
    right = answers.labels == answers.predictions
    counts[each[right], 0, answers.labels[right]] = 1
    counts[each, 1, answers.labels] = 1
    counts[each, 2, answers.predictions] = 1
    return counts.reshape(len(answers.labels), 3 * answers.classes)


def by_class(sums: np.ndarray) -> np.ndarray:
    """Sums of ``class_counts``, shape (..., 3 * classes) -> found, correct and predicted, each (..., classes)."""
    import numpy as np

    return np.moveaxis(sums.reshape(*sums.shape[:-1], 3, -1), -2, 0)


def mean_over_classes(numerators: np.ndarray, denominators: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The mean of a quotient over the classes that occur.

    Args:
        numerators: Shape (..., classes).
        denominators: Likewise; above 0 where a class occurs.
        labels: The number of examples of each class, shape (..., classes).

    Returns:
        Shape (...).
    """
    import numpy as np

    occurs = labels > 0
    return (numerators / np.where(occurs, denominators, 1)).sum(axis=-1, where=occurs) / occurs.sum(axis=-1)


def heaviest(score: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], float]:
    """For a score of class counts, how much one example may change it at most, times the number of examples.

    It is the change where one example of a class is taken for one of the rarest other class, and all else is right.

    Args:
        score: Sums of ``class_counts`` -> values.
    """

    def of_sums(sums: np.ndarray) -> float:
        import numpy as np

        _, labels, _ = by_class(sums)
        there = labels[labels > 0].astype(np.float64)
        if len(there) < 2:
            return 1.0
        order = np.argsort(there)
        perfect = np.stack([there, there, there])  # (3, classes)
        changed = np.repeat(perfect[None], len(there), axis=0)
        for number, flipped in enumerate(changed):
            flipped[[0, 2], number] -= 1
            flipped[2, order[1] if number == order[0] else order[0]] += 1
        losses = score(perfect.reshape(-1)) - score(changed.reshape(len(there), -1))
        return float(there.sum() * losses.max())

    return of_sums


# Scores of classes


def log_odds(answers: Labels) -> np.ndarray:
    """The logarithm of p / (1 - p) for the probability p of each class, shape (examples, classes).

    Probabilities near 1 are equal in their digits; their log-odds are not.
    """
    import numpy as np
    from scipy.special import logsumexp

    assert answers.logits is not None
    logits = answers.logits.astype(np.float64)
    logs = logits - logsumexp(logits, axis=1, keepdims=True)
    each, best = np.arange(len(logits)), logits.argmax(axis=1)
    others = logits.copy()
    others[each, best] = -np.inf
    with np.errstate(divide="ignore"):
        odds = logs - np.log1p(-np.minimum(np.exp(logs), 1.0))
    odds[each, best] = logits[each, best] - logsumexp(others, axis=1)
    return odds


def alarm_threshold(answers: Labels) -> float:
    """The least threshold that takes no more than ``false_alarm_rate`` of the other examples for the positive class.

    Args:
        answers: On the validation split.

    Returns:
        Log-odds; an example is taken for the positive class where its own are larger.
    """
    import numpy as np

    scores = np.sort(log_odds(answers)[answers.labels != answers.positive, answers.positive])
    allowed = math.floor(answers.false_alarm_rate * len(scores) + 1e-9)  # 0.07 * 100 is a little more than 7
    return float(scores[len(scores) - 1 - allowed]) if len(scores) else -math.inf


def coverage_threshold(answers: Labels) -> float:
    """The largest threshold that keeps at least ``coverage`` of the examples.

    Args:
        answers: On the validation split.

    Returns:
        Log-odds of the predicted class; an example is answered where its own are as large.
    """
    import numpy as np

    scores = np.sort(log_odds(answers).max(axis=1))
    kept = math.ceil(answers.coverage * len(scores) - 1e-9)
    return float(scores[len(scores) - kept])

"""A model's quality and its difference to another's, in whichever metric of the catalogue, with their intervals.

Means over examples go by the analysis of variance (``statistics``), scores of a whole corpus by the paired bootstrap
(``corpus``): what a metric says of itself decides.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from leanformer.decide import corpus, statistics
from leanformer.decide.statistics import Comparison
from leanformer.results.metrics import CorpusMetric, Metric
from leanformer.results.rows import Interval, Quality

Trainings = Sequence[np.ndarray]
"""``Metric.statistics`` of each seed's answers to the same examples, shape (examples, counts) each."""


def quality(metric: Metric, trainings: Trainings, confidence: float) -> Quality:
    """Mean quality over the seeds, with its interval.

    Args:
        metric: What quality is.
        trainings: The model's.
        confidence: Such as 0.95.
    """
    if isinstance(metric, CorpusMetric):
        found = corpus.corpus_interval(
            trainings, metric.score, confidence, largest=metric.greatest, point=1 / metric.scale
        )
    else:
        found = statistics.quality_interval(_outcomes(trainings), confidence)
    per_seed = [metric.of(training) for training in trainings]
    return Quality(mean=found.mean, low=found.low, high=found.high, per_seed=per_seed)


def compare(
    metric: Metric, baseline: Trainings, candidate: Trainings, max_drop: float, confidence: float
) -> Comparison:
    """A candidate against the baseline on the same test examples, with trainings of their own.

    Args:
        metric: What quality is.
        baseline: Its trainings.
        candidate: Likewise.
        max_drop: The loss that would be accepted.
        confidence: Of the two-sided interval.

    Returns:
        The comparison, of values of which the larger is the better: of a metric of which less is better, of the
        negative values (``difference_of`` turns them back).
    """
    if isinstance(metric, CorpusMetric):
        return corpus.compare_corpus(
            baseline,
            candidate,
            lambda sums: metric.sign * metric.score(sums),
            max_drop,
            confidence,
            largest=metric.greatest,
            point=1 / metric.scale,
        )
    first, second = (metric.sign * _outcomes(trainings) for trainings in (baseline, candidate))
    return statistics.compare(first, second, max_drop, confidence)


def difference_of(metric: Metric, comparison: Comparison) -> Interval:
    """The candidate's quality less the baseline's, with its interval.

    Args:
        metric: What was compared.
        comparison: As ``compare`` gives it.
    """
    found = comparison.difference
    low, high = sorted((metric.sign * found.low, metric.sign * found.high))
    return Interval(mean=metric.sign * found.mean, low=low, high=high)


def _outcomes(trainings: Trainings) -> np.ndarray:
    """Of a mean: what each example gives, shape (seeds, examples)."""
    return np.stack([training[:, 0] for training in trainings])

"""Intervals and tests for scores of a whole corpus, such as BLEU: the paired bootstrap (docs/translation-decisions.md).

A corpus score is no mean over sentences but a function of sums of counts, so that how it varies with the sentences is
found by drawing sentences anew (Koehn 2004, "Statistical significance tests for machine translation evaluation",
EMNLP). What follows from that, and the chance of the seeds, is as for means (``statistics``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from leanformer.decide.statistics import Comparison, Components, Interval, conclude, crossed

REPLICATES = 2000
LARGEST = 100.0
"""Points of a perfect corpus, in most scores."""

Score = Callable[[np.ndarray], np.ndarray]
"""Sums of counts, shape (..., counts) -> values, shape (...)."""

Trainings = Sequence[np.ndarray] | np.ndarray
"""A model's counts a sentence: one array of shape (sentences, counts) a seed, or all of them in one array."""

_MOST_WEIGHTS = 2**20  # replicates x sentences at a time: 8 MiB


@dataclass(frozen=True)
class PairedBootstrap:
    """What drawing sentences anew says of two trained models.

    Args:
        difference: The candidate's score less the baseline's, and the interval between percentiles of its replicates.
        p_value: Two-sided, of the hypothesis that both score alike.
    """

    difference: Interval
    p_value: float


@dataclass(frozen=True)
class _Arm:
    """A model's scores, one a seed.

    Args:
        scores: On the test sentences, shape (seeds,).
        replicates: On sentences drawn from them, shape (replicates, seeds).
    """

    scores: np.ndarray
    replicates: np.ndarray

    def over_seeds(self) -> _Arm:
        """With the mean over the seeds in their place."""
        return _Arm(self.scores.mean(keepdims=True), self.replicates.mean(axis=1, keepdims=True))


def corpus_interval(
    statistics: Trainings,
    score: Score,
    confidence: float,
    replicates: int = REPLICATES,
    seed: int = 0,
    largest: float = LARGEST,
    point: float = 1.0,
) -> Interval:
    """A model's mean score over its seeds, with its interval.

    Args:
        statistics: The model's counts.
        score: Sums of counts -> values.
        confidence: Such as 0.95.
        replicates: How often sentences are drawn.
        seed: Of the draws.
        largest: The largest value that there can be; the least is 0.
        point: What counts as a point of the score.

    Raises:
        ValueError: The shapes do not fit.
    """
    (arm,) = _bootstrap([statistics], score, replicates, seed)
    components = _components([arm], arm.replicates.mean(axis=1), len(statistics[0]), point)
    return components.interval(float(arm.scores.mean()), confidence, 0.0, largest)


def compare_corpus(
    baseline: Trainings,
    candidate: Trainings,
    score: Score,
    max_drop: float,
    confidence: float,
    replicates: int = REPLICATES,
    seed: int = 0,
    largest: float = LARGEST,
    point: float = 1.0,
) -> Comparison:
    """A candidate against the baseline on the same test sentences, with trainings of their own.

    Args:
        baseline: Its counts.
        candidate: Likewise; its number of seeds may be another, the sentences are the same ones in the same order.
        score: Sums of counts -> values of which the larger is the better.
        max_drop: The drop in them that would be accepted.
        confidence: Of the two-sided interval.
        replicates: How often sentences are drawn.
        seed: Of the draws.
        largest: The largest difference that there can be, either way.
        point: What counts as a point of the score.

    Returns:
        The comparison, in the score's values.

    Raises:
        ValueError: The shapes do not fit.
    """
    arms = _bootstrap([baseline, candidate], score, replicates, seed)
    one_pair = min(len(baseline), len(candidate)) == 1
    if one_pair:
        arms = [arm.over_seeds() for arm in arms]
    difference = arms[1].replicates.mean(axis=1) - arms[0].replicates.mean(axis=1)
    return conclude(
        float(arms[1].scores.mean() - arms[0].scores.mean()),
        _components(arms, difference, len(baseline[0]), point),
        max_drop,
        confidence,
        largest=largest,
        scope="one trained pair" if one_pair else "seeds and examples",
    )


def paired_bootstrap(
    baseline: np.ndarray,
    candidate: np.ndarray,
    score: Score,
    confidence: float,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> PairedBootstrap:
    """The paired bootstrap test of two trained models.

    Args:
        baseline: Counts a sentence, shape (sentences, counts).
        candidate: Likewise, of the same sentences.
        score: Sums of counts -> values.
        confidence: Of the interval.
        replicates: How often sentences are drawn.
        seed: Of the draws.

    Raises:
        ValueError: The shapes do not fit.
    """
    first, second = _bootstrap([[baseline], [candidate]], score, replicates, seed)
    difference = float(second.scores[0] - first.scores[0])
    drawn = second.replicates[:, 0] - first.replicates[:, 0]
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    # Were both alike, differences would scatter about 0 as they do about their mean; what is seen is one of them.
    as_far = int((np.abs(drawn - drawn.mean()) >= abs(difference)).sum())
    return PairedBootstrap(Interval(difference, float(low), float(high)), (as_far + 1) / (replicates + 1))


def _bootstrap(models: Sequence[Trainings], score: Score, replicates: int, seed: int) -> list[_Arm]:
    """Scores on the test sentences and on replicates of them, the same replicates for all trainings of all models.

    Args:
        models: The trainings of each.
        score: Sums of counts -> values.
        replicates: How often sentences are drawn.
        seed: Of the draws.
    """
    trainings = [counts for model in models for counts in model]
    shapes = {counts.shape for counts in trainings}
    if not all(map(len, models)) or len(shapes) > 1 or min(shapes)[0] < 2:
        raise ValueError(f"counts of shapes {sorted(shapes)}, not one (2 sentences or more, counts) for every seed")
    sentences, width = trainings[0].shape
    counts = np.concatenate(trainings, axis=1)  # (sentences, trainings * counts)
    generator = np.random.default_rng(seed)
    drawn = []
    for start in range(0, replicates, chunk := max(1, _MOST_WEIGHTS // sentences)):
        rows = min(chunk, replicates - start)
        places = generator.integers(sentences, size=(rows, sentences)) + sentences * np.arange(rows)[:, None]
        # How often each sentence is drawn: a multinomial number, found faster than by numpy's own.
        weights = np.bincount(places.ravel(), minlength=rows * sentences).reshape(rows, sentences).astype(float)
        drawn.append(score((weights @ counts).reshape(rows, len(trainings), width)))
    scores = score(counts.sum(axis=0).reshape(len(trainings), width))
    ends = np.cumsum([len(model) for model in models])[:-1]
    parts = zip(np.split(scores, ends), np.split(np.concatenate(drawn), ends, axis=1), strict=True)
    return [_Arm(of_seeds, replicated) for of_seeds, replicated in parts]


def _components(arms: Sequence[_Arm], compared: np.ndarray, sentences: int, point: float) -> Components:
    """The analysis of variance that the replicates stand in for.

    To first order, a score is a mean over the sentences of what each contributes, and the variance of its replicates
    is the sum of squares of the contributions over the number of sentences squared. So sums of squares are found from
    variances of replicates, of a difference as of a seed's departure from the mean of the seeds.

    Args:
        arms: The models.
        compared: Replicates of the mean or difference that is asked for, shape (replicates,).
        sentences: Their number.
        point: What counts as a point of the score.
    """

    def squares(replicates: np.ndarray) -> float:
        return float(sentences**2 * replicates.var(axis=0, ddof=1).sum())

    departures = [arm.replicates - arm.replicates.mean(axis=1, keepdims=True) for arm in arms]
    return crossed(
        squares(compared),
        [(arm.scores, squares(departure)) for arm, departure in zip(arms, departures, strict=True)],
        sentences,
        # On a sentence that one arm translates as it does on average and the other not at all. At least a point, so
        # that nothing is certain.
        pseudo=max(point, *(abs(float(arm.scores.mean())) for arm in arms)),
    )

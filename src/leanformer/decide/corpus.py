"""Intervals and tests for scores of a whole corpus, such as BLEU: the paired bootstrap (docs/translation-decisions.md).

A corpus score is not a mean over sentences but a function of sums of counts. Its variance over sentences is estimated
by resampling sentences (Koehn 2004, "Statistical significance tests for machine translation evaluation", EMNLP). The
rest, with the variance between seeds, is as for means (``statistics``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from leanformer.decide.statistics import Comparison, Components, Interval, conclude, crossed

REPLICATES = 2000
LARGEST = 100.0
"""Points of a perfect corpus, in most scores."""

Score = Callable[[np.ndarray], np.ndarray]
"""Sums of counts, shape (..., counts) -> values, shape (...)."""

Trainings = Sequence[np.ndarray] | np.ndarray
"""A model's counts per sentence: one array of shape (sentences, counts) for each seed, or all in one array."""

_LARGE = 2**24  # counts: 128 MiB
_MOST_WEIGHTS = 2**20  # replicates x sentences at a time: 8 MiB


@dataclass(frozen=True)
class PairedBootstrap:
    """The result of a paired bootstrap test of two trained models.

    Args:
        difference: The candidate's score minus the baseline's, with the percentile interval of its replicates.
        p_value: Two-sided, of the hypothesis that both have the same score.
    """

    difference: Interval
    p_value: float


@dataclass(frozen=True)
class _Arm:
    """A model's scores, one for each seed.

    Args:
        scores: On the test sentences, shape (seeds,).
        replicates: On resampled sentences, shape (replicates, seeds).
    """

    scores: np.ndarray
    replicates: np.ndarray

    def over_seeds(self) -> _Arm:
        """The same, averaged over the seeds."""
        return _Arm(self.scores.mean(keepdims=True), self.replicates.mean(axis=1, keepdims=True))

    def minus(self, other: _Arm) -> _Arm:
        """The differences, seed by seed."""
        return _Arm(self.scores - other.scores, self.replicates - other.replicates)


def corpus_interval(
    statistics: Trainings,
    score: Score,
    confidence: float,
    replicates: int = REPLICATES,
    seed: int = 0,
    largest: float = LARGEST,
    point: float = 1.0,
    groups: np.ndarray | None = None,
    least: float = 0.0,
) -> Interval:
    """A model's mean score over its seeds, with its interval.

    Args:
        statistics: The model's counts.
        score: Sums of counts -> values.
        confidence: Such as 0.95.
        replicates: How often sentences are resampled.
        seed: For the resampling.
        largest: The largest possible value.
        point: One point of the score, as a value.
        groups: The group of each sentence, shape (sentences,); whole groups are resampled. None: sentences are.
        least: The least possible value.

    Raises:
        ValueError: The shapes do not fit.
    """
    units = summed_by_group(statistics, groups)
    (arm,) = _bootstrap([units], score, replicates, seed)
    level = max(point, abs(float(arm.scores.mean())))
    components = _components([arm], arm.replicates.mean(axis=1), len(units[0]), level)
    return components.interval(float(arm.scores.mean()), confidence, least, largest)


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
    groups: np.ndarray | None = None,
    paired: bool = False,
) -> Comparison:
    """Compares a candidate with the baseline on the same test sentences, each with its own trainings.

    Args:
        baseline: The baseline's counts.
        candidate: The candidate's counts, for the same sentences in the same order; the number of seeds may differ.
        score: Sums of counts -> values, of which larger is better.
        max_drop: The margin.
        confidence: Of the two-sided interval.
        replicates: How often sentences are resampled.
        seed: For the resampling.
        largest: The largest possible difference, up or down.
        point: One point of the score, as a value.
        groups: The group of each sentence, shape (sentences,); whole groups are resampled. None: sentences are.
        paired: Whether each training of the candidate belongs to that of the baseline in the same place, as a student's
            to its teacher's: what both have in common then cancels.

    Returns:
        The comparison, in the score's values.

    Raises:
        ValueError: The shapes do not fit.
    """
    if paired and len(baseline) != len(candidate):
        raise ValueError(f"{len(baseline)} and {len(candidate)} trainings cannot be paired")
    models = [summed_by_group(model, groups) for model in (baseline, candidate)]
    arms = _bootstrap(models, score, replicates, seed)
    level = max(point, *(abs(float(arm.scores.mean())) for arm in arms))
    one_pair = min(len(baseline), len(candidate)) == 1
    if one_pair:
        arms = [arm.over_seeds() for arm in arms]
    change = float(arms[1].scores.mean() - arms[0].scores.mean())
    difference = arms[1].replicates.mean(axis=1) - arms[0].replicates.mean(axis=1)
    if paired and not one_pair:
        arms = [arms[1].minus(arms[0])]
    return conclude(
        change,
        _components(arms, difference, len(models[0][0]), level),
        max_drop,
        confidence,
        largest=largest,
        scope="one trained pair" if one_pair else "seeds and examples",
        counts_examples=False,
    )


def paired_bootstrap(
    baseline: np.ndarray,
    candidate: np.ndarray,
    score: Score,
    confidence: float,
    groups: np.ndarray | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> PairedBootstrap:
    """The paired bootstrap test of two trained models.

    Args:
        baseline: Counts per sentence, shape (sentences, counts).
        candidate: Likewise, for the same sentences.
        score: Sums of counts -> values.
        confidence: Of the interval.
        groups: The group of each sentence, shape (sentences,); whole groups are resampled. None: sentences are.
        replicates: How often sentences are resampled.
        seed: For the resampling.

    Raises:
        ValueError: The shapes do not fit.
    """
    models = [summed_by_group([counts], groups) for counts in (baseline, candidate)]
    first, second = _bootstrap(models, score, replicates, seed)
    difference = float(second.scores[0] - first.scores[0])
    drawn = second.replicates[:, 0] - first.replicates[:, 0]
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    # If both were equal, differences would scatter around 0 as the replicates do around their mean.
    as_far = int((np.abs(drawn - drawn.mean()) >= abs(difference)).sum())
    return PairedBootstrap(Interval(difference, float(low), float(high)), (as_far + 1) / (replicates + 1))


def _bootstrap(models: Sequence[Trainings], score: Score, replicates: int, seed: int) -> list[_Arm]:
    """Scores on the test sentences and on replicates of them, the same replicates for all trainings of all models.

    Args:
        models: The trainings of each model.
        score: Sums of counts -> values.
        replicates: How often sentences are resampled.
        seed: For the resampling.
    """
    trainings = [counts for model in models for counts in model]
    shapes = {counts.shape for counts in trainings}
    if not all(map(len, models)) or len(shapes) > 1 or min(shapes)[0] < 2:
        raise ValueError(f"counts of shapes {sorted(shapes)}, not one (2 sentences or more, counts) for every seed")
    sentences, width = trainings[0].shape
    counts = _multipliable(np.concatenate(trainings, axis=1))  # (sentences, trainings * counts)
    generator = np.random.default_rng(seed)
    drawn = []
    for start in range(0, replicates, chunk := max(1, _MOST_WEIGHTS // sentences)):
        rows = min(chunk, replicates - start)
        places = generator.integers(sentences, size=(rows, sentences)) + sentences * np.arange(rows)[:, None]
        # How often each sentence is drawn: multinomial, and faster than numpy's own function.
        weights = np.bincount(places.ravel(), minlength=rows * sentences).reshape(rows, sentences).astype(float)
        drawn.append(score((weights @ counts).reshape(rows, len(trainings), width)))
    scores = score(counts.sum(axis=0).reshape(len(trainings), width))
    ends = np.cumsum([len(model) for model in models])[:-1]
    parts = zip(np.split(scores, ends), np.split(np.concatenate(drawn), ends, axis=1), strict=True)
    return [_Arm(of_seeds, replicated) for of_seeds, replicated in parts]


def _multipliable(counts: np.ndarray) -> Any:
    """Counts as numbers to multiply; a large matrix of almost only zeros, as of many classes, as a sparse one."""
    if counts.size > _LARGE and np.count_nonzero(counts) < counts.size / 10:
        return csr_array(counts, dtype=float)
    return counts.astype(float)


def summed_by_group(trainings: Trainings, groups: np.ndarray | None) -> Trainings:
    """The counts of whole groups in place of those of single sentences.

    Args:
        trainings: A model's counts.
        groups: The group of each sentence, shape (sentences,); None leaves the counts as they are.

    Returns:
        For each seed, shape (groups, counts).

    Raises:
        ValueError: There is not one group for each sentence.
    """
    if groups is None:
        return trainings
    if any(groups.shape != counts.shape[:1] for counts in trainings):
        raise ValueError(f"groups of shape {groups.shape} for {len(trainings[0])} sentences")
    names, places = np.unique(groups, return_inverse=True)
    summed = np.zeros((len(trainings), len(names), trainings[0].shape[1]))
    for sums, counts in zip(summed, trainings, strict=True):
        np.add.at(sums, places, counts)
    return summed


def _components(arms: Sequence[_Arm], compared: np.ndarray, sentences: int, level: float) -> Components:
    """The components of the variance, with sums of squares that come from the replicates.

    To first order, a score is a mean over the sentences' contributions, and the variance of its replicates is the sum
    of squares of the contributions divided by the squared number of sentences. So variances of replicates give sums of
    squares, for a difference as well as for a seed's deviation from the mean over seeds.

    Args:
        arms: The models.
        compared: Replicates of the mean or difference in question, shape (replicates,).
        sentences: The number of sentences.
        level: The models' score, at least one point, so that the variance is never 0.
    """

    def squares(replicates: np.ndarray) -> float:
        return float(sentences**2 * replicates.var(axis=0, ddof=1).sum())

    departures = [arm.replicates - arm.replicates.mean(axis=1, keepdims=True) for arm in arms]
    return crossed(
        squares(compared),
        [(arm.scores, squares(departure)) for arm, departure in zip(arms, departures, strict=True)],
        sentences,
        # The difference on a sentence that one arm translates as well as on average and the other not at all.
        pseudo=level,
    )

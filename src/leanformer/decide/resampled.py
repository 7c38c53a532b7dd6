"""Intervals and tests for cross-validation, where models of two folds share most of what they were trained on.

The corrected resampled t test of Nadeau and Bengio 2003, "Inference for the Generalization Error", Machine Learning 52.
With J differences, one for each fold of each repeat, and their sample variance s², the variance of their mean is taken
to be (1/J + n_test/n_train) s², with J - 1 degrees of freedom: s²/J alone would hold if trainings shared no examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from leanformer.decide.corpus import Score
from leanformer.decide.statistics import (
    Comparison,
    Components,
    Interval,
    by_group,
    conclude,
    proportion_interval,
)


@dataclass(frozen=True)
class Folds:
    """Which fold tests each example of a pool, in each repeat of a cross-validation.

    Args:
        numbers: Shape (repeats, examples); each repeat has the same folds.
        test_to_train: Test examples over training examples of a fold.
    """

    numbers: np.ndarray
    test_to_train: float

    @property
    def count(self) -> int:
        """The number of folds."""
        return len(np.unique(self.numbers[0]))

    def means(self, outcomes: np.ndarray) -> np.ndarray:
        """Values of whole folds in place of those of examples, whose plain mean is the mean over the examples.

        Args:
            outcomes: Shape (repeats, examples).

        Returns:
            Shape (repeats, folds): with folds of the same size, the mean of each (``by_group``).
        """
        return np.concatenate([by_group(row[None], of) for row, of in zip(outcomes, self.numbers, strict=True)])

    def scores(self, trainings: Sequence[np.ndarray], score: Score) -> np.ndarray:
        """The score of each fold, which is that of one model, shape (repeats, folds).

        Args:
            trainings: For each repeat, counts of each example, shape (examples, counts).
            score: Sums of counts -> values.
        """
        sums = [
            [counts[of == number].sum(axis=0) for number in np.unique(of)]
            for counts, of in zip(trainings, self.numbers, strict=True)
        ]
        return score(np.array(sums))


@dataclass(frozen=True, kw_only=True)
class FoldComponents(Components):
    """The variance of a mean over folds. ``examples`` is the variance s² between them, which holds all that differs:
    examples, trainings and what these were trained on; ``seeds`` and ``interaction`` are empty.

    Args:
        folds: Folds of a repeat.
        test_to_train: See ``Folds``.
        unit: The difference that one example can make, times the number of examples. No variance is less than that of
            one example more or less, so that folds that agree give no interval of width 0 (as in ``crossed``).
    """

    folds: int
    test_to_train: float
    unit: float

    def variance(self, more_seeds: int = 0, more_examples: int = 0) -> tuple[float, float]:
        """The corrected variance of the mean, and its degrees of freedom, with additional repeats or examples."""
        count = self.folds * (self.num_seeds[0] + more_seeds)
        examples = self.num_examples + more_examples
        between = self.examples * self.num_examples / examples
        corrected = (1 / count + self.test_to_train) * between
        return max(corrected, self.unit**2 / (examples * (examples + 1))), count - 1


def fold_components(values: np.ndarray, folds: Folds, examples: int, unit: float = 1.0) -> FoldComponents:
    """The components of the variance of a mean over folds.

    Args:
        values: One for each fold of each repeat, shape (repeats, folds).
        folds: The folds.
        examples: Examples of the pool, or groups.
        unit: See ``FoldComponents``.
    """
    return FoldComponents(
        examples=float(values.var(ddof=1)),
        seeds=(),
        interaction=(),
        num_seeds=(len(values),),
        num_examples=examples,
        folds=values.shape[1],
        test_to_train=folds.test_to_train,
        unit=unit,
    )


def compare_folds(
    baseline: np.ndarray,
    candidate: np.ndarray,
    max_drop: float,
    confidence: float,
    folds: Folds,
    groups: np.ndarray | None = None,
) -> Comparison:
    """Compares a candidate with the baseline, each trained once for each fold of each repeat.

    The p-values are the greater ones of the corrected t test and of the exact bound for few losses, which counts the
    examples of the pool once, however many repeats there are.

    Args:
        baseline: Outcomes 0 or 1, shape (repeats, examples).
        candidate: Likewise, for the same examples in the same order.
        max_drop: The margin, as a drop in the mean outcome.
        confidence: Of the two-sided interval.
        folds: The folds; they keep groups whole.
        groups: The group of each example, shape (examples,); None where examples are independent.
    """
    differences = candidate - baseline
    components = fold_components(folds.means(differences), folds, units(differences.shape[1], groups))
    return conclude(
        float(differences.mean()), components, max_drop, confidence, largest=1.0, scope="seeds and examples"
    )


def quality_of_folds(
    outcomes: np.ndarray, confidence: float, folds: Folds, groups: np.ndarray | None = None
) -> Interval:
    """A recipe's mean outcome with its interval, that of Wilson at the corrected variance (``proportion_interval``).

    Args:
        outcomes: 0 or 1, shape (repeats, examples).
        confidence: Such as 0.95.
        folds: The folds.
        groups: As in ``compare_folds``.
    """
    count = units(outcomes.shape[1], groups)
    variance, freedom = fold_components(folds.means(outcomes), folds, count, unit=0.0).variance()
    return proportion_interval(float(outcomes.mean()), variance, freedom, count, outcomes.size, confidence)


def units(examples: int, groups: np.ndarray | None) -> int:
    """The number of independent units: of groups, or of examples where there are none.

    Args:
        examples: The number of examples.
        groups: The group of each example, shape (examples,), or None.
    """
    return examples if groups is None else len(np.unique(groups))

"""Whether a student loses more than the baseline on corrupted test examples (docs/robustness.md).

Two models answer the same examples twice, clean and corrupted. A model's loss is its quality on the corrupted examples
minus that on the clean ones. The extra loss is the student's loss minus the baseline's, a difference of differences,
paired by example.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

from leanformer.decide import judge
from leanformer.decide.corpus import REPLICATES, paired_bootstrap
from leanformer.decide.statistics import by_group
from leanformer.results.metrics import CorpusMetric, Metric
from leanformer.results.rows import Interval, Robustness


@dataclass(frozen=True)
class Answered:
    """One model's answers to the test examples, as ``Metric.statistics`` has them, shape (examples, counts).

    Args:
        clean: To the examples as they are.
        corrupted: Corruption -> to the corrupted examples, in the same order.
    """

    clean: np.ndarray
    corrupted: Mapping[str, np.ndarray]


def robustness(
    metric: Metric,
    model: Answered,
    baseline: Answered | None,
    max_drop: float,
    confidence: float,
    groups: np.ndarray | None = None,
) -> list[Robustness]:
    """A model's quality under each corruption, beside the baseline's.

    Args:
        metric: The metric of quality.
        model: The answers of a candidate, or of the baseline itself.
        baseline: The baseline's; None for the baseline itself, and where it failed.
        max_drop: The margin.
        confidence: Of the two-sided intervals.
        groups: The group of each example, shape (examples,); None where examples are independent.
    """
    found = []
    for name, corrupted in model.corrupted.items():
        quality = metric.of(corrupted)
        loss = quality - metric.of(model.clean)
        difference = extra = p_value = loses_more = None
        if baseline is not None:
            rival = baseline.corrupted[name]
            compared = judge.compare(metric, [rival], [corrupted], max_drop, confidence, groups)
            difference = judge.difference_of(metric, compared)
            pairs = (baseline.clean, rival), (model.clean, corrupted)
            extra, p_value = extra_loss(metric, *pairs, confidence, groups)
            # Bonferroni: of many corruptions, one would have a small p-value by chance.
            clearly = p_value <= (1 - confidence) / len(model.corrupted)
            loses_more = clearly and metric.sign * extra.mean < 0
        found.append(
            Robustness(
                corruption=name,
                quality=quality,
                loss=loss,
                difference=difference,
                extra_loss=extra,
                p_value=p_value,
                loses_more=loses_more,
            )
        )
    return found


def extra_loss(
    metric: Metric,
    baseline: tuple[np.ndarray, np.ndarray],
    student: tuple[np.ndarray, np.ndarray],
    confidence: float,
    groups: np.ndarray | None = None,
    replicates: int = REPLICATES,
) -> tuple[Interval, float]:
    """The student's loss minus the baseline's, with its interval, and the p-value of the hypothesis that it is 0.

    Means over examples have the t interval and the t test of the examples' own differences of differences; scores of a
    whole corpus the paired bootstrap, with the same resampled examples for all four sets of answers.

    Args:
        metric: The metric of quality.
        baseline: ``Metric.statistics`` of the baseline's clean and corrupted answers, shape (examples, counts) each.
        student: Likewise, on the same examples.
        confidence: Of the two-sided interval.
        groups: The group of each example, shape (examples,): whole groups are then compared, and resampled.
        replicates: How often examples are resampled.

    Raises:
        ValueError: The shapes do not fit.
    """
    if isinstance(metric, CorpusMetric):

        def losses(sums: np.ndarray) -> np.ndarray:
            clean, corrupted = np.split(sums, 2, axis=-1)
            return metric.score(corrupted) - metric.score(clean)

        first, second = (np.concatenate(answers, axis=1) for answers in (baseline, student))
        test = paired_bootstrap(first, second, losses, confidence, groups, replicates)
        found = test.difference
        # Percentiles of few counts may lie on one side of the estimate.
        ends = sorted((found.low, found.mean, found.high))
        return Interval(mean=found.mean, low=ends[0], high=ends[-1]), test.p_value
    each = [corrupted[:, 0] - clean[:, 0] for clean, corrupted in (baseline, student)]
    differences = by_group((each[1] - each[0])[None], groups)[0]  # (examples,) or (groups,)
    mean, freedom = float(differences.mean()), len(differences) - 1
    error = float(differences.std(ddof=1)) / len(differences) ** 0.5
    half = float(stdtrit(freedom, (1 + confidence) / 2)) * error
    if error == 0:  # all examples agree, and mostly on no difference at all
        return Interval(mean=mean, low=mean, high=mean), float(mean == 0)
    return Interval(mean=mean, low=mean - half, high=mean + half), 2 * float(stdtr(freedom, -abs(mean) / error))

"""A model's quality and its difference to another's, in any metric of the catalogue, with their intervals.

Means over examples use the analysis of variance (``statistics``), scores of a whole corpus the paired bootstrap
(``corpus``). The class of the metric decides which.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from leanformer.decide import corpus, statistics
from leanformer.decide.ratio import compare_errors
from leanformer.decide.resampled import Folds, compare_folds, fold_components, quality_of_folds, units
from leanformer.decide.statistics import Comparison
from leanformer.results.metrics import CorpusMetric, Metric
from leanformer.results.rows import Interval, Quality

Trainings = Sequence[np.ndarray]
"""For each seed, ``Metric.statistics`` of its answers to the same examples, shape (examples, counts)."""


def quality(
    metric: Metric,
    trainings: Trainings,
    confidence: float,
    groups: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    folds: Folds | None = None,
) -> Quality:
    """Mean quality over the seeds, with its interval.

    Args:
        metric: The metric of quality.
        trainings: The model's trainings.
        confidence: Such as 0.95.
        groups: The group of each example, shape (examples,); None where examples are independent.
        weights: How much each example counts, shape (examples,); None where all count alike.
        folds: Of a cross-validation, in which all examples count alike; a corpus score is then the mean over the folds.
            None: each model answered all examples.
    """
    if folds is not None:
        return _quality_of_folds(metric, trainings, confidence, groups, folds)
    counted = weighted(trainings, weights)
    if isinstance(metric, CorpusMetric):
        found = corpus.corpus_interval(
            counted,
            metric.score,
            confidence,
            largest=metric.greatest,
            point=_point(metric, counted),
            least=metric.least,
            groups=groups,
        )
    else:
        found = statistics.quality_interval(_outcomes(trainings), confidence, groups, weights)
    per_seed = [metric.of(training) for training in counted]
    return Quality(mean=found.mean, low=found.low, high=found.high, per_seed=per_seed)


def compare(
    metric: Metric,
    baseline: Trainings,
    candidate: Trainings,
    max_drop: float,
    confidence: float,
    groups: np.ndarray | None = None,
    paired: bool = False,
    weights: np.ndarray | None = None,
    max_ratio: float | None = None,
    folds: Folds | None = None,
) -> Comparison:
    """Compares a candidate with the baseline on the same test examples, each with its own trainings.

    Args:
        metric: The metric of quality.
        baseline: The baseline's trainings.
        candidate: The candidate's trainings.
        max_drop: The margin.
        confidence: Of the two-sided interval.
        groups: The group of each example, shape (examples,); None where examples are independent.
        paired: Whether each training of the candidate belongs to that of the baseline in the same place.
        weights: How much each example counts, shape (examples,); None where all count alike.
        max_ratio: How many times the baseline's error rate the candidate's may be, for a metric that is a share of
            right answers: that is tested in place of the drop. None: the drop is tested.
        folds: As in ``quality``; differences are then those of folds.

    Returns:
        The comparison, in values of which larger is better: the values of a metric where less is better are negated
        (``difference_of`` reverses that).
    """
    if isinstance(metric, CorpusMetric):
        baseline, candidate = weighted(baseline, weights), weighted(candidate, weights)
        point = _point(metric, baseline)
        if folds is not None:
            found = _compare_scores_of_folds(metric, baseline, candidate, max_drop, confidence, groups, folds)
        else:
            found = corpus.compare_corpus(
                baseline,
                candidate,
                lambda sums: metric.sign * metric.score(sums),
                max_drop,
                confidence,
                largest=_largest(metric, point),
                point=point,
                groups=groups,
                paired=paired,
            )
        if weights is not None:
            found = _with_fewer(found, max_drop, confidence, weights, groups)
        low, high = (min(max(end, -metric.span), metric.span) for end in (found.difference.low, found.difference.high))
        return replace(found, difference=replace(found.difference, low=low, high=high))
    first, second = (metric.sign * _outcomes(trainings) for trainings in (baseline, candidate))
    if max_ratio is not None:
        return compare_errors(first, second, max_ratio, confidence, groups, paired, weights, folds)
    if folds is not None:
        return compare_folds(first, second, max_drop, confidence, folds, groups)
    return statistics.compare(first, second, max_drop, confidence, groups, paired, weights)


def _quality_of_folds(
    metric: Metric, trainings: Trainings, confidence: float, groups: np.ndarray | None, folds: Folds
) -> Quality:
    """The mean quality over the folds of all repeats, with its interval."""
    if not isinstance(metric, CorpusMetric):
        outcomes = _outcomes(trainings)
        found = quality_of_folds(outcomes, confidence, folds, groups)
        return Quality(mean=found.mean, low=found.low, high=found.high, per_seed=outcomes.mean(axis=1).tolist())
    values = folds.scores(trainings, metric.score)  # (repeats, folds)
    components = fold_components(values, folds, units(len(trainings[0]), groups), _point(metric, trainings))
    found = components.interval(float(values.mean()), confidence, metric.least, metric.greatest)
    return Quality(mean=found.mean, low=found.low, high=found.high, per_seed=values.mean(axis=1).tolist())


def _compare_scores_of_folds(
    metric: CorpusMetric,
    baseline: Trainings,
    candidate: Trainings,
    max_drop: float,
    confidence: float,
    groups: np.ndarray | None,
    folds: Folds,
) -> Comparison:
    """Compares corpus scores fold by fold: each fold has a difference of its own."""
    first, second = (metric.sign * folds.scores(trainings, metric.score) for trainings in (baseline, candidate))
    point = _point(metric, baseline)
    unit = max(point, abs(float(first.mean())), abs(float(second.mean())))  # as in ``corpus``
    return statistics.conclude(
        float((second - first).mean()),
        fold_components(second - first, folds, units(len(baseline[0]), groups), unit),
        max_drop,
        confidence,
        largest=_largest(metric, point),
        scope="seeds and examples",
        counts_examples=False,
    )


def weighted(trainings: Trainings, weights: np.ndarray | None) -> Trainings:
    """Counts of which those of each example are multiplied by its share of the mean weight.

    Args:
        trainings: A model's trainings.
        weights: How much each example counts, shape (examples,); None leaves the counts as they are.
    """
    if weights is None:
        return trainings
    shares = (weights / weights.mean())[:, None]
    return [training * shares for training in trainings]


def _with_fewer(
    found: Comparison, max_drop: float, confidence: float, weights: np.ndarray, groups: np.ndarray | None
) -> Comparison:
    """A comparison of corpus scores with the effective number of examples in place of their number."""
    effect = statistics.design_effect(weights, groups)
    return statistics.conclude(
        found.difference.mean,
        replace(found.components, design_effect=effect),
        max_drop,
        confidence,
        found.components.largest,
        found.scope,
        counts_examples=False,
    )


def difference_of(metric: Metric, comparison: Comparison) -> Interval:
    """The candidate's quality minus the baseline's, with its interval.

    Args:
        metric: The metric that was compared.
        comparison: As ``compare`` gives it.
    """
    found = comparison.difference
    low, high = sorted((metric.sign * found.low, metric.sign * found.high))
    return Interval(mean=metric.sign * found.mean, low=low, high=high)


def _point(metric: CorpusMetric, trainings: Trainings) -> float:
    """How much one example may change a score, times the number of examples: no variance is less than that of a few
    such examples. For means over classes it is an example of the rarest class."""
    return 1 / metric.scale if metric.heaviest is None else metric.heaviest(trainings[0].sum(axis=0))


def _largest(metric: CorpusMetric, point: float) -> float:
    """The drop if every example counted as much as the one that counts most and all were lost: the exact test asks how
    many of such examples a drop of the margin takes."""
    if metric.heaviest is None:
        return metric.span
    return point if math.isinf(metric.span) else max(point, metric.span)


def _outcomes(trainings: Trainings) -> np.ndarray:
    """The outcome of each example for a mean metric, shape (seeds, examples)."""
    return np.stack([training[:, 0] for training in trainings])


def method(
    metric: Metric, seeds: int, example: str, looks: int, exported: bool = False, folds: Folds | None = None
) -> str:
    """How intervals and decisions are made, in sentences for the report.

    Args:
        metric: What quality is.
        seeds: The number of seeds.
        example: The word for a test example.
        looks: The planned looks at the test split.
        exported: Whether the models that ship are exported ones.
        folds: Of a cross-validation; None: there is a test split.
    """
    seen = "test split" if folds is None else "data"
    share = "" if looks == 1 else f", and for {looks} planned looks at the {seen}, which share the error equally"
    decision = (
        "The decision is a one-sided non-inferiority test with an exact bound where losses are few, corrected for "
        f"several candidates by Holm's method{share}."
    )
    if folds is not None:
        return f"{_method_of_folds(metric, seeds, example, folds)} {decision}"
    corpus_scores, resampled = "", ""
    if isinstance(metric, CorpusMetric):
        library = "sacreBLEU's " if metric.signature is not None else ""
        corpus_scores = f" of {library}corpus scores" if metric.answers == "texts" else " of scores of all examples"
        seeds_too = " and seed" if seeds > 1 else ""
        resampled = f" (paired bootstrap, with the same resampled {example}s for every model{seeds_too})"
    form = "exported " if exported else ""
    sentences = [
        f"Quality and difference are those of the one {form}model of each candidate and of the baseline that would "
        f"ship, chosen on the validation split{corpus_scores}. Their intervals account for the choice of test "
        f"{example}s{resampled}."
    ]
    if seeds > 1:
        sentences.append(
            "The recipe is the plan and the training over the seeds. Its quality and difference are means over them, "
            f"and its intervals account for the choice of seeds too (analysis of variance with {example}s and seeds "
            "crossed, t quantiles with Satterthwaite's degrees of freedom; students are paired with their teachers)."
        )
    else:
        sentences.append("There is one seed, so that nothing can be said about other seeds.")
    return " ".join([*sentences, decision])


def _method_of_folds(metric: Metric, seeds: int, example: str, folds: Folds) -> str:
    """How intervals are made in a cross-validation."""
    anew = f", divided anew for each of {seeds} seeds" if seeds > 1 else ""
    score = "; a score is the mean over the folds" if isinstance(metric, CorpusMetric) else ""
    return (
        f"Cross-validation in {folds.count} folds{anew}: each fold is tested by models that were trained on the others,"
        f" so that every {example} was answered once for each seed{score}. Quality, difference and decision are those "
        "of the recipe, which is the plan and the training with its search for a learning rate. Differences are taken "
        f"fold by fold; intervals and the t test have the variance (1/{folds.numbers.shape[0] * folds.count} + "
        f"{folds.test_to_train:.3g}) s², s² between the folds and {folds.test_to_train:.3g} test {example}s for each "
        f"training {example}, because trainings share most of their {example}s (corrected resampled t test, Nadeau "
        "and Bengio 2003)."
    )

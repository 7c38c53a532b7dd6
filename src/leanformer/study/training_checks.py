"""Warnings that follow from how a study's models were trained; docs/warnings.md has their rules."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from leanformer.config.base import BASELINE, Study
from leanformer.core.warning import StudyWarning
from leanformer.decide.statistics import Comparison
from leanformer.results.metrics import METRICS
from leanformer.results.schema import FORMS
from leanformer.study.arms import CandidateOutcome
from leanformer.study.steps import ended_well

MOST_NAMED = 5
LEAST_STEP = 2.0
"""The least factor between a list's edge and the rate that is to be added."""
CLEAR = 2.0
"""Standard errors by which a gain must exceed 0."""


def training_warnings(
    study: Study, outcomes: Sequence[CandidateOutcome], comparisons: Mapping[str, Comparison]
) -> list[StudyWarning]:
    """What the reader of a decision has to know about the trainings behind it.

    Args:
        study: The study.
        outcomes: The baseline's first, then the candidates'.
        comparisons: Candidate -> its comparison with the baseline; none of those that failed.
    """
    return [
        *_short_search(study, outcomes),
        *_rates_at_edge(study, outcomes),
        *_still_rising(study, outcomes),
        *_weak_training(comparisons),
    ]


def _short_search(study: Study, outcomes: Sequence[CandidateOutcome]) -> Iterator[StudyWarning]:
    """A search of less than half the epochs: the best rate of a short training is often too high for a long one."""
    train, searched = study.train, sum(bool(outcome.search) for outcome in outcomes)
    if searched and train.search_epochs is not None and 2 * train.search_epochs < train.epochs:
        sentence = (
            f"the learning rates were searched with {_epochs(train.search_epochs)}, and models are trained with "
            f"{train.epochs}: the best rate may be another there; set train.search_epochs to "
            f"{math.ceil(train.epochs / 2)} or more, or leave it out"
        )
        yield StudyWarning("short-search", sentence, searched)


def _rates_at_edge(study: Study, outcomes: Sequence[CandidateOutcome]) -> Iterator[StudyWarning]:
    """Best rates that are the least or greatest of the list, beyond which a better one may lie."""
    rates = sorted(study.train.learning_rate)
    best = {
        outcome.name: next(iter(outcome.trials.values()))["learning_rate"]
        for outcome in outcomes
        if any(run["status"] == "ok" for run in outcome.search)
    }
    for edge, inner, which in ((rates[0], rates[1:2], "least"), (rates[-1], rates[-2:-1], "greatest")):
        found = [name for name, rate in best.items() if rate == edge]
        if found and inner:
            factor = max(edge / inner[0], LEAST_STEP) if edge > inner[0] else min(edge / inner[0], 1 / LEAST_STEP)
            sentence = (
                f"the best learning rate of {_named(found)} is {edge:g}, the {which} of the list: one beyond it may "
                f"be better; add {edge * factor:.1g} to train.learning_rate"
            )
            yield StudyWarning("rate-at-edge", sentence, len(found))


def _still_rising(study: Study, outcomes: Sequence[CandidateOutcome]) -> Iterator[StudyWarning]:
    """Trainings that ended while the validation quality still rose."""
    wording = FORMS[study.task].wording
    # As a part of the metric's range, because what is measured after each epoch may be another quality.
    metric = METRICS[study.accept.metric]
    relevant = (metric.max_drop if study.accept.max_ratio else study.accept.max_drop) / metric.greatest / 2
    rising: dict[str, list[str]] = {"train.epochs": [], "finetune.epochs": []}
    for outcome in outcomes:
        tuned = outcome.method == "distill"
        tuning = (study.candidates[outcome.name].finetune or study.finetune) if tuned else None
        average_last = study.train.average_last if tuning is None else tuning.average_last
        curves = [
            [epoch[wording.learned_key] for epoch in trial["trained"]["epochs"]]
            for trial in outcome.trials.values()
            if ended_well(trial)
        ]
        if average_last is not None:  # the last epoch's value is that of the mean of several epochs' weights
            curves = [curve[:-1] for curve in curves]
        if still_rises(curves, relevant):
            rising["finetune.epochs" if tuned else "train.epochs"].append(outcome.name)
    for key, names in rising.items():
        if names:
            sentence = (
                f"the validation {wording.learned} of {_named(names)} still rose when training ended, so that the "
                f"decision is on models that are not trained to the end; raise {key}"
            )
            yield StudyWarning("still-rising", sentence, len(names))


def still_rises(curves: Sequence[Sequence[float]], relevant: float) -> bool:
    """Whether a quality still rises at the end of a model's trainings, by a relevant amount and beyond their noise.

    Its gain is its mean over the last tenth of the epochs (at least one) minus that over the tenth before, averaged
    over the seeds. The noise is estimated from the steps between neighbouring epochs in these two tenths, pooled over
    the seeds: the mean of these steps is the trend, and the variance around it is twice that of one epoch. With one
    epoch a tenth, the gain over its error is the t statistic of the seeds' gains.

    Args:
        curves: For each seed, the quality after each epoch; larger is better.
        relevant: The least gain that matters.
    """
    if not curves or min(map(len, curves)) < 2:
        return False
    tenth = max(1, min(map(len, curves)) // 10)
    last = np.array([curve[-2 * tenth :] for curve in curves])  # (seeds, epochs of two tenths)
    gain = float((last[:, tenth:].mean(axis=1) - last[:, :tenth].mean(axis=1)).mean())
    steps = np.diff(last, axis=1)
    if steps.size < 2:  # one seed and two epochs: no noise is known
        return False
    error = float(steps.std(ddof=1)) / math.sqrt(tenth * len(curves))
    return gain >= relevant and gain > CLEAR * error


def _weak_training(comparisons: Mapping[str, Comparison]) -> Iterator[StudyWarning]:
    """Candidates that are all better than the baseline, at least one of them surely."""
    differences = [comparison.difference for comparison in comparisons.values()]
    if len(differences) < 2 or min(found.mean for found in differences) <= 0:
        return
    if max(found.low for found in differences) > 0:
        sentence = (
            f"all {len(differences)} candidates are better than the {BASELINE}, so that it may be trained too little, "
            "and what they gain may be an artefact of that; train it for longer (train.epochs), or search further "
            "learning rates"
        )
        yield StudyWarning("weak-training", sentence, len(differences))


def _named(names: Sequence[str]) -> str:
    """Names in a sentence, the first few of many."""
    more = len(names) - MOST_NAMED
    parts = [*names[:MOST_NAMED], f"{more} more"] if more > 0 else list(names)
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _epochs(count: int) -> str:
    return "1 epoch" if count == 1 else f"{count} epochs"

"""What an earlier study says about the variance of the next one's comparisons: its predictions, example by example."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from leanformer.core.errors import LeanformerError, quoted
from leanformer.decide import judge
from leanformer.decide.statistics import Components
from leanformer.measure.quality import Predictions
from leanformer.measure.scoring import Scoring
from leanformer.measure.translation import Translations
from leanformer.results.metrics import METRICS, Metric, judging
from leanformer.results.reader import read_results
from leanformer.results.schema import form_of
from leanformer.study.training import PREDICTIONS


@dataclass(frozen=True)
class Pilot:
    """A study that has been run, and one comparison of it.

    Args:
        results: The content of its ``results.json``.
        metric: The metric of the comparison.
        candidate: The candidate's name.
        quality: The baseline's quality.
        components: The components of the comparison's variance, as if examples were independent.
        group_size: Examples in a group, on average; 1 where examples are independent.
        intraclass: The correlation of two examples' differences in one group, from the variance of whole groups.
    """

    results: Mapping[str, Any]
    metric: Metric
    candidate: str
    quality: float
    components: Components
    group_size: float
    intraclass: float

    @property
    def seeds(self) -> int:
        """Trainings of the candidate that the comparison is about."""
        return self.components.num_seeds[-1]

    @property
    def variance(self) -> float:
        """Variance that one example adds to the difference between two trained models."""
        return _of_one_pair(self.components) * (1 + (self.group_size - 1) * self.intraclass)


def _of_one_pair(components: Components) -> float:
    """Variance of one example's difference between two trained models; with one seed the interaction is in it."""
    return components.examples + sum(components.interaction)


def read_pilot(directory: Path, metric: str | None = None, candidate: str | None = None) -> Pilot:
    """Reads the predictions of a run directory, and compares a candidate with the baseline.

    Args:
        directory: The run directory of a study that ran to its end.
        metric: The metric's key; by default the study's.
        candidate: The candidate's name; by default the one whose differences vary most, which needs the most examples.

    Raises:
        LeanformerError: The directory is no run directory, a trial's predictions are missing or damaged, or the metric
            or the candidate is not there.
    """
    results = read_results(directory)
    if results["cross_validation"] is not None:
        raise LeanformerError(
            f"pilot {directory}: a cross-validation, whose models each answered one fold; give the run of a study with "
            "a test split"
        )
    form = form_of(results)
    known = [found.key for found in judging(form.answers)]
    key = results["metric"] if metric is None else metric
    if key not in known:
        raise LeanformerError(f"metric {quoted(key)}: {directory} has answers for {', '.join(known)}; give one of them")
    rows = {row["name"]: row for row in results["candidates"] if not row["failures"]}
    if results["baseline"]["failures"] or not rows:
        raise LeanformerError(f"pilot {directory}: its baseline or all its candidates failed; give another run")
    if candidate is not None and candidate not in rows:
        raise LeanformerError(
            f"candidate {quoted(candidate)}: {directory} has no such candidate that succeeded; give one of "
            f"{', '.join(rows)}"
        )
    read = _reader(results)
    baseline = _answers(directory, results["baseline"], read)
    found = [
        _pilot(results, METRICS[key], row, baseline, _answers(directory, row, read))
        for name, row in rows.items()
        if candidate in (None, name)
    ]
    return max(found, key=lambda pilot: pilot.variance)


def _reader(results: Mapping[str, Any]) -> Callable[[Path], Any]:
    """Reads the answers of one trial."""
    if form_of(results).answers == "labels":
        return Predictions.read
    # sacreBLEU's signature: "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0".
    of_words = next(metric.key for metric in judging(form_of(results).answers) if metric.words)
    parts = dict(part.split(":", 1) for part in results["signatures"][of_words].split("|") if ":" in part)
    scoring = Scoring(parts.get("tok", "13a"), parts.get("case") == "lc")
    return partial(Translations.read, scoring=scoring)


def _answers(directory: Path, row: Mapping[str, Any], read: Callable[[Path], Any]) -> list[Any]:
    """The answers of each seed."""
    if not row["trials"]:
        raise LeanformerError(f"pilot {directory}: its results name no trials of {row['name']}; run the study again")
    return [read(directory / trial / PREDICTIONS) for trial in row["trials"]]


def _pilot(
    results: Mapping[str, Any],
    metric: Metric,
    row: Mapping[str, Any],
    baseline: Sequence[Any],
    candidate: Sequence[Any],
) -> Pilot:
    accept, taught = results["accept"], row["method"] == "distill"
    if taught:  # as in the study, a student stands beside its teacher, which is the baseline of the same seed
        baseline = [
            answers
            for seed, answers in zip(results["baseline"]["seeds"], baseline, strict=True)
            if seed in row["seeds"]
        ]
    first, second = ([answers.statistics(metric.key) for answers in model] for model in (baseline, candidate))

    def components(groups: np.ndarray | None) -> Components:
        return judge.compare(
            metric,
            first,
            second,
            accept["max_drop"],
            accept["confidence"],
            groups=groups,
            paired=taught,
        ).components

    names = baseline[0].groups
    try:
        alone = components(None)
        size, intraclass = 1.0, 0.0
        if names is not None:
            grouped = components(np.unique(np.asarray(names), return_inverse=True)[1])
            size = alone.num_examples / grouped.num_examples
            if size > 1:
                effect = _of_one_pair(grouped) * size / _of_one_pair(alone)
                intraclass = min(max(0.0, (effect - 1) / (size - 1)), 1.0)
    except ValueError as error:
        raise LeanformerError(f"pilot: the predictions of baseline and {row['name']} do not fit ({error})") from None
    quality = float(np.mean([metric.of(training) for training in first]))
    return Pilot(results, metric, row["name"], quality, alone, size, intraclass)

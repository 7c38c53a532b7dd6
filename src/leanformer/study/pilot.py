"""What an earlier study says about the variance of the next one's comparisons: its predictions, example by example."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
        components: The components of the comparison's variance.
        paired: Whether the candidate's seeds were paired with the baseline's.
    """

    results: Mapping[str, Any]
    metric: Metric
    candidate: str
    quality: float
    components: Components
    paired: bool

    @property
    def seeds(self) -> int:
        """Trainings of each model."""
        return len(self.results["seeds"])

    @property
    def variance(self) -> float:
        """Variance of one example's difference between two trained models."""
        one_pair = self.components.num_seeds[0] == 1
        return self.components.examples + (0.0 if one_pair else sum(self.components.interaction))


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
    baseline = _trainings(directory, results["baseline"], METRICS[key], read)
    found = [
        _pilot(results, METRICS[key], row, baseline, _trainings(directory, row, METRICS[key], read))
        for name, row in rows.items()
        if candidate in (None, name)
    ]
    return max(found, key=lambda pilot: pilot.variance)


def _reader(results: Mapping[str, Any]) -> Callable[[Path], Any]:
    """Reads the answers of one trial."""
    if form_of(results).answers == "labels":
        return Predictions.read
    # sacreBLEU's signature: "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0".
    parts = dict(part.split(":", 1) for part in results["signatures"]["bleu"].split("|") if ":" in part)
    scoring = Scoring(parts.get("tok", "13a"), parts.get("case") == "lc")
    return partial(Translations.read, scoring=scoring)


def _trainings(
    directory: Path, row: Mapping[str, Any], metric: Metric, read: Callable[[Path], Any]
) -> list[np.ndarray]:
    """``Metric.statistics`` of each seed's answers."""
    if not row["trials"]:
        raise LeanformerError(f"pilot {directory}: its results name no trials of {row['name']}; run the study again")
    return [read(directory / trial / PREDICTIONS).statistics(metric.key) for trial in row["trials"]]


def _pilot(
    results: Mapping[str, Any],
    metric: Metric,
    row: Mapping[str, Any],
    baseline: list[np.ndarray],
    candidate: list[np.ndarray],
) -> Pilot:
    paired = row["method"] == "distill"
    accept = results["accept"]
    try:
        comparison = judge.compare(metric, baseline, candidate, accept["max_drop"], accept["confidence"], paired=paired)
    except ValueError as error:
        raise LeanformerError(f"pilot: the predictions of baseline and {row['name']} do not fit ({error})") from None
    quality = float(np.mean([metric.of(training) for training in baseline]))
    return Pilot(results, metric, row["name"], quality, comparison.components, paired)

"""What earlier predictions say about the variance of the next comparisons: a study's, or those of any two models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from leanformer.config.classification import ClassAcceptConfig
from leanformer.core.errors import LeanformerError, quoted
from leanformer.decide import judge
from leanformer.decide.statistics import Components
from leanformer.measure.quality import Predictions
from leanformer.measure.scoring import Scoring
from leanformer.measure.translation import Translations
from leanformer.results.metrics import METRICS, Metric, judging
from leanformer.results.reader import read_results
from leanformer.results.schema import form_of
from leanformer.study.predicted_files import PredictedFiles, metric_of_files
from leanformer.study.training import PREDICTIONS
from leanformer.tasks.classification import scoring_of


@dataclass(frozen=True)
class Pilot:
    """One comparison of two models, of a study that has been run or from files of predictions.

    Args:
        described: Where it comes from, in words.
        accept: The ``accept`` of the study; empty without a study.
        candidates: The candidates of the study; 1 without a study.
        metric: The metric of the comparison.
        quality: The baseline's quality.
        components: The components of the comparison's variance, as if examples were independent.
        group_size: Examples in a group, on average; 1 where examples are independent.
        intraclass: The correlation of two examples' differences in one group, from the variance of whole groups.
    """

    described: str
    accept: Mapping[str, Any]
    candidates: int
    metric: Metric
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
    known = [found.key for found in judging(form_of(results).answers) if found.measures(baseline[0])]
    key = results["metric"] if metric is None else metric
    if key not in known:
        raise LeanformerError(f"metric {quoted(key)}: {directory} has answers for {', '.join(known)}; give one of them")
    found = [
        _of_candidate(directory, results, METRICS[key], row, baseline, _answers(directory, row, read))
        for name, row in rows.items()
        if candidate in (None, name)
    ]
    return max(found, key=lambda pilot: pilot.variance)


def read_pilot_files(
    paths: Sequence[Path], metric: str | None, columns: Mapping[str, str] | None, tokenizer: str
) -> Pilot:
    """Reads two files of predictions, as ``lf.compare`` does, and compares the second model with the first.

    Args:
        paths: The baseline's file and the candidate's.
        metric: The metric's key; by default the share of right classes.
        columns: What a column holds -> its name in the files, where that is another one.
        tokenizer: sacreBLEU's tokenizer for metrics that count words, or ``auto``.

    Raises:
        LeanformerError: A file cannot be read, the two do not fit together, or their examples have weights.
    """
    read = PredictedFiles(paths, metric_of_files(metric), columns, tokenizer)
    read.check_seeds("give several seeds in both, or only one of these")
    if read.weights is not None:
        raise LeanformerError(
            f"pilot {paths[0]}: its examples have weights, and plans are for examples that count alike; leave out the "
            "column of weights"
        )
    first, second = (list(of_seeds.values()) for of_seeds in read.statistics)
    described = f"{paths[0]} and {paths[1]}"
    return _pilot(described, {}, 1, read.metric, first, second, read.groups, paired=False)


def _reader(results: Mapping[str, Any]) -> Callable[[Path], Any]:
    """Reads the answers of one trial."""
    if form_of(results).answers == "labels":
        of_labels = scoring_of(ClassAcceptConfig(**results["accept"]), results["data"]["classes"])
        return lambda path: replace(Predictions.read(path), **of_labels)
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


def _of_candidate(
    directory: Path,
    results: Mapping[str, Any],
    metric: Metric,
    row: Mapping[str, Any],
    baseline: Sequence[Any],
    candidate: Sequence[Any],
) -> Pilot:
    """The comparison of one candidate of a study."""
    taught = row["method"] == "distill"
    if taught:  # as in the study, a student stands beside its teacher, which is the baseline of the same seed
        baseline = [
            answers
            for seed, answers in zip(results["baseline"]["seeds"], baseline, strict=True)
            if seed in row["seeds"]
        ]
    first, second = ([answers.statistics(metric.key) for answers in model] for model in (baseline, candidate))
    names = baseline[0].groups
    groups = None if names is None else np.asarray(names)
    described = f"{directory}, candidate {row['name']}"
    return _pilot(
        described, results["accept"], len(results["candidates"]), metric, first, second, groups, paired=taught
    )


def _pilot(
    described: str,
    accept: Mapping[str, Any],
    candidates: int,
    metric: Metric,
    baseline: judge.Trainings,
    candidate: judge.Trainings,
    groups: np.ndarray | None,
    *,
    paired: bool,
) -> Pilot:
    def components(of_groups: np.ndarray | None) -> Components:
        # The components are the same for any margin and confidence.
        return judge.compare(
            metric, baseline, candidate, metric.max_drop, 0.95, groups=of_groups, paired=paired
        ).components

    try:
        alone = components(None)
        size, intraclass = 1.0, 0.0
        if groups is not None:
            grouped = components(groups)
            size = alone.num_examples / grouped.num_examples
            if size > 1:
                effect = _of_one_pair(grouped) * size / _of_one_pair(alone)
                intraclass = min(max(0.0, (effect - 1) / (size - 1)), 1.0)
    except ValueError as error:
        raise LeanformerError(f"pilot {described}: the predictions of the two do not fit ({error})") from None
    quality = float(np.mean([metric.of(training) for training in baseline]))
    return Pilot(described, accept, candidates, metric, quality, alone, size, intraclass)

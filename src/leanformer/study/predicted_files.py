"""Files of predictions of several models on the same examples, in the form that metrics read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import get_args

import numpy as np

from leanformer.config.translation import Tokenizer
from leanformer.core.errors import LeanformerError, quoted
from leanformer.decide import judge
from leanformer.measure.prediction_files import COLUMNS, matched, read_predictions
from leanformer.measure.scoring import choose_tokenizer
from leanformer.results.metrics import Labels, Metric, Texts, judging


class PredictedFiles:
    """The predictions of several models on the same examples, one file a model.

    Args:
        paths: CSV, TSV, JSON Lines or parquet files, the baseline's first; the order of its examples is everyone's.
        metric: One of ``metrics_of_files``.
        columns: What a column holds -> its name in the files, where that is another one.
        tokenizer: sacreBLEU's tokenizer for metrics that count words; ``auto``: what suits the references' script.

    Raises:
        LeanformerError: A file cannot be read, the files do not fit together, or an argument is wrong.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        metric: Metric,
        columns: Mapping[str, str] | None = None,
        tokenizer: str = "auto",
    ) -> None:
        for path in paths:
            if paths.count(path) > 1:
                raise LeanformerError(f"{path}: is given twice; give the files of different models")
        names = _columns(columns)
        self.metric, self._tokenizer = metric, _tokenizer(tokenizer, metric)
        first = read_predictions(paths[0], metric.answers, names)
        self.files = [first, *(matched(first, read_predictions(path, metric.answers, names)) for path in paths[1:])]
        groups = next((file.groups for file in self.files if file.groups is not None), None)
        weights = next((file.weights for file in self.files if file.weights is not None), None)
        self.groups = None if groups is None else np.asarray(groups)
        self.weights = None if weights is None else np.asarray(weights)
        if self.groups is not None and len(set(self.groups.tolist())) < 2:
            raise LeanformerError(f"{first.path}: all examples are of one group; give at least two groups")
        self.statistics = [
            {seed: metric.statistics(self._answers(given)) for seed, given in file.predictions.items()}
            for file in self.files
        ]
        """For each file, seed -> what each example contributes."""

    @cached_property
    def tokenize(self) -> str:
        """sacreBLEU's tokenizer that counts the words."""
        return choose_tokenizer(self._tokenizer, "", self.files[0].labels, key="tokenizer (--tokenizer)")

    @property
    def worthless(self) -> float:
        """The quality of a model that always says the most frequent class, or writes nothing."""
        labels, constant = self.files[0].labels, ""
        if self.metric.answers == "labels":
            names, places = np.unique(labels, return_inverse=True)
            constant = str(names[np.bincount(places, self.weights).argmax()])
        counts = self.metric.statistics(self._answers([constant] * len(labels)))
        return self.metric.of(judge.weighted([counts], self.weights)[0])

    def check_seeds(self, remedy: str) -> None:
        """Refuses files of which some have several seeds and some have one.

        Args:
            remedy: What to do about it.

        Raises:
            LeanformerError: It names two such files.
        """
        several = [len(of_seeds) > 1 for of_seeds in self.statistics]
        if any(several) and not all(several):
            lone, other = self.files[several.index(False)], self.files[several.index(True)]
            raise LeanformerError(
                f"{lone.path} has predictions of one model, and {other.path} of {len(other.predictions)} seeds; "
                f"{remedy}: {listed(other.predictions)}"
            )

    def _answers(self, predictions: Sequence[str]) -> Labels | Texts:
        """Predictions in the form that metrics read; classes as numbers."""
        first = self.files[0]
        if self.metric.answers == "texts":
            return Texts(first.sources or ("",) * len(first.ids), first.labels, predictions, self.tokenize)
        labels, predicted = (np.array([self._classes[name] for name in names]) for names in (first.labels, predictions))
        return Labels(labels, predicted, classes=len(self._classes))

    @cached_property
    def _classes(self) -> dict[str, int]:
        """Class -> its number."""
        predicted = (name for file in self.files for names in file.predictions.values() for name in names)
        return {name: number for number, name in enumerate(sorted({*self.files[0].labels, *predicted}))}


def metrics_of_files() -> dict[str, Metric]:
    """Key -> a metric that can be computed from files of predictions; the first is the default.

    Files have neither probabilities nor what a study says about costs and thresholds.
    """
    return {
        known.key: known
        for answers in ("labels", "texts")
        for known in judging(answers)
        if not (known.needs or known.requires or known.threshold)
    }


def metric_of_files(key: object) -> Metric:
    """The metric of files of predictions that a caller names; None is the default.

    Raises:
        LeanformerError: There is none of that name.
    """
    known = metrics_of_files()
    key = next(iter(known)) if key is None else key
    if not isinstance(key, str) or key not in known:
        raise LeanformerError(
            f"metric (--metric): no metric of classes or texts is called {quoted(key)}; give {', '.join(known)}"
        )
    return known[key]


def listed(seeds: Mapping[int, object]) -> str:
    """The seeds of a file, for a message."""
    return ", ".join(map(str, list(seeds)[:10])) + (", ..." if len(seeds) > 10 else "")


def _columns(columns: object) -> dict[str, str]:
    if columns is None:
        return {}
    if not isinstance(columns, Mapping) or not all(isinstance(name, str) and name for name in columns.values()):
        raise LeanformerError(
            f"columns: give what a column holds and its name, such as {{'id': 'example'}}, not {quoted(columns)}"
        )
    for key in columns:
        if key not in COLUMNS:
            raise LeanformerError(f"columns: there is no {quoted(key)}; a column holds {', '.join(COLUMNS)}")
    return dict(columns)


def _tokenizer(given: object, metric: Metric) -> str:
    known = get_args(Tokenizer)
    if not isinstance(given, str) or given not in known:
        raise LeanformerError(f"tokenizer (--tokenizer): sacreBLEU has no {quoted(given)}; give {', '.join(known)}")
    if given != "auto" and not metric.words:
        raise LeanformerError(f"tokenizer (--tokenizer) does nothing for {metric.name}, which counts no words")
    return given

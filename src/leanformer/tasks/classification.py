"""What tasks of classification share: labels, weights of classes, scores, thresholds, and details by class."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from transformers import PreTrainedModel

from leanformer.config.classification import ClassAcceptConfig, ClassStudy
from leanformer.core.errors import LeanformerError, quoted
from leanformer.core.warning import StudyWarning
from leanformer.decide.statistics import mcnemar_exact
from leanformer.learn.losses import Batch, Loss, label_loss
from leanformer.measure.quality import PooledPredictions, Predictions, predict
from leanformer.results.classification import ClassQuality, Confused, Confusion, OperatingPoint
from leanformer.results.metrics import METRICS, Metric
from leanformer.tasks.base import Outcome, SplitName, Task

MOST_LISTED = 20  # classes in a message
MOST_IN_MATRIX = 20  # classes
MOST_PAIRS = 20  # confused classes
HEAD_FACTOR = 10  # a new head's learning rate by the body's
FEWEST_TESTED = 2  # one example has no variance

Predicts = Callable[[Iterator[Batch]], Predictions]
"""Batches with ``labels`` -> a model's predictions."""


class LabelledSplit(Protocol):
    """The examples of one split, by their labels."""

    @property
    def labels(self) -> torch.Tensor:
        """(n,) int64 class numbers, on the device."""

    def __len__(self) -> int: ...


class LabelledData(Protocol):
    """The splits of labelled examples, and the names of their classes in the order of the class numbers.

    Attributes:
        test_groups: The name of each test example's group; None where each stands for itself.
        test_rows: (n,) the numbers of the test examples among all; None without cross-validation.
    """

    @property
    def train(self) -> LabelledSplit: ...

    @property
    def validation(self) -> LabelledSplit: ...

    @property
    def test(self) -> LabelledSplit: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def test_groups(self) -> tuple[str, ...] | None: ...

    @property
    def test_rows(self) -> NDArray[np.int64] | None: ...


class Classification(Task):
    """A study of classifiers; see ``Task``. A task of one kind of examples reads them, and makes their batches.

    Class attributes:
        noun: The word for an example.
    """

    noun: ClassVar[str]

    study: ClassStudy
    _keeps_logits: bool
    _scoring: dict[str, Any]

    @property
    @abstractmethod
    def labelled(self) -> LabelledData:
        """The data, by their labels."""

    @abstractmethod
    def _predicted(self, split: SplitName, predicts: Predicts) -> Predictions:
        """A model's predictions on a split, in the split's order."""

    @abstractmethod
    def _head(self, model: PreTrainedModel) -> Sequence[str]:
        """The names of a model's parameters that begin with random weights; none where the baseline keeps its head."""

    def _settle_scoring(self) -> None:
        """Settles weights of classes and scoring, when the data are read.

        Raises:
            LeanformerError: The study names a class that the data lack, or needs examples that they lack.
        """
        self.class_weights = self._class_weights()
        metric = METRICS[self.study.accept.metric]
        self._keeps_logits = "logits" in metric.needs
        self._scoring = scoring_of(self.study.accept, self.labelled.classes)
        if self._scoring["positive"] is not None:
            self._check_positive(metric)

    @cached_property
    def test_signature(self) -> str:
        """Of examples and classes, in no order: other training data leave the split as it is."""
        classes = (self.labelled.classes[label] for label in self.labelled.test.labels.tolist())
        examples = sorted(f"{example} {name}" for example, name in zip(self.inputs("test"), classes, strict=True))
        return hashlib.sha256("\n".join(examples).encode(errors="surrogatepass")).hexdigest()

    def loss(self) -> Loss | None:
        if self.class_weights is None:
            return None
        return label_loss(self.study.train.label_smoothing, self.class_weights)

    def rate_factors(self, model: PreTrainedModel, rate: float) -> Mapping[str, float]:
        of_head = self.study.train.head_learning_rate or HEAD_FACTOR * rate
        return dict.fromkeys(self._head(model), of_head / rate)

    def _class_weights(self) -> torch.Tensor | None:
        """``train.class_weights`` in the order of the classes; a class without a training example has 0."""
        wanted, names = self.study.train.class_weights, self.labelled.classes
        if wanted is None:
            return None
        if wanted == "balanced":
            counts = torch.bincount(self.labelled.train.labels, minlength=len(names)).float()
            weights = torch.where(counts > 0, len(self.labelled.train) / (len(names) * counts.clamp_min(1)), 0.0)
        else:
            weights = torch.ones(len(names))
            for name, weight in wanted.items():
                weights[place_of(name, names, "train.class_weights")] = weight
        return weights.to(self.device)

    def _check_positive(self, metric: Metric) -> None:
        """Checks that there are examples of the positive class, and of others where a threshold is chosen."""
        positive, name = self._scoring["positive"], self.study.accept.positive
        for role, labels in (("test", self.labelled.test.labels), ("validation", self.labelled.validation.labels)):
            found = int((labels == positive).sum())
            if role == "test" and not 0 < found < len(labels):
                raise LeanformerError(
                    f"accept.positive: {found:,} of {len(labels):,} test {self.noun}s are of the class {name!r}; "
                    f"{metric.name} needs {self.noun}s of it and of others"
                )
            if role == "validation" and metric.threshold is not None and found == len(labels):
                raise LeanformerError(
                    f"accept.positive: all validation {self.noun}s are of the class {name!r}; the threshold for "
                    f"{metric.name} is chosen on {self.noun}s of other classes"
                )

    def check_test(self) -> None:
        if len(self.labelled.test) < FEWEST_TESTED:
            raise LeanformerError(
                f"data: the test split has {len(self.labelled.test)} {self.noun}, and a decision needs at least "
                f"{FEWEST_TESTED}; give more test {self.noun}s, or a larger test_fraction or test_limit"
            )
        self.check_groups()

        metric, positive = METRICS[self.study.accept.metric], self._scoring["positive"]
        if metric.threshold is not None and positive is not None and self.labelled.validation is not self.labelled.test:
            others = int((self.labelled.validation.labels != positive).sum())
            if self.study.accept.false_alarm_rate * others < 1:
                sentence = (
                    f"a false-alarm rate of {self.study.accept.false_alarm_rate:g} is less than one of the {others:,} "
                    f"validation {self.noun}s of other classes, so that each threshold depends on one {self.noun}; "
                    f"give more validation {self.noun}s, or a larger accept.false_alarm_rate"
                )
                self.warnings = [*self.warnings, StudyWarning("coarse-threshold", sentence, others)]

    def validate(self, model: PreTrainedModel, last: bool) -> dict[str, float]:
        scores = self.scores(self._validated(model))
        return {f"validation_{key}": score for key, score in scores.items()}

    def _validated(self, model: PreTrainedModel) -> Predictions:
        return replace(
            self._predicted("validation", lambda batches: predict(model, batches, self._keeps_logits)), **self._scoring
        )

    def progress(self, record: Mapping[str, float]) -> str:
        metric = METRICS[self.study.accept.metric]
        return f"val {metric.progress(record[f'validation_{metric.key}'])}"

    def evaluate(self, model: PreTrainedModel) -> Predictions:
        return self._answers(lambda batches: predict(model, batches, self._keeps_logits))

    def _answers(self, predicts: Predicts) -> Predictions:
        """Answers on the test split, with thresholds that are chosen on the validation split."""
        answers = replace(self._predicted("test", predicts), groups=self.test_group_names, **self._scoring)
        if METRICS[self.study.accept.metric].threshold is None:
            return answers
        return answers.with_thresholds(replace(self._predicted("validation", predicts), **self._scoring))

    def validation_answers(self, model: PreTrainedModel) -> Predictions | None:
        return self._validated(model) if self.scoring_settings() else None

    def evaluation_settings(self) -> dict[str, Any]:
        """What the study's metric reads of ``accept``, and whether logits are kept; empty where it needs neither."""
        accept, metric = self.study.accept, METRICS[self.study.accept.metric]
        found = {key: accept.model_dump(mode="json")[key] for key in metric.reads}
        return {"logits": True, **found} if self._keeps_logits else found

    def scoring_settings(self) -> dict[str, Any]:
        return self.evaluation_settings()

    def read_answers(self, path: Path) -> Predictions:
        return replace(Predictions.read(path), **self._scoring)

    @property
    def test_rows(self) -> NDArray[np.int64] | None:
        return self.labelled.test_rows

    def pooled(self, folds: Sequence[tuple[NDArray[np.int64], Predictions]]) -> PooledPredictions:
        return PooledPredictions.of(folds)

    def with_choices(self, answers: Predictions, earlier: Predictions) -> Predictions:
        return replace(answers, thresholds=earlier.thresholds)

    def scores(self, answers: Predictions) -> dict[str, float]:
        if not answers.thresholds:  # those on the validation split, where thresholds are chosen
            answers = answers.with_thresholds(answers)
        return {"loss": answers.loss, **answers.scores()}

    @property
    def test_group_names(self) -> tuple[str, ...] | None:
        return self.labelled.test_groups

    @property
    def outputs(self) -> int:
        return len(self.labelled.classes)

    @property
    def worthless_quality(self) -> float:
        """The quality of a model that knows only how frequent the classes are: it gives every example these
        probabilities, and the answer that is best by them."""
        labels = self.labelled.test.labels.cpu().numpy()
        shares = np.bincount(labels, minlength=len(self.labelled.classes)) / len(labels)
        costs = self._scoring["costs"]
        answer = shares.argmax() if costs is None else (shares @ costs).argmin()
        logits = np.log(np.maximum(shares, np.finfo(np.float32).tiny))
        answers = Predictions(
            labels,
            np.full_like(labels, answer),
            -logits[labels],
            np.broadcast_to(logits, (len(labels), len(shares))),
            **self._scoring,
        )
        metric = METRICS[self.study.accept.metric]
        return metric.of(metric.statistics(answers.with_thresholds(answers)))

    def details(self, outcome: Outcome, baseline: Outcome | None) -> dict[str, Any]:
        tests = []
        if baseline is not None and baseline is not outcome:
            for seed, answers in outcome.answers.items():
                test = mcnemar_exact(baseline.answers[seed].correct, answers.correct, self.test_groups)
                tests.append({"seed": seed, **asdict(test)})
        return {
            "per_class": self._per_class(outcome, baseline),
            "mcnemar": tests,
            "confusion": self._confusion(outcome),
            "thresholds": self._thresholds(outcome),
        }

    def _thresholds(self, outcome: Outcome) -> list[OperatingPoint]:
        """The threshold of each seed's model, and what it reaches on the test split; each fold has one of its own."""
        metric = METRICS[self.study.accept.metric]
        if metric.reached is None or self.folds is not None:
            return []
        return [
            OperatingPoint(
                seed=seed,
                threshold=float(expit(answers.thresholds[metric.key])),
                reached=metric.reached(metric.statistics(answers).sum(axis=0)),
            )
            for seed, answers in outcome.answers.items()
        ]

    def _confusion(self, outcome: Outcome) -> Confusion:
        """How often each class was taken for each: all of them, or the most frequent confusions of many classes."""
        names = self.labelled.classes
        counts: Counter[tuple[int, int]] = Counter()
        of_class: Counter[int] = Counter()
        for answers in outcome.each():
            counts.update(zip(answers.labels.tolist(), answers.predictions.tolist(), strict=True))
            of_class.update(answers.labels.tolist())
        wrong = Counter({pair: count for pair, count in counts.items() if pair[0] != pair[1]})
        places = range(len(names)) if len(names) <= MOST_IN_MATRIX else None
        return Confusion(
            models=len(outcome.answers),
            matrix=None if places is None else [[counts[row, column] for column in places] for row in places],
            pairs=[
                Confused(correct=names[row], predicted=names[column], count=count, examples=of_class[row])
                for (row, column), count in wrong.most_common(MOST_PAIRS)
            ],
        )

    def _per_class(self, outcome: Outcome, baseline: Outcome | None) -> list[ClassQuality]:
        """Accuracy by class, mean over seeds, and the difference to the baseline's."""
        labels = outcome.each()[0].labels
        right = _right(outcome).mean(axis=0)
        base = None if baseline is None else _right(baseline).mean(axis=0)
        found = []
        for number, name in enumerate(self.labelled.classes):
            chosen = labels == number
            if not chosen.any():
                continue
            accuracy = float(right[chosen].mean())
            difference = None if base is None else accuracy - float(base[chosen].mean())
            found.append(ClassQuality(name=name, examples=int(chosen.sum()), accuracy=accuracy, difference=difference))
        return found


def scoring_of(accept: ClassAcceptConfig, classes: Sequence[str]) -> dict[str, Any]:
    """What a study says about scoring, as fields of ``Labels``.

    Args:
        accept: The study's ``accept``.
        classes: The names of the classes.

    Raises:
        LeanformerError: It names a class that the data lack, or has costs for another number of classes.
    """
    costs, matrix = None, accept.cost_matrix
    if isinstance(matrix, dict):
        costs = 1 - np.eye(len(classes))
        for correct, row in matrix.items():
            for predicted, cost in row.items():
                places = (place_of(name, classes, "accept.cost_matrix") for name in (correct, predicted))
                costs[tuple(places)] = cost
    elif matrix is not None:
        if len(matrix) != len(classes):
            raise LeanformerError(
                f"accept.cost_matrix: it has {len(matrix)} rows, and the data {len(classes)} classes: "
                f"{_listed(classes)}; give a row and a column for each, in this order"
            )
        costs = np.array(matrix, dtype=np.float64)
    return {
        "classes": len(classes),
        "costs": costs,
        "positive": None if accept.positive is None else place_of(accept.positive, classes, "accept.positive"),
        "false_alarm_rate": accept.false_alarm_rate,
        "coverage": accept.coverage,
    }


def place_of(name: str, classes: Sequence[str], key: str) -> int:
    """The number of a class that a study names.

    Raises:
        LeanformerError: The data lack it; the message names the key.
    """
    if name not in classes:
        raise LeanformerError(f"{key}: the data have no class {quoted(name)}; classes: {_listed(classes)}")
    return classes.index(name)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST_LISTED]) + (", ..." if len(names) > MOST_LISTED else "")


def _right(outcome: Outcome) -> np.ndarray:
    """Whether each answer is correct, as 0 or 1, shape (seeds, examples)."""
    return np.stack([answers.correct for answers in outcome.each()]).astype(float)

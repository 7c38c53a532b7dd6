"""The keys that study files of classifiers share, whatever they classify."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from leanformer.config.base import AcceptConfig, BaselineConfig, DataConfig, Study, TrainConfig
from leanformer.core.errors import quoted
from leanformer.core.fields import Count, Fraction, Name, Positive, Rate
from leanformer.results.metrics import METRICS, AnswerKind, judging


class ClassDataConfig(DataConfig):
    """Where labelled examples come from, and how they are split."""

    validation_fraction: Fraction = 0.1
    """Fraction of the training data set aside for validation where the data have no such split."""
    test_fraction: Fraction = 0.2
    """Fraction of all data set aside for testing where the data have no such split."""
    train_limit: Count | None = None
    """Use at most this many training examples (a seeded choice), validation examples not counted."""
    test_limit: Count | None = None


class ClassBaselineConfig(BaselineConfig):
    """The classifier that the candidates are compared with."""

    head: Literal["new"] | None = None
    """``new``: a trained model keeps its body and gets a head for the data's classes; it need not have been a
    classifier. By default a trained classifier keeps its head."""


def _balanced_or_each(weights: Any) -> Any:
    if weights is not None and weights != "balanced" and not isinstance(weights, dict):
        raise ValueError(f"input should be balanced, or a mapping from classes to weights, not {quoted(weights)}")
    return weights


class ClassTrainConfig(TrainConfig):
    """How classifiers learn."""

    head_learning_rate: Rate | None = None
    """The peak rate of a new head; by default ten times that of the body, which is trained already."""
    class_weights: Annotated[
        Literal["balanced"] | Annotated[dict[Name, Positive], Field(min_length=1)] | None,
        BeforeValidator(_balanced_or_each),
    ] = None
    """The weight of each class's examples in the cross-entropy: ``balanced`` (training examples over classes times the
    class's training examples: King and Zeng 2001, "Logistic regression in rare events data", Political Analysis 9), or
    class -> weight, where a class that is not named has 1."""


Cost = Annotated[float, Field(ge=0, le=1e9)]


def _has_costs(matrix: Any) -> Any:
    rows = [list(row.values()) for row in matrix.values()] if isinstance(matrix, dict) else matrix
    if isinstance(matrix, list | tuple) and any(len(row) != len(matrix) for row in matrix):
        raise ValueError("give a list for each class, all as long as there are classes")
    if rows is not None and not any(cost > 0 for row in rows for cost in row):
        raise ValueError("all costs are 0; give the wrong answers their costs")
    return matrix


def _rows(value: Any) -> Any:
    """Lists, as YAML and JSON have them, as tuples."""
    if not isinstance(value, list | tuple):
        return value
    return tuple(tuple(row) if isinstance(row, list) else row for row in value)


CostMatrix = Annotated[
    Annotated[tuple[tuple[Cost, ...], ...], Field(min_length=2)]
    | Annotated[dict[Name, dict[Name, Cost]], Field(min_length=1)]
    | None,
    BeforeValidator(_rows),
    AfterValidator(_has_costs),
]


class ClassAcceptConfig(AcceptConfig):
    """How much quality a classifier may lose."""

    answers: ClassVar[AnswerKind] = "labels"

    metric: str = judging(answers)[0].key
    cost_matrix: CostMatrix = None
    """What an answer costs, for the metric of costs: a list for each correct class, in the order of the classes, with
    the cost of each predicted class; or correct class -> predicted class -> cost, where wrong answers that are not
    named cost 1 and right ones 0."""
    positive: Name | None = None
    """The class that is to be found, for metrics of one class."""
    false_alarm_rate: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """The share of the other classes' validation examples that may be taken for the positive class."""
    coverage: Annotated[float, Field(gt=0, le=1)] = 0.95
    """The share of the validation examples that a model answers; it abstains from those that it is least sure of."""

    @model_validator(mode="after")
    def _metric_has_what_it_needs(self) -> ClassAcceptConfig:
        metric = METRICS[self.metric]
        for key in metric.requires:
            if key not in self.model_fields_set or getattr(self, key) is None:
                raise ValueError(f"the metric {metric.key} needs {key}, which has no default; give it")
        return self

    def without_effect(self) -> Iterator[tuple[str, str]]:
        metric = METRICS[self.metric]
        for key in sorted({key for known in judging(self.answers) for key in known.reads}):
            if getattr(self, key) != type(self).model_fields[key].default and key not in metric.reads:
                yield f"accept.{key}", f"the metric {metric.key} does not read it"


class ClassStudy(Study):
    """A study of classifiers."""

    data: ClassDataConfig
    baseline: ClassBaselineConfig
    train: ClassTrainConfig
    accept: ClassAcceptConfig

    def without_effect(self) -> Iterator[tuple[str, str]]:
        if self.baseline.head is not None and self.baseline.fresh:
            yield "baseline.head", "with baseline.fresh all weights are new"
        if self.train.head_learning_rate is not None and self.baseline.head is None:
            yield "train.head_learning_rate", "only a new head has a rate of its own (baseline.head: new)"

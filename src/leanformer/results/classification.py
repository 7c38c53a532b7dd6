"""The parts of results.json that studies of classifiers have, whatever they classify."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import AliasChoices, Field

from leanformer.core.fields import Seed
from leanformer.results.metrics import AnswerKind, Metric, find_metric
from leanformer.results.rows import Count, PartOfOne, Record, Row
from leanformer.results.schema import Data, Results, Slice, Wording


class ClassQuality(Record):
    """The accuracy on one class's test examples, mean over the seeds, also where the study's metric is another."""

    name: str = Field(validation_alias=AliasChoices("class", "name"), serialization_alias="class")
    examples: Count
    accuracy: PartOfOne
    difference: Annotated[float, Field(ge=-1, le=1)] | None


class Mcnemar(Record):
    """McNemar's exact test of one seed's two models: test examples that only one of them gets right."""

    seed: Seed
    baseline_only: Count
    candidate_only: Count
    p_value: PartOfOne


class Confused(Record):
    """Test examples of one class that were taken for another."""

    correct: str
    predicted: str
    count: Count
    examples: Annotated[Count, Field(ge=1)]
    """Answers to examples of the correct class."""


class Confusion(Record):
    """How often examples of a class were taken for each class, summed over the trained models that a row is about."""

    models: Annotated[Count, Field(ge=1)]
    """The trained models whose answers are counted."""
    matrix: list[list[Count]] | None
    """Rows are correct classes, columns predicted ones, in the order of ``data.classes``; null with many classes."""
    pairs: list[Confused]
    """The most frequent confusions, the most frequent first."""


class OperatingPoint(Record):
    """The threshold of one seed's model, chosen on the validation split, and what it reaches on the test split."""

    seed: Seed
    threshold: PartOfOne
    """A probability."""
    reached: PartOfOne
    """The false-alarm rate, or the coverage."""


class ClassRow(Row):
    """The results of one classifier."""

    per_class: list[ClassQuality]
    mcnemar: list[Mcnemar]
    confusion: Confusion | None
    """Null in files of earlier versions."""
    thresholds: list[OperatingPoint]
    """Empty where the study's metric has no threshold."""


class ClassData(Data):
    """Labelled examples."""

    classes: list[str]


class ClassResults(Results):
    """The results of a study of classifiers."""

    answers: ClassVar[AnswerKind] = "labels"

    data: ClassData

    @staticmethod
    def slices(row: Mapping[str, Any]) -> list[Slice]:
        return [
            Slice(entry["class"], entry["examples"], entry["accuracy"], entry["difference"])
            for entry in row["per_class"]
        ]

    @staticmethod
    def slice_metric(results: Mapping[str, Any]) -> Metric:
        return find_metric({**results, "metric": "accuracy"})


def wording_of_classes(example: str, untouched: str, calls: str = "") -> Wording:
    """The words of a report on classifiers; arguments as of ``Wording``."""
    return Wording(
        example=example,
        slices="class",
        slice="class",
        slice_column="class",
        slice_named="class {}",
        slices_across="the {count} classes",
        slices_counted=False,
        learned="accuracy",
        untouched=untouched,
        calls=calls,
    )

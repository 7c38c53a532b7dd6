"""The study file of image classification."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from leanformer.config.base import STUDIES, AcceptConfig, BaselineConfig, DataConfig, Study, TrainConfig
from leanformer.core.errors import quoted
from leanformer.core.fields import (
    OPERATIONAL,
    Batch,
    Count,
    Deviation,
    Fraction,
    Mean,
    Name,
    Pixels,
    Positive,
    Rate,
    Section,
    Text,
    Whole,
    no_repeats,
)
from leanformer.results.metrics import METRICS, AnswerKind, judging


def _is_expression(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{quoted(pattern)} is no regular expression: {error}") from None
    return pattern


class ImageGroupConfig(Section):
    """What says which images belong together: a column, or a part of their files' names."""

    column: Name | None = None
    """A column of texts or whole numbers, such as a patient's number; ``group: patient`` is short for it."""
    pattern: Annotated[Text, AfterValidator(_is_expression)] | None = None
    """A regular expression, searched for in each image's path below the source: its first group in brackets, or all
    that it matches, is the group."""

    @model_validator(mode="after")
    def _says_one_thing(self) -> ImageGroupConfig:
        if (self.column is None) == (self.pattern is None):
            raise ValueError("give one of column and pattern")
        return self


class ImageDataConfig(DataConfig):
    """Where the images come from, and how they are split."""

    built_in: ClassVar[str] = "digits"
    keys_of_files: ClassVar[tuple[str, ...]] = ("image_column", "label_column", "group", "channels", "storage")
    keys_of_built_in: ClassVar[tuple[str, ...]] = ("channels", "storage")

    source: Text = built_in
    """``digits`` (built in), a directory (parquet or ``root/class/*.png``), or a hub data set's id."""
    subset: Name | None = None
    """The hub data set's configuration name, where it has several."""
    image_column: Name | None = None
    label_column: Name | None = None
    group: Annotated[
        ImageGroupConfig | None, BeforeValidator(lambda value: {"column": value} if isinstance(value, str) else value)
    ] = None
    """Which images depend on each other, such as photos of one object: splits keep groups whole, and intervals count
    groups. By default each image is a group of its own."""
    channels: Annotated[Literal[1, 3] | None, Whole] = None
    """1 converts to grey, 3 to color; by default as the data are (grey stays grey)."""
    image_size: Pixels | tuple[Pixels, Pixels] | None = None
    """Pixels, or (height, width): resize to this. By default the images must share one size."""
    validation_fraction: Fraction = 0.1
    """Fraction of the training data set aside for validation where the data have no such split."""
    test_fraction: Fraction = 0.2
    """Fraction of all data set aside for testing where the data have no such split."""
    train_limit: Count | None = None
    """Use at most this many training examples (a seeded choice), validation examples not counted."""
    test_limit: Count | None = None
    augment: Annotated[
        tuple[Literal["random_crop", "horizontal_flip", "random_erasing"], ...], AfterValidator(no_repeats("kinds"))
    ] = ()
    normalize: Literal["auto", "data"] | tuple[tuple[Mean, ...], tuple[Deviation, ...]] = "auto"
    """``data``: mean and deviation of the training images; ``auto``: the trained model's own where it has them,
    else ``data``; or ``[[mean, ...], [std, ...]]`` in pixel values from 0 to 1."""
    storage: Literal["auto", "memory", "stream"] = "auto"
    """``memory``: decoded once, kept on the device; ``stream``: decoded batch by batch from disk; ``auto``: memory
    where the decoded images take less than half of what is free."""
    duplicates: Annotated[Literal["exact", "near", "none"], OPERATIONAL] = "exact"
    """Which images are searched for in two splits: those that are pixel for pixel the same; also those that look alike;
    or none, which saves a pass over all images where they are streamed."""

    def without_effect(self) -> Iterator[tuple[str, str]]:
        yield from super().without_effect()
        if self.source == self.built_in:
            for key in ("subset", "image_column", "label_column", "group"):
                if getattr(self, key) is not None:
                    yield f"data.{key}", f"{self.built_in} is built in and has none"


class ImageBaselineConfig(BaselineConfig):
    """The image classifier that the candidates are compared with."""

    head: Literal["new"] | None = None
    """``new``: a trained model that reads images keeps its body and gets a head for the data's classes; it need not
    have been a classifier. By default a trained classifier keeps its head."""


def _balanced_or_each(weights: Any) -> Any:
    if weights is not None and weights != "balanced" and not isinstance(weights, dict):
        raise ValueError(f"input should be balanced, or a mapping from classes to weights, not {quoted(weights)}")
    return weights


class ImageTrainConfig(TrainConfig):
    """How image classifiers learn."""

    batch_size: Batch = 256
    head_learning_rate: Rate | None = None
    """The peak rate of a new head; by default ten times that of the body, which is trained already."""
    class_weights: Annotated[
        Literal["balanced"] | Annotated[dict[Name, Positive], Field(min_length=1)] | None,
        BeforeValidator(_balanced_or_each),
    ] = None
    """The weight of each class's images in the cross-entropy: ``balanced`` (training images over classes times the
    class's training images: King and Zeng 2001, "Logistic regression in rare events data", Political Analysis 9), or
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


class ImageAcceptConfig(AcceptConfig):
    """How much quality an image classifier may lose."""

    answers: ClassVar[AnswerKind] = "labels"

    metric: str = judging(answers)[0].key
    cost_matrix: CostMatrix = None
    """What an answer costs, for the metric of costs: a list for each correct class, in the order of the classes, with
    the cost of each predicted class; or correct class -> predicted class -> cost, where wrong answers that are not
    named cost 1 and right ones 0."""
    positive: Name | None = None
    """The class that is to be found, for metrics of one class."""
    false_alarm_rate: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """The share of the other classes' validation images that may be taken for the positive class."""
    coverage: Annotated[float, Field(gt=0, le=1)] = 0.95
    """The share of the validation images that a model answers; it abstains from those that it is least sure of."""

    @model_validator(mode="after")
    def _metric_has_what_it_needs(self) -> ImageAcceptConfig:
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


@STUDIES.register("image-classification")
class ImageStudy(Study):
    """A study of image classifiers."""

    task: Literal["image-classification"] = "image-classification"
    data: ImageDataConfig = ImageDataConfig()
    baseline: ImageBaselineConfig = ImageBaselineConfig(model="vit")
    train: ImageTrainConfig = ImageTrainConfig()
    accept: ImageAcceptConfig = ImageAcceptConfig()

    def without_effect(self) -> Iterator[tuple[str, str]]:
        if self.baseline.head is not None and self.baseline.fresh:
            yield "baseline.head", "with baseline.fresh all weights are new"
        if self.train.head_learning_rate is not None and self.baseline.head is None:
            yield "train.head_learning_rate", "only a new head has a rate of its own (baseline.head: new)"

    @classmethod
    def for_inspection(cls, longest: int | None) -> dict[str, dict[str, Any]]:
        return {**super().for_inspection(longest), "train": {"batch_size": 64}}

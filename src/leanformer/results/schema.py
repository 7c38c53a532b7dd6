"""results.json as typed models: it is written from them and read into them (``reader``), each field written once.

What every task says of a model stands in ``rows``; what one task alone says, of its data and of its models, stands in a
module of its own (``images``, ``translation``), which registers the form of that task's results.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from leanformer.core.errors import printable, quoted
from leanformer.core.fields import one_of
from leanformer.core.registry import Registry
from leanformer.results.costs import preferences
from leanformer.results.metrics import METRICS, AnswerKind, Metric, find_metric, judging
from leanformer.results.rows import ROUNDING, Amount, Count, Record, Row, Seeds

FORMAT = 1
"""The key ``format`` of every results file until now; a version that cannot be migrated would be another one."""
VERSION = 2
"""Of the forms in this module; ``migrate`` brings older files to it."""


def _inside(path: str) -> str:
    """A path that stays in the run directory, on any system."""
    parts = PurePosixPath(path).parts
    if not parts or path != printable(path) or ".." in parts or parts[0] == "/" or "\\" in path or ":" in path:
        raise ValueError(f"{quoted(path)} is no path within the run directory")
    return path


class Accept(Record):
    """``accept`` of the study; a task's own keys stand beside these."""

    model_config = ConfigDict(extra="allow")

    metric: str
    max_drop: Amount
    confidence: Annotated[float, Field(gt=0.5, lt=1)]


class Data(Record):
    """What every task says of its data."""

    source: str
    train: Count
    validation: Count
    test: Count
    notes: list[str]


class Method(Record):
    """How it was measured, in words."""

    interval: str
    cost: str


class Warned(Record):
    """A warning of the study."""

    code: str
    sentence: str
    count: Count


@dataclass(frozen=True)
class Slice:
    """What was measured of one model on a part of the test data.

    Args:
        name: A class, or a range of lengths in words such as ``1-5`` and ``31+``.
        examples: Test examples of this part.
        quality: In the form's ``slice_metric``.
        difference: To the baseline's; None where there is none to compare with.
    """

    name: str
    examples: int
    quality: float
    difference: float | None


@dataclass(frozen=True, kw_only=True)
class Wording:
    """What the report says otherwise for each task.

    Args:
        example: What a test example is called.
        slices: What the parts of the test data are called, of which each has a quality: ``class``.
        slice: What one of them is called in a sentence.
        slice_column: The same at the head of a column.
        slice_named: The same with its name in place of ``{}``.
        slices_across: What stands across the figure of these parts, with their number in place of ``{count}``.
        slices_counted: Whether that figure says how many examples each part has, and none of the greatest losses.
        learned: The quality that is measured after each epoch: ``validation_`` and its words is its key.
        untouched: Which parameters no plan touches.
        calls: What is timed, in a sentence or more; empty where it needs no words.
        writes: Whether models write, so that what that costs is shown.
    """

    example: str
    slices: str
    slice: str
    slice_column: str
    slice_named: str
    slices_across: str
    slices_counted: bool
    learned: str
    untouched: str
    calls: str = ""
    writes: bool = False


class Results(Record):
    """What every task's study says. A task's form says more of ``data`` and of the rows, and has words of its own."""

    answers: ClassVar[AnswerKind]
    wording: ClassVar[Wording]

    format: Literal[1]
    version: Literal[2]
    name: Annotated[str, Field(max_length=250, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    task: str
    metric: str
    accept: Accept
    prefer: Annotated[str, BeforeValidator(one_of(preferences))]
    seeds: Seeds
    data: Data
    warnings: list[Warned]
    baseline: Row
    candidates: Sequence[Row]
    recommended: str | None
    recommendation: str
    ship: Annotated[str, AfterValidator(_inside)] | None
    environment: dict[str, Any]
    method: Method
    study: dict[str, Any]

    @staticmethod
    def slices(row: Mapping[str, Any]) -> list[Slice]:
        """A row's quality on each part of the test data; empty where nothing was measured.

        Args:
            row: As ``content`` gives it.
        """
        return []

    @staticmethod
    def slice_metric(results: Mapping[str, Any]) -> Metric:
        """What ``slices`` are measured in: the study's metric.

        Args:
            results: As ``content`` gives them.
        """
        return find_metric(results)

    @classmethod
    def blank_row(cls) -> dict[str, Any]:
        """A row of this form that says nothing yet; see ``Row.blank``."""
        row = cls.model_fields["baseline"].annotation
        assert isinstance(row, type)
        assert issubclass(row, Row)
        return row.blank()

    def content(self) -> dict[str, Any]:
        """The content of ``results.json``."""
        return self.model_dump(by_alias=True)

    @field_validator("metric", mode="before")
    @classmethod
    def _judges(cls, metric: object) -> object:
        return one_of(lambda: [known.key for known in judging(cls.answers)])(metric)

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        _check_rows(self, [self.baseline, *self.candidates], METRICS[self.metric].greatest)
        return self


def _check_rows(results: Results, rows: Sequence[Row], most: float) -> None:
    """Whether the rows fit each other and the study.

    Args:
        results: The file.
        rows: The baseline's, then the candidates'.
        most: The metric's greatest value.

    Raises:
        ValueError: They do not.
    """
    for name, count in Counter(row.name for row in rows).items():
        if count > 1:
            raise ValueError(f"{count} models are called {name!r}")
    if results.accept.metric != results.metric:
        raise ValueError(f"accept.metric is {quoted(results.accept.metric)}, and metric {quoted(results.metric)}")
    if results.accept.max_drop >= most:
        raise ValueError(f"accept.max_drop is {results.accept.max_drop:g}, and quality goes from 0 to {most:g}")
    for row in rows:
        if row.seeds != results.seeds:
            raise ValueError(f"{row.name}: its seeds are {quoted(row.seeds)}, the study's {quoted(results.seeds)}")
        if row.status == "ok" and row.quality is None:
            raise ValueError(f"{row.name}: its trials ended well, and it has no quality")
        if row.quality is not None:
            if not all(0 <= value <= most + ROUNDING for value in (row.quality.mean, *row.quality.per_seed)):
                raise ValueError(f"{row.name}: its quality is {row.quality.mean:g}; it goes from 0 to {most:g}")
            if len(row.quality.per_seed) != len(row.seeds):
                raise ValueError(f"{row.name}: {len(row.quality.per_seed)} qualities for {len(row.seeds)} seeds")
        if row.difference is not None and not -most - ROUNDING <= row.difference.mean <= most + ROUNDING:
            raise ValueError(
                f"{row.name}: its difference is {row.difference.mean:g}; it goes from -{most:g} to {most:g}"
            )
        _check_measured(row)
    if (results.recommended is None) != (results.ship is None):
        raise ValueError(
            f"recommended is {quoted(results.recommended)} and ship {quoted(results.ship)}; ship is the recommended "
            "one's model"
        )
    chosen = next((row for row in rows if row.name == results.recommended), None)
    if results.recommended is not None and chosen is None:
        raise ValueError(f"recommended: there is no {quoted(results.recommended)}")
    if chosen is not None and chosen is not rows[0] and (chosen.decision != "accept" or chosen.difference is None):
        raise ValueError(f"recommended: {chosen.name} was not accepted")


def _check_measured(row: Row) -> None:
    """Whether what was measured while a model was trained lies where its metric does.

    Raises:
        ValueError: It does not.
    """
    measured = [run.model_extra or {} for run in row.learning_rate_search]
    for record in (epoch.model_extra or {} for curve in row.curves for epoch in curve.epochs):
        measured.append({key.removeprefix("validation_"): value for key, value in record.items()})
    for found in measured:
        for key, value in found.items():
            most = METRICS[key].greatest if key in METRICS else math.inf
            if value is not None and not 0 <= value <= most + ROUNDING:
                raise ValueError(f"{row.name}: its {key} in training is {value:g}; it goes from 0 to {most:g}")


FORMS: Registry[type[Results]] = Registry("leanformer.results", order=("image-classification", "translation"))
"""Task -> the form of its results; a form registers itself in its module."""


def rows_of(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of results.json: the baseline's, then the candidates'."""
    return [results["baseline"], *results["candidates"]]


def form_of(results: Mapping[str, Any]) -> type[Results]:
    """The form of these results, by their task."""
    return FORMS[results["task"]]

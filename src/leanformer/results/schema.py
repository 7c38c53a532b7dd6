"""results.json as typed models: it is written from them and read into them (``reader``), each field defined once.

``rows`` holds the results of a model that every task has. A module for each task (``images``, ``translation``) adds
what only that task has, for its data and its models, and registers the form of that task's results.
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
from leanformer.core.fields import Seed, one_of
from leanformer.core.registry import Registry
from leanformer.results.costs import preferences
from leanformer.results.metrics import METRICS, AnswerKind, Metric, find_metric, judging
from leanformer.results.rows import ROUNDING, Amount, Count, Interval, PartOfOne, Record, Row, Seeds

FORMAT = 1
"""The value of ``format`` in every results file so far; only a form that cannot be converted would change it."""
VERSION = 4
"""The version of the forms in this module; ``migrate`` converts older files to it."""


def _inside(path: str) -> str:
    """A path inside the run directory, on any system."""
    parts = PurePosixPath(path).parts
    if not parts or path != printable(path) or ".." in parts or parts[0] == "/" or "\\" in path or ":" in path:
        raise ValueError(f"{quoted(path)} is not a path inside the run directory")
    return path


class Accept(Record):
    """The study's ``accept``; a task may add keys."""

    model_config = ConfigDict(extra="allow")

    metric: str
    max_drop: Amount
    """0 where there is a ``max_ratio``."""
    max_ratio: Annotated[float, Field(ge=1)] | None = None
    """How many times the baseline's error rate a candidate's may be; null where the margin is a drop."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)]


class Data(Record):
    """The data, as far as all tasks describe them alike."""

    source: str
    train: Count
    validation: Count
    test: Count
    groups: Count | None
    """Groups of the test examples; null where each example stands for itself."""
    unlabelled: Count = 0
    """Examples without labels, from which students learned what their teachers answer."""
    notes: list[str]


class Method(Record):
    """How intervals and costs were measured, in words."""

    interval: str
    cost: str


class Warned(Record):
    """A warning of the study."""

    code: str
    sentence: str
    count: Count


class LookTaken(Record):
    """A look at the test split that was taken."""

    number: Annotated[Count, Field(ge=1)]
    date: str
    candidates: list[str]
    seeds: list[Seed]
    max_drop: Amount


class CrossValidated(Record):
    """A cross-validation, which decides on recipes: every example was tested once for each seed."""

    folds: Annotated[Count, Field(ge=2)]
    test_to_train: Amount
    """Test examples over training examples of a fold, the mean."""


class Looks(Record):
    """Which look at the test split the decisions are from, and what each look may cost."""

    number: Annotated[Count, Field(ge=1)]
    planned: Annotated[Count, Field(ge=1)]
    error: PartOfOne
    """The probability of a wrong acceptance that each look may have."""
    candidates: Count
    """Candidates that were ever evaluated on this test split; all count in the correction for several."""
    history: list[LookTaken]


class Picked(Record):
    """The difference of the recommended candidate, with an interval that accounts for its being picked for it."""

    difference: Interval
    candidates: Count
    """Among how many it was picked."""


class Corrupted(Record):
    """A corruption of the test examples, in words."""

    name: str
    meaning: str


@dataclass(frozen=True)
class Slice:
    """A model's quality on one part of the test data.

    Args:
        name: A class, or a range of lengths in words such as ``1-5`` and ``31+``.
        examples: Test examples of this part.
        quality: In the form's ``slice_metric``.
        difference: To the baseline's quality; None where there is nothing to compare with.
    """

    name: str
    examples: int
    quality: float
    difference: float | None


@dataclass(frozen=True, kw_only=True)
class Wording:
    """The words of the report that depend on the task.

    Args:
        example: The word for a test example.
        slices: The word for the parts of the test data that the report shows separately: ``class``.
        slice: The word for one part in a sentence.
        slice_column: The column title for parts.
        slice_named: A phrase for one part, with ``{}`` for its name.
        slices_across: A phrase for the horizontal axis of the figure of parts, with ``{count}`` for their number.
        slices_counted: Whether that figure shows the number of examples of each part instead of the greatest losses.
        learned: The quality that is measured after each epoch.
        untouched: The parameters that no plan changes.
        calls: What is timed, in one or more sentences; empty where that needs no explanation.
        writes: Whether models write text, so that the cost of writing is shown.
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

    @property
    def learned_key(self) -> str:
        """The key of ``learned`` in the record of an epoch."""
        return f"validation_{self.learned.replace(' ', '_')}"


class Results(Record):
    """The results of a study that all tasks have. A task's form extends ``data`` and the rows, and has its wording."""

    answers: ClassVar[AnswerKind]
    wording: ClassVar[Wording]

    format: Literal[1]
    version: Literal[4]
    name: Annotated[str, Field(max_length=250, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    task: str
    metric: str
    accept: Accept
    prefer: Annotated[str, BeforeValidator(one_of(preferences))]
    seeds: Seeds
    data: Data
    warnings: list[Warned]
    looks: Looks | None
    """Null in files of versions before 4."""
    cross_validation: CrossValidated | None = None
    """Null where there is a test split."""
    picked: Picked | None
    """Null where the baseline is recommended."""
    baseline: Row
    candidates: Sequence[Row]
    recommended: str | None
    recommendation: str
    ship: Annotated[str, AfterValidator(_inside)] | None
    """The recommended trained model."""
    shipped: Annotated[str, AfterValidator(_inside)] | None
    """The directory that it was exported to; null in a study without ``ship``."""
    corruptions: list[Corrupted]
    """Those under which robustness was measured; empty where it was not."""
    environment: dict[str, Any]
    method: Method
    study: dict[str, Any]

    @staticmethod
    def slices(row: Mapping[str, Any]) -> list[Slice]:
        """A row's quality on each part of the test data; empty where nothing was measured.

        Args:
            row: A row of ``content``.
        """
        return []

    @staticmethod
    def slice_metric(results: Mapping[str, Any]) -> Metric:
        """The metric of ``slices``: the study's metric.

        Args:
            results: The result of ``content``.
        """
        return find_metric(results)

    @classmethod
    def blank_row(cls) -> dict[str, Any]:
        """An empty row of this form; see ``Row.blank``."""
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
        _check_rows(self, [self.baseline, *self.candidates], METRICS[self.metric])
        return self


def _check_rows(results: Results, rows: Sequence[Row], metric: Metric) -> None:
    """Checks that the rows agree with each other and with the study.

    Args:
        results: The content of the file.
        rows: The baseline's, then the candidates'.
        metric: The study's metric.

    Raises:
        ValueError: They do not agree.
    """
    for name, count in Counter(row.name for row in rows).items():
        if count > 1:
            raise ValueError(f"{count} models are called {name!r}")
    if results.accept.metric != results.metric:
        raise ValueError(
            f"accept.metric is {quoted(results.accept.metric)} and metric {quoted(results.metric)}; they must be equal"
        )
    least, most, span = metric.least, metric.greatest, metric.span
    if results.accept.max_drop >= span:
        raise ValueError(f"accept.max_drop is {results.accept.max_drop:g}, and quality goes from {least:g} to {most:g}")
    for row in rows:
        # The baseline alone, in any precision, may have further seeds.
        known = row.seeds if row.plan or row.method == "distill" else row.seeds[: len(results.seeds)]
        if known != results.seeds:
            raise ValueError(f"{row.name}: its seeds are {quoted(row.seeds)}, the study's {quoted(results.seeds)}")
        if row.status == "ok" and row.quality is None:
            raise ValueError(f"{row.name}: its status is ok, but it has no quality")
        if row.quality is not None:
            if not all(_inside_of(metric, value) for value in (row.quality.mean, *row.quality.per_seed)):
                raise ValueError(f"{row.name}: its quality is {row.quality.mean:g}; it goes from {least:g} to {most:g}")
            one = results.cross_validation is None and (row.artifact is not None or row.decided_seed is not None)
            expected = 1 if one else len(row.seeds)
            if len(row.quality.per_seed) != expected:
                models = "one model" if one else f"{expected} seeds"
                raise ValueError(f"{row.name}: {len(row.quality.per_seed)} qualities for {models}")
        if row.difference is not None and abs(row.difference.mean) > span + ROUNDING:
            raise ValueError(
                f"{row.name}: its difference is {row.difference.mean:g}; it goes from -{span:g} to {span:g}"
            )
        _check_measured(row)
    if (results.recommended is None) != (results.ship is None):
        raise ValueError(
            f"recommended is {quoted(results.recommended)} and ship {quoted(results.ship)}; ship must be the "
            "recommended candidate's model"
        )
    chosen = next((row for row in rows if row.name == results.recommended), None)
    if results.recommended is not None and chosen is None:
        raise ValueError(f"recommended: there is no candidate {quoted(results.recommended)}")
    if chosen is not None and chosen is not rows[0] and (chosen.decision != "accept" or chosen.difference is None):
        raise ValueError(f"recommended: {chosen.name} was not accepted")


def _inside_of(metric: Metric, value: float) -> bool:
    return metric.least - ROUNDING <= value <= metric.greatest + ROUNDING


def _check_measured(row: Row) -> None:
    """Checks that measurements during training lie within the range of their metric.

    Raises:
        ValueError: One does not.
    """
    measured = [run.model_extra or {} for run in row.learning_rate_search]
    for record in (epoch.model_extra or {} for curve in row.curves for epoch in curve.epochs):
        measured.append({key.removeprefix("validation_"): value for key, value in record.items()})
    for found in measured:
        for key, value in found.items():
            least, most = (METRICS[key].least, METRICS[key].greatest) if key in METRICS else (0.0, math.inf)
            if value is not None and not least - ROUNDING <= value <= most + ROUNDING:
                raise ValueError(f"{row.name}: its {key} in training is {value:g}; it goes from {least:g} to {most:g}")


FORMS: Registry[type[Results]] = Registry(
    "leanformer.results", order=("image-classification", "translation", "text-classification")
)
"""Task -> the form of its results. A form registers itself in its module."""


def rows_of(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of results.json: the baseline's, then the candidates'."""
    return [results["baseline"], *results["candidates"]]


def form_of(results: Mapping[str, Any]) -> type[Results]:
    """The form of these results, by their task."""
    return FORMS[results["task"]]

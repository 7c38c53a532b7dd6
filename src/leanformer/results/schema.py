"""results.json as typed models: it is written from them and read into them (``reader``), each field written once here.

What one task alone says of its data and models stands in a module of its own (``images``, ``translation``), which
registers the form of that task's results.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from leanformer.core.errors import printable, quoted
from leanformer.core.fields import Seed, no_repeats, one_of
from leanformer.core.registry import Registry
from leanformer.results.costs import preferences
from leanformer.results.metrics import METRICS, AnswerKind, Metric, find_metric, judging

FORMAT = 1
"""The key ``format`` of every results file until now; a version that cannot be migrated would be another one."""
VERSION = 2
"""Of the forms in this module; ``migrate`` brings older files to it."""

ROUNDING = 1e-6
"""By which a sum of rounded numbers may pass its greatest value: BLEU's 100 comes out as 100.00000000000004."""

Count = Annotated[int, Field(ge=0, le=10**18)]
Amount = Annotated[float, Field(ge=0)]
PartOfOne = Annotated[float, Field(ge=0, le=1 + ROUNDING)]
Explained = Annotated[float, Field(le=1 + ROUNDING)]
"""R²."""
_Name = Annotated[str, Field(max_length=250, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
_Seeds = Annotated[list[Seed], Field(min_length=1), AfterValidator(no_repeats("a seed"))]


def _inside(path: str) -> str:
    """A path that stays in the run directory, on any system."""
    parts = PurePosixPath(path).parts
    if not parts or path != printable(path) or ".." in parts or parts[0] == "/" or "\\" in path or ":" in path:
        raise ValueError(f"{quoted(path)} is no path within the run directory")
    return path


class Section(BaseModel):
    """A section of the file. Keys beyond these are passed over."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class Interval(Section):
    """An estimate with its interval."""

    mean: float
    low: float
    high: float

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low is {self.low:g} and high {self.high:g}; low is the lesser one")
        return self


class Quality(Interval):
    """A model's mean quality over its seeds, and that of each seed in the study's order."""

    per_seed: Annotated[list[float], Field(min_length=1)]


class Change(Section):
    """What a plan did to a site."""

    site: str
    kind: str
    block: str
    arguments: dict[str, Any]
    changed: bool
    parameters_before: Count
    parameters_after: Count
    removed: Count
    added: Count
    r2: Explained | None
    """Of the block that was taught there, on held-out data, mean over the seeds."""
    r2_per_seed: list[Explained]


class Searched(Section):
    """A training of the search for a learning rate; beside its loss stand the metrics under their own names."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, float | None] = Field(init=False)

    learning_rate: Amount
    status: str
    loss: float | None


class Epoch(Section):
    """An epoch of a training; beside these stand the task's own measurements, named ``validation_`` and what it is."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, float | None] = Field(init=False)

    epoch: Count
    train_loss: float | None
    validation_loss: float | None


class Curve(Section):
    """How one seed's training went."""

    seed: Seed
    epochs: list[Epoch]


class TaughtCurve(Section):
    """How a block was taught: R² on held-out data after each epoch."""

    site: str
    block: str
    seed: Seed
    r2: list[Explained]


class Teaching(Section):
    """How the blocks of a distilled candidate were taught."""

    seconds: Amount
    blocks: Count
    epochs: Count
    curves: list[TaughtCurve]


class Latency(Section):
    """Milliseconds of one call."""

    p50: Amount
    p95: Amount

    @model_validator(mode="after")
    def _is_in_order(self) -> Self:
        if self.p50 > self.p95:
            raise ValueError(f"p50 is {self.p50:g} and p95 {self.p95:g}; p50 is the lesser one")
        return self


class Longest(Section):
    """The state at the greatest lengths of the test split."""

    source_tokens: Count
    target_tokens: Count
    state_bytes: Count


class Decoding(Section):
    """What writing costs a model, counted at the median lengths of the test split."""

    source_tokens: Count
    target_tokens: Count
    flops_per_source: Count
    flops_per_token: Count
    state_bytes: Count
    longest: Longest


class TokenTime(Section):
    """Milliseconds a token that is written, one example at a time and in a large batch."""

    one: Amount
    batch: Amount


class Failure(Section):
    """Why a seed's training failed."""

    seed: Seed
    reason: str


class Rollback(Section):
    """A training that went back to an earlier state."""

    seed: Seed
    what: str


class Row(Section):
    """What every task says of a model. Each is null where it was not measured, or cannot be said."""

    name: _Name
    method: Literal["scratch", "distill"]
    status: Literal["ok", "failed"]
    plan: dict[str, str | dict[str, Any]]
    changes: list[Change]
    seeds: _Seeds
    learning_rate: Amount | None
    learning_rate_search: list[Searched]
    parameters: Annotated[Count, Field(ge=1)]
    parameters_ratio: Amount
    parameters_by_kind: dict[str, Count]
    flops_per_example: Annotated[int | float, Field(ge=0)] | None
    flops_ratio: Amount | None
    decoding: Decoding | None
    q_ratio: Amount | None
    quality: Quality | None
    difference: Interval | None
    """The quality less the baseline's."""
    scope: Literal["seeds and examples", "one trained pair"]
    teaching: Teaching | None
    curves: list[Curve]
    train_seconds: Amount | None
    latency_ms: Latency | None
    ms_per_token: TokenTime | None
    throughput_per_second: Amount | None
    tokens_per_second: Amount | None
    train_examples_per_second: Amount | None
    peak_memory_mb: Amount | None
    train_peak_memory_mb: Amount | None
    decision: Literal["accept", "reject", "undecided"] | None
    reason: str | None
    p_value: PartOfOne | None
    p_adjusted: PartOfOne | None
    more_seeds: Count | None
    more_examples: Count | None
    failures: list[Failure]
    rollbacks: list[Rollback]
    trials: list[str]


class Accept(Section):
    """``accept`` of the study; a task's own keys stand beside these."""

    model_config = ConfigDict(extra="allow")

    metric: str
    max_drop: Amount
    confidence: Annotated[float, Field(gt=0.5, lt=1)]


class Data(Section):
    """What every task says of its data."""

    source: str
    train: Count
    validation: Count
    test: Count
    notes: list[str]


class Method(Section):
    """How it was measured, in words."""

    interval: str
    cost: str


class Warned(Section):
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


class Results(Section):
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
    seeds: _Seeds
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

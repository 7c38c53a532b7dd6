"""results.json, read and checked: what every part of the report may rely on."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, NoReturn, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from leanformer.core.errors import LeanformerError, printable, quoted
from leanformer.core.fields import Seed, no_repeats
from leanformer.core.paths import read_text

FORMAT = 1
MOST_BYTES = 200_000_000

ROUNDING = 1e-6
"""By which a sum of rounded numbers may pass its greatest value: BLEU's 100 comes out as 100.00000000000004."""

_Count = Annotated[int, Field(ge=0, le=10**18)]
_Amount = Annotated[float, Field(ge=0)]
_PartOfOne = Annotated[float, Field(ge=0, le=1 + ROUNDING)]
_Explained = Annotated[float, Field(le=1 + ROUNDING)]
_Name = Annotated[str, Field(max_length=250, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
_Seeds = Annotated[list[Seed], Field(min_length=1), AfterValidator(no_repeats("a seed"))]


def _inside(path: str) -> str:
    """A path that stays in the run directory, on any system."""
    parts = PurePosixPath(path).parts
    if not parts or path != printable(path) or ".." in parts or parts[0] == "/" or "\\" in path or ":" in path:
        raise ValueError(f"{quoted(path)} is no path within the run directory")
    return path


class _Part(BaseModel):
    """A part of the file. Keys beyond these are passed over: a later version may write more.

    A key with a default may be missing: older files lack it, or it is another metric's.
    """

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class _Interval(_Part):
    mean: float
    low: float
    high: float

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low is {self.low:g} and high {self.high:g}; low is the lesser one")
        return self


class _Quality(_Interval):
    per_seed: Annotated[list[float], Field(min_length=1)]


class _Change(_Part):
    site: str
    kind: str
    block: str
    arguments: dict[str, Any]
    changed: bool
    parameters_before: _Count
    parameters_after: _Count
    removed: _Count = 0
    added: _Count = 0
    r2: _Explained | None = None
    r2_per_seed: list[_Explained] = []

    @model_validator(mode="before")
    @classmethod
    def _all_was_exchanged(cls, change: Any) -> Any:
        """For older files, which do not say what stayed of a changed site: nothing."""
        if isinstance(change, dict) and change.get("changed") is True:
            return {"removed": change.get("parameters_before"), "added": change.get("parameters_after"), **change}
        return change


class _Searched(_Part):
    learning_rate: _Amount
    status: str
    loss: float | None
    accuracy: _PartOfOne | None = None
    bleu: _Amount | None = None
    chrf: _Amount | None = None


class _ClassQuality(_Part):
    name: str = Field(alias="class")
    examples: _Count
    accuracy: _PartOfOne
    difference: Annotated[float, Field(ge=-1, le=1)] | None


class _Epoch(_Part):
    epoch: _Amount
    train_loss: float | None
    validation_loss: float | None
    validation_accuracy: _PartOfOne | None = None
    validation_token_accuracy: _PartOfOne | None = None


class _Curve(_Part):
    seed: Seed
    epochs: list[_Epoch]


class _TaughtCurve(_Part):
    site: str
    block: str
    seed: Seed
    r2: list[_Explained]


class _Teaching(_Part):
    seconds: _Amount
    blocks: _Count
    epochs: _Count
    curves: list[_TaughtCurve]


class _Latency(_Part):
    p50: _Amount
    p95: _Amount

    @model_validator(mode="after")
    def _is_in_order(self) -> Self:
        if self.p50 > self.p95:
            raise ValueError(f"p50 is {self.p50:g} and p95 {self.p95:g}; p50 is the lesser one")
        return self


class _Mcnemar(_Part):
    seed: Seed
    baseline_only: _Count
    candidate_only: _Count
    p_value: _PartOfOne


class _Failure(_Part):
    seed: Seed
    reason: str


class _Rollback(_Part):
    seed: Seed
    what: str


class _Row(_Part):
    """What every task says of a model."""

    name: _Name
    method: Literal["scratch", "distill"]
    status: Literal["ok", "failed"]
    plan: dict[str, str | dict[str, Any]]
    changes: list[_Change]
    seeds: _Seeds
    learning_rate: _Amount | None
    learning_rate_search: list[_Searched]
    parameters: Annotated[_Count, Field(ge=1)]
    parameters_ratio: _Amount
    parameters_by_kind: dict[str, _Count]
    flops_per_example: _Amount | None
    flops_ratio: _Amount | None
    q_ratio: _Amount | None
    quality: _Quality | None
    difference: _Interval | None
    scope: Literal["seeds and examples", "one trained pair"]
    teaching: _Teaching | None = None
    curves: list[_Curve]
    train_seconds: _Amount | None
    train_examples_per_second: _Amount | None
    latency_ms: _Latency | None
    throughput_per_second: _Amount | None
    peak_memory_mb: _Amount | None
    train_peak_memory_mb: _Amount | None
    decision: Literal["accept", "reject", "undecided"] | None
    reason: str | None
    p_value: _PartOfOne | None
    p_adjusted: _PartOfOne | None
    more_seeds: _Count | None
    more_examples: _Count | None
    failures: list[_Failure]
    rollbacks: list[_Rollback]


class _ImageRow(_Row):
    per_class: list[_ClassQuality]
    mcnemar: list[_Mcnemar]


class _SeedScores(_Part):
    mean: _PartOfOne
    per_seed: Annotated[list[_PartOfOne], Field(min_length=1)]


class _Scores(_Part):
    bleu: _Quality
    chrf: _Quality
    exact_match: _SeedScores


class _Bootstrap(_Part):
    seed: Seed
    difference: _Interval
    p_value: _PartOfOne


class _LengthQuality(_Part):
    low: _Count
    high: _Count | None
    sentences: _Count
    score: float
    difference: float | None


class _Example(_Part):
    source: str
    reference: str
    baseline: str
    candidate: str
    baseline_score: float
    candidate_score: float


class _Longest(_Part):
    source_tokens: _Count
    target_tokens: _Count
    state_bytes: _Count


class _Decoding(_Part):
    source_tokens: _Count
    target_tokens: _Count
    flops_per_source: _Count
    flops_per_token: _Count
    state_bytes: _Count
    longest: _Longest


class _TokenTime(_Part):
    one: _Amount
    batch: _Amount


class _TranslationRow(_Row):
    scores: _Scores | None
    paired_bootstrap: list[_Bootstrap]
    decoding: _Decoding | None = None
    ms_per_token: _TokenTime | None = None
    tokens_per_second: _Amount | None = None
    by_length: list[_LengthQuality]
    examples: list[_Example]


class _Accept(_Part):
    metric: str
    max_drop: _Amount
    confidence: Annotated[float, Field(gt=0.5, lt=1)]


class _Data(_Part):
    source: str
    train: _Count
    validation: _Count
    test: _Count
    notes: list[str]


class _ImageData(_Data):
    classes: list[str]


class _TextData(_Data):
    source_language: str
    target_language: str


class _Signatures(_Part):
    bleu: str
    chrf: str


class _Decode(_Part):
    beam: _Count
    max_tokens: _Count
    batch_tokens: _Count


class _Method(_Part):
    interval: str
    cost: str


class _Warned(_Part):
    code: str
    sentence: str
    count: _Count


class _Results(_Part):
    """What every task's study says."""

    format: Literal[1]
    metric: str
    name: Annotated[str, Field(max_length=250, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    task: str
    accept: _Accept
    prefer: Literal["parameters", "latency", "train_seconds"]
    seeds: _Seeds
    warnings: list[_Warned] = []
    recommended: str | None
    recommendation: str
    ship: Annotated[str, AfterValidator(_inside)] | None
    environment: dict[str, Any]
    method: _Method
    study: dict[str, Any]


class _ImageResults(_Results):
    metric: Literal["accuracy"]
    data: _ImageData
    baseline: _ImageRow
    candidates: list[_ImageRow]

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        _check_rows(self, [self.baseline, *self.candidates], 1)
        return self


class _TranslationResults(_Results):
    metric: Literal["bleu", "chrf"]
    data: _TextData
    signatures: _Signatures
    decode: _Decode
    baseline: _TranslationRow
    candidates: list[_TranslationRow]

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        _check_rows(self, [self.baseline, *self.candidates], 100)
        return self


def _check_rows(results: _Results, rows: Sequence[_Row], most: float) -> None:
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


_FORMS: dict[str, type[_Results]] = {"image-classification": _ImageResults, "translation": _TranslationResults}
"""Task -> the form of its results."""


def read_results(directory: Path) -> dict[str, Any]:
    """Reads and checks a run directory's ``results.json``.

    Returns:
        What the report goes by, with a default for every key that older files lack.

    Raises:
        LeanformerError: There is none, or it is damaged, of another version, or not leanformer's.
    """
    path = directory / "results.json"
    if not os.path.lexists(path):
        raise LeanformerError(f"{path}: there is no such file; give the directory of a study that ran to its end")
    text = read_text(path, MOST_BYTES)
    try:
        content = json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise LeanformerError(f"{path}: damaged (lists within lists without end); run the study again") from None
    except ValueError as error:
        raise LeanformerError(f"{path}: damaged ({error}); run the study again to write it anew") from None
    if not isinstance(content, dict) or "format" not in content:
        raise LeanformerError(f"{path}: these are no results of a leanformer study (there is no key 'format')")
    if content["format"] != FORMAT or isinstance(content["format"], bool):
        raise LeanformerError(
            f"{path}: its format is {quoted(content['format'])}, and this version of leanformer reads format {FORMAT}"
        )
    task = content.get("task")
    form = _FORMS.get(task) if isinstance(task, str) else None
    if form is None:
        raise LeanformerError(
            f"{path}: the task {quoted(task)} is not known to this version of leanformer; tasks: {', '.join(_FORMS)}"
        )
    try:
        return form.model_validate(content).model_dump(by_alias=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"{part}: " for part in [".".join(str(part) for part in first["loc"])] if part)
        message = first["msg"].removeprefix("Value error, ")
        raise LeanformerError(
            f"{path}: no results that a leanformer study wrote: {where}{message[0].lower()}{message[1:]}"
        ) from None


def rows_of(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of results.json: the baseline's, then the candidates'."""
    return [results["baseline"], *results["candidates"]]


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")

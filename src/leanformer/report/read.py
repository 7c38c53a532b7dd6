"""results.json, read and checked: what every part of the report may rely on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from leanformer.errors import LeanformerError

FORMAT = 1

_Count = Annotated[int, Field(ge=0)]


class _Part(BaseModel):
    """A part of the file. Keys beyond these are passed over: a later version may write more.

    A key with a default may be missing: older files lack it, or it is another metric's.
    """

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class _Interval(_Part):
    mean: float
    low: float
    high: float


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
    r2: float | None = None
    r2_per_seed: list[float] = []

    @model_validator(mode="before")
    @classmethod
    def _all_was_exchanged(cls, change: Any) -> Any:
        """For older files, which do not say what stayed of a changed site: nothing."""
        if isinstance(change, dict) and change.get("changed") is True:
            return {"removed": change.get("parameters_before"), "added": change.get("parameters_after"), **change}
        return change


class _Searched(_Part):
    learning_rate: float
    status: str
    loss: float | None
    accuracy: float | None = None
    bleu: float | None = None
    chrf: float | None = None


class _ClassQuality(_Part):
    name: str = Field(alias="class")
    examples: _Count
    accuracy: float
    difference: float | None


class _Epoch(_Part):
    epoch: float
    train_loss: float | None
    validation_loss: float | None
    validation_accuracy: float | None = None
    validation_token_accuracy: float | None = None


class _Curve(_Part):
    seed: int
    epochs: list[_Epoch]


class _TaughtCurve(_Part):
    site: str
    block: str
    seed: int
    r2: list[float]


class _Teaching(_Part):
    seconds: float
    blocks: _Count
    epochs: _Count
    curves: list[_TaughtCurve]


class _Latency(_Part):
    p50: float
    p95: float


class _Mcnemar(_Part):
    seed: int
    baseline_only: _Count
    candidate_only: _Count
    p_value: float


class _Failure(_Part):
    seed: int
    reason: str


class _Rollback(_Part):
    seed: int
    what: str


class _Row(_Part):
    """What every task says of a model."""

    name: str
    method: Literal["scratch", "distill"]
    status: Literal["ok", "failed"]
    plan: dict[str, Any]
    changes: list[_Change]
    seeds: list[int]
    learning_rate: float | None
    learning_rate_search: list[_Searched]
    parameters: _Count
    parameters_ratio: float
    parameters_by_kind: dict[str, _Count]
    flops_per_example: float | None
    flops_ratio: float | None
    q_ratio: float | None
    quality: _Quality | None
    difference: _Interval | None
    scope: Literal["seeds and examples", "one trained pair"]
    teaching: _Teaching | None = None
    curves: list[_Curve]
    train_seconds: float | None
    train_examples_per_second: float | None
    latency_ms: _Latency | None
    throughput_per_second: float | None
    peak_memory_mb: float | None
    train_peak_memory_mb: float | None
    decision: Literal["accept", "reject", "undecided"] | None
    reason: str | None
    p_value: float | None
    p_adjusted: float | None
    more_seeds: _Count | None
    more_examples: _Count | None
    failures: list[_Failure]
    rollbacks: list[_Rollback]


class _ImageRow(_Row):
    per_class: list[_ClassQuality]
    mcnemar: list[_Mcnemar]


class _SeedScores(_Part):
    mean: float
    per_seed: Annotated[list[float], Field(min_length=1)]


class _Scores(_Part):
    bleu: _Quality
    chrf: _Quality
    exact_match: _SeedScores


class _Bootstrap(_Part):
    seed: int
    difference: _Interval
    p_value: float


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
    one: float
    batch: float


class _TranslationRow(_Row):
    scores: _Scores | None
    paired_bootstrap: list[_Bootstrap]
    decoding: _Decoding | None = None
    ms_per_token: _TokenTime | None = None
    tokens_per_second: float | None = None
    by_length: list[_LengthQuality]
    examples: list[_Example]


class _Accept(_Part):
    metric: str
    max_drop: float
    confidence: float


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
    name: str
    task: str
    accept: _Accept
    prefer: Literal["parameters", "latency", "train_seconds"]
    seeds: list[int]
    warnings: list[_Warned] = []
    recommended: str | None
    recommendation: str
    ship: str | None
    environment: dict[str, Any]
    method: _Method
    study: dict[str, Any]


class _ImageResults(_Results):
    metric: Literal["accuracy"]
    data: _ImageData
    baseline: _ImageRow
    candidates: list[_ImageRow]


class _TranslationResults(_Results):
    metric: Literal["bleu", "chrf"]
    data: _TextData
    signatures: _Signatures
    decode: _Decode
    baseline: _TranslationRow
    candidates: list[_TranslationRow]


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
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise LeanformerError(
            f"{path}: there is no such file; give the directory of a study that ran to its end"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise LeanformerError(f"{path}: cannot be read: {_one_line(error)}") from None
    try:
        content = json.loads(text, parse_constant=_refuse)
    except ValueError as error:
        raise LeanformerError(f"{path}: damaged ({error}); run the study again to write it anew") from None
    if not isinstance(content, dict) or "format" not in content:
        raise LeanformerError(f"{path}: these are no results of a leanformer study (there is no key 'format')")
    if content["format"] != FORMAT:
        raise LeanformerError(
            f"{path}: its format is {content['format']!r}, and this version of leanformer reads format {FORMAT}"
        )
    form = _FORMS.get(str(content.get("task")))
    if form is None:
        raise LeanformerError(
            f"{path}: the task {content.get('task')!r} is not known to this version of leanformer; "
            f"tasks: {', '.join(_FORMS)}"
        )
    try:
        checked = form.model_validate(content).model_dump(by_alias=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise LeanformerError(
            f"{path}: no results that a leanformer study wrote: {where}: {first['msg'].lower()}"
        ) from None
    names = [row["name"] for row in (checked["baseline"], *checked["candidates"])]
    if checked["recommended"] is not None and checked["recommended"] not in names:
        raise LeanformerError(
            f"{path}: no results that a leanformer study wrote: recommended: there is no {checked['recommended']!r}"
        )
    return checked


def rows_of(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of results.json: the baseline's, then the candidates'."""
    return [results["baseline"], *results["candidates"]]


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")


def _one_line(error: Exception) -> str:
    return getattr(error, "strerror", None) or " ".join(str(error).split())

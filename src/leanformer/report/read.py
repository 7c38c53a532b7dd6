"""results.json, read and checked: what every part of the report may rely on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from leanformer.errors import LeanformerError

FORMAT = 1

_Count = Annotated[int, Field(ge=0)]


class _Part(BaseModel):
    """A part of the file. Keys beyond these are left alone: a later version may write more."""

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


class _Searched(_Part):
    learning_rate: float
    status: str
    accuracy: float | None
    loss: float | None


class _ClassQuality(_Part):
    name: str = Field(alias="class")
    examples: _Count
    accuracy: float
    difference: float | None


class _Epoch(_Part):
    epoch: float
    train_loss: float | None
    validation_loss: float | None
    validation_accuracy: float | None


class _Curve(_Part):
    seed: int
    epochs: list[_Epoch]


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
    name: str
    method: str
    status: Literal["ok", "failed"]
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
    per_class: list[_ClassQuality]
    curves: list[_Curve]
    train_seconds: float | None
    train_examples_per_second: float | None
    latency_ms: _Latency | None
    throughput_per_second: float | None
    peak_memory_mb: float | None
    train_peak_memory_mb: float | None
    mcnemar: list[_Mcnemar]
    decision: Literal["accept", "reject", "undecided"] | None
    reason: str | None
    p_value: float | None
    p_adjusted: float | None
    more_seeds: _Count | None
    more_examples: _Count | None
    failures: list[_Failure]
    rollbacks: list[_Rollback]


class _Accept(_Part):
    metric: str
    max_drop: float
    confidence: float


class _Data(_Part):
    source: str
    train: _Count
    validation: _Count
    test: _Count
    classes: list[str]
    notes: list[str]


class _Method(_Part):
    interval: str
    cost: str


class _Results(_Part):
    format: Literal[1]
    name: str
    task: str
    metric: str
    accept: _Accept
    prefer: Literal["parameters", "latency", "train_seconds"]
    seeds: list[int]
    data: _Data
    baseline: _Row
    candidates: list[_Row]
    recommended: str | None
    recommendation: str
    ship: str | None
    environment: dict[str, Any]
    method: _Method
    study: dict[str, Any]


def read_results(directory: Path) -> dict[str, Any]:
    """Reads and checks a run directory's ``results.json``.

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
    try:
        _Results.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise LeanformerError(
            f"{path}: no results that a leanformer study wrote: {where}: {first['msg'].lower()}"
        ) from None
    names = [row["name"] for row in (content["baseline"], *content["candidates"])]
    if content["recommended"] is not None and content["recommended"] not in names:
        raise LeanformerError(
            f"{path}: no results that a leanformer study wrote: recommended: there is no {content['recommended']!r}"
        )
    return content


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")


def _one_line(error: Exception) -> str:
    return getattr(error, "strerror", None) or " ".join(str(error).split())

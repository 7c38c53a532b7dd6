"""A row of results.json: what a study says of one model, each field written once here."""

from __future__ import annotations

from types import NoneType
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from leanformer.core.fields import Seed, no_repeats

ROUNDING = 1e-6
"""By which a sum of rounded numbers may pass its greatest value: BLEU's 100 comes out as 100.00000000000004."""

Count = Annotated[int, Field(ge=0, le=10**18)]
Amount = Annotated[float, Field(ge=0)]
PartOfOne = Annotated[float, Field(ge=0, le=1 + ROUNDING)]
Explained = Annotated[float, Field(le=1 + ROUNDING)]
"""R²."""
Seeds = Annotated[list[Seed], Field(min_length=1), AfterValidator(no_repeats("seeds"))]


class Record(BaseModel):
    """A part of the file. Keys beyond these are passed over."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class Interval(Record):
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


class Change(Record):
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


class Searched(Record):
    """A training of the search for a learning rate; beside its loss stand the metrics under their own names."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, float | None] = Field(init=False)

    learning_rate: Amount
    status: str
    loss: float | None


class Epoch(Record):
    """An epoch of a training; beside these stand the task's own measurements, named ``validation_`` and what it is."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, float | None] = Field(init=False)

    epoch: Count
    train_loss: float | None
    validation_loss: float | None


class Curve(Record):
    """How one seed's training went."""

    seed: Seed
    epochs: list[Epoch]


class TaughtCurve(Record):
    """How a block was taught: R² on held-out data after each epoch."""

    site: str
    block: str
    seed: Seed
    r2: list[Explained]


class Teaching(Record):
    """How the blocks of a distilled candidate were taught."""

    seconds: Amount
    blocks: Count
    epochs: Count
    curves: list[TaughtCurve]


class Latency(Record):
    """Milliseconds of one call."""

    p50: Amount
    p95: Amount

    @model_validator(mode="after")
    def _is_in_order(self) -> Self:
        if self.p50 > self.p95:
            raise ValueError(f"p50 is {self.p50:g} and p95 {self.p95:g}; p50 is the lesser one")
        return self


class Longest(Record):
    """The state at the greatest lengths of the test split."""

    source_tokens: Count
    target_tokens: Count
    state_bytes: Count


class Decoding(Record):
    """What writing costs a model, counted at the median lengths of the test split."""

    source_tokens: Count
    target_tokens: Count
    flops_per_source: Count
    flops_per_token: Count
    state_bytes: Count
    longest: Longest


class TokenTime(Record):
    """Milliseconds a token that is written, one example at a time and in a large batch."""

    one: Amount
    batch: Amount


class Failure(Record):
    """Why a seed's training failed."""

    seed: Seed
    reason: str


class Rollback(Record):
    """A training that went back to an earlier state."""

    seed: Seed
    what: str


class Row(Record):
    """What every task says of a model. What is null was not measured, or cannot be said."""

    name: Annotated[str, Field(max_length=250, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
    method: Literal["scratch", "distill"]
    status: Literal["ok", "failed"]
    plan: dict[str, str | dict[str, Any]]
    changes: list[Change]
    seeds: Seeds
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

    @classmethod
    def blank(cls) -> dict[str, Any]:
        """A row that says nothing yet: null or an empty list under every key that may be so."""
        row: dict[str, Any] = {}
        for name, field in cls.model_fields.items():
            if NoneType in get_args(field.annotation):
                row[name] = None
            elif get_origin(field.annotation) is list:
                row[name] = []
        return row

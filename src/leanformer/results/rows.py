"""A row of results.json: the results of one model. Each field is defined only here."""

from __future__ import annotations

from types import NoneType
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from leanformer.core.fields import Seed, no_repeats

ROUNDING = 1e-6
"""How far rounding may take a value past its greatest: BLEU's 100 may be 100.00000000000004."""

Count = Annotated[int, Field(ge=0, le=10**18)]
Amount = Annotated[float, Field(ge=0)]
PartOfOne = Annotated[float, Field(ge=0, le=1 + ROUNDING)]
Explained = Annotated[float, Field(le=1 + ROUNDING)]
"""R²."""
Seeds = Annotated[list[Seed], Field(min_length=1), AfterValidator(no_repeats("seeds"))]


class Record(BaseModel):
    """A part of the file. Unknown keys are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class Interval(Record):
    """An estimate with its interval."""

    mean: float
    low: float
    high: float

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low is {self.low:g} and high {self.high:g}; low must not exceed high")
        return self


class Median(Record):
    """A median over the rounds, and its interval of 95 % at least, which holds for any distribution."""

    median: Amount
    low: Amount
    high: Amount

    @model_validator(mode="after")
    def _is_inside(self) -> Self:
        if not self.low <= self.median <= self.high:
            raise ValueError(f"the median {self.median:g} is not from {self.low:g} to {self.high:g}")
        return self


class Quality(Interval):
    """A model's mean quality over its seeds, and the quality of each seed in the study's order."""

    per_seed: Annotated[list[float], Field(min_length=1)]


class Change(Record):
    """A site, and what the plan changed there."""

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
    """R² of the block that was taught there, on held-out data, mean over the seeds."""
    r2_per_seed: list[Explained]


class Searched(Record):
    """A training of the search for a learning rate, with its loss, and each metric under its own name."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, float | None] = Field(init=False)

    learning_rate: Amount
    status: str
    loss: float | None


class Epoch(Record):
    """An epoch of a training, with the task's own measurements under names that begin with ``validation_``."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, float | None] = Field(init=False)

    epoch: Count
    train_loss: float | None
    validation_loss: float | None


class Curve(Record):
    """The course of one seed's training."""

    seed: Seed
    epochs: list[Epoch]


class TaughtCurve(Record):
    """The course of a block's teaching: R² on held-out data after each epoch."""

    site: str
    block: str
    seed: Seed
    r2: list[Explained]


class Teaching(Record):
    """The teaching of a distilled candidate's blocks."""

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
            raise ValueError(f"p50 is {self.p50:g} and p95 {self.p95:g}; p50 must not exceed p95")
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
    """Milliseconds per written token, for one example at a time and in a large batch."""

    one: Amount
    batch: Amount


class Failure(Record):
    """Why a seed's training failed."""

    seed: Seed
    reason: str


class Rollback(Record):
    """A return of a training to an earlier state."""

    seed: Seed
    what: str


class SpeedRounds(Record):
    """What each round measured; a list is empty where nothing was, or where it was counted once."""

    latency_ms: list[Amount]
    """The median of the round's calls."""
    ms_per_token: list[Amount]
    throughput_per_second: list[Amount]
    tokens_per_second: list[Amount]
    peak_memory_mb: list[Amount]
    """Of the processes that run an exported model."""


class SpeedRatios(Record):
    """Costs as multiples of the baseline's, taken round by round; the keys are those of ``COSTS``.

    Null where the cost was not measured, or in too few rounds for an interval.
    """

    latency: Median | None
    throughput: Median | None
    token_time: Median | None
    token_throughput: Median | None
    memory: Median | None


class CostRatios(SpeedRatios):
    """The same with the training time, whose ratio is null where a model was distilled: that is timed once."""

    train_seconds: Median | None


class Speed(Record):
    """Latency, throughput and memory of one model in one runtime."""

    runtime: str
    """``torch``, or a format."""
    latency_ms: Latency
    ms_per_token: TokenTime | None
    throughput_per_second: Amount
    tokens_per_second: Amount | None
    peak_memory_mb: Amount | None
    rounds: SpeedRounds | None
    ratios: SpeedRatios | None
    """To the baseline in the same runtime; null for the baseline."""


class Artifact(Record):
    """The exported model whose quality, difference, decision and costs a row has."""

    format: str
    precision: str
    directory: str
    """The exported directory, inside the run directory."""
    seed: Seed
    """The trained model that was exported: of its candidate's, the best on the validation split."""
    before: Quality
    """The quality of that trained model, before it was exported."""
    agreement: PartOfOne
    """The share of the compared inputs with the same answer before and after."""
    compared: Count
    """Inputs that were compared."""
    largest_difference: Amount | None
    """The largest difference between logits; null where the precision is not float32."""


class Recipe(Record):
    """The decision on a candidate's recipe, which is its plan and training over the seeds, beside the artifact's."""

    quality: Quality
    difference: Interval | None
    scope: Literal["seeds and examples", "one trained pair"]
    decision: Literal["accept", "reject", "undecided"] | None
    reason: str | None
    p_value: PartOfOne | None
    p_adjusted: PartOfOne | None
    more_seeds: Count | None
    more_examples: Count | None
    accepted_at: Count | None
    """The look at the test split at which it was accepted."""
    broken_at_most: PartOfOne | None
    """The share of trainings that may break, at the study's confidence, although none of its seeds did."""


class Robustness(Record):
    """The quality of the model that a row decides on, under one corruption of the test examples.

    Losses are differences: where larger values are better, a loss of quality is below 0.
    """

    corruption: str
    quality: float
    loss: float
    """The quality minus that on the clean examples, of the same trained model."""
    difference: Interval | None
    """The quality minus the baseline's under the same corruption."""
    extra_loss: Interval | None
    """The loss minus the baseline's."""
    p_value: PartOfOne | None
    """Two-sided, of the hypothesis that the extra loss is 0."""
    loses_more: bool | None
    """Whether it clearly loses more than the baseline, corrected for the number of corruptions."""


class Row(Record):
    """The results of one model that every task has. A null value was not measured or does not apply.

    Quality, difference and decision are those of the one model that ships, exported in a study with ``ship``, beside
    the baseline's; what holds for trainings in general stands in ``recipe``. In files of versions before 4, of studies
    that did not ship, they are means over the seeds, and ``decided_seed`` is null.
    """

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
    """The quality minus the baseline's."""
    scope: Literal["seeds and examples", "one trained pair"]
    decided_seed: Seed | None
    """The seed of the model that ships, chosen on the validation split before the first look at the test split."""
    decided_fold: Count | None = None
    """In a cross-validation the fold that this model was not trained on; quality and decision are the recipe's."""
    artifact: Artifact | None
    recipe: Recipe | None
    """Null with one seed and no export, where it is that one model; for a further precision of the same model; and in
    files of versions before 4, where the decision above is on the recipe itself."""
    robustness: list[Robustness] | None
    """Of the model of the seed that is best on the validation split, or of the exported model; null: not measured."""
    teaching: Teaching | None
    curves: list[Curve]
    train_seconds: Amount | None
    latency_ms: Latency | None
    ms_per_token: TokenTime | None
    throughput_per_second: Amount | None
    tokens_per_second: Amount | None
    speeds: list[Speed]
    """In each runtime that was measured; latency, throughput and memory above and below are those of the first."""
    cost_ratios: CostRatios | None
    """To the baseline, in the first runtime; null for the baseline, and where nothing was measured."""
    bytes: Count | None
    """Of the files that ship: the weights, or what the engine reads."""
    train_examples_per_second: Amount | None
    peak_memory_mb: Amount | None
    train_peak_memory_mb: Amount | None
    decision: Literal["accept", "reject", "undecided"] | None
    reason: str | None
    p_value: PartOfOne | None
    p_adjusted: PartOfOne | None
    more_seeds: Count | None
    """Here in a cross-validation, and in files of versions before 4; else it is the recipe's."""
    more_examples: Count | None
    """New test examples that would decide alone with a power of 80 %; before version 4, further ones."""
    accepted_at: Count | None
    """The look at the test split at which it was accepted."""
    failures: list[Failure]
    rollbacks: list[Rollback]
    trials: list[str]

    @classmethod
    def blank(cls) -> dict[str, Any]:
        """An empty row: null or an empty list under every key that allows it."""
        row: dict[str, Any] = {}
        for name, field in cls.model_fields.items():
            if NoneType in get_args(field.annotation):
                row[name] = None
            elif get_origin(field.annotation) is list:
                row[name] = []
        return row

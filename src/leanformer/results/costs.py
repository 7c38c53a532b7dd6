"""The catalogue of costs: what a model takes, the place of that in a row of results.json, and its format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from leanformer.results import formats

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Cost:
    """A cost.

    Args:
        key: Its name in code and in the study file (``prefer``).
        name: Its name in sentences.
        place: The path of its value in a row, one key for each level.
        write: A value -> its text, with the unit.
        better: Which of two values is better.
        counted: Whether it is counted, and so exact; others are measured, and differ from round to round.
        preferable: Whether a study may choose by it (``prefer``).
        axis: The axis title in the figure of quality against this cost, with ``{example}`` for the name of a test
            example; empty where there is no such figure.
    """

    key: str
    name: str
    place: tuple[str, ...]
    write: Callable[[float], str]
    better: Literal["less", "more"] = "less"
    counted: bool = False
    preferable: bool = False
    axis: str = ""

    def is_better(self, value: float, other: float) -> bool:
        """Whether a value is better than another."""
        return value < other if self.better == "less" else value > other

    def of(self, row: Row) -> float | None:
        """The value in a row; None where it was not measured.

        Args:
            row: A row of ``results.json``.
        """
        value: Any = row
        for key in self.place:
            if value is None:
                return None
            value = value[key]
        return None if value is None else value

    def text(self, row: Row) -> str:
        """The value in a row as text; a dash where it was not measured."""
        return formats.or_missing(self.write)(self.of(row))

    def ratio(self, row: Row, baseline: Row) -> float | None:
        """A row's value as a multiple of the baseline's; None where either was not measured or the baseline's is 0."""
        mine, other = self.of(row), self.of(baseline)
        return mine / other if mine is not None and other else None

    def multiple(self, row: Row, baseline: Row) -> float | None:
        """A row's multiple of the baseline's cost: the median over the rounds, or ``ratio`` where there are none."""
        found = (row["cost_ratios"] or {}).get(self.key)
        return self.ratio(row, baseline) if found is None else found["median"]

    def paired(self, row: Row, write: Callable[[float], str]) -> str:
        """A row's multiple of the baseline's cost, taken round by round, with its interval, as text.

        Args:
            row: A row of ``results.json``.
            write: A ratio -> its text.

        Returns:
            ``52.1 % (50.0 %, 53.9 %)``; empty where there is no interval.
        """
        found = (row["cost_ratios"] or {}).get(self.key)
        return "" if found is None else f"{write(found['median'])} ({write(found['low'])}, {write(found['high'])})"

    def part(self, row: Row, baseline: Row) -> str:
        """The ratio in percent, as text; empty where it is not known."""
        ratio = self.ratio(row, baseline)
        return "" if ratio is None else formats.percent(ratio)


def _per_second(value: float) -> str:
    return f"{formats.count(value)} /s"


COSTS = {
    cost.key: cost
    for cost in (
        Cost(
            "parameters",
            "parameters",
            ("parameters",),
            formats.count,
            counted=True,
            preferable=True,
            axis="parameters",
        ),
        Cost(
            "latency",
            "latency",
            ("latency_ms", "p50"),
            formats.milliseconds,
            preferable=True,
            axis="latency of one {example} (p50), ms",
        ),
        Cost(
            "train_seconds",
            "training time",
            ("train_seconds",),
            formats.seconds,
            preferable=True,
            axis="training of one model, s",
        ),
        Cost(
            "operations",
            "operations",
            ("flops_per_example",),
            formats.short,
            counted=True,
            axis="operations of one {example}",
        ),
        Cost("latency_p95", "95th percentile of latency", ("latency_ms", "p95"), formats.milliseconds),
        Cost(
            "throughput",
            "throughput",
            ("throughput_per_second",),
            _per_second,
            better="more",
            preferable=True,
        ),
        Cost(
            "train_throughput",
            "throughput in training",
            ("train_examples_per_second",),
            _per_second,
            better="more",
        ),
        Cost(
            "memory",
            "memory",
            ("peak_memory_mb",),
            formats.megabytes,
            preferable=True,
        ),
        Cost(
            "bytes",
            "size of the files",
            ("bytes",),
            formats.size,
            counted=True,
            preferable=True,
            axis="size of the files in bytes",
        ),
        Cost("train_memory", "memory in training", ("train_peak_memory_mb",), formats.megabytes),
        # For models that write text.
        Cost("token_flops", "operations a subword", ("decoding", "flops_per_token"), formats.short, counted=True),
        Cost("source_flops", "operations, the source", ("decoding", "flops_per_source"), formats.short, counted=True),
        Cost("token_time", "time a subword", ("ms_per_token", "one"), formats.milliseconds),
        Cost("token_time_in_batch", "time a subword in a large batch", ("ms_per_token", "batch"), formats.milliseconds),
        Cost("token_throughput", "subwords a second", ("tokens_per_second",), _per_second, better="more"),
        Cost("state", "state, median sentence", ("decoding", "state_bytes"), formats.size, counted=True),
        Cost(
            "longest_state",
            "state, longest sentence",
            ("decoding", "longest", "state_bytes"),
            formats.size,
            counted=True,
        ),
    )
}
"""Key -> cost."""


def preferences() -> list[str]:
    """The costs by which a study may choose among accepted candidates, the default first."""
    return [cost.key for cost in COSTS.values() if cost.preferable]


RUNTIMES = {"torch": "PyTorch", "onnx": "ONNX Runtime", "ctranslate2": "CTranslate2"}
"""What models run in: PyTorch, or the engine of a format; and its name in tables and sentences."""

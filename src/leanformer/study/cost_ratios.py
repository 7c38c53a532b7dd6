"""Costs as multiples of the baseline's, round by round, with their intervals; and whether the machine was quiet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from leanformer.core.warning import StudyWarning
from leanformer.measure.rounds import fewest_rounds, median_ratio
from leanformer.results.costs import COSTS

ROUNDS = {
    "latency": "latency_ms",
    "throughput": "throughput_per_second",
    "token_time": "ms_per_token",
    "token_throughput": "tokens_per_second",
    "memory": "peak_memory_mb",
}
"""Cost -> the key of what each round measured of it."""
MOST_SCATTER = 0.1
"""Above this interquartile range over the median of the baseline's rounds, the machine is called noisy."""
WIDEST = 0.2
"""Above this width over its median, the interval of a ratio is called wide."""


def ratio(mine: Sequence[float], others: Sequence[float]) -> dict[str, float] | None:
    """The ratio of what two models took in the same rounds, with its interval.

    Args:
        mine: One value for each round.
        others: The baseline's.

    Returns:
        ``median``, ``low`` and ``high``; None where there are too few rounds for an interval.
    """
    if len(mine) != len(others) or len(mine) < fewest_rounds() or min(others) <= 0:
        return None
    return median_ratio(mine, others).model_dump()


def speed_ratios(speed: Mapping[str, Any], baseline: Mapping[str, Any]) -> dict[str, dict[str, float] | None]:
    """The ratios of one model's costs in a runtime to the baseline's there.

    Args:
        speed: What ``measure.cost.Cost.speed`` gives.
        baseline: The baseline's.
    """
    found = {cost: ratio(speed["rounds"][key], baseline["rounds"][key]) for cost, key in ROUNDS.items()}
    memories = speed["peak_memory_mb"], baseline["peak_memory_mb"]
    if all(memories) and not speed["rounds"]["peak_memory_mb"] and not baseline["rounds"]["peak_memory_mb"]:
        counted = memories[0] / memories[1]  # the tensors of PyTorch, which are the same in each round
        found["memory"] = {"median": counted, "low": counted, "high": counted}
    return found


def noise_warnings(rows: Sequence[Mapping[str, Any]], remedy: str) -> list[StudyWarning]:
    """A warning where times vary so much from round to round that the machine was not quiet.

    Args:
        rows: The rows of the results, the baseline's first.
        remedy: What to do.
    """
    baseline = rows[0]["speeds"][0]["rounds"] if rows[0]["speeds"] else None
    if baseline is None or len(baseline["latency_ms"]) < fewest_rounds():
        return []
    low, middle, high = np.percentile(baseline["latency_ms"], [25, 50, 75]).tolist()
    scatter = (high - low) / middle
    wide = [row["name"] for row in rows if _is_wide(row)]
    signs = []
    if scatter > MOST_SCATTER:
        signs.append(f"the baseline's latency varies by {100 * scatter:.0f} % between rounds (interquartile range)")
    if wide:
        signs.append(
            f"latency or throughput as multiples of the baseline's have intervals wider than {100 * WIDEST:.0f} % "
            f"({', '.join(wide)})"
        )
    if not signs:
        return []
    sentence = f"the machine was busy with other things while costs were measured: {', and '.join(signs)}; {remedy}"
    return [StudyWarning("noisy-machine", sentence, (scatter > MOST_SCATTER) + len(wide))]


def _is_wide(row: Mapping[str, Any]) -> bool:
    found = row["cost_ratios"] or {}
    ratios = [found[cost] for cost in ("latency", "throughput") if found.get(cost) is not None]
    return any(one["high"] - one["low"] > WIDEST * one["median"] for one in ratios)


def without_interval(prefer: str, rounds: int) -> str:
    """Why an accepted candidate may have no interval of the cost by which a study chooses.

    Args:
        prefer: The cost.
        rounds: The rounds that were measured.
    """
    if rounds < fewest_rounds():
        return f"it takes {fewest_rounds()} rounds, and measure.repeats is {rounds}"
    if prefer == "train_seconds":
        return "a distilled model is timed once, while it is taught"
    return f"the {COSTS[prefer].name} was not measured in every round"

"""Times of several ways to do a thing, measured in turn, so that what else the machine does falls on all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch

from benchmarks.kit.benchmark import CPU


def seconds(
    action: Callable[[], object], device: torch.device = CPU, clock: Callable[[], float] = time.perf_counter
) -> float:
    """How long an action takes.

    Args:
        action: Called once.
        device: Where it computes; a GPU is waited for.
        clock: ``time.process_time`` counts what this process computes (on all its threads), so that other processes on
            the machine add less; only for an action that computes on the CPU.
    """
    started = clock()
    action()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - started


def in_turn(ways: Mapping[str, Callable[[], float]], rounds: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Measures every way once a round, each round in the other order.

    Args:
        ways: Name -> measures once and gives the figure, such as seconds.
        rounds: How many are kept.
        warm_up: How many come before them and are not.

    Returns:
        Name -> its figure in each round.
    """
    figures: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for number in range(warm_up + rounds):
        for name in names if number % 2 else reversed(names):
            figure = ways[name]()
            if number >= warm_up:
                figures[name].append(figure)
    return figures


def median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """The ratio of two figures, taken round by round: the median."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def rounds_of(count: int) -> str:
    """On how many measurements a sentence rests."""
    return "one round" if count == 1 else f"medians of {count} rounds"

"""Times calls of several models in rounds, without PyTorch: what is timed says itself how it computes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from leanformer.measure.rounds import in_turn, quick_collections

LEAST_SECONDS = 0.02
"""Calls are repeated until they take so long together: one call of some microseconds is below the clock's noise."""

Call = Callable[[], int]
"""Runs a model once, and gives the number of subwords that it wrote (0 of a classifier)."""


class Setting(NamedTuple):
    """What a call is given.

    Args:
        batch: Images or sentences.
        length: Subwords of each source, the end mark included; None: as long as the sentences are, and for images.
    """

    batch: int
    length: int | None


@dataclass(frozen=True)
class Clock:
    """Two clocks, in seconds.

    Args:
        wall: The clock on the wall.
        cpu: What the process has computed, on all its threads.
    """

    wall: Callable[[], float] = time.perf_counter
    cpu: Callable[[], float] = time.process_time


@dataclass
class Times:
    """The times of one model with one setting.

    Args:
        calls: In each round.
        tokens: Subwords that a call writes.
        wall_ms: Milliseconds of a call, one entry for each round: the median of its calls, so that a call during which
            another process had the processor does not count.
        cpu_ms: The process's own milliseconds in a call, likewise: the mean, as the clock is too coarse for one call.
        each_ms: Milliseconds of every call of all rounds.
    """

    calls: int
    tokens: int
    wall_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    each_ms: list[float] = field(default_factory=list)


def time_in_rounds(
    calls: Mapping[Setting, Sequence[Call]],
    rounds: int,
    clock: Clock = Clock(),
    progress: Callable[[int], object] = lambda further: None,
) -> dict[Setting, list[Times]]:
    """Times every model's calls once a round, one model right after the other; each round starts with another one.

    A model's first calls are not recorded: they are slower, and show how many make a round. In a round each model first
    makes a call that is not timed, because the one before has filled the processor's caches.

    Args:
        calls: Setting -> the call of each model, in one order for all settings.
        rounds: How many.
        clock: What tells the time.
        progress: Called after each round with 1.

    Returns:
        Setting -> the times of each model, in the order of ``calls``.
    """
    with quick_collections():
        times = {setting: [_first(call, clock) for call in models] for setting, models in calls.items()}
        for number in range(rounds):
            for setting, models in calls.items():
                for index in in_turn(range(len(models)), number):
                    _turn(models[index], times[setting][index], clock)
            progress(1)
    return times


def _first(call: Call, clock: Clock) -> Times:
    """Calls a model until that has taken the least time; the very first call, which may compile, does not count."""
    tokens = call()
    started = clock.wall()
    calls = 0
    while not calls or clock.wall() - started < LEAST_SECONDS:
        call()
        calls += 1
    return Times(calls, tokens)


def _turn(call: Call, times: Times, clock: Clock) -> None:
    """Adds one round's times of a model."""
    call()
    cpu = clock.cpu()
    marks = [clock.wall()]
    for _ in range(times.calls):
        call()
        marks.append(clock.wall())
    cpu = clock.cpu() - cpu
    each_ms = [1000 * (after - before) for before, after in pairwise(marks)]
    times.wall_ms.append(statistics.median(each_ms))
    times.cpu_ms.append(1000 * cpu / times.calls)
    times.each_ms += each_ms

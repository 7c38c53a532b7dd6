"""Several things measured in rounds, so that what else the machine does falls on all alike."""

from __future__ import annotations

import gc
import math
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from leanformer.results.rows import Median

T = TypeVar("T")

CONFIDENCE = 0.95


def in_turn(things: Sequence[T], number: int) -> list[T]:
    """The order of a round: each round starts with another thing.

    Args:
        things: What is measured; at least one.
        number: The round's.
    """
    start = number % len(things)
    return [*things[start:], *things[:start]]


@contextmanager
def quick_collections() -> Iterator[None]:
    """Keeps existing objects out of garbage collection, which each turn needs and they would make slow."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def fewest_rounds(confidence: float = CONFIDENCE) -> int:
    """The fewest rounds for which ``median`` has an interval: with n, all lie on one side with probability 2 / 2^n."""
    return math.ceil(math.log2(2 / (1 - confidence)))


def median(values: Sequence[float], confidence: float = CONFIDENCE) -> Median:
    """The median of one value for each round, with an interval that holds for any distribution.

    Its ends are the k-th smallest and the k-th largest value, for the greatest k that has the confidence: the true
    median lies below the k-th smallest with the probability that fewer than k of n tossed coins show heads (David and
    Nagaraja 2003, "Order Statistics", 7.1).

    Args:
        values: At least ``fewest_rounds``.
        confidence: Two-sided, at least; such as 0.95.

    Raises:
        ValueError: There are fewer values.
    """
    ordered = sorted(values)
    count = len(ordered)
    outside = 0.0
    place = 0  # the k of above
    while place < count:
        outside += 2 * math.comb(count, place) / 2**count
        if outside > 1 - confidence:
            break
        place += 1
    if place == 0:
        raise ValueError(f"{count} values have no interval of {confidence:g}; {fewest_rounds(confidence)} have")
    return Median(median=statistics.median(ordered), low=ordered[place - 1], high=ordered[-place])


def median_ratio(above: Sequence[float], below: Sequence[float], confidence: float = CONFIDENCE) -> Median:
    """The ratio of two figures, taken round by round: its median and interval, as ``median`` has them."""
    return median([one / other for one, other in zip(above, below, strict=True)], confidence)

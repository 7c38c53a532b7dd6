"""Times in rounds, on a clock of the tests' own: the order, the repeats, the medians and their intervals."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from scipy.stats import binom

from leanformer.measure.bench import LEAST_SECONDS, Clock, Setting, time_in_rounds
from leanformer.measure.rounds import fewest_rounds, in_turn, median, median_ratio

ONE, MANY = Setting(1, None), Setting(8, None)


class Machine:
    """Calls that take what they are said to take, on a clock that goes only then.

    Attributes:
        called: The names of the calls, in their order.
        slowness: By how much the clock on the wall goes faster than the process computes.
    """

    def __init__(self) -> None:
        self.now = self.computed = 0.0
        self.called: list[str] = []
        self.slowness = 1.0

    @property
    def clock(self) -> Clock:
        return Clock(wall=lambda: self.now, cpu=lambda: self.computed)

    def call(self, name: str, seconds: float, tokens: int = 0) -> Callable[[], int]:
        def call() -> int:
            self.called.append(name)
            self.now += seconds * self.slowness
            self.computed += seconds
            return tokens

        return call


def test_each_round_starts_with_another_model() -> None:
    machine = Machine()
    calls = {ONE: [machine.call(name, 1.0) for name in "abc"], MANY: [machine.call(name, 1.0) for name in "ABC"]}
    ended: list[int] = []
    time_in_rounds(calls, 4, machine.clock, lambda further: ended.append(len(machine.called)))
    before = 2 * 6  # the first calls: one alone, and one that takes the least time
    # In a round one call of each model and setting is not timed, and one is.
    rounds = [machine.called[before:][start : start + 12] for start in range(0, 48, 12)]
    assert ["".join(names[::2]) for names in rounds] == ["abcABC", "bcaBCA", "cabCAB", "abcABC"]
    assert ended == [24, 36, 48, 60]


def test_short_calls_are_repeated_until_the_clock_can_tell() -> None:
    machine = Machine()
    short, long = LEAST_SECONDS / 7.5, 10 * LEAST_SECONDS
    calls = [machine.call("short", short, tokens=3), machine.call("long", long)]
    (times,) = time_in_rounds({ONE: calls}, 6, machine.clock).values()
    assert [found.calls for found in times] == [8, 1]
    assert [found.tokens for found in times] == [3, 0]
    for found, seconds in zip(times, (short, long), strict=True):
        assert found.wall_ms == pytest.approx([1000 * seconds] * 6)
        assert found.cpu_ms == pytest.approx([1000 * seconds] * 6)
        assert found.each_ms == pytest.approx([1000 * seconds] * 6 * found.calls)
    in_rounds = machine.called[1 + 8 + 1 + 1 :]
    assert in_rounds[: 9 + 2] == ["short"] * 9 + ["long"] * 2


def test_a_call_during_which_others_compute_does_not_count() -> None:
    machine = Machine()
    usual = machine.call("usual", LEAST_SECONDS / 4.5)
    number = 0

    def disturbed() -> int:
        nonlocal number
        number += 1
        machine.slowness = 100.0 if number % 5 == 0 else 1.0
        return usual()

    (times,) = time_in_rounds({ONE: [disturbed]}, 6, machine.clock)[ONE]
    ms = 1000 * LEAST_SECONDS / 4.5
    assert times.wall_ms == pytest.approx([ms] * 6)
    assert times.cpu_ms == pytest.approx([ms] * 6)
    assert max(times.each_ms) == pytest.approx(100 * ms)


def test_ratios_are_of_the_same_round() -> None:
    """A machine that becomes slower and slower changes no ratio."""
    slow = [2.0 * 3**number for number in range(7)]
    fast = [1.0 * 3**number for number in range(7)]
    found = median_ratio(slow, fast)
    assert (found.median, found.low, found.high) == (2.0, 2.0, 2.0)
    assert median(slow).high / median(fast).low > 1000
    with pytest.raises(ValueError, match="zip"):
        median_ratio(slow, fast[1:])


@pytest.mark.parametrize("count", range(6, 60))
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_the_interval_lies_between_the_order_statistics_of_a_sign_test(count: int, confidence: float) -> None:
    found = median([(7 * number) % 61 for number in range(count)], confidence)
    ordered = sorted((7 * number) % 61 for number in range(count))
    place = int(binom.ppf((1 - confidence) / 2, count, 0.5))  # values below the interval, at the most
    assert (found.low, found.high) == (ordered[place - 1], ordered[count - place])
    covered = binom.cdf(count - place, count, 0.5) - binom.cdf(place - 1, count, 0.5)
    assert covered >= confidence


def test_too_few_rounds_have_no_interval() -> None:
    assert (fewest_rounds(), fewest_rounds(0.9), fewest_rounds(0.99)) == (6, 5, 8)
    assert median([3, 1, 2, 6, 5, 4]).model_dump() == {"median": 3.5, "low": 1, "high": 6}
    with pytest.raises(ValueError, match=r"5 values have no interval of 0\.95; 6 have"):
        median([1, 2, 3, 4, 5])


def test_the_order_of_rounds() -> None:
    assert [in_turn("abc", number) for number in (-1, 0, 1, 5)] == [list(word) for word in ("cab", "abc", "bca", "cab")]

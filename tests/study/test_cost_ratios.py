"""Ratios of costs, paired round by round, and the warning of a noisy machine."""

from __future__ import annotations

from typing import Any

import pytest

from leanformer.study.cost_ratios import noise_warnings, ratio, speed_ratios, without_interval


def speed(latency: list[float], **further: Any) -> dict[str, Any]:
    others = ("ms_per_token", "throughput_per_second", "tokens_per_second", "peak_memory_mb")
    rounds = {key: further.get(key, []) for key in others}
    return {"peak_memory_mb": further.get("peak"), "rounds": {"latency_ms": latency, **rounds}}


def test_a_ratio_is_taken_in_each_round() -> None:
    # The machine slows down by a factor of eight, of which the ratios know nothing.
    others = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    factors = [0.5, 0.4, 0.6, 0.45, 0.55, 0.5, 0.48, 0.52]
    found = ratio([one * factor for one, factor in zip(others, factors, strict=True)], others)
    # With 8 rounds, all lie above the median with a probability of 1/256: least and greatest cover 99.2 %.
    assert found == pytest.approx({"median": 0.5, "low": 0.4, "high": 0.6})


@pytest.mark.parametrize(("mine", "others"), [([1.0] * 5, [1.0] * 5), ([], []), ([1.0] * 6, [0.0] + [1.0] * 5)])
def test_too_few_rounds_have_no_interval(mine: list[float], others: list[float]) -> None:
    assert ratio(mine, others) is None


def test_each_cost_has_its_ratio() -> None:
    mine = speed([1.0] * 6, throughput_per_second=[30.0] * 6, peak=5.0)
    base = speed([2.0] * 6, throughput_per_second=[10.0] * 6, peak=20.0)
    found = speed_ratios(mine, base)
    assert {cost: one and one["median"] for cost, one in found.items()} == {
        "latency": 0.5,
        "throughput": 3.0,
        "token_time": None,
        "token_throughput": None,
        "memory": 0.25,  # counted, so that one value is enough
    }
    assert found["memory"] == {"median": 0.25, "low": 0.25, "high": 0.25}


def test_the_memory_of_processes_needs_rounds() -> None:
    few, many = ([4.0, 5.0], [8.0, 10.0]), ([4.0] * 5 + [6.0], [8.0] * 6)
    for (mine, base), expected in ((few, None), (many, {"median": 0.5, "low": 0.5, "high": 0.75})):
        found = speed_ratios(speed([], peak_memory_mb=mine, peak=4.0), speed([], peak_memory_mb=base, peak=8.0))
        assert found["memory"] == expected


def rows(latency: list[float], **widths: float) -> list[dict[str, Any]]:
    candidates = [
        {
            "name": name,
            "speeds": [],
            "cost_ratios": {"latency": {"median": 0.5, "low": 0.5, "high": 0.5 + width}, "throughput": None},
        }
        for name, width in widths.items()
    ]
    return [{"name": "baseline", "speeds": [speed(latency)], "cost_ratios": None}, *candidates]


def test_a_noisy_machine_is_said_to_be_one() -> None:
    # Quartiles of 1 to 9 are 3 and 7, around 5.
    (warning,) = noise_warnings(rows([float(value) for value in range(1, 10)], small=0.05, wide=0.11), "wait")
    assert warning.code == "noisy-machine"
    assert warning.count == 2
    assert warning.sentence == (
        "the machine was busy with other things while costs were measured: the baseline's latency varies by 80 % "
        "between rounds (interquartile range), and latency or throughput as multiples of the baseline's have "
        "intervals wider than 20 % (wide); wait"
    )
    (warning,) = noise_warnings(rows([5.0] * 8, wide=0.11), "wait")
    assert "interquartile" not in warning.sentence
    assert warning.count == 1


def test_a_quiet_machine_and_one_of_few_rounds_are_not() -> None:
    assert noise_warnings(rows([5.0, 5.2] * 4, small=0.09), "wait") == []
    assert noise_warnings(rows([1.0, 9.0] * 2), "wait") == []
    assert noise_warnings([{"name": "baseline", "speeds": [], "cost_ratios": None}], "wait") == []
    assert noise_warnings([{"name": "b", "speeds": [{"rounds": None}], "cost_ratios": None}], "wait") == []


def test_why_there_is_no_interval() -> None:
    assert without_interval("latency", 2) == "it takes 6 rounds, and measure.repeats is 2"
    assert without_interval("train_seconds", 8) == "a distilled model is timed once, while it is taught"
    assert without_interval("memory", 8) == "the memory was not measured in every round"

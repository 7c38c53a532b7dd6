"""Accept, reject or undecided; what would decide; which model to ship."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from leanformer.decide.decision import Decision, decide, recommend
from leanformer.decide.statistics import Comparison, compare

RANDOM = np.random.default_rng(3)
EXAMPLES = 1_000


def arm(accuracy: float, seeds: int = 3, examples: int = EXAMPLES) -> np.ndarray:
    return (RANDOM.random((seeds, examples)) < accuracy).astype(float)


def with_p(p_noninferior: float, p_inferior: float | None = None) -> Comparison:
    """A comparison with these p-values."""
    base = compare(arm(0.9), arm(0.9), 0.01, 0.95)
    return replace(
        base, p_noninferior=p_noninferior, p_inferior=1 - p_noninferior if p_inferior is None else p_inferior
    )


def test_three_outcomes() -> None:
    baseline = arm(0.95)
    found = decide(
        {
            "same": compare(baseline, baseline.copy(), 0.05, 0.95),
            "worse": compare(baseline, arm(0.7), 0.05, 0.95),
            "near": compare(baseline, arm(0.9), 0.05, 0.95),
        },
        0.05,
        0.95,
    )
    assert {name: decision.decision for name, decision in found.items()} == {
        "same": "accept",
        "worse": "reject",
        "near": "undecided",
    }
    assert "a drop of 5 or more is ruled out" in found["same"].reason
    assert "the drop is more than 5" in found["worse"].reason
    assert found["same"].more_seeds is None
    assert found["worse"].more_examples is None


def test_several_candidates_are_several_tests() -> None:
    alone = decide({"a": with_p(0.03)}, 0.01, 0.95)
    assert alone["a"].decision == "accept"
    assert alone["a"].p_adjusted == pytest.approx(0.03)
    # Holm: 0.01 x 3 passes, then 0.03 x 2 does not, and stops 0.04 x 1 too.
    three = decide({"a": with_p(0.03), "b": with_p(0.01), "c": with_p(0.04)}, 0.01, 0.95)
    assert [three[name].p_adjusted for name in "abc"] == pytest.approx([0.06, 0.03, 0.06])
    assert [three[name].decision for name in "abc"] == ["undecided", "accept", "undecided"]
    # Rejections are corrected likewise, among themselves.
    rejected = decide({"a": with_p(0.96), "b": with_p(0.97)}, 0.01, 0.95)
    assert [decision.decision for decision in rejected.values()] == ["undecided", "undecided"]
    assert decide({"a": with_p(0.97)}, 0.01, 0.95)["a"].decision == "reject"


@pytest.mark.parametrize("number", [1, 2, 6])
def test_the_correction_is_holms(number: int) -> None:
    p_values = RANDOM.random(number) ** 3
    found = decide({str(index): with_p(p) for index, p in enumerate(p_values)}, 0.01, 0.95)
    expected = multipletests(p_values, method="holm")[1]
    assert [decision.p_adjusted for decision in found.values()] == pytest.approx(expected)


def test_the_confidence_is_the_studys() -> None:
    assert decide({"a": with_p(0.03)}, 0.01, 0.99)["a"].decision == "undecided"
    assert decide({"a": with_p(0.09)}, 0.01, 0.90)["a"].decision == "accept"


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("towards", [-0.8, 0.8])
def test_so_many_more_would_decide_and_one_fewer_would_not(towards: float, seeds: int) -> None:
    baseline, candidate = arm(0.9, seeds), arm(0.85, seeds)
    near = compare(baseline, candidate, 0.0, 0.95)
    max_drop = towards * near.standard_error - near.difference.mean  # less than a standard error from the margin
    comparison = compare(baseline, candidate, max_drop, 0.95)
    found = decide({"a": comparison, "sure": with_p(1e-9)}, max_drop, 0.95)["a"]
    assert found.decision == "undecided"
    towards_accept = comparison.difference.mean > -max_drop
    level = 0.05 / (1 if towards_accept else 2)  # of two candidates, one is accepted already

    def p_value(more_seeds: int, more_examples: int) -> float:
        greater = comparison.components.p_value(comparison.difference.mean + max_drop, more_seeds, more_examples)
        return greater if towards_accept else 1 - greater

    if seeds > 1:
        assert found.more_seeds is not None
        assert p_value(found.more_seeds, 0) <= level < p_value(found.more_seeds - 1, 0)
    else:
        assert found.more_examples is not None
        assert p_value(0, found.more_examples) <= level < p_value(0, found.more_examples - 1)


def test_no_number_of_examples_outweighs_three_seeds_that_differ() -> None:
    seeds = np.array([0.80, 0.90, 0.97])
    baseline = np.stack([arm(accuracy, 1)[0] for accuracy in seeds])
    candidate = np.stack([arm(accuracy, 1)[0] for accuracy in seeds[::-1] - 0.005])
    found = decide({"a": compare(baseline, candidate, 0.02, 0.95)}, 0.02, 0.95)["a"]
    assert found.decision == "undecided"
    assert found.more_examples is None
    assert found.more_seeds is not None
    assert found.more_seeds > 10


def test_one_trained_pair_is_not_asked_for_seeds() -> None:
    baseline = arm(0.9, seeds=1)
    candidate = baseline.copy()
    candidate[0, :15] = 1 - candidate[0, :15]
    found = decide({"a": compare(baseline, candidate, 0.015, 0.95)}, 0.015, 0.95)["a"]
    assert found.decision == "undecided"
    assert found.more_seeds is None
    assert found.more_examples is not None


def verdicts(**decisions: str) -> dict[str, Decision]:
    return {name: Decision(kind, "", 0.5, 0.5, None, None) for name, kind in decisions.items()}  # type: ignore[arg-type]


def test_the_cheapest_accepted_is_recommended() -> None:
    prices = {"baseline": 100.0, "a": 50.0, "b": 10.0, "c": 1.0}
    name, why = recommend(prices, verdicts(a="accept", b="accept", c="undecided"), "baseline", "parameters")
    assert name == "b"
    assert "0.1 x the baseline's parameters" in why
    assert "2 accepted candidates" in why


def test_the_baseline_is_kept_with_the_reason() -> None:
    prices = {"baseline": 100.0, "a": 150.0, "b": None}
    assert recommend(prices, verdicts(a="accept", b="accept"), "baseline", "latency") == (
        "baseline",
        "Keep the baseline: no accepted candidate has less latency.",
    )
    _, why = recommend(prices, verdicts(a="undecided", b="reject"), "baseline", "latency")
    assert why == "Keep the baseline: no candidate is shown to be good enough yet."
    _, why = recommend(prices, verdicts(a="reject", b="reject"), "baseline", "train_seconds")
    assert why == "Keep the baseline: no candidate is good enough."
    assert recommend({"baseline": 1.0}, {}, "baseline", "parameters")[0] == "baseline"

"""Decisions on several candidates, what would decide undecided ones, and the model to ship."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from leanformer.decide import judge
from leanformer.decide.decision import (
    Decision,
    _least,
    _shrunk,
    after_picking,
    broken_at_most,
    decide,
    recommend,
    weak_baseline,
    without_acceptances,
)
from leanformer.decide.looks import Look
from leanformer.decide.statistics import Comparison, Components, Interval, compare
from leanformer.results.metrics import METRICS
from leanformer.results.rows import Median

MARGIN, CONFIDENCE = 0.01, 0.95
ACCURACY = METRICS["accuracy"]


def comparison(mean: float, components: Components, more_seeds: int = 0, more_examples: int = 0) -> Comparison:
    """A comparison with this estimate and these components, with additional seeds or examples."""
    variance, freedom = components.variance(more_seeds, more_examples)
    error = variance**0.5
    p_value = components.p_noninferior(mean, MARGIN, more_seeds, more_examples)
    one_pair = set(components.num_seeds) == {1}
    return Comparison(
        difference=Interval(mean, mean - 2 * error, mean + 2 * error),
        standard_error=error,
        degrees_of_freedom=freedom,
        p_noninferior=p_value,
        p_inferior=components.p_inferior(mean, MARGIN, more_seeds, more_examples),
        components=components,
        scope="one trained pair" if one_pair else "seeds and examples",
    )


def with_p(p_value: float) -> Comparison:
    """A comparison with this p-value; the other numbers are those of a difference a little above the margin."""
    base = comparison(-0.008, Components(0.05, (1e-5, 1e-5), (0.02, 0.02), (3, 3), 1000))
    return replace(base, p_noninferior=p_value, p_inferior=1 - p_value)


def decided(words: Mapping[str, str]) -> dict[str, Decision]:
    """Decisions; only their word matters."""
    return {name: Decision(word, "", 0.5, 0.5, None, None) for name, word in words.items()}  # type: ignore[arg-type]


def test_one_candidate_is_not_corrected() -> None:
    found = decide({"only": with_p(0.04)}, MARGIN, CONFIDENCE, ACCURACY)["only"]
    assert found.decision == "accept"
    assert found.p_adjusted == pytest.approx(found.p_value) == pytest.approx(0.04)
    assert (found.more_seeds, found.more_examples) == (None, None)


def test_holm_over_the_accept_tests() -> None:
    p_values = {"a": 0.04, "b": 0.001, "c": 0.013, "d": 0.5, "e": 0.999}
    found = decide({name: with_p(p) for name, p in p_values.items()}, MARGIN, CONFIDENCE, ACCURACY)
    expected = multipletests(list(p_values.values()), method="holm")[1]
    assert [decision.p_adjusted for decision in found.values()] == pytest.approx(list(expected))
    assert [decision.p_value for decision in found.values()] == pytest.approx(list(p_values.values()))
    # b: 5 x 0.001; c: 4 x 0.013 is too much, so a is not tested, though it would pass alone; e: 5 x (1 - 0.999).
    assert [decision.decision for decision in found.values()] == [
        "undecided",
        "accept",
        "undecided",
        "undecided",
        "reject",
    ]


def test_reject_tests_are_corrected_as_well() -> None:
    alone = decide({"a": with_p(0.98)}, MARGIN, CONFIDENCE, ACCURACY)
    assert alone["a"].decision == "reject"
    six = decide(
        {name: with_p(0.98) if name == "a" else with_p(0.5) for name in "abcdef"}, MARGIN, CONFIDENCE, ACCURACY
    )
    assert six["a"].decision == "undecided"


def test_confidence_is_the_level() -> None:
    assert decide({"a": with_p(0.03)}, MARGIN, 0.95, ACCURACY)["a"].decision == "accept"
    assert decide({"a": with_p(0.03)}, MARGIN, 0.99, ACCURACY)["a"].decision == "undecided"


def test_no_candidates() -> None:
    assert decide({}, MARGIN, CONFIDENCE, ACCURACY) == {}


def test_new_examples_decide_with_a_power_of_80_percent() -> None:
    # Distance from the margin 0.008, in errors 1.131; shrunk by 1.131² / (1 + 1.131²) = 0.5614 to 0.004491. Quantiles
    # of 95 and 80 % are 1.6449 and 0.8416: (2.4865 / 0.004491)² x 0.05 = 15,327 examples.
    one_pair = comparison(-0.002, Components(0.05, (0.0, 0.0), (0.0, 0.0), (1, 1), 1000))
    found = decide({"a": one_pair}, MARGIN, CONFIDENCE, ACCURACY)["a"]
    assert found.decision == "undecided"
    assert found.more_seeds is None
    assert found.more_examples == pytest.approx(15_327, rel=0.002)
    # New examples are tested alone: neither other candidates nor looks count.
    several = decide({"a": one_pair, "b": with_p(0.4)}, MARGIN, CONFIDENCE, ACCURACY, Look(2, 4, 3))["a"]
    assert several.more_examples == found.more_examples
    # The same power towards a rejection; the margin lies between both.
    worse = decide({"a": comparison(-0.018, one_pair.components)}, MARGIN, CONFIDENCE, ACCURACY)["a"]
    assert worse.more_examples == pytest.approx(15_327, rel=0.002)


@pytest.mark.parametrize("others", [0, 3])
def test_more_seeds_decide_at_the_next_look(others: int) -> None:
    components = Components(0.002, (3e-6, 6e-6), (0.02, 0.025), (3, 3), 70_000, 0.3)
    look = Look(1, 2, others)
    undecided = comparison(-0.006, components)
    found = decide({"a": undecided}, MARGIN, CONFIDENCE, ACCURACY, look)["a"]
    assert found.decision == "undecided"
    assert found.more_seeds is not None
    shrunk = _shrunk(undecided, MARGIN)
    assert -MARGIN < shrunk < -0.006

    def power_is_reached(more: int) -> bool:
        variance, freedom = components.variance(more_seeds=more)
        level = 0.05 / 2 / (1 + others)
        return bool((shrunk + MARGIN) / variance**0.5 >= stats.t.isf(level, freedom) + stats.norm.ppf(0.8) - 0.03)

    assert power_is_reached(found.more_seeds + 1)
    assert not power_is_reached(found.more_seeds - 2)
    assert decide({"a": undecided}, MARGIN, CONFIDENCE, ACCURACY, Look(2, 2, others))["a"].more_seeds is None


def test_what_is_out_of_reach() -> None:
    on_the_margin = comparison(-0.0099, Components(0.05, (0.0, 0.0), (0.0, 0.0), (3, 3), 300))
    found = decide({"a": on_the_margin}, MARGIN, CONFIDENCE, ACCURACY, Look(1, 2))["a"]
    assert (found.more_seeds, found.more_examples) == (None, None)


def test_more_examples_cannot_help_against_the_seeds() -> None:
    found = decide(
        {"a": comparison(-0.003, Components(0.03, (4e-5, 4e-5), (0.02, 0.02), (3, 3), 100_000))},
        MARGIN,
        CONFIDENCE,
        ACCURACY,
        Look(1, 2),
    )["a"]
    assert found.more_examples is None
    assert found.more_seeds is not None


def test_looks_divide_the_error_and_spend_it() -> None:
    at_3_percent = {"a": with_p(0.03)}
    assert decide(at_3_percent, MARGIN, CONFIDENCE, ACCURACY, Look(1, 1))["a"].decision == "accept"
    assert decide(at_3_percent, MARGIN, CONFIDENCE, ACCURACY, Look(1, 2))["a"].decision == "undecided"
    assert decide({"a": with_p(0.02)}, MARGIN, CONFIDENCE, ACCURACY, Look(2, 2))["a"].decision == "accept"
    spent = decide({"a": with_p(1e-9)}, MARGIN, CONFIDENCE, ACCURACY, Look(3, 2))["a"]
    assert spent.decision == "undecided"
    assert "all 2 looks at this test split were taken" in spent.reason
    for surely in (with_p(0.0), with_p(1.0)):  # also not where a p-value is rounded to 0
        assert decide({"a": surely}, MARGIN, CONFIDENCE, ACCURACY, Look(3, 2))["a"].decision == "undecided"


def test_candidates_of_earlier_looks_count() -> None:
    one = {"a": with_p(0.01)}
    assert decide(one, MARGIN, CONFIDENCE, ACCURACY, Look(1, 1, others=4))["a"].p_adjusted == pytest.approx(0.05)
    assert decide(one, MARGIN, CONFIDENCE, ACCURACY, Look(1, 1, others=5))["a"].decision == "undecided"


def test_accepted_stays_accepted() -> None:
    look = Look(2, 2, accepted={"a": 1})
    found = decide({"a": with_p(0.4), "b": with_p(0.4)}, MARGIN, CONFIDENCE, ACCURACY, look)
    assert (found["a"].decision, found["a"].accepted_at) == ("accept", 1)
    assert "was ruled out at look 1" in found["a"].reason
    assert (found["b"].decision, found["b"].accepted_at) == ("undecided", None)
    spent = decide({"a": with_p(0.4)}, MARGIN, CONFIDENCE, ACCURACY, Look(3, 2, accepted={"a": 1}))
    assert spent["a"].decision == "accept"


def test_an_interval_after_picking_is_bonferronis() -> None:
    found = comparison(-0.004, Components(0.05, (0.0, 0.0), (0.0, 0.0), (1, 1), 1000))
    interval = after_picking(found, 0.95, 20, 1.0)
    half = stats.t.ppf(1 - 0.025 / 20, 999) * (0.05 / 1000) ** 0.5
    assert (interval.low, interval.high) == pytest.approx((-0.004 - half, -0.004 + half))


def test_broken_trainings_that_nobody_saw() -> None:
    assert broken_at_most(3, 0.95) == pytest.approx(0.6316, abs=1e-4)  # 1 - 0.05^(1/3)
    assert broken_at_most(1, 0.95) == pytest.approx(0.95)


def test_an_estimate_on_the_margin_decides_never() -> None:
    components = Components(0.03, (1e-5, 1e-5), (0.02, 0.02), (3, 3), 1000)
    found = decide({"a": comparison(-MARGIN, components)}, MARGIN, CONFIDENCE, ACCURACY)["a"]
    assert (found.decision, found.more_seeds, found.more_examples) == ("undecided", None, None)


def test_fewer_may_decide_where_more_do_not() -> None:
    # With more examples, seeds have a larger share of the variance, and the degrees of freedom fall.
    assert _least(lambda count: 100 <= count <= 130, 10_000_000) == 100
    assert _least(lambda count: count >= 1, 1000) == 1
    assert _least(lambda count: count >= 1000, 1000) == 1000
    assert _least(lambda count: count > 1000, 1000) is None


def test_one_pair_speaks_of_itself() -> None:
    generator = np.random.default_rng(0)
    baseline = generator.random((1, 2000)) < 0.95
    undecided = decide({"a": compare(baseline, baseline[:, ::-1], 0.01, 0.95)}, MARGIN, CONFIDENCE, ACCURACY)["a"]
    assert undecided.decision == "undecided"
    assert undecided.more_seeds is None
    assert undecided.more_examples is not None
    accepted = decide({"a": compare(baseline, baseline, 0.01, 0.95)}, MARGIN, CONFIDENCE, ACCURACY)["a"]
    rejected = decide({"a": compare(baseline, ~baseline, 0.01, 0.95)}, MARGIN, CONFIDENCE, ACCURACY)["a"]
    assert (accepted.decision, rejected.decision) == ("accept", "reject")
    for decision in (undecided, accepted, rejected):
        assert "this one trained pair" in decision.reason


def test_reasons_are_one_sentence_with_the_margin_as_given() -> None:
    many = {name: with_p(p) for name, p in (("a", 0.001), ("b", 0.5), ("c", 0.999), ("d", 0.9))}
    for decision in decide(many, 0.0125, CONFIDENCE, ACCURACY).values():
        assert "1.25 points" in decision.reason
        assert decision.reason.endswith(".")
        assert "one trained pair" not in decision.reason
    assert "1 point or more" in decide({"a": with_p(0.001)}, 0.01, CONFIDENCE, ACCURACY)["a"].reason


def test_a_reason_names_the_exact_bound_where_that_stands_in_the_way() -> None:
    """100 examples without a loss happen in 37 % of studies at a margin of 1 point."""
    same = compare(np.ones((1, 100)), np.ones((1, 100)), MARGIN, CONFIDENCE)
    reason = decide({"same": same}, MARGIN, CONFIDENCE, ACCURACY)["same"].reason
    assert reason.endswith("(p = 0.37 by the exact bound on few losses).")
    rare = np.ones((2, 1, 1000))
    rare[1, 0, :5] = rare[0, 0, 5:10] = 0
    many = compare(rare[0], rare[1], MARGIN, 0.9999)
    assert "exact bound" not in decide({"a": many, "b": many}, MARGIN, 0.9999, ACCURACY)["a"].reason


def test_no_reason_says_that_p_is_zero() -> None:
    reasons = [decide({"a": with_p(p)}, 0.01, CONFIDENCE, ACCURACY)["a"].reason for p in (0.021, 1e-6)]
    assert [reason.rpartition("(")[2] for reason in reasons] == ["p = 0.021).", "p < 0.0001)."]


@pytest.mark.parametrize(("baseline", "kept"), [(0.31, True), (0.10, False), (0.1099, False), (0.1101, True)])
def test_nothing_is_accepted_beside_a_worthless_baseline(baseline: float, kept: bool) -> None:
    given = decided({"small": "accept", "worse": "reject", "open": "undecided"})
    given["small"] = replace(given["small"], accepted_at=1)
    reason = weak_baseline(baseline, 0.1, 0.01, ACCURACY)
    assert (reason is None) == kept
    if reason is not None:
        found = without_acceptances(given, reason)
        assert [decision.decision for decision in found.values()] == ["undecided", "reject", "undecided"]
        assert found["small"].accepted_at is None
        assert found["small"].reason.startswith(f"The baseline itself has {100 * baseline:.2f} points")
        assert "within 1 point" in found["small"].reason


def test_the_cheapest_accepted_is_recommended() -> None:
    prices = {"baseline": 100.0, "large": 80.0, "small": 10.0, "tiny": 5.0}
    decisions = decided({"large": "accept", "small": "accept", "tiny": "undecided"})
    name, sentence = recommend(prices, decisions, "baseline", "parameters")
    assert name == "small"
    assert "small" in sentence
    assert "0.1 x the baseline's parameters" in sentence


def between(low: float, median: float, high: float) -> Median:
    return Median(low=low, median=median, high=high)


def test_ties_go_by_the_study_order() -> None:
    prices = {"baseline": 100.0, **dict.fromkeys("gcafb", 10.0)}
    accepted = decided(dict.fromkeys("gcafb", "accept"))
    assert recommend(prices, accepted, "baseline", "parameters")[0] == "g"
    ratios = dict.fromkeys("gcafb", between(0.09, 0.1, 0.11))
    assert recommend(prices, accepted, "baseline", "latency", ratios)[0] == "g"


NO_ROUNDS = "it takes 6 rounds, and measure.repeats is 2"
SLOW, FAST, UNSURE = between(1.1, 1.2, 1.3), between(0.386, 0.42, 0.457), between(0.9, 0.97, 1.05)


@pytest.mark.parametrize(
    ("prefer", "ratios", "expected"),
    [
        ("latency", {"a": FAST}, ("a", "Ship a: it is accepted, with 0.42 x the baseline's latency (0.39 to 0.46).")),
        (
            "latency",
            {"a": FAST, "b": between(0.3, 0.4, 0.9981)},
            (
                "b",
                "Ship b: it is accepted, with 0.40 x the baseline's latency (0.30 to 0.9981), the least of 2 accepted "
                "candidates.",
            ),
        ),
        (  # the one with the least estimate is not shown to have less
            "latency",
            {"a": FAST, "b": between(0.1, 0.3, 1.1)},
            ("a", "Ship a: it is accepted, with 0.42 x the baseline's latency (0.39 to 0.46)."),
        ),
        (
            "latency",
            {"a": FAST, "b": between(0.1, 0.3, 1.1), "c": between(0.5, 0.6, 0.7)},
            (
                "a",
                "Ship a: it is accepted, with 0.42 x the baseline's latency (0.39 to 0.46), the least of 2 accepted "
                "candidates that are shown to have less.",
            ),
        ),
        (
            "latency",
            {"a": UNSURE, "b": SLOW},
            (
                "baseline",
                "Keep the baseline: no accepted candidate is shown to have less latency; a has 0.97 x the baseline's "
                "latency (0.90 to 1.05).",
            ),
        ),
        ("latency", {"b": SLOW}, ("baseline", "Keep the baseline: no accepted candidate has less latency.")),
        (
            "latency",
            {"a": None},
            (
                "baseline",
                "Keep the baseline: no accepted candidate is shown to have less latency, as there is no interval (it "
                "takes 6 rounds, and measure.repeats is 2).",
            ),
        ),
        (  # nothing is known of a
            "train_seconds",
            {"a": None, "b": SLOW},
            (
                "baseline",
                "Keep the baseline: no accepted candidate is shown to have less training time; b has 1.20 x the "
                "baseline's training time (1.10 to 1.30).",
            ),
        ),
        (
            "throughput",
            {"a": SLOW},
            ("a", "Ship a: it is accepted, with 1.20 x the baseline's throughput (1.10 to 1.30)."),
        ),
        (
            "throughput",
            {"a": FAST},
            ("baseline", "Keep the baseline: no accepted candidate has more throughput."),
        ),
        (
            "memory",
            {"a": between(0.25, 0.25, 0.25)},
            ("a", "Ship a: it is accepted, with 0.25 x the baseline's memory."),
        ),
    ],
)
def test_cheaper_is_what_the_interval_shows(
    prefer: str, ratios: dict[str, Median | None], expected: tuple[str, str]
) -> None:
    # The point estimates all say less, and decide nothing.
    prices: dict[str, float | None] = {"baseline": 100.0, **dict.fromkeys(ratios, 90.0)}
    accepted = decided(dict.fromkeys(ratios, "accept"))
    assert recommend(prices, accepted, "baseline", prefer, ratios, NO_ROUNDS) == expected


@pytest.mark.parametrize(
    ("prices", "words", "part"),
    [
        ({"baseline": 100.0, "a": 10.0}, {"a": "reject"}, "no candidate is good enough"),
        ({"baseline": 100.0, "a": 10.0, "b": 5.0}, {"a": "reject", "b": "undecided"}, "yet"),
        ({"baseline": 100.0, "a": 120.0}, {"a": "accept"}, "no accepted candidate has less parameters"),
        ({"baseline": 100.0, "a": 100.0}, {"a": "accept"}, "no accepted candidate has less parameters"),
        ({"baseline": 100.0, "a": None}, {"a": "accept"}, "not measured"),
        ({"baseline": None, "a": 10.0}, {"a": "accept"}, "not measured"),
        ({"baseline": 100.0, "failed": 10.0}, {}, "no candidate is good enough"),
    ],
)
def test_the_baseline_is_kept(prices: dict[str, float | None], words: dict[str, str], part: str) -> None:
    name, sentence = recommend(prices, decided(words), "baseline", "parameters")
    assert name == "baseline"
    assert part in sentence
    assert sentence.endswith(".")


def test_an_unmeasured_candidate_does_not_stop_the_others() -> None:
    prices = {"baseline": 100.0, "a": None, "b": 50.0}
    ratios = {"a": None, "b": between(0.4, 0.5, 0.6)}
    accepted = decided({"a": "accept", "b": "accept"})
    assert recommend(prices, accepted, "baseline", "train_seconds", ratios)[0] == "b"


def test_the_method_names_the_kind_of_metric_and_what_one_seed_cannot_say() -> None:
    accuracy, bleu = (
        judge.method(METRICS[key], 3, word, 2) for key, word in (("accuracy", "example"), ("bleu", "sentence"))
    )
    assert "analysis of variance with examples and seeds crossed" in accuracy
    assert "bootstrap" not in accuracy
    assert "sacreBLEU's corpus scores" in bleu
    assert "paired bootstrap, with the same resampled sentences for every model and seed" in bleu
    alone = judge.method(METRICS["chrf"], 1, "sentence", 1)
    assert "There is one seed" in alone
    assert "for every model)" in alone
    assert "variance" not in alone
    assert "2 planned looks" in bleu
    assert "looks" not in alone

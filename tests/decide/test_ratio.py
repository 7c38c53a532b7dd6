"""The test of a ratio of error rates: against plain enumeration, and how often it accepts at the margin."""

from __future__ import annotations

import numpy as np
import pytest
from cases import slow
from scipy.stats import multinomial

from leanformer.decide.decision import _shrunk, decide
from leanformer.decide.judge import compare
from leanformer.decide.looks import Look
from leanformer.decide.ratio import SET_ASIDE, _tails, compare_errors, exact_p_values
from leanformer.results.metrics import METRICS

ACCURACY = METRICS["accuracy"]


def enumerated(baseline_only: int, candidate_only: int, both: int, limit: float, share: float) -> tuple[float, float]:
    """Both tails, by all possible counts of as many examples; the candidate's share follows from the limit."""
    count = baseline_only + candidate_only + both
    other = (share + limit - 1) / limit  # other + (1 - share - other) is limit times share + (1 - share - other)
    assert other + (1 - share - other) == pytest.approx(limit * (1 - other))
    observed = (candidate_only + both) - limit * (baseline_only + both)
    low = high = 0.0
    for first in range(count + 1):
        for second in range(count + 1 - first):
            shared = count - first - second
            probability = multinomial.pmf([first, second, shared], count, [share, other, 1 - share - other])
            statistic = (second + shared) - limit * (first + shared)
            low += probability * (statistic <= observed + 1e-9)
            high += probability * (statistic >= observed - 1e-9)
    return low, high


@pytest.mark.parametrize(
    ("counts", "limit", "share"),
    [
        ((3, 2, 6), 1.1, 0.2),
        ((0, 2, 6), 1.5, 0.05),
        ((4, 1, 3), 1.05, 0.4),
        ((0, 0, 5), 1.2, 0.0),
        ((2, 5, 0), 1.0, 0.5),
    ],
)
def test_tails_are_those_of_all_counts(counts: tuple[int, int, int], limit: float, share: float) -> None:
    tails = _tails(counts[0], counts[1], sum(counts), np.array([share]), limit - 1)
    assert np.concatenate(tails) == pytest.approx(enumerated(*counts, limit, share))


def test_the_p_value_is_the_greatest_over_the_unknown_share() -> None:
    greatest = max(enumerated(3, 2, 6, 1.1, share)[0] for share in np.linspace(0, 1 / 2.1, 40))
    assert exact_p_values(3, 2, 6, 1.1)[0] == pytest.approx(greatest + SET_ASIDE, rel=0.01)


def test_where_nobody_errs_nothing_is_shown() -> None:
    right = np.ones((1, 500))
    found = compare_errors(right, right, 1.5, 0.95)
    assert (found.p_noninferior, found.p_inferior) == (1, 1)
    assert decide({"a": found}, 0.0, 0.95, ACCURACY)["a"].decision == "undecided"


def outcomes(right: int, baseline_only: int, candidate_only: int, both: int) -> tuple[np.ndarray, np.ndarray]:
    counts = (right, baseline_only, candidate_only, both)
    return np.repeat([[1.0, 0, 1, 0]], counts, axis=1), np.repeat([[1.0, 1, 0, 0]], counts, axis=1)


def test_decisions_and_their_sentences() -> None:
    def decided(*counts: int) -> tuple[str, str]:
        first, second = (np.stack([row[0], np.ones_like(row[0])], axis=1) for row in outcomes(*counts))
        found = compare(ACCURACY, [first], [second], 0.0, 0.95, max_ratio=1.1)
        assert found.difference.mean == pytest.approx((counts[1] - counts[2]) / sum(counts))
        made = decide({"a": found}, 0.0, 0.95, ACCURACY)["a"]
        return made.decision, made.reason

    decision, reason = decided(9_000, 200, 150, 650)
    assert decision == "accept"
    assert reason.startswith(
        "0.94 times the baseline's error rate; an error rate of 1.10 times the baseline's or more is "
    )
    decision, reason = decided(9_000, 100, 400, 500)
    assert decision == "reject"
    assert reason.startswith(
        "1.50 times the baseline's error rate; the error rate is more than 1.10 times the baseline's"
    )
    decision, reason = decided(990, 4, 4, 2)
    assert decision == "undecided"
    assert "1.00 times the baseline's error rate; an error rate of 1.10 times the baseline's or more is not " in reason
    assert decided(900, 0, 100, 0)[1].startswith("It makes errors, and the baseline none; ")
    same = decided(1_000, 0, 0, 0)[1]  # with a margin of no errors at all, and a difference just as large
    assert same.startswith("It makes errors as often as the baseline, which makes none; ")
    assert " is not ruled out yet" in same


@pytest.mark.parametrize(
    ("counts", "examples", "limit", "side"),
    [((0, 0, 4), 300, 1.5, 0), *slow(((10, 5, 30), 1000, 1.1, 0), ((1, 9, 5), 1000, 1.3, 1))],
)
def test_advised_examples_decide_with_the_test_that_decides(
    counts: tuple[int, int, int], examples: int, limit: float, side: int
) -> None:
    """With few errors the exact test needs far more examples than the t test: 3,788 here where that says 2,054."""
    found = compare_errors(*outcomes(examples - sum(counts), *counts), limit, 0.95)
    (decision,) = decide({"a": found}, 0.0, 0.95, ACCURACY).values()
    assert decision.decision == "undecided"
    assert decision.more_examples is not None
    # Counts of so many new examples, at the rates that the advice assumes.
    assert found.ratio is not None
    baseline, both = (counts[0] + counts[2]) / examples, counts[2] / examples
    candidate = limit * baseline - _shrunk(found.ratio.combined, 0.0)
    both = min(both, candidate)
    shares = [baseline - both, candidate - both, both]
    drawn = np.random.default_rng(0).multinomial(decision.more_examples, [*shares, 1 - sum(shares)], 400)
    decided = np.mean([exact_p_values(one, two, same, limit)[side] <= 0.05 for one, two, same, _ in drawn.tolist()])
    assert 0.76 < decided < 0.94


def test_advice_for_seeds_is_by_the_test_that_decides() -> None:
    """Where all net errors are additional ones, the exact bound decides, and not the t test."""
    old = np.ones((3, 1000))
    old[:, :10] = 0
    found = compare_errors(old, old, 1.3, 0.95)
    (decision,) = decide({"a": found}, 0.0, 0.95, ACCURACY, Look(planned=2)).values()
    assert decision.decision == "undecided"
    assert found.ratio is not None
    alone = found.ratio.combined.components.p_noninferior(found.ratio.combined.difference.mean, 0.0)
    assert found.p_noninferior > 1.5 * alone
    assert decision.more_examples is not None
    assert decision.more_examples > 1000  # so many do not decide
    again = compare_errors(np.tile(old, (1, 2)), np.tile(old, (1, 2)), 1.3, 0.95)
    assert again.p_noninferior < 0.05


@pytest.mark.parametrize(
    ("examples", "errors", "r", "shared"),
    [
        (1_000, 0.05, 0.5, 0.5),
        pytest.param(300, 0.2, 0.1, 0.95, marks=pytest.mark.long),
        pytest.param(5_000, 0.01, 0.05, 0.0, marks=pytest.mark.long),
    ],
)
def test_at_most_5_percent_are_accepted_at_the_margin(examples: int, errors: float, r: float, shared: float) -> None:
    together = shared * errors
    rates = [errors - together, (1 + r) * errors - together, together]
    drawn = np.random.default_rng(0).multinomial(examples, [*rates, 1 - sum(rates)], size=400)
    found = [exact_p_values(int(first), int(second), int(both), 1 + r)[0] for first, second, both, _ in drawn]
    accepted = np.mean(np.array(found) <= 0.05)
    assert accepted <= 0.05 + 2 * (0.05 * 0.95 / 400) ** 0.5

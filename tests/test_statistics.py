"""Intervals and tests: by hand, against scipy and statsmodels in their special cases, and where the truth is known."""

from __future__ import annotations

import csv
import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from leanformer.decide.statistics import Interval, compare, mcnemar_exact, quality_interval

RANDOM = np.random.default_rng(0)


def outcomes(seeds: int, examples: int, accuracy: float, generator: np.random.Generator = RANDOM) -> np.ndarray:
    """Answers that depend on nothing: each right with the same chance."""
    return (generator.random((seeds, examples)) < accuracy).astype(float)


def finite(interval: Interval) -> bool:
    return bool(np.isfinite([interval.mean, interval.low, interval.high]).all())


def test_components_are_those_of_the_analysis_of_variance() -> None:
    baseline, candidate = outcomes(3, 12, 0.7), outcomes(4, 12, 0.6)
    components = compare(baseline, candidate, 0.01, 0.95).components
    for arm, between, interaction in zip((baseline, candidate), components.seeds, components.interaction, strict=True):
        seeds, examples = np.indices(arm.shape)
        table = anova_lm(
            ols(
                "y ~ C(seed) + C(example)",
                pd.DataFrame({"y": arm.ravel(), "seed": seeds.ravel(), "example": examples.ravel()}),
            ).fit()
        )
        squares = table["sum_sq"] / table["df"]
        assert interaction == pytest.approx(squares["Residual"])
        # Expected mean square of seeds: interaction + examples x variance of seeds.
        assert between == pytest.approx((squares["C(seed)"] - squares["Residual"]) / arm.shape[1])


def test_the_standard_error_by_hand() -> None:
    baseline = np.array([[1, 1, 1, 0, 1, 0], [1, 1, 0, 0, 1, 1]], dtype=float)
    candidate = np.array([[1, 0, 1, 0, 1, 0], [0, 0, 1, 0, 1, 0]], dtype=float)
    found = compare(baseline, candidate, 0.01, 0.95)
    # Differences of the means over seeds: -1/2, -1, 1/2, 0, 0, -1/2; their mean is -1/4, their squared deviations 11/8.
    assert found.difference.mean == pytest.approx(-1 / 4)
    # Interactions. Baseline: residuals of examples 3 and 6 are +-1/2 (both seeds have 4 of 6), so 4 x 1/4 over 1 x 5.
    # Candidate: 3 and 2 of 6, so the seeds' means are 5/12 +- 1/12; example 1 has +-5/12, five others +-1/12.
    interactions = 1 / 5, (2 * (5 / 12) ** 2 + 10 * (1 / 12) ** 2) / 5
    assert found.components.interaction == pytest.approx(interactions)
    # Examples: with Agresti and Min's half a square (two seeds an arm) and two examples, less the interactions.
    examples = (11 / 8 + 1 / 2) / 7 - sum(interactions) / 2
    assert found.components.examples == pytest.approx(max(examples, 1 / 2 / 7))
    # Seeds: the baseline's two have the same accuracy, the candidate's differ by 1/6.
    parts = found.components.examples / 6, 0.0, (1 / 6) ** 2 / 2 / 2
    assert found.standard_error == pytest.approx(sum(parts) ** 0.5)
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 5 + parts[2] ** 2 / 1)
    assert found.degrees_of_freedom == pytest.approx(freedom)
    half = stats.t.ppf(0.975, freedom) * sum(parts) ** 0.5
    assert found.difference.low == pytest.approx(max(-1 / 4 - half, -1))
    # Deviations -1/4, -3/4, 3/4, 1/4, 1/4, -1/4: the cubes cancel, the fourth powers' mean is 83/768.
    excess, variance = -1 / 4 + 0.01, 11 / 48
    skewness = -excess * (83 / 768 - 3 * variance**2) / variance / 6**2 / sum(parts) ** 1.5
    t = excess / sum(parts) ** 0.5
    t += skewness * t**2 / 3 + skewness**2 * t**3 / 27 + skewness / 6
    assert found.p_noninferior == pytest.approx(stats.t.sf(t, freedom))
    assert found.p_noninferior + found.p_inferior == pytest.approx(1)


def test_where_only_seeds_differ_it_is_welchs_test() -> None:
    # Each training gets its own part of equal examples right; with this many, examples add nothing.
    def arm(right: list[int]) -> np.ndarray:
        row = np.random.default_rng(1).permutation(100_000)
        return np.stack([(row % 100 < count).astype(float) for count in right])

    baseline, candidate = arm([90, 93, 95]), arm([85, 92, 91, 88])
    found = compare(baseline, candidate, 0.0, 0.95)
    welch = stats.ttest_ind(candidate.mean(axis=1), baseline.mean(axis=1), equal_var=False)
    interval = welch.confidence_interval(0.95)
    assert found.degrees_of_freedom == pytest.approx(welch.df, rel=0.01)
    assert found.difference.low == pytest.approx(interval.low, abs=1e-3)
    assert found.difference.high == pytest.approx(interval.high, abs=1e-3)
    assert 2 * min(found.p_noninferior, found.p_inferior) == pytest.approx(welch.pvalue, rel=0.02)


def test_with_one_seed_it_is_the_paired_test_of_many_examples() -> None:
    baseline, candidate = outcomes(1, 5_000, 0.9), outcomes(1, 5_000, 0.88)
    found = compare(baseline, candidate, 0.0, 0.95)
    paired = stats.ttest_rel(candidate[0], baseline[0]).confidence_interval(0.95)
    assert found.scope == "one trained pair"
    assert found.difference.low == pytest.approx(paired.low, abs=1e-4)
    assert found.difference.high == pytest.approx(paired.high, abs=1e-4)


def test_skewness_is_taken_out() -> None:
    # A candidate that errs on three examples of its own: chance has made 3 of what may well be 6.
    baseline, candidate = np.ones((1, 300)), np.ones((1, 300))
    candidate[0, :3] = 0
    found = compare(baseline, candidate, 0.02, 0.95)
    plain = stats.t.sf((found.difference.mean + 0.02) / found.standard_error, found.degrees_of_freedom)
    exact = stats.binom.cdf(3, 300, 0.02)  # of three errors or fewer, where the rate is the margin
    assert plain < exact / 2
    assert found.p_noninferior == pytest.approx(exact, rel=0.5)


def test_one_training_says_nothing_of_others() -> None:
    baseline = np.stack([outcomes(1, 400, 0.99)[0], outcomes(1, 400, 0.6)[0]])
    candidate = outcomes(1, 400, 0.8)
    assert compare(baseline, candidate, 0.01, 0.95).scope == "one trained pair"
    wide, narrow = (
        compare(baseline, np.repeat(candidate, 2, axis=0), 0.01, 0.95),
        compare(baseline, candidate, 0.01, 0.95),
    )
    assert wide.scope == "seeds and examples"
    assert wide.standard_error > 3 * narrow.standard_error


def test_arms_may_be_swapped() -> None:
    one, other = outcomes(3, 200, 0.9), outcomes(3, 200, 0.8)
    there, back = compare(one, other, 0.0, 0.95), compare(other, one, 0.0, 0.95)
    assert there.difference.low == pytest.approx(-back.difference.high)
    assert there.p_noninferior == pytest.approx(back.p_inferior)


@pytest.mark.parametrize("seeds", [1, 2, 5])
@pytest.mark.parametrize("examples", [2, 20, 1_000])
@pytest.mark.parametrize(("base", "cand"), [(1, 1), (0, 0), (1, 0)])
def test_outcomes_without_variance_still_have_a_width(seeds: int, examples: int, base: int, cand: int) -> None:
    found = compare(np.full((seeds, examples), float(base)), np.full((seeds, examples), float(cand)), 0.01, 0.95)
    assert finite(found.difference)
    assert found.difference.low < found.difference.high
    assert found.difference.low <= cand - base <= found.difference.high
    assert 0 <= found.p_noninferior <= 1
    quality = quality_interval(np.full((seeds, examples), float(base)), 0.95)
    assert finite(quality)
    assert quality.low < quality.high
    assert 0 <= quality.low <= base <= quality.high <= 1


def test_more_of_either_narrows() -> None:
    components = compare(outcomes(3, 300, 0.9), outcomes(3, 300, 0.88), 0.01, 0.95).components
    here, _ = components.variance()
    assert components.variance(more_seeds=3)[0] < here
    assert components.variance(more_examples=300)[0] < here
    assert components.variance(10**6, 10**9)[0] < 1e-6


def test_quality_of_one_training_is_wilsons_interval() -> None:
    right = np.zeros((1, 2_000))
    right[0, :1_940] = 1
    found = quality_interval(right, 0.95)
    wilson = stats.binomtest(1_940, 2_000).proportion_ci(0.95, method="wilson")
    assert (found.mean, found.low, found.high) == pytest.approx((0.97, wilson.low, wilson.high), abs=1e-5)


def test_quality_is_wider_where_trainings_differ() -> None:
    alike = np.repeat(outcomes(1, 1_000, 0.9), 3, axis=0)
    apart = np.stack([outcomes(1, 1_000, accuracy)[0] for accuracy in (0.8, 0.9, 1.0)])
    narrow, wide = quality_interval(alike, 0.95), quality_interval(apart, 0.95)
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)


def test_mcnemar_is_the_binomial_test_of_the_disagreements() -> None:
    baseline = np.array([True] * 90 + [False] * 5 + [True] * 14)
    candidate = np.array([True] * 90 + [True] * 5 + [False] * 14)
    found = mcnemar_exact(baseline, candidate)
    assert (found.baseline_only, found.candidate_only) == (14, 5)
    assert found.p_value == pytest.approx(stats.binomtest(5, 19).pvalue)
    assert mcnemar_exact(baseline, baseline).p_value == 1.0


def test_what_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="200 and 100 examples cannot be paired"):
        compare(outcomes(3, 200, 0.9), outcomes(3, 100, 0.9), 0.01, 0.95)
    with pytest.raises(ValueError, match=r"outcomes of shape \(5,\)"):
        quality_interval(np.ones(5), 0.95)


def test_the_truth_is_covered_and_seldom_accepted_wrongly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Path(__file__).parents[1] / "benchmarks" / "simulate_decisions.py"
    out = tmp_path / "rows.csv"
    arguments = ["--replicates", "600", "--seeds", "3", "--examples", "300", "--out", str(out)]
    monkeypatch.setattr("sys.argv", [str(script), *arguments])
    runpy.run_path(str(script), run_name="__main__")
    rows = list(csv.DictReader(out.open()))
    assert [(row["luck"], row["candidates"]) for row in rows] == [
        (luck, number) for number in ("1", "6") for luck in ("little", "some", "much")
    ]
    for row in rows:  # 600 replicates: 3 standard deviations are 2.7 points
        assert float(row["false_accepts"]) <= 0.05 + 0.027
        if row["candidates"] == "1":
            assert 0.95 - 0.027 <= float(row["coverage_difference"]) <= 0.95 + 0.027
            assert 0.95 - 0.03 <= float(row["coverage_quality"]) <= 0.95 + 0.03

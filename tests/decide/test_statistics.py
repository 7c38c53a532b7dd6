"""Intervals and tests, computed by hand, against special cases of scipy and statsmodels, and by simulation."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator
from itertools import product
from types import ModuleType

import numpy as np
import pytest
from cases import slow
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from benchmarks.decisions import simulate_decisions
from leanformer.decide import statistics
from leanformer.decide.statistics import Components, compare, mcnemar_exact, quality_interval


def draw(seeds: int, examples: int, accuracy: float = 0.95, spread: float = 0.0, seed: int = 0) -> np.ndarray:
    """Outcomes whose accuracy varies from seed to seed with this standard deviation."""
    generator = np.random.default_rng(seed)
    levels = accuracy + spread * generator.standard_normal((seeds, 1))
    return (generator.random((seeds, examples)) < levels).astype(float)


@pytest.fixture(scope="module")
def simulation() -> Iterator[ModuleType]:
    gc.freeze()  # statsmodels collects garbage in each Holm correction: as long as the simulation itself
    yield simulate_decisions
    gc.unfreeze()


def test_by_hand() -> None:
    # Seeds' means 1/2 and 1/4, examples' 1, 1/2, 0, 0: residuals +-1/8 and +-3/8, their squares sum to 3/8.
    baseline = np.array([[1, 1, 0, 0], [1, 0, 0, 0]])
    found = compare(baseline, np.zeros((2, 4)), 0.1, 0.95)
    assert found.components.interaction == pytest.approx((0.125, 0.0))  # 3/8 over 1 x 3 degrees of freedom
    assert found.components.seeds == pytest.approx((0.0, 0.0))  # 1/32 less 1/8 over 4 examples
    # Squares 11/16 and Agresti and Min's 1/2, over 3 + 2, less the interaction over 2 seeds.
    assert found.components.examples == pytest.approx(0.2375 - 0.0625)
    assert found.standard_error == pytest.approx(math.sqrt(0.175 / 4 + 0.125 / 4 / 2))
    assert found.degrees_of_freedom == 3  # the most that four examples allow
    half = stats.t.ppf(0.975, 3) * found.standard_error
    assert found.difference.mean == -0.375
    assert found.difference.low == pytest.approx(max(-1, -0.375 - half))
    assert found.difference.high == pytest.approx(-0.375 + half)
    # The differences are 1, 1/2, 0, 0: cubes sum to 9/8, sizes to 3/2.
    assert found.components.cubes == pytest.approx(0.75)
    skewness = 0.1 * 0.75 / 4**2 / found.standard_error**3
    t = (-0.375 + 0.1) / found.standard_error
    t -= skewness * (2 * t**2 + 1) / 6
    # 1.5 net losses a seed, so 2 of 4 examples: the exact test is the less sure of both.
    assert found.p_noninferior == pytest.approx(stats.binom.cdf(2, 4, 0.1))
    assert found.p_noninferior > stats.t.sf(t, 3)
    assert found.p_inferior == pytest.approx(stats.binom.sf(0, 4, 0.1))  # at least one is lost
    assert found.p_inferior > stats.t.cdf(t, 3)
    # Half of all examples are lost, and a quarter may be: the t test is the less sure.
    lost = compare(np.ones((1, 100)), np.repeat([[1.0, 0.0]], 50, axis=1), 0.25, 0.95)
    assert lost.components.cubes == 1
    half = 0.25 / lost.standard_error**3 / 100**2
    t = (-0.5 + 0.25) / lost.standard_error
    t -= min(half, 0.5) * (2 * min(t**2, 4) + 1) / 6
    assert lost.p_noninferior == pytest.approx(stats.t.sf(t, 99))


def test_degrees_of_freedom_where_others_have_them(monkeypatch: pytest.MonkeyPatch) -> None:
    # Variance of one arm's seeds alone: a t test on five numbers.
    one_arm = Components(0.0, (4e-4, 0.0), (0.0, 0.0), (5, 3), 1000)
    assert one_arm.variance() == pytest.approx((4e-4 / 5, 4))
    # Variance of the examples alone.
    assert Components(0.04, (0.0, 0.0), (0.0, 0.0), (3, 3), 1000).variance() == pytest.approx((4e-5, 999))
    # Variance of both arms' seeds: Welch's test, except for the damping.
    first, second = np.array([0.1, 0.4, 0.2, 0.9, 0.5]), np.array([0.3, 0.35, 0.2])
    both = Components(0.0, (first.var(ddof=1), second.var(ddof=1)), (0.0, 0.0), (5, 3), 1000)
    welch = stats.ttest_ind(first, second, equal_var=False)
    damped = both.variance()[1]
    monkeypatch.setattr(statistics, "DAMPING", 0.0)
    assert both.variance()[1] == pytest.approx(welch.df)
    assert welch.df < damped < 6


def test_one_pair_is_close_to_a_paired_t_test() -> None:
    baseline, candidate = draw(1, 5000, 0.95, seed=1), draw(1, 5000, 0.94, seed=2)
    found = compare(baseline, candidate, 0.02, 0.95)
    paired = stats.ttest_rel(candidate[0] + 0.02, baseline[0], alternative="greater")
    assert found.scope == "one trained pair"
    assert found.p_noninferior == pytest.approx(paired.pvalue, rel=0.06)
    low, high = stats.ttest_rel(candidate[0], baseline[0]).confidence_interval(0.95)
    assert (found.difference.low, found.difference.high) == pytest.approx((low, high), abs=5e-5)


def test_one_seed_on_either_side_is_one_pair() -> None:
    assert compare(draw(1, 100), draw(3, 100), 0.01, 0.95).scope == "one trained pair"
    assert compare(draw(2, 100), draw(2, 100), 0.01, 0.95).scope == "seeds and examples"


def test_quality_of_one_seed_is_wilson() -> None:
    outcomes = draw(1, 2000)
    found = quality_interval(outcomes, 0.95)
    low, high = proportion_confint(outcomes.sum(), 2000, alpha=0.05, method="wilson")
    assert found.mean == outcomes.mean()
    assert (found.low, found.high) == pytest.approx((low, high), abs=2e-5)


@pytest.mark.parametrize("seeds", [1, 2, 3])
@pytest.mark.parametrize("examples", [2, 5, 300])
@pytest.mark.parametrize("right", [0.0, 1.0])
def test_no_variation_is_no_certainty(seeds: int, examples: int, right: float) -> None:
    outcomes = np.full((seeds, examples), right)
    found = compare(outcomes, outcomes, 0.01, 0.95)
    assert -1 <= found.difference.low < 0 < found.difference.high <= 1
    assert found.difference.high > 1.5 / examples or found.difference.high == 1  # the rule of three has 3 over n
    assert 0 < found.p_noninferior < 1
    quality = quality_interval(outcomes, 0.95)
    assert 0 <= quality.low <= quality.mean <= quality.high <= 1
    assert quality.high - quality.low > 1 / examples


def test_random_small_tables_give_finite_numbers() -> None:
    generator = np.random.default_rng(0)
    for _ in range(300):
        seeds, other, examples = (int(number) for number in generator.integers((1, 1, 2), (4, 4, 6)))
        baseline = generator.integers(0, 2, (seeds, examples))
        candidate = generator.integers(0, 2, (other, examples))
        found = compare(baseline, candidate, 0.01, 0.95)
        numbers = (found.standard_error, found.degrees_of_freedom, found.p_noninferior, found.p_inferior)
        assert np.isfinite(numbers).all()
        assert found.standard_error > 0
        assert -1 <= found.difference.low <= found.difference.mean <= found.difference.high <= 1
        quality = quality_interval(baseline, 0.95)
        assert 0 <= quality.low <= quality.mean <= quality.high <= 1
        assert quality.low < quality.high


def test_what_is_paired_and_what_is_not() -> None:
    generator = np.random.default_rng(3)
    ease = generator.normal(1.6, 1, 500)
    baseline, candidate = (ease + generator.normal(0, 0.3, (2, 4, 500)) > 0).astype(float)
    found = compare(baseline, candidate, 0.01, 0.95)
    reordered = compare(baseline, candidate[::-1], 0.01, 0.95)
    assert reordered.standard_error == pytest.approx(found.standard_error)  # seeds are not paired
    assert reordered.p_noninferior == pytest.approx(found.p_noninferior)
    shuffled = generator.permutation(500)
    same = compare(baseline[:, shuffled], candidate[:, shuffled], 0.01, 0.95)
    assert same.standard_error == pytest.approx(found.standard_error)
    unpaired = compare(baseline, candidate[:, shuffled], 0.01, 0.95)
    assert unpaired.standard_error > 1.5 * found.standard_error  # the examples' ease no longer cancels
    mirrored = compare(candidate, baseline, 0.01, 0.95)
    assert mirrored.difference.low == pytest.approx(-found.difference.high)
    assert mirrored.standard_error == pytest.approx(found.standard_error)


def test_variance_between_seeds_counts() -> None:
    steady = compare(draw(5, 2000, seed=1), draw(5, 2000, seed=2), 0.01, 0.95)
    varied = compare(draw(5, 2000, spread=0.02, seed=1), draw(5, 2000, spread=0.02, seed=2), 0.01, 0.95)
    assert varied.standard_error > 2 * steady.standard_error
    assert varied.degrees_of_freedom < steady.degrees_of_freedom
    # More examples do not help against it, more seeds do.
    now = varied.components.variance()[0]
    assert varied.components.variance(more_examples=1_000_000)[0] > 0.7 * now
    assert varied.components.variance(more_seeds=15)[0] == pytest.approx(now / 4, rel=0.2)


def test_test_and_interval_agree() -> None:
    baseline, candidate = draw(3, 1000, 0.95, 0.003, seed=5), draw(3, 1000, 0.945, 0.003, seed=6)
    previous = 1.0
    for margin in np.linspace(0, 0.05, 21):
        found = compare(baseline, candidate, float(margin), 0.9)
        assert found.p_noninferior < previous
        previous = found.p_noninferior
    assert compare(baseline, baseline, 0.0, 0.9).p_noninferior < 1  # no margin, no exact bound
    # The lower end of the two-sided 90 % interval is where the one-sided test at 5 % ends, but for the skewness.
    lower = compare(baseline, candidate, 0.0, 0.9).difference.low
    assert compare(baseline, candidate, -lower, 0.9).p_noninferior == pytest.approx(0.05, abs=0.01)
    mean = float(candidate.mean() - baseline.mean())
    assert compare(baseline, candidate, -mean, 0.9).p_noninferior == pytest.approx(0.5, abs=0.02)
    wide, narrow = (compare(baseline, candidate, 0.01, level).difference for level in (0.99, 0.9))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="100 and 99 examples cannot be paired"):
        compare(draw(2, 100), draw(2, 99), 0.01, 0.95)
    with pytest.raises(ValueError, match=r"\(100,\)"):
        quality_interval(np.ones(100), 0.95)


def test_mcnemar_is_a_binomial_test() -> None:
    baseline = np.array([1] * 20 + [1] * 3 + [0] * 9 + [0] * 5, dtype=bool)
    candidate = np.array([1] * 20 + [0] * 3 + [1] * 9 + [0] * 5, dtype=bool)
    found = mcnemar_exact(baseline, candidate)
    assert (found.baseline_only, found.candidate_only) == (3, 9)
    assert found.p_value == pytest.approx(stats.binomtest(3, 12).pvalue)
    assert mcnemar_exact(baseline, baseline).p_value == 1
    # Groups of one example change nothing; copies of an example say no more than the example.
    alone = np.random.default_rng(0).permutation(len(baseline))
    assert mcnemar_exact(baseline, candidate, alone).p_value == pytest.approx(found.p_value)
    copied = mcnemar_exact(baseline.repeat(4), candidate.repeat(4), alone.repeat(4))
    assert (copied.baseline_only, copied.candidate_only) == (12, 36)
    assert copied.p_value == pytest.approx(found.p_value)


def test_mcnemar_of_groups_exchanges_the_models_in_whole_groups() -> None:
    generator = np.random.default_rng(3)
    groups = generator.integers(9, size=60)
    baseline, candidate = generator.random((2, 60)) < [[0.8], [0.6]]
    net = np.bincount(groups, baseline.astype(int) - candidate, 9)
    sums = np.array([signs @ net for signs in product([-1, 1], repeat=9)])
    found = mcnemar_exact(baseline, candidate, groups)
    assert found.p_value == pytest.approx((abs(sums) >= abs(net.sum()) - 1e-9).mean())
    assert 0 < found.p_value < 1
    # A loss and a gain in each group cancel.
    pairs = np.arange(20) // 2
    assert mcnemar_exact(np.arange(20) % 2 == 0, np.arange(20) % 2 == 1, pairs).p_value == 1


@pytest.mark.long
def test_mcnemar_of_groups_keeps_its_level() -> None:
    """Two models that err equally often, on groups that each of them gets right or wrong almost as a whole."""
    generator = np.random.default_rng(1)
    groups = np.repeat(np.arange(40), 8)
    wrong = {True: 0, False: 0}
    for _ in range(2000):
        right = generator.random((2, 40)) < 0.7
        flipped = generator.random((2, 320)) < 0.1
        baseline, candidate = right[:, groups] ^ flipped
        for grouped in wrong:
            wrong[grouped] += mcnemar_exact(baseline, candidate, groups if grouped else None).p_value <= 0.05
    assert wrong[True] <= 2000 * 0.05 + 3 * (2000 * 0.05 * 0.95) ** 0.5
    assert wrong[False] > 2000 * 0.2  # as if examples were independent


@pytest.mark.parametrize(
    ("seeds", "examples", "luck"),
    [(1, 300, "none"), *slow((3, 300, "little"), (3, 1000, "much"), (5, 300, "some"))],
)
def test_simulation_with_known_truth(simulation: ModuleType, seeds: int, examples: int, luck: str) -> None:
    replicates = 1500
    row = simulation.one_candidate(seeds, examples, luck, replicates, simulation.make_generator(1, seeds, examples))
    error = math.sqrt(0.05 * 0.95 / replicates)
    assert 0.94 - 2 * error < row["coverage_difference"] < 0.96 + 2 * error
    assert 0.94 - 2 * error < row["coverage_quality"] < 0.96 + 3 * error
    assert row["false_accepts"] < 0.05 + 2 * error


def test_simulation_of_several_candidates(simulation: ModuleType) -> None:
    row = simulation.several_candidates(3, 300, "much", 6, 150, simulation.make_generator(2))
    assert row["false_accepts"] < 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / 150)

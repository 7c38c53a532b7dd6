"""The planned number of examples: by hand, against sums over all tables, and against simulated comparisons."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from cases import slow
from scipy import stats

from benchmarks.decisions.simulate_decisions import World
from leanformer.decide.power import (
    Assumed,
    least_examples,
    least_without_losses,
    levels,
    p_of_pairs,
    power,
)
from leanformer.decide.statistics import compare

SAME = Assumed(drop=0.0, examples=0.0, interaction=(0.0, 0.0))
"""Two models that answer every example alike."""
SHARE = Assumed(drop=0.0, examples=0.01, interaction=(0.005, 0.005), luck=(0.003**2, 0.003**2))
"""Two models that differ on 2 % of the examples."""


def outcomes(losses: int, gains: int, examples: int) -> tuple[np.ndarray, np.ndarray]:
    """A baseline's and a candidate's outcomes, shape (1, examples)."""
    baseline, candidate = np.ones((2, 1, examples))
    candidate[0, :losses] = 0
    baseline[0, losses : losses + gains] = 0
    return baseline, candidate


def test_levels_by_hand() -> None:
    found = levels(0.95, candidates=4, looks=2)
    assert [level.key for level in found] == ["look", "single_look", "confirm"]
    assert [level.level for level in found] == pytest.approx([0.05 / 2 / 4, 0.05 / 4, 0.05])
    assert [level.key for level in levels(0.95, candidates=1, looks=1)] == ["look", "confirm"]


def test_equal_answers_need_what_the_exact_test_needs() -> None:
    """Four candidates, two looks and half a point: ln(0.025 / 4) / ln(0.995) = 1012.5 sentences without a loss."""
    level = 0.05 / 2 / 4
    assert math.log(0.025 / 4) / math.log(0.995) == pytest.approx(1012.5, abs=0.05)
    assert least_without_losses(0.5, 100.0, level) == 1013
    bleu = replace(SAME, largest=100.0, point=30.0, outcomes=False)
    assert least_examples(bleu, 1, 0.5, level) == 1013
    assert least_examples(SAME, 1, 0.005, level) == 1013
    assert power(SAME, 1, 1012, 0.005, level) == 0
    assert least_examples(replace(SAME, luck=(0.0, 0.0)), 3, 0.005, level) == 1013
    # The examples of a group count as one in the exact test.
    assert least_examples(replace(SAME, group_size=2.5), 1, 0.005, level) == math.ceil(2.5 * 1013)
    assert least_without_losses(0.0, 1.0, level) == least_without_losses(0.5, math.inf, level) == 0


def test_p_values_of_pairs_are_those_of_compare() -> None:
    generator = np.random.default_rng(0)
    for margin in (0.0, 0.003, 0.01, 0.2):
        for examples in (15, 200, 1000):
            losses, gains = generator.integers(0, examples // 3, size=(2, 12))
            losses[0] = gains[0] = 0
            found = p_of_pairs(losses, gains, examples, margin)
            expected = [
                compare(*outcomes(lost, gained, examples), margin, 0.95).p_noninferior
                for lost, gained in zip(losses, gains, strict=True)
            ]
            assert found == pytest.approx(expected)


@pytest.mark.parametrize("drop", [0.0, 0.03, -0.02])
def test_power_of_one_pair_is_the_sum_over_all_tables(drop: float) -> None:
    examples, disagree, margin, level = 40, 0.1, 0.2, 0.05
    assumed = Assumed(drop=drop, examples=disagree - drop**2, interaction=(0.0, 0.0))
    lost, gained = (disagree + drop) / 2, (disagree - drop) / 2
    expected = 0.0
    for losses in range(examples // 2):  # more than 20 are as good as impossible
        for gains in range(examples // 2):
            if compare(*outcomes(losses, gains, examples), margin, 0.95).p_noninferior <= level:
                shares = [lost, gained, 1 - disagree]
                expected += stats.multinomial.pmf([losses, gains, examples - losses - gains], examples, shares)
    assert 0.2 < expected < 0.95
    assert power(assumed, 1, examples, margin, level) == pytest.approx(expected, abs=1e-6)


def test_the_least_number_has_the_power() -> None:
    for seeds in (1, 5):
        found = least_examples(SHARE, seeds, 0.01, 0.05)
        assert found is not None
        assert power(SHARE, seeds, found - 1, 0.01, 0.05) < 0.8 <= power(SHARE, seeds, found, 0.01, 0.05)


def test_components_by_hand() -> None:
    found = replace(SHARE, group_size=4.0, intraclass=0.5)
    assert found.design_effect == 2.5
    # 0.01 and 0.01 / 5 of the seeds, times 2.5 / 4, over 1,000 groups; and the luck of ten trainings over 5 each.
    variance = 0.012 * 2.5 / 4 / 1000 + 2 * 0.003**2 / 5
    assert found.variance(5, 1000) == pytest.approx(variance)
    components = found.components(5, 1000, (1.0, 1.0))
    assert components.seeds == pytest.approx((0.003**2,) * 2)
    assert components.interaction == pytest.approx((0.005 * 2.5 / 4,) * 2)
    assert components.num_examples == 1000
    # With what Agresti and Min add to the examples: two of them, and a fifth of a square.
    added = (0.01 + 0.002) * 2.5 / 4 * 999 / 1001 + 1 / 5 / 1001 - 0.002 * 2.5 / 4
    assert components.examples == pytest.approx(added)
    assert found.components(5, 1000, (2.0, 2.0)).variance()[0] > components.variance()[0]


def test_many_seeds_are_like_a_known_variance() -> None:
    few, many = (power(SHARE, seeds, 400, 0.01, 0.05) for seeds in (100, 101))
    assert few == pytest.approx(many, abs=2e-3)


def test_luck_that_no_number_of_examples_overcomes() -> None:
    lucky = replace(SHARE, luck=(0.01**2,) * 2)
    assert least_examples(lucky, 3, 0.01, 0.05) is None
    # Students whose quality moves with their teachers' have no luck of their own.
    beside = Assumed(drop=0.0, examples=0.01, interaction=(0.01,), luck=(2 * 0.01**2 * (1 - 1.0),))
    assert (least_examples(beside, 3, 0.01, 0.05) or 0) > 0


def simulated_power(seeds: int, examples: int, margin: float, level: float, replicates: int) -> tuple[float, float]:
    """Planned and simulated power of models as good as each other, of the benchmark's world, with some luck."""
    luck = 0.0 if seeds == 1 else 0.3  # in points
    generator = np.random.default_rng(3)
    large = World(8, 50_000, generator)
    measured = compare(large.outcomes(0.95, 0.0), large.outcomes(0.95, 0.0), margin, 0.95).components
    assumed = Assumed(0.0, measured.examples, measured.interaction, ((luck / 100) ** 2,) * 2)
    world = World(seeds, examples, generator)
    accepted = 0
    for _ in range(replicates):
        world.draw_examples()
        comparison = compare(world.outcomes(0.95, luck), world.outcomes(0.95, luck), margin, 0.95)
        accepted += comparison.p_noninferior <= level
    return power(assumed, seeds, examples, margin, level), accepted / replicates


@pytest.mark.parametrize(
    ("seeds", "examples", "margin", "level", "replicates"),
    [
        (1, 1000, 0.02, 0.05, 600),
        (3, 1000, 0.02, 0.00625, 600),
        *slow(
            (1, 3000, 0.01, 0.00625, 4000),
            (3, 1000, 0.02, 0.05, 4000),
            (3, 3000, 0.01, 0.05, 4000),
            (5, 2000, 0.01, 0.05, 4000),
            (5, 2000, 0.01, 0.00625, 4000),
            (10, 1000, 0.01, 0.00625, 4000),
        ),
    ],
)
def test_comparisons_are_accepted_as_often_as_planned(
    seeds: int, examples: int, margin: float, level: float, replicates: int
) -> None:
    planned, simulated = simulated_power(seeds, examples, margin, level, replicates)
    # Three standard errors of the simulation, and what the plan leaves out: the skewness of trainings' qualities.
    assert simulated == pytest.approx(planned, abs=3 * (planned * (1 - planned) / replicates) ** 0.5 + 0.03)

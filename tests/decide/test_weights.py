"""Examples that count more than others: values computed by hand, and what equal weights change."""

from __future__ import annotations

import numpy as np
import pytest

from leanformer.decide import judge
from leanformer.decide.statistics import by_group, by_weight, compare, design_effect, quality_interval
from leanformer.results.metrics import METRICS, Labels, Texts

OUTCOMES = np.array([[1.0, 0, 1, 1]])
WEIGHTS = np.array([3.0, 1, 2, 2])


def test_values_have_the_weighted_mean_and_its_variance() -> None:
    # Mean 7 / 8; weights over their mean 2: 1.5, 0.5, 1, 1. Values 7/8 + 1.5/8, 7/8 - 3.5/8, 7/8 + 1/8, 7/8 + 1/8.
    assert by_weight(OUTCOMES, WEIGHTS) == pytest.approx(np.array([[8.5, 3.5, 8, 8]]) / 8)
    assert by_weight(OUTCOMES, None) is OUTCOMES
    # Two groups: the first has (1.5 - 3.5) / 8 of the deviations, times 2 groups by 4 examples.
    in_groups = by_group(by_weight(OUTCOMES, WEIGHTS), np.array([0, 0, 1, 1]))
    assert in_groups == pytest.approx(np.array([[6.0, 8]]) / 8)


def test_the_effective_number_of_examples_is_kishs() -> None:
    # (3 + 1 + 2 + 2)² / (9 + 1 + 4 + 4) = 64 / 18 of 4 examples; as groups 4 and 4, both of the same weight.
    assert design_effect(WEIGHTS, None) == pytest.approx(4 / (64 / 18))
    assert design_effect(WEIGHTS, np.array([0, 0, 1, 1])) == 1
    assert design_effect(None, None) == 1


@pytest.mark.parametrize("seeds", [1, 3])
def test_equal_weights_change_nothing(seeds: int) -> None:
    random = np.random.default_rng(0)
    first, second = (
        (random.random((seeds, 400)) < 0.9).astype(float),
        (random.random((seeds, 400)) < 0.88).astype(float),
    )
    plain, equal = (compare(first, second, 0.05, 0.95, weights=weights) for weights in (None, np.full(400, 7.0)))
    assert equal.difference.low == pytest.approx(plain.difference.low)
    assert equal.p_noninferior == pytest.approx(plain.p_noninferior)
    assert quality_interval(first, 0.95, weights=np.full(400, 7.0)).low == pytest.approx(
        quality_interval(first, 0.95).low
    )


def test_the_exact_bound_counts_effective_examples() -> None:
    """Nobody loses an example: the probability of none lost among the effective number of examples remains."""
    right, weights = np.ones((1, 400)), np.tile([1.0, 3.0], 200)
    effective = int(400 / design_effect(weights, None))
    assert effective == 320  # 800² / (200 + 1,800)
    found = compare(right, right, 0.01, 0.95, weights=weights)
    assert found.p_noninferior >= 0.99**320 - 1e-12
    assert compare(right, right, 0.01, 0.95).p_noninferior < found.p_noninferior


def test_a_stratum_that_counts_ten_times_decides() -> None:
    """The candidate is better on the many examples of one stratum, and worse on the few that stand for most cases."""
    labels = np.zeros(1_100, int)
    heavy = np.arange(1_100) < 100
    old = Labels(labels, np.where(heavy, 0, np.arange(1_100) % 5 == 0).astype(int))
    new = Labels(labels, np.where(heavy, np.arange(1_100) % 5 == 0, 0).astype(int))
    metric = METRICS["accuracy"]
    first, second = [metric.statistics(old)], [metric.statistics(new)]
    weights = np.where(heavy, 100.0, 1.0)
    assert judge.compare(metric, first, second, 0.01, 0.95).difference.mean == pytest.approx(180 / 1_100)
    assert judge.quality(metric, second, 0.95, weights=weights).mean == pytest.approx(9_000 / 11_000)
    found = judge.compare(metric, first, second, 0.01, 0.95, weights=weights)
    assert found.difference.mean == pytest.approx((200 - 2_000) / 11_000)
    assert found.p_inferior < 0.05


def test_corpus_scores_have_weighted_counts() -> None:
    """An example of weight 2 counts as if it were there twice."""
    metric = METRICS["chrf"]
    references = ["the house", "a small cat", "green trees", "over there"] * 5
    hypotheses = ["the horse", "a small cat", "green tree", "over here"] * 5
    weights = np.array([2.0, 1, 1, 1] * 5)
    counts = [metric.statistics(Texts(references, references, hypotheses))]
    twice = [text for text, weight in zip(hypotheses, weights, strict=True) for _ in range(int(weight))]
    known = [text for text, weight in zip(references, weights, strict=True) for _ in range(int(weight))]
    expected = metric.of(metric.statistics(Texts(known, known, twice)))
    assert judge.quality(metric, counts, 0.95, weights=weights).mean == pytest.approx(expected)
    perfect = [metric.statistics(Texts(references, references, references))]
    found = judge.compare(metric, perfect, counts, 0.5, 0.95, weights=weights)
    assert found.difference.mean == pytest.approx(expected - 100)
    assert found.components.design_effect == pytest.approx(20 * 35 / 25**2)

"""The corrected resampled t test, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from leanformer.decide import judge
from leanformer.decide.resampled import FoldComponents, Folds, compare_folds, fold_components, quality_of_folds
from leanformer.measure.quality import Predictions
from leanformer.results.metrics import METRICS

# Two repeats of two folds over eight examples.
NUMBERS = np.array([[1, 1, 1, 1, 2, 2, 2, 2], [1, 2, 1, 2, 1, 2, 1, 2]])
FOLDS = Folds(NUMBERS, test_to_train=1.0)
BASELINE = np.ones((2, 8))
CANDIDATE = np.array([[0, 1, 1, 1, 1, 1, 1, 1], [0, 1, 0, 1, 1, 1, 1, 1]], float)


def test_the_variance_is_that_of_nadeau_and_bengio() -> None:
    found = compare_folds(BASELINE, CANDIDATE, 0.25, 0.95, FOLDS)
    differences = np.array([-0.25, 0.0, -0.5, 0.0])  # of four examples each
    variance = (1 / 4 + 1.0) * differences.var(ddof=1)
    assert found.difference.mean == pytest.approx(-3 / 16)
    assert found.standard_error == pytest.approx(variance**0.5)
    assert found.degrees_of_freedom == 3
    half = stats.t.ppf(0.975, 3) * variance**0.5
    assert found.difference.high == pytest.approx(-3 / 16 + half)
    assert found.scope == "seeds and examples"


def test_the_p_value_is_the_greater_of_the_t_test_and_the_exact_bound() -> None:
    found = compare_folds(BASELINE, CANDIDATE, 0.25, 0.95, FOLDS)
    t = stats.t.sf((-3 / 16 + 0.25) / found.standard_error, 3)
    # The mean of one and two losses, rounded up, of eight examples: repeats do not count as further examples.
    exact = stats.binom.cdf(2, 8, 0.25)
    assert exact > t
    assert found.p_noninferior == pytest.approx(exact)
    wide = compare_folds(BASELINE, CANDIDATE, 0.9, 0.95, FOLDS)
    assert wide.p_noninferior == pytest.approx(stats.t.sf((-3 / 16 + 0.9) / wide.standard_error, 3))
    assert found.p_inferior == pytest.approx(
        max(stats.t.cdf((-3 / 16 + 0.25) / found.standard_error, 3), stats.binom.sf(0, 8, 0.25))
    )


def test_folds_that_agree_still_have_an_interval() -> None:
    found = compare_folds(BASELINE, BASELINE, 0.25, 0.95, FOLDS)
    assert found.difference.mean == 0
    assert found.standard_error == pytest.approx((1 / (8 * 9)) ** 0.5)
    assert found.p_noninferior == pytest.approx(0.75**8)


def test_more_repeats_shrink_only_their_own_part() -> None:
    components = fold_components(np.array([[0.1, 0.3], [0.0, 0.2]]), Folds(NUMBERS, 0.25), 800)
    assert isinstance(components, FoldComponents)
    between = np.var([0.1, 0.3, 0.0, 0.2], ddof=1)
    assert components.variance() == pytest.approx(((1 / 4 + 0.25) * between, 3))
    assert components.variance(more_seeds=3) == pytest.approx(((1 / 10 + 0.25) * between, 9))


def test_folds_of_unequal_sizes_keep_the_mean_over_examples() -> None:
    numbers = np.array([[1, 1, 1, 1, 1, 1, 2, 2]])
    values = Folds(numbers, 0.5).means(CANDIDATE[:1])
    assert values.shape == (1, 2)
    assert values.mean() == pytest.approx(CANDIDATE[0].mean())


def test_groups_count_in_the_exact_bound() -> None:
    groups = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    folds = Folds(np.array([[1, 1, 1, 1, 2, 2, 2, 2]] * 2), 1.0)
    found = compare_folds(BASELINE, BASELINE, 0.25, 0.95, folds, groups)
    assert found.p_noninferior == pytest.approx(0.75**4)


def test_quality_has_an_interval_also_where_all_is_right() -> None:
    sure = quality_of_folds(BASELINE, 0.95, FOLDS)
    assert (sure.mean, sure.high) == (1, 1)
    assert sure.low < 0.7  # of eight examples
    found = quality_of_folds(CANDIDATE, 0.95, FOLDS)
    assert found.low < found.mean == 13 / 16 < found.high


def test_corpus_scores_are_compared_fold_by_fold() -> None:
    draw = np.random.default_rng(0)
    metric = METRICS["macro_f1"]
    numbers = np.arange(60) % 3 + 1
    folds = Folds(np.stack([numbers, draw.permutation(numbers)]), 0.5)
    labels = draw.integers(0, 2, 60)
    models = [
        [
            Predictions(labels, np.where(draw.random(60) < wrong, 1 - labels, labels), classes=2).statistics("macro_f1")
            for _ in range(2)
        ]
        for wrong in (0.1, 0.2)
    ]
    found = judge.compare(metric, models[0], models[1], 0.1, 0.95, folds=folds)
    differences = np.array(
        [
            [metric.of(second[of == fold]) - metric.of(first[of == fold]) for fold in (1, 2, 3)]
            for first, second, of in zip(*models, folds.numbers, strict=True)
        ]
    )
    assert found.difference.mean == pytest.approx(differences.mean())
    assert found.standard_error**2 == pytest.approx((1 / 6 + 0.5) * differences.var(ddof=1))
    quality = judge.quality(metric, models[1], 0.95, folds=folds)
    base = judge.quality(metric, models[0], 0.95, folds=folds)
    assert quality.mean - base.mean == pytest.approx(differences.mean())
    assert len(quality.per_seed) == 2


def test_a_share_of_errors_is_tested_on_the_errors_of_all_folds() -> None:
    draw = np.random.default_rng(1)
    numbers = np.arange(400) % 4 + 1
    folds = Folds(np.stack([numbers, draw.permutation(numbers)]), 1 / 3)
    base = (draw.random((2, 400)) > 0.2).astype(float)
    trainings = [np.stack([row, np.ones(400)], axis=-1) for row in base]
    found = judge.compare(METRICS["accuracy"], trainings, trainings, 0.0, 0.95, max_ratio=2.0, folds=folds)
    assert found.ratio is not None
    assert found.ratio.observed == 1
    assert found.p_noninferior < 0.05
    combined = folds.means(2.0 * (base - 1) - (base - 1))
    assert found.ratio.combined.standard_error**2 == pytest.approx((1 / 8 + 1 / 3) * combined.var(ddof=1))


def test_the_method_says_what_was_done() -> None:
    said = judge.method(METRICS["accuracy"], 2, "example", 2, folds=FOLDS)
    assert "Cross-validation in 2 folds, divided anew for each of 2 seeds" in said
    assert "(1/4 + 1) s²" in said
    assert "2 planned looks at the data" in said

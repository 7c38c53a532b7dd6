"""The extra loss of a student on corrupted examples, by values computed by hand and by sacreBLEU."""

from __future__ import annotations

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU
from scipy import stats

from leanformer.decide.robustness import Answered, extra_loss, robustness
from leanformer.measure.translation import Translations
from leanformer.results.metrics import METRICS, Labels

accuracy, bleu = METRICS["accuracy"], METRICS["bleu"]


def right(*answers: int) -> np.ndarray:
    """Statistics of answers that are right (1) or wrong (0)."""
    return accuracy.statistics(Labels(np.ones(len(answers)), np.array(answers)))


def test_a_mean_by_hand() -> None:
    baseline = right(1, 1, 1, 0, 1, 1), right(1, 1, 0, 0, 1, 1)  # losses 0 0 -1 0 0 0
    student = right(1, 1, 1, 0, 1, 0), right(0, 0, 1, 0, 1, 1)  # losses -1 -1 0 0 0 1
    found, p_value = extra_loss(accuracy, baseline, student, 0.95)
    # Differences of losses -1 -1 1 0 0 1: mean 0, sum of squares 4, variance 4 / 5, standard error sqrt(0.8 / 6).
    half = 2.5705818 * (0.8 / 6) ** 0.5  # the t quantile of 5 degrees of freedom
    assert (found.mean, found.low, found.high) == pytest.approx((0, -half, half))
    assert p_value == pytest.approx(1)


def test_a_mean_agrees_with_the_paired_t_test() -> None:
    random = np.random.default_rng(1)
    answers = [right(*(random.random(80) < share)) for share in (0.9, 0.85, 0.9, 0.6)]
    found, p_value = extra_loss(accuracy, (answers[0], answers[1]), (answers[2], answers[3]), 0.9)
    losses = answers[3][:, 0] - answers[2][:, 0], answers[1][:, 0] - answers[0][:, 0]
    test = stats.ttest_rel(*losses)
    interval = test.confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert p_value == pytest.approx(test.pvalue)


def test_examples_of_one_group_are_not_independent() -> None:
    baseline = right(1, 1, 1, 1, 1, 1), right(1, 1, 1, 1, 1, 1)
    student = right(1, 1, 1, 1, 1, 1), right(0, 0, 0, 1, 1, 1)
    groups = np.array([7, 7, 7, 3, 3, 5])
    found, _ = extra_loss(accuracy, baseline, student, 0.95, groups)
    # Deviations from the mean of -0.5, summed in each group: -1.5, 1, 0.5. Variance of the mean: 3 / 2 x 3.5 / 36.
    half = 4.3026527 * (1.5 * 3.5 / 36) ** 0.5  # the t quantile of 2 degrees of freedom
    assert (found.mean, found.low, found.high) == pytest.approx((-0.5, -0.5 - half, -0.5 + half))
    # Every sentence twice, in one group with its copy, says as much as every sentence once.
    once = (translated(2), translated(6)), (translated(3), translated(20))
    baseline, student = ((np.repeat(clean, 2, axis=0), np.repeat(corrupted, 2, axis=0)) for clean, corrupted in once)
    grouped, _ = extra_loss(bleu, baseline, student, 0.95, np.repeat(np.arange(len(REFERENCES)), 2))
    assert grouped.low == pytest.approx(extra_loss(bleu, *once, 0.95)[0].low)


def test_nothing_changes() -> None:
    same = right(1, 0, 1), right(1, 0, 1)
    found, p_value = extra_loss(accuracy, same, same, 0.95)
    assert (found.mean, found.low, found.high, p_value) == (0, 0, 0, 1)


def test_each_corruption_of_a_model_and_the_correction_for_their_number() -> None:
    clean = [1] * 40
    baseline = Answered(right(*clean), {name: right(*clean) for name in ("noise", "blur", "jpeg")})
    student = Answered(
        right(*clean[:-4], 0, 0, 0, 0),
        {
            "noise": right(*([0] * 10), *([1] * 26), 0, 0, 0, 0),  # 10 lost: p = 0.0008
            "blur": right(*([0] * 5), *([1] * 31), 0, 0, 0, 0),  # 5 lost: p = 0.023, not below 0.05 / 3
            "jpeg": right(*clean),  # 4 won
        },
    )
    noise, blur, jpeg = robustness(accuracy, student, baseline, 0.01, 0.95)
    assert (noise.corruption, blur.corruption, jpeg.corruption) == ("noise", "blur", "jpeg")
    assert (noise.quality, noise.loss) == pytest.approx((26 / 40, -10 / 40))
    assert noise.difference is not None
    assert noise.extra_loss is not None
    assert jpeg.extra_loss is not None
    assert noise.difference.mean == pytest.approx(-14 / 40)
    assert noise.difference.low < -14 / 40 < noise.difference.high
    assert noise.extra_loss.mean == pytest.approx(-10 / 40)
    assert noise.p_value == pytest.approx(stats.ttest_1samp([-1] * 10 + [0] * 30, 0).pvalue)
    assert blur.p_value == pytest.approx(stats.ttest_1samp([-1] * 5 + [0] * 35, 0).pvalue)
    assert blur.p_value is not None
    assert 0.05 / 3 < blur.p_value < 0.05
    assert (noise.loses_more, blur.loses_more, jpeg.loses_more) == (True, False, False)
    assert jpeg.extra_loss.mean == pytest.approx(4 / 40)
    alone = robustness(accuracy, baseline, None, 0.01, 0.95)
    assert [(entry.difference, entry.extra_loss, entry.loses_more) for entry in alone] == [(None, None, None)] * 3


REFERENCES = tuple(
    f"the {adjective} {animal} sleeps in the {place} today"
    for adjective in ("old", "young", "small", "big")
    for animal in ("cat", "dog", "horse")
    for place in ("house", "garden")
)


def translated(wrong: int) -> np.ndarray:
    """BLEU's counts where the last words of the first sentences are wrong."""
    hypotheses = [
        reference.replace("today", "now and then") if place < wrong else reference
        for place, reference in enumerate(REFERENCES)
    ]
    return Translations(REFERENCES, REFERENCES, tuple(hypotheses)).statistics("bleu")


def official(wrong: int) -> float:
    hypotheses = [
        reference.replace("today", "now and then") if place < wrong else reference
        for place, reference in enumerate(REFERENCES)
    ]
    return float(BLEU().corpus_score(hypotheses, [list(REFERENCES)]).score)


def test_a_corpus_score_is_that_of_sacrebleu_and_its_four_sets_share_their_sentences() -> None:
    found, p_value = extra_loss(bleu, (translated(2), translated(6)), (translated(3), translated(20)), 0.95)
    expected = (official(20) - official(3)) - (official(6) - official(2))
    assert found.mean == pytest.approx(expected)
    assert found.low < expected < found.high < 0
    assert p_value < 0.05
    # A student that answers as the baseline does, clean and corrupted, has no extra loss in any sample.
    both = translated(2), translated(6)
    same, p_same = extra_loss(bleu, both, both, 0.95)
    assert (same.mean, same.low, same.high, p_same) == (0, 0, 0, 1)
    # The same shift of both models' losses cancels, which it would not if each drew its own sentences.
    shifted, _ = extra_loss(bleu, (translated(0), translated(12)), (translated(0), translated(12)), 0.95)
    assert shifted.high - shifted.low == 0

"""The bootstrap of corpus scores, against closed forms, the analysis of variance, sacreBLEU and simulated truth."""

from __future__ import annotations

import math
from types import ModuleType

import numpy as np
import pytest
from cases import slow
from sacrebleu.metrics.bleu import BLEU
from scipy import stats

from benchmarks.decisions import simulate_bleu
from leanformer.decide import corpus
from leanformer.decide.corpus import compare_corpus, corpus_interval, paired_bootstrap
from leanformer.decide.decision import decide
from leanformer.decide.statistics import compare
from leanformer.measure.translation import Translations
from leanformer.results.metrics import METRICS

bleu = METRICS["bleu"].score


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    return simulate_bleu


def translated(simulation: ModuleType, seeds: int, *bleus: float, luck: float = 0.0) -> list[np.ndarray]:
    """Counts of models on the same 600 sentences, shape (seeds, sentences, counts) each."""
    world = simulation.World(seeds, 600, np.random.default_rng(seeds))
    spread = simulation.spread_of(luck)
    return [world.statistics(simulation.level_of(points, spread), spread) for points in bleus]


def share(sums: np.ndarray) -> np.ndarray:
    """A score that is a mean: the percentage of right answers."""
    return 100 * sums[..., 0] / sums[..., 1]


def counted(outcomes: np.ndarray) -> np.ndarray:
    """Outcomes of shape (seeds, examples) as counts for ``share``."""
    return np.stack([outcomes, np.ones_like(outcomes)], axis=-1)


def answers(seeds: int, spread: float, seed: int) -> np.ndarray:
    """Outcomes of two models of 70 % on the same 800 examples, shape (2, seeds, examples)."""
    generator = np.random.default_rng(seed)
    logits = 0.9 + generator.standard_normal(800) + spread * generator.standard_normal((2, seeds, 1))
    return (logits + 0.5 * generator.standard_normal((2, 1, 800)) > generator.standard_normal((2, seeds, 800))) * 1.0


@pytest.mark.parametrize(("seeds", "spread"), [*slow((1, 0.0), (3, 0.0)), (3, 0.2), *slow((6, 0.05))])
def test_a_mean_is_compared_as_means_are(seeds: int, spread: float) -> None:
    baseline, candidate = answers(seeds, spread, seed=seeds)
    expected = compare(baseline, candidate, 0.02, 0.95)
    found = compare_corpus(counted(baseline), counted(candidate), share, 2.0, 0.95, replicates=20_000)
    assert found.scope == expected.scope
    assert found.difference.mean == pytest.approx(100 * expected.difference.mean)
    assert found.standard_error == pytest.approx(100 * expected.standard_error, rel=0.02)
    assert found.degrees_of_freedom == pytest.approx(expected.degrees_of_freedom, rel=0.1)
    assert found.p_noninferior == pytest.approx(expected.p_noninferior, abs=0.02)  # means correct for skewness
    assert found.difference.low == pytest.approx(100 * expected.difference.low, abs=0.05 * found.standard_error)
    assert found.difference.high == pytest.approx(100 * expected.difference.high, abs=0.05 * found.standard_error)
    assert found.components.examples == pytest.approx(1e4 * expected.components.examples, rel=0.1)
    for part, of_means in zip(found.components.interaction, expected.components.interaction, strict=True):
        assert part == pytest.approx(1e4 * of_means, rel=0.03)
    for part, of_means in zip(found.components.seeds, expected.components.seeds, strict=True):
        assert part == pytest.approx(1e4 * of_means, abs=0.02 * found.components.interaction[0] / 800 + 1e-9)


@pytest.mark.parametrize("seeds", [*slow(1), 4])
def test_bleu_is_compared_as_the_jackknife_would(simulation: ModuleType, seeds: int) -> None:
    groups = translated(simulation, seeds, 35.0, 33.0, luck=0.5)
    # Pseudo-values (Tukey 1958): what each sentence contributes to a score, as if the score were their mean.
    values = []
    for counts in groups:
        sums = counts.sum(axis=1, keepdims=True)
        values.append((600 * bleu(sums) - 599 * bleu(sums - counts)) / 100)
    expected = compare(values[0], values[1], 0.005, 0.95)
    found = compare_corpus(groups[0], groups[1], bleu, 0.5, 0.95, replicates=10_000)
    assert found.standard_error == pytest.approx(100 * expected.standard_error, rel=0.03)
    for part, of_values in zip(found.components.interaction, expected.components.interaction, strict=True):
        assert part == pytest.approx(1e4 * of_values, rel=0.05)
    assert found.difference.mean == pytest.approx(100 * expected.difference.mean, abs=0.03)


def test_interval_of_one_model_is_sacrebleus() -> None:
    generator = np.random.default_rng(0)
    words = np.array(["der", "die", "das", "ein", "eine", "Hund", "Mann", "Frau", "läuft", "steht", "auf", "in", "rot"])
    references = [" ".join(words[generator.integers(len(words), size=size)]) for size in generator.integers(5, 20, 300)]
    hypotheses = [
        " ".join(word if generator.random() > wrong else "und" for word in text.split())
        for text, wrong in zip(references, generator.uniform(0, 0.5, 300), strict=True)
    ]
    official = BLEU().corpus_score(hypotheses, [references], n_bootstrap=2000)
    counts = Translations(tuple(references), tuple(references), tuple(hypotheses)).statistics("bleu")
    found = corpus_interval([counts], bleu, 0.95)
    assert found.mean == pytest.approx(official.score)
    assert (found.high - found.low) / 2 == pytest.approx(official._ci, rel=0.1)


def test_what_is_paired_and_what_is_not(simulation: ModuleType) -> None:
    baseline, candidate = translated(simulation, 3, 35.0, 34.0)
    found = compare_corpus(baseline, candidate, bleu, 0.5, 0.95)
    reordered = compare_corpus(baseline, candidate[::-1], bleu, 0.5, 0.95)
    assert reordered.standard_error == pytest.approx(found.standard_error)  # seeds are not paired
    unpaired = compare_corpus(baseline, candidate[:, ::-1], bleu, 0.5, 0.95)
    assert unpaired.standard_error > 1.2 * found.standard_error  # the sentences' difficulty no longer cancels
    mirrored = compare_corpus(candidate, baseline, bleu, 0.5, 0.95)
    assert mirrored.difference.low == pytest.approx(-found.difference.high)
    assert mirrored.standard_error == pytest.approx(found.standard_error)


def test_one_translation_against_itself(simulation: ModuleType) -> None:
    (counts,) = translated(simulation, 1, 35.0)
    found = compare_corpus(counts, counts, bleu, 0.5, 0.95)
    own = corpus_interval(counts, bleu, 0.95)
    # The width is not 0: on other sentences the two might differ.
    assert 0 < found.difference.high - found.difference.low < 0.1 * (own.high - own.low)
    assert found.difference.mean == 0
    assert decide({"same": found}, 0.5, 0.95, METRICS["bleu"])["same"].decision == "accept"
    test = paired_bootstrap(counts[0], counts[0], bleu, 0.95)
    assert (test.difference.low, test.difference.high, test.p_value) == (0, 0, 1)


def test_variance_between_seeds_counts(simulation: ModuleType) -> None:
    steady, varied = (
        compare_corpus(baseline, candidate, bleu, 0.5, 0.95)
        for baseline, candidate in (translated(simulation, 4, 35.0, 35.0, luck=luck) for luck in (0.0, 5.0))
    )
    assert varied.standard_error > 2 * steady.standard_error
    assert varied.degrees_of_freedom < steady.degrees_of_freedom
    now = varied.components.variance()[0]
    assert varied.components.variance(more_examples=1_000_000)[0] > 0.7 * now
    assert varied.components.variance(more_seeds=12)[0] == pytest.approx(now / 4, rel=0.2)
    one_model = translated(simulation, 4, 35.0, luck=5.0)[0]
    both, one = (corpus_interval(part, bleu, 0.95) for part in (one_model, one_model[:1]))
    assert both.high - both.low > one.high - one.low  # one seed holds for this one training


def test_one_seed_on_either_side_is_one_pair(simulation: ModuleType) -> None:
    baseline, candidate = translated(simulation, 3, 35.0, 33.0, luck=1.0)
    found = compare_corpus(baseline[:1], candidate, bleu, 0.5, 0.95)
    assert found.scope == "one trained pair"
    assert found.components.num_seeds == (1, 1)
    assert compare_corpus(baseline[:2], candidate, bleu, 0.5, 0.95).components.num_seeds == (2, 3)


def test_equal_draws_for_equal_seeds(simulation: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    baseline, candidate = translated(simulation, 2, 35.0, 33.0)
    found = compare_corpus(baseline, candidate, bleu, 0.5, 0.95)
    other = compare_corpus(baseline, candidate, bleu, 0.5, 0.95, seed=1)
    assert other != found
    assert other.standard_error == pytest.approx(found.standard_error, rel=0.1)
    assert compare_corpus(baseline, candidate, bleu, 0.5, 0.95) == found
    monkeypatch.setattr(corpus, "_MOST_WEIGHTS", 7 * 600)  # 2,000 replicates are not a multiple of 7
    assert compare_corpus(baseline, candidate, bleu, 0.5, 0.95) == found


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize(("right", "points"), [(0, 0), (20, 100)])
def test_no_variation_is_no_certainty(seeds: int, right: int, points: int) -> None:
    counts = np.tile(np.array([right, 20.0]), (seeds, 300, 1))
    quality = corpus_interval(counts, share, 0.95)
    assert quality.mean == points
    assert 0 <= quality.low < quality.high <= 100
    found = compare_corpus(counts, counts, share, 0.5, 0.95)
    assert found.difference.low < 0 < found.difference.high
    assert found.p_noninferior == pytest.approx(0.995**300)  # no sentence is lost
    if points:
        # None of 300 sentences is wrong, but one in a hundred of others may be (the rule of three).
        assert quality.low < 99.5
        assert decide({"same": found}, 0.5, 0.95, METRICS["bleu"])["same"].decision == "undecided"


def test_paired_bootstrap_of_a_mean_is_a_z_test() -> None:
    generator = np.random.default_rng(4)
    baseline, candidate = answers(1, 0.0, seed=4)[:, 0]
    candidate = np.where(generator.random(800) < 0.04, 0.0, candidate)
    found = paired_bootstrap(counted(baseline), counted(candidate), share, 0.9, replicates=20_000)
    differences = 100 * (candidate - baseline)
    error = differences.std() / math.sqrt(800)
    assert found.difference.mean == pytest.approx(differences.mean())
    assert found.p_value == pytest.approx(2 * stats.norm.sf(abs(differences.mean()) / error), abs=0.02)
    assert 0.01 < found.p_value < 0.5
    low, high = stats.norm.interval(0.9, differences.mean(), error)
    assert (found.difference.low, found.difference.high) == pytest.approx((low, high), abs=0.1 * error)


def test_paired_bootstrap_draws_whole_groups(simulation: ModuleType) -> None:
    """Copies of a sentence are a group, and say no more than the sentence."""
    (first,), (second,) = translated(simulation, 1, 30.0, 29.0)
    groups = np.arange(600).repeat(3)
    alone = paired_bootstrap(first, second, bleu, 0.95)
    copied = paired_bootstrap(first.repeat(3, axis=0), second.repeat(3, axis=0), bleu, 0.95, groups)
    assert copied.p_value == alone.p_value
    assert copied.difference.low == pytest.approx(alone.difference.low)
    assert copied.difference.high == pytest.approx(alone.difference.high)


def test_decisions_are_in_points_of_the_metric(simulation: ModuleType) -> None:
    baseline, candidate = translated(simulation, 3, 35.0, 34.6)
    near = compare_corpus(baseline, candidate, bleu, 0.5, 0.95)
    undecided = decide({"near": near}, 0.5, 0.95, METRICS["bleu"])["near"]
    assert undecided.decision == "undecided"
    assert f"{near.difference.mean:+.2f} BLEU; a drop of 0.5 BLEU or more is not" in undecided.reason
    assert "point" not in undecided.reason
    far = compare_corpus(baseline, translated(simulation, 3, 35.0, 25.0)[1], bleu, 1.0, 0.95)
    rejected = decide({"far": far}, 1.0, 0.95, METRICS["chrf"])["far"]
    assert rejected.decision == "reject"
    assert "chrF; the drop is more than 1 chrF (p = " in rejected.reason


def test_more_examples_decide_where_they_are_said_to(simulation: ModuleType) -> None:
    baseline, candidate = translated(simulation, 1, 35.0, 35.3)
    found = compare_corpus(baseline, candidate, bleu, 1.0, 0.95)
    decision = decide({"a": found}, 1.0, 0.95, METRICS["bleu"])["a"]
    assert decision.decision == "undecided"
    assert decision.more_examples is not None
    times = max(2, round(decision.more_examples / 600))
    again = compare_corpus(np.tile(baseline, (1, times, 1)), np.tile(candidate, (1, times, 1)), bleu, 1.0, 0.95)
    # They are planned for a smaller difference and for bad luck, so that the same estimate decides by far.
    assert again.p_noninferior < 0.05


def test_shapes_that_do_not_fit() -> None:
    counts = np.ones((1, 30, 2))
    with pytest.raises(ValueError, match=r"\(29, 2\), \(30, 2\)"):
        compare_corpus(counts, counts[:, :29], share, 0.5, 0.95)
    with pytest.raises(ValueError, match="for every seed"):
        compare_corpus(counts, [], share, 0.5, 0.95)
    with pytest.raises(ValueError, match="2 sentences or more"):
        corpus_interval(counts[:, :1], share, 0.95)
    with pytest.raises(ValueError, match=r"\(30, 1\), \(30, 2\)"):
        paired_bootstrap(counts[0], counts[0, :, :1], share, 0.95)


@pytest.mark.parametrize(("seeds", "luck"), slow((1, "none"), (3, "much")))
def test_simulation_with_known_truth(simulation: ModuleType, seeds: int, luck: str) -> None:
    replicates = 400
    row = simulation.one_candidate(seeds, 300, luck, replicates, 200, np.random.default_rng(seeds))
    error = math.sqrt(0.05 * 0.95 / replicates)
    assert row["coverage_difference"] > 0.95 - 2.5 * error
    assert row["coverage_quality"] > 0.95 - 2.5 * error
    assert row["false_accepts"] < 0.05 + 2.5 * error


def test_truth_of_the_simulation(simulation: ModuleType) -> None:
    level = simulation.level_of(35.0, 0.0)
    world = simulation.World(1, 100_000, np.random.default_rng(0))
    assert bleu(world.statistics(level, 0.0)[0].sum(axis=0)) == pytest.approx(35.0, abs=0.3)
    spread = simulation.spread_of(0.8)
    assert simulation.mean_bleu(simulation.level_of(34.5, spread), spread) == pytest.approx(34.5)
    assert simulation.true_bleu(level + spread * np.array([-1, 1])) == pytest.approx([35.8, 34.2], abs=0.05)

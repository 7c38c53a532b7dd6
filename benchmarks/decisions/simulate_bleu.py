"""Intervals and decisions on BLEU where the truth is known: coverage, and false accepts at a true drop of the margin.

Each replicate draws test sentences and trainings of a baseline and of a candidate whose true BLEU is lower by just the
margin, and asks leanformer's own ``compare_corpus``. Translations are references corrupted word by word. A word is
wrong with a probability whose logit is a sum: the model's level, the sentence's difficulty (shared by all models), its
difficulty for this architecture, the training's luck (shared by all sentences), and noise of this sentence with this
training. A wrong word matches nothing, and some are left out, so that the brevity penalty counts too; from that follow
the counts that BLEU is made of. A training's true BLEU is that of a corpus without end, by quadrature over
difficulties, lengths and omissions; a model's is the mean over trainings. With one seed the truth is that of the
trained pair, which has no luck.
"""

from __future__ import annotations

import argparse
import itertools
from typing import Any

import numpy as np
from scipy import stats
from scipy.optimize import brentq
from scipy.special import expit

from benchmarks.kit.again import Figures, simulated
from benchmarks.kit.benchmark import Benchmark, Result, progress, register
from benchmarks.kit.tables import Tables, figure_table, span, table
from leanformer.decide.corpus import compare_corpus, corpus_interval
from leanformer.results.metrics import METRICS

BLEU, MARGIN, CONFIDENCE = 35.0, 0.5, 0.95
# Standard deviations of a sentence's difficulty: for all models, for an architecture, noise; logits of a word's error.
DIFFICULTY, ARCHITECTURE, NOISE = 0.8, 0.4, 0.5
LEFT_OUT = 0.2  # of the wrong words
SHORTEST, LONGER = 4, 9.0  # words a sentence: at least, and the mean of the Poisson number of further ones
# Standard deviation of a training's true BLEU, in points: the baseline's and the candidate's.
LUCK = {"none": (0.0, 0.0), "little": (0.1, 0.1), "much": (0.8, 0.8), "uneven": (0.3, 0.9)}
ORDERS = np.arange(4)  # of n-grams, from 0

score = METRICS["bleu"].score


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--replicates", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=500, help="of the bootstrap in each replicate")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 3, 5])
    parser.add_argument("--sentences", type=int, nargs="+", default=[300, 1000])


def true_bleu(levels: np.ndarray) -> np.ndarray:
    """BLEU of a corpus without end.

    Args:
        levels: Logits of a word's error in the sentence of mean difficulty, shape (levels,).
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(16)
    weights /= weights.sum()
    spread = (DIFFICULTY**2 + ARCHITECTURE**2 + NOISE**2) ** 0.5
    wrong = expit(levels[:, None] + spread * nodes)[..., None]  # (levels, nodes, 1)
    further = np.arange(stats.poisson.ppf(1 - 1e-7, LONGER) + 1)
    lengths, of_length = SHORTEST + further, stats.poisson.pmf(further, LONGER)
    there = np.maximum(lengths[:, None] - ORDERS, 0)  # (lengths, orders)
    correct = there * (1 - wrong[..., None]) ** (ORDERS + 1)  # (levels, nodes, lengths, orders)
    kept = np.arange(lengths[-1] + 1)
    chances = stats.binom.pmf(kept, lengths[:, None], 1 - LEFT_OUT * wrong[..., None])  # (levels, nodes, lengths, kept)
    total = chances @ np.maximum(kept[:, None] - ORDERS, 0.0)
    sizes = np.stack(np.broadcast_arrays((1 - LEFT_OUT * wrong) * lengths, lengths), axis=-1)
    expected = np.concatenate([sizes, correct, total], axis=-1)  # (levels, nodes, lengths, counts)
    return score(np.einsum("anlc,n,l->ac", expected, weights, of_length))


def mean_bleu(level: float, spread: float) -> float:
    """A model's true BLEU: the mean over trainings whose levels have this standard deviation."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(5)
    return float(true_bleu(level + spread * nodes) @ weights / weights.sum())


def level_of(bleu: float, spread: float) -> float:
    """The level at which a model has this true BLEU."""
    level: float = brentq(lambda level: mean_bleu(level, spread) - bleu, -4.0, 2.0)
    return level


def spread_of(luck: float) -> float:
    """The standard deviation of a training's level at which its true BLEU has this one, to first order."""
    level = level_of(BLEU, 0.0)
    better, worse = true_bleu(np.array([level - 0.01, level + 0.01]))
    return luck * 0.02 / float(better - worse)


class World:
    """Draws the counts of translations by models whose true BLEU is known.

    Args:
        seeds: Trainings a model.
        sentences: Test sentences.
        generator: Source of chance.
    """

    def __init__(self, seeds: int, sentences: int, generator: np.random.Generator) -> None:
        self.seeds, self.sentences, self.generator = seeds, sentences, generator
        self.draw_sentences()

    def draw_sentences(self) -> None:
        """Another test set."""
        self.lengths = SHORTEST + self.generator.poisson(LONGER, self.sentences)
        self.difficulty = DIFFICULTY * self.generator.standard_normal(self.sentences)

    def statistics(self, level: float, spread: float) -> np.ndarray:
        """Of one model, shape (seeds, sentences, counts).

        Args:
            level: Logit of a word's error in the sentence of mean difficulty, without luck.
            spread: Standard deviation of the trainings' luck.
        """
        draw = self.generator.standard_normal
        logits = level + self.difficulty + ARCHITECTURE * draw(self.sentences)
        logits = logits + spread * draw((self.seeds, 1)) + NOISE * draw((self.seeds, self.sentences))
        words = np.arange(self.lengths.max())
        # A word that is not there is never right.
        wrong = np.where(words < self.lengths[:, None], expit(logits)[..., None], 1.0)  # (seeds, sentences, words)
        matches = self.generator.random(wrong.shape, dtype=np.float32) >= wrong
        correct = [matches.sum(axis=-1)]
        for order in ORDERS[1:]:
            longer = matches[..., order:].copy()
            for back in range(1, order + 1):
                longer &= matches[..., order - back : -back]
            correct.append(longer.sum(axis=-1))
        length = self.lengths - self.generator.binomial(self.lengths - correct[0], LEFT_OUT)
        total = [np.maximum(length - order, 0) for order in ORDERS]
        reference_length = np.broadcast_to(self.lengths, length.shape)
        return np.stack([length, reference_length, *correct, *total], axis=-1).astype(float)


def one_candidate(
    seeds: int, sentences: int, luck: str, replicates: int, resamples: int, generator: np.random.Generator
) -> dict[str, Any]:
    """Coverage and false accepts of one candidate at the margin."""
    world = World(seeds, sentences, generator)
    baseline_spread, candidate_spread = (spread_of(points) for points in LUCK[luck])
    baseline_level = level_of(BLEU, baseline_spread)
    candidate_level = level_of(BLEU - MARGIN, candidate_spread)
    covered = quality_covered = accepted = 0
    widths, freedoms = [], []
    for replicate in range(replicates):
        world.draw_sentences()
        baseline = list(world.statistics(baseline_level, baseline_spread))
        candidate = list(world.statistics(candidate_level, candidate_spread))
        comparison = compare_corpus(baseline, candidate, score, MARGIN, CONFIDENCE, resamples, replicate)
        covered += comparison.difference.low <= -MARGIN <= comparison.difference.high
        accepted += comparison.p_noninferior <= 1 - CONFIDENCE
        quality = corpus_interval(candidate, score, CONFIDENCE, resamples, replicate)
        quality_covered += quality.low <= BLEU - MARGIN <= quality.high
        widths.append(comparison.difference.high - comparison.difference.low)
        freedoms.append(comparison.degrees_of_freedom)
    baseline_luck, candidate_luck = LUCK[luck]
    return {
        "seeds": seeds,
        "sentences": sentences,
        "luck": luck,
        "baseline_luck_bleu": baseline_luck,
        "candidate_luck_bleu": candidate_luck,
        "replicates": replicates,
        "resamples": resamples,
        "coverage_difference": covered / replicates,
        "coverage_quality": quality_covered / replicates,
        "false_accepts": accepted / replicates,
        "median_width_bleu": float(np.median(widths)),
        "median_degrees_of_freedom": float(np.median(freedoms)),
    }


def measure(arguments: argparse.Namespace) -> Result:
    """A row a cell."""
    rows = []
    for number, (seeds, sentences, luck) in enumerate(itertools.product(arguments.seeds, arguments.sentences, LUCK)):
        # One seed speaks of the pair itself, whose trainings are given; several speak of trainings drawn by chance.
        if (seeds == 1) != (luck == "none"):
            continue
        generator = np.random.Generator(np.random.SFC64([number, seeds, sentences]))
        rows.append(one_candidate(seeds, sentences, luck, arguments.replicates, arguments.resamples, generator))
        progress(f"{seeds} seeds, {sentences:,} sentences, luck {luck}: done")
    return {"rows": rows}


def tables(result: Result) -> Tables:
    """A line a cell."""
    lines = [
        (
            row["seeds"],
            f"{row['sentences']:,}",
            row["luck"],
            f"{100 * row['coverage_difference']:.1f} %",
            f"{100 * row['coverage_quality']:.1f} %",
            f"{100 * row['false_accepts']:.1f} %",
            f"{row['median_width_bleu']:.1f}",
        )
        for row in result["rows"]
    ]
    header = ("seeds", "sentences", "luck", "coverage, difference", "coverage, quality", "false accepts", "width, BLEU")
    wrong = [100 * row["false_accepts"] for row in result["rows"]]
    replicates = result["rows"][0]["replicates"]
    return {
        "cells": table(header, lines),
        "figures": figure_table(
            {
                "false accepts, from the least to the most": f"{span(wrong, '.1f')} %",
                "replicates a row": f"{replicates:,}",
                "standard error of a share of 5 %": f"{100 * (0.05 * 0.95 / replicates) ** 0.5:.1f} points",
                "resamples of a bootstrap": result["rows"][0]["resamples"],
            }
        ),
    }


def stated(result: Result) -> Figures:
    """The shares of wrong acceptances."""
    return simulated(result["rows"], ("seeds", "sentences", "luck", "baseline_luck_bleu", "candidate_luck_bleu"))


BENCHMARK = register(
    "decisions",
    Benchmark(
        name="simulate_bleu",
        add_arguments=add_arguments,
        measure=measure,
        tables=tables,
        quick={"replicates": 10, "resamples": 50, "seeds": [1, 3], "sentences": [100]},
        stated=stated,
    ),
)

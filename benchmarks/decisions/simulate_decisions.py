"""Intervals and decisions where the truth is known: coverage, and false accepts at a true drop equal to the margin.

Each replicate draws test examples and trainings of a baseline and of a candidate whose true accuracy is lower by just
the margin, and asks leanformer's own ``compare``. An answer is right where the sum of normal numbers is positive: the
model's strength, the example's ease (shared by all models), its ease for this architecture, the training's luck (shared
by all examples), and noise of this example with this training. So the true accuracy, over all examples and trainings,
is a normal probability, known exactly. With one seed the truth is that of the trained pair, which has no luck. A last
table has six candidates at the margin that share one baseline, decided together.
"""

from __future__ import annotations

import argparse
import itertools
from typing import Any

import numpy as np
from scipy import stats
from scipy.special import ndtri

from benchmarks.kit.again import Figures, simulated
from benchmarks.kit.benchmark import Benchmark, Result, progress, register
from benchmarks.kit.tables import Tables, figure_table, span, table
from leanformer.decide.decision import decide
from leanformer.decide.statistics import compare, quality_interval
from leanformer.results.metrics import METRICS

ACCURACY, MARGIN, CONFIDENCE = 0.95, 0.01, 0.95
# Standard deviations: ease of an example, for an architecture, noise. A third or so of the errors of one training are
# not another's, as small models trained from scratch have it.
EASE, ARCHITECTURE, NOISE = 1.5, 0.5, 0.7
# Standard deviation of a training's true accuracy, in points: the baseline's and the candidate's.
LUCK = {"none": (0.0, 0.0), "little": (0.05, 0.05), "some": (0.3, 0.3), "much": (0.8, 0.8), "uneven": (0.25, 0.75)}
TOGETHER = 6  # candidates of the last table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--replicates", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 3, 5, 10])
    parser.add_argument("--examples", type=int, nargs="+", default=[300, 1_000, 10_000])
    parser.add_argument("--together-examples", type=int, default=1_000, help="of the last table")


class World:
    """Draws outcomes of models whose true accuracies are known.

    Args:
        seeds: Trainings a model.
        examples: Test examples.
        generator: Source of chance.
        group: Examples of a group, which all are as easy, for all models and for an architecture.
    """

    def __init__(self, seeds: int, examples: int, generator: np.random.Generator, group: int = 1) -> None:
        self.seeds, self.examples, self.generator, self.group = seeds, examples, generator, group
        self.draw_examples()

    def draw_examples(self) -> None:
        """Another test set."""
        self.ease = EASE * self._of_examples()

    def _of_examples(self) -> np.ndarray:
        """Standard normal numbers, one for each group of examples, shape (examples,)."""
        drawn = self.generator.standard_normal(self.examples // self.group, dtype=np.float32)
        return np.repeat(drawn, self.group)

    def outcomes(self, accuracy: float, luck: float, lucky: np.ndarray | None = None) -> np.ndarray:
        """Of one model, shape (seeds, examples).

        Args:
            accuracy: Its true accuracy, over all examples and trainings.
            luck: Standard deviation of a training's true accuracy, in points, to first order.
            lucky: Each training's luck in standard deviations, normal, shape (seeds,); by default drawn here.
        """
        draw = self.generator.standard_normal
        fixed = EASE**2 + ARCHITECTURE**2 + NOISE**2
        strength = float(ndtri(accuracy))
        slope = luck / 100 / float(stats.norm.pdf(strength))
        # slope = spread / sqrt(fixed + spread^2), solved for the spread.
        spread = (fixed * slope**2 / (1 - slope**2)) ** 0.5
        level = strength * (fixed + spread**2) ** 0.5
        expected = level + self.ease + ARCHITECTURE * self._of_examples()
        if lucky is None:
            lucky = draw(self.seeds, dtype=np.float32)
        noise = draw((len(lucky), self.examples), dtype=np.float32)
        return (noise * np.float32(NOISE) > -(expected + spread * lucky[:, None])).astype(float)


def describe(seeds: int, examples: int, luck: str, candidates: int, replicates: int) -> dict[str, Any]:
    """The columns that say what a row simulates."""
    baseline_luck, candidate_luck = LUCK[luck]
    return {
        "seeds": seeds,
        "examples": examples,
        "luck": luck,
        "baseline_luck_points": baseline_luck,
        "candidate_luck_points": candidate_luck,
        "candidates": candidates,
        "replicates": replicates,
    }


def one_candidate(
    seeds: int, examples: int, luck: str, replicates: int, generator: np.random.Generator
) -> dict[str, Any]:
    """Coverage and false accepts of one candidate at the margin."""
    world = World(seeds, examples, generator)
    baseline_luck, candidate_luck = LUCK[luck]
    covered = quality_covered = accepted = 0
    widths, freedoms = [], []
    for _ in range(replicates):
        world.draw_examples()
        baseline = world.outcomes(ACCURACY, baseline_luck)
        candidate = world.outcomes(ACCURACY - MARGIN, candidate_luck)
        comparison = compare(baseline, candidate, MARGIN, CONFIDENCE)
        covered += comparison.difference.low <= -MARGIN <= comparison.difference.high
        accepted += comparison.p_noninferior <= 1 - CONFIDENCE
        quality = quality_interval(candidate, CONFIDENCE)
        quality_covered += quality.low <= ACCURACY - MARGIN <= quality.high
        widths.append(comparison.difference.high - comparison.difference.low)
        freedoms.append(comparison.degrees_of_freedom)
    return {
        **describe(seeds, examples, luck, 1, replicates),
        "coverage_difference": covered / replicates,
        "coverage_quality": quality_covered / replicates,
        "false_accepts": accepted / replicates,
        "median_width_points": 100 * float(np.median(widths)),
        "median_degrees_of_freedom": float(np.median(freedoms)),
    }


def several_candidates(
    seeds: int, examples: int, luck: str, candidates: int, replicates: int, generator: np.random.Generator
) -> dict[str, Any]:
    """How often any of several candidates at the margin is accepted."""
    world = World(seeds, examples, generator)
    baseline_luck, candidate_luck = LUCK[luck]
    wrong = 0
    for _ in range(replicates):
        world.draw_examples()
        baseline = world.outcomes(ACCURACY, baseline_luck)
        comparisons = {
            str(number): compare(baseline, world.outcomes(ACCURACY - MARGIN, candidate_luck), MARGIN, CONFIDENCE)
            for number in range(candidates)
        }
        decisions = decide(comparisons, MARGIN, CONFIDENCE, METRICS["accuracy"])
        wrong += any(decision.decision == "accept" for decision in decisions.values())
    return {
        **describe(seeds, examples, luck, candidates, replicates),
        "false_accepts": wrong / replicates,
    }


def make_generator(*numbers: int) -> np.random.Generator:
    """A generator of its own for each cell; SFC64 is the fastest of NumPy's."""
    return np.random.Generator(np.random.SFC64(list(numbers)))


def measure(arguments: argparse.Namespace) -> Result:
    """A row a cell, first of one candidate, then of several that are decided together."""
    rows = []
    # One seed speaks of the pair itself, whose trainings are given; several speak of trainings drawn by chance.
    every = itertools.product(arguments.seeds, arguments.examples, LUCK)
    cells = [cell for cell in every if (cell[0] == 1) == (cell[2] == "none")]
    for number, (seeds, examples, luck) in enumerate(cells):
        generator = make_generator(number, seeds, examples)
        rows.append(one_candidate(seeds, examples, luck, arguments.replicates, generator))
        progress(f"{seeds} seeds, {examples:,} examples, luck {luck}: done")
    for number, (seeds, luck) in enumerate(itertools.product(arguments.seeds, ("little", "much"))):
        if seeds > 1:
            examples, generator = arguments.together_examples, make_generator(number, seeds)
            rows.append(several_candidates(seeds, examples, luck, TOGETHER, arguments.replicates, generator))
            progress(f"{seeds} seeds, luck {luck}, {TOGETHER} candidates: done")
    return {"rows": rows}


def tables(result: Result) -> Tables:
    """One candidate at the margin, then several."""
    alone = [row for row in result["rows"] if row["candidates"] == 1]
    together = [row for row in result["rows"] if row["candidates"] > 1]
    lines = [
        (
            row["seeds"],
            f"{row['examples']:,}",
            row["luck"],
            f"{100 * row['coverage_difference']:.1f} %",
            f"{100 * row['coverage_quality']:.1f} %",
            f"{100 * row['false_accepts']:.1f} %",
            f"{row['median_width_points']:.1f}",
        )
        for row in alone
    ]
    header = (
        "seeds",
        "examples",
        "luck",
        "coverage, difference",
        "coverage, quality",
        "false accepts",
        "width, points",
    )
    wrong = [100 * row["false_accepts"] for row in result["rows"]]
    replicates = alone[0]["replicates"]
    found = {
        "cells": table(header, lines),
        "figures": figure_table(
            {
                "false accepts, from the least to the most": f"{span(wrong, '.1f')} %",
                "replicates a row": f"{replicates:,}",
                "standard error of a share of 5 %": f"{100 * (0.05 * 0.95 / replicates) ** 0.5:.2f} points",
            }
        ),
    }
    if together:
        several = [
            (
                row["candidates"],
                f"{row['examples']:,}",
                row["seeds"],
                row["luck"],
                f"{100 * row['false_accepts']:.1f} %",
            )
            for row in together
        ]
        found["together"] = table(("candidates", "examples", "seeds", "luck", "any false accept"), several)
    return found


def stated(result: Result) -> Figures:
    """The shares of wrong acceptances."""
    return simulated(
        result["rows"], ("seeds", "examples", "luck", "baseline_luck_points", "candidate_luck_points", "candidates")
    )


BENCHMARK = register(
    "decisions",
    Benchmark(
        name="simulate_decisions",
        add_arguments=add_arguments,
        measure=measure,
        tables=tables,
        quick={"replicates": 20, "seeds": [1, 3], "examples": [300], "together_examples": 100},
        stated=stated,
    ),
)

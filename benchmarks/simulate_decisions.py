"""Intervals and decisions where the truth is known: coverage, and false accepts at a true drop equal to the margin.

    python benchmarks/simulate_decisions.py --out benchmarks/results/simulate_decisions.csv

Each replicate draws test examples and trainings of a baseline and of a candidate whose true accuracy is lower by just
the margin, and asks leanformer's own ``compare``. An answer is right where the sum of normal numbers is positive: the
model's strength, the example's ease (shared by all models), its ease for this architecture, the training's luck (shared
by all examples), and noise of this example with this training. So the true accuracy, over all examples and trainings,
is a normal probability, known exactly. With one seed the truth is that of the trained pair, which has no luck. A last
table has six candidates at the margin that share one baseline, decided together.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from scipy.special import ndtri

from leanformer.decide.decision import decide
from leanformer.decide.statistics import compare, quality_interval

ACCURACY, MARGIN, CONFIDENCE = 0.95, 0.01, 0.95
# Standard deviations: ease of an example, for an architecture, noise. A third or so of the errors of one training are
# not another's, as small models trained from scratch have it.
EASE, ARCHITECTURE, NOISE = 1.5, 0.5, 0.7
# Standard deviation of a training's true accuracy, in points: the baseline's and the candidate's.
LUCK = {"none": (0.0, 0.0), "little": (0.05, 0.05), "some": (0.3, 0.3), "much": (0.8, 0.8), "uneven": (0.25, 0.75)}


class World:
    """Draws outcomes of models whose true accuracies are known.

    Args:
        seeds: Trainings a model.
        examples: Test examples.
        generator: Source of chance.
    """

    def __init__(self, seeds: int, examples: int, generator: np.random.Generator) -> None:
        self.seeds, self.examples, self.generator = seeds, examples, generator
        self.draw_examples()

    def draw_examples(self) -> None:
        """Another test set."""
        self.ease = EASE * self.generator.standard_normal(self.examples, dtype=np.float32)

    def outcomes(self, accuracy: float, luck: float) -> np.ndarray:
        """Of one model, shape (seeds, examples).

        Args:
            accuracy: Its true accuracy, over all examples and trainings.
            luck: Standard deviation of a training's true accuracy, in points, to first order.
        """
        draw = self.generator.standard_normal
        fixed = EASE**2 + ARCHITECTURE**2 + NOISE**2
        strength = float(ndtri(accuracy))
        slope = luck / 100 / float(stats.norm.pdf(strength))
        # slope = spread / sqrt(fixed + spread^2), solved for the spread.
        spread = (fixed * slope**2 / (1 - slope**2)) ** 0.5
        level = strength * (fixed + spread**2) ** 0.5
        expected = level + self.ease + ARCHITECTURE * draw(self.examples, dtype=np.float32)
        lucky = spread * draw((self.seeds, 1), dtype=np.float32)
        noise = draw((self.seeds, self.examples), dtype=np.float32)
        return (noise * np.float32(NOISE) > -(expected + lucky)).astype(float)


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
        decisions = decide(comparisons, MARGIN, CONFIDENCE)
        wrong += any(decision.decision == "accept" for decision in decisions.values())
    return {
        **describe(seeds, examples, luck, candidates, replicates),
        "false_accepts": wrong / replicates,
    }


def make_generator(*numbers: int) -> np.random.Generator:
    """A generator of its own for each cell; SFC64 is the fastest of NumPy's."""
    return np.random.Generator(np.random.SFC64(list(numbers)))


def main() -> None:
    """Simulates, prints the tables, writes the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicates", type=int, default=10_000)
    parser.add_argument("--quick", action="store_true", help="500 replicates, no more than 1,000 examples")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 3, 5, 10])
    parser.add_argument("--examples", type=int, nargs="+", default=[300, 1_000, 10_000])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    replicates = 500 if arguments.quick else arguments.replicates
    sizes = [size for size in arguments.examples if size <= 1_000 or not arguments.quick]
    rows = []
    started = time.monotonic()
    # One seed speaks of the pair itself, whose trainings are given; several speak of trainings drawn by chance.
    cells = [cell for cell in itertools.product(arguments.seeds, sizes, LUCK) if (cell[0] == 1) == (cell[2] == "none")]
    print("seeds  examples  variance of seeds  coverage: difference  quality  false accepts  interval's width")
    for number, (seeds, examples, luck) in enumerate(cells):
        row = one_candidate(seeds, examples, luck, replicates, make_generator(number, seeds, examples))
        rows.append(row)
        print(
            f"{seeds:>5}  {examples:>8,}  {luck:<17}  {row['coverage_difference']:>20.1%}  "
            f"{row['coverage_quality']:>7.1%}  {row['false_accepts']:>13.1%}  {row['median_width_points']:.1f} points",
            flush=True,
        )
    print("\nsix candidates at the margin: any of them accepted")
    for number, (seeds, luck) in enumerate(itertools.product(arguments.seeds, ("little", "much"))):
        if seeds == 1:
            continue
        row = several_candidates(seeds, 1_000, luck, 6, replicates, make_generator(number, seeds))
        rows.append(row)
        print(f"{seeds:>5}  {1_000:>8,}  {luck:<17}  {row['false_accepts']:.1%}", flush=True)
    print(f"{replicates:,} replicates a line, {time.monotonic() - started:.0f} s")
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        with arguments.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]), restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()

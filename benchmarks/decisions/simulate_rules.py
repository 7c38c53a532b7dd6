"""Whether decisions hold however people use them: at the ceiling, over several looks, after thinning, with groups.

Each row is one way of using a study, with a truth that is known, and how often the study then errs: false accepts of
candidates whose true drop is just the margin, or intervals that miss the truth. One trained pair at the ceiling is
counted exactly, by enumerating how many examples each of both models alone gets right; everything else is simulated
with leanformer's own functions, in the world of ``simulate_decisions`` (the baseline's true accuracy is 95 %, the
margin 1 point).

In cross-validation each fold of each repeat has a trained pair, whose true drop lies around the margin by the luck of
both trainings. Three quarters of the variance of that luck is common to all trainings on one pool, which share most of
their examples; all repeats test the same examples.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats
from scipy.special import ndtri

from benchmarks.decisions.simulate_decisions import (
    ACCURACY,
    ARCHITECTURE,
    CONFIDENCE,
    EASE,
    MARGIN,
    NOISE,
    World,
    make_generator,
)
from benchmarks.kit.benchmark import Benchmark, Result, progress, register
from benchmarks.kit.tables import Tables, figure_table, table
from leanformer.decide.decision import after_picking, holm
from leanformer.decide.looks import Look
from leanformer.decide.resampled import Folds, compare_folds
from leanformer.decide.statistics import Comparison, compare

GAINS = (0.0, 0.0025, 0.005, 0.01, 0.02, 0.05)  # shares of examples that only the candidate gets right
REJECTED, POWER = "false rejects", "power"
SHARED = 0.75  # of the variance of a training's luck: in 5 folds two trainings share three quarters of their examples
ALPHA = 1 - CONFIDENCE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--replicates", type=int, default=10_000)
    parser.add_argument("--only", nargs="+", help="the rules to simulate; by default all")
    parser.add_argument("--examples", type=int, nargs="+", default=[50, 100, 200, 300, 500, 1_000, 1_500])


@dataclass(frozen=True)
class Row:
    """One way of using a study.

    Args:
        rule: The rule that it is about.
        case: The case in words.
        asked: What is promised: ``at most 5 %``.
        share: How often it happened.
        counted: Simulated studies; 0 where it is enumerated.
        holds: Whether the promise is kept; None where nothing is promised.
    """

    rule: str
    case: str
    asked: str
    share: float
    counted: int
    holds: bool | None

    def content(self) -> dict[str, Any]:
        return dict(vars(self))


def at_most(rule: str, case: str, share: float, counted: int, most: float = ALPHA, point: bool = False) -> Row:
    """A row that promises a share of at most this.

    Args:
        rule: See ``Row``.
        case: Likewise.
        share: Likewise.
        counted: Likewise.
        most: The greatest share that is promised.
        point: Whether the share itself must be below; else two standard errors are allowed.
    """
    allowed = 0.0 if point or not counted else 2 * (most * (1 - most) / counted) ** 0.5
    return Row(rule, case, f"at most {100 * most:.3g} %", share, counted, share <= most + allowed)


def ceiling(examples: Sequence[int], margin: float, levels: Sequence[float]) -> np.ndarray:
    """The greatest shares of false accepts and false rejects of one pair, over ``examples`` and ``GAINS``, exactly.

    Args:
        examples: Numbers of test examples.
        margin: The true drop, and the margin.
        levels: Of the tests.

    Returns:
        Shape (2, levels): accepts, then rejects.
    """
    greatest = np.zeros((2, len(levels)))
    for count in examples:
        p_values: dict[tuple[int, int], np.ndarray] = {}
        for gain in GAINS:
            wrong = np.zeros_like(greatest)
            for losses, gains, chance in _tables(count, gain + margin, gain):
                if (losses, gains) not in p_values:
                    p_values[losses, gains] = _of_table(count, losses, gains, margin)
                wrong += chance * (p_values[losses, gains] <= levels)
            greatest = np.maximum(greatest, wrong)
    return greatest


def _tables(count: int, lost: float, gained: float) -> Iterator[tuple[int, int, float]]:
    """Numbers of examples that only the baseline and only the candidate gets right, with their probability."""
    negligible = 1e-7
    for losses in range(int(stats.binom.ppf(1 - negligible, count, lost)) + 1):
        rest, share = count - losses, gained / (1 - lost)
        most = int(stats.binom.ppf(1 - negligible, rest, share)) if gained else 0
        chances = stats.binom.pmf(losses, count, lost) * stats.binom.pmf(np.arange(most + 1), rest, share)
        yield from ((losses, gains, float(chance)) for gains, chance in enumerate(chances))


def _of_table(count: int, losses: int, gains: int, margin: float) -> np.ndarray:
    """The p-values of accepting and rejecting, shape (2, 1)."""
    baseline, candidate = np.ones((2, 1, count))
    candidate[0, :losses] = 0
    baseline[0, losses : losses + gains] = 0
    found = compare(baseline, candidate, margin, CONFIDENCE)
    return np.array([[found.p_noninferior], [found.p_inferior]])


def ceiling_of_seeds(
    seeds: int, count: int, margin: float, common: float, replicates: int, draw: np.random.Generator
) -> float:
    """False accepts where the baseline is right on everything, and seeds lose a part of their examples in common.

    Args:
        seeds: Trainings of each.
        count: Test examples.
        margin: The true drop, and the margin.
        common: The part of a training's losses that all trainings lose.
        replicates: Simulated studies.
        draw: Source of chance.
    """
    wrong = 0
    baseline = np.ones((seeds, count))
    for _ in range(replicates):
        own = 1 - (1 - margin) / (1 - common * margin)
        lost = (draw.random(count) < common * margin) | (draw.random((seeds, count)) < own)
        wrong += compare(baseline, 1.0 - lost, margin, CONFIDENCE).p_noninferior <= ALPHA
    return wrong / replicates


def accepts(compared: Sequence[Comparison], look: Look) -> bool:
    """Whether any of these candidates is accepted at a look, as ``decide`` does it, without its advice."""
    p_values = [one.p_noninferior for one in compared] + [1.0] * look.others
    return min(holm(p_values)) <= look.level(CONFIDENCE)


def looks_of_seeds(luck: float, planned: int, replicates: int, draw: np.random.Generator) -> float:
    """False accepts of one recipe to which two seeds are added before each further look."""
    wrong = 0
    world = World(1 + 2 * planned, 1_000, draw)
    for _ in range(replicates):
        world.draw_examples()
        baseline, candidate = world.outcomes(ACCURACY, luck), world.outcomes(ACCURACY - MARGIN, luck)
        wrong += any(
            accepts([compare(baseline[:seeds], candidate[:seeds], MARGIN, CONFIDENCE)], Look(number, planned))
            for number, seeds in enumerate(range(3, 3 + 2 * planned, 2), 1)
        )
    return wrong / replicates


def looks_of_candidates(planned: int, joining: int, replicates: int, draw: np.random.Generator) -> float:
    """False accepts of any of the models that join at each look at the same examples, each as one pair."""
    wrong = 0
    world = World(1, 1_000, draw)
    for _ in range(replicates):
        world.draw_examples()
        baseline = world.outcomes(ACCURACY, 0.0)
        compared: list[Comparison] = []
        for number in range(1, planned + 1):
            compared += [
                compare(baseline, world.outcomes(ACCURACY - MARGIN, 0.0), MARGIN, CONFIDENCE) for _ in range(joining)
            ]
            if accepts(compared, Look(number, planned)):
                wrong += 1
                break
    return wrong / replicates


def thinning(candidates: int, luck: float, replicates: int, draw: np.random.Generator) -> float:
    """False accepts where the best of many candidates is kept after the first look, and two seeds are added."""
    wrong = 0
    world = World(5, 300, draw)
    for _ in range(replicates):
        world.draw_examples()
        baseline = world.outcomes(ACCURACY, luck)
        forms = [world.outcomes(ACCURACY - MARGIN, luck) for _ in range(candidates)]
        first = [compare(baseline[:3], form[:3], MARGIN, CONFIDENCE) for form in forms]
        best = int(np.argmax([form[:3].mean() for form in forms]))
        again = compare(baseline, forms[best], MARGIN, CONFIDENCE)
        wrong += accepts(first, Look(1, 2)) or accepts([again], Look(2, 2, others=candidates - 1))
    return wrong / replicates


def winners(candidates: int, luck: float, replicates: int, draw: np.random.Generator) -> float:
    """How often the interval of the candidate that looks best covers its true difference."""
    covered = 0
    world = World(3, 1_000, draw)
    for _ in range(replicates):
        world.draw_examples()
        baseline = world.outcomes(ACCURACY, luck)
        forms = [world.outcomes(ACCURACY - MARGIN, luck) for _ in range(candidates)]
        best = max(forms, key=lambda form: float(form.mean()))
        found = after_picking(compare(baseline, best, MARGIN, CONFIDENCE), CONFIDENCE, candidates, 1.0)
        covered += found.low <= -MARGIN <= found.high
    return covered / replicates


def groups(count: int, size: int, seeds: int, replicates: int, draw: np.random.Generator) -> float:
    """False accepts with groups of equally easy examples, as photographs of one object are."""
    wrong = 0
    luck = 0.0 if seeds == 1 else 0.3
    world = World(seeds, count * size, draw, group=size)
    places = np.repeat(np.arange(count), size)
    for _ in range(replicates):
        world.draw_examples()
        baseline, candidate = world.outcomes(ACCURACY, luck), world.outcomes(ACCURACY - MARGIN, luck)
        wrong += compare(baseline, candidate, MARGIN, CONFIDENCE, places).p_noninferior <= ALPHA
    return wrong / replicates


def searched(rates: int, luck: float, own_seed: bool, replicates: int, draw: np.random.Generator) -> float:
    """False accepts where a candidate's rate is searched among equally good ones, and the baseline's is not.

    Args:
        rates: Learning rates of the search.
        luck: Standard deviation of a training's true accuracy, in points.
        own_seed: Whether the search has a seed of its own; else its best training is the first trial.
        replicates: Simulated studies.
        draw: Source of chance.
    """
    wrong = 0
    world = World(3, 1_000, draw)
    for _ in range(replicates):
        world.draw_examples()
        lucky = draw.standard_normal(3, dtype=np.float32)
        if not own_seed:
            lucky[0] = draw.standard_normal(rates, dtype=np.float32).max()  # validation sees what a training is worth
        baseline = world.outcomes(ACCURACY, luck)
        wrong += (
            compare(baseline, world.outcomes(ACCURACY - MARGIN, luck, lucky), MARGIN, CONFIDENCE).p_noninferior <= ALPHA
        )
    return wrong / replicates


def students(
    seeds: int, drop: float, correlation: float, paired: bool, replicates: int, draw: np.random.Generator
) -> float:
    """How often a student is accepted whose luck is partly its teacher's.

    Args:
        seeds: Trainings of teacher and student.
        drop: The true drop, as a part of the margin.
        correlation: Of the luck of teacher and student.
        paired: Whether the analysis pairs them.
        replicates: Simulated studies.
        draw: Source of chance.
    """
    accepted = 0
    luck, count = 0.8, 4_000
    world = World(seeds, count, draw)
    for _ in range(replicates):
        world.draw_examples()
        teacher = draw.standard_normal(seeds, dtype=np.float32)
        own = draw.standard_normal(seeds, dtype=np.float32)
        student = np.float32(correlation) * teacher + np.float32((1 - correlation**2) ** 0.5) * own
        found = compare(
            world.outcomes(ACCURACY, luck, teacher),
            world.outcomes(ACCURACY - drop * MARGIN, luck, student),
            MARGIN,
            CONFIDENCE,
            paired=paired,
        )
        accepted += found.p_noninferior <= ALPHA
    return accepted / replicates


def uneven_luck(kind: str, seeds: int, replicates: int, draw: np.random.Generator) -> float:
    """False accepts of recipes whose trainings differ otherwise than normally, at a true mean drop of the margin.

    Args:
        kind: ``skewed``: the shortfall of a training is exponential, with a mean of half a point. ``bimodal``: one
            training in ten breaks, and loses ten points; the others lose nothing.
        seeds: Trainings of each.
        replicates: Simulated studies.
        draw: Source of chance.
    """
    wrong = 0
    world = World(seeds, 1_000, draw)
    fixed = (EASE**2 + ARCHITECTURE**2 + NOISE**2) ** 0.5
    for _ in range(replicates):
        world.draw_examples()
        baseline = world.outcomes(ACCURACY, 0.0)
        skewed, broken = 0.005 + 0.005 * draw.standard_exponential(seeds), 0.1 * (draw.random(seeds) < 0.1)
        lost = skewed if kind == "skewed" else broken
        # With a spread of one, a training's luck is the shift of its level.
        shift = (ndtri(ACCURACY - lost) - ndtri(ACCURACY)) * fixed
        expected = ndtri(ACCURACY) * fixed + world.ease + ARCHITECTURE * draw.standard_normal(world.examples)
        noise = NOISE * draw.standard_normal((seeds, world.examples))
        candidate = (expected + shift[:, None] + noise > 0).astype(float)
        wrong += compare(baseline, candidate, MARGIN, CONFIDENCE).p_noninferior <= ALPHA
    return wrong / replicates


def false_rejects(seeds: int, luck: float, replicates: int, draw: np.random.Generator) -> float:
    """How often a candidate whose true drop is just the margin is rejected."""
    wrong = 0
    world = World(seeds, 1_000, draw)
    for _ in range(replicates):
        world.draw_examples()
        found = compare(world.outcomes(ACCURACY, luck), world.outcomes(ACCURACY - MARGIN, luck), MARGIN, CONFIDENCE)
        wrong += found.p_inferior <= ALPHA
    return wrong / replicates


class Pool:
    """Draws the answers of a cross-validation of a baseline and a candidate.

    Args:
        count: Examples of the pool.
        folds: Folds.
        repeats: How often the pool is divided.
        draw: Source of chance.
    """

    def __init__(self, count: int, folds: int, repeats: int, draw: np.random.Generator) -> None:
        self._shape = repeats, folds, count
        self._draw = draw
        self._world = World(repeats * folds, count, draw)
        self._dealt = np.arange(count) % folds

    def compare(self, margin: float, luck: float, drop: float) -> Comparison:
        """The comparison of one study.

        Args:
            margin: The margin.
            luck: Standard deviation of a training's true accuracy, in points.
            drop: The true drop, as a part of the margin.
        """
        repeats, folds, _ = self._shape
        self._world.draw_examples()
        numbers = np.stack([self._draw.permutation(self._dealt) for _ in range(repeats)])
        baseline, candidate = (
            self._answers(accuracy, luck, numbers) for accuracy in (ACCURACY, ACCURACY - drop * margin)
        )
        return compare_folds(baseline, candidate, margin, CONFIDENCE, Folds(numbers, 1 / (folds - 1)))

    def _answers(self, accuracy: float, luck: float, numbers: np.ndarray) -> np.ndarray:
        """Whether each example is answered rightly by the model of its fold, shape (repeats, examples)."""
        repeats, folds, _ = self._shape
        common, own = self._draw.standard_normal(), self._draw.standard_normal(repeats * folds)
        lucky = (SHARED**0.5 * common + (1 - SHARED) ** 0.5 * own).astype(np.float32)
        of_all = self._world.outcomes(accuracy, luck, lucky).reshape(self._shape)
        return np.take_along_axis(of_all, numbers[:, None], axis=1)[:, 0]


def cross_validation(pool: Pool, margin: float, luck: float, replicates: int, drop: float = 1.0) -> tuple[float, float]:
    """How often a candidate is accepted and rejected; see ``Pool.compare``."""
    found = [pool.compare(margin, luck, drop) for _ in range(replicates)]
    return (
        sum(one.p_noninferior <= ALPHA for one in found) / replicates,
        sum(one.p_inferior <= ALPHA for one in found) / replicates,
    )


def held_out(count: int, seeds: int, margin: float, luck: float, replicates: int, draw: np.random.Generator) -> float:
    """How often a candidate that is as good as the baseline is accepted on a test split.

    Args:
        count: Test examples.
        seeds: Trainings of each.
        margin: The margin.
        luck: Standard deviation of a training's true accuracy, in points.
        replicates: Simulated studies.
        draw: Source of chance.
    """
    accepted = 0
    world = World(seeds, count, draw)
    for _ in range(replicates):
        world.draw_examples()
        found = compare(world.outcomes(ACCURACY, luck), world.outcomes(ACCURACY, luck), margin, CONFIDENCE)
        accepted += found.p_noninferior <= ALPHA
    return accepted / replicates


def _cross_validation_rows(arguments: argparse.Namespace) -> Iterator[Row]:
    count, rule = arguments.replicates, "cross-validation"
    cells = list(itertools.product((200, 300), (0.01, 0.05), (0.3, 0.8)))
    for number, (folds, repeats) in enumerate(itertools.product((5, 10), (1, 3))):
        found = [
            cross_validation(Pool(examples, folds, repeats, make_generator(13, number, place)), margin, luck, count)
            for place, (examples, margin, luck) in enumerate(cells)
        ]
        case = (
            f"{folds} folds, {_repeats(repeats)}, the greatest of {len(cells)} cells: 200 and 300 examples, margins 1 "
            "and 5, luck 0.3 and 0.8"
        )
        yield at_most(rule, case, max(accepted for accepted, _ in found), count)
        yield at_most(REJECTED, f"cross-validation, {case}", max(rejected for _, rejected in found), count)
    for number, repeats in enumerate((1, 3)):
        pool = Pool(300, 5, repeats, make_generator(14, number))
        accepted, _ = cross_validation(pool, 0.05, 2.0, count)
        yield at_most(rule, f"300 examples, 5 folds, {_repeats(repeats)}, margin 5, luck 2", accepted, count)
    for number, repeats in enumerate((1, 3)):
        pool = Pool(300, 5, repeats, make_generator(15, number))
        accepted, _ = cross_validation(pool, 0.05, 0.8, count, drop=0.0)
        case = f"accepts at no drop, margin 5, luck 0.8: 300 examples in 5 folds, {_repeats(repeats)}"
        yield Row(POWER, case, "the more the better", accepted, count, None)
    share = held_out(60, 3, 0.05, 0.8, count, make_generator(16))
    yield Row(POWER, "the same with 60 of the 300 held out, 3 seeds", "the more the better", share, count, None)


def _repeats(count: int) -> str:
    return "one repeat" if count == 1 else f"{count} repeats"


def _ceiling_rows(arguments: argparse.Namespace) -> Iterator[Row]:
    named = f"{min(arguments.examples):,} to {max(arguments.examples):,} examples"
    levels = {"one look, one candidate": ALPHA, "one of two looks, four candidates": ALPHA / 8}
    for points in (0.5, 1, 2):
        accepted, rejected = ceiling(arguments.examples, points / 100, list(levels.values()))
        for share, (words, level) in zip(accepted, levels.items(), strict=True):
            yield at_most("ceiling", f"one pair, margin {points:g}, {named}, {words}", float(share), 0, level)
        case = f"one pair, margin {points:g}, {named}, one look, one candidate"
        yield Row(REJECTED, case, "at most 5 %", float(rejected[0]), 0, bool(rejected[0] <= ALPHA))
    counts = [arguments.examples[0], 300, arguments.examples[-1]]
    for seeds in (2, 3, 5, 10):
        cells = list(itertools.product(counts, (0.005, 0.01, 0.02), (0.5, 1.0)))
        share = max(
            ceiling_of_seeds(seeds, count, margin, common, arguments.replicates, make_generator(1, seeds, number))
            for number, (count, margin, common) in enumerate(cells)
        )
        case = (
            f"{seeds} seeds, the greatest of {len(cells)} cells: {named}, margins 0.5 to 2, half or all losses common"
        )
        yield at_most("ceiling", case, share, arguments.replicates)


def _look_rows(arguments: argparse.Namespace) -> Iterator[Row]:
    count = arguments.replicates
    for number, luck in enumerate((0.05, 0.8)):
        share = looks_of_seeds(luck, 4, count, make_generator(2, number))
        yield at_most("looks", f"four looks, two seeds added for each, luck {luck:g}", share, count)
    share = looks_of_candidates(4, 2, count, make_generator(3))
    yield at_most("looks", "four looks, two candidates join at each", share, count)
    for number, luck in enumerate((0.05, 0.8)):
        share = thinning(60, luck, count, make_generator(4, number))
        yield at_most("thinning", f"60 candidates, the best kept, 3 and then 5 seeds, luck {luck:g}", share, count)


def _winner_rows(arguments: argparse.Namespace) -> Iterator[Row]:
    for number, luck in enumerate((0.05, 0.8)):
        share = winners(20, luck, arguments.replicates, make_generator(5, number))
        case = f"the best of 20 candidates, 3 seeds, luck {luck:g}: the interval covers"
        yield Row("picking", case, "at least 94 %", share, arguments.replicates, share >= 0.94)


def _group_rows(arguments: argparse.Namespace) -> Iterator[Row]:
    for number, (count, size, seeds) in enumerate([(100, 10, 1), (100, 10, 3), (300, 10, 1), (300, 3, 3)]):
        share = groups(count, size, seeds, arguments.replicates, make_generator(6, number))
        seeds_too = "one pair" if seeds == 1 else f"{seeds} seeds"
        yield at_most("groups", f"{count} groups of {size}, {seeds_too}", share, arguments.replicates, 0.06, point=True)


def _training_rows(arguments: argparse.Namespace) -> Iterator[Row]:
    count = arguments.replicates
    for number, own in enumerate((True, False)):
        share = searched(6, 0.8, own, count, make_generator(7, number))
        if own:
            yield at_most("rates", "6 equally good rates, searched with a seed of its own, luck 0.8", share, count)
        else:
            case = "the same, if the search's best training were the first trial"
            yield Row("rates", case, "what is avoided", share, count, None)
    for number, correlation in enumerate((0.7, 0.95)):
        share = students(5, 1.0, correlation, True, count, make_generator(8, number))
        yield at_most("students", f"5 seeds, luck 0.8, correlation {correlation:g}, paired", share, count)
        for paired in (False, True):
            share = students(5, 0.3, correlation, paired, count, make_generator(9, number, int(paired)))
            how = "paired" if paired else "unpaired"
            case = f"accepts at a true drop of 0.3 margins, correlation {correlation:g}, {how}"
            yield Row(POWER, case, "the more the better", share, count, None)
    for number, seeds in enumerate((3, 5, 10)):
        share = uneven_luck("skewed", seeds, count, make_generator(10, number))
        yield at_most("skew", f"{seeds} seeds, shortfalls exponential", share, count)
    for number, seeds in enumerate((3, 10)):
        share = uneven_luck("bimodal", seeds, count, make_generator(11, number))
        said = 100 * (1 - ALPHA ** (1 / seeds))
        case = f"{seeds} seeds, one training in ten breaks"
        yield Row("bimodal", case, f"said beside: up to {said:.0f} % may break", share, count, None)
    for number, (seeds, luck) in enumerate(((1, 0.0), (3, 0.3), (10, 0.3))):
        share = false_rejects(seeds, luck, count, make_generator(12, number))
        yield at_most(REJECTED, f"{seeds} seed{'s' if seeds > 1 else ''}, luck {luck:g}", share, count)


RULES: dict[str, Callable[[argparse.Namespace], Iterator[Row]]] = {
    "ceiling": _ceiling_rows,
    "looks": _look_rows,
    "picking": _winner_rows,
    "groups": _group_rows,
    "trainings": _training_rows,
    "cross-validation": _cross_validation_rows,
}


def measure(arguments: argparse.Namespace) -> Result:
    """A row a case."""
    rows = []
    for name in arguments.only or RULES:
        for row in RULES[name](arguments):
            rows.append(row.content())
            progress(f"{row.rule}: {row.case}: {100 * row.share:.2f} % ({row.asked})")
    return {"rows": rows}


def tables(result: Result) -> Tables:
    """A line a case."""
    verdicts = {True: "yes", False: "no", None: ""}
    lines = [
        (
            row["rule"],
            row["case"],
            row["asked"],
            f"{100 * row['share']:.{1 if row['counted'] else 2}f} %",
            f"{row['counted']:,}" if row["counted"] else "exact",
            verdicts[row["holds"]],
        )
        for row in result["rows"]
    ]
    promised = [row for row in result["rows"] if row["holds"] is not None]
    return {
        "rows": table(("rule", "case", "asked", "found", "simulations", "holds"), lines),
        "figures": figure_table({"promises that hold": f"{sum(row['holds'] for row in promised)} of {len(promised)}"}),
    }


BENCHMARK = register(
    "decisions",
    Benchmark(
        name="simulate_rules",
        add_arguments=add_arguments,
        measure=measure,
        tables=tables,
        quick={"replicates": 10, "examples": [50]},
    ),
)

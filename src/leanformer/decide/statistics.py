"""What outcomes on a test set say of models that chance has trained: intervals and tests (docs/decisions.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import ndtri, stdtr, stdtrit
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

Scope = Literal["seeds and examples", "one trained pair"]

# Agresti and Min 2005, "Simple improved confidence intervals for comparing matched proportions", Statistics in Medicine
# 24: half an observation added to each of the four cells of a paired 2 x 2 table. That is two more examples and one
# more squared difference; where outcomes are means over seeds, the square is that of one seed's example.
PSEUDO_EXAMPLES = 2
# With many seeds the square would all but vanish, though part of the errors is common to all of them.
MOST_SHARED = 5

# Added to each arm's degrees of freedom, and taken from their sum: 0 would be Satterthwaite's formula. Chosen by
# quadrature over the shares of the variance, so that with three seeds intervals of 95 % cover 94 to 96 in 100 times.
DAMPING = 0.5


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval.

    Args:
        mean: The estimate.
        low: Lower end.
        high: Upper end.
    """

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Components:
    """The two kinds of chance in a mean over seeds and examples.

    Args:
        examples: Variance of one example's outcome or difference that stays, however many seeds are averaged.
        seeds: Variance between trainings that stays, however many examples are tested; one entry an arm.
        interaction: Variance of one example with one seed beyond both; one entry an arm.
        num_seeds: Trainings an arm.
        num_examples: Test examples.
        cubes: Sum of the cubes of the examples' differences over the sum of the differences, without signs: 1 with one
            seed, less where seeds err on examples of their own.
    """

    examples: float
    seeds: tuple[float, ...]
    interaction: tuple[float, ...]
    num_seeds: tuple[int, ...]
    num_examples: int
    cubes: float = 0.0

    def variance(self, more_seeds: int = 0, more_examples: int = 0) -> tuple[float, float]:
        """Variance of the mean, and its degrees of freedom, with so many more of either.

        The part that shrinks with seeds has the degrees of freedom of Welch and Satterthwaite (Satterthwaite 1946, "An
        approximate distribution of estimates of variance components", Biometrics Bulletin 2). The part that stays, the
        examples', is known well and raises them. Both steps are damped for few seeds (docs/decisions.md, "Degrees of
        freedom"): as they stand, three seeds would give intervals that cover 93 in 100 times.
        """
        examples = self.num_examples + more_examples
        known = self.examples / examples
        parts = []
        for between, interaction, count in zip(self.seeds, self.interaction, self.num_seeds, strict=True):
            if count == 1:  # nothing is known of other trainings; the interaction is part of the examples' variance
                continue
            seeds = count + more_seeds
            parts.append((max(between + interaction / examples, 0.0) / seeds, seeds - 1))
        estimated = sum(part for part, _ in parts)
        if estimated == 0:
            return known, examples - 1
        freedom = estimated**2 / sum(part**2 / (own + DAMPING) for part, own in parts) - DAMPING
        freedom *= (1 + freedom / (freedom + 2) * known / estimated) ** 2
        return known + estimated, min(freedom, examples - 1)

    def interval(self, mean: float, confidence: float, lowest: float, highest: float) -> Interval:
        """Two-sided interval about a mean, cut at what the mean cannot exceed."""
        variance, freedom = self.variance()
        half = float(stdtrit(freedom, (1 + confidence) / 2)) * variance**0.5
        return Interval(mean, max(mean - half, lowest), min(mean + half, highest))

    def p_noninferior(self, mean: float, max_drop: float, more_seeds: int = 0, more_examples: int = 0) -> float:
        """Of the hypothesis that the true difference is ``-max_drop`` or less, where ``mean`` is seen.

        The statistic is corrected for skewness (Johnson 1978, "Modified t tests and confidence intervals for
        asymmetrical populations", Journal of the American Statistical Association 73). It is the skewness under the
        hypothesis: there, examples that only the baseline gets right outweigh the others by the margin, and a
        difference that chance has raised looks surer than it is. The skewness that is seen would not do: the same
        chance has changed it.
        """
        variance, freedom = self.variance(more_seeds, more_examples)
        t = (mean + max_drop) / variance**0.5
        skewness = max_drop * self.cubes / (self.num_examples + more_examples) ** 2 / variance**1.5
        # The bounds keep the p-value falling as the difference rises and, beyond ten examples, as the margin does.
        t -= min(skewness, 0.5) * (2 * min(t**2, 4.0) + 1) / 6
        return float(stdtr(freedom, -t))


@dataclass(frozen=True)
class Comparison:
    """A candidate's quality less the baseline's.

    Args:
        difference: Estimate and two-sided interval.
        standard_error: Of the estimate.
        degrees_of_freedom: Of the t distribution behind interval and tests.
        p_noninferior: Of the hypothesis that the drop is ``max_drop`` or more; small where the candidate will do.
        p_inferior: Of the hypothesis that the drop is ``max_drop`` or less; small where it is not.
        components: What the standard error is made of.
        scope: Whether it speaks of trainings in general or of this one trained pair.
    """

    difference: Interval
    standard_error: float
    degrees_of_freedom: float
    p_noninferior: float
    p_inferior: float
    components: Components
    scope: Scope


@dataclass(frozen=True)
class McNemar:
    """The exact test of whether two models err equally often.

    Args:
        baseline_only: Examples that only the baseline gets right.
        candidate_only: Examples that only the candidate gets right.
        p_value: Two-sided.
    """

    baseline_only: int
    candidate_only: int
    p_value: float


def quality_interval(outcomes: np.ndarray, confidence: float) -> Interval:
    """A model's mean outcome with its interval.

    Wilson's interval at the number of independent examples that would have this variance, reduced by the ratio of
    normal and t quantiles (Korn and Graubard 1998, "Confidence intervals for proportions with small expected number of
    positive counts estimated from survey data", Survey Methodology 24).

    Args:
        outcomes: 0 or 1, shape (seeds, examples).
        confidence: Such as 0.95.

    Raises:
        ValueError: There is no outcome, or fewer than two examples.
    """
    _check(outcomes)
    mean = float(outcomes.mean())
    bernoulli = mean * (1 - mean)
    count = float(outcomes.shape[1])
    if bernoulli > 0:
        variance, freedom = _components(outcomes.mean(axis=0), [outcomes], pseudo=False).variance()
        # A variance may come out as 0 where each example always has the same outcome; n examples say no more than n.
        effective = min(bernoulli / variance, outcomes.size) if variance > 0 else count
        count = effective * float(ndtri((1 + confidence) / 2) / stdtrit(freedom, (1 + confidence) / 2)) ** 2
    low, high = proportion_confint(mean * count, count, alpha=1 - confidence, method="wilson")
    return Interval(mean, min(float(low), mean), max(float(high), mean))


def compare(baseline: np.ndarray, candidate: np.ndarray, max_drop: float, confidence: float) -> Comparison:
    """A candidate against the baseline on the same test examples, with trainings of their own.

    Args:
        baseline: Outcomes 0 or 1, shape (seeds, examples).
        candidate: Likewise; its number of seeds may be another, the examples are the same ones in the same order.
        max_drop: The drop in mean outcome that would be accepted.
        confidence: Of the two-sided interval.

    Raises:
        ValueError: The shapes do not fit.
    """
    _check(baseline)
    _check(candidate)
    if baseline.shape[1] != candidate.shape[1]:
        raise ValueError(f"{baseline.shape[1]} and {candidate.shape[1]} examples cannot be paired")
    by_example = candidate.mean(axis=0) - baseline.mean(axis=0)
    one_pair = min(len(baseline), len(candidate)) == 1
    arms = [outcomes.mean(axis=0, keepdims=True) if one_pair else outcomes for outcomes in (baseline, candidate)]
    return conclude(
        float(by_example.mean()),
        _components(by_example, arms, pseudo=True),
        max_drop,
        confidence,
        largest=1.0,
        scope="one trained pair" if one_pair else "seeds and examples",
    )


def conclude(
    mean: float, components: Components, max_drop: float, confidence: float, largest: float, scope: Scope
) -> Comparison:
    """What follows from a difference and the components of its variance.

    Args:
        mean: The difference that is seen.
        components: What its variance is made of.
        max_drop: The drop that would be accepted.
        confidence: Of the two-sided interval.
        largest: The largest difference that there can be, either way.
        scope: Of what it speaks.
    """
    variance, freedom = components.variance()
    p_noninferior = components.p_noninferior(mean, max_drop)
    return Comparison(
        difference=components.interval(mean, confidence, -largest, largest),
        standard_error=variance**0.5,
        degrees_of_freedom=freedom,
        p_noninferior=p_noninferior,
        p_inferior=1 - p_noninferior,
        components=components,
        scope=scope,
    )


def mcnemar_exact(baseline: np.ndarray, candidate: np.ndarray) -> McNemar:
    """McNemar's exact test on two models' answers to the same examples.

    Args:
        baseline: Whether each answer is right, shape (examples,).
        candidate: Likewise.
    """
    first, second = np.asarray(baseline, dtype=bool), np.asarray(candidate, dtype=bool)
    both, neither = int((first & second).sum()), int((~first & ~second).sum())
    baseline_only, candidate_only = int((first & ~second).sum()), int((second & ~first).sum())
    if baseline_only == candidate_only == 0:
        return McNemar(0, 0, 1.0)
    result = mcnemar([[both, baseline_only], [candidate_only, neither]], exact=True)
    return McNemar(baseline_only, candidate_only, float(result.pvalue))


def _components(by_example: np.ndarray, arms: list[np.ndarray], pseudo: bool) -> Components:
    """The analysis of variance of a two-way layout, seeds x examples in each arm, examples shared by the arms.

    Args:
        by_example: What is averaged over the examples, shape (examples,): a mean over seeds, or a difference of two.
        arms: Outcomes, shape (seeds, examples) each.
        pseudo: Whether to add Agresti and Min's two examples.
    """
    sizes = np.abs(by_example)
    layout = []
    for outcomes in arms:
        of_seeds = outcomes.mean(axis=1)
        # What neither seeds nor examples explain, from sums alone: no array of shape (seeds, examples) is made.
        explained = outcomes.shape[1] * (of_seeds**2).sum() + len(outcomes) * (outcomes.mean(axis=0) ** 2).sum()
        squares = np.vdot(outcomes, outcomes) - explained + outcomes.size * of_seeds.mean() ** 2
        layout.append((of_seeds, max(float(squares), 0.0)))
    return crossed(
        float(((by_example - by_example.mean()) ** 2).sum()),
        layout,
        len(by_example),
        pseudo=1.0 if pseudo else 0.0,
        cubes=float((sizes**3).sum() / sizes.sum()) if sizes.any() else 0.0,
    )


def crossed(
    deviations: float, arms: Sequence[tuple[np.ndarray, float]], examples: int, pseudo: float, cubes: float = 0.0
) -> Components:
    """The components of a layout of which the sums of squares are known.

    Args:
        deviations: Sum of squares, over the examples, of what is averaged over them.
        arms: Each arm's means, one a seed, and the sum of squares of what neither seeds nor examples explain.
        examples: Their number.
        pseudo: By how much the arms differ on Agresti and Min's two examples; 0 adds none.
        cubes: As in the components.
    """
    unit = pseudo**2
    added = unit * float(np.mean([1 / min(len(of_seeds), MOST_SHARED) for of_seeds, _ in arms]))
    total = (deviations + added) / (examples - 1 + (PSEUDO_EXAMPLES if pseudo else 0))
    by_seeds = 0.0
    between, interaction = [], []
    for of_seeds, squares in arms:
        seeds = len(of_seeds)
        if seeds == 1:
            between.append(0.0)
            interaction.append(0.0)
            continue
        residual = squares / ((seeds - 1) * (examples - 1))
        interaction.append(residual)
        # May be below 0: cut off there, the whole would come out too large on average.
        variance = float(of_seeds.var(ddof=1))
        between.append(variance - residual / examples)
        by_seeds += variance / seeds
        total -= residual / seeds  # it is in the examples' mean squares and in the seeds': counted with the seeds
    if pseudo:
        # All seeds may make the same errors: where nothing varies, several seeds say no more than one pair does.
        total = max(total, unit / (examples + 1) - examples * by_seeds)
    return Components(
        examples=max(total, added / (examples + 1)),
        seeds=tuple(between),
        interaction=tuple(interaction),
        num_seeds=tuple(len(of_seeds) for of_seeds, _ in arms),
        num_examples=examples,
        cubes=cubes,
    )


def _check(outcomes: np.ndarray) -> None:
    if outcomes.ndim != 2 or outcomes.shape[0] < 1 or outcomes.shape[1] < 2:
        raise ValueError(f"outcomes of shape {outcomes.shape}, not (1 seed or more, 2 examples or more)")

"""Intervals and tests for outcomes on a test split, of models trained with several seeds (docs/decisions.md)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.special import bdtr, bdtrc, ndtri, stdtr, stdtrit
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

Scope = Literal["seeds and examples", "one trained pair"]

ROUNDING = 1e-9
"""How far rounding may take a number of net losses above a whole number."""

# Agresti and Min 2005, "Simple improved confidence intervals for comparing matched proportions", Statistics in Medicine
# 24: half an observation is added to each of the four cells of a paired 2 x 2 table. That is two more examples and one
# more squared difference; where outcomes are means over seeds, the square is that of one seed's example.
PSEUDO_EXAMPLES = 2
# With many seeds the square would almost vanish, although part of the errors is common to all seeds.
MOST_SHARED = 5

# Added to each arm's degrees of freedom and subtracted from their sum; 0 would give Satterthwaite's formula. Chosen by
# quadrature over the shares of the variance, so that intervals of 95 % with three seeds cover in 94 to 96 % of cases.
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
    """The components of the variance of a mean over seeds and examples. An arm is one of the compared models.

    Args:
        examples: Variance of one example's outcome or difference that remains with any number of seeds.
        seeds: Variance between trainings that remains with any number of examples; one entry per arm.
        interaction: Variance of one example with one seed beyond both; one entry per arm.
        num_seeds: Trainings per arm.
        num_examples: Test examples.
        cubes: Sum of the cubes of the examples' absolute differences divided by their sum: 1 with one seed, less where
            seeds make errors on different examples.
        largest: The largest possible difference, of which a difference is a share; ``math.inf`` where there is none.
        counts_examples: Whether a difference is a number of examples over all of them, as it is not in corpus scores.
        design_effect: Examples over Kish's effective number of them; 1 where all weigh the same.
    """

    examples: float
    seeds: tuple[float, ...]
    interaction: tuple[float, ...]
    num_seeds: tuple[int, ...]
    num_examples: int
    cubes: float = 0.0
    largest: float = 1.0
    counts_examples: bool = True
    design_effect: float = 1.0

    def variance(self, more_seeds: int = 0, more_examples: int = 0) -> tuple[float, float]:
        """Variance of the mean, and its degrees of freedom, with additional seeds or examples.

        The part that shrinks with seeds has the degrees of freedom of Welch and Satterthwaite (Satterthwaite 1946, "An
        approximate distribution of estimates of variance components", Biometrics Bulletin 2). The examples' part is
        known well and raises them. Both steps are damped for few seeds (docs/decisions.md, "Degrees of freedom"):
        without damping, intervals with three seeds would cover in 93 % of cases.
        """
        examples = self.num_examples + more_examples
        known = self.examples / examples
        most = examples / self.design_effect - 1
        parts = []
        for between, interaction, count in zip(self.seeds, self.interaction, self.num_seeds, strict=True):
            if count == 1:  # other trainings are not known; the interaction is part of the examples' variance
                continue
            seeds = count + more_seeds
            parts.append((max(between + interaction / examples, 0.0) / seeds, seeds - 1))
        estimated = sum(part for part, _ in parts)
        if estimated == 0:
            return known, most
        freedom = estimated**2 / sum(part**2 / (own + DAMPING) for part, own in parts) - DAMPING
        freedom *= (1 + freedom / (freedom + 2) * known / estimated) ** 2
        return known + estimated, min(freedom, most)

    def interval(self, mean: float, confidence: float, lowest: float, highest: float) -> Interval:
        """Two-sided interval around a mean, cut off at the lowest and highest possible values."""
        variance, freedom = self.variance()
        half = float(stdtrit(freedom, (1 + confidence) / 2)) * variance**0.5
        return Interval(mean, max(mean - half, lowest), min(mean + half, highest))

    def p_noninferior(self, mean: float, max_drop: float, more_seeds: int = 0, more_examples: int = 0) -> float:
        """The p-value of the hypothesis that the true difference is ``-max_drop`` or less, for an observed ``mean``.

        It is the greater of two. The one is that of the t test. The other is exact where all differences are losses, as
        at the ceiling, where the t test is too sure: the probability of so few net losses, or fewer, among the
        examples, if each is lost with the probability ``max_drop``. With several seeds the examples count once, and net
        losses are the mean over seeds, rounded up: seeds may lose the same examples.
        """
        examples = self.num_examples + more_examples
        return max(
            self._t_test(mean, max_drop, more_seeds, more_examples),
            self._few_losses(mean, max_drop, int(examples / self.design_effect)),
        )

    def is_bounded(self, mean: float, max_drop: float) -> bool:
        """Whether the exact probability of few losses, and not the t test, is the p-value of ``p_noninferior``."""
        few = self._few_losses(mean, max_drop, int(self.num_examples / self.design_effect))
        return few > self._t_test(mean, max_drop, 0, 0)

    def p_inferior(self, mean: float, max_drop: float, more_seeds: int = 0, more_examples: int = 0) -> float:
        """The p-value of the hypothesis that the true drop is ``max_drop`` or less, for an observed ``mean``.

        As ``p_noninferior``, with the probability of so many net losses, or more.
        """
        examples = self.num_examples + more_examples
        return max(
            1 - self._t_test(mean, max_drop, more_seeds, more_examples),
            self._many_losses(mean, max_drop, int(examples / self.design_effect)),
        )

    def _t_test(self, mean: float, max_drop: float, more_seeds: int, more_examples: int) -> float:
        """The p-value of the t test of ``p_noninferior``.

        The statistic is corrected for skewness (Johnson 1978, "Modified t tests and confidence intervals for
        asymmetrical populations", Journal of the American Statistical Association 73). It is the skewness under the
        hypothesis: there, examples that only the baseline gets right outweigh the others by the margin, and a
        difference that chance has raised looks surer than it is. The observed skewness would not help, because the
        same chance has changed it.
        """
        variance, freedom = self.variance(more_seeds, more_examples)
        t = (mean + max_drop) / variance**0.5
        skewness = max_drop * self.cubes / (self.num_examples + more_examples) ** 2 / variance**1.5
        # The bounds keep the p-value falling as the difference rises and, beyond ten examples, as the margin does.
        t -= min(skewness, 0.5) * (2 * min(t**2, 4.0) + 1) / 6
        return float(stdtr(freedom, -t))

    def _few_losses(self, mean: float, max_drop: float, examples: int) -> float:
        """The probability of at most the observed net losses where examples are lost with probability ``max_drop``."""
        if not 0 < max_drop < self.largest < math.inf:
            return 0.0
        losses = math.ceil(self._losses(mean, examples) - ROUNDING)
        return float(bdtr(losses, examples, max_drop / self.largest)) if losses >= 0 else 0.0

    def _many_losses(self, mean: float, max_drop: float, examples: int) -> float:
        """The probability of at least the observed net losses where examples are lost with probability ``max_drop``."""
        if not 0 < max_drop < self.largest < math.inf:
            return 0.0
        losses = math.floor(self._losses(mean, examples) + ROUNDING)
        return float(bdtrc(losses - 1, examples, max_drop / self.largest)) if losses > 0 else 1.0

    def _losses(self, mean: float, examples: int) -> float:
        """Net losses among so many examples; a gain in a corpus score does not make up for examples that are lost."""
        losses = -mean / self.largest * examples
        return losses if self.counts_examples else max(0.0, losses)


@dataclass(frozen=True)
class Comparison:
    """A candidate's quality minus the baseline's.

    Args:
        difference: Estimate and two-sided interval.
        standard_error: Of the estimate.
        degrees_of_freedom: Of the t distribution for interval and tests.
        p_noninferior: Of the hypothesis that the drop is ``max_drop`` or more; small where the candidate is acceptable.
        p_inferior: Of the hypothesis that the drop is ``max_drop`` or less; small where the candidate is too bad.
        components: The components of the variance.
        scope: Whether the comparison holds for trainings in general or for this one trained pair.
        ratio: Where the p-values are those of a ratio of error rates, what that is; None where they are of the drop.
    """

    difference: Interval
    standard_error: float
    degrees_of_freedom: float
    p_noninferior: float
    p_inferior: float
    components: Components
    scope: Scope
    ratio: Ratio | None = None


@dataclass(frozen=True)
class Ratio:
    """What a comparison of error rates tests in place of a difference (``ratio``).

    Args:
        limit: How many times the baseline's error rate the candidate's may be.
        observed: How many times it is; None where the baseline makes no error.
        combined: The comparison of ``limit`` times the baseline's errors with the candidate's; its margin is 0.
        baseline: The baseline's error rate.
        both: The share of examples on which both err, for one pair of models that is tested exactly; None for others.
    """

    limit: float
    observed: float | None
    combined: Comparison
    baseline: float
    both: float | None


@dataclass(frozen=True)
class McNemar:
    """The exact test of whether two models err equally often (``mcnemar_exact``).

    Args:
        baseline_only: Examples that only the baseline gets right.
        candidate_only: Examples that only the candidate gets right.
        p_value: Two-sided.
    """

    baseline_only: int
    candidate_only: int
    p_value: float


def quality_interval(
    outcomes: np.ndarray, confidence: float, groups: np.ndarray | None = None, weights: np.ndarray | None = None
) -> Interval:
    """A model's mean outcome with its interval; see ``proportion_interval``.

    Args:
        outcomes: 0 or 1, shape (seeds, examples).
        confidence: Such as 0.95.
        groups: The group of each example, shape (examples,); None where examples are independent.
        weights: How much each example counts, shape (examples,); None where all count alike.

    Raises:
        ValueError: There is no seed, or fewer than two examples or groups.
    """
    outcomes = by_weight(outcomes, weights)
    units = by_group(outcomes, groups)
    _check(units)
    variance, freedom = _components(units.mean(axis=0), [units], pseudo=0.0).variance()
    count = units.shape[1] / design_effect(weights, groups)
    return proportion_interval(float(outcomes.mean()), variance, freedom, count, outcomes.size, confidence)


def proportion_interval(
    mean: float, variance: float, freedom: float, count: float, most: int, confidence: float
) -> Interval:
    """The interval of a share whose variance was estimated.

    Wilson's interval at the number of independent examples that would have this variance, reduced by the ratio of
    normal and t quantiles (Korn and Graubard 1998, "Confidence intervals for proportions with small expected number of
    positive counts estimated from survey data", Survey Methodology 24).

    Args:
        mean: The share.
        variance: Of its estimate.
        freedom: Degrees of freedom of the variance.
        count: Independent examples where the variance is 0.
        most: The most examples that they may count as.
        confidence: Such as 0.95.
    """
    bernoulli = mean * (1 - mean)
    if bernoulli > 0:
        # The variance may be 0 where all seeds agree on each example; n examples never count as more than n.
        effective = min(bernoulli / variance, most) if variance > 0 else count
        count = effective * float(ndtri((1 + confidence) / 2) / stdtrit(freedom, (1 + confidence) / 2)) ** 2
    low, high = proportion_confint(mean * count, count, alpha=1 - confidence, method="wilson")
    return Interval(mean, min(float(low), mean), max(float(high), mean))


def compare(
    baseline: np.ndarray,
    candidate: np.ndarray,
    max_drop: float,
    confidence: float,
    groups: np.ndarray | None = None,
    paired: bool = False,
    weights: np.ndarray | None = None,
) -> Comparison:
    """Compares a candidate with the baseline on the same test examples, each with its own trainings.

    Args:
        baseline: Outcomes 0 or 1, shape (seeds, examples).
        candidate: Likewise, for the same examples in the same order; the number of seeds may differ.
        max_drop: The margin, as a drop in the mean outcome.
        confidence: Of the two-sided interval.
        groups: The group of each example, shape (examples,); None where examples are independent. The analysis is
            then one of groups.
        paired: Whether each training of the candidate belongs to that of the baseline in the same place, as a student's
            to its teacher's: what both have in common then cancels.
        weights: How much each example counts, shape (examples,); None where all count alike.

    Raises:
        ValueError: The shapes do not fit.
    """
    if baseline.shape[-1] != candidate.shape[-1]:
        raise ValueError(f"{baseline.shape[-1]} and {candidate.shape[-1]} examples cannot be paired")
    first, second = (by_group(by_weight(outcomes, weights), groups) for outcomes in (baseline, candidate))
    _check(first)
    _check(second)
    if paired and len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} trainings cannot be paired")
    by_example = second.mean(axis=0) - first.mean(axis=0)
    one_pair = min(len(first), len(second)) == 1
    if one_pair:
        arms = [outcomes.mean(axis=0, keepdims=True) for outcomes in (first, second)]
    else:
        arms = [second - first] if paired else [first, second]
    effect = design_effect(weights, groups)
    return conclude(
        float(by_example.mean()),
        replace(_components(by_example, arms, pseudo=effect), design_effect=effect),
        max_drop,
        confidence,
        largest=1.0,
        scope="one trained pair" if one_pair else "seeds and examples",
    )


def by_weight(outcomes: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Values whose plain mean is the weighted mean of the outcomes, for each training.

    An example's value is the weighted mean, plus its deviation from it times its share of the mean weight. To first
    order a weighted mean is the mean of these (a ratio estimator, as in ``by_group``), so that what is done with
    outcomes may be done with them.

    Args:
        outcomes: Shape (seeds, examples).
        weights: How much each example counts, shape (examples,), one of them above 0; None where all count alike.

    Returns:
        Shape (seeds, examples); the outcomes themselves where there are no weights.

    Raises:
        ValueError: There is not one weight for each example.
    """
    if weights is None:
        return outcomes
    if weights.shape != outcomes.shape[1:]:
        raise ValueError(f"weights of shape {weights.shape} for {outcomes.shape[-1]} examples")
    means = np.average(outcomes, axis=1, weights=weights)[:, None]
    return np.asarray(means + weights / weights.mean() * (outcomes - means))


def design_effect(weights: np.ndarray | None, groups: np.ndarray | None) -> float:
    """Examples, or groups, over the effective number of them, which is (Σw)² / Σw² (Kish 1965, "Survey Sampling",
    section 11.7).

    Args:
        weights: As in ``by_weight``.
        groups: As in ``by_group``; a group has the sum of its examples' weights.
    """
    if weights is None:
        return 1.0
    if groups is not None:
        weights = np.bincount(np.unique(groups, return_inverse=True)[1], weights)
    return float(len(weights) * (weights**2).sum() / weights.sum() ** 2)


def by_group(outcomes: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """Values of whole groups in place of those of single examples, with the same mean for each training.

    A group's value is the training's mean, plus the sum of its examples' deviations from it, times groups by examples.
    To first order the mean over examples is the mean of these, whatever the sizes of the groups (a ratio estimator;
    Cochran 1977, "Sampling Techniques", section 2.11), so that all that is done with independent examples may be done
    with them.

    Args:
        outcomes: Shape (seeds, examples).
        groups: The group of each example, shape (examples,); None where examples are independent.

    Returns:
        Shape (seeds, groups); the outcomes themselves where there are no groups.

    Raises:
        ValueError: There is not one group for each example.
    """
    if groups is None:
        return outcomes
    if groups.shape != outcomes.shape[1:]:
        raise ValueError(f"groups of shape {groups.shape} for {outcomes.shape[-1]} examples")
    names, places = np.unique(groups, return_inverse=True)
    means = outcomes.mean(axis=1, keepdims=True)
    sums = np.stack([np.bincount(places, row, len(names)) for row in outcomes - means])
    return np.asarray(means + sums * (len(names) / outcomes.shape[1]))


def conclude(
    mean: float,
    components: Components,
    max_drop: float,
    confidence: float,
    largest: float,
    scope: Scope,
    counts_examples: bool = True,
) -> Comparison:
    """The comparison that follows from a difference and the components of its variance.

    Args:
        mean: The observed difference.
        components: The components of its variance.
        max_drop: The margin.
        confidence: Of the two-sided interval.
        largest: The largest possible difference, up or down.
        scope: What the comparison holds for.
        counts_examples: See ``Components``.
    """
    components = replace(components, largest=largest, counts_examples=counts_examples)
    variance, freedom = components.variance()
    return Comparison(
        difference=components.interval(mean, confidence, -largest, largest),
        standard_error=variance**0.5,
        degrees_of_freedom=freedom,
        p_noninferior=components.p_noninferior(mean, max_drop),
        p_inferior=components.p_inferior(mean, max_drop),
        components=components,
        scope=scope,
    )


def mcnemar_exact(baseline: np.ndarray, candidate: np.ndarray, groups: np.ndarray | None = None) -> McNemar:
    """McNemar's exact test of two models on the same examples.

    If the models err equally often, each example on which they differ is as likely lost as gained. Examples of one
    group are lost and gained together, so that only whole groups can be exchanged: the p-value is then the probability
    that net losses are as large as the observed ones, or larger, where each group's net losses are as likely gains
    (sign flipping of whole blocks; Winkler et al. 2014, "Permutation inference for the general linear model",
    NeuroImage 92). With groups of one example that is McNemar's test.

    Args:
        baseline: Whether each answer is correct, shape (examples,).
        candidate: Likewise.
        groups: The group of each example, shape (examples,); None where examples are independent.
    """
    first, second = np.asarray(baseline, dtype=bool), np.asarray(candidate, dtype=bool)
    both, neither = int((first & second).sum()), int((~first & ~second).sum())
    baseline_only, candidate_only = int((first & ~second).sum()), int((second & ~first).sum())
    if baseline_only == candidate_only == 0:
        return McNemar(0, 0, 1.0)
    if groups is not None:
        lost = first.astype(int) - second
        net = np.rint(np.bincount(np.unique(groups, return_inverse=True)[1], lost)).astype(int)
        return McNemar(baseline_only, candidate_only, _p_of_flips(net))
    result = mcnemar([[both, baseline_only], [candidate_only, neither]], exact=True)
    return McNemar(baseline_only, candidate_only, float(result.pvalue))


def _p_of_flips(net: np.ndarray) -> float:
    """The probability of a sum as far from 0 as that of these whole numbers, or farther, if each has a random sign.

    The probabilities of all sums are the Fourier transform of the product of cosines that is their characteristic
    function.
    """
    observed = abs(int(net.sum()))
    if observed == 0:
        return 1.0
    sizes, counts = np.unique(np.abs(net), return_counts=True)
    most = int(sizes @ counts)
    angles = 2 * np.pi / (2 * most + 1) * np.arange(most + 1)
    spectrum = np.ones(most + 1)
    for size, count in zip(sizes, counts, strict=True):
        spectrum *= np.cos(size * angles) ** count
    chances = np.fft.irfft(spectrum, 2 * most + 1)[: most + 1]  # of the sums 0 to most; each has its negative too
    return float(np.clip(2 * chances[observed:].sum(), 0.0, 1.0))


def _components(by_example: np.ndarray, arms: list[np.ndarray], pseudo: float) -> Components:
    """The analysis of variance of a two-way layout, seeds x examples in each arm, examples shared by the arms.

    Args:
        by_example: The values that are averaged over examples, shape (examples,): means over seeds, or differences of
            two such means.
        arms: Outcomes of each arm, shape (seeds, examples).
        pseudo: As in ``crossed``: 1 for examples that weigh the same, the design effect for others; 0 adds none.
    """
    sizes = np.abs(by_example)
    layout = []
    for outcomes in arms:
        of_seeds = outcomes.mean(axis=1)
        # The residual sum of squares, computed without an array of shape (seeds, examples).
        explained = outcomes.shape[1] * (of_seeds**2).sum() + len(outcomes) * (outcomes.mean(axis=0) ** 2).sum()
        squares = np.vdot(outcomes, outcomes) - explained + outcomes.size * of_seeds.mean() ** 2
        layout.append((of_seeds, max(float(squares), 0.0)))
    return crossed(
        float(((by_example - by_example.mean()) ** 2).sum()),
        layout,
        len(by_example),
        pseudo=pseudo,
        cubes=float((sizes**3).sum() / sizes.sum()) if sizes.any() else 0.0,
    )


def crossed(
    deviations: float, arms: Sequence[tuple[np.ndarray, float]], examples: int, pseudo: float, cubes: float = 0.0
) -> Components:
    """The components of the variance of a two-way layout whose sums of squares are known.

    Args:
        deviations: Sum of squares, over the examples, of the values that are averaged over them.
        arms: For each arm, the means of its seeds, and the sum of squares that neither seeds nor examples explain.
        examples: The number of examples.
        pseudo: By how much the arms differ on Agresti and Min's two examples; 0 adds no such examples.
        cubes: See ``Components``.
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
        # May be below 0; cutting it off there would bias the sum upwards.
        variance = float(of_seeds.var(ddof=1))
        between.append(variance - residual / examples)
        by_seeds += variance / seeds
        total -= residual / seeds  # it is part of both mean squares, and counted with the seeds
    if pseudo:
        # Seeds may share all errors: where nothing varies, several seeds count no more than one pair.
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

"""How many test examples and seeds a margin needs, before anything is trained (docs/plan-test.md).

What is assumed about two models gives the components of variance that ``compare`` would estimate. Then power is the
probability that its own p-value, ``Components.p_noninferior``, is at most the level.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass, replace
from functools import cache
from itertools import product

import numpy as np
from scipy.optimize import brentq
from scipy.special import bdtr, ndtr, roots_genlaguerre, stdtr
from scipy.stats import binom

from leanformer.decide.decision import POWER
from leanformer.decide.looks import Look
from leanformer.decide.statistics import Components, crossed

FEWEST, MOST = 10, 10**8
"""The numbers of examples among which is searched; with fewer than ten the tests are not monotone."""
FAR = 1e4
"""Standard errors beyond which no observed difference lies."""
WIDE = 6.0
"""Standard deviations of the number of discordant examples that are looked at on each side of its mean."""
NODES = 4
"""Of the quadrature over the estimated variances of the seeds of one arm."""
MANY = 100
"""Seeds from whose number on the variance between them counts as known; the quadrature overflows later."""
PRECISE = 1e-3
"""How exactly the least accepted mean is found, in standard errors."""


@dataclass(frozen=True)
class Assumed:
    """What is assumed about a baseline and a candidate, in the values of a metric of which larger is better.

    Args:
        drop: The candidate's true drop.
        examples: Variance of one example's difference that remains with any number of seeds.
        interaction: Variance of one example with one seed beyond that; one entry per arm. A candidate whose seeds are
            paired with the baseline's is one arm, else there are two.
        luck: Variance between trainings, one entry per arm; empty where nothing is known about other trainings.
        largest: The largest possible difference.
        point: By how much the models would differ on an example that one of them gets all wrong: 1 for outcomes of 0
            or 1, else the score.
        outcomes: Whether each example's outcome is 0 or 1.
        group_size: Examples in a group, on average.
        intraclass: The correlation of two examples' differences in one group.
    """

    drop: float
    examples: float
    interaction: tuple[float, ...]
    luck: tuple[float, ...] = ()
    largest: float = 1.0
    point: float = 1.0
    outcomes: bool = True
    group_size: float = 1.0
    intraclass: float = 0.0

    @property
    def design_effect(self) -> float:
        """By how much groups raise the variance of a mean (Kish 1965, "Survey Sampling", section 5.4)."""
        return 1 + (self.group_size - 1) * self.intraclass

    @property
    def of_one_pair(self) -> float:
        """Variance of one example's difference between two trained models."""
        return self.examples + sum(self.interaction)

    @property
    def disagreement(self) -> float:
        """The share of examples that one of two trained models gets right and the other wrong."""
        return self.of_one_pair + self.drop**2

    def variance(self, seeds: int, units: int) -> float:
        """The true variance of the mean difference, without the half observations that ``compare`` adds.

        Args:
            seeds: Trainings of each model; 1 is one trained pair.
            units: Independent test examples, or groups.
        """
        of_unit = (self.examples + sum(self.interaction) / seeds) * self.design_effect / self.group_size
        return of_unit / units + (sum(self.luck) / seeds if seeds > 1 else 0.0)

    def components(self, seeds: int, units: int, scales: tuple[float, ...]) -> Components:
        """The components of the variance that ``compare`` would find.

        Args:
            seeds: Trainings of each model; 1 is one trained pair.
            units: Independent test examples, or groups.
            scales: For each arm, what the variance of its seeds comes out as, as a multiple of the true one.
        """
        # A group's value is the mean of its examples: so large is the variance of one unit, against one example's.
        ratio = self.design_effect / self.group_size
        parts = [part * ratio for part in self.interaction]
        arms = [(np.zeros(1), 0.0)] * 2
        if seeds > 1:
            pattern = np.linspace(-1.0, 1.0, seeds)
            pattern /= pattern.std(ddof=1)
            arms = [
                (pattern * math.sqrt((luck + part / units) * scale), part * (seeds - 1) * (units - 1))
                for luck, part, scale in zip(self.luck, parts, scales, strict=True)
            ]
        varying = self.examples * ratio + sum(parts) / seeds
        found = crossed(varying * (units - 1), arms, units, pseudo=self.point, cubes=self._cubes(seeds))
        return replace(found, largest=self.largest, counts_examples=self.outcomes)

    def _cubes(self, seeds: int) -> float:
        """See ``Components``: errors that come and go with the seed are spread over the seeds, and over groups."""
        if not self.outcomes or self.of_one_pair == 0:
            return 0.0
        stays = self.examples / self.of_one_pair
        of_group = self.intraclass + (1 - self.intraclass) / self.group_size**2
        return (stays + (1 - stays) / seeds**2) * of_group


@dataclass(frozen=True)
class Level:
    """An occasion on which is decided, and the level of its test.

    Args:
        key: Its name in the JSON.
        title: Its name in the table.
        level: The greatest p-value of an acceptance.
    """

    key: str
    title: str
    level: float


def levels(confidence: float, candidates: int, looks: int) -> list[Level]:
    """The levels of the tests of a study, at the step of Holm's method that all candidates must pass one after another.

    Args:
        confidence: Such as 0.95.
        candidates: Candidates that are decided together.
        looks: The planned looks at the test split.
    """
    shared = Look(planned=looks).level(confidence) / candidates
    whole = Look().level(confidence)
    found = [Level("look", f"each of {looks} looks" if looks > 1 else "the one look", shared)]
    if looks > 1:
        found.append(Level("single_look", "a single look", whole / candidates))
    return [*found, Level("confirm", "confirming one", whole)]


def least_without_losses(max_drop: float, largest: float, level: float) -> int:
    """The least number of examples that can show a margin at all: two models that agree on each of them.

    If each example were lost with the probability ``max_drop / largest``, so many without a loss would have the
    probability ``level``.

    Args:
        max_drop: The margin.
        largest: The largest possible difference.
        level: The level of the test.
    """
    if not 0 < max_drop < largest < math.inf:
        return 0
    return math.ceil(math.log(level) / math.log1p(-max_drop / largest))


def power(assumed: Assumed, seeds: int, units: int, max_drop: float, level: float) -> float:
    """The probability that a candidate is accepted.

    For one trained pair of 0-or-1 outcomes it is exact: a sum over the multinomial numbers of losses and gains.
    Otherwise the observed mean is normal, and the variances between seeds are estimated from few of them: the power is
    the mean over what these estimates may be.

    Args:
        assumed: What is assumed about the models.
        seeds: Trainings of each model; 1 is one trained pair.
        units: Independent test examples, or groups.
        max_drop: The margin.
        level: The greatest p-value of an acceptance.
    """
    if seeds == 1 and assumed.outcomes and assumed.group_size == 1:
        return _of_one_pair(assumed, units, max_drop, level)
    error = assumed.variance(seeds, units) ** 0.5
    found = 0.0
    for weight, scales in _chances(seeds, len(assumed.luck)):
        components = assumed.components(seeds, units, scales)
        if error > 0:
            chance = float(ndtr((-assumed.drop - _least_accepted(components, max_drop, level)) / error))
        else:
            chance = float(components.p_noninferior(-assumed.drop, max_drop) <= level)
        found += weight * chance
    return found


@cache
def _chances(seeds: int, arms: int) -> list[tuple[float, tuple[float, ...]]]:
    """What the estimated variances between seeds may be, as multiples of the true ones, and with which probability.

    They are chi-squared with ``seeds - 1`` degrees of freedom, here at the nodes of Gauss-Laguerre quadrature.
    """
    if seeds == 1:
        return [(1.0, ())]
    if seeds > MANY:
        return [(1.0, (1.0,) * arms)]
    shape = (seeds - 1) / 2
    nodes, weights = roots_genlaguerre(NODES, shape - 1)
    each = list(zip(nodes / shape, weights / weights.sum(), strict=True))
    return [
        (math.prod(weight for _, weight in chosen), tuple(float(node) for node, _ in chosen))
        for chosen in product(each, repeat=arms)
    ]


def _least_accepted(components: Components, max_drop: float, level: float) -> float:
    """The least mean difference that is accepted; infinite where none is. The p-value falls as the mean rises."""
    error = components.variance()[0] ** 0.5
    refused, width = -max_drop, 4 * error
    while components.p_noninferior(accepted := min(width - max_drop, components.largest), max_drop) > level:
        if accepted == components.largest or width > FAR * error:
            return math.inf
        refused, width = accepted, 2 * width
    return float(
        brentq(lambda mean: components.p_noninferior(mean, max_drop) - level, refused, accepted, xtol=PRECISE * error)
    )


def least_examples(assumed: Assumed, seeds: int, max_drop: float, level: float) -> int | None:
    """The number of test examples with which a candidate is accepted with a power of 80 %.

    Power has small steps where losses are counted, so that a few more examples may have slightly less.

    Args:
        assumed: What is assumed about the models.
        seeds: Trainings of each model; 1 is one trained pair.
        max_drop: The margin.
        level: The greatest p-value of an acceptance.

    Returns:
        Examples, in whole groups; None where not even ``MOST`` suffice.
    """

    def suffices(units: int) -> bool:
        return power(assumed, seeds, units, max_drop, level) >= POWER

    if seeds > 1 and not suffices(MOST):  # the seeds' luck alone is too much, as is often so
        return None
    low, high = FEWEST - 1, FEWEST
    while not suffices(high):
        if high >= MOST:
            return None
        low, high = high, 2 * high
    units = low + 1 + bisect_left(range(low + 1, high), True, key=suffices)
    return math.ceil(units * assumed.group_size)


def _of_one_pair(assumed: Assumed, examples: int, max_drop: float, level: float) -> float:
    """The exact power for one trained pair.

    Among so many discordant examples the p-value rises with the losses, so that there is a greatest number of losses
    that is accepted. It is found by bisection, for all likely numbers of discordant examples at once.
    """
    share = assumed.disagreement
    if share == 0:
        return float(p_of_pairs(np.zeros(1), np.zeros(1), examples, max_drop)[0] <= level)
    spread = WIDE * (math.sqrt(examples * share * (1 - share)) + 1)
    first, last = max(0, math.floor(examples * share - spread)), min(examples, math.ceil(examples * share + spread))
    discordant = np.arange(first, last + 1)
    accepted, refused = np.full_like(discordant, -1), discordant + 1
    while (refused - accepted > 1).any():
        middle = (accepted + refused) // 2
        passes = p_of_pairs(middle, discordant - middle, examples, max_drop) <= level
        accepted, refused = np.where(passes, middle, accepted), np.where(passes, refused, middle)
    lost = (share + assumed.drop) / 2 / share
    found = np.where(accepted >= 0, bdtr(np.maximum(accepted, 0), discordant, lost), 0.0)
    return float(binom.pmf(discordant, examples, share) @ found)


def p_of_pairs(losses: np.ndarray, gains: np.ndarray, examples: int, max_drop: float) -> np.ndarray:
    """``Comparison.p_noninferior`` of one trained pair with 0-or-1 outcomes, for many tables at once.

    ``compare`` finds the same; here are its formulas for this case, because a sum over all tables needs it so often.

    Args:
        losses: Examples that only the baseline gets right, shape (tables,).
        gains: Examples that only the candidate gets right, shape (tables,).
        examples: All examples of a table.
        max_drop: The margin, less than 1.
    """
    net = losses - gains
    variance = (losses + gains - net**2 / examples + 1) / (examples + 1) / examples
    t = (max_drop - net / examples) / np.sqrt(variance)
    skewness = np.where(losses + gains > 0, max_drop / examples**2 / variance**1.5, 0.0)
    t = t - np.minimum(skewness, 0.5) * (2 * np.minimum(t**2, 4.0) + 1) / 6
    few = np.where(net >= 0, bdtr(np.maximum(net, 0), examples, max_drop), 0.0) if max_drop > 0 else 0.0
    return np.maximum(stdtr(examples - 1, -t), few)

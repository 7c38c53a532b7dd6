"""The decision on each candidate, accept, reject or undecided, and the model to ship (docs/decisions.md)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Literal

import numpy as np
from scipy.special import ndtri

from leanformer.decide.looks import Look
from leanformer.decide.ratio import ratio_p_values
from leanformer.decide.statistics import Comparison, Interval
from leanformer.results import formats
from leanformer.results.costs import COSTS, Cost
from leanformer.results.metrics import Metric
from leanformer.results.rows import Median

POWER = 0.8
"""The probability with which the advised number of seeds or examples should decide."""
MOST_MORE_SEEDS = 100
MOST_TIMES_EXAMPLES = 100
"""What is advised is within reach: at most so many more seeds, at most so many times the present test examples."""


@dataclass(frozen=True)
class Decision:
    """The decision on one candidate.

    Args:
        decision: ``accept`` where a drop of the margin or more is ruled out, ``reject`` where a smaller one is, else
            ``undecided``.
        reason: Why, in one sentence.
        p_value: Of the hypothesis that the drop is the margin or more.
        p_adjusted: The same, corrected for the number of candidates by Holm's method.
        more_seeds: For an undecided recipe, how many more seeds of baseline and candidate would decide at the next look
            with a power of 80 %; None where no number within reach would, where no look is left, and for one trained
            pair, about which other seeds say nothing.
        more_examples: For an undecided candidate, how many new test examples, which nobody has seen, would decide alone
            with a power of 80 %; None where no number within reach would. Groups of them, where the comparison is one
            of groups.
        accepted_at: The look at which it was accepted.
    """

    decision: Literal["accept", "reject", "undecided"]
    reason: str
    p_value: float
    p_adjusted: float
    more_seeds: int | None
    more_examples: int | None
    accepted_at: int | None = None


def decide(
    comparisons: Mapping[str, Comparison], max_drop: float, confidence: float, metric: Metric, look: Look | None = None
) -> dict[str, Decision]:
    """Decides on all candidates of a study together.

    Each candidate has two one-sided tests: of a drop of the margin or more, and of one of the margin or less. Over all
    planned looks together, the probability that any candidate is wrongly accepted is at most ``1 - confidence``, and so
    is the probability that any is wrongly rejected (Holm 1979, "A simple sequentially rejective multiple test
    procedure", Scandinavian Journal of Statistics 6, with the share of this look).

    Args:
        comparisons: Candidate -> its comparison with the baseline.
        max_drop: The margin.
        confidence: Such as 0.95.
        metric: The metric that was compared, which also formats differences and the margin.
        look: Which look at the test split it is; by default the first of one.
    """
    if not comparisons:
        return {}
    look = look or Look()
    level = -1.0 if look.is_spent else look.level(confidence)  # below any p-value, which may be rounded to 0
    unseen = [1.0] * look.others
    count = len(comparisons)
    adjusted_accept = holm([comparison.p_noninferior for comparison in comparisons.values()] + unseen)[:count]
    adjusted_reject = holm([comparison.p_inferior for comparison in comparisons.values()] + unseen)[:count]
    decided = {True: sum(p <= level for p in adjusted_accept), False: sum(p <= level for p in adjusted_reject)}
    found = {}
    for (name, comparison), accept, reject in zip(comparisons.items(), adjusted_accept, adjusted_reject, strict=True):
        gap, too_much, is_more = _words(comparison, max_drop, metric)
        tested, margin = _tested(comparison, max_drop)
        # With one seed, the sentence must say that it does not hold for other trainings.
        of_pair = " for this one trained pair" if comparison.scope == "one trained pair" else ""
        more_seeds = more_examples = accepted_at = None
        decision: Literal["accept", "reject", "undecided"] = "undecided"
        if name in look.accepted and look.accepted[name] < look.number:
            accepted_at = look.accepted[name]
            decision, reason = (
                "accept",
                f"{gap}; {too_much} was ruled out{of_pair} at look {accepted_at}.",
            )
        elif accept <= level:
            accepted_at = look.number
            decision, reason = (
                "accept",
                f"{gap}; {too_much} is ruled out{of_pair} ({_p_value(accept)}).",
            )
        elif reject <= level:
            decision, reason = "reject", f"{gap}; {is_more}{of_pair} ({_p_value(reject)})."
        else:
            towards_accept = tested.difference.mean >= -margin
            if comparison.scope == "seeds and examples" and not look.is_last:
                # Holm's next step multiplies the least of the remaining p-values by their number.
                left = max(1, count + look.others - decided[towards_accept])
                more_seeds = _more_seeds(comparison, max_drop, look.level(confidence) / left)
            more_examples = _new_examples(comparison, max_drop, 1 - confidence)
            if look.is_spent:
                reason = (
                    f"{gap}; all {look.planned} looks at this test split were taken, so that it decides nothing more."
                )
            else:
                side, p_value = ("ruled out", accept) if towards_accept else ("shown", reject)
                bounded = (
                    towards_accept
                    and comparison.ratio is None
                    and tested.components.is_bounded(tested.difference.mean, margin)
                )
                by = " by the exact bound on few losses" if bounded else ""
                reason = f"{gap}; {too_much} is not {side} yet{of_pair} ({_p_value(p_value)}{by})."
        found[name] = Decision(
            decision, reason, comparison.p_noninferior, accept, more_seeds, more_examples, accepted_at
        )
    return found


def after_picking(comparison: Comparison, confidence: float, candidates: int, largest: float) -> Interval:
    """The interval of a candidate that was picked for its results: it covers as often as promised although it was.

    It is that of one candidate at the error of all divided by their number (Benjamini and Yekutieli 2005, "False
    discovery rate-adjusted multiple confidence intervals for selected parameters", JASA 100, with one selected).

    Args:
        comparison: The candidate's comparison.
        confidence: Such as 0.95.
        candidates: The number of candidates among which it was picked.
        largest: The largest possible difference, up or down.
    """
    return comparison.components.interval(
        comparison.difference.mean, 1 - (1 - confidence) / max(1, candidates), -largest, largest
    )


def broken_at_most(seeds: int, confidence: float) -> float:
    """The greatest share of broken trainings that is compatible with none among so many, at this confidence.

    Args:
        seeds: Trainings, none of which broke.
        confidence: Such as 0.95: then 63 % at three.
    """
    return float(1 - (1 - confidence) ** (1 / seeds))


def _words(comparison: Comparison, max_drop: float, metric: Metric) -> tuple[str, str, str]:
    """The difference, what must be ruled out for an acceptance, and what is shown by a rejection."""
    ratio = comparison.ratio
    if ratio is None:
        margin, worsening = metric.margin(max_drop), metric.worsening
        gap = _hundredths(metric, metric.sign * comparison.difference.mean)
        return gap, f"a {worsening} of {margin} or more", f"the {worsening} is more than {margin}"
    limit = f"{formats.ratio(ratio.limit)} times the baseline's"
    gap = (
        "It makes errors as often as the baseline, which makes none"
        if comparison.difference.mean == 0 and ratio.observed is None
        else "It makes errors, and the baseline none"
        if ratio.observed is None
        else f"{ratio.observed:.2f} times the baseline's error rate"
    )
    return gap, f"an error rate of {limit} or more", f"the error rate is more than {limit}"


def _hundredths(metric: Metric, difference: float) -> str:
    """A difference with two decimals, or the metric's own if these are more, such as ``-0.31 points``."""
    return f"{metric.scale * difference:+.{max(2, metric.digits)}f} {metric.difference_unit}"


def _p_value(value: float) -> str:
    """``p = 0.021``; very small values are ``p < 0.0001``, never ``p = 0``."""
    return f"p = {value:.2g}" if value >= 0.0001 else "p < 0.0001"


def weak_baseline(baseline: float, worthless: float, max_drop: float, metric: Metric) -> str | None:
    """A sentence where the baseline is so weak that a model that has learned nothing is within its margin, else None.

    Args:
        baseline: The baseline's quality.
        worthless: The quality of a model that has learned nothing.
        max_drop: The margin.
        metric: The metric of these values.
    """
    if metric.sign * baseline - max_drop > metric.sign * worthless:
        return None
    digits = max(2, metric.digits)
    return (
        f"The baseline itself has {metric.scale * baseline:.{digits}f} {metric.difference_unit}: a model that has "
        f"learned nothing ({metric.scale * worthless:.{digits}f}) would be within {metric.margin(max_drop)} of it, "
        "so that an acceptance says nothing."
    )


def without_acceptances(decisions: Mapping[str, Decision], reason: str) -> dict[str, Decision]:
    """The decisions, with ``undecided`` for this reason in place of every ``accept``."""
    return {
        name: replace(decision, decision="undecided", reason=reason, accepted_at=None)
        if decision.decision == "accept"
        else decision
        for name, decision in decisions.items()
    }


def recommend(
    prices: Mapping[str, float | None],
    decisions: Mapping[str, Decision],
    baseline: str,
    prefer: str,
    ratios: Mapping[str, Median | None] = MappingProxyType({}),
    without_interval: str = "",
) -> tuple[str, str]:
    """The accepted candidate of the best cost, if that is shown to be better than the baseline's, or the baseline.

    A cost that is measured is shown to be better where the whole interval of its ratio to the baseline's is; one that
    is counted is exact.

    Args:
        prices: Name -> cost, the baseline's included; None where it was not measured.
        decisions: Candidate -> decision.
        baseline: The baseline's name.
        prefer: The key of this cost in ``COSTS``.
        ratios: Candidate -> a measured cost as a multiple of the baseline's; None where there is no interval.
        without_interval: Why there may be none, in words.

    Returns:
        The recommended name, and the reason in one sentence.
    """
    cost = COSTS[prefer]
    less, least = ("less", "least") if cost.better == "less" else ("more", "most")
    accepted = [name for name, decision in decisions.items() if decision.decision == "accept"]
    limit = prices[baseline]
    priced = {name: price for name in accepted if limit is not None and (price := prices[name]) is not None}
    if cost.counted:
        known = {name: _exactly(price, limit) for name, price in priced.items() if limit is not None}
    else:
        known = {name: found for name in priced if (found := ratios.get(name)) is not None}
    shown = [name for name, found in known.items() if cost.is_better(_worst(found, cost), 1)]
    best_of = partial(min if cost.better == "less" else max, key=lambda name: known[name].median)
    if shown:
        best = best_of(shown)
        among = ""
        if len(known) > 1 and best == best_of(known):
            among = f", the {least} of {len(known)} accepted candidates"
        elif len(shown) > 1:
            among = f", the {least} of {len(shown)} accepted candidates that are shown to have {less}"
        return best, f"Ship {best}: it is accepted, with {_multiple(known[best], cost.name)}{among}."
    if accepted and not priced:
        return (
            baseline,
            f"Keep the baseline: candidates are accepted, but their {cost.name} or the baseline's was not measured.",
        )
    if accepted and not known:
        return (
            baseline,
            f"Keep the baseline: no accepted candidate is shown to have {less} {cost.name}, as there is no interval "
            f"({without_interval}).",
        )
    if len(known) < len(priced) or any(cost.is_better(_best(found, cost), 1) for found in known.values()):
        nearest = best_of(known)
        return (
            baseline,
            f"Keep the baseline: no accepted candidate is shown to have {less} {cost.name}; {nearest} has "
            f"{_multiple(known[nearest], cost.name)}.",
        )
    if accepted:
        return baseline, f"Keep the baseline: no accepted candidate has {less} {cost.name}."
    if any(decision.decision == "undecided" for decision in decisions.values()):
        return baseline, "Keep the baseline: no candidate is shown to be good enough yet."
    return baseline, "Keep the baseline: no candidate is good enough."


def _exactly(price: float, limit: float) -> Median:
    """The ratio of two costs that are counted."""
    ratio = price / limit if limit else float(price >= limit)
    return Median(median=ratio, low=ratio, high=ratio)


def _worst(ratio: Median, cost: Cost) -> float:
    return ratio.high if cost.better == "less" else ratio.low


def _best(ratio: Median, cost: Cost) -> float:
    return ratio.low if cost.better == "less" else ratio.high


def _multiple(ratio: Median, name: str) -> str:
    """``0.42 x the baseline's latency (0.39 to 0.46)``; without an interval where the ratio is exact."""
    if ratio.low == ratio.high:
        return f"{ratio.median:.2g} x the baseline's {name}"
    median, low, high = (_two_digits(end) for end in (ratio.median, ratio.low, ratio.high))
    return f"{median} x the baseline's {name} ({low} to {high})"


def _two_digits(ratio: float) -> str:
    """``0.42``, ``0.031``, ``1.05``; close to 1 the side must show: ``0.9981``."""
    return f"{ratio:.4f}" if 0 < abs(ratio - 1) < 0.005 else f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.2g}"


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values. statsmodels has them too, but runs the garbage collector at each call."""
    order = np.argsort(p_values)
    multiplied = np.asarray(p_values)[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(multiplied), 1.0)
    return [float(p) for p in adjusted]


def _tested(comparison: Comparison, max_drop: float) -> tuple[Comparison, float]:
    """The difference that is tested, and its margin: a ratio is tested as a difference whose margin is 0."""
    return (comparison, max_drop) if comparison.ratio is None else (comparison.ratio.combined, 0.0)


def _shrunk(comparison: Comparison, max_drop: float) -> float:
    """The difference with its distance from the margin shrunk by t² / (1 + t²), t being that distance in errors.

    What looks promising is on average less so than it looks (van Zwet and Cator 2021, "The significance filter, the
    winner's curse and the need to shrink", Statistica Neerlandica 75): a plan for the estimate itself is too small.
    """
    distance = comparison.difference.mean + max_drop
    squared = (distance / comparison.standard_error) ** 2
    return distance * squared / (1 + squared) - max_drop


def _decides(comparison: Comparison, max_drop: float, level: float, more_seeds: int, more_examples: int) -> bool:
    """Whether with more seeds or examples a test at this level would decide with the power that is asked for."""
    tested, margin = _tested(comparison, max_drop)
    mean = _shrunk(tested, margin)
    unlucky = float(ndtri(POWER)) * tested.components.variance(more_seeds, more_examples)[0] ** 0.5
    accepts = mean > -margin
    seen = mean - unlucky if accepts else mean + unlucky
    if comparison.ratio is not None:
        p_noninferior, p_inferior = ratio_p_values(comparison.ratio, seen, more_seeds, more_examples)
        return (p_noninferior if accepts else p_inferior) <= level
    test = tested.components.p_noninferior if accepts else tested.components.p_inferior
    return test(seen, margin, more_seeds, more_examples) <= level


def _more_seeds(comparison: Comparison, max_drop: float, level: float) -> int | None:
    """How many more seeds would decide at a level."""
    return _least(lambda count: _decides(comparison, max_drop, level, count, 0), MOST_MORE_SEEDS)


def _new_examples(comparison: Comparison, max_drop: float, level: float) -> int | None:
    """How many new test examples would decide alone at a level, with the present models."""
    present = comparison.components.num_examples
    return _least(
        lambda count: count > 1 and _decides(comparison, max_drop, level, 0, count - present),
        MOST_TIMES_EXAMPLES * present,
    )


def _least(decides: Callable[[int], bool], most: int) -> int | None:
    """The least number from 1 to ``most`` that decides: first in steps of a quarter, then between two steps.

    The search starts from below, because a larger number may not decide where a smaller one does: with more examples
    the seeds have a larger share of the variance, and the degrees of freedom fall.
    """
    low, high = 0, 1
    while not decides(high):
        if high == most:
            return None
        low, high = high, min(most, high + max(1, high // 4))
    return low + 1 + bisect_left(range(low + 1, high + 1), True, key=decides)

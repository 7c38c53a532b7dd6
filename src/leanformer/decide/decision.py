"""The decision on each candidate, accept, reject or undecided, and the model to ship (docs/decisions.md)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from leanformer.decide.statistics import Comparison
from leanformer.results.costs import COSTS
from leanformer.results.metrics import Metric

MOST_MORE_SEEDS = 1_000
MOST_MORE_EXAMPLES = 10_000_000


@dataclass(frozen=True)
class Decision:
    """The decision on one candidate.

    Args:
        decision: ``accept`` where a drop of the margin or more is ruled out, ``reject`` where a smaller one is, else
            ``undecided``.
        reason: Why, in one sentence.
        p_value: Of the hypothesis that the drop is the margin or more.
        p_adjusted: The same, corrected for the number of candidates by Holm's method.
        more_seeds: For an undecided candidate, how many more seeds of baseline and candidate would decide with the
            present estimates; None where no number up to 1,000 would, and with one seed, which says nothing about
            others.
        more_examples: Likewise for test examples, up to ten million.
    """

    decision: Literal["accept", "reject", "undecided"]
    reason: str
    p_value: float
    p_adjusted: float
    more_seeds: int | None
    more_examples: int | None


def decide(
    comparisons: Mapping[str, Comparison], max_drop: float, confidence: float, metric: Metric
) -> dict[str, Decision]:
    """Decides on all candidates of a study together.

    Each candidate has two one-sided tests: of a drop of the margin or more, and of one of the margin or less. The
    probability that any candidate is wrongly accepted is at most ``1 - confidence``, and so is the probability that any
    is wrongly rejected (Holm 1979, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
    Statistics 6).

    Args:
        comparisons: Candidate -> its comparison with the baseline.
        max_drop: The margin.
        confidence: Such as 0.95.
        metric: The metric that was compared, which also formats differences and the margin.
    """
    alpha = 1 - confidence
    if not comparisons:
        return {}
    adjusted_accept = _holm([comparison.p_noninferior for comparison in comparisons.values()])
    adjusted_reject = _holm([comparison.p_inferior for comparison in comparisons.values()])
    accepted = sum(p <= alpha for p in adjusted_accept)
    rejected = sum(p <= alpha for p in adjusted_reject)
    found = {}
    for (name, comparison), accept, reject in zip(comparisons.items(), adjusted_accept, adjusted_reject, strict=True):
        gap, worsening = _hundredths(metric, metric.sign * comparison.difference.mean), metric.worsening
        margin = metric.margin(max_drop)
        # With one seed, the sentence must say that it does not hold for other trainings.
        of_pair = " for this one trained pair" if comparison.scope == "one trained pair" else ""
        more_seeds = more_examples = None
        decision: Literal["accept", "reject", "undecided"] = "undecided"
        if accept <= alpha:
            decision, reason = (
                "accept",
                f"{gap}; a {worsening} of {margin} or more is ruled out{of_pair} ({_p_value(accept)}).",
            )
        elif reject <= alpha:
            decision, reason = "reject", f"{gap}; the {worsening} is more than {margin}{of_pair} ({_p_value(reject)})."
        else:
            towards_accept = comparison.difference.mean > -max_drop
            # Holm's next step multiplies the least of the remaining p-values by their number.
            level = alpha / (len(comparisons) - (accepted if towards_accept else rejected))
            more_seeds, more_examples = _more(comparison, max_drop, level)
            side, p_value = ("ruled out", accept) if towards_accept else ("shown", reject)
            reason = f"{gap}; a {worsening} of {margin} or more is not {side} yet{of_pair} ({_p_value(p_value)})."
        found[name] = Decision(decision, reason, comparison.p_noninferior, accept, more_seeds, more_examples)
    return found


def _hundredths(metric: Metric, difference: float) -> str:
    """A difference with two decimals in every metric, such as ``-0.31 points``."""
    return f"{metric.scale * difference:+.2f} {metric.difference_unit}"


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
    return (
        f"The baseline itself has {metric.scale * baseline:.2f} {metric.difference_unit}: a model that has learned "
        f"nothing ({metric.scale * worthless:.2f}) would be within {metric.margin(max_drop)} of it, so that an "
        "acceptance says nothing."
    )


def without_acceptances(decisions: Mapping[str, Decision], reason: str) -> dict[str, Decision]:
    """The decisions, with ``undecided`` for this reason in place of every ``accept``."""
    return {
        name: replace(decision, decision="undecided", reason=reason) if decision.decision == "accept" else decision
        for name, decision in decisions.items()
    }


def recommend(
    prices: Mapping[str, float | None], decisions: Mapping[str, Decision], baseline: str, prefer: str
) -> tuple[str, str]:
    """The accepted candidate of the best cost, if that is better than the baseline's, or the baseline.

    Args:
        prices: Name -> cost, the baseline's included; None where it was not measured.
        decisions: Candidate -> decision.
        baseline: The baseline's name.
        prefer: The key of this cost in ``COSTS``.

    Returns:
        The recommended name, and the reason in one sentence.
    """
    cost = COSTS[prefer]
    less, least = ("less", "least") if cost.better == "less" else ("more", "most")
    accepted = [name for name, decision in decisions.items() if decision.decision == "accept"]
    priced = {name: price for name in accepted if (price := prices[name]) is not None}
    limit = prices[baseline]
    better = {name: price for name, price in priced.items() if limit is not None and cost.is_better(price, limit)}
    if better:
        best = (min if cost.better == "less" else max)(better, key=lambda name: better[name])
        others = len(accepted) - 1
        among = f", the {least} of {others + 1} accepted candidates" if others else ""
        return (
            best,
            f"Ship {best}: it is accepted, with {better[best] / (limit or 1):.2g} x the baseline's {cost.name}{among}.",
        )
    if accepted and (limit is None or not priced):
        return (
            baseline,
            f"Keep the baseline: candidates are accepted, but their {cost.name} or the baseline's was not measured.",
        )
    if accepted:
        return baseline, f"Keep the baseline: no accepted candidate has {less} {cost.name}."
    if any(decision.decision == "undecided" for decision in decisions.values()):
        return baseline, "Keep the baseline: no candidate is shown to be good enough yet."
    return baseline, "Keep the baseline: no candidate is good enough."


def _holm(p_values: list[float]) -> list[float]:
    """Holm's adjusted p-values. statsmodels has them too, but runs the garbage collector at each call."""
    order = np.argsort(p_values)
    multiplied = np.asarray(p_values)[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(multiplied), 1.0)
    return [float(p) for p in adjusted]


def _more(comparison: Comparison, max_drop: float, level: float) -> tuple[int | None, int | None]:
    """How many more seeds, or else how many more examples, would decide at a level with the present estimates."""
    mean = comparison.difference.mean

    def decides(more_seeds: int, more_examples: int) -> bool:
        p_value = comparison.components.p_noninferior(mean, max_drop, more_seeds, more_examples)
        return (p_value if mean > -max_drop else 1 - p_value) <= level

    seeds = None
    if comparison.scope == "seeds and examples":
        seeds = _least(lambda count: decides(count, 0), MOST_MORE_SEEDS)
    return seeds, _least(lambda count: decides(0, count), MOST_MORE_EXAMPLES)


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

"""Tests of the ratio of two models' error rates on the same examples: may the one err so many times as often?

With e the errors on an example, the ratio is at most ``limit`` where the mean of ``limit * e_baseline - e_candidate``
is 0 or more: a linear combination for each example, which is tested as a difference of outcomes is (``statistics``).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from scipy.special import bdtr, bdtrc, gammaln, xlog1py, xlogy
from scipy.stats import beta, binom

from leanformer.decide import statistics
from leanformer.decide.resampled import Folds, compare_folds
from leanformer.decide.statistics import ROUNDING, Comparison, Ratio

SET_ASIDE = 1e-4
"""The probability that the nuisance parameter lies outside of the range that is searched; it is added to p-values."""
POINTS = 32
"""Values of the nuisance parameter in that range."""
FARTHEST = 8
"""Standard deviations beyond which binomial probabilities are left out."""


def compare_errors(
    baseline: np.ndarray,
    candidate: np.ndarray,
    limit: float,
    confidence: float,
    groups: np.ndarray | None = None,
    paired: bool = False,
    weights: np.ndarray | None = None,
    folds: Folds | None = None,
) -> Comparison:
    """Compares a candidate's error rate with the baseline's on the same test examples, each with its own trainings.

    One pair of models on independent examples of the same weight is tested exactly (``exact_p_values``). All else has
    the t test of the linear combination, and the greater p-value of that and of the exact one where all net errors
    are additional ones, as at the ceiling.

    Args:
        baseline: Outcomes 0 or 1, shape (seeds, examples).
        candidate: Likewise, for the same examples in the same order; the number of seeds may differ.
        limit: How many times the baseline's error rate the candidate's may be, 1 or more.
        confidence: Of the two-sided interval of the difference of outcomes.
        groups: The group of each example, shape (examples,); None where examples are independent.
        paired: As in ``statistics.compare``.
        weights: As in ``statistics.compare``.
        folds: Of a cross-validation, whose examples all weigh the same; None: each model answered all examples.

    Returns:
        The comparison of outcomes, with the p-values of this test, and with ``ratio``.
    """

    def compared(first: np.ndarray, second: np.ndarray) -> Comparison:
        if folds is not None:
            return compare_folds(first, second, 0.0, confidence, folds, groups)
        return statistics.compare(first, second, 0.0, confidence, groups, paired, weights)

    plain, combined = compared(baseline, candidate), compared(limit * (baseline - 1), candidate - 1)
    errors = [float(np.average((1 - outcomes).mean(axis=0), weights=weights)) for outcomes in (baseline, candidate)]
    one_pair = len(baseline) == len(candidate) == 1 and groups is None and weights is None and folds is None
    ratio = Ratio(
        limit,
        observed=None if errors[0] == 0 else errors[1] / errors[0],
        combined=combined,
        baseline=errors[0],
        both=float(((baseline[0] < 1) & (candidate[0] < 1)).mean()) if one_pair else None,
    )
    p_noninferior, p_inferior = ratio_p_values(ratio, combined.difference.mean)
    return replace(plain, p_noninferior=p_noninferior, p_inferior=p_inferior, ratio=ratio)


def ratio_p_values(ratio: Ratio, mean: float, more_seeds: int = 0, more_examples: int = 0) -> tuple[float, float]:
    """The p-values of the test for an observed mean of the linear combination, perhaps with more seeds or examples.

    The baseline's error rate stays as it was observed, and so does, as far as possible, the share of examples on which
    both err. Numbers of errors that come out broken are rounded against what each test would show.

    Args:
        ratio: What is tested.
        mean: The mean of ``limit * e_baseline - e_candidate``.
        more_seeds: Additional trainings of each model.
        more_examples: Additional test examples.

    Returns:
        The p-values of the hypotheses that the ratio is the limit or more, and that it is the limit or less.
    """
    components, limit, baseline = ratio.combined.components, ratio.limit, ratio.baseline
    examples = components.num_examples + more_examples
    candidate = min(max(limit * baseline - mean, 0.0), 1.0)
    if ratio.both is not None:
        both = min(ratio.both, candidate)
        alone, other, same = (examples * share for share in (baseline - both, candidate - both, both))
        return (
            exact_p_values(_floor(alone), _ceil(other), round(same), limit)[0],
            exact_p_values(_ceil(alone), _floor(other), round(same), limit)[1],
        )
    units = examples / components.design_effect
    few, many = _p_of_additional(baseline * units, candidate * units, limit)
    return (
        max(components.p_noninferior(mean, 0.0, more_seeds, more_examples), few),
        max(components.p_inferior(mean, 0.0, more_seeds, more_examples), many),
    )


def _floor(errors: float) -> int:
    return math.floor(errors + ROUNDING)


def _ceil(errors: float) -> int:
    return math.ceil(errors - ROUNDING)


def exact_p_values(baseline_only: int, candidate_only: int, both: int, limit: float) -> tuple[float, float]:
    """The exact test of one pair of models, given the number N of examples on which at least one of them errs.

    Of these, let s be the share on which only the baseline errs. Where the ratio is the limit 1 + r, the share on which
    only the candidate errs is (s + r) / (1 + r), so that the three counts are trinomial with one unknown s. The test
    statistic is the candidate's errors minus 1 + r times the baseline's. The p-value is its greatest probability over
    all s of a confidence interval, plus the error of that interval (Berger and Boos 1994, "P values maximized over a
    confidence set for the nuisance parameter", JASA 89).

    Args:
        baseline_only: Examples on which only the baseline errs.
        candidate_only: Examples on which only the candidate errs.
        both: Examples on which both err.
        limit: 1 + r.

    Returns:
        The p-values of the hypotheses that the ratio is the limit or more, and that it is the limit or less.
    """
    count, r = baseline_only + candidate_only + both, limit - 1
    if count == 0:
        return 1.0, 1.0
    most = 1 / (2 + r)  # there, they never err together
    low = float(beta.ppf(SET_ASIDE / 2, baseline_only, count - baseline_only + 1)) if baseline_only else 0.0
    high = float(beta.isf(SET_ASIDE / 2, baseline_only + 1, count - baseline_only)) if baseline_only < count else 1.0
    shares = np.linspace(min(low, most), min(high, most), POINTS)
    few, many = (float(tail.max()) for tail in _tails(baseline_only, candidate_only, count, shares, r))
    return min(1.0, few + SET_ASIDE), min(1.0, many + SET_ASIDE)


def _tails(
    baseline_only: int, candidate_only: int, count: int, shares: np.ndarray, r: float
) -> tuple[np.ndarray, np.ndarray]:
    """The probabilities of a statistic as small as the observed one, or smaller, and as large, or larger.

    Args:
        baseline_only: Observed.
        candidate_only: Observed.
        count: Examples on which at least one model errs.
        shares: Of these, expected shares on which only the baseline errs, shape (shares,).
        r: The limit minus 1.

    Returns:
        Both of shape (shares,).
    """
    other = ((shares + r) / (1 + r))[:, None]  # (shares, 1)
    spread = FARTHEST * math.sqrt(count) / 2 + FARTHEST**2
    first, last = max(0, math.floor(count * other.min() - spread)), min(count, math.ceil(count * other.max() + spread))
    drawn = np.arange(first, last + 1)  # errors of the candidate alone
    left = count - drawn
    ways = gammaln(count + 1) - gammaln(drawn + 1) - gammaln(left + 1)
    probabilities = np.exp(ways + xlogy(drawn, other) + xlog1py(left, -other))  # (shares, drawn)
    # With these errors of the candidate alone, so many of the baseline alone give the observed statistic.
    needed = (1 + r) * (drawn - candidate_only) + baseline_only
    at_least = np.clip(np.ceil(needed - ROUNDING), 0, left + 1)
    at_most = np.clip(np.floor(needed + ROUNDING), -1, left)
    among = np.minimum(1.0, shares[:, None] / np.maximum(1 - other, np.finfo(float).tiny))
    fewer = np.where(at_least > 0, bdtrc(np.maximum(at_least, 1) - 1, left, among), 1.0)
    fewer[:, at_least > left] = 0.0
    more = np.where(at_most >= 0, bdtr(np.maximum(at_most, 0), left, among), 0.0)
    return (probabilities * fewer).sum(axis=1), (probabilities * more).sum(axis=1)


def _p_of_additional(baseline: float, candidate: float, limit: float) -> tuple[float, float]:
    """As ``exact_p_values`` where the candidate makes all errors of the baseline, and additional ones.

    Args:
        baseline: Errors, a mean over seeds.
        candidate: Likewise.
        limit: 1 + r.
    """
    r = limit - 1
    if r == 0:
        return 0.0, 0.0  # any additional error is too many, and the t test alone decides
    additional = max(0.0, candidate - baseline)
    share = r / (1 + r)
    few, many, same = _ceil(additional), _floor(additional), _floor(baseline)
    return (
        float(binom.cdf(few, same + few, share)),
        float(binom.sf(many - 1, same + many, share)),
    )

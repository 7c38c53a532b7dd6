"""PROVISIONAL stand-in so that others can run end to end; the author of this room overwrites it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Interval:
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    difference: Interval
    standard_error: float
    degrees_of_freedom: float
    p_noninferior: float
    p_inferior: float
    seeds: int
    examples: int
    scope: str


@dataclass(frozen=True)
class McNemar:
    baseline_only: int
    candidate_only: int
    p_value: float


def quality_interval(outcomes: Any, confidence: float) -> Interval:
    mean = float(outcomes.mean())
    s, n = outcomes.shape
    se = float(np.sqrt(outcomes.mean(0).var(ddof=1) / n + (outcomes.mean(1).var(ddof=1) / s if s > 1 else 0))) + 1e-3
    return Interval(mean, mean - 2 * se, mean + 2 * se)


def compare(baseline: Any, candidate: Any, max_drop: float, confidence: float) -> Comparison:
    d = candidate.mean(0) - baseline.mean(0)
    mean = float(d.mean())
    s = len(baseline)
    between = sum(x.mean(1).var(ddof=1) / s if s > 1 else 0 for x in (baseline, candidate))
    se = float(np.sqrt(d.var(ddof=1) / len(d) + between)) + 1e-3
    t = (mean + max_drop) / se
    return Comparison(
        Interval(mean, mean - 2 * se, mean + 2 * se),
        se,
        10.0,
        float(stats.norm.sf(t)),
        float(stats.norm.cdf(t)),
        s,
        len(d),
        "seeds and examples" if s > 1 else "one trained pair",
    )


def mcnemar_exact(a: Any, b: Any) -> McNemar:
    x, y = int((a & ~b).sum()), int((b & ~a).sum())
    return McNemar(x, y, float(stats.binomtest(x, x + y).pvalue) if x + y else 1.0)

"""Short texts for a row of results.json: its verdict and its intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from leanformer.results import formats
from leanformer.results.formats import MISSING
from leanformer.results.metrics import Metric


def verdict(row: Mapping[str, Any]) -> str:
    """A row's verdict: ``accept``, ``reject``, ``undecided``, ``failed`` or ``baseline``."""
    if row["status"] == "failed":
        return "failed"
    return row["decision"] or "baseline"


def interval(value: Mapping[str, float] | None, write: Callable[[float], str]) -> str:
    """``97.1 (96.0, 98.2)``; a dash where there is no value."""
    if value is None:
        return MISSING
    return f"{write(value['mean'])} ({write(value['low'])}, {write(value['high'])})"


def margin_words(results: Mapping[str, Any], metric: Metric) -> str:
    """The margin in words: ``a drop of 1 point``, ``an error rate of 1.10 times the baseline's``."""
    ratio = results["accept"].get("max_ratio")
    if ratio is not None:
        return f"an error rate of {formats.ratio(ratio)} times the baseline's"
    return f"a {metric.worsening} of {metric.margin(results['accept']['max_drop'])}"


def margin_drop(results: Mapping[str, Any]) -> float:
    """The margin as a drop; where it is a ratio of error rates, the drop from the baseline's estimated quality."""
    accept, quality = results["accept"], results["baseline"]["quality"]
    if accept.get("max_ratio") is None or quality is None:
        return float(accept["max_drop"])
    return float((accept["max_ratio"] - 1) * (1 - quality["mean"]))


def one_pair_only(results: Mapping[str, Any]) -> bool:
    """Whether the study has only one seed, so that its results do not hold for other trainings; the folds of a
    cross-validation are trainings too."""
    return len(results["seeds"]) == 1 and results["cross_validation"] is None

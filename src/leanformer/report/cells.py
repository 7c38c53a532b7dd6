"""Short texts for a row of results.json: its verdict and its intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from leanformer.results.formats import MISSING


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


def one_pair_only(results: Mapping[str, Any]) -> bool:
    """Whether the study has only one seed, so that its results do not hold for other trainings."""
    return len(results["seeds"]) == 1

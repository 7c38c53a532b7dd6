"""What ``leanformer compare`` writes: the decision on models of any maker, as a typed file."""

from __future__ import annotations

from typing import Literal

from leanformer.core.fields import Seed
from leanformer.results.rows import Amount, Count, Quality, Recipe, Record
from leanformer.results.schema import Accept

VERSION: Literal[1] = 1


class ComparedData(Record):
    """The examples that all files share."""

    test: Count
    groups: Count | None
    """Groups of examples; null where each stands alone."""
    effective: Amount | None
    """Examples, or groups, of equal weight that say as much (Kish); null where all weigh the same."""


class ComparedBaseline(Record):
    """The present model."""

    name: str
    file: str
    """As it was given."""
    seeds: list[Seed]
    """Empty where the file has no column of seeds."""
    status: Literal["ok"] = "ok"
    decision: None = None
    quality: Quality


class ComparedCandidate(Recipe):
    """A model that is to replace it. Where a pair was chosen, the decision is on its two models."""

    name: str
    file: str
    seeds: list[Seed]
    status: Literal["ok"] = "ok"
    recipe: Recipe | None
    """The decision over all seeds, where another one is on a pair."""


class Compared(Record):
    """The content of the file."""

    version: Literal[1] = VERSION
    metric: str
    accept: Accept
    pair: list[Seed] | None
    """The seeds of the two models that the decisions are on, the baseline's first; null: decisions are on all seeds."""
    data: ComparedData
    signature: str | None
    """Of the metric, as sacreBLEU states it; null for others."""
    baseline: ComparedBaseline
    candidates: list[ComparedCandidate]
    method: str
    environment: dict[str, str]

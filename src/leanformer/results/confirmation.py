"""The result of a confirmation, ``result.json`` in its directory. Each field is defined only here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from leanformer.core.errors import LeanformerError
from leanformer.core.json_files import read_sealed
from leanformer.results.rows import Count, Interval, PartOfOne, Quality, Record
from leanformer.results.schema import Accept, Warned


class NewData(Record):
    """The data that a model was confirmed on."""

    source: str
    signature: str
    """By which the same data are known again."""
    examples: Count
    groups: Count | None
    """Groups of the examples; null where each stands for itself."""
    known: Count | None
    """Examples that are in the study's data too; null where the study's data could not be read."""


class ConfirmedModel(Record):
    """One of the two models that answered."""

    name: str
    directory: str
    """Relative to the run directory; an exported directory where the study ships."""
    identity: str
    """By which the model is known whatever its name: what it runs in, its precision, its weights."""
    quality: Quality


class Revised(Record):
    """The decision on a candidate that was confirmed on the same data before, as it changed."""

    candidate: str
    before: str
    now: str


class Confirmation(Record):
    """The decision on one candidate on new data."""

    study: str
    task: str
    date: str
    """Of the first confirmation of this model on these data."""
    data: NewData
    metric: str
    accept: Accept
    baseline: ConfirmedModel
    candidate: ConfirmedModel
    difference: Interval
    """The candidate's quality minus the baseline's."""
    decision: Literal["accept", "reject", "undecided"]
    reason: str
    p_value: PartOfOne
    p_adjusted: PartOfOne
    candidates: Annotated[Count, Field(ge=1)]
    """Models that were confirmed on these data: all count in the correction for several."""
    more_examples: Count | None
    """For an undecided one: new examples that would decide alone with a power of 80 %."""
    revised: list[Revised]
    warnings: list[Warned]
    environment: dict[str, Any]


def read_confirmations(directory: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The confirmations that a run directory holds, the earliest first.

    Args:
        directory: The run directory.

    Returns:
        The content of each ``result.json``, and the paths of those that are damaged, relative to the run directory.
    """
    found, damaged = [], []
    for path in sorted((directory / "confirmations").glob("*/result.json")):
        try:
            content = read_sealed(path, required=True)
            found.append(Confirmation.model_validate(content).model_dump(mode="json"))
        except (LeanformerError, ValidationError):
            damaged.append(path.relative_to(directory).as_posix())
    return sorted(found, key=lambda result: str(result["date"])), damaged

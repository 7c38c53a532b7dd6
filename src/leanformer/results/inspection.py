"""Reading a site's entry of inspection.json, for the inspection itself, its table and its page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def best_probe(row: Mapping[str, Any], probes: Iterable[str]) -> tuple[str, float] | None:
    """The probe at a site with the smallest rise of the loss, and that rise; None where no probe was taught.

    Args:
        row: One of the inspection's ``sites``.
        probes: The probes' names.
    """
    changes = {name: row["replaced"][name]["loss"] for name in probes if row["replaced"].get(name) is not None}
    if not changes:
        return None
    best = min(changes, key=lambda name: changes[name])
    return best, changes[best]

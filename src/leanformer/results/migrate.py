"""Results files of older versions, brought to the form of today: a step a version."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from leanformer.results.schema import VERSION


def migrate(content: dict[str, Any], version: int) -> dict[str, Any]:
    """A results file's content as this version writes it.

    What is not as that version wrote it is left as it is: the schema says what is wrong with it.

    Args:
        content: The file's content; stays as it is.
        version: By which it was written, from 1 to ``VERSION``.
    """
    for step in range(version, VERSION):
        content = _STEPS[step]({**content, "version": step + 1})
    return content


def _to_2(content: dict[str, Any]) -> dict[str, Any]:
    """Every key is there: files without a version lack those that came with later tasks, costs and blocks."""
    translation = content.get("task") == "translation"
    missing: dict[str, Any] = dict.fromkeys(("teaching", "decoding", "ms_per_token", "tokens_per_second"))
    missing["trials"] = []
    if translation:
        missing |= {"per_class": [], "mcnemar": []}
    content = {"warnings": [], **content}
    if isinstance(content.get("data"), dict) and not translation:
        content["data"] = {**dict.fromkeys(("channels", "height", "width", "storage")), **content["data"]}
    if isinstance(content.get("baseline"), dict):
        content["baseline"] = _with_changes({**missing, **content["baseline"]})
    if isinstance(content.get("candidates"), list):
        content["candidates"] = [
            _with_changes({**missing, **row}) if isinstance(row, dict) else row for row in content["candidates"]
        ]
    return content


def _with_changes(row: dict[str, Any]) -> dict[str, Any]:
    """A row whose changes say what went and what came."""
    if not isinstance(row.get("changes"), list):
        return row
    changes = []
    for change in row["changes"]:
        if isinstance(change, dict):
            # Of a changed site all was exchanged, of another nothing.
            changed = change.get("changed") is True
            exchanged = {
                "removed": change.get("parameters_before") if changed else 0,
                "added": change.get("parameters_after") if changed else 0,
            }
            change = {**exchanged, "r2": None, "r2_per_seed": [], **change}
        changes.append(change)
    return {**row, "changes": changes}


_STEPS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _to_2}
"""Version -> how a file of it is brought to the next."""

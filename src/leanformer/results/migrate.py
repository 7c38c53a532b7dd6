"""Converts results files of older versions to the present form, one version at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from leanformer.results.schema import VERSION


def migrate(content: dict[str, Any], version: int) -> dict[str, Any]:
    """A results file's content in the form of this version.

    Parts that the older version would not have written stay unchanged: the schema then reports what is wrong.

    Args:
        content: The file's content; it is not changed.
        version: The version of the file, from 1 to ``VERSION``.
    """
    for step in range(version, VERSION):
        content = _STEPS[step]({**content, "version": step + 1})
    return content


def _to_2(content: dict[str, Any]) -> dict[str, Any]:
    """Adds the keys that files without a version lack: those that came with later tasks, costs and blocks."""
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
    """A row whose changes say how many parameters were removed and added."""
    if not isinstance(row.get("changes"), list):
        return row
    changes = []
    for change in row["changes"]:
        if isinstance(change, dict):
            # Version 1 replaced a changed site as a whole.
            changed = change.get("changed") is True
            exchanged = {
                "removed": change.get("parameters_before") if changed else 0,
                "added": change.get("parameters_after") if changed else 0,
            }
            change = {**exchanged, "r2": None, "r2_per_seed": [], **change}
        changes.append(change)
    return {**row, "changes": changes}


def _to_3(content: dict[str, Any]) -> dict[str, Any]:
    """Adds what came with exported models: none is in the file, and what was measured ran in PyTorch."""
    content = {"shipped": None, **content}
    if isinstance(content.get("baseline"), dict):
        content["baseline"] = _with_speeds(content["baseline"])
    if isinstance(content.get("candidates"), list):
        content["candidates"] = [_with_speeds(row) if isinstance(row, dict) else row for row in content["candidates"]]
    return content


def _with_speeds(row: dict[str, Any]) -> dict[str, Any]:
    """A row with its speed in PyTorch."""
    measured = ("latency_ms", "ms_per_token", "throughput_per_second", "tokens_per_second", "peak_memory_mb")
    speeds = [] if row.get("latency_ms") is None else [{"runtime": "torch", **{key: row.get(key) for key in measured}}]
    return {"artifact": None, "recipe": None, "bytes": None, "speeds": speeds, **row}


def _to_4(content: dict[str, Any]) -> dict[str, Any]:
    """Adds what came with decisions on one model, looks, groups and further metrics: the file has none of it."""
    whole: dict[str, Any] = {"looks": None, "picked": None, "corruptions": []}
    in_row: dict[str, Any] = {
        "decided_seed": None,
        "accepted_at": None,
        "cost_ratios": None,
        "robustness": None,
        "confusion": None,
        "thresholds": [],
    }
    in_recipe: dict[str, Any] = {"accepted_at": None, "broken_at_most": None}

    def filled(row: Any) -> Any:
        if not isinstance(row, dict):
            return row
        recipe = row.get("recipe")
        return _with_ratios({**in_row, **row}) | (
            {"recipe": {**in_recipe, **recipe}} if isinstance(recipe, dict) else {}
        )

    content = {**whole, **content}
    if isinstance(content.get("data"), dict):
        content["data"] = {"groups": None, **content["data"]}
    if "baseline" in content:
        content["baseline"] = filled(content["baseline"])
    if isinstance(content.get("candidates"), list):
        content["candidates"] = [filled(row) for row in content["candidates"]]
    return content


def _with_ratios(row: dict[str, Any]) -> dict[str, Any]:
    """A row whose speeds have the keys of their rounds, which were not kept."""
    if not isinstance(row.get("speeds"), list):
        return row
    missing = {"rounds": None, "ratios": None}
    return {**row, "speeds": [{**missing, **speed} if isinstance(speed, dict) else speed for speed in row["speeds"]]}


_STEPS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _to_2, 2: _to_3, 3: _to_4}
"""Version -> the function that converts a file of it to the next."""

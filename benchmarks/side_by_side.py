"""A study's students trained in several processes: small models leave a GPU idle, and one process a core."""

from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import leanformer as lf
from leanformer.config import BASELINE
from leanformer.report.read import rows_of

Ran = tuple[dict[str, Any], Path]
"""The content of a study's ``results.json``, and its run directory."""


def run(study: Mapping[str, Any], directory: Path, count: int) -> list[Ran]:
    """Runs a study of distilled candidates in parts, side by side, each with its own run directory.

    The first candidate is run before the others, as all of them need the teacher that it brings with it. Candidates of
    one plan stay together, so that their blocks are taught once; a block that two parts want is taught in each.

    Args:
        study: As plain data.
        directory: The run directory; those of the parts stand beside it and are numbered.
        count: Parts at most; with 1 the study is run as it is.

    Returns:
        What was run: the parts, each with the same baseline.
    """
    if count == 1:
        return [_run(study, directory)]
    first, *others = sorted(study["candidates"], key=lambda name: _work({name: study["candidates"][name]}))
    ran = [_run({**study, "candidates": {first: study["candidates"][first]}}, directory)]
    parts = divide({name: candidate for name, candidate in study["candidates"].items() if name in others}, count)
    trained = directory / "trials" / BASELINE
    places = [directory.with_name(f"{directory.name}-{number}") for number in range(1, len(parts) + 1)]
    for place in places:
        shutil.copytree(trained, place / "trials" / BASELINE, dirs_exist_ok=True)
        shutil.copy(directory / "study.yaml", place)
    spawn = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    with ProcessPoolExecutor(max(len(parts), 1), spawn) as pool:
        studies = [{**study, "candidates": part} for part in parts]
        return ran + list(pool.map(_run, studies, places))


def divide(candidates: Mapping[str, Mapping[str, Any]], count: int) -> list[dict[str, Any]]:
    """Candidates in at most so many parts of about the same work; those of one plan in one part.

    Args:
        candidates: Name -> candidate, as a study says it.
        count: Parts at most.
    """
    families: dict[str, dict[str, Any]] = {}
    for name, candidate in candidates.items():
        families.setdefault(str(candidate["plan"]), {})[name] = candidate
    parts: list[dict[str, Any]] = [{} for _ in range(count)]
    for family in sorted(families.values(), key=_work, reverse=True):
        min(parts, key=_work).update(family)
    return [part for part in parts if part]


def rows(ran: list[Ran], study: Mapping[str, Any]) -> list[tuple[dict[str, Any], Path]]:
    """The rows of all parts in the study's order, the baseline's once, each with the directory that it was run in."""
    found = {row["name"]: (row, directory) for results, directory in reversed(ran) for row in rows_of(results)}
    return [found[name] for name in (BASELINE, *study["candidates"])]


def _run(study: Mapping[str, Any], directory: Path) -> Ran:
    return lf.run(study, directory).results, directory


def _work(candidates: Mapping[str, Mapping[str, Any]]) -> int:
    """What a part costs, roughly, in epochs of tuning: assembling and testing each, teaching each plan, tuning."""
    plans = {str(candidate["plan"]): len(candidate["plan"]) for candidate in candidates.values()}
    epochs = sum((candidate["finetune"] or {"epochs": 0})["epochs"] for candidate in candidates.values())
    return len(candidates) + 2 * sum(plans.values()) + int(epochs)

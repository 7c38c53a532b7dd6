"""New processes for what is measured, whose memory is its own; and whole studies, timed part by part."""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console

import leanformer as lf
from leanformer.core.machine import keep_freed_memory, threads
from leanformer.core.progress import quiet_libraries

T = TypeVar("T")
STATUS, PEAK_RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
STUDY_IMPORTS = ("leanformer.study.run", "plotly.graph_objects", "scipy.stats")
"""What a study imports in the middle of its work: no memory and no time of its own."""


def add_memory_option(parser: argparse.ArgumentParser) -> None:
    """The option by which ``runner`` chooses."""
    parser.add_argument(
        "--no-memory", action="store_true", help="leave out resident memory, which takes a new process each time"
    )


def runner(arguments: argparse.Namespace) -> Callable[..., tuple[Any, float | None]]:
    """``in_new_process``, or with ``--no-memory`` what calls an action just so."""
    return here if arguments.no_memory else in_new_process


def here(action: Callable[..., T], *arguments: Any, imports: Sequence[str] = ()) -> tuple[T, None]:
    """Calls an action in this process, and measures no memory; otherwise as ``in_new_process``."""
    return action(*arguments), None


def in_new_process(action: Callable[..., T], *arguments: Any, imports: Sequence[str] = ()) -> tuple[T, float | None]:
    """Runs an action in a process of its own, with as many threads as this one.

    Args:
        action: A function of a module, as the new process has to find it.
        arguments: Plain data.
        imports: Modules that are there before its memory is looked at, beside those of the action's own module.

    Returns:
        What it gives, and the memory that it made the process take: resident at most, less what was there once all was
        imported, in 10^6 bytes; None where the system is not Linux.
    """
    spawn = multiprocessing.get_context("spawn")  # a fork would begin with this process's memory
    with ProcessPoolExecutor(1, spawn) as pool:
        return pool.submit(_measured, torch.get_num_threads(), imports, action, arguments).result()


def _measured(
    count: int, imports: Sequence[str], action: Callable[..., T], arguments: tuple[Any, ...]
) -> tuple[T, float | None]:
    keep_freed_memory()  # as in the command's own process
    for module in imports:
        importlib.import_module(module)
    with quiet_libraries(), threads(count):
        with suppress(OSError):  # where the system does not let it, the peak is that since the process began
            PEAK_RESET.write_text("5")
        before = _resident("VmRSS")
        result = action(*arguments)
        peak = _resident("VmHWM")
    return result, None if before is None or peak is None else peak - before


def _resident(field: str) -> float | None:
    """A field of the process's status in 10^6 bytes. Unlike ``ru_maxrss`` it knows nothing of the parent's memory."""
    if not STATUS.exists():
        return None
    values = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return int(values[field].split()[0]) * 1024 / 1e6


def megabytes(memory: float | None) -> str:
    """As a table has it."""
    return "not measured" if memory is None else f"{memory:,.0f} MB"


def timed_study(study: dict[str, Any], jobs: int = 1) -> dict[str, Any]:
    """Runs a study in a directory that is removed afterwards.

    Args:
        study: As plain data.
        jobs: Trainings at a time.

    Returns:
        ``results`` as in ``results.json``; ``seconds``; ``parts``: of what a study does -> its seconds, which is told
        from when its files were written.
    """
    with tempfile.TemporaryDirectory() as directory:
        run = Path(directory) / "run"
        started = time.time()
        results = lf.run(study, run, Console(quiet=True), jobs).results
        seconds = time.time() - started
        trials = list(run.glob("trials/*/*/result.json"))
        steps = sum(json.loads(path.read_bytes())["trained"]["seconds"] for path in trials)
        last = max(path.stat().st_mtime for path in trials)
        written = [started, last, *((run / name).stat().st_mtime for name in ("costs.json", "results.json"))]
    spent = [later - earlier for earlier, later in zip(written, [*written[1:], started + seconds], strict=True)]
    names = ("all else of the trials", "costs", "statistics", "report")
    parts = {"training steps": steps, **dict(zip(names, [spent[0] - steps, *spent[1:]], strict=True))}
    return {"results": results, "seconds": seconds, "parts": parts}

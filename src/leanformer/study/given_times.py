"""``measure.from``: times that ``leanformer bench`` measured where models are used, in place of those of here."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leanformer.core.errors import LeanformerError
from leanformer.core.paths import as_path
from leanformer.report.bench import machine_line
from leanformer.results.bench import TimedModel, read_bench
from leanformer.study.bench import identity

KEY = "measure.from"


class GivenTimes:
    """A file of ``leanformer bench``, read for a study.

    Args:
        path: The file, as the study names it.
        task: The study's task.
        beam: Hypotheses for each sentence in the study; 1 where models write no text.
        max_tokens: The longest translation in subwords that the study sets; None: it sets none.

    Raises:
        LeanformerError: The file cannot be read, is for another task, or its times are of other calls than the study's.
    """

    def __init__(self, path: str, task: str, beam: int, max_tokens: int | None = None) -> None:
        self.path = as_path(path, KEY)
        self._found = found = read_bench(self.path, KEY)
        where = f"{KEY} {self.path}"
        if found.task != task:
            raise LeanformerError(f"{where}: holds models for {found.task}, and the study's are for {task}")
        if found.beam != beam:
            raise LeanformerError(
                f"{where}: measured with a beam of {found.beam}, and the study has decode.beam {beam}; measure again: "
                f"leanformer bench DIR... --beam {beam}"
            )
        if max_tokens is not None and found.max_tokens != max_tokens:
            raise LeanformerError(
                f"{where}: measured with translations of at most {found.max_tokens} subwords, and the study has "
                f"decode.max_tokens {max_tokens}; measure again: leanformer bench DIR... --max-tokens {max_tokens}"
            )
        for model in found.models:
            if all(timing.batch != 1 for timing in model.timings):
                raise LeanformerError(
                    f"{where}: has no calls with one example, whose time is the latency; measure again: leanformer "
                    "bench DIR... --batch 1 --batch 32"
                )

    @property
    def described(self) -> str:
        """Where and how the times were measured, in words."""
        return f"with {self._found.inputs}, as medians of {self._found.rounds} rounds, on {machine_line(self._found)}"

    def speeds(self, models: Mapping[tuple[str, str], Path]) -> dict[str, dict[str, dict[str, Any]]]:
        """The times of a study's models.

        Args:
            models: Name and runtime -> the model's directory.

        Returns:
            Name -> runtime -> what ``measure.cost.Cost.speed`` gives of a model that is measured here; its memory was
            not measured.

        Raises:
            LeanformerError: The file lacks a model; the message says how to measure it.
        """
        timed = {model.key: model for model in reversed(self._found.models)}  # of equal ones the first counts
        speeds: dict[str, dict[str, dict[str, Any]]] = {}
        missing = []
        for (name, runtime), directory in models.items():
            model = timed.get(identity(str(directory)))
            if model is None:
                missing.append(f"{name} ({runtime})")
            else:
                speeds.setdefault(name, {})[runtime] = _speed(model)
        if missing:
            directories = shlex.join(str(directory) for directory in models.values())
            raise LeanformerError(
                f"{KEY} {self.path}: has no times of {', '.join(missing)} as they are now; measure all where they run: "
                f"leanformer bench {directories} --out {shlex.quote(str(self.path))}"
            )
        return speeds


def _speed(model: TimedModel) -> dict[str, Any]:
    """The figures of one example, and of the largest batch of the same length."""
    one = next(timing for timing in model.timings if timing.batch == 1)
    many = max((timing for timing in model.timings if timing.length == one.length), key=lambda timing: timing.batch)
    per_token = None
    if one.ms_per_token is not None and many.ms_per_token is not None:
        per_token = {"one": one.ms_per_token, "batch": many.ms_per_token}
    median = one.wall_ms.median
    return {
        # A median of medians may be a little above the percentile of all calls.
        "latency_ms": {"p50": median, "p95": max(one.p95_ms, median)},
        "ms_per_token": per_token,
        "throughput_per_second": many.per_second,
        "tokens_per_second": many.tokens_per_second,
        "peak_memory_mb": None,
    }

"""``measure.from``: times that ``leanformer bench`` measured where models are used, in place of those of here."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from leanformer.core.errors import LeanformerError
from leanformer.core.paths import as_path
from leanformer.core.warning import StudyWarning
from leanformer.report.bench import machine_line
from leanformer.results.bench import TimedModel, Timing, digest, read_bench
from leanformer.study.bench import identity

KEY = "measure.from"


class GivenTimes:
    """A file of ``leanformer bench``, read for a study.

    Args:
        path: The file, as the study names it.
        task: The study's task.
        beam: Hypotheses for each sentence in the study; 1 where models write no text.
        max_tokens: The longest translation in subwords that the study sets; None: it sets none.
        sentences: Split -> the study's sentences there; none where models read no text.

    Raises:
        LeanformerError: The file cannot be read, is for another task, or its times are of other calls than the study's.
    """

    def __init__(
        self,
        path: str,
        task: str,
        beam: int,
        max_tokens: int | None = None,
        sentences: Mapping[str, Sequence[str]] = MappingProxyType({}),
    ) -> None:
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
        self.warnings = self._other_sentences(sentences)

    def _other_sentences(self, sentences: Mapping[str, Sequence[str]]) -> list[StudyWarning]:
        """A warning where the models were timed with sentences that are not the study's, on which times depend."""
        known, described = self._found.sentences, self._found.inputs
        if not sentences or known in [digest(split) for split in sentences.values()]:
            return []
        if known is None:
            found = f"its models were given {described}, and it does not tell whether these are the study's sentences"
        else:
            found = (
                f"its models were given other sentences ({described}) than the study's {' or '.join(sentences)} split"
            )
        sentence = (
            f"{KEY} {self.path}: {found}; a translator's time depends on its sentences: measure again with those of "
            "the study: leanformer bench DIR... --data STUDY.yaml"
        )
        return [StudyWarning("other-sentences", sentence, len(self._found.models))]

    @property
    def rounds(self) -> int:
        """Rounds in which the times were measured."""
        return self._found.rounds

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
        "rounds": {
            "latency_ms": one.rounds.wall_ms,
            "ms_per_token": [ms / one.tokens for ms in one.rounds.wall_ms] if one.tokens else [],
            "throughput_per_second": _each_second(many, many.batch),
            "tokens_per_second": _each_second(many, many.tokens or 0),
            "peak_memory_mb": [],
        },
    }


def _each_second(timing: Timing, count: int) -> list[float]:
    """How many of what a call handles are handled in a second, in each round; empty where that is not known."""
    return [1000 * count / ms for ms in timing.rounds.wall_ms] if count and all(timing.rounds.wall_ms) else []

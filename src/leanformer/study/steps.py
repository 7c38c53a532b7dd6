"""A study's units of work: each knows its settings, what it needs and how it runs; ``graph`` runs them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leanformer.study.prepare import PreparedStudy


@dataclass(frozen=True)
class Step(ABC):
    """One unit of work, as plain data: any process can run it once the steps that it needs are done.

    Args:
        name: The candidate, or ``baseline``, also for lessons and answers, whose teacher is the baseline.
    """

    name: str

    def after(self, prepared: PreparedStudy) -> Sequence[Step]:
        """Steps that must be done before it is known whether this one is."""
        return ()

    def needs(self, prepared: PreparedStudy) -> Sequence[Step]:
        """Further steps that must be done before it can run; not looked at where it is done."""
        return ()

    @abstractmethod
    def is_done(self, prepared: PreparedStudy) -> bool:
        """Whether it is done; a result of other settings is removed, and the log says why. Called once ``after`` is."""

    @abstractmethod
    def run(self, prepared: PreparedStudy) -> None:
        """Runs the step, and writes its result."""

    def bring_up_to_date(self, prepared: PreparedStudy) -> None:  # noqa: B027 - nothing, for most
        """Evaluates or scores a finished step again, if the study's settings for that have changed."""

    @property
    @abstractmethod
    def title(self) -> str:
        """The step's name in progress messages."""


@dataclass(frozen=True)
class SeedStep(Step):
    """A step of one seed.

    Args:
        seed: The seed of the trial or the search.
    """

    seed: int

    @property
    def title(self) -> str:
        return f"{self.name} · seed {self.seed}"

    def __str__(self) -> str:
        return f"{self.name}, seed {self.seed}"


@dataclass(frozen=True)
class RecordedStep(Step):
    """A step with a directory, the settings that determine its result, and the result."""

    @abstractmethod
    def directory(self, prepared: PreparedStudy) -> Path:
        """The directory of the step's files."""

    @abstractmethod
    def settings(self, prepared: PreparedStudy) -> dict[str, Any]:
        """All settings that determine its result: it runs again when one changes."""

    def is_done(self, prepared: PreparedStudy) -> bool:
        return self.result(prepared) is not None

    def result(self, prepared: PreparedStudy) -> dict[str, Any] | None:
        """Its result if it is done; a result of other settings is removed, and the log says why."""
        directory = self.directory(prepared)
        reason = prepared.directory.prepare(directory, self.settings(prepared))
        if reason is not None:
            prepared.reporter.warn(f"{self} runs again: {reason}")
        return prepared.directory.finished(directory)

    def known_result(self, prepared: PreparedStudy) -> dict[str, Any]:
        """The result of a step that is done."""
        result = prepared.directory.finished(self.directory(prepared))
        assert result is not None
        return result


@dataclass(frozen=True)
class TrainedStep(SeedStep, RecordedStep):
    """A training, with its directory and result."""


def scratch_settings(prepared: PreparedStudy, step: TrainedStep, rate: float, epochs: int) -> dict[str, Any]:
    """All settings that determine a model that is trained without a teacher.

    Args:
        prepared: The study.
        step: The model's training.
        rate: The learning rate.
        epochs: Epochs of the training.
    """
    candidate = prepared.candidates[step.name]
    return {
        "data": prepared.study.data.settings(),
        "baseline": prepared.study.baseline.settings(),
        **prepared.files,
        "plan": {} if candidate is None else candidate.plan,
        "method": "scratch" if candidate is None else candidate.method,
        "train": {**prepared.study.train.settings(), "epochs": epochs, "precision": prepared.precision},
        "task": prepared.task.training_settings(),
        "device": prepared.device.type,
        "learning_rate": rate,
        "seed": step.seed,
    }


def ended_well(result: Mapping[str, Any]) -> bool:
    """Whether a training succeeded, so that there is a model."""
    return bool(result["trained"]["status"] == "ok")

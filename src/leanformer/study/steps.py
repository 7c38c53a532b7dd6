"""A study's units of work: each says what it follows from, what it needs and how it runs; ``graph`` runs them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leanformer.study.prepare import PreparedStudy


@dataclass(frozen=True)
class Step(ABC):
    """One unit of work, as plain data: it can be done in any process, once what it needs is there.

    Args:
        name: The candidate; ``baseline`` also of what students learn from, as it is their teacher.
        seed: Of the trial, or of the search.
    """

    name: str
    seed: int

    @abstractmethod
    def directory(self, prepared: PreparedStudy) -> Path:
        """Where its files are."""

    @abstractmethod
    def settings(self, prepared: PreparedStudy) -> dict[str, Any]:
        """All that its outcome follows from: where one of these changes, it runs anew. Asked once ``after`` is done."""

    def after(self, prepared: PreparedStudy) -> Sequence[Step]:
        """What has to be done before its settings can be said, and so whether it is done."""
        return ()

    def needs(self, prepared: PreparedStudy) -> Sequence[Step]:
        """What it takes beside where it is still to be done."""
        return ()

    def is_done(self, prepared: PreparedStudy) -> bool:
        """Whether it is done; what was done with other settings is removed, and the log says why."""
        return self.result(prepared) is not None

    @abstractmethod
    def run(self, prepared: PreparedStudy) -> None:
        """Does it, and writes its result."""

    def bring_up_to_date(self, prepared: PreparedStudy) -> None:  # noqa: B027 - nothing, for most
        """Evaluates or scores again what was done, where the study asks for that otherwise now."""

    def counts(self, prepared: PreparedStudy) -> bool:
        """Whether it is one of those that a person sees counted."""
        return True

    def result(self, prepared: PreparedStudy) -> dict[str, Any] | None:
        """Its result if it is there; one of other settings is removed, and the log says why."""
        directory = self.directory(prepared)
        reason = prepared.directory.prepare(directory, self.settings(prepared), self.may_lack)
        if reason is not None:
            prepared.reporter.warn(f"{self} runs again: {reason}")
        return prepared.directory.finished(directory)

    def known_result(self, prepared: PreparedStudy) -> dict[str, Any]:
        """The result of a step that was done."""
        result = prepared.directory.finished(self.directory(prepared))
        assert result is not None
        return result

    @property
    def may_lack(self) -> str | None:
        """A directory in its own that is deleted when it has served."""
        return None

    @property
    def title(self) -> str:
        """What a person reads while it runs."""
        return f"{self.name} · seed {self.seed}"

    def __str__(self) -> str:
        return f"{self.name}, seed {self.seed}"


def scratch_settings(prepared: PreparedStudy, step: Step, rate: float, epochs: int) -> dict[str, Any]:
    """Everything that a model follows from which is trained from the study's own start.

    Args:
        prepared: The study.
        step: Its training.
        rate: The learning rate.
        epochs: Of the training.
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
    """Whether a training ended with a model that can be used."""
    return bool(result["trained"]["status"] == "ok")

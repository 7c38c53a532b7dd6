"""Trainings outside a study."""

from __future__ import annotations

from typing import Any, Protocol

from benchmarks.kit.benchmark import progress


class Task(Protocol):
    """Of either kind of study."""

    def validate(self, model: Any, last: bool) -> dict[str, float]:
        """Measures on the validation split."""


class Observer:
    """Validates after each epoch, and says the numbers.

    Args:
        task: By which it validates; None: it does not.
    """

    def __init__(self, task: Task | None = None) -> None:
        self._task = task

    def validate(self, model: Any, last: bool) -> dict[str, float]:
        """What the task measures."""
        return {} if self._task is None else self._task.validate(model, last)

    def step_ended(self, epoch: int, step: int, steps_per_epoch: int) -> None:
        """Nothing."""

    def epoch_ended(self, record: dict[str, float], examples_per_second: float) -> None:
        """Says the numbers."""
        progress(f"  {record}")

    def rolled_back(self, reason: str) -> None:
        """Says why."""
        progress(f"  {reason}")

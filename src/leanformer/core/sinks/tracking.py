"""Experiment trackers, through accelerate's: a run for each step, and one for what each candidate came to."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from leanformer.core.errors import LeanformerError
from leanformer.core.events import EpochEnded, Event, Measured, StepStarted
from leanformer.core.registry import Registry

Scalar = bool | int | float | str


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker calls a run: the curves of one step.

    Args:
        study: The study's name, by which runs are grouped.
        name: The step's, such as ``minimal · seed 0``, or a candidate's.
        settings: What it follows from, flat: ``train.epochs`` -> 20.
        directory: The run directory, for trackers that keep files.
    """

    study: str
    name: str
    settings: Mapping[str, Scalar]
    directory: Path


class Tracker(ABC):
    """One run at one tracker, by way of accelerate's class for it (``accelerate.tracking``).

    A tracker is called as accelerate calls it; so are the module that it needs and the extra that installs it. A new
    one is a module of ``leanformer.core.sinks.trackers``.

    Args:
        run: What is tracked.
    """

    name: ClassVar[str]

    def __init__(self, run: TrackedRun) -> None:
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        self.tracker = LOGGER_TYPE_TO_CLASS[self.name](**self.arguments(run))
        self.tracker.start()
        if run.settings:
            self.log_settings(run.settings)

    @abstractmethod
    def arguments(self, run: TrackedRun) -> dict[str, Any]:
        """With what accelerate's class is made."""

    def log_settings(self, settings: Mapping[str, Scalar]) -> None:
        """Keeps what the run follows from, its hyperparameters."""
        self.tracker.store_init_configuration(dict(settings))

    def log(self, values: Mapping[str, float | str], epoch: int | None = None) -> None:
        """Keeps values, of an epoch or of the whole run."""
        self.tracker.log(dict(values), step=epoch)

    def finish(self) -> None:
        """Ends the run."""
        self.tracker.finish()


TRACKERS: Registry[type[Tracker]] = Registry(
    "leanformer.core.sinks.trackers", order=("tensorboard", "mlflow", "wandb", "trackio")
)
"""Name -> tracker; each registers itself in its module."""


def check_installed(names: Sequence[str]) -> None:
    """Makes sure that trackers can be used.

    Raises:
        LeanformerError: The package of one is not installed.
    """
    for name in names:
        if find_spec(name) is None:
            raise LeanformerError(
                f"report_to: {name} is not installed; pip install 'leanformer[{name}]', or leave it out"
            )


class TrackerSink:
    """Passes epochs and results on to one tracker.

    A run stays open until its process begins another step, as what it came to is measured after its last epoch. Each
    has a thread of its own: trackers keep their current run by thread, and no slow server holds up the study.

    Args:
        name: The tracker's, one of ``TRACKERS``.
        study: The study's name.
        directory: Its run directory.
    """

    def __init__(self, name: str, study: str, directory: Path) -> None:
        self.name = name
        self._make = TRACKERS[name]
        self._study = study
        self._directory = directory
        self._runs: dict[str, _OpenRun] = {}
        self._pending: list[Future[None]] = []

    def handle(self, event: Event) -> None:
        """Passes on what trackers show.

        Raises:
            Exception: Whatever the tracker has raised on an earlier event.
        """
        self._raise_failures()
        match event:
            case StepStarted():
                for name in [name for name, run in self._runs.items() if run.process == event.process]:
                    self._finish(name)
                self._run(event.step, event.process, event.settings)
            case EpochEnded():
                values = {**event.metrics, "examples_per_second": event.examples_per_second}
                self._run(event.step, event.process).log(values, event.epoch)
            case Measured():
                self._run(event.step, event.process).log(event.values)

    def close(self) -> None:
        """Ends all runs, and waits until the tracker has everything.

        Raises:
            Exception: Whatever the tracker has raised.
        """
        for name in [*self._runs]:
            self._finish(name)
        while self._pending:
            self._pending.pop(0).result()

"""Experiment trackers, through accelerate's: a run for each step, and one for each candidate's results."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread
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
        name: The name of the step, such as ``minimal · seed 0``, or of a candidate.
        settings: What its outcome follows from, flattened: ``train.epochs`` -> 20.
        directory: The run directory, for trackers that keep files.
    """

    study: str
    name: str
    settings: Mapping[str, Scalar]
    directory: Path


class Tracker(ABC):
    """One run at one tracker, by way of accelerate's class for it (``accelerate.tracking``).

    A tracker has the name that accelerate gives it; so have the module that it needs and the extra that installs it. A
    new tracker is a new module in ``leanformer.core.sinks.trackers``.

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
        """The arguments of accelerate's class."""

    def log_settings(self, settings: Mapping[str, Scalar]) -> None:
        """Records the hyperparameters, which the run's outcome follows from."""
        self.tracker.store_init_configuration(dict(settings))

    def log(self, values: Mapping[str, float | str], epoch: int | None = None) -> None:
        """Records values of an epoch or of the whole run."""
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
        LeanformerError: The package that one needs is not installed.
    """
    for name in names:
        if find_spec(name) is None:
            raise LeanformerError(
                f"report_to: {name} is not installed; pip install 'leanformer[{name}]', or leave it out"
            )


SECONDS_TO_FINISH = 60.0
"""How long a tracker has at the end of a study to record what is still waiting."""


class TrackerSink:
    """Passes epochs and results on to one tracker.

    The run of a step stays open until its process begins another step, because the step's results are measured after
    its last epoch. Results of a step or candidate that has no open run get a run of their own.

    Args:
        name: The tracker's name, one of ``TRACKERS``.
        study: The study's name.
        directory: Its run directory.
    """

    def __init__(self, name: str, study: str, directory: Path) -> None:
        self.name = name
        self._tracker = TRACKERS[name]
        self._study = study
        self._directory = directory
        self._beginning = Lock()
        self._open: dict[int, _RunThread] = {}  # by process
        self._ended: list[_RunThread] = []

    def handle(self, event: Event) -> None:
        """Passes on what trackers show.

        Raises:
            Exception: What the tracker raised on an earlier event.
        """
        self._raise_failure()
        match event:
            case StepStarted():
                self._finish(event.process)
                self._open[event.process] = self._begin(event.step, event.settings)
            case EpochEnded():
                values = {**event.metrics, "examples_per_second": event.examples_per_second}
                self._open[event.process].log(values, event.epoch)
            case Measured():
                for run in self._open.values():
                    if run.name == event.step:
                        run.log(event.values)
                        return
                run = self._begin(event.step, {})
                run.log(event.values)
                run.finish()
                self._ended.append(run)

    def close(self) -> None:
        """Ends all runs, and waits until the tracker has recorded everything.

        Raises:
            Exception: What the tracker raised.
            TimeoutError: It does not answer.
        """
        for process in [*self._open]:
            self._finish(process)
        deadline = time.monotonic() + SECONDS_TO_FINISH
        for run in self._ended:
            run.join(max(0.0, deadline - time.monotonic()))
        self._raise_failure()
        if self._ended:
            self._give_up()
            raise TimeoutError(f"no answer in {SECONDS_TO_FINISH:.0f} seconds")

    def _begin(self, name: str, settings: Mapping[str, Any]) -> _RunThread:
        run = TrackedRun(self._study, name, flat(settings), self._directory)
        return _RunThread(name, partial(self._tracker, run), self._beginning)

    def _finish(self, process: int) -> None:
        run = self._open.pop(process, None)
        if run is not None:
            run.finish()
            self._ended.append(run)

    def _give_up(self) -> None:
        """Lets the runs end on their own, and waits for none of them."""
        for run in self._open.values():
            run.finish()
        self._open.clear()
        self._ended.clear()

    def _raise_failure(self) -> None:
        runs = [*self._open.values(), *self._ended]
        self._ended = [run for run in self._ended if run.is_alive()]
        for run in runs:
            if run.error is not None:
                self._give_up()
                raise run.error


class _RunThread(Thread):
    """A tracker's run in a thread of its own.

    Some trackers keep one current run for each thread, so that several can be open at once; and a slow server does not
    hold up the study. It is a daemon: a server that never answers does not keep the process from ending either.

    Args:
        name: The run's name.
        make: Begins the run.
        beginning: A lock held while it begins: a tracker's runs begin one at a time.
    """

    def __init__(self, name: str, make: Callable[[], Tracker], beginning: Lock) -> None:
        super().__init__(name=name, daemon=True)
        self.error: Exception | None = None
        self._make = make
        self._beginning = beginning
        self._values: SimpleQueue[tuple[Mapping[str, float | str], int | None] | None] = SimpleQueue()
        self.start()

    def log(self, values: Mapping[str, float | str], epoch: int | None = None) -> None:
        """Hands values to the tracker."""
        self._values.put((values, epoch))

    def finish(self) -> None:
        """Ends the run, once the tracker has recorded all values."""
        self._values.put(None)

    def run(self) -> None:
        """Begins the run, records values until ``finish`` is called, and ends it."""
        try:
            with self._beginning:  # it may make the store that all runs go to
                tracker = self._make()
            while (found := self._values.get()) is not None:
                tracker.log(*found)
            tracker.finish()
        except Exception as error:
            self.error = error


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Scalar]:
    """Settings as trackers take them: nested keys joined by dots, without those that are not set.

    Lists become JSON texts, and so do mappings whose keys are not plain names, such as a plan.
    """
    found: dict[str, Scalar] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and all(inner.isidentifier() for inner in value):
            found |= flat(value, f"{prefix}{key}.")
        elif isinstance(value, bool | int | float | str):
            found[f"{prefix}{key}"] = value
        elif value is not None:
            found[f"{prefix}{key}"] = json.dumps(value)
    return found

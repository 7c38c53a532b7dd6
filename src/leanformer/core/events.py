"""The events of a study, as one stream, and the sinks that show them, keep them or pass them on."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from threading import RLock
from types import TracebackType
from typing import Any, Literal, Protocol

from leanformer.core.errors import printable

ArtifactKind = Literal["model", "results", "report"]


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened. Events are plain data: worker processes send them to the process that runs the study.

    Args:
        time: When, in seconds since 1970.
        step: The step that it belongs to, such as ``minimal · seed 0``; for a candidate's results over all seeds, the
            candidate's name; empty for an event of the whole study.
        process: The number of the process that it comes from: 0 is the one that runs the study, workers count from 1.
    """

    time: float = field(default_factory=time.time)
    step: str = ""
    process: int = 0

    @property
    def name(self) -> str:
        """The kind of event, such as ``epoch_ended``."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__).lower()

    def record(self) -> dict[str, Any]:
        """The event as plain data, its name under ``event``."""
        return {"event": self.name, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class StudyStarted(Event):
    """A study began or was resumed.

    Args:
        study: Its name.
    """

    study: str


@dataclass(frozen=True, kw_only=True)
class StudyPlanned(Event):
    """The number of steps is known.

    Args:
        steps: How many there are, including those that are done already.
    """

    steps: int


@dataclass(frozen=True, kw_only=True)
class StudyEnded(Event):
    """A study ended.

    Args:
        status: ``done``; ``failed`` where an error ended it, ``stopped`` where Ctrl-C or a signal did.
        reason: The error's message, where it failed.
    """

    status: Literal["done", "failed", "stopped"]
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class StepStarted(Event):
    """A step of the study, such as a training, began or was resumed.

    Args:
        epochs: How many epochs it has; 0 where it trains nothing.
        settings: What its outcome follows from, as nested plain data.
    """

    epochs: int
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StepEnded(Event):
    """A step ended.

    Args:
        note: Its outcome in a few words; empty where its last epoch shows it.
    """

    note: str = ""


@dataclass(frozen=True, kw_only=True)
class StepSkipped(Event):
    """A step was done in an earlier run, and is not run again."""


@dataclass(frozen=True, kw_only=True)
class BatchEnded(Event):
    """A training step on one batch is done. There may be thousands of these a second.

    Args:
        epoch: Epochs that were done before.
        batch: Batches of this epoch that are done, from 1 on.
        batches: Batches in an epoch.
    """

    epoch: int
    batch: int
    batches: int


@dataclass(frozen=True, kw_only=True)
class EpochEnded(Event):
    """An epoch is done.

    Args:
        epoch: Its number, from 1 on.
        epochs: How many there are.
        metrics: Name -> value: ``train_loss``, ``learning_rate`` (that of its last batch), and what was measured on the
            validation split.
        examples_per_second: The speed of training.
        summary: Its result on the validation split, in a few characters.
    """

    epoch: int
    epochs: int
    metrics: Mapping[str, float]
    examples_per_second: float
    summary: str = ""


@dataclass(frozen=True, kw_only=True)
class Measured(Event):
    """The results of a step or a candidate.

    Args:
        values: Name -> number, or a text such as a decision.
    """

    values: Mapping[str, float | str]


@dataclass(frozen=True, kw_only=True)
class WarningGiven(Event):
    """Something is wrong, or work has to be repeated.

    Args:
        message: One line.
    """

    message: str


@dataclass(frozen=True, kw_only=True)
class ArtifactWritten(Event):
    """A file or directory that a user may want was written.

    Args:
        kind: What it is.
        path: Where it is.
    """

    kind: ArtifactKind
    path: str


@dataclass(frozen=True, kw_only=True)
class TextLine(Event):
    """A line for the reader.

    Args:
        text: The line.
        style: How a terminal shows it, as ``rich`` names styles.
    """

    text: str
    style: str = ""


class Sink(Protocol):
    """Where events go.

    A sink that raises an ``Exception`` gets no more events; one warning says so, and the study goes on without it. The
    warning names it by its attribute ``name``, or by its class where it has none.
    """

    def handle(self, event: Event) -> None:
        """Handles an event. All events arrive, those of worker processes too, one at a time; it has to return soon."""

    def close(self) -> None:
        """Called when the study has ended, successfully or not; no events follow."""


class Reporter:
    """Passes the events of a study to its sinks (a context manager, within which the study runs).

    A process runs one step at a time and has a reporter of its own; the events of workers go through ``emit``.

    Args:
        study: The study's name.
        sinks: Where events go.
        process: The number of this process.
    """

    def __init__(self, study: str, sinks: Iterable[Sink] = (), process: int = 0) -> None:
        self.study = study
        self.process = process
        self._sinks = list(sinks)
        self._emitting = RLock()
        self._step = ""  # what this process is running

    def __enter__(self) -> Reporter:
        self.emit(StudyStarted(study=self.study))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            ended = StudyEnded(status="done")
        elif isinstance(error, Exception):
            ended = StudyEnded(status="failed", reason=printable(f"{type(error).__name__}: {error}"))
        else:  # Ctrl-C, or a signal
            ended = StudyEnded(status="stopped")
        self.emit(ended)
        with ExitStack() as closing:  # in reverse: the console, which is the first, shows which of the others fail
            for sink in self._sinks:
                closing.callback(self._close, sink)

    def emit(self, event: Event) -> None:
        """Gives an event, of this process or a worker, to all sinks; any thread may."""
        with self._emitting:
            for sink in [*self._sinks]:
                if sink not in self._sinks:  # it failed on the warning about another sink
                    continue
                try:
                    sink.handle(event)
                except Exception as error:
                    self._sinks.remove(sink)
                    with suppress(Exception):
                        sink.close()
                    self._warn_of(sink, error)

    def _close(self, sink: Sink) -> None:
        self._sinks.remove(sink)
        try:
            sink.close()
        except Exception as error:
            self._warn_of(sink, error)

    def _warn_of(self, sink: Sink, error: Exception) -> None:
        name = getattr(sink, "name", type(sink).__name__)
        self.warn(f"{name} is off from here on: {type(error).__name__}: {error}")

    def say(self, line: str, style: str = "") -> None:
        """A line for the reader."""
        self.emit(TextLine(process=self.process, text=line, style=style))

    def warn(self, message: str) -> None:
        """Something is wrong, or work has to be repeated."""
        self.emit(WarningGiven(step=self._step, process=self.process, message=message))

    def plan(self, steps: int) -> None:
        """How many steps the study has, including those that are done already."""
        self.emit(StudyPlanned(process=self.process, steps=steps))

    def start(self, step: str, epochs: int, settings: Mapping[str, Any] | None = None) -> None:
        """A step begins or is resumed.

        Args:
            step: Its name.
            epochs: How many it has.
            settings: What its outcome follows from; trackers show it beside the curves.
        """
        self._step = step
        self.emit(StepStarted(step=step, process=self.process, epochs=epochs, settings=settings or {}))

    def step(self, epoch: int, step: int, steps_per_epoch: int) -> None:
        """A training step is done."""
        self.emit(BatchEnded(step=self._step, process=self.process, epoch=epoch, batch=step, batches=steps_per_epoch))

    def epoch(self, record: Mapping[str, float], epochs: int, examples_per_second: float, shown: str) -> None:
        """An epoch is done.

        Args:
            record: Its number (``epoch``, from 1 on) and its metrics.
            epochs: How many there are.
            examples_per_second: The speed of training.
            shown: Its result on the validation split, in a few characters.
        """
        self.emit(
            EpochEnded(
                step=self._step,
                process=self.process,
                epoch=int(record["epoch"]),
                epochs=epochs,
                metrics={name: value for name, value in record.items() if name != "epoch"},
                examples_per_second=examples_per_second,
                summary=shown,
            )
        )

    def done(self, note: str = "") -> None:
        """The step is done."""
        step, self._step = self._step, ""
        self.emit(StepEnded(step=step, process=self.process, note=note))

    def skip(self) -> None:
        """A step was done in an earlier run."""
        self.emit(StepSkipped(process=self.process))

    def measured(self, step: str, values: Mapping[str, float | str]) -> None:
        """The results of a step, or of a candidate over all seeds."""
        self.emit(Measured(step=step, process=self.process, values=values))

    def wrote(self, kind: ArtifactKind, path: object, step: str = "") -> None:
        """A file or directory that a user may want was written."""
        self.emit(ArtifactWritten(step=step, process=self.process, kind=kind, path=str(path)))


class PartReporter(Reporter):
    """The reporter of a part of a study, such as a fold: it passes events on, with the part's name after the step's.

    Args:
        whole: The study's reporter.
        part: The part's name.
    """

    def __init__(self, whole: Reporter, part: str) -> None:
        super().__init__(whole.study, process=whole.process)
        self._whole = whole
        self._part = part

    def emit(self, event: Event) -> None:
        self._whole.emit(replace(event, step=f"{event.step} · {self._part}") if event.step else event)

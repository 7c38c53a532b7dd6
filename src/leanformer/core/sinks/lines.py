"""Plain lines, for a console that is not a terminal: a log file, a cluster's output."""

from __future__ import annotations

import time
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from leanformer.core.errors import printable
from leanformer.core.events import (
    BatchEnded,
    EpochEnded,
    Event,
    StepEnded,
    StepSkipped,
    StepStarted,
    StudyPlanned,
    TextLine,
    WarningGiven,
)

SECONDS_BETWEEN_LINES = 10.0


def duration(seconds: float) -> str:
    """A duration in short form, such as 45s, 3m20s, 2h05m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


@dataclass
class Running:
    """A step that is running.

    Args:
        started: When it started, by the monotonic clock.
        last_line: When a line was last printed for it, likewise.
        begun: Epochs that were done when it began or was resumed; None until its first batch is done.
        last_epoch: The results of its last epoch, as they are shown.
    """

    started: float
    last_line: float
    begun: float | None = None
    last_epoch: str = ""


class Lines:
    """Prints a line for each step that ends, for each text and warning, and now and then for an epoch.

    Args:
        study: The study's name.
        console: Where it prints.
    """

    name = "the progress on the console"

    def __init__(self, study: str, console: Console) -> None:
        self.study = study
        self.console = console
        self.steps_done = self.steps = 0
        self.running: dict[int, Running] = {}
        """Process -> the step that it is running."""

    def handle(self, event: Event) -> None:
        """Prints the line of an event, if it has one."""
        match event:
            case TextLine():
                self._print(event.text, event.style)
            case WarningGiven():
                self._print(f"{self.study}: {event.message}", "yellow")
            case StudyPlanned():
                self.steps = event.steps
            case StepSkipped():
                self.steps_done += 1
            case StepStarted():
                now = time.monotonic()
                self.running[event.process] = Running(now, now)
            case BatchEnded():
                self._batch_ended(event, self.running[event.process])
            case EpochEnded():
                self._epoch_ended(event, self.running[event.process])
            case StepEnded():
                self._step_ended(event, self.running.pop(event.process))

    def close(self) -> None:
        """There is nothing to close."""

    def _print(self, line: str, style: str = "") -> None:
        self.console.print(Text(printable(line), style=style), soft_wrap=True)

    def _batch_ended(self, event: BatchEnded, running: Running) -> None:
        if running.begun is None:
            running.begun = event.epoch + (event.batch - 1) / event.batches

    def _epoch_ended(self, event: EpochEnded, running: Running) -> None:
        running.last_epoch = (
            f"loss {event.metrics['train_loss']:.3f}  {event.summary}  {event.examples_per_second:,.0f} ex/s"
        )
        self._show_epoch(event, running)

    def _show_epoch(self, event: EpochEnded, running: Running) -> None:
        now = time.monotonic()
        if now - running.last_line < SECONDS_BETWEEN_LINES:
            return
        running.last_line = now
        seconds_an_epoch = (now - running.started) / (event.epoch - (running.begun or 0.0))
        left = duration(seconds_an_epoch * (event.epochs - event.epoch))
        where = f"{self.study}: {event.step}  epoch {event.epoch}/{event.epochs}"
        self._print(f"{where}  {running.last_epoch}  {left} left")

    def _step_ended(self, event: StepEnded, running: Running) -> None:
        self.steps_done += 1
        self.steps = max(self.steps, self.steps_done)  # blocks may be taught in several groups
        took = duration(time.monotonic() - running.started)
        numbers = event.note or running.last_epoch
        self._print(f"{self.study}: [{self.steps_done}/{self.steps}] {event.step}  {numbers}  ({took})")

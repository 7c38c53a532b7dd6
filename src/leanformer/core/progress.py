"""What a person sees while a study runs: live bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from leanformer.core.errors import printable

SECONDS_BETWEEN_PLAIN_LINES = 10.0


def duration(seconds: float) -> str:
    """Such as 45s, 3m20s, 2h05m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


@dataclass
class _Training:
    """A training that is going on.

    Args:
        title: What it is called.
        started: When, by the monotonic clock; ``last_line`` says when a line last told of it.
        begun: Epochs that were done when it began, or went on.
        last_epoch: What its last epoch came to.
        bar: Its bar, where bars are shown.
    """

    title: str
    started: float
    last_line: float
    begun: float | None = None
    last_epoch: str = ""
    bar: TaskID | None = None


class Reporter:
    """Shows a study's progress (a context manager).

    Several trainings may go on at once, each told apart by the number of the process that it is in.

    Args:
        study: The study's name.
        console: Where to; live bars where it is a terminal.
    """

    def __init__(self, study: str, console: Console) -> None:
        self.study = study
        self.console = console
        self._trainings: dict[int, _Training] = {}
        self._trials_done = self._trials = 0
        self._live: Progress | None = None
        self._study_task: TaskID | None = None
        if console.is_terminal:
            self._live = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}", table_column=None),
                BarColumn(bar_width=12),
                MofNCompleteColumn(),
                TextColumn("{task.fields[numbers]}"),
                TimeRemainingColumn(compact=True, elapsed_when_finished=True),
                console=console,
                transient=True,
            )

    def __enter__(self) -> Reporter:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, line: str, style: str = "") -> None:
        """A line that stays."""
        self.console.print(Text(printable(line), style=style), soft_wrap=True)

    def warn(self, what: str) -> None:
        """A line that stays and stands out: what was found wrong, or is done again."""
        self.say(f"{self.study}: {what}", style="yellow")

    def plan(self, trials: int) -> None:
        """How many trainings the study is in all, those that are there already included."""
        self._trials = trials
        if self._live is not None:
            self._study_task = self._live.add_task(self.study, total=trials, numbers="trainings")

    def start(self, trial: str, epochs: int, process: int = 0) -> None:
        """A training begins, or goes on."""
        now = time.monotonic()
        training = self._trainings[process] = _Training(trial, now, now)
        if self._live is not None:
            training.bar = self._live.add_task(trial, total=epochs, numbers="")

    def step(self, epoch: int, step: int, steps_per_epoch: int, process: int = 0) -> None:
        """A training step is done."""
        training = self._trainings[process]
        if training.begun is None:
            training.begun = epoch + (step - 1) / steps_per_epoch
            if self._live is not None and training.bar is not None:
                self._live.reset(training.bar, completed=training.begun)  # type: ignore[arg-type]  # a part counts
        if self._live is not None and training.bar is not None:
            self._live.update(training.bar, completed=epoch + step / steps_per_epoch)

    def epoch(
        self, record: dict[str, float], epochs: int, examples_per_second: float, shown: str, process: int = 0
    ) -> None:
        """An epoch is done; ``shown`` says in a few characters what it came to on validation data."""
        training = self._trainings[process]
        training.last_epoch = f"loss {record['train_loss']:.3f}  {shown}  {examples_per_second:,.0f} ex/s"
        if self._live is not None and training.bar is not None:
            self._live.update(training.bar, completed=record["epoch"], numbers=training.last_epoch)
        now = time.monotonic()
        if self._live is None and now - training.last_line >= SECONDS_BETWEEN_PLAIN_LINES:
            training.last_line = now
            done = int(record["epoch"])
            left = duration((now - training.started) / (done - (training.begun or 0.0)) * (epochs - done))
            where = f"{self.study}: {training.title}  epoch {done}/{epochs}"
            self.say(f"{where}  {training.last_epoch}  {left} left")

    def done(self, note: str = "", process: int = 0) -> None:
        """The training is done."""
        training = self._trainings.pop(process)
        self._trials_done += 1
        self._trials = max(self._trials, self._trials_done)  # a search's run may have to be done again
        if self._live is not None and training.bar is not None:
            self._live.remove_task(training.bar)
        took = duration(time.monotonic() - training.started)
        numbers = note or training.last_epoch
        self.say(f"{self.study}: [{self._trials_done}/{self._trials}] {training.title}  {numbers}  ({took})")
        self._advance()

    def skip(self) -> None:
        """A training that is there already."""
        self._trials_done += 1
        self._advance()

    def _advance(self) -> None:
        if self._live is not None and self._study_task is not None:
            self._live.update(self._study_task, completed=self._trials_done)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """transformers' log lines and bars off, so that the study's own progress stays readable; then as they were."""
    import transformers

    level = transformers.logging.get_verbosity()
    bars = transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(level)
        if bars:  # a study within a command that is quiet itself leaves it so
            transformers.logging.enable_progress_bar()

"""What a person sees while a study runs: live bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

import transformers
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

SECONDS_BETWEEN_PLAIN_LINES = 10.0


def duration(seconds: float) -> str:
    """Such as 45s, 3m20s, 2h05m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


class Reporter:
    """Shows a study's progress (a context manager).

    Args:
        study: The study's name.
        console: Where to; live bars where it is a terminal.
    """

    def __init__(self, study: str, console: Console) -> None:
        self.study = study
        self.console = console
        self._trial = ""
        self._trials_done = self._trials = 0
        self._trial_started = self._last_line = 0.0
        self._begun: float | None = None  # epochs that were done when the training began, or went on
        self._last_epoch = ""
        self._live: Progress | None = None
        self._study_task: TaskID | None = None
        self._trial_task: TaskID | None = None
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
        self.console.print(Text(line, style=style), soft_wrap=True)

    def plan(self, trials: int) -> None:
        """How many trainings the study is in all, those that are there already included."""
        self._trials = trials
        if self._live is not None:
            self._study_task = self._live.add_task(self.study, total=trials, numbers="trainings")

    def start(self, trial: str, epochs: int) -> None:
        """A training begins, or goes on."""
        self._trial, self._last_epoch, self._begun = trial, "", None
        self._trial_started = self._last_line = time.monotonic()
        if self._live is not None:
            self._trial_task = self._live.add_task(trial, total=epochs, numbers="")

    def step(self, epoch: int, step: int, steps_per_epoch: int) -> None:
        """A training step is done."""
        if self._begun is None:
            self._begun = epoch + (step - 1) / steps_per_epoch
            if self._live is not None and self._trial_task is not None:
                self._live.reset(self._trial_task, completed=self._begun)  # type: ignore[arg-type]  # a part counts
        if self._live is not None and self._trial_task is not None:
            self._live.update(self._trial_task, completed=epoch + step / steps_per_epoch)

    def epoch(self, record: dict[str, float], epochs: int, examples_per_second: float, shown: str) -> None:
        """An epoch is done; ``shown`` says in a few characters what it came to on validation data."""
        numbers = f"loss {record['train_loss']:.3f}  {shown}  {examples_per_second:,.0f} ex/s"
        self._last_epoch = numbers
        if self._live is not None and self._trial_task is not None:
            self._live.update(self._trial_task, completed=record["epoch"], numbers=numbers)
        now = time.monotonic()
        if self._live is None and now - self._last_line >= SECONDS_BETWEEN_PLAIN_LINES:
            self._last_line = now
            done = int(record["epoch"])
            left = duration((now - self._trial_started) / (done - (self._begun or 0.0)) * (epochs - done))
            self.say(f"{self.study}: {self._trial}  epoch {done}/{epochs}  {numbers}  {left} left")

    def done(self, note: str = "") -> None:
        """The training is done."""
        self._trials_done += 1
        self._trials = max(self._trials, self._trials_done)  # a search's run may have to be done again
        if self._live is not None and self._trial_task is not None:
            self._live.remove_task(self._trial_task)
            self._trial_task = None
        took = duration(time.monotonic() - self._trial_started)
        numbers = note or self._last_epoch
        self.say(f"{self.study}: [{self._trials_done}/{self._trials}] {self._trial}  {numbers}  ({took})")
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

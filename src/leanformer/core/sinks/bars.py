"""Live bars on a terminal: one for the study, and one for each step that is running."""

from __future__ import annotations

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

from leanformer.core.events import (
    BatchEnded,
    EpochEnded,
    Event,
    StepEnded,
    StepSkipped,
    StepStarted,
    StudyPlanned,
    StudyStarted,
)
from leanformer.core.sinks.lines import Lines, Running


class Bars(Lines):
    """Bars at the bottom of the terminal; the lines of the study scroll by above them.

    Args:
        study: The study's name.
        console: A terminal.
    """

    def __init__(self, study: str, console: Console) -> None:
        super().__init__(study, console)
        self.live = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", table_column=None),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=console,
            transient=True,
        )
        self._study_bar: TaskID | None = None
        self._bars: dict[int, TaskID] = {}  # by process

    def handle(self, event: Event) -> None:
        """Moves the bars."""
        if isinstance(event, StepEnded):  # its bar is removed before its line is printed
            self.live.remove_task(self._bars.pop(event.process))
        super().handle(event)
        match event:
            case StudyStarted():
                self.live.start()
            case StudyPlanned():
                self._study_bar = self.live.add_task(self.study, total=event.steps, numbers="trainings")
            case StepStarted():
                self._bars[event.process] = self.live.add_task(event.step, total=event.epochs, numbers="")
            case StepEnded() | StepSkipped() if self._study_bar is not None:
                self.live.update(self._study_bar, completed=self.steps_done)

    def close(self) -> None:
        """Removes the bars."""
        self.live.stop()

    def _batch_ended(self, event: BatchEnded, running: Running) -> None:
        bar = self._bars[event.process]
        if running.begun is None:
            super()._batch_ended(event, running)
            self.live.reset(bar, completed=running.begun)  # type: ignore[arg-type]  # may be a fraction
        self.live.update(bar, completed=event.epoch + event.batch / event.batches)

    def _show_epoch(self, event: EpochEnded, running: Running) -> None:
        self.live.update(self._bars[event.process], completed=event.epoch, numbers=running.last_epoch)

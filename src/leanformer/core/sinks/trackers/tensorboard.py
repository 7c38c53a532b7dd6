"""TensorBoard: files in ``tensorboard/`` of the run directory, a directory for each run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leanformer.core.sinks.tracking import TRACKERS, Scalar, TrackedRun, Tracker


@TRACKERS.register("tensorboard")
class TensorBoard(Tracker):
    """Shown by ``tensorboard --logdir RUN/tensorboard``."""

    name = "tensorboard"

    def arguments(self, run: TrackedRun) -> dict[str, Any]:
        return {"run_name": run.name, "logging_dir": run.directory / "tensorboard"}

    def log_settings(self, settings: Mapping[str, Scalar]) -> None:
        # accelerate's own method would make one more run for them, named after the time.
        self.tracker.writer.add_hparams(dict(settings), {}, run_name=".")

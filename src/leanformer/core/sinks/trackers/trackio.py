"""Trackio: a study is a project, kept where ``TRACKIO_DIR`` says, or on the server that its variables name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leanformer.core.sinks.tracking import TRACKERS, Scalar, TrackedRun, Tracker


@TRACKERS.register("trackio")
class Trackio(Tracker):
    """Shown by ``trackio show``."""

    name = "trackio"

    def arguments(self, run: TrackedRun) -> dict[str, Any]:
        return {
            "run_name": run.study,  # accelerate's name for the project
            "name": run.name,
            "config": dict(run.settings),
        }

    def log_settings(self, settings: Mapping[str, Scalar]) -> None:
        pass  # given as ``config`` above; trackio.config, which accelerate uses, no longer exists

"""Weights & Biases: a study is a project. ``WANDB_MODE=offline`` keeps all in ``wandb/`` of the run directory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leanformer.core.sinks.tracking import TRACKERS, Scalar, TrackedRun, Tracker


@TRACKERS.register("wandb")
class WeightsAndBiases(Tracker):
    """Whoever is logged in (``wandb login``) finds the runs there."""

    name = "wandb"

    def arguments(self, run: TrackedRun) -> dict[str, Any]:
        return {
            "run_name": run.study,  # so accelerate calls the project
            "name": run.name,
            "dir": run.directory,
            "reinit": "create_new",  # several runs may go on at once
            "settings": {"silent": True, "console": "off"},
        }

    def log_settings(self, settings: Mapping[str, Scalar]) -> None:
        self.tracker.tracker.config.update(dict(settings))  # accelerate knows the one run of a process alone

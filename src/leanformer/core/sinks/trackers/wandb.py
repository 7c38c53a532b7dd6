"""Weights & Biases: a study is a project. ``WANDB_MODE=offline`` keeps the runs in ``wandb/`` of the run directory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leanformer.core.sinks.tracking import TRACKERS, Scalar, TrackedRun, Tracker


@TRACKERS.register("wandb")
class WeightsAndBiases(Tracker):
    """The runs appear in the account that is logged in (``wandb login``)."""

    name = "wandb"

    def arguments(self, run: TrackedRun) -> dict[str, Any]:
        return {
            "run_name": run.study,  # accelerate's name for the project
            "name": run.name,
            "dir": run.directory,
            "reinit": "create_new",  # several runs may be open at once
            "settings": {"silent": True, "console": "off"},
        }

    def log_settings(self, settings: Mapping[str, Scalar]) -> None:
        self.tracker.tracker.config.update(dict(settings))  # accelerate updates the process's global run alone

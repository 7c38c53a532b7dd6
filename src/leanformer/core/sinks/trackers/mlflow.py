"""MLflow: the server that its environment variables name, or else ``mlflow.db`` in the run directory."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, ClassVar

from leanformer.core.sinks.tracking import TRACKERS, TrackedRun, Tracker


@TRACKERS.register("mlflow")
class MLflow(Tracker):
    """A study is an experiment; texts are tags.

    Shown by ``mlflow ui --backend-store-uri sqlite:///RUN/mlflow.db``.
    """

    name = "mlflow"
    _own_store: ClassVar[str | None] = None
    """The store that was set last; each study of this process has its own, in its run directory."""

    def arguments(self, run: TrackedRun) -> dict[str, Any]:
        import mlflow

        for library in ("mlflow", "alembic"):  # they log every table that they make
            logging.getLogger(library).setLevel(logging.WARNING)
        arguments = {"experiment_name": run.study, "run_name": run.name}
        if mlflow.is_tracking_uri_set() and mlflow.get_tracking_uri() != MLflow._own_store:
            return arguments
        directory = run.directory.resolve()
        MLflow._own_store = f"sqlite:///{directory.as_posix()}/mlflow.db"
        mlflow.set_tracking_uri(MLflow._own_store)
        return {**arguments, "logging_dir": (directory / "mlflow").as_uri()}  # else files go to the working directory

    def log(self, values: Mapping[str, float | str], epoch: int | None = None) -> None:
        import mlflow

        texts = {name: value for name, value in values.items() if isinstance(value, str)}
        super().log({name: value for name, value in values.items() if name not in texts}, epoch)
        mlflow.set_tags(texts)

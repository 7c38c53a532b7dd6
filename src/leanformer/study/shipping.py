"""Steps that export trained models: those that ship, and those that are only measured in an engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from leanformer.config.base import Precision, Runtime
from leanformer.core.errors import LeanformerError
from leanformer.core.json_files import read_sealed
from leanformer.export.parity import ENOUGH
from leanformer.export.run import Origin, Samples, decided_manifest, export_model
from leanformer.model.students import load
from leanformer.results.schema import rows_of
from leanformer.runtime.loading import load as open_exported
from leanformer.runtime.manifest import EXPORTED_MODEL, MANIFEST
from leanformer.study.prepare import PreparedStudy
from leanformer.study.steps import RecordedStep, Step, ended_well
from leanformer.study.store import RunDirectory
from leanformer.study.training import (
    PREDICTIONS,
    Trial,
    is_chosen,
    is_scored_otherwise,
    score_again,
    scored,
    seed_that_ships,
)

EXPORTED = "exported"
"""The exported directory, inside the step's."""


@dataclass(frozen=True)
class ExportStep(RecordedStep):
    """The export of a candidate's or the baseline's trained model, and its answers on the test split.

    Args:
        trials: The trials of all its seeds; the best on the validation split is exported.
        format: The format.
        precision: The precision of the weights.
        decides: Whether it is decided on; if not, it is there to be measured, and answers nothing.
    """

    trials: tuple[Trial, ...]
    format: Runtime
    precision: Precision
    decides: bool

    def directory(self, prepared: PreparedStudy) -> Path:
        return prepared.directory.exported(self.name, f"{self.format}-{self.precision}")

    def after(self, prepared: PreparedStudy) -> Sequence[Step]:
        return self.trials

    def settings(self, prepared: PreparedStudy) -> dict[str, Any]:
        chosen = chosen_trial(prepared, self.trials)
        return {
            "trial": None if chosen is None else read_sealed(chosen.directory(prepared) / "settings.json"),
            "weights": None if chosen is None else weights_of(chosen, prepared),  # a training again may give others
            "format": self.format,
            "precision": self.precision,
            "evaluation": prepared.task.evaluation_settings() if self.decides else None,
        }

    def bring_up_to_date(self, prepared: PreparedStudy) -> None:
        result = self.known_result(prepared)
        if self.decides and result["status"] == "ok" and is_scored_otherwise(prepared, result):
            score_again(prepared, self.directory(prepared), result)

    def run(self, prepared: PreparedStudy) -> None:
        directory = self.directory(prepared)
        chosen = chosen_trial(prepared, self.trials)
        if chosen is None:
            prepared.directory.finish(directory, {"status": "failed", "reason": "a training failed"})
            return
        prepared.reporter.start(self.title, 0)
        try:
            model, source = chosen.directory(prepared) / "model", prepared.study.data.source
            manifest = export_model(
                load(model),
                str(model),
                Samples(
                    prepared.task_of(self.name).samples(ENOUGH), f"of the training and validation data of {source}"
                ),
                directory / EXPORTED,
                to=self.format,
                precision=self.precision,
                origin=Origin(prepared.study.name, self.name, chosen.seed),
            )
        except LeanformerError as error:
            if isinstance(error.__cause__, OSError):  # a full disk says nothing about the model
                raise
            prepared.reporter.done(f"failed: {error}")
            prepared.directory.finish(directory, {"status": "failed", "reason": str(error)})
            return
        result: dict[str, Any] = {
            "status": "ok",
            "seed": chosen.seed,
            "bytes": manifest.bytes,
            "parity": manifest.parity.model_dump(mode="json"),
        }
        prepared.reporter.wrote("model", directory / EXPORTED)
        if self.decides:
            exported = open_exported(directory / EXPORTED, torch.get_num_threads())
            answers = prepared.task_of(self.name).evaluate_exported(exported)
            prepared.directory.replace_file(directory, PREDICTIONS, answers.to_bytes())
            result |= {"evaluation": prepared.task.evaluation_settings(), **scored(prepared, answers)}
        prepared.reporter.done(f"{manifest.parity.agreement:.2%} of {manifest.parity.inputs:,} answers as before")
        prepared.directory.finish(directory, result)

    @property
    def title(self) -> str:
        return f"{self.name} · {self.format} {self.precision}"

    def __str__(self) -> str:
        return f"{self.name}, exported to {self.format} in {self.precision}"


def chosen_trial(prepared: PreparedStudy, trials: Sequence[Trial]) -> Trial | None:
    """The trial of the model that ships, the best on the validation split; None where a training failed.

    Args:
        prepared: The study.
        trials: Those of all seeds, done.
    """
    best = seed_that_ships(prepared, trials)
    chosen = next(trial for trial in trials if trial.seed == best)
    # A model that was chosen at an earlier look stays, although a training of a seed that joined has failed.
    must_be_well = [chosen] if is_chosen(prepared, trials) else trials
    return chosen if all(ended_well(trial.known_result(prepared)) for trial in must_be_well) else None


def weights_of(trial: Trial, prepared: PreparedStudy) -> dict[str, str]:
    """File of a trial's weights -> its SHA-256."""
    result = trial.known_result(prepared)
    assert result is not None
    files: dict[str, str] = result.get("files", {})
    return {name: value for name, value in files.items() if name.endswith(".safetensors")}


def tell_decisions(store: RunDirectory, results: Mapping[str, Any]) -> None:
    """Writes what was decided on each exported model into its directory, which was made before.

    Args:
        store: The study's run directory.
        results: The content of its ``results.json``.
    """
    for row in rows_of(results):
        if row["artifact"] is not None:
            step = (store.path / row["artifact"]["directory"]).parent
            result = store.finished(step)
            assert result is not None
            told = decided_manifest(step / EXPORTED, decision_told(row, results["metric"], EXPORTED_MODEL))
            if told is not None:
                store.replace_file(step, f"{EXPORTED}/{MANIFEST}", told)
                store.finish(step, result)


def decision_told(decided: Mapping[str, Any], metric: str, subject: str) -> dict[str, Any]:
    """A decision as a manifest tells it.

    Args:
        decided: A row of the results, or its ``recipe``.
        metric: The study's metric.
        subject: ``EXPORTED_MODEL`` or ``TRAINED_MODELS``.
    """
    keys = ("decision", "reason", "quality", "difference")
    return {"of": subject, "metric": metric, **{key: decided[key] for key in keys}}

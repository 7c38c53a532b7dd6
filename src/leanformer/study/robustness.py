"""Steps that let the models that are decided on answer corrupted test examples, and what the results say of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from leanformer.config.base import Study
from leanformer.core.json_files import read_sealed
from leanformer.core.memory import memory_named
from leanformer.core.warning import StudyWarning
from leanformer.decide.robustness import Answered, robustness
from leanformer.model.students import load
from leanformer.results.metrics import METRICS
from leanformer.results.schema import FORMS
from leanformer.runtime.loading import load as open_exported
from leanformer.study.arms import Arm
from leanformer.study.prepare import PreparedStudy
from leanformer.study.shipping import EXPORTED, ExportStep, chosen_trial, weights_of
from leanformer.study.steps import RecordedStep, Step
from leanformer.study.training import PREDICTIONS, Trial, is_scored_otherwise, score_again, scored

TORCH = "torch"
"""The form of a model that is not exported."""

CorruptedAnswers = Mapping[tuple[str, str], Mapping[str, Any]]
"""Candidate, and ``torch`` or a form of export such as ``onnx-int8`` -> corruption -> answers."""


@dataclass(frozen=True)
class RobustnessStep(RecordedStep):
    """The answers of a candidate's or the baseline's model to the test examples under one corruption.

    It is the model that is decided on, or of the seeds' models the one that would ship.

    Args:
        trials: The trials of all its seeds; the best on the validation split answers.
        export: Its export that is decided on; None where decisions are on models in PyTorch.
        corruption: The corruption's name.
    """

    trials: tuple[Trial, ...]
    export: ExportStep | None
    corruption: str

    @property
    def form(self) -> str:
        """``torch``, or the form of the export."""
        return TORCH if self.export is None else f"{self.export.format}-{self.export.precision}"

    def directory(self, prepared: PreparedStudy) -> Path:
        return prepared.directory.robust(self.name, self.form, self.corruption)

    def after(self, prepared: PreparedStudy) -> Sequence[Step]:
        return self.trials if self.export is None else (self.export,)

    def settings(self, prepared: PreparedStudy) -> dict[str, Any]:
        chosen = chosen_trial(prepared, self.trials)
        export = None if self.export is None else self.export.directory(prepared)
        return {
            "trial": None if chosen is None else read_sealed(chosen.directory(prepared) / "settings.json"),
            "weights": None if chosen is None else weights_of(chosen, prepared),
            "export": None if export is None else read_sealed(export / "settings.json"),
            "corruption": prepared.task.corruption_settings(self.corruption),
            "evaluation": prepared.task.evaluation_settings(),
        }

    def bring_up_to_date(self, prepared: PreparedStudy) -> None:
        result = self.known_result(prepared)
        if result["status"] == "ok" and is_scored_otherwise(prepared, result):
            score_again(prepared, self.directory(prepared), result)

    def run(self, prepared: PreparedStudy) -> None:
        directory = self.directory(prepared)
        chosen = chosen_trial(prepared, self.trials)
        if chosen is None or (self.export is not None and self.export.known_result(prepared)["status"] != "ok"):
            prepared.directory.finish(directory, {"status": "failed"})
            return
        prepared.reporter.start(self.title, 0)
        task = prepared.task_of(self.name).corrupted(self.corruption)
        if self.export is None:
            model = load(chosen.directory(prepared) / "model").to(prepared.device)
            with memory_named(
                f"answering corrupted examples in batches of {task.answer_key}", f"lower {task.answer_key}"
            ):
                answers = task.evaluate(model)
        else:
            exported = open_exported(self.export.directory(prepared) / EXPORTED, torch.get_num_threads())
            answers = task.evaluate_exported(exported)
        prepared.directory.replace_file(directory, PREDICTIONS, answers.to_bytes())
        result = {"status": "ok", "seed": chosen.seed, **scored(prepared, answers)}
        prepared.reporter.done("answered")  # no figure of the test split is shown before the look is recorded
        prepared.directory.finish(directory, result)

    @property
    def title(self) -> str:
        form = "" if self.export is None else f" · {self.export.format} {self.export.precision}"
        return f"{self.name}{form} · {self.corruption}"

    def __str__(self) -> str:
        return f"{self.name} under {self.corruption}"


def read_corrupted(prepared: PreparedStudy, steps: Sequence[RobustnessStep]) -> CorruptedAnswers:
    """The answers of steps that are done; those of models that failed are left out."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for step in steps:
        if step.known_result(prepared)["status"] == "ok":
            path = step.directory(prepared) / PREDICTIONS
            found.setdefault((step.name, step.form), {})[step.corruption] = prepared.task.read_answers(path)
    return found


def robustness_rows(
    study: Study, arms: Sequence[Arm], corrupted: CorruptedAnswers, groups: np.ndarray | None
) -> dict[str, list[dict[str, Any]]]:
    """``robustness`` of each row of the results, by the row's name; rows of models that failed are missing.

    Args:
        study: The study.
        arms: The rows, the baseline's first.
        corrupted: The answers under corruptions.
        groups: The group of each test example, shape (examples,); None where examples are independent.
    """
    metric = METRICS[study.accept.metric]

    def answered(arm: Arm) -> Answered | None:
        answers = corrupted.get((arm.outcome.name, TORCH if arm.export is None else arm.export.runtime))
        if answers is None or not arm.ok:
            return None
        (clean,) = arm.tested.each()  # of one model
        under = {name: found.statistics(metric.key) for name, found in answers.items()}
        return Answered(clean.statistics(metric.key), under)

    baseline = answered(arms[0])
    found = {}
    for arm in arms:
        model = answered(arm)
        if model is not None:
            rival = None if arm is arms[0] else baseline
            entries = robustness(metric, model, rival, study.accept.max_drop, study.accept.confidence, groups)
            found[arm.name] = [entry.model_dump() for entry in entries]
    return found


def less_robust(study: Study, name: str | None, rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[StudyWarning]:
    """The warning where a recommended student clearly loses more than the baseline on corrupted examples.

    Args:
        study: The study.
        name: The recommended model, if there is one.
        rows: As ``robustness_rows`` gives them.
    """
    metric = METRICS[study.accept.metric]
    more = [entry for entry in rows.get(name or "", ()) if entry["loses_more"]]
    if not more:
        return []
    more.sort(key=lambda entry: metric.sign * entry["extra_loss"]["mean"])
    named = ", ".join(f"{entry['corruption']} {metric.difference(entry['extra_loss']['mean'])}" for entry in more)
    sentence = (
        f"{name} loses more than the baseline on corrupted test {FORMS[study.task].wording.example}s ({named}): where "
        "such inputs occur, train with them, or ship a model that stands them"
    )
    return [StudyWarning("less-robust", sentence, len(more))]

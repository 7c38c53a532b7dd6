"""What a study's models cost in time and memory: measured together, or given by ``measure.from``."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from leanformer.config.base import Runtime
from leanformer.core.files import write_atomically
from leanformer.core.json_files import DamagedError, read_sealed, sealed
from leanformer.core.memory import memory_named
from leanformer.learn.step import TrainingStep
from leanformer.measure.cost import Cost, Exported, Subject, measure_costs
from leanformer.model.students import load
from leanformer.runtime.loading import load as open_exported
from leanformer.study.arms import CandidateOutcome
from leanformer.study.prepare import PreparedStudy


class Costing:
    """Measures the models of a study whose trials and exports are done.

    Args:
        prepared: The study.
        outcomes: The outcomes of the baseline and of all candidates; those that failed are left out.
    """

    def __init__(self, prepared: PreparedStudy, outcomes: Sequence[CandidateOutcome]) -> None:
        self._prepared = prepared
        self._known = [outcome for outcome in outcomes if outcome.has_model]
        self._file = prepared.directory.path / "costs.json"

    def costs(self) -> dict[str, dict[str, Any]]:
        """Time and memory of every model, measured together.

        Returns:
            Name -> ``training``, the costs of its training; ``training_rounds``, its examples per second in each round;
            and ``speeds``, which maps ``torch`` and forms of export, such as ``onnx-int8``, to the costs there.

        Raises:
            LeanformerError: ``measure.from`` names a file that lacks a model.
        """
        prepared, runtimes = self._prepared, self._prepared.study.runtimes
        given = prepared.given_times
        if given is None or not self._known:
            return self._measured(runtimes)
        speeds = given.speeds(self._places(runtimes))
        prepared.reporter.say(f"{prepared.study.name}: latency and throughput are those in {given.path}")
        # An earlier run may have measured all of it here; if none has, only training is left to measure.
        whole = self._known_costs(self._settings(runtimes))
        costs = self._measured(()) if whole is None else whole
        return {name: {**cost, "speeds": speeds.get(name, {})} for name, cost in costs.items()}

    def _places(self, runtimes: Sequence[Runtime]) -> dict[tuple[str, str], Path]:
        """Name, and ``torch`` or a form of export -> the directory of the model that is measured there."""
        places = {}
        for outcome in self._known:
            if "torch" in runtimes:
                places[outcome.name, "torch"] = self._trained(outcome)
            for export in outcome.exports:
                if export.ok and export.format in runtimes:
                    places[outcome.name, export.runtime] = self._prepared.directory.path / export.directory
        return places

    def _trained(self, outcome: CandidateOutcome) -> Path:
        """The trained model that is measured: that of the first seed."""
        return self._prepared.directory.path / next(iter(outcome.directories.values())) / "model"

    def _settings(self, runtimes: Sequence[Runtime]) -> dict[str, Any]:
        """What the measured costs follow from."""
        settings: dict[str, Any] = {
            outcome.name: {"torch": read_sealed(self._trained(outcome).parent / "settings.json")}
            for outcome in self._known
        }
        for (name, runtime), place in self._places(runtimes).items():
            settings[name][runtime] = read_sealed(place.parent / "settings.json")
        return {
            "measure": self._prepared.study.measure.model_dump(mode="json", exclude={"from_", "robustness"}),
            "runtimes": list(runtimes),
            "evaluation": self._prepared.task.evaluation_settings(),
            "figures": [figure.name for figure in fields(Cost)],  # a version with more figures measures again
            "models": settings,
        }

    def _measured(self, runtimes: Sequence[Runtime]) -> dict[str, dict[str, Any]]:
        """The costs of training, and those in each runtime, measured now or by an earlier run; see ``costs``."""
        if not self._known:
            return {}
        prepared, measure = self._prepared, self._prepared.study.measure
        settings = self._settings(runtimes)
        known = self._known_costs(settings)
        if known is not None:
            return known
        subjects: dict[tuple[str, str], Callable[[], Subject | Exported]] = {
            (outcome.name, "torch"): partial(self._subject, outcome.name, self._trained(outcome), "torch" in runtimes)
            for outcome in self._known
        }
        for (name, runtime), place in self._places(runtimes).items():
            if runtime != "torch":
                subjects[name, runtime] = partial(self._exported, name, place)
        prepared.reporter.say(f"{prepared.study.name}: measuring time and memory of {len(self._known)} models in turn")
        what = f"measuring {len(self._known)} models with measure.throughput_batch {measure.throughput_batch}"
        with memory_named(what, "lower measure.throughput_batch"):
            measured = measure_costs(subjects, prepared.device, measure.repeats, measure.latency_calls)
        costs: dict[str, dict[str, Any]] = {
            outcome.name: {"training": {}, "training_rounds": [], "speeds": {}} for outcome in self._known
        }
        for (name, runtime), cost in measured.items():
            if runtime == "torch":
                costs[name]["training"] = cost.of_training()
                costs[name]["training_rounds"] = cost.train_examples_per_second
            speed = cost.speed()
            if speed is not None:
                costs[name]["speeds"][runtime] = speed
        prepared.directory.check()
        write_atomically(self._file, sealed({"settings": settings, "costs": costs}))
        return costs

    def _known_costs(self, settings: Mapping[str, Any]) -> dict[str, dict[str, Any]] | None:
        """The costs that an earlier run measured with the same settings."""
        if not self._file.exists():
            return None
        try:
            known = read_sealed(self._file)
        except DamagedError as error:
            self._prepared.reporter.warn(f"{error}; it is measured again")
            return None
        if known.get("settings") != settings or "costs" not in known:
            return None
        costs: dict[str, dict[str, Any]] = known["costs"]
        return costs

    def _subject(self, name: str, saved: Path, infers: bool) -> Subject:
        """A saved model, loaded to be measured."""
        return replace(
            self._prepared.task_of(name).subject(load(saved).to(self._prepared.device), self._step), infers=infers
        )

    def _exported(self, name: str, directory: Path) -> Exported:
        """An exported model, opened to be measured, with as many threads as PyTorch has."""
        threads = torch.get_num_threads()
        return self._prepared.task_of(name).exported(directory, open_exported(directory, threads))

    def _step(self, model: PreTrainedModel) -> TrainingStep:
        """A training step on a copy of the model, for timing."""
        prepared, train = self._prepared, self._prepared.study.train
        return TrainingStep(
            copy.deepcopy(model).train(), train, train.learning_rate[0], prepared.accelerator, prepared.task.loss()
        )

"""Prepares a study: reads data and baseline, resolves the plans, and checks everything before anything is trained."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel

from leanformer.blocks.kit.base import BlockModule
from leanformer.config.base import BASELINE, CandidateConfig, FinetuneConfig, Runtime, Study
from leanformer.core.errors import LeanformerError
from leanformer.core.events import Reporter
from leanformer.core.files import write_atomically
from leanformer.core.json_files import DamagedError, read_sealed, sealed
from leanformer.core.machine import pick_device
from leanformer.core.memory import memory_named
from leanformer.core.signatures import content_signature, files_signature
from leanformer.export.base import FORMATS
from leanformer.learn.lessons import check_tokens_agree
from leanformer.learn.step import TrainingStep, make_accelerator, settle_precision
from leanformer.measure.cost import Cost, Exported, Subject, forward_flops, measure_costs, parameters_by_kind
from leanformer.model.family import FAMILIES
from leanformer.model.plan import match
from leanformer.model.students import load, outline_of_student
from leanformer.model.surgery import ResolvedPlan, module_at, parameter_count, resolve, sites
from leanformer.runtime.loading import load as open_exported
from leanformer.study.assemble import CandidateOutcome
from leanformer.study.given_times import GivenTimes
from leanformer.study.store import RunDirectory
from leanformer.study.teaching import Teaching, lessons_of
from leanformer.tasks.base import open_task


class PreparedStudy:
    """One run of a study: its data and baseline, checked, and the structure and cost of its models.

    Args:
        study: The study.
        directory: Its run directory, open.
        reporter: Where progress is shown.
        jobs: Trainings that run at a time, in this process or others.

    Raises:
        LeanformerError: Data, baseline or plans are wrong, or do not fit together.
    """

    def __init__(self, study: Study, directory: RunDirectory, reporter: Reporter, jobs: int = 1) -> None:
        self.study = study
        self.directory = directory
        self.reporter = reporter
        self.jobs = jobs
        self.device = pick_device(study.measure.device)
        self.precision = settle_precision(study.train.precision, self.device)
        self.accelerator: Accelerator = make_accelerator(self.precision, self.device)
        self.task = open_task(study, self.device)
        if study.baseline.fresh and study.baseline.model in FAMILIES:
            raise LeanformerError(
                f"baseline.fresh does nothing here: the models of a family ({study.baseline.model}) have random "
                "weights anyway; leave it out"
            )
        self.given_times: GivenTimes | None = None
        if study.measure.from_ is not None:
            beam = self.task.evaluation_settings().get("beam", 1)
            self.given_times = GivenTimes(study.measure.from_, study.task, beam)
        self.task.check_keys()
        self.task.check_test()
        self.candidates: dict[str, CandidateConfig | None] = {BASELINE: None, **study.candidates}
        self.plans: dict[str, ResolvedPlan] = {BASELINE: {}}
        self._outline = self.task.baseline_outline
        self._exportable: dict[tuple[str, Runtime], bool] = {}
        for name, candidate in study.candidates.items():
            where = f"candidates.{name}"
            try:
                plan = resolve(self._outline, candidate.plan)
                if not plan:
                    self._check_control(candidate)
            except LeanformerError as error:
                raise LeanformerError(f"{where}: {error}") from None
            self.task.check_plan(plan, where)
            if candidate.method == "distill":
                check_tokens_agree(plan, self.finetune(candidate), where)
                if self.finetune(candidate).targets == "teacher" and not study.writes:
                    raise LeanformerError(
                        f"{where}: finetune.targets 'teacher' needs models that write text; leave it out, and give "
                        "finetune.logits a weight"
                    )
            learns = candidate.method == "scratch" or self.finetune(candidate).epochs > 0
            if not learns and all(entry["block"] == "none" for entry in plan.values()):
                raise LeanformerError(
                    f"{where}: the plan only empties sites, so that there is no block to teach; give finetune "
                    "epochs, or take method scratch"
                )
            self.plans[name] = plan
        self._check_exports()
        self._check_differ()

    def _check_exports(self) -> None:
        """Refuses candidates that the format in which the study ships cannot hold, before anything is trained.

        Raises:
            LeanformerError: It names the candidate and the site that stands in the way.
        """
        if self.study.ship is None:
            return
        for name in self.plans:
            for precision in self.study.ship.precision:
                try:
                    FORMATS[self.study.ship.to].check(self._outline_of(name), precision)
                except LeanformerError as error:
                    where = "baseline" if name == BASELINE else f"candidates.{name}"
                    raise LeanformerError(f"{where}: {error}") from None

    def can_export(self, name: str, runtime: Runtime) -> bool:
        """Whether a format can hold a model that is to be measured in its engine; where not, the log says why."""
        if (name, runtime) not in self._exportable:
            try:
                FORMATS[runtime].check(self._outline_of(name), "float32")
                reason = None
            except LeanformerError as error:
                reason = str(error)
                self.reporter.say(f"{self.study.name}: {name} is not measured in {runtime}: {error}")
            self._exportable[name, runtime] = reason is None
        return self._exportable[name, runtime]

    def _outline_of(self, name: str) -> PreTrainedModel:
        """A model of the study without its weights."""
        plan = self.plans[name]
        return outline_of_student(self._outline, plan) if plan else self._outline

    def _check_differ(self) -> None:
        """Refuses two equal candidates, which would be trained twice and counted twice in the correction for several.

        Raises:
            LeanformerError: Two candidates are equal; the message names both.
        """
        seen: dict[str, str] = {}
        for name, candidate in self.study.candidates.items():
            finetune = self.finetune(candidate).model_dump(mode="json") if candidate.method == "distill" else None
            recipe = json.dumps([self.plans[name], candidate.method, finetune], sort_keys=True)
            other = seen.setdefault(recipe, name)
            if other != name:
                raise LeanformerError(
                    f"candidates.{other} and candidates.{name} put the same blocks at the same sites of this baseline; "
                    "leave one of them out"
                )

    def _check_control(self, candidate: CandidateConfig) -> None:
        """Allows a plan that changes nothing only where its student is tuned: that shows what tuning alone does.

        Raises:
            LeanformerError: The candidate would be the same as the baseline.
        """
        if candidate.method == "scratch" or self.finetune(candidate).epochs == 0:
            raise LeanformerError(
                "the plan changes nothing; the baseline is trained anyway (to see what tuning alone does, take method "
                "distill with finetune epochs)"
            )

    def finetune(self, candidate: CandidateConfig) -> FinetuneConfig:
        """How a candidate's student is tuned as a whole, with ``auto`` resolved."""
        finetune = candidate.finetune or self.study.finetune
        if finetune.targets != "auto":
            return finetune
        return finetune.model_copy(update={"targets": "teacher" if self.study.writes else "data"})

    def is_distilled(self, name: str) -> bool:
        """Whether a candidate's blocks are taught by the baseline."""
        candidate = self.candidates[name]
        return candidate is not None and candidate.method == "distill"

    @property
    def searches(self) -> bool:
        """Whether a learning rate is searched for models that are trained from scratch or from the given baseline."""
        return len(self.study.train.learning_rate) > 1 and self.study.train.epochs > 0

    @property
    def search_epochs(self) -> int:
        """Epochs of each training of the search."""
        return self.study.train.search_epochs or self.study.train.epochs

    @cached_property
    def files(self) -> dict[str, str | None]:
        """Signatures of the files of data and baseline, by which a later run sees that they have changed."""
        data, model = self.study.data, self.study.baseline.model
        endings = data.file_endings()
        return {
            "data_files": files_signature(data.source, endings),
            "data_content": content_signature(data.source, endings),
            "baseline_files": files_signature(model),
            "baseline_content": content_signature(model),
        }

    @cached_property
    def student_plans(self) -> list[ResolvedPlan]:
        """The plans of the candidates that the baseline teaches."""
        return [plan for name, plan in self.plans.items() if self.is_distilled(name)]

    @cached_property
    def lesson_shares(self) -> int:
        """Into how many lessons the blocks of a seed are divided: with all seeds' as many as trainings at a time."""
        return min(len(lessons_of(self.student_plans)), math.ceil(self.jobs / len(self.study.seeds)))

    @cached_property
    def teaching(self) -> Teaching:
        """Teaches the blocks of the students."""
        return Teaching(
            self.directory,
            self.task,
            self.study.distill,
            self.study.train,
            self.accelerator,
            self.reporter,
            self.jobs,
        )

    def structure(self, name: str) -> dict[str, Any]:
        """The model's structure, and what the plan changed, site by site."""
        before = {site.name: site for site in sites(self._outline)}
        plan = self.plans[name]
        student = self._outline_of(name)
        candidate = self.candidates[name]
        written = {} if candidate is None else match(candidate.plan, list(before.values()))
        changes = []
        for site in sites(student):
            was = before[site.name]
            changed = site.name in plan
            parameters = (was.parameters + was.norm_parameters, site.parameters + site.norm_parameters)
            kept = site.norm_parameters + _taken_over(module_at(student, site.name)) if changed else 0
            changes.append(
                {
                    "site": site.name,
                    "kind": site.kind,
                    "block": site.block,
                    # A size as the plan writes it ("S"), although the resolved plan holds its numbers instead.
                    "arguments": (written[site.name].arguments.model_dump(exclude_unset=True) if changed else {})
                    | {
                        key: value
                        for key, value in plan.get(site.name, {}).items()
                        if key != "block" and value is not None
                    },
                    "changed": changed,
                    "parameters_before": parameters[0],
                    "parameters_after": parameters[1],
                    "removed": parameters[0] - kept if changed else 0,
                    "added": parameters[1] - kept if changed else 0,
                }
            )
        with torch.random.fork_rng(devices=[]):
            # With random weights; without any, steps that depend on a mask could not be counted.
            whole = type(student)(student.config).eval()
        return {
            "changes": changes,
            "parameters": parameter_count(student),
            "parameters_by_kind": parameters_by_kind(student),
            "flops_per_example": forward_flops(whole, self.task.example()),
            "decoding": self.task.decoding(whole),
        }

    def costs(self, outcomes: list[CandidateOutcome]) -> dict[str, dict[str, Any]]:
        """Time and memory of every model whose trials succeeded, measured together.

        Returns:
            Name -> ``training``, the costs of its training, and ``speeds``, which maps ``torch`` and forms of export,
            such as ``onnx-int8``, to the costs there.

        Raises:
            LeanformerError: ``measure.from`` names a file that lacks a model.
        """
        known = [outcome for outcome in outcomes if outcome.ok]
        if self.given_times is None or not known:
            return self._measured(known, self.study.runtimes)
        speeds = self.given_times.speeds(self._places(known, self.study.runtimes))
        self.reporter.say(f"{self.study.name}: latency and throughput are those in {self.given_times.path}")
        # An earlier run may have measured all of it here; if none has, only training is left to measure.
        whole = self._known_costs(self._cost_settings(known, self.study.runtimes))
        costs = self._measured(known, ()) if whole is None else whole
        return {name: {**cost, "speeds": speeds[name]} for name, cost in costs.items()}

    def _places(self, outcomes: Sequence[CandidateOutcome], runtimes: Sequence[Runtime]) -> dict[tuple[str, str], Path]:
        """Name, and ``torch`` or a form of export -> the directory of the model that is measured there."""
        places = {}
        for outcome in outcomes:
            if "torch" in runtimes:
                places[outcome.name, "torch"] = self._trained(outcome)
            for export in outcome.exports:
                if export.ok and export.format in runtimes:
                    places[outcome.name, export.runtime] = self.directory.path / export.directory
        return places

    def _trained(self, outcome: CandidateOutcome) -> Path:
        """The trained model that is measured: that of the first seed."""
        return self.directory.path / next(iter(outcome.directories.values())) / "model"

    def _cost_settings(self, outcomes: Sequence[CandidateOutcome], runtimes: Sequence[Runtime]) -> dict[str, Any]:
        """What the measured costs follow from."""
        settings: dict[str, Any] = {
            outcome.name: {"torch": read_sealed(self._trained(outcome).parent / "settings.json")}
            for outcome in outcomes
        }
        for (name, runtime), place in self._places(outcomes, runtimes).items():
            settings[name][runtime] = read_sealed(place.parent / "settings.json")
        return {
            "measure": self.study.measure.model_dump(mode="json", exclude={"from_"}),
            "runtimes": list(runtimes),
            "evaluation": self.task.evaluation_settings(),
            "figures": [figure.name for figure in fields(Cost)],  # a version with more figures measures again
            "models": settings,
        }

    def _measured(self, known: Sequence[CandidateOutcome], runtimes: Sequence[Runtime]) -> dict[str, dict[str, Any]]:
        """The costs of training, and those in each runtime, measured now or by an earlier run; see ``costs``."""
        if not known:
            return {}
        settings = self._cost_settings(known, runtimes)
        costs = self._known_costs(settings)
        if costs is not None:
            return costs
        subjects: dict[tuple[str, str], Callable[[], Subject | Exported]] = {
            (outcome.name, "torch"): partial(self._subject, self._trained(outcome), "torch" in runtimes)
            for outcome in known
        }
        for (name, runtime), place in self._places(known, runtimes).items():
            if runtime != "torch":
                subjects[name, runtime] = partial(self._exported, place)
        self.reporter.say(f"{self.study.name}: measuring time and memory of {len(known)} models in turn")
        measure = self.study.measure
        what = f"measuring {len(known)} models with measure.throughput_batch {measure.throughput_batch}"
        with memory_named(what, "lower measure.throughput_batch"):
            measured = measure_costs(subjects, self.device, measure.repeats, measure.latency_calls)
        costs = {outcome.name: {"training": {}, "speeds": {}} for outcome in known}
        for (name, runtime), cost in measured.items():
            if runtime == "torch":
                costs[name]["training"] = cost.of_training()
            speed = cost.speed()
            if speed is not None:
                costs[name]["speeds"][runtime] = speed
        self.directory.check()
        write_atomically(self._cost_file, sealed({"settings": settings, "costs": costs}))
        return costs

    @property
    def _cost_file(self) -> Path:
        return self.directory.path / "costs.json"

    def _known_costs(self, settings: Mapping[str, Any]) -> dict[str, dict[str, Any]] | None:
        """The costs that an earlier run measured with the same settings."""
        path = self._cost_file
        if not path.exists():
            return None
        try:
            known = read_sealed(path)
        except DamagedError as error:
            self.reporter.warn(f"{error}; it is measured again")
            return None
        if known.get("settings") != settings or "costs" not in known:
            return None
        costs: dict[str, dict[str, Any]] = known["costs"]
        return costs

    def _subject(self, saved: Path, infers: bool) -> Subject:
        """A saved model, loaded to be measured."""
        return replace(self.task.subject(load(saved).to(self.device), self._step), infers=infers)

    def _exported(self, directory: Path) -> Exported:
        """An exported model, opened to be measured, with as many threads as PyTorch has."""
        threads = torch.get_num_threads()
        return self.task.exported(directory, open_exported(directory, threads))

    def _step(self, model: PreTrainedModel) -> TrainingStep:
        """A training step on a copy of the model, for timing."""
        rate = self.study.train.learning_rate[0]
        return TrainingStep(copy.deepcopy(model).train(), self.study.train, rate, self.accelerator, self.task.loss())


def _taken_over(module: torch.nn.Module | None) -> int:
    """Parameters of a block that are the teacher's, such as an output projection that is kept."""
    if not isinstance(module, BlockModule):
        return 0
    return parameter_count(module) - sum(parameter.numel() for parameter in module.taught_parameters())

"""Prepares a study: reads data and baseline, resolves the plans, and checks everything before anything is trained."""

from __future__ import annotations

import json
import math
from functools import cached_property
from typing import Any

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel

from leanformer.blocks.kit.base import BlockModule
from leanformer.config.base import BASELINE, CandidateConfig, FinetuneConfig, Runtime, Study
from leanformer.core.errors import LeanformerError
from leanformer.core.events import Reporter
from leanformer.core.machine import pick_device
from leanformer.core.signatures import content_signature, files_signature
from leanformer.export.base import FORMATS
from leanformer.learn.dropout import has_dropout
from leanformer.learn.lessons import check_tokens_agree
from leanformer.learn.step import make_accelerator, settle_precision
from leanformer.measure.cost import forward_flops, parameters_by_kind
from leanformer.model.family import FAMILIES
from leanformer.model.plan import TARGET_VOCABULARY, Plan, match
from leanformer.model.students import outline_of_student
from leanformer.model.surgery import ResolvedPlan, module_at, resolve, sites
from leanformer.model.vocabulary import KEPT_SUBWORDS, target_parameters, target_vocabulary
from leanformer.model.weights import parameter_count
from leanformer.study.given_times import GivenTimes
from leanformer.study.ledger import Ledger
from leanformer.study.store import RunDirectory
from leanformer.study.teaching import Teaching, lessons_of
from leanformer.tasks.base import Task, open_task


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
            writing = self.task.evaluation_settings()
            self.given_times = GivenTimes(
                study.measure.from_,
                study.task,
                writing.get("beam", 1),
                writing.get("max_tokens"),
                self.task.sentences(),
            )
            self.task.warnings = [*self.task.warnings, *self.given_times.warnings]
        self.task.check_keys()
        if not study.data.is_one_fold:
            self.task.check_test()
        self.candidates: dict[str, CandidateConfig | None] = {BASELINE: None, **study.candidates}
        self.plans: dict[str, ResolvedPlan] = {BASELINE: {}}
        self._settled: dict[str, Plan] = {}
        self._tasks: dict[str, Task] = {BASELINE: self.task}
        self._outline = self.task.baseline_outline
        self._exportable: dict[tuple[str, Runtime], bool] = {}
        for name, candidate in study.candidates.items():
            where = f"candidates.{name}"
            try:
                self._settled[name] = self.task.settle_plan(candidate.plan)
                plan = resolve(self._outline, self._settled[name])
                if not plan:
                    self._check_control(candidate)
            except LeanformerError as error:
                raise LeanformerError(f"{where}: {error}") from None
            self._tasks[name] = self.task.for_plan(plan, where)
            for task in dict.fromkeys((self.task, self._tasks[name])):  # blocks are taught on the baseline's tokens
                task.check_plan(plan, where)
            if candidate.method == "distill":
                check_tokens_agree(plan, self.finetune(candidate), where)
                if self.finetune(candidate).targets == "teacher" and not study.writes:
                    raise LeanformerError(
                        f"{where}: finetune.targets 'teacher' needs models that write text; leave it out, and give "
                        "finetune.logits a weight"
                    )
                if self.finetune(candidate).dropout is not None and not has_dropout(self._outline):
                    raise LeanformerError(
                        f"{where}: finetune.dropout does nothing here: the baseline has no dropout; leave it out"
                    )
            learns = candidate.method == "scratch" or self.finetune(candidate).epochs > 0
            if not learns and all(entry["block"] in ("none", KEPT_SUBWORDS) for entry in plan.values()):
                only = "leaves out subwords" if TARGET_VOCABULARY in plan else "empties sites"
                raise LeanformerError(
                    f"{where}: the plan only {only}, so that there is no block to teach; give finetune epochs, or take "
                    "method scratch"
                )
            self.plans[name] = plan
        self._check_exports()
        self._check_differ()
        if study.measure.robustness and not self.task.corruptions:
            raise LeanformerError(
                f"measure.robustness does nothing here: there is no corruption of the examples of {study.task}; leave "
                "it out"
            )

    def _check_exports(self) -> None:
        """Refuses candidates that the format in which the study ships cannot hold, before anything is trained.

        Raises:
            LeanformerError: It names the candidate and the site that stands in the way, or a package that is missing.
        """
        engines = {*self.study.runtimes, *([self.study.ship.to] if self.study.ship else [])} - {"torch"}
        for engine in sorted(engines):
            FORMATS[engine].check_installed()
        if self.study.ship is None:
            return
        self.task.check_export()
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
            self._exportable[name, runtime] = True
            try:
                self.task.check_export()
                FORMATS[runtime].check(self._outline_of(name), "float32")
            except LeanformerError as error:
                self._exportable[name, runtime] = False
                self.reporter.say(f"{self.study.name}: {name} is not measured in {runtime}: {error}")
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

    def settled_plan(self, name: str) -> Plan:
        """A candidate's plan as the study writes it, with what depends on the data written out."""
        return self._settled[name]

    def task_of(self, name: str) -> Task:
        """The task as a candidate or the baseline sees it, which may have a tokenizer of its own."""
        return self._tasks[name]

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
    def unlabelled_files(self) -> dict[str, str | int | None]:
        """Likewise of the examples without labels, and how a translator answers them; empty where there are none."""
        source = self.study.data.unlabelled
        if source is None:
            return {}
        found = {"unlabelled_files": files_signature(source), "unlabelled_content": content_signature(source)}
        return found | ({"unlabelled_beam": self.study.finetune.teacher_beam} if self.study.writes else {})

    @cached_property
    def ledger(self) -> Ledger:
        """What was seen of the test split in this run directory."""
        return Ledger(self.directory.path, self.task.test_signature, self.study.accept.looks)

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
        if TARGET_VOCABULARY in plan:
            changes.append(self._change_of_vocabulary(name, student))
        with torch.random.fork_rng(devices=[]):
            # With random weights; without any, steps that depend on a mask could not be counted.
            whole = type(student)(student.config).eval()
        return {
            "changes": changes,
            "parameters": parameter_count(student),
            "parameters_by_kind": parameters_by_kind(student),
            "flops_per_example": forward_flops(whole, self.task_of(name).example()),
            "decoding": self.task_of(name).decoding(whole),
        }

    def _change_of_vocabulary(self, name: str, student: PreTrainedModel) -> dict[str, Any]:
        """What leaving out target subwords changed: rows of the embeddings and of the output projection.

        A baseline whose sides share one matrix keeps it for the source, and its student has a second, smaller one.
        """
        candidate = self.candidates[name]
        assert candidate is not None  # the baseline is not changed
        before, after = target_parameters(self._outline), target_parameters(student)
        return {
            "site": TARGET_VOCABULARY,
            "kind": TARGET_VOCABULARY,
            "block": KEPT_SUBWORDS,
            "arguments": {**candidate.plan[TARGET_VOCABULARY], "kept": target_vocabulary(student.config)},
            "changed": True,
            "parameters_before": before,
            "parameters_after": after,
            "removed": max(0, before - after),
            "added": max(0, after - before),
        }


def _taken_over(module: torch.nn.Module | None) -> int:
    """Parameters of a block that are the teacher's, such as an output projection that is kept."""
    if not isinstance(module, BlockModule):
        return 0
    return parameter_count(module) - sum(parameter.numel() for parameter in module.taught_parameters())

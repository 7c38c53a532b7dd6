"""The main job: data and a baseline in, trained candidates, a table and a decision out."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from rich.console import Console
from transformers import PreTrainedModel

from leanformer.blocks.base import BlockModule
from leanformer.config import (
    BASELINE,
    CandidateConfig,
    FinetuneConfig,
    ImageStudy,
    Study,
    TranslationStudy,
    make_study,
    read_study,
)
from leanformer.errors import LeanformerError
from leanformer.files import write_atomically
from leanformer.learn.distill import frozen_copy, tuning_loss
from leanformer.learn.train import Loss, Trained, TrainingStep, make_accelerator, settle_precision, train
from leanformer.machine import environment, pick_device, threads
from leanformer.measure.cost import forward_flops, measure_costs, parameters_by_kind
from leanformer.model.plan import match
from leanformer.model.students import load, reduce, save
from leanformer.model.surgery import ResolvedPlan, module_at, parameter_count, resolve, sites
from leanformer.progress import Reporter, quiet_libraries
from leanformer.report.page import write_report
from leanformer.results import CandidateOutcome, assemble
from leanformer.rundir import RunDirectory, directory_signature, read_json, to_json
from leanformer.tasks.base import Outcome, Task
from leanformer.tasks.images import ImageClassification
from leanformer.tasks.translation import Translation
from leanformer.teaching import Taught, Teaching, failed_lesson, lesson_key, taught_numbers

CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True)
class StudyResult:
    """What a study came to.

    Args:
        directory: The run directory.
        results: The content of its ``results.json``.
        report: The report's page.
    """

    directory: Path
    results: dict[str, Any]
    report: Path

    @property
    def recommended(self) -> str | None:
        """The candidate to ship, or ``baseline``; None where the baseline itself failed."""
        name: str | None = self.results["recommended"]
        return name

    def model(self) -> PreTrainedModel:
        """The recommended model, loaded.

        Raises:
            LeanformerError: Nothing was recommended.
        """
        if self.results["ship"] is None:
            raise LeanformerError(self.results["recommendation"])
        return load(self.directory / self.results["ship"])


def run(
    study: Study | Mapping[str, Any] | str | Path,
    directory: str | Path | None = None,
    console: Console | None = None,
) -> StudyResult:
    """Runs a study: trains the baseline and every candidate with every seed, measures, decides, reports.

    What the run directory holds already is not done again; a training that was cut off goes on from its last
    checkpoint; what the study has changed since is done anew, and the console says why.

    Args:
        study: A study, its plain data, or the path of its file.
        directory: The run directory; by default ``runs/`` and the study's name.
        console: Where progress is shown; by default standard error.

    Returns:
        The results, which are also in the directory as ``results.json`` and ``report.html``.

    Raises:
        LeanformerError: Anything in the study, its data, its models or the directory is wrong.
    """
    # 1. the study
    if isinstance(study, str | Path):
        study = read_study(study)
    elif not isinstance(study, Study):
        study = make_study(study)
    path = Path(directory) if directory is not None else Path("runs") / study.name
    console = console or Console(stderr=True)
    with quiet_libraries(), threads(study.measure.threads), RunDirectory(path, study) as run_directory:
        with Reporter(study.name, console) as reporter:
            # 2. data and baseline, checked before anything is trained
            job = StudyJob(study, run_directory, reporter)
            # 3. train and evaluate
            outcomes = job.outcomes()
            # 4. measure
            costs = job.costs(outcomes)
            # 5. decide
            results = assemble(study, job.task, outcomes, costs, environment(job.device, job.precision))
            write_atomically(path / "results.json", to_json(results))
        # 6. report
        return StudyResult(path, results, write_report(path))


def open_task(study: Study, device: torch.device) -> Task:
    """A study's task: its data are read, its baseline is checked.

    Raises:
        LeanformerError: Data or baseline are wrong, or do not fit each other.
    """
    if isinstance(study, ImageStudy):
        return ImageClassification(study, device)
    assert isinstance(study, TranslationStudy)
    return Translation(study, device)


class StudyJob:
    """One run of a study: its data and baseline, checked, and how to train, evaluate and measure every candidate.

    Args:
        study: The study.
        directory: Its run directory, open.
        reporter: Where progress is shown.

    Raises:
        LeanformerError: Data, baseline or plans are wrong, or do not fit each other.
    """

    def __init__(self, study: Study, directory: RunDirectory, reporter: Reporter) -> None:
        self.study = study
        self.directory = directory
        self.reporter = reporter
        self.device = pick_device(study.measure.device)
        self.precision = settle_precision(study.train.precision, self.device)
        self.accelerator: Accelerator = make_accelerator(self.precision, self.device)
        self.task = open_task(study, self.device)
        for note in self.task.notes:
            reporter.say(f"{study.name}: {note}", style="dim")
        self.candidates: dict[str, CandidateConfig | None] = {BASELINE: None, **study.candidates}
        self.plans: dict[str, ResolvedPlan] = {BASELINE: {}}
        model = self.task.make_baseline(seed=0)
        for name, candidate in study.candidates.items():
            where = f"candidates.{name}"
            try:
                plan = resolve(model, candidate.plan)
                if not plan:
                    raise LeanformerError("the plan changes nothing; the baseline is trained anyway")
            except LeanformerError as error:
                raise LeanformerError(f"{where}: {error}") from None
            self.task.check_plan(plan, where)
            learns = candidate.method == "scratch" or self._finetune(candidate).epochs > 0
            if not learns and all(entry["block"] == "none" for entry in plan.values()):
                raise LeanformerError(
                    f"{where}: the plan only empties sites, so that there is no block to teach; give finetune "
                    "epochs, or take method scratch"
                )
            self.plans[name] = plan
        self.teaching = Teaching(directory, self.task, study.distill, study.train, self.accelerator, reporter)
        self.taught: dict[int, dict[str, Taught]] = {}

    def _finetune(self, candidate: CandidateConfig) -> FinetuneConfig:
        return candidate.finetune or self.study.finetune

    # Trials

    def outcomes(self) -> list[CandidateOutcome]:
        """Trains and evaluates everything that is not there yet; the baseline's outcome is the first."""
        rates = len(self.study.train.learning_rate) if self._searches() else 0
        shared = 1 if rates and self.study.train.search_epochs is None else 0
        distilled = [name for name in self.candidates if self._is_distilled(name)]
        trained = len(self.candidates) - len(distilled)
        seeds = len(self.study.seeds)
        # With each seed all blocks are taught at once.
        self.reporter.plan(trained * (rates + seeds - shared) + seeds * (len(distilled) + bool(distilled)))
        return [self._outcome(name) for name in self.candidates]

    def _is_distilled(self, name: str) -> bool:
        candidate = self.candidates[name]
        return candidate is not None and candidate.method == "distill"

    def _outcome(self, name: str) -> CandidateOutcome:
        candidate = self.candidates[name]
        search = self._search(name) if self._searches() and not self._is_distilled(name) else []
        trials, answers, directories = {}, {}, {}
        for seed in self.study.seeds:
            directory = self.directory.trial(name, seed)
            if self._is_distilled(name):
                trials[seed] = self._distilled_trial(name, seed)
            else:
                trials[seed] = self._trial(name, seed, self._rate(search))
            directories[seed] = directory.relative_to(self.directory.path).as_posix()
            if trials[seed]["trained"]["status"] == "ok":
                answers[seed] = self.task.read_answers(directory / "predictions.parquet")
        if name == BASELINE:
            self._baseline_trials = trials
        # Models of the search were only for the winner to be taken over.
        for rate in self.study.train.learning_rate:
            shutil.rmtree(self.directory.search(name, rate) / "model", ignore_errors=True)
        return CandidateOutcome(
            name,
            "scratch" if candidate is None else candidate.method,
            {} if candidate is None else candidate.plan,
            self._structure(name),
            [
                {key: run[key] for key in ("learning_rate", self.study.accept.metric, "loss")}
                | {"status": run["trained"]["status"]}
                for run in search
            ],
            trials,
            Outcome(answers),
            directories,
        )

    def _searches(self) -> bool:
        return len(self.study.train.learning_rate) > 1 and self.study.train.epochs > 0

    def _rate(self, search: list[dict[str, Any]]) -> float:
        """The rate of the best validation quality; of equals the smaller loss, then the first."""
        if not search:
            return self.study.train.learning_rate[0]
        good = [run for run in search if run["trained"]["status"] == "ok"]
        metric = self.study.accept.metric
        best = max(good or search[:1], key=lambda run: (run[metric] or 0.0, -(run["loss"] or 0.0)))
        return float(best["learning_rate"])

    def _search(self, name: str) -> list[dict[str, Any]]:
        """One training a rate with the first seed, judged on the validation split."""
        seed = self.study.seeds[0]
        metric = self.study.accept.metric
        runs = []
        for rate in self.study.train.learning_rate:
            directory = self.directory.search(name, rate)
            epochs = self.study.train.search_epochs or self.study.train.epochs
            self._prepare(directory, f"{name}, search at rate {rate:g}", self._settings(name, seed, rate, epochs))
            result = self.directory.finished(directory)
            if result is None:
                model = self._model(name, seed)
                trained = self._train(model, directory, f"{name} · rate {rate:g}", rate, seed, epochs)
                last = trained.epochs[-1] if trained.status == "ok" else {}
                result = {
                    "learning_rate": rate,
                    metric: last.get(f"validation_{metric}"),
                    "loss": last.get("validation_loss"),
                    "trained": asdict(trained),
                }
                if trained.status == "ok":
                    self._save(model, directory / "model")
                self._finish(directory, result)
            else:
                self.reporter.skip()
            runs.append(result)
        return runs

    def _trial(self, name: str, seed: int, rate: float) -> dict[str, Any]:
        directory = self.directory.trial(name, seed)
        epochs = self.study.train.epochs
        self._prepare(directory, f"{name}, seed {seed}", self._settings(name, seed, rate, epochs))
        # The search has trained the first seed at this very rate, unless its budget was another.
        shared = self._searches() and seed == self.study.seeds[0] and self.study.train.search_epochs is None
        result = self.directory.finished(directory)
        if result is not None:
            if not shared:
                self.reporter.skip()
            return result
        searched = self.directory.search(name, rate)
        found = self.directory.finished(searched) if shared else None
        model = None
        if found is not None and found["trained"]["status"] != "ok":
            trained = Trained(**found["trained"])
        elif found is not None and (searched / "model").is_dir():
            trained = Trained(**found["trained"])
            shutil.rmtree(directory / "model", ignore_errors=True)
            shutil.copytree(searched / "model", directory / "model")
            model = load(directory / "model").to(self.device)
        else:
            model = self._model(name, seed)
            trained = self._train(model, directory, f"{name} · seed {seed}", rate, seed, epochs)
        return self._end_trial(name, seed, rate, trained, model, [])

    def _distilled_trial(self, name: str, seed: int) -> dict[str, Any]:
        """Assembles a student from the teacher and its taught blocks, and tunes it where that is asked for."""
        candidate = self.candidates[name]
        assert candidate is not None
        finetune = self._finetune(candidate)
        directory = self.directory.trial(name, seed)
        teacher_settings = self._teacher_settings(seed)
        settings = {
            **teacher_settings,
            "plan": candidate.plan,
            "method": candidate.method,
            "distill": self.study.distill.model_dump(mode="json", exclude={"memory_fraction"}),
            "finetune": finetune.model_dump(mode="json") if finetune.epochs else None,
        }
        self._prepare(directory, f"{name}, seed {seed}", settings)
        result = self.directory.finished(directory)
        if result is not None:
            self.reporter.skip()
            return result
        rate = finetune.learning_rate if finetune.epochs else self.study.distill.learning_rate
        teacher_trial = self._baseline_trials[seed]
        if teacher_trial["trained"]["status"] != "ok":
            reason = f"its teacher failed: {teacher_trial['trained']['reason']}"
            return self._end_trial(name, seed, rate, Trained(status="failed", reason=reason), None, [])
        teacher = load(self.directory.trial(BASELINE, seed) / "model").to(self.device)
        if seed not in self.taught:
            plans = [self.plans[other] for other in self.candidates if self._is_distilled(other)]
            self.taught[seed] = self.teaching.teach(teacher, plans, seed, teacher_settings)
        keys = [lesson_key(site, entry) for site, entry in self.plans[name].items()]
        taught = [self.taught[seed][key] for key in keys if key in self.taught[seed]]
        trained = failed_lesson(taught) or Trained()
        model = None
        if trained.status == "ok":
            torch.manual_seed(seed)
            model = reduce(teacher, candidate.plan)
            for block in taught:
                block.put_into(model)
            title = f"{name} · seed {seed}"
            if finetune.epochs:
                asks = finetune.logits > 0 or finetune.hidden_states > 0
                loss = tuning_loss(
                    frozen_copy(reduce(teacher, {})) if asks else None, finetune, self.study.train.label_smoothing
                )
                trained = self._train(model, directory, title, rate, seed, finetune.epochs, loss)
            else:
                self.reporter.start(title, 0)
                self.reporter.done("assembled")
        return self._end_trial(name, seed, rate, trained, model, taught)

    def _end_trial(
        self,
        name: str,
        seed: int,
        rate: float,
        trained: Trained,
        model: PreTrainedModel | None,
        taught: list[Taught],
    ) -> dict[str, Any]:
        """Saves and evaluates a trained model, and writes the trial's result."""
        directory = self.directory.trial(name, seed)
        result = {
            "candidate": name,
            "seed": seed,
            "learning_rate": rate,
            "trained": asdict(trained),
            "taught": taught_numbers(taught),
        }
        if trained.status == "ok":
            assert model is not None
            self._save(model, directory / "model")
            last = trained.epochs[-1] if trained.epochs else self.task.validate(model, last=True)
            result["validation"] = {key: value for key, value in last.items() if key.startswith("validation_")}
            answers = self.task.evaluate(model)
            write_atomically(directory / "predictions.parquet", answers.to_bytes())
            result |= self.task.scores(answers)
        self._finish(directory, result)
        return result

    def _prepare(self, directory: Path, what: str, settings: dict[str, Any]) -> None:
        """Makes the directory ready, and says so where the study has changed since."""
        reason = self.directory.prepare(directory, settings)
        if reason is not None:
            self.reporter.say(f"{self.study.name}: {what} runs again: {reason}", style="yellow")

    def _settings(self, name: str, seed: int, rate: float, epochs: int) -> dict[str, Any]:
        """Everything that a training's outcome follows from."""
        study = self.study.model_dump(mode="json")
        train = {
            key: value
            for key, value in study["train"].items()
            if key not in ("learning_rate", "search_epochs", "checkpoint_seconds")
        }
        candidate = self.candidates[name]
        return {
            "data": study["data"],
            "data_files": directory_signature(self.study.data.source),
            "baseline": study["baseline"],
            "baseline_files": directory_signature(self.study.baseline.model),
            "plan": {} if candidate is None else candidate.plan,
            "method": "scratch" if candidate is None else candidate.method,
            "train": {**train, "epochs": epochs, "precision": self.precision},
            "decode": study.get("decode"),
            "device": self.device.type,
            "learning_rate": rate,
            "seed": seed,
        }

    def _teacher_settings(self, seed: int) -> dict[str, Any]:
        """Everything that a teacher, the baseline's trained model, follows from."""
        path = self.directory.trial(BASELINE, seed) / "settings.json"
        settings = read_json(path, f"delete {path.parent} and run again to repeat this trial")
        return {"teacher": settings}

    def _model(self, name: str, seed: int) -> PreTrainedModel:
        """The model as a trial starts with it, on the study's device."""
        candidate = self.candidates[name]
        model = self.task.make_baseline(seed)
        student = copy.deepcopy(model) if candidate is None else reduce(model, candidate.plan)
        return student.to(self.device)

    def _train(
        self,
        model: PreTrainedModel,
        directory: Path,
        title: str,
        rate: float,
        seed: int,
        epochs: int,
        loss: Loss | None = None,
    ) -> Trained:
        self.reporter.start(title, epochs)
        observer = TrialObserver(self, epochs)
        checkpoint = directory / CHECKPOINT
        trained = train(
            model, self.task.batches, self.study.train, rate, seed, observer, self.accelerator, checkpoint, epochs, loss
        )
        self.reporter.done("" if trained.status == "ok" else f"failed: {trained.reason}")
        return trained

    def _save(self, model: PreTrainedModel, directory: Path) -> None:
        """The model, and what it takes to use it elsewhere."""
        save(model, directory)
        self.task.save_companions(directory)

    def _finish(self, directory: Path, result: dict[str, Any]) -> None:
        write_atomically(directory / "result.json", to_json(result))
        (directory / CHECKPOINT).unlink(missing_ok=True)

    # Structure and cost

    def _structure(self, name: str) -> dict[str, Any]:
        """What the model is made of, and what the plan changed, site by site."""
        model = self.task.make_baseline(seed=0)
        before = {site.name: site for site in sites(model)}
        plan = self.plans[name]
        student = reduce(model, plan) if plan else model
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
                    # What the plan says of a block's size as it says it, though the block has written it out.
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
        return {
            "changes": changes,
            "parameters": parameter_count(student),
            "parameters_by_kind": parameters_by_kind(student),
            "flops_per_example": forward_flops(student.cpu().eval(), self.task.example()),
        }

    def costs(self, outcomes: list[CandidateOutcome]) -> dict[str, dict[str, Any]]:
        """Time and memory of every model whose trials ended well, measured together."""
        names = {outcome.name: outcome.directories for outcome in outcomes if outcome.ok}
        settings = {
            "measure": self.study.measure.model_dump(mode="json"),
            "models": {
                name: read_json(self.directory.path / next(iter(directories.values())) / "settings.json", "delete it")
                for name, directories in names.items()
            },
        }
        path = self.directory.path / "costs.json"
        if path.exists():
            known = read_json(path, "delete it and run again to measure anew")
            if known["settings"] == settings:
                costs: dict[str, dict[str, Any]] = known["costs"]
                return costs
        if not names:
            return {}
        self.reporter.say(f"{self.study.name}: measuring time and memory of {len(names)} models in turn")
        subjects = {
            name: self.task.subject(
                load(self.directory.path / next(iter(directories.values())) / "model").to(self.device), self._step
            )
            for name, directories in names.items()
        }
        measured = measure_costs(subjects, self.device, self.study.measure.repeats, self.study.measure.latency_calls)
        costs = {name: cost.summary() for name, cost in measured.items()}
        write_atomically(path, to_json({"settings": settings, "costs": costs}))
        return costs

    def _step(self, model: PreTrainedModel) -> TrainingStep:
        """A training step on a copy, to be timed."""
        rate = self.study.train.learning_rate[0]
        return TrainingStep(copy.deepcopy(model).train(), self.study.train, rate, self.accelerator)


def _taken_over(module: torch.nn.Module | None) -> int:
    """Numbers of a block that are the teacher's own, such as an output projection that stays."""
    if not isinstance(module, BlockModule):
        return 0
    return parameter_count(module) - sum(parameter.numel() for parameter in module.taught_parameters())


class TrialObserver:
    """Validates after each epoch and shows a training's progress.

    Args:
        job: The study's data and reporter.
        epochs: Epochs of the training.
    """

    def __init__(self, job: StudyJob, epochs: int) -> None:
        self._job = job
        self._epochs = epochs

    def validate(self, model: torch.nn.Module, last: bool) -> dict[str, float]:
        """Loss and quality on the validation split."""
        assert isinstance(model, PreTrainedModel)
        return self._job.task.validate(model, last)

    def step_ended(self, epoch: int, step: int, steps_per_epoch: int) -> None:
        """Moves the bar."""
        self._job.reporter.step(epoch, step, steps_per_epoch)

    def epoch_ended(self, record: dict[str, float], examples_per_second: float) -> None:
        """Shows the epoch's numbers."""
        self._job.reporter.epoch(record, self._epochs, examples_per_second, self._job.task.progress(record))

    def rolled_back(self, reason: str) -> None:
        """Says that training went back to its last good state."""
        self._job.reporter.say(f"{self._job.study.name}: {reason}", style="yellow")

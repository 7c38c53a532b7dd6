"""The trials of a study: every candidate with every seed, trained or distilled, and evaluated."""

from __future__ import annotations

import copy
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from leanformer.config import BASELINE, TextDataConfig, TrainConfig
from leanformer.files import write_atomically
from leanformer.job import StudyJob
from leanformer.learn.distill import frozen_copy, tuning_loss
from leanformer.learn.train import Loss, Trained, TrainingBatches, train
from leanformer.model.students import load, reduce, save
from leanformer.results import CandidateOutcome
from leanformer.rundir import differences, files_signature, read_json, to_json
from leanformer.tasks.base import Outcome
from leanformer.teaching import Taught, Teaching, failed_lesson, lesson_key, taught_numbers

CHECKPOINT = "checkpoint.safetensors"


class Trials:
    """Trains and evaluates what the run directory does not hold yet.

    Args:
        job: The study, made ready.
    """

    def __init__(self, job: StudyJob) -> None:
        self.job = job
        self.study = job.study
        self.directory = job.directory
        self._teaching = Teaching(
            job.directory, job.task, self.study.distill, self.study.train, job.accelerator, job.reporter
        )
        self._taught: dict[int, dict[str, Taught]] = {}
        self._baseline_trials: dict[int, dict[str, Any]] = {}

    def outcomes(self) -> list[CandidateOutcome]:
        """Trains and evaluates everything that is not there yet; the baseline's outcome is the first."""
        rates = len(self.study.train.learning_rate) if self._searches() else 0
        shared = 1 if rates and self.study.train.search_epochs is None else 0
        distilled = [name for name in self.job.candidates if self.job.is_distilled(name)]
        trained = len(self.job.candidates) - len(distilled)
        seeds = len(self.study.seeds)
        tunings = [self.job.finetune(candidate) for name in distilled if (candidate := self.job.candidates[name])]
        beams = {tuning.teacher_beam for tuning in tunings if tuning.epochs and tuning.targets == "teacher"}
        # With each seed all blocks are taught at once, and the teacher translates once.
        of_seed = len(distilled) + bool(distilled) + len(beams)
        self.job.reporter.plan(trained * (rates + seeds - shared) + seeds * of_seed)
        return [self._outcome(name) for name in self.job.candidates]

    def _outcome(self, name: str) -> CandidateOutcome:
        candidate = self.job.candidates[name]
        search = self._search(name) if self._searches() and not self.job.is_distilled(name) else []
        trials, answers, directories = {}, {}, {}
        for seed in self.study.seeds:
            directory = self.directory.trial(name, seed)
            if self.job.is_distilled(name):
                trials[seed] = self._distilled_trial(name, seed)
            else:
                trials[seed] = self._trial(name, seed, self._rate(search))
            directories[seed] = directory.relative_to(self.directory.path).as_posix()
            if trials[seed]["trained"]["status"] == "ok":
                answers[seed] = self.job.task.read_answers(directory / "predictions.parquet")
        if name == BASELINE:
            self._baseline_trials = trials
        # Models of the search were only for the winner to be taken over.
        for rate in self.study.train.learning_rate:
            shutil.rmtree(self.directory.search(name, rate) / "model", ignore_errors=True)
        return CandidateOutcome(
            name,
            "scratch" if candidate is None else candidate.method,
            {} if candidate is None else candidate.plan,
            self.job.structure(name),
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
                # Every metric's: which one judges may be changed without training anew.
                result = {
                    "learning_rate": rate,
                    metric: None,
                    "loss": None,
                    **{
                        key.removeprefix("validation_"): value
                        for key, value in last.items()
                        if key.startswith("validation_")
                    },
                    "trained": asdict(trained),
                }
                if trained.status == "ok":
                    self._save(model, directory / "model")
                self._finish(directory, result)
            else:
                self.job.reporter.skip()
            runs.append(result)
        return runs

    def _trial(self, name: str, seed: int, rate: float) -> dict[str, Any]:
        directory = self.directory.trial(name, seed)
        epochs = self.study.train.epochs
        self._prepare(directory, f"{name}, seed {seed}", self._settings(name, seed, rate, epochs))
        # The search has trained the first seed at this very rate, unless its budget was another.
        shared = self._searches() and seed == self.study.seeds[0] and self.study.train.search_epochs is None
        result = self._finished(name, seed)
        if result is not None:
            if not shared:
                self.job.reporter.skip()
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
            model = load(directory / "model").to(self.job.device)
        else:
            model = self._model(name, seed)
            trained = self._train(model, directory, f"{name} · seed {seed}", rate, seed, epochs)
        return self._end_trial(name, seed, rate, trained, model, [])

    def _distilled_trial(self, name: str, seed: int) -> dict[str, Any]:
        """Assembles a student from the teacher and its taught blocks, and tunes it where that is asked for."""
        candidate = self.job.candidates[name]
        assert candidate is not None
        finetune = self.job.finetune(candidate)
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
        result = self._finished(name, seed)
        if result is not None:
            self.job.reporter.skip()
            return result
        rate = finetune.learning_rate if finetune.epochs else self.study.distill.learning_rate
        teacher_trial = self._baseline_trials[seed]
        if teacher_trial["trained"]["status"] != "ok":
            reason = f"its teacher failed: {teacher_trial['trained']['reason']}"
            return self._end_trial(name, seed, rate, Trained(status="failed", reason=reason), None, [])
        teacher = load(self.directory.trial(BASELINE, seed) / "model").to(self.job.device)
        if seed not in self._taught:
            plans = [self.job.plans[other] for other in self.job.candidates if self.job.is_distilled(other)]
            self._taught[seed] = self._teaching.teach(teacher, plans, seed, teacher_settings)
        keys = [lesson_key(site, entry) for site, entry in self.job.plans[name].items()]
        taught = [self._taught[seed][key] for key in keys if key in self._taught[seed]]
        trained = failed_lesson(taught) or Trained()
        answering = 0.0
        model = None
        if trained.status == "ok":
            torch.manual_seed(seed)
            model = reduce(teacher, candidate.plan)
            for block in taught:
                block.put_into(model)
            title = f"{name} · seed {seed}"
            if finetune.epochs:
                batches = self.job.task.batches
                if finetune.targets == "teacher":
                    answers = self._teaching.answers(teacher, finetune.teacher_beam, seed, teacher_settings)
                    batches, answering = self.job.task.batches_with(answers.texts), answers.seconds
                asks = finetune.logits > 0 or finetune.hidden_states > 0
                loss = tuning_loss(
                    frozen_copy(reduce(teacher, {})) if asks else None, finetune, self.study.train.label_smoothing
                )
                config = self.study.train.model_copy(update={"average_last": finetune.average_last})
                trained = self._train(model, directory, title, rate, seed, finetune.epochs, loss, batches, config)
            else:
                self.job.reporter.start(title, 0)
                self.job.reporter.done("assembled")
        return self._end_trial(name, seed, rate, trained, model, taught, answering)

    def _end_trial(
        self,
        name: str,
        seed: int,
        rate: float,
        trained: Trained,
        model: PreTrainedModel | None,
        taught: list[Taught],
        answering: float = 0.0,
    ) -> dict[str, Any]:
        """Saves and evaluates a trained model, and writes the trial's result.

        Args:
            name: The candidate.
            seed: The trial's.
            rate: At which it was trained.
            trained: How that went.
            model: None where it failed.
            taught: The blocks that it was assembled from.
            answering: Seconds in which the teacher found the answers that it learned from, where it did.
        """
        directory = self.directory.trial(name, seed)
        result = {
            "candidate": name,
            "seed": seed,
            "learning_rate": rate,
            "trained": asdict(trained),
            "taught": taught_numbers(taught),
            "answering_seconds": answering,
        }
        if trained.status == "ok":
            assert model is not None
            self._save(model, directory / "model")
            last = trained.epochs[-1] if trained.epochs else self.job.task.validate(model, last=True)
            result["validation"] = {key: value for key, value in last.items() if key.startswith("validation_")}
            result |= self._evaluated(model, directory)
        self._finish(directory, result)
        return result

    def _evaluated(self, model: PreTrainedModel, directory: Path) -> dict[str, Any]:
        """Answers the test split, keeps the answers, and gives their scores and how they were asked for."""
        answers = self.job.task.evaluate(model)
        write_atomically(directory / "predictions.parquet", answers.to_bytes())
        return {"evaluation": self.job.task.evaluation_settings(), **self.job.task.scores(answers)}

    def _finished(self, name: str, seed: int) -> dict[str, Any] | None:
        """A trial's result, if it is there; one that was evaluated otherwise than the study asks is evaluated anew."""
        directory = self.directory.trial(name, seed)
        result = self.directory.finished(directory)
        if result is None or result["trained"]["status"] != "ok":
            return result
        changed = differences(result["evaluation"], self.job.task.evaluation_settings())
        if changed:
            what = "; ".join(changed)
            self.job.reporter.say(f"{self.study.name}: {name}, seed {seed} is evaluated again: {what}", style="yellow")
            model = load(directory / "model").to(self.job.device)
            result |= self._evaluated(model, directory)
            self._finish(directory, result)
        return result

    def _prepare(self, directory: Path, what: str, settings: dict[str, Any]) -> None:
        """Makes the directory ready, and says so where the study has changed since."""
        reason = self.directory.prepare(directory, settings)
        if reason is not None:
            self.job.reporter.say(f"{self.study.name}: {what} runs again: {reason}", style="yellow")

    def _settings(self, name: str, seed: int, rate: float, epochs: int) -> dict[str, Any]:
        """Everything that a training's outcome follows from."""
        study = self.study.model_dump(mode="json")
        train = {
            key: value
            for key, value in study["train"].items()
            if key not in ("learning_rate", "search_epochs", "checkpoint_seconds")
        }
        candidate = self.job.candidates[name]
        return {
            "data": study["data"],
            "data_files": files_signature(self.study.data.source, self._endings()),
            "baseline": study["baseline"],
            "baseline_files": files_signature(self.study.baseline.model),
            "plan": {} if candidate is None else candidate.plan,
            "method": "scratch" if candidate is None else candidate.method,
            "train": {**train, "epochs": epochs, "precision": self.job.precision},
            "task": self.job.task.training_settings(),
            "device": self.job.device.type,
            "learning_rate": rate,
            "seed": seed,
        }

    def _endings(self) -> tuple[str, ...]:
        """Of the files that a source names up to the language."""
        data = self.study.data
        return (data.source_language, data.target_language) if isinstance(data, TextDataConfig) else ()

    def _teacher_settings(self, seed: int) -> dict[str, Any]:
        """Everything that a teacher, the baseline's trained model, follows from."""
        path = self.directory.trial(BASELINE, seed) / "settings.json"
        settings = read_json(path, f"delete {path.parent} and run again to repeat this trial")
        return {"teacher": settings}

    def _model(self, name: str, seed: int) -> PreTrainedModel:
        """The model as a trial starts with it, on the study's device."""
        candidate = self.job.candidates[name]
        model = self.job.task.make_baseline(seed)
        student = copy.deepcopy(model) if candidate is None else reduce(model, candidate.plan)
        return student.to(self.job.device)

    def _train(
        self,
        model: PreTrainedModel,
        directory: Path,
        title: str,
        rate: float,
        seed: int,
        epochs: int,
        loss: Loss | None = None,
        batches: TrainingBatches | None = None,
        config: TrainConfig | None = None,
    ) -> Trained:
        """Trains as the study says, with other batches or another configuration where they are given."""
        self.job.reporter.start(title, epochs)
        observer = TrialObserver(self.job, epochs)
        checkpoint = directory / CHECKPOINT
        trained = train(
            model,
            batches or self.job.task.batches,
            config or self.study.train,
            rate,
            seed,
            observer,
            self.job.accelerator,
            checkpoint,
            epochs,
            loss,
        )
        note = "as it is" if epochs == 0 else ""
        self.job.reporter.done(note if trained.status == "ok" else f"failed: {trained.reason}")
        return trained

    def _save(self, model: PreTrainedModel, directory: Path) -> None:
        """The model, and what it takes to use it elsewhere."""
        save(model, directory)
        self.job.task.save_companions(directory)

    def _finish(self, directory: Path, result: dict[str, Any]) -> None:
        write_atomically(directory / "result.json", to_json(result))
        (directory / CHECKPOINT).unlink(missing_ok=True)


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

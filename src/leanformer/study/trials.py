"""The trials of a study: every candidate with every seed, trained or distilled, and evaluated."""

from __future__ import annotations

import copy
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from leanformer.config.base import BASELINE, TrainConfig
from leanformer.core.errors import LeanformerError
from leanformer.core.files import remove, replace_directory, write_atomically
from leanformer.core.memory import memory_named
from leanformer.learn.checkpoint import going_on
from leanformer.learn.lessons import frozen_copy, tuning_loss
from leanformer.learn.train import Loss, Trained, TrainingBatches, train
from leanformer.model.students import load, reduce, save
from leanformer.model.surgery import ResolvedPlan
from leanformer.results.metrics import METRICS
from leanformer.study.assemble import CandidateOutcome
from leanformer.study.prepare import StudyJob
from leanformer.study.steps import Part, Parts
from leanformer.study.store import CHECKPOINT, differences
from leanformer.study.teaching import Taught, Teaching, failed_lesson, lesson_key, lessons_of, taught_numbers
from leanformer.tasks.base import Outcome

VALIDATION = "validation.parquet"  # a search's answers, by which its rate is judged


class Trials:
    """Trains and evaluates what the run directory does not hold yet.

    Args:
        job: The study, made ready.
        jobs: Trainings that there are at a time, in this process or others.
    """

    def __init__(self, job: StudyJob, jobs: int = 1) -> None:
        self.job = job
        self._jobs = jobs
        self.study = job.study
        self.directory = job.directory
        self._teaching = Teaching(
            job.directory, job.task, self.study.distill, self.study.train, job.accelerator, job.reporter, jobs
        )
        self._lessons_of: dict[int, list[Part]] = {}
        self._taught: dict[int, dict[str, Taught]] = {}
        self._parts = Parts(job)

    def announce(self) -> None:
        """Tells the reporter how many trainings there are."""
        rates = len(self.study.train.learning_rate) if self._searches() else 0
        shared = 1 if rates and self.study.train.search_epochs is None else 0
        distilled = self._distilled
        trained = len(self.job.candidates) - len(distilled)
        seeds = len(self.study.seeds)
        self.job.reporter.plan(trained * (rates + seeds - shared) + seeds * (len(distilled) + self._planned_lessons()))

    def outcomes(self) -> list[CandidateOutcome]:
        """Trains and evaluates everything that is not there yet; the baseline's outcome is the first."""
        return [self._outcome(name) for name in self.job.candidates]

    def waves(self) -> Iterator[list[Part]]:
        """Everything that is trained, in parts that can be done at once; each wave needs what came before it.

        What of a wave was not done when the next is asked for is done before it, and blocks are taught before their
        students.
        """
        seeds = self.study.seeds
        distilled = self._distilled
        others = [name for name in self.job.candidates if name not in distilled]
        if self._searches():
            yield [Part("search", name, seeds[0], rate) for name in others for rate in self.study.train.learning_rate]
        rates = {name: self._rate(self._search(name)) for name in others}
        yield [Part("trial", name, seed, rates[name]) for name in others for seed in seeds]
        lessons: list[Part] = []
        for seed in seeds if distilled else ():
            baseline = self.do(Part("trial", BASELINE, seed, rates[BASELINE]))
            if baseline["trained"]["status"] == "ok" and any(self.is_missing(part) for part in self._students(seed)):
                lessons += self._lessons(seed)
        lessons.sort(key=lambda part: part.kind != "answers")  # else the teacher translates alone, at the end
        yield lessons
        for part in lessons:
            self.do(part)
        yield [part for seed in seeds for part in self._students(seed)]

    def is_missing(self, part: Part) -> bool:
        """Whether a part is still to be done; what was done with other settings is removed."""
        if part.kind == "teaching":
            known = self._known(part.seed)
            return any(known[key] is None for key in part.blocks)
        if part.kind == "answers":
            return self._teaching.answers(part.beam, part.seed, self._parts.teacher_settings(part.seed)) is None
        return self._parts.result(part) is None

    def do(self, part: Part) -> dict[str, Any]:
        """A part's result: that which is there, or else what it comes to now. A lesson has none."""
        if part.is_lesson:
            if self.is_missing(part):
                self._give_lesson(part)
            else:
                self.were_there([part])
            return {}
        result = self._parts.result(part)
        if result is not None:
            self.were_there([part])
            return (self._judged_as_asked if part.kind == "search" else self._evaluated_as_asked)(part, result)
        if part.kind == "search":
            return self._search_at(part)
        return self._trial(part) if part.kind == "trial" else self._distilled_trial(part)

    def were_there(self, parts: Sequence[Part]) -> None:
        """Shows parts that are there already as done, each once."""
        for part in parts:
            if not self._is_of_search(part):
                self._parts.skip(part)

    def were_done(self, parts: Sequence[Part]) -> None:
        """Takes note of parts that another process has done, and shown as done."""
        for part in parts:
            self._parts.count(part)

    def _outcome(self, name: str) -> CandidateOutcome:
        candidate = self.job.candidates[name]
        search = [] if self.job.is_distilled(name) else self._search(name)
        trials, answers, directories = {}, {}, {}
        for seed in self.study.seeds:
            directory = self.directory.trial(name, seed)
            if self.job.is_distilled(name):
                trials[seed] = self.do(Part("student", name, seed))
            else:
                trials[seed] = self.do(Part("trial", name, seed, self._rate(search)))
            directories[seed] = directory.relative_to(self.directory.path).as_posix()
            if trials[seed]["trained"]["status"] == "ok":
                answers[seed] = self.job.task.read_answers(directory / "predictions.parquet")
        # Models of the search were only for the winner to be taken over.
        for rate in self.study.train.learning_rate:
            remove(self.directory.search(name, rate) / "model")
        return CandidateOutcome(
            name,
            "scratch" if candidate is None else candidate.method,
            {} if candidate is None else candidate.plan,
            self.job.structure(name),
            [
                {key: run.get(key) for key in ("learning_rate", self.study.accept.metric, "loss")}
                | {"status": run["trained"]["status"]}
                for run in search
            ],
            trials,
            Outcome(answers),
            directories,
        )

    def _searches(self) -> bool:
        return len(self.study.train.learning_rate) > 1 and self.study.train.epochs > 0

    def _is_of_search(self, part: Part) -> bool:
        """Whether the search has trained this trial, the first seed's at its rate, unless its budget was another."""
        same = part.seed == self.study.seeds[0] and self.study.train.search_epochs is None
        return part.kind == "trial" and self._searches() and same

    def _rate(self, search: list[dict[str, Any]]) -> float:
        """The rate of the best validation quality; of equals the smaller loss, then the first."""
        if not search:
            return self.study.train.learning_rate[0]
        good = [run for run in search if run["trained"]["status"] == "ok"]
        metric = METRICS[self.study.accept.metric]
        # A search of before there was this metric, whose answers were not kept, goes by its loss alone.
        best = max(
            good or search[:1], key=lambda run: (metric.sign * (run.get(metric.key) or 0.0), -(run["loss"] or 0.0))
        )
        return float(best["learning_rate"])

    def _teacher_beams(self, names: Sequence[str]) -> list[int]:
        """The beams with which the baseline translates the training data for these students, where they learn so."""
        candidates = (self.job.candidates[name] for name in names)
        tunings = [self.job.finetune(candidate) for candidate in candidates if candidate is not None]
        return sorted({tuning.teacher_beam for tuning in tunings if tuning.epochs and tuning.targets == "teacher"})

    def _search(self, name: str) -> list[dict[str, Any]]:
        """One training a rate with the first seed, judged on the validation split; none where there is one rate."""
        if not self._searches():
            return []
        seed = self.study.seeds[0]
        return [self.do(Part("search", name, seed, rate)) for rate in self.study.train.learning_rate]

    def _search_at(self, part: Part) -> dict[str, Any]:
        name, seed, rate = part.name, part.seed, part.rate
        directory = self._parts.directory(part)
        model = self._model(name, seed)
        trained = self._train(model, directory, f"{name} · rate {rate:g}", rate, seed, self._parts.search_epochs)
        last = trained.epochs[-1] if trained.status == "ok" else {}
        # Every metric's: which one judges may be changed without training anew.
        result = {
            "learning_rate": rate,
            self.study.accept.metric: None,
            "loss": None,
            **{key.removeprefix("validation_"): value for key, value in last.items() if key.startswith("validation_")},
            "trained": asdict(trained),
        }
        if trained.status == "ok":
            self._save(model, directory / "model")
            answers = self.job.task.validation_answers(model)
            if answers is not None:
                write_atomically(directory / VALIDATION, answers.to_bytes())
                result["scoring"] = self.job.task.scoring_settings()
        self._finish(part, result)
        return result

    def _judged_as_asked(self, part: Part, result: dict[str, Any]) -> dict[str, Any]:
        """A search's result; one that was scored otherwise than the study asks is scored anew, without training."""
        answers = self._parts.directory(part) / VALIDATION
        if answers.exists() and self._is_scored_otherwise(result):
            result |= self._scored(self.job.task.read_answers(answers))
            self._finish(part, result)
        return result

    def _trial(self, part: Part) -> dict[str, Any]:
        name, seed, rate = part.name, part.seed, part.rate
        directory = self._parts.directory(part)
        epochs = self.study.train.epochs
        searched = self.directory.search(name, rate)
        found = self.directory.finished(searched) if self._is_of_search(part) else None
        model = None
        if found is not None and found["trained"]["status"] != "ok":
            trained = Trained(**found["trained"])
        elif found is not None and (searched / "model").is_dir():
            trained = Trained(**found["trained"])
            copy_files = partial(shutil.copytree, searched / "model", dirs_exist_ok=True)
            replace_directory(directory / "model", copy_files)
            model = load(directory / "model").to(self.job.device)
        else:
            model = self._model(name, seed)
            trained = self._train(model, directory, f"{name} · seed {seed}", rate, seed, epochs)
        return self._end_trial(part, rate, trained, model, [])

    def _distilled_trial(self, part: Part) -> dict[str, Any]:
        """Assembles a student from the teacher and its taught blocks, and tunes it where that is asked for."""
        name, seed = part.name, part.seed
        candidate = self.job.candidates[name]
        assert candidate is not None
        finetune = self.job.finetune(candidate)
        directory = self._parts.directory(part)
        rate = finetune.learning_rate if finetune.epochs else self.study.distill.learning_rate
        baseline = self.directory.finished(self.directory.trial(BASELINE, seed))
        assert baseline is not None  # it comes first
        if baseline["trained"]["status"] != "ok":
            reason = f"its teacher failed: {baseline['trained']['reason']}"
            return self._end_trial(part, rate, Trained(status="failed", reason=reason), None, [])
        known = self._learn_from_teacher(seed)
        keys = [lesson_key(site, entry) for site, entry in self.job.plans[name].items()]
        taught = [known[key] for key in keys if key in known]
        trained = failed_lesson(taught) or Trained()
        answering = 0.0
        model = None
        if trained.status == "ok":
            teacher = self._teacher(seed)
            torch.manual_seed(seed)
            model = reduce(teacher, candidate.plan)
            for block in taught:
                block.put_into(model)
            title = f"{name} · seed {seed}"
            if finetune.epochs:
                batches = self.job.task.batches
                if finetune.targets == "teacher":
                    answers = self._teaching.answers(finetune.teacher_beam, seed, self._parts.teacher_settings(seed))
                    assert answers is not None
                    answering = answers.seconds
                    try:
                        batches = self.job.task.batches_with(answers.texts)
                    except LeanformerError as error:  # none of them can be learned from
                        failed = Trained(status="failed", reason=str(error))
                        return self._end_trial(part, rate, failed, None, taught, answering)
                asks = finetune.logits > 0 or finetune.hidden_states > 0
                loss = tuning_loss(
                    frozen_copy(reduce(teacher, {})) if asks else None, finetune, self.study.train.label_smoothing
                )
                config = self.study.train.model_copy(update={"average_last": finetune.average_last})
                trained = self._train(model, directory, title, rate, seed, finetune.epochs, loss, batches, config)
            else:
                self.job.reporter.start(title, 0)
                self.job.reporter.done("assembled")
        return self._end_trial(part, rate, trained, model, taught, answering)

    def _teacher(self, seed: int) -> PreTrainedModel:
        """The trained baseline of a seed, on the study's device."""
        return load(self.directory.trial(BASELINE, seed) / "model").to(self.job.device)

    @cached_property
    def _distilled(self) -> list[str]:
        """The candidates that learn from the baseline."""
        return [name for name in self.job.candidates if self.job.is_distilled(name)]

    def _distilled_plans(self) -> list[ResolvedPlan]:
        return [self.job.plans[name] for name in self._distilled]

    def _known(self, seed: int) -> dict[str, Taught | None]:
        """The blocks of all students of a seed; None: still to be taught."""
        return self._teaching.known(self._distilled_plans(), seed, self._parts.teacher_settings(seed))

    def _teachings(self) -> int:
        """Into how many teachings the blocks of a seed fall: all trainings at a time have some, if there are enough."""
        return min(len(lessons_of(self._distilled_plans())), math.ceil(self._jobs / len(self.study.seeds)))

    def _planned_lessons(self) -> int:
        """Of a seed: all blocks are taught, and the teacher translates once with each beam."""
        return self._teachings() + len(self._teacher_beams(self._distilled))

    def _students(self, seed: int) -> list[Part]:
        return [Part("student", name, seed) for name in self._distilled]

    def _lessons(self, seed: int) -> list[Part]:
        """What the missing students of a seed learn from, where that is not there yet; settled once."""
        if seed not in self._lessons_of:
            known = self._known(seed)
            keys, count = list(known), self._teachings()
            # Dealt out in turn, as blocks of one kind and size come after each other, one for each layer; and before
            # what is there is left out, so that a group that was cut off finds its checkpoint.
            dealt = [tuple(key for key in keys[first::count] if known[key] is None) for first in range(count)]
            groups = [blocks for blocks in dealt if blocks]
            students = self._students(seed)
            beams = self._teacher_beams([part.name for part in students if self.is_missing(part)])
            self._lessons_of[seed] = [
                *(Part("teaching", BASELINE, seed, blocks=blocks) for blocks in groups),
                *(Part("answers", BASELINE, seed, beam=beam) for beam in beams),
            ]
            for _ in range(self._planned_lessons() - len(self._lessons_of[seed])):
                self.job.reporter.skip()
        return self._lessons_of[seed]

    def _give_lesson(self, part: Part) -> None:
        teacher = self._teacher(part.seed)
        if part.kind == "teaching":
            known = self._known(part.seed)
            missing = [key for key in part.blocks if known[key] is None]
            self._teaching.teach(teacher, self._distilled_plans(), part.seed, missing)
        else:
            self._teaching.find_answers(teacher, part.beam, part.seed)
        self._parts.count(part)

    def _learn_from_teacher(self, seed: int) -> dict[str, Taught]:
        """Does the lessons of a seed that are not done yet; gives the blocks of all its students."""
        if seed not in self._taught:
            for part in self._lessons(seed):
                self.do(part)
            self._taught[seed] = {key: taught for key, taught in self._known(seed).items() if taught is not None}
            self._teaching.remove_checkpoints(seed)
        return self._taught[seed]

    def _end_trial(
        self,
        part: Part,
        rate: float,
        trained: Trained,
        model: PreTrainedModel | None,
        taught: list[Taught],
        answering: float = 0.0,
    ) -> dict[str, Any]:
        """Saves and evaluates a trained model, and writes the trial's result.

        Args:
            part: The trial.
            rate: At which it was trained.
            trained: How that went.
            model: None where it failed.
            taught: The blocks that it was assembled from.
            answering: Seconds in which the teacher found the answers that it learned from, where it did.
        """
        directory = self._parts.directory(part)
        result = {
            "candidate": part.name,
            "seed": part.seed,
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
        self._finish(part, result)
        return result

    def _evaluated(self, model: PreTrainedModel, directory: Path) -> dict[str, Any]:
        """Answers the test split, keeps the answers, and gives their scores and how they were asked for."""
        key = self.job.task.answer_key
        with memory_named(f"answering the test split in batches of {key}", f"lower {key}"):
            answers = self.job.task.evaluate(model)
        self.directory.replace_file(directory / "predictions.parquet", answers.to_bytes())
        return {"evaluation": self.job.task.evaluation_settings(), **self._scored(answers)}

    def _scored(self, answers: Any) -> dict[str, Any]:
        """The scores of answers, and how they were made."""
        return {"scoring": self.job.task.scoring_settings(), **self.job.task.scores(answers)}

    def _is_scored_otherwise(self, result: Mapping[str, Any]) -> bool:
        """Whether a result's scores were made otherwise than the study asks, or before there was its metric."""
        scoring = result.get("scoring", {}) != self.job.task.scoring_settings()
        return scoring or self.study.accept.metric not in result

    def _evaluated_as_asked(self, part: Part, result: dict[str, Any]) -> dict[str, Any]:
        """A trial's result; one that was evaluated otherwise than the study asks is evaluated anew."""
        if result["trained"]["status"] != "ok":
            return result
        changed = differences(result["evaluation"], self.job.task.evaluation_settings())
        if changed:
            self.job.reporter.warn(f"{part} is evaluated again: {'; '.join(changed)}")
            directory = self._parts.directory(part)
            model = load(directory / "model").to(self.job.device)
            result |= self._evaluated(model, directory)
            self._finish(part, result)
        elif self._is_scored_otherwise(result):
            path = self._parts.directory(part) / "predictions.parquet"
            answers = self.job.task.read_answers(path)
            self.directory.replace_file(path, answers.to_bytes())
            result |= self._scored(answers)
            self._finish(part, result)
        return result

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

        def training() -> Trained:
            return train(
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

        key = self.job.task.batch_key
        with memory_named(f"training {title} with {key} {self.job.task.training_batch()}", f"lower {key}"):
            trained = going_on(checkpoint, training, self.job.reporter.warn)
        note = "as it is" if epochs == 0 else ""
        self.job.reporter.done(note if trained.status == "ok" else f"failed: {trained.reason}")
        return trained

    def _save(self, model: PreTrainedModel, directory: Path) -> None:
        """The model, and what it takes to use it elsewhere."""
        self.directory.check()

        def fill(temporary: Path) -> None:
            save(model, temporary)
            self.job.task.save_companions(temporary)

        replace_directory(directory, fill)

    def _finish(self, part: Part, result: dict[str, Any]) -> None:
        self.directory.finish(self._parts.directory(part), result)
        self._parts.count(part)


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
        """Moves the bar, and now and then looks whether the run directory is still there."""
        self._job.directory.check(at_once=False)
        self._job.reporter.step(epoch, step, steps_per_epoch)

    def epoch_ended(self, record: dict[str, float], examples_per_second: float) -> None:
        """Shows the epoch's numbers."""
        self._job.reporter.epoch(record, self._epochs, examples_per_second, self._job.task.progress(record))

    def rolled_back(self, reason: str) -> None:
        """Says that training went back to its last good state."""
        self._job.reporter.warn(reason)

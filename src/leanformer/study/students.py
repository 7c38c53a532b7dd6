"""Steps that learn from the trained baseline: lessons teach blocks; students are assembled of them and tuned."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from leanformer.config.base import BASELINE, CandidateConfig
from leanformer.core.errors import LeanformerError
from leanformer.core.json_files import read_sealed
from leanformer.learn.dropout import dropout
from leanformer.learn.losses import tuning_loss
from leanformer.learn.observe import frozen_copy
from leanformer.learn.train import Trained
from leanformer.model.students import load, reduce
from leanformer.study.prepare import PreparedStudy
from leanformer.study.steps import SeedStep, Step, ended_well
from leanformer.study.teaching import Taught, failed_lesson, lesson_key
from leanformer.study.training import Trial, train_model
from leanformer.study.trials import TrialStep
from leanformer.tasks.base import WritingTask


@dataclass(frozen=True)
class _TeacherStep(SeedStep):
    """A step that a teacher takes for its students; nothing is left to do where the teacher's own training failed."""

    def after(self, prepared: PreparedStudy) -> Sequence[Step]:
        return [TrialStep(BASELINE, self.seed)]

    def is_done(self, prepared: PreparedStudy) -> bool:
        return not ended_well(TrialStep(BASELINE, self.seed).known_result(prepared)) or self._is_there(prepared)

    @abstractmethod
    def _is_there(self, prepared: PreparedStudy) -> bool:
        """Whether what it gives is there; what was made with other settings is removed, and the log says why."""


@dataclass(frozen=True)
class LessonStep(_TeacherStep):
    """Teaches a share of the blocks of all students of a seed; each block has its own directory and result.

    Args:
        number: The number of this share, from 0 to ``PreparedStudy.lesson_shares`` - 1.
    """

    number: int

    def needs(self, prepared: PreparedStudy) -> Sequence[AnswersStep]:
        if not prepared.study.writes or prepared.study.data.unlabelled is None:
            return []
        return [AnswersStep(BASELINE, self.seed, prepared.study.finetune.teacher_beam)]

    def run(self, prepared: PreparedStudy) -> None:
        missing, told = self._missing(prepared), None
        for step in self.needs(prepared):
            told = step.texts(prepared)
        prepared.teaching.teach(_teacher(prepared, self.seed), prepared.student_plans, self.seed, missing, told)

    def _is_there(self, prepared: PreparedStudy) -> bool:
        return not self._missing(prepared)

    def _missing(self, prepared: PreparedStudy) -> list[str]:
        """The blocks of this share that are not taught yet."""
        known = known_blocks(prepared, self.seed)
        # Neighbours are of the same kind and size, so each goes to another share. Taught blocks are left out only
        # afterwards, so that an interrupted share has the same blocks and finds its checkpoint.
        return [key for key in list(known)[self.number :: prepared.lesson_shares] if known[key] is None]


@dataclass(frozen=True)
class AnswersStep(_TeacherStep):
    """The teacher's own answers to the training examples, and to those without labels.

    Args:
        beam: Hypotheses per example.
    """

    beam: int

    def run(self, prepared: PreparedStudy) -> None:
        prepared.teaching.find_answers(_teacher(prepared, self.seed), self.beam, self.seed)

    def texts(self, prepared: PreparedStudy) -> Sequence[str]:
        """The answers, which are there."""
        answers = prepared.teaching.answers(self.beam, self.seed, teacher_settings(prepared, self.seed))
        assert answers is not None
        return answers.texts

    def _is_there(self, prepared: PreparedStudy) -> bool:
        return prepared.teaching.answers(self.beam, self.seed, teacher_settings(prepared, self.seed)) is not None


@dataclass(frozen=True)
class StudentStep(Trial):
    """The trial of a student, which is assembled from its teacher and its taught blocks, and tuned if that is set."""

    def after(self, prepared: PreparedStudy) -> Sequence[Step]:
        return [TrialStep(BASELINE, self.seed)]

    def settings(self, prepared: PreparedStudy) -> dict[str, Any]:
        candidate = self._candidate(prepared)
        finetune = prepared.finetune(candidate)
        return {
            **teacher_settings(prepared, self.seed),
            "plan": candidate.plan,
            "method": candidate.method,
            "distill": prepared.study.distill.settings(),
            "finetune": finetune.settings() if finetune.epochs else None,
        }

    def needs(self, prepared: PreparedStudy) -> Sequence[Step]:
        lessons = [LessonStep(BASELINE, self.seed, number) for number in range(prepared.lesson_shares)]
        finetune = prepared.finetune(self._candidate(prepared))
        if finetune.epochs and finetune.targets == "teacher":
            # The answers come first: the longest step at the end would run alone.
            return [AnswersStep(BASELINE, self.seed, finetune.teacher_beam), *lessons]
        return lessons

    def run(self, prepared: PreparedStudy) -> None:
        finetune = prepared.finetune(self._candidate(prepared))
        rate = finetune.learning_rate if finetune.epochs else prepared.study.distill.learning_rate
        baseline = TrialStep(BASELINE, self.seed).known_result(prepared)
        if not ended_well(baseline):
            reason = f"its teacher failed: {baseline['trained']['reason']}"
            self.end(prepared, rate, Trained(status="failed", reason=reason), None)
            return
        taught = self._taught(prepared)
        failed = failed_lesson(taught)
        if failed is not None:
            self.end(prepared, rate, failed, None, taught)
            return
        teacher = _teacher(prepared, self.seed)
        student = self._assembled(prepared, teacher, taught)
        if finetune.epochs:
            trained, answering = self._tuned(prepared, teacher, student)
        else:
            settings = read_sealed(self.directory(prepared) / "settings.json")
            prepared.reporter.start(self.title, 0, settings=settings)
            prepared.reporter.done("assembled")
            trained, answering = Trained(), 0.0
        self.end(prepared, rate, trained, student, taught, answering)

    def _candidate(self, prepared: PreparedStudy) -> CandidateConfig:
        candidate = prepared.candidates[self.name]
        assert candidate is not None  # the baseline is not a student
        return candidate

    def _taught(self, prepared: PreparedStudy) -> list[Taught]:
        """The student's blocks, in the plan's order."""
        known = known_blocks(prepared, self.seed)
        prepared.teaching.remove_checkpoints(self.seed)
        keys = [lesson_key(site, entry) for site, entry in prepared.plans[self.name].items()]
        return [taught for key in keys if (taught := known.get(key)) is not None]

    def _assembled(
        self, prepared: PreparedStudy, teacher: PreTrainedModel, taught: Sequence[Taught]
    ) -> PreTrainedModel:
        torch.manual_seed(self.seed)
        student = reduce(teacher, prepared.settled_plan(self.name))
        for block in taught:
            block.put_into(student)
        return student

    def _tuned(
        self, prepared: PreparedStudy, teacher: PreTrainedModel, student: PreTrainedModel
    ) -> tuple[Trained, float]:
        """Tunes a student as a whole.

        Returns:
            How the tuning went, and the seconds that its teacher took for the answers that it learned from.
        """
        finetune = prepared.finetune(self._candidate(prepared))
        train = prepared.study.train
        task, answering = prepared.task_of(self.name), 0.0
        asks = finetune.logits > 0 or finetune.hidden_states > 0
        batches = task.tuning_batches() if asks else task.batches
        if finetune.targets == "teacher":
            answers = prepared.teaching.answers(finetune.teacher_beam, self.seed, teacher_settings(prepared, self.seed))
            assert answers is not None  # ``needs`` has asked for them
            assert isinstance(task, WritingTask)
            answering = answers.seconds
            try:
                batches = task.batches_with(answers.texts)
            except LeanformerError as error:  # no answer is usable
                return Trained(status="failed", reason=str(error)), answering
        loss = tuning_loss(
            frozen_copy(reduce(teacher, {})) if asks else None, finetune, train.label_smoothing, task.class_weights
        )
        with dropout(student, finetune.dropout):
            trained = train_model(
                prepared,
                self,
                student,
                finetune.learning_rate,
                finetune.epochs,
                loss,
                batches,
                train.model_copy(update={"average_last": finetune.average_last}),
            )
        return trained, answering


def teacher_settings(prepared: PreparedStudy, seed: int) -> dict[str, Any]:
    """All settings that determine what a teacher, the baseline's trained model, tells its students."""
    return {
        "teacher": read_sealed(prepared.directory.trial(BASELINE, seed) / "settings.json"),
        **prepared.unlabelled_files,
    }


def known_blocks(prepared: PreparedStudy, seed: int) -> dict[str, Taught | None]:
    """The blocks of all students of a seed, by ``lesson_key``; None where a block is not taught yet."""
    return prepared.teaching.known(prepared.student_plans, seed, teacher_settings(prepared, seed))


def _teacher(prepared: PreparedStudy, seed: int) -> PreTrainedModel:
    """The trained baseline of a seed, on the study's device."""
    return load(prepared.directory.trial(BASELINE, seed) / "model").to(prepared.device)

"""The parts that a study's trainings fall into: where each is kept, what it follows from, whether it is there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from leanformer.config.base import BASELINE
from leanformer.config.translation import TextDataConfig
from leanformer.core.signatures import content_signature, files_signature
from leanformer.study.prepare import StudyJob
from leanformer.study.store import read_json


@dataclass(frozen=True)
class Part:
    """One training, or what stands for it: it can be done alone, once what it needs is there.

    Args:
        kind: A training of the search for a learning rate, a trial of what is trained from the study's own start, the
            teaching of some blocks, the teacher's own answers to the training examples, or a trial of a student of the
            baseline.
        name: The candidate; ``baseline`` for a lesson too, as it is the teacher.
        seed: Of the trial, or of the search.
        rate: The learning rate; of a student the plan of tuning says it.
        blocks: Of a teaching: their keys.
        beam: Of answers.
    """

    kind: Literal["search", "trial", "teaching", "answers", "student"]
    name: str
    seed: int
    rate: float = 0.0
    blocks: tuple[str, ...] = ()
    beam: int = 0

    @property
    def is_lesson(self) -> bool:
        """Whether students learn from it: a teaching, or answers. ``Teaching`` keeps what these come to."""
        return self.kind in ("teaching", "answers")

    def __str__(self) -> str:
        return (
            f"{self.name}, search at rate {self.rate:g}" if self.kind == "search" else f"{self.name}, seed {self.seed}"
        )


class Parts:
    """What the run directory holds of a study's parts that are no lessons, and which parts have been counted.

    Args:
        job: The study, made ready.
    """

    def __init__(self, job: StudyJob) -> None:
        self._job = job
        self._counted: set[Part] = set()  # what the reporter has counted as done

    def directory(self, part: Part) -> Path:
        """Where the files of a part that is no lesson are."""
        assert not part.is_lesson
        if part.kind == "search":
            return self._job.directory.search(part.name, part.rate)
        return self._job.directory.trial(part.name, part.seed)

    def result(self, part: Part) -> dict[str, Any] | None:
        """A part's result if it is there. Where the study has changed since, it is removed, and the log says why."""
        directory = self.directory(part)
        # The search's models are deleted once the best of them has been taken over.
        may_lack = "model" if part.kind == "search" else None
        reason = self._job.directory.prepare(directory, self._settings(part), may_lack)
        if reason is not None:
            self._job.reporter.warn(f"{part} runs again: {reason}")
        return self._job.directory.finished(directory)

    def count(self, part: Part) -> None:
        """Takes note that a part has been shown as done."""
        self._counted.add(part)

    def skip(self, part: Part) -> None:
        """Shows a part that is there already as done, once."""
        if part not in self._counted:
            self.count(part)
            self._job.reporter.skip()

    @property
    def search_epochs(self) -> int:
        """Of each training of the search."""
        return self._job.study.train.search_epochs or self._job.study.train.epochs

    def teacher_settings(self, seed: int) -> dict[str, Any]:
        """Everything that a teacher, the baseline's trained model, follows from."""
        path = self._job.directory.trial(BASELINE, seed) / "settings.json"
        settings = read_json(path)
        return {"teacher": settings}

    def _settings(self, part: Part) -> dict[str, Any]:
        """Everything that a part's outcome follows from."""
        candidate = self._job.candidates[part.name]
        if part.kind == "student":
            assert candidate is not None
            finetune = self._job.finetune(candidate)
            return {
                **self.teacher_settings(part.seed),
                "plan": candidate.plan,
                "method": candidate.method,
                "distill": self._job.study.distill.settings(),
                "finetune": finetune.model_dump(mode="json") if finetune.epochs else None,
            }
        # Which duplicates are looked for changes no training.
        study = self._job.study.model_dump(mode="json", exclude={"data": {"duplicates"}})
        train = {
            key: value
            for key, value in study["train"].items()
            if key not in ("learning_rate", "search_epochs", "checkpoint_seconds")
        }
        epochs = self.search_epochs if part.kind == "search" else self._job.study.train.epochs
        return {
            "data": study["data"],
            "baseline": study["baseline"],
            **self._files,
            "plan": {} if candidate is None else candidate.plan,
            "method": "scratch" if candidate is None else candidate.method,
            "train": {**train, "epochs": epochs, "precision": self._job.precision},
            "task": self._job.task.training_settings(),
            "device": self._job.device.type,
            "learning_rate": part.rate,
            "seed": part.seed,
        }

    @cached_property
    def _files(self) -> dict[str, str | None]:
        """What tells whether the files of data and baseline are others than before."""
        data = self._job.study.data
        # Of the files that a source names up to the language.
        endings = (data.source_language, data.target_language) if isinstance(data, TextDataConfig) else ()
        model = self._job.study.baseline.model
        return {
            "data_files": files_signature(data.source, endings),
            "data_content": content_signature(data.source, endings),
            "baseline_files": files_signature(model),
            "baseline_content": content_signature(model),
        }

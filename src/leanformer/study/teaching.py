"""Teaches the blocks of all distilled candidates of a study together, and each block once."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate import Accelerator
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn
from transformers import PreTrainedModel

from leanformer.config.base import DistillConfig, TrainConfig
from leanformer.core.events import Reporter
from leanformer.core.files import write_atomically
from leanformer.core.json_files import read_sealed
from leanformer.core.memory import memory_named
from leanformer.learn.activity import find_activities
from leanformer.learn.checkpoint import going_on
from leanformer.learn.lessons import (
    Lesson,
    explained,
    in_groups,
    teachable,
    teaching_config,
    teaching_terms,
    training_bytes,
)
from leanformer.learn.losses import Batch
from leanformer.learn.observe import Observed, frozen_copy
from leanformer.learn.train import Trained, TrainingBatches, train
from leanformer.model.plan import TARGET_VOCABULARY
from leanformer.model.students import reduce
from leanformer.model.surgery import ResolvedPlan, build, module_at, sites
from leanformer.study.store import RunDirectory
from leanformer.tasks.base import Task, WritingTask


def lesson_key(site: str, entry: Mapping[str, Any]) -> str:
    """The name of a block with its arguments at a site; candidates that share the block have the same name."""
    return f"{site}-{hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()[:10]}"


def lessons_of(plans: Sequence[ResolvedPlan]) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Site and entry of each block of the plans, by ``lesson_key``."""
    return {
        lesson_key(name, entry): (name, entry)
        for plan in plans
        for name, entry in plan.items()
        if name not in ("pooling", TARGET_VOCABULARY) and entry["block"] != "none"
    }


@dataclass(frozen=True)
class Taught:
    """A block whose teaching has ended, well or not.

    Args:
        key: The block's ``lesson_key``.
        result: ``site``, ``block``, ``r2`` after each epoch on held-out data, ``seconds`` spent on it, ``status`` and
            ``reason``.
        path: The file of its weights.
    """

    key: str
    result: dict[str, Any]
    path: Path

    def put_into(self, student: PreTrainedModel) -> None:
        """Loads the taught weights into the student's block at this site."""
        module = module_at(student, self.result["site"])
        assert module is not None
        module.load_state_dict(load_tensors(self.path.read_bytes()))


@dataclass(frozen=True)
class Answers:
    """A teacher's own answers to the training examples.

    Args:
        texts: One for each example.
        seconds: How long the teacher took.
    """

    texts: list[str]
    seconds: float


class Teaching:
    """Teaches the blocks of several plans what one trained teacher does at their sites.

    Args:
        directory: The run directory.
        task: The study's task.
        config: How blocks are taught.
        train_config: The study's; its precision and checkpoint interval are used.
        accelerator: From ``make_accelerator``.
        reporter: Where progress is shown.
        beside: Processes that teach at the same time, this one included; they share the memory evenly.
    """

    def __init__(
        self,
        directory: RunDirectory,
        task: Task,
        config: DistillConfig,
        train_config: TrainConfig,
        accelerator: Accelerator,
        reporter: Reporter,
        beside: int = 1,
    ) -> None:
        self._directory = directory
        self._task = task
        self._config = config
        self._train_config = teaching_config(config).model_copy(
            update={"precision": train_config.precision, "checkpoint_seconds": train_config.checkpoint_seconds}
        )
        self._accelerator = accelerator
        self._reporter = reporter
        self._beside = beside
        self._answers: dict[tuple[int, int], Answers] = {}

    def known(self, plans: Sequence[ResolvedPlan], seed: int, settings: Mapping[str, Any]) -> dict[str, Taught | None]:
        """The blocks of all plans by ``lesson_key``; None where a block is not taught yet.

        A block that was taught with other settings is removed, and the log says why.

        Args:
            plans: The resolved plans.
            seed: For the blocks' initial weights and the order of the data.
            settings: All settings that determine the teacher.
        """
        found: dict[str, Taught | None] = {}
        for key, (name, entry) in lessons_of(plans).items():
            directory = self._directory.taught(seed, key)
            reason = self._directory.prepare(
                directory, {"site": name, "entry": dict(entry), **settings, "distill": self._config.settings()}
            )
            if reason is not None:
                self._reporter.warn(f"{name} is taught again: {reason}")
            result = self._directory.finished(directory)
            found[key] = None if result is None else Taught(key, result, directory / "block.safetensors")
        return found

    def teach(
        self,
        teacher: PreTrainedModel,
        plans: Sequence[ResolvedPlan],
        seed: int,
        keys: Sequence[str],
        told: Sequence[str] | None = None,
    ) -> None:
        """Teaches those blocks of the plans that are not taught yet, according to ``known``.

        Args:
            teacher: The trained baseline.
            plans: The resolved plans.
            seed: For the blocks' initial weights and the order of the data.
            keys: The ``lesson_key`` of each block.
            told: The teacher's own answers, which blocks learn from where examples have no targets.
        """
        multiple = self._config.batch_multiple
        if told is None:
            batches = self._task.teaching_batches(multiple)
        else:
            assert isinstance(self._task, WritingTask)
            batches = self._task.told_batches(told, multiple)
        opened = frozen_copy(reduce(teacher, {}))
        places = {site.name: site for site in sites(opened)}
        wanted = lessons_of(plans)
        activities = find_activities(teacher, [wanted[key] for key in keys], self._task.batches)
        lessons: list[Lesson] = []
        finished: list[Lesson] = []
        for key in keys:
            name, entry = wanted[key]
            # The initial weights depend on the seed and the block alone, not on the blocks beside it.
            torch.manual_seed(int(hashlib.sha256(f"{seed} {key}".encode()).hexdigest()[:8], 16))
            block = build(opened, places[name], entry, take_over=True, activity=activities.get(name))
            assert block is not None  # lessons_of leaves out empty sites
            learns = any(True for _ in block.parameters())
            (lessons if learns else finished).append(Lesson(key, places[name], block))
        self._measure(opened, finished, seed)
        share = self._config.memory_fraction / self._beside
        groups = in_groups(lessons, share * self._free_memory())
        if len(groups) > 1:
            self._reporter.say(
                f"{self._reporter.study}: {len(lessons)} blocks do not fit into "
                f"{share:.0%} of the free memory at once; they are taught in {len(groups)} groups"
            )
        for number, group in enumerate(groups, start=1):
            megabytes = sum(training_bytes(lesson.block) for lesson in group) / 1e6
            self._reporter.say(
                f"{self._reporter.study}: teaching {_blocks(group)} at once, with {megabytes:,.0f} MB of weights, "
                "gradients and optimizer states",
                style="dim",
            )
            title = f"teaching {_blocks(group)} · seed {seed}" + (f" · {number}/{len(groups)}" if groups[1:] else "")
            self._teach_group(opened, group, batches, seed, title)

    def remove_checkpoints(self, seed: int) -> None:
        """Removes checkpoints of interrupted teachings; once all blocks are taught, they belong to other settings."""
        for pattern in ("group-*.safetensors", ".group-*.partial"):
            for path in self._directory.taught(seed, "").glob(pattern):
                path.unlink(missing_ok=True)

    def answers_directory(self, beam: int, seed: int) -> Path:
        """The directory of a teacher's own answers."""
        return self._directory.taught(seed, f"answers-beam-{beam}")

    def answers(self, beam: int, seed: int, settings: Mapping[str, Any]) -> Answers | None:
        """The teacher's own answers to the training examples, from the run directory; None where they are missing.

        Args:
            beam: Hypotheses per example.
            seed: The teacher's seed.
            settings: All settings that determine the teacher; answers of other settings are removed.
        """
        if (seed, beam) not in self._answers:
            directory = self.answers_directory(beam, seed)
            reason = self._directory.prepare(directory, {**settings, "beam": beam})
            if reason is not None:
                self._reporter.warn(f"the teacher's own translations, seed {seed}, are made again: {reason}")
            result = self._directory.finished(directory)
            if result is None:
                return None
            self._answers[seed, beam] = Answers(result["answers"], result["seconds"])
        return self._answers[seed, beam]

    def find_answers(self, teacher: PreTrainedModel, beam: int, seed: int) -> None:
        """Makes the answers that are missing according to ``answers``.

        Args:
            teacher: The trained baseline.
            beam: Hypotheses per example.
            seed: The teacher's seed.
        """
        self._reporter.start(f"the teacher's own translations · seed {seed}", 1)
        summary = self._task.summary()
        count = summary["train"] + summary["unlabelled"]
        done = 0

        def show(more: int) -> None:
            nonlocal done
            done += more
            self._reporter.step(0, done, count)

        started = time.perf_counter()
        assert isinstance(self._task, WritingTask)  # a study checks this before
        texts = self._task.write_training(teacher, beam, show)
        result = {"answers": texts, "seconds": time.perf_counter() - started}
        self._directory.finish(self.answers_directory(beam, seed), result)
        self._reporter.done(f"{count:,} sentences")

    def _free_memory(self) -> float:
        device = self._accelerator.device
        if device.type == "cuda":
            return float(torch.cuda.mem_get_info(device)[0])
        return float(psutil.virtual_memory().available)

    def _measure(self, opened: PreTrainedModel, lessons: Sequence[Lesson], seed: int) -> None:
        """Finishes blocks that have nothing to learn: only their R² is measured."""
        if not lessons:
            return
        with Observed(opened, [(lesson.site.name, lesson.target) for lesson in lessons]) as observed:
            found = explained(observed, lessons, self._task.validation_batches())
        for lesson in lessons:
            self._finish(lesson, Trained(epochs=[{_r2(lesson): found[lesson.key]}]), 0.0, seed)

    def _teach_group(
        self, opened: PreTrainedModel, group: list[Lesson], batches: TrainingBatches, seed: int, title: str
    ) -> None:
        blocks = teachable(group)
        checkpoint = self._checkpoint(group, seed)
        self._reporter.start(title, self._config.epochs, settings=self._config.settings())
        with Observed(opened, [(lesson.site.name, lesson.target) for lesson in group]) as observed:
            clock = _Clock(observed, group)
            observer = _TeachingObserver(
                self._task, observed, group, self._reporter, self._config.epochs, self._directory
            )

            def training() -> Trained:
                return train(
                    blocks,
                    batches,
                    self._train_config,
                    self._config.learning_rate,
                    seed,
                    observer,
                    self._accelerator,
                    checkpoint,
                    loss=clock,
                )

            key = self._task.batch_key
            what = f"teaching {_blocks(group)} ({_kinds(group)}) with {key} {self._task.batch}"
            with memory_named(what, f"lower {key} or distill.memory_fraction, or give the blocks smaller arguments"):
                trained = going_on(checkpoint, training, self._reporter.warn)
        self._reporter.done("" if trained.status == "ok" else f"failed: {trained.reason}")
        for lesson, share in zip(group, clock.shares(), strict=True):
            self._finish(lesson, trained, share, seed)
        checkpoint.unlink(missing_ok=True)

    def _checkpoint(self, group: list[Lesson], seed: int) -> Path:
        """The checkpoint file for teaching these blocks with these settings."""
        # The order counts: the optimizer keeps its moments in it.
        parts = [(self._directory.taught(seed, lesson.key) / "settings.json").read_bytes() for lesson in group]
        return self._directory.taught(seed, f"group-{hashlib.sha256(b' '.join(parts)).hexdigest()[:10]}.safetensors")

    def _finish(self, lesson: Lesson, trained: Trained, share: float, seed: int) -> None:
        directory = self._directory.taught(seed, lesson.key)
        self._directory.check()
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in lesson.block.state_dict().items()}
        write_atomically(directory / "block.safetensors", save_tensors(tensors))
        settings = read_sealed(directory / "settings.json")
        result = {
            "site": lesson.site.name,
            "block": settings["entry"]["block"],
            "r2": [record[_r2(lesson)] for record in trained.epochs],
            "seconds": trained.seconds * share,
            "status": trained.status,
            "reason": trained.reason,
        }
        self._directory.finish(directory, result)


def _blocks(group: Sequence[Lesson]) -> str:
    return f"{len(group)} block" if len(group) == 1 else f"{len(group)} blocks"


def _kinds(group: Sequence[Lesson]) -> str:
    """The sites of a group, the first three by name."""
    names = [lesson.site.name for lesson in group]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


class _Clock:
    """The teaching loss, which also times the teacher's forward pass and each block's forward and backward pass."""

    def __init__(self, observed: Observed, lessons: Sequence[Lesson]) -> None:
        self._observed = observed
        self._lessons = lessons
        self._teacher = 0.0
        self._blocks = [0.0] * len(lessons)

    def __call__(self, _: Any, batch: Batch) -> Iterator[torch.Tensor]:
        started = time.perf_counter()
        seen = self._observed.read(batch)
        ended = time.perf_counter()
        self._teacher += ended - started
        for number, term in enumerate(teaching_terms(seen, self._lessons)):
            yield term  # continues after the backward pass of the term
            started, ended = ended, time.perf_counter()
            self._blocks[number] += ended - started

    def shares(self) -> list[float]:
        """Each block's share of the time, with an equal share of the teacher's; equal shares if nothing was timed."""
        total = self._teacher + sum(self._blocks)
        part = 1 / len(self._blocks)
        return [(seconds + self._teacher * part) / total if total else part for seconds in self._blocks]


def _r2(lesson: Lesson) -> str:
    return f"r2 {lesson.key}"


class _TeachingObserver:
    """Measures the blocks' R² on the validation split after each epoch and shows a teaching's progress."""

    def __init__(
        self,
        task: Task,
        observed: Observed,
        lessons: Sequence[Lesson],
        reporter: Reporter,
        epochs: int,
        directory: RunDirectory,
    ) -> None:
        self._task = task
        self._observed = observed
        self._lessons = lessons
        self._reporter = reporter
        self._epochs = epochs
        self._directory = directory

    def validate(self, model: nn.Module, last: bool) -> dict[str, float]:
        """R² of each block."""
        found = explained(self._observed, self._lessons, self._task.validation_batches())
        return {_r2(lesson): found[lesson.key] for lesson in self._lessons}

    def step_ended(self, epoch: int, step: int, steps_per_epoch: int) -> None:
        """Advances the progress bar, and checks at intervals that the run directory still exists."""
        self._directory.check(at_once=False)
        self._reporter.step(epoch, step, steps_per_epoch)

    def epoch_ended(self, record: dict[str, float], examples_per_second: float) -> None:
        """Shows the R² of the worst, the median and the best block."""
        values = sorted(record[_r2(lesson)] for lesson in self._lessons)
        shown = f"R² {values[0]:.2f} to {values[-1]:.2f}, median {values[len(values) // 2]:.2f}"
        self._reporter.epoch(record, self._epochs, examples_per_second, shown)

    def rolled_back(self, reason: str) -> None:
        """Reports that teaching went back to its last good state."""
        self._reporter.warn(reason)


def taught_numbers(taught: Sequence[Taught]) -> list[dict[str, Any]]:
    """The numbers of a student's taught blocks that its trial's result keeps."""
    return [{"key": one.key, **{key: one.result[key] for key in ("site", "block", "r2", "seconds")}} for one in taught]


def failed_lesson(taught: Sequence[Taught]) -> Trained | None:
    """A failed training where a block's teaching has failed; None where all blocks are taught."""
    for one in taught:
        if one.result["status"] != "ok":
            return Trained(status="failed", reason=f"teaching its blocks failed: {one.result['reason']}")
    return None

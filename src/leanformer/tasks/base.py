"""The interface of a task: its data, its baseline, answers on the test split, and their comparison."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from leanformer.config.base import Study
from leanformer.core.registry import Registry
from leanformer.core.warning import StudyWarning
from leanformer.data.groups import check_test_groups
from leanformer.decide import judge
from leanformer.decide.resampled import Folds
from leanformer.decide.statistics import Comparison
from leanformer.learn.losses import Batch, Loss
from leanformer.learn.step import TrainingStep
from leanformer.learn.train import TrainingBatches
from leanformer.measure.cost import Exported, Subject
from leanformer.model.plan import Plan
from leanformer.model.surgery import ResolvedPlan
from leanformer.results.metrics import METRICS, Metric
from leanformer.results.rows import Quality

SplitName = Literal["train", "validation", "test"]
MakeStep = Callable[[PreTrainedModel], TrainingStep]


class Answers(Protocol):
    """A model's answers on the test split, example by example."""

    @property
    def groups(self) -> Sequence[str] | None:
        """The name of each example's group; None where each stands for itself."""

    def signatures(self, metric: Metric) -> list[str]:
        """Hashes of all that a study with this metric shows of the answers: equal answers are nothing new to see."""

    def to_bytes(self) -> bytes:
        """The content of a parquet file with one row per example."""


@dataclass(frozen=True)
class Outcome:
    """The answers of one candidate or the baseline.

    Args:
        answers: Seed -> answers.
        taught: Whether each seed's model was taught by the baseline of the same seed.
    """

    answers: Mapping[int, Any]
    taught: bool = False

    def each(self) -> list[Any]:
        """The answers of every seed, in the study's order."""
        return list(self.answers.values())

    def rival(self, baseline: Outcome) -> Outcome:
        """What of the baseline it is compared with: its teachers where it was taught, else all trainings."""
        return Outcome({seed: baseline.answers[seed] for seed in self.answers}) if self.taught else baseline

    def statistics(self, metric: Metric) -> list[np.ndarray]:
        """``Metric.statistics`` of each seed's answers."""
        return [answers.statistics(metric.key) for answers in self.each()]


class Task(ABC):
    """One task: data, a model and a score. It is made once per study, before anything is trained.

    A task registers itself in its module with ``TASKS.register``. A new task also needs a form of the study file
    (``config``) and of the results (``results``).

    Attributes:
        study: The study.
        device: Where models are trained.
        notes: Sentences on what was done with the data.
        warnings: Warnings about data and baseline for the reader of the results.
        batches: The training data.
        batch_key: The study's key for the batch size in training.
        answer_key: The study's key for the batch size on the test split.
        batch: The batch size in training, in words.
        class_weights: The weight of each class's examples in the cross-entropy, on the device; None: all weigh the
            same.
        folds: Of a cross-validation whose folds are all answered; None: each model answers the whole test split.
    """

    batch_key: ClassVar[str]
    answer_key: ClassVar[str]

    study: Study
    device: torch.device
    notes: Sequence[str]
    warnings: Sequence[StudyWarning]
    batches: TrainingBatches
    batch: str
    class_weights: torch.Tensor | None = None
    folds: Folds | None = None

    # Data and models

    @abstractmethod
    def make_baseline(self, seed: int) -> PreTrainedModel:
        """The baseline at the start of a trial; the seed determines random weights."""

    @property
    @abstractmethod
    def baseline_outline(self) -> PreTrainedModel:
        """The baseline without its weights, on the device ``meta``, for questions about its structure."""

    def check_plan(self, plan: ResolvedPlan, where: str) -> None:  # noqa: B027 - data may suit any plan
        """Checks that the data suit the blocks of a plan.

        Args:
            plan: The plan, resolved.
            where: The place of the mistake, for messages.

        Raises:
            LeanformerError: The data do not suit a block.
        """

    def settle_plan(self, plan: Plan) -> Plan:
        """A plan as the study writes it, with what depends on the data written out, such as which subwords are kept.

        Raises:
            LeanformerError: It does not fit the data.
        """
        return plan

    def for_plan(self, plan: ResolvedPlan, where: str) -> Task:
        """The task as models of a plan see it: with a tokenizer of their own, where the plan changes that.

        Args:
            plan: The plan, resolved.
            where: The candidate, for notes and warnings.
        """
        return self

    def check_keys(self) -> None:  # noqa: B027 - all keys may have an effect
        """Checks that the study's keys have an effect with this baseline.

        Raises:
            LeanformerError: One has none; the message names it.
        """

    def check_export(self) -> None:  # noqa: B027 - nothing may belong to a model
        """Checks that what belongs to a model, such as its tokenizer, can be exported with it.

        Raises:
            LeanformerError: It cannot.
        """

    def check_test(self) -> None:  # noqa: B027 - a task may have nothing to check
        """Checks that the test split is large enough to decide, and adds warnings about what it cannot show.

        Raises:
            LeanformerError: It is too small.
        """

    @property
    @abstractmethod
    def test_signature(self) -> str:
        """A hash of the test split by which it is known again, whatever the study's other settings are."""

    @abstractmethod
    def inputs(self, split: SplitName) -> list[str]:
        """A hash of each example's input, by which examples that are in two sources are found."""

    def for_model(self, directory: Path) -> Task:
        """The task as a trained model of the study sees it, which may have a tokenizer of its own.

        Args:
            directory: The model's directory.
        """
        return self

    @abstractmethod
    def teaching_batches(self, multiple: int) -> TrainingBatches:
        """The training data in batches that are ``multiple`` times as large."""

    def tuning_batches(self) -> TrainingBatches:
        """The training data of a student that learns what its teacher answers: also examples without labels."""
        return self.batches

    @abstractmethod
    def validation_batches(self) -> Iterator[Batch]:
        """The validation split, with labels."""

    @abstractmethod
    def samples(self, most: int) -> Iterator[Any]:
        """Inputs of the validation and training data, spread over them; none of the test split.

        Args:
            most: How many, where there are as many; those of the validation split come first.

        Yields:
            A sentence to translate, or an image as the model reads it, (channels, height, width), float32.
        """

    def sentences(self) -> Mapping[str, Sequence[str]]:
        """Split -> the sentences that models may be timed with, as they were read; none where models read no text."""
        return {}

    @abstractmethod
    def save_companions(self, directory: Path) -> None:
        """Writes the files that are needed to use a saved model: the preparation of images, or the tokenizer."""

    @abstractmethod
    def summary(self) -> dict[str, Any]:
        """The description of the data in ``results.json``."""

    def training_settings(self) -> dict[str, Any]:
        """Settings that determine a training and are not in the study's sections on data, baseline and training."""
        return {}

    def loss(self) -> Loss | None:
        """What a model learns to make small; None: the cross-entropy with the labels."""
        return None

    def rate_factors(self, model: PreTrainedModel, rate: float) -> Mapping[str, float]:
        """How many times a learning rate some parameters of a model learn with that is trained without a teacher.

        Args:
            model: The model.
            rate: The learning rate.
        """
        return {}

    # Measuring

    @abstractmethod
    def validate(self, model: PreTrainedModel, last: bool) -> dict[str, float]:
        """Measures on the validation split; the result always has ``validation_loss``.

        Args:
            model: Left in evaluation mode.
            last: Whether training has ended: then the result also has ``validation_`` and the study's metric.
        """

    @abstractmethod
    def progress(self, record: Mapping[str, float]) -> str:
        """An epoch's validation numbers in a few characters, for the progress line."""

    @abstractmethod
    def evaluate(self, model: PreTrainedModel) -> Answers:
        """The model's answers on the test split."""

    def evaluation_settings(self) -> dict[str, Any]:
        """Further settings that determine ``evaluate``; when they change, trials are evaluated again."""
        return {}

    def scoring_settings(self) -> dict[str, Any]:
        """Further settings that determine ``scores``; when they change, answers are scored again."""
        return {}

    def validation_answers(self, model: PreTrainedModel) -> Answers | None:
        """The model's answers on the validation split; None where ``validate`` scores no answers."""
        return None

    @abstractmethod
    def read_answers(self, path: Path) -> Answers:
        """Reads answers back.

        Raises:
            LeanformerError: The file is damaged.
        """

    @property
    @abstractmethod
    def test_rows(self) -> NDArray[np.int64] | None:
        """The numbers of the test examples among all of a cross-validation, ascending; None without one."""

    @abstractmethod
    def pooled(self, folds: Sequence[tuple[NDArray[np.int64], Any]]) -> Answers:
        """Answers on the test split of a study of all folds, which is the pool.

        Args:
            folds: ``test_rows`` of the study of each fold, and the answers of its model.
        """

    def with_choices(self, answers: Any, earlier: Any) -> Any:
        """Answers to new data, scored with what was chosen on the study's validation split, such as thresholds.

        Args:
            answers: A model's answers to the new data.
            earlier: The same model's answers on the study's test split.
        """
        return answers

    @abstractmethod
    def scores(self, answers: Any) -> dict[str, float]:
        """The answers' quality in each metric, by the metric's key."""

    @abstractmethod
    def example(self) -> Batch:
        """The inputs of one example, for counting operations."""

    def decoding(self, model: PreTrainedModel) -> dict[str, Any] | None:
        """The counted cost of writing at the lengths of the test split; None where models do not write text.

        Args:
            model: In evaluation mode.

        Returns:
            The result of ``decoding_costs``.
        """
        return None

    @abstractmethod
    def subject(self, model: PreTrainedModel, make_step: MakeStep) -> Subject:
        """The calls of a model that are timed."""

    # Robustness

    @property
    def corruptions(self) -> Mapping[str, str]:
        """The corruptions of the test split by which robustness is measured: name -> what it does; none by default."""
        return {}

    def corrupted(self, name: str) -> Task:
        """The same task with a corrupted test split.

        Args:
            name: One of ``corruptions``.
        """
        raise KeyError(name)

    def corruption_settings(self, name: str) -> dict[str, Any]:
        """What determines the corrupted test split, besides the data; when it changes, models are evaluated again.

        Args:
            name: One of ``corruptions``.
        """
        return {"name": name, "meaning": self.corruptions[name]}

    # Exported models

    @abstractmethod
    def evaluate_exported(self, model: Any) -> Answers:
        """An exported model's answers on the test split.

        Args:
            model: The result of ``runtime.load``.
        """

    @abstractmethod
    def exported(self, directory: Path, model: Any) -> Exported:
        """The calls of an exported model that are timed, on the examples of ``subject``.

        Args:
            directory: The exported directory.
            model: The result of ``runtime.load`` for it.
        """

    # Deciding

    @property
    def test_group_names(self) -> Sequence[str] | None:
        """The name of each test example's group, such as its document; None where each stands for itself."""
        return None

    @cached_property
    def test_groups(self) -> NDArray[np.int64] | None:
        """The group of each test example by its number, shape (examples,); None where each stands for itself."""
        return _numbered(self.test_group_names)

    def grouped_as(self, names: Sequence[str] | None) -> Self:
        """The task for answers to the test examples in another order.

        Args:
            names: The group of each example in that order; None where each stands for itself.
        """
        task = copy.copy(self)
        task.test_groups = _numbered(names)
        return task

    def check_groups(self) -> None:
        """Checks that the test split has enough groups to decide, and adds the warning that they are few.

        Raises:
            LeanformerError: There are too few.
        """
        if self.test_groups is not None:
            self.warnings = [*self.warnings, *check_test_groups(self.test_groups)]

    @property
    def outputs(self) -> int | None:
        """The number of outputs that a training example prescribes (M in the ratio Q); None where it is not defined."""
        return None

    @property
    @abstractmethod
    def worthless_quality(self) -> float:
        """The quality of a model that has learned nothing, in the study's metric."""

    def quality(self, outcome: Outcome) -> Quality:
        """Mean quality over the seeds, with its interval, in the study's metric."""
        metric = METRICS[self.study.accept.metric]
        return judge.quality(
            metric, outcome.statistics(metric), self.study.accept.confidence, self.test_groups, folds=self.folds
        )

    def compare(self, baseline: Outcome, candidate: Outcome) -> Comparison:
        """Compares a candidate with the baseline, a student with its teachers; see ``judge.compare``."""
        accept = self.study.accept
        metric = METRICS[accept.metric]
        arms = (candidate.rival(baseline).statistics(metric), candidate.statistics(metric))
        return judge.compare(
            metric,
            *arms,
            accept.max_drop,
            accept.confidence,
            groups=self.test_groups,
            paired=candidate.taught,
            max_ratio=accept.max_ratio,
            folds=self.folds,
        )

    @abstractmethod
    def details(self, outcome: Outcome, baseline: Outcome | None) -> dict[str, Any]:
        """Further keys of the outcome's row in ``results.json``: by class, by length, seed by seed.

        Args:
            outcome: The outcome of a candidate, or of the baseline itself.
            baseline: The outcome of the baseline, with the seeds of ``outcome`` and perhaps more, in the same order;
                None where it failed.
        """

    def results(self) -> dict[str, Any]:
        """Further keys of ``results.json``."""
        return {}


class WritingTask(Task):
    """A task whose models write text, from which other models can learn."""

    @abstractmethod
    def write_training(self, teacher: PreTrainedModel, beam: int, progress: Callable[[int], object]) -> list[str]:
        """A teacher's own answers to the training examples, and then to those without targets.

        Args:
            teacher: The teacher.
            beam: Hypotheses per example.
            progress: Called with the number of further finished examples.
        """

    @abstractmethod
    def told_batches(self, answers: Sequence[str], multiple: int) -> TrainingBatches:
        """As ``teaching_batches``, with the examples without targets too; theirs are the teacher's answers.

        Args:
            answers: What ``write_training`` gave.
            multiple: How many times as large the batches are.
        """

    @abstractmethod
    def batches_with(self, targets: Sequence[str]) -> TrainingBatches:
        """The training data with other targets, one per example, as ``write_training`` gives them.

        Raises:
            LeanformerError: No target is usable.
        """


class OpenTask(Protocol):
    """Makes a task from a study and a device; reads the data and checks the baseline."""

    def __call__(self, study: Any, device: torch.device, all_tested: bool = False) -> Task:
        """See ``open_task`` and ``open_test``."""


TASKS: Registry[OpenTask] = Registry("leanformer.tasks")
"""Name of the task in the study file -> the task."""


def open_task(study: Study, device: torch.device) -> Task:
    """Makes a study's task, which reads the data and checks the baseline.

    Raises:
        LeanformerError: Data or baseline are wrong, or do not fit together.
    """
    return TASKS[study.task](study, device)


def open_test(study: Study, device: torch.device) -> Task:
    """Makes a task to test trained models on: its test split is all of the study's data, whatever splits these have.

    Args:
        study: The study, with the new data, and with a trained model's directory as its baseline: images are prepared
            and classes are numbered as there.
        device: Where models answer.

    Raises:
        LeanformerError: The data are wrong, or do not fit the model.
    """
    return TASKS[study.task](study, device, all_tested=True)


def _numbered(names: Sequence[str] | None) -> NDArray[np.int64] | None:
    """The group of each example by its number."""
    return None if names is None else np.unique(np.array(names, object), return_inverse=True)[1].astype(np.int64)

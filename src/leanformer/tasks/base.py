"""What a study asks of its task: data, a baseline, answers on test data, and what these allow one to say."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from transformers import PreTrainedModel

from leanformer.config.base import Study
from leanformer.core.registry import Registry
from leanformer.core.warning import StudyWarning
from leanformer.decide import judge
from leanformer.decide.statistics import Comparison
from leanformer.learn.losses import Batch, Loss
from leanformer.learn.step import TrainingStep
from leanformer.learn.train import TrainingBatches
from leanformer.measure.cost import Subject
from leanformer.model.surgery import ResolvedPlan
from leanformer.results.metrics import METRICS, Metric
from leanformer.results.rows import Quality

MakeStep = Callable[[PreTrainedModel], TrainingStep]


class Answers(Protocol):
    """What a model gave on the test split, example by example."""

    def to_bytes(self) -> bytes:
        """As the content of a parquet file, one row an example."""


@dataclass(frozen=True)
class Outcome:
    """The answers of one candidate, or of the baseline.

    Args:
        answers: Seed -> answers.
    """

    answers: Mapping[int, Any]

    def each(self) -> list[Any]:
        """The answers of every seed, in the study's order."""
        return list(self.answers.values())

    def statistics(self, metric: Metric) -> list[np.ndarray]:
        """What each seed's answers contribute to a metric; see ``Metric.statistics``."""
        return [answers.statistics(metric.key) for answers in self.each()]


class Task(ABC):
    """One task: data, a model and a score. Made once a study, before anything is trained.

    A task registers itself in its module with ``TASKS.register``; beside it, a new one takes a form of the study file
    (``config``) and of the results (``results``).

    Attributes:
        study: The study.
        device: Where models are trained.
        notes: What was done with the data, in words.
        warnings: What the reader of the results has to know of data and baseline.
        batches: The training data.
        batch_key: The key of the study that says how large a batch is.
        answer_key: Likewise of the batches in which the test split is answered.
        batch: How large a training batch is, in words.
    """

    batch_key: ClassVar[str]
    answer_key: ClassVar[str]

    study: Study
    device: torch.device
    notes: Sequence[str]
    warnings: Sequence[StudyWarning]
    batches: TrainingBatches
    batch: str

    # Data and models

    @abstractmethod
    def make_baseline(self, seed: int) -> PreTrainedModel:
        """The baseline as a trial starts with it; random weights follow from the seed."""

    @abstractmethod
    def baseline_outline(self) -> PreTrainedModel:
        """The baseline without its weights, on the device ``meta``, where its structure is all that is asked."""

    def check_plan(self, plan: ResolvedPlan, where: str) -> None:  # noqa: B027 - data may suit any plan
        """Checks that the data suit what a plan puts in place.

        Args:
            plan: Resolved.
            where: What to name as the place of the mistake.

        Raises:
            LeanformerError: They do not.
        """

    def check(self) -> None:  # noqa: B027 - a task may have nothing to check
        """Checks what only a study needs: that its keys do something, and that the test split suffices to decide.

        Adds to ``warnings`` what the test split does not show.

        Raises:
            LeanformerError: A key does nothing with this baseline, or the test split does not suffice.
        """

    @abstractmethod
    def teaching_batches(self, multiple: int) -> TrainingBatches:
        """The training data in batches that are ``multiple`` times as large."""

    @abstractmethod
    def validation_batches(self) -> Iterator[Batch]:
        """The validation split, with labels."""

    @abstractmethod
    def save_companions(self, directory: Path) -> None:
        """Writes beside a saved model what it takes to use it: how images are prepared, the tokenizer."""

    @abstractmethod
    def summary(self) -> dict[str, Any]:
        """The data as ``results.json`` tells of them."""

    def training_settings(self) -> dict[str, Any]:
        """What a training follows from that the study's sections on data, baseline and training do not say."""
        return {}

    def loss(self) -> Loss | None:
        """What a model learns to make small; None: the cross-entropy with the labels."""
        return None

    # Measuring

    @abstractmethod
    def validate(self, model: PreTrainedModel, last: bool) -> dict[str, float]:
        """Measures on the validation split; in any case ``validation_loss``.

        Args:
            model: Left in evaluation mode.
            last: Whether training has ended: then ``validation_`` and the study's metric is there.
        """

    @abstractmethod
    def progress(self, record: Mapping[str, float]) -> str:
        """An epoch's validation numbers as a person reads them, in a few characters."""

    @abstractmethod
    def evaluate(self, model: PreTrainedModel) -> Answers:
        """The model's answers on the test split."""

    def evaluation_settings(self) -> dict[str, Any]:
        """What ``evaluate`` follows from beside model and data; a trial evaluated otherwise is evaluated anew."""
        return {}

    def scoring_settings(self) -> dict[str, Any]:
        """What ``scores`` follows from beside the answers; what was scored otherwise is scored anew."""
        return {}

    def validation_answers(self, model: PreTrainedModel) -> Answers | None:
        """The model's answers on the validation split, where ``validate`` scores any."""
        return None

    @abstractmethod
    def read_answers(self, path: Path) -> Answers:
        """Reads answers back.

        Raises:
            LeanformerError: The file is damaged.
        """

    @abstractmethod
    def scores(self, answers: Any) -> dict[str, float]:
        """The answers' quality, under the metrics' names."""

    @abstractmethod
    def example(self) -> Batch:
        """The inputs of one example, by which operations are counted."""

    def decoding(self, model: PreTrainedModel) -> dict[str, Any] | None:
        """What writing costs a model at the lengths of the test split, counted; None where models do not write.

        Args:
            model: In evaluation mode.

        Returns:
            What ``decoding_costs`` gives.
        """
        return None

    @abstractmethod
    def subject(self, model: PreTrainedModel, make_step: MakeStep) -> Subject:
        """What is timed of a model."""

    # Deciding

    @property
    def outputs(self) -> int | None:
        """Numbers that a training example prescribes (M in the ratio Q), where that can be said."""
        return None

    @property
    @abstractmethod
    def worthless_quality(self) -> float:
        """The quality of a model that has learned nothing, in the study's metric."""

    def quality(self, outcome: Outcome) -> Quality:
        """Mean quality over the seeds, with its interval, in the study's metric."""
        metric = METRICS[self.study.accept.metric]
        return judge.quality(metric, outcome.statistics(metric), self.study.accept.confidence)

    def compare(self, baseline: Outcome, candidate: Outcome) -> Comparison:
        """A candidate against the baseline; see ``judge.compare``."""
        accept = self.study.accept
        metric = METRICS[accept.metric]
        arms = (baseline.statistics(metric), candidate.statistics(metric))
        return judge.compare(metric, *arms, accept.max_drop, accept.confidence)

    @abstractmethod
    def details(self, outcome: Outcome, baseline: Outcome | None) -> dict[str, Any]:
        """Further keys of the outcome's row in ``results.json``: by class, by length, seed by seed.

        Args:
            outcome: Of the candidate, or of the baseline itself.
            baseline: Of the baseline, where it ended well.
        """

    @abstractmethod
    def interval_method(self) -> str:
        """How intervals and tests are made, for the report."""

    def results(self) -> dict[str, Any]:
        """Further keys of ``results.json``."""
        return {}


class WritingTask(Task):
    """A task whose models answer with text of their own, from which others can learn."""

    @abstractmethod
    def write_training(self, teacher: PreTrainedModel, beam: int, progress: Callable[[int], object]) -> list[str]:
        """A teacher's own answers to the training examples.

        Args:
            teacher: Whose answers.
            beam: Hypotheses that it keeps an example.
            progress: Called with the number of further examples that are done.
        """

    @abstractmethod
    def batches_with(self, targets: Sequence[str]) -> TrainingBatches:
        """The training data with other targets, one an example, as ``write_training`` gives them.

        Raises:
            LeanformerError: None of them can be learned from.
        """


OpenTask = Callable[[Any, torch.device], Task]
"""Makes a task of a study of its form and a device; reads the data and checks the baseline."""

TASKS: Registry[OpenTask] = Registry("leanformer.tasks")
"""By the name that the study file gives."""


def open_task(study: Study, device: torch.device) -> Task:
    """A study's task: its data are read, its baseline is checked.

    Raises:
        LeanformerError: Data or baseline are wrong, or do not fit each other.
    """
    return TASKS[study.task](study, device)

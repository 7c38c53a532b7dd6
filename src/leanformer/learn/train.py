"""The training loop of every model: steps, epochs, rollbacks to the last good state, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from accelerate import Accelerator
from torch import nn

from leanformer.config.base import TrainConfig
from leanformer.core import stopping
from leanformer.core.stopping import undisturbed
from leanformer.learn.checkpoint import CheckpointError, Snapshot
from leanformer.learn.losses import Batch, Loss
from leanformer.learn.schedule import rate_factor
from leanformer.learn.step import TrainingStep

# A rollback goes to the last boundary, whose place does not depend on when checkpoints are written: a trial that is
# interrupted and resumed gives the same model as one that is not.
STEPS_BETWEEN_BOUNDARIES = 500
MAX_ROLLBACKS = 2
ROLLBACK_RATE_FACTOR = 0.25
# Reading a loss waits for the device; on a CPU there is nothing to wait for.
STEPS_BETWEEN_LOSS_READS_ON_GPU = 25


@runtime_checkable
class TrainingBatches(Protocol):
    """The training data, as the loop needs them."""

    @property
    def steps_per_epoch(self) -> int:
        """Training steps per epoch."""

    def training(self, seed: int, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from a given step on, as named inputs with ``labels``."""


class Observer(Protocol):
    """What the loop calls to measure on validation data and to report its progress."""

    def validate(self, model: nn.Module, last: bool) -> dict[str, float]:
        """Measures on the validation split, such as ``validation_loss``; called after each epoch."""

    def epoch_ended(self, record: dict[str, float], examples_per_second: float) -> None:
        """Called with each epoch's numbers."""

    def step_ended(self, epoch: int, step: int, steps_per_epoch: int) -> None:
        """Called after each step."""

    def rolled_back(self, reason: str) -> None:
        """Called when training goes back to the last good state."""


@dataclass
class Trained:
    """How a training went.

    Args:
        status: ``ok`` or ``failed``.
        reason: Why it failed, in one sentence.
        epochs: One record per epoch: epoch, train_loss, and what the observer's ``validate`` returns.
        seconds: Time spent in training steps, without validation and checkpoints.
        examples: Training examples seen, repeats included.
        rollbacks: One sentence for each rollback.
    """

    status: str = "ok"
    reason: str = ""
    epochs: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    examples: int = 0
    rollbacks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Run:
    """What identifies a training; a checkpoint resumes only the training that it comes from.

    Args:
        seed: Determines the order of the examples and the augmentation.
        epochs: Epochs of the whole training.
        steps_per_epoch: Training steps per epoch.
        learning_rate: The peak of the schedule.
    """

    seed: int
    epochs: int
    steps_per_epoch: int
    learning_rate: float

    def find(self, checkpoint: Path, model: nn.Module, device: torch.device) -> Snapshot | None:
        """The state to resume this training from; None where the file does not exist.

        Args:
            checkpoint: The file.
            model: The model to train; it is not changed.
            device: The device of the state.

        Raises:
            CheckpointError: The checkpoint is damaged, or of another training or model.
            LeanformerError: It cannot be read.
        """
        if not checkpoint.exists():
            return None
        found = Snapshot.read(checkpoint, device)
        for key, value in asdict(self).items():
            theirs = found.numbers.get("run", {}).get(key)
            if theirs != value:
                raise CheckpointError(
                    f"{checkpoint}: the checkpoint is from a training with {key} = {theirs}, not {value}"
                )
        if (difference := found.difference(model)) is not None:
            raise CheckpointError(f"{checkpoint}: the checkpoint is from another model ({difference})")
        return found


@dataclass
class _State:
    """How far a training has come.

    Args:
        epoch: Finished epochs.
        step: Finished steps of the current epoch.
        loss_sum: Sum of the losses of the current epoch's examples, as far as they were read from the device.
        epoch_examples: Examples seen in the current epoch.
        rate_factor: The factor that rollbacks have put on the learning rate.
        trained: The record of the training so far.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    epoch_examples: int = 0
    rate_factor: float = 1.0
    trained: Trained = field(default_factory=Trained)


class WeightMean:
    """The mean of a model's weights after each of its last epochs.

    Args:
        first: The first epoch that counts, from 0; none counts where it is the number of all epochs.
    """

    def __init__(self, first: int) -> None:
        self.first = first
        self.epochs = 0
        self.sums: dict[str, torch.Tensor] = {}

    def add(self, model: nn.Module, epoch: int) -> None:
        """Adds the weights after an epoch, if it counts."""
        if epoch < self.first:
            return
        self.epochs = epoch - max(self.first, 0) + 1
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:  # the mean of equal numbers is not always that number
                weight = parameter.detach()
                self.sums[name] = self.sums[name] + weight if name in self.sums else weight.clone()

    @torch.no_grad()
    def put(self, model: nn.Module) -> None:
        """Gives a model the mean weights, if any epoch counted."""
        for name, parameter in model.named_parameters():
            if name in self.sums:
                parameter.copy_(self.sums[name] / self.epochs)


class _NonFiniteError(Exception):
    """The loss or the gradient's norm is not finite."""


class Trainer:
    """Trains a model in place, from its current state to the end of its run.

    The state is kept at boundaries: at the end of each epoch and every 500th step within one. Training goes back to the
    last boundary when the loss or its gradient is not finite, and a checkpoint is the last boundary in a file.

    Args:
        step: The model, and how it learns from a batch.
        batches: The training data.
        run: Seed, epochs and learning rate.
        observer: Called after steps and epochs; measures on validation data.
        checkpoint: A file to write the last boundary to at intervals; with None, none is written.
        found: The state to resume from, as ``Run.find`` gives it.
    """

    def __init__(
        self,
        step: TrainingStep,
        batches: TrainingBatches,
        run: Run,
        observer: Observer,
        checkpoint: Path | None = None,
        found: Snapshot | None = None,
    ) -> None:
        self.training_step = step
        self.model = step.model
        self.config = step.config
        self.batches = batches
        self.run = run
        self.observer = observer
        self.checkpoint = checkpoint
        self._state = _State()
        average_last = self.config.average_last
        self._mean = WeightMean(run.epochs if average_last is None else run.epochs - average_last)
        device = step.accelerator.device
        self._steps_between_reads = 1 if device.type == "cpu" else STEPS_BETWEEN_LOSS_READS_ON_GPU
        self._unread_losses = torch.zeros((), device=device)  # the sum of those that are still on the device
        if found is not None:
            self._restore(found)
        self._boundary = self._snapshot() if found is None else found
        self._last_write = time.monotonic()

    def fit(self) -> Trained:
        """Trains to the end, or until the training fails; writes a checkpoint when the process is asked to stop."""
        try:
            while self._state.epoch < self.run.epochs and self._state.trained.status == "ok":
                try:
                    record = self.epoch()
                except _NonFiniteError:
                    self.rollback()
                else:
                    self._end_epoch(record)
        except (KeyboardInterrupt, SystemExit):
            if self.checkpoint is not None:
                with undisturbed():
                    self._boundary.write(self.checkpoint)
            raise
        return self._state.trained

    def epoch(self) -> dict[str, float]:
        """Trains to the end of the current epoch and measures on validation data; returns the epoch's record."""
        state = self._state
        self._unread_losses.zero_()
        self.model.train()
        started = time.perf_counter()
        for batch in self.batches.training(self.run.seed, state.epoch, state.step):
            if self._is_boundary():
                state.trained.seconds += time.perf_counter() - started
                self._boundary = self._snapshot()
                self._write_when_due()
                started = time.perf_counter()
            self.step(batch)
        state.trained.seconds += time.perf_counter() - started
        last = state.epoch + 1 == self.run.epochs
        self._mean.add(self.model, state.epoch)
        if last:
            self._mean.put(self.model)
        record = {"epoch": state.epoch + 1, "train_loss": state.loss_sum / state.epoch_examples}
        record.update(self.observer.validate(self.model, last))
        if not all(math.isfinite(value) for value in record.values()):
            raise _NonFiniteError
        return record

    def step(self, batch: Batch) -> None:
        """One training step, at the schedule's learning rate."""
        state, run = self._state, self.run
        number = state.epoch * run.steps_per_epoch + state.step
        factor = rate_factor(self.config.schedule, number, run.epochs * run.steps_per_epoch, self.config.warmup)
        self.training_step.set_learning_rate(self._peak_rate * factor)
        examples = len(batch["labels"])
        self._unread_losses += self.training_step(batch) * examples
        done = state.step + 1
        if done % self._steps_between_reads == 0 or done == run.steps_per_epoch:
            self._read_losses()
        state.step = done
        state.epoch_examples += examples
        state.trained.examples += examples
        self.observer.step_ended(state.epoch, state.step, run.steps_per_epoch)
        stopping.check()

    def rollback(self) -> None:
        """Goes back to the last boundary with a quarter of the learning rate; the third time, the training fails."""
        trained = self._state.trained
        at = f"epoch {self._state.epoch + 1}, step {self._state.step + 1}"
        if len(trained.rollbacks) == MAX_ROLLBACKS:
            trained.status = "failed"
            trained.reason = (
                f"the loss or its gradient was not finite at {at}, after {MAX_ROLLBACKS} returns to the last "
                f"good state with a lower learning rate ({self._peak_rate:g} at the end)"
            )
            return
        self._restore(self._boundary)
        self._state.rate_factor *= ROLLBACK_RATE_FACTOR
        reason = (
            f"the loss or its gradient was not finite at {at}: back to the last good state, "
            f"learning rate {self._peak_rate:g}"
        )
        self._state.trained.seconds = trained.seconds
        self._state.trained.rollbacks = [*trained.rollbacks, reason]
        self._boundary = Snapshot(self._boundary.tensors, self._numbers())
        self.observer.rolled_back(reason)

    @property
    def _peak_rate(self) -> float:
        """The peak learning rate of the next steps, rollbacks included."""
        return self.run.learning_rate * self._state.rate_factor

    def _read_losses(self) -> None:
        """Reads the losses since the last look from the device and adds them to the epoch's."""
        losses = self._unread_losses.item()
        if not math.isfinite(losses):
            raise _NonFiniteError
        self._state.loss_sum += losses
        self._unread_losses.zero_()

    def _end_epoch(self, record: dict[str, float]) -> None:
        state = self._state
        state.trained.epochs.append(record)
        state.epoch, state.step, state.loss_sum, state.epoch_examples = state.epoch + 1, 0, 0.0, 0
        self._boundary = self._snapshot()
        shown = {**record, "learning_rate": self.training_step.learning_rate}
        self.observer.epoch_ended(shown, state.trained.examples / max(state.trained.seconds, 1e-9))
        if state.epoch < self.run.epochs:
            self._write_when_due()

    def _is_boundary(self) -> bool:
        """Whether there is a boundary before the next step, other than the one that training has just resumed from."""
        step = self._state.step
        return step > 0 and step % STEPS_BETWEEN_BOUNDARIES == 0 and self._boundary.numbers["step"] != step

    def _numbers(self) -> dict[str, Any]:
        return {**asdict(self._state), "run": asdict(self.run)}

    def _snapshot(self) -> Snapshot:
        return Snapshot.take(self.model, self.training_step.optimizer, self._numbers(), self._mean.sums)

    def _restore(self, snapshot: Snapshot) -> None:
        numbers = snapshot.restore(self.model, self.training_step.optimizer)
        del numbers["run"]
        self._mean.sums = snapshot.sums()
        self._state = _State(**{**numbers, "trained": Trained(**numbers["trained"])})

    def _write_when_due(self) -> None:
        """Writes the last boundary if the last checkpoint is old enough."""
        if self.checkpoint is None or time.monotonic() - self._last_write < self.config.checkpoint_seconds:
            return
        self._boundary.write(self.checkpoint)
        self._last_write = time.monotonic()


def train(
    model: nn.Module,
    batches: TrainingBatches,
    config: TrainConfig,
    learning_rate: float,
    seed: int,
    observer: Observer,
    accelerator: Accelerator,
    checkpoint: Path | None = None,
    epochs: int | None = None,
    loss: Loss | None = None,
    rate_factors: Mapping[str, float] | None = None,
) -> Trained:
    """Trains a model in place.

    A loss or gradient that is not finite takes training back to the last good state with a quarter of the learning
    rate, at most twice; then the training fails: ``status`` is ``failed`` and ``reason`` says why.

    Args:
        model: On the accelerator's device.
        batches: The training data.
        config: Optimizer, schedule, clipping, precision.
        learning_rate: The peak learning rate.
        seed: Determines the order of the examples and the augmentation.
        observer: Called after steps and epochs; measures on validation data.
        accelerator: From ``make_accelerator``.
        checkpoint: A file to write the state to at intervals, and to resume from if it exists.
        epochs: Instead of ``config.epochs``.
        loss: By default the cross-entropy of the model's ``logits`` with the batch's ``labels``.
        rate_factors: The name of a parameter -> how many times the learning rate it learns with; all others once.

    Raises:
        CheckpointError: The checkpoint is damaged, or from another training. The model is unchanged.
        LeanformerError: The checkpoint cannot be read or written.
    """
    run = Run(seed, config.epochs if epochs is None else epochs, batches.steps_per_epoch, learning_rate)
    found = None if checkpoint is None else run.find(checkpoint, model, accelerator.device)
    step = TrainingStep(model, config, learning_rate, accelerator, loss, rate_factors)
    try:
        return Trainer(step, batches, run, observer, checkpoint, found).fit()
    finally:
        step.close()

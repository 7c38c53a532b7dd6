"""The one training loop, for every model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import nn

from leanformer.config.base import TrainConfig
from leanformer.config.translation import TranslationTrainConfig
from leanformer.core import stopping
from leanformer.core.errors import LeanformerError
from leanformer.core.stopping import undisturbed
from leanformer.learn.checkpoint import CheckpointError, Snapshot
from leanformer.learn.compiled import compiled, compiling
from leanformer.learn.schedule import rate_factor
from leanformer.learn.weight_decay import parameter_groups
from leanformer.model.hf import attention_implementation

# A rollback goes to the last boundary, so that a step's fate depends on the step alone and not on when a checkpoint
# happened to be written: a trial that was cut off and resumed goes the way of one that was not.
STEPS_BETWEEN_BOUNDARIES = 500
MAX_ROLLBACKS = 2
ROLLBACK_RATE_FACTOR = 0.25
# Looking at a loss waits for the device; on a CPU there is nothing to wait for.
STEPS_BETWEEN_LOOKS_ON_GPU = 25


@runtime_checkable
class TrainingBatches(Protocol):
    """What the loop needs of the data."""

    @property
    def steps_per_epoch(self) -> int:
        """Training steps an epoch."""

    def training(self, seed: int, epoch: int, first_step: int = 0) -> Iterator[dict[str, torch.Tensor]]:
        """The batches of one epoch from a step on, as named inputs with ``labels``."""


class Observer(Protocol):
    """What the loop tells, and asks of the task."""

    def validate(self, model: nn.Module, last: bool) -> dict[str, float]:
        """Measures on the validation split, such as ``validation_loss``; called after each epoch, and told the last."""

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
        epochs: One record an epoch: epoch, train_loss, and what the observer's ``validate`` gives.
        seconds: Time spent in training steps, without validation and checkpoints.
        examples: Training examples seen, repeats included.
        rollbacks: One sentence a rollback.
    """

    status: str = "ok"
    reason: str = ""
    epochs: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    examples: int = 0
    rollbacks: list[str] = field(default_factory=list)


@dataclass
class _State:
    """Where a training stands; everything here is written to a checkpoint."""

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    epoch_examples: int = 0
    rate_factor: float = 1.0
    trained: Trained = field(default_factory=Trained)
    run: dict[str, Any] = field(default_factory=dict)

    def numbers(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, numbers: dict[str, Any]) -> _State:
        return cls(**{**numbers, "trained": Trained(**numbers["trained"])})


class WeightMean:
    """The mean of a model's weights after each of its last epochs.

    Args:
        first: The first epoch that counts, from 0; none does where it is the number of all epochs.
    """

    def __init__(self, first: int) -> None:
        self.first = first
        self.epochs = 0
        self.sums: dict[str, torch.Tensor] = {}

    def add(self, model: nn.Module, epoch: int) -> None:
        """Adds the weights as they are after an epoch, if it counts."""
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
    """The loss or the gradient's norm is not a number any more."""


def make_optimizer(model: nn.Module, config: TrainConfig, learning_rate: float) -> torch.optim.AdamW:
    """AdamW that decays what multiplies tokens; see ``parameter_groups``."""
    groups = parameter_groups(model, config.weight_decay)
    return torch.optim.AdamW(groups, lr=learning_rate, betas=config.betas, fused=True)


def settle_precision(wanted: str, device: torch.device) -> str:
    """``float32`` or ``bfloat16``; ``auto`` is bfloat16 on a GPU that has it, float32 elsewhere."""
    if wanted != "auto":
        return wanted
    return "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"


def make_accelerator(precision: str, device: torch.device) -> Accelerator:
    """The accelerator for a device and a settled precision.

    Raises:
        LeanformerError: This process has used accelerate in another way, and accelerate keeps to the first.
    """
    try:
        return Accelerator(mixed_precision="bf16" if precision == "bfloat16" else "no", cpu=device.type == "cpu")
    except ValueError as error:
        raise LeanformerError(
            f"{precision} on {device.type}: this Python process has used accelerate with another precision or device, "
            "and accelerate keeps to the first; start a new process"
        ) from error


Batch = dict[str, torch.Tensor]
Loss = Callable[[Any, Batch], Iterator[torch.Tensor]]
"""From the model (wrapped for the device and precision) and a batch: the terms of the loss. Terms that share nothing
are given one by one, each is differentiated before the next is computed, and only one's activations are held."""


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float = 0.0) -> torch.Tensor:
    """Mean cross-entropy in nats over all labels that are not -100.

    Args:
        logits: Shape (..., classes).
        labels: Shape (...).
        label_smoothing: As in PyTorch's ``cross_entropy``.
    """
    return F.cross_entropy(logits.float().flatten(0, -2), labels.flatten(), label_smoothing=label_smoothing)


def inputs_of(batch: Batch) -> dict[str, Any]:
    """What a model is called with to answer a whole batch: all but the labels, and no cache of what a decoder read."""
    inputs: dict[str, Any] = {name: tensor for name, tensor in batch.items() if name != "labels"}
    if "decoder_input_ids" in inputs:
        inputs["use_cache"] = False  # else every key and value is copied into one, for tokens that nobody writes
    return inputs


def label_loss(label_smoothing: float) -> Loss:
    """The loss of a model that gives ``logits`` on batches with ``labels``: cross-entropy."""

    def loss(model: Any, batch: Batch) -> Iterator[torch.Tensor]:
        yield cross_entropy(model(**inputs_of(batch)).logits, batch["labels"], label_smoothing)

    return loss


class TrainingStep:
    """Forward, backward, clipping and update of one model; also what is timed where training speed is measured.

    Args:
        model: On the accelerator's device.
        config: Optimizer, smoothing, clipping, compilation.
        learning_rate: The rate until ``learning_rate`` is set anew.
        accelerator: From ``make_accelerator``.
        loss: By default the cross-entropy with the batch's labels.

    Raises:
        LeanformerError: The model's attention cannot be trained on the device.
    """

    def __init__(
        self,
        model: nn.Module,
        config: TrainConfig,
        learning_rate: float,
        accelerator: Accelerator,
        loss: Loss | None = None,
    ) -> None:
        if attention_implementation(model) == "flex_attention" and accelerator.device.type == "cpu":
            raise LeanformerError(
                "attn_implementation: flex_attention cannot be trained on a CPU; write sdpa or eager in the model's "
                "configuration"
            )
        self.model = model
        self.config = config
        self.accelerator = accelerator
        self.loss = loss or label_loss(config.label_smoothing)
        self.optimizer = make_optimizer(model, config, learning_rate)
        self._parameters = list(model.parameters())
        self._forward: Any = (
            compiled(model, isinstance(config, TranslationTrainConfig), accelerator.device)
            if config.compile
            else accelerator.prepare(model)
        )

    def set_learning_rate(self, learning_rate: float) -> None:
        """Sets the rate of the steps to come."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate

    def __call__(self, batch: Batch) -> torch.Tensor:
        """One step; gives the loss of the batch, which is not finite where the gradient was not.

        Backward, clipping and update are PyTorch's own: in float32 and bfloat16, without shards, accelerate's would do
        the same, and look for installed packages at each call.

        Raises:
            LeanformerError: The model is to be compiled, and cannot be here.
        """
        total = torch.zeros((), device=self.accelerator.device)
        terms = self.loss(self._forward, batch)
        while True:
            with compiling(), self.accelerator.autocast():
                term = next(terms, None)
            if term is None:
                break
            with compiling():  # the gradient's part, which comes when it is first asked for
                term.backward()
            total += term.detach()
        limit = math.inf if self.config.clip_norm is None else self.config.clip_norm
        norm = nn.utils.clip_grad_norm_(self._parameters, limit)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total + norm * 0  # 0 x inf is nan: one look at the loss sees the gradient too

    def close(self) -> None:
        """Takes the accelerator's wrappers off the model again."""
        self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        self.accelerator.free_memory()


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
) -> Trained:
    """Trains a model in place.

    A loss or gradient that is not finite takes training back to the last good state with a quarter of the rate, at
    most twice; then the training is given up, ``status`` is ``failed`` and ``reason`` says why.

    Args:
        model: On the accelerator's device.
        batches: The training data.
        config: Optimizer, schedule, clipping, precision.
        learning_rate: Peak rate.
        seed: Order of the examples and augmentation follow from it.
        observer: Is told of steps and epochs, and measures on validation data.
        accelerator: From ``make_accelerator``.
        checkpoint: A file to write the state to now and then, and to go on from if it is there.
        epochs: Instead of ``config.epochs``.
        loss: By default the cross-entropy of the model's ``logits`` with the batch's ``labels``.

    Raises:
        CheckpointError: The checkpoint is damaged, or of another training. The model is as it was.
        LeanformerError: The checkpoint cannot be read or written.
    """
    epochs = config.epochs if epochs is None else epochs
    steps = epochs * batches.steps_per_epoch
    run = {
        "seed": seed,
        "epochs": epochs,
        "steps_per_epoch": batches.steps_per_epoch,
        "learning_rate": learning_rate,
    }
    found = None
    if checkpoint is not None and checkpoint.exists():
        found = Snapshot.read(checkpoint, accelerator.device)
        for key, value in run.items():
            theirs = found.numbers.get("run", {}).get(key)
            if theirs != value:
                raise CheckpointError(
                    f"{checkpoint}: the checkpoint is of a training with {key} = {theirs}, not {value}"
                )
        if (difference := found.difference(model)) is not None:
            raise CheckpointError(f"{checkpoint}: the checkpoint is of another model ({difference})")

    step = TrainingStep(model, config, learning_rate, accelerator, loss)
    looks = 1 if accelerator.device.type == "cpu" else STEPS_BETWEEN_LOOKS_ON_GPU
    state = _State(run=run)
    mean = WeightMean(epochs if config.average_last is None else epochs - config.average_last)

    def take() -> Snapshot:
        return Snapshot.take(model, step.optimizer, state.numbers(), mean.sums)

    def restore(snapshot: Snapshot) -> _State:
        numbers = snapshot.restore(model, step.optimizer)
        mean.sums = snapshot.sums()
        return _State.of(numbers)

    if found is not None:
        state = restore(found)
    boundary = take()
    last_write = time.monotonic()

    def run_epoch() -> None:
        """Goes on in the present epoch to its end."""
        nonlocal boundary
        unseen = torch.zeros((), device=accelerator.device)  # sum of losses since the last look
        model.train()
        started = time.perf_counter()
        for batch in batches.training(seed, state.epoch, state.step):
            if state.step and state.step % STEPS_BETWEEN_BOUNDARIES == 0 and boundary.numbers["step"] != state.step:
                state.trained.seconds += time.perf_counter() - started
                boundary = take()
                write_when_due()
                started = time.perf_counter()
            global_step = state.epoch * batches.steps_per_epoch + state.step
            factor = rate_factor(config.schedule, global_step, steps, config.warmup)
            step.set_learning_rate(learning_rate * state.rate_factor * factor)
            size = len(batch["labels"])
            unseen += step(batch) * size
            if (state.step + 1) % looks == 0 or state.step + 1 == batches.steps_per_epoch:
                seen = unseen.item()
                if not math.isfinite(seen):
                    raise _NonFiniteError
                state.loss_sum += seen
                unseen.zero_()
            state.step += 1
            state.epoch_examples += size
            state.trained.examples += size
            observer.step_ended(state.epoch, state.step, batches.steps_per_epoch)
            stopping.check()
        state.trained.seconds += time.perf_counter() - started

    def write_when_due() -> None:
        nonlocal last_write
        if checkpoint is not None and time.monotonic() - last_write >= config.checkpoint_seconds:
            boundary.write(checkpoint)
            last_write = time.monotonic()

    try:
        while state.epoch < epochs:
            try:
                run_epoch()
                mean.add(model, state.epoch)
                if state.epoch + 1 == epochs:
                    mean.put(model)
                record = {"epoch": state.epoch + 1, "train_loss": state.loss_sum / state.epoch_examples}
                record.update(observer.validate(model, state.epoch + 1 == epochs))
                if not all(math.isfinite(value) for value in record.values()):
                    raise _NonFiniteError
            except _NonFiniteError:
                at = f"epoch {state.epoch + 1}, step {state.step + 1}"
                spent = state.trained.seconds
                rollbacks = [*state.trained.rollbacks]
                if len(rollbacks) == MAX_ROLLBACKS:
                    state.trained.status = "failed"
                    state.trained.reason = (
                        f"the loss or its gradient was not finite at {at}, after {MAX_ROLLBACKS} returns to the last "
                        f"good state with a lower rate ({learning_rate * state.rate_factor:g} at the end)"
                    )
                    return state.trained
                state = restore(boundary)
                state.rate_factor *= ROLLBACK_RATE_FACTOR
                state.trained.seconds = spent
                rate = learning_rate * state.rate_factor
                rollbacks.append(f"not finite at {at}: back to the last good state, rate {rate:g}")
                state.trained.rollbacks = rollbacks
                boundary = Snapshot(boundary.tensors, state.numbers())
                observer.rolled_back(rollbacks[-1])
                continue
            state.trained.epochs.append(record)
            state.epoch, state.step, state.loss_sum, state.epoch_examples = state.epoch + 1, 0, 0.0, 0
            boundary = take()
            speed = state.trained.examples / max(state.trained.seconds, 1e-9)
            observer.epoch_ended(record, speed)
            if state.epoch < epochs:
                write_when_due()
    except (KeyboardInterrupt, SystemExit):
        if checkpoint is not None:
            with undisturbed():
                boundary.write(checkpoint)
        raise
    finally:
        step.close()
    return state.trained

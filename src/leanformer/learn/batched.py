"""Several models of one shape trained as one batched model: for a GPU, which a single small model leaves idle.

They may differ in their seeds and rates: the trainings of all seeds and rates of one form are one training here. The
models are stacked, each parameter along a new first dimension, and PyTorch's ``vmap`` batches what they compute.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from leanformer.config.base import TrainConfig
from leanformer.core.errors import LeanformerError
from leanformer.data.augment import augment, normalize
from leanformer.data.image_batches import ImageBatches
from leanformer.data.images import ImageSplit, MemorySplit
from leanformer.learn.losses import Batch, cross_entropy, inputs_of
from leanformer.learn.schedule import rate_factor
from leanformer.learn.step import make_optimizer

WARM_UP_STEPS = 3
"""Before a step is captured: libraries choose their kernels and take their workspaces in the first ones."""


class StackedStep:
    """Forward, backward, clipping and update of k models at once: what k ``TrainingStep`` do, in float tolerance.

    The parameters of all models of one rate lie in one tensor of shape (models, numbers) for each group of the
    optimizer, so that an update is a kernel a group. Each model has its own batch, its own loss and its own gradient
    norm. PyTorch's fused attention has no batching rule on a CPU, and on a GPU one whose gradient refuses the result
    (PyTorch 2.11: "LSE is not correctly aligned"): plain products are taken in its place, in float32.

    Args:
        models: k models of one shape on one device, in training mode; their own weights stay as they are.
        config: Optimizer, smoothing, clipping.
        learning_rates: The peak rate of all, or of each, one a model; models of one rate stand side by side.

    Attributes:
        models: k.
        device: Where they are.
        optimizer: Of the parameters of all.

    Raises:
        LeanformerError: There is no model, one has another shape than the first, or there are not as many rates.
    """

    def __init__(
        self, models: Sequence[nn.Module], config: TrainConfig, learning_rates: float | Sequence[float]
    ) -> None:
        _check_one_shape(models)
        self.config = config
        self.models = len(models)
        self.device = next(models[0].parameters()).device
        self._skeleton = copy.deepcopy(models[0])  # gives the structure, and what is no parameter
        rates = list(learning_rates) if isinstance(learning_rates, Sequence) else [learning_rates] * self.models
        if len(rates) != self.models:
            raise LeanformerError(f"there are {self.models} models, and {len(rates)} learning rates; give one a model")
        alike = [(rate, len(list(own))) for rate, own in groupby(rates)]
        names = {id(parameter): name for name, parameter in models[0].named_parameters()}
        self.optimizer = make_optimizer(models[0], config, rates[0])
        # Of each group of parameters: name and shape of those, and what the optimizer holds for the models of a rate.
        self._groups: list[tuple[list[tuple[str, torch.Size]], list[nn.Parameter]]] = []
        self._peaks: list[tuple[Tensor, float]] = []  # the rate that the optimizer reads, and its peak
        groups, self.optimizer.param_groups = self.optimizer.param_groups, []
        for group in groups:
            parts = [(names[id(parameter)], parameter.shape) for parameter in group["params"]]
            rows = [torch.cat([model.get_parameter(name).detach().flatten() for name, _ in parts]) for model in models]
            stored = []
            for (rate, _), own_rows in zip(alike, torch.stack(rows).split([count for _, count in alike]), strict=True):
                stored.append(nn.Parameter(own_rows))  # (models of this rate, numbers)
                self._peaks.append((torch.tensor(rate, device=self.device), rate))
                own = {"params": stored[-1:], "lr": self._peaks[-1][0], "capturable": self.device.type == "cuda"}
                self.optimizer.param_groups.append({**group, **own})
            self._groups.append((parts, stored))

    def set_rate_factor(self, factor: Tensor | float) -> None:
        """Sets what each peak rate is multiplied with in the steps to come: a number, or a tensor of one."""
        for rate, peak in self._peaks:
            rate.copy_(torch.as_tensor(factor, device=self.device).view(()) * peak)

    def parameters(self) -> dict[str, Tensor]:
        """Name -> that parameter of all models, shape (k, ...), differentiable in what is stored."""
        found = {}
        for parts, stored in self._groups:
            flat = stored[0] if len(stored) == 1 else torch.cat([*stored])
            columns = flat.split([shape.numel() for _, shape in parts], dim=1)
            found.update({name: own.view(-1, *shape) for (name, shape), own in zip(parts, columns, strict=True)})
        return found

    def __call__(self, batch: Batch) -> Tensor:
        """One step of each model on its own batch.

        Args:
            batch: Named inputs with ``labels``, shape (k, examples, ...) each.

        Returns:
            Each model's loss, shape (k,), not finite where its gradient was not.
        """
        with sdpa_kernel(SDPBackend.MATH):
            losses = vmap(self._loss, randomness="different")(self.parameters(), batch)
        losses.sum().backward()
        limit = math.inf if self.config.clip_norm is None else self.config.clip_norm
        of_rates = []
        for flats in zip(*(stored for _, stored in self._groups), strict=True):
            gradients = [flat.grad for flat in flats if flat.grad is not None]
            norms = torch.stack([gradient.norm(dim=1) for gradient in gradients]).norm(dim=0)
            of_rates.append(norms)
            for gradient in gradients:
                gradient *= (limit / (norms + 1e-6)).clamp(max=1.0)[:, None]  # as clip_grad_norm_
        self.optimizer.step()
        self.optimizer.zero_grad()
        return losses.detach() + torch.cat(of_rates) * 0

    def forget(self) -> None:
        """Sets the optimizer back to its beginning, in place."""
        for state in self.optimizer.state.values():
            for tensor in state.values():
                tensor.zero_()

    @torch.no_grad()
    def answers(self, batch: Batch) -> Tensor:
        """Classes that each model gives to the same examples, shape (k, examples).

        Args:
            batch: Named inputs of one model, shape (examples, ...) each.
        """
        self._skeleton.eval()
        try:
            with sdpa_kernel(SDPBackend.MATH):
                return vmap(self._classes, in_dims=(0, None))(self.parameters(), inputs_of(batch))
        finally:
            self._skeleton.train()

    def _loss(self, parameters: dict[str, Tensor], batch: Batch) -> Tensor:
        """Of one model."""
        output = functional_call(self._skeleton, parameters, (), inputs_of(batch))
        return cross_entropy(output.logits, batch["labels"], self.config.label_smoothing)

    def _classes(self, parameters: dict[str, Tensor], inputs: dict[str, Any]) -> Tensor:
        """Of one model."""
        logits: Tensor = functional_call(self._skeleton, parameters, (), inputs).logits
        return logits.argmax(dim=-1)


def _check_one_shape(models: Sequence[nn.Module]) -> None:
    if not models:
        raise LeanformerError("there is no model to train; give one or more")
    first, *others = ({name: tuple(own.shape) for name, own in model.named_parameters()} for model in models)
    for number, shapes in enumerate(others, start=1):
        for name in sorted({*first, *shapes}):
            if shapes.get(name) != first.get(name):
                raise LeanformerError(
                    f"models[{number}] is not of the shape of models[0]: its {name} is {shapes.get(name, 'missing')}, "
                    f"there it is {first.get(name, 'missing')}"
                )


def example_order(batches: ImageBatches, seeds: Sequence[int], epochs: int, device: torch.device) -> Tensor:
    """The numbers of the training examples as the steps take them.

    Each epoch has the order that ``ImageBatches`` gives it, without its last batch where that is smaller.

    Args:
        batches: The data and the size of a batch.
        seeds: One order each.
        epochs: Epochs of the training.
        device: Where the order is wanted.

    Returns:
        Shape (seeds, steps of all epochs * batch size), on the device.

    Raises:
        LeanformerError: There are fewer examples than a batch takes.
    """
    whole = len(batches.data.train) // batches.batch_size * batches.batch_size
    if not whole:
        raise LeanformerError(
            f"a batch of {batches.batch_size} images is more than the {len(batches.data.train)} training images; lower "
            "the batch size"
        )
    orders = [torch.cat([batches.order(seed, epoch)[:whole] for epoch in range(epochs)]) for seed in seeds]
    return torch.stack(orders).to(device)


class StackedTraining:
    """The training of a stack on images that lie on its device, without a word from the host.

    Each step draws its batches, changes the images, sets the rate and trains, all on the device, and on a GPU it is one
    CUDA graph: of some hundreds of small kernels, the launching alone takes longer than the work.

    Args:
        step: The models, a rate after the other, and of each rate the seeds in one order.
        batches: The data, the size of a batch and its augmentation.
        order: Of the seeds, from ``example_order``: of the whole training.
        seed: Of the augmentation, of which each model draws its own.

    Attributes:
        steps: Training steps in all.
        done: Those that are queued or done.
        losses: Of each step and model, shape (steps, k); zero where a step is still to come.

    Raises:
        LeanformerError: The training images are not in memory.
    """

    def __init__(self, step: StackedStep, batches: ImageBatches, order: Tensor, seed: int) -> None:
        train = batches.data.train
        if not isinstance(train, MemorySplit):
            raise LeanformerError(
                "the training images are not in memory: there are too many to train a stack of models on"
            )
        self.step = step
        self.batches = batches
        self.steps = order.shape[1] // batches.batch_size
        self.done = 0
        self._train = train
        self._order = order
        self._seed_of_model = torch.arange(step.models, device=step.device) % len(order)
        self._within = torch.arange(batches.batch_size, device=step.device)
        config = step.config
        self._factors = torch.tensor(
            [rate_factor(config.schedule, number, self.steps, config.warmup) for number in range(self.steps)],
            device=step.device,
        )
        self._number = torch.zeros(1, dtype=torch.long, device=step.device)
        self._generator = torch.Generator(device=step.device).manual_seed(seed)
        self.losses = torch.zeros(self.steps, step.models, device=step.device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self.stream: torch.cuda.Stream | None = None
        if step.device.type == "cuda":
            self._capture()

    @property
    def images_a_step(self) -> int:
        """Of all models together."""
        return self.step.models * self.batches.batch_size

    def wait(self) -> None:
        """Waits for the steps that are queued."""
        if self.stream is not None:
            self.stream.synchronize()

    def advance(self) -> None:
        """Queues the next step."""
        if self._graph is None:
            self._next()
        else:
            with torch.cuda.stream(self.stream):
                self._graph.replay()
        self.done += 1

    def answers(self, split: ImageSplit) -> Tensor:
        """Of each model to each example of a split, shape (k, examples)."""
        return torch.cat([self.step.answers(batch) for batch in self.batches.evaluation(split)], dim=1)

    def _next(self) -> None:
        """One step."""
        columns = self._number * self.batches.batch_size + self._within
        examples = self._order.index_select(1, columns)[self._seed_of_model]  # (k, batch)
        pixels = self._train.pixel_values.index_select(0, examples.flatten())
        pixels = augment(pixels, self.batches.augmentation, self._generator)
        batch = {
            "pixel_values": normalize(pixels, self.batches.mean, self.batches.std).unflatten(0, examples.shape),
            "labels": self._train.labels[examples],
        }
        self.step.set_rate_factor(self._factors.index_select(0, self._number))
        self.losses.index_copy_(0, self._number, self.step(batch)[None])
        self._number += 1

    def _capture(self) -> None:
        """Makes the graph; the steps that this takes have a rate of zero, and are forgotten."""
        factors = self._factors.clone()
        self._factors.zero_()
        self.stream = torch.cuda.Stream(self.step.device)
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            for _ in range(min(WARM_UP_STEPS, self.steps)):
                self._next()
        self.stream.synchronize()
        self._number.zero_()
        self._graph = torch.cuda.CUDAGraph()
        self._graph.register_generator_state(self._generator)
        with torch.cuda.graph(self._graph, stream=self.stream):
            self._next()
        self.step.forget()
        self._factors.copy_(factors)
        torch.cuda.synchronize(self.step.device)


def advance_together(trainings: Sequence[StackedTraining]) -> None:
    """Brings trainings to their ends, a step of each in turn: on a GPU what one leaves idle another takes.

    Args:
        trainings: Of different forms; they may have different numbers of steps.
    """
    for _ in range(max(training.steps for training in trainings)):
        for training in trainings:
            if training.done < training.steps:
                training.advance()
    for training in trainings:
        training.wait()

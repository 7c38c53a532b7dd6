"""Several models of one shape trained as one batched model, because one small model leaves a GPU idle.

The models may differ in their seeds and learning rates. They are stacked, each parameter along a new first dimension,
and PyTorch's ``vmap`` batches their computations.
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
"""Steps before one is captured: in the first ones, libraries choose their kernels and allocate their workspaces."""


class StackedStep:
    """Forward, backward, clipping and update of k models at once: the same as k ``TrainingStep`` up to rounding.

    The parameters of all models of one rate lie in one tensor of shape (models, numbers) for each group of the
    optimizer, so that an update is one kernel per group. Each model has its own batch, its own loss and its own
    gradient norm. PyTorch's fused attention has no batching rule on a CPU, and its gradient fails on a GPU (PyTorch
    2.11: "LSE is not correctly aligned"): plain matrix products replace it, in float32.

    Args:
        models: k models of one shape on one device, in training mode; their own weights stay as they are.
        config: Optimizer, smoothing, clipping.
        learning_rates: One peak rate for all, or one for each model; models of the same rate must be neighbours.

    Attributes:
        models: k.
        device: Where the models are.
        optimizer: The optimizer of all parameters.

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
        self._skeleton = copy.deepcopy(models[0])  # gives the structure and the buffers
        rates = list(learning_rates) if isinstance(learning_rates, Sequence) else [learning_rates] * self.models
        if len(rates) != self.models:
            raise LeanformerError(f"there are {self.models} models and {len(rates)} learning rates; give one per model")
        alike = [(rate, len(list(own))) for rate, own in groupby(rates)]
        names = {id(parameter): name for name, parameter in models[0].named_parameters()}
        self.optimizer = make_optimizer(models[0], config, rates[0])
        # For each group of parameters: their names and shapes, and one tensor of the optimizer for each rate.
        self._groups: list[tuple[list[tuple[str, torch.Size]], list[nn.Parameter]]] = []
        self._peaks: list[tuple[Tensor, float]] = []  # the rate that the optimizer uses, and its peak
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
        """Sets the factor of each peak rate for the next steps: a number, or a tensor with one element."""
        for rate, peak in self._peaks:
            rate.copy_(torch.as_tensor(factor, device=self.device).view(()) * peak)

    def parameters(self) -> dict[str, Tensor]:
        """Name -> that parameter of all models, shape (k, ...), differentiable with respect to the stored tensors."""
        found = {}
        for parts, stored in self._groups:
            flat = stored[0] if len(stored) == 1 else torch.cat([*stored])
            columns = flat.split([shape.numel() for _, shape in parts], dim=1)
            found.update({name: own.view(-1, *shape) for (name, shape), own in zip(parts, columns, strict=True)})
        return found

    def __call__(self, batch: Batch) -> Tensor:
        """One step of each model on its own batch.

        Args:
            batch: Named inputs with ``labels``, each of shape (k, examples, ...).

        Returns:
            Each model's loss, shape (k,); it is not finite where the gradient is not.
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
        """Resets the optimizer's state to zero, in place."""
        for state in self.optimizer.state.values():
            for tensor in state.values():
                tensor.zero_()

    @torch.no_grad()
    def answers(self, batch: Batch) -> Tensor:
        """The classes that each model predicts for the same examples, shape (k, examples).

        Args:
            batch: Named inputs of one model, each of shape (examples, ...).
        """
        self._skeleton.eval()
        try:
            with sdpa_kernel(SDPBackend.MATH):
                return vmap(self._classes, in_dims=(0, None))(self.parameters(), inputs_of(batch))
        finally:
            self._skeleton.train()

    def _loss(self, parameters: dict[str, Tensor], batch: Batch) -> Tensor:
        """One model's loss."""
        output = functional_call(self._skeleton, parameters, (), inputs_of(batch))
        return cross_entropy(output.logits, batch["labels"], self.config.label_smoothing)

    def _classes(self, parameters: dict[str, Tensor], inputs: dict[str, Any]) -> Tensor:
        """One model's predictions."""
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
                    f"models[{number}] must have the shape of models[0]: its {name} is {shapes.get(name, 'missing')}, "
                    f"not {first.get(name, 'missing')}"
                )


def example_order(batches: ImageBatches, seeds: Sequence[int], epochs: int, device: torch.device) -> Tensor:
    """The indices of the training examples in the order of the steps.

    Each epoch has the order that ``ImageBatches`` gives it, without a smaller last batch.

    Args:
        batches: The data and the batch size.
        seeds: Each gives an order of its own.
        epochs: Epochs of the training.
        device: The device of the result.

    Returns:
        Shape (seeds, steps of all epochs * batch size), on the device.

    Raises:
        LeanformerError: There are fewer examples than the batch size.
    """
    whole = len(batches.data.train) // batches.batch_size * batches.batch_size
    if not whole:
        raise LeanformerError(
            f"the batch size of {batches.batch_size} is more than the {len(batches.data.train)} training images; lower "
            "it"
        )
    orders = [torch.cat([batches.order(seed, epoch)[:whole] for epoch in range(epochs)]) for seed in seeds]
    return torch.stack(orders).to(device)


class StackedTraining:
    """The training of a stack on images on its device, without transfers from the host.

    Each step picks its batches, augments the images, sets the rate and trains, all on the device. On a GPU a step is
    one CUDA graph, because launching some hundreds of small kernels takes longer than running them.

    Args:
        step: The models, one rate after the other, with the seeds of each rate in the same order.
        batches: The data, the batch size and the augmentation.
        order: From ``example_order``, for the seeds and the whole training.
        seed: The augmentation's; each model draws its own random numbers.

    Attributes:
        steps: All training steps.
        done: Steps that are queued or done.
        losses: The loss of each step and model, shape (steps, k); zero where a step is still to come.

    Raises:
        LeanformerError: The training images are not in memory.
    """

    def __init__(self, step: StackedStep, batches: ImageBatches, order: Tensor, seed: int) -> None:
        train = batches.data.train
        if not isinstance(train, MemorySplit):
            raise LeanformerError(
                "the training images are not in memory: there are too many of them to train stacked models"
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
        """Images per step, of all models together."""
        return self.step.models * self.batches.batch_size

    def wait(self) -> None:
        """Waits for the queued steps."""
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
        """The class that each model predicts for each example of a split, shape (k, examples)."""
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
        """Captures the graph; the steps for it have a learning rate of zero, and their optimizer state is reset."""
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
    """Runs trainings to their ends, a step of each in turn, so that together they keep a GPU busy.

    Args:
        trainings: Stacks of different shapes; they may have different numbers of steps.
    """
    for _ in range(max(training.steps for training in trainings)):
        for training in trainings:
            if training.done < training.steps:
                training.advance()
    for training in trainings:
        training.wait()

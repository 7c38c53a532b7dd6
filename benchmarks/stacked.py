"""Several models of one shape trained as one batched model: for a GPU, which a single small model leaves idle."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from leanformer.config import TrainConfig
from leanformer.learn.train import Batch, cross_entropy, inputs_of, make_optimizer


class StackedStep:
    """Forward, backward, clipping and update of k models at once: what k ``TrainingStep`` do, in float tolerance.

    The parameters of all models lie in one tensor of shape (k, numbers) for each group of the optimizer, so that an
    update is a kernel a group. Each model has its own batch, its own loss and its own gradient norm. PyTorch's fused
    attention has no batching rule on a CPU, where plain products are taken in its place.

    Args:
        models: k models of one shape on one device, in training mode; their own weights stay as they are.
        config: Optimizer, smoothing, clipping.
        learning_rate: The rate until ``learning_rate`` is set anew.
        precision: ``float32`` or ``bfloat16``, which is autocast.
    """

    def __init__(
        self, models: Sequence[nn.Module], config: TrainConfig, learning_rate: float, precision: str = "float32"
    ) -> None:
        self.config = config
        self.device = next(models[0].parameters()).device
        self.precision = precision
        self._skeleton = copy.deepcopy(models[0])  # gives the structure, and what is no parameter
        names = {id(parameter): name for name, parameter in models[0].named_parameters()}
        self.optimizer = make_optimizer(models[0], config, learning_rate)
        self._groups: list[tuple[nn.Parameter, list[tuple[str, torch.Size]]]] = []
        for group in self.optimizer.param_groups:
            parts = [(names[id(parameter)], parameter.shape) for parameter in group["params"]]
            rows = [torch.cat([model.get_parameter(name).detach().flatten() for name, _ in parts]) for model in models]
            flat = nn.Parameter(torch.stack(rows))  # (k, numbers)
            group["params"] = [flat]
            self._groups.append((flat, parts))

    def set_learning_rate(self, learning_rate: float) -> None:
        """Sets the rate of the steps to come."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate

    def parameters(self) -> dict[str, Tensor]:
        """Name -> that parameter of all models, shape (k, ...); views, differentiable in what is stored."""
        found = {}
        for flat, parts in self._groups:
            columns = flat.split([shape.numel() for _, shape in parts], dim=1)
            found.update({name: own.view(-1, *shape) for (name, shape), own in zip(parts, columns, strict=True)})
        return found

    def __call__(self, batches: Sequence[Batch]) -> Tensor:
        """One step of each model on its own batch, all of one size.

        Returns:
            Each model's loss, shape (k,), not finite where its gradient was not.
        """
        batch = {name: torch.stack([own[name] for own in batches]) for name in batches[0]}
        with (
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"),
            sdpa_kernel(SDPBackend.MATH) if self.device.type == "cpu" else nullcontext(),
        ):
            losses = vmap(self._loss, randomness="different")(self.parameters(), batch)
        losses.sum().backward()
        gradients = [flat.grad for flat, _ in self._groups if flat.grad is not None]
        norms = torch.stack([gradient.norm(dim=1) for gradient in gradients]).norm(dim=0)
        limit = math.inf if self.config.clip_norm is None else self.config.clip_norm
        for gradient in gradients:
            gradient *= (limit / (norms + 1e-6)).clamp(max=1.0)[:, None]  # as clip_grad_norm_
        self.optimizer.step()
        self.optimizer.zero_grad()
        return losses.detach() + norms * 0

    def _loss(self, parameters: dict[str, Tensor], batch: Batch) -> Tensor:
        """Of one model."""
        output = functional_call(self._skeleton, parameters, (), inputs_of(batch))
        return cross_entropy(output.logits, batch["labels"], self.config.label_smoothing)

"""One training step of one model: its optimizer, its precision, and forward, backward, clipping and update."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from leanformer.config.base import TrainConfig
from leanformer.core.errors import LeanformerError
from leanformer.learn.compiled import compiled, compiling
from leanformer.learn.losses import Batch, Loss, label_loss
from leanformer.learn.weight_decay import parameter_groups
from leanformer.model.hf import attention_implementation


def make_optimizer(
    model: nn.Module, config: TrainConfig, learning_rate: float, rate_factors: Mapping[str, float] | None = None
) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices alone; see ``parameter_groups``."""
    groups = parameter_groups(model, config.weight_decay, rate_factors)
    return torch.optim.AdamW(groups, lr=learning_rate, betas=config.betas, fused=True)


def settle_precision(wanted: str, device: torch.device) -> str:
    """``float32`` or ``bfloat16``; ``auto`` is bfloat16 on a GPU that has it, float32 elsewhere."""
    if wanted != "auto":
        return wanted
    return "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"


def make_accelerator(precision: str, device: torch.device) -> Accelerator:
    """The accelerator for a device and a settled precision.

    Raises:
        LeanformerError: This process has used accelerate with another precision or device, which accelerate keeps.
    """
    try:
        return Accelerator(mixed_precision="bf16" if precision == "bfloat16" else "no", cpu=device.type == "cpu")
    except ValueError as error:
        raise LeanformerError(
            f"{precision} on {device.type}: this Python process has used accelerate with another precision or device, "
            "and accelerate cannot change it; start a new process"
        ) from error


class TrainingStep:
    """Forward, backward, clipping and update of one model; the measurement of training speed times it too.

    Args:
        model: On the accelerator's device.
        config: Optimizer, smoothing, clipping, compilation.
        learning_rate: The rate until ``set_learning_rate`` sets another.
        accelerator: From ``make_accelerator``.
        loss: By default the cross-entropy with the batch's labels.
        rate_factors: The name of a parameter -> how many times the learning rate it learns with; all others once.

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
        rate_factors: Mapping[str, float] | None = None,
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
        self.optimizer = make_optimizer(model, config, learning_rate, rate_factors)
        self.set_learning_rate(learning_rate)
        self._parameters = list(model.parameters())
        self._own_forward = model.__dict__.get("forward")  # mostly None: the forward is its class's
        self._forward: Any = (
            compiled(model, config.batches_differ_in_shape, accelerator.device)
            if config.compile
            else accelerator.prepare(model)
        )

    @property
    def learning_rate(self) -> float:
        """The rate of the last step."""
        first = self.optimizer.param_groups[0]
        return float(first["lr"] / first["rate_factor"])

    def set_learning_rate(self, learning_rate: float) -> None:
        """Sets the learning rate of the next steps."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group["rate_factor"]

    def __call__(self, batch: Batch) -> torch.Tensor:
        """One step; returns the loss of the batch, which is not finite where the gradient is not.

        Backward, clipping and update are PyTorch's own. Accelerate's do the same in float32 and bfloat16 without
        sharding, but look for installed packages at each call.

        Raises:
            LeanformerError: The model is to be compiled, and this machine cannot do it.
        """
        total = torch.zeros((), device=self.accelerator.device)
        terms = self.loss(self._forward, batch)
        while True:
            with compiling(), self.accelerator.autocast():
                term = next(terms, None)
            if term is None:
                break
            with compiling():  # the gradient is compiled when it is first computed
                term.backward()
            total += term.detach()
        limit = math.inf if self.config.clip_norm is None else self.config.clip_norm
        norm = nn.utils.clip_grad_norm_(self._parameters, limit)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total + norm * 0  # 0 x inf is nan: a check of the loss checks the gradient too

    def close(self) -> None:
        """Removes the accelerator's wrappers from the model, and frees it."""
        self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        # In half precision accelerate leaves a ``forward`` on the model: it lacks what transformers wraps around it,
        # and its circular reference keeps the model alive.
        self.model.__dict__.pop("forward", None)
        if self._own_forward is not None:
            self.model.__dict__["forward"] = self._own_forward
        self.accelerator.free_memory()

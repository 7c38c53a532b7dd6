"""The losses: against the labels of the data, and against the teacher.

Batches are named tensors: the model's inputs, and ``labels`` with -100 at positions that do not count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from leanformer.config.base import FinetuneConfig
from leanformer.model.stacks import real_tokens

Batch = dict[str, torch.Tensor]
Loss = Callable[[Any, Batch], Iterator[torch.Tensor]]
"""From the model (wrapped for the device and precision) and a batch to the terms of the loss. Terms that share no
tensors come one by one: each is differentiated before the next is computed, so that only one's activations are held."""


def inputs_of(batch: Batch) -> dict[str, Any]:
    """A model's arguments for a whole batch: all but the labels, and without a decoder's cache."""
    inputs: dict[str, Any] = {name: tensor for name, tensor in batch.items() if name != "labels"}
    if "decoder_input_ids" in inputs:
        inputs["use_cache"] = False  # a cache would copy every key and value, and nothing is generated here
    return inputs


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float = 0.0) -> torch.Tensor:
    """Mean cross-entropy in nats over all labels that are not -100.

    Args:
        logits: Shape (..., classes).
        labels: Shape (...).
        label_smoothing: As in PyTorch's ``cross_entropy``.
    """
    return F.cross_entropy(logits.float().flatten(0, -2), labels.flatten(), label_smoothing=label_smoothing)


def label_loss(label_smoothing: float) -> Loss:
    """Cross-entropy of a model's ``logits`` with the batch's ``labels``."""

    def loss(model: Any, batch: Batch) -> Iterator[torch.Tensor]:
        yield cross_entropy(model(**inputs_of(batch)).logits, batch["labels"], label_smoothing)

    return loss


def relative_error(given: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Squared error divided by the target's variance around its mean, over all channels: 1 minus R².

    Where the target does not vary at all (one position, an attention that gives a constant), it is the squared error.

    Args:
        given: Shape (..., channels).
        target: Likewise.
    """
    given, target = given.flatten(0, -2).float(), target.flatten(0, -2).float()
    spread = (target - target.mean(dim=0)).square().sum()
    return F.mse_loss(given, target, reduction="sum") / spread.where(spread > 0, 1.0)


def divergence(logits: torch.Tensor, wanted: torch.Tensor, labels: torch.Tensor, temperature: float) -> torch.Tensor:
    """Kullback-Leibler divergence of the student's from the teacher's softened distribution, in nats, times T².

    Source: Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531).

    Args:
        logits: The student's, shape (..., classes).
        wanted: The teacher's.
        labels: Shape (...); positions of -100 do not count.
        temperature: T; both logits are divided by it.
    """
    counts = labels != -100
    given = F.log_softmax(logits[counts].float() / temperature, dim=-1)
    target = F.log_softmax(wanted[counts].float() / temperature, dim=-1)
    return F.kl_div(given, target, reduction="batchmean", log_target=True) * temperature**2


def tuning_loss(teacher: PreTrainedModel | None, config: FinetuneConfig, label_smoothing: float) -> Loss:
    """The loss for tuning an assembled student: the labels, the teacher's distribution and its hidden states.

    Args:
        teacher: The teacher with open layers, in evaluation mode; not used where only cross-entropy counts.
        config: The weights of the terms.
        label_smoothing: For the cross-entropy.
    """

    def loss(student: Any, batch: Batch) -> Iterator[torch.Tensor]:
        wants_states = config.hidden_states > 0
        states: dict[str, Any] = {"output_hidden_states": True} if wants_states else {}
        outputs = student(**inputs_of(batch), **states)
        total = config.cross_entropy * cross_entropy(outputs.logits, batch["labels"], label_smoothing)
        if config.logits > 0 or wants_states:
            assert teacher is not None
            with torch.no_grad():
                wanted = teacher(**inputs_of(batch), **states)
            if config.logits > 0:
                total = total + config.logits * divergence(
                    outputs.logits, wanted.logits, batch["labels"], config.temperature
                )
            if wants_states:
                pairs = list(_hidden_states(outputs, wanted, batch))
                total = total + config.hidden_states * sum(relative_error(*pair) for pair in pairs) / len(pairs)
        yield total

    return loss


def _hidden_states(outputs: Any, wanted: Any, batch: Batch) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The student's and the teacher's states after each layer, at real positions, shape (positions, d_model)."""
    masks = {"encoder_hidden_states": real_tokens(batch.get("attention_mask"))}
    if "decoder_hidden_states" in wanted:
        masks["decoder_hidden_states"] = batch["labels"] != -100
    else:  # a classifier
        masks = {"hidden_states": None}
    for name, mask in masks.items():
        for given, target in zip(outputs[name][1:], wanted[name][1:], strict=True):
            yield (given, target) if mask is None else (given[mask], target[mask])

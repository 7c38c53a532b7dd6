"""The losses: against the labels of the data, and against the teacher.

Batches are named tensors: the model's inputs, and ``labels`` with -100 at positions that do not count. Those of a
student that writes with fewer subwords than its teacher also hold what the teacher reads (``data.text_batches``).
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

TEACHERS = "teacher_"
"""What the names of those tensors begin with that are for a student's teacher alone."""


def inputs_of(batch: Batch) -> dict[str, Any]:
    """A model's arguments for a whole batch: all but labels and what its teacher reads, and no cache of a decoder."""
    inputs: dict[str, Any] = {
        name: tensor for name, tensor in batch.items() if name != "labels" and not name.startswith(TEACHERS)
    }
    if "decoder_input_ids" in inputs:
        inputs["use_cache"] = False  # a cache would copy every key and value, and nothing is generated here
    return inputs


def teacher_inputs(batch: Batch) -> dict[str, Any]:
    """The arguments of a student's teacher for a batch: its own, where it reads other subwords."""
    own = (f"{TEACHERS}input_ids", f"{TEACHERS}decoder_input_ids")
    return inputs_of(batch) | {name.removeprefix(TEACHERS): batch[name] for name in own if name in batch}


def cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float = 0.0, class_weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean cross-entropy in nats over all labels that are not -100.

    Args:
        logits: Shape (..., classes).
        labels: Shape (...).
        label_smoothing: As in PyTorch's ``cross_entropy``.
        class_weights: The weight of each class's examples in the mean, shape (classes,), on the device of the logits;
            None: all weigh the same.
    """
    logits, labels = logits.float().flatten(0, -2), labels.flatten()
    return F.cross_entropy(logits, labels, weight=class_weights, label_smoothing=label_smoothing)


def label_loss(label_smoothing: float, class_weights: torch.Tensor | None = None) -> Loss:
    """Cross-entropy of a model's ``logits`` with the batch's ``labels``; see ``cross_entropy``."""

    def loss(model: Any, batch: Batch) -> Iterator[torch.Tensor]:
        yield cross_entropy(model(**inputs_of(batch)).logits, batch["labels"], label_smoothing, class_weights)

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


def divergence(logits: torch.Tensor, wanted: torch.Tensor, temperature: float) -> torch.Tensor:
    """Kullback-Leibler divergence of the student's from the teacher's softened distribution, in nats, times T².

    Source: Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531).

    Args:
        logits: The student's, shape (positions, classes).
        wanted: The teacher's.
        temperature: T; both logits are divided by it.
    """
    given = F.log_softmax(logits.float() / temperature, dim=-1)
    target = F.log_softmax(wanted.float() / temperature, dim=-1)
    return F.kl_div(given, target, reduction="batchmean", log_target=True) * temperature**2


def with_fewer_subwords(logits: torch.Tensor, heads: torch.Tensor, subwords: int) -> torch.Tensor:
    """A teacher's logits as those of a student that writes with fewer subwords.

    Args:
        logits: Shape (positions, the teacher's subwords).
        heads: For each of the teacher's subwords the student's that its probability goes to; ``subwords`` for none.
        subwords: The student's.

    Returns:
        Shape (positions, subwords), logarithms of probabilities.
    """
    probabilities = logits.float().softmax(dim=-1)
    sums = probabilities.new_zeros(len(logits), subwords + 1).index_add_(1, heads, probabilities)
    return sums[:, :subwords].clamp_min(torch.finfo(sums.dtype).tiny).log()


def tuning_loss(
    teacher: PreTrainedModel | None,
    config: FinetuneConfig,
    label_smoothing: float,
    class_weights: torch.Tensor | None = None,
) -> Loss:
    """The loss for tuning an assembled student: the labels, the teacher's distribution and its hidden states.

    Args:
        teacher: The teacher with open layers, in evaluation mode; not used where only cross-entropy counts.
        config: The weights of the terms.
        label_smoothing: For the cross-entropy.
        class_weights: Likewise; the terms that compare with the teacher have none.
    """

    def loss(student: Any, batch: Batch) -> Iterator[torch.Tensor]:
        wants_states = config.hidden_states > 0
        states: dict[str, Any] = {"output_hidden_states": True} if wants_states else {}
        outputs = student(**inputs_of(batch), **states)
        total = config.cross_entropy * _labelled(outputs.logits, batch["labels"], label_smoothing, class_weights)
        if config.logits > 0 or wants_states:
            assert teacher is not None
            with torch.no_grad():
                wanted = teacher(**teacher_inputs(batch), **states)
            own, theirs = sides = _both_sides(batch)
            if config.logits > 0:
                given, target = outputs.logits[own], wanted.logits[theirs]
                if (heads := batch.get(f"{TEACHERS}heads")) is not None:
                    target = with_fewer_subwords(target, heads, given.shape[-1])
                total = total + config.logits * divergence(given, target, config.temperature)
            if wants_states:
                pairs = list(_hidden_states(outputs, wanted, batch, sides))
                total = total + config.hidden_states * sum(relative_error(*pair) for pair in pairs) / len(pairs)
        yield total

    return loss


def _labelled(
    logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float, class_weights: torch.Tensor | None
) -> torch.Tensor:
    """The cross-entropy of a batch; of examples that may lack a class, a mean in which these count with 0."""
    if labels.dim() > 1:
        return cross_entropy(logits, labels, label_smoothing, class_weights)
    known = labels != -100
    # The mean over the labels of a batch without any would be no number.
    some_class = 0 if class_weights is None else class_weights.argmax()
    labels = labels.where(known.any(), some_class)
    return cross_entropy(logits, labels, label_smoothing, class_weights) * known.float().mean()


Places = torch.Tensor | tuple[torch.Tensor, torch.Tensor]
"""Positions in a batch: a mask, or rows and columns."""


def _both_sides(batch: Batch) -> tuple[Places, Places]:
    """Where a student's outputs are held against its teacher's, and where these are."""
    if (places := batch.get(f"{TEACHERS}places")) is None:
        labels = batch["labels"]
        # An example without a class has an answer of its teacher all the same; the padding of a text has none.
        counts = labels != -100 if labels.dim() > 1 else torch.ones_like(labels, dtype=torch.bool)
        return counts, counts
    rows, columns = (places >= 0).nonzero(as_tuple=True)
    return (rows, columns), (rows, places[rows, columns])


def _hidden_states(
    outputs: Any, wanted: Any, batch: Batch, decoder: tuple[Places, Places]
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The student's and the teacher's states after each layer, at real positions, shape (positions, d_model)."""
    tokens = real_tokens(batch.get("attention_mask"))
    encoder = None if tokens is None else (tokens, tokens)
    where: dict[str, tuple[Places, Places] | None] = {"hidden_states": encoder}  # of a classifier
    if "decoder_hidden_states" in wanted:
        where = {"encoder_hidden_states": encoder, "decoder_hidden_states": decoder}
    for name, places in where.items():
        for given, target in zip(outputs[name][1:], wanted[name][1:], strict=True):
            yield (given, target) if places is None else (given[places[0]], target[places[1]])

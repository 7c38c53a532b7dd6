"""What blocks and students learn from a teacher: their losses, and how well a block explains its site."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

from leanformer.blocks.kit.base import BlockModule
from leanformer.blocks.kit.site import Site
from leanformer.config.base import DistillConfig, FinetuneConfig, TrainConfig
from leanformer.core.errors import LeanformerError
from leanformer.learn.observe import Observed, Seen, Target
from leanformer.learn.train import Batch, Loss, cross_entropy, inputs_of
from leanformer.model.stacks import real_tokens
from leanformer.model.surgery import ResolvedPlan


@dataclass(frozen=True)
class Lesson:
    """One block that learns from one site.

    Args:
        key: Its name among the lessons of a teaching.
        site: Where it is to stand.
        block: The block, on the teacher's device.
    """

    key: str
    site: Site
    block: nn.Module

    @property
    def target(self) -> Target:
        """What of the site it learns to give."""
        return self.block.target if isinstance(self.block, BlockModule) else "output"


def check_tokens_agree(plan: ResolvedPlan, finetune: FinetuneConfig, where: str) -> None:
    """Checks that where a student is compared with its teacher token by token, both have the same tokens.

    Args:
        plan: Resolved.
        finetune: How the student is tuned.
        where: What to name as the place of the mistake.

    Raises:
        LeanformerError: Pooling drops the class token, and a block tells positions apart, knows of no such token where
            its teacher has one, or hidden states are compared.
    """
    if plan.get("pooling", {}).get("block") != "mean":
        return
    for name, entry in plan.items():
        if entry.get("max_length") is not None:
            raise LeanformerError(
                f"{where}: pooling 'mean' drops the class token that the teacher has, and the block at {name} learns "
                "by position; leave one of them out"
            )
        if entry.get("positions") == "grid" and not entry["special_tokens"]:
            raise LeanformerError(
                f"{where}: pooling 'mean' drops the class token that the teacher has, and the mixer at {name} learns "
                "from it; say how many such tokens the teacher has, with special_tokens (ViT: 1, DeiT: 2)"
            )
    if finetune.epochs and finetune.hidden_states:
        raise LeanformerError(
            f"{where}: finetune.hidden_states compares tokens, and pooling 'mean' drops the class token that the "
            "teacher has; leave the weight at 0"
        )


def answer(lesson: Lesson, seen: Seen) -> tuple[torch.Tensor, torch.Tensor]:
    """What a block makes of what its site was given, and what the site made of it, at real positions alone.

    Returns:
        Shape (positions, channels) each, in float32.
    """
    mask = seen.mask_at(lesson.site)
    given: torch.Tensor
    if isinstance(lesson.block, BlockModule):
        given = lesson.block.taught(seen.inputs_at(lesson.site))
    else:
        given = lesson.block(seen.inputs[lesson.site.name])
    target = seen.targets[lesson.site.name, lesson.target]
    if isinstance(lesson.block, BlockModule) and lesson.block.channels is not None:
        target = target[..., list(lesson.block.channels)]
    if mask is None:
        return given.flatten(0, -2).float(), target.flatten(0, -2).float()
    return given[mask].float(), target[mask].float()


def relative_error(given: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Squared error by the target's variance around its mean, over all channels: 1 less R².

    Where the target does not vary at all (one position, a dead attention), it is the squared error itself.

    Args:
        given: Shape (..., channels).
        target: Likewise.
    """
    given, target = given.flatten(0, -2).float(), target.flatten(0, -2).float()
    spread = (target - target.mean(dim=0)).square().sum()
    return F.mse_loss(given, target, reduction="sum") / spread.where(spread > 0, 1.0)


def teaching_config(config: DistillConfig) -> TrainConfig:
    """How the training loop teaches; checkpoints and precision are its defaults."""
    return TrainConfig(
        epochs=config.epochs,
        learning_rate=(config.learning_rate,),
        weight_decay=config.weight_decay,
        warmup=config.warmup,
        clip_norm=None,  # the norm over all blocks would make each one's step depend on the others
    )


def teaching_loss(observed: Observed, lessons: Sequence[Lesson]) -> Loss:
    """Mean squared error of each block by its target's variance: 1 less R², so that sites compare."""
    return lambda _, batch: teaching_terms(observed.read(batch), lessons)


def teaching_terms(seen: Seen, lessons: Sequence[Lesson]) -> Iterator[torch.Tensor]:
    """Each block's relative error; the terms share nothing: one is differentiated before the next is computed."""
    for lesson in lessons:
        yield relative_error(*answer(lesson, seen))


class Explained:
    """R² over many batches: the part of a target's variance that is explained, of all channels or of some."""

    def __init__(self) -> None:
        self._positions = 0
        self._errors: torch.Tensor | float = 0.0  # of each channel
        self._sums: torch.Tensor | float = 0.0
        self._squares: torch.Tensor | float = 0.0

    def add(self, given: torch.Tensor, target: torch.Tensor) -> None:
        """Takes a batch in, shape (positions, channels) each."""
        target = target.double()
        self._positions += len(target)
        self._errors = self._errors + (given - target).square().sum(dim=0).cpu()
        self._sums = self._sums + target.sum(dim=0).cpu()
        self._squares = self._squares + target.square().sum(dim=0).cpu()

    def r2(self) -> float:
        """Of all channels together; 0 where the target does not vary."""
        return self.r2_by(1)[0]

    def r2_by(self, groups: int) -> list[float]:
        """Of each of so many equal groups of channels, such as heads."""
        assert isinstance(self._errors, torch.Tensor)
        assert isinstance(self._sums, torch.Tensor)
        spread = self._squares - self._sums**2 / self._positions
        pairs = zip(self._errors.chunk(groups), spread.chunk(groups), strict=True)
        return [1 - float(error.sum()) / float(left.sum()) if left.sum() > 0 else 0.0 for error, left in pairs]


@torch.no_grad()
def explained(observed: Observed, lessons: Sequence[Lesson], batches: Iterable[Batch]) -> dict[str, float]:
    """R² of each block on held-out batches: the part of its target's variance, over all channels, that it explains."""
    found = {lesson.key: Explained() for lesson in lessons}
    modes = [lesson.block.training for lesson in lessons]
    for lesson in lessons:
        lesson.block.eval()
    for batch in batches:
        seen = observed.read(batch)
        for lesson in lessons:
            found[lesson.key].add(*answer(lesson, seen))
    for lesson, training in zip(lessons, modes, strict=True):
        lesson.block.train(training)
    return {key: one.r2() for key, one in found.items()}


def teachable(lessons: Sequence[Lesson]) -> nn.ModuleDict:
    """All blocks as one module to be trained; what they took over from the teacher does not learn."""
    for lesson in lessons:
        if isinstance(lesson.block, BlockModule):
            learns = {id(parameter) for parameter in lesson.block.taught_parameters()}
            for parameter in lesson.block.parameters():
                parameter.requires_grad_(id(parameter) in learns)
    # A module's name must not hold a dot.
    return nn.ModuleDict({lesson.key.replace(".", "/"): lesson.block for lesson in lessons})


def training_bytes(block: nn.Module) -> int:
    """What a block takes while it learns, in bytes, without activations.

    That is weights, gradients, two moments, and the copy of weights and moments that a training keeps to go back to.
    """
    return sum(7 * parameter.numel() * parameter.element_size() for parameter in block.parameters())


def in_groups(lessons: Sequence[Lesson], limit: float) -> list[list[Lesson]]:
    """Lessons in groups whose weights, gradients and optimizer states each take at most ``limit`` bytes, in order.

    A lesson that takes more stands alone.
    """
    groups: list[list[Lesson]] = []
    room = 0.0
    for lesson in lessons:
        size = training_bytes(lesson.block)
        if not groups or size > room:
            groups.append([])
            room = limit
        groups[-1].append(lesson)
        room -= size
    return groups


def tuning_loss(teacher: PreTrainedModel | None, config: FinetuneConfig, label_smoothing: float) -> Loss:
    """The loss of tuning an assembled student: targets of the data, the teacher's distribution, its hidden states.

    Args:
        teacher: The teacher with open layers, in evaluation mode; not asked where only cross-entropy counts.
        config: The weights.
        label_smoothing: Of the cross-entropy.
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


def divergence(logits: torch.Tensor, wanted: torch.Tensor, labels: torch.Tensor, temperature: float) -> torch.Tensor:
    """Kullback-Leibler divergence of the student's from the teacher's softened distribution, times temperature², nats.

    Source: Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531).

    Args:
        logits: The student's, shape (..., classes).
        wanted: The teacher's.
        labels: Shape (...); positions of -100 do not count.
        temperature: Both are divided by it.
    """
    counts = labels != -100
    given = F.log_softmax(logits[counts].float() / temperature, dim=-1)
    target = F.log_softmax(wanted[counts].float() / temperature, dim=-1)
    return F.kl_div(given, target, reduction="batchmean", log_target=True) * temperature**2


def _hidden_states(outputs: Any, wanted: Any, batch: Batch) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """After each layer, at real positions: the student's and the teacher's, shape (positions, d_model)."""
    masks = {"encoder_hidden_states": real_tokens(batch.get("attention_mask"))}
    if "decoder_hidden_states" in wanted:
        masks["decoder_hidden_states"] = batch["labels"] != -100
    else:  # a classifier
        masks = {"hidden_states": None}
    for name, mask in masks.items():
        for given, target in zip(outputs[name][1:], wanted[name][1:], strict=True):
            yield (given, target) if mask is None else (given[mask], target[mask])


def frozen_copy(model: PreTrainedModel) -> PreTrainedModel:
    """A copy in evaluation mode that no training changes."""
    return copy.deepcopy(model).eval().requires_grad_(False)

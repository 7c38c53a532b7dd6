"""Lessons: a block learns to do what the teacher's part does at one site; R² says how much of it the block explains.

``observe`` records the teacher; a lesson picks the block's inputs and its target from that record.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from leanformer.blocks.kit.base import BlockModule
from leanformer.blocks.kit.site import Site
from leanformer.config.base import DistillConfig, FinetuneConfig, TrainConfig
from leanformer.core.errors import LeanformerError
from leanformer.learn.losses import Batch, Loss, relative_error
from leanformer.learn.observe import Observed, Seen, Target
from leanformer.model.hf import attend
from leanformer.model.surgery import ResolvedPlan


@dataclass(frozen=True)
class Lesson:
    """One block that learns from one site of a teacher.

    Args:
        key: Its unique name among the lessons that are taught together.
        site: Where the block will stand.
        block: On the teacher's device.
    """

    key: str
    site: Site
    block: nn.Module

    @property
    def target(self) -> Target:
        """Which of the site's tensors the block learns to give."""
        return self.block.target if isinstance(self.block, BlockModule) else "output"


def check_tokens_agree(plan: ResolvedPlan, finetune: FinetuneConfig, where: str) -> None:
    """Checks that a student that is compared with its teacher token by token has the teacher's tokens.

    Args:
        plan: The plan, resolved.
        finetune: How the student is tuned.
        where: The place of the mistake, for messages.

    Raises:
        LeanformerError: Pooling drops the class token, and a block learns by position, a mixer was not told of the
            token, or hidden states are compared.
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
    """A block's output for its site's inputs, and the teacher's output there, at real positions alone.

    Args:
        lesson: The block and its site.
        seen: The record of the teacher on a batch.

    Returns:
        The block's output and its target, each of shape (positions, channels), in float32.
    """
    mask = seen.mask_at(lesson.site)
    given: torch.Tensor
    if isinstance(lesson.block, BlockModule):
        given = lesson.block.taught(seen.inputs_at(lesson.site))
    elif lesson.site.kind == "mlp":
        given = lesson.block(seen.inputs[lesson.site.name])
    else:
        given = attend(lesson.block, seen.inputs_at(lesson.site), lesson.site.causal)
    target = seen.targets[lesson.site.name, lesson.target]
    if isinstance(lesson.block, BlockModule) and lesson.block.channels is not None:
        target = target[..., list(lesson.block.channels)]
    return at_real_positions(given, mask).float(), at_real_positions(target, mask).float()


def at_real_positions(states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """(batch, tokens, channels) -> (real positions, channels); without a mask all are real."""
    return states.flatten(0, 1) if mask is None else states[mask]


def teaching_config(config: DistillConfig) -> TrainConfig:
    """The training loop's settings for teaching; checkpoints and precision keep their defaults."""
    return TrainConfig(
        epochs=config.epochs,
        learning_rate=(config.learning_rate,),
        weight_decay=config.weight_decay,
        warmup=config.warmup,
        clip_norm=None,  # the norm over all blocks would make each one's step depend on the others
    )


def teaching_loss(observed: Observed, lessons: Sequence[Lesson]) -> Loss:
    """The loss of blocks that learn together: the relative error of each, which makes sites comparable.

    Args:
        observed: The teacher, which reads each batch once for all blocks.
        lessons: The blocks, which are called one by one; the module that holds them all is not.
    """
    return lambda _, batch: teaching_terms(observed.read(batch), lessons)


def teaching_terms(seen: Seen, lessons: Sequence[Lesson]) -> Iterator[torch.Tensor]:
    """Each block's relative error; the terms share no tensors, so each is differentiated before the next is made."""
    for lesson in lessons:
        yield relative_error(*answer(lesson, seen))


class Explained:
    """R² over many batches: the explained part of a target's variance, over all channels or over some.

    It keeps sums per channel, in double precision, and no batches.
    """

    def __init__(self) -> None:
        self._positions = 0
        self._errors: torch.Tensor | float = 0.0  # of each channel
        self._sums: torch.Tensor | float = 0.0
        self._squares: torch.Tensor | float = 0.0

    def add(self, given: torch.Tensor, target: torch.Tensor) -> None:
        """Adds a batch, each tensor of shape (positions, channels)."""
        target = target.double()
        self._positions += len(target)
        self._errors = self._errors + (given - target).square().sum(dim=0).cpu()
        self._sums = self._sums + target.sum(dim=0).cpu()
        self._squares = self._squares + target.square().sum(dim=0).cpu()

    def r2(self) -> float:
        """R² over all channels; 0 where the target does not vary."""
        return self.r2_by(1)[0]

    def r2_by(self, groups: int) -> list[float]:
        """R² of each of several equal groups of neighbouring channels, such as heads.

        Args:
            groups: The number of groups. At least one batch must have been added.
        """
        assert isinstance(self._errors, torch.Tensor)
        assert isinstance(self._sums, torch.Tensor)
        spread = self._squares - self._sums**2 / self._positions
        pairs = zip(self._errors.chunk(groups), spread.chunk(groups), strict=True)
        return [1 - float(error.sum()) / float(left.sum()) if left.sum() > 0 else 0.0 for error, left in pairs]


@torch.no_grad()
def explained(observed: Observed, lessons: Sequence[Lesson], batches: Iterable[Batch]) -> dict[str, float]:
    """R² of each block on held-out batches: the explained part of its target's variance, over all channels.

    Args:
        observed: The teacher.
        lessons: The blocks; each keeps its mode (training or evaluation).
        batches: Held-out data.

    Returns:
        Key of each lesson -> R²: 1 where all variance is explained, below 0 where the target's mean would be better.
    """
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
    """All blocks as one module to train; parameters that they took over from the teacher stay frozen.

    Args:
        lessons: ``requires_grad`` of their blocks' parameters is set accordingly.
    """
    for lesson in lessons:
        if isinstance(lesson.block, BlockModule):
            learns = {id(parameter) for parameter in lesson.block.taught_parameters()}
            for parameter in lesson.block.parameters():
                parameter.requires_grad_(id(parameter) in learns)
    # A module's name must not hold a dot.
    return nn.ModuleDict({lesson.key.replace(".", "/"): lesson.block for lesson in lessons})


def training_bytes(block: nn.Module) -> int:
    """Memory of a block while it learns, in bytes, without activations.

    That is weights, gradients, two moments, and the copy of weights and moments that a rollback needs.
    """
    return sum(7 * parameter.numel() * parameter.element_size() for parameter in block.parameters())


def in_groups(lessons: Sequence[Lesson], limit: float) -> list[list[Lesson]]:
    """Lessons in groups that are taught one after the other, in the given order.

    Args:
        lessons: All lessons.
        limit: Bytes that the blocks of a group may take while they learn, by ``training_bytes``; a block that takes
            more is a group of its own.
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

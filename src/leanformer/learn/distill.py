"""Blocks learn to do what a teacher's parts do, all of them in one pass of the teacher a batch (METHODS: hooks)."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

from leanformer.blocks.base import BlockModule
from leanformer.config import DistillConfig, FinetuneConfig, TrainConfig
from leanformer.errors import LeanformerError
from leanformer.learn.train import Batch, Loss, cross_entropy, inputs_of
from leanformer.model.families import find_family
from leanformer.model.layers import real_tokens
from leanformer.model.sites import Site
from leanformer.model.surgery import ResolvedPlan, module_at

Target = Literal["output", "heads"]


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


@dataclass(frozen=True)
class Seen:
    """What a teacher's forward pass showed.

    Args:
        inputs: Site -> the hidden states that the part there was given, shape (batch, tokens, d_model).
        targets: (site, target) -> what it gave, shape (batch, tokens, channels).
        source: The encoder's output, shape (batch, source tokens, d_model), where the model has a decoder.
        source_mask: Boolean, True at the source's real tokens; None where there is no padding.
        target_mask: Likewise of the decoder's tokens.
    """

    inputs: Mapping[str, torch.Tensor]
    targets: Mapping[tuple[str, Target], torch.Tensor]
    source: torch.Tensor | None
    source_mask: torch.Tensor | None
    target_mask: torch.Tensor | None

    def mask_at(self, site: Site) -> torch.Tensor | None:
        """True at the real tokens of a site; None where there is no padding."""
        return self.target_mask if site.causal else self.source_mask

    def arguments_at(self, site: Site) -> tuple[torch.Tensor | None, ...]:
        """What a block at a site is called with: hidden states, their mask, and the source with its own."""
        # A causal block never reads on: padding behind a sentence is nothing to it, and training has no other.
        padding_mask = None if site.causal else self.source_mask
        source = (self.source, self.source_mask) if site.reads_source else (None, None)
        return self.inputs[site.name], padding_mask, *source


class Observed:
    """A teacher whose sites are watched while it reads batches (a context manager).

    Args:
        teacher: A model with open layers, as ``reduce(model, {})`` makes it; set to evaluation mode.
        wanted: The sites and what is wanted of them.
    """

    def __init__(self, teacher: PreTrainedModel, wanted: Iterable[tuple[str, Target]]) -> None:
        self.teacher = teacher
        self.wanted = sorted(set(wanted))
        self._inputs: dict[str, torch.Tensor] = {}
        self._targets: dict[tuple[str, Target], torch.Tensor] = {}
        self._hooks = ExitStack()

    def __enter__(self) -> Observed:
        family = find_family(self.teacher)
        self.teacher.eval()
        with self._hooks:  # none is left where one of them cannot be
            for name, target in self.wanted:
                module = module_at(self.teacher, name)
                if module is None:
                    raise LeanformerError(f"the teacher has nothing to teach at {name}: the site is empty")
                self._watch(module, name, None if target == "heads" else target)
                if target == "heads":
                    if not isinstance(module, family.attention_class):
                        raise LeanformerError(
                            f"the teacher has no attention of its own at {name} whose heads could teach"
                        )
                    self._watch_heads(family.output_projection(module), name)
            self._hooks = self._hooks.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hooks.close()

    def _watch(self, module: nn.Module, name: str, target: Target | None) -> None:
        def hook(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
            self._inputs[name] = arguments[0] if arguments else named["hidden_states"]
            if target is not None:
                self._targets[name, target] = output[0] if isinstance(output, tuple) else output

        self._hooks.callback(module.register_forward_hook(hook, with_kwargs=True).remove)

    def _watch_heads(self, projection: nn.Module, name: str) -> None:
        def hook(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            self._targets[name, "heads"] = arguments[0] if arguments else named["input"]

        self._hooks.callback(projection.register_forward_pre_hook(hook, with_kwargs=True).remove)

    @torch.no_grad()
    def read(self, batch: Batch) -> Seen:
        """Lets the teacher read a batch.

        Args:
            batch: Named inputs, with ``labels``.

        Raises:
            LeanformerError: A site showed nothing: the forward pass does not go through it. A translator's batch has
                no ``decoder_input_ids``.
        """
        has_decoder = "decoder" in find_family(self.teacher).stacks(self.teacher)
        if has_decoder and "decoder_input_ids" not in batch:
            raise LeanformerError(
                "a batch has no decoder_input_ids, the tokens that the decoder reads; transformers' "
                "DataCollatorForSeq2Seq makes them where it is given the model"
            )
        self._inputs, self._targets = {}, {}
        if has_decoder:
            outputs = self.teacher.base_model(**inputs_of(batch))  # no logits, which may cost as much as all layers
        else:
            # A classifier that is asked for its hidden states computes every token in the last layer too.
            outputs = self.teacher(**inputs_of(batch), output_hidden_states=True)
        for name, target in self.wanted:
            if name not in self._inputs or (name, target) not in self._targets:
                raise LeanformerError(f"nothing was seen at {name}: the teacher's forward pass does not go through it")
        return Seen(
            self._inputs,
            self._targets,
            outputs.encoder_last_hidden_state if has_decoder else None,
            real_tokens(batch.get("attention_mask")),
            batch["labels"] != -100 if has_decoder else None,
        )


def answer(lesson: Lesson, seen: Seen) -> tuple[torch.Tensor, torch.Tensor]:
    """What a block makes of what its site was given, and what the site made of it, at real positions alone.

    Returns:
        Shape (positions, channels) each, in float32.
    """
    mask = seen.mask_at(lesson.site)
    given: torch.Tensor
    if isinstance(lesson.block, BlockModule):
        given = lesson.block.taught(*seen.arguments_at(lesson.site))  # type: ignore[arg-type]
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

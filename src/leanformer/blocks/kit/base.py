"""The contract of everything that can stand at a site, and the registry that finds it by its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from torch import nn

from leanformer.blocks.kit.activity import Activity, most_important
from leanformer.blocks.kit.inputs import BlockInputs
from leanformer.blocks.kit.site import Site
from leanformer.core.errors import LeanformerError, quoted
from leanformer.core.fields import first_of, keys_of, sentence
from leanformer.core.registry import Registry

LARGEST_ARGUMENT = 2**20
"""No layer of a transformer is wider, and no text longer; a larger number is a typing error."""


class Arguments(BaseModel):
    """A block's arguments as written in a plan: unknown ones are errors, values are not coerced, numbers bounded."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _numbers_are_in_bounds(cls, arguments: Any) -> Any:
        """Numbers without bounds of their own could exhaust the memory, and end the process."""
        for name, value in arguments.items():
            for number in value if isinstance(value, list | tuple) else [value]:
                if isinstance(number, int | float) and not abs(number) <= LARGEST_ARGUMENT:  # nor is nan
                    raise ValueError(f"argument {name!r} must be at most {LARGEST_ARGUMENT:,}, not {quoted(value)}")
        return arguments


@dataclass(frozen=True)
class AttentionWeights:
    """A trained attention in one layout, whatever the family: ``x @ weight + bias``.

    Args:
        query: Weight of shape (d_model, channels), head ``i`` in the ``i``-th group of columns; ``key`` and ``value``
            likewise. All heads together have d_model channels, or fewer where an attention has lost some of its heads.
        output: Weight of shape (channels, d_model), head ``i`` in the ``i``-th group of rows.
        query_bias: Shape (channels,), or None where the model has none; ``key_bias`` and ``value_bias`` likewise.
        output_bias: Shape (d_model,), or None.
        num_heads: Number of heads.
        scaling: The factor of the scores before the softmax.
        dropout: Probability with which a weight is dropped in training.
        activity: What its heads do on data, a group each; None where no data were looked at.
    """

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    output: torch.Tensor
    query_bias: torch.Tensor | None
    key_bias: torch.Tensor | None
    value_bias: torch.Tensor | None
    output_bias: torch.Tensor | None
    num_heads: int
    scaling: float
    dropout: float = 0.0
    activity: Activity | None = None

    def channels_of(self, heads: Sequence[int]) -> list[int]:
        """The channels of some heads, head by head in the given order."""
        width = self.query.shape[1] // self.num_heads
        return [channel for head in heads for channel in range(head * width, (head + 1) * width)]

    def of_heads(self, heads: Sequence[int]) -> AttentionWeights:
        """Some heads alone, in the order given, with their part of the output projection and its whole bias."""
        own = self.channels_of(heads)

        def of(bias: torch.Tensor | None) -> torch.Tensor | None:
            return None if bias is None else bias[own]

        return replace(
            self,
            query=self.query[:, own],
            key=self.key[:, own],
            value=self.value[:, own],
            output=self.output[own],
            query_bias=of(self.query_bias),
            key_bias=of(self.key_bias),
            value_bias=of(self.value_bias),
            num_heads=len(heads),
            activity=None,
        )

    def most_important(self, count: int) -> list[int]:
        """The so many heads that contribute most: on data, or else by the norm of value and output maps together."""
        if self.activity is not None:
            return most_important(self.activity.importance(self.output), count)
        value = self.value.unflatten(1, (self.num_heads, -1)).transpose(0, 1)  # (heads, d_model, d_head)
        output = self.output.unflatten(0, (self.num_heads, -1))  # (heads, d_head, d_model)
        # The squared norm of value @ output, without that product of two large matrices.
        return most_important(((value.mT @ value) * (output @ output.mT)).sum(dim=(1, 2)), count)

    def without_others(self, heads: Sequence[int]) -> AttentionWeights:
        """Some heads alone as a whole attention: what the others gave on average, where that is known, is its bias."""
        kept = self.of_heads(heads)
        if self.activity is None or self.output_bias is None:
            return kept
        mean = self.activity.mean_without(list(heads), self.output)
        return replace(kept, output_bias=self.output_bias + mean.to(self.output_bias.dtype))

    def scores(self, asking: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
        """The input of the softmax, before any mask.

        Args:
            asking: The tokens that attend, shape (batch, tokens, d_model).
            read: The tokens that are read, shape (batch, tokens read, d_model).

        Returns:
            Shape (batch, heads, tokens, tokens read).
        """
        query, key = asking @ self.query, read @ self.key
        if self.query_bias is not None:
            query = query + self.query_bias
        if self.key_bias is not None:
            key = key + self.key_bias
        query, key = (states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for states in (query, key))
        return query @ key.mT * self.scaling

    def bias_behind_means(self) -> torch.Tensor:
        """The output's bias if values are averaged without their bias, which weights that sum to one pass on."""
        bias = torch.zeros_like(self.output[0]) if self.output_bias is None else self.output_bias
        return bias if self.value_bias is None else bias + self.value_bias @ self.output

    @property
    def has_bias(self) -> bool:
        """Whether any of the four projections has a bias."""
        return any(b is not None for b in (self.query_bias, self.key_bias, self.value_bias, self.output_bias))


OF_ANOTHER_KIND = (
    "the one there is of another kind: it scores by more than queries and keys (rotary or relative positions, norms, "
    "heads in groups), or has one map for all three (GPT-2)"
)
"""Why there are no ``AttentionWeights`` of a model's own attention."""


@dataclass(frozen=True)
class MlpWeights:
    """A trained MLP in one layout, whatever the family: ``activation(x @ inner + inner_bias) @ output + output_bias``.

    Args:
        inner: Shape (d_model, neurons).
        output: Shape (neurons, d_model).
        inner_bias: Shape (neurons,).
        output_bias: Shape (d_model,).
        activation: A name of transformers' activations.
        activity: What its neurons do on data, a group each; None where no data were looked at.
    """

    inner: torch.Tensor
    output: torch.Tensor
    inner_bias: torch.Tensor
    output_bias: torch.Tensor
    activation: str
    activity: Activity | None = None

    @property
    def neurons(self) -> int:
        """How many neurons it has."""
        return len(self.output)

    def most_important(self, count: int) -> list[int]:
        """The so many neurons that contribute most: on data, or else by the norms of their weights in and out."""
        if self.activity is not None:
            return most_important(self.activity.importance(self.output), count)
        return most_important(self.inner.norm(dim=0) * self.output.norm(dim=1), count)

    def without_others(self, neurons: Sequence[int]) -> MlpWeights:
        """Some neurons alone; what the others gave on average, where that is known, goes into the bias."""
        own, output_bias = list(neurons), self.output_bias
        if self.activity is not None:
            output_bias = output_bias + self.activity.mean_without(own, self.output).to(output_bias.dtype)
        return replace(
            self,
            inner=self.inner[:, own],
            output=self.output[own],
            inner_bias=self.inner_bias[own],
            output_bias=output_bias,
            activity=None,
        )


@torch.no_grad()
def set_linear(linear: nn.Linear, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
    """Sets a linear map's weight, given in the layout ``x @ weight + bias``, and its bias, if any, to this one or 0."""
    linear.weight.copy_(weight.T)
    if linear.bias is not None:
        linear.bias.copy_(torch.zeros_like(linear.bias) if bias is None else bias)


class BlockModule(nn.Module):
    """The module that a block builds for an attention, a sublayer or a layer, with one call signature for all of them.

    Class attributes:
        target: What it learns from at the teacher's site: the site's ``output``, or the attention's ``heads``, side by
            side as they are before the output projection.
        channels: Which channels of the target it learns; None: all.
        max_length: Most tokens that it can read, or None; of the source too, where it reads that.
        heads_in_output: How many heads' channels lie side by side in its output; None where a projection mixes them.
        decayed: Names of its own parameters that weight decay pulls towards zero: those that tokens are multiplied
            with, not biases, gains and factors that start at one. The weights of ``nn.Linear`` and ``nn.Conv2d`` in it
            decay anyway. Any other module in a block may have the same attribute (``learn/weight_decay.py`` reads it).
    """

    target: Literal["output", "heads"] = "output"
    channels: Sequence[int] | None = None
    max_length: int | None = None
    heads_in_output: int | None = None
    decayed: ClassVar[tuple[str, ...]] = ()

    def forward(self, inputs: BlockInputs) -> torch.Tensor:
        """The output at the site, where this block now stands.

        Args:
            inputs: The tokens, with masks, source and state.

        Returns:
            Shape (batch, tokens, d_model). What it holds at padding is not defined, but finite.
        """
        raise NotImplementedError

    def taught(self, inputs: BlockInputs) -> torch.Tensor:
        """What is compared with the teacher's ``target``, for inputs without a state: by default the block's output."""
        return self(inputs)

    def taught_parameters(self) -> list[nn.Parameter]:
        """The parameters that learn from the target; by default all."""
        return list(self.parameters())

    def attention_weights(self, inputs: BlockInputs) -> torch.Tensor | None:
        """The weights with which it averages tokens, for inputs without a state; None where it has none.

        Returns:
            Shape (batch, heads, tokens, tokens read); each row sums to one.
        """
        return None


class HeadsModule(BlockModule):
    """A block that gives an attention's heads, side by side, and has an output projection after them.

    Attributes:
        value: The map from a token to what is mixed; None: the token itself.
        output: The projection; None where nothing follows, and in a block for some heads alone, where the attention's
            own projection follows.
    """

    value: nn.Linear | None
    output: nn.Linear | None

    def take_over(self, teacher: AttentionWeights) -> None:
        """Starts with a trained attention's value and output projections.

        Where the values here have no bias, theirs goes into the output's: weights that sum to one pass it on.
        """
        if self.value is None:
            return
        set_linear(self.value, teacher.value, teacher.value_bias)
        if self.output is not None:
            bias = teacher.bias_behind_means() if self.value.bias is None else teacher.output_bias
            set_linear(self.output, teacher.output, bias)

    def mix(self, inputs: BlockInputs) -> torch.Tensor:
        """The heads of every token side by side, shape (batch, tokens, channels); ``inputs`` as of ``forward``."""
        raise NotImplementedError

    def forward(self, inputs: BlockInputs) -> torch.Tensor:
        """The heads, projected; see ``BlockModule``."""
        mixed = self.mix(inputs)
        return mixed if self.output is None else self.output(mixed)


class Block:
    """A kind of block that can stand at a site: its name, its arguments, and how to make the module.

    At an attention, sublayer or layer site it makes a ``BlockModule``, at an MLP or a pooling site a module that is
    called as ``module(hidden_states) -> output``.

    Class attributes:
        name: Its name in plans.
        kinds: The kinds of site that it can stand at.
        Arguments: The arguments that a plan may give with the name.
        own_attention: Whether the family's own attention stands there then, with the weights that ``kept_heads`` gives,
            so that ``build`` is not called.
    """

    name: ClassVar[str]
    kinds: ClassVar[frozenset[str]]
    own_attention: ClassVar[bool] = False
    Arguments: ClassVar[type[Arguments]] = Arguments

    @classmethod
    def keeps(cls, arguments: Any) -> bool:
        """Whether the block, with these arguments, means to keep what stands at the site."""
        return False

    @classmethod
    def chooses(cls, arguments: Any) -> bool:
        """Whether the block, with these arguments, keeps some heads or neurons of what stands there: those that do most
        on data, where there are data (``activity`` of the weights that it is given)."""
        return False

    @classmethod
    def resolve(cls, arguments: Any, site: Site, teacher: Any) -> dict[str, Any]:
        """Writes out what the arguments leave to the site, so that a saved plan says everything.

        Args:
            arguments: A validated instance of ``Arguments``.
            site: Where the block is to stand.
            teacher: The ``AttentionWeights`` or ``MlpWeights`` of what stands there now; None where there is neither.

        Raises:
            LeanformerError: An argument does not fit this site.
        """
        return dict(arguments.model_dump())

    @classmethod
    def build(cls, arguments: Any, site: Site, teacher: Any) -> nn.Module | None:
        """The module for the site; None leaves the site empty. Not called where ``keeps`` is true.

        Args:
            arguments: A validated instance of ``Arguments``, resolved.
            site: Where it is to stand.
            teacher: As for ``resolve``. None also where only the structure is wanted because saved weights are about to
                be loaded.
        """
        raise NotImplementedError(f"{cls.name} only ever keeps what stands there")

    @classmethod
    def kept_heads(cls, arguments: Any, teacher: AttentionWeights, take_over: bool) -> AttentionWeights:
        """The weights of the family's own attention with these arguments, where ``own_attention`` is true.

        Args:
            arguments: A validated instance of ``Arguments``, resolved.
            teacher: The attention that stands there now.
            take_over: Whether its weights count; False where only the structure is wanted.
        """
        raise NotImplementedError(f"{cls.name} builds a module of its own")


BLOCKS: Registry[type[Block]] = Registry("leanformer.blocks")
"""Name -> block, of every module of the package and of other packages' modules that were imported."""


def register(block: type[Block]) -> type[Block]:
    """Class decorator: makes a block known to plans under its ``name``.

    Raises:
        ValueError: Another block has that name.
    """
    return BLOCKS.add(block.name, block)


def find_block(name: str, where: str) -> type[Block]:
    """The block of this name.

    Args:
        name: As a plan writes it.
        where: What to name as the place of the mistake (the plan's pattern).

    Raises:
        LeanformerError: There is no such block.
    """
    if name not in BLOCKS:
        raise LeanformerError(f"{where}: unknown block {quoted(name)}; known blocks: {', '.join(BLOCKS)}")
    return BLOCKS[name]


def blocks_at(kind: str) -> list[str]:
    """Names of the blocks that can stand at a kind of site."""
    return [name for name, block in BLOCKS.items() if kind in block.kinds]


def check_arguments(block: type[Block], arguments: dict[str, Any], where: str) -> Arguments:
    """The validated arguments of ``block``.

    Raises:
        LeanformerError: An argument is unknown or has a wrong value; the message names it and ``where``.
    """
    try:
        return block.Arguments(**arguments)
    except ValidationError as error:
        first = first_of(error, arguments)
        key = ".".join(keys_of(first))
        if first["type"] == "extra_forbidden":
            known = ", ".join(block.Arguments.model_fields) or "none"
            message = f"block {block.name!r} has no argument {quoted(key)}; its arguments: {known}"
        else:
            message = f"argument {key!r} of block {block.name!r}" if key else f"block {block.name!r}"
            message += f": {sentence(first)}"
            if key and first["type"] == "value_error":
                message += f", not {quoted(first['input'])}"
        raise LeanformerError(f"{where}: {message}") from None

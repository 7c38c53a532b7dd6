"""Some heads of an attention replaced by a block, the others and the output projection kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import PlainValidator
from torch import nn

from leanformer.blocks.kit.attention import SoftmaxAttention
from leanformer.blocks.kit.base import AttentionWeights, Block, BlockModule, HeadsModule, set_linear
from leanformer.blocks.kit.inputs import BlockInputs
from leanformer.blocks.kit.site import Site
from leanformer.blocks.kit.tokens import check_divides, without_padding
from leanformer.core.errors import LeanformerError


def _list(value: Any) -> list[int]:
    if not isinstance(value, list) or any(type(head) is not int for head in value):
        raise ValueError("input should be a list of heads, such as [0, 2]")
    return value


def _number_or_list(value: Any) -> int | list[int]:
    if isinstance(value, list):
        return _list(value)
    if type(value) is not int:
        raise ValueError("input should be a valid integer, or a list of heads such as [0, 2]")
    if value < 1:
        raise ValueError("input should be greater than or equal to 1")
    return value


HeadList = Annotated[list[int], PlainValidator(_list)]
"""Heads of the attention that stands at a site, counted from 0."""

Heads = Annotated[int | list[int], PlainValidator(_number_or_list)]
"""A number of channel groups, or which heads of the attention are replaced."""


def settle_heads(site: Site, heads: int | list[int] | None, teacher: AttentionWeights | None) -> int | list[int]:
    """Checks an argument ``heads`` and writes it out.

    Args:
        site: Where the block is to stand.
        heads: Channel groups, or heads of the attention there; None: as many groups as it has heads.
        teacher: The attention that stands there now; None where there is none.

    Returns:
        The number, or the heads in their order.

    Raises:
        LeanformerError: The number does not divide the width. The list is empty, names a head twice, or one that the
            attention does not have, or there is no attention.
    """
    if not isinstance(heads, list):
        heads = heads or site.num_heads
        check_divides(site, "heads", heads)
        return heads
    return check_heads(site, "heads", heads, "replaces", teacher)


def check_heads(site: Site, argument: str, heads: list[int], does: str, teacher: AttentionWeights | None) -> list[int]:
    """Checks a list of an attention's heads.

    Args:
        site: Where the attention stands.
        argument: The name of the list, for messages.
        heads: The list.
        does: What is done to them, in the third person.
        teacher: The attention that stands there now; None where there is none.

    Returns:
        The heads in their order.

    Raises:
        LeanformerError: As in ``settle_heads``, of a list.
    """
    where = f"{site.name}: {argument} = {heads}"
    if teacher is None:
        raise LeanformerError(
            f"{where} {does} heads of the model's own attention, but {site.block!r} stands there; reduce the teacher "
            "instead"
        )
    there = f"the attention there has heads 0 to {teacher.num_heads - 1}"
    if not heads:
        raise LeanformerError(f"{where} {does} no head; {there}")
    for head in heads:
        if not 0 <= head < teacher.num_heads:
            raise LeanformerError(f"{where} names a head {head}, but {there}")
        if heads.count(head) > 1:
            raise LeanformerError(f"{where} names head {head} twice; name it once")
    return sorted(heads)


def groups_of(site: Site, heads: int | list[int]) -> tuple[int, int | None]:
    """Channel groups of a block with this argument, and the channels that it gives where some heads are replaced."""
    if isinstance(heads, list):
        return len(heads), len(heads) * (site.d_model // site.num_heads)
    return heads, None


class KeptHeads(SoftmaxAttention):
    """Some heads of a trained attention, side by side, without the output projection, which all heads share.

    Args:
        site: Where they stand.
        heads: Their weights.
    """

    def __init__(self, site: Site, heads: AttentionWeights) -> None:
        super().__init__(heads.num_heads, heads.dropout, site.causal, site.reads_source, max_distance=site.max_distance)
        width = heads.query.shape[1]
        bias = any(bias is not None for bias in (heads.query_bias, heads.key_bias, heads.value_bias))
        self.query = nn.Linear(site.d_model, width, bias=bias)
        self.key = nn.Linear(site.d_model, width, bias=bias)
        self.value = nn.Linear(site.d_model, width, bias=bias)
        # Scores are scaled by the width of a head here; any other factor of the model's scores goes into the queries.
        factor = heads.scaling / (width // heads.num_heads) ** -0.5
        set_linear(self.query, heads.query * factor, None if heads.query_bias is None else heads.query_bias * factor)
        set_linear(self.key, heads.key, heads.key_bias)
        set_linear(self.value, heads.value, heads.value_bias)

    def queries(self, states: torch.Tensor) -> torch.Tensor:
        return self.query(states)

    def keys_and_values(self, states: torch.Tensor, queries: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        return self.key(states), self.value(states)


class SomeHeadsModule(BlockModule):
    """An attention of which a block gives some heads; the others and the output projection are kept.

    Args:
        site: Where it stands.
        block: The block that gives the replaced heads' channels; without an output projection of its own.
        heads: The replaced heads, in their order.
        attention: The attention, whose weights are taken over.
    """

    target = "heads"

    def __init__(self, site: Site, block: HeadsModule, heads: Sequence[int], attention: AttentionWeights) -> None:
        super().__init__()
        self.max_length = block.max_length
        self.channels = attention.channels_of(heads)
        self.heads = tuple(heads)
        self.kept_heads = tuple(head for head in range(attention.num_heads) if head not in heads)
        self.block = block
        self.kept = KeptHeads(site, attention.of_heads(self.kept_heads)) if self.kept_heads else None
        self.output = nn.Linear(len(attention.output), site.d_model, bias=attention.output_bias is not None)
        set_linear(self.output, attention.output, attention.output_bias)

    def forward(self, inputs: BlockInputs) -> torch.Tensor:
        """All heads side by side, projected; see ``BlockModule``."""
        state = inputs.state
        heads = self.block.mix(inputs.with_state(None if state is None else state.part("block")))
        if self.kept is not None:
            heads = self._in_order(heads, self.kept(self._for_kept(inputs)))
        return self.output(heads)

    @staticmethod
    def _for_kept(inputs: BlockInputs) -> BlockInputs:
        """The same with zeros at padding: a weight of 0 times a number that is not finite would be NaN."""
        state = None if inputs.state is None else inputs.state.part("kept")
        states, _ = without_padding(inputs.hidden_states, inputs.padding_mask)
        source = inputs.source
        if source is not None and (state is None or not state.tensors):
            source, _ = without_padding(source, inputs.source_mask)
        return BlockInputs(states, inputs.padding_mask, source, inputs.source_mask, state)

    def _in_order(self, replaced: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, channels of the replaced heads), those of the kept -> (batch, tokens, channels of all)."""
        parts: dict[int, torch.Tensor] = {}
        for heads, states in ((self.heads, replaced), (self.kept_heads, kept)):
            parts |= dict(zip(heads, states.chunk(len(heads), dim=-1), strict=True))
        return torch.cat([parts[head] for head in sorted(parts)], dim=-1)

    def taught(self, inputs: BlockInputs) -> torch.Tensor:
        """The replaced heads side by side."""
        return self.block.mix(inputs)

    def taught_parameters(self) -> list[nn.Parameter]:
        """The block's parameters: the kept heads do not learn from the target."""
        return list(self.block.parameters())


def replace_heads(
    block: type[Block], arguments: Any, site: Site, attention: AttentionWeights, take_over: bool
) -> SomeHeadsModule:
    """Builds what stands at a site where a block replaces some heads.

    Args:
        block: A kind of block that gives heads.
        arguments: Its arguments, resolved; ``heads`` is a list.
        site: Where it is to stand.
        attention: The attention that stands there now.
        take_over: Whether the block starts from the heads that it replaces.
    """
    module = block.build(arguments, site, attention.of_heads(arguments.heads) if take_over else None)
    assert isinstance(module, HeadsModule)
    return SomeHeadsModule(site, module, arguments.heads, attention)

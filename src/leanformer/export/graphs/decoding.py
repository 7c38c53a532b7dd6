"""A translator as two programs of plain tensors: what reads the source, and one further token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from leanformer.blocks.kit.state import DecodingState
from leanformer.core.torch_internals import as_if_exporting
from leanformer.export.graphs.attention import of_blocks
from leanformer.model.stacks import real_tokens


@dataclass(frozen=True)
class Entry:
    """Where a tensor of the decoding state is kept.

    Args:
        cross: Whether with the cross-attention's, else with the self-attention's.
        layer: The layer's number.
        parts: Names of the parts on the way to it, where blocks contain others.
        shared: Whether it is the same for every sequence.
        name: Its name.
    """

    cross: bool
    layer: int
    parts: tuple[str, ...]
    shared: bool
    name: str


State = dict[Entry, torch.Tensor]


class FirstToken(nn.Module):
    """The encoder, and the decoder's first step.

    Args:
        model: A translator of blocks.
        start: The token that starts a translation.
        bias: What is added to the logits, shape (vocabulary,).
    """

    def __init__(self, model: PreTrainedModel, start: int, bias: torch.Tensor) -> None:
        super().__init__()
        self.model = model
        self.bias: torch.Tensor
        self.start = start
        self.register_buffer("bias", bias)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The logits of the first token, shape (batch, vocabulary), and the state, its entries in their order.

        Args:
            input_ids: The source, shape (batch, source tokens).
            attention_mask: 1 at its tokens, 0 at padding, likewise.
        """
        logits, state = self.with_entries(input_ids, attention_mask)
        return logits, list(state.values())

    def with_entries(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, State]:
        """The same with the state's entries by name."""
        source = self.model.base_model.encoder(input_ids, attention_mask)[0]
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        token = torch.full_like(input_ids[:, 0], self.start)
        return _step(self.model, self.bias, token, 0, attention_mask, source, cache), _state_of(cache)


class NextToken(nn.Module):
    """The decoder's step after the first.

    Args:
        model: A translator of blocks.
        entries: The state's entries.
        bias: What is added to the logits, shape (vocabulary,).
    """

    def __init__(self, model: PreTrainedModel, entries: Sequence[Entry], bias: torch.Tensor) -> None:
        super().__init__()
        self.model = model
        self.bias: torch.Tensor
        self.entries = tuple(entries)
        self.register_buffer("bias", bias)
        self.changing: tuple[Entry, ...] = self.entries

    def forward(
        self, token: torch.Tensor, attention_mask: torch.Tensor, read: torch.Tensor, state: list[torch.Tensor]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The logits of the next token, shape (batch, vocabulary), and what has changed in the state.

        Args:
            token: The token before it, shape (batch,).
            attention_mask: The source's, shape (batch, source tokens).
            read: Of any content; its length is the number of tokens that were read before.
            state: The state's entries in their order.
        """
        logits, new = self.with_entries(token, attention_mask, read, dict(zip(self.entries, state, strict=True)))
        return logits, [new[entry] for entry in self.changing]

    def with_entries(
        self, token: torch.Tensor, attention_mask: torch.Tensor, read: torch.Tensor, state: State
    ) -> tuple[torch.Tensor, State]:
        """The same with the state's entries by name, all of them."""
        length = read.shape[0]
        cache = _cache_of(state, len(self.model.base_model.decoder.layers), length)
        return _step(self.model, self.bias, token, length, attention_mask, None, cache), _state_of(cache)


def _step(
    model: PreTrainedModel,
    bias: torch.Tensor,
    token: torch.Tensor,
    length: int,
    attention_mask: torch.Tensor,
    source: torch.Tensor | None,
    cache: EncoderDecoderCache,
) -> torch.Tensor:
    """The logits after one further token of each sequence; the cache is changed."""
    decoder: Any = model.base_model.decoder
    states = decoder.embed(token, length).unsqueeze(1)
    source_mask = real_tokens(attention_mask)
    for layer in decoder.layers:
        states = layer(states, encoder_hidden_states=source, past_key_values=cache, source_mask=source_mask)
    return F.linear(states.squeeze(1), model.lm_head.weight, bias)


def _halves(cache: EncoderDecoderCache) -> tuple[list[Any], list[Any]]:
    return cache.self_attention_cache.layers, cache.cross_attention_cache.layers


def _state_of(cache: EncoderDecoderCache) -> State:
    """All tensors of a cache of decoding states."""

    def found(state: DecodingState, cross: bool, layer: int, parts: tuple[str, ...]) -> Iterator[tuple[Entry, Any]]:
        for shared, tensors in ((False, state.tensors), (True, state.shared)):
            for name, tensor in tensors.items():
                yield Entry(cross, layer, parts, shared, name), tensor
        for name, part in state.parts.items():
            yield from found(part, cross, layer, (*parts, name))

    return dict(
        pair
        for cross, layers in enumerate(_halves(cache))
        for layer, state in enumerate(layers)
        for pair in found(state, bool(cross), layer, ())
    )


def _cache_of(state: State, layers: int, length: int) -> EncoderDecoderCache:
    """The cache that holds these tensors, for a decoder of so many layers that has read so many tokens."""
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    for half in _halves(cache):
        half.extend(DecodingState() for _ in range(layers))
        for of_layer in half:
            of_layer.length = length
    for entry, tensor in state.items():
        place = _halves(cache)[entry.cross][entry.layer]
        for name in entry.parts:
            place = place.part(name)
        (place.shared if entry.shared else place.tensors)[entry.name] = tensor
    return cache


@dataclass(frozen=True)
class Programs:
    """The two programs of a translator, with examples of their inputs.

    Args:
        first: Reads the source.
        following: Reads one further token.
        first_inputs: Of ``first``.
        following_inputs: Of ``following``.
        dynamic: For each entry of the state, which of its dimensions may have another size.
    """

    first: FirstToken
    following: NextToken
    first_inputs: tuple[torch.Tensor, torch.Tensor]
    following_inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[torch.Tensor]]
    dynamic: list[list[int]]


LEAST_TOKENS = 3
"""Tokens that a translator must be able to read at least, for the examples with which it is traced."""


def programs(model: PreTrainedModel, start: int, first_bias: torch.Tensor, bias: torch.Tensor) -> Programs:
    """Makes the programs of a translator.

    Args:
        model: The translator, in evaluation mode. It is not changed.
        start: The token that starts a translation.
        first_bias: What is added to the logits of the first token, shape (vocabulary,).
        bias: What is added to those of the others.
    """
    blocks = of_blocks(model)
    first = FirstToken(blocks, start, first_bias)

    def after(batch: int, source: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, State, State]:
        """The state that a step finds after so many tokens, the other inputs of the step, and the state after it."""
        ids = torch.full((batch, source), start)
        mask, token = torch.ones_like(ids), ids[:, 0]
        _, state = first.with_entries(ids, mask)
        following = NextToken(blocks, list(state), bias)
        for length in range(1, tokens):
            _, state = following.with_entries(token, mask, torch.zeros(length), state)
        return ids, mask, torch.zeros(tokens), state, following.with_entries(token, mask, torch.zeros(tokens), state)[1]

    with torch.no_grad(), as_if_exporting():
        # No two sizes of an example are equal, or else they would be taken for the same.
        ids, mask, read, state, new = after(batch=4, source=3, tokens=2)
        *_, other, _ = after(batch=5, source=2, tokens=1)
    following = NextToken(blocks, list(state), bias)
    following.changing = tuple(entry for entry, tensor in state.items() if new[entry] is not tensor)
    shapes = [(state[entry].shape, other[entry].shape) for entry in state]
    dynamic = [[d for d, sizes in enumerate(zip(*pair, strict=True)) if sizes[0] != sizes[1]] for pair in shapes]
    return Programs(first, following, (ids, mask), (ids[:, 0], mask, read, list(state.values())), dynamic)

"""A translator as two programs of plain tensors: what reads the source, and one further token."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from leanformer.blocks.kit.state import DecodingState
from leanformer.core.torch_internals import as_if_exporting
from leanformer.export.graphs.attention import of_blocks
from leanformer.model.family import find_family
from leanformer.model.hf import decoding_state, keep_keys, keys_and_values, use_eager_attention
from leanformer.model.stacks import real_tokens
from leanformer.model.surgery import sites

Keeper = Literal["block", "shared", "attention"]
"""Who keeps a tensor: a block, for each sequence or the same for all, or the model's own attention."""


@dataclass(frozen=True)
class Entry:
    """Where a tensor of the decoding state is kept.

    Args:
        cross: Whether with the cross-attention's, else with the self-attention's.
        layer: The layer's number.
        parts: Names of the parts on the way to it, where blocks contain others.
        keeper: Who keeps it.
        name: Its name.
    """

    cross: bool
    layer: int
    parts: tuple[str, ...]
    keeper: Keeper
    name: str


State = dict[Entry, torch.Tensor]
Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
"""A step's, but for the state."""


class FirstToken(nn.Module):
    """The encoder, and the decoder's first step.

    Args:
        model: A translator of blocks.
        start: The token that starts a translation.
        bias: What is added to the model's logits, shape (vocabulary,).
    """

    def __init__(self, model: PreTrainedModel, start: int, bias: torch.Tensor) -> None:
        super().__init__()
        self.model = model
        self.bias: torch.Tensor
        self.start = start
        self.register_buffer("bias", bias)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        """The logits of the first token, shape (batch, vocabulary); the encoder's output; the state's entries in order.

        Args:
            input_ids: The source, shape (batch, source tokens).
            attention_mask: 1 at its tokens, 0 at padding, likewise.
        """
        logits, source, state = self.with_entries(input_ids, attention_mask)
        return logits, source, list(state.values())

    def with_entries(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, State]:
        """The same with the state's entries by name."""
        source = self.model.get_encoder()(input_ids=input_ids, attention_mask=attention_mask)[0]
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        token = torch.full_like(input_ids[:, 0], self.start)
        return _step(self.model, self.bias, token, 0, attention_mask, source, cache), source, _state_of(cache)


class NextToken(nn.Module):
    """The decoder's step after the first.

    Args:
        model: A translator of blocks.
        entries: The state's entries.
        layers: Layers of the decoder.
        bias: What is added to the model's logits, shape (vocabulary,).
    """

    def __init__(self, model: PreTrainedModel, entries: Sequence[Entry], layers: int, bias: torch.Tensor) -> None:
        super().__init__()
        self.model = model
        self.bias: torch.Tensor
        self.entries = tuple(entries)
        self.layers = layers
        self.register_buffer("bias", bias)
        self.changing: tuple[Entry, ...] = self.entries

    def forward(
        self,
        token: torch.Tensor,
        attention_mask: torch.Tensor,
        source: torch.Tensor,
        read: torch.Tensor,
        state: list[torch.Tensor],
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The logits of the next token, shape (batch, vocabulary), and what has changed in the state.

        Args:
            token: The token before it, shape (batch,).
            attention_mask: The source's, shape (batch, source tokens).
            source: The encoder's output, shape (batch, source tokens, d_model).
            read: Of any content; its length is the number of tokens that were read before.
            state: The state's entries in their order.
        """
        entries = dict(zip(self.entries, state, strict=True))
        logits, new = self.with_entries(token, attention_mask, source, read, entries)
        return logits, [new[entry] for entry in self.changing]

    def with_entries(
        self, token: torch.Tensor, attention_mask: torch.Tensor, source: torch.Tensor, read: torch.Tensor, state: State
    ) -> tuple[torch.Tensor, State]:
        """The same with the state's entries by name, all of them."""
        length = read.shape[0]
        cache = _cache_of(state, self.layers, length)
        return _step(self.model, self.bias, token, length, attention_mask, source, cache), _state_of(cache)


def _step(
    model: PreTrainedModel,
    bias: torch.Tensor,
    token: torch.Tensor,
    length: int,
    attention_mask: torch.Tensor,
    source: torch.Tensor,
    cache: EncoderDecoderCache,
) -> torch.Tensor:
    """The logits after one further token of each sequence, with the bias; the cache is changed."""
    if find_family(model).is_found:
        logits: torch.Tensor = model(
            attention_mask=attention_mask,
            encoder_outputs=BaseModelOutput(last_hidden_state=source),
            decoder_input_ids=token[:, None],
            past_key_values=cache,
            use_cache=True,
        ).logits
        return logits[:, 0] + bias
    # Open layers are called one by one, without what a model computes around them.
    decoder: Any = model.base_model.decoder
    states = decoder.embed(token, length).unsqueeze(1)
    source_mask = real_tokens(attention_mask)
    for layer in decoder.layers:
        states = layer(states, encoder_hidden_states=source, past_key_values=cache, source_mask=source_mask)
    return F.linear(states.squeeze(1), model.lm_head.weight, model.final_logits_bias[0] + bias)


def _halves(cache: EncoderDecoderCache) -> tuple[Cache, Cache]:
    return cache.self_attention_cache, cache.cross_attention_cache


def _state_of(cache: EncoderDecoderCache) -> State:
    """All tensors of a cache."""

    def found(state: CacheLayerMixin, cross: bool, layer: int, parts: tuple[str, ...]) -> Iterator[tuple[Entry, Any]]:
        if not isinstance(state, DecodingState):
            for name, tensor in keys_and_values(state).items():
                yield Entry(cross, layer, parts, "attention", name), tensor
            return
        kept: tuple[tuple[Keeper, dict[str, torch.Tensor]], ...] = (("block", state.tensors), ("shared", state.shared))
        for keeper, tensors in kept:
            for name, tensor in tensors.items():
                yield Entry(cross, layer, parts, keeper, name), tensor
        for name, part in state.parts.items():
            yield from found(part, cross, layer, (*parts, name))

    return dict(
        pair
        for cross, half in enumerate(_halves(cache))
        for layer, state in enumerate(half.layers)
        for pair in found(state, bool(cross), layer, ())
    )


def _cache_of(state: State, layers: int, length: int) -> EncoderDecoderCache:
    """The cache that holds these tensors, for a decoder of so many layers that has read so many tokens."""
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    for half in _halves(cache):
        for number in range(layers):
            decoding_state(half, number).length = length
    attentions: dict[tuple[int, bool], dict[str, torch.Tensor]] = defaultdict(dict)
    for entry, tensor in state.items():
        if entry.keeper == "attention":
            attentions[entry.layer, entry.cross][entry.name] = tensor
            continue
        place = decoding_state(_halves(cache)[entry.cross], entry.layer)
        for name in entry.parts:
            place = place.part(name)
        (place.shared if entry.keeper == "shared" else place.tensors)[entry.name] = tensor
    for (layer, cross), kept in attentions.items():
        keep_keys(cache, layer, cross, kept)
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
    following_inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, list[torch.Tensor]]
    dynamic: list[list[int]]


LEAST_TOKENS = 3
"""Tokens that a translator must be able to read at least, for the examples with which it is traced."""


def programs(model: PreTrainedModel, start: int, first_bias: torch.Tensor, bias: torch.Tensor) -> Programs:
    """Makes the programs of a translator.

    Args:
        model: The translator, in evaluation mode. It is not changed.
        start: The token that starts a translation.
        first_bias: What is added to the model's logits of the first token, shape (vocabulary,).
        bias: What is added to those of the others.
    """
    blocks = of_blocks(model)
    use_eager_attention(blocks)  # of attentions that stay: fused forms bring masks of their own
    layers = 1 + max(int(site.name.split(".")[1]) for site in sites(blocks) if site.name.startswith("decoder."))
    first = FirstToken(blocks, start, first_bias)

    def after(batch: int, length: int, tokens: int) -> tuple[NextToken, Inputs, State, State]:
        """A step after so many tokens, its inputs before the state, and the states that it finds and leaves."""
        ids = torch.full((batch, length), start)
        mask, token = torch.ones_like(ids), ids[:, 0]
        _, source, state = first.with_entries(ids, mask)
        following = NextToken(blocks, list(state), layers, bias)
        for read in range(1, tokens):
            _, state = following.with_entries(token, mask, source, torch.zeros(read), state)
        inputs = token, mask, source, torch.zeros(tokens)
        return following, inputs, state, following.with_entries(*inputs, state)[1]

    with torch.no_grad(), as_if_exporting():
        # No two sizes of an example are equal, or else they would be taken for the same.
        following, inputs, state, new = after(batch=4, length=3, tokens=2)
        _, _, other, _ = after(batch=5, length=2, tokens=1)
    following.changing = tuple(entry for entry, tensor in state.items() if new[entry] is not tensor)
    shapes = [(state[entry].shape, other[entry].shape) for entry in state]
    dynamic = [[d for d, sizes in enumerate(zip(*pair, strict=True)) if sizes[0] != sizes[1]] for pair in shapes]
    token, mask, source, read = inputs
    ids = torch.full_like(mask, start)
    return Programs(first, following, (ids, mask), (token, mask, source, read, list(state.values())), dynamic)

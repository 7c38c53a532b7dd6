"""Softmax attention for blocks, each of which makes queries, keys and values in its own way."""

from __future__ import annotations

import torch

from leanformer.blocks.kit.base import BlockModule
from leanformer.blocks.kit.distances import RelativeBias, distances
from leanformer.blocks.kit.dot_product import attend, attend_plainly, split_heads
from leanformer.blocks.kit.inputs import BlockInputs
from leanformer.blocks.kit.rotary import rotated
from leanformer.blocks.kit.state import DecodingState


class SoftmaxAttention(BlockModule):
    """Attention with weights softmax(queries · keys / √d_head): masks, causality, and keys and values kept in decoding.

    Args:
        heads: Channel groups that attend independently.
        dropout: Probability with which a weight is dropped in training.
        causal: Whether a token reads only itself and earlier ones; a cross-attention reads all of the source anyway.
        cross: Whether the source is read.
        rotary: Whether queries and keys are rotated by their positions, where the model tells them so.
        max_distance: Tokens farther apart do not read each other, and only so many earlier ones are kept while
            decoding; None: there is no such limit. The source is read whole.
        relative: Whether scores have a learned bias by the distance of two tokens.
    """

    def __init__(
        self,
        heads: int,
        dropout: float,
        causal: bool,
        cross: bool,
        rotary: bool = False,
        max_distance: int | None = None,
        relative: bool = False,
    ) -> None:
        super().__init__()
        self.rotary = rotary
        self.causal = causal and not cross
        self.max_distance = None if cross else max_distance
        self.bias = RelativeBias(heads, self.causal) if relative else None
        self.cross = cross
        self.heads = heads
        self.dropout = dropout

    def queries(self, states: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, d_model) -> (batch, tokens, channels)."""
        raise NotImplementedError

    def keys_and_values(self, states: torch.Tensor, queries: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """The keys and values of the tokens that are read, shape (batch, tokens, channels) each.

        Args:
            states: Those tokens, shape (batch, tokens, d_model).
            queries: Their queries, where the same tokens attend.
        """
        raise NotImplementedError

    def sharpened(self, queries: torch.Tensor, keys: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries and keys, shape (batch, tokens, channels), as they are multiplied; by default unchanged."""
        return queries, keys

    def projected(self, mixed: torch.Tensor) -> torch.Tensor:
        """The output made from the heads side by side, shape (batch, tokens, channels); by default unchanged."""
        return mixed

    def forward(self, inputs: BlockInputs) -> torch.Tensor:
        """(batch, tokens, d_model) -> (batch, tokens or 1, d_model): see ``BlockModule``."""
        state = inputs.state
        if state is not None and torch.compiler.is_exporting():
            return self._exported_step(inputs, state)
        asking = inputs.hidden_states[:, :1] if inputs.first_token else inputs.hidden_states
        query = self.queries(asking)
        if not self.cross:
            key, value = self.keys_and_values(inputs.hidden_states, None if inputs.first_token else query)
            query, key = self._placed(query, key, inputs)
            if state is not None:
                if state.length:
                    key, value = (torch.cat((old, new), 1) for old, new in zip(_kept(state), (key, value), strict=True))
                state.tensors = {"key": self._near(key), "value": self._near(value)}
            mask, bias = self._own_mask(asking, key, inputs), self._own_bias(asking, key, inputs)
        else:
            mask, bias = _source_mask(inputs), None
            if state is not None and state.tensors:
                key, value = _kept(state)
            else:
                assert inputs.source is not None
                key, value = self.keys_and_values(inputs.source, None)
                if state is not None:
                    state.tensors = {"key": key, "value": value}
        query, key = self.sharpened(query, key)
        mask = _as_added(mask, bias, query)
        return self.projected(attend(query, key, value, self.heads, mask, self.dropout if self.training else 0.0))

    def _exported_step(self, inputs: BlockInputs, state: DecodingState) -> torch.Tensor:
        """The output for one token of each sequence, (batch, 1, d_model), in as few operations of a graph as possible.

        Keys and values are kept by head, and keys as they are multiplied: nothing is done twice to an earlier token.
        """
        query = self.queries(inputs.hidden_states)
        if self.cross and state.tensors:
            query, _ = self.sharpened(query, query)
            key, value = _kept(state)
        else:
            read = inputs.source if self.cross else inputs.hidden_states
            assert read is not None
            key, value = self.keys_and_values(read, None if self.cross else query)
            query, key = self._placed(query, key, inputs)
            query, key = self.sharpened(query, key)
            key, value = split_heads(key, self.heads), split_heads(value, self.heads)
            if state.tensors:
                key, value = (torch.cat((old, new), 2) for old, new in zip(_kept(state), (key, value), strict=True))
            state.tensors = {"key": key, "value": value}
        mask = _source_mask(inputs)
        if not self.cross:
            read = key.transpose(1, 2)
            mask = self._window(inputs.hidden_states, read, inputs)
            mask = _as_added(mask, self._own_bias(inputs.hidden_states, read, inputs), query)
        mixed = attend_plainly(split_heads(query, self.heads), key, value, mask, 0.0)
        return self.projected(mixed.transpose(1, 2).flatten(2))

    def attention_weights(self, inputs: BlockInputs) -> torch.Tensor:
        """The weights with which it averages; see ``BlockModule``."""
        query = self.queries(inputs.hidden_states)
        if self.cross:
            assert inputs.source is not None
            key, _ = self.keys_and_values(inputs.source, None)
            mask, bias = _source_mask(inputs), None
        else:
            key, _ = self.keys_and_values(inputs.hidden_states, query)
            query, key = self._placed(query, key, inputs)
            states = inputs.hidden_states
            mask, bias = self._own_mask(states, key, inputs), self._own_bias(states, key, inputs)
        query, key = (split_heads(side, self.heads) for side in self.sharpened(query, key))
        scores = query @ key.mT * query.shape[-1] ** -0.5
        if bias is not None:
            scores = scores + bias
        return (scores if mask is None else scores.masked_fill(~mask, -torch.inf)).softmax(dim=-1)

    def _placed(self, query: torch.Tensor, key: torch.Tensor, inputs: BlockInputs) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries and keys of the tokens given now, rotated by their positions where the block does so."""
        if not self.rotary or inputs.rotary is None:
            return query, key
        cosine, sine = inputs.rotary
        asking = query.shape[1]  # all tokens, or the first alone
        same = key is query
        query = rotated(query, self.heads, (cosine[:, :asking], sine[:, :asking]))
        return query, query if same else rotated(key, self.heads, inputs.rotary)

    def _near(self, states: torch.Tensor) -> torch.Tensor:
        """Of the keys or values of the tokens read so far, (batch, read, channels), those that later tokens need."""
        surplus = 0 if self.max_distance is None else states.shape[1] - self.max_distance
        return states if surplus <= 0 else states[:, surplus:].clone()  # so that the others do not stay in memory

    def _own_mask(self, asking: torch.Tensor, read: torch.Tensor, inputs: BlockInputs) -> torch.Tensor | None:
        """Which of the tokens that are read each token may attend to, broadcastable to (batch, 1, tokens, read).

        Args:
            asking: The tokens that attend, shape (batch, tokens, d_model).
            read: The keys, shape (batch, read, channels), which with a state are those of the last tokens.
            inputs: The block's inputs.
        """
        tokens, length, padding = asking.shape[1], read.shape[1], inputs.padding_mask
        mask = None if padding is None else padding[:, None, None, padding.shape[1] - length :]
        if self.causal and tokens > 1:
            earlier = asking.new_ones(tokens, length, dtype=torch.bool).tril(length - tokens)
            mask = earlier if mask is None else mask & earlier
        near = self._window(asking, read, inputs)
        if near is not None:
            mask = near if mask is None else mask & near
        if mask is not None and padding is not None and (self.causal or near is not None):
            # Padding with no real token in reach would have nothing to attend to, and so no softmax.
            mask = mask | (self._distances(asking, read, inputs) == 0)
        return mask

    def _window(self, asking: torch.Tensor, read: torch.Tensor, inputs: BlockInputs) -> torch.Tensor | None:
        """Which tokens are near enough to be read, (1, 1, tokens, read); None where all are. Arguments as above."""
        if self.max_distance is None:
            return None
        if not torch.compiler.is_exporting() and read.shape[1] <= self.max_distance + 1:
            return None
        return (self._distances(asking, read, inputs).abs() <= self.max_distance)[None, None]

    def _own_bias(self, asking: torch.Tensor, read: torch.Tensor, inputs: BlockInputs) -> torch.Tensor | None:
        """The scores' bias by distance, shape (1, heads, tokens, read), or None. Arguments as above."""
        return None if self.bias is None else self.bias(self._distances(asking, read, inputs))[None]

    @staticmethod
    def _distances(asking: torch.Tensor, read: torch.Tensor, inputs: BlockInputs) -> torch.Tensor:
        """How far apart tokens are, (tokens, read): the last ones attend, or the first alone. Arguments as above."""
        first = 0 if inputs.first_token else read.shape[1] - asking.shape[1]
        return distances(asking.shape[1], read.shape[1], first, asking.device)


def _source_mask(inputs: BlockInputs) -> torch.Tensor | None:
    """Which tokens of the source are real, shape (batch, 1, 1, source tokens)."""
    return None if inputs.source_mask is None else inputs.source_mask[:, None, None]


def _as_added(mask: torch.Tensor | None, bias: torch.Tensor | None, query: torch.Tensor) -> torch.Tensor | None:
    """A mask and a bias as one: where there is a bias, as numbers to be added to scores, in the queries' precision."""
    if bias is None:
        return mask
    bias = bias.to(query.dtype)
    return bias if mask is None else bias.masked_fill(~mask, torch.finfo(bias.dtype).min)


def _kept(state: DecodingState) -> tuple[torch.Tensor, torch.Tensor]:
    return state.tensors["key"], state.tensors["value"]

"""Softmax attention for blocks, each of which makes queries, keys and values in its own way."""

from __future__ import annotations

import torch

from leanformer.blocks.kit.base import BlockModule
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
    """

    def __init__(self, heads: int, dropout: float, causal: bool, cross: bool, rotary: bool = False) -> None:
        super().__init__()
        self.rotary = rotary
        self.causal = causal and not cross
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
            mask = self._own_mask(asking, inputs.padding_mask, state)
            if state is not None:
                if state.length:
                    key, value = (torch.cat((old, new), 1) for old, new in zip(_kept(state), (key, value), strict=True))
                state.tensors = {"key": key, "value": value}
        else:
            mask = _source_mask(inputs)
            if state is not None and state.tensors:
                key, value = _kept(state)
            else:
                assert inputs.source is not None
                key, value = self.keys_and_values(inputs.source, None)
                if state is not None:
                    state.tensors = {"key": key, "value": value}
        query, key = self.sharpened(query, key)
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
        mask = _source_mask(inputs) if self.cross else None
        mixed = attend_plainly(split_heads(query, self.heads), key, value, mask, 0.0)
        return self.projected(mixed.transpose(1, 2).flatten(2))

    def attention_weights(self, inputs: BlockInputs) -> torch.Tensor:
        """The weights with which it averages; see ``BlockModule``."""
        query = self.queries(inputs.hidden_states)
        if self.cross:
            assert inputs.source is not None
            key, _ = self.keys_and_values(inputs.source, None)
            mask = _source_mask(inputs)
        else:
            key, _ = self.keys_and_values(inputs.hidden_states, query)
            query, key = self._placed(query, key, inputs)
            mask = self._own_mask(inputs.hidden_states, inputs.padding_mask, None)
        query, key = (split_heads(side, self.heads) for side in self.sharpened(query, key))
        scores = query @ key.mT * query.shape[-1] ** -0.5
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

    def _own_mask(
        self, hidden_states: torch.Tensor, padding_mask: torch.Tensor | None, state: DecodingState | None
    ) -> torch.Tensor | None:
        """Which of the tokens read so far each of these may attend to, broadcastable to (batch, 1, tokens, read)."""
        tokens = hidden_states.shape[1]
        before = 0 if state is None else state.length
        mask = None if padding_mask is None else padding_mask[:, None, None]
        if self.causal and tokens > 1:
            earlier = hidden_states.new_ones(tokens, before + tokens, dtype=torch.bool).tril(before)
            mask = earlier if mask is None else mask & earlier
        if mask is not None and self.causal and padding_mask is not None:
            # Padding before the first real token would have nothing to attend to, and so no softmax.
            own = torch.arange(tokens, device=hidden_states.device)[:, None] + before
            mask = mask | (torch.arange(before + tokens, device=hidden_states.device) == own)
        return mask


def _source_mask(inputs: BlockInputs) -> torch.Tensor | None:
    """Which tokens of the source are real, shape (batch, 1, 1, source tokens)."""
    return None if inputs.source_mask is None else inputs.source_mask[:, None, None]


def _kept(state: DecodingState) -> tuple[torch.Tensor, torch.Tensor]:
    return state.tensors["key"], state.tensors["value"]

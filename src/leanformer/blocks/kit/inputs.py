"""The inputs of a block."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from leanformer.blocks.kit.state import DecodingState


@dataclass(frozen=True, slots=True)
class BlockInputs:
    """The inputs of a block at an attention, a sublayer or a layer: plain tensors, and the state while decoding.

    Args:
        hidden_states: Shape (batch, tokens, d_model): the input of the replaced part.
        padding_mask: Boolean, shape (batch, tokens), with a state (batch, tokens in the state and these): True at real
            tokens, False at padding; None: no padding.
        source: The encoder's output, shape (batch, source tokens, d_model), at sites that read it.
        source_mask: Boolean, shape (batch, source tokens), as ``padding_mask``.
        state: While decoding with a cache: the tokens given now follow ``state.length`` earlier ones. The layer counts
            them, the block keeps its tensors in it.
        first_token: Whether nothing but the first token's output is read, as in the last layer of a classifier that
            reads the class token. A block may then give that alone, shape (batch, 1, d_model), to save work.
        rotary: Cosines and sines of the tokens' positions, shape (batch or 1, tokens, channels) each, as models with
            rotary positions hand them to their attentions (``kit/rotary.py``); None: the model has none there.
    """

    hidden_states: torch.Tensor
    padding_mask: torch.Tensor | None = None
    source: torch.Tensor | None = None
    source_mask: torch.Tensor | None = None
    state: DecodingState | None = None
    first_token: bool = False
    rotary: tuple[torch.Tensor, torch.Tensor] | None = None

    def with_states(self, hidden_states: torch.Tensor) -> BlockInputs:
        """The same with other hidden states."""
        # Not dataclasses.replace, which takes several times as long, in each layer of a decoding step.
        return BlockInputs(
            hidden_states,
            self.padding_mask,
            self.source,
            self.source_mask,
            self.state,
            self.first_token,
            self.rotary,
        )

    def with_state(self, state: DecodingState | None) -> BlockInputs:
        """The same with another state, such as a part of this one."""
        return BlockInputs(
            self.hidden_states,
            self.padding_mask,
            self.source,
            self.source_mask,
            state,
            self.first_token,
            self.rotary,
        )

"""Layers that a family puts in place of Hugging Face's: same weights, same outputs, exchangeable sublayers."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers.cache_utils import Cache
from transformers.modeling_layers import GradientCheckpointingLayer

from leanformer.blocks.kit.base import BlockModule
from leanformer.blocks.kit.inputs import BlockInputs
from leanformer.blocks.kit.site import SiteKind
from leanformer.model.hf import SourceKeys, decoding_state, part_of_cache


class Sublayer(nn.Module):
    """An attention or an MLP with its norm and its residual.

    Pre-norm is ``x + dropout(block(norm(x)))``, post-norm ``norm(x + dropout(block(x)))``.

    Args:
        norm: The norm.
        block: The attention or MLP.
        dropout: Probability.
        pre_norm: Whether the norm comes first.
    """

    def __init__(self, norm: nn.Module, block: nn.Module, dropout: float, pre_norm: bool) -> None:
        super().__init__()
        self.norm = norm
        self.block = block
        self.dropout = dropout
        self.pre_norm = pre_norm

    def forward(self, inputs: BlockInputs, **for_attention: Any) -> torch.Tensor:
        """(batch, tokens, d_model) -> the same shape, or (batch, 1, d_model) where only the first token is wanted.

        Args:
            inputs: The tokens, and what else a block of ours reads.
            for_attention: The further arguments of Hugging Face's attention.
        """
        hidden_states = inputs.hidden_states
        if self.pre_norm:
            inputs = inputs.with_states(self.norm(hidden_states))
        if isinstance(self.block, BlockModule):
            output = self.block(inputs)
        else:
            output = self.block(inputs.hidden_states, **for_attention)
        if isinstance(output, tuple):  # Hugging Face's attention returns its weights too
            output = output[0]
        if inputs.first_token:
            hidden_states, output = hidden_states[:, :1], output[:, :1]
        if self.training:
            output = F.dropout(output, self.dropout)
        output = hidden_states + output
        return output if self.pre_norm else self.norm(output)


class OpenMlp(nn.Module):
    """The MLP of an architecture whose layers hold its two linear maps themselves."""

    def __init__(self, fc1: nn.Linear, fc2: nn.Linear, activation: Any, dropout: float) -> None:
        super().__init__()
        self.fc1 = fc1
        self.fc2 = fc2
        self.activation = activation
        self.dropout = dropout

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, d_model) -> the same shape."""
        inner = self.activation(self.fc1(hidden_states))
        return self.fc2(F.dropout(inner, self.dropout) if self.training else inner)


Slot = Sublayer | BlockModule | None
"""The content of one place in a layer: an attention or MLP with norm and residual, a block for all of it, or None."""


def attends(slot: Slot) -> bool:
    """Whether Hugging Face's attention stands at a place, with masks and a cache in its own form."""
    return isinstance(slot, Sublayer) and not isinstance(slot.block, BlockModule)


def pass_through(slot: Slot, inputs: BlockInputs, **for_attention: Any) -> torch.Tensor:
    """A slot's output, or that of the first token alone; arguments as of ``Sublayer``."""
    if isinstance(slot, Sublayer):
        return slot(inputs, **for_attention)
    output: torch.Tensor = inputs.hidden_states if slot is None else slot(inputs)
    return output[:, :1] if inputs.first_token else output


class OpenLayer(GradientCheckpointingLayer):
    """A layer whose sublayers are sites: each may be replaced or removed.

    Args:
        self_attention: The attention sublayer.
        mlp: The MLP sublayer.
        index: The layer's number in its stack; a decoder's finds its place in a cache by it.
    """

    def __init__(self, self_attention: Sublayer, mlp: Sublayer, index: int) -> None:
        nn.Module.__init__(self)  # it is also of the architecture's own class, whose weights must not be made
        self.index = index
        self.self_attention: Slot = self_attention
        self.mlp: Slot = mlp
        self.block: BlockModule | None = None  # for the whole layer

    def slots(self) -> dict[SiteKind, Slot]:
        """The places of the layer, in its order."""
        return {"self_attention": self.self_attention, "mlp": self.mlp}

    @property
    def present(self) -> bool:
        """Whether the layer holds anything."""
        return self.block is not None or any(slot is not None for slot in self.slots().values())

    def replace(self, block: BlockModule | None) -> None:
        """Puts a block in place of the whole layer, or nothing."""
        for kind in self.slots():
            setattr(self, kind, None)
        self.block = block


class OpenEncoderLayer(OpenLayer):
    """An open layer of an encoder."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        padding_mask: torch.Tensor | None = None,
        first_token_of: int | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """(batch, tokens, d_model) -> the same shape; (batch, 1, d_model) where only the first token is wanted.

        Args:
            hidden_states: What the layer before gave.
            attention_mask: In the form of the model's attention implementation, for Hugging Face's attention.
            padding_mask: As ``BlockModule`` wants it, for blocks.
            first_token_of: The number of the layer of which nothing but the first token is read, if there is one.
        """
        inputs = BlockInputs(hidden_states, padding_mask, first_token=first_token_of == self.index)
        if self.block is not None:
            return pass_through(self.block, inputs)
        hidden_states = pass_through(self.self_attention, inputs, attention_mask=attention_mask, **kwargs)
        return pass_through(self.mlp, BlockInputs(hidden_states))


class OpenDecoderLayer(OpenLayer):
    """An open layer of a decoder that reads an encoder's output.

    Args:
        self_attention: The attention sublayer.
        cross_attention: The cross-attention sublayer.
        mlp: The MLP sublayer.
        index: The layer's number.
    """

    def __init__(self, self_attention: Sublayer, cross_attention: Sublayer, mlp: Sublayer, index: int) -> None:
        super().__init__(self_attention, mlp, index)
        self.cross_attention: Slot = cross_attention

    def slots(self) -> dict[SiteKind, Slot]:
        """The places of the layer, in its order."""
        return {
            "self_attention": self.self_attention,
            "cross_attention": self.cross_attention,
            "mlp": self.mlp,
        }

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        encoder_hidden_states: torch.Tensor | None = None,
        encoder_attention_mask: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        padding_mask: torch.Tensor | None = None,
        source_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """(batch, tokens, d_model) -> the same shape.

        Args:
            hidden_states: What the layer before gave.
            attention_mask: In the form of the model's attention implementation, for Hugging Face's attention.
            encoder_hidden_states: The encoder's output.
            encoder_attention_mask: As ``attention_mask``, for cross-attention.
            past_key_values: The cache while decoding.
            padding_mask: As ``BlockModule`` wants it.
            source_mask: Likewise, of the encoder's output.
        """
        state = source_state = None
        if past_key_values is not None:
            # Whatever stands there, the cache has to know how many tokens were read: positions follow from it.
            if not attends(self.self_attention):
                state = decoding_state(part_of_cache(past_key_values, "self_attention_cache"), self.index)
            if attends(self.cross_attention):
                SourceKeys.prepare(part_of_cache(past_key_values, "cross_attention_cache"), self.index)
            elif self.cross_attention is not None:
                source_state = decoding_state(part_of_cache(past_key_values, "cross_attention_cache"), self.index)
                surplus = source_state.length - past_key_values.get_seq_length(self.index)
                if surplus:  # only its part for self-attention was cropped
                    source_state.crop(-surplus)
        source = (encoder_hidden_states, source_mask)
        if self.block is not None:
            hidden_states = self.block(BlockInputs(hidden_states, padding_mask, *source, state))
        else:
            hidden_states = pass_through(
                self.self_attention,
                BlockInputs(hidden_states, padding_mask, state=state),
                attention_mask=attention_mask,
                past_key_values=past_key_values,
                **kwargs,
            )
            hidden_states = pass_through(
                self.cross_attention,
                BlockInputs(hidden_states, padding_mask, *source, source_state),
                key_value_states=encoder_hidden_states,
                attention_mask=encoder_attention_mask,
                past_key_values=past_key_values,
                **kwargs,
            )
            hidden_states = pass_through(self.mlp, BlockInputs(hidden_states))
        for used in (state, source_state):
            if used is not None:
                used.length += hidden_states.shape[1]
        return hidden_states

"""Layers of our own that a family puts in place of Hugging Face's: same weights, same outputs, open places."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer

from leanformer.blocks.kit.base import BlockModule
from leanformer.blocks.kit.site import SiteKind
from leanformer.blocks.kit.state import DecodingState, SourceKeys
from leanformer.core.errors import LeanformerError


class Sublayer(nn.Module):
    """An attention or an MLP with its norm and its residual.

    Pre-norm is ``x + dropout(block(norm(x)))``, post-norm ``norm(x + dropout(block(x)))``.

    Args:
        norm: The norm.
        block: The attention or MLP.
        dropout: Probability.
        pre_norm: Where the norm stands.
    """

    def __init__(self, norm: nn.Module, block: nn.Module, dropout: float, pre_norm: bool) -> None:
        super().__init__()
        self.norm = norm
        self.block = block
        self.dropout = dropout
        self.pre_norm = pre_norm

    def forward(self, hidden_states: torch.Tensor, first_token: bool = False, **arguments: Any) -> torch.Tensor:
        """(batch, tokens, d_model) -> the same shape, or (batch, 1, d_model) where only the first token is wanted.

        The other arguments go to the block.
        """
        if first_token and isinstance(self.block, BlockModule) and self.block.takes_first_token:
            arguments["first_token"] = True
        output = self.block(self.norm(hidden_states) if self.pre_norm else hidden_states, **arguments)
        if isinstance(output, tuple):  # Hugging Face's attention gives its weights beside
            output = output[0]
        if first_token:
            hidden_states, output = hidden_states[:, :1], output[:, :1]
        if self.training:
            output = F.dropout(output, self.dropout)
        output = hidden_states + output
        return output if self.pre_norm else self.norm(output)


class OpenMlp(nn.Module):
    """The MLP of a layer that keeps its two linears beside its norms."""

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
"""What stands at one place of a layer: an attention or MLP with norm and residual, a block for all of it, nothing."""


def attends(slot: Slot) -> bool:
    """Whether Hugging Face's attention stands at a place, with masks and a cache in its own form."""
    return isinstance(slot, Sublayer) and not isinstance(slot.block, BlockModule)


def pass_through(
    slot: Slot,
    hidden_states: torch.Tensor,
    for_hf: dict[str, Any],
    for_block: dict[str, Any],
    first_token: bool = False,
) -> torch.Tensor:
    """A slot's output, or that of the first token alone.

    Hugging Face's modules and our blocks are each called with their own arguments.
    """
    if slot is None:
        return hidden_states[:, :1] if first_token else hidden_states
    ours = isinstance(slot if isinstance(slot, BlockModule) else slot.block, BlockModule)
    arguments = for_block if ours else for_hf
    if first_token and isinstance(slot, Sublayer):
        arguments = {**arguments, "first_token": True}
    output: torch.Tensor = slot(hidden_states, **arguments)
    return output[:, :1] if first_token else output


class OpenLayer(GradientCheckpointingLayer):
    """A layer whose sublayers are sites: each may be exchanged, or be gone.

    Args:
        self_attention: The attention sublayer.
        mlp: The MLP sublayer.
        index: The layer's number in its stack; a decoder's finds its place in a cache by it.
    """

    def __init__(self, self_attention: Sublayer, mlp: Sublayer, index: int) -> None:
        nn.Module.__init__(self)  # a family's open layer is also its own layer class, whose weights it must not make
        self.index = index
        self.self_attention: Slot = self_attention
        self.mlp: Slot = mlp
        self.block: BlockModule | None = None  # for the whole layer

    def slots(self) -> dict[SiteKind, Slot]:
        """The places of the layer, in its order."""
        return {"self_attention": self.self_attention, "mlp": self.mlp}

    @property
    def present(self) -> bool:
        """Whether anything stands in it."""
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
        first = first_token_of == self.index
        if self.block is not None:
            return pass_through(self.block, hidden_states, {}, {"padding_mask": padding_mask}, first)
        hidden_states = pass_through(
            self.self_attention,
            hidden_states,
            {"attention_mask": attention_mask, **kwargs},
            {"padding_mask": padding_mask},
            first,
        )
        return pass_through(self.mlp, hidden_states, {}, {})


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
                state = DecodingState.of(_part(past_key_values, "self_attention_cache"), self.index)
            if attends(self.cross_attention):
                SourceKeys.prepare(_part(past_key_values, "cross_attention_cache"), self.index)
            elif self.cross_attention is not None:
                source_state = DecodingState.of(_part(past_key_values, "cross_attention_cache"), self.index)
                surplus = source_state.length - past_key_values.get_seq_length(self.index)
                if surplus:  # only its part for self-attention was cropped
                    source_state.crop(-surplus)
        source = {"source": encoder_hidden_states, "source_mask": source_mask}
        if self.block is not None:
            hidden_states = self.block(hidden_states, padding_mask, **source, state=state)
        else:
            hidden_states = pass_through(
                self.self_attention,
                hidden_states,
                {"attention_mask": attention_mask, "past_key_values": past_key_values, **kwargs},
                {"padding_mask": padding_mask, "state": state},
            )
            hidden_states = pass_through(
                self.cross_attention,
                hidden_states,
                {
                    "key_value_states": encoder_hidden_states,
                    "attention_mask": encoder_attention_mask,
                    "past_key_values": past_key_values,
                    **kwargs,
                },
                {"padding_mask": padding_mask, **source, "state": source_state},
            )
            hidden_states = pass_through(self.mlp, hidden_states, {}, {})
        for used in (state, source_state):
            if used is not None:
                used.length += hidden_states.shape[1]
        return hidden_states


def _part(cache: Cache, name: str) -> Cache:
    part = getattr(cache, name, None)
    if part is None:
        raise LeanformerError(
            f"a student decodes with an EncoderDecoderCache, not with a {type(cache).__name__}; leave past_key_values "
            "out, so that generate makes its own"
        )
    return part


def real_tokens(mask: torch.Tensor | None) -> torch.Tensor | None:
    """A model's attention mask as the blocks want it: boolean, True at real tokens.

    Args:
        mask: Shape (batch, tokens), not 0 at real tokens; None where all are.

    Raises:
        LeanformerError: The mask has another shape, such as one that says which token sees which.
    """
    if mask is None:
        return None
    if mask.dim() != 2:
        raise LeanformerError(
            f"a student takes attention masks of shape (batch, tokens), not of {mask.dim()} dimensions"
        )
    return mask != 0


def asks_for_more(config: Any, others: dict[str, Any]) -> bool:
    """Whether a model is asked for attentions or hidden states beside its output.

    Args:
        config: Its configuration.
        others: What it is called with.
    """
    kinds = ("attentions", "hidden_states")
    return any(others.get(f"output_{kind}", getattr(config, f"output_{kind}")) for kind in kinds)


@dataclass(frozen=True)
class SourceMasks:
    """What is made of a source's mask, kept while its translation is written.

    Args:
        given: The mask that the model is called with.
        real: As blocks want it.
        attention: As Hugging Face's attention wants it; None: it needs none, or there is none.
    """

    given: torch.Tensor | None
    real: torch.Tensor | None
    attention: torch.Tensor | None


def _grows(cache: Cache | None) -> bool:
    """Whether a cache has read tokens and holds these alone, as ``generate`` makes it: no room for others."""
    return (
        isinstance(cache, EncoderDecoderCache)
        and type(cache.self_attention_cache) is DynamicCache
        and cache.get_seq_length() > 0
    )


# In the form that Hugging Face takes as it is and makes no other from: where blocks stand at all sites nobody reads it,
# and making the masks anew takes a twentieth of a small model's decoding step.
UNREAD = torch.empty(1, 1, 1, 1)


def _any_attends(layers: Iterable[Any], kind: SiteKind) -> bool:
    """Whether in any layer Hugging Face's attention stands at a kind of site, which reads masks in its own form."""
    return any(attends(getattr(layer, kind)) for layer in layers)


class TellsEncoderBlocks:
    """Mixed into an encoder: its layers are told where padding is, whatever form its attention wants masks in."""

    layers: nn.ModuleList

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """As the encoder's own."""
        encode: Any = super()
        padding_mask = real_tokens(attention_mask)
        if not _any_attends(self.layers, "self_attention"):
            attention_mask = UNREAD
        return encode.forward(input_ids, attention_mask, inputs_embeds, padding_mask=padding_mask, **kwargs)


class TellsDecoderBlocks:
    """Mixed into a decoder: its layers are told where padding is, in the target and in the source.

    While a student writes, a token at a time, it takes the short way (``step``): in a small model a seventh of such a
    step is work around the layers, most of it for masks and outputs that nobody asked for.
    """

    layers: nn.ModuleList
    config: Any
    training: bool

    def embed(self, input_ids: torch.Tensor, position: int) -> torch.Tensor:
        """What the first layer is given of a token of each sequence: (batch, 1) -> (batch, 1, d_model).

        Args:
            input_ids: The tokens.
            position: How many come before each.
        """
        raise NotImplementedError

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        encoder_hidden_states: torch.Tensor | None = None,
        encoder_attention_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """As the decoder's own."""
        decode: Any = super()
        padding_mask, source_mask = real_tokens(attention_mask), real_tokens(encoder_attention_mask)
        if not _any_attends(self.layers, "self_attention"):
            attention_mask = UNREAD
        if not _any_attends(self.layers, "cross_attention"):
            encoder_attention_mask = UNREAD
        return decode.forward(
            input_ids,
            attention_mask,
            encoder_hidden_states,
            encoder_attention_mask,
            padding_mask=padding_mask,
            source_mask=source_mask,
            **kwargs,
        )

    def steps(
        self,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        cache: Cache | None,
        others: dict[str, Any],
    ) -> bool:
        """Whether what a model is called with is one further token of each sequence, and no more than that is asked."""
        return (
            input_ids is not None
            and attention_mask is None
            and input_ids.shape[1] == 1
            and not self.training
            and _grows(cache)
            and not asks_for_more(self.config, others)
        )

    def step(
        self, input_ids: Any, source: torch.Tensor | None, given_mask: torch.Tensor | None, cache: Any
    ) -> torch.Tensor:
        """The output for one further token of each sequence, where ``steps`` says that it is.

        No mask over the target is needed, as all that was read is seen.

        Args:
            input_ids: The tokens, shape (batch, 1).
            source: The encoder's output.
            given_mask: The source's mask, shape (batch, source tokens).
            cache: Has read the tokens before.

        Returns:
            Shape (batch, 1, d_model).
        """
        hidden_states = self.embed(input_ids, cache.get_seq_length())
        masks = cache.__dict__.get("source_masks")
        if masks is None or masks.given is not given_mask:
            # The same for all tokens to come, and so are the masks made of it.
            attention_mask = None
            if _any_attends(self.layers, "cross_attention"):
                attention_mask = create_bidirectional_mask(self.config, hidden_states, given_mask, source)
            masks = cache.source_masks = SourceMasks(given_mask, real_tokens(given_mask), attention_mask)
        for layer in self.layers:
            hidden_states = layer(
                hidden_states,
                None,
                source,
                encoder_attention_mask=masks.attention,
                past_key_values=cache,
                source_mask=masks.real,
            )
        return hidden_states


class PatchProjection(nn.Module):
    """A convolution whose stride is its kernel, as the matrix product that it is.

    The weights are the convolution's own, in its shape; on a CPU its backward pass takes a sixth of a minimal model's
    training step, the product's does not.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.weight = convolution.weight  # (d_model, channels, patch height, patch width)
        self.bias = convolution.bias

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(batch, channels, height, width) -> (batch, d_model, rows, columns), as the convolution gives it."""
        height, width = self.weight.shape[2:]
        rows, columns = pixel_values.shape[2] // height, pixel_values.shape[3] // width
        whole = pixel_values[:, :, : rows * height, : columns * width]  # a part of a patch at the edge is not read
        patches = whole.unflatten(2, (rows, height)).unflatten(4, (columns, width))
        patches = patches.permute(0, 2, 4, 1, 3, 5).flatten(3)  # (batch, rows, columns, numbers of a patch)
        return F.linear(patches, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


class PatchTokens(nn.Module):
    """Image embeddings without class or distillation token, with the weights of Hugging Face's embeddings."""

    def __init__(self, embeddings: Any, special_tokens: int) -> None:
        super().__init__()
        self.patch_embeddings: Any = embeddings.patch_embeddings
        self.position_embeddings = nn.Parameter(embeddings.position_embeddings.detach()[:, special_tokens:].clone())
        self.dropout: nn.Module = embeddings.dropout

    def forward(
        self,
        pixel_values: torch.Tensor,
        bool_masked_pos: torch.Tensor | None = None,
        interpolate_pos_encoding: bool | None = None,
    ) -> torch.Tensor:
        """(batch, channels, height, width) -> (batch, patches, d_model).

        Raises:
            ValueError: ``bool_masked_pos`` is given (a model without mask token), or the image has another size than
                the model and ``interpolate_pos_encoding`` is not set.
        """
        if bool_masked_pos is not None:
            raise ValueError("this model has no mask token: leave bool_masked_pos out")
        height, width = pixel_values.shape[-2:]
        positions: torch.Tensor = self.position_embeddings
        if (height, width) != tuple(self.patch_embeddings.image_size):
            if not interpolate_pos_encoding:
                expected = "x".join(str(side) for side in self.patch_embeddings.image_size)
                raise ValueError(
                    f"images of {height}x{width} pixels given to a model for {expected}: resize them, or set "
                    "interpolate_pos_encoding"
                )
            grid = [
                side // patch
                for side, patch in zip(self.patch_embeddings.image_size, self.patch_embeddings.patch_size, strict=True)
            ]
            target = [
                side // patch for side, patch in zip((height, width), self.patch_embeddings.patch_size, strict=True)
            ]
            positions = positions.unflatten(1, grid).permute(0, 3, 1, 2)  # (1, d_model, rows, columns)
            positions = F.interpolate(positions, size=target, mode="bicubic", align_corners=False)
            positions = positions.flatten(2).transpose(1, 2)
        return self.dropout(self.patch_embeddings(pixel_values) + positions)

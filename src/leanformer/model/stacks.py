"""Encoders and decoders of open layers: they tell blocks where padding is, and have a short path for decoding steps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache

from leanformer.blocks.kit.site import SiteKind
from leanformer.core.errors import LeanformerError
from leanformer.model.hf import NO_MASK, asks_for_more, grows, source_attention_mask
from leanformer.model.layers import attends


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


@dataclass(frozen=True)
class SourceMasks:
    """The masks made from a source's mask, kept while its translation is generated.

    Args:
        given: The mask that the model is called with.
        real: The mask in the form that blocks take.
        attention: The form that Hugging Face's attention takes; None: it needs none, or there is no such attention.
    """

    given: torch.Tensor | None
    real: torch.Tensor | None
    attention: torch.Tensor | None


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
            attention_mask = NO_MASK
        return encode.forward(input_ids, attention_mask, inputs_embeds, padding_mask=padding_mask, **kwargs)


class TellsDecoderBlocks:
    """Mixed into a decoder: its layers are told where padding is, in the target and in the source.

    While a student generates, a token at a time, it takes a short path (``step``): in a small model a seventh of such a
    step is work around the layers, most of it for masks and outputs that are not used.
    """

    layers: nn.ModuleList
    config: Any
    training: bool

    def embed(self, input_ids: torch.Tensor, position: int) -> torch.Tensor:
        """The first layer's input for one token of each sequence: (batch, 1) -> (batch, 1, d_model).

        Args:
            input_ids: The tokens.
            position: How many tokens come before each.
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
            attention_mask = NO_MASK
        if not _any_attends(self.layers, "cross_attention"):
            encoder_attention_mask = NO_MASK
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
        """Whether a call is for one further token of each sequence, and asks for nothing but its output."""
        return (
            input_ids is not None
            and attention_mask is None
            and input_ids.shape[1] == 1
            and not self.training
            and grows(cache)
            and not asks_for_more(self.config, others)
        )

    def step(
        self, input_ids: Any, source: torch.Tensor | None, given_mask: torch.Tensor | None, cache: Any
    ) -> torch.Tensor:
        """The output for one further token of each sequence, for calls of which ``steps`` is true.

        No mask over the target is needed, because the token may attend to all earlier ones.

        Args:
            input_ids: The tokens, shape (batch, 1).
            source: The encoder's output.
            given_mask: The source's mask, shape (batch, source tokens).
            cache: The cache, which has read the tokens before.

        Returns:
            Shape (batch, 1, d_model).
        """
        hidden_states = self.embed(input_ids, cache.get_seq_length())
        masks = cache.__dict__.get("source_masks")
        if masks is None or masks.given is not given_mask:
            # The same for all tokens to come, and so are the masks made of it.
            attention_mask = None
            if _any_attends(self.layers, "cross_attention"):
                attention_mask = source_attention_mask(self.config, hidden_states, given_mask, source)
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

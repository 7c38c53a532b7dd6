"""Encoders and decoders of open layers: they tell blocks where padding is, and write token by token the short way."""

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
    """What is made of a source's mask, kept while its translation is written.

    Args:
        given: The mask that the model is called with.
        real: As blocks want it.
        attention: As Hugging Face's attention wants it; None: it needs none, or there is none.
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
        """Whether what a model is called with is one further token of each sequence, and no more than that is asked."""
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

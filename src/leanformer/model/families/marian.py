"""Marian."""

from __future__ import annotations

from typing import Any

import torch
from transformers import MarianConfig, MarianMTModel
from transformers.models.marian.modeling_marian import (
    MarianAttention,
    MarianDecoder,
    MarianDecoderLayer,
    MarianEncoder,
    MarianEncoderLayer,
)

from leanformer.model.family import register
from leanformer.model.hf import STUDENT_PREFIX, decoder_records, position_embedding
from leanformer.model.layers import OpenDecoderLayer, OpenEncoderLayer
from leanformer.model.shapes.seq2seq import Seq2SeqFamily, Seq2SeqStudent
from leanformer.model.stacks import TellsDecoderBlocks, TellsEncoderBlocks


class OpenMarianEncoderLayer(OpenEncoderLayer, MarianEncoderLayer):
    """A layer of Marian's encoder; also of the architecture's own class, so that transformers records hidden states."""


class OpenMarianDecoderLayer(OpenDecoderLayer, MarianDecoderLayer):
    """A layer of Marian's decoder; likewise."""


class OpenMarianEncoder(TellsEncoderBlocks, MarianEncoder):
    """Marian's encoder of open layers."""


class OpenMarianDecoder(TellsDecoderBlocks, MarianDecoder):
    """Marian's decoder of open layers."""

    _can_record_outputs = decoder_records(MarianDecoderLayer, MarianAttention)

    def embed(self, input_ids: torch.Tensor, position: int) -> torch.Tensor:
        return self.embed_tokens(input_ids) * self.embed_scale + position_embedding(self.embed_positions, position)


class LeanMarianConfig(MarianConfig):
    """Marian's configuration and the resolved plan of its student."""

    model_type = f"{STUDENT_PREFIX}marian"
    plan: dict[str, Any] | None = None


class LeanMarianMTModel(Seq2SeqStudent, MarianMTModel):
    """A reduced Marian."""

    config_class = LeanMarianConfig


register(
    Seq2SeqFamily(
        name="marian",
        config_class=MarianConfig,
        model_class=MarianMTModel,
        attention_class=MarianAttention,
        encoder_layer_class=OpenMarianEncoderLayer,
        decoder_layer_class=OpenMarianDecoderLayer,
        encoder_class=OpenMarianEncoder,
        decoder_class=OpenMarianDecoder,
        student_config_class=LeanMarianConfig,
        student_model_class=LeanMarianMTModel,
        has_decoder_vocabulary=True,
    )
)

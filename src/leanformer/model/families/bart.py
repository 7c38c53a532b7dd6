"""BART."""

from __future__ import annotations

from typing import Any

import torch
from transformers import BartConfig, BartForConditionalGeneration
from transformers.models.bart.modeling_bart import (
    BartAttention,
    BartDecoder,
    BartDecoderLayer,
    BartEncoder,
    BartEncoderLayer,
)

from leanformer.model.family import register
from leanformer.model.hf import STUDENT_PREFIX, decoder_records, position_embedding
from leanformer.model.layers import OpenDecoderLayer, OpenEncoderLayer
from leanformer.model.shapes.seq2seq import Seq2SeqFamily, Seq2SeqStudent
from leanformer.model.stacks import TellsDecoderBlocks, TellsEncoderBlocks


class OpenBartEncoderLayer(OpenEncoderLayer, BartEncoderLayer):
    """A layer of BART's encoder; also of the architecture's own class, so that transformers records hidden states."""


class OpenBartDecoderLayer(OpenDecoderLayer, BartDecoderLayer):
    """A layer of BART's decoder; likewise."""


class OpenBartEncoder(TellsEncoderBlocks, BartEncoder):
    """BART's encoder of open layers."""


class OpenBartDecoder(TellsDecoderBlocks, BartDecoder):
    """BART's decoder of open layers."""

    _can_record_outputs = decoder_records(BartDecoderLayer, BartAttention)

    def embed(self, input_ids: torch.Tensor, position: int) -> torch.Tensor:
        states = self.embed_tokens(input_ids) + position_embedding(self.embed_positions, position)
        return self.layernorm_embedding(states)


class LeanBartConfig(BartConfig):
    """BART's configuration and the resolved plan of its student."""

    model_type = f"{STUDENT_PREFIX}bart"
    plan: dict[str, Any] | None = None


class LeanBartForConditionalGeneration(Seq2SeqStudent, BartForConditionalGeneration):
    """A reduced BART."""

    config_class = LeanBartConfig


register(
    Seq2SeqFamily(
        name="bart",
        config_class=BartConfig,
        model_class=BartForConditionalGeneration,
        attention_class=BartAttention,
        encoder_layer_class=OpenBartEncoderLayer,
        decoder_layer_class=OpenBartDecoderLayer,
        encoder_class=OpenBartEncoder,
        decoder_class=OpenBartDecoder,
        student_config_class=LeanBartConfig,
        student_model_class=LeanBartForConditionalGeneration,
    )
)

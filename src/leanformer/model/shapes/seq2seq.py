"""The shape of translators: a post-norm encoder, and a post-norm decoder that reads its output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import AutoModelForSeq2SeqLM, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.modeling_outputs import Seq2SeqLMOutput

from leanformer.core.errors import LeanformerError
from leanformer.model.hf import change_class
from leanformer.model.layers import OpenDecoderLayer, OpenLayer, OpenMlp, Sublayer
from leanformer.model.shapes.open import OpenFamily
from leanformer.model.shapes.student import Student
from leanformer.model.sizes import check_heads, shown

_NO_CLASSES = "a translator has no classes"


@dataclass(frozen=True, kw_only=True)
class Seq2SeqFamily(OpenFamily):
    """A post-norm encoder and decoder.

    Args:
        decoder_layer_class: The open layer that replaces a layer of the decoder.
        encoder_class: The class of an encoder with open layers.
        decoder_class: The class of a decoder with open layers.
    """

    decoder_layer_class: type[OpenDecoderLayer]
    encoder_class: type[PreTrainedModel]
    decoder_class: type[PreTrainedModel]

    task: ClassVar[str] = "translation"
    auto_class: ClassVar[Any] = AutoModelForSeq2SeqLM
    described: ClassVar[str] = "a translator"
    shape_keys: ClassVar[tuple[str, ...]] = (
        "d_model",
        "encoder_layers",
        "decoder_layers",
        "encoder_attention_heads",
        "decoder_attention_heads",
        "encoder_ffn_dim",
        "decoder_ffn_dim",
    )
    without_effect: ClassVar[Mapping[str, str]] = {
        "classifier_dropout": _NO_CLASSES,
        "id2label": _NO_CLASSES,
        "num_labels": _NO_CLASSES,
    }
    projections: ClassVar[tuple[str, str, str, str]] = ("q_proj", "k_proj", "v_proj", "out_proj")
    heads_attribute: ClassVar[str] = "num_heads"
    activation_key: ClassVar[str] = "activation_function"

    def stacks(self, model: PreTrainedModel) -> dict[str, nn.ModuleList]:
        return {"encoder": model.base_model.encoder.layers, "decoder": model.base_model.decoder.layers}

    def heads(self, config: Any, stack: str) -> int:
        return int(config.encoder_attention_heads if stack == "encoder" else config.decoder_attention_heads)

    def check_config(self, config: Any, where: str) -> None:
        """Heads divide the width, and marks are subwords; see ``Family``."""
        check_heads(config, ("encoder_attention_heads", "decoder_attention_heads"), "d_model", where)
        target = getattr(config, "decoder_vocab_size", None) or config.vocab_size
        for key, words in (("pad_token_id", min(config.vocab_size, target)), ("decoder_start_token_id", target)):
            mark = getattr(config, key)
            if isinstance(mark, bool) or not isinstance(mark, int) or not 0 <= mark < words:
                raise LeanformerError(
                    f"{where}: {key} is {shown(mark)}; it must be the number of a subword, from 0 to {words - 1:,}"
                )

    def max_positions(self, config: Any) -> int | None:
        return int(config.max_position_embeddings)

    def open_layer(self, layer: Any, stack: str, index: int) -> OpenLayer:
        if isinstance(layer, OpenLayer):
            return layer
        dropout = layer.dropout
        self_attention = Sublayer(layer.self_attn_layer_norm, layer.self_attn, dropout, pre_norm=False)
        mlp = OpenMlp(layer.fc1, layer.fc2, layer.activation_fn, layer.activation_dropout)
        mlp_sublayer = Sublayer(layer.final_layer_norm, mlp, dropout, pre_norm=False)
        if stack == "encoder":
            return self.encoder_layer_class(self_attention, mlp_sublayer, index)
        cross_attention = Sublayer(layer.encoder_attn_layer_norm, layer.encoder_attn, dropout, pre_norm=False)
        return self.decoder_layer_class(self_attention, cross_attention, mlp_sublayer, index)

    def open(self, model: PreTrainedModel) -> None:
        super().open(model)
        # The same modules with one more method: they need not be made again.
        change_class(model.base_model.encoder, self.encoder_class)
        change_class(model.base_model.decoder, self.decoder_class)

    def _attention_dropout(self, attention: Any) -> float:
        return float(attention.dropout)


class Seq2SeqStudent(Student):
    """Mixed into a Hugging Face translator: reduced as its plan says."""

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.Tensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        encoder_outputs: Any = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        decoder_inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """As the Hugging Face model's own; in generation a single token goes straight through the decoder."""
        decoder = self.base_model.decoder
        if (
            encoder_outputs is not None
            and labels is None
            and kwargs.get("return_dict") is not False
            and self.config.return_dict
            and decoder.steps(decoder_input_ids, decoder_attention_mask, past_key_values, kwargs)
        ):
            source = encoder_outputs[0]
            states = decoder.step(decoder_input_ids, source, attention_mask, past_key_values)
            logits = self.lm_head(states) + self.final_logits_bias
            return Seq2SeqLMOutput(logits=logits, past_key_values=past_key_values, encoder_last_hidden_state=source)
        whole: Any = super()
        return whole.forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            encoder_outputs=encoder_outputs,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            decoder_inputs_embeds=decoder_inputs_embeds,
            labels=labels,
            use_cache=use_cache,
            **kwargs,
        )

"""The classes of students: reduced models that are Hugging Face models still."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    DeiTConfig,
    DeiTForImageClassification,
    MarianConfig,
    MarianMTModel,
    PreTrainedConfig,
    PreTrainedModel,
    ViTConfig,
    ViTForImageClassification,
)
from transformers.cache_utils import Cache
from transformers.modeling_outputs import ImageClassifierOutput, Seq2SeqLMOutput

from leanformer.model.families import STUDENT_PREFIX
from leanformer.model.layers import asks_for_more, real_tokens
from leanformer.model.surgery import install

# Shown by transformers where leanformer.auto has not been imported: no repository can have such a name, so that nothing
# is ever fetched from there. Where it has been imported, transformers takes the installed classes and asks nobody.
_AUTO_MAP = {"AutoConfig": "leanformer: import leanformer.auto first, then this student loads.--leanformer.auto"}


class ImageStudent(PreTrainedModel):
    """Mixed into a Hugging Face image classifier: reduced as its configuration's plan says, pooled by a site.

    A student is a model type of its own, so that no class that ignores the plan ever half-loads it: transformers'
    ``Auto`` classes rebuild it where ``leanformer.auto`` is imported, and name that module where it is not.
    """

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.config.auto_map = dict(_AUTO_MAP)
        install(self, config.plan or {}, take_over=False)

    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        interpolate_pos_encoding: bool | None = None,
        attention_mask: torch.Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> ImageClassifierOutput | tuple[torch.Tensor, ...]:
        """(batch, channels, height, width) -> logits (batch, labels), and the loss where labels are given.

        Where the class token is all that is read, the last layer gives nothing else, unless hidden states or attentions
        are asked for: its MLP has one token, and a ``minimal_attention`` one query.
        """
        first_token_of = None
        if self.pooling.needs_class_token and not asks_for_more(self.config, kwargs):
            present = [layer.index for layer in self.base_model.layers if layer.present]
            first_token_of = present[-1] if present else None
        outputs = self.base_model(
            pixel_values,
            interpolate_pos_encoding=interpolate_pos_encoding,
            attention_mask=attention_mask,
            padding_mask=real_tokens(attention_mask),
            first_token_of=first_token_of,
            **kwargs,
        )
        logits = self.classifier(self.pooling(outputs.last_hidden_state))
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        output = ImageClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )
        wants_dict = self.config.return_dict if return_dict is None else return_dict
        return output if wants_dict else output.to_tuple()


class TranslationStudent(PreTrainedModel):
    """Mixed into a Hugging Face translator: reduced as its configuration's plan says."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.config.auto_map = dict(_AUTO_MAP)
        install(self, config.plan or {}, take_over=False)

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
        """As the Hugging Face model's own; a token while writing goes straight through the decoder."""
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


class LeanViTConfig(ViTConfig):
    """A ViT's configuration and the resolved plan of its student."""

    model_type = f"{STUDENT_PREFIX}vit"
    plan: dict[str, Any] | None = None


class LeanDeiTConfig(DeiTConfig):
    """A DeiT's configuration and the resolved plan of its student."""

    model_type = f"{STUDENT_PREFIX}deit"
    plan: dict[str, Any] | None = None


class LeanMarianConfig(MarianConfig):
    """Marian's configuration and the resolved plan of its student."""

    model_type = f"{STUDENT_PREFIX}marian"
    plan: dict[str, Any] | None = None


class LeanBartConfig(BartConfig):
    """BART's configuration and the resolved plan of its student."""

    model_type = f"{STUDENT_PREFIX}bart"
    plan: dict[str, Any] | None = None


class LeanViTForImageClassification(ImageStudent, ViTForImageClassification):
    """A reduced ViT."""

    config_class = LeanViTConfig


class LeanDeiTForImageClassification(ImageStudent, DeiTForImageClassification):
    """A reduced DeiT."""

    config_class = LeanDeiTConfig


class LeanMarianMTModel(TranslationStudent, MarianMTModel):
    """A reduced Marian."""

    config_class = LeanMarianConfig


class LeanBartForConditionalGeneration(TranslationStudent, BartForConditionalGeneration):
    """A reduced BART."""

    config_class = LeanBartConfig


STUDENTS: dict[str, tuple[type[PreTrainedConfig], type[PreTrainedModel]]] = {
    "vit": (LeanViTConfig, LeanViTForImageClassification),
    "deit": (LeanDeiTConfig, LeanDeiTForImageClassification),
    "marian": (LeanMarianConfig, LeanMarianMTModel),
    "bart": (LeanBartConfig, LeanBartForConditionalGeneration),
}
"""A family's name -> its students' configuration and model."""

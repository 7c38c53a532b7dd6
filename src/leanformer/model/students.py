"""Students: reduced models that are Hugging Face models still, made, saved and loaded."""

from __future__ import annotations

import copy
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
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

from leanformer.errors import LeanformerError
from leanformer.model.families import FAMILIES, STUDENT_PREFIX, TranslationFamily, device_and_dtype, find_family
from leanformer.model.layers import asks_for_more, real_tokens
from leanformer.model.plan import Plan
from leanformer.model.surgery import combine, install, resolve, sites


class ImageStudent(PreTrainedModel):
    """Mixed into a Hugging Face image classifier: reduced as its configuration's plan says, pooled by a site.

    A student is a model type of its own, so that no class that ignores the plan ever half-loads it: transformers'
    ``Auto`` classes rebuild it where this module is imported, and name the unknown type where it is not.
    """

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
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


_STUDENTS: dict[str, tuple[type[PreTrainedConfig], type[PreTrainedModel]]] = {
    "vit": (LeanViTConfig, LeanViTForImageClassification),
    "deit": (LeanDeiTConfig, LeanDeiTForImageClassification),
    "marian": (LeanMarianConfig, LeanMarianMTModel),
    "bart": (LeanBartConfig, LeanBartForConditionalGeneration),
}
for _name, (_config_class, _model_class) in _STUDENTS.items():
    AutoConfig.register(_config_class.model_type, _config_class)
    FAMILIES[_name].auto_class.register(_config_class, _model_class)


def reduce(model: PreTrainedModel, plan: Plan) -> PreTrainedModel:
    """Makes the student that a plan describes.

    Every weight that the plan does not replace is kept; what it removes, norms included, is gone from the student's
    parameters. New blocks are initialized from PyTorch's global random generator.

    Args:
        model: A Hugging Face model of a supported family, or a student. It is left as it was.
        plan: Glob patterns over site names -> a block's name, or ``{"block": name, argument: value}``; later patterns
            override earlier ones.

    Returns:
        A new model in the same precision, on the same device, in the same mode (training or evaluation), whose
        configuration carries the resolved plan.

    Raises:
        LeanformerError: The model is of no supported family, or something in the plan does not fit it.
    """
    family = find_family(model)
    change = resolve(model, plan)
    opened = copy.deepcopy(model)
    install(opened, change, take_over=True)
    config_class, model_class = _STUDENTS[family.name]
    settings = {
        key: value for key, value in model.config.to_dict().items() if key not in ("model_type", "architectures")
    }
    settings["plan"] = combine(settings.get("plan") or {}, change)
    student = model_class(config_class(**settings))
    student.config._attn_implementation = model.config._attn_implementation
    student.load_state_dict(opened.state_dict())
    if isinstance(family, TranslationFamily):
        student.generation_config = copy.deepcopy(model.generation_config)
        _, limit = length_limits(student)
        if limit is not None:
            # One more than the decoder can read: the last token that is written is never read.
            student.generation_config.max_length = min(limit + 1, model.generation_config.max_length or limit + 1)
    device, dtype = device_and_dtype(model)
    return student.to(device=device, dtype=dtype).train(model.training)


def length_limits(model: PreTrainedModel) -> tuple[int | None, int | None]:
    """Most tokens of a source and of a target that the blocks of a student can read; None where none has a limit."""
    plan = getattr(model.config, "plan", None) or {}
    source, target = [], []
    for site in sites(model):
        limit = plan.get(site.name, {}).get("max_length")
        if limit is not None:
            if site.causal:
                target.append(limit)
            if site.reads_source or not site.causal:
                source.append(limit)
    return min(source, default=None), min(target, default=None)


def save(model: PreTrainedModel, directory: str | os.PathLike[str]) -> None:
    """Writes a model's configuration (with its plan) and weights: ``config.json`` and ``model.safetensors``.

    Both are written beside the target first and then moved into it, so that a full disk leaves the old files whole.

    Raises:
        LeanformerError: The directory cannot be written.
    """
    target = Path(directory)
    # One name, so that what a killed process left behind is overwritten by the next.
    temporary = target.with_name(f".{target.name}.partial")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        model.save_pretrained(temporary)
        target.mkdir(parents=True, exist_ok=True)
        for path in sorted(temporary.iterdir()):
            os.replace(path, target / path.name)
    except (OSError, SafetensorError) as error:
        raise LeanformerError(f"{target}: the model cannot be written: {_one_line(error)}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load(source: str | os.PathLike[str]) -> PreTrainedModel:
    """Loads a student, or a model of a supported family, in evaluation mode.

    Args:
        source: A directory written by ``save`` or ``save_pretrained``, or a hub id.

    Returns:
        The model with exactly the saved weights, in their precision.

    Raises:
        LeanformerError: There is no such model, it is damaged or of no supported family, or its weights do not fit
            its configuration.
    """
    name = os.path.expanduser(os.fspath(source))
    if Path(name).is_dir() and not (Path(name) / "config.json").is_file():
        raise LeanformerError(f"{name}: not a model directory: it holds no config.json")
    if not Path(name).is_dir() and (name.startswith((".", "/")) or name.count("/") > 1):
        raise LeanformerError(f"{name}: no such model directory")
    try:
        config = AutoConfig.from_pretrained(name)
        family = FAMILIES.get(str(config.model_type).removeprefix(STUDENT_PREFIX))
        if family is None:
            raise LeanformerError(f"model type {config.model_type!r} is not supported; families: {', '.join(FAMILIES)}")
        model, info = family.auto_class.from_pretrained(
            name, config=config, dtype="auto", output_loading_info=True, ignore_mismatched_sizes=True
        )
    except (OSError, ValueError, SafetensorError, RuntimeError, LeanformerError) as error:
        raise LeanformerError(f"{name}: not a model that can be loaded: {_one_line(error)}") from error
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[what]:
            first = sorted(str(key) for key in info[what])[0]
            raise LeanformerError(
                f"{name}: the weights do not fit the configuration: {len(info[what])} {what.replace('_', ' ')}, "
                f"such as {first}"
            )
    find_family(model)
    return model.eval()


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__

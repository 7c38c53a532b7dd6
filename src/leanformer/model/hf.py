"""The one module that uses what transformers does not promise: private names, and undocumented rules.

Each function says what it relies on, and ``tests/model/test_contracts_transformers.py`` checks it: an upgrade that
breaks it fails there, and is fixed here. Where an architecture keeps its parts is said in ``families/``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import CONFIG_MAPPING, GenerationConfig, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import (
    Cache,
    CacheLayerMixin,
    DynamicCache,
    DynamicLayer,
    EncoderDecoderCache,
    StaticLayer,
)
from transformers.masking_utils import create_bidirectional_mask
from transformers.models.auto import modeling_auto
from transformers.utils.output_capturing import _CAN_RECORD_REGISTRY, OutputRecorder

from leanformer.blocks.kit.inputs import BlockInputs
from leanformer.blocks.kit.state import DecodingState
from leanformer.blocks.kit.tokens import repeats, stays
from leanformer.core.errors import LeanformerError

# Outputs beside the last hidden states


def decoder_records(layer: type[nn.Module], attention: type[nn.Module]) -> dict[str, Any]:
    """Where a decoder of open layers shows its hidden states and attentions (``output_attentions=True``).

    Relies on ``_can_record_outputs``, which maps an output to a class of modules, and on ``OutputRecorder``, which
    chooses those modules of a class whose name contains ``layer_name``, and element ``index`` of their output.

    Args:
        layer: The architecture's own class of a decoder's layer.
        attention: Its own class of an attention, whose weights are the second of its two outputs.
    """
    return {
        "hidden_states": layer,
        "attentions": OutputRecorder(attention, index=1, layer_name="self_attention"),
        "cross_attentions": OutputRecorder(attention, index=1, layer_name="cross_attention"),
    }


def recorded_attentions(model: PreTrainedModel) -> set[str]:
    """The paths of the modules whose attention weights transformers records.

    Relies on ``_can_record_outputs`` of a model and of the models in it, which maps ``attentions`` and
    ``cross_attentions`` to a class, an ``OutputRecorder``, or a list of these; see ``decoder_records``.
    """
    found = set()
    for prefix, part in model.named_modules():
        table = getattr(part, "_can_record_outputs", None) if isinstance(part, PreTrainedModel) else None
        for key in ("attentions", "cross_attentions"):
            entries = (table or {}).get(key)
            for entry in entries if isinstance(entries, list | tuple) else [entries]:
                recorder = entry if isinstance(entry, OutputRecorder) else OutputRecorder(entry)
                for name, module in part.named_modules():
                    inside = recorder.layer_name is None or recorder.layer_name in f".{name}"
                    if recorder.target_class is None:
                        alike = recorder.class_name is not None and name.endswith(recorder.class_name)
                    else:
                        alike = isinstance(module, recorder.target_class)
                    if alike and inside:
                        found.add(f"{prefix}.{name}" if prefix else name)
    return found


def change_class(module: PreTrainedModel, to: type[PreTrainedModel]) -> None:
    """Gives a part of a model, such as its encoder, the methods of a subclass. Its modules stay.

    Relies on ``_CAN_RECORD_REGISTRY``: what ``_can_record_outputs`` of a class says is read from there, and written to
    it only when a model of that class is made.
    """
    module.__class__ = to
    _CAN_RECORD_REGISTRY[module] = to._can_record_outputs


def asks_for_more(config: Any, others: Mapping[str, Any]) -> bool:
    """Whether a model is asked for attentions or hidden states beside its output.

    Relies on ``output_attentions`` and ``output_hidden_states``, which a call may give and the configuration else has.

    Args:
        config: The model's configuration.
        others: The arguments that it is called with.
    """
    kinds = ("attentions", "hidden_states")
    return any(others.get(f"output_{kind}", getattr(config, f"output_{kind}")) for kind in kinds)


# Attention

ATTENTION_KEYS = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal")
"""The keys of ``config.json`` under which transformers takes the name of an attention implementation."""


def attention_implementation(model: nn.Module) -> str | None:
    """The name of a model's attention implementation, such as ``sdpa``; None where it is no model of transformers.

    Relies on ``config._attn_implementation``, which a model settles when it is made.
    """
    return getattr(getattr(model, "config", None), "_attn_implementation", None)


def attend_as(config: PreTrainedConfig, model: PreTrainedModel) -> None:
    """Lets models of a configuration attend as a model does; relies on ``config._attn_implementation``."""
    config._attn_implementation = attention_implementation(model)


def copy_attention_implementation(source: PreTrainedModel, to: PreTrainedModel) -> None:
    """Lets a model attend as another does; relies on layers that read ``config._attn_implementation`` at each call.

    Args:
        source: The other model.
        to: The model, of the same parts, each of which may have a configuration of its own.
    """
    for name, part in source.named_modules():
        if isinstance(part, PreTrainedModel):
            to.get_submodule(name).config._attn_implementation = part.config._attn_implementation


def use_eager_attention(model: PreTrainedModel) -> None:
    """Lets a model without weights be called: it then reads no numbers of the masks that it makes itself.

    Relies on ``eager``; ``sdpa`` leaves out a mask that masks nothing, which it finds out from the mask's numbers. Both
    read the numbers of a mask that is given to them.
    """
    for part in model.modules():
        if isinstance(part, PreTrainedModel):
            part.config._attn_implementation = "eager"


NO_MASK = torch.empty(1, 1, 1, 1)
"""A mask that is never read: transformers passes one of four dimensions on unchanged, and makes no other from it.

Where blocks stand at all sites, making masks would take a twentieth of a small model's decoding step.
"""


def source_attention_mask(
    config: Any, hidden_states: torch.Tensor, mask: torch.Tensor | None, source: torch.Tensor | None
) -> torch.Tensor | None:
    """A source's mask in the form that the model's cross-attention wants.

    Relies on ``create_bidirectional_mask``, as the decoders of BART's kind call it.

    Args:
        config: The decoder's configuration.
        hidden_states: The tokens that attend, shape (batch, tokens, d_model).
        mask: Shape (batch, source tokens).
        source: The encoder's output.
    """
    return create_bidirectional_mask(config, hidden_states, mask, source)


def attend(attention: nn.Module, inputs: BlockInputs, causal: bool) -> torch.Tensor:
    """The output of Hugging Face's attention for the inputs of a block, without a state.

    Relies on masks of shape (batch or 1, 1, tokens, tokens read), added to the scores, which ``eager`` and ``sdpa``
    take; on the arguments ``attention_mask`` and ``key_value_states``; and on two results, the output first.

    Args:
        attention: The attention.
        inputs: The tokens, with masks; where there is a source, it is read instead.
        causal: Whether a token of its own reads only itself and earlier ones.
    """
    states, source = inputs.hidden_states, inputs.source
    read = inputs.padding_mask if source is None else inputs.source_mask
    seen = states.new_ones(1, 1, 1, 1, dtype=torch.bool) if read is None else read[:, None, None]
    if causal and source is None:
        seen = seen & states.new_ones(states.shape[1], states.shape[1], dtype=torch.bool).tril()
    # Never without a mask: ``sdpa`` would then take a decoder's attention to be causal, and ``eager`` would not.
    mask = torch.zeros_like(seen, dtype=states.dtype).masked_fill_(~seen, torch.finfo(states.dtype).min)
    reads_source = {} if source is None else {"key_value_states": source}
    output: torch.Tensor = attention(states, attention_mask=mask, **reads_source)[0]
    return output


# Positions


def position_embedding(embedding: nn.Module, position: int) -> torch.Tensor:
    """A position's embedding, shape (d_model,), from a module that subclasses ``nn.Embedding`` as BART's does.

    Relies on ``offset``: BART's first rows belong to no position; without an offset the first row is position 0's.
    """
    return embedding.weight[position + getattr(embedding, "offset", 0)]  # type: ignore[index]


# The cache


def part_of_cache(cache: Cache, name: str) -> Cache:
    """The part for self-attention or cross-attention (``self_attention_cache``, ``cross_attention_cache``).

    Relies on the two attributes of ``EncoderDecoderCache``.

    Raises:
        LeanformerError: The cache has no such parts.
    """
    part = getattr(cache, name, None)
    if part is None:
        raise LeanformerError(
            f"a student decodes with an EncoderDecoderCache, not with a {type(cache).__name__}; leave past_key_values "
            "out, so that generate makes its own"
        )
    return part


def grows(cache: Cache | None) -> bool:
    """Whether a cache holds the tokens that were read, at least one, and no room for others, as ``generate`` makes it.

    Relies on ``DynamicCache`` as the one kind of cache that is never longer than what was read.
    """
    return (
        isinstance(cache, EncoderDecoderCache)
        and type(cache.self_attention_cache) is DynamicCache
        and cache.get_seq_length() > 0
    )


def decoding_state(cache: Cache, layer: int) -> DecodingState:
    """The state of a block at a layer of a cache; it replaces what the cache first holds there, for attention.

    Relies on ``cache.layers``, a list that grows as layers write to it, of ``CacheLayerMixin`` each, which ``generate``
    asks for its length, reorders, selects from and repeats; and on ``StaticLayer``, the class of all layers with room
    for tokens to come: masks are made for that room, which a block's state does not have.

    Raises:
        LeanformerError: The cache has a fixed size.
    """
    while len(cache.layers) <= layer:
        cache.layers.append(DecodingState())
    found = cache.layers[layer]
    if isinstance(found, StaticLayer):
        raise LeanformerError(
            f"a student decodes with a cache that grows, not with one of fixed size ({type(found).__name__}); leave "
            "cache_implementation out, or past_key_values, so that generate makes its own"
        )
    if not isinstance(found, DecodingState):
        found = cache.layers[layer] = DecodingState()
    return found


def keys_and_values(layer: CacheLayerMixin) -> dict[str, torch.Tensor]:
    """What an attention keeps at a layer of a cache that grows, by names; nothing before it has read.

    Relies on ``keys`` and ``values`` of ``DynamicLayer``, and on its ``is_initialized``.
    """
    return {"keys": layer.keys, "values": layer.values} if layer.is_initialized else {}


def keep_keys(cache: EncoderDecoderCache, layer: int, cross: bool, kept: dict[str, torch.Tensor]) -> None:
    """Puts what an attention has kept into a cache.

    Relies on the same, and on ``is_updated``, by which a cross-attention knows that it has read the source.

    Args:
        cache: With so many layers at least.
        layer: The layer's number.
        cross: Whether it is of the cross-attention, else of the self-attention.
        kept: As of ``keys_and_values``.
    """
    layers = (cache.cross_attention_cache if cross else cache.self_attention_cache).layers
    held = layers[layer] = DynamicLayer()
    held.lazy_initialization(kept["keys"], kept["values"])
    held.keys, held.values = kept["keys"], kept["values"]
    if cross:
        cache.is_updated[layer] = True


class SourceKeys(DynamicLayer):
    """Keys and values of a source, which are not copied as long as each beam continues one of the same sentence.

    Relies on ``keys`` and ``values`` of ``DynamicLayer``, batch first, and on its ``is_initialized``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.repeats: int | None = None  # how many consecutive sequences have the same; None: not known yet

    @classmethod
    def prepare(cls, cache: Cache, layer: int) -> None:
        """Puts it at a layer of a cache that grows, unless there are keys already."""
        found = cache.layers[layer : layer + 1]
        if found and type(found[0]) is DynamicLayer and not found[0].is_initialized:
            cache.layers[layer] = cls()

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Continues with other sequences of the batch, as beam search asks for."""
        if self.repeats is None:
            self.repeats = repeats(self.keys, self.values)
        if not stays(beam_idx, len(self.keys), self.repeats):
            super().reorder_cache(beam_idx)
            self.repeats = None

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keeps some sequences of the batch."""
        super().batch_select_indices(indices)
        self.repeats = None


# Saving and loading

STUDENT_PREFIX = "leanformer_"
"""The ``model_type`` of an architecture's students is this prefix and the architecture's own."""

AUTO_MAP = {"AutoConfig": "leanformer: import leanformer.auto first, then this student loads.--leanformer.auto"}
"""A student's ``auto_map``, shown by transformers where ``leanformer.auto`` has not been imported.

Relies on how it is read: the text before ``--`` is a repository's name, and no repository can have such a name, so that
nothing is ever fetched from there. Where the classes are registered, transformers uses these without a question.
"""


AUTO_CLASSES: tuple[Any, ...] = tuple(
    kind for name, kind in vars(modeling_auto).items() if name.startswith("AutoModel") and hasattr(kind, "register")
)
"""The classes of transformers that load a model of some task, whatever its architecture."""


def auto_classes_of(model_class: type[PreTrainedModel]) -> list[str]:
    """The names of the ``Auto`` classes that give models of a class.

    Relies on ``_model_mapping``, which gives a class, or several, for a configuration.
    """
    found = []
    for kind in AUTO_CLASSES:
        given = kind._model_mapping.get(model_class.config_class, ())
        if model_class in (given if isinstance(given, tuple | list) else (given,)):
            found.append(kind.__name__)
    return found


class _MadeWhenAskedFor(dict[str, type[PreTrainedConfig]]):
    """Configurations by their model type, some of which are made when somebody asks for them."""

    def __init__(self, known: Mapping[str, type[PreTrainedConfig]], make: MakeConfiguration) -> None:
        super().__init__(known)
        self._make = make

    def __contains__(self, model_type: object) -> bool:
        if not super().__contains__(model_type):
            made = self._make(model_type) if isinstance(model_type, str) else None
            if made is None:
                return False
            self[str(model_type)] = made
        return True


MakeConfiguration = Callable[[str], type[PreTrainedConfig] | None]
"""Makes the configuration of a model type; None where it is not of its kind."""


def make_configurations(make: MakeConfiguration) -> None:
    """Lets ``AutoConfig`` ask for the configurations of model types that transformers does not know.

    Relies on ``_extra_content`` of ``CONFIG_MAPPING``, which holds what was registered, and which is asked with ``in``
    before anything is read from it.
    """
    CONFIG_MAPPING._extra_content = _MadeWhenAskedFor(CONFIG_MAPPING._extra_content, make)


def configuration_of_type(model_type: str) -> type[PreTrainedConfig] | None:
    """The configuration of one of transformers' own model types; None where it has none of that name.

    Relies on ``_mapping`` of ``CONFIG_MAPPING``, which holds these and nothing that was registered.
    """
    return CONFIG_MAPPING[model_type] if model_type in CONFIG_MAPPING._mapping else None


def with_decoded_floats(settings: dict[str, Any]) -> dict[str, Any]:
    """A configuration as its file holds it, with infinities as numbers.

    Relies on ``_decode_special_floats``: transformers writes them as mappings, since JSON has no such numbers.
    """
    decoded: dict[str, Any] = PreTrainedConfig._decode_special_floats(settings)
    return decoded


def classes_of(auto_class: Any, config_class: type[PreTrainedConfig]) -> tuple[type[PreTrainedModel], ...]:
    """The classes that an ``Auto`` class makes of a configuration, the plain one first; none where it makes none.

    Relies on ``_model_mapping``, which gives one class, or several that differ in what they are called with.

    Args:
        auto_class: The ``Auto`` class, such as ``AutoModelForSeq2SeqLM``.
        config_class: The configuration.
    """
    found = auto_class._model_mapping.get(config_class, ())
    return tuple(found) if isinstance(found, tuple | list) else (found,)


def computed_tensors(model: nn.Module) -> set[str]:
    """Names of tensors that a model recomputes and never saves, such as Marian's sinusoidal positions.

    Relies on ``_keys_to_ignore_on_save``, which holds whole names and may be None.
    """
    return set(getattr(model, "_keys_to_ignore_on_save", None) or ())


# Generation


def read_generation_config(directory: Path) -> GenerationConfig:
    """A model's generation settings: from a file of their own, or, in older models, from ``config.json``.

    Relies on ``_from_model_config``, which leaves out the keys of a model's configuration that are not of generation.
    """
    if (directory / "generation_config.json").is_file():
        return GenerationConfig.from_pretrained(directory, local_files_only=True)
    return GenerationConfig.from_pretrained(
        directory, config_file_name="config.json", _from_model_config=True, local_files_only=True
    )


def limit_length(settings: GenerationConfig, tokens: int) -> None:
    """Sets the most tokens that are generated, the start token not counted.

    Relies on ``max_length``, which counts the decoder's start token, and on ``max_new_tokens``, which does not, and
    wins where both are set.
    """
    settings.max_length = tokens + 1
    if settings.max_new_tokens is not None:  # set needlessly, it would make transformers warn
        settings.max_new_tokens = tokens


def force_end(settings: GenerationConfig, token: int) -> None:
    """Sets the token that ends a sequence which reaches its greatest length.

    Relies on ``forced_eos_token_id``; fresh Marian configurations force token 0, whatever that is.
    """
    settings.forced_eos_token_id = token

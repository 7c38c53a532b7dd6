"""CTranslate2: translators whose attention and MLPs are the architecture's own, fewer or narrower, beam search too.

CTranslate2 (https://github.com/OpenNMT/CTranslate2) runs encoders and decoders of whole layers: self-attention,
cross-attention, MLP, each with its norm after it. A student that lacks some of them is written exactly:

- The sublayers that are left are packed into as few layers as their order allows.
- A missing cross-attention is left out, which the engine can.
- A missing MLP or self-attention is written with zeros, and the norm before it hands its gain and shift on to the norm
  behind it: norm(norm(x)) is norm(x), up to its epsilon.
- All attentions of a stack have as many heads as the one with the most; the others are filled up with heads of zeros.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from leanformer.blocks.kit.base import AttentionWeights
from leanformer.blocks.kit.site import SiteKind
from leanformer.core.errors import LeanformerError
from leanformer.export.base import FORMATS, Format, Logits, OpenWriter, WritesLogits
from leanformer.export.generation import Search, check_followed
from leanformer.model.family import find_family
from leanformer.model.layers import OpenLayer, Sublayer
from leanformer.model.shapes.seq2seq import Seq2SeqFamily
from leanformer.model.surgery import sites
from leanformer.runtime.engines.ctranslate2 import MODEL, open_translator
from leanformer.runtime.manifest import Precision

QUANTIZATIONS: Mapping[Precision, str] = {"float32": "float32", "int8": "int8_float32", "float16": "float16"}
"""Precision -> CTranslate2's name of it."""
ACTIVATIONS = {
    "gelu": "GELU",
    "gelu_fast": "GELUTanh",
    "gelu_new": "GELUTanh",
    "gelu_python": "GELU",
    "gelu_pytorch_tanh": "GELUTanh",
    "quick_gelu": "GELUSigmoid",
    "relu": "RELU",
    "sigmoid": "Sigmoid",
    "silu": "SWISH",
    "swish": "SWISH",
    "tanh": "Tanh",
}
"""transformers' name of an activation -> CTranslate2's."""
ORDERS: Mapping[str, tuple[SiteKind, ...]] = {
    "encoder": ("self_attention", "mlp"),
    "decoder": ("self_attention", "cross_attention", "mlp"),
}
"""The order of the sublayers in a layer of the engine."""
KEPT = ("attention", "mlp", "sublayer", "layer", "none")
"""The blocks that leave a structure which the engine has."""
FILLER = 8
"""Width of an MLP of zeros. Fewer columns are no faster: products are computed on eight numbers at a time, or more."""

Layer = dict[SiteKind, Sublayer]
"""The sublayers of one of the engine's layers."""


@dataclass(frozen=True)
class _Stack:
    """An encoder or a decoder as the engine runs it.

    Args:
        name: ``encoder`` or ``decoder``.
        layers: Its layers, packed.
        activation: The activation of its MLPs, by CTranslate2's name.
    """

    name: str
    layers: Sequence[Layer]
    activation: str


class CTranslate2(Format):
    """The format of CTranslate2; see the module."""

    name: ClassVar[str] = "ctranslate2"
    precisions: ClassVar[tuple[Precision, ...]] = ("float32", "int8", "float16")
    packages: ClassVar[tuple[str, ...]] = ("ctranslate2",)

    def check(self, model: PreTrainedModel, precision: Precision) -> None:
        _stacks(model)
        settings = model.generation_config
        check_followed(settings)
        for key in ("begin_suppress_tokens", "forced_bos_token_id"):
            value = getattr(settings, key, None)
            if value not in (None, []):
                raise LeanformerError(
                    f"{_NOT} generation_config.json sets {key}: {value!r}, which it does not follow; {_INSTEAD}"
                )

    def write(self, model: PreTrainedModel, directory: Path, precision: Precision) -> OpenWriter:
        with torch.no_grad():
            spec = _specification(copy.deepcopy(model))  # quantization writes into the weights that it is given
            spec.validate()
            spec.optimize(quantization=QUANTIZATIONS[precision])
            place = directory / MODEL
            place.mkdir()
            spec.save(str(place))
        return partial(_writer, place)


def _writer(place: Path) -> WritesLogits:
    """Writes with what was saved, a source at a time: in a larger batch the logits of what has ended are lost."""
    translator = open_translator(place, "cpu", torch.get_num_threads())

    def write(sources: Sequence[Sequence[int]], max_tokens: int) -> list[Logits]:
        results = translator.translate_batch(
            [[str(token) for token in ids] for ids in sources],
            beam_size=1,
            max_batch_size=1,
            max_input_length=0,
            min_decoding_length=0,
            max_decoding_length=max_tokens,
            return_logits_vocab=True,
            return_end_token=True,
        )
        return [np.stack([np.asarray(step) for step in result.logits[0]]) for result in results]

    return write


FORMATS.add(CTranslate2.name, CTranslate2())


# What can be written


def _family_of(model: PreTrainedModel) -> Seq2SeqFamily:
    """The family of a model that the engine may run.

    Raises:
        LeanformerError: It runs no models of this architecture.
    """
    family = find_family(model)
    if not model.config.is_encoder_decoder:
        raise LeanformerError(f"{_NOT} it runs translators, and this is {family.described}; {_INSTEAD}")
    if not isinstance(family, Seq2SeqFamily):
        raise LeanformerError(
            f"{_NOT} this is {family.described}, and marian and bart are written; use it with leanformer translate, or "
            "with transformers"
        )
    return family


def _stacks(model: PreTrainedModel) -> list[_Stack]:
    """The encoder and the decoder as the engine runs them.

    Raises:
        LeanformerError: It cannot; the message names the site that stands in the way.
    """
    family = _family_of(model)
    for site in sites(model):
        if site.block not in KEPT:
            raise LeanformerError(
                f"{_NOT} {site.name} is {site.block!r}, and it runs the architecture's own attention and MLPs alone; "
                f"{_INSTEAD}"
            )
    return [_stack(model, family, name) for name in ORDERS]


_NOT = "not shippable in the format ctranslate2:"
_INSTEAD = "the format onnx can hold it"


def _stack(model: PreTrainedModel, family: Seq2SeqFamily, name: str) -> _Stack:
    layers = [family.open_layer(layer, name, number) for number, layer in enumerate(family.stacks(model)[name])]
    packed = _packed(layers, ORDERS[name])
    if not packed:
        raise LeanformerError(f"{_NOT} the {name} has no layer left; {_INSTEAD}")
    if "self_attention" not in packed[0] and not hasattr(_body(model, name), "layernorm_embedding"):
        first = next(number for number, layer in enumerate(layers) if layer.present)
        raise LeanformerError(
            f"{_NOT} {name}.{first}.self_attention is 'none', and it begins with self-attention; {_INSTEAD}"
        )
    return _Stack(name, packed, _activation(model, name, layers))


def _packed(layers: Sequence[OpenLayer], order: Sequence[SiteKind]) -> list[Layer]:
    """The sublayers that are there, in as few layers as their order allows.

    Sublayers of two layers become one layer where the first has lost its end and the second its beginning.
    """
    packed: list[Layer] = []
    last = len(order)
    for layer in layers:
        for kind, slot in layer.slots().items():
            if not isinstance(slot, Sublayer):
                continue
            place = order.index(kind)
            if place <= last:
                packed.append({})
            packed[-1][kind] = slot
            last = place
    return packed


def _activation(model: PreTrainedModel, stack: str, layers: Sequence[OpenLayer]) -> str:
    """CTranslate2's name of the activation that all MLPs of a stack have.

    Raises:
        LeanformerError: They have several, or one that the engine lacks.
    """
    plan: Mapping[str, Mapping[str, Any]] = getattr(model.config, "plan", None) or {}
    own: str = model.config.activation_function
    first: tuple[str, str] | None = None
    for number, layer in enumerate(layers):
        if layer.slots()["mlp"] is None:
            continue
        site = f"{stack}.{number}.mlp"
        name = plan.get(site, {}).get("activation", own)
        if name not in ACTIVATIONS:
            raise LeanformerError(
                f"{_NOT} the activation at {site} is {name!r}, and it has {', '.join(ACTIVATIONS)}; {_INSTEAD}"
            )
        if first is not None and ACTIVATIONS[first[1]] != ACTIVATIONS[name]:
            raise LeanformerError(
                f"{_NOT} the activation at {site} is {name!r} and at {first[0]} {first[1]!r}, and it has one for all "
                f"MLPs of a stack; {_INSTEAD}, or give the plan's MLPs activation: {own}"
            )
        first = first or (site, name)
    return "RELU" if first is None else ACTIVATIONS[first[1]]


def _body(model: PreTrainedModel, stack: str) -> Any:
    """The encoder or decoder itself."""
    return getattr(model.base_model, stack)


# Writing it


def _specification(model: PreTrainedModel) -> Any:
    """The model in the form of CTranslate2's converters, with the ids of subwords for their names."""
    family = _family_of(model)
    specs = import_module("ctranslate2.specs.transformer_spec")
    activations = import_module("ctranslate2.specs.common_spec").Activation
    loader = import_module("ctranslate2.converters.transformers").BartLoader()
    stacks = _stacks(model)
    encoder, decoder = stacks
    spec = specs.TransformerSpec.from_config(
        (len(encoder.layers), len(decoder.layers)),
        num_heads=1,
        pre_norm=False,
        layernorm_embedding=hasattr(_body(model, "encoder"), "layernorm_embedding"),
    )
    for stack in stacks:
        part = getattr(spec, stack.name)
        loader.set_common_layers(part, _body(model, stack.name))
        part.activation = np.int8(activations[stack.activation])
        _Writer(part, stack, family, int(model.config.hidden_size), loader).write()
    loader.set_linear(spec.decoder.projection, model.lm_head)
    search = Search.of(model)
    bias = model.final_logits_bias[0] + search.biases(model)[1]
    if bias.any():
        spec.decoder.projection.bias = bias
    spec.register_source_vocabulary(_numbers(spec.encoder.embeddings[0].weight))
    spec.register_target_vocabulary(_numbers(spec.decoder.embeddings.weight))
    spec.config.bos_token = spec.config.unk_token = spec.config.eos_token = str(search.end)
    spec.config.decoder_start_token = str(search.start)
    spec.config.layer_norm_epsilon = next(iter(encoder.layers[0].values())).norm.eps
    return spec


def _numbers(embeddings: torch.Tensor) -> list[str]:
    """The subwords' ids as text."""
    return [str(number) for number in range(len(embeddings))]


class _Writer:
    """Writes the layers of a stack.

    Args:
        spec: The stack's, with layers that have no weights yet.
        stack: What is to be written.
        family: The model's.
        width: Of the hidden states.
        loader: CTranslate2's own, which writes single modules.
    """

    def __init__(self, spec: Any, stack: _Stack, family: Seq2SeqFamily, width: int, loader: Any) -> None:
        self.spec = spec
        self.stack = stack
        self.width = width
        self.loader = loader
        self.attentions = [
            {kind: weights for kind, sublayer in layer.items() if (weights := family.attention_weights(sublayer.block))}
            for layer in stack.layers
        ]
        self.heads = max((one.num_heads for layer in self.attentions for one in layer.values()), default=1)
        # The norm that the hidden states have gone through last.
        self.norm: Any = getattr(spec, "layernorm_embedding", None)

    def write(self) -> None:
        """Writes all layers."""
        self.spec.num_heads = np.int16(self.heads)
        crosses = any("cross_attention" in layer for layer in self.stack.layers)
        for number, (layer, spec) in enumerate(zip(self.stack.layers, self.spec.layer, strict=True)):
            spec.self_attention = self._attention(number, "self_attention")
            if "cross_attention" in layer or (crosses and number == 0):  # the engine looks for it in the first layer
                spec.attention = self._attention(number, "cross_attention")
            elif self.stack.name == "decoder":
                del spec.attention
            self._write_mlp(spec.ffn, layer.get("mlp"))

    def _attention(self, number: int, kind: SiteKind) -> Any:
        """The attention of a layer; zeros where it has none."""
        found = self.attentions[number].get(kind)
        weights = _filled_up(found or self._no_attention(), self.heads)
        channels = weights.query.shape[1]
        spec = import_module("ctranslate2.specs.attention_spec").MultiHeadAttentionSpec(
            self_attention=kind == "self_attention",
            head_dim=None if channels == self.width else channels // self.heads,
        )
        linear, bias = import_module("ctranslate2.specs.common_spec").LinearSpec, weights.has_bias
        read = [
            _linear(linear(), weight, (torch.zeros(channels) if shift is None else shift) if bias else None)
            for weight, shift in (
                (weights.query, weights.query_bias),
                (weights.key, weights.key_bias),
                (weights.value, weights.value_bias),
            )
        ]
        fuse = import_module("ctranslate2.converters.utils").fuse_linear
        if kind == "self_attention":
            fuse(spec.linear[0], read)
        else:
            fuse(spec.linear[0], read[:1])
            fuse(spec.linear[1], read[1:])
        _linear(spec.linear[-1], weights.output, weights.output_bias)
        spec.queries_scale = np.float32(weights.scaling)
        self._write_norm(spec.layer_norm, self.stack.layers[number].get(kind))
        return spec

    def _no_attention(self) -> AttentionWeights:
        nothing = torch.zeros(self.width, 1)
        return AttentionWeights(nothing, nothing, nothing, nothing.T, None, None, None, None, 1, 1.0)

    def _write_mlp(self, spec: Any, sublayer: Sublayer | None) -> None:
        if sublayer is None:
            spec.linear_0.weight = torch.zeros(FILLER, self.width)
            spec.linear_1.weight = torch.zeros(self.width, FILLER)
        else:
            block: Any = sublayer.block
            self.loader.set_linear(spec.linear_0, block.fc1)
            self.loader.set_linear(spec.linear_1, block.fc2)
        self._write_norm(spec.layer_norm, sublayer)

    def _write_norm(self, spec: Any, sublayer: Sublayer | None) -> None:
        """A sublayer's norm; behind zeros it takes gain and shift from the norm before."""
        if sublayer is not None:
            self.loader.set_layer_norm(spec, sublayer.norm)
        else:
            spec.gamma, spec.beta = self.norm.gamma, self.norm.beta
            self.norm.gamma, self.norm.beta = torch.ones(self.width), torch.zeros(self.width)
        self.norm = spec


def _linear(spec: Any, weight: torch.Tensor, bias: torch.Tensor | None) -> Any:
    """Gives a linear map of CTranslate2's its numbers: ``x @ weight + bias``."""
    spec.weight = weight.T.contiguous()
    if bias is not None:
        spec.bias = bias
    return spec


def _filled_up(weights: AttentionWeights, heads: int) -> AttentionWeights:
    """An attention with further heads, all of zeros, which give nothing."""
    missing = (heads - weights.num_heads) * (weights.query.shape[1] // weights.num_heads)

    def more(tensor: torch.Tensor | None) -> torch.Tensor | None:
        return None if tensor is None else F.pad(tensor, (0, missing))

    return replace(
        weights,
        query=F.pad(weights.query, (0, missing)),
        key=F.pad(weights.key, (0, missing)),
        value=F.pad(weights.value, (0, missing)),
        output=F.pad(weights.output, (0, 0, 0, missing)),
        query_bias=more(weights.query_bias),
        key_bias=more(weights.key_bias),
        value_bias=more(weights.value_bias),
        num_heads=heads,
    )

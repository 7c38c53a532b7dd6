"""Tiny models of many architectures of transformers, and what to call them with.

``catalogue.yaml`` lists the architectures, and says what its entries mean.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml
from transformers import CONFIG_MAPPING, AutoConfig, PretrainedConfig, PreTrainedModel

from architectures.inputs import KINDS, Draw, Inputs

_CATALOGUE = yaml.safe_load((Path(__file__).parent / "catalogue.yaml").read_text())
_SIZES: dict[str, Any] = _CATALOGUE["sizes"]


@dataclass(frozen=True)
class Architecture:
    """One entry of the catalogue.

    Args:
        kind: Of its inputs, one of ``inputs.KINDS``.
        model_type: Its name in transformers.
        model: The model class in transformers.
        config: The settings of its configuration that deviate from the common sizes.
        attentions: Number of attention maps of a model with one stack of layers.
        without_attention: Why the architecture has no attention that could be reduced.
        unrecorded: Why it returns no attention maps although it has attention.
        reads_ahead: Why later tokens of a prompt change what it gives at earlier ones.
        reads_padding: Why other tokens at padding change what it gives at real ones.
        uncached: Why it writes something else with a cache than without.
        not_loaded: Why it is another model after it was saved and loaded.
    """

    kind: str
    model_type: str
    model: str
    config: dict[str, Any] = field(default_factory=dict)
    attentions: int = _SIZES["num_hidden_layers"]
    without_attention: str | None = None
    unrecorded: str | None = None
    reads_ahead: str | None = None
    reads_padding: str | None = None
    uncached: str | None = None
    not_loaded: str | None = None

    @property
    def generates(self) -> bool:
        return self.kind.endswith(("_to_continue", "_to_text"))


ARCHITECTURES = [
    Architecture(kind, model_type, **entry)
    for kind, entries in _CATALOGUE["architectures"].items()
    for model_type, entry in entries.items()
]


def make_model(architecture: Architecture, seed: int = 0) -> PreTrainedModel:
    """A tiny model in evaluation mode, with attention that returns its maps.

    All its weights, biases and norms included, are away from their initial values.
    """
    model_class = getattr(transformers, architecture.model)
    config = _make_config(model_class.config_class, architecture.config)
    config._attn_implementation = "eager"
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        model = model_class(config)
        for parameter in model.parameters():
            if parameter.requires_grad:  # not positions that are computed
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def make_inputs(model: PreTrainedModel, kind: str, batch: int = 2, length: int = 7, seed: int = 0) -> Inputs:
    """What a model of this kind is called with; the last sequence of the batch is the shortest.

    Args:
        model: Whose configuration says how large images and the like are.
        kind: One of ``inputs.KINDS``.
        batch: Number of sequences, images, ...
        length: Number of tokens, or of frames of sound; ignored where the configuration says it.
        seed: Of the random numbers.
    """
    return KINDS[kind](Draw(model.config, batch, length, seed))


def make_prompt(model: PreTrainedModel, kind: str, batch: int = 2, length: int = 7, seed: int = 0) -> Inputs:
    """What such a model generates from: its inputs without what a decoder has written."""
    inputs = make_inputs(model, kind, batch, length, seed)
    inputs.pop("decoder_input_ids", None)
    return inputs


def _make_config(config_class: type[PretrainedConfig], settings: dict[str, Any]) -> PretrainedConfig:
    """A tiny configuration: the common sizes that it knows, tiny configurations of its parts, and the settings.

    A part that may be of any architecture is made where its settings name a ``model_type``.
    """
    known = config_class().to_dict()
    sizes = {name: size for name, size in _SIZES.items() if name in known}
    parts = {}
    for name, part_class in config_class.sub_configs.items():
        part = settings.get(name, {})
        if "model_type" in part:
            part_class = CONFIG_MAPPING[part["model_type"]]
        if part_class is not AutoConfig:
            parts[name] = _make_config(part_class, {key: part[key] for key in part if key != "model_type"})
    return config_class(**{**sizes, **_CATALOGUE["always"], **settings, **parts})

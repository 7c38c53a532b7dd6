"""The model that a study compares with: a fresh configuration of a family, or a trained model."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedModel
from transformers.image_processing_base import ImageProcessingMixin

from leanformer.errors import LeanformerError
from leanformer.model.families import FAMILIES
from leanformer.model.students import load


def fresh_model(family_name: str, settings: Mapping[str, Any]) -> PreTrainedModel:
    """A model of a family with random weights, from PyTorch's global generator.

    Args:
        family_name: ``vit`` or ``deit``.
        settings: The family's configuration keys.

    Raises:
        LeanformerError: The family, a key or a value is wrong.
    """
    if family_name not in FAMILIES:
        raise LeanformerError(f"unknown family {family_name!r}; families: {', '.join(FAMILIES)}")
    family = FAMILIES[family_name]
    known = {
        *inspect.signature(family.config_class).parameters,
        "num_labels",
        "id2label",
        "label2id",
        "attn_implementation",
    }
    for key in settings:
        if key not in known:
            raise LeanformerError(
                f"baseline.config: {family_name} has no key {key!r}; it has hidden_size, num_hidden_layers, "
                "num_attention_heads, intermediate_size, patch_size and the others of its transformers configuration"
            )
    for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "patch_size"):
        if settings.get(key, 1) == 0:
            raise LeanformerError(f"baseline.config: {key} is 0; it must be 1 or more")
    try:
        config = family.config_class(**settings)
        if config.hidden_size % config.num_attention_heads:
            raise LeanformerError(
                f"baseline.config: num_attention_heads {config.num_attention_heads} does not divide hidden_size "
                f"{config.hidden_size}"
            )
        return family.model_class(config)
    except KeyError as error:  # an activation that is looked up by its name
        raise LeanformerError(f"baseline.config: transformers knows no {error}") from None
    except (StrictDataclassError, TypeError, ValueError, RuntimeError) as error:
        raise LeanformerError(f"baseline.config: {' '.join(str(error).split())[:200]}") from None


@dataclass(frozen=True)
class ImageGeometry:
    """What images a classifier takes, and what it tells apart."""

    channels: int
    height: int
    width: int
    classes: tuple[str, ...]


class Baseline:
    """Makes a study's baseline, as often as there are seeds.

    Args:
        source: A family's name, a model directory, or a hub id.
        settings: Configuration keys, for a family.
        fresh: Take a trained model's shape alone.

    Raises:
        LeanformerError: There is no such model, or ``settings`` are given for a trained one.
    """

    def __init__(self, source: str, settings: Mapping[str, Any], fresh: bool) -> None:
        self.source = source
        self.settings = dict(settings)
        self.fresh = fresh
        self.trained: PreTrainedModel | None = None
        if source not in FAMILIES:
            if "/" not in source and not Path(source).expanduser().is_dir():
                raise LeanformerError(
                    f"baseline.model: {source!r} is neither a family ({', '.join(FAMILIES)}) nor a model directory nor "
                    "a hub id (owner/name)"
                )
            if settings:
                raise LeanformerError(
                    f"baseline.config: {source} brings its own configuration; leave the key out, or take a family "
                    f"({', '.join(FAMILIES)}) as the model"
                )
            self.trained = load(source)

    @property
    def image_size(self) -> tuple[int, int] | None:
        """Height and width that the model takes, where it prescribes them."""
        size = self.trained.config.image_size if self.trained is not None else self.settings.get("image_size")
        if size is None:
            return None
        return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))

    @property
    def channels(self) -> int | None:
        """Channels that the model takes, where it prescribes them."""
        if self.trained is not None:
            return int(self.trained.config.num_channels)
        channels = self.settings.get("num_channels")
        return channels if isinstance(channels, int) else None

    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Mean and deviation a channel that a trained model's images are normalized with, where it says so."""
        if self.trained is None or self.fresh:
            return None
        try:
            processor, _ = ImageProcessingMixin.get_image_processor_dict(self.source)
        except OSError:
            return None
        mean, std = processor.get("image_mean"), processor.get("image_std")
        if not processor.get("do_normalize", True) or mean is None or std is None:
            return None
        return tuple(mean), tuple(std)

    def check(self, geometry: ImageGeometry) -> None:
        """Checks that the model fits the data.

        Raises:
            LeanformerError: It does not; the message names both sides.
        """
        model = self.make(geometry, seed=0)
        config = model.config
        if config.num_labels != len(geometry.classes):
            raise LeanformerError(
                f"baseline.model: {self.source} tells {config.num_labels} classes apart, the data have "
                f"{len(geometry.classes)}; take data or a model with as many"
            )
        names = [config.id2label.get(number) for number in range(config.num_labels)]
        if self.trained is not None and names != list(geometry.classes) and set(names) == set(geometry.classes):
            raise LeanformerError(
                f"baseline.model: {self.source} and the data have the same classes in another order; "
                f"the model's is: {', '.join(str(name) for name in names[:10])}"
            )
        if config.num_channels != geometry.channels:
            raise LeanformerError(
                f"baseline.config: num_channels is {config.num_channels}, the images have {geometry.channels}; "
                "set data.channels, or leave num_channels out"
            )
        patch = config.patch_size
        patch_height, patch_width = (patch, patch) if isinstance(patch, int) else patch
        for side, length, patch_length in (
            ("height", geometry.height, patch_height),
            ("width", geometry.width, patch_width),
        ):
            if length % patch_length:
                divisors = ", ".join(str(d) for d in range(1, length + 1) if length % d == 0)
                raise LeanformerError(
                    f"baseline.config: patch_size {patch_length} does not divide the images' {side} of {length} "
                    f"pixels; take one of {divisors}, or set data.image_size"
                )
        expected = self.image_size or (geometry.height, geometry.width)
        if expected != (geometry.height, geometry.width):
            raise LeanformerError(
                f"data.image_size: the model takes {expected[0]}x{expected[1]} pixels, the images have "
                f"{geometry.height}x{geometry.width}; leave data.image_size out to have them resized"
            )

    def make(self, geometry: ImageGeometry, seed: int) -> PreTrainedModel:
        """The baseline as it starts: trained weights as they are, or random ones from the seed.

        Leaves PyTorch's global generator as the seed and the initialization have left it, so that what a student of
        this model initializes follows from the seed too.
        """
        torch.manual_seed(seed)
        if self.trained is not None:
            if not self.fresh:
                return self.trained
            return type(self.trained)(self.trained.config)
        labels = dict(enumerate(geometry.classes))
        return fresh_model(
            self.source,
            {
                "image_size": [geometry.height, geometry.width]
                if geometry.height != geometry.width
                else geometry.height,
                "num_channels": geometry.channels,
                "id2label": labels,
                "label2id": {name: number for number, name in labels.items()},
                **self.settings,
            },
        )

"""The baseline of a study of image classifiers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from leanformer.core.errors import LeanformerError
from leanformer.model.classifier_baseline import ClassifierBaseline
from leanformer.model.family import FAMILIES
from leanformer.model.new_head import refitted
from leanformer.model.vision import TASK, pixel_input, sides

_CHANNELS = (1, 3)


@dataclass(frozen=True)
class ImageGeometry:
    """The images that a classifier takes, and its classes."""

    channels: int
    height: int
    width: int
    classes: tuple[str, ...]


class ImageBaseline(ClassifierBaseline):
    """The baseline of a study of image classifiers; see ``Baseline``.

    Args:
        source: As there; with ``new_head`` any trained model that reads images.
        settings: As there.
        fresh: As there.
        new_head: Whether a trained model's head is replaced by one for the data's classes.
    """

    def __init__(self, source: str, settings: Mapping[str, Any], fresh: bool, new_head: bool = False) -> None:
        self.new_head = new_head
        if new_head and source in FAMILIES:
            raise LeanformerError(
                f"baseline.head: a fresh {source} has a new head anyway; leave the key out, or take a trained model"
            )
        super().__init__(source, settings, fresh, TASK)
        if self.channels is not None and self.channels not in _CHANNELS:
            what = (
                f"baseline.model: {source}" if self.trained is not None else "baseline.config: num_channels: the model"
            )
            raise LeanformerError(
                f"{what} takes {self.channels} channels, and images are read with 1 (grey) or 3 (color); take a model "
                "of 1 or 3 channels"
            )

    def _prepared(self, trained: PreTrainedModel) -> PreTrainedModel:
        if not self.new_head:
            return trained
        with torch.random.fork_rng(devices=[]):  # of a head that is replaced when the data's classes are known
            return refitted(trained, ("0", "1"), None, self.source)

    def _hint(self) -> str:
        reads = getattr(self.trained, "main_input_name", "") == "pixel_values"
        return "; or give it a head for the data's classes: baseline.head: new" if reads else ""

    @property
    def special_tokens(self) -> int:
        """Tokens that the model puts before the patches."""
        return self.family.special_tokens if self.trained is None else self.family.special_tokens_left(self.trained)

    @property
    def image_size(self) -> tuple[int, int] | None:
        """Height and width that the model takes, where it prescribes them."""
        if self.trained is not None:
            return pixel_input(self.trained.config).size
        size = self.settings.get("image_size")
        return None if size is None else sides(size)

    @property
    def follows_images(self) -> bool:
        """Whether the model is brought to the images' size, and not they to its own."""
        return self.trained is not None and (self.new_head or self.family.is_found)

    @property
    def channels(self) -> int | None:
        """Channels that the model takes, where it prescribes them."""
        if self.trained is not None:
            return pixel_input(self.trained.config).channels
        channels = self.settings.get("num_channels")
        return channels if isinstance(channels, int) else None

    def check(self, geometry: ImageGeometry) -> None:
        """Checks that the model fits the data, and brings one that follows the images to their size.

        Raises:
            LeanformerError: It does not; the message names both sides.
        """
        self._check_patches(geometry)
        if self.follows_images:
            self._follow(geometry)
        config = self.outline(geometry).config
        self.check_classes(config, geometry.classes)
        channels = pixel_input(config).channels
        if self.trained is not None and channels != geometry.channels:
            raise LeanformerError(
                f"baseline.model: {self.source} takes {channels} channels, the images have "
                f"{geometry.channels}; leave data.channels out to have them converted"
            )
        if channels != geometry.channels:
            raise LeanformerError(
                f"baseline.config: num_channels is {channels}, the images have {geometry.channels}; "
                "set data.channels, or leave num_channels out"
            )
        expected = self.image_size or (geometry.height, geometry.width)
        if expected != (geometry.height, geometry.width):
            raise LeanformerError(
                f"data.image_size: the model takes {expected[0]}x{expected[1]} pixels, the images have "
                f"{geometry.height}x{geometry.width}; leave data.image_size out to have them resized"
            )

    def _check_patches(self, geometry: ImageGeometry) -> None:
        patch = pixel_input(self.outline(geometry).config).patch
        if patch is None:
            return
        for side, length, patch_length in (
            ("height", geometry.height, patch[0]),
            ("width", geometry.width, patch[1]),
        ):
            if not length % patch_length:
                continue
            if self.trained is not None:
                near = max(1, round(length / patch_length)) * patch_length
                raise LeanformerError(
                    f"data.image_size: {self.source} cuts images into patches of {patch_length} pixels, which do not "
                    f"divide the images' {side} of {length}; take a multiple, such as {near}"
                )
            divisors = ", ".join(str(d) for d in range(1, length + 1) if length % d == 0)
            raise LeanformerError(
                f"baseline.config: patch_size {patch_length} does not divide the images' {side} of {length} "
                f"pixels; take one of {divisors}, or set data.image_size"
            )

    def _follow(self, geometry: ImageGeometry) -> None:
        """Brings the trained model to the images' size, once for all trials."""
        assert self.trained is not None
        size, own = (geometry.height, geometry.width), self.image_size
        if size[0] != size[1] and size != own and self.family.is_found:
            raise LeanformerError(
                f"data.image_size: {self.source} takes square images, not {size[0]}x{size[1]} pixels; give one number"
            )
        if self.new_head or size != own:
            with torch.random.fork_rng(devices=[]):
                self.trained = self._refitted(geometry)
        if own is not None and size != own:
            self.notes.append(
                f"{self.source} was trained on images of {own[0]}x{own[1]} pixels; its positions are interpolated for "
                f"{size[0]}x{size[1]}"
            )

    def _refitted(self, geometry: ImageGeometry) -> PreTrainedModel:
        assert self.trained is not None
        size = None if self.image_size is None else (geometry.height, geometry.width)
        return refitted(self.trained, geometry.classes if self.new_head else None, size, self.source)

    def make(self, geometry: ImageGeometry, seed: int) -> PreTrainedModel:
        """The baseline as a trial starts with it."""
        if self.new_head and not self.fresh:
            torch.manual_seed(seed)  # of the head; see ``_make``
            return self._refitted(geometry)
        return self._make(seed, self._fitted(geometry))

    def outline(self, geometry: ImageGeometry) -> PreTrainedModel:
        """The baseline without its weights, on the device "meta": where only its structure matters."""
        return self._outline(self._fitted(geometry))

    def _fitted(self, geometry: ImageGeometry) -> dict[str, Any]:
        """The settings of a fresh model that follow from the data; a trained one gets the names of its classes."""
        height, width = geometry.height, geometry.width
        labels = dict(enumerate(geometry.classes))
        names = {int(number): name for number, name in self.settings.get("id2label", labels).items()}
        if self.trained is not None and self.trained.config.num_labels == len(labels):
            # Whatever the old head called them, the shipped model answers with the data's classes.
            self.trained.config.id2label = labels
            self.trained.config.label2id = {name: number for number, name in labels.items()}
        return {
            "image_size": height if height == width else [height, width],
            "num_channels": geometry.channels,
            "id2label": labels,
            "label2id": {name: number for number, name in names.items()},
        }

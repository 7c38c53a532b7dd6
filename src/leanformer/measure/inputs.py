"""How a model's inputs are made of what a user has, in the words of an exported model's manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from transformers import PreTrainedModel

from leanformer.core.errors import LeanformerError
from leanformer.data.image_files import SIXTEEN_BITS
from leanformer.data.preprocessing import read_preprocessing
from leanformer.model.family import find_family
from leanformer.model.heads import class_names
from leanformer.model.vision import TASK, pixel_input
from leanformer.runtime.manifest import ImageInput


def image_input(source: str, model: PreTrainedModel) -> ImageInput:
    """How an image file becomes a classifier's input, as its ``preprocessor_config.json`` says.

    Args:
        source: The model's directory, or its hub id.
        model: The classifier; its weights are not needed.

    Raises:
        LeanformerError: The model is no classifier of images, its directory does not say how images are prepared, or
            says something that cannot be followed.
    """
    family = find_family(model)
    if family.task != TASK:
        raise LeanformerError(f"{source}: a model for {family.task or 'another task'}, not a classifier of images")
    config = model.config
    taken = pixel_input(config)
    channels = taken.channels
    found = read_preprocessing(source, family.name, taken.size, channels, own_size=False, own_numbers=False)
    if found is None:
        raise LeanformerError(
            f"{source}: has no preprocessor_config.json, so that the preparation of its images is not known; put the "
            "file there, as a study does beside the models that it ships"
        )
    resizing, mean, std = found.resizing, found.mean, found.std
    assert resizing is not None  # both are asked for
    assert mean is not None
    assert std is not None
    if channels not in (1, 3) or {len(mean), len(std)} != {channels}:
        raise LeanformerError(
            f"{source}: takes {channels} channels, and its preprocessor_config.json normalizes {len(mean)}; there must "
            "be one (grey) or three (color), the same in both"
        )
    height, width = taken.size or resizing.output or (0, 0)
    return ImageInput(
        channels=3 if channels == 3 else 1,
        height=height,
        width=width,
        size=resizing.size,
        resample=int(resizing.resample),
        crop=resizing.crop,
        on_white=found.on_white,
        bits=found.bits or SIXTEEN_BITS,  # where training saw no image of 16 bits, as ``read_image`` does
        mean=mean,
        std=std,
        classes=_told_apart(class_names(config)),
    )


def _told_apart(names: Sequence[str]) -> tuple[str, ...]:
    """The names of classes; where several have one name, as ImageNet's cranes, each with its number."""
    counts = Counter(names)
    return tuple(name if counts[name] == 1 else f"{name} ({number})" for number, name in enumerate(names))

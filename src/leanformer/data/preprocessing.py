"""How a trained model's images are prepared: its ``preprocessor_config.json``, followed in full or refused.

And the same file for the models that a study ships, which says how images were prepared in training.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from transformers.image_processing_backends import PilBackend
from transformers.image_processing_base import ImageProcessingMixin
from transformers.models.beit.image_processing_pil_beit import BeitImageProcessorPil
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.deit.image_processing_pil_deit import DeiTImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from leanformer.core.bounds import PIXELS
from leanformer.core.errors import LeanformerError, quoted
from leanformer.core.paths import read_text
from leanformer.data.image_files import BITS_KEY, LARGEST_SETTINGS, Resizing, are_numbers, checked_bits

PROCESSORS: dict[str, type[PilBackend]] = {
    "vit": ViTImageProcessorPil,
    "deit": DeiTImageProcessorPil,
    "beit": BeitImageProcessorPil,
    "bit": BitImageProcessorPil,
    "clip": CLIPImageProcessorPil,
    "siglip": SiglipImageProcessorPil,
}
"""Image processors that resize, crop, rescale and normalize alone. Their defaults hold for the keys that a file leaves
out."""
OF_FAMILY = {
    "siglip_vision_model": "siglip",
    "clip_vision_model": "clip",
    "dinov2": "bit",
    "dinov2_with_registers": "bit",
    "data2vec-vision": "beit",
}
"""Family -> the processor that is meant where the file names none; else the family's own, or a ViT's."""
LARGEST_NUMBER = 1e6  # of means and deviations, in pixel values from 0 to 1, and of 1 over a deviation
FILES = ("processor_config.json", "preprocessor_config.json")
GEOMETRY = frozenset(
    {"do_convert_rgb", "do_resize", "size", "default_to_square", "resample", "do_center_crop", "crop_size"}
)
NUMBERS = frozenset({"do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std"})
HARMLESS = frozenset(
    {
        "use_fast",
        "image_processor_type",
        "feature_extractor_type",
        "processor_class",
        "model_input_names",
        "data_format",
        "input_data_format",
        "device",
        "return_tensors",
        "disable_grouping",
        "image_seq_length",
        "pad_size",  # do_pad is what counts
        "_processor_class",
        "_valid_processor_keys",
        BITS_KEY,
    }
)


@dataclass(frozen=True)
class Preprocessing:
    """How an image is prepared before a model reads it.

    Attributes:
        resizing: how it is brought to its size; None where the study says that itself.
        on_white: whether transparency becomes white.
        mean, std: per channel, in pixel values from 0 to 1, any rescaling included; None where the study says them.
        bits: bits in use of images of 16 bits, where the file says it.
    """

    resizing: Resizing | None
    on_white: bool
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    bits: int | None


def read_preprocessing(
    source: str, family: str, image_size: tuple[int, int] | None, channels: int, own_size: bool, own_numbers: bool
) -> Preprocessing | None:
    """What a trained model's directory or hub repository says of its images; None where it says nothing.

    Args:
        source: the directory, or a hub id.
        family: the model's type, whose image processor is meant where the file names none.
        image_size: (height, width) in pixels that the model takes.
        channels: likewise.
        own_size: whether the study says how images are brought to their size; what the file says of it is then ignored.
        own_numbers: whether the study gives mean and deviation, likewise.

    Raises:
        LeanformerError: the file is damaged, or says something that cannot be followed.
    """
    settings = _read(source)
    if settings is None:
        return None
    where = f"baseline.model: the image processor of {source}"
    processor = _processor(settings, family, where)
    others = sorted(
        key
        for key, value in settings.items()
        if key not in GEOMETRY | NUMBERS | HARMLESS and value is not None and value is not False
    )
    if others and not (own_size and own_numbers):
        raise LeanformerError(
            f"{where} says {others[0]}: {json.dumps(settings[others[0]])[:60]}, which is not understood; set both "
            "data.image_size and data.normalize to prepare images otherwise, or take another directory"
        )
    mean, std = (None, None) if own_numbers else _numbers(processor, channels, where)
    return Preprocessing(
        None if own_size else _resizing(processor, image_size, where),
        bool(processor.do_convert_rgb) and not own_size,
        mean,
        std,
        checked_bits(settings.get(BITS_KEY), f"{where} says"),
    )


def _read(source: str) -> dict[str, Any] | None:
    directory = Path(os.path.expanduser(source))
    settings: Any
    if directory.is_dir():
        found = {name: _read_file(directory / name) for name in FILES if os.path.lexists(directory / name)}
        newer = found.get(FILES[0], {}).get("image_processor")
        settings = found.get(FILES[1]) if newer is None else newer
    else:
        try:
            settings, _ = ImageProcessingMixin.get_image_processor_dict(source)
        except (OSError, ValueError):
            return None  # the hub has none, or does not answer
    if settings is not None and not isinstance(settings, dict):
        raise LeanformerError(f"baseline.model: the image processor of {source} is {quoted(settings)}, not a mapping")
    return settings


def _read_file(file: Path) -> dict[str, Any]:
    try:
        settings = json.loads(read_text(file, LARGEST_SETTINGS))
    except (ValueError, RecursionError) as error:
        raise LeanformerError(
            f"{file}: cannot be read ({' '.join(str(error).split())[:100]}); write it again, or remove it"
        ) from None
    if not isinstance(settings, dict):
        raise LeanformerError(f"{file}: holds {quoted(settings)}, not a mapping of keys; write it again, or remove it")
    return settings


def _processor(settings: Mapping[str, Any], family: str, where: str) -> PilBackend:
    """The image processor that transformers would make of the settings."""
    named = settings.get("image_processor_type") or settings.get("feature_extractor_type")
    if named is not None:
        family = str(named).removesuffix("Pil").removesuffix("Fast")
        family = family.removesuffix("ImageProcessor").removesuffix("FeatureExtractor").lower()
    elif family not in PROCESSORS:
        family = OF_FAMILY.get(family, "vit")
    if family not in PROCESSORS:
        understood = ", ".join(f"{kind.__name__.removesuffix('Pil')}" for kind in PROCESSORS.values())
        raise LeanformerError(
            f"{where} is a {named}, which is not understood; these are: {understood}; take a "
            "directory with one of these, or remove its file and set data.image_size and data.normalize"
        )
    known = {key: value for key, value in settings.items() if key in GEOMETRY | NUMBERS and value is not None}
    try:
        return PROCESSORS[family](**known)
    except Exception as error:  # transformers checks values with several libraries
        raise LeanformerError(f"{where} has a wrong value: {' '.join(str(error).split())[:200]}") from None


def _resizing(processor: PilBackend, image_size: tuple[int, int] | None, where: str) -> Resizing:
    hint = "set data.image_size to have images resized to the model's size, or take another directory"
    size: tuple[int, int] | int | None = None
    if processor.do_resize:
        wanted = {key: value for key, value in dict(processor.size).items() if value is not None}
        if set(wanted) == {"height", "width"}:
            size = int(wanted["height"]), int(wanted["width"])
        elif set(wanted) == {"shortest_edge"}:
            size = int(wanted["shortest_edge"])
        else:
            raise LeanformerError(f"{where} says size: {json.dumps(wanted)}, which is not understood; {hint}")
        _check_sides("size", wanted, where, hint)
    crop = None
    if processor.do_center_crop:
        crop = int(processor.crop_size.height or 0), int(processor.crop_size.width or 0)
        _check_sides("crop_size", {"height": crop[0], "width": crop[1]}, where, hint)
        smallest = (size, size) if isinstance(size, int) else size or crop
        if min(crop) < 1 or crop[0] > smallest[0] or crop[1] > smallest[1]:
            raise LeanformerError(
                f"{where} says crop_size: {crop[0]}x{crop[1]}, which images of size {smallest[0]}x{smallest[1]} do "
                f"not hold; {hint}"
            )
    elif isinstance(size, int):
        raise LeanformerError(
            f"{where} says size: shortest_edge {size} without a crop, which gives images of many sizes; {hint}"
        )
    try:
        resample = Image.Resampling(int(processor.resample))
    except (TypeError, ValueError):
        raise LeanformerError(
            f"{where} says resample: {processor.resample!r}, which is none of Pillow's; {hint}"
        ) from None
    resizing = Resizing(size, resample, crop)
    if image_size is not None and resizing.output not in (None, image_size):
        height, width = resizing.output or (0, 0)
        raise LeanformerError(
            f"{where} gives images of {height}x{width} pixels, the model takes {image_size[0]}x{image_size[1]}; {hint}"
        )
    return resizing


def _check_sides(key: str, sides: Mapping[str, int], where: str, hint: str) -> None:
    if any(not 1 <= side <= PIXELS for side in sides.values()):
        raise LeanformerError(
            f"{where} says {key}: {quoted(dict(sides))}; sides are from 1 to {PIXELS:,} pixels: {hint}"
        )


def _numbers(processor: PilBackend, channels: int, where: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation in pixel values from 0 to 1, so that with them ``normalize`` does what the processor does."""
    factor = processor.rescale_factor if processor.do_rescale else 1.0
    if not are_numbers([factor]) or not factor > 0 or not 1 / LARGEST_NUMBER <= factor * 255 <= LARGEST_NUMBER:
        raise LeanformerError(
            f"{where} says rescale_factor: {quoted(factor)}; it must be above 0, such as 1/255: set data.normalize"
        )
    mean, std = (
        [value] * channels if isinstance(value, int | float) else value  # transformers takes it for every channel
        for value in (processor.image_mean, processor.image_std)
    )
    if not processor.do_normalize:
        mean, std = [0.0] * channels, [1.0] * channels
    scale = 255 * factor
    if (
        not are_numbers(mean)
        or not are_numbers(std)
        or len(mean) != len(std)
        or any(abs(value) > LARGEST_NUMBER * scale for value in (*mean, *std))
        or min(std) < scale / LARGEST_NUMBER
    ):
        raise LeanformerError(
            f"{where} says image_mean: {quoted(mean)} and image_std: {quoted(std)}; there must be as many "
            "deviations above 0 as means, of the size of pixel values: set data.normalize"
        )
    return tuple(float(value) / scale for value in mean), tuple(float(value) / scale for value in std)


def shipped_processor(
    resizing: Resizing, mean: Sequence[float], std: Sequence[float], on_white: bool, bits: int | None
) -> PilBackend:
    """The image processor that prepares images as in training, for ``preprocessor_config.json``.

    Args:
        resizing: how images were brought to their size.
        mean, std: per channel, in pixel values from 0 to 1.
        on_white: whether transparency became white.
        bits: bits in use of images of 16 bits, where there were any; for ``read_image``.
    """
    size = resizing.size
    settings: dict[str, Any] = {
        "do_resize": size is not None,
        "size": {"shortest_edge": size}
        if isinstance(size, int)
        else dict(zip(("height", "width"), size or (1, 1), strict=True)),
        "resample": int(resizing.resample),
        "image_mean": _as_told(mean),
        "image_std": _as_told(std),
    }
    if resizing.crop is not None:
        settings |= {"do_center_crop": True, "crop_size": dict(zip(("height", "width"), resizing.crop, strict=True))}
    if on_white:
        settings["do_convert_rgb"] = True
    if bits is not None:
        settings[BITS_KEY] = bits
    # In older versions of transformers only DeiT's processor can crop.
    return PROCESSORS["vit" if resizing.crop is None else "deit"](**settings)


def _as_told(numbers: Sequence[float]) -> float | list[float]:
    """A grey image's mean or deviation as a number alone: so it is also for an image that was read in color."""
    return numbers[0] if len(numbers) == 1 else list(numbers)

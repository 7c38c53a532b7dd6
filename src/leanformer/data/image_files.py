"""From an image file to pixels: upright, of 8 bits a channel, grey or color, and of one size.

Every image is read in this one way: in training, in evaluation, and in ``read_image`` when a shipped model is used.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from leanformer.core.errors import LeanformerError, first_line, quoted
from leanformer.core.paths import as_path, read_text
from leanformer.data.walking import check_plain

MODES = {1: "L", 3: "RGB"}  # channels -> Pillow's mode
GREY_MODES = frozenset({"1", "L", "LA", "La", "I;16", "I;16B", "I;16L", "I;16N"})
ORIENTATION = 0x0112  # the Exif tag
ORIENTED = frozenset({"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"})  # where a file may have that tag
SIDEWAYS = frozenset({5, 6, 7, 8})  # the tag's values that rotate an image by 90 degrees
SIXTEEN_BITS = 16
LARGEST_SETTINGS = 2**20  # bytes of a file that says how images are prepared
NO_IMAGES = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
"""Formats that Pillow lists but cannot read, or only with another program."""
BITS_KEY = "bits_used"  # in preprocessor_config.json: the bits in use of images of 16 bits


@dataclass(frozen=True)
class Resizing:
    """How an image is brought to its size: resized, and then cropped at the center.

    Attributes:
        size: (height, width) in pixels, or the pixels of the shorter side, or None to leave the size.
        resample: Pillow's filter.
        crop: (height, width) in pixels, or None for no crop.
    """

    size: tuple[int, int] | int | None
    resample: Image.Resampling = Image.Resampling.BILINEAR
    crop: tuple[int, int] | None = None

    @property
    def output(self) -> tuple[int, int] | None:
        """The (height, width) of every image that was brought to its size, if they are the same for all."""
        return self.crop or (self.size if isinstance(self.size, tuple) else None)

    def __call__(self, image: Image.Image) -> Image.Image:
        """The image, resized and cropped as the image processors of transformers do it.

        Raises:
            LeanformerError: for an image that is smaller than the crop.
        """
        height, width = self._resized(image.height, image.width)
        if (width, height) != image.size:
            image = image.resize((width, height), self.resample)
        if self.crop is not None:
            top, left = (height - self.crop[0]) // 2, (width - self.crop[1]) // 2
            if top < 0 or left < 0:
                raise LeanformerError(
                    f"{height}x{width} pixels (height x width), of which the model takes the middle "
                    f"{self.crop[0]}x{self.crop[1]}; give larger images, or set data.image_size"
                )
            image = image.crop((left, top, left + self.crop[1], top + self.crop[0]))
        return image

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        if self.size is None:
            return height, width
        if isinstance(self.size, tuple):
            return self.size
        longer = int(self.size * max(height, width) / min(height, width))
        return (longer, self.size) if width <= height else (self.size, longer)


@dataclass(frozen=True)
class ImageForm:
    """The form that all images are brought to.

    Attributes:
        channels: 1 or 3.
        height, width: in pixels.
        convert: whether color is converted to grey; if not, an image in color is a misfit.
        resizing: how other sizes become this one; None: an image of another size is a misfit.
        bits: bits in use of images of 16 bits, 8 to 16; None: such an image is a misfit.
        on_white: whether transparency becomes white; if not, it is dropped, and the colors under it show.
    """

    channels: int
    height: int
    width: int
    convert: bool = False
    resizing: Resizing | None = None
    bits: int | None = None
    on_white: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width


class MisfitError(LeanformerError):
    """An image of another size, of 16 bits, or in color, where all were expected to be like the first."""


@cache
def image_suffixes() -> frozenset[str]:
    """The endings of the image files that the installed Pillow reads, in lower case."""
    formats = Image.registered_extensions()
    # Pillow reads .mpo as the JPEG that it begins with, without saying so.
    return frozenset(end for end, name in formats.items() if name in Image.OPEN and name not in NO_IMAGES) | {".mpo"}


def is_image(path: Path) -> bool:
    """Whether a file's name ends like that of an image that can be read."""
    return path.suffix.lower() in image_suffixes()


def read_header(image: Image.Image) -> tuple[int, int, int, int]:
    """Channels, height and width as they will be after decoding, and the file's bits a channel (8 or 16)."""
    width, height = image.size
    # Pillow rotates TIFF files itself, and gives their size after that.
    if image.format != "TIFF" and _may_be_turned(image) and image.getexif().get(ORIENTATION) in SIDEWAYS:
        width, height = height, width
    sixteen = is_sixteen_bit(image)
    return 1 if image.mode in GREY_MODES or sixteen else 3, height, width, SIXTEEN_BITS if sixteen else 8


def read_peak(image: Image.Image) -> int:
    """The largest pixel value of a grey image of 16 bits."""
    return int(np.asarray(image).max())


def is_sixteen_bit(image: Image.Image) -> bool:
    """Whether an image is grey with 16 bits; Pillow opens some such files in the mode of 32 bits."""
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))


def loses_bits(image: Image.Image) -> bool:
    """Whether an image that is not loaded yet has 16 bits a channel in color, of which Pillow reads the upper 8."""
    return not is_sixteen_bit(image) and any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def has_transparency(image: Image.Image) -> bool:
    """Whether an image has an alpha channel, or a color of its palette that stands for transparency."""
    return "A" in image.getbands() or image.info.get("transparency") is not None


def decode(image: Image.Image, form: ImageForm) -> NDArray[np.uint8]:
    """Decodes an image to (C, H, W) pixels of a form.

    Raises:
        MisfitError: for an image in color, of 16 bits or of another size, where the form does not allow that.
        LeanformerError: for pixels of 32 bits, and for an image that is smaller than the crop.
    """
    if form.channels == 1 and not form.convert and read_header(image)[0] != 1:
        raise MisfitError("in color where others are grey; set data.channels")
    image = prepare(image, form.channels, form.bits, form.on_white)
    if form.resizing is not None:
        image = form.resizing(image)
    if image.size != (form.width, form.height):
        raise MisfitError(f"not {form.height}x{form.width} pixels (height x width) as others; set data.image_size")
    return pixels_of(image)


def pixels_of(image: Image.Image) -> NDArray[np.uint8]:
    """The (C, H, W) pixels of an image of mode ``L`` or ``RGB``."""
    pixels = np.frombuffer(image.tobytes(), np.uint8)  # a third faster than np.asarray
    return pixels.reshape(image.height, image.width, -1).transpose(2, 0, 1)


def prepare(image: Image.Image, channels: int, bits: int | None, on_white: bool) -> Image.Image:
    """An image as it is before it is resized: upright, of 8 bits a channel, grey or color.

    Args:
        image: as it was opened.
        channels, bits, on_white: as in ``ImageForm``.

    Raises:
        MisfitError: for an image of 16 bits without ``bits``.
        LeanformerError: for pixels of 32 bits.
    """
    sixteen = is_sixteen_bit(image)
    image.load()
    if _may_be_turned(image):
        ImageOps.exif_transpose(image, in_place=True)
    if sixteen:  # Pillow would clip all values above 255
        if bits is None:
            raise MisfitError("of 16 bits where others have 8")
        values = np.asarray(image).astype(np.int64) >> (bits - 8)
        return Image.fromarray(values.clip(0, 255).astype(np.uint8)).convert(MODES[channels])
    if image.mode in ("I", "F"):
        raise LeanformerError(f"pixels of 32 bits (Pillow's mode {image.mode}); 8 or 16 bits are read")
    if on_white and has_transparency(image):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == MODES[channels] else image.convert(MODES[channels])


def _may_be_turned(image: Image.Image) -> bool:
    """Whether a file may give an orientation; most do not, and reading it takes long."""
    return not ORIENTED.isdisjoint(image.info)


def reason_of(error: Exception) -> str:
    """Why Pillow could not read an image, in a few words."""
    # Its own message for unknown formats names a buffer's address.
    return "of no known format" if isinstance(error, UnidentifiedImageError) else first_line(error)


def are_numbers(values: Any) -> bool:
    """Whether a value is a list of one or more finite numbers."""
    return (
        isinstance(values, Sequence)
        and len(values) > 0
        and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        and all(isinstance(value, int) or math.isfinite(value) for value in values)
    )


def checked_bits(value: Any, where: str) -> int | None:
    """The bits in use of images of 16 bits, as a file gives them; None where it does not.

    Raises:
        LeanformerError: for anything but a whole number from 8 to 16; its message begins with ``where``.
    """
    if value is not None and not (isinstance(value, int) and 8 <= value <= SIXTEEN_BITS):
        raise LeanformerError(f"{where} {BITS_KEY}: {quoted(value)}; it must be a whole number from 8 to 16")
    return value


def read_image(path: str | os.PathLike[str], model: str | os.PathLike[str]) -> Image.Image:
    """An image file as training reads it, ready for the image processor of a shipped model.

    The Exif orientation is applied, 16 bits become 8 by the range that the training images use, and the image is grey
    or in color as the model takes it. Resizing, cropping and normalizing are the processor's
    (``transformers.AutoImageProcessor``).

    Args:
        path: the image file; of several frames, the first is read.
        model: the directory that a study shipped.

    Returns:
        An image of Pillow, of mode ``L`` or ``RGB``.

    Raises:
        LeanformerError: the image cannot be read, or the directory is not one that a study shipped.
    """
    file = as_path(model, "model") / "preprocessor_config.json"
    image_file = as_path(path, "path")
    try:
        settings = json.loads(read_text(file, LARGEST_SETTINGS))
        told = settings["image_mean"]
    except (LeanformerError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise LeanformerError(
            f"{file}: does not say how images are read ({first_line(error)}); give the directory that a study shipped"
        ) from None
    mean = [told] if isinstance(told, int | float) else told
    if not are_numbers(mean) or len(mean) not in MODES:
        raise LeanformerError(
            f"{file}: says image_mean: {quoted(mean)}; it must be a list of one number (grey) or three (color): give "
            "the directory that a study shipped"
        )
    bits = checked_bits(settings.get(BITS_KEY), f"{file}: says") or SIXTEEN_BITS
    return read_prepared(image_file, len(mean), bits, bool(settings.get("do_convert_rgb")))


def read_prepared(file: Path, channels: int, bits: int | None, on_white: bool) -> Image.Image:
    """An image file as ``prepare`` leaves it.

    Args:
        file: the image file; of several frames, the first is read.
        channels, bits, on_white: as in ``ImageForm``.

    Raises:
        LeanformerError: the image cannot be read; the message names the file.
    """
    try:
        check_plain(file)
        with warnings.catch_warnings(action="ignore"), Image.open(file) as image:
            return prepare(image, channels, bits, on_white)
    except LeanformerError as error:
        raise LeanformerError(f"{file}: {error}") from None
    except Exception as error:  # damaged files make the decoders raise nearly anything
        raise LeanformerError(f"{file}: not a readable image ({reason_of(error)}); replace it") from None

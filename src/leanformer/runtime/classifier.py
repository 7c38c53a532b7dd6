"""A classifier of images that is opened: image files in, names and probabilities out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from leanformer.core.errors import LeanformerError, quoted
from leanformer.core.paths import as_path
from leanformer.data.image_files import Resizing, pixels_of, prepare, read_prepared
from leanformer.runtime.engines.base import Classifies
from leanformer.runtime.manifest import ImageInput

Picture = str | os.PathLike[str] | Image.Image | NDArray[np.uint8] | NDArray[np.uint16]
"""A path, an image of Pillow, or pixels: (height, width) for grey, (height, width, 3) for color."""

BATCH = 32


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of an example.

    Args:
        label: The most probable class.
        probability: Its probability.
        probabilities: Class -> probability of all classes, in the order of the model's outputs.
    """

    label: str
    probability: float
    probabilities: dict[str, float]


def predictions_of(classes: Sequence[str], probabilities: NDArray[np.float64]) -> list[Prediction]:
    """What probabilities say, a row an example.

    Args:
        classes: The names of the classes, in the order of the columns.
        probabilities: Shape (examples, classes).
    """
    return [
        Prediction(classes[row.argmax()], float(row.max()), dict(zip(classes, row.tolist(), strict=True)))
        for row in probabilities
    ]


class Classifier:
    """A classifier of images, with the very preparation of its study.

    Args:
        images: How an image becomes its input.
        engine: What computes its logits.
    """

    def __init__(self, images: ImageInput, engine: Classifies) -> None:
        self.images = images
        self._engine = engine
        self._resizing = Resizing(images.size, Image.Resampling(images.resample), images.crop)
        # (C, 1, 1) each. The same arithmetic as in training, so that inputs are equal to the last bit.
        deviations = zip(images.mean, images.std, strict=True)
        self._scale = np.array([1 / (255 * s) for s in images.std], np.float32)[:, None, None]
        self._shift = np.array([-m / s for m, s in deviations], np.float32)[:, None, None]

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the outputs."""
        return self.images.classes

    def predict(self, images: Sequence[Picture] | Picture, batch: int = BATCH) -> list[Prediction]:
        """The most probable class of each image, and the probabilities of all.

        Args:
            images: Paths, images of Pillow, or arrays of pixels of 8 or 16 bits; one path or one image of Pillow may
                be given alone. Images of Pillow are not changed.
            batch: Images that are computed at once.

        Raises:
            LeanformerError: An image cannot be read, or is too small to be cropped.
        """
        return predictions_of(self.classes, self.probabilities(images, batch))

    def probabilities(self, images: Sequence[Picture] | Picture, batch: int = BATCH) -> NDArray[np.float64]:
        """The probabilities of all classes, shape (images, classes); arguments and errors as of ``predict``."""
        single = isinstance(images, str | os.PathLike | Image.Image)
        pictures: Sequence[Picture] = [images] if single else images  # type: ignore[list-item, assignment]
        if not isinstance(batch, int) or batch < 1:
            raise LeanformerError(f"batch: give a whole number of 1 or more, not {quoted(batch)}")
        parts = [
            softmax(self.logits(self.pixel_values(pictures[start : start + batch])))
            for start in range(0, len(pictures), batch)
        ]
        return np.concatenate(parts) if parts else np.empty((0, len(self.classes)))

    def logits(self, pixel_values: NDArray[np.float32]) -> NDArray[np.float32]:
        """The logits of images that are prepared: (batch, channels, height, width) -> (batch, classes).

        Raises:
            LeanformerError: The images are of another shape.
        """
        shape = self.images.channels, self.images.height, self.images.width
        if pixel_values.shape[1:] != shape:
            raise LeanformerError(
                f"pixel_values: of shape {pixel_values.shape}; the model takes (batch, {', '.join(map(str, shape))})"
            )
        return self._engine.logits(np.ascontiguousarray(pixel_values, np.float32))

    def pixel_values(self, images: Sequence[Picture]) -> NDArray[np.float32]:
        """The model's input: (images, channels, height, width), resized, cropped and normalized as in the study.

        Raises:
            LeanformerError: An image cannot be read, or is too small to be cropped.
        """
        shape = self.images.channels, self.images.height, self.images.width
        pixels = np.empty((len(images), *shape), np.float32)
        for index, image in enumerate(images):
            pixels[index] = self._pixels(image, f"image {index + 1}")
        pixels *= self._scale
        pixels += self._shift
        return pixels

    def _pixels(self, image: Picture, name: str) -> NDArray[np.uint8]:
        """One image as (C, H, W) of 0 to 255."""
        form = self.images
        if isinstance(image, str | os.PathLike):
            file = as_path(image, name)
            name = str(file)
            if not file.exists():
                raise LeanformerError(f"{file}: no such file; give image files")
            prepared = read_prepared(file, form.channels, form.bits, form.on_white)
        else:
            prepared = _prepared(image, form, name)
        try:
            prepared = self._resizing(prepared)
        except LeanformerError as error:
            raise LeanformerError(f"{name}: {error}") from None
        if prepared.size != (form.width, form.height):
            raise LeanformerError(
                f"{name}: {prepared.height}x{prepared.width} pixels (height x width); the model takes images of "
                f"{form.height}x{form.width}, and does not resize them"
            )
        return pixels_of(prepared)


def _prepared(image: object, form: ImageInput, name: str) -> Image.Image:
    """An image of Pillow or an array, upright, of 8 bits, grey or in color as the model takes it."""
    if isinstance(image, np.ndarray):
        color = image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8
        if not (color or (image.ndim == 2 and image.dtype in (np.uint8, np.uint16))):
            raise LeanformerError(
                f"{name}: an array of {image.dtype} and shape {image.shape}; give (height, width) or (height, width, "
                "3), of uint8, or grey of uint16"
            )
        image = Image.fromarray(image)
    elif isinstance(image, Image.Image):
        image = image.copy()  # ``prepare`` turns it upright in place
    else:
        raise LeanformerError(f"{name}: give a path, an image of Pillow or an array of pixels, not {quoted(image)}")
    try:
        return prepare(image, form.channels, form.bits, form.on_white)
    except LeanformerError as error:
        raise LeanformerError(f"{name}: {error}") from None


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probabilities over the last dimension."""
    powers = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)

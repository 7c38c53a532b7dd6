"""Corruptions of images, on pixel values from 0 to 255 before they are normalized, with any number of channels.

Source: Hendrycks and Dietterich 2019, "Benchmarking neural network robustness to common corruptions and perturbations",
ICLR. Blur, noise and light have the middle one of their five severities: that of CIFAR-10-C for images of 32 pixels,
that of ImageNet-C for images of 224, and what lies on the line between for other sizes.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow
from scipy.ndimage import gaussian_filter

from leanformer.data.corruptions import IMAGES, Corruption, Image, corrupts
from leanformer.data.images import Batch, ImageSplit

SMALL, LARGE = 32, 224
"""The shorter sides in pixels of the images of CIFAR-10-C and of ImageNet-C."""
BLUR = (0.7, 3.0)
"""Standard deviation in pixels, for small and for large images."""
LEAST_BLUR = 0.5
"""In pixels: less would hardly change a pixel."""
NOISE = (0.08, 0.18)
"""Standard deviation, of a range of pixel values of 1, for small and for large images."""
LIGHT = (0.15, 0.3)
"""What is added to or taken from pixel values, of a range of 1, for small and for large images."""
JPEG_QUALITY = 30
"""Pillow's, from 0 to 95: between the middle severities of CIFAR-10-C (58) and ImageNet-C (15)."""
SHIFT = 0.05
"""Of each side; at least one pixel."""

PIXEL_VALUES = 255


def _between(image: Image, severities: tuple[float, float]) -> float:
    """The severity for an image's size: that of small images, of large ones, or between them."""
    return float(np.interp(min(image.shape[1:]), (SMALL, LARGE), severities))


def _pixels(values: NDArray[np.floating]) -> Image:
    """Values as pixels, rounded and cut off at 0 and 255."""
    return np.rint(values).clip(0, PIXEL_VALUES).astype(np.uint8)


@corrupts(IMAGES, "blur", "Gaussian blur: deviation of 0.7 pixels in images of 32, 3 pixels in images of 224")
def blur(image: Image, random: np.random.Generator) -> Image:
    """Gaussian blur; its width goes on in proportion beyond small and large images."""
    slope = (BLUR[1] - BLUR[0]) / (LARGE - SMALL)
    sigma = max(LEAST_BLUR, BLUR[0] + slope * (min(image.shape[1:]) - SMALL))
    return _pixels(gaussian_filter(image.astype(np.float32), (0, sigma, sigma), mode="nearest"))


@corrupts(IMAGES, "noise", "Gaussian noise: deviation of 8 % of the pixel range in images of 32 pixels, 18 % of 224")
def noise(image: Image, random: np.random.Generator) -> Image:
    """Independent Gaussian noise in each pixel and channel."""
    return _pixels(image + random.normal(scale=PIXEL_VALUES * _between(image, NOISE), size=image.shape))


@corrupts(IMAGES, "lighter", "lighter by 15 % of the pixel range in images of 32 pixels, by 30 % of 224")
def lighter(image: Image, random: np.random.Generator) -> Image:
    """The same amount is added everywhere; the paper adds it to the value of hue, saturation and value."""
    return _pixels(image + PIXEL_VALUES * _between(image, LIGHT))


@corrupts(IMAGES, "darker", "darker by 15 % of the pixel range in images of 32 pixels, by 30 % of 224")
def darker(image: Image, random: np.random.Generator) -> Image:
    """The same as ``lighter``, taken away."""
    return _pixels(image - PIXEL_VALUES * _between(image, LIGHT))


@corrupts(IMAGES, "jpeg", f"JPEG of quality {JPEG_QUALITY}")
def jpeg(image: Image, random: np.random.Generator) -> Image:
    """Compression as JPEG; channels that are not those of a color image are compressed each on its own."""
    if len(image) == 3:
        return _compressed(image.transpose(1, 2, 0)).transpose(2, 0, 1)
    return np.stack([_compressed(channel) for channel in image])


def _compressed(pixels: Image) -> Image:
    """Pixels of shape (height, width) or (height, width, 3), as they are read back."""
    file = io.BytesIO()
    Pillow.fromarray(np.ascontiguousarray(pixels)).save(file, "JPEG", quality=JPEG_QUALITY)
    return np.asarray(Pillow.open(file))


@corrupts(IMAGES, "shift", "shifted in a random direction by 5 % of each side, at least 1 pixel; edges are repeated")
def shift(image: Image, random: np.random.Generator) -> Image:
    """A shift up or down, left or right, or along both; pixels at the edge are repeated."""
    directions = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if down or right]
    down, right = directions[random.integers(len(directions))]
    rows, columns = (max(1, round(SHIFT * side)) for side in image.shape[1:])
    height, width = image.shape[1:]
    padded = np.pad(image, ((0, 0), (rows, rows), (columns, columns)), mode="edge")
    top, left = rows - down * rows, columns - right * columns
    return padded[:, top : top + height, left : left + width]


class CorruptedImages:
    """A split with corrupted images, which are corrupted batch by batch as they are read.

    Args:
        split: The split as it is.
        corruption: What happens to its images.
    """

    def __init__(self, split: ImageSplit, corruption: Corruption[Image]) -> None:
        self.labels = split.labels
        self._split = split
        self._corruption = corruption

    def __len__(self) -> int:
        return len(self._split)

    def batches(self, index_batches: Sequence[torch.Tensor]) -> Iterator[Batch]:
        for numbers, batch in zip(index_batches, self._split.batches(index_batches), strict=True):
            clean = batch["pixel_values"]
            pairs = zip(clean.cpu().numpy(), numbers.tolist(), strict=True)
            corrupted = np.stack([self._corruption(image, number) for image, number in pairs])
            yield {**batch, "pixel_values": torch.from_numpy(corrupted).to(clean.device)}

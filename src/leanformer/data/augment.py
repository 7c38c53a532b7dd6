"""Augmentation and normalizing: whole batches at a time, on the device that the batch is on.

Every image of a batch draws its own offset, flip and rectangle, but no step here runs once per image in Python: for a
model of some ten thousand parameters that would cost more than the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from leanformer.core.errors import LeanformerError

FLIP_PROBABILITY = 0.5
ERASE_PROBABILITY = 0.25
ERASE_AREA = (0.02, 0.33)  # of the image's area
ERASE_ASPECT = (0.3, 3.3)  # height over width


def augment(pixel_values: Tensor, names: Sequence[str], generator: torch.Generator) -> Tensor:
    """A batch of images, changed at random in the named ways, in the order of the names.

    Args:
        pixel_values: (B, C, H, W), uint8 as read or any float type. It is not changed.
        names: of ``random_crop``, ``horizontal_flip``, ``random_erasing``; none of them: the batch itself.
        generator: where the random numbers come from: the same state gives the same batch. On the CPU or on the
            batch's device.

    Returns:
        (B, C, H, W) of the same type.

    Raises:
        LeanformerError: for a name that is none of the three.
    """
    for name in names:
        if name not in AUGMENTATIONS:
            raise LeanformerError(f"data.augment: no augmentation named {name!r}; there are {', '.join(AUGMENTATIONS)}")
        pixel_values = AUGMENTATIONS[name](pixel_values, generator)
    return pixel_values


def normalize(
    pixel_values: Tensor, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype = torch.float32
) -> Tensor:
    """``(pixel_values / 255 - mean) / std``, per channel.

    Args:
        pixel_values: (B, C, H, W) uint8.
        mean, std: C numbers each, in pixel values from 0 to 1.
        dtype: of the result; the arithmetic is float32.

    Returns:
        (B, C, H, W) of ``dtype``.

    Raises:
        LeanformerError: when there are not C means and C deviations.
    """
    channels = pixel_values.shape[1]
    if len(mean) != channels or len(std) != channels:
        raise LeanformerError(
            f"data.normalize: {len(mean)} means and {len(std)} deviations for images of {channels} "
            f"channel{'s' * (channels > 1)}; give {channels} of each"
        )
    scale, shift = _scale_and_shift(tuple(mean), tuple(std), pixel_values.device)
    return pixel_values.to(torch.float32).mul_(scale).add_(shift).to(dtype)


@cache
@torch.inference_mode(False)
def _scale_and_shift(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """The factor and the summand of pixels, (C, 1, 1) each: made once, because a GPU waits for each copy to it."""
    scale = torch.tensor([1 / (255 * s) for s in std], device=device).view(-1, 1, 1)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=device).view(-1, 1, 1)
    return scale, shift


def random_crop(pixel_values: Tensor, generator: torch.Generator) -> Tensor:
    """Pads with zeros by an eighth of the side (at least 1 pixel) and cuts the old size out at a random place.

    Source: Lee et al., Deeply-Supervised Nets, 2015, section 3.2; He et al., Deep Residual Learning for Image
    Recognition, 2016, section 4.2 (4 pixels around 32x32).
    """
    batch, channels, height, width = pixel_values.shape
    pad_y, pad_x = max(1, height // 8), max(1, width // 8)
    padded = F.pad(pixel_values, (pad_x, pad_x, pad_y, pad_y)).contiguous()  # (B, C, Hp, Wp)
    row = padded.shape[3]
    plane = padded.shape[2] * row
    device = pixel_values.device
    top = torch.randint(2 * pad_y + 1, (batch,), generator=generator, device=generator.device).to(device)
    left = torch.randint(2 * pad_x + 1, (batch,), generator=generator, device=generator.device).to(device)
    # Every run of `width` neighbors in memory is a row of this view, so that one index_select copies whole image rows:
    # 2 to 8 times faster than gather, than advanced indexing, and than a window view over both sides.
    runs = padded.as_strided((padded.numel() - width + 1, width), (1, 1))
    corner = top * row + left  # (B,)
    planes = torch.arange(batch * channels, device=device).view(batch, channels, 1) * plane
    starts = planes + corner[:, None, None] + torch.arange(height, device=device) * row  # (B, C, H)
    return runs.index_select(0, starts.flatten()).view(batch, channels, height, width)


def horizontal_flip(pixel_values: Tensor, generator: torch.Generator) -> Tensor:
    """Mirrors left and right, each image with probability 0.5.

    Source: Krizhevsky et al., ImageNet Classification with Deep Convolutional Neural Networks, 2012, section 4.1.
    """
    batch = pixel_values.shape[0]
    flipped = torch.rand(batch, generator=generator, device=generator.device) < FLIP_PROBABILITY
    chosen = torch.arange(batch, device=generator.device) + batch * flipped
    # Both forms and a choice of whole images: faster than torch.where and than mirroring the chosen ones in place.
    return torch.cat((pixel_values, pixel_values.flip(3))).index_select(0, chosen.to(pixel_values.device))


def random_erasing(pixel_values: Tensor, generator: torch.Generator) -> Tensor:
    """Sets a random rectangle to zero, each image with probability 0.25.

    The rectangle takes 2 to 33 % of the area (before it is rounded to whole pixels, at least one), its height over its
    width lies between 0.3 and 3.3 (log-uniform), its place is uniform. The paper draws again until a rectangle fits;
    here the aspect is drawn among those that fit, which needs no loop. Zero is black before normalizing and the mean of
    the training images after it.

    Source: Zhong et al., Random Erasing Data Augmentation, 2020, algorithm 1.
    """
    batch, _, height, width = pixel_values.shape
    chosen, share, form, y, x = torch.rand(5, batch, generator=generator, device=generator.device).to(
        pixel_values.device
    )
    area = (ERASE_AREA[0] + share * (ERASE_AREA[1] - ERASE_AREA[0])) * height * width  # (B,) pixels
    lowest, highest = (area / width**2).log(), (height**2 / area).log()  # the whole width, the whole height
    low, high = (torch.clamp(lowest.new_tensor(math.log(a)), lowest, highest) for a in ERASE_ASPECT)
    aspect = (low + form * (high - low)).exp()
    rows = (area * aspect).sqrt().round().clamp(1, height)
    columns = (area / aspect).sqrt().round().clamp(1, width)
    top = (y * (height - rows + 1)).floor()
    left = (x * (width - columns + 1)).floor()
    row_index = torch.arange(height, device=pixel_values.device)
    column_index = torch.arange(width, device=pixel_values.device)
    in_rows = (row_index >= top[:, None]) & (row_index < (top + rows)[:, None])  # (B, H)
    in_columns = (column_index >= left[:, None]) & (column_index < (left + columns)[:, None])  # (B, W)
    in_rows &= (chosen < ERASE_PROBABILITY)[:, None]
    # Products of bytes: on the CPU four times as fast as the same in booleans with masked_fill.
    erased = in_rows.to(torch.uint8)[:, :, None] * in_columns.to(torch.uint8)[:, None, :]  # (B, H, W)
    return pixel_values * (1 - erased)[:, None]


AUGMENTATIONS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "random_crop": random_crop,
    "horizontal_flip": horizontal_flip,
    "random_erasing": random_erasing,
}

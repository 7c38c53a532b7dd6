"""Augmentation and normalizing."""

from __future__ import annotations

import pytest
import torch

from leanformer.core.errors import LeanformerError
from leanformer.data.augment import AUGMENTATIONS, augment, normalize

ALL = ("random_crop", "horizontal_flip", "random_erasing")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(*shape: int, dtype: torch.dtype = torch.uint8) -> torch.Tensor:
    return torch.randint(1, 256, shape, generator=generator(9)).to(dtype)  # no zeros: what is zero was padded or erased


@pytest.mark.parametrize("names", [(name,) for name in ALL] + [ALL, ()])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
def test_keeps_shape_and_type_and_leaves_its_argument(names: tuple[str, ...], dtype: torch.dtype) -> None:
    batch = images(64, 3, 12, 20, dtype=dtype)
    before = batch.clone()
    result = augment(batch, names, generator())
    assert result.shape == batch.shape
    assert result.dtype == dtype
    assert torch.equal(batch, before)
    assert torch.equal(result, batch) == (names == ())


@pytest.mark.parametrize("name", ALL)
def test_the_generator_decides(name: str) -> None:
    batch = images(64, 1, 16, 16)
    torch.manual_seed(0)
    first = augment(batch, (name,), generator(1))
    torch.manual_seed(1)  # the global generator plays no part
    assert torch.equal(first, augment(batch, (name,), generator(1)))
    assert not torch.equal(first, augment(batch, (name,), generator(2)))


@pytest.mark.parametrize(("height", "width", "pad_y", "pad_x"), [(8, 8, 1, 1), (4, 4, 1, 1), (16, 24, 2, 3)])
def test_every_crop_is_a_window_of_the_padded_image(height: int, width: int, pad_y: int, pad_x: int) -> None:
    batch = images(100, 2, height, width)
    padded = torch.nn.functional.pad(batch, (pad_x, pad_x, pad_y, pad_y))
    result = augment(batch, ("random_crop",), generator())
    offsets = set()
    for image, crop in zip(padded, result, strict=True):
        windows = image.unfold(1, height, 1).unfold(2, width, 1)  # (C, offsets, offsets, H, W)
        hits = (windows == crop[:, None, None]).flatten(3).all(3).all(0).nonzero().tolist()
        assert len(hits) == 1
        offsets.add(tuple(hits[0]))
    tops, lefts = zip(*offsets, strict=True)
    assert set(tops) == set(range(2 * pad_y + 1))
    assert set(lefts) == set(range(2 * pad_x + 1))


def test_half_of_the_images_are_mirrored() -> None:
    batch = images(4000, 1, 4, 6)
    result = augment(batch, ("horizontal_flip",), generator())
    mirrored = (result == batch.flip(3)).flatten(1).all(1)
    assert torch.equal(result[~mirrored], batch[~mirrored])
    assert 0.46 < mirrored.float().mean() < 0.54


@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 60)])
def test_erased_rectangles(height: int, width: int) -> None:
    batch = images(8000, 2, height, width)
    result = augment(batch, ("random_erasing",), generator())
    gone = (result == 0).all(1)  # (B, H, W)
    assert torch.equal(result.where(~gone[:, None], batch), batch)
    hit = gone.flatten(1).any(1)
    assert 0.23 < hit.float().mean() < 0.27
    rows, columns = gone[hit].any(2).sum(1), gone[hit].any(1).sum(1)
    assert torch.equal(rows * columns, gone[hit].sum((1, 2)))  # one full rectangle each
    share = (rows * columns) / (height * width)
    assert 0.01 < share.min() < 0.03
    assert 0.3 < share.max() < 0.36  # rounded to whole pixels
    assert abs(share.mean() - 0.175) < 0.01
    aspect = rows / columns
    assert 0.2 < aspect.min() < 0.4
    assert 2.5 < aspect.max() < 5
    assert gone.any(0).all()  # every pixel is reached, the corners too


def test_erasing_stays_inside_long_images() -> None:
    result = augment(images(2000, 1, 2, 100), ("random_erasing",), generator())
    assert 0 < (result == 0).flatten(1).float().mean(1).max() <= 0.36


def test_an_unknown_name() -> None:
    with pytest.raises(
        LeanformerError, match=r"no augmentation named 'cutmix'; there are random_crop, horizontal_flip"
    ):
        augment(images(2, 1, 4, 4), ("cutmix",), generator())
    assert tuple(AUGMENTATIONS) == ALL


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_normalize(dtype: torch.dtype) -> None:
    batch = images(5, 3, 4, 4)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 1.0)
    expected = (batch.double() / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    result = normalize(batch, mean, std, dtype)
    assert result.dtype == dtype
    torch.testing.assert_close(result.double(), expected, atol=1e-6 if dtype == torch.float32 else 2e-2, rtol=0)


def test_normalize_wants_one_number_a_channel() -> None:
    with pytest.raises(LeanformerError, match="3 means and 3 deviations for images of 1 channel; give 1 of each"):
        normalize(images(2, 1, 4, 4), (0.5,) * 3, (0.5,) * 3)

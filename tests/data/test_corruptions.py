"""Corruptions of images and sentences: what they do by their definitions, and that every model meets the same ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from scipy.special import ndtr

from leanformer.data.corruptions import IMAGES, TEXTS
from leanformer.data.corruptions.images import CorruptedImages
from leanformer.data.images import Batch, MemorySplit

SENTENCE = 'Der alte Mann sagte: "Mir geht\'s gut!", und kaufte 1,5 Liter Sauer-Milch.'


def grey(side: int, value: int = 100, channels: int = 1) -> np.ndarray:
    return np.full((channels, side, side), value, dtype=np.uint8)


@pytest.mark.parametrize("name", sorted(IMAGES))
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 24), (2, 17, 31), (1, 1, 1)])
def test_any_form_of_image_is_corrupted_again_in_the_same_way(name: str, shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
    before = image.copy()
    corrupted = IMAGES[name](image, 7)
    assert corrupted.shape == shape
    assert corrupted.dtype == np.uint8
    assert (image == before).all()
    assert (corrupted == IMAGES[name](image, 7)).all()
    if shape != (1, 1, 1):
        assert (corrupted != image).any()


@pytest.mark.parametrize(("side", "sigma"), [(32, 0.7), (224, 3.0), (128, 1.85), (8, 0.5)])
def test_blur_spreads_a_line_as_a_gaussian_does(side: int, sigma: float) -> None:
    image = grey(side, 0)
    image[0, :, side // 2] = 255
    middle = IMAGES["blur"](image, 0)[0, 0, side // 2] / 255
    weights = np.exp(-(np.arange(-20, 21) ** 2) / (2 * sigma**2))
    assert middle == pytest.approx(1 / weights.sum(), abs=0.005)


@pytest.mark.parametrize(("side", "deviation"), [(32, 0.08), (224, 0.18), (128, 0.13), (500, 0.18)])
def test_noise_has_the_deviation_of_the_size(side: int, deviation: float) -> None:
    noisy = IMAGES["noise"](grey(side, 128), 0)[0] / 255
    kept = noisy[(noisy > 0) & (noisy < 1)]
    inside = ndtr(0.5 / deviation)  # the rest is cut off
    assert len(kept) / noisy.size == pytest.approx(2 * inside - 1, abs=0.02)
    assert np.median(np.abs(noisy - 128 / 255)) == pytest.approx(0.6745 * deviation, rel=0.08)


def test_light_is_added_and_taken_away() -> None:
    assert (IMAGES["lighter"](grey(32), 0) == 100 + round(0.15 * 255)).all()
    assert (IMAGES["darker"](grey(224, channels=3), 0) == 100 - math.floor(0.3 * 255)).all()
    assert (IMAGES["lighter"](grey(32, 250), 0) == 255).all()
    assert (IMAGES["darker"](grey(32, 3), 0) == 0).all()


def test_a_shift_repeats_the_edge() -> None:
    image = (np.arange(40 * 40).reshape(1, 40, 40) % 251).astype(np.uint8)
    seen = set()
    for number in range(60):
        shifted = IMAGES["shift"](image, number)
        matches = []
        for down in (-2, 0, 2):
            for right in (-2, 0, 2):
                rows = (np.arange(40) - down).clip(0, 39)
                columns = (np.arange(40) - right).clip(0, 39)
                if (shifted[0] == image[0][np.ix_(rows, columns)]).all():
                    matches.append((down, right))
        assert len(matches) == 1, number  # 5 % of 40 pixels, and never in place
        seen.add(matches[0])
    assert seen == {(down, right) for down in (-2, 0, 2) for right in (-2, 0, 2)} - {(0, 0)}


class Streamed:
    """A split that is read in batches from elsewhere."""

    def __init__(self, split: MemorySplit) -> None:
        self.labels = split.labels
        self._split = split

    def __len__(self) -> int:
        return len(self._split)

    def batches(self, index_batches: Sequence[torch.Tensor]) -> Iterator[Batch]:
        for batch in index_batches:
            yield from self._split.batches([batch])


def test_batches_and_storage_change_nothing() -> None:
    split = MemorySplit(torch.randint(256, (10, 3, 8, 8), dtype=torch.uint8), torch.arange(10))
    in_memory, streamed = (CorruptedImages(one, IMAGES["noise"]) for one in (split, Streamed(split)))
    (whole,) = in_memory.batches([torch.arange(10)])
    parts = list(streamed.batches([torch.tensor([9, 3]), torch.tensor([0])]))
    assert len(streamed) == 10
    assert (parts[0]["pixel_values"] == whole["pixel_values"][[9, 3]]).all()
    assert (parts[1]["pixel_values"] == whole["pixel_values"][:1]).all()
    assert parts[0]["labels"].tolist() == [9, 3]
    assert (whole["pixel_values"][0] != whole["pixel_values"][1]).any()


def test_case_and_punctuation() -> None:
    assert TEXTS["lower-case"]("Straße NACH Rom", 0) == "straße nach rom"
    assert TEXTS["upper-case"]("Straße nach Rom", 0) == "STRASSE NACH ROM"
    expected = "Der alte Mann sagte Mir geht's gut und kaufte 1,5 Liter Sauer-Milch"
    assert TEXTS["no-punctuation"](SENTENCE, 0) == expected
    assert TEXTS["no-punctuation"]("...", 0) == "..."
    assert TEXTS["no-punctuation"]("你好，世界。", 0) == "你好世界"  # no blanks, but no part of a word either


def test_one_word_in_ten_has_one_typing_error() -> None:
    word = "abcdef"
    sentence = " ".join([word] * 4000)
    words = TEXTS["typos"](sentence, 3).split(" ")
    swapped = {word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in range(1, 5)}
    dropped = {word[:i] + word[i + 1 :] for i in range(1, 6)}
    doubled = {word[:i] + word[i] + word[i:] for i in range(1, 6)}
    wrong = [one for one in words if one != word]
    assert len(words) == 4000
    assert len(wrong) / 4000 == pytest.approx(0.1, abs=0.02)
    for kind in (swapped, dropped, doubled):
        assert sum(one in kind for one in wrong) / len(wrong) == pytest.approx(1 / 3, abs=0.08)
    assert set(wrong) == swapped | dropped | doubled
    assert TEXTS["typos"](sentence, 3) == TEXTS["typos"](sentence, 3)
    assert TEXTS["typos"](sentence, 3) != TEXTS["typos"](sentence, 4)
    assert TEXTS["typos"]("ab 12345 ... 6a", 0) == "ab 12345 ... 6a"

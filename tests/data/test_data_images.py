"""Images as tensors: their pixels, the two ways of storing them, and what images that cannot be read get."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from cases import most, slow
from image_files import CPU, error_of, load, pixels_of, png, random_image, write_folder, write_parquet
from PIL import Image

from leanformer.config.images import ImageDataConfig
from leanformer.data import image_files as decoding
from leanformer.data import images as images_module
from leanformer.data.images import MemorySplit, StreamSplit, load_images


def test_batches_follow_the_given_order() -> None:
    data = load("digits")
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(3))[:50]
    everything = pixels_of(data.train)
    batches = list(data.train.batches(order.split(20)))
    assert [len(batch["labels"]) for batch in batches] == [20, 20, 10]
    assert torch.equal(torch.cat([batch["pixel_values"] for batch in batches]), everything[order])
    assert torch.equal(torch.cat([batch["labels"] for batch in batches]), data.train.labels[order])
    assert batches[0]["pixel_values"].shape == (20, 1, 8, 8)


# Pixels


def test_grey_and_color(tmp_path: Path) -> None:
    color = write_folder(tmp_path / "color", "a", "b", mode="RGB")
    grey = write_folder(tmp_path / "grey", "a", "b")
    assert load(grey).channels == 1
    as_found = load(color)
    assert (as_found.channels, len(as_found.mean), len(as_found.std)) == (3, 3, 3)
    as_color = load(grey, channels=3)
    assert as_color.channels == 3
    pixels = pixels_of(as_color.train)
    assert torch.equal(pixels, pixels_of(load(grey).train).expand(-1, 3, -1, -1))
    as_grey = load(color, channels=1)
    assert pixels_of(as_grey.train).shape[1] == 1
    assert pixels_of(load_images(ImageDataConfig(source=str(color)), CPU, channels=1).train).shape[1] == 1


@pytest.mark.parametrize("storage", ["memory", "stream"])
def test_one_image_in_color_makes_all_color(tmp_path: Path, storage: str) -> None:
    write_folder(tmp_path, "a", "b")
    random_image(7, mode="RGB").save(tmp_path / "b" / "9.png")
    assert load(tmp_path, storage=storage).channels == 3


@pytest.mark.parametrize("storage", ["memory", *slow("stream")])
def test_resizing(tmp_path: Path, storage: str) -> None:
    write_folder(tmp_path, "a", "b")
    random_image(7, size=(9, 9)).save(tmp_path / "b" / "9.png")
    for data in (
        load(tmp_path, image_size=(4, 3), storage=storage),
        load_images(ImageDataConfig(source=str(tmp_path), storage=storage), CPU, image_size=(4, 3)),  # type: ignore[arg-type]
    ):
        assert (data.height, data.width) == (4, 3)
        assert pixels_of(data.train).shape[1:] == (1, 4, 3)
    assert load_images(ImageDataConfig(source=str(tmp_path), image_size=5), CPU, image_size=(4, 3)).height == 5


def test_modes_and_orientation(tmp_path: Path) -> None:
    pixels = np.arange(30, dtype=np.uint8).reshape(6, 5) * 8
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    Image.fromarray(pixels.astype(np.uint16) * 256 + 7).save(tmp_path / "a" / "16-bit.png")
    Image.merge("LA", (Image.fromarray(pixels), Image.new("L", (5, 6), 9))).save(tmp_path / "a" / "alpha.png")
    turned = Image.fromarray(np.rot90(pixels).copy())  # 5x6, to be turned by a quarter
    exif = Image.Exif()
    exif[decoding.ORIENTATION] = 6
    for index in range(8):
        turned.save(tmp_path / "b" / f"turned{index}.png", exif=exif)
    for storage in ("memory", "stream"):
        data = load(tmp_path, test_fraction=0.3, validation_fraction=0.3, storage=storage)
        assert (data.channels, data.height, data.width) == (1, 6, 5)
        for split in (data.train, data.validation, data.test):
            assert all(torch.equal(image[0], torch.from_numpy(pixels)) for image in pixels_of(split))


# Storage


def test_streamed_batches_are_those_in_memory(tmp_path: Path) -> None:
    write_parquet(tmp_path, labels=[row % 2 for row in range(60)])
    memory, stream = load(tmp_path, storage="memory"), load(tmp_path, storage="stream")
    assert isinstance(memory.train, MemorySplit)
    assert isinstance(stream.train, StreamSplit)
    assert (memory.storage, stream.storage) == ("memory", "stream")
    assert (memory.mean, memory.std) == (stream.mean, stream.std)
    for name in ("train", "validation", "test"):
        own, other = getattr(memory, name), getattr(stream, name)
        order = torch.randperm(len(own), generator=torch.Generator().manual_seed(1)).split(4)
        pairs = list(zip(own.batches(order), other.batches(order), strict=True))
        assert len(pairs) == len(order)
        for left, right in pairs:
            assert torch.equal(left["pixel_values"], right["pixel_values"])
            assert torch.equal(left["labels"], right["labels"])


def test_streaming_leaves_the_global_generator_alone(tmp_path: Path) -> None:
    write_parquet(tmp_path)
    data = load(tmp_path, storage="stream")
    before = torch.get_rng_state()
    pixels_of(data.train)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_stream_can_be_left_in_the_middle(tmp_path: Path) -> None:
    write_parquet(tmp_path)
    batches = load(tmp_path, storage="stream").train.batches(torch.arange(10).split(1))
    next(iter(batches))
    batches.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(("free", "storage"), [(1_000_000, "memory"), (1000, "stream")])
def test_storage_follows_the_free_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, storage: str
) -> None:
    write_parquet(tmp_path)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": free})())
    data = load(tmp_path)
    assert data.storage == storage
    assert any(note.startswith(f"storage: {storage} (0.0 MB of decoded images, ") for note in data.notes)


def test_statistics_of_a_stream_come_from_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images_module, "STATISTICS_SAMPLE", 5)
    write_parquet(tmp_path, labels=[0, 1] * 30)
    first, again, exact = (load(tmp_path, storage=storage) for storage in ("stream", "stream", "memory"))
    assert first.mean == again.mean
    assert first.mean != exact.mean
    assert first.mean == pytest.approx(exact.mean, abs=0.1)
    assert "mean and deviation from 5 training images (seed 0)" in first.notes


def test_plain_images_have_a_deviation_above_zero(tmp_path: Path) -> None:
    write_parquet(tmp_path, images=[png(Image.new("L", (4, 4), 51))] * 20)
    data = load(tmp_path)
    assert data.mean == pytest.approx((0.2,))
    assert data.std == (1 / 255,)


# What bad images get


def write_image(root: Path, row: int, content: Any, split: str = "train") -> None:
    """20 good images but for one row."""
    images: list[Any] = [png(random_image(index)) for index in range(20)]
    images[row] = content
    write_parquet(root, split, images=images)


def cut_png() -> dict[str, Any]:
    return {"bytes": png(random_image(6))["bytes"][:60], "path": None}


def tiff_of_floats() -> dict[str, Any]:
    file = io.BytesIO()
    Image.fromarray(np.zeros((6, 5), np.float32)).save(file, "TIFF")
    return {"bytes": file.getvalue(), "path": None}


def write_bad_test_image(root: Path) -> None:
    write_parquet(root)
    write_image(root, 17, {"bytes": b"no image", "path": None}, "test")


def write_file(root: Path, content: bytes) -> None:
    write_folder(root, "a", "b")
    (root / "b" / "3.png").write_bytes(content)


def write_odd_size(root: Path) -> None:
    write_folder(root, "a", "b")
    random_image(1, size=(7, 5)).save(root / "b" / "3.png")


PLACE = r"/train-00000-of-00001\.parquet, row {}, column 'image': "
# What writes the data, the configuration's other keys, and the message.
BAD: dict[str, tuple[Callable[[Path], Any], dict[str, Any], str]] = {
    "null": (lambda root: write_image(root, 4, None), {}, PLACE.format(4) + "no image; add it or remove the row"),
    "no content": (
        lambda root: write_image(root, 4, {"bytes": None, "path": None}),
        {},
        PLACE.format(4) + "no image; add it or remove the row",
    ),
    "corrupt": (
        lambda root: write_image(root, 6, {"bytes": b"no image", "path": "x.png"}),
        {},
        PLACE.format(6) + r"not a readable image \(of no known format\); replace or remove it",
    ),
    "corrupt in the test split": (
        write_bad_test_image,
        {},
        r"/test-00000-of-00001\.parquet, row 17, column 'image': not a readable image",
    ),
    "cut": (
        lambda root: write_image(root, 6, cut_png()),
        {"image_size": 6},
        PLACE.format(6) + r"not a readable image \(image file is truncated\); replace or remove it",
    ),
    "corrupt file": (
        lambda root: write_file(root, b"not an image"),
        {},
        r"/b/3\.png: not a readable image \(of no known format\); replace or remove it",
    ),
    "cut file": (
        lambda root: write_file(root, cut_png()["bytes"]),
        {},
        r"/b/3\.png: not a readable image \(image file is truncated\); replace or remove it",
    ),
    "corrupt file, streamed": (
        lambda root: write_file(root, b""),
        {"storage": "stream"},
        r"/b/3\.png: not a readable image \(of no known format\); replace or remove it",
    ),
    "32 bits": (
        lambda root: write_image(root, 0, tiff_of_floats()),
        {},
        PLACE.format(0) + r"pixels of 32 bits \(Pillow's mode F\); 8 or 16 bits are read",
    ),
    "two sizes": (
        write_odd_size,
        {"storage": "memory"},
        r"/b/3\.png: 7x5 pixels \(height x width\), but .*/a/\d\.png has 6x5; set data\.image_size to resize all",
    ),
    "two sizes in parquet": (
        lambda root: write_image(root, 3, png(random_image(3, size=(8, 8)))),
        {"storage": "stream"},
        PLACE.format(r"\d+") + r"\dx\d pixels \(height x width\), but .*, row \d+, column 'image' has \dx\d; set data",
    ),
}


@pytest.mark.parametrize("case", most(BAD, "no content", "corrupt in the test split", "cut", "two sizes in parquet"))
def test_a_bad_image_is_one_clear_line(case: str, tmp_path: Path) -> None:
    write, keys, message = BAD[case]
    write(tmp_path)
    assert re.search(message, error_of(tmp_path, **keys))


def test_a_corrupt_image_met_while_streaming(tmp_path: Path) -> None:
    write_image(tmp_path, 6, cut_png())
    write_parquet(tmp_path, "validation", labels=[0, 1])
    write_parquet(tmp_path, "test", labels=[0, 1])
    message = error_of(tmp_path, storage="stream", image_size=6, channels=1)  # by the training images' statistics
    assert re.search(PLACE.format(6) + "not a readable image", message)

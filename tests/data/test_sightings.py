"""What is seen in images: nothing, several frames, and images that stand in two splits."""

from __future__ import annotations

import io
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases import slow
from image_files import load, pixels_of, png, random_image, write_folder, write_parquet
from PIL import Image

from leanformer.core.warning import StudyWarning
from leanformer.data.images import ImageData

STORAGE = pytest.mark.parametrize("storage", ["memory", *slow("stream")])


def warned(data: ImageData, code: str) -> StudyWarning:
    (warning,) = [warning for warning in data.warnings if warning.code == code]
    return warning


def content(image: Image.Image, kind: str, **keys: Any) -> dict[str, Any]:
    file = io.BytesIO()
    image.save(file, kind, **keys)
    return {"bytes": file.getvalue(), "path": None}


def write_splits(root: Path, **rows: list[Any]) -> Path:
    """Images of each split, of two classes by turns."""
    for split, images in rows.items():
        write_parquet(root, split, [row % 2 for row in range(len(images))], images=images)
    return root


def different(count: int, first: int = 0) -> list[Any]:
    return [png(random_image(first + number)) for number in range(count)]


# Images that show nothing


def icon(number: int) -> dict[str, Any]:
    image = Image.new("RGB", (5, 6), "black")
    image.putalpha(random_image(number))
    return png(image)


def blank_film(number: int, kind: str) -> dict[str, Any]:
    return content(Image.new("L", (5, 6)), kind, save_all=True, append_images=[random_image(number)])


@STORAGE
def test_shapes_in_the_transparency(tmp_path: Path, storage: str) -> None:
    source = write_splits(
        tmp_path, train=[icon(n) for n in range(12)] + different(8), validation=different(2), test=different(2, 40)
    )
    warning = warned(load(source, storage=storage), "constant-images")
    assert warning.count == 12
    assert re.match(
        r"images of one color everywhere: 12 of 24, such as .*row 0, .*; what they show is in the transparency",
        warning.sentence,
    )


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "PNG"])
def test_blank_first_frames(tmp_path: Path, kind: str) -> None:
    films = [blank_film(number, kind) for number in range(4)]
    source = write_splits(tmp_path, train=[*different(16), *films], validation=different(2, 50), test=different(2, 60))
    data = load(source)
    assert warned(data, "several-frames").count == 4
    assert "row 16" in warned(data, "several-frames").sentence
    warning = warned(data, "constant-images")
    assert warning.count == 4
    assert "first frame is blank" in warning.sentence
    assert torch.equal(pixels_of(data.train)[16:], torch.zeros(4, data.channels, 6, 5, dtype=torch.uint8))


def test_frames_that_are_previews_draw_no_warning(tmp_path: Path) -> None:
    photos = [
        content(random_image(n, mode="RGB"), "MPO", save_all=True, append_images=[random_image(n + 1, mode="RGB")])
        for n in range(20)
    ]
    source = write_splits(tmp_path, train=photos, validation=different(2, 50), test=different(2, 60))
    assert not load(source).warnings


def test_plain_images_without_a_known_cause(tmp_path: Path) -> None:
    plain = [png(Image.new("RGB", (5, 6), (9, 200, 30)))]
    source = write_splits(tmp_path, train=plain + different(19), validation=different(2, 50), test=different(2, 60))
    assert "a model can learn nothing from them" in warned(load(source), "constant-images").sentence


# 16 bits


def deep(values: np.ndarray, kind: str = "PNG") -> dict[str, Any]:
    return content(Image.fromarray(values.astype(np.uint16)), kind)


def shades(number: int, top: int) -> np.ndarray:
    """6x5 values from 0 to ``top``, both among them."""
    values = np.random.default_rng(number).integers(0, top + 1, (6, 5))
    values[0, :2] = 0, top
    return values


@pytest.mark.parametrize(
    ("top", "bits", "storage", "kind"),
    [
        (200, 8, "memory", "PNG"),
        (255, 8, "memory", "TIFF"),
        (256, 9, "memory", "PNG"),
        (4095, 12, "memory", "TIFF"),
        *slow((4095, 12, "stream", "PNG")),
        (9000, 14, "memory", "PNG"),
        (65535, 16, "stream", "TIFF"),
    ],
)
def test_sixteen_bits_become_eight_by_their_range(tmp_path: Path, top: int, bits: int, storage: str, kind: str) -> None:
    train = [shades(number, top) for number in range(20)]
    test = [shades(100, top // 2), np.full((6, 5), min(65535, 2 * top + 2))]
    source = write_splits(
        tmp_path,
        train=[deep(values, kind) for values in train],
        validation=different(2, 50),
        test=[deep(values, kind) for values in test],
    )
    data = load(source, storage=storage)
    assert f"images of 16 bits: the training images use {bits} of them, which are scaled to 8" in data.notes
    assert data.form.bits == bits
    for split, images in ((data.train, train), (data.test, test)):
        wanted = np.stack(images) // 2 ** (bits - 8)
        assert np.array_equal(pixels_of(split)[:, 0].numpy(), wanted.clip(0, 255))


@STORAGE
def test_images_of_eight_and_of_sixteen_bits(tmp_path: Path, storage: str) -> None:
    images = [*different(19), deep(shades(3, 1000))]
    source = write_splits(tmp_path, train=images, validation=different(2, 50), test=different(2, 60))
    data = load(source, storage=storage)
    pixels = pixels_of(data.train)
    assert np.array_equal(pixels[19, 0].numpy(), shades(3, 1000) // 4)
    assert np.array_equal(pixels[0, 0].numpy(), np.array(random_image(0)))


def test_sixteen_bits_in_the_test_split_alone(tmp_path: Path) -> None:
    source = write_splits(tmp_path, train=different(20), validation=different(2, 50), test=[deep(shades(3, 1000))] * 2)
    data = load(source)
    assert "images of 16 bits: the training images have 8, all 16 count, which are scaled to 8" in data.notes
    assert np.array_equal(pixels_of(data.test)[0, 0].numpy(), shades(3, 1000) // 256)


def test_sixteen_bits_in_a_pgm_file(tmp_path: Path) -> None:
    """Pillow opens these in a mode of 32 bits, scaled to 16."""
    write_folder(tmp_path, "a", "b")
    for file in tmp_path.rglob("*.png"):
        Image.fromarray(shades(int(file.stem), 65535).astype(np.uint16)).save(file.with_suffix(".pgm"))
        file.unlink()
    data = load(tmp_path)
    assert data.form.bits == 16
    assert data.channels == 1
    assert any(np.array_equal(pixels_of(data.train)[0, 0].numpy(), shades(n, 65535) // 256) for n in range(10))


def test_one_bright_image_darkens_the_rest_to_nothing(tmp_path: Path) -> None:
    images = [deep(shades(n, 200)) for n in range(19)] + [deep(shades(3, 65535))]
    source = write_splits(tmp_path, train=images, validation=different(2, 50), test=different(2, 60))
    warning = warned(load(source), "constant-images")
    assert warning.count == 19
    assert "their values of 16 bits are small for the range" in warning.sentence


def png_in_deep_color(values: np.ndarray) -> dict[str, Any]:
    """A PNG file of (H, W, 3) values of 16 bits, which Pillow does not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
    end = chunk(b"IEND", b"")
    return {"bytes": b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + end, "path": None}


def test_colors_of_sixteen_bits_draw_a_warning(tmp_path: Path) -> None:
    values = np.stack([shades(number, 255) for number in range(3)], axis=2)
    images = [png_in_deep_color(values), png_in_deep_color(values * 256)]
    source = write_splits(tmp_path, train=images + different(18), validation=different(2, 50), test=different(2, 60))
    data = load(source)
    assert np.array_equal(pixels_of(data.train)[1].permute(1, 2, 0).numpy(), values)
    assert warned(data, "cut-colors").count == 2
    assert warned(data, "constant-images").count == 1
    assert "their values of 16 bits are small for the range that is read" in warned(data, "constant-images").sentence


# Images in two splits


@STORAGE
def test_images_in_two_splits_are_counted(tmp_path: Path, storage: str) -> None:
    source = write_splits(
        tmp_path,
        train=different(20),
        validation=[*different(1, 5), *different(3, 50)],
        test=[*different(2, 60), *different(3, 7)],
    )
    data = load(source, storage=storage)
    validation, test = data.warnings
    assert (validation.code, validation.count) == ("leaked-images", 1)
    assert validation.sentence.startswith(
        "validation images that are pixel for pixel in the training split: 1 of 4, such as"
    )
    assert (test.code, test.count) == ("leaked-images", 3)
    assert re.search(r"^test images .*: 3 of 5, such as .*/test-.*row 2, .*, which is .*/train-.*row 7,", test.sentence)
    assert not any("pixel for pixel" in note for note in data.notes)
    assert not load(source, storage=storage, duplicates="none").warnings


def test_the_same_pixels_in_other_files_are_the_same_image(tmp_path: Path) -> None:
    copied = content(random_image(4), "BMP")
    source = write_splits(tmp_path, train=different(20), validation=different(2, 50), test=[copied, *different(1, 60)])
    assert warned(load(source), "leaked-images").count == 1


def test_splits_that_share_nothing_are_told_of(tmp_path: Path) -> None:
    write_parquet(tmp_path)
    data = load(tmp_path)
    assert not data.warnings
    assert "no validation or test image is pixel for pixel in the training split" in data.notes


@pytest.mark.long
def test_the_built_in_digits_share_nothing() -> None:
    assert not load("digits").warnings


def scene(number: int, side: int = 48) -> Image.Image:
    coarse = Image.fromarray(np.random.default_rng(number).integers(0, 256, (6, 6), dtype=np.uint8))
    return coarse.resize((side, side), Image.Resampling.BICUBIC)


@STORAGE
def test_near_duplicates_by_an_option(tmp_path: Path, storage: str) -> None:
    train = [png(scene(number)) for number in range(20)]
    again = [content(scene(number), "JPEG", quality=60) for number in (3, 8)]
    fresh = [png(scene(number)) for number in range(50, 60)]
    source = write_splits(tmp_path, train=train, validation=fresh[:2], test=[png(scene(5)), *fresh[2:], *again])
    assert [warning.code for warning in load(source, storage=storage).warnings] == ["leaked-images"]
    data = load(source, storage=storage, duplicates="near")
    assert [warning.code for warning in data.warnings] == ["leaked-images", "near-duplicates"]
    warning = warned(data, "near-duplicates")
    assert warning.count == 2
    assert re.search(
        r"test images that look like .*: 2 of 11, such as .*row 9, .*, which looks like .*/train-.*row 3,",
        warning.sentence,
    )


def test_plain_images_are_no_near_duplicates(tmp_path: Path) -> None:
    grey = [png(Image.new("L", (5, 6), value)) for value in range(10, 30)]
    source = write_splits(
        tmp_path, train=grey, validation=different(2), test=[png(Image.new("L", (5, 6), 5)), *different(1, 9)]
    )
    assert [warning.code for warning in load(source, duplicates="near").warnings] == ["constant-images"]

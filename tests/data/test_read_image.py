"""Image files of every kind, read in training and by ``lf.read_image`` alike."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_files import error_of, load, pixels_of, random_image, write_folder
from PIL import Image
from places import ROOT

import leanformer as lf
from leanformer.data.image_files import ORIENTATION, read_header


def write_directory(root: Path, channels: int, bits: int | None = None) -> Path:
    """What ``read_image`` needs of a model."""
    root.mkdir(parents=True, exist_ok=True)
    settings = {"image_mean": [0.5] * channels, "bits_used": bits}
    (root / "preprocessor_config.json").write_text(json.dumps(settings))
    return root


def read_both(root: Path, file: Path, channels: int) -> np.ndarray:
    """(H, W, C) pixels of the file as training reads it, checked to be those that ``read_image`` gives."""
    data = load(root, channels=channels, validation_fraction=0.3, test_fraction=0.3)
    own = lf.read_image(file, write_directory(root.parent / "model", channels, data.form.bits))
    assert own.mode == {1: "L", 3: "RGB"}[channels]
    pixels = np.array(own).reshape(own.height, own.width, channels)
    everything = torch.cat([pixels_of(split) for split in (data.train, data.validation, data.test)])
    assert any(np.array_equal(image.permute(1, 2, 0).numpy(), pixels) for image in everything)
    return pixels


def write_one_among_others(root: Path, name: str, save: Callable[[Path], object], mode: str = "RGB") -> Path:
    write_folder(root, "a", "b", mode=mode)
    save(root / "a" / name)
    return root / "a" / name


def turned(value: int, exif: bool = True) -> Callable[[Path], object]:
    """Saves an image that is upright once it is turned as the orientation says."""

    def save(file: Path) -> None:
        upright = random_image(77, mode="RGB")
        inverse = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}[value]
        tags = Image.Exif()
        tags[ORIENTATION] = value
        packet = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><d tiff:Orientation="{value}"/></x:xmpmeta>'.encode()
        keys: dict[str, Any] = {"exif": tags} if exif else {"xmp": packet}
        if file.suffix == ".webp":
            keys["lossless"] = True
        upright.transpose(inverse).save(file, **keys)

    return save


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.webp"])
@pytest.mark.parametrize("value", [3, 6, 8])
def test_the_orientation_is_applied(tmp_path: Path, name: str, value: int) -> None:
    file = write_one_among_others(tmp_path / "images", name, turned(value))
    assert np.array_equal(read_both(tmp_path / "images", file, 3), np.array(random_image(77, mode="RGB")))


def test_an_orientation_in_xmp_is_applied(tmp_path: Path) -> None:
    file = write_one_among_others(tmp_path / "images", "x.webp", turned(6, exif=False))
    with Image.open(file) as image:
        assert read_header(image)[1:3] == (6, 5)
    assert np.array_equal(read_both(tmp_path / "images", file, 3), np.array(random_image(77, mode="RGB")))


def test_an_image_for_print_is_read_in_color(tmp_path: Path) -> None:
    image = Image.new("CMYK", (5, 6), (255, 0, 0, 51))  # cyan, and a fifth of black
    for name in ("x.jpg", "x.tif"):
        file = write_one_among_others(
            tmp_path / name / "images",
            name,
            lambda path: image.save(path, quality=100) if path.suffix == ".jpg" else image.save(path),
        )
        pixels = read_both(tmp_path / name / "images", file, 3).astype(int)
        assert np.abs(pixels - (0, 204, 204)).max() <= 3


def palette() -> Image.Image:
    image = Image.new("P", (5, 6), 1)
    image.putpalette([200, 0, 0, 0, 90, 0, 0, 0, 255])
    image.putpixel((0, 0), 0)
    image.putpixel((1, 0), 2)
    return image


def test_a_palette_with_transparency_keeps_its_colors(tmp_path: Path) -> None:
    for name in ("x.png", "x.gif"):
        file = write_one_among_others(
            tmp_path / name / "images", name, lambda path: palette().save(path, transparency=2)
        )
        pixels = read_both(tmp_path / name / "images", file, 3)
        assert pixels[0, :3].tolist() == [[200, 0, 0], [0, 0, 255], [0, 90, 0]]


def test_one_bit_becomes_black_and_white(tmp_path: Path) -> None:
    bits = random_image(5).convert("1")
    for name in ("x.png", "x.pbm", "x.tif"):
        file = write_one_among_others(tmp_path / name / "images", name, bits.save, mode="L")
        pixels = read_both(tmp_path / name / "images", file, 1)
        assert np.array_equal(pixels[..., 0], np.where(np.array(bits), 255, 0))


def test_a_progressive_photo_is_read_whole(tmp_path: Path) -> None:
    file = write_one_among_others(
        tmp_path / "images", "x.jpg", lambda path: random_image(5, mode="RGB").save(path, progressive=True, quality=95)
    )
    plain = tmp_path / "plain.jpg"
    random_image(5, mode="RGB").save(plain, quality=95)
    assert np.array_equal(read_both(tmp_path / "images", file, 3), np.array(Image.open(plain)))


def test_sixteen_bits_are_scaled_as_in_training(tmp_path: Path) -> None:
    values = np.arange(30, dtype=np.uint16).reshape(6, 5) * 100
    write_folder(tmp_path / "images", "a", "b")
    for index in range(8):
        Image.fromarray(values).save(tmp_path / "images" / "a" / f"deep{index}.png")
    file = tmp_path / "images" / "a" / "deep0.png"
    for channels in (1, 3):
        assert np.array_equal(read_both(tmp_path / "images", file, channels)[..., 0], values // 16)


def test_a_cut_photo_is_one_clear_line(tmp_path: Path) -> None:
    write_folder(tmp_path / "images", "a", "b", mode="RGB", size=(60, 60))
    file = tmp_path / "images" / "b" / "x.jpg"
    random_image(5, size=(60, 60), mode="RGB").save(file)
    file.write_bytes(file.read_bytes()[:-800])
    assert re.search(r"/b/x\.jpg: not a readable image \(image file is truncated", error_of(tmp_path / "images"))
    with pytest.raises(
        lf.LeanformerError, match=r"x\.jpg: not a readable image \(image file is truncated.*; replace it"
    ):
        lf.read_image(file, write_directory(tmp_path / "model", 3))


def test_what_cannot_be_read_is_one_clear_line(tmp_path: Path) -> None:
    model = write_directory(tmp_path / "model", 3)
    with pytest.raises(lf.LeanformerError, match=r"none\.png: not a readable image \(.*No such file"):
        lf.read_image(tmp_path / "none.png", model)
    (tmp_path / "text.png").write_text("text")
    with pytest.raises(lf.LeanformerError, match=r"text\.png: not a readable image \(of no known format\); replace it"):
        lf.read_image(tmp_path / "text.png", model)
    Image.fromarray(np.zeros((6, 5), np.float32)).save(tmp_path / "floats.tif")
    with pytest.raises(lf.LeanformerError, match=r"floats\.tif: pixels of 32 bits"):
        lf.read_image(tmp_path / "floats.tif", model)
    random_image(1).save(tmp_path / "good.png")
    with pytest.raises(lf.LeanformerError, match=r"preprocessor_config\.json: does not say how images are read"):
        lf.read_image(tmp_path / "good.png", tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(lf.LeanformerError, match=r"preprocessor_config\.json: does not say how images are read"):
        lf.read_image(tmp_path / "good.png", tmp_path)


def test_a_file_that_is_not_there_is_said_without_the_systems_numbers(tmp_path: Path) -> None:
    random_image(1).save(tmp_path / "good.png")
    with pytest.raises(lf.LeanformerError) as raised:
        lf.read_image(tmp_path / "good.png", tmp_path / "x")
    assert str(raised.value).startswith(f"{tmp_path / 'x' / 'preprocessor_config.json'}: does not say how images are")
    assert "No such file or directory" in str(raised.value)
    assert "Errno" not in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_mean": [0.5, 0.5]}, r"says image_mean: \[0\.5, 0\.5\]; it must be a list of one number"),
        ({"image_mean": "abc"}, "says image_mean: 'abc'; it must be a list of one number"),
        ({"image_mean": [0.5], "bits_used": 3}, "says bits_used: 3; it must be a whole number from 8 to 16"),
        ({"image_mean": [0.5], "bits_used": "x"}, "says bits_used: 'x'; it must be a whole number from 8 to 16"),
        ([1, 2], "does not say how images are read"),
        ({}, "does not say how images are read"),
    ],
)
def test_the_file_that_is_wrong_is_named(tmp_path: Path, settings: Any, message: str) -> None:
    random_image(1).save(tmp_path / "good.png")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(lf.LeanformerError, match=rf"/preprocessor_config\.json: {message}"):
        lf.read_image(tmp_path / "good.png", tmp_path)


def test_a_pipe_is_no_image(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(lf.LeanformerError, match=r"/pipe\.png: is a pipe, not a file; replace or remove it"):
        lf.read_image(tmp_path / "pipe.png", write_directory(tmp_path / "model", 3))


def test_pillow_warns_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)  # of which the next has some more
    file = write_one_among_others(tmp_path / "images", "x.png", lambda path: random_image(5, (7, 8), "RGB").save(path))
    with warnings.catch_warnings(action="error"):
        load(tmp_path / "images", image_size=6)
        lf.read_image(file, write_directory(tmp_path / "model", 3))
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(file).close()


@pytest.mark.long
def test_the_snippet_of_the_quick_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run as it stands, after its study (some seconds) on images of 16 bits that are to be turned."""
    page = (ROOT / "docs" / "quickstart.md").read_text()
    (snippet,) = re.findall(r"```python\n(import torch\nimport leanformer.*?)```", page, re.DOTALL)
    study = next(text for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "name: photos" in text)
    tags = Image.Exif()
    tags[ORIENTATION] = 6
    for number, name in enumerate(("cat", "dog")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(1, 21):  # a bright left half, or a bright right half, once upright
            values = np.random.default_rng(100 * number + index).integers(0, 1000, (8, 12))
            values[:, 6 * number : 6 * number + 6] += 3000
            Image.fromarray(np.rot90(values).astype(np.uint16)).save(
                tmp_path / "photos" / name / f"{index:03}.png", exif=tags
            )
    (tmp_path / "photos.yaml").write_text(study)
    overrides = ["train.epochs=4", "train.learning_rate=1e-2", "train.batch_size=4", "seeds=[0]", "measure.repeats=1"]
    overrides += [
        "measure.latency_calls=2",
        "measure.throughput_batch=4",
        'candidates={"minimal": {"plan": {"*.mlp": none}}}',
    ]
    monkeypatch.chdir(tmp_path)
    result = lf.run(lf.read_study("photos.yaml", overrides), "runs/photos")
    assert result.results["data"]["channels"] == 1
    found: dict[str, Any] = {}
    exec(snippet, found)
    assert capsys.readouterr().out.splitlines()[-1] == "cat"
    with Image.open("photos/cat/001.png") as image:
        assert found["image"].size == image.size[::-1]
    assert np.asarray(found["image"]).max() > 150  # 12 bits in use: nothing is left of the upper 8 of 16

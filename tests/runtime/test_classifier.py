"""Classifiers that are opened: their input is that of the study, to the last bit."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exported import IMAGES, write_classifier
from image_files import load, random_image, write_folder
from PIL import Image
from transformers import PreTrainedModel

from leanformer.core.errors import LeanformerError
from leanformer.data.image_batches import ImageBatches
from leanformer.data.image_files import Resizing
from leanformer.data.preprocessing import shipped_processor
from leanformer.measure.inputs import image_input
from leanformer.runtime import Classifier
from leanformer.runtime.manifest import ImageInput


def opened(directory: Path) -> tuple[Classifier, np.ndarray]:
    weights = write_classifier(directory)
    from leanformer import runtime

    classifier = runtime.load(directory, threads=1)
    assert isinstance(classifier, Classifier)
    return classifier, weights


def sixteen_bit(root: Path) -> Path:
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for index in range(10):
            pixels = np.random.default_rng(index).integers(0, 3000, (6, 5)).astype(np.uint16)
            Image.fromarray(pixels).save(root / name / f"{index}.png")
    return root


FOLDERS: dict[str, tuple[Callable[[Path], Path], dict[str, Any]]] = {
    "grey": (lambda root: write_folder(root, "cat", "dog"), {}),
    "resized": (lambda root: write_folder(root, "cat", "dog", size=(9, 7)), {"image_size": (6, 8)}),
    "in color": (lambda root: write_folder(root, "cat", "dog", size=(9, 7), mode="RGB"), {"image_size": 6}),
    "color made grey": (lambda root: write_folder(root, "cat", "dog", mode="RGB"), {"channels": 1}),
    "of 12 bits": (sixteen_bit, {}),
}


class Nothing:
    """An engine that is not asked."""

    def logits(self, pixel_values: np.ndarray) -> np.ndarray:
        raise AssertionError


@pytest.mark.parametrize("folder", FOLDERS)
def test_inputs_are_those_of_the_study_to_the_last_bit(
    folder: str, tmp_path: Path, make_model: Callable[..., PreTrainedModel]
) -> None:
    """From image files by way of the files that a study ships beside its model."""
    make, keys = FOLDERS[folder]
    data = load(make(tmp_path / "images"), **keys)
    batches = ImageBatches(data, 8, (), data.mean, data.std)
    form = data.form
    processor = shipped_processor(
        form.resizing or Resizing((form.height, form.width)), data.mean, data.std, form.on_white, form.bits
    )
    (tmp_path / "preprocessor_config.json").write_text(processor.to_json_string())
    model = make_model(image_size=[data.height, data.width], patch_size=1, num_channels=data.channels, num_labels=2)
    images = ImageInput.model_validate_json(image_input(str(tmp_path), model).model_dump_json())  # as in a manifest

    files = sorted((tmp_path / "images").rglob("*.png"))
    order = [*data.train.labels, *data.validation.labels, *data.test.labels]
    assert len(order) == len(files)
    wanted = torch.cat(
        [
            batch["pixel_values"]
            for split in (data.train, data.validation, data.test)
            for batch in batches.evaluation(split)
        ]
    )
    got = Classifier(images, Nothing()).pixel_values(files)
    # In another order: the study has drawn its splits.
    assert sorted(row.tobytes() for row in got) == sorted(row.tobytes() for row in wanted.numpy())


def test_answers_are_the_softmax_of_the_logits(tmp_path: Path) -> None:
    classifier, weights = opened(tmp_path)
    pictures = [np.random.default_rng(number).integers(0, 256, (4, 5), dtype=np.uint8) for number in range(5)]
    pixels = (np.stack(pictures) / 255 - 0.3) / 0.7
    logits = pixels.reshape(5, -1) @ weights
    wanted = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(classifier.probabilities(pictures, batch=2), wanted, rtol=1e-5)
    predictions = classifier.predict(np.stack(pictures), batch=3)
    assert [prediction.label for prediction in predictions] == [IMAGES.classes[row.argmax()] for row in wanted]
    for prediction, row in zip(predictions, wanted, strict=True):
        assert list(prediction.probabilities) == list(classifier.classes)
        assert prediction.probability == max(prediction.probabilities.values()) == pytest.approx(row.max())
        assert sum(prediction.probabilities.values()) == pytest.approx(1)
    assert classifier.predict([]) == []
    assert classifier.probabilities([]).shape == (0, 3)
    np.testing.assert_allclose(classifier.logits(classifier.pixel_values(pictures)), logits, rtol=1e-5, atol=1e-5)


def test_a_file_an_image_and_pixels_are_the_same(tmp_path: Path) -> None:
    classifier, _ = opened(tmp_path)
    image = random_image(3, (9, 7))
    image.save(tmp_path / "a.png")
    turned = image.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    turned.save(tmp_path / "turned.png", exif=exif)
    wanted = classifier.predict(image)
    for same in (tmp_path / "a.png", str(tmp_path / "a.png"), tmp_path / "turned.png", [np.asarray(image)]):
        assert classifier.predict(same) == wanted
    with Image.open(tmp_path / "turned.png") as held:
        assert classifier.predict(held) == wanted
        assert held.size == turned.size  # it is not changed
    deep = np.asarray(image).astype(np.uint16) * np.uint16(256)
    assert classifier.predict([deep]) == wanted


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        ("none.png", "none.png: no such file; give image files"),
        ("text.png", "text.png: not a readable image (of no known format); replace it"),
        (np.zeros((4, 5)), "image 1: an array of float64 and shape (4, 5); give (height, width) or (height, width, 3)"),
        (np.zeros((4, 5, 4), np.uint8), "image 1: an array of uint8 and shape (4, 5, 4)"),
        (Image.new("F", (5, 4)), "image 1: pixels of 32 bits"),
        (7, "image 1: give a path, an image of Pillow or an array of pixels, not 7"),
    ],
)
def test_what_is_no_image_is_named(picture: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.png").write_text("no image")
    classifier, _ = opened(tmp_path / "model")
    with pytest.raises(LeanformerError, match=f"^{re.escape(message)}"):
        classifier.predict([picture])


def test_sizes_that_do_not_fit_are_named() -> None:
    small = np.zeros((3, 3), np.uint8)
    cropped = Classifier(IMAGES.model_copy(update={"size": None, "crop": (4, 5)}), Nothing())
    with pytest.raises(LeanformerError, match=r"^image 1: 3x3 pixels .* of which the model takes the middle 4x5"):
        cropped.pixel_values([small])
    whole = Classifier(IMAGES.model_copy(update={"size": None}), Nothing())
    with pytest.raises(LeanformerError, match=r"^image 1: 3x3 pixels .*; the model takes images of 4x5"):
        whole.pixel_values([small])
    with pytest.raises(
        LeanformerError, match=r"^pixel_values: of shape \(1, 1, 3, 3\); the model takes \(batch, 1, 4, 5\)"
    ):
        whole.logits(np.zeros((1, 1, 3, 3), np.float32))
    with pytest.raises(LeanformerError, match=r"^batch: give a whole number of 1 or more, not 0"):
        whole.predict([small], batch=0)

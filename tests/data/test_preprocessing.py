"""What a trained model's directory says of its images: honored as transformers does it, or refused by name."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases import most, slow, some
from image_files import CPU, random_image, write_folder
from PIL import Image
from transformers import AutoImageProcessor, PreTrainedModel
from transformers.models.deit.image_processing_pil_deit import DeiTImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

import leanformer as lf
from leanformer.config.images import ImageStudy
from leanformer.config.reader import make_study
from leanformer.tasks.images import ImageClassification

MakeModel = Callable[..., PreTrainedModel]
SIDE = 16
SQUARE = {"height": SIDE, "width": SIDE}
SIZES = ((20, 31), (16, 16), (45, 17), (64, 64), (23, 24))
GREY_LEVEL = 1 / 255


def photo(number: int, size: tuple[int, int]) -> Image.Image:
    """A smooth image with some noise, in color."""
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((size[1], size[0]), Image.Resampling.BICUBIC), np.int64)
    return Image.fromarray((smooth + rng.integers(-20, 21, smooth.shape)).clip(0, 255).astype(np.uint8))


def write_photos(root: Path) -> Path:
    for number, name in enumerate(("cat", "dog")):
        for split in ("train", "validation", "test"):
            (root / split / name).mkdir(parents=True)
            for index, size in enumerate(SIZES):
                photo(100 * number + 10 * index + len(split), size).save(root / split / name / f"{index}.png")
    return root


def write_model(
    make_model: MakeModel, directory: Path, processor: Any, family: str = "vit", names: tuple[str, ...] = ("cat", "dog")
) -> Path:
    model = make_model(family, num_channels=3, num_labels=len(names), image_size=SIDE)
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: number for number, name in enumerate(names)}
    model.save_pretrained(directory)
    if processor is not None:
        content = processor if isinstance(processor, dict) else json.loads(processor.to_json_string())
        (directory / "preprocessor_config.json").write_text(json.dumps(content))
    return directory


def task_of(source: Path, model: Path, fresh: bool = False, **data: Any) -> ImageClassification:
    study = make_study(
        {
            "name": "x",
            "data": {"source": str(source), **data},
            "baseline": {"model": str(model), "fresh": fresh},
            "candidates": {"no-mlp": {"plan": {"*.mlp": "none"}}},
        }
    )
    assert isinstance(study, ImageStudy)
    return ImageClassification(study, CPU)


def batch_of(task: ImageClassification) -> torch.Tensor:
    (batch,) = task.batches.evaluation(task.data.test)
    return batch["pixel_values"]


def expected(source: Path, processor: Any) -> torch.Tensor:
    """The test images as transformers' own processor gives them."""
    files = [source / "test" / name / f"{index}.png" for name in ("cat", "dog") for index in range(len(SIZES))]
    return torch.cat([processor(Image.open(file), return_tensors="pt").pixel_values for file in files])


PROCESSORS: dict[str, tuple[str, Any]] = {
    "vit": ("vit", ViTImageProcessorPil(size=SQUARE)),
    "vit, bicubic": ("vit", ViTImageProcessorPil(size=SQUARE, resample=3)),
    "vit, its own numbers": (
        "vit",
        ViTImageProcessorPil(size=SIDE, image_mean=[0.1, 0.2, 0.3], image_std=[0.5, 0.6, 0.7]),
    ),
    "vit, not normalized": ("vit", ViTImageProcessorPil(size=SQUARE, do_normalize=False)),
    "vit, other scale": ("vit", ViTImageProcessorPil(size=SQUARE, rescale_factor=1 / 127.5)),
    "vit, not scaled": (
        "vit",
        ViTImageProcessorPil(size=SQUARE, do_rescale=False, image_mean=[127.0] * 3, image_std=[50.0] * 3),
    ),
    "deit": ("deit", DeiTImageProcessorPil(size={"height": 20, "width": 20}, crop_size=SQUARE)),
    "deit, uneven": ("deit", DeiTImageProcessorPil(size={"height": 21, "width": 25}, crop_size=SQUARE, resample=1)),
    "deit, shorter side": ("deit", DeiTImageProcessorPil(size={"shortest_edge": 19}, crop_size=SQUARE)),
    "deit, cut alone": ("deit", DeiTImageProcessorPil(do_resize=False, crop_size=SQUARE)),
    "vit of a deit": ("deit", ViTImageProcessorPil(size=SQUARE, resample=0)),
}


@pytest.mark.parametrize("case", some(PROCESSORS, "vit", "deit, uneven"))
def test_images_are_prepared_as_transformers_does(case: str, make_model: MakeModel, tmp_path: Path) -> None:
    family, processor = PROCESSORS[case]
    source = write_photos(tmp_path / "photos")
    model = write_model(make_model, tmp_path / "model", processor, family)
    task = task_of(source, model)
    theirs = expected(source, processor)
    std = torch.tensor(task.batches.std).view(-1, 1, 1)
    assert batch_of(task).shape == theirs.shape
    assert ((batch_of(task) - theirs).abs() * std).max() < GREY_LEVEL / 100
    assert torch.equal(batch_of(task), batch_of(task_of(source, model, storage="stream")))
    # What ships does what was done, and is read back as the same.
    task.save_companions(tmp_path / "model")
    shipped = AutoImageProcessor.from_pretrained(tmp_path / "model")
    assert torch.allclose(expected(source, shipped), batch_of(task), atol=1e-5, rtol=1e-5)
    again = task_of(source, model)
    assert torch.allclose(batch_of(again), batch_of(task), atol=1e-6, rtol=1e-5)
    assert any(note == f"images are prepared as {model} says" for note in task.notes)


def test_a_fresh_model_ships_what_was_done(tmp_path: Path) -> None:
    source = write_photos(tmp_path / "photos")
    config = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
        "patch_size": 4,
    }
    for channels in (1, 3):
        study = make_study(
            {
                "name": "x",
                "data": {"source": str(source), "image_size": [12, 20], "channels": channels},
                "baseline": {"model": "vit", "config": config},
                "candidates": {"no-mlp": {"plan": {"*.mlp": "none"}}},
            }
        )
        assert isinstance(study, ImageStudy)
        task = ImageClassification(study, CPU)
        task.save_companions(tmp_path)
        shipped = AutoImageProcessor.from_pretrained(tmp_path)
        files = [source / "test" / name / f"{index}.png" for name in ("cat", "dog") for index in range(len(SIZES))]
        theirs = torch.cat([shipped(lf.read_image(file, tmp_path), return_tensors="pt").pixel_values for file in files])
        assert theirs.shape[1] == channels
        assert torch.allclose(theirs, batch_of(task), atol=1e-5)


def test_transparency_on_white_where_the_directory_says_so(make_model: MakeModel, tmp_path: Path) -> None:
    processor = ViTImageProcessorPil(size=SQUARE, do_convert_rgb=True)
    source = write_photos(tmp_path / "photos")
    for name in ("cat", "dog"):
        for index, size in enumerate(SIZES):
            image = photo(index, size)
            image.putalpha(random_image(index, size))
            image.save(source / "test" / name / f"{index}.png")
    model = write_model(make_model, tmp_path / "model", processor)
    task = task_of(source, model)
    assert (batch_of(task) - expected(source, processor)).abs().max() < GREY_LEVEL / 50
    task.save_companions(model)
    file = source / "test" / "cat" / "0.png"
    shipped = AutoImageProcessor.from_pretrained(model)(lf.read_image(file, model), return_tensors="pt").pixel_values
    assert torch.allclose(shipped[0], batch_of(task)[0], atol=1e-5)


def test_the_study_takes_the_place_of_the_directory(make_model: MakeModel, tmp_path: Path) -> None:
    source = write_photos(tmp_path / "photos")
    processor = DeiTImageProcessorPil(size={"height": 20, "width": 20}, crop_size=SQUARE)
    model = write_model(make_model, tmp_path / "model", processor, "deit")
    whole = task_of(source, model, image_size=SIDE)
    assert any("data.image_size replaces the resizing" in note for note in whole.notes)
    plain = ViTImageProcessorPil(size=SQUARE)  # bilinear, the whole image, the same numbers
    assert (batch_of(whole) - expected(source, plain)).abs().max() < GREY_LEVEL / 50
    numbers = task_of(source, model, normalize=[[0.0] * 3, [1.0] * 3])
    cut = DeiTImageProcessorPil(size={"height": 20, "width": 20}, crop_size=SQUARE, do_normalize=False)
    assert (batch_of(numbers) - expected(source, cut)).abs().max() < GREY_LEVEL / 50
    fresh = task_of(source, model, fresh=True)
    assert fresh.batches.mean == fresh.data.mean
    assert not any("prepared as" in note for note in fresh.notes)


def test_a_model_that_says_nothing_of_its_images_draws_a_warning(make_model: MakeModel, tmp_path: Path) -> None:
    source = write_photos(tmp_path / "photos")
    model = write_model(make_model, tmp_path / "model", None)
    task = task_of(source, model)
    assert [warning.code for warning in task.warnings] == ["unknown-preprocessing"]
    assert task.batches.mean == task.data.mean
    told = task_of(source, model, image_size=SIDE, normalize=[[0.5] * 3, [0.5] * 3])
    assert not told.warnings
    assert not task_of(source, model, fresh=True).warnings


VIT = {"image_processor_type": "ViTImageProcessor", "size": SQUARE}
# What preprocessor_config.json holds, and the message.
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "padding": ({**VIT, "do_pad": True}, r"says do_pad: true, which is not understood; set both data\.image_size and"),
    "an unknown key": ({**VIT, "crop_pct": 0.9}, r"says crop_pct: 0\.9, which is not understood"),
    "another processor": (
        {"image_processor_type": "ConvNextImageProcessor", "size": SQUARE},
        "is a ConvNextImageProcessor, which is not understood; these are: ViTImageProcessor, DeiTImageProcessor, Beit",
    ),
    "many sizes": ({**VIT, "size": {"shortest_edge": 16}}, "says size: shortest_edge 16 without a crop"),
    "longest edge": ({**VIT, "size": {"shortest_edge": 9, "longest_edge": 16}}, r"says size: \{.*longest_edge"),
    "another size": (
        {**VIT, "size": {"height": 8, "width": 8}},
        "gives images of 8x8 pixels, the model takes 16x16; set",
    ),
    "too large a cut": (
        {**VIT, "do_center_crop": True, "crop_size": 18},
        "says crop_size: 18x18, which images of size",
    ),
    "no such filter": ({**VIT, "resample": 9}, "says resample: 9, which is none of Pillow's"),
    "no deviation": ({**VIT, "image_std": [0.5, 0, 0.5]}, r"there must be as many deviations above 0 as means"),
    "words for numbers": ({**VIT, "image_mean": "half"}, "image processor of .* "),
    "no scale": ({**VIT, "rescale_factor": -1.0}, r"says rescale_factor: -1\.0; it must be above 0"),
    "scale that is no number": ({**VIT, "rescale_factor": float("nan")}, "says rescale_factor: nan; it must be above"),
    "scale of nothing": ({**VIT, "rescale_factor": 1e-300}, "says rescale_factor: 1e-300; it must be above 0"),
    "scale in words": ({**VIT, "rescale_factor": "x"}, "rescale_factor"),
    "mean that is no number": (
        {**VIT, "image_mean": [float("nan"), 0.5, 0.5]},
        r"says image_mean: .nan, 0\.5, 0\.5",
    ),
    "endless mean": ({**VIT, "image_mean": [0.5, float("inf"), 0.5]}, r"says image_mean: .0\.5, inf, 0\.5"),
    "endless digits": ({**VIT, "image_mean": [0.5, 10**400, 0.5]}, "image processor of .* image_mean"),
    "deviation of nothing": ({**VIT, "image_std": [0.5, 1e-300, 0.5]}, "of the size of pixel values"),
    "endless deviation": ({**VIT, "image_std": [0.5, 0.5, float("inf")]}, "of the size of pixel values"),
    "size beyond reason": (
        {**VIT, "size": {"height": 10**9, "width": 10**9}, "do_center_crop": True, "crop_size": SIDE},
        r"says size: \{.*\}; sides are from 1 to 10,000 pixels: set data\.image_size",
    ),
    "shorter side beyond reason": (
        {**VIT, "size": {"shortest_edge": 10**9}, "do_center_crop": True, "crop_size": SIDE},
        r"says size: \{'shortest_edge': 1000000000\}; sides are from 1 to 10,000 pixels",
    ),
    "bits": ({**VIT, "bits_used": 40}, "says bits_used: 40; it must be a whole number from 8 to 16"),
}


@pytest.mark.parametrize(
    "case",
    most(
        REFUSED,
        *("many sizes", "words for numbers", "scale that is no number", "scale of nothing", "scale in words"),
        *("mean that is no number", "endless mean", "deviation of nothing", "endless deviation", "size beyond reason"),
    ),
)
def test_what_cannot_be_honored_is_refused_by_name(case: str, make_model: MakeModel, tmp_path: Path) -> None:
    content, message = REFUSED[case]
    source = write_photos(tmp_path / "photos")
    model = write_model(make_model, tmp_path / "model", content)
    with pytest.raises(lf.LeanformerError, match=message) as caught:
        task_of(source, model)
    assert "\n" not in str(caught.value)
    assert str(model) in str(caught.value)
    if case != "bits":
        task_of(source, model, image_size=SIDE, normalize="data")  # as each message says


def test_a_damaged_file_is_refused(make_model: MakeModel, tmp_path: Path) -> None:
    source = write_photos(tmp_path / "photos")
    model = write_model(make_model, tmp_path / "model", None)
    for content in ("{", "[" * 100_000, "\udcff"):
        (model / "preprocessor_config.json").write_text(content, errors="surrogateescape")
        with pytest.raises(lf.LeanformerError, match=r"preprocessor_config\.json: cannot be read"):
            task_of(source, model)
    for content in ("[1, 2]", '"x"', "null"):
        (model / "preprocessor_config.json").write_text(content)
        with pytest.raises(lf.LeanformerError, match=r"/preprocessor_config\.json: holds .*, not a mapping of keys"):
            task_of(source, model)
    (model / "preprocessor_config.json").unlink()
    (model / "processor_config.json").write_text("{")
    with pytest.raises(lf.LeanformerError, match=r"/processor_config\.json: cannot be read"):
        task_of(source, model)
    (model / "processor_config.json").write_text('{"image_processor": [1, 2]}')
    with pytest.raises(lf.LeanformerError, match=r"the image processor of .* is \[1, 2\], not a mapping"):
        task_of(source, model)
    (model / "processor_config.json").unlink()
    os.mkfifo(model / "preprocessor_config.json")
    with pytest.raises(lf.LeanformerError, match=r"/preprocessor_config\.json: cannot be read: it is a pipe"):
        task_of(source, model)


def test_an_image_smaller_than_the_cut_is_one_clear_line(make_model: MakeModel, tmp_path: Path) -> None:
    source = write_photos(tmp_path / "photos")
    photo(3, (12, 30)).save(source / "train" / "cat" / "3.png")
    model = write_model(make_model, tmp_path / "model", PROCESSORS["deit, cut alone"][1], "deit")
    with pytest.raises(
        lf.LeanformerError, match=r"/train/cat/3\.png: 12x30 pixels .*takes the middle 16x16; give larger"
    ):
        task_of(source, model)


# The head


def heads(task: ImageClassification) -> list[str]:
    config = task.make_baseline(0).config
    assert config.label2id == {name: number for number, name in config.id2label.items()}
    return [config.id2label[number] for number in range(config.num_labels)]


def accuracy_of_order(task: ImageClassification, source: Path) -> bool:
    """Whether each test image still has the name that its file says."""
    names = [task.data.classes[label] for label in task.data.test.labels.tolist()]
    return names == [name for name in ("cat", "dog") for _ in SIZES]


@pytest.mark.parametrize(
    ("names", "shipped", "note", "code"),
    [
        (("cat", "dog"), ["cat", "dog"], None, None),
        (("dog", "cat"), ["dog", "cat"], "classes numbered in the order of", None),
        *slow((("Dog", " cat"), ["dog", "cat"], "classes numbered in the order of", None)),
        (("LABEL_0", "LABEL_1"), ["cat", "dog"], "names no classes; its outputs are taken in the order", None),
        (("tench", "shark"), ["cat", "dog"], None, "head-renamed"),
        *slow(
            (("dog", "shark"), ["dog", "cat"], None, "head-renamed"),
            (("dog", "dog"), ["dog", "cat"], None, "head-renamed"),
        ),
    ],
)
def test_a_head_is_matched_by_name(
    names: tuple[str, ...],
    shipped: list[str],
    note: str | None,
    code: str | None,
    make_model: MakeModel,
    tmp_path: Path,
) -> None:
    source = write_photos(tmp_path / "photos")
    model = write_model(make_model, tmp_path / "model", ViTImageProcessorPil(size=SQUARE), names=names)
    task = task_of(source, model)
    assert heads(task) == shipped == list(task.data.classes)
    assert accuracy_of_order(task, source)
    assert [warning.code for warning in task.warnings] == ([code] if code else [])
    told = [text for text in task.notes if "classes" in text and str(model) in text]
    assert (note is None and not told) or note in told[0]  # type: ignore[operator]
    student = lf.reduce(task.make_baseline(0), {"*.mlp": "none"})
    assert [student.config.id2label[number] for number in range(2)] == shipped


def test_a_fresh_head_has_the_data_s_names(make_model: MakeModel, tmp_path: Path) -> None:
    source = write_photos(tmp_path / "photos")
    model = write_model(make_model, tmp_path / "model", ViTImageProcessorPil(size=SQUARE), names=("dog", "tench"))
    task = task_of(source, model, fresh=True)
    assert heads(task) == ["cat", "dog"]
    assert not task.warnings


def test_grey_images_for_a_model_in_color(make_model: MakeModel, tmp_path: Path) -> None:
    source = write_folder(tmp_path / "grey", "cat", "dog", count=20, size=(18, 18))
    model = write_model(make_model, tmp_path / "model", ViTImageProcessorPil(size=SQUARE))
    pixels = batch_of(task_of(source, model))
    assert pixels.shape[1] == 3
    assert torch.equal(pixels[:, 0], pixels[:, 2])


def test_a_shipped_range_of_sixteen_bits_holds_for_the_next_study(make_model: MakeModel, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 250, (20, 18, 18)).astype(np.uint16)
    for number, pixels in enumerate(values):
        directory = tmp_path / "photos" / ("cat", "dog")[number % 2]
        directory.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(directory / f"{number}.png")
    model = write_model(make_model, tmp_path / "model", {**VIT, "bits_used": 12})
    task = task_of(tmp_path / "photos", model)
    assert task.data.form.bits == 12
    pixels = next(iter(task.data.train.batches([torch.arange(len(task.data.train))])))["pixel_values"]
    assert int(pixels.max()) <= 250 // 16
    task.save_companions(model)
    assert json.loads((model / "preprocessor_config.json").read_text())["bits_used"] == 12


def test_what_a_model_s_directory_says_is_part_of_what_a_trial_follows_from(
    make_model: MakeModel, tmp_path: Path
) -> None:
    source = write_photos(tmp_path / "photos")
    model = write_model(make_model, tmp_path / "model", ViTImageProcessorPil(size=SQUARE))
    before = task_of(source, model).training_settings()
    assert before == json.loads(json.dumps(before))
    assert before == task_of(source, model).training_settings()
    (model / "preprocessor_config.json").write_text(ViTImageProcessorPil(size=SQUARE, resample=3).to_json_string())
    assert before != task_of(source, model).training_settings()


def test_a_head_does_not_change_which_images_are_tested(make_model: MakeModel, tmp_path: Path) -> None:
    source = write_folder(tmp_path / "photos", "cat", "dog", "ape", count=10, size=(16, 16), mode="RGB")
    tested = []
    for names in (("ape", "cat", "dog"), ("dog", "cat", "ape")):
        model = write_model(make_model, tmp_path / "".join(names), ViTImageProcessorPil(size=SQUARE), names=names)
        task = task_of(source, model)
        tested.append((batch_of(task), [task.data.classes[label] for label in task.data.test.labels.tolist()]))
    assert torch.equal(tested[0][0], tested[1][0])
    assert tested[0][1] == tested[1][1]


def test_the_newer_file_of_transformers_is_read(make_model: MakeModel, tmp_path: Path) -> None:
    source = write_photos(tmp_path / "photos")
    model = write_model(make_model, tmp_path / "model", None)
    processor = ViTImageProcessorPil(size=SQUARE, resample=3)
    content = {"image_processor": json.loads(processor.to_json_string())}
    (model / "processor_config.json").write_text(json.dumps(content))
    assert (batch_of(task_of(source, model)) - expected(source, processor)).abs().max() < GREY_LEVEL / 50


@pytest.mark.parametrize(
    "content",
    [
        {"feature_extractor_type": "ViTFeatureExtractor", "size": SIDE, "resample": 2},  # as of older versions
        {**VIT, "do_pad": False, "crop_pct": None, "processor_class": "Any", "model_input_names": ["pixel_values"]},
        {"image_processor_type": "ViTImageProcessorFast", "size": SQUARE, "do_center_crop": False, "crop_size": 3},
        {"size": SQUARE},
    ],
)
def test_what_changes_no_pixels_is_no_mistake(content: dict[str, Any], make_model: MakeModel, tmp_path: Path) -> None:
    source = write_photos(tmp_path / "photos")
    task = task_of(source, write_model(make_model, tmp_path / "model", content))
    assert (batch_of(task) - expected(source, ViTImageProcessorPil(size=SQUARE))).abs().max() < GREY_LEVEL / 50

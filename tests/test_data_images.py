"""Image sources, their splits, the two ways of storing them, and what bad data gets."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from leanformer.config import DataConfig
from leanformer.data import images as images_module
from leanformer.data.images import ImageData, ImageSplit, MemorySplit, StreamSplit, load_images
from leanformer.data.splits import make_splits
from leanformer.errors import LeanformerError

MNIST = Path(__file__).parents[2] / "shared" / "data" / "mnist"
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def load(source: Path | str, **keys: Any) -> ImageData:
    return load_images(DataConfig(source=str(source), **keys), CPU)


def pixels_of(split: ImageSplit) -> torch.Tensor:
    return torch.cat([batch["pixel_values"] for batch in split.batches(torch.arange(len(split)).split(7))])


def random_image(number: int, size: tuple[int, int] = (6, 5), mode: str = "L") -> Image.Image:
    """An image of (height, width) that is a function of its number."""
    shape = size if mode == "L" else (*size, 3)
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8))


def png(image: Image.Image) -> dict[str, Any]:
    file = io.BytesIO()
    image.save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def write_parquet(
    directory: Path,
    split: str = "train",
    labels: list[Any] | None = None,
    images: list[Any] | None = None,
    label_feature: Any = None,
    **others: Any,
) -> Path:
    """A file in the hub's layout; 20 images of two classes, if nothing else is said. Returns the directory."""
    labels = [row % 2 for row in range(20)] if labels is None else labels
    images = [png(random_image(row)) for row in range(len(labels))] if images is None else images
    label_feature = label_feature or datasets.ClassLabel(names=["cat", "dog"])
    features = datasets.Features({"image": datasets.Image(), "label": label_feature})
    table = pa.table(
        {"image": pa.array(images, features["image"].pa_type), "label": pa.array(labels, label_feature.pa_type)}
    )
    table = table.replace_schema_metadata(features.arrow_schema.metadata)
    for name, values in others.items():
        table = table.append_column(name, pa.array(values))
    if others:
        table = table.replace_schema_metadata(None)
    directory.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, directory / f"{split}-00000-of-00001.parquet")
    return directory


def write_folder(root: Path, *classes: str, count: int = 10, size: tuple[int, int] = (6, 5), mode: str = "L") -> Path:
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            random_image(100 * number + index, size, mode).save(root / name / f"{index}.png")
    return root


# Sources


def test_digits() -> None:
    data = load("digits")
    assert data.classes == tuple("0123456789")
    assert (data.channels, data.height, data.width, data.storage) == (1, 8, 8, "memory")
    assert [len(split) for split in (data.train, data.validation, data.test)] == [1294, 144, 359]
    pixels = pixels_of(data.train)
    assert pixels.dtype == torch.uint8
    assert (int(pixels.min()), int(pixels.max())) == (0, 255)
    assert len(pixels.unique()) == 17
    scaled = pixels.double() / 255
    assert data.mean == pytest.approx((scaled.mean().item(),), abs=1e-9)
    assert data.std == pytest.approx((scaled.std(correction=0).item(),), abs=1e-9)
    assert any(note.startswith("no test split: 0.2 of the training examples set aside (359 of") for note in data.notes)


def test_batches_follow_the_given_order() -> None:
    data = load("digits")
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(3))[:50]
    everything = pixels_of(data.train)
    batches = list(data.train.batches(order.split(20)))
    assert [len(batch["labels"]) for batch in batches] == [20, 20, 10]
    assert torch.equal(torch.cat([batch["pixel_values"] for batch in batches]), everything[order])
    assert torch.equal(torch.cat([batch["labels"] for batch in batches]), data.train.labels[order])
    assert batches[0]["pixel_values"].shape == (20, 1, 8, 8)


@pytest.mark.skipif(not MNIST.is_dir(), reason=f"no MNIST at {MNIST}")
def test_mnist() -> None:
    data = load(MNIST, train_limit=2500, test_limit=500)  # enough for worker processes
    assert (len(data.train), len(data.validation), len(data.test)) == (2500, 6000, 500)
    assert (data.channels, data.height, data.width) == (1, 28, 28)
    assert data.classes == tuple("0123456789")
    assert data.mean == pytest.approx((0.1307,), abs=0.003)
    assert data.std == pytest.approx((0.3081,), abs=0.003)
    source = datasets.load_dataset(str(MNIST), split="test")
    rows = [
        row
        for row in range(200)
        if torch.equal(torch.from_numpy(np.array(source[row]["image"])), pixels_of(data.test)[0, 0])
    ]
    assert rows
    assert source[rows[0]]["label"] == data.test.labels[0]


def test_parquet_with_all_three_splits(tmp_path: Path) -> None:
    write_parquet(tmp_path, "train")
    write_parquet(tmp_path, "validation", labels=[0, 1, 1])
    write_parquet(tmp_path, "test", labels=[1, 0])
    data = load(tmp_path)
    assert data.classes == ("cat", "dog")
    assert data.train.labels.tolist() == [0, 1] * 10
    assert data.validation.labels.tolist() == [0, 1, 1]
    assert data.test.labels.tolist() == [1, 0]
    expected = torch.stack([torch.from_numpy(np.array(random_image(row)))[None] for row in range(20)])
    assert torch.equal(pixels_of(data.train), expected)
    assert "columns: image (image), label (label)" in data.notes


@pytest.mark.parametrize("name", ["valid", "val", "dev"])
def test_names_of_the_validation_split(tmp_path: Path, name: str) -> None:
    write_folder(tmp_path / "train", "a", "b")
    write_folder(tmp_path / name, "a", "b", count=2)
    write_folder(tmp_path / "Test", "a", "b", count=3)
    data = load(tmp_path)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [20, 4, 6]


def test_other_splits_are_named_in_the_notes(tmp_path: Path) -> None:
    for split in ("train", "extra"):
        write_folder(tmp_path / split, "a", "b")
    (tmp_path / "docs").mkdir()
    data = load(tmp_path)
    assert len(data.train) + len(data.validation) + len(data.test) == 20
    assert "splits not used: extra" in data.notes


def test_image_folder(tmp_path: Path) -> None:
    write_folder(tmp_path, "dog", "cat", "train")  # here train is a class
    for index in range(10):  # names that say "test" make no split
        (tmp_path / "dog" / f"{index}.png").rename(tmp_path / "dog" / f"test_{index}.png")
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    data = load(tmp_path, storage="stream")
    assert data.classes == ("cat", "dog", "train")
    assert len(data.train) + len(data.validation) + len(data.test) == 30
    by_class = {1: 0, 0: 100, 2: 200}  # dog was written first
    for pixels, label in zip(pixels_of(data.train), data.train.labels.tolist(), strict=True):
        own = [torch.from_numpy(np.array(random_image(by_class[label] + index))) for index in range(10)]
        assert any(torch.equal(pixels[0], image) for image in own)


@pytest.mark.parametrize(
    ("labels", "feature", "classes", "numbers"),
    [
        (["b", "a"] * 10, datasets.Value("string"), ("a", "b"), [1, 0] * 10),
        ([0, 1] * 10, datasets.Value("int64"), ("0", "1"), [0, 1] * 10),
        ([3, 10] * 10, datasets.Value("uint8"), ("3", "10"), [0, 1] * 10),
        ([True, False] * 10, datasets.Value("bool"), ("False", "True"), [1, 0] * 10),
        ([1, 2] * 10, datasets.ClassLabel(names=["x", "y", "z"]), ("x", "y", "z"), [1, 2] * 10),
    ],
)
def test_kinds_of_labels(tmp_path: Path, labels: list[Any], feature: Any, classes: Any, numbers: list[int]) -> None:
    write_parquet(tmp_path, "train", labels, label_feature=feature)
    for split in ("validation", "test"):
        write_parquet(tmp_path, split, labels[:2], label_feature=feature)
    data = load(tmp_path)
    assert data.classes == classes
    assert data.train.labels.tolist() == numbers
    assert data.train.labels.dtype == torch.int64


def test_columns_given(tmp_path: Path) -> None:
    write_parquet(tmp_path, picture=[png(random_image(row + 50)) for row in range(20)], kind=["x", "y"] * 10)
    data = load(tmp_path, image_column="picture", label_column="kind")
    assert data.classes == ("x", "y")
    everything = torch.cat([pixels_of(split) for split in (data.train, data.validation, data.test)])
    assert any(torch.equal(image[0], torch.from_numpy(np.array(random_image(50)))) for image in everything)


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
    assert pixels_of(load_images(DataConfig(source=str(color)), CPU, channels=1).train).shape[1] == 1


@pytest.mark.parametrize("storage", ["memory", "stream"])
def test_one_image_in_color_makes_all_color(tmp_path: Path, storage: str) -> None:
    write_folder(tmp_path, "a", "b")
    random_image(7, mode="RGB").save(tmp_path / "b" / "9.png")
    assert load(tmp_path, storage=storage).channels == 3


@pytest.mark.parametrize("storage", ["memory", "stream"])
def test_resizing(tmp_path: Path, storage: str) -> None:
    write_folder(tmp_path, "a", "b")
    random_image(7, size=(9, 9)).save(tmp_path / "b" / "9.png")
    for data in (
        load(tmp_path, image_size=(4, 3), storage=storage),
        load_images(DataConfig(source=str(tmp_path), storage=storage), CPU, image_size=(4, 3)),  # type: ignore[arg-type]
    ):
        assert (data.height, data.width) == (4, 3)
        assert pixels_of(data.train).shape[1:] == (1, 4, 3)
    assert load_images(DataConfig(source=str(tmp_path), image_size=5), CPU, image_size=(4, 3)).height == 5


def test_modes_and_orientation(tmp_path: Path) -> None:
    pixels = np.arange(30, dtype=np.uint8).reshape(6, 5) * 8
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    Image.fromarray(pixels.astype(np.uint16) * 256 + 7).save(tmp_path / "a" / "16-bit.png")
    Image.merge("LA", (Image.fromarray(pixels), Image.new("L", (5, 6), 9))).save(tmp_path / "a" / "alpha.png")
    turned = Image.fromarray(np.rot90(pixels).copy())  # 5x6, to be turned by a quarter
    exif = Image.Exif()
    exif[images_module.ORIENTATION] = 6
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


# Splits


def splits_of(labels: list[int], **keys: Any) -> dict[str, set[int]]:
    splits, _ = make_splits({"train": np.array(labels, dtype=np.int64)}, DataConfig(**keys))
    assert {split.source_split for split in splits.values()} == {"train"}
    return {role: set(split.rows.tolist()) for role, split in splits.items()}


def test_splits_do_not_overlap_and_lose_nothing() -> None:
    splits = splits_of([row % 3 for row in range(300)])
    assert {role: len(rows) for role, rows in splits.items()} == {"train": 216, "validation": 24, "test": 60}
    assert splits["train"] | splits["validation"] | splits["test"] == set(range(300))
    for rows in splits.values():
        assert np.bincount([row % 3 for row in rows]).tolist() == [len(rows) // 3] * 3  # stratified


def test_splits_follow_their_seed() -> None:
    labels = [row % 3 for row in range(300)]
    assert splits_of(labels) == splits_of(labels)
    assert splits_of(labels)["test"] != splits_of(labels, split_seed=1)["test"]
    assert splits_of(labels)["train"] != splits_of(labels, split_seed=1)["train"]


def test_limits_take_from_the_same_splits() -> None:
    labels = [row % 3 for row in range(300)]
    whole, limited = splits_of(labels), splits_of(labels, train_limit=30, test_limit=2)
    assert limited["train"] < whole["train"]
    assert limited["test"] < whole["test"]
    assert limited["validation"] == whole["validation"]
    assert (len(limited["train"]), len(limited["test"])) == (30, 2)
    assert np.bincount([row % 3 for row in limited["train"]]).tolist() == [10, 10, 10]
    assert splits_of(labels, train_limit=10_000) == whole


@pytest.mark.parametrize("seed", range(5))
def test_rare_classes_stay_in_training(seed: int) -> None:
    labels = [0] * 20 + [1] * 20 + [2]
    splits = splits_of(labels, split_seed=seed)
    assert 40 in splits["train"]
    many = [row % 50 for row in range(100)]  # fewer validation examples than classes
    assert {many[row] for row in splits_of(many, split_seed=seed)["train"]} == set(range(50))


# What bad data gets: each case makes its data below a directory, and gives the source and the configuration.

Case = Callable[[Path], tuple[Path | str, dict[str, Any]]]


def cut_parquet(root: Path) -> tuple[Path, dict[str, Any]]:
    file = write_parquet(root) / "train-00000-of-00001.parquet"
    file.write_bytes(file.read_bytes()[:-100])
    return root, {}


def cut_png(image: Image.Image) -> dict[str, Any]:
    return {"bytes": png(image)["bytes"][:60], "path": None}


def with_image(row: int, image: Any) -> list[Any]:
    images: list[Any] = [png(random_image(index)) for index in range(20)]
    images[row] = image
    return images


def corrupt_file(root: Path) -> tuple[Path, dict[str, Any]]:
    write_folder(root, "a", "b")
    (root / "b" / "3.png").write_bytes(b"not an image")
    return root, {}


def stray_file(root: Path) -> tuple[Path, dict[str, Any]]:
    write_folder(root / "train", "a", "b")
    random_image(1).save(root / "train" / "lost.png")
    return root, {}


def odd_size(root: Path) -> tuple[Path, dict[str, Any]]:
    write_folder(root, "a", "b")
    random_image(1, size=(7, 5)).save(root / "b" / "3.png")
    return root, {"storage": "memory"}


def test_only(root: Path) -> tuple[Path, dict[str, Any]]:
    return write_parquet(root, "test"), {}


def other_classes(root: Path) -> tuple[Path, dict[str, Any]]:
    write_folder(root / "train", "a", "b")
    write_folder(root / "test", "a", "b", "c")
    return root, {}


def empty_test(root: Path) -> tuple[Path, dict[str, Any]]:
    write_parquet(root, "train")
    return write_parquet(root, "test", labels=[]), {}


def empty_directory(root: Path) -> tuple[Path, dict[str, Any]]:
    write_folder(root / "train", "a", "b")
    (root / "test" / "a").mkdir(parents=True)
    return root, {}


def two_files(root: Path) -> tuple[Path, dict[str, Any]]:
    write_folder(root / "train", "a", "b")
    write_folder(root / "val", "a", "b")
    write_folder(root / "dev", "a", "b")
    return root, {}


def a_file(root: Path) -> tuple[Path, dict[str, Any]]:
    write_parquet(root)
    return root / "train-00000-of-00001.parquet", {}


def bad_subset(root: Path) -> tuple[Path, dict[str, Any]]:
    return write_parquet(root), {"subset": "plain"}


test_only.__test__ = False  # type: ignore[attr-defined]
STRING = datasets.Value("string")
INTEGER = datasets.Value("int64")

BAD: dict[str, tuple[Case, str]] = {
    "missing directory": (lambda root: (root / "none", {}), r"data\.source .*/none: no such directory$"),
    "hub id": (
        lambda root: ("someone/something", {}),
        r"data\.source someone/something: no such directory, and as a hub data set it cannot be reached \(.+\); check",
    ),
    "a file": (a_file, r"train-00000-of-00001\.parquet: is a file; give the directory"),
    "empty directory": (lambda root: (root, {}), r"holds no parquet files and no images; wanted are files such as"),
    "image outside of classes": (stray_file, r"lost\.png: lies in no class directory; images belong in train/CLASS/"),
    "unknown subset": (bad_subset, r"data\.source .*: cannot be read: .*plain.*not found"),
    "cut parquet file": (cut_parquet, r"train-00000-of-00001\.parquet: not a whole parquet file \(.+\); copy or down"),
    "no image column": (
        lambda root: (no_images(root), {}),
        r"no image column among number, label; set data\.image_column",
    ),
    "unknown image column": (
        lambda root: (write_parquet(root), {"image_column": "img"}),
        r"data\.image_column: no column 'img' in .*; there are image, label",
    ),
    "unknown label column": (
        lambda root: (write_parquet(root), {"label_column": "class"}),
        r"data\.label_column: no column 'class' in .*; there are image, label",
    ),
    "image column of numbers": (
        lambda root: (write_parquet(root), {"image_column": "label"}),
        r"data\.image_column: column 'label' of .* holds no images",
    ),
    "label column of images": (
        lambda root: (write_parquet(root), {"label_column": "image"}),
        r"data\.label_column: column 'image' of .*; labels are class labels, whole numbers or strings",
    ),
    "two label columns": (
        lambda root: (write_parquet(root, kind=["x", "y"] * 10), {}),
        r"several label columns: label, kind; set data\.label_column to one",
    ),
    "two image columns": (
        lambda root: (write_parquet(root, thumb=[png(random_image(1))] * 20), {}),
        r"several image columns: image, thumb; set data\.image_column to one",
    ),
    "no training split": (test_only, r"no training split among test; one must be named 'train'"),
    "two validation splits": (two_files, r"splits dev and val are both for validation; keep one|splits val and dev"),
    "one class in a folder": (
        lambda root: (write_folder(root, "only"), {}),
        r"one class only \('only'\) in split train; classification needs two",
    ),
    "one class in parquet": (lambda root: (write_parquet(root, labels=[1] * 20), {}), r"one class only \('dog'\)"),
    "label -1": (
        lambda root: (write_parquet(root, labels=[0, 1] * 9 + [1, -1]), {}),
        r"split train, row 19: label -1 is out of range \(-1 often stands for no label\); class numbers are 0 to 1",
    ),
    "label too large": (
        lambda root: (write_parquet(root, labels=[0, 1, 2] + [1] * 17), {}),
        r"split train, row 2: label 2 is out of range; class numbers are 0 to 1",
    ),
    "negative number": (
        lambda root: (write_parquet(root, labels=[0, -5] + [1] * 18, label_feature=INTEGER), {}),
        r"split train, row 1: label -5 is out of range; class numbers are 0 or more",
    ),
    "null label": (
        lambda root: (write_parquet(root, labels=[0, 1] * 8 + [None] * 4), {}),
        r"split train, row 16: no label; fill it in or remove the row",
    ),
    "null string label": (
        lambda root: (write_parquet(root, labels=["a", None] + ["b"] * 18, label_feature=STRING), {}),
        r"split train, row 1: no label",
    ),
    "null image": (
        lambda root: (write_parquet(root, images=with_image(4, None)), {}),
        r"split train, row 4: no image; add it or remove the row",
    ),
    "image without content": (
        lambda root: (write_parquet(root, images=with_image(4, {"bytes": None, "path": None})), {}),
        r"split train, row 4: no image; add it or remove the row",
    ),
    "corrupt image": (
        lambda root: (write_parquet(root, images=with_image(6, {"bytes": b"no image", "path": "x.png"})), {}),
        r"split train, row 6: not a readable image \(.+\); replace or remove it",
    ),
    "cut image": (
        lambda root: (write_parquet(root, images=with_image(6, cut_png(random_image(6)))), {"image_size": 6}),
        r"split train, row 6: not a readable image \(.+\); replace or remove it",
    ),
    "corrupt image file": (corrupt_file, r"/b/3\.png: not a readable image"),
    "32-bit image": (
        lambda root: (write_parquet(root, images=with_image(0, tiff_of_floats())), {}),
        r"split train, row 0: pixels of 32 bits \(Pillow's mode F\); 8 or 16 bits are read",
    ),
    "two sizes": (
        odd_size,
        r"/b/3\.png: 7x5 pixels \(height x width\), but .*/a/\d\.png has 6x5; set data\.image_size to resize all",
    ),
    "two sizes in parquet": (
        lambda root: (
            write_parquet(root, images=with_image(3, png(random_image(3, size=(8, 8))))),
            {"storage": "stream"},
        ),
        r"split train, row \d+: \dx\d pixels \(height x width\), but .*, row \d+ has \dx\d; set data\.image_size",
    ),
    "empty training split": (
        lambda root: (write_parquet(root, labels=[]), {}),
        r"train-00000-of-00001\.parquet: holds no examples",
    ),
    "empty test split": (empty_test, r"test-00000-of-00001\.parquet: holds no examples"),
    "empty split directory": (empty_directory, r"data\.source .*: the test split is empty; it needs examples"),
    "no room for validation": (
        lambda root: (write_parquet(root, labels=[0, 1, 0, 1]), {"test_fraction": 0.25}),
        r"data\.validation_fraction: 0\.1 of 3 training examples leaves the validation split empty",
    ),
    "fraction of nothing": (
        lambda root: (write_parquet(root), {"test_fraction": 0}),
        r"data\.test_fraction: 0 of 20 training examples leaves the test split empty; .* larger fraction",
    ),
    "nothing left to train on": (
        lambda root: (write_parquet(root), {"test_fraction": 0.99}),
        r"data\.test_fraction: 0\.99 of 20 training examples leaves the train split empty",
    ),
    "class that training lacks": (
        other_classes,
        r"split test, row 20: class 'c' has no example in split train; training data needs every class",
    ),
}


def no_images(root: Path) -> Path:
    pq.write_table(pa.table({"number": [1.5] * 4, "label": [0, 1] * 2}), root / "train-00000-of-00001.parquet")
    return root


def tiff_of_floats() -> dict[str, Any]:
    file = io.BytesIO()
    Image.fromarray(np.zeros((6, 5), np.float32)).save(file, "TIFF")
    return {"bytes": file.getvalue(), "path": None}


@pytest.mark.parametrize("case", BAD)
def test_bad_data_is_one_clear_line(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")  # refuses at once
    root = tmp_path / "data"
    root.mkdir()
    make, message = BAD[case]
    source, keys = make(root)
    start = time.monotonic()
    with pytest.raises(LeanformerError, match=message) as caught:
        load(source, **keys)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - start < 10  # no retries


def test_a_corrupt_image_met_while_streaming(tmp_path: Path) -> None:
    images = with_image(6, cut_png(random_image(6)))
    write_parquet(tmp_path, images=images)
    write_parquet(tmp_path, "validation", labels=[0, 1])
    write_parquet(tmp_path, "test", labels=[0, 1])
    with pytest.raises(LeanformerError, match=r"split train, row 6: not a readable image") as caught:
        load(tmp_path, storage="stream", image_size=6, channels=1)
    assert "\n" not in str(caught.value)


def test_a_training_limit_below_the_number_of_classes_is_fine() -> None:
    assert len(load("digits", train_limit=3).train) == 3

"""Image sources, their columns and labels, and what bad ones get."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from image_files import error_of, load, pixels_of, png, random_image, write_folder, write_parquet
from places import SHARED

MNIST = SHARED / "data" / "mnist"
PARQUET = r"/train-00000-of-00001\.parquet"
STRING = datasets.Value("string")
INTEGER = datasets.Value("int64")


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


@pytest.mark.skipif(not MNIST.is_dir(), reason=f"no MNIST at {MNIST}")
def test_mnist() -> None:
    data = load(MNIST, train_limit=2500, test_limit=500)  # enough for worker processes
    assert (len(data.train), len(data.validation), len(data.test)) == (2500, 6000, 500)
    assert (data.channels, data.height, data.width) == (1, 28, 28)
    assert data.classes == tuple("0123456789")
    assert data.mean == pytest.approx((0.1307,), abs=0.003)
    assert data.std == pytest.approx((0.3081,), abs=0.003)
    source = datasets.load_dataset(str(MNIST), split="test")
    first = pixels_of(data.test)[0, 0].numpy()
    labels = {row["label"] for row in source.select(range(200)) if np.array_equal(row["image"], first)}
    assert labels == {int(data.test.labels[0])}


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
    write_folder(tmp_path, "dog", "cat", "trains")
    for index in range(10):  # names that say "test" make no split
        (tmp_path / "dog" / f"{index}.png").rename(tmp_path / "dog" / f"test_{index}.png")
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    data = load(tmp_path, storage="stream")
    assert data.classes == ("cat", "dog", "trains")
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


@pytest.mark.parametrize("kind", ["content", "path"])
def test_an_image_column_of_plain_content_or_paths(tmp_path: Path, kind: str) -> None:
    write_folder(tmp_path / "files", "a")
    files = [tmp_path / "files" / "a" / f"{row % 10}.png" for row in range(20)]
    values = [file.read_bytes() if kind == "content" else str(file) for file in files]
    data = load(write_parquet(tmp_path / "table", plain=values), image_column="plain")
    images = torch.stack([torch.from_numpy(np.array(random_image(number))) for number in range(10)])
    for image in pixels_of(data.train):
        assert (images == image).flatten(1).all(1).any()


# What bad data gets


def cut_file(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def damage(file: Path) -> None:
    """Behind the first bytes and before the footer, which stay good."""
    content = bytearray(file.read_bytes())
    content[4:60] = bytes(56)
    file.write_bytes(content)


def write_numbers(root: Path) -> None:
    pq.write_table(pa.table({"number": [1.5] * 4, "label": [0, 1] * 2}), root / "train-00000-of-00001.parquet")


def write_stray_image(root: Path) -> None:
    write_folder(root / "train", "a", "b")
    random_image(1).save(root / "train" / "lost.png")


def write_two_splits(root: Path, *splits: str) -> None:
    for split in splits:
        write_folder(root / split, "a", "b")


def write_two_shards(root: Path, labels: list[Any]) -> None:
    """20 good rows, and a second file of them with these labels."""
    (write_parquet(root) / "train-00000-of-00001.parquet").rename(root / "train-00000-of-00002.parquet")
    (write_parquet(root, labels=labels) / "train-00000-of-00001.parquet").rename(root / "train-00001-of-00002.parquet")


def write_empty_split(root: Path) -> None:
    write_folder(root / "train", "a", "b")
    (root / "test" / "a").mkdir(parents=True)


def write_class_of_test_alone(root: Path) -> None:
    write_folder(root / "train", "a", "b")
    write_folder(root / "test", "a", "b", "c")


# What writes the data, the configuration's other keys, and the message.
BAD: dict[str, tuple[Callable[[Path], Any], dict[str, Any], str]] = {
    "empty directory": (
        lambda root: None,
        {},
        r"data\.source .*: holds no parquet files and no images; give files such as",
    ),
    "image outside of classes": (
        write_stray_image,
        {},
        r"/train/lost\.png: lies in no class directory; images belong in train/CLASS/",
    ),
    "unknown subset": (write_parquet, {"subset": "plain"}, r"data\.source .*: cannot be read: .*plain.*not found"),
    "cut parquet file": (
        lambda root: cut_file(write_parquet(root) / "train-00000-of-00001.parquet"),
        {},
        PARQUET + r": not a whole parquet file \(.+\); copy or download it again",
    ),
    "damaged parquet file": (
        lambda root: damage(write_parquet(root) / "train-00000-of-00001.parquet"),
        {},
        PARQUET + r": not a whole parquet file \(.+\); copy or download it again",
    ),
    "no image column": (write_numbers, {}, r"no image column among number, label; set data\.image_column"),
    "unknown image column": (
        write_parquet,
        {"image_column": "img"},
        r"data\.image_column: no column 'img' in .*; there are image, label",
    ),
    "unknown label column": (
        write_parquet,
        {"label_column": "class"},
        r"data\.label_column: no column 'class' in .*; there are image, label",
    ),
    "image column of numbers": (
        write_parquet,
        {"image_column": "label"},
        r"data\.image_column: column 'label' of .* holds no images",
    ),
    "label column of images": (
        write_parquet,
        {"label_column": "image"},
        r"data\.label_column: column 'image' of .*; labels are class labels, whole numbers or strings",
    ),
    "two label columns": (
        lambda root: write_parquet(root, kind=["x", "y"] * 10),
        {},
        r"several label columns: label, kind; set data\.label_column to one",
    ),
    "two image columns": (
        lambda root: write_parquet(root, thumb=[png(random_image(1))] * 20),
        {},
        r"several image columns: image, thumb; set data\.image_column to one",
    ),
    "parquet without a training split": (
        lambda root: write_parquet(root, "test"),
        {},
        r"data\.source .*: no training split among test; one must be named 'train'",
    ),
    "two validation splits": (
        lambda root: write_two_splits(root, "train", "val", "dev"),
        {},
        r"data\.source .*: splits dev and val are both for validation; keep one",
    ),
    "empty training split": (
        lambda root: write_parquet(root, labels=[]),
        {},
        PARQUET + r": holds no examples; fill it or remove it",
    ),
    "empty test split": (
        lambda root: write_parquet(write_parquet(root), "test", labels=[]),
        {},
        r"/test-00000-of-00001\.parquet: holds no examples; fill it or remove it",
    ),
    "empty split directory": (write_empty_split, {}, r"data\.source .*: the test split is empty; it needs examples"),
    "one class in a folder": (
        lambda root: write_folder(root, "only"),
        {},
        r"data\.source .*: one class only \('only'\) in split train; classification needs two",
    ),
    "one class in parquet": (
        lambda root: write_parquet(root, labels=[1] * 20),
        {},
        r"data\.source .*: one class only \('dog'\) in split train; classification needs two",
    ),
    "label -1": (
        lambda root: write_parquet(root, labels=[0, 1] * 9 + [1, -1]),
        {},
        PARQUET + r", row 19, column 'label': label -1 is out of range \(-1 often stands for no label\); class numbers "
        "are 0 to 1",
    ),
    "label too large": (
        lambda root: write_parquet(root, labels=[0, 1, 2] + [1] * 17),
        {},
        PARQUET + r", row 2, column 'label': label 2 is out of range; class numbers are 0 to 1",
    ),
    "label too large in the test split": (
        lambda root: write_parquet(write_parquet(root), "test", labels=[0, 7]),
        {},
        r"/test-00000-of-00001\.parquet, row 1, column 'label': label 7 is out of range; class numbers are 0 to 1",
    ),
    "label too large in a second file": (
        lambda root: write_two_shards(root, [0, 1, 2]),
        {},
        r"/train-00001-of-00002\.parquet, row 2, column 'label': label 2 is out of range",
    ),
    "negative number": (
        lambda root: write_parquet(root, labels=[0, -5] + [1] * 18, label_feature=INTEGER),
        {},
        PARQUET + r", row 1, column 'label': label -5 is out of range; class numbers are 0 or more",
    ),
    "null label": (
        lambda root: write_parquet(root, labels=[0, 1] * 8 + [None] * 4),
        {},
        PARQUET + r", row 16, column 'label': no label; fill it in or remove the row",
    ),
    "null string label": (
        lambda root: write_parquet(root, labels=["a", None] + ["b"] * 18, label_feature=STRING),
        {},
        PARQUET + r", row 1, column 'label': no label; fill it in or remove the row",
    ),
    "class that training lacks": (
        write_class_of_test_alone,
        {},
        r"/test/c/0\.png: class 'c' has no example in split train; training data needs every class",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_source_is_one_clear_line(case: str, tmp_path: Path) -> None:
    write, keys, message = BAD[case]
    write(tmp_path)
    assert re.search(message, error_of(tmp_path, **keys))


def test_a_missing_path(tmp_path: Path) -> None:
    assert error_of(tmp_path / "none") == f"data.source {tmp_path / 'none'}: no such directory"


def test_a_subset_of_a_folder_is_one_line(tmp_path: Path) -> None:
    write_folder(tmp_path, "a", "b")
    load(tmp_path)
    assert error_of(tmp_path, subset="x") == (
        f"data.subset does nothing here: 'x' would be a configuration of a hub data set, and {tmp_path} is none; leave "
        "it out"
    )


def test_a_table_that_is_nested_far_too_deep_is_one_line(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", "a", "b")
    (tmp_path / "train" / "metadata.jsonl").write_text('{"file_name": ' + "[" * 100_000 + "]" * 100_000 + "}\n")
    assert re.search(r"metadata\.jsonl, line 1: brackets are nested more than 60 deep", error_of(tmp_path))


def test_a_file_is_no_source(tmp_path: Path) -> None:
    file = write_parquet(tmp_path) / "train-00000-of-00001.parquet"
    assert error_of(file) == f"data.source {file}: is a file; give the directory that holds it"


RESPONSE: Any = SimpleNamespace(headers={}, request=None)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ConnectionError("no route\nto host"), r"cannot be reached \(no route\); check the name and the network"),
        (RepositoryNotFoundError("404", response=RESPONSE), "does not exist or is private; check the name"),
        (GatedRepoError("403", response=RESPONSE), "asks for a log-in: accept its terms and run 'hf auth login'"),
    ],
)
def test_the_hub_is_asked_once(error: Exception, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def dataset_info(_: object, name: str, timeout: float) -> None:
        asked.append(name)
        raise error

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    wanted = r"data\.source some/thing: no such directory, and as a hub data set it "
    assert re.match(wanted + message, error_of("some/thing"))
    assert asked == ["some/thing"]


def test_a_hub_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    assert re.search(r"some/thing: .* hub data set it cannot be reached \(.+\); check the name", error_of("some/thing"))


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space"), OSError("Not enough disk space. Needed: 1 GiB")])
def test_no_room_for_the_cache(error: OSError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download_and_prepare(_: object) -> None:
        raise RuntimeError("no data set") from error

    monkeypatch.setattr(datasets.DatasetBuilder, "download_and_prepare", download_and_prepare)
    message = r"data\.source .*: no space left in .*cache.*; free some, or set HF_DATASETS_CACHE to another directory"
    assert re.match(message, error_of(write_parquet(tmp_path)))

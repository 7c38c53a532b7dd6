"""Class numbers and names, matched between files and splits."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import Any

import datasets
import pytest
from image_files import error_of, load, png, random_image, write_parquet

from leanformer.data.images import ImageData

TEXT = datasets.Value("string")
WHOLE = datasets.Value("int64")


def named(*names: str) -> datasets.ClassLabel:
    return datasets.ClassLabel(names=list(names))


def write_second_shard(root: Path, **keys: Any) -> None:
    """A second file of the training split, beside the one that is there."""
    first = root / "train-00000-of-00001.parquet"
    first.rename(root / "train-00000-of-00002.parquet")
    write_parquet(root, **keys)
    first.rename(root / "train-00001-of-00002.parquet")


def names_of(data: ImageData, split: str) -> list[str]:
    return [data.classes[label] for label in getattr(data, split).labels.tolist()]


def test_class_names_are_matched_between_splits(tmp_path: Path) -> None:
    write_parquet(tmp_path, "train", label_feature=named("cat", "dog"))
    write_parquet(tmp_path, "validation", [0, 1, 1], label_feature=named("cat", "dog"))
    write_parquet(tmp_path, "test", [0, 0, 1], label_feature=named("dog", "cat"))
    data = load(tmp_path)
    assert data.classes == ("cat", "dog")
    assert names_of(data, "train") == ["cat", "dog"] * 10
    assert names_of(data, "validation") == ["cat", "dog", "dog"]
    assert names_of(data, "test") == ["dog", "dog", "cat"]


def test_class_names_are_matched_between_files_of_a_split(tmp_path: Path) -> None:
    write_parquet(tmp_path, label_feature=named("cat", "dog"))
    write_second_shard(tmp_path, labels=[0, 0, 1], label_feature=named("dog", "cat"))
    for split in ("validation", "test"):
        write_parquet(tmp_path, split, [0, 1], label_feature=named("cat", "dog"))
    data = load(tmp_path)
    assert sorted(names_of(data, "train")) == sorted([*["cat", "dog"] * 10, "dog", "dog", "cat"])
    assert names_of(data, "train")[20:] == ["dog", "dog", "cat"]


def test_a_file_may_name_more_classes_than_the_first(tmp_path: Path) -> None:
    write_parquet(tmp_path, label_feature=named("cat", "dog"))
    write_second_shard(tmp_path, labels=[0, 1, 2] * 4, label_feature=named("ape", "cat", "dog"))
    data = load(tmp_path)
    assert data.classes == ("cat", "dog", "ape")
    everything = [name for split in ("train", "validation", "test") for name in names_of(data, split)]
    assert (everything.count("ape"), everything.count("cat"), everything.count("dog")) == (4, 14, 14)


def test_a_number_out_of_a_file_s_own_range(tmp_path: Path) -> None:
    write_parquet(tmp_path, label_feature=named("ape", "cat", "dog"), labels=[0, 1, 2] * 7)
    write_parquet(tmp_path, "test", [0, 2], label_feature=named("cat", "dog"))
    message = r"/test-00000-of-00001\.parquet, row 1, column 'label': label 2 is out of range; class numbers are 0 to 1"
    assert re.search(message, error_of(tmp_path))


@pytest.mark.parametrize(
    ("labels", "feature", "kind"),
    [
        ([0, 1], WHOLE, "whole numbers without class names"),
        (["0", "1"], TEXT, "text"),
        (["cat", "dog"], TEXT, "text"),
    ],
)
def test_labels_of_two_kinds_are_refused(tmp_path: Path, labels: list[Any], feature: Any, kind: str) -> None:
    write_parquet(tmp_path)
    write_parquet(tmp_path, "test", labels, label_feature=feature)
    message = error_of(tmp_path)
    assert re.search(r"/(test|train)-00000-of-00001\.parquet: column 'label' holds", message)
    assert "train-00000" in message
    assert "test-00000" in message
    assert "write both alike" in message


def test_numbers_and_text_are_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path, label_feature=WHOLE)
    write_parquet(tmp_path, "test", ["cat", "dog"], label_feature=TEXT)
    message = error_of(tmp_path)
    assert re.search(r"\.parquet: column 'label' holds (string|text|int64|whole)", message)
    assert "train-00000" in message
    assert "test-00000" in message


def test_floats_have_a_line_of_their_own(tmp_path: Path) -> None:
    write_parquet(tmp_path, labels=[0.0, 1.0] * 10, label_feature=datasets.Value("float64"))
    wanted = r"column 'label' holds numbers with decimals \(float64\), .*; convert class numbers such as 1\.0 to whole"
    assert re.search(r"data\.source .*: " + wanted, error_of(tmp_path))
    assert re.search(r"data\.label_column: " + wanted, error_of(tmp_path, label_column="label"))


def test_text_in_two_unicode_forms_is_one_class(tmp_path: Path) -> None:
    composed, apart = unicodedata.normalize("NFC", "Käse"), unicodedata.normalize("NFD", "Käse")
    write_parquet(tmp_path, labels=[composed, "Brot"] * 10, label_feature=TEXT)
    write_parquet(tmp_path, "test", [apart, "Brot"], label_feature=TEXT)
    data = load(tmp_path)
    assert data.classes == ("Brot", composed)
    assert data.test.labels.tolist() == [1, 0]
    other = tmp_path / "named"
    write_parquet(other, label_feature=named(composed, "Brot"))
    write_parquet(other, "test", [0, 1], label_feature=named(apart, "Brot"))
    assert load(other).classes == (composed, "Brot")


def test_doubtful_names_draw_warnings(tmp_path: Path) -> None:
    write_parquet(tmp_path, labels=["cat", "Cat", "big  dog", "big dog "] * 5, label_feature=TEXT)
    (similar,) = load(tmp_path).warnings
    assert (similar.code, similar.count) == ("similar-labels", 4)
    assert "'Cat' and 'cat'; 'big  dog' and 'big dog '" in similar.sentence
    write_parquet(tmp_path, labels=[0, 2] * 10, label_feature=named("x", "y", "z"))
    (empty,) = load(tmp_path).warnings
    assert (empty.code, empty.count) == ("empty-class", 1)
    assert "classes without an example: 1 of 3, such as 'y'" in empty.sentence


def test_the_same_image_with_two_labels(tmp_path: Path) -> None:
    images = [png(random_image(row // 2 if row < 4 else row)) for row in range(20)]  # rows 0, 1 and 2, 3 are the same
    write_parquet(tmp_path, images=images)
    for split in ("validation", "test"):
        write_parquet(tmp_path, split, [0, 1], images=[png(random_image(row)) for row in (50, 51)])
    (warning,) = load(tmp_path).warnings
    assert (warning.code, warning.count) == ("conflicting-labels", 4)
    assert "the same and of different classes: 4 of 20, such as" in warning.sentence
    assert re.search(r"row \d, column 'image' \('cat'\) and .*row \d, column 'image' \('dog'\)", warning.sentence)

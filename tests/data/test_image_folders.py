"""Folders of images: splits and classes by directory or by a table, and files that are not read."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from image_files import error_of, load, pixels_of, random_image, write_folder, write_parquet
from PIL import Image

from leanformer.core.warning import StudyWarning
from leanformer.data.image_files import image_suffixes
from leanformer.data.images import ImageData
from leanformer.data.splits import role_of


def warned(data: ImageData, code: str) -> StudyWarning:
    (warning,) = [warning for warning in data.warnings if warning.code == code]
    return warning


def codes(data: ImageData) -> list[str]:
    return [warning.code for warning in data.warnings]


# Splits


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("Training", "train"),
        ("train_images", "train"),
        ("seg_train", "train"),
        ("trainset", "train"),
        ("train2017", "train"),
        ("Valid", "validation"),
        ("dev", "validation"),
        ("Testing", "test"),
        ("evaluation", "test"),
        ("Hold-Out", "test"),
        ("held_out", "test"),
        ("test-set", "test"),
        ("trains", None),
        ("contest", None),
        ("images", None),
        ("cat", None),
    ],
)
def test_what_a_split_s_name_says(name: str, role: str | None) -> None:
    assert role_of(name) == role


@pytest.mark.parametrize("names", [("Training", "Testing"), ("seg_train", "holdout"), ("TRAIN", "Evaluation")])
def test_splits_of_a_folder_under_many_names(tmp_path: Path, names: tuple[str, str]) -> None:
    write_folder(tmp_path / names[0], "a", "b")
    write_folder(tmp_path / names[1], "a", "b", count=3)
    data = load(tmp_path)
    assert data.classes == ("a", "b")
    assert len(data.test) == 6
    assert len(data.train) + len(data.validation) == 20


def test_a_plain_name_goes_before_one_with_words_added(tmp_path: Path) -> None:
    for split, count in (("train", 10), ("test", 3), ("test2", 4)):
        write_folder(tmp_path / split, "a", "b", count=count)
    data = load(tmp_path)
    assert len(data.test) == 6
    assert "splits not used: test2" in data.notes


def test_a_class_below_a_split_may_have_a_split_s_name(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", "bus", "train")
    assert load(tmp_path).classes == ("bus", "train")


# Classes


def test_a_name_in_two_unicode_forms_is_one_class(tmp_path: Path) -> None:
    composed, apart = unicodedata.normalize("NFC", "Gemüse"), unicodedata.normalize("NFD", "Gemüse")
    assert composed != apart
    write_folder(tmp_path / "train", composed, "Obst")
    write_folder(tmp_path / "test", apart, "Obst", count=2)
    data = load(tmp_path)
    assert data.classes == (composed, "Obst")
    assert data.test.labels.tolist() == [0, 0, 1, 1]


def test_names_that_differ_by_case_or_blanks_draw_a_warning(tmp_path: Path) -> None:
    write_folder(tmp_path, "Cat", "cat ", "dog")
    warning = warned(load(tmp_path), "similar-labels")
    assert warning.count == 2
    assert "'Cat' and 'cat '" in warning.sentence


# Files


def test_every_kind_of_file_that_pillow_reads_is_read(tmp_path: Path) -> None:
    assert {".jfif", ".jpe", ".jp2", ".tga", ".ico", ".mpo"} <= image_suffixes()
    assert not {".pdf", ".mpg", ".h5", ".eps"} & image_suffixes()
    write_folder(tmp_path, "a", "b")
    random_image(30).save(tmp_path / "a" / "x.jfif", "JPEG")
    random_image(31).save(tmp_path / "a" / "y.JPE", "JPEG")
    random_image(32).save(tmp_path / "b" / "z.tga")
    data = load(tmp_path)
    assert len(data.train) + len(data.validation) + len(data.test) == 23
    assert not data.warnings


def test_files_among_the_images_that_are_not_read_are_counted(tmp_path: Path) -> None:
    write_folder(tmp_path, "a", "b")
    (tmp_path / "README.md").write_text("beside the data")
    for hidden in (".DS_Store", "Thumbs.db"):
        (tmp_path / "a" / hidden).write_text("")
    (tmp_path / "__MACOSX" / "a").mkdir(parents=True)
    (tmp_path / "__MACOSX" / "a" / "0.png").write_text("")
    assert not load(tmp_path).warnings
    assert "files beside the data, not read: 1, the first is README.md" in load(tmp_path).notes
    (tmp_path / "b" / "1.heic").write_text("")
    (tmp_path / "b" / "no-ending").write_text("")
    warning = warned(load(tmp_path), "unread-files")
    assert warning.count == 2
    assert warning.sentence.startswith(
        f"files among the images that were not read: 2 (.heic, no ending), the first is {tmp_path}/b/1"
    )


def test_images_beside_parquet_files_and_splits_are_counted(tmp_path: Path) -> None:
    write_parquet(tmp_path / "table")
    random_image(1).save(tmp_path / "table" / "lost.png")
    (tmp_path / "table" / "README.md").write_text("card")
    data = load(tmp_path / "table")
    assert warned(data, "unread-files").sentence.endswith(
        f"as parquet files lie beside them: 1, the first is {tmp_path / 'table' / 'lost.png'}; write them into the "
        "parquet files, or remove them"
    )
    assert "files beside the data, not read: 1, the first is README.md" in data.notes
    write_folder(tmp_path / "split" / "train", "a", "b")
    random_image(1).save(tmp_path / "split" / "lost.png")
    assert warned(load(tmp_path / "split"), "unread-files").count == 1


def test_linked_directories_are_read(tmp_path: Path) -> None:
    write_folder(tmp_path / "real", "x")
    write_folder(tmp_path / "root", "a", "b")
    (tmp_path / "root" / "a" / "deep").mkdir()
    (tmp_path / "root" / "a" / "deep" / "more").symlink_to(tmp_path / "real" / "x", target_is_directory=True)
    (tmp_path / "root" / "b" / "around").symlink_to(tmp_path / "root", target_is_directory=True)
    data = load(tmp_path / "root")
    assert len(data.train) + len(data.validation) + len(data.test) == 30


def test_the_working_directory_as_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path, "a", "b")
    monkeypatch.chdir(tmp_path)
    assert load(".").classes == ("a", "b")


# Tables of labels


def write_images(root: Path, count: int, size: tuple[int, int] = (6, 5)) -> list[str]:
    root.mkdir(parents=True, exist_ok=True)
    names = [f"{index}.png" for index in range(count)]
    for index, name in enumerate(names):
        random_image(index + 1000 * len(root.parts) + sum(root.name.encode()), size).save(root / name)
    return names


def write_table(file: Path, rows: list[dict[str, Any]]) -> None:
    if file.suffix == ".csv":
        lines = [",".join(rows[0]), *(",".join(str(value) for value in row.values()) for row in rows)]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    elif file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), file)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_table_gives_labels(tmp_path: Path, kind: str) -> None:
    for split, count in (("train", 20), ("test", 4)):
        names = write_images(tmp_path / split, count)
        rows = [{"file_name": name, "label": "ab"[index % 2], "width": 1.5} for index, name in enumerate(names)]
        write_table(tmp_path / split / f"metadata.{kind}", rows)
    data = load(tmp_path)
    assert data.classes == ("a", "b")
    assert data.test.labels.tolist() == [0, 1, 0, 1]
    shown = torch.stack([torch.from_numpy(np.array(Image.open(tmp_path / "test" / f"{n}.png"))) for n in range(4)])
    assert torch.equal(pixels_of(data.test)[:, 0], shown)
    assert any(note.startswith("labels from ") and "metadata" in note for note in data.notes)
    assert not data.warnings


def test_one_table_for_all_splits(tmp_path: Path) -> None:
    rows = []
    for split, count in (("Training", 20), ("val", 4), ("test", 6)):
        rows += [
            {"file_name": f"{split}/{name}", "label": int(name[0]) % 2}
            for name in write_images(tmp_path / split, count)
        ]
    write_table(tmp_path / "metadata.csv", rows)
    data = load(tmp_path)
    assert data.classes == ("0", "1")
    assert [len(split) for split in (data.train, data.validation, data.test)] == [20, 4, 6]


def test_numbers_in_a_table_stay_names_where_they_are_written_so(tmp_path: Path) -> None:
    names = write_images(tmp_path, 20)
    write_table(
        tmp_path / "metadata.csv", [{"file_name": name, "label": ("007", "10")[i % 2]} for i, name in enumerate(names)]
    )
    assert load(tmp_path).classes == ("007", "10")
    write_table(
        tmp_path / "metadata.csv", [{"file_name": name, "label": (2, 10)[i % 2]} for i, name in enumerate(names)]
    )
    assert load(tmp_path).classes == ("2", "10")


def test_images_that_a_table_leaves_out_are_counted(tmp_path: Path) -> None:
    names = write_images(tmp_path, 22)
    write_table(tmp_path / "metadata.csv", [{"file_name": name, "label": i % 2} for i, name in enumerate(names[:20])])
    assert warned(load(tmp_path), "unread-files").count == 2


# What bad folders get


def write_bad_table(root: Path, rows: list[dict[str, Any]]) -> None:
    write_images(root, 20)
    write_table(root / "metadata.csv", rows)


def write_tables_of_two_kinds(root: Path) -> None:
    for split, labels in (("train", "ab"), ("test", "01")):
        names = write_images(root / split, 20)
        write_table(
            root / split / "metadata.csv", [{"file_name": n, "label": labels[i % 2]} for i, n in enumerate(names)]
        )


def write_heic_class(root: Path) -> None:
    write_folder(root, "a", "b")
    (root / "c").mkdir()
    for index in range(3):
        (root / "c" / f"{index}.heic").write_text("")


def write_unreadable_test_class(root: Path) -> None:
    write_folder(root / "train", "a", "b")
    write_folder(root / "test", "a")
    (root / "test" / "b").mkdir()
    (root / "test" / "b" / "0.heic").write_text("")


BAD: dict[str, tuple[Callable[[Path], Any], dict[str, Any], str]] = {
    "class with the name of a split": (
        lambda root: write_folder(root, "Training", "Testing"),
        {},
        r"/Testing: a class with the name of a split; a split holds a directory for each class \(Testing/CLASS",
    ),
    "split inside of a class": (
        lambda root: [write_folder(root / name, "train", "test") for name in ("good", "bad")],
        {},
        r"/bad/test: a split inside of a class; splits stand above classes: test/bad/\*\.png",
    ),
    "two splits for one role": (
        lambda root: [write_folder(root / name, "a", "b") for name in ("train", "testing", "evaluation")],
        {},
        "splits evaluation and testing are both for test; keep one of them",
    ),
    "training and validation inside of classes": (
        lambda root: [write_folder(root / name, "Training", "valid") for name in ("good", "bad")],
        {},
        r"/bad/valid: a split inside of a class; splits stand above classes: valid/bad/\*\.png",
    ),
    "splits inside of one class": (
        lambda root: [write_folder(root / "good", "val", "test"), write_folder(root, "bad")],
        {},
        r"/good/test: a split inside of a class; splits stand above classes: test/good/\*\.png",
    ),
    "directory around the splits": (
        lambda root: [write_folder(root / "images" / name, "a", "b") for name in ("train", "val")],
        {},
        r"/images: holds the splits; give this directory as data\.source$",
    ),
    "two splits with numbers for one role": (
        lambda root: [write_folder(root / name, "a", "b") for name in ("train", "test1", "test2")],
        {},
        "splits test1 and test2 are both for test; keep one of them",
    ),
    "class that is a broken link": (
        lambda root: (write_folder(root, "a", "b") / "c").symlink_to("nowhere"),
        {},
        "/c: a broken link; correct or remove it",
    ),
    "image that is a pipe": (
        lambda root: os.mkfifo(write_folder(root, "a", "b") / "a" / "pipe.png"),
        {},
        r"/a/pipe\.png: is a pipe, not a file; replace or remove it",
    ),
    "image that is a device": (
        lambda root: (write_folder(root, "a", "b") / "a" / "zeros.png").symlink_to("/dev/zero"),
        {},
        r"/a/zeros\.png: is a device, not a file; replace or remove it",
    ),
    "image that is a broken link": (
        lambda root: (write_folder(root, "a", "b") / "a" / "x.png").symlink_to("nowhere"),
        {},
        r"/a/x\.png: is a broken link, not a file; replace or remove it",
    ),
    "parquet file that is a pipe": (
        lambda root: os.mkfifo(write_folder(root, "a", "b") / "train.parquet"),
        {},
        r"/train\.parquet: is a pipe, not a file; replace or remove it",
    ),
    "name of a class that is not UTF-8": (
        lambda root: os.rename(write_folder(root, "a", "b") / "b", os.fsencode(root) + b"/caf\xe9"),
        {},
        r"/caf\\udce9: its name is not UTF-8; rename it",
    ),
    "name of an image that is not UTF-8": (
        lambda root: os.rename(write_folder(root, "a", "b") / "b" / "0.png", os.fsencode(root) + b"/b/caf\xe9.png"),
        {},
        r"/b/caf\\udce9\.png: its name is not UTF-8; rename it",
    ),
    "class of other files": (
        write_heic_class,
        {},
        r"/c: a class without an image that can be read \(there are 3 other files, such as 0\.heic\); fill it or",
    ),
    "class of other files in the test split": (
        write_unreadable_test_class,
        {},
        r"/test/b: a class without an image that can be read \(but 0\.heic\)",
    ),
    "empty class": (
        lambda root: (write_folder(root, "a", "b") / "c").mkdir(),
        {},
        "/c: a class without an image that can be read; fill it or remove the directory",
    ),
    "folder of other files": (
        lambda root: (root / "a.heic").write_text(""),
        {},
        r"holds no parquet files and no images; .*, or CLASS/\*\.png \(but a\.heic\)",
    ),
    "table without file names": (
        lambda root: write_bad_table(root, [{"name": "0.png", "label": "a"}]),
        {},
        r"/0\.png: lies in no class directory; .* or are named in the column file_name of a metadata\.csv",
    ),
    "table with a missing file": (
        lambda root: write_bad_table(
            root, [{"file_name": "0.png", "label": "a"}, {"file_name": "x.png", "label": "b"}]
        ),
        {},
        r"/metadata\.csv, row 1: no file 'x\.png' in .*; correct file_name or remove the row",
    ),
    "table without a label": (
        lambda root: write_bad_table(root, [{"file_name": "0.png", "label": "a"}, {"file_name": "1.png", "label": ""}]),
        {},
        r"/1\.png: no label; fill it in or remove the row",
    ),
    "table of decimals": (
        lambda root: write_bad_table(root, [{"file_name": f"{i}.png", "label": i % 2 / 1} for i in range(20)]),
        {},
        r"column 'label' holds numbers with decimals \(float64\).*; convert class numbers such as 1\.0 to whole",
    ),
    "tables of two kinds": (
        write_tables_of_two_kinds,
        {},
        r"split test: column 'label' holds whole numbers without class names, but text in .*split train; write both",
    ),
    "table of a header alone": (
        lambda root: [write_images(root, 2), (root / "metadata.csv").write_text("file_name,label\n")],
        {},
        r"/metadata\.csv: names no images; write one row for each image, or remove the file",
    ),
    "table in UTF-16": (
        lambda root: [
            write_images(root, 2),
            (root / "metadata.csv").write_text("file_name,label\n0.png,a\n1.png,b\n", "utf-16"),
        ],
        {},
        r"/metadata\.csv: is not UTF-8; save it as UTF-8 text",
    ),
    "table in Latin-1": (
        lambda root: [
            write_images(root, 2),
            (root / "metadata.csv").write_text("file_name,label\n0.png,café\n1.png,b\n", "latin-1"),
        ],
        {},
        r"/metadata\.csv: is not UTF-8; save it as UTF-8 text",
    ),
    "table that is a pipe": (
        lambda root: os.mkfifo(root / write_images(root, 2)[0].replace("0.png", "metadata.csv")),
        {},
        r"/metadata\.csv: is a pipe, not a file; replace or remove it",
    ),
    "table without commas": (
        lambda root: [
            write_images(root, 2),
            (root / "metadata.csv").write_text("file_name;label\n0.png;a\n1.png;b\n"),
        ],
        {},
        r"/0\.png: lies in no class directory; .*/metadata\.csv has no column 'file_name', but 'file_name;label'\)$",
    ),
    "damaged table": (
        lambda root: [write_images(root, 2), (root / "metadata.csv").write_text("file_name,label\n0.png,a,b,c\n")],
        {},
        r"/metadata\.csv: cannot be read \(.*\); write one row for each image",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_folder_is_one_clear_line(case: str, tmp_path: Path) -> None:
    write, keys, message = BAD[case]
    write(tmp_path)
    assert re.search(message, error_of(tmp_path, **keys))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="root gives up its rights in it")
@pytest.mark.parametrize("rights", [0, 0o644])  # neither; and to be listed, but not entered
@pytest.mark.parametrize("place", ["a/deep", "a"])
def test_what_may_not_be_read_is_named(tmp_path: Path, rights: int, place: str) -> None:
    write_folder(tmp_path, "a", "b")
    write_folder(tmp_path / "a", "deep")
    for parent in (tmp_path, *tmp_path.parents[:-1]):
        parent.chmod(0o755)
    (tmp_path / place).chmod(rights)
    os.seteuid(65534)
    try:
        message = error_of(tmp_path)
    finally:
        os.seteuid(0)
        (tmp_path / place).chmod(0o755)
    assert str(tmp_path / place) in message
    assert "Permission denied" in message


def test_a_class_in_underscores_is_read(tmp_path: Path) -> None:
    write_folder(tmp_path, "__background__", "cat")
    (tmp_path / "__pycache__").mkdir()
    assert load(tmp_path).classes == ("__background__", "cat")


def test_a_class_that_a_split_lacks_draws_a_warning(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", "a", "b")
    write_folder(tmp_path / "test", "b")
    assert "empty-class" not in codes(load(tmp_path))
    (tmp_path / "test" / "a").mkdir()
    warning = warned(load(tmp_path), "empty-class")
    assert warning.count == 1
    assert warning.sentence.startswith(
        f"class directories of a split without an image: 1, the first is {tmp_path}/test/a"
    )


def test_images_beside_splits_are_told_as_images(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", "a", "b")
    write_folder(tmp_path / "test", "a", "b", count=3)
    write_folder(tmp_path, "cat", count=4)
    (tmp_path / "train" / "a" / "x.heic").write_text("")
    inside, outside = [warning for warning in load(tmp_path).warnings if warning.code == "unread-files"]
    assert inside.count == 1
    assert outside.count == 4
    assert outside.sentence == (
        "images that were not read, as they lie in no split's directory: 4, the first is "
        f"{tmp_path}/cat/0.png; move them below a split, or remove them"
    )


@pytest.mark.parametrize(
    ("header", "shown"), [("file_name;label", "'file_name;label'"), ("File_Name,x", "'File_Name', 'x'")]
)
def test_a_table_that_cannot_be_used_beside_classes_draws_a_warning(tmp_path: Path, header: str, shown: str) -> None:
    write_folder(tmp_path, "a", "b")
    (tmp_path / "metadata.csv").write_text(f"{header}\na/0.png,x\n" if "," in header else f"{header}\na/0.png;x\n")
    warning = warned(load(tmp_path), "unread-table")
    assert warning.count == 1
    assert warning.sentence == (
        f"tables beside the images that were not read: {tmp_path}/metadata.csv has no column 'file_name', but {shown}; "
        "fix or remove them"
    )


def test_labels_of_many_digits_are_names(tmp_path: Path) -> None:
    labels = (10**25, 10**25 + 1)
    rows = [{"file_name": name, "label": labels[i % 2]} for i, name in enumerate(write_images(tmp_path, 20))]
    write_table(tmp_path / "metadata.csv", rows)
    assert load(tmp_path).classes == tuple(map(str, labels))


def test_the_order_of_files_on_disk_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path, "a", "b")
    data = load(tmp_path)
    real = os.walk
    monkeypatch.setattr(
        os, "walk", lambda *args, **keys: ((base, folders, files[::-1]) for base, folders, files in real(*args, **keys))
    )
    again = load(tmp_path)
    assert torch.equal(pixels_of(data.train), pixels_of(again.train))


def test_directories_that_repeat_below_all_classes_draw_a_warning(tmp_path: Path) -> None:
    for year in ("2019", "2020"):
        write_folder(tmp_path / year, "cat", "dog", size=(6, 5 if year == "2019" else 7))
    data = load(tmp_path, image_size=6)
    assert data.classes == ("2019", "2020")
    assert warned(data, "nested-classes").count == 2
    write_folder(tmp_path / "2020", "ape")
    assert "nested-classes" not in codes(load(tmp_path, image_size=6))


def test_a_limit_that_leaves_a_class_out_draws_a_warning(tmp_path: Path) -> None:
    write_folder(tmp_path, "a", "b", "c")
    warning = warned(load(tmp_path, train_limit=2), "empty-class")
    assert warning.count == 1
    assert re.match(
        r"classes that data\.train_limit leaves .* tested: 1 of 3, such as '[abc]'; give a larger limit",
        warning.sentence,
    )
    assert not load(tmp_path, train_limit=3).warnings


def test_a_table_in_a_class_directory_is_no_table_of_labels(tmp_path: Path) -> None:
    write_folder(tmp_path, "a", "b")
    write_table(tmp_path / "a" / "metadata.csv", [{"file_name": "0.png", "label": "x"}])
    data = load(tmp_path)
    assert data.classes == ("a", "b")
    assert warned(data, "unread-files").sentence.endswith(
        "a/metadata.csv; convert those that are images, and remove the others"
    )


def test_a_table_may_name_images_elsewhere(tmp_path: Path) -> None:
    names = write_images(tmp_path / "elsewhere", 20)
    (tmp_path / "root").mkdir()
    rows = [{"file_name": f"../elsewhere/{name}", "label": "ab"[i % 2]} for i, name in enumerate(names)]
    write_table(tmp_path / "root" / "metadata.csv", rows)
    assert load(tmp_path / "root").classes == ("a", "b")


def test_a_table_that_names_no_images_leaves_the_classes_alone(tmp_path: Path) -> None:
    write_folder(tmp_path, "a", "b")
    write_table(tmp_path / "metadata.csv", [{"image_id": "0", "age": 3}])
    data = load(tmp_path)
    assert data.classes == ("a", "b")
    assert "files beside the data, not read: 1, the first is metadata.csv" in data.notes

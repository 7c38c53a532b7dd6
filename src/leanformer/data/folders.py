"""Folders of images: a directory for each class, in a directory for each split if there are splits; files not read.

The reader of ``datasets`` for such folders is not used: it guesses splits from words in file names, so that
``cat/test_1.png`` would make a test split, and everything without such a word would be left out silently.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from leanformer.core.errors import LeanformerError
from leanformer.core.warning import StudyWarning
from leanformer.data.hub import SourceSplit
from leanformer.data.image_files import is_image
from leanformer.data.labels import class_name
from leanformer.data.splits import role_of
from leanformer.data.walking import subdirectories


@dataclass(frozen=True)
class Opened:
    """A source's splits by its own names, with notes and warnings about the source."""

    splits: dict[str, SourceSplit]
    notes: tuple[str, ...] = ()
    warnings: tuple[StudyWarning, ...] = ()


def labeled_images(images: list[dict[str, Any]], labels: list[int], classes: list[str]) -> datasets.Dataset:
    """A data set of image files (``bytes`` and ``path``) and class numbers."""
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=classes)})
    return datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)


def open_folder(root: Path, files: Sequence[Path], source: str, no_tables: Sequence[str] = ()) -> Opened:
    """``root/class/*.png``, or ``root/train/class/*.png`` and so on.

    Args:
        root: the directory.
        files: what ``files_below`` gave for it.
        source: the study's ``data.source``, for messages.
        no_tables: why tables beside the images are not read, a clause each.

    Raises:
        LeanformerError: for an image in no class, a class without images, a class with the name of a split, splits
            below classes, a broken link in place of a class, and a folder without images.
    """
    splits = _split_directories(root, files)
    below = {name: _by_child(directory, files) for name, directory in splits.items()}  # split -> class -> files
    found: dict[str, list[tuple[str, str]]] = {}  # split -> (file, class)
    for name, directory in splits.items():
        _check_links(directory, files)
        stray = [file for file in files if file.parent == directory and is_image(file)]
        if stray:
            raise LeanformerError(
                f"{stray[0]}: lies in no class directory; images belong in {directory.name}/CLASS/, one directory "
                f"for each class, or are named in the column file_name of a metadata.csv{_first_reason(no_tables)}"
            )
        found[name] = [
            (str(file), class_name(child)) for child, own in below[name].items() for file in own if is_image(file)
        ]
    classes = sorted({name for examples in found.values() for _, name in examples})
    if not classes:
        raise LeanformerError(
            f"data.source {source}: holds no parquet files and no images; give files such as "
            f"train-00000-of-00001.parquet, or CLASS/*.png{_other_files(files)}"
        )
    empty = []
    for name, directory in splits.items():
        for child, own in below[name].items():
            _check_class(directory / child, own, classes, below_split=directory != root)
            empty += [] if own else [directory / child]
    nested = [warning for name, children in below.items() if (warning := _nested(splits[name], children)) is not None]
    number = {name: index for index, name in enumerate(classes)}
    opened = {}
    for name, examples in found.items():
        content = [{"bytes": None, "path": file} for file, _ in examples]
        dataset = labeled_images(content, [number[label] for _, label in examples], classes)
        opened[name] = SourceSplit(source, name, dataset, tuple((file, 1) for file, _ in examples))
    read = {file for examples in found.values() for file, _ in examples}
    inside = [str(splits[name] / child) for name, children in below.items() for child in children]
    notes, warnings = unread_files(
        root, files, read, inside, "as they lie in no split's directory", "move them below a split, or remove them"
    )
    if empty:
        sentence = (
            f"class directories of a split without an image: {len(empty):,}, the first is {empty[0]}; that split has "
            "no example of the class: fill or remove the directory"
        )
        warnings.append(StudyWarning("empty-class", sentence, len(empty)))
    return Opened(opened, tuple(notes), (*nested[:1], *warnings, *unread_tables(no_tables)))


def unread_tables(no_tables: Sequence[str]) -> list[StudyWarning]:
    """The warning of tables that are not read.

    Args:
        no_tables: why, a clause each.
    """
    if not no_tables:
        return []
    sentence = f"tables beside the images that were not read: {'; '.join(no_tables[:5])}; fix or remove them"
    return [StudyWarning("unread-table", sentence, len(no_tables))]


def _first_reason(no_tables: Sequence[str]) -> str:
    return f" ({no_tables[0]})" if no_tables else ""


def _check_links(directory: Path, files: Sequence[Path]) -> None:
    """Refuses broken links beside class directories: each was probably a class directory."""
    broken = [file for file in files if file.parent == directory and file.is_symlink() and not os.path.exists(file)]
    if broken:
        raise LeanformerError(f"{broken[0]}: a broken link; correct or remove it")


def _nested(directory: Path, children: Mapping[str, Sequence[Path]]) -> StudyWarning | None:
    """The warning of class directories that all hold the same directories, which are then probably the classes."""
    for name, own in children.items():
        depth = str(directory / name / "image").count(os.sep)
        if any(str(file).count(os.sep) == depth for file in own):
            return None
    names = [{file.parent.name for file in own if is_image(file)} for own in children.values()]
    if len(names) < 2 or len(names[0]) < 2 or any(own != names[0] for own in names):
        return None
    first, second = sorted(names[0])[:2]
    return StudyWarning(
        "nested-classes",
        f"the classes are {', '.join(list(children)[:5])}, and each of them holds the same directories ({first}, "
        f"{second}, ...); if these are the classes, move them up",
        len(children),
    )


def _split_directories(root: Path, files: Sequence[Path]) -> dict[str, Path]:
    """The directories that hold classes, by split: ``root`` alone, or those below it if one has a split's name."""
    children = subdirectories(root)
    with_classes = {
        name
        for name, own in _by_child(root, files).items()
        if any(is_image(file) and file.parent != root / name for file in own)
    }
    named = [path for path in children if role_of(path.name)]  # empty ones too
    if not any(path.name in with_classes for path in named):
        return {"train": root}
    return {path.name: path for path in children if path in named or path.name in with_classes}


def _by_child(directory: Path, files: Sequence[Path]) -> dict[str, list[Path]]:
    """The files below each directory in a directory, by that directory's name; empty directories too."""
    prefix = "" if directory == Path() else f"{directory}{os.sep}"
    found: dict[str, list[Path]] = {path.name: [] for path in subdirectories(directory)}
    for file in files:
        if str(file).startswith(prefix):
            name, inner, _ = str(file)[len(prefix) :].partition(os.sep)
            if inner:
                found[name].append(file)
    return found


def _check_class(directory: Path, files: Sequence[Path], classes: Collection[str], below_split: bool) -> None:
    if not any(map(is_image, files)) and (files or class_name(directory.name) not in classes):
        raise LeanformerError(
            f"{directory}: a class without an image that can be read{_other_files(files)}; fill it or remove the "
            "directory"
        )
    if not below_split and role_of(directory.name):
        raise LeanformerError(
            f"{directory}: a class with the name of a split; a split holds a directory for each class "
            f"({directory.name}/CLASS/*.png), or a metadata.csv; rename it if it is a class"
        )
    inner = {role: path for path in subdirectories(directory) if (role := role_of(path.name)) is not None}
    if len(inner) > 1:
        split = inner.get("test") or inner["validation"]
        if len(classes) == 1:  # the directory above the splits, not a class
            raise LeanformerError(f"{directory}: holds the splits; give this directory as data.source")
        raise LeanformerError(
            f"{split}: a split inside of a class; splits stand above classes: {split.name}/{directory.name}/*.png"
        )


def _other_files(files: Sequence[Path]) -> str:
    """What a message says of the files that are there instead of images."""
    if not files:
        return ""
    return (
        f" (there are {len(files):,} other files, such as {files[0].name})"
        if len(files) > 1
        else f" (but {files[0].name})"
    )


def unread_files(
    root: Path, files: Sequence[Path], read: Collection[str], inside: Sequence[str], why: str, remedy: str
) -> tuple[list[str], list[StudyWarning]]:
    """The notes on files that were not read, and the warnings where they may be examples.

    Args:
        root: the source.
        files: all below it.
        read: the paths of those that were read.
        inside: the directories that hold examples: every file in them, and every image, may be an example.
        why: why images outside of them are not read, a clause.
        remedy: what to do with these.
    """
    inside = tuple(f"{directory}{os.sep}" for directory in inside)
    left = [file for file in files if str(file) not in read]
    missing = [file for file in left if str(file).startswith(inside)]
    outside = [file for file in left if is_image(file) and not str(file).startswith(inside)]
    known = {*missing, *outside}
    other = [file for file in left if file not in known]
    notes = []
    if other:
        notes.append(f"files beside the data, not read: {len(other):,}, the first is {other[0].relative_to(root)}")
    warnings = []
    if outside:
        sentence = f"images that were not read, {why}: {len(outside):,}, the first is {outside[0]}; {remedy}"
        warnings.append(StudyWarning("unread-files", sentence, len(outside)))
    if not missing:
        return notes, warnings
    kinds = sorted({file.suffix.lower() or "no ending" for file in missing})
    sentence = (
        f"files among the images that were not read: {len(missing):,} ({', '.join(kinds[:5])}), the first is "
        f"{missing[0]}; convert those that are images, and remove the others"
    )
    return notes, [StudyWarning("unread-files", sentence, len(missing)), *warnings]

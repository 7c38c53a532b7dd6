"""Where labeled images come from: the built-in digits, a hub data set, its local copy, or a folder of images.

A source is opened as its splits, and the columns that hold images and labels are found. No image is decoded here.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image

from leanformer.config.images import ImageDataConfig
from leanformer.core.errors import LeanformerError
from leanformer.core.paths import source_path
from leanformer.data import metadata
from leanformer.data.folders import Opened, labeled_images, open_folder, unread_files
from leanformer.data.hub import SourceSplit, check_hub, load_dataset, quiet, refuse_subset
from leanformer.data.walking import check_tables, files_below


@quiet()
def open_source(config: ImageDataConfig) -> Opened:
    """The splits of ``config.source`` by its own names, in the shapes that docs/data.md lists.

    Raises:
        LeanformerError: for a source that is missing, cannot be reached or cannot be read, or that holds no images.
    """
    if config.source == "digits":
        return Opened({"train": SourceSplit("digits", "train", _digits())})
    directory = source_path(config.source)
    if directory.is_dir():
        files = files_below(directory)
        if any(file.suffix == ".parquet" and file.name not in metadata.NAMES for file in files):
            return _parquet_directory(directory, files, config)
        refuse_subset(config.source, config.subset)
        tables, no_tables = metadata.find_tables(directory)
        if tables:
            return metadata.open_with_tables(directory, files, tables, no_tables, config.source)
        return open_folder(directory, files, config.source, no_tables)
    if directory.exists():
        raise LeanformerError(f"data.source {config.source}: is a file; give the directory that holds it")
    check_hub(config.source, "no such directory")
    return Opened(load_dataset(config.source, config.source, config.subset))


def _parquet_directory(directory: Path, files: Sequence[Path], config: ImageDataConfig) -> Opened:
    check_tables(files)
    splits = load_dataset(config.source, str(directory), config.subset)
    read = {os.path.abspath(file) for split in splits.values() for file, _ in split.files}
    if not read:  # files of other kinds were read, which are not listed
        return Opened(splits)
    absolute = [Path(os.path.abspath(file)) for file in files]
    notes, warnings = unread_files(
        Path(os.path.abspath(directory)),
        absolute,
        read,
        [],
        "as parquet files lie beside them",
        "write them into the parquet files, or remove them",
    )
    return Opened(splits, tuple(notes), tuple(warnings))


@cache
def _digits() -> datasets.Dataset:
    """Scikit-learn's copy of the UCI handwritten digits: 1,797 images of 8x8 pixels, here 0..255 for its 0..16."""
    from sklearn.datasets import load_digits  # imported here: it takes longer than most sources do to open

    digits = load_digits()
    images = []
    for pixels in np.rint(digits.images * (255 / 16)).astype(np.uint8):
        png = io.BytesIO()
        Image.fromarray(pixels).save(png, "PNG")
        images.append({"bytes": png.getvalue(), "path": None})
    return labeled_images(images, digits.target.tolist(), [str(name) for name in range(10)])


# Columns


def find_columns(features: datasets.Features, config: ImageDataConfig) -> tuple[str, str]:
    """The names of the image column and the label column: those given, or the only ones of a fitting type.

    Raises:
        LeanformerError: for a given column that is missing or of another type, and where none fits or several do.
    """
    columns = ", ".join(features)
    for key in ("image_column", "label_column"):
        given = getattr(config, key)
        if given is not None and given not in features:
            raise LeanformerError(f"data.{key}: no column {given!r} in {config.source}; there are {columns}")

    image = config.image_column
    if image is None:
        fitting = [name for name, feature in features.items() if _is_image_feature(feature)]
        image = _only("image", fitting, columns, config)
    elif not (_is_image_feature(features[image]) or _is_content_or_path(features[image])):
        raise LeanformerError(
            f"data.image_column: column {image!r} of {config.source} holds no images; columns: {columns}"
        )
    label = config.label_column
    if label is None:
        others = {image, config.group.column if config.group else None}
        fitting = [name for name, feature in features.items() if name not in others and _is_label_feature(feature)]
        marked = [name for name in fitting if isinstance(features[name], datasets.ClassLabel)]
        floats = [name for name, feature in features.items() if _is_float_feature(feature)]
        if not fitting and floats:
            raise LeanformerError(f"data.source {config.source}: {_float_problem(floats[0], features)}")
        label = _only("label", marked or fitting, columns, config)
    elif not _is_label_feature(features[label]):
        if _is_float_feature(features[label]):
            raise LeanformerError(f"data.label_column: {_float_problem(label, features)}")
        raise LeanformerError(
            f"data.label_column: column {label!r} of {config.source} holds {features[label]}; labels are class labels, "
            "whole numbers or strings"
        )
    return image, label


def _is_image_feature(feature: Any) -> bool:
    """Whether a column holds images: marked so by ``datasets``, or as the content and path of their files."""
    return isinstance(feature, datasets.Image) or (isinstance(feature, dict) and set(feature) == {"bytes", "path"})


def _is_content_or_path(feature: Any) -> bool:
    return isinstance(feature, datasets.Value) and feature.dtype in ("binary", "large_binary", "string")


def _is_label_feature(feature: Any) -> bool:
    return isinstance(feature, datasets.ClassLabel) or (
        isinstance(feature, datasets.Value)
        and feature.dtype.startswith(("int", "uint", "bool", "string", "large_string"))
    )


def _is_float_feature(feature: Any) -> bool:
    return isinstance(feature, datasets.Value) and feature.dtype.startswith(("float", "double", "decimal"))


def _float_problem(column: str, features: datasets.Features) -> str:
    return (
        f"column {column!r} holds numbers with decimals ({features[column].dtype}), and labels are class labels, whole "
        "numbers or strings; convert class numbers such as 1.0 to whole numbers; measured quantities are no classes"
    )


def _only(kind: str, fitting: list[str], columns: str, config: ImageDataConfig) -> str:
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        problem = f"several {kind} columns: {', '.join(fitting)}; set data.{kind}_column to one"
    else:
        problem = f"no {kind} column among {columns}; set data.{kind}_column"
    raise LeanformerError(f"data.source {config.source}: {problem}")

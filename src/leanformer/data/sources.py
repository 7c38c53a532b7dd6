"""Where labeled images come from: the built-in digits, a hub data set, its local copy, or a folder of images.

A source is opened as its splits; the columns that hold images and labels are found, and every label is checked. No
image is decoded here.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from leanformer.config import ImageDataConfig
from leanformer.data.hub import SourceSplit, check_hub, load_dataset, quiet
from leanformer.data.splits import SPLIT_NAMES, Rows
from leanformer.errors import LeanformerError

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})


@quiet()
def open_source(config: ImageDataConfig) -> dict[str, SourceSplit]:
    """The splits of ``config.source`` by its own names, in the shapes that docs/data.md lists.

    Raises:
        LeanformerError: for a source that is missing, cannot be reached or cannot be read, or that holds no images.
    """
    if config.source == "digits":
        return {"train": SourceSplit("digits", "train", _digits())}
    directory = Path(config.source).expanduser()
    if directory.is_dir():
        if any(path.is_file() for path in directory.rglob("*.parquet")):
            return load_dataset(config.source, str(directory), config.subset)
        return _image_folder(directory, config)
    if directory.exists():
        raise LeanformerError(f"data.source {config.source}: is a file; give the directory that holds it")
    check_hub(config.source, "no such directory")
    return load_dataset(config.source, config.source, config.subset)


def _digits() -> datasets.Dataset:
    """Scikit-learn's copy of the UCI handwritten digits: 1,797 images of 8x8 pixels, here 0..255 for its 0..16."""
    from sklearn.datasets import load_digits  # imported here: it takes longer than most sources do to open

    digits = load_digits()
    images = []
    for pixels in np.rint(digits.images * (255 / 16)).astype(np.uint8):
        png = io.BytesIO()
        Image.fromarray(pixels).save(png, "PNG")
        images.append({"bytes": png.getvalue(), "path": None})
    return _labeled_images(images, digits.target.tolist(), [str(name) for name in range(10)])


def _labeled_images(images: list[dict[str, Any]], labels: list[int], classes: list[str]) -> datasets.Dataset:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=classes)})
    return datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)


# Folders of images


def _image_folder(root: Path, config: ImageDataConfig) -> dict[str, SourceSplit]:
    """``root/class/*.png``, or ``root/train/class/*.png`` and so on.

    The reader of ``datasets`` for such folders is not used: it guesses splits from words in file names, so that
    ``cat/test_1.png`` would make a test split, and everything without such a word would be left out unseen.
    """
    found: dict[str, list[tuple[str, str]]] = {}  # split -> (file, class)
    for split, directory in _split_directories(root).items():
        stray = [path for path in directory.iterdir() if _is_image(path)]
        if stray:
            raise LeanformerError(
                f"{min(stray)}: lies in no class directory; images belong in {directory.name}/CLASS/, one directory "
                "a class"
            )
        found[split] = [(file, child.name) for child in _subdirectories(directory) for file in _images_below(child)]
    classes = sorted({name for examples in found.values() for _, name in examples})
    if not classes:
        raise LeanformerError(
            f"data.source {config.source}: holds no parquet files and no images; wanted are files such as "
            "train-00000-of-00001.parquet, or CLASS/*.png"
        )
    number = {name: index for index, name in enumerate(classes)}
    splits = {}
    for split, examples in found.items():
        images = [{"bytes": None, "path": file} for file, _ in examples]
        dataset = _labeled_images(images, [number[name] for _, name in examples], classes)
        splits[split] = SourceSplit(config.source, split, dataset, tuple((file, 1) for file, _ in examples))
    return splits


def _split_directories(root: Path) -> dict[str, Path]:
    """The directories that hold classes, by split: ``root`` alone, or those below it if one has a split's name.

    A directory named "train" that holds images itself is a class of trains, and no split.
    """
    split_names = {name for names in SPLIT_NAMES.values() for name in names}
    children = _subdirectories(root)
    with_classes = [path for path in children if any(map(_images_below, _subdirectories(path)))]
    if not any(path.name.lower() in split_names for path in with_classes):
        return {"train": root}
    named = [path for path in children if path.name.lower() in split_names]  # empty ones too
    return {path.name: path for path in sorted({*named, *with_classes})}


def _subdirectories(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))


def _images_below(directory: Path) -> list[str]:
    return sorted(str(path) for path in directory.rglob("*") if _is_image(path))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


# Columns and labels


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
        fitting = [name for name, feature in features.items() if name != image and _is_label_feature(feature)]
        marked = [name for name in fitting if isinstance(features[name], datasets.ClassLabel)]
        label = _only("label", marked or fitting, columns, config)
    elif not _is_label_feature(features[label]):
        raise LeanformerError(
            f"data.label_column: column {label!r} of {config.source} holds {features[label]}; labels are class labels, "
            "whole numbers or strings"
        )
    return image, label


def _is_image_feature(feature: Any) -> bool:
    """Images as ``datasets`` marks them, or their files' content and path unmarked."""
    return isinstance(feature, datasets.Image) or (isinstance(feature, dict) and set(feature) == {"bytes", "path"})


def _is_content_or_path(feature: Any) -> bool:
    return isinstance(feature, datasets.Value) and feature.dtype in ("binary", "large_binary", "string")


def _is_label_feature(feature: Any) -> bool:
    return isinstance(feature, datasets.ClassLabel) or (
        isinstance(feature, datasets.Value)
        and feature.dtype.startswith(("int", "uint", "bool", "string", "large_string"))
    )


def _only(kind: str, fitting: list[str], columns: str, config: ImageDataConfig) -> str:
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        problem = f"several {kind} columns: {', '.join(fitting)}; set data.{kind}_column to one"
    else:
        problem = f"no {kind} column among {columns}; set data.{kind}_column"
    raise LeanformerError(f"data.source {config.source}: {problem}")


def read_labels(splits: Mapping[str, SourceSplit], column: str) -> tuple[dict[str, Rows], tuple[str, ...]]:
    """The class numbers of all examples, and the names of the classes.

    Args:
        splits: the source's splits by their role; ``train`` is there, the others may be.
        column: the label column.

    Returns:
        (n,) int64 class numbers of each split by its role, and the classes' names in the order of the numbers.

    Raises:
        LeanformerError: for a label that is missing or out of range, a class that the training split lacks, and a
            training split of one class.
    """
    feature = splits["train"].examples.features[column]
    values = {role: _label_values(split, column, feature) for role, split in splits.items()}
    if isinstance(feature, datasets.ClassLabel):
        classes = tuple(feature.names)
        labels = {role: numbers.astype(np.int64) for role, numbers in values.items()}
    else:
        distinct = np.unique(np.concatenate(list(values.values())))
        classes = tuple(str(value) for value in distinct)
        labels = {role: np.searchsorted(distinct, part).astype(np.int64) for role, part in values.items()}

    trained = np.unique(labels["train"])
    for role, numbers in labels.items():
        unknown = np.flatnonzero(~np.isin(numbers, trained))
        if len(trained) and len(unknown):  # without any training example, make_splits has the better message
            raise LeanformerError(
                f"{splits[role].place(int(unknown[0]), column)}: class {classes[numbers[unknown[0]]]!r} has no example "
                f"in split {splits['train'].name}; training data needs every class"
            )
    if len(trained) == 1:
        raise LeanformerError(
            f"data.source {splits['train'].source}: one class only ({classes[trained[0]]!r}) in split "
            f"{splits['train'].name}; classification needs two"
        )
    return labels, classes


def _label_values(split: SourceSplit, column: str, feature: Any) -> NDArray[Any]:
    """(n,) labels as they are stored; none is missing, and numbers are in range."""
    stored = split.examples.select_columns([column]).with_format("arrow")[:][column]
    if stored.null_count:
        row = stored.is_null().index(True).as_py()
        raise LeanformerError(f"{split.place(row, column)}: no label; fill it in or remove the row")
    values: NDArray[Any] = stored.to_numpy()
    if values.dtype.kind in "iu":
        end = feature.num_classes if isinstance(feature, datasets.ClassLabel) else np.inf
        wrong = np.flatnonzero((values < 0) | (values >= end))
        if len(wrong):
            label = values[wrong[0]]
            hint = " (-1 often stands for no label)" if label == -1 else ""
            right = "0 or more" if end == np.inf else f"0 to {end - 1}"
            raise LeanformerError(
                f"{split.place(int(wrong[0]), column)}: label {label} is out of range{hint}; class numbers are {right}"
            )
    return values

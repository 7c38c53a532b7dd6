"""Labeled images, as batches of tensors: the built-in digits, a hub data set, its local copy, or a folder of images.

Images are decoded once and kept on the device where they fit; otherwise worker processes decode each batch from disk
ahead of its use. Both ways give the same batches.
"""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import datasets
import huggingface_hub
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import DataLoader

from leanformer.config import DataConfig
from leanformer.data.splits import SPLIT_NAMES, Rows, make_splits, name_splits
from leanformer.errors import LeanformerError

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
MODES = {1: "L", 3: "RGB"}  # of Pillow
GREY_MODES = frozenset({"1", "L", "LA", "I;16", "I;16B", "I;16L"})
ORIENTATION = 0x0112  # the Exif tag
SIDEWAYS = frozenset({5, 6, 7, 8})  # its values that turn an image by a quarter
CHUNK = 512  # images that are read at a time while loading
FEW = 2000  # fewer images are read faster than worker processes start
STATISTICS_SAMPLE = 10_000
SMALLEST_STD = 1 / 255  # one grey level: images of one plain color must not be divided by zero

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class _Form:
    """What all images are brought to."""

    channels: int
    height: int
    width: int
    convert: bool  # color may become grey; otherwise that is a misfit
    resize: bool  # other sizes are resized; otherwise they are a misfit

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width


class ImageSplit(Protocol):
    """The examples of one split.

    Attributes:
        labels: (n,) int64 class numbers, on the device.
    """

    labels: Tensor

    def __len__(self) -> int: ...

    def batches(self, index_batches: Sequence[Tensor]) -> Iterator[Batch]:
        """One batch for each (B,) tensor of example numbers, in the given order.

        Yields:
            ``{"pixel_values": (B, C, H, W) uint8, "labels": (B,) int64}``, on the device.

        Raises:
            LeanformerError: for an image that cannot be read (while streaming; in memory all were read before).
        """
        ...


@dataclass(frozen=True)
class ImageData:
    """What a model learns from.

    Attributes:
        classes: the names, in the order of the class numbers.
        channels, height, width: of every image.
        mean, std: of the training images' pixels per channel, in pixel values from 0 to 1.
        storage: ``memory`` or ``stream``.
        notes: in words: which columns were found, which splits were made, how the images are stored and why.
    """

    train: ImageSplit
    validation: ImageSplit
    test: ImageSplit
    classes: tuple[str, ...]
    channels: int
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    storage: str
    notes: tuple[str, ...]


def load_images(
    config: DataConfig,
    device: torch.device,
    image_size: tuple[int, int] | None = None,
    channels: int | None = None,
) -> ImageData:
    """The images and labels of a source, split, and ready to be drawn in batches.

    Args:
        config: the study's ``data`` section.
        device: where batches are wanted.
        image_size: (height, width) that the model wants; used where the configuration gives none.
        channels: 1 or 3, likewise.

    Raises:
        LeanformerError: for a source that cannot be read or understood, and for examples that nothing can be learned
            from: see docs/data.md for all the cases.
    """
    notes: list[str] = []
    # 1. Find the source, its columns and its splits.
    with _quiet():
        found = _open_source(config)
    roles = name_splits(list(found), config.source)
    if unused := [name for name in found if name not in roles.values()]:
        notes.append(f"splits not used: {', '.join(unused)}")
    image_column, label_column = _find_columns(found[roles["train"]].features, config)
    notes.append(f"columns: {image_column} (image), {label_column} (label)")

    # 2. Check the labels and divide the examples.
    labels, classes = _read_labels({role: found[name] for role, name in roles.items()}, roles, label_column, config)
    splits, split_notes = make_splits(labels, config)
    notes += split_notes
    readers = {
        role: _Reader(found[roles[split.source_split]], roles[split.source_split], image_column, split.rows, config)
        for role, split in splits.items()
    }

    # 3. Settle one form for all images, and keep them in memory or stream them.
    form, storage, pixels, form_notes = _settle(readers, config, device, image_size, channels)
    notes += form_notes
    parts: dict[str, MemorySplit | StreamSplit] = {}
    for role, split in splits.items():
        own_labels = torch.from_numpy(labels[split.source_split][split.rows]).to(device)
        if pixels is None:
            parts[role] = StreamSplit(readers[role], own_labels, device)
        else:
            parts[role] = MemorySplit(pixels[role], own_labels)
    mean, std, sampled = _pixel_statistics(parts["train"], config.split_seed)
    if sampled:
        notes.append(f"mean and deviation from {sampled:,} training images (seed {config.split_seed})")
    return ImageData(
        train=parts["train"],
        validation=parts["validation"],
        test=parts["test"],
        classes=classes,
        channels=form.channels,
        height=form.height,
        width=form.width,
        mean=mean,
        std=std,
        storage=storage,
        notes=tuple(notes),
    )


class MemorySplit:
    """A split whose decoded images lie on the device."""

    def __init__(self, pixel_values: Tensor, labels: Tensor) -> None:
        self.pixel_values = pixel_values  # (n, C, H, W) uint8
        self.labels = labels  # (n,) int64

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, index_batches: Sequence[Tensor]) -> Iterator[Batch]:
        for batch in index_batches:
            indexes = batch.to(self.labels.device)
            # index_select, as on the CPU it is ten times faster than pixel_values[indexes].
            yield {
                "pixel_values": self.pixel_values.index_select(0, indexes),
                "labels": self.labels.index_select(0, indexes),
            }


class StreamSplit:
    """A split whose images are decoded batch by batch, ahead of their use, by worker processes."""

    def __init__(self, reader: _Reader, labels: Tensor, device: torch.device) -> None:
        self.reader = reader
        self.labels = labels  # (n,) int64
        self.device = device

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, index_batches: Sequence[Tensor]) -> Iterator[Batch]:
        numbers = [batch.cpu().numpy() for batch in index_batches]
        images = _in_background(self.reader, numbers, _processors(), self.device)
        for batch, pixel_values in zip(index_batches, images, strict=True):
            yield {
                "pixel_values": pixel_values.to(self.device, non_blocking=True),
                "labels": self.labels.index_select(0, batch.to(self.device)),
            }


# Sources


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no log lines of the libraries that read data: errors are raised, and raised once."""
    bars = datasets.are_progress_bars_disabled()
    levels = datasets.logging.get_verbosity(), huggingface_hub.logging.get_verbosity()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    huggingface_hub.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    finally:
        if not bars:
            datasets.enable_progress_bars()
        datasets.logging.set_verbosity(levels[0])
        huggingface_hub.logging.set_verbosity(levels[1])


def _open_source(config: DataConfig) -> dict[str, datasets.Dataset]:
    """The source's splits by its own names; images are not decoded yet."""
    if config.source == "digits":
        return {"train": _digits()}
    directory = Path(config.source).expanduser()
    if directory.is_dir():
        parquet_files = sorted(path for path in directory.rglob("*.parquet") if path.is_file())
        if parquet_files:
            return _load_dataset(config, str(directory), parquet_files)
        return _image_folder(directory, config)
    if directory.exists():
        raise LeanformerError(f"data.source {config.source}: is a file; give the directory that holds it")
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", config.source):
        raise LeanformerError(f"data.source {config.source}: no such directory")
    _check_hub(config)
    return _load_dataset(config, config.source, [])


def _digits() -> datasets.Dataset:
    """Scikit-learn's copy of the UCI handwritten digits: 1,797 images of 8x8 pixels, here 0..255 for its 0..16."""
    digits = load_digits()
    images = []
    for pixels in np.rint(digits.images * (255 / 16)).astype(np.uint8):
        png = io.BytesIO()
        Image.fromarray(pixels).save(png, "PNG")
        images.append({"bytes": png.getvalue(), "path": None})
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=[str(name) for name in range(10)])}
    return datasets.Dataset.from_dict(
        {"image": images, "label": digits.target.tolist()}, features=datasets.Features(features)
    )


def _check_hub(config: DataConfig) -> None:
    """Asks the hub once whether the data set is there, as loading would retry for half a minute without a network."""
    if (Path(datasets.config.HF_DATASETS_CACHE) / config.source.replace("/", "___")).is_dir():
        return
    wanted = f"data.source {config.source}: no such directory, and as a hub data set"
    try:
        huggingface_hub.HfApi().dataset_info(config.source, timeout=10)
    except huggingface_hub.errors.GatedRepoError as error:
        raise LeanformerError(f"{wanted} it asks for a log-in: accept its terms and run 'hf auth login'") from error
    except huggingface_hub.errors.RepositoryNotFoundError as error:
        raise LeanformerError(f"{wanted} it does not exist or is private; check the name") from error
    except Exception as error:  # whatever the network's libraries raise, it could not be reached
        raise LeanformerError(
            f"{wanted} it cannot be reached ({_first_line(error)}); check the name and the network"
        ) from error


def _load_dataset(config: DataConfig, path: str, parquet_files: Sequence[Path]) -> dict[str, datasets.Dataset]:
    try:
        return dict(datasets.load_dataset(path, config.subset))
    except Exception as error:  # of many libraries and types; every one means that the source cannot be read
        for file in parquet_files:
            try:
                rows = pq.read_metadata(file).num_rows
            except (pa.ArrowInvalid, OSError) as cause:
                raise LeanformerError(
                    f"{file}: not a whole parquet file ({_first_line(cause)}); copy or download it again"
                ) from error
            if rows == 0:
                raise LeanformerError(f"{file}: holds no examples; fill it or remove it") from error
        root: BaseException = error
        while root.__cause__ is not None:
            root = root.__cause__
        if isinstance(root, OSError) and root.errno == errno.ENOSPC:
            raise LeanformerError(
                f"data.source {config.source}: no room in {datasets.config.HF_DATASETS_CACHE}; free some, or set "
                "HF_DATASETS_CACHE to another directory"
            ) from error
        raise LeanformerError(f"data.source {config.source}: cannot be read: {_first_line(root)}") from error


def _image_folder(root: Path, config: DataConfig) -> dict[str, datasets.Dataset]:
    """``root/class/*.png``, or ``root/train/class/*.png`` and so on.

    The reader of ``datasets`` for such folders is not used: it guesses splits from words in file names, so that
    ``cat/test_1.png`` would make a test split, and everything without such a word would be left out unseen.
    """
    split_names = {name for names in SPLIT_NAMES.values() for name in names}
    with_classes = [path for path in _subdirectories(root) if any(map(_images_below, _subdirectories(path)))]
    # A directory named "train" that holds images itself is a class of trains, and no split.
    split_directories: list[Path] = []
    if any(path.name.lower() in split_names for path in with_classes):
        named = [path for path in _subdirectories(root) if path.name.lower() in split_names]  # empty ones too
        split_directories = sorted({*named, *with_classes})
    found: dict[str, list[tuple[str, str]]] = {}  # split -> (file, class)
    for directory in split_directories or [root]:
        stray = [path for path in directory.iterdir() if _is_image(path)]
        if stray:
            raise LeanformerError(
                f"{min(stray)}: lies in no class directory; images belong in {directory.name}/CLASS/, one directory "
                "a class"
            )
        found[directory.name if split_directories else "train"] = [
            (file, child.name) for child in _subdirectories(directory) for file in _images_below(child)
        ]
    if not any(found.values()):
        raise LeanformerError(
            f"data.source {config.source}: holds no parquet files and no images; wanted are files such as "
            "train-00000-of-00001.parquet, or CLASS/*.png"
        )
    classes = sorted({name for files in found.values() for _, name in files})
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=classes)})
    number = {name: index for index, name in enumerate(classes)}
    return {
        split: datasets.Dataset.from_dict(
            {
                "image": [{"bytes": None, "path": file} for file, _ in files],
                "label": [number[name] for _, name in files],
            },
            features=features,
        )
        for split, files in found.items()
    }


def _subdirectories(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))


def _images_below(directory: Path) -> list[str]:
    return sorted(str(path) for path in directory.rglob("*") if _is_image(path))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


# Columns and labels


def _find_columns(features: datasets.Features, config: DataConfig) -> tuple[str, str]:
    """The names of the image column and the label column: those given, or the only ones of a fitting type."""
    columns = ", ".join(features)
    for key in ("image_column", "label_column"):
        given = getattr(config, key)
        if given is not None and given not in features:
            raise LeanformerError(f"data.{key}: no column {given!r} in {config.source}; there are {columns}")
    image = config.image_column
    if image is None:
        candidates = [name for name, feature in features.items() if _may_be_image(feature, given=False)]
        image = _only(candidates, "image", "image_column", columns, config)
    elif not _may_be_image(features[image], given=True):
        raise LeanformerError(
            f"data.image_column: column {image!r} of {config.source} holds no images; columns: {columns}"
        )
    label = config.label_column
    if label is None:
        others = {name: feature for name, feature in features.items() if name != image}
        candidates = [name for name, feature in others.items() if isinstance(feature, datasets.ClassLabel)]
        candidates = candidates or [name for name, feature in others.items() if _may_be_label(feature)]
        label = _only(candidates, "label", "label_column", columns, config)
    elif not _may_be_label(features[label]):
        raise LeanformerError(
            f"data.label_column: column {label!r} of {config.source} holds {features[label]}; labels are class labels, "
            "whole numbers or strings"
        )
    return image, label


def _may_be_image(feature: Any, given: bool) -> bool:
    """Images as ``datasets`` marks them, or their files' content and path unmarked; or, if named, content or path."""
    if isinstance(feature, datasets.Image) or (isinstance(feature, dict) and set(feature) == {"bytes", "path"}):
        return True
    return given and isinstance(feature, datasets.Value) and feature.dtype in ("binary", "large_binary", "string")


def _may_be_label(feature: Any) -> bool:
    return isinstance(feature, datasets.ClassLabel) or (
        isinstance(feature, datasets.Value)
        and (feature.dtype in ("string", "large_string", "bool") or feature.dtype.startswith(("int", "uint")))
    )


def _only(candidates: list[str], kind: str, key: str, columns: str, config: DataConfig) -> str:
    if not candidates:
        raise LeanformerError(f"data.source {config.source}: no {kind} column among {columns}; set data.{key}")
    if len(candidates) > 1:
        raise LeanformerError(
            f"data.source {config.source}: several {kind} columns: {', '.join(candidates)}; set data.{key} to one"
        )
    return candidates[0]


def _read_labels(
    found: Mapping[str, datasets.Dataset], roles: Mapping[str, str], column: str, config: DataConfig
) -> tuple[dict[str, Rows], tuple[str, ...]]:
    """(n,) class numbers of each split by its role, and the classes' names; every label is checked."""
    values: dict[str, NDArray[Any]] = {}
    for role, split in found.items():
        if column not in split.column_names:
            raise LeanformerError(f"data.source {config.source}: split {roles[role]} has no column {column!r}")
        array = split.select_columns([column]).with_format("arrow")[:][column]
        if array.null_count:
            row = array.is_null().index(True).as_py()
            raise LeanformerError(f"{_place(config, roles[role], row)}: no label; fill it in or remove the row")
        values[role] = array.to_numpy()
    feature = found["train"].features[column]
    numeric = values["train"].dtype.kind in "iu"
    if numeric:
        upper = feature.num_classes if isinstance(feature, datasets.ClassLabel) else np.inf
        for role, numbers in values.items():
            wrong = np.flatnonzero((numbers < 0) | (numbers >= upper))
            if len(wrong):
                right = f"0 to {upper - 1}" if np.isfinite(upper) else "0 or more"
                hint = " (-1 often stands for no label)" if numbers[wrong[0]] == -1 else ""
                raise LeanformerError(
                    f"{_place(config, roles[role], int(wrong[0]))}: label {numbers[wrong[0]]} is out of range"
                    f"{hint}; class numbers are {right}"
                )
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
        if len(trained) and len(unknown):
            raise LeanformerError(
                f"{_place(config, roles[role], int(unknown[0]))}: class {classes[numbers[unknown[0]]]!r} has no "
                f"example in split {roles['train']}; training data needs every class"
            )
    if len(trained) == 1:
        raise LeanformerError(
            f"data.source {config.source}: one class only ({classes[trained[0]]!r}) in split {roles['train']}; "
            "classification needs two"
        )
    return labels, classes


def _place(config: DataConfig, split: str, row: int) -> str:
    return f"{config.source}, split {split}, row {row}"


# Images


class _MisfitError(LeanformerError):
    """An image of another size, or in color, where all were taken to be like the first."""


class _Reader(torch.utils.data.Dataset[Any]):
    """Reads the images of some rows of one split of the source, a batch for each array of example numbers.

    Mistakes in the data are returned and not raised, as a worker process would wrap them in its traceback.
    """

    def __init__(self, split: datasets.Dataset, split_name: str, column: str, rows: Rows, config: DataConfig) -> None:
        self.files = split.select_columns([column]).cast_column(column, datasets.Image(decode=False))
        self.column = column
        self.split_name = split_name
        self.rows = rows
        self.config = config
        self.form: _Form | None = None  # until it is set, headers are read and no pixels

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, indexes: Rows) -> Tensor | LeanformerError:
        """(B, C, H, W) uint8 pixels; without a form, (B, 3) channels, height and width."""
        rows = self.rows[indexes].tolist()
        read: Callable[[Image.Image], Any] = self._decode if self.form else _read_header
        shape, dtype = (self.form.shape, np.uint8) if self.form else ((3,), np.int64)
        result = np.empty((len(rows), *shape), dtype)
        for index, (row, file) in enumerate(zip(rows, self.files[rows][self.column], strict=True)):
            try:
                if file is None or (file["bytes"] is None and file["path"] is None):
                    raise LeanformerError("no image; add it or remove the row")
                with Image.open(file["path"] if file["bytes"] is None else io.BytesIO(file["bytes"])) as image:
                    result[index] = read(image)
            except LeanformerError as error:
                return type(error)(f"{self._place(row, file)}: {error}")
            except Exception as error:  # damaged files make the decoders raise nearly anything
                return LeanformerError(
                    f"{self._place(row, file)}: not a readable image ({_first_line(error)}); replace or remove it"
                )
        return torch.from_numpy(result)

    def _decode(self, image: Image.Image) -> NDArray[np.uint8]:
        """(C, H, W) pixels."""
        form = self.form
        assert form is not None
        image.load()
        if "exif" in image.info:
            ImageOps.exif_transpose(image, in_place=True)
        if form.channels == 1 and not form.convert and image.mode not in GREY_MODES:
            raise _MisfitError("in color where others are grey; set data.channels")
        if image.mode.startswith("I;16"):  # Pillow would cut all values above 255 off
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        elif image.mode in ("I", "F"):
            raise LeanformerError(f"pixels of 32 bits (Pillow's mode {image.mode}); 8 or 16 bits are read")
        if image.mode != MODES[form.channels]:
            image = image.convert(MODES[form.channels])
        if image.size != (form.width, form.height):
            if not form.resize:
                raise _MisfitError(
                    f"not {form.height}x{form.width} pixels (height x width) as others; set data.image_size"
                )
            image = image.resize((form.width, form.height), Image.Resampling.BILINEAR)
        pixels = np.frombuffer(image.tobytes(), np.uint8)  # a third faster than np.asarray
        return pixels.reshape(form.height, form.width, form.channels).transpose(2, 0, 1)

    def _place(self, row: int, file: Mapping[str, Any] | None) -> str:
        path = file["path"] if file else None
        if path is not None and file is not None and file["bytes"] is None:
            return str(path)
        return _place(self.config, self.split_name, row)

    def place(self, index: int) -> str:
        """Where an example comes from: its file, or its split and row."""
        row = int(self.rows[index])
        return self._place(row, self.files[row][self.column])


def _read_header(image: Image.Image) -> tuple[int, int, int]:
    """Channels, height and width as they will be after decoding."""
    width, height = image.size
    if "exif" in image.info and image.getexif().get(ORIENTATION) in SIDEWAYS:
        width, height = height, width
    return 1 if image.mode in GREY_MODES else 3, height, width


def _in_background(
    reader: _Reader, index_batches: Sequence[Rows], workers: int, device: torch.device
) -> Iterator[Tensor]:
    """What ``reader`` gives for each batch, in order, read ahead by worker processes (none: read here)."""
    loader = DataLoader(
        reader,
        batch_size=None,
        sampler=index_batches,  # a batch of example numbers is one item of this reader
        num_workers=workers,
        pin_memory=device.type == "cuda",
        # Linux only: forked workers start fast, and need no __main__ guard in the caller's script.
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
        # A loader draws a seed for its workers; drawn from the global generator, it would change how training goes on.
        generator=torch.Generator(),
    )
    try:
        for result in loader:
            if isinstance(result, LeanformerError):
                raise result
            yield result
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise LeanformerError(
            f"data.source {reader.config.source}: a worker process that reads images was killed, most likely for lack "
            "of memory or of shared memory (/dev/shm); give more, or use smaller batches"
        ) from error


def _processors() -> int:
    """Worker processes to read images with: the processors that this process may use, at most 8."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, 8)


def _read_all(reader: _Reader) -> Iterator[Tensor]:
    """What ``reader`` gives for all its examples, in chunks."""
    chunks = [np.arange(start, min(start + CHUNK, len(reader))) for start in range(0, len(reader), CHUNK)]
    workers = _processors() if len(reader) >= FEW and sys.platform == "linux" else 0
    return _in_background(reader, chunks, workers, torch.device("cpu"))


def _settle(
    readers: Mapping[str, _Reader],
    config: DataConfig,
    device: torch.device,
    image_size: tuple[int, int] | None,
    channels: int | None,
) -> tuple[_Form, str, dict[str, Tensor] | None, list[str]]:
    """The form that all images get, ``memory`` or ``stream``, the decoded images if ``memory``, and notes.

    The first training image stands for what the configuration and the model leave open; most data sets are alike
    throughout, and then each image is opened once. Where one does not fit, or before streaming, all headers are read.
    """
    size = (config.image_size, config.image_size) if isinstance(config.image_size, int) else config.image_size
    size, depth = size or image_size, config.channels or channels
    count = sum(map(len, readers.values()))

    def form_of(header: Tensor) -> _Form:
        height, width = size or (int(header[1]), int(header[2]))
        return _Form(depth or int(header[0]), height, width, convert=depth is not None, resize=size is not None)

    form = form_of(next(_in_background(readers["train"], [np.arange(1)], 0, device))[0])
    storage, storage_note = _choose_storage(count, form, config, device)
    pixels = None
    if storage == "memory":
        try:
            pixels = {role: _decode_all(reader, form, device) for role, reader in readers.items()}
        except _MisfitError:
            for reader in readers.values():
                reader.form = None
    if pixels is None:
        if size is None or depth is None:
            form = form_of(_common_header(readers, sizes_vary=size is not None))
            storage, storage_note = _choose_storage(count, form, config, device)
        if storage == "memory":
            pixels = {role: _decode_all(reader, form, device) for role, reader in readers.items()}
        for reader in readers.values():
            reader.form = form
    kind = "grey" if form.channels == 1 else "color"
    resized = ", resized where they differ" if form.resize else ""
    return form, storage, pixels, [f"images: {form.height}x{form.width} pixels, {kind}{resized}", storage_note]


def _common_header(readers: Mapping[str, _Reader], sizes_vary: bool) -> Tensor:
    """(3,) channels, height and width that suit all images: color if any has color; one size, or it is an error."""
    headers = {role: torch.cat(list(_read_all(reader))) for role, reader in readers.items()}  # (n, 3) each
    common = headers["train"][0].clone()
    common[0] = max(int(header[:, 0].max()) for header in headers.values())
    for role, header in headers.items():
        other = (header[:, 1:] != common[1:]).any(1).nonzero().flatten()
        if len(other) and not sizes_vary:
            index = int(other[0])
            raise LeanformerError(
                f"{readers[role].place(index)}: {int(header[index, 1])}x{int(header[index, 2])} pixels (height x "
                f"width), but {readers['train'].place(0)} has {int(common[1])}x{int(common[2])}; set data.image_size "
                "to resize all"
            )
    return common


def _choose_storage(count: int, form: _Form, config: DataConfig, device: torch.device) -> tuple[str, str]:
    """``memory`` or ``stream``, and why. The note holds no free memory: it must not change from run to run."""
    needed = count * form.channels * form.height * form.width
    megabytes = f"{needed / 1e6:,.1f} MB of decoded images"
    if config.storage != "auto":
        return config.storage, f"storage: {config.storage}, as data.storage says ({megabytes})"
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    if needed < free / 2:
        return "memory", f"storage: memory ({megabytes}, less than half of what is free)"
    return "stream", f"storage: stream ({megabytes}, more than half of what is free)"


def _decode_all(reader: _Reader, form: _Form, device: torch.device) -> Tensor:
    """(n, C, H, W) uint8 on the device, filled piece by piece so that it is never held twice."""
    reader.form = form
    try:
        pixel_values = torch.empty((len(reader), *form.shape), dtype=torch.uint8, device=device)
    except RuntimeError as error:
        raise LeanformerError(
            f"data.storage: {len(reader):,} images of {form.height}x{form.width} pixels do not fit in memory; "
            "set 'stream'"
        ) from error
    start = 0
    for chunk in _read_all(reader):
        pixel_values[start : start + len(chunk)] = chunk.to(device)
        start += len(chunk)
    return pixel_values


def _pixel_statistics(
    split: MemorySplit | StreamSplit, seed: int
) -> tuple[tuple[float, ...], tuple[float, ...], int | None]:
    """Mean and standard deviation per channel, in pixel values from 0 to 1; and of how many images, if not of all.

    They come from the counts of the 256 pixel values, which are exact and need no images in floating point.
    """
    size = None
    if isinstance(split, MemorySplit):
        chunks: Iterator[Tensor] = iter(torch.split(split.pixel_values, CHUNK))
    else:
        indexes = np.arange(len(split))
        if len(split) > STATISTICS_SAMPLE:
            size = STATISTICS_SAMPLE
            indexes = np.sort(np.random.default_rng(seed).choice(len(split), size, replace=False))
        chunks = (batch["pixel_values"] for batch in split.batches(torch.split(torch.from_numpy(indexes), CHUNK)))
    counts: Tensor | int = 0  # (C, 256)
    for chunk in chunks:
        counts = counts + torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in chunk.unbind(1)])
    assert isinstance(counts, Tensor)
    shares = counts.cpu().double() / counts.cpu().sum(1, keepdim=True)
    values = torch.arange(256, dtype=torch.float64) / 255
    mean = shares @ values  # (C,)
    std = ((values - mean[:, None]).square() * shares).sum(1).sqrt().clamp(min=SMALLEST_STD)
    return tuple(mean.tolist()), tuple(std.tolist()), size


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__

"""From image files to tensors: headers, pixels in one form, and worker processes that read ahead."""

from __future__ import annotations

import copy
import io
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import datasets
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import DataLoader

from leanformer.data.hub import SourceSplit, first_line
from leanformer.data.splits import Rows
from leanformer.errors import LeanformerError

MODES = {1: "L", 3: "RGB"}  # of Pillow
GREY_MODES = frozenset({"1", "L", "LA", "I;16", "I;16B", "I;16L"})
ORIENTATION = 0x0112  # the Exif tag
SIDEWAYS = frozenset({5, 6, 7, 8})  # its values that turn an image by a quarter
CHUNK = 512  # images that are read at a time while loading
FEW = 2000  # fewer images are read faster than worker processes start
MOST_WORKERS = 8


@dataclass(frozen=True)
class ImageForm:
    """What all images are brought to: ``channels`` (1 or 3), and ``height`` and ``width`` in pixels."""

    channels: int
    height: int
    width: int
    convert: bool  # color may become grey; otherwise that is a misfit
    resize: bool  # other sizes are resized; otherwise they are a misfit

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width


class MisfitError(LeanformerError):
    """An image of another size, or in color, where all were taken to be like the first."""


class ImageReader(torch.utils.data.Dataset[Any]):
    """Reads the images of some rows of a split of the source, a batch for each array of example numbers.

    Mistakes in the data are returned and not raised, as a worker process would wrap them in its traceback.

    Args:
        split: the source's split.
        column: its image column.
        rows: (n,) the rows that are examples 0 to n - 1.
    """

    def __init__(self, split: SourceSplit, column: str, rows: Rows) -> None:
        files = split.examples.select_columns([column]).cast_column(column, datasets.Image(decode=False))
        self.split = replace(split, examples=files)
        self.column = column
        self.rows = rows
        self.form: ImageForm | None = None

    def with_form(self, form: ImageForm) -> ImageReader:
        """The same images, as pixels of a form."""
        reader = copy.copy(self)
        reader.form = form
        return reader

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, indexes: Rows) -> Tensor | LeanformerError:
        """(B, C, H, W) uint8 pixels; without a form, (B, 3) channels, height and width from the headers."""
        rows = self.rows[indexes].tolist()
        result = np.empty((len(rows), *self.form.shape), np.uint8) if self.form else np.empty((len(rows), 3), np.int64)
        for index, (row, file) in enumerate(zip(rows, self.split.examples[rows][self.column], strict=True)):
            try:
                if file is None or (file["bytes"] is None and file["path"] is None):
                    raise LeanformerError("no image; add it or remove the row")
                with Image.open(file["path"] if file["bytes"] is None else io.BytesIO(file["bytes"])) as image:
                    result[index] = decode(image, self.form) if self.form else read_header(image)
            except LeanformerError as error:
                return type(error)(f"{self.split.place(row, self.column)}: {error}")
            except Exception as error:  # damaged files make the decoders raise nearly anything
                # Pillow's own message for unknown formats names a buffer's address.
                reason = "of no known format" if isinstance(error, UnidentifiedImageError) else first_line(error)
                return LeanformerError(
                    f"{self.split.place(row, self.column)}: not a readable image ({reason}); replace or remove it"
                )
        return torch.from_numpy(result)

    def place(self, index: int) -> str:
        """Where an example comes from, for messages."""
        return self.split.place(int(self.rows[index]), self.column)


def read_header(image: Image.Image) -> tuple[int, int, int]:
    """Channels, height and width as they will be after decoding."""
    width, height = image.size
    if "exif" in image.info and image.getexif().get(ORIENTATION) in SIDEWAYS:
        width, height = height, width
    return 1 if image.mode in GREY_MODES else 3, height, width


def decode(image: Image.Image, form: ImageForm) -> NDArray[np.uint8]:
    """(C, H, W) pixels of a form, with the Exif orientation applied.

    Raises:
        MisfitError: for an image in color or of another size, where the form does not allow to convert or resize.
        LeanformerError: for pixels of 32 bits.
    """
    image.load()
    if "exif" in image.info:
        ImageOps.exif_transpose(image, in_place=True)
    if form.channels == 1 and not form.convert and image.mode not in GREY_MODES:
        raise MisfitError("in color where others are grey; set data.channels")
    if image.mode.startswith("I;16"):  # Pillow would cut all values above 255 off
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise LeanformerError(f"pixels of 32 bits (Pillow's mode {image.mode}); 8 or 16 bits are read")
    if image.mode != MODES[form.channels]:
        image = image.convert(MODES[form.channels])
    if image.size != (form.width, form.height):
        if not form.resize:
            raise MisfitError(f"not {form.height}x{form.width} pixels (height x width) as others; set data.image_size")
        image = image.resize((form.width, form.height), Image.Resampling.BILINEAR)
    pixels = np.frombuffer(image.tobytes(), np.uint8)  # a third faster than np.asarray
    return pixels.reshape(form.height, form.width, form.channels).transpose(2, 0, 1)


# Reading ahead


def processors() -> int:
    """Worker processes to read images with: the processors that this process may use, at most 8."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, MOST_WORKERS)


def read_ahead(
    reader: ImageReader, index_batches: Sequence[Rows], workers: int, device: torch.device
) -> Iterator[Tensor]:
    """What ``reader`` gives for each (B,) array of example numbers, in order, read ahead by worker processes.

    Args:
        workers: how many; 0 reads here.
        device: where the images go next; they are still on the CPU, in pinned memory if that makes the way faster.

    Raises:
        LeanformerError: for an image that cannot be read, and for a worker that is killed.
    """
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
            f"data.source {reader.split.source}: a worker process that reads images was killed, most likely for lack "
            "of memory or of shared memory (/dev/shm); give more, or use smaller batches"
        ) from error


def read_all(reader: ImageReader) -> Iterator[Tensor]:
    """What ``reader`` gives for all its examples, in order and in chunks."""
    chunks = np.split(np.arange(len(reader)), range(CHUNK, len(reader), CHUNK))
    workers = processors() if len(reader) >= FEW and sys.platform == "linux" else 0
    return read_ahead(reader, chunks, workers, torch.device("cpu"))


def common_header(readers: Mapping[str, ImageReader], sizes_vary: bool) -> Tensor:
    """The form that suits all images: color if any has color, and the size that they share.

    Args:
        readers: of headers, by role; ``train`` is there.
        sizes_vary: other sizes than that of the first training image are no error.

    Returns:
        (3,) channels, height and width.

    Raises:
        LeanformerError: for an image of another size, unless ``sizes_vary``, and for one that cannot be read.
    """
    headers = {role: torch.cat(list(read_all(reader))) for role, reader in readers.items()}  # (n, 3) each
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


def decode_all(reader: ImageReader, form: ImageForm, device: torch.device) -> Tensor:
    """(n, C, H, W) uint8 on the device, filled piece by piece so that it is never held twice.

    Raises:
        MisfitError: for an image that is not of the form and may not be brought to it.
        LeanformerError: for one that cannot be read, and when they do not fit in memory.
    """
    try:
        pixel_values = torch.empty((len(reader), *form.shape), dtype=torch.uint8, device=device)
    except RuntimeError as error:
        raise LeanformerError(
            f"data.storage: {len(reader):,} images of {form.height}x{form.width} pixels do not fit in memory; "
            "set 'stream'"
        ) from error
    start = 0
    for chunk in read_all(reader.with_form(form)):
        pixel_values[start : start + len(chunk)] = chunk.to(device)
        start += len(chunk)
    return pixel_values

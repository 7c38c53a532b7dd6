"""The images of a split, read from their files: headers or pixels, by worker processes that read ahead."""

from __future__ import annotations

import copy
import io
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import datasets
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from leanformer.core.errors import LeanformerError
from leanformer.data.folds import Rows
from leanformer.data.hub import SourceSplit
from leanformer.data.image_files import SIXTEEN_BITS, ImageForm, decode, loses_bits, read_header, read_peak, reason_of
from leanformer.data.sightings import Watch, look_at
from leanformer.data.walking import check_plain

CHUNK = 512  # images that are read at once while loading
FEW = 2000  # fewer images are read faster than worker processes start
MOST_WORKERS = 8

Read = tuple[Tensor, Tensor]
"""What was read from B images, and what was noticed in them: (B, 3) as in ``sightings``, or empty."""


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
        self.wanted: Literal["header", "peak"] | ImageForm = "header"
        self.watch: Watch | None = None

    def reading(self, wanted: Literal["header", "peak"] | ImageForm, watch: Watch | None = None) -> ImageReader:
        """A reader of the same images that reads something else of them.

        Args:
            wanted: the headers, the largest values of images of 16 bits, or the pixels of a form.
            watch: what to look for in the pixels, if anything.
        """
        reader = copy.copy(self)
        reader.wanted, reader.watch = wanted, watch
        return reader

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, indexes: Rows) -> Read | LeanformerError:
        """(B, C, H, W) uint8 pixels; (B, 4) as ``read_header`` has them; or (B,) largest values. And what was seen."""
        rows = self.rows[indexes].tolist()
        shape = self.wanted.shape if isinstance(self.wanted, ImageForm) else (4,) if self.wanted == "header" else ()
        result = np.empty((len(rows), *shape), np.uint8 if isinstance(self.wanted, ImageForm) else np.int64)
        seen = np.zeros((len(rows) if self.watch else 0, 3), np.int64)
        files = self.split.examples[rows][self.column]
        with warnings.catch_warnings(action="ignore"):  # of Pillow, about unusual files that it reads all the same
            return self._read(rows, files, result, seen)

    def _read(
        self, rows: Sequence[int], files: Sequence[Any], result: NDArray[Any], seen: NDArray[np.int64]
    ) -> Read | LeanformerError:
        """As ``__getitem__``, written into the given arrays."""
        for index, (row, file) in enumerate(zip(rows, files, strict=True)):
            try:
                if file is None or (file["bytes"] is None and file["path"] is None):
                    raise LeanformerError("no image; add it or remove the row")
                if file["bytes"] is None:
                    check_plain(Path(file["path"]))
                with Image.open(file["path"] if file["bytes"] is None else io.BytesIO(file["bytes"])) as image:
                    if isinstance(self.wanted, ImageForm):
                        cut = loses_bits(image)
                        result[index] = decode(image, self.wanted)
                        if self.watch is not None:
                            seen[index] = look_at(image, result[index], cut, self.watch)
                    else:
                        result[index] = read_header(image) if self.wanted == "header" else read_peak(image)
            except LeanformerError as error:
                return type(error)(f"{self.split.place(row, self.column)}: {error}")
            except Exception as error:  # damaged files make the decoders raise nearly anything
                return LeanformerError(
                    f"{self.split.place(row, self.column)}: not a readable image ({reason_of(error)}); replace or "
                    "remove it"
                )
        return torch.from_numpy(result), torch.from_numpy(seen)

    def place(self, index: int) -> str:
        """Where an example comes from, for messages."""
        return self.split.place(int(self.rows[index]), self.column)


def processors() -> int:
    """Worker processes to read images with: the processors that this process may use, at most 8."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, MOST_WORKERS)


def read_ahead(
    reader: ImageReader, index_batches: Sequence[Rows], workers: int, device: torch.device
) -> Iterator[Read]:
    """Reads a batch for each (B,) array of example numbers, in order, ahead of its use in worker processes.

    Args:
        workers: how many; 0 reads here.
        device: where the images go next; they are still on the CPU, in pinned memory if that makes the copy faster.

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


def read_all(reader: ImageReader, chosen: Rows | None = None) -> Iterator[Read]:
    """Reads all examples, or the chosen ones, in order and in chunks."""
    numbers = np.arange(len(reader)) if chosen is None else chosen
    chunks = np.split(numbers, range(CHUNK, len(numbers), CHUNK))
    workers = processors() if len(numbers) >= FEW and sys.platform == "linux" else 0
    return read_ahead(reader, chunks, workers, torch.device("cpu"))


def read_headers(readers: Mapping[str, ImageReader]) -> dict[str, Tensor]:
    """(n, 4) of each role: channels, height and width, and the file's bits, as ``read_header`` has them."""
    return {role: torch.cat([header for header, _ in read_all(reader)]) for role, reader in readers.items()}


def common_header(readers: Mapping[str, ImageReader], headers: Mapping[str, Tensor], sizes_vary: bool) -> Tensor:
    """The form that suits all images: color if any has color, and the size that they share.

    Args:
        readers: by role; ``train`` is there.
        headers: what ``read_headers`` gave for them.
        sizes_vary: other sizes than that of the first training image are no error.

    Returns:
        (3,) channels, height and width.

    Raises:
        LeanformerError: for an image of another size, unless ``sizes_vary``.
    """
    common = headers["train"][0, :3].clone()
    common[0] = max(int(header[:, 0].max()) for header in headers.values())
    for role, header in headers.items():
        other = (header[:, 1:3] != common[1:]).any(1).nonzero().flatten()
        if len(other) and not sizes_vary:
            index = int(other[0])
            raise LeanformerError(
                f"{readers[role].place(index)}: {int(header[index, 1])}x{int(header[index, 2])} pixels (height x "
                f"width), but {readers['train'].place(0)} has {int(common[1])}x{int(common[2])}; set data.image_size "
                "to resize all"
            )
    return common


def bits_used(reader: ImageReader, header: Tensor) -> int:
    """Bits that the images of 16 bits use, 8 to 16; 16 where there are none, so that those of other splits can be read.

    Args:
        reader: of the training images, whose range all images are scaled by.
        header: (n, 4) their headers.
    """
    sixteen = (header[:, 3] == SIXTEEN_BITS).nonzero().flatten().numpy()
    if not len(sixteen):
        return SIXTEEN_BITS
    peak = max(int(values.max()) for values, _ in read_all(reader.reading("peak"), sixteen))
    return max(8, peak.bit_length())


def decode_all(
    reader: ImageReader, form: ImageForm, device: torch.device, watch: Watch | None
) -> tuple[Tensor, Tensor]:
    """(n, C, H, W) uint8 on the device, filled chunk by chunk so that it is never held twice; and what was seen.

    Raises:
        MisfitError: for an image that is not of the form and may not be brought to it.
        LeanformerError: for an image that cannot be read, and when they do not fit in memory.
    """
    try:
        pixel_values = torch.empty((len(reader), *form.shape), dtype=torch.uint8, device=device)
    except RuntimeError as error:
        raise LeanformerError(
            f"data.storage: {len(reader):,} images of {form.height}x{form.width} pixels do not fit in memory; "
            "set 'stream'"
        ) from error
    start = 0
    seen = []
    for chunk, facts in read_all(reader.reading(form, watch)):
        pixel_values[start : start + len(chunk)] = chunk.to(device)
        start += len(chunk)
        seen.append(facts)
    return pixel_values, torch.cat(seen)

"""Tables that hold texts, read by ``datasets``: JSON Lines, parquet, and the columns of any data set."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from leanformer.core.errors import LeanformerError
from leanformer.data.hub import SourceSplit, load_dataset, quiet
from leanformer.data.text_reading import read_parts, unpacked_name

TABLE_FORMATS = {".jsonl": "json", ".parquet": "parquet"}  # the suffix, and the format's name in datasets


def load_table(source: str, file: Path) -> dict[str, SourceSplit]:
    """The rows of a file of one of ``TABLE_FORMATS`` as the split ``train``.

    Args:
        source: The study's ``data.source``, for messages.
        file: The file.

    Raises:
        LeanformerError: for a file that cannot be read.
    """
    check_packed(file)
    with quiet():
        return load_dataset(source, TABLE_FORMATS[suffix_of(file)], data_files={"train": str(file)})


def check_packed(table: Path) -> None:
    """Makes sure that a packed file can be unpacked, before ``datasets`` does it."""
    if unpacked_name(table) != table:
        for _ in read_parts(table):
            pass


def suffix_of(file: Path) -> str:
    """The ending of a file's name, without ``.gz``, in lower case."""
    return unpacked_name(file).suffix.lower()


def in_words(feature: Any) -> str:
    """What a column holds instead of texts, in words."""
    if isinstance(feature, datasets.Value):
        kinds = {"null": "nothing", "bool": "true and false", "int": "whole numbers", "uint": "whole numbers"}
        kinds |= {"float": "numbers with decimals", "decimal": "numbers with decimals"}
        name = re.match("[a-z]*", feature.dtype)
        return kinds.get(name[0] if name else "", f"values of the type {feature.dtype}")
    if isinstance(feature, datasets.Json):
        return "values of several kinds, such as texts and numbers"
    if isinstance(feature, datasets.List | datasets.LargeList):
        return "lists"
    return "objects with columns of their own" if isinstance(feature, dict) else f"{type(feature).__name__} values"


def text_column(split: SourceSplit, column: str, key: str) -> tuple[str, ...]:
    """The texts of a column; what is missing counts as empty.

    Args:
        split: Some examples.
        column: One of their columns.
        key: The key of the study by which it was chosen, for messages.

    Raises:
        LeanformerError: The column holds no texts, or one that is not UTF-8.
    """
    feature = split.examples.features[column]
    if not isinstance(feature, datasets.Value) or feature.dtype not in ("string", "large_string"):
        raise LeanformerError(
            f"{key}: column {column!r} of {split.source} holds {in_words(feature)}; it must hold a text in "
            "each row, which in JSON is in double quotes"
        )
    stored = split.examples.select_columns([column]).with_format("arrow")[:][column]
    texts = []
    for row, value in enumerate(stored.cast(pa.large_binary()).to_pylist()):  # strings are not checked when read
        try:
            texts.append((value or b"").decode())
        except UnicodeDecodeError as error:
            raise LeanformerError(
                f"{split.place(row, column)}: byte 0x{value[error.start]:02x} is not UTF-8; convert the file to UTF-8"
            ) from error
    return tuple(texts)

"""Images with a table of their labels beside them: ``metadata.csv``, as ``imagefolder`` on the hub has it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from leanformer.core.errors import LeanformerError, first_line
from leanformer.core.paths import other_kind
from leanformer.data.folders import Opened, unread_files, unread_tables
from leanformer.data.hub import SourceSplit, check_json_depth
from leanformer.data.splits import role_of
from leanformer.data.walking import subdirectories

NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILE_COLUMN = "file_name"
IMAGE_COLUMN = "image"
LONGEST_NUMBER = 18  # digits that 64 bits hold in any case; longer ones are names
WHOLE_NUMBER = re.compile(r"-?(0|[1-9]\d*)")  # 007 is a name


def find_tables(root: Path) -> tuple[dict[Path, pa.Table], list[str]]:
    """The tables of images in a directory and in the directories of its splits, one for each, by their files.

    A file of such a name without a column of image files is not such a table: it may describe a folder whose
    directories are classes.

    Returns:
        The tables, and for each other file a clause that says why it is not one.

    Raises:
        LeanformerError: for a table that cannot be read.
    """
    places = [root, *(path for path in subdirectories(root) if role_of(path.name))]
    files = [[place / name for name in NAMES if os.path.lexists(place / name)] for place in places]
    tables = {found[0]: _read_table(found[0]) for found in files if found}
    others = [
        f"{file} has no column {FILE_COLUMN!r}, but {', '.join(map(repr, table.column_names[:5]))}"
        for file, table in tables.items()
        if FILE_COLUMN not in table.column_names
    ]
    return {file: table for file, table in tables.items() if FILE_COLUMN in table.column_names}, others


def open_with_tables(
    root: Path, below: Sequence[Path], tables: Mapping[Path, pa.Table], no_tables: Sequence[str], source: str
) -> Opened:
    """The images that the tables list; the first directory below the root is the split, where its name is one.

    Args:
        root: the directory.
        below: what ``files_below`` gave for it.
        tables, no_tables: what ``find_tables`` gave for it.
        source: the study's ``data.source``, for messages.

    Raises:
        LeanformerError: for a file that is missing, tables whose columns are of different types, and one without rows.
    """
    rows: dict[str, list[pa.Table]] = {}
    paths: dict[str, list[str]] = {}
    for file, table in tables.items():
        if not table.num_rows:
            raise LeanformerError(f"{file}: names no images; write one row for each image, or remove the file")
        splits, files = _locate(file, table[FILE_COLUMN].to_pylist(), root)
        for split in dict.fromkeys(splits):
            chosen = [number for number, name in enumerate(splits) if name == split]
            rows.setdefault(split, []).append(table.take(chosen))
            paths.setdefault(split, []).extend(files[number] for number in chosen)
    opened = {}
    for split, parts in rows.items():
        try:
            joined = pa.concat_tables(parts, promote_options="default").drop_columns([FILE_COLUMN])
        except pa.ArrowException as error:
            raise LeanformerError(f"data.source {source}: metadata of split {split}: {first_line(error)}") from None
        images = [{"bytes": None, "path": path} for path in paths[split]]
        kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
        name = IMAGE_COLUMN if IMAGE_COLUMN not in joined.column_names else FILE_COLUMN
        joined = joined.append_column(name, pa.array(images, kind))
        opened[split] = SourceSplit(source, split, datasets.Dataset(joined), tuple((path, 1) for path in paths[split]))
    read = {path for own in paths.values() for path in own} | {str(file) for file in tables}
    notes, warnings = unread_files(
        root, below, read, [], "as no table names them", "write a row for each, or remove them"
    )
    listed = ", ".join(str(file.relative_to(root)) for file in tables)
    return Opened(opened, (f"labels from {listed}", *notes), (*warnings, *unread_tables(no_tables)))


def _read_table(file: Path) -> pa.Table:
    if kind := other_kind(file):
        raise LeanformerError(f"{file}: is {kind}, not a file; replace or remove it")
    try:
        if file.suffix == ".csv":
            return _read_csv(file)
        if file.suffix == ".jsonl":
            check_json_depth(file)
            return pyarrow.json.read_json(file)
        return pq.read_table(file)
    except UnicodeDecodeError:
        raise LeanformerError(f"{file}: is not UTF-8; save it as UTF-8 text") from None
    except (pa.ArrowException, OSError) as error:
        raise LeanformerError(f"{file}: cannot be read ({first_line(error)}); write one row for each image") from None


def _read_csv(file: Path) -> pa.Table:
    content = file.read_bytes()
    content.decode()  # arrow reads other encodings as columns of bytes, or not at all
    header = pyarrow.csv.open_csv(pa.BufferReader(content)).schema.names
    text = dict.fromkeys(header, pa.string())
    options = pyarrow.csv.ConvertOptions(column_types=text, strings_can_be_null=True, null_values=[""])
    table = pyarrow.csv.read_csv(pa.BufferReader(content), convert_options=options)
    return pa.table(
        {
            name: column if name == FILE_COLUMN else _narrowed(column)
            for name, column in zip(table.column_names, table.columns, strict=True)
        }
    )


def _narrowed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of text, converted to numbers if all its values are written as numbers."""
    values = [value for value in pc.unique(column).to_pylist() if value is not None]
    if values and all(map(WHOLE_NUMBER.fullmatch, values)):
        longest = max(len(value.removeprefix("-")) for value in values)
        return column.cast(pa.int64()) if longest <= LONGEST_NUMBER else column
    try:
        return column.cast(pa.float64()) if values and any("." in value for value in values) else column
    except pa.ArrowInvalid:
        return column


def _locate(file: Path, names: Sequence[str | None], root: Path) -> tuple[list[str], list[str]]:
    """The split and the path of each image that a table names."""
    splits, files = [], []
    for row, name in enumerate(names):
        path = Path(os.path.normpath(file.parent / (name or "")))
        if not name or not path.is_file():
            raise LeanformerError(
                f"{file}, row {row}: no file {name!r} in {file.parent}; correct {FILE_COLUMN} or remove the row"
            )
        parts = Path(os.path.relpath(path, root)).parts
        splits.append(parts[0] if len(parts) > 1 and role_of(parts[0]) else "train")
        files.append(str(path))
    return splits, files

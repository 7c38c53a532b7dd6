"""Predictions, one row for each example, as parquet files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from leanformer.core.errors import LeanformerError


def to_parquet(table: pa.Table) -> bytes:
    """A table as the content of a parquet file."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def read_columns(path: Path, columns: Sequence[str], what: str) -> list[pa.ChunkedArray]:
    """Reads columns of a trial's parquet file, which must have at least one row.

    Args:
        path: The file.
        columns: Their names.
        what: What the file holds, for the message.

    Raises:
        LeanformerError: The file is missing or damaged.
    """
    try:
        table = pq.read_table(path, columns=list(columns))
        found = [table[name] for name in columns]
        if not len(table):
            raise ValueError("it has no rows")
    except PermissionError as error:
        raise LeanformerError(f"{path}: cannot be read: {error.strerror}") from None
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise LeanformerError(
            f"{path}: not readable as {what} ({' '.join(str(error).split())[:120]}); "
            f"delete {path.parent} and run again to repeat this trial"
        ) from error
    return found


def read_groups(path: Path, what: str) -> tuple[str, ...] | None:
    """The column ``group`` of a file that ``read_columns`` can read; None where it has none."""
    if "group" not in pq.read_schema(path).names:
        return None
    return tuple(read_columns(path, ("group",), what)[0].to_pylist())

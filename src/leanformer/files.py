"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from leanformer.errors import LeanformerError


def write_atomically(path: Path, content: bytes | str) -> None:
    """Writes a file beside its place, flushes it to the disk, and renames it into place.

    Raises:
        LeanformerError: The file cannot be written (a full disk, a read-only directory); what was there is left.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # One name, so that what a killed process left behind is overwritten by the next.
        temporary = path.with_name(f".{path.name}.partial")
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise LeanformerError(
            f"{path}: cannot be written: {error.strerror or error}; make room or choose another directory"
        ) from error

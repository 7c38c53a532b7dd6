"""The files below a directory of data: only hidden ones are silently left out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NoReturn

from leanformer.core.errors import LeanformerError
from leanformer.core.paths import other_kind

NO_DATA = frozenset({"thumbs.db", "desktop.ini", "icon\r"})  # what file managers leave behind
NO_DATA_DIRECTORIES = frozenset({"__macosx", "__pycache__"})


def files_below(root: Path) -> list[Path]:
    """All files below a directory, links followed, in order of their names; none that is hidden.

    Raises:
        LeanformerError: for a directory that may not be read, and a name that is not UTF-8.
    """
    return sorted(_walk(root), key=str)


def _walk(root: Path) -> Iterator[Path]:
    for base, folders, files in os.walk(root, followlinks=True, onerror=_unreadable):
        real = os.path.realpath(base)
        folders[:] = [
            name
            for name in folders
            # A link to a directory around it would be followed for ever.
            if not is_hidden(name) and not f"{real}{os.sep}".startswith(os.path.realpath(Path(base, name)) + os.sep)
        ]
        shown = [name for name in files if not is_hidden(name) and name.lower() not in NO_DATA]
        for name in (*folders, *shown):
            check_name(base, name)
        yield from (Path(base, name) for name in shown)


def _unreadable(error: OSError) -> NoReturn:
    raise LeanformerError(
        f"{error.filename}: cannot be read: {error.strerror}; make it readable, or remove it"
    ) from error


def check_name(base: str, name: str) -> None:
    """Refuses a name that is not UTF-8, which tables of arrow and JSON cannot hold."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise LeanformerError(f"{Path(base, name)}: its name is not UTF-8; rename it") from None


def is_hidden(name: str) -> bool:
    """Whether a file or directory of this name holds no data of the user's."""
    return name.startswith(".") or name.lower() in NO_DATA_DIRECTORIES


def subdirectories(directory: Path) -> list[Path]:
    """The directories in a directory, in order of their names; none that is hidden."""
    # Path.is_dir would raise where the directory may be listed, but not entered.
    return sorted(path for path in directory.iterdir() if os.path.isdir(path) and not is_hidden(path.name))


def check_plain(file: Path) -> None:
    """Makes sure that a file may be opened: reading a pipe may wait, and a device may never end.

    Raises:
        LeanformerError: It is not an ordinary file; the message does not name it.
    """
    if kind := other_kind(file):
        raise LeanformerError(f"is {kind}, not a file; replace or remove it")


def check_tables(files: Iterable[Path]) -> None:
    """Makes sure that the tables which ``datasets`` will open are files.

    Raises:
        LeanformerError: One is something else; the message names it.
    """
    for file in files:
        if file.suffix in (".parquet", ".jsonl") and (kind := other_kind(file)):
            raise LeanformerError(f"{file}: is {kind}, not a file; replace or remove it")

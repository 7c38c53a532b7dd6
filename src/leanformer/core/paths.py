"""Paths that a caller gives: checked before work begins, and read where they are ordinary files."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from leanformer.core.errors import LeanformerError, quoted

LONGEST_NAME = 255
"""Bytes of a file's name, on the usual systems."""
_OTHERS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
)


def other_kind(path: Path) -> str:
    """What is at a path if it is not an ordinary file, in words; empty for a file, and where there is nothing."""
    try:
        return _other_kind(path.stat().st_mode)
    except OSError:
        return "a broken link" if path.is_symlink() else ""


def _other_kind(mode: int) -> str:
    """What has this mode if it is not an ordinary file, in words; empty for a file."""
    return next((name for is_kind, name in _OTHERS if is_kind(mode)), "")


def as_path(value: object, name: str) -> Path:
    """A path that a caller gave, checked, and with ``~`` expanded.

    Args:
        value: Text or a path.
        name: The caller's name for it, for the message.

    Raises:
        LeanformerError: It is neither, or no file can have that name.
    """
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str):
        raise LeanformerError(f"{name}: give a path, not {quoted(value)}")
    path = os.fspath(value)
    try:
        longest = max(len(os.fsencode(part)) for part in path.split(os.sep))
    except UnicodeEncodeError:  # half a character
        longest = LONGEST_NAME + 1
    if not path or longest > LONGEST_NAME or "\0" in path:
        raise LeanformerError(f"{name}: no file can be called {quoted(path)}")
    return Path(os.path.expanduser(path))


def source_path(source: str) -> Path:
    """The path of a study's ``data.source`` on the disk: a file, a directory, or nothing, as for a name on the hub.

    Raises:
        LeanformerError: Something else is there (a pipe, a device, a broken link, the root of the file system), or
            the path is not possible.
    """
    try:
        path = Path(source).expanduser()
    except RuntimeError:
        raise LeanformerError(
            f"data.source {source}: the home directory {source.split(os.sep)[0]} is not known; give the full path"
        ) from None
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            raise LeanformerError(
                f"data.source {source}: is a link to {os.readlink(path)}, which does not exist; repair the link"
            ) from None
        return path
    except OSError as error:  # a loop of links, a name that is too long, a directory of somebody else's
        why = "a loop of links" if error.errno == errno.ELOOP else error.strerror
        raise LeanformerError(f"data.source {source}: cannot be read ({why}); give another path") from None
    kind = _other_kind(mode)
    if kind and not stat.S_ISDIR(mode):
        raise LeanformerError(f"data.source {source}: is {kind}; give a file or a directory")
    if path.resolve() == Path(path.resolve().anchor):  # the whole machine would be searched
        raise LeanformerError(f"data.source {source}: is the whole file system; give the directory of the data")
    return path


def read_text(path: Path, most: int) -> str:
    """An ordinary file's text, without a byte order mark.

    Args:
        path: The file. Devices and pipes are refused before they are opened: they may never end.
        most: How many bytes it may have.

    Raises:
        LeanformerError: It is missing, not an ordinary file, too large, or not UTF-8.
    """
    try:
        found = path.stat()
        kind = _other_kind(found.st_mode)
        if kind:
            raise LeanformerError(f"{path}: cannot be read: it is {kind}; give a file")
        if found.st_size > most:
            raise LeanformerError(
                f"{path}: cannot be read: it has {found.st_size:,} bytes; it may have at most {most:,}"
            )
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LeanformerError(
            f"{path}: cannot be read: byte {error.start + 1:,} is not UTF-8; save it as UTF-8 text"
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise LeanformerError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def check_file(path: Path) -> None:
    """Makes sure that a file can be written at a path: nothing is there yet, or a file, a pipe or a device like a pipe.

    Raises:
        LeanformerError: Something else is there.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return  # nothing is there, or writing will report it
    kind = _other_kind(mode)
    if kind and not stat.S_ISCHR(mode) and not stat.S_ISFIFO(mode):
        raise LeanformerError(f"{path}: cannot be written: it is {kind}; give a file's path")


def check_directory(path: Path) -> None:
    """Makes sure that a directory exists or can be made, and can be written to; makes nothing.

    Raises:
        LeanformerError: It cannot.
    """
    try:
        nearest = next(parent for parent in (path, *path.absolute().parents) if os.path.lexists(parent))
        if not nearest.is_dir():
            raise LeanformerError(f"{path}: cannot be a directory: {nearest} is a file; give another path")
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise LeanformerError(f"{path}: cannot be written: {nearest} is not writable; give another path")
    except (OSError, ValueError) as error:
        raise LeanformerError(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}") from None

"""Files that exist whole or not at all, also after a power cut.

A file is flushed to the disk before it gets its name, and so is the name: a file that another one mentions exists after
any crash. A directory is renamed before it is deleted, so that one that is half deleted is never taken for a whole one.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from leanformer.core.errors import LeanformerError

PARTIAL, REMOVED = ".partial", ".removed"
"""Endings of the hidden names of what is being written and of what is being deleted."""


def write_atomically(path: Path, content: bytes | str) -> None:
    """Writes a file beside its place, flushes it to the disk, and renames it into place.

    Only a regular file is ever replaced. Where the path is a link, its target is written and the link stays; a device
    or a pipe is written into.

    Args:
        path: The file. Its directory exists (``make_directory``).
        content: All of it; text as UTF-8.

    Raises:
        LeanformerError: The file cannot be written (a full disk, a directory of this name); an earlier file is kept.
    """
    # A lone surrogate, from a file name that is not UTF-8, cannot be encoded: it is written as an escape.
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    with _cannot_be_written(path):
        target = Path(os.path.realpath(path)) if path.is_symlink() else path
        try:
            mode = path.stat().st_mode
        except FileNotFoundError:
            mode = None
        if mode is not None and (stat.S_ISCHR(mode) or stat.S_ISFIFO(mode) or _is_stream(path)):
            with path.open("ab") as stream:  # appending truncates no file that the shell redirects to
                stream.write(data)
            return
        if mode is not None and not stat.S_ISREG(mode):
            raise LeanformerError(f"{path}: cannot be written: it is not a regular file; give a file's path")
        temporary = target.with_name(f".{target.name}{PARTIAL}")
        try:
            with os.fdopen(_created(temporary), "wb") as file:
                if mode is not None and hasattr(os, "fchmod"):
                    os.fchmod(file.fileno(), stat.S_IMODE(mode))
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        flush_directory(target.parent)


def make_directory(path: Path) -> None:
    """Makes a directory, and those above it, so that they still exist after a power cut.

    Raises:
        LeanformerError: It cannot be made, or something else has its name.
    """
    with _cannot_be_written(path):
        missing = []
        place = path
        while not place.exists():
            missing.append(place)
            place = place.parent
        path.mkdir(parents=True, exist_ok=True)
        for made in reversed(missing):
            flush_directory(made.parent)


def replace_directory(path: Path, fill: Callable[[Path], object]) -> None:
    """Makes a directory with its files beside its place, flushes all of it, and renames it into place.

    Args:
        path: The directory; an earlier one is replaced.
        fill: Writes the files into the directory that it is given.

    Raises:
        LeanformerError: It cannot be written; an earlier one is kept.
    """
    with _cannot_be_written(path), _filled_beside(path, fill) as temporary:
        earlier = _hidden(path) if os.path.lexists(path) else None
        try:
            os.rename(temporary, path)
        except OSError:
            if earlier is not None:
                os.rename(earlier, path)
            raise
        flush_directory(path.parent)
        if earlier is not None:
            _discard(earlier)


def add_to_directory(path: Path, fill: Callable[[Path], object]) -> None:
    """As ``replace_directory``, but files of other names in an earlier directory stay.

    Raises:
        LeanformerError: It cannot be written; the earlier files are kept, or some of them are replaced already, each
            of them whole.
    """
    with _cannot_be_written(path):
        if path.exists() and not path.is_dir():
            raise LeanformerError(f"{path}: cannot be written: it is not a directory; give a directory's path")
        with _filled_beside(path, fill) as temporary:
            if not path.exists():
                os.rename(temporary, path)
            else:
                for entry in sorted(temporary.iterdir()):
                    if entry.is_dir():
                        remove(path / entry.name)
                    os.replace(entry, path / entry.name)
                flush_directory(path)
            flush_directory(path.parent)


@contextmanager
def _filled_beside(path: Path, fill: Callable[[Path], object]) -> Iterator[Path]:
    """The directory that is to be renamed, filled and flushed; it is gone afterwards in any case."""
    make_directory(path.parent)
    temporary = path.with_name(f".{path.name}{PARTIAL}")
    _discard(temporary)
    try:
        temporary.mkdir()
        fill(temporary)
        flush_tree(temporary)
        yield temporary
    finally:
        with suppress(OSError):
            _discard(temporary)


def remove(path: Path) -> None:
    """Deletes a directory with its content, or a link to one; does nothing where there is none.

    It is renamed first: a process that is killed meanwhile leaves nothing of it under its name.
    """
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        doomed = _hidden(path)
        flush_directory(path.parent)
        _discard(doomed)


def _hidden(path: Path) -> Path:
    """Renames what is to be deleted; gives its new path."""
    doomed = path.with_name(f".{path.name}{REMOVED}")
    _discard(doomed)
    os.rename(path, doomed)
    return doomed


def remove_leftovers(directory: Path) -> None:
    """Deletes what killed processes have left half written or half deleted, anywhere below a directory."""
    for place, directories, files in os.walk(directory):
        for name in [*directories, *files]:
            if name.startswith(".") and name.endswith((PARTIAL, REMOVED)):
                _discard(Path(place, name))
        directories[:] = [name for name in directories if not name.endswith((PARTIAL, REMOVED))]


def set_aside(path: Path) -> Path:
    """Renames what is damaged, so that it can be inspected and its path is free.

    Returns:
        Its new path.
    """
    number = 1
    while True:
        aside = path.with_name(f"{path.name}.damaged" + (f"-{number}" if number > 1 else ""))
        if not os.path.lexists(aside):
            os.rename(path, aside)
            flush_directory(path.parent)
            return aside
        number += 1


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush_tree(directory: Path) -> None:
    """Writes all files and directories below a directory to the disk, and the directory itself."""
    for place, _, names in os.walk(directory, topdown=False):
        for name in names:
            # Windows flushes files that are open for writing alone; read-only ones cannot be opened so elsewhere.
            with Path(place, name).open("rb" if os.name == "posix" else "r+b") as file:
                os.fsync(file.fileno())
        flush_directory(Path(place))


def flush_directory(directory: Path) -> None:
    """Writes the names in a directory to the disk, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _created(path: Path) -> int:
    """A new file, open for writing: never an existing one, and never a link's target."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    with suppress(FileNotFoundError):
        path.unlink()  # left by a killed process, or a link that somebody has put there
    return os.open(path, flags, 0o666)


def _discard(path: Path) -> None:
    """Deletes a file, a link or a directory, if it exists; a kill leaves a part of it."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def _is_stream(path: Path) -> bool:
    """Whether a path names what a process has open, as ``/dev/stdout`` does: its file is not ours to replace."""
    place = Path(os.path.abspath(path)).parent
    return place in (Path("/dev"), Path("/dev/fd")) or place.parts[:2] == ("/", "proc")


@contextmanager
def _cannot_be_written(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOENT and not path.parent.exists():
            raise LeanformerError(
                f"{path}: cannot be written: its directory no longer exists; restore it and run again"
            ) from error
        raise LeanformerError(
            f"{path}: cannot be written: {error.strerror or error}; make room or choose another directory"
        ) from error

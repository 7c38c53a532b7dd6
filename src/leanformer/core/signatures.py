"""Signatures of local files, which show whether data or a model have changed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from leanformer.core.errors import LeanformerError
from leanformer.core.files import sha256

WHOLE, SAMPLE = 2 * 1024**3, 64 * 1024


def files_signature(source: str, endings: Sequence[str] = ()) -> str | None:
    """A hash of the names and sizes of local files; None where there are no such files, as for a hub id.

    Args:
        source: A directory, a file, or the path of several files without their endings.
        endings: The endings of such files.
    """
    return _signature(source, endings, lambda path: str(path.stat().st_size))


def content_signature(source: str, endings: Sequence[str] = ()) -> str | None:
    """As ``files_signature``, but of the files' content: a model that is trained again has files of the same sizes.

    Where the files have more than ``WHOLE`` bytes together, the first and the last ``SAMPLE`` bytes of each count.
    """
    files = _files(source, endings)[1]
    whole = sum(path.stat().st_size for path in files) <= WHOLE
    return _signature(source, endings, sha256 if whole else _sampled)


def _signature(source: str, endings: Sequence[str], of: Callable[[Path], str]) -> str | None:
    base, files = _files(source, endings)
    if not files and not base.is_dir():
        return None
    try:
        lines = [f"{path.relative_to(base)} {of(path)}" for path in files]
    except OSError as error:
        raise LeanformerError(f"{error.filename}: cannot be read: {error.strerror}") from None
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()[:16]


def _files(source: str, endings: Sequence[str]) -> tuple[Path, list[Path]]:
    """The files that a source names, and the directory that they are in."""
    root = Path(os.path.expanduser(source))
    if root.is_dir():
        return root, [path for path in sorted(root.rglob("*")) if path.is_file()]
    named = (root, *(root.with_name(f"{root.name}.{end}{packed}") for end in endings for packed in ("", ".gz")))
    files = [path for path in sorted(named) if path.is_file()]
    return (root.parent if files else root), files


def _sampled(path: Path) -> str:
    """A file's size, and a hash of its beginning and its end."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        digest = hashlib.sha256()
        for start in (0, max(0, size - SAMPLE)):
            file.seek(start)
            digest.update(file.read(SAMPLE))
    return f"{size} {digest.hexdigest()}"

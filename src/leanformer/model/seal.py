"""A model file that shows damage: the SHA-256 of its tensors is in its own metadata.

A safetensors file is the length of its header (8 bytes, little-endian), the header (JSON: each tensor's type, shape and
place, and under ``__metadata__`` texts from the writer), and the tensors' bytes. When transformers saves the model
again, it leaves the sum out, so that a sum never belongs to other weights.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, BinaryIO

from leanformer.core.errors import LeanformerError

METADATA, KEY = "__metadata__", "sha256"
ALIGNMENT = 8  # of the tensors' bytes; spaces at the header's end pad it
PIECE = 2**20  # bytes that are read at a time


def seal(file: Path) -> None:
    """Writes the SHA-256 of a safetensors file's tensors into its metadata."""
    sealed = file.with_name(f"{file.name}.sealed")
    with file.open("rb") as read, sealed.open("wb") as write:
        header = _header(read)
        start = read.tell()
        header.setdefault(METADATA, {})[KEY] = _sum(header, read)
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-(8 + len(text)) % ALIGNMENT)
        write.write(len(text).to_bytes(8, "little") + text)
        read.seek(start)
        shutil.copyfileobj(read, write, PIECE)
    sealed.replace(file)


def check_seal(file: Path) -> None:
    """Makes sure that a sealed safetensors file is not damaged; one without a sum is accepted.

    Raises:
        LeanformerError: It is damaged, or its header cannot be read.
    """
    with file.open("rb") as read:
        try:
            header = _header(read)
            expected = header.get(METADATA, {}).get(KEY)
        except (ValueError, AttributeError, RecursionError):
            raise LeanformerError(f"{file}: damaged (its header cannot be read); copy or save it again") from None
        if expected is not None and _sum(header, read) != expected:
            raise LeanformerError(f"{file}: damaged (the SHA-256 of its tensors does not match); copy or save it again")


def _header(read: BinaryIO) -> dict[str, Any]:
    size = int.from_bytes(read.read(8), "little")
    header: dict[str, Any] = json.loads(read.read(min(size, 100_000_000)))  # the format's own limit
    return header


def _sum(header: dict[str, Any], read: BinaryIO) -> str:
    """The SHA-256 of the tensors' entries and bytes; the file is read from the end of its header."""
    tensors = {name: entry for name, entry in header.items() if name != METADATA}
    digest = hashlib.sha256(json.dumps(tensors, sort_keys=True).encode())
    while piece := read.read(PIECE):
        digest.update(piece)
    return digest.hexdigest()

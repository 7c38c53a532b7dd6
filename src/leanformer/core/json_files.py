"""JSON that keeps every digit, and that holds its own SHA-256, which shows damage."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leanformer.core.errors import LeanformerError

SEAL = "sha256"
"""The key of an object's own SHA-256."""


class DamagedError(LeanformerError):
    """A file is damaged."""


def to_json(value: Any) -> str:
    """Indented JSON that keeps every digit of its numbers, and refuses infinities and NaN."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read_sealed(path: Path, remedy: str = "", *, required: bool = False) -> dict[str, Any]:
    """Reads a JSON object; one that ``sealed`` wrote is checked against its SHA-256, which is left out.

    Args:
        path: The file.
        remedy: What to do if it is damaged, for the message.
        required: Whether one without a SHA-256 is damaged.

    Raises:
        DamagedError: It is damaged.
        LeanformerError: It cannot be read.
    """
    remedy = remedy and f"; {remedy}"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LeanformerError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path}: damaged ({error}){remedy}") from None
    if not isinstance(content, dict):
        raise DamagedError(f"{path}: damaged (not a JSON object){remedy}")
    seal = content.pop(SEAL, None)
    if seal is None and required:
        raise DamagedError(f"{path}: damaged (it has no SHA-256){remedy}")
    if seal is not None and seal != _seal(content):
        raise DamagedError(f"{path}: damaged (its SHA-256 does not match){remedy}")
    return content


def sealed(content: Mapping[str, Any]) -> str:
    """JSON with its own SHA-256, which ``read_sealed`` checks."""
    return to_json({**content, SEAL: _seal(content)})


def _seal(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(to_json(content).encode()).hexdigest()

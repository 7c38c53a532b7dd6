"""Other libraries that benchmarks measure against, which leanformer itself does not need."""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Any

from leanformer.core.errors import LeanformerError


def peer(module: str, package: str) -> Any:
    """Another library's module.

    Args:
        module: As it is imported.
        package: As it is installed.

    Raises:
        LeanformerError: It is not there.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise LeanformerError(f"{package} is not here; pip install -c constraints.txt -e '.[bench]'") from None


def versions(*packages: str) -> dict[str, str]:
    """The installed versions of peers."""
    return {package: importlib.metadata.version(package) for package in packages}

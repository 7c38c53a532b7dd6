"""Running out of memory, reported in one line that says what was too large."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from leanformer.core.errors import LeanformerError


@contextmanager
def memory_named(what: str, remedy: str) -> Iterator[None]:
    """Turns running out of memory into one line.

    Args:
        what: What was being done, with its batch size or its block.
        remedy: What to make smaller.

    Raises:
        LeanformerError: In place of PyTorch's or Python's own error.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        from leanformer.core.torch_internals import is_out_of_memory  # loads PyTorch

        if is_out_of_memory(error):
            raise LeanformerError(f"out of memory while {what}; {remedy}") from error
        raise

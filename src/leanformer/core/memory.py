"""Out of memory, told in one line that says of what there was too much."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from leanformer.core.errors import LeanformerError


@contextmanager
def memory_named(what: str, remedy: str) -> Iterator[None]:
    """Turns running out of memory into one line.

    Args:
        what: What was going on, with its batch size or its block.
        remedy: What to make smaller.

    Raises:
        LeanformerError: In place of PyTorch's or Python's own error.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        from leanformer.core.torch_internals import is_out_of_memory  # where it was used it is loaded

        if is_out_of_memory(error):
            raise LeanformerError(f"out of memory while {what}; {remedy}") from error
        raise

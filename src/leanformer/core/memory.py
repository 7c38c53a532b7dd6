"""Out of memory, told in one line that says of what there was too much."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from leanformer.core.errors import LeanformerError

# PyTorch has a type for a GPU's memory; of a CPU's it raises a plain RuntimeError.
_CPU_WORDS = (
    "can't allocate memory",
    "not enough memory",
    "DefaultCPUAllocator",
    "Storage size calculation overflowed",
)


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
        import torch  # where it was used it is loaded

        if isinstance(error, MemoryError | torch.OutOfMemoryError) or any(word in str(error) for word in _CPU_WORDS):
            raise LeanformerError(f"out of memory while {what}; {remedy}") from error
        raise

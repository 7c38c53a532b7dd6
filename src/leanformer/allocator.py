"""How the process's memory is kept, apart from PyTorch, which takes seconds to load."""

from __future__ import annotations

import ctypes

# Of glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST = 2**31 - 1  # that mallopt can be told, in bytes


def keep_freed_memory() -> bool:
    """Lets this process keep the memory that it frees for its next use, in place of giving it back to the system.

    Each training step on a CPU frees what the next one asks for again, and the system clears every page anew: a seventh
    of a small translator's training. The setting is of the whole process, so commands make it, and the library does
    not.

    Returns:
        Whether there is such a setting here: it is the GNU C library's.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST) and mallopt(M_TRIM_THRESHOLD, LARGEST))

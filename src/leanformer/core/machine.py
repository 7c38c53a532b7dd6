"""The machine: its devices, threads and memory, and its description beside measured numbers.

PyTorch, which takes seconds to load, is imported where it is used.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leanformer.core.errors import LeanformerError, quoted

if TYPE_CHECKING:
    import torch

# From glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST = 2**31 - 1  # bytes that mallopt accepts

CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
"""Instructions by which processors differ most in speed: wide vectors and products of 8-bit numbers, of x86 and of ARM,
as Linux calls them."""


def pick_device(wanted: str, where: str = "measure.device") -> torch.device:
    """The device by its name; ``auto`` is a GPU where there is one.

    Args:
        wanted: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        where: What to name as the place of a mistake.

    Raises:
        LeanformerError: There is no such device.
    """
    import torch

    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        return torch.device(next(name for name in ("cuda", "mps", "cpu") if present[name]))
    if not isinstance(wanted, str) or wanted not in present:
        raise LeanformerError(f"{where}: no device is called {quoted(wanted)}; choose auto, {', '.join(present)}")
    if not present[wanted]:
        names = ", ".join(name for name, there in present.items() if there)
        raise LeanformerError(f"{where}: there is no {wanted!r} here; this machine has {names}")
    return torch.device(wanted)


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Sets the number of PyTorch's CPU threads, and restores it afterwards; None changes nothing."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def environment(device: torch.device, precision: str) -> dict[str, Any]:
    """The versions of packages, the machine and its settings."""
    import torch

    packages = ("leanformer", "torch", "transformers", "accelerate", "datasets", "numpy", "scipy")
    return {
        **{name: importlib.metadata.version(name) for name in packages},
        **machine(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "precision": precision,
    }


def machine() -> dict[str, str]:
    """The machine in words: Python, the system, the processor, and which of ``CPU_FLAGS`` it has."""
    information = _cpuinfo()
    flags = information.get("flags", information.get("Features"))
    known = None if flags is None else " ".join(name for name in CPU_FLAGS if name in flags.split())
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": information.get("model name") or platform.processor() or platform.machine(),
        "cpu_flags": "not known" if known is None else known or "none",
    }


def _cpuinfo() -> dict[str, str]:
    """What Linux says of the first processor; empty elsewhere."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().partition("\n\n")[0].splitlines() if file.exists() else []
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def keep_freed_memory() -> bool:
    """Lets this process keep the memory that it frees for its next use, in place of giving it back to the system.

    Each training step on a CPU frees memory that the next one asks for again, and the system clears every page again:
    a seventh of a small translator's training time. The setting holds for the whole process, so commands make it, and
    the library does not.

    Returns:
        Whether it is set: only the GNU C library has such a setting.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST) and mallopt(M_TRIM_THRESHOLD, LARGEST))

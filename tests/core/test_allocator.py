"""Memory that is kept: what the second round of the same work asks of the system."""

import resource
import subprocess
import sys

import pytest

from leanformer.core.machine import keep_freed_memory

WORK = """
import ctypes, resource, sys
from leanformer.core.machine import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
size = 64 * 2**20
def work():
    blocks = [library.malloc(size) for _ in range(4)]
    for block in blocks:
        ctypes.memset(block, 1, size)
    for block in blocks:
        library.free(ctypes.c_void_p(block))
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode: str) -> int:
    """Pages that the system had to give for work that had been done once before."""
    done = subprocess.run([sys.executable, "-c", WORK, mode], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_freed_memory_is_kept_for_the_next_step() -> None:
    if not keep_freed_memory():
        pytest.skip("the C library has no mallopt")
    pages = 4 * 64 * 2**20 // resource.getpagesize()
    assert faults("give back") > pages / 2
    assert faults("keep") < pages / 100


def test_it_is_no_mistake_where_there_is_no_such_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    assert keep_freed_memory() is False

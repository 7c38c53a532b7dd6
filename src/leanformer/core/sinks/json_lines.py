"""The record of a run: one event a line, as JSON, in the run directory."""

from __future__ import annotations

import json
import os
import stat
from datetime import UTC, datetime
from pathlib import Path

from leanformer.core.events import BatchEnded, Event

FILE = "run.jsonl"


class JsonLines:
    """Appends every event but ``BatchEnded`` to a file, of which all lines are whole.

    A line that a killed process left half written is cut off before the next is appended. The file is written to as
    soon as something happens, but not flushed to the disk: a power cut may take its last lines.

    Args:
        path: The file; made at the first event. Its directory exists.
    """

    name = FILE

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None

    def handle(self, event: Event) -> None:
        """Appends the event's line.

        Raises:
            OSError: It cannot be written.
        """
        if isinstance(event, BatchEnded):
            return
        if self._handle is None:
            self._handle = self._open()
        at = datetime.fromtimestamp(event.time, UTC).isoformat(timespec="milliseconds")
        line = json.dumps({**event.record(), "time": at}, ensure_ascii=False, default=str) + "\n"
        content = line.encode(errors="backslashreplace")
        # In one call: a kill, or a full disk, leaves at most this line in part.
        if os.write(self._handle, content) < len(content):
            raise OSError(f"{self._path}: no room for a line")

    def close(self) -> None:
        """Closes the file."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _open(self) -> int:
        # A link is not followed, and a device or a pipe is refused.
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        handle = os.open(self._path, flags | getattr(os, "O_BINARY", 0), 0o666)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise OSError(f"{self._path}: not a regular file")
            _cut_half_line(handle)
        except BaseException:
            os.close(handle)
            raise
        return handle


def _cut_half_line(handle: int, block: int = 65536) -> None:
    """Cuts off what follows the last whole line."""
    end = os.lseek(handle, 0, os.SEEK_END)
    while end > 0:
        start = max(0, end - block)
        os.lseek(handle, start, os.SEEK_SET)
        found = os.read(handle, end - start).rfind(b"\n")
        if found >= 0:
            end = start + found + 1
            break
        end = start
    os.ftruncate(handle, end)

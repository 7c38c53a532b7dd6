"""Where the commands write to: standard output, or a file that is whole or not there."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from leanformer.core.errors import LeanformerError
from leanformer.core.files import make_directory, write_atomically


def check_output(out: Path | None) -> None:
    """Makes sure, before the work, that its results can be written.

    Raises:
        LeanformerError: They cannot.
    """
    if out is not None and out.is_dir():
        raise LeanformerError(f"{out}: cannot be written: it is a directory; give a file's path")
    if out is None and sys.stdout is None:
        raise LeanformerError("standard output is closed; give --out")


def write(out: Path | None, parts: Iterable[str]) -> None:
    """Writes results: to standard output part by part, to a file when all are there.

    Raises:
        LeanformerError: The file cannot be written.
    """
    if out is None:
        for part in parts:
            sys.stdout.write(part)
    else:
        whole = "".join(parts)
        make_directory(out.parent)
        write_atomically(out, whole)


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[[int], object]]:
    """A bar on standard error, if that is a terminal.

    Args:
        what: What is being done.
        total: Of how many.

    Yields:
        A function to be called with how many more are done.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda done: None
        return
    # Imported here: it takes as long as opening a small model.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.advance(task, done)

"""The executor of several processes: the progress that it shows, and how its processes end."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from cases import slow
from rich.console import Console

from leanformer.core.errors import LeanformerError
from leanformer.core.events import Reporter
from leanformer.core.progress import console_sink
from leanformer.core.sinks.bars import Bars
from leanformer.study.executors import Processes, reporter_here


def do(part: str, directory: Path) -> None:
    """Acts as the part's name says."""
    reporter = reporter_here()
    (directory / f"made-{os.getpid()}").touch()
    reporter.start(part, 2)
    while part in ("wrong", "defect", "killed", "unwritable") and not (directory / "begun").exists():
        time.sleep(0.01)
    while part in "bcd" and len(list(directory.glob("made-*"))) < 2:  # otherwise one process may do everything
        time.sleep(0.01)
    if part == "wrong":
        raise LeanformerError("one line")
    if part == "defect":
        raise ValueError("no line of ours")
    if part == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if part == "long":
        (directory / "begun").touch()
        try:
            for step in range(1, 10**6):
                reporter.step(0, step, 10**6)
                time.sleep(0.01)
        except KeyboardInterrupt:
            (directory / "checkpoint").touch()
            raise
    reporter.epoch({"epoch": 1, "train_loss": 0.5}, 2, 8.0, "as shown")
    reporter.done()
    reporter.skip()  # the main process counts it
    if part == "unwritable":
        raise PermissionError(13, "Permission denied", "a file")
    (directory / part).write_text(str(os.getpid()))
    if signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()):
        raise LeanformerError("Ctrl-C would not reach this process")


@pytest.fixture
def shown() -> io.StringIO:
    """The progress that the user sees."""
    return io.StringIO()


@pytest.fixture(params=[True, False], ids=["forked", "spawned"])
def executor(request: pytest.FixtureRequest, shown: io.StringIO) -> Processes:
    """Two processes."""
    reporter = Reporter("study", [console_sink("study", Console(file=shown, width=120))])
    reporter.plan(4)
    return Processes(2, [__name__], reporter, forks=request.param)


def do_all(executor: Processes, parts: str | list[str], directory: Path) -> None:
    for future in [executor.submit(do, part, directory) for part in parts]:
        future.result()


def test_parts_are_done_by_processes_that_stay(executor: Processes, tmp_path: Path, shown: io.StringIO) -> None:
    with executor:
        do_all(executor, "", tmp_path)
        do_all(executor, "a", tmp_path)
        assert len(list(tmp_path.glob("made-*"))) == 1  # no process is started without work
        do_all(executor, "bcd", tmp_path)
    assert len(list(tmp_path.glob("made-*"))) == 2
    assert {(tmp_path / part).read_text() for part in "abcd"} <= {
        path.name.removeprefix("made-") for path in tmp_path.glob("made-*")
    }
    assert str(os.getpid()) not in {(tmp_path / part).read_text() for part in "abcd"}
    lines = shown.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == ["[1/4]", "[2/4]", "[3/4]", "[4/4]"]
    assert all("loss 0.500  as shown  8 ex/s" in line for line in lines)


@pytest.mark.parametrize(
    ("part", "error", "said"),
    [
        *slow(("wrong", LeanformerError, "^one line$")),
        ("defect", RuntimeError, "Traceback.*ValueError: no line of ours"),
        *slow(("unwritable", PermissionError, "Permission denied: 'a file'")),
        ("killed", LeanformerError, r"ended unexpectedly \(exit code -9"),
    ],
)
def test_what_fails_in_one_ends_all_and_is_told(
    executor: Processes, tmp_path: Path, part: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=f"(?s){said}"), executor:
        do_all(executor, [part, "long"], tmp_path)
    codes = {process.exitcode for process in executor._children}
    assert codes == ({0, -signal.SIGKILL} if part == "killed" else {0})  # none was too slow
    assert (tmp_path / "checkpoint").exists()  # the other one was told to stop, and had time to write it


def test_other_processes_of_the_same_server_can_be_interrupted(executor: Processes, tmp_path: Path) -> None:
    """All processes of a program share one fork server, those of the program itself included."""
    with executor:
        do_all(executor, "a", tmp_path)
    with multiprocessing.get_context("forkserver").Pool(1) as pool:
        assert signal.SIGINT not in pool.apply(signal.pthread_sigmask, (signal.SIG_BLOCK, ()))


def test_bars_of_processes_are_told_apart() -> None:
    sink = console_sink("study", Console(file=io.StringIO(), width=200, force_terminal=True))
    assert isinstance(sink, Bars)
    first, second = (Reporter("study", [sink], process=process) for process in (1, 2))
    with Reporter("study", [sink]):
        first.start("one", 4)
        second.start("two", 4)
        first.step(0, 5, 10)
        second.step(1, 5, 10)
        found: dict[str, Any] = {task.description: task.completed for task in sink.live.tasks}
        first.done()
        left = [task.description for task in sink.live.tasks]
    assert found == {"one": 0.5, "two": 1.5}
    assert left == ["two"]

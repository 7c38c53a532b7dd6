"""Processes that make something ready once and then do parts of a job, several at a time."""

from __future__ import annotations

import _thread
import multiprocessing
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from threading import Thread
from types import TracebackType
from typing import Any, NoReturn

from leanformer.core.errors import LeanformerError
from leanformer.core.events import BatchEnded, Event, Reporter, StepSkipped, StepStarted, StudyPlanned
from leanformer.core.machine import keep_freed_memory
from leanformer.core.stopping import ENDS, ignore_signals

SECONDS_BETWEEN_STEPS_SHOWN = 0.2
SECONDS_TO_STOP = 60.0
"""How long processes have to write their checkpoints and end."""

Do = Callable[[Any], None]
"""Does one part of the job, which is plain data."""


class Relay:
    """A sink that passes a worker's events on to the process that it works for, which alone counts what is done.

    Args:
        send: Passes on an event.
    """

    def __init__(self, send: Callable[[Event], None]) -> None:
        self._send = send
        self._last_batch = 0.0

    def handle(self, event: Event) -> None:
        """Passes an event on; of the batches a few a second."""
        if isinstance(event, StudyPlanned | StepSkipped):
            return
        if isinstance(event, StepStarted):
            self._last_batch = 0.0
        if isinstance(event, BatchEnded):
            now = time.monotonic()
            if now - self._last_batch < SECONDS_BETWEEN_STEPS_SHOWN:
                return
            self._last_batch = now
        self._send(event)

    def close(self) -> None:
        """The pipe is closed by the worker's end."""


class Workers:
    """Processes that do the parts of a job (a context manager), each started when there is a part for it.

    Leaving it ends them, on an error in the middle of their work.

    Args:
        count: How many at most.
        make: A module's function. Called in each process with a ``Reporter`` and ``arguments``, it makes all ready
            and gives the function that does a part.
        arguments: What can be pickled.
        reporter: Where the processes' progress is shown.
        forks: Whether they may be forked from one that has imported ``make``'s module and done nothing else, where the
            system can: each then starts at once. Not where a GPU is used, which a fork may leave unusable.
    """

    def __init__(
        self, count: int, make: Callable[..., Do], arguments: tuple[Any, ...], reporter: Reporter, forks: bool
    ) -> None:
        self._count = count
        self._make = make
        self._arguments = arguments
        self._reporter = reporter
        self._forks = forks and sys.platform == "linux"
        self._processes: dict[Connection, BaseProcess] = {}

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Who waits for a part reads the end of the pipe, and who trains finds it closed at the next step: it ends as
        # with Ctrl-C, its checkpoint written.
        for pipe in self._processes:
            pipe.close()
        deadline = time.monotonic() + SECONDS_TO_STOP
        for process in self._processes.values():
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()  # a process that trains takes SIGTERM as a request to write its checkpoint first
                process.join()

    def do(self, parts: Sequence[Any]) -> None:
        """Does these parts, in any order, and comes back when all are done.

        Args:
            parts: Plain data, as ``make``'s function takes them; one that takes long had better come early.

        Raises:
            LeanformerError: A part raised one, or a process ended unexpectedly.
            OSError: A part raised one.
            RuntimeError: A part raised anything else, which is told.
        """
        while len(self._processes) < min(self._count, len(parts)):
            self._start()
        waiting = deque(parts)
        busy = set(list(self._processes)[: len(parts)])
        for pipe in busy:
            self._give(pipe, waiting.popleft())
        while busy:
            ready = wait(busy)
            for pipe in [pipe for pipe in busy if pipe in ready]:
                name, arguments = self._receive(pipe)
                if name == "failed":
                    raise arguments[0]
                if name == "event":
                    self._reporter.emit(*arguments)
                elif waiting:
                    self._give(pipe, waiting.popleft())
                else:
                    busy.remove(pipe)

    def _start(self) -> None:
        context: BaseContext = multiprocessing.get_context("forkserver" if self._forks else "spawn")
        if self._forks:
            context.set_forkserver_preload([self._make.__module__, "leanformer.study.preloaded"])
        here, there = context.Pipe()
        arguments = (there, self._reporter.study, len(self._processes) + 1, self._make, self._arguments)
        process = context.Process(target=_work, args=arguments)  # type: ignore[attr-defined]  # of every context
        with _interrupts_blocked():  # so that Ctrl-C finds none in the middle of its imports
            process.start()
            there.close()  # so that the end of the process is the end of the pipe
            self._processes[here] = process

    def _give(self, pipe: Connection, part: Any) -> None:
        try:
            pipe.send(part)
        except OSError:
            raise self._ended(pipe) from None

    def _receive(self, pipe: Connection) -> tuple[str, tuple[Any, ...]]:
        try:
            name, arguments = pipe.recv()
        except (EOFError, OSError):
            raise self._ended(pipe) from None
        return name, arguments

    def _ended(self, pipe: Connection) -> LeanformerError:
        process = self._processes[pipe]
        process.join(SECONDS_TO_STOP)
        return LeanformerError(
            f"a process that trains ended unexpectedly (exit code {process.exitcode}; -9 is what a system short of "
            "memory does); run again, with fewer jobs if memory is short. A script has to call run with jobs under "
            "if __name__ == '__main__'"
        )


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Ctrl-C waits, also in processes that are started meanwhile, which let it in themselves."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # lets Ctrl-C in again where it is started only meanwhile
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(pipe: Connection, study: str, number: int, make: Callable[..., Do], arguments: tuple[Any, ...]) -> None:
    """What a worker's process does."""
    try:
        for asks in (signal.SIGINT, *ENDS):
            signal.signal(asks, _interrupt)
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        Thread(target=_end_with_parent, daemon=True).start()
        keep_freed_memory()
        _do_parts(pipe, study, number, make, arguments)
    except KeyboardInterrupt:
        pass  # the process that it works for says so


def _interrupt(number: int, frame: object) -> NoReturn:
    """Ends this process, its checkpoint written; once is enough."""
    ignore_signals()
    raise KeyboardInterrupt


def _end_with_parent() -> None:
    """Interrupts this process, as Ctrl-C does, when the one that it works for has ended."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    _thread.interrupt_main()


def _do_parts(pipe: Connection, study: str, number: int, make: Callable[..., Do], arguments: tuple[Any, ...]) -> None:
    """Does parts until there are no more, or one of them fails."""

    def send(name: str, arguments: tuple[Any, ...]) -> None:
        try:
            pipe.send((name, arguments))
        except OSError:  # nobody waits for this any more
            ignore_signals()  # once is enough
            raise KeyboardInterrupt from None

    try:
        relay = Relay(lambda event: send("event", (event,)))
        do = make(Reporter(study, [relay], number), *arguments)
        while True:
            try:
                part = pipe.recv()
            except (EOFError, OSError):
                return
            do(part)
            send("finished", ())
    except (LeanformerError, OSError) as error:
        send("failed", (error,))
    except Exception:
        send("failed", (RuntimeError(traceback.format_exc()),))

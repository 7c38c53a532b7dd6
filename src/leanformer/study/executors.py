"""Executors of a study's steps, in this process or in several others. Each is a ``concurrent.futures.Executor``.

Another engine can replace them, because the work can be pickled.
"""

from __future__ import annotations

import _thread
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Lock
from types import TracebackType
from typing import Any, NoReturn

from leanformer.core.errors import LeanformerError
from leanformer.core.events import BatchEnded, Event, Reporter, StepSkipped, StepStarted, StudyPlanned
from leanformer.core.machine import keep_freed_memory
from leanformer.core.stopping import ENDS, ignore_signals

CAN_FORK = sys.platform == "linux"
SECONDS_TO_STOP = 60.0
"""The time that processes have to write their checkpoints and end."""
SECONDS_BETWEEN_STEPS_SHOWN = 0.2
SECONDS_BETWEEN_CHECKS = 0.1


class InThisProcess(Executor):
    """Runs each function at once, before ``submit`` returns."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Calls the function; an exception is kept for ``Future.result``, but a request to stop is raised at once."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def import_ahead(preload: list[str]) -> None:
    """Starts the process from which ``Processes`` are forked, if the system can: its imports, of seconds, begin now.

    Args:
        preload: As of ``Processes``.
    """
    if CAN_FORK:
        _forking(preload)
        with _interrupts_blocked():
            forkserver.ensure_running()


def _forking(preload: list[str]) -> BaseContext:
    """The context of processes that are forked from one that has only imported modules."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*preload, "leanformer.study.preloaded"])
    return context


class Processes(Executor):
    """Processes of this machine, each started when there is work for it.

    An error that leaves the context manager stops their work; they write their checkpoints first.

    Args:
        count: The most processes.
        preload: Modules that forked processes need not import again.
        reporter: Where the processes' progress is shown.
        forks: Whether the processes may be forked, if the system can, from one that has only imported ``preload``; they
            start at once then. It must be False where a GPU is used, which may be unusable after a fork.
    """

    def __init__(self, count: int, preload: list[str], reporter: Reporter, forks: bool) -> None:
        context: BaseContext = _forking(preload) if forks and CAN_FORK else multiprocessing.get_context("spawn")
        self._reporter = reporter
        self._receiver, self._sender = context.Pipe(duplex=False)
        shared = (reporter.study, self._sender, context.Lock(), context.Value("i", 0))
        self._pool = ProcessPoolExecutor(count, context, _begin, shared)
        self._others = set(multiprocessing.active_children())
        self._children: list[BaseProcess] = []
        self._closing = threading.Event()
        self._show_thread = threading.Thread(target=self._show, daemon=True)
        self._show_thread.start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Calls a function in a process; ``Future.result`` raises what the function raises.

        Args:
            fn: The function; it and its arguments must be picklable.

        Raises:
            BrokenProcessPool: A process ended unexpectedly. ``Future.result`` may raise it too; leaving the context
                manager turns it into a ``LeanformerError``.
        """
        with _interrupts_blocked():  # so that Ctrl-C does not interrupt a process during its imports
            future = self._pool.submit(_call, fn, args, kwargs)
        self._find_children()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Lets the processes end after their work; work that has not begun may be cancelled."""
        self._pool.shutdown(wait, cancel_futures=cancel_futures)
        if wait and not self._closing.is_set():
            self._closing.set()
            self._sender.close()
            self._show_thread.join()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._find_children()  # the error may have come between a process's start and this
            self._stop()
        self.shutdown(cancel_futures=True)
        if isinstance(error, BrokenProcessPool):
            codes = [process.exitcode for process in self._children if process.exitcode]
            raise LeanformerError(
                f"a training process ended unexpectedly (exit code {codes[0] if codes else 'unknown'}; -9 mostly means "
                "that the system was short of memory); run again, with fewer jobs if memory is short. A script must "
                "call run with jobs under if __name__ == '__main__'"
            ) from None

    def _find_children(self) -> None:
        known = {*self._others, *self._children}
        self._children += [process for process in multiprocessing.active_children() if process not in known]

    def _stop(self) -> None:
        """Stops the processes; a process that trains gets the time to write a checkpoint first."""
        for process in self._children:
            process.terminate()
        waiting = {process.sentinel: process for process in self._children}
        deadline = time.monotonic() + SECONDS_TO_STOP
        while waiting and (left := deadline - time.monotonic()) > 0:
            for sentinel in wait(list(waiting), left):
                del waiting[sentinel]  # type: ignore[arg-type]  # it is one of the keys
        for process in waiting.values():
            process.kill()

    def _show(self) -> None:
        """Shows the processes' events, until all processes have ended."""
        died = False
        while True:
            sentinels = [] if died else [process.sentinel for process in self._children]
            ready = wait([self._receiver, *sentinels], SECONDS_BETWEEN_CHECKS)
            if self._receiver not in ready:
                if self._closing.is_set():
                    break
                if ready:
                    # The pool waits only for the processes that it knew when it last woke up, so wake it up.
                    died = True
                    with suppress(RuntimeError):  # the pool has noticed by itself
                        self._pool.submit(_nothing)
                continue
            try:
                event = self._receiver.recv()
            except (EOFError, OSError):  # all have ended, perhaps in the middle of a message
                break
            self._reporter.emit(event)
        self._receiver.close()


class Relay:
    """A sink that sends a worker's events to the main process, which alone counts the steps.

    Args:
        send: Sends an event.
    """

    def __init__(self, send: Callable[[Event], None]) -> None:
        self._send = send
        self._last_batch = 0.0

    def handle(self, event: Event) -> None:
        """Sends an event; of batches only a few per second."""
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
        """Does nothing: the process ends soon."""


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Holds back Ctrl-C, also in processes that are started meanwhile; these unblock it themselves."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # started inside the block, it would unblock Ctrl-C
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Worker:
    """The state of a worker process.

    Args:
        study: The study's name.
        sender: The connection to the main process.
        lock: Held while sending.
        number: From 1, in the order in which the processes were started.
    """

    def __init__(self, study: str, sender: Connection, lock: Lock, number: int) -> None:
        self.study = study
        self.number = number
        self.busy = False
        self._sender = sender
        self._lock = lock

    def send(self, event: Event) -> None:
        """Sends an event to the process that started this one."""
        try:
            with self._lock:
                self._sender.send(event)
        except OSError:  # the main process has ended
            _interrupt(signal.SIGINT, None)


_worker: _Worker | None = None  # set in a process of ``Processes``


def reporter_here() -> Reporter:
    """The reporter of a process that ``Processes`` started."""
    assert _worker is not None
    return Reporter(_worker.study, [Relay(_worker.send)], _worker.number)


def _begin(study: str, sender: Connection, lock: Lock, started: Synchronized[int]) -> None:
    """Initialises a worker process."""
    global _worker
    with started.get_lock():
        started.value += 1
        _worker = _Worker(study, sender, lock, started.value)
    for asks in (signal.SIGINT, *ENDS):
        signal.signal(asks, _interrupt)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, daemon=True).start()
    keep_freed_memory()


def _call(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Calls a function in a worker process."""
    assert _worker is not None
    try:
        _worker.busy = True
        return fn(*args, **kwargs)
    except KeyboardInterrupt:
        os._exit(0)  # the checkpoint is written; the main process says why
    except (LeanformerError, OSError):
        raise
    except Exception:  # it may not be picklable
        raise RuntimeError(traceback.format_exc()) from None
    finally:
        _worker.busy = False


def _nothing() -> None:
    pass


def _interrupt(number: int, frame: object) -> NoReturn:
    """Ends this process after its checkpoint is written; further signals are ignored."""
    ignore_signals()
    if _worker is None or not _worker.busy:
        os._exit(0)
    raise KeyboardInterrupt


def _end_with_parent() -> None:
    """Interrupts this process, as Ctrl-C does, when the main process has ended."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    while _worker is not None and _worker.busy:
        _thread.interrupt_main()
        time.sleep(SECONDS_BETWEEN_CHECKS)
    os._exit(0)

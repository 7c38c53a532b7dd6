"""What does a study's steps: this process, or several of its own. Each is a ``concurrent.futures.Executor``.

Another engine can take the place of these: what it is given to do can be pickled.
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
from multiprocessing import resource_tracker
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

SECONDS_TO_STOP = 60.0
"""How long processes have to write their checkpoints and end."""
SECONDS_BETWEEN_STEPS_SHOWN = 0.2
SECONDS_BETWEEN_LOOKS = 0.1


class InThisProcess(Executor):
    """Does what it is given at once, before ``submit`` comes back."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Calls the function; what it raises is kept for ``Future.result``, but for a request to end."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class Processes(Executor):
    """Processes of this machine, each started when there is something for it to do.

    Leaving it on an error ends them in the middle of their work, their checkpoints written.

    Args:
        count: How many at most.
        preload: Modules that a process finds imported where it is forked.
        reporter: Where the processes' progress is shown.
        forks: Whether they may be forked from one that has imported ``preload`` and done nothing else, where the system
            can: each then starts at once. Not where a GPU is used, which a fork may leave unusable.
    """

    def __init__(self, count: int, preload: list[str], reporter: Reporter, forks: bool) -> None:
        forks = forks and sys.platform == "linux"
        context: BaseContext = multiprocessing.get_context("forkserver" if forks else "spawn")
        if forks:
            context.set_forkserver_preload([*preload, "leanformer.study.preloaded"])
        self._reporter = reporter
        self._shown, self._told = context.Pipe(duplex=False)
        shared = (reporter.study, self._told, context.Lock(), context.Value("i", 0))
        self._pool = ProcessPoolExecutor(count, context, _begin, shared)
        self._children: list[BaseProcess] = []
        self._closing = threading.Event()
        self._pump = threading.Thread(target=self._show, daemon=True)
        self._pump.start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Has a process call a function; ``Future.result`` raises as the function does.

        Args:
            fn: What can be pickled, as its arguments can.

        Raises:
            LeanformerError: A process ended unexpectedly; ``Future.result`` may say so too.
        """
        there = set(multiprocessing.active_children())
        with _interrupts_blocked():  # so that Ctrl-C finds no process in the middle of its imports
            future = self._pool.submit(_call, fn, args, kwargs)
        self._children += [process for process in multiprocessing.active_children() if process not in there]
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Lets the processes end once they have done what they were given; what was not begun may be cancelled."""
        self._pool.shutdown(wait, cancel_futures=cancel_futures)
        if wait and not self._closing.is_set():
            self._closing.set()
            self._told.close()
            self._pump.join()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._stop()
        self.shutdown(cancel_futures=True)
        if isinstance(error, BrokenProcessPool):
            codes = [process.exitcode for process in self._children if process.exitcode]
            raise LeanformerError(
                f"a process that trains ended unexpectedly (exit code {codes[0] if codes else 'unknown'}; -9 is what a "
                "system short of memory does); run again, with fewer jobs if memory is short. A script has to call run "
                "with jobs under if __name__ == '__main__'"
            ) from None

    def _stop(self) -> None:
        """Ends the processes, whatever they do: who trains writes a checkpoint first, and has the time for it."""
        for process in self._children:
            process.terminate()
        waiting = {process.sentinel: process for process in self._children}
        deadline = time.monotonic() + SECONDS_TO_STOP
        while waiting and (left := deadline - time.monotonic()) > 0:
            for sentinel in wait(list(waiting), left):
                del waiting[sentinel]  # type: ignore[arg-type]  # an object that was given
        for process in waiting.values():
            process.kill()

    def _show(self) -> None:
        """Shows what the processes tell, until all have ended."""
        died = False
        while True:
            sentinels = [] if died else [process.sentinel for process in self._children]
            ready = wait([self._shown, *sentinels], SECONDS_BETWEEN_LOOKS)
            if self._shown not in ready:
                if self._closing.is_set():
                    break
                if ready:
                    # The pool looks after the processes that there were when it last woke up: it is woken up.
                    died = True
                    with suppress(RuntimeError):  # it has noticed
                        self._pool.submit(_nothing)
                continue
            try:
                event = self._shown.recv()
            except (EOFError, OSError):  # all have ended, perhaps in the middle of a message
                break
            self._reporter.emit(event)
        self._shown.close()


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
        """The process ends soon."""


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


class _Worker:
    """What a process knows of itself.

    Args:
        study: The study's name.
        told: Where to tell of progress.
        lock: Held while telling.
        number: From 1 on, in the order in which the processes were started.
    """

    def __init__(self, study: str, told: Connection, lock: Lock, number: int) -> None:
        self.study = study
        self.number = number
        self.busy = False
        self._told = told
        self._lock = lock

    def tell(self, event: Event) -> None:
        """Gives an event to the process that started this one."""
        try:
            with self._lock:
                self._told.send(event)
        except OSError:  # nobody reads this any more
            _interrupt(signal.SIGINT, None)


_worker: _Worker | None = None  # in a process of ``Processes``


def reporter_here() -> Reporter:
    """The reporter of a process that ``Processes`` started."""
    assert _worker is not None
    return Reporter(_worker.study, [Relay(_worker.tell)], _worker.number)


def _begin(study: str, told: Connection, lock: Lock, started: Synchronized[int]) -> None:
    """The first that a process does."""
    global _worker
    with started.get_lock():
        started.value += 1
        _worker = _Worker(study, told, lock, started.value)
    for asks in (signal.SIGINT, *ENDS):
        signal.signal(asks, _interrupt)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, daemon=True).start()
    keep_freed_memory()


def _call(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Calls what a process was given to do."""
    assert _worker is not None
    try:
        _worker.busy = True
        return fn(*args, **kwargs)
    except KeyboardInterrupt:
        os._exit(0)  # the checkpoint is written; the process that this one works for says why
    except (LeanformerError, OSError):
        raise
    except Exception:  # perhaps one that cannot be sent
        raise RuntimeError(traceback.format_exc()) from None
    finally:
        _worker.busy = False


def _nothing() -> None:
    pass


def _interrupt(number: int, frame: object) -> NoReturn:
    """Ends this process, its checkpoint written; once is enough."""
    ignore_signals()
    if _worker is None or not _worker.busy:
        os._exit(0)
    raise KeyboardInterrupt


def _end_with_parent() -> None:
    """Interrupts this process, as Ctrl-C does, when the one that it works for has ended."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    while _worker is not None and _worker.busy:
        _thread.interrupt_main()
        time.sleep(SECONDS_BETWEEN_LOOKS)
    os._exit(0)

"""How a process ends when it is told to: with Ctrl-C (130), by SIGTERM (143) or SIGHUP (129), which clusters send.

A signal becomes an exception in the main thread, so that running code can save what it has and clean up. Nothing heavy
is imported here: a command listens for signals before it loads anything else.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

ENDS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Signals that ask a process to end, besides Ctrl-C; Windows has no SIGHUP."""


class Stopped(SystemExit):
    """A signal asked this process to end. Where nothing catches it, it ends quietly with 128 and the signal's number.

    Args:
        number: The signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.signal = signal.Signals(number)

    def __str__(self) -> str:
        return "stopped" if self.signal == signal.SIGINT else f"stopped by {self.signal.name}"


_asked: list[int] = []  # signals that came; Python swallows an exception raised while it destroys an object


def _stop(number: int, frame: object) -> NoReturn:
    _asked.append(number)
    raise Stopped(number)


@contextmanager
def listening(numbers: Sequence[int] = ENDS) -> Iterator[None]:
    """Lets signals without a handler of their own raise ``Stopped`` in the main thread; then restores their handlers.

    A process that was told to ignore one, as by ``nohup``, goes on ignoring it.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        usual = (signal.SIG_DFL, signal.default_int_handler)
        before = {number: signal.getsignal(number) for number in numbers}
        before = {number: handler for number, handler in before.items() if handler in usual}
    for number in before:
        signal.signal(number, _stop)
    told = sys.unraisablehook
    if before:
        # An exception raised while Python destroys an object is printed and swallowed; ``check`` raises it again.
        sys.unraisablehook = lambda lost: None if isinstance(lost.exc_value, Stopped) else told(lost)
    try:
        yield
    finally:
        sys.unraisablehook = told
        for number, handler in before.items():
            if signal.getsignal(number) is _stop:
                signal.signal(number, handler)
        if before:
            _asked.clear()


def check() -> None:
    """Raises ``Stopped`` if the exception of an earlier signal was swallowed."""
    if _asked:
        raise Stopped(_asked[0])


def ignore_signals() -> None:
    """Makes this process, which is about to end, ignore all further signals.

    By a handler of its own: of a signal that has come with another, and whose handler is ``SIG_IGN`` by the time that
    Python looks, Python prints an error.
    """
    for number in (signal.SIGINT, *ENDS):
        signal.signal(number, _ignore)


def _ignore(number: int, frame: object) -> None:
    pass


@contextmanager
def undisturbed() -> Iterator[None]:
    """Makes Ctrl-C and requests to end wait until its body is done, which is short and must not be cut off."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *ENDS)}
    for number in before:
        signal.signal(number, lambda number, frame: waiting.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if waiting:
            signal.raise_signal(waiting[0])


def end(message: str, code: int) -> NoReturn:
    """Says why the process ends, in one line on standard error, and ends it."""
    ignore_signals()
    print(f"leanformer: {message}", file=sys.stderr, flush=True)
    sys.exit(code)

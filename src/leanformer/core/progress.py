"""What the console shows while a study runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from leanformer.core.sinks.bars import Bars
from leanformer.core.sinks.lines import Lines


def console_sink(study: str, console: Console | None = None) -> Lines:
    """Live bars where the console is a terminal, plain lines elsewhere.

    Args:
        study: The study's name.
        console: Where to; by default standard error.
    """
    console = console or Console(stderr=True)
    return (Bars if console.is_terminal else Lines)(study, console)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Turns transformers' log lines and bars off while a study runs, whose own progress stays readable."""
    import transformers

    level = transformers.logging.get_verbosity()
    bars = transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(level)
        if bars:  # else they were off before, as within a command that is quiet itself
            transformers.logging.enable_progress_bar()

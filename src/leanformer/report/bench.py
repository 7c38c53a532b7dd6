"""The times of models as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from leanformer.core.errors import printable
from leanformer.results import formats
from leanformer.results.bench import Bench, TimedModel, Timing
from leanformer.results.costs import RUNTIMES
from leanformer.results.rows import Median


def bench_tables(found: Bench) -> list[Table]:
    """Which models were timed, and their times, for a terminal of 80 columns or more.

    Args:
        found: What ``leanformer bench`` measured.
    """
    return [_models(found), _times(found)]


def machine_line(found: Bench) -> str:
    """Where and how it was measured, in one line."""
    environment = found.environment
    libraries = ("leanformer", "torch", "onnxruntime", "ctranslate2")
    versions = ", ".join(f"{name} {environment[name]}" for name in libraries if name in environment)
    return (
        f"{environment['processor']} ({environment['cpu_flags']}), device {found.device}, threads {found.threads}; "
        f"{versions}"
    )


def _models(found: Bench) -> Table:
    table = _table()
    for title, justify in (("", "right"), ("model", "left"), ("runs in", "left"), ("precision", "left"), ("", "right")):
        table.add_column(title, justify=justify, overflow="fold", no_wrap=title != "model")  # type: ignore[arg-type]
    table.columns[-1].header = "files"
    for number, model in enumerate(found.models, start=1):
        table.add_row(
            str(number),
            Text(printable(model.name)),
            RUNTIMES[model.runtime],
            model.precision,
            formats.size(model.bytes),
        )
    return table


def _times(found: Bench) -> Table:
    writes = found.max_tokens is not None
    example = "sentence" if writes else "image"
    table = _table()
    table.caption = (
        f"{found.inputs}; medians of {found.rounds} rounds with intervals of 95 % or more; ms and CPU are the "
        f"milliseconds of a call, by the clock and of the processor; /s is {example}s a second; x is the speed as a "
        "multiple of model 1's in the same round"
        + ("; written are the subwords of a call, ms each the time for one" if writes else "")
    )
    titles = ["batch", "", "ms", "interval", "CPU", "/s", "x", "interval", *(("written", "ms each") if writes else ())]
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    rows = len(found.models[0].timings)
    for place in range(rows):
        for number, model in enumerate(found.models, start=1):
            table.add_row(*_cells(number, model, model.timings[place], writes), end_section=model is found.models[-1])
    return table


def _cells(number: int, model: TimedModel, timing: Timing, writes: bool) -> Iterator[str]:
    length = "" if timing.length is None else f"x{timing.length}"
    yield f"{timing.batch}{length}" if number == 1 else ""
    yield str(number)
    yield _number(timing.wall_ms.median)
    yield _interval(timing.wall_ms)
    yield _number(timing.cpu_ms.median)
    yield formats.count(timing.per_second)
    yield _number(timing.speed.median) if number > 1 else ""
    yield _interval(timing.speed) if number > 1 else ""
    if writes:
        yield formats.MISSING if timing.tokens is None else formats.count(timing.tokens)
        yield formats.or_missing(_number)(timing.ms_per_token)


def _table() -> Table:
    return Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), caption_justify="left", caption_style="dim")


def _number(value: float) -> str:
    """Three digits: ``0.0421``, ``0.421``, ``4.21``, ``42.1``, ``4,210``."""
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"


def _interval(found: Median) -> str:
    return f"{_number(found.low)}-{_number(found.high)}"

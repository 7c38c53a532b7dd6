"""What all benchmarks have in common: the interface, where they register themselves, options and the result file."""

from __future__ import annotations

import argparse
import difflib
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import torch

from benchmarks.kit.again import Figures
from benchmarks.kit.plots import Plot
from benchmarks.kit.tables import Tables
from benchmarks.kit.verdicts import Verdict
from leanformer.core.errors import LeanformerError
from leanformer.core.files import make_directory, write_atomically
from leanformer.core.json_files import read_sealed, to_json
from leanformer.core.machine import environment, threads
from leanformer.core.progress import quiet_libraries
from leanformer.core.registry import Registry
from leanformer.results.schema import rows_of

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
CPU = torch.device("cpu")
ENVELOPE = ("benchmark", "command", "date", "seconds", "quick", "environment", "settings")
"""What every result file has beside its figures."""

Result = dict[str, Any]


@dataclass(frozen=True)
class Benchmark:
    """One benchmark; ``benchmarks/__init__.py`` says how to add one.

    Args:
        name: Its command's, its result file's and its page's.
        add_arguments: Adds its own options to a parser.
        measure: From the options to the figures: plain data, with every seed in it. Under ``environment`` they say
            where they were measured (``leanformer.core.machine.environment``) if not on the CPU in float32.
        tables: From a result file's content to what its page shows.
        quick: What ``--quick`` sets: options by their names in the parsed arguments.
        verdicts: From a result file's content to what its reductions cost.
        plot: From a result file's content to what its figure shows, or None where there is nothing to draw.
        stated: From a result file's content to the figures that a second run is compared by.
    """

    name: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    measure: Callable[[argparse.Namespace], Result]
    tables: Callable[[Result], Tables]
    quick: Mapping[str, Any] = field(default_factory=dict)
    verdicts: Callable[[Result], Sequence[Verdict]] | None = None
    plot: Callable[[Result], Plot | None] | None = None
    stated: Callable[[Result], Figures] | None = None

    @property
    def about(self) -> str:
        """What is measured and how: its module's docstring."""
        return sys.modules[self.measure.__module__].__doc__ or ""


ROOMS = {room: Registry[Benchmark](f"benchmarks.{room}") for room in ("speed", "quality", "peers", "decisions")}
"""Package -> the benchmarks that its modules register."""


def register(room: str, benchmark: Benchmark) -> Benchmark:
    """Makes a benchmark known under its name.

    Args:
        room: A key of ``ROOMS``: its package.
        benchmark: It is given back.
    """
    return ROOMS[room].add(benchmark.name, benchmark)


def names() -> list[str]:
    """The names of all benchmarks, package by package."""
    return [name for room in ROOMS.values() for name in room]


class Parser(argparse.ArgumentParser):
    """One that answers a mistake with one line."""

    def error(self, message: str) -> NoReturn:
        """Ends the process."""
        raise LeanformerError(f"{message}; see {self.prog} --help")


def find(name: str) -> Benchmark:
    """A benchmark by its name.

    Raises:
        LeanformerError: There is none of this name.
    """
    for room in ROOMS.values():
        if name in room:
            return room[name]
    near = difflib.get_close_matches(name, names(), n=1)
    remedy = f"did you mean {near[0]}?" if near else "python -m benchmarks lists them"
    raise LeanformerError(f"there is no benchmark {name!r}; {remedy}")


def parse(benchmark: Benchmark, argv: Sequence[str]) -> argparse.Namespace:
    """A benchmark's options: those of the command line, then those of ``--quick`` if it is there, then defaults."""
    parser = Parser(
        prog=f"python -m benchmarks {benchmark.name}",
        description=benchmark.about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--quick", action="store_true", help="tiny settings: shows that it runs, and measures nothing")
    parser.add_argument("--out", type=Path, help="the result file; by default benchmarks/results/, with --quick none")
    parser.add_argument("--threads", type=int, default=1, help="PyTorch's on the CPU (default 1)")
    benchmark.add_arguments(parser)
    if "--quick" in argv:
        parser.set_defaults(**benchmark.quick)
    arguments = parser.parse_args(argv)
    if arguments.threads < 1:
        parser.error(f"--threads {arguments.threads}: must be at least 1")
    if arguments.out is None and not arguments.quick:
        arguments.out = RESULTS / f"{benchmark.name}.json"
    return arguments


def run(benchmark: Benchmark, argv: Sequence[str]) -> Result:
    """Runs a benchmark and writes its result file, whole or not at all.

    Args:
        benchmark: Which.
        argv: The command line behind its name.

    Returns:
        What the file holds: the fields of ``ENVELOPE``, and the figures.

    Raises:
        LeanformerError: An option or the data are wrong, or the file cannot be written, which is found out first.
    """
    arguments = parse(benchmark, argv)
    if arguments.out is not None:
        check_writable(arguments.out)
    date = datetime.now(UTC)
    started = time.perf_counter()
    with quiet_libraries(), threads(arguments.threads):
        here = environment(CPU, "float32")
        figures = benchmark.measure(arguments)
    result = {
        "benchmark": benchmark.name,
        "command": shlex.join(["python", "-m", "benchmarks", benchmark.name, *argv]),
        "date": date.isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - started, 1),
        "quick": arguments.quick,
        "environment": here,
        "settings": {
            key: _shown(value) if isinstance(value, Path) else value
            for key, value in vars(arguments).items()
            if key not in ("quick", "out")
        },
        **figures,
    }
    if arguments.out is not None:
        make_directory(arguments.out.parent)
        write_atomically(arguments.out, to_json(result))
    return result


def _shown(path: Path) -> str:
    """As the result file names it: what is in the repository from its root."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def read_result(path: Path) -> Result:
    """A result file's content.

    Raises:
        LeanformerError: It is damaged, or no benchmark's.
    """
    result = read_sealed(path, "delete it, or run its benchmark again")
    missing = [key for key in ENVELOPE if key not in result]
    if missing:
        raise LeanformerError(f"{path}: not a benchmark's results: no {', '.join(missing)}")
    if result["benchmark"] not in names():
        raise LeanformerError(f"{path}: of benchmark {result['benchmark']!r}, which is not there")
    return result


def check_writable(path: Path) -> None:
    """Finds out before hours of work whether a file can be written.

    Raises:
        LeanformerError: It cannot.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(None, "it is a directory")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise LeanformerError(f"--out {path}: cannot be written: {error.strerror}") from None


def add_runs(parser: argparse.ArgumentParser) -> None:
    """The option of benchmarks that are studies: where their run directories are."""
    parser.add_argument(
        "--runs",
        type=Path,
        help="where the run directories are kept, of which a run goes on with what is there; by default "
        "runs/benchmarks, with --quick none is kept",
    )


@contextmanager
def runs_of(name: str, arguments: argparse.Namespace) -> Iterator[Path]:
    """The directory for a benchmark's run directories; with ``--quick`` one that is removed afterwards."""
    if arguments.quick and arguments.runs is None:
        with tempfile.TemporaryDirectory() as directory:
            yield Path(directory)
    else:
        yield (arguments.runs or Path("runs/benchmarks")) / name


def recipes(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A study's rows, the baseline's first, with what holds for recipes: a benchmark speaks of no single model."""
    return [row if row["recipe"] is None else row | row["recipe"] for row in rows_of(results)]


def study_rows(results: Mapping[str, Any], kept: Sequence[str]) -> list[dict[str, Any]]:
    """A study's recipes, the baseline's first, with these of their fields."""
    return [{key: row[key] for key in kept} for row in recipes(results)]


def sites_of(changes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a row's ``changes`` come to: the block, parameters and R² of each site that was replaced, and the sums."""
    changed = [entry for entry in changes if entry["changed"]]
    return {
        "sites": [
            {key: entry[key] for key in ("site", "block", "arguments", "removed", "added", "r2")} for entry in changed
        ],
        "removed": sum(entry["removed"] for entry in changed),
        "added": sum(entry["added"] for entry in changed),
    }


def progress(line: str) -> None:
    """Says on standard error how far a benchmark is; its tables go to standard output at the end."""
    print(line, file=sys.stderr, flush=True)

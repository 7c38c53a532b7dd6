"""Fills the tables of docs/benchmarks.md and docs/benchmarks/ from the results files, and draws the figures there.

The words of a page are by hand. A table stands between two comments, and only what is between them is written here::

    <!-- table: minimal-cpu forms-mnist -->
    <!-- end -->

The first word is the results file (``benchmarks/results/minimal-cpu.json``), the second one of its benchmark's tables,
or ``run``: the command, the date and the machine. The tables of all files together are under ``all``. The figure of a
file is ``docs/images/benchmarks/minimal-cpu.svg``.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.kit.again import Figures
from benchmarks.kit.benchmark import RESULTS, ROOT, Result, find, read_result
from benchmarks.kit.drawing import draw, same_drawing
from benchmarks.kit.tables import Tables, table
from benchmarks.kit.verdicts import Verdict, in_order
from leanformer.core.errors import LeanformerError
from leanformer.core.files import make_directory, write_atomically
from leanformer.results.formats import seconds

DOCS = ROOT / "docs"
AGAIN = "-again"
"""Ending of a second run's file beside the first."""
ALL = "all"
"""In place of a results file: what comes of all of them."""
MARKED = re.compile(r"(<!-- table: (\S+) (\S+) -->\n)(.*?)(<!-- end -->)", flags=re.DOTALL)
"""A place for a table: its opening comment, the file, the table's name, what stands there, and the closing comment."""


@dataclass(frozen=True)
class Run:
    """A results file.

    Args:
        path: Where it is.
        result: What is in it.
    """

    path: Path
    result: Result

    @property
    def name(self) -> str:
        """What pages call it: the file's name, of second runs with the directory before it."""
        return f"again/{self.path.stem}" if self.path.parent.name == "again" else self.path.stem

    @property
    def link(self) -> str:
        """To the file, from a page under docs/benchmarks/."""
        return f"[{self.name}.json](../../benchmarks/results/{self.name}.json)"

    @property
    def verdicts(self) -> Sequence[Verdict]:
        """What its reductions cost."""
        of = find(self.result["benchmark"]).verdicts
        return () if of is None else of(self.result)


@dataclass(frozen=True)
class Repeat:
    """A second run of a benchmark.

    Args:
        run, again: The first run's file, and the second's.
        first, second: What both measured alike -> the figure.
    """

    run: Run
    again: Run
    first: Figures
    second: Figures

    @property
    def inside(self) -> int:
        """How many of the second run's figures lie in the first's intervals."""
        return sum(self.first[what].holds(figure.mean) for what, figure in self.second.items())

    @property
    def moves(self) -> dict[str, float]:
        """How far each figure has moved."""
        return {what: figure.mean - self.first[what].mean for what, figure in self.second.items()}

    @property
    def of_translations(self) -> bool:
        """Whether it is another teacher that was measured."""
        return any(verdict.unit == "BLEU" for verdict in self.again.verdicts)


def read_runs(results: Path = RESULTS) -> tuple[list[Run], list[Run]]:
    """The results files, a benchmark's own before its others, and those of second runs in a directory of their own.

    Raises:
        LeanformerError: A file is damaged, or no benchmark's.
    """
    own = sorted(results.glob("*.json"), key=lambda path: (len(path.stem), path.stem))
    again = sorted((results / "again").glob("*.json"))
    runs, second = ([Run(path, read_result(path)) for path in paths] for paths in (own, again))
    return runs, second


def all_tables(results: Path = RESULTS) -> dict[tuple[str, str], str]:
    """(results file, name) -> the table."""
    runs, second = read_runs(results)
    tables = {(run.name, name): text for run in runs for name, text in tables_of(run).items()}
    return tables | {(ALL, name): text for name, text in common_tables(runs, second).items()}


def tables_of(run: Run) -> Tables:
    """A results file's tables."""
    return {**find(run.result["benchmark"]).tables(run.result), "run": run_table(run)}


def common_tables(runs: Sequence[Run], second: Sequence[Run]) -> Tables:
    """The tables that come of all results files together."""
    verdicts = [verdict for run in runs for verdict in run.verdicts]
    # Another teacher, which a second run of a translation has, is more to go by; the same images are not.
    verdicts += [verdict for run in second for verdict in run.verdicts if verdict.unit == "BLEU"]
    repeats = second_runs(runs, second)
    return {
        "reductions": reductions(verdicts),
        "every-reduction": every_reduction(verdicts),
        "second-runs": run_again(repeats),
        "other-teachers": other_teachers([repeat for repeat in repeats if repeat.of_translations]),
    }


def reductions(verdicts: Sequence[Verdict]) -> str:
    """Each reduction once on each data set, by the least favourable of its runs."""
    # A later one of the same name, which is less favourable, takes the earlier's place.
    worst = {(verdict.data, verdict.reduction): verdict for verdict in in_order(verdicts)}
    data = list(dict.fromkeys(verdict.data for verdict in verdicts))
    chosen = sorted(in_order(worst.values()), key=lambda verdict: data.index(verdict.data))
    lines = [(own.data, own.reduction, own.word, own.left, own.cost) for own in chosen]
    return table(("data", "replaced or taken out", "verdict", "parameters left", "difference"), lines)


def every_reduction(verdicts: Sequence[Verdict]) -> str:
    """All differences, with what each rests on."""
    lines = [
        (
            own.word,
            own.data,
            own.reduction,
            own.left,
            own.cost,
            "; ".join(filter(None, (own.grounds, own.elsewhere))),
        )
        for own in in_order(verdicts)
    ]
    return table(("verdict", "data", "replaced or taken out", "parameters left", "difference", "rests on"), lines)


def second_runs(runs: Sequence[Run], second: Sequence[Run]) -> list[Repeat]:
    """Second runs, those of a directory of their own and others, beside the first.

    Raises:
        LeanformerError: There is nothing that one could be compared with.
    """
    # A second run that has more than the first stands on its benchmark's page with its own tables.
    beside = [run for run in runs if run.name.endswith(AGAIN)]
    repeats = []
    for again in [*second, *beside]:
        benchmark = find(again.result["benchmark"])
        own = [run for run in runs if run.result["benchmark"] == benchmark.name]
        if benchmark.stated is None or not own:
            raise LeanformerError(
                f"{again.path}: {benchmark.name} has nothing that a second run could be compared with"
            )
        # Of its own name, or else the benchmark's first.
        run = next((run for run in own if run.name == again.path.stem.removesuffix(AGAIN)), own[0])
        first, other = benchmark.stated(run.result), benchmark.stated(again.result)
        common = [what for what in first if what in other]
        if not common:
            raise LeanformerError(f"{again.path}: none of its figures is in {run.path.name}")
        repeats.append(Repeat(run, again, first, {what: other[what] for what in common}))
    return repeats


def run_again(repeats: Sequence[Repeat]) -> str:
    """How many figures of each second run lie inside the first's intervals."""
    lines = []
    for repeat in repeats:
        moves = repeat.moves
        farthest = max(moves, key=lambda what: abs(moves[what]))
        figure, repeated = repeat.first[farthest], repeat.second[farthest].mean
        stated = f"{farthest}: {figure.mean:.4g} ({figure.low:.4g} to {figure.high:.4g}), then {repeated:.4g}"
        lines.append(
            (
                repeat.run.link,
                repeat.again.link,
                f"{repeat.inside} of {len(moves)}",
                "all are the same" if repeated == figure.mean else stated,
                day_of(repeat.again.result),
                f"`{repeat.again.result['command']}`",
                " ".join(repeat.again.result.get("notes", ())),
            )
        )
    header = ("first run", "second run", "inside", "farthest apart", "date of the second", "its command", "notes")
    return table(header, lines)


def other_teachers(repeats: Sequence[Repeat]) -> str:
    """How far differences have moved with another teacher."""
    if not repeats:
        return ""
    lines = [
        (f"{repeat.run.name}, then {repeat.again.name}", *_moved(repeat.inside, repeat.moves.values()))
        for repeat in repeats
    ]
    moves = [move for repeat in repeats for move in repeat.moves.values()]
    lines.append(("all", *_moved(sum(repeat.inside for repeat in repeats), moves)))
    header = ("results files", "inside the first's intervals", "became worse", "median move, BLEU", "farthest, BLEU")
    return table(header, lines)


def _moved(inside: int, moves: Iterable[float]) -> tuple[str, ...]:
    values = list(moves)
    far = [abs(move) for move in values]
    worse = sum(move < 0 for move in values)
    middle, farthest = f"{statistics.median(far):.1f}", f"{max(far):.1f}"
    return f"{inside} of {len(values)}", f"{worse} of {len(values)}", middle, farthest


def run_table(run: Run) -> str:
    """Where a file's figures come from."""
    result, environment = run.result, run.result["environment"]
    rows = {"results": run.link, "command": f"`{result['command']}`", "date": day_of(result)}
    if result["seconds"] is not None:
        resumed = ", without what earlier calls had left in its run directory" if "runs" in result["settings"] else ""
        rows["took"] = f"{seconds(result['seconds'])}{resumed}"
    rows["machine"] = "not recorded" if environment is None else machine(environment)
    rows["versions"] = "not recorded" if environment is None else versions(environment)
    notes = list(result.get("notes", ()))
    if result["quick"]:
        notes.insert(0, "**Made with `--quick`: it shows that the command runs; its figures mean nothing.**")
    if notes:
        rows["notes"] = " ".join(notes)
    return table(("", ""), list(rows.items()))


def day_of(result: Result) -> str:
    """When it was measured."""
    return "not recorded" if result["date"] is None else str(result["date"]).partition("T")[0]


def machine(environment: Mapping[str, object]) -> str:
    """Processor or GPU, threads and precision, as far as they are known."""
    device, processor = environment.get("device", "cpu"), environment["processor"]
    parts = [str(processor) if device == "cpu" else f"{device} ({processor})"]
    if "threads" in environment:
        parts.append(f"{environment['threads']} thread{'' if environment['threads'] == 1 else 's'}")
    if "precision" in environment:
        parts.append(str(environment["precision"]))
    return ", ".join(parts)


def versions(environment: Mapping[str, object]) -> str:
    """Of the libraries and of Python, as far as they are known."""
    known = [f"{name} {environment[name]}" for name in ("leanformer", "torch", "transformers") if name in environment]
    return ", ".join([*known, f"Python {environment['python']}"])


def pages(docs: Path = DOCS) -> list[Path]:
    """The pages of the benchmarks, the index first."""
    return [docs / "benchmarks.md", *sorted((docs / "benchmarks").glob("*.md"))]


def filled(page: Path, tables: Mapping[tuple[str, str], str]) -> str:
    """A page's text with its tables as the results files give them.

    Raises:
        LeanformerError: It asks for a table that is not there, or does not close one.
    """
    text = page.read_text(encoding="utf-8")
    if text.count("<!-- table: ") != len(MARKED.findall(text)):
        raise LeanformerError(f"{page}: a table is not closed by <!-- end -->")

    def fill(match: re.Match[str]) -> str:
        opening, run, name, _, closing = match.groups()
        if (run, name) not in tables:
            known = sorted(other for file, other in tables if file == run)
            remedy = f"it has {', '.join(known)}" if known else f"there is no {run}.json in {RESULTS.relative_to(ROOT)}"
            raise LeanformerError(f"{page}: there is no table {name!r} of {run}; {remedy}")
        return f"{opening}\n{tables[run, name]}\n\n{closing}"

    return MARKED.sub(fill, text)


def drawings(results: Path = RESULTS) -> dict[str, str]:
    """A figure's file name -> its SVG."""
    found = {}
    for run in read_runs(results)[0]:
        plot = find(run.result["benchmark"]).plot
        shown = None if plot is None else plot(run.result)
        if shown is not None:
            found[f"{run.name}.svg"] = draw(shown)
    return found


def stale(results: Path = RESULTS, docs: Path = DOCS) -> list[Path]:
    """The pages and figures that are not what the results files give."""
    return [path for path, _ in changes(results, docs)]


def changes(results: Path = RESULTS, docs: Path = DOCS) -> Iterator[tuple[Path, str | None]]:
    """Each file that has to change -> what it should hold; None where it should be gone."""
    tables = all_tables(results)
    for page in pages(docs):
        text = filled(page, tables)
        if text != page.read_text(encoding="utf-8"):
            yield page, text
    wanted, directory = drawings(results), docs / "images" / "benchmarks"
    for name, svg in wanted.items():
        path = directory / name
        if not path.exists() or not same_drawing(path.read_text(encoding="utf-8"), svg):
            yield path, svg
    for path in sorted(directory.glob("*.svg")):
        if path.name not in wanted:
            yield path, None


def write(results: Path = RESULTS, docs: Path = DOCS) -> None:
    """Writes the tables and figures, each file whole or not at all, and removes figures of no results file."""
    for path, text in list(changes(results, docs)):
        if text is None:
            path.unlink()
        else:
            make_directory(path.parent)
            write_atomically(path, text)

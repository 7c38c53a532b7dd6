"""docs/benchmarks.md and its plots, from the results files alone."""

from __future__ import annotations

import statistics
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import NAMES
from benchmarks.again import Figures
from benchmarks.drawing import draw, same_drawing
from benchmarks.room import RESULTS, Result, find, read_result, table, with_interval
from benchmarks.verdicts import MARGINS, WORDS, Verdict, in_order
from leanformer.core.errors import LeanformerError
from leanformer.core.files import make_directory, write_atomically
from leanformer.results.formats import seconds, signed

EVERY = "Every reduction"
"""Heading of the table of all that was replaced or taken out."""
ANEW = "Making the figures anew"
"""Heading of what the commands need."""
AGAIN = "-again"
"""Ending of a second run's file beside the first."""
PAGE = RESULTS.parents[1] / "docs" / "benchmarks.md"
INTRODUCTION = f"""\
Every figure measured here, those in sentences and plots too, comes from a file in `benchmarks/results`, and below the
tables of each section stand its command, the date, the machine and the versions:
[{ANEW}](#making-the-figures-anew)."""
MAKING_ANEW = """\
`python -m benchmarks page` writes this page from the files in `benchmarks/results`. `python -m benchmarks` lists the
commands that make them anew, from the root of the repository, in the environment that `make setup` makes; with
`--quick` a command only shows, in seconds, that it runs. What is compared with other libraries needs these:
`pip install -c constraints.txt -e '.[bench]'`. Data sets are found by their hub id (`ylecun/mnist`, `uoft-cs/cifar10`,
`bentrevett/multi30k`, which are what commands take without an option), or with `--data`, `--data-mnist` and
`--data-cifar10` in a folder that is a local copy in the hub's layout, as they were here. Files under
`runs/benchmarks/multi30k` are what `python -m benchmarks multi30k --sequence all-slots both-slots nothing` leaves,
those under `runs/multi30k` what `leanformer run benchmarks/multi30k.yaml` does; without an option that names such files
a command makes its own, or takes fresh models. What is compared is measured in one run, in turn, and ratios are taken
round by round: shared machines are noisy, so look at the ratios."""
WHAT_IS_MEANT = """\
What the names mean. In a vision transformer each attention is left with **one matrix for queries and keys** in place of
two, or with **symmetric** ones, of which one triangle of numbers is stored, or with **no values and output
projection**, so that it takes weighted means of the tokens themselves
([minimal attention](blocks.md#minimal_attention)); **no MLP**
leaves the layer's MLP out. These models have d = 64, 6 layers, one head and MLPs of ratio 1. In a translator the
attention of **encoder self**, **decoder self** or **cross** is replaced by `feed_forward`, the published networks in
sizes XS to L ([feed-forward blocks](feed-forward-blocks.md)); by `slots`, so many weighted sums of the sentence that a
gate reads; by `mixer`, weights by position; or by `synthesizer`, weights that the asking token alone decides; "rank" is
that of their maps ([small blocks](small-blocks.md))."""


@dataclass(frozen=True)
class Repeat:
    """A second run of a benchmark.

    Args:
        heading: Of the first run.
        first, second: What both measured alike -> the figure.
        result: The second run's file.
    """

    heading: str
    first: Figures
    second: Figures
    result: Result

    @property
    def inside(self) -> int:
        """How many of the second run's figures lie in the first's intervals."""
        return sum(self.first[what].holds(figure.mean) for what, figure in self.second.items())

    @property
    def moves(self) -> dict[str, float]:
        """How far each figure has moved."""
        return {what: figure.mean - self.first[what].mean for what, figure in self.second.items()}


def render(results: Path = RESULTS) -> tuple[str, dict[str, str]]:
    """The page's text, and its plots.

    Args:
        results: The directory of the results files.

    Returns:
        The text; a plot's file name -> its SVG.

    Raises:
        LeanformerError: A file is damaged, or no benchmark's.
    """
    files: dict[str, list[tuple[Path, Result]]] = {name: [] for name in NAMES}
    # A benchmark's own file comes before its others, such as those of other machines.
    for path in sorted(results.glob("*.json"), key=lambda path: (len(path.stem), path.stem)):
        result = read_result(path)
        files[result["benchmark"]].append((path, result))
    sentences, sections = [], []
    verdicts: list[Verdict] = []
    plots: dict[str, str] = {}
    for name, found in files.items():
        if not found:
            continue
        benchmark = find(name)
        sections.append(f"## {benchmark.title}")
        headings = headings_of(found)
        for path, result in found:
            heading = headings[path]
            if heading != benchmark.title:
                sections.append(f"### {heading}")
            if benchmark.summary is not None and (sentence := benchmark.summary(result)) is not None:
                sentences.append(f"- {sentence} ([{heading}](#{anchor(heading)}))")
            plot = None if benchmark.plot is None else benchmark.plot(result)
            if plot is not None:
                plots[f"{path.stem}.svg"] = draw(plot)
                sections.append(f"![{plot.alt}](images/benchmarks/{path.stem}.svg)")
            sections += [benchmark.section(result), provenance(path, result)]
            if benchmark.verdicts is not None:
                verdicts += benchmark.verdicts(result)
    again = [(path, read_result(path)) for path in sorted((results / "again").glob("*.json"))]
    for _, result in again:
        # Another teacher, which a second run of a translation has, is more to go by; the same images are not.
        verdicts += in_bleu(result)
    repeats = second_runs(files, again)
    sections += run_again(repeats)
    missing = ", ".join(f"`{name}`" for name, found in files.items() if not found)
    if missing:
        sections += ["## Not measured yet", f"There is no results file of {missing}."]
    parts = [
        "# Benchmarks",
        INTRODUCTION,
        "## In plain words",
        *what_was_safe(verdicts, repeats),
        *what_else(sentences),
        *every_reduction(verdicts),
        f"## {ANEW}",
        MAKING_ANEW,
        *sections,
    ]
    return "\n\n".join(wrapped(block) for part in parts for block in part.split("\n\n")) + "\n", plots


def headings_of(found: Sequence[tuple[Path, Result]]) -> dict[Path, str]:
    """A benchmark's files -> their headings: its title, and where they are several what tells one from the others."""
    benchmark = find(found[0][1]["benchmark"])
    if len(found) == 1:
        return {found[0][0]: benchmark.title}
    told = {path: (benchmark.variant or machine_of)(result) for path, result in found}
    alike = {words for words, count in Counter(told.values()).items() if count > 1}
    return {
        path: f"{benchmark.title}, {f'{words} ({path.stem})' if words in alike else words}"
        for path, words in told.items()
    }


def machine_of(result: Result) -> str:
    """What a result was measured on: the GPU, or the processor."""
    if result["environment"] is None:
        return "machine not recorded"
    environment: Mapping[str, str] = result["environment"]
    device = environment.get("device", "cpu")
    return environment["processor"] if device == "cpu" else device


def in_bleu(result: Result) -> list[Verdict]:
    """A result's verdicts of translations."""
    verdicts = find(result["benchmark"]).verdicts
    return [] if verdicts is None else [verdict for verdict in verdicts(result) if verdict.unit == "BLEU"]


def what_was_safe(verdicts: Sequence[Verdict], repeats: Sequence[Repeat]) -> list[str]:
    """Which reductions were safe on which data, which were not, and how sure that is; nothing without any."""
    if not verdicts:
        return []
    margins = " or ".join(f"{margin:.1f} {unit}" for unit, margin in MARGINS.items())
    text = f"""\
Of what was taken out of a model, or replaced in it, **safe** is what surely costs less than {margins} of accuracy on
test data (the whole interval of 95 % does), **not safe** what surely costs more; the rest is undecided. In brackets:
the parameters that are left, and the difference to the whole model. More than 100 % is a larger model, which may be
safe and saves none. Each reduction stands once, by the least favourable of its runs; [{EVERY}](#{anchor(EVERY)}) has
all, with what each rests on."""
    sure = f"""\
How sure that is: each difference has its own interval, not corrected for being many, as a study's decision is. On
images it counts seeds and test images, after the epochs given; longer training may end elsewhere, as the replication
may show. Of translations it is over sentences of one teacher, and says nothing of other
teachers.{other_teachers(repeats)}"""
    return [text, *in_short(verdicts), sure, WHAT_IS_MEANT]


def other_teachers(repeats: Sequence[Repeat]) -> str:
    """How far differences have moved with another teacher."""
    repeats = [repeat for repeat in repeats if in_bleu(repeat.result)]
    if not repeats:
        return ""
    inside = ", ".join(f"{repeat.inside} of {len(repeat.second)}" for repeat in repeats)
    moves = [move for repeat in repeats for move in repeat.moves.values()]
    down = sum(move < 0 for move in moves)
    return (
        " Where all was done again with another (so many differences to the teacher inside those intervals: "
        f"{inside}), {down} of {len(moves)} became worse; half of them moved by more than "
        f"{statistics.median(map(abs, moves)):.1f} BLEU, the farthest by {max(map(abs, moves)):.1f}."
    )


def every_reduction(verdicts: Sequence[Verdict]) -> list[str]:
    """The table of all differences; nothing without any."""
    if not verdicts:
        return []
    text = """\
What a reduction costs is its difference to the whole model, on test data: one trained from scratch as long, or the
teacher. Where the last column says "as the teacher", this was tuned as the student was; elsewhere it has not had the
training that a tuned student has beside it. Where a student was tuned in several ways, the way of the best validation
BLEU stands here, or the longest where that was not kept. Vision transformers with four heads, and those of the table of
depth, have no verdict: their differences below are to the model with one head, or with rates that were not searched."""
    lines = [
        (
            verdict.word,
            verdict.data,
            verdict.reduction,
            f"{100 * verdict.parameters:,.0f} %",
            f"{with_interval(verdict.difference, 2)} {verdict.unit}",
            "; ".join(filter(None, (verdict.grounds, verdict.elsewhere))),
        )
        for verdict in in_order(verdicts)
    ]
    header = ("", "data", "what was replaced or taken out", "parameters", "difference", "rests on")
    return [f"## {EVERY}", text, table(header, lines)]


def second_runs(
    files: Mapping[str, Sequence[tuple[Path, Result]]], again: Sequence[tuple[Path, Result]]
) -> list[Repeat]:
    """Second runs, those of a directory of their own and others, beside the first.

    Raises:
        LeanformerError: There is nothing that one could be compared with.
    """
    # A second run that has more than the first stands above with its own tables.
    above = [
        (path, result)
        for name, found in files.items()
        for path, result in found[1:]
        if path.stem.endswith(AGAIN) and find(name).stated is not None
    ]
    repeats = []
    for path, second in [*again, *above]:
        benchmark = find(second["benchmark"])
        if benchmark.stated is None or not files[benchmark.name]:
            raise LeanformerError(f"{path}: {benchmark.name} has nothing that a second run could be compared with")
        # Of its own name, or else the benchmark's first.
        here, whole = next(
            (pair for pair in files[benchmark.name] if pair[0].stem == path.stem.removesuffix(AGAIN)),
            files[benchmark.name][0],
        )
        first, other = benchmark.stated(whole), benchmark.stated(second)
        common = [what for what in first if what in other]
        if not common:
            raise LeanformerError(f"{path}: none of its figures is in {here.name}")
        heading = headings_of(files[benchmark.name])[here]
        repeats.append(Repeat(heading, first, {what: other[what] for what in common}, second))
    return repeats


def run_again(repeats: Sequence[Repeat]) -> list[str]:
    """Their table; nothing where there are none."""
    if not repeats:
        return []
    lines = []
    for repeat in repeats:
        moves = repeat.moves
        farthest = max(moves, key=lambda what: abs(moves[what]))
        figure, repeated = repeat.first[farthest], repeat.second[farthest].mean
        stated = f"{farthest}: {figure.mean:.4g} ({figure.low:.4g} to {figure.high:.4g}), then {repeated:.4g}"
        date = repeat.result["date"]
        lines.append(
            (
                repeat.heading,
                f"{repeat.inside} of {len(moves)}",
                "all are the same" if repeated == figure.mean else stated,
                "date not recorded" if date is None else date.partition("T")[0],
                f"`{repeat.result['command']}`",
                " ".join(repeat.result.get("notes", ())),
            )
        )
    header = ("benchmark", "figures inside", "farthest apart", "second run", "its command", "of it")
    text = """\
Figures of a second run that land inside the interval stated by the run above: of 95 % for shares and accuracies, from
the least to the largest round for ratios of times. Simulations draw the same numbers each time. Trainings have other
seeds where the command has `--seeds`, and else the same on another machine. Of BLEU the interval is over sentences, and
the second run has a teacher of its own, of the same seed: another machine or version is enough for another teacher."""
    return ["## Run again", text, table(header, lines)]


def in_short(verdicts: Sequence[Verdict]) -> list[str]:
    """For each data set a heading and a list: what may go, what may not, by the least favourable of several rows."""
    parts = []
    for data in dict.fromkeys(verdict.data for verdict in verdicts):
        # A later one of the same name, which is less favourable, takes the earlier's place.
        worst = {verdict.reduction: verdict for verdict in in_order(verdicts) if verdict.data == data}
        items = []
        for word in WORDS:
            own = in_order(verdict for verdict in worst.values() if verdict.word == word)
            if own:
                items.append(f"- {word.capitalize()}: {'; '.join(map(briefly, own))}.")
        parts += [f"**{data}**", "\n".join(items)]
    return parts


def briefly(verdict: Verdict) -> str:
    """A reduction, what is left and what it costs."""
    elsewhere = f"; {verdict.elsewhere}" if verdict.elsewhere else ""
    left, cost = f"{100 * verdict.parameters:,.0f} %", signed(verdict.difference["mean"], 1)
    return f"{verdict.reduction} ({left}, {cost}{elsewhere})"


def what_else(sentences: Sequence[str]) -> list[str]:
    """The other findings."""
    return ["What else was found:", "\n".join(sentences)] if sentences else []


def is_current() -> bool:
    """Whether the page and its plots are what the files give."""
    text, plots = render()
    there = {path.name: path.read_text(encoding="utf-8") for path in plot_directory().glob("*.svg")}
    return (
        PAGE.exists()
        and PAGE.read_text(encoding="utf-8") == text
        and there.keys() == plots.keys()
        and all(same_drawing(there[name], plots[name]) for name in plots)
    )


def write() -> None:
    """Writes the page and its plots, each whole or not at all, and removes plots that are no longer on it."""
    text, plots = render()
    directory = plot_directory()
    directory.mkdir(parents=True, exist_ok=True)
    for path in directory.glob("*.svg"):
        if path.name not in plots:
            path.unlink()
    make_directory(directory)
    for name, svg in plots.items():
        path = directory / name
        if not path.exists() or not same_drawing(path.read_text(encoding="utf-8"), svg):
            write_atomically(path, svg)
    write_atomically(PAGE, text)


def plot_directory() -> Path:
    """Where the page's plots are."""
    return PAGE.parent / "images" / "benchmarks"


def provenance(path: Path, result: Result) -> str:
    """Where a section's figures come from."""
    date = result["date"]
    resumed = ", without what earlier calls had left in its run directory" if "runs" in result["settings"] else ""
    facts = [
        f"[{path.name}](../benchmarks/results/{path.name})",
        "date not recorded" if date is None else date.partition("T")[0],
        *([] if result["seconds"] is None else [f"took {seconds(result['seconds'])}{resumed}"]),
        "machine and versions not recorded" if result["environment"] is None else machine(result["environment"]),
    ]
    notes = list(result.get("notes", ()))
    if result["quick"]:
        notes.insert(0, "**Made with `--quick`: it shows that the command runs; its figures mean nothing.**")
    return f"```\n{result['command']}\n```\n\n" + " ".join([f"{'; '.join(facts)}.", *notes])


def machine(environment: dict[str, Any]) -> str:
    """Processor or GPU, threads, precision and versions, as far as they are known."""
    device, processor = environment.get("device", "cpu"), environment["processor"]
    parts = [processor if device == "cpu" else f"{device} ({processor})"]
    if "threads" in environment:
        parts.append(f"{environment['threads']} thread{'' if environment['threads'] == 1 else 's'}")
    if "precision" in environment:
        parts.append(environment["precision"])
    known = [f"{name} {environment[name]}" for name in ("leanformer", "torch", "transformers") if name in environment]
    return ", ".join([*parts, *known, f"Python {environment['python']}"])


def anchor(title: str) -> str:
    """What GitHub makes of a heading in links."""
    return "".join(letter for letter in title.lower().replace(" ", "-") if letter.isalnum() or letter in "-_")


def wrapped(block: str) -> str:
    """A paragraph or a list with lines of at most 120 characters; a table, a heading or a command as it is."""
    if block.startswith(("|", "#", "```", "![")):
        return block
    items = block.split("\n- ") if block.startswith("- ") else [block]
    lines = [
        textwrap.fill(
            " ".join(item.removeprefix("- ").split()),
            width=120,
            initial_indent="- " if block.startswith("- ") else "",
            subsequent_indent="  " if block.startswith("- ") else "",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for item in items
    ]
    return "\n".join(lines)

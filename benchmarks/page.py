"""docs/benchmarks.md and its plots, from the results files alone."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import NAMES
from benchmarks.drawing import draw, same_drawing
from benchmarks.room import RESULTS, Result, find, read_result, table, with_interval
from benchmarks.verdicts import MARGINS, WORDS, Verdict, in_order
from leanformer.errors import LeanformerError
from leanformer.files import write_atomically
from leanformer.report.numbers import seconds

FEW = 3
"""Reductions that are named before the rest is counted."""
EVERY = "Every reduction"
"""Heading of the table of all that was replaced or taken out."""
AGAIN = "-again"
"""Ending of a second run's file beside the first."""
PAGE = RESULTS.parents[1] / "docs" / "benchmarks.md"
INTRODUCTION = """\
`python -m benchmarks page` writes this page from the files in `benchmarks/results`: every figure measured here, those
in sentences and plots too, comes from one of them. `python -m benchmarks` lists the commands that make them anew,
from the root of the repository, in the environment that `make setup` makes; with `--quick` a command only shows, in
seconds, that it runs. What is compared with other libraries needs these: `pip install -c constraints.txt -e
'.[bench]'`. Data sets are found by their hub id, or with `--data` in a local copy. Files under
`runs/benchmarks/multi30k` are what `python -m benchmarks multi30k --sequence all-slots both-slots nothing` leaves,
those under `runs/multi30k` what `leanformer run benchmarks/multi30k.yaml` does; without an option that names such
files a command makes its own, or takes fresh models. What is compared is measured in
one run, in turn, and ratios are taken round by round: shared machines are noisy, so look at the ratios. Below the
tables of each section stand the command, the date, the machine and the versions."""


WHAT_IS_MEANT = """\
What the names mean. Of an attention `W_qk` is one matrix in place of those of queries and keys, "no W_v W_o" has
neither values nor output projection, "symmetric" stores one triangle of numbers for queries and keys ([minimal
attention](minimal-attention.md)); "no MLP" leaves the layer's MLP out. In place of an attention, "encoder self",
"decoder self" or "cross", stand: `feed_forward`, the published networks in sizes XS to L ([feed-forward
blocks](feed-forward-blocks.md)); `slots`, so many weighted sums of the sentence that a gate reads; `mixer`, weights by
position; `synthesizer`, weights that the asking token alone decides; "rank" is that of their maps ([small
blocks](small-blocks.md)). The vision transformers have d = 64, and, where nothing else is said, 6 layers, one head and
MLPs of ratio 1; the sections below have the other shapes."""


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
        own = find(result["benchmark"]).verdicts
        verdicts += [] if own is None else [verdict for verdict in own(result) if verdict.unit == "BLEU"]
    sections += run_again(files, again)
    missing = ", ".join(f"`{name}`" for name, found in files.items() if not found)
    if missing:
        sections += ["## Not measured yet", f"There is no results file of {missing}."]
    parts = [
        "# Benchmarks",
        INTRODUCTION,
        "## In plain words",
        *what_was_safe(verdicts),
        *what_else(sentences),
        *every_reduction(verdicts),
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


def what_was_safe(verdicts: Sequence[Verdict]) -> list[str]:
    """Which reductions were safe on which data, which were not, and how sure that is; nothing without any."""
    if not verdicts:
        return []
    margins = " or ".join(f"{margin:.1f} {unit}" for unit, margin in MARGINS.items())
    text = f"""\
A reduction may cost {margins} of accuracy on test data: **safe** is what costs less by the whole interval of 95 %,
**not safe** what costs more by the whole interval, and **probably** stands where the interval reaches across. In
brackets stand the parameters that are left: more than 100 % is a larger model, which may be safe and saves none. Each
reduction stands once, by the least favourable of its runs, of those held against a teacher tuned alike where it has
such. How sure that is: an interval over sentences of one teacher says nothing of other teachers, longer training may
end elsewhere, as a published replication may show, and each has its own interval, not corrected for being many, as a
study's decision is. [{EVERY}](#{anchor(EVERY)}) has the differences, and what each rests on."""
    return [in_short(verdicts), text, WHAT_IS_MEANT]


def every_reduction(verdicts: Sequence[Verdict]) -> list[str]:
    """The table of all differences; nothing without any."""
    if not verdicts:
        return []
    text = """\
What a reduction costs is its difference to the whole model, on test data: one trained from scratch as long, or the
teacher. Where the last column says "as the teacher", this was tuned as the student was; elsewhere it has not had the
training that a tuned student has beside it. Where a student was tuned in several ways, the way of the best validation
BLEU stands here, or the longest where that was not kept."""
    lines = [
        (
            verdict.word,
            verdict.data,
            verdict.reduction,
            f"{100 * verdict.parameters:,.0f} %",
            f"{with_interval(verdict.difference, 2)} {verdict.unit}",
            verdict.grounds,
        )
        for verdict in in_order(verdicts)
    ]
    header = ("", "data", "what was replaced or taken out", "parameters", "difference", "rests on")
    return [f"## {EVERY}", text, table(header, lines)]


def run_again(files: Mapping[str, Sequence[tuple[Path, Result]]], again: Sequence[tuple[Path, Result]]) -> list[str]:
    """Second runs, those of a directory of their own and others, beside the first; nothing where there are none."""
    lines = []
    # A second run that has more than the first stands above with its own tables.
    above = [
        (path, result)
        for name, found in files.items()
        for path, result in found[1:]
        if path.stem.endswith(AGAIN) and find(name).stated is not None
    ]
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
        inside = sum(first[what].holds(other[what].mean) for what in common)
        farthest = max(common, key=lambda what: abs(other[what].mean - first[what].mean))
        figure, repeated = first[farthest], other[farthest].mean
        stated = f"{farthest}: {figure.mean:.4g} ({figure.low:.4g} to {figure.high:.4g}), then {repeated:.4g}"
        date = second["date"]
        lines.append(
            (
                headings_of(files[benchmark.name])[here],
                f"{inside} of {len(common)}",
                "all are the same" if repeated == figure.mean else stated,
                "date not recorded" if date is None else date.partition("T")[0],
                f"`{second['command']}`",
            )
        )
    if not lines:
        return []
    header = ("benchmark", "figures inside", "farthest apart", "second run", "its command")
    text = """\
Figures of a second run that land inside the interval stated by the run above: of 95 % for shares and accuracies, from
the least to the largest round for ratios of times. Simulations draw the same numbers each time; trainings with other
seeds do not. Of BLEU the interval is over sentences, and the second run has a teacher of its own."""
    return ["## Run again", text, table(header, lines)]


def in_short(verdicts: Sequence[Verdict]) -> str:
    """A line for each data set: what may go, what may not, and how many more there are.

    Of what was measured against the teacher tuned alike, that alone counts; of several rows the least favourable.
    """
    held = {(verdict.data, verdict.reduction) for verdict in verdicts if verdict.controlled}
    verdicts = [verdict for verdict in verdicts if verdict.controlled or (verdict.data, verdict.reduction) not in held]
    items = []
    for data in dict.fromkeys(verdict.data for verdict in verdicts):
        # A later one of the same name, which is less favourable, takes the earlier's place.
        worst = {verdict.reduction: verdict for verdict in in_order(verdicts) if verdict.data == data}
        said = []
        for word in WORDS:
            own = in_order(verdict for verdict in worst.values() if verdict.word == word)
            names = [f"{verdict.reduction} ({100 * verdict.parameters:,.0f} %)" for verdict in own]
            if not names:
                continue
            more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
            said.append(f"{word.capitalize()}: {'; '.join(names[:FEW])}{more}.")
        items.append(f"- **{data}.** {' '.join(said)}")
    return "\n".join(items)


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

"""The ablation of "Rethinking Attention" on built-in text: which attention is replaced, by which scheme, in which size.

Runs examples/attention-ablation.yaml: number words, a small teacher, blocks of the four published schemes and sizes
(arXiv 2311.10642) as taught, without tuning. All blocks of a seed are taught in one pass of the teacher over the data.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import leanformer as lf
from benchmarks.forms import TINY_TEXT
from benchmarks.room import Benchmark, Result, add_runs, runs_of, sites_of, study_rows, table
from leanformer.core.errors import LeanformerError

STUDY = Path(__file__).parents[1] / "examples" / "attention-ablation.yaml"
SIZES = ("XS", "S", "M", "L")
PLACES = {
    "encoder": "encoder self",
    "decoder": "decoder self",
    "cross": "cross",
    "encoder-decoder": "encoder and decoder self",
    "all": "all",
    "decoder-cross": "decoder layers",
}
"""What a candidate's name begins with -> what is replaced."""
SCHEMES = ("ALR", "ASLR", "ALRR", "ELR")
KEPT = ("name", "plan", "parameters", "parameters_ratio", "quality", "difference")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--only", nargs="+", metavar="CANDIDATE", help="of the study file; by default all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--set", action="append", metavar="KEY=VALUE", default=[], help="a key of the study")
    add_runs(parser)


def measure(arguments: argparse.Namespace) -> Result:
    """The study's rows."""
    study = lf.read_study(STUDY, arguments.set).model_dump(mode="json")
    candidates = study["candidates"]
    for name in arguments.only or ():
        if name not in candidates:
            raise LeanformerError(f"--only {name}: {STUDY.name} has no such candidate; it has {', '.join(candidates)}")
    study["candidates"] = {name: candidates[name] for name in arguments.only or candidates}
    study["seeds"] = arguments.seeds
    study["measure"]["threads"] = arguments.threads
    with runs_of("attention_ablation", arguments) as runs:
        results = lf.run(study, runs).results
    rows = study_rows(results, (*KEPT, "changes"))
    for row in rows:
        row |= sites_of(row.pop("changes"))
    return {"environment": results["environment"], "study": study, "rows": rows}


def section(result: Result) -> str:
    """Places and schemes by sizes: BLEU with R², and parameters."""
    rows = {row["name"]: row for row in result["rows"]}
    teacher = rows["baseline"]
    seeds = len(result["settings"]["seeds"])
    halves = [(row["difference"]["high"] - row["difference"]["low"]) / 2 for row in rows.values() if row["difference"]]
    header = ("replaced", "scheme", *SIZES)
    return f"""\
`examples/attention-ablation.yaml`, seeds: {seeds}: number words, a teacher of d = 32 and 2 + 2 layers and
{teacher["quality"]["mean"]:.1f} BLEU, blocks as taught, without tuning. ALR replaces an attention, ASLR with a network
a head, ALRR an attention with its norm and residual, ELR a layer. BLEU on test, and in brackets R², the median of the
sites; intervals of 95 % of the difference to the teacher, over test sentences{" and seeds" if seeds > 1 else ""}, reach
{min(halves):.1f} to {max(halves):.1f} to either side. Blocks of a seed are taught at once, as many as memory holds.

{table(header, lines_of(rows, quality_and_r2))}

Parameters of the student, as a part of the teacher's:

{table(header, lines_of(rows, lambda row: f"{100 * row['parameters_ratio']:,.0f} %"))}

In the paper the encoder's attention is cheap, the decoder's follows with more units, and cross-attention is far off
at every size, so that everything at once fails with it. What takes more than the attention (ALRR, ELR) has to learn
the residual too."""


def lines_of(rows: dict[str, dict[str, Any]], shown: Callable[[dict[str, Any]], str]) -> list[tuple[str, ...]]:
    """A line for each place and scheme that was measured, with something of each size's row."""
    lines = []
    for place, words in PLACES.items():
        for scheme in SCHEMES:
            found = [rows.get(f"{place}-{scheme}-{size}") for size in SIZES]
            if any(row is not None for row in found):
                lines.append((words, scheme, *("" if row is None else shown(row) for row in found)))
    return lines


def quality_and_r2(row: dict[str, Any]) -> str:
    """Such as ``99.8 (0.97)``."""
    known = [site["r2"] for site in row["sites"] if site["r2"] is not None]
    return f"{row['quality']['mean']:.1f}" + (f" ({statistics.median(known):.2f})" if known else "")


def summary(result: Result) -> str | None:
    """The largest networks, place by place."""
    bleu: dict[str, Any] = {row["name"]: row["quality"]["mean"] for row in result["rows"]}
    places = [place for place in ("encoder", "decoder", "cross") if f"{place}-ALR-L" in bleu]
    if not places:
        return None
    said = ", ".join(f"{bleu[f'{place}-ALR-L']:.1f} for {PLACES[place]}-attention" for place in places)
    return (
        f"Published feed-forward networks of the largest size in place of one kind of attention keep this BLEU on "
        f"number words, of {bleu['baseline']:.1f}: {said}."
    )


BENCHMARK = Benchmark(
    name="attention_ablation",
    title="The paper's ablation, on built-in text",
    add_arguments=add_arguments,
    measure=measure,
    section=section,
    quick={
        "only": ["encoder-ALR-L", "cross-ALR-L"],
        "set": [*TINY_TEXT],
    },
    summary=summary,
)

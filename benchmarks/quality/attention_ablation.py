"""The ablation of "Rethinking Attention" on built-in text: which attention is replaced, by which scheme, in which size.

Runs examples/attention-ablation.yaml: number words, a small teacher, blocks of the four published schemes and sizes
(arXiv 2311.10642) as taught, without tuning. All blocks of a seed are taught in one pass of the teacher over the data.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import leanformer as lf
from benchmarks.kit.benchmark import ROOT, Benchmark, Result, add_runs, register, runs_of, sites_of, study_rows
from benchmarks.kit.forms import TINY_TEXT
from benchmarks.kit.tables import Tables, figure_table, span, table
from leanformer.core.errors import LeanformerError

STUDY = ROOT / "examples" / "attention-ablation.yaml"
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


def tables(result: Result) -> Tables:
    """Places and schemes by sizes: BLEU with R², and parameters."""
    rows = {row["name"]: row for row in result["rows"]}
    halves = [(row["difference"]["high"] - row["difference"]["low"]) / 2 for row in rows.values() if row["difference"]]
    header = ("replaced", "scheme", *SIZES)
    return {
        "quality": table(header, lines_of(rows, quality_and_r2)),
        "parameters": table(header, lines_of(rows, lambda row: f"{100 * row['parameters_ratio']:,.0f} %")),
        "figures": figure_table(
            {
                "the teacher's BLEU": f"{rows['baseline']['quality']['mean']:.1f}",
                "half of an interval of 95 %, BLEU": span(halves, ".1f"),
            }
        ),
    }


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


BENCHMARK = register(
    "quality",
    Benchmark(
        name="attention_ablation",
        add_arguments=add_arguments,
        measure=measure,
        tables=tables,
        quick={
            "only": ["encoder-ALR-L", "cross-ALR-L"],
            "set": [*TINY_TEXT],
        },
    ),
)

"""Every kind of small block at every kind of site of one translator, and cross-attention replaced in half of its heads.

The teacher, data and decoding of multi30k.yaml; all blocks are taught alike and briefly, and nothing is
tuned, so that rows compare with each other more than with that benchmark's. Which heads of a layer's cross-attention
are easy is what ``lf.inspect`` says of each: how much of it a probe like the block explains on the validation split.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import leanformer as lf
from benchmarks.kit.benchmark import Benchmark, Result, add_runs, progress, recipes, register, runs_of
from benchmarks.kit.forms import TINY_TEXT
from benchmarks.kit.tables import Tables, figure_table, table
from benchmarks.quality.multi30k import STUDY, make_row, score
from leanformer.config.base import DistillConfig
from leanformer.core.errors import LeanformerError
from leanformer.core.json_files import read_sealed

ENCODER, DECODER, CROSS = "encoder.*.self_attention", "decoder.*.self_attention", "*.cross_attention"
CROSS_SLOTS = {"block": "slots", "slots": 64, "gate": "linear", "rank": 16}
PLACES = {ENCODER: "encoder self", DECODER: "decoder self", CROSS: "cross"}
BLOCKS: dict[str, tuple[str, str, Any]] = {
    "encoder-slots-64": (ENCODER, "`slots` 64, rank 8", {"block": "slots", "slots": 64, "gate": "linear", "rank": 8}),
    "encoder-slots-16": (ENCODER, "`slots` 16, rank 8", {"block": "slots", "slots": 16, "gate": "linear", "rank": 8}),
    "encoder-linear": (ENCODER, "`linear_attention`", {"block": "linear_attention"}),
    "encoder-mixer": (ENCODER, "`mixer`", {"block": "mixer"}),
    "encoder-average": (ENCODER, "`average`", {"block": "average"}),
    "decoder-slots-32": (DECODER, "`slots` 32, rank 8", {"block": "slots", "slots": 32, "gate": "linear", "rank": 8}),
    "decoder-slots-16": (DECODER, "`slots` 16, rank 8", {"block": "slots", "slots": 16, "gate": "linear", "rank": 8}),
    "decoder-linear": (DECODER, "`linear_attention`", {"block": "linear_attention"}),
    "decoder-average": (DECODER, "`average`", {"block": "average"}),
    "cross-slots-64": (CROSS, "`slots` 64, rank 16", CROSS_SLOTS),
    "cross-linear": (CROSS, "`linear_attention`", {"block": "linear_attention"}),
    "cross-average": (CROSS, "`average`", {"block": "average"}),
}
"""Candidate -> sites, words, block."""
HALVES = {"easy": "the easier half of its heads", "hard": "the harder half of its heads"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument(
        "--data", default="bentrevett/multi30k", help="Multi30k: a hub id or a local copy in its layout"
    )
    parser.add_argument("--teach", type=int, default=2, metavar="EPOCHS", help="for which every block is taught")
    parser.add_argument("--only", nargs="+", metavar="CANDIDATE", default=[*BLOCKS, *HALVES], help="by default all")
    parser.add_argument("--inspection", type=Path, help="an inspection.json of the teacher, with the probe `block`")
    parser.add_argument("--inspect-examples", type=int, default=3000, help="sentences that its probe is taught on")
    parser.add_argument("--set", action="append", metavar="KEY=VALUE", default=[], help="a key of the study")
    add_runs(parser)


def halves(inspection: Mapping[str, Any]) -> dict[str, dict[str, list[int]]]:
    """Layer by layer the half of cross-attention's heads that the probe explains best, and the other."""
    found: dict[str, dict[str, list[int]]] = {half: {} for half in HALVES}
    for row in inspection["sites"]:
        if row["kind"] == "cross_attention":
            explained = row["r2_by_head"]["block"]
            order = sorted(range(len(explained)), key=lambda head: -explained[head])
            middle = len(order) // 2
            found["easy"][row["site"]], found["hard"][row["site"]] = sorted(order[:middle]), sorted(order[middle:])
    return found


def with_plans(study: Mapping[str, Any], plans: Mapping[str, Any]) -> dict[str, Any]:
    """The study with these candidates."""
    return {**study, "candidates": {name: {"method": "distill", "plan": plan} for name, plan in plans.items()}}


def look(study: Mapping[str, Any], plans: Mapping[str, Any], runs: Path, examples: int) -> Path:
    """Trains the teacher, with the other candidates, and looks into it."""
    lf.run(with_plans(study, plans), runs)
    progress("which heads are easy")
    model, data = runs / "trials/baseline/seed-0/model", study["data"] | {"train_limit": examples}
    return lf.inspect(model, data, runs / "inspection", {"block": CROSS_SLOTS}, DistillConfig(epochs=4), "cpu").json


def measure(arguments: argparse.Namespace) -> Result:
    """The study's rows: first without the halves, as the inspection needs the teacher, then with them."""
    overrides = [f"data.source={arguments.data}", *arguments.set, f"distill.epochs={arguments.teach}"]
    study = lf.read_study(STUDY, overrides).model_dump(mode="json")
    study["measure"]["threads"] = arguments.threads
    plans = {name: {sites: block} for name, (sites, _, block) in BLOCKS.items() if name in arguments.only}
    wanted = [half for half in HALVES if half in arguments.only]
    if unknown := set(arguments.only) - plans.keys() - set(wanted):
        raise LeanformerError(f"--only: there is no {min(unknown)!r}; there are {', '.join([*BLOCKS, *HALVES])}")
    if not plans:
        raise LeanformerError(f"--only: name a block beside {' and '.join(wanted)}, such as cross-slots-64")
    heads: dict[str, dict[str, list[int]]] = {}
    with runs_of("multi30k", arguments) as runs:
        if wanted:
            inspection = arguments.inspection or look(study, plans, runs, arguments.inspect_examples)
            heads = halves(read_sealed(inspection, "give the inspection.json of the teacher"))
            plans |= {
                half: {site: CROSS_SLOTS | {"heads": listed} for site, listed in heads[half].items()} for half in wanted
            }
        run = lf.run(with_plans(study, plans), runs)
        results = run.results
        rows = [make_row(result, run.directory) for result in recipes(results)]
    return {key: results[key] for key in ("environment", "signatures", "decode", "data", "study", "seeds")} | {
        "heads": heads,
        "rows": rows,
    }


def tables(result: Result) -> Tables:
    """Blocks by site, and which heads are the easier half."""
    rows = {row["name"]: row for row in result["rows"]}
    labels = {name: (PLACES[sites], words) for name, (sites, words, _) in BLOCKS.items()}
    labels |= {half: (PLACES[CROSS], f"`slots` 64, rank 16, for {words}") for half, words in HALVES.items()}
    lines = []
    for name, (place, words) in labels.items():
        if name not in rows:
            continue
        row = rows[name]
        known = [site["r2"] for site in row["sites"] if site["r2"] is not None]
        r2 = f"{statistics.fmean(known):.2f}" if known else ""
        lines.append((place, words, f"{row['added']:,}", f"{row['removed']:,}", r2, score(row)))
    found = {
        "blocks": table(("replaced", "by", "added", "removed", "R²", "BLEU"), lines),
        "figures": figure_table({"the teacher's BLEU on the test set": f"{rows['baseline']['quality']['mean']:.2f}"}),
    }
    if result["heads"]:
        easier = result["heads"]["easy"].items()
        listed = [(site.removesuffix(".cross_attention"), ", ".join(map(str, heads))) for site, heads in easier]
        found["easier-heads"] = table(("layer", "the easier heads"), listed)
    return found


BENCHMARK = register(
    "quality",
    Benchmark(
        name="small_blocks",
        add_arguments=add_arguments,
        measure=measure,
        tables=tables,
        quick={
            "only": ["cross-average", "easy"],
            "teach": 1,
            "inspect_examples": 20,
            "set": [*TINY_TEXT],
        },
    ),
)

"""Blocks in architectures that are found, not known: T5's and NLLB's shape (M2M100), on number words.

Of each architecture a teacher is trained from random weights, of the size of the demonstration's translator
(examples/number-words.yaml), and taught blocks stand in for the self-attention of its encoder and decoder: slots that
know no positions, slots that add them to what they read, and mixers by distance. The whole is then tuned, and so is the
teacher itself: what was tuned alike is held against each other. One seed.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import leanformer as lf
from benchmarks.kit.benchmark import ROOT, Benchmark, Result, add_runs, recipes, register, runs_of, sites_of
from benchmarks.kit.forms import NOT_MEASURED
from benchmarks.kit.tables import Tables, figure_table, table, with_interval
from benchmarks.kit.verdicts import MARGINS
from benchmarks.quality.multi30k import KEPT, bleu_difference
from leanformer.core.errors import LeanformerError
from leanformer.measure.translation import Translations

EXAMPLE = ROOT / "examples" / "number-words.yaml"
SHAPES: dict[str, dict[str, Any]] = {
    "t5": {
        "d_model": 64,
        "d_kv": 16,
        "d_ff": 256,
        "num_layers": 3,  # transformers writes with no more layers in the decoder than in the encoder
        "num_decoder_layers": 3,
        "num_heads": 4,
        "dropout_rate": 0.0,
    },
    "m2m_100": {
        "d_model": 64,
        "encoder_layers": 2,
        "decoder_layers": 3,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 256,
        "decoder_ffn_dim": 256,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "encoder_layerdrop": 0.0,
        "decoder_layerdrop": 0.0,
        "init_std": 0.06,
    },
}
"""Model type -> the configuration of its teacher."""
LABELS = {"t5": "T5", "m2m_100": "NLLB (M2M100)"}
CONTROL = "nothing"
"""The candidate that is tuned and nothing else."""
SLOTS = {"block": "slots", "slots": 16, "gate": "linear", "rank": 8}
STUDENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "slots": ("`slots` 16, rank 8", {**SLOTS, "positions": "none"}),
    "placed": ("`slots` 16, rank 8, positions", {**SLOTS, "positions": "sinusoidal"}),
    "mixer": ("`mixer`", {"block": "mixer"}),
}
"""Candidate -> in words what stands in for self-attention, and its entry in the plan."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--only", nargs="+", metavar="SHAPE", default=list(SHAPES), help="by default all")
    parser.add_argument("--train", type=int, default=4000, metavar="PAIRS", help="numbers to learn from")
    parser.add_argument("--test", type=int, default=1000, metavar="PAIRS", help="numbers to translate")
    parser.add_argument("--epochs", type=int, default=5, help="of each teacher's training")
    parser.add_argument("--teach", type=int, default=2, metavar="EPOCHS", help="of the blocks")
    parser.add_argument("--tune", type=int, default=2, metavar="EPOCHS", help="of the student, and of the control")
    add_runs(parser)


def make_study(shape: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """The study of one architecture."""
    study = lf.read_study(EXAMPLE, ["ship=null"]).model_dump(mode="json")
    finetune = {"epochs": arguments.tune, "learning_rate": 1e-3, "targets": "data"}
    plans: dict[str, Any] = {CONTROL: {}}
    plans |= {name: {"*.self_attention": block} for name, (_, block) in STUDENTS.items()}
    study["name"] = f"architectures-{shape}"
    study["data"]["numbers"] |= {"train": arguments.train, "test": arguments.test}
    study["baseline"] = {"model": shape, "config": SHAPES[shape]}
    study["candidates"] = {
        name: {"method": "distill", "plan": plan, "finetune": finetune} for name, plan in plans.items()
    }
    study["train"] |= {"epochs": arguments.epochs, "learning_rate": [3e-3], "search_epochs": None}
    study["distill"]["epochs"] = arguments.teach
    study["measure"] |= {**NOT_MEASURED, "threads": arguments.threads}
    return study


def measure(arguments: argparse.Namespace) -> Result:
    """The rows of each architecture."""
    unknown = [name for name in arguments.only if name not in SHAPES]
    if unknown:
        raise LeanformerError(f"--only: there is no shape {unknown[0]!r}; there are {', '.join(SHAPES)}")
    rows = []
    with runs_of("architectures", arguments) as runs:
        for shape in arguments.only:
            run = lf.run(make_study(shape, arguments), runs / shape)
            rows += [
                {
                    "shape": shape,
                    **{key: row[key] for key in KEPT},
                    **sites_of(row["changes"]),
                    "against_control": _against_control(row["name"], run.results, runs / shape),
                }
                for row in recipes(run.results)
            ]
        results = run.results
    return {key: results[key] for key in ("signatures", "decode", "seeds")} | {"rows": rows}


def _against_control(name: str, results: dict[str, Any], run: Path) -> dict[str, float] | None:
    """The student's difference to the teacher that was tuned as it was, with its interval."""
    if name not in STUDENTS:
        return None
    theirs, own = (
        [Translations.read(run / f"trials/{who}/seed-{seed}/predictions.parquet") for seed in results["seeds"]]
        for who in (CONTROL, name)
    )
    return bleu_difference(theirs, own, results)


def tables(result: Result) -> Tables:
    """Teacher, control and student of each architecture."""
    rows = {(row["shape"], row["name"]): row for row in result["rows"]}
    lines: list[tuple[str, ...]] = []
    behind: dict[str, dict[str, float]] = {}
    for shape, name in ((shape, name) for shape in LABELS for name in STUDENTS if (shape, name) in rows):
        teacher, control, student = (rows[shape, one] for one in ("baseline", CONTROL, name))
        behind[f"{LABELS[shape]}, {STUDENTS[name][0]}"] = student["against_control"]
        lines.append(
            (
                LABELS[shape],
                STUDENTS[name][0],
                f"{teacher['parameters']:,}",
                f"{student['parameters']:,}",
                f"{statistics.fmean(site['r2'] for site in student['sites']):.2f}",
                *(f"{row['quality']['mean']:.2f}" for row in (teacher, control, student)),
                with_interval(student["against_control"], 2),
            )
        )
    head = ("architecture", "by", "parameters", "left", "R²", "teacher", "tuned on", "student", "to tuned on")
    margin = MARGINS["BLEU"]
    best = {
        label: max(
            (difference for name, difference in behind.items() if name.startswith(f"{label}, ")),
            key=lambda difference: difference["mean"],
        )
        for label in LABELS.values()
        if any(name.startswith(f"{label}, ") for name in behind)
    }
    figures: dict[str, object] = {
        f"architectures with a student within {margin} BLEU of their teacher tuned alike": sum(
            difference["mean"] >= -margin for difference in best.values()
        ),
        "architectures": len(best),
        "the worst of their best students": with_interval(
            min(best.values(), key=lambda difference: difference["mean"]), 2
        ),
    }
    return {"students": table(head, lines), "figures": figure_table(figures)}


BENCHMARK = register(
    "quality",
    Benchmark(
        name="architectures",
        add_arguments=add_arguments,
        measure=measure,
        tables=tables,
        quick={"train": 60, "test": 8, "epochs": 1, "teach": 1, "tune": 1},
    ),
)

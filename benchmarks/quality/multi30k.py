"""Multi30k German to English: what each block in place of attention costs in BLEU, without and with tuning the whole.

Runs multi30k.yaml, a study of leanformer's own (one seed: it speaks of one trained teacher), and keeps its
rows. Every candidate, or those named with ``--tune``, is run a second time with an epoch of tuning the whole student,
those named with ``--longer`` a third time with four, and those named with ``--sequence`` with four on the teacher's own
translations. ``nothing`` is the control: the teacher with as much tuning, that what was tuned alike is held against.
What is there already is not run again. ``--jobs 2`` teaches and tunes in two processes; on a GPU, which one training
leaves idle, more.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import leanformer as lf
from benchmarks.kit.again import Figures
from benchmarks.kit.benchmark import Benchmark, Result, add_runs, recipes, register, runs_of, sites_of
from benchmarks.kit.forms import TINY_TEXT
from benchmarks.kit.interval import Interval
from benchmarks.kit.plots import Differences
from benchmarks.kit.tables import Tables, figure_table, span, table, with_interval
from benchmarks.kit.verdicts import MARGINS, Verdict
from leanformer.core.errors import LeanformerError
from leanformer.core.json_files import read_sealed
from leanformer.decide.corpus import compare_corpus
from leanformer.measure.translation import Translations
from leanformer.results.formats import change
from leanformer.results.metrics import METRICS

Rows = Mapping[str, Mapping[str, Any]]
"""Name of a candidate -> what is kept of it."""

STUDY = Path(__file__).with_suffix(".yaml")
TUNING = {"epochs": 1, "learning_rate": 5e-4, "cross_entropy": 1.0, "logits": 1.0, "targets": "data"}
LONGER = {**TUNING, "epochs": 4, "learning_rate": 1e-3}
SEQUENCE = {**LONGER, "targets": "teacher"}
KEPT = (
    "name",
    "method",
    "plan",
    "parameters",
    "parameters_ratio",
    "quality",
    "scores",
    "difference",
    "train_seconds",
    "decoding",
)
CONTROL = "nothing"
"""The candidate that is tuned and nothing else."""
LABELS = {
    "baseline": "nothing (the teacher)",
    "encoder-XS": "encoder self, `feed_forward` XS",
    "encoder-S": "encoder self, `feed_forward` S",
    "encoder-M": "encoder self, `feed_forward` M",
    "encoder-L": "encoder self, `feed_forward` L",
    "encoder-ASLR-XS": "encoder self, `feed_forward` XS, a network a head (ASLR)",
    "encoder-ALRR-S": "encoder self with norm and residual (ALRR), `feed_forward` S",
    "encoder-ALRR-M": "encoder self with norm and residual (ALRR), `feed_forward` M",
    "encoder-ELR-S": "encoder layers (ELR), `feed_forward` S",
    "encoder-ELR-M": "encoder layers (ELR), `feed_forward` M",
    "encoder-mixer": "encoder self, `mixer`, `positions: absolute`",
    "encoder-slots": "encoder self, `slots` 64, rank 8",
    "decoder-50": "decoder self, `feed_forward` S (hidden 50)",
    "decoder-800": "decoder self, `feed_forward` M (hidden 800)",
    "both-M": "encoder and decoder self, `feed_forward` M",
    "both-slots": "encoder `slots` 64, decoder `slots` 32, rank 8",
    "cross-XS": "cross, `feed_forward` XS",
    "cross-S": "cross, `feed_forward` S",
    "cross-M": "cross, `feed_forward` M",
    "cross-sum-50": "cross, `feed_forward`, token alone, hidden 50",
    "cross-sum-800": "cross, `feed_forward`, token alone, hidden 800",
    "cross-gate-800": "cross, `feed_forward`, hidden 800 and a gate",
    "cross-synthesizer": "cross, `synthesizer`",
    "cross-synthesizer-linear": "cross, `synthesizer`, source score linear",
    "cross-synthesizer-network": "cross, `synthesizer`, source score network",
    "cross-slots-16": "cross, `slots` 16, network gate",
    "cross-slots-64": "cross, `slots` 64, network gate",
    "cross-slots-64-lean": "cross, `slots` 64, linear gate, rank 16",
    "all-slots": "all attention: encoder `slots` 64, decoder 32, rank 8; cross 64, rank 16",
}
"""Candidate -> what is replaced in all three layers, in the table's order."""
WHOLE = "all attention, by `slots`"
"""The last of these where the lines before it are not beside it."""
ENDINGS = {
    "": "as taught",
    "-tuned": "one epoch, 5e-4",
    "-tuned-longer": "four epochs, 1e-3",
    "-sequence": "four epochs on the teacher's own translations",
}
"""Ending of a candidate's name -> how it was tuned."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument(
        "--data", default="bentrevett/multi30k", help="Multi30k: a hub id or a local copy in its layout"
    )
    parser.add_argument("--only", nargs="+", metavar="CANDIDATE", help="of multi30k.yaml; by default all")
    parser.add_argument("--tune", nargs="*", metavar="CANDIDATE", help="by default all, with nothing behind it none")
    parser.add_argument("--longer", nargs="*", metavar="CANDIDATE", default=["both-slots", "all-slots", CONTROL])
    parser.add_argument("--sequence", nargs="*", metavar="CANDIDATE", default=["all-slots", CONTROL])
    parser.add_argument("--set", action="append", metavar="KEY=VALUE", default=[], help="a key of the study")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time (default 1)")
    add_runs(parser)


def make_study(arguments: argparse.Namespace) -> dict[str, Any]:
    """The study with its tuned candidates."""
    study = lf.read_study(STUDY, [f"data.source={arguments.data}", *arguments.set]).model_dump(mode="json")
    study["measure"]["threads"] = arguments.threads
    candidates = study["candidates"]
    chosen = list(candidates) if arguments.only is None else arguments.only
    tuned = {
        "-tuned": (TUNING, chosen if arguments.tune is None else arguments.tune),
        "-tuned-longer": (LONGER, arguments.longer),
        "-sequence": (SEQUENCE, arguments.sequence),
    }
    for name in (*chosen, *(name for _, names in tuned.values() for name in names)):
        if name not in candidates:
            raise LeanformerError(f"{STUDY.name} has no candidate {name!r}; it has {', '.join(candidates)}")
    study["candidates"] = {name: candidates[name] for name in chosen if name != CONTROL} | {
        f"{name}{ending}": candidates[name] | {"finetune": finetune}
        for ending, (finetune, names) in tuned.items()
        for name in names
    }
    return study


def make_row(result: Mapping[str, Any], run: Path) -> dict[str, Any]:
    """What is kept of a candidate."""
    trials = [
        read_sealed(file, "delete it and run again")
        for file in sorted((run / "trials" / result["name"]).glob("seed-*/result.json"))
    ]
    return {key: result[key] for key in KEPT} | {
        "validation_bleu": statistics.fmean(trial["validation"]["validation_bleu"] for trial in trials),
        **sites_of(result["changes"]),
    }


def against_control(name: str, results: Mapping[str, Any], run: Path) -> dict[str, float] | None:
    """The difference to the teacher that was tuned as a student was, with its interval.

    Args:
        name: The student.
        results: Of the study.
        run: Its directory.

    Returns:
        ``mean``, ``low`` and ``high``; None where the student was not tuned, or the study has no teacher tuned so.
    """
    ending = next((ending for ending in ENDINGS if ending and name.endswith(ending)), "")
    control = f"{CONTROL}{ending}"
    ok = [row["name"] for row in results["candidates"] if row["status"] == "ok"]
    if not ending or name == control or not {name, control} <= set(ok):
        return None
    theirs, own = (
        [Translations.read(run / f"trials/{who}/seed-{seed}/predictions.parquet") for seed in results["seeds"]]
        for who in (control, name)
    )
    return bleu_difference(theirs, own, results)


def bleu_difference(
    theirs: Sequence[Translations], own: Sequence[Translations], results: Mapping[str, Any]
) -> dict[str, float]:
    """How much better a model is than another on the test split, with its interval, as the study's settings say.

    Args:
        theirs: The other's answers, an entry per seed.
        own: The model's.
        results: Of the study.

    Returns:
        ``mean``, ``low`` and ``high``.
    """
    comparison = compare_corpus(
        [answers.statistics("bleu") for answers in theirs],
        [answers.statistics("bleu") for answers in own],
        METRICS["bleu"].score,
        results["accept"]["max_drop"],
        results["accept"]["confidence"],
    )
    return asdict(comparison.difference)


def measure(arguments: argparse.Namespace) -> Result:
    """The study's rows."""
    study = make_study(arguments)
    languages = (study["data"]["source_language"], study["data"]["target_language"])
    # Other benchmarks find the teacher from German to English under the first of these names.
    name = "multi30k" if languages == ("de", "en") else f"multi30k-{'-'.join(languages)}"
    with runs_of(name, arguments) as runs:
        run = lf.run(study, runs, jobs=arguments.jobs)
        results = run.results
        rows = [
            make_row(result, run.directory) | {"against_control": against_control(result["name"], results, runs)}
            for result in recipes(results)
        ]
    return {key: results[key] for key in ("environment", "signatures", "decode", "data", "study", "seeds")} | {
        "rows": rows
    }


def score(row: Mapping[str, Any] | None) -> str:
    """BLEU, and the difference to the teacher with its interval."""
    if row is None:
        return ""
    difference = with_interval(row["difference"], 2)
    return f"{row['quality']['mean']:.2f}" + (f", {difference}" if difference else "")


def tables(result: Result) -> Tables:
    """Every block as taught and tuned, what further tuning does, what writing costs, and single figures."""
    rows = {row["name"]: row for row in result["rows"]}
    found = {"blocks": blocks(rows), "figures": figure_table(facts(result, rows))}
    ways = [
        (words, f"{name}{ending}", how)
        for words, name in (
            ("nothing: the teacher itself", CONTROL),
            ("encoder and decoder self", "both-slots"),
            ("all attention", "all-slots"),
        )
        for ending, how in ENDINGS.items()
        if f"{name}{ending}" in rows
    ]
    if len(ways) > 1:
        found["further-tuning"] = further_tuning(rows, ways)
    counted = {name: row for name, row in rows.items() if row.get("decoding") and name in LABELS}
    if len(counted) > 1:
        found["writing"] = writing(counted)
    return found


def blocks(rows: Rows) -> str:
    """Every block as taught, and after an epoch of tuning."""
    timed = any(row["sites"] and row["train_seconds"] is not None for row in rows.values())
    controlled = any(row.get("against_control") and name.endswith("-tuned") for name, row in rows.items())
    lines = []
    for name, label in LABELS.items():
        if name not in rows:
            continue
        row, tuned = rows[name], rows.get(f"{CONTROL if name == 'baseline' else name}-tuned")
        seconds = row["train_seconds"] if row["sites"] else None
        known = [site["r2"] for site in row["sites"] if site["r2"] is not None]
        lines.append(
            (
                label,
                *(parameters_of(row) if row["sites"] else ("", "", "", "")),
                r2_of(known),
                *(["" if seconds is None else f"{seconds:,.0f}"] if timed else []),
                score(row),
                score(tuned),
                *([with_interval((tuned or {}).get("against_control"), 2)] if controlled else []),
            )
        )
    header = (
        "replaced in all layers",
        *("added", "removed", "net", "added to removed"),
        "R² of each layer",
        *(("teaching, s",) * timed),
        *("as taught", "tuned, one epoch"),
        *(("to the teacher tuned",) * controlled),
    )
    return table(header, lines)


def parameters_of(row: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Parameters in all layers together: put in, taken out, the one less the other, and their ratio."""
    added, removed = row["added"], row["removed"]
    return f"{added:,}", f"{removed:,}", change(added - removed), f"{added / removed:,.2f} x"


def facts(result: Result, rows: Rows) -> dict[str, str]:
    """The data, and what an epoch of tuning gives far from the teacher and near to it."""
    data, study = result["data"], result["study"]
    found = {
        "sentences to learn from, to validate and to test": (
            f"{data['train']:,} / {data['validation']:,} / {data['test']:,}"
        ),
        "epochs of the teacher, and of teaching": f"{study['train']['epochs']} and {study['distill']['epochs']}",
        "batches, subwords": f"{study['train']['batch_tokens']:,}",
        "rate of teaching": f"{study['distill']['learning_rate']:g}",
        "beam": str(result["decode"]["beam"]),
    }
    gains = {
        name: rows[f"{name}-tuned"]["difference"]["mean"] - row["difference"]["mean"]
        for name, row in rows.items()
        if row["difference"] and f"{name}-tuned" in rows
    }
    far = [gain for name, gain in gains.items() if rows[name]["difference"]["mean"] < -10]
    near = [gain for name, gain in gains.items() if rows[name]["difference"]["mean"] > -1]
    if far:
        found["an epoch of tuning gives students more than 10 BLEU off"] = span(far)
    if near:
        found["an epoch of tuning gives students within 1 BLEU"] = span(near)
    if any(row.get("decoding") for row in rows.values()):
        usual = next(row["decoding"] for row in rows.values() if row.get("decoding"))
        longest = usual["longest"]
        found["median length, subwords in and out"] = f"{usual['source_tokens']} and {usual['target_tokens']}"
        found["longest, subwords in and out"] = f"{longest['source_tokens']} and {longest['target_tokens']}"
    return found


def stated(result: Result) -> Figures:
    """Every student's difference to its teacher."""
    return {
        f"{row['name']}, BLEU less its teacher's": Interval.of(row["difference"])
        for row in result["rows"]
        if row["difference"]
    }


def plot(result: Result) -> Differences | None:
    """Every student's difference to its teacher, as taught and as far as it was tuned."""
    rows = {row["name"]: row for row in result["rows"]}
    drawn = {}
    for name, label in LABELS.items():
        own = {
            how: Interval.of(rows[f"{name}{ending}"]["difference"])
            for ending, how in ENDINGS.items()
            if name != "baseline" and f"{name}{ending}" in rows
        }
        if own:
            drawn[WHOLE if name == "all-slots" else label] = own
    return Differences(drawn, tuple(ENDINGS.values()), "BLEU", MARGINS["BLEU"], linear=5.0) if drawn else None


def r2_of(values: Sequence[float]) -> str:
    """Layer by layer; of more than one kind of attention, which the sites alone have, the mean."""
    if len(values) > 3:
        return f"{statistics.fmean(values):.2f} in the mean"
    return " / ".join(f"{value:.2f}" for value in values)


def further_tuning(rows: Rows, ways: list[tuple[str, str, str]]) -> str:
    """The table of the students with slots that were tuned longer."""
    controlled = any(rows[name].get("against_control") for _, name, _ in ways)
    lines = [
        (
            words,
            how,
            change(rows[name]["added"] - rows[name]["removed"]),
            f"{rows[name]['validation_bleu']:.2f}" if "validation_bleu" in rows[name] else "",
            score(rows[name]),
            *([with_interval(rows[name].get("against_control"), 2)] if controlled else []),
        )
        for words, name, how in ways
    ]
    control = ("less the teacher tuned alike",) if controlled else ()
    header = ("replaced", "tuned", "net parameters", "validation BLEU, greedy", "test BLEU, to the teacher", *control)
    return table(header, lines)


def writing(rows: Rows) -> str:
    """The table of what a token costs, counted."""
    costs = {name: row["decoding"] for name, row in rows.items()}
    lines = [
        (
            LABELS[name],
            f"{cost['flops_per_token']:,}",
            f"{cost['flops_per_source']:,}",
            f"{cost['state_bytes']:,}",
            f"{cost['longest']['state_bytes']:,}",
        )
        for name, cost in costs.items()
    ]
    header = ("replaced in all layers", "operations a subword", "of the source", "state, median", "longest")
    return table(header, lines)


def best_tuned(name: str, rows: Rows) -> str | None:
    """How a candidate was tuned best, a key of ``ENDINGS``: by validation BLEU, where that was not kept the longest."""
    there = [ending for ending in ENDINGS if f"{name}{ending}" in rows]
    if all("validation_bleu" in rows[f"{name}{ending}"] for ending in there):
        return max(there, key=lambda ending: rows[f"{name}{ending}"]["validation_bleu"], default=None)
    return there[-1]


def direction(result: Result) -> str:
    """``de to en``."""
    return f"{result['data']['source_language']} to {result['data']['target_language']}"


def teacher(result: Result) -> str:
    """Which one, by its BLEU."""
    row = next(row for row in result["rows"] if row["name"] == "baseline")
    return f"teacher ({row['quality']['mean']:.1f} BLEU)"


def verdicts(result: Result) -> list[Verdict]:
    """Of each candidate, as it was tuned best."""
    rows = {row["name"]: row for row in result["rows"]}
    found = []
    for name, label in LABELS.items():
        ending = best_tuned(name, rows)
        if name == "baseline" or ending is None:
            continue
        row = rows[f"{name}{ending}"]
        control = row.get("against_control")
        tuned = ENDINGS[ending] if ending else "not tuned"
        found.append(
            Verdict(
                f"Multi30k, {direction(result)}",
                WHOLE if name == "all-slots" else label,
                row["parameters_ratio"],
                control or row["difference"],
                "BLEU",
                f"one {teacher(result)}, {tuned}{', as the teacher' * bool(control)}",
            )
        )
    return found


BENCHMARK = register(
    "quality",
    Benchmark(
        name="multi30k",
        add_arguments=add_arguments,
        measure=measure,
        tables=tables,
        quick={
            "only": ["encoder-slots"],
            "tune": [],
            "longer": ["all-slots", CONTROL],
            "sequence": [],
            "set": [*TINY_TEXT],
        },
        verdicts=verdicts,
        plot=plot,
        stated=stated,
    ),
)

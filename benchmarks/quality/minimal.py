"""The papers' tables of minimal attention, on MNIST and CIFAR-10, and the best small forms within the same budgets.

Three groups of rows on each data set, all trained from scratch with d=64:

- table: 6 and 12 layers, 1 and 4 heads, with and without MLP (of ratio 4), as in arXiv 2410.13732;
- forms: the rows of a public replication of it (6 layers, an MLP of ratio 1; 100 epochs), with its figures beside ours;
- best: our small forms that have no more parameters than the smallest of those (31,500 and 40,650).

Rows of one shape are one study of leanformer's own: each finds its rate in the same list on validation data, is trained
with every seed and judged on the test split, and what is finished is kept in ``--runs`` so that a run that was cut off
goes on. On a CPU the tables have one epoch, which says little of where a form ends, and the best forms a few, which
takes about two and a half hours on two cores, a process each: ``--data-cifar10 none`` beside ``--data-mnist none``, and
a third command with both that gathers the rows.

On a GPU ``--side-by-side 10`` trains all rates and seeds of a form as one batched model, a step one CUDA graph, and ten
forms at a time: 15 and 19 epochs of all rows took eight minutes of an H100. Rates are then chosen by all seeds at the
end. ``--stacked K`` measures besides what training K seeds of a form so gains.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import leanformer as lf
from benchmarks.kit.again import Figures
from benchmarks.kit.benchmark import Benchmark, Result, add_runs, progress, register, runs_of, study_rows
from benchmarks.kit.interval import Interval
from benchmarks.kit.plots import Panel, Panels, Points
from benchmarks.kit.tables import Tables, figure_table, table, with_interval
from benchmarks.kit.verdicts import Verdict
from benchmarks.quality.minimal_rows import (
    COLLAPSED,
    DATA,
    EXTREME,
    GROUPS,
    RATES,
    ROWS,
    SIDE_BY_SIDE_EPOCHS,
    SIDE_BY_SIDE_RATES,
    STUDIES,
    SYMMETRIC,
    VALIDATION,
    Row,
    by_study,
    epochs_of,
    rates_of,
    source_of,
)
from benchmarks.quality.minimal_stacked import (
    TENSOR_FLOAT,
    figures_of,
    latencies,
    load_data,
    measure_stacked,
    tensor_float,
    train_rows,
)
from leanformer.core.errors import LeanformerError
from leanformer.core.machine import environment, pick_device
from leanformer.learn.step import settle_precision

PUBLISHED_EPOCHS = 100
LEARNED_EPOCHS = 15
"""Fewer say nothing of what a form learns: after one epoch those are level that are up to eight points apart later."""
SMALLEST = ("collapsed-no-values-1-head", "grid")
"""With attention and without: what the gain of stacked training is measured on, if ``--rows`` does not say."""


def rates_in_words(of_groups: Mapping[str, Sequence[float]]) -> str:
    """``table 0.003 0.01; forms ...``"""
    return "; ".join(f"{group} {' '.join(f'{rate:g}' for rate in rates)}" for group, rates in of_groups.items())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--data-mnist", default="ylecun/mnist", help="a hub id, a local copy in its layout, digits")
    parser.add_argument("--data-cifar10", default="uoft-cs/cifar10", help="likewise; 'none' leaves a data set out")
    parser.add_argument("--only", choices=(*GROUPS, "stacked"), help="this group of rows; by default all but stacked")
    names = list(dict.fromkeys(row.name for row in ROWS))
    parser.add_argument(
        "--rows",
        nargs="+",
        choices=names,
        metavar="NAME",
        help=f"these alone, beside the first of their shape: {', '.join(names)}",
    )
    epochs = ", ".join(f"{images.epochs} on {images.title}" for images in DATA.values())
    beside = " and ".join(f"{count} on {DATA[data].title}" for data, count in SIDE_BY_SIDE_EPOCHS.items())
    parser.add_argument(
        "--epochs",
        type=int,
        help=f"of all groups; by default 1, of the best forms {epochs}; with --side-by-side {beside}",
    )
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument(
        "--learning-rates",
        type=float,
        nargs="+",
        help=f"searched for each form; by default {rates_in_words(RATES)}; with --side-by-side "
        f"{rates_in_words(SIDE_BY_SIDE_RATES)}",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--train-limit", type=int, help="training images; by default all")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument(
        "--stacked",
        type=int,
        default=0,
        metavar="K",
        help=f"also measures training K seeds as one batched model, on {' and '.join(SMALLEST)} or on --rows",
    )
    parser.add_argument(
        "--side-by-side",
        type=int,
        default=0,
        metavar="N",
        help="trains all rates and seeds of a form as one batched model, and N forms at a time, instead of as studies: "
        "for a GPU, where each step is a CUDA graph",
    )
    parser.add_argument("--rounds", type=int, default=5, help="of that measurement")
    add_runs(parser)


def chosen_rows(arguments: argparse.Namespace, groups: Sequence[str]) -> list[Row]:
    """The rows of some groups that are asked for.

    Raises:
        LeanformerError: There are none.
    """
    rows = [
        row
        for row in ROWS
        if row.group in groups
        and source_of(row.data, arguments) != "none"
        and (arguments.rows is None or row.name in arguments.rows)
    ]
    if not rows:
        raise LeanformerError("--only, --rows and the data sets leave no row: a row is in one group")
    return rows


def with_references(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Study -> the rows that it trains: those given, its first, and its second where the first stands alone."""
    found = {}
    for study, given in by_study(rows).items():
        own = STUDIES[study]
        wanted = own[:2] if given == own[:1] else [own[0], *given]
        found[study] = [row for row in own if row in wanted]
    return found


def run_study(rows: Sequence[Row], arguments: argparse.Namespace, runs: Path) -> dict[str, Any]:
    """Trains the rows of one shape; gives the content of ``results.json``."""
    reference, *others = rows
    epochs = epochs_of(reference, arguments)
    model = runs / f"{reference.study}-reference"
    lf.save(reference.model(), model)
    study = {
        "name": reference.study,
        "data": {
            "source": source_of(reference.data, arguments),
            "validation_fraction": VALIDATION,
            "augment": list(reference.augment),
            "train_limit": arguments.train_limit,
        },
        "baseline": {"model": str(model), "fresh": True},
        "candidates": {row.name: {"plan": row.plan} for row in others},
        "train": {
            "epochs": epochs,
            "batch_size": arguments.batch_size,
            "learning_rate": rates_of(reference, arguments),
            "search_epochs": max(1, epochs // 10) if epochs > 1 else None,
        },
        "seeds": arguments.seeds,
        "measure": {"threads": arguments.threads, "device": arguments.device, "repeats": 3, "latency_calls": 20},
    }
    return lf.run(study, runs / reference.study).results


KEPT = (
    "status",
    "parameters",
    "q_ratio",
    "flops_per_example",
    "learning_rate",
    "learning_rate_search",
    "quality",
    "difference",
    "train_seconds",
    "train_examples_per_second",
    "latency_ms",
    "throughput_per_second",
    "failures",
    "rollbacks",
    "curves",
)


def described(row: Row, epochs: int, rates: Sequence[float], figures: Mapping[str, Any]) -> dict[str, Any]:
    """A row as the results file has it: which form it is, how it was trained, and what came of it.

    Args:
        row: Which.
        epochs: Of its training.
        rates: That were searched.
        figures: The rest.
    """
    return {
        "data": row.data,
        "group": row.group,
        "study": row.study,
        "name": row.name,
        "says": dict(row.says),
        "published": None if row.published is None else asdict(row.published),
        "epochs": epochs,
        "rates": list(rates),
        **figures,
    }


def study_of(rows: Sequence[Row], arguments: argparse.Namespace, runs: Path) -> tuple[dict[str, Any], list[Any]]:
    """Trains the rows of one shape as a study; gives the data and the rows as the results file has them."""
    found = run_study(rows, arguments, runs)
    trained = found["study"]["train"]
    described_rows = []
    for row, figures in zip(rows, study_rows(found, KEPT), strict=True):
        curves = figures.pop("curves")
        last = [curve["epochs"][-1]["validation_accuracy"] for curve in curves if curve["epochs"]]
        figures["validation_accuracy"] = last
        described_rows.append(described(row, trained["epochs"], trained["learning_rate"], figures))
    return {key: found["data"][key] for key in ("source", "train", "test")}, described_rows


def stacked_of(
    rows: Sequence[Row], arguments: argparse.Namespace, device: torch.device, runs: Path
) -> tuple[dict[str, Any], list[Any]]:
    """Trains the rows of one data set as batched models; otherwise as ``study_of``."""
    data = load_data(rows[0].data, arguments, device)
    trained = train_rows(rows, data, arguments, device, runs)
    latency = latencies(rows)
    first = {study: own[0] for study, own in by_study(rows).items()}
    described_rows = []
    for row in rows:
        reference = None if first[row.study] is row else trained[first[row.study].key]
        figures = figures_of(row, trained[row.key], reference, len(data.train), arguments)
        figures["latency_ms"] = latency[row.key]
        described_rows.append(described(row, epochs_of(row, arguments), rates_of(row, arguments), figures))
    source = source_of(rows[0].data, arguments)
    return {"source": source, "train": len(data.train), "test": len(data.test)}, described_rows


def measure(arguments: argparse.Namespace) -> Result:
    """Trains the rows, and measures what stacked training gains where that is asked for."""
    for name in ("stacked", "side_by_side"):
        if getattr(arguments, name) < 0:
            option = name.replace("_", "-")
            raise LeanformerError(f"--{option} {getattr(arguments, name)}: must be 0 or more")
    alone = arguments.only == "stacked"
    if alone and not arguments.stacked:
        raise LeanformerError("--only stacked: say how many seeds with --stacked K, such as --stacked 8")
    if arguments.side_by_side:
        for option in ("epochs", "batch_size"):
            if getattr(arguments, option) is not None and getattr(arguments, option) < 1:
                raise LeanformerError(f"--{option.replace('_', '-')} {getattr(arguments, option)}: must be at least 1")
    device = pick_device(arguments.device)
    stacked_on_gpu = device.type == "cuda" and (arguments.side_by_side > 0 or alone)
    precision = TENSOR_FLOAT if stacked_on_gpu else settle_precision("auto", device)
    result: Result = {"environment": environment(device, precision), "data": {}, "rows": []}
    if not alone:
        studies = with_references(chosen_rows(arguments, (arguments.only,) if arguments.only else GROUPS))
        with runs_of("minimal", arguments) as runs:
            if arguments.side_by_side:
                for data in DATA:
                    rows = [row for own in studies.values() for row in own if row.data == data]
                    if rows:
                        with tensor_float():
                            result["data"][data], own = stacked_of(rows, arguments, device, runs / "stacked")
                        result["rows"] += own
            else:
                for number, (study, rows) in enumerate(studies.items(), start=1):
                    progress(f"study {number} of {len(studies)}: {study}, {len(rows)} forms")
                    result["data"][rows[0].data], own = study_of(rows, arguments, runs)
                    result["rows"] += own
    if arguments.stacked:
        rows = [row for row in chosen_rows(arguments, GROUPS) if arguments.rows or row.name in SMALLEST]
        with tensor_float():
            result["stacked"] = measure_stacked(rows, arguments, device)
    return result


HEADER = (
    "parameters",
    "Q",
    "test accuracy, %",
    "difference",
    "rate",
    "million operations",
    "training, s",
    "latency, ms",
)


def cells(row: Mapping[str, Any]) -> list[str]:
    """What ``HEADER`` names."""
    if row["status"] == "ok":
        mean, low, high = (f"{100 * row['quality'][key]:.2f}" for key in ("mean", "low", "high"))
        accuracy, difference = f"{mean} ({low} to {high})", with_interval(row["difference"], 2, 100)
        costs = [f"{row['train_seconds']:,.0f}", f"{row['latency_ms']['p50']:.2f}"]
    else:
        accuracy, difference, costs = f"failed: {row['failures'][0]['reason']}", "", ["", ""]
    return [
        f"{row['parameters']:,}",
        f"{row['q_ratio']:,.1f}",
        accuracy,
        difference,
        f"{row['learning_rate']:g}",
        f"{row['flops_per_example'] / 1e6:.2f}",
        *costs,
    ]


def published_cells(row: Mapping[str, Any]) -> list[str]:
    """Parameters and accuracy of the replication."""
    published = row["published"]
    if published is None:
        return ["", ""]
    note = f" ({published['note']})" if published["note"] else ""
    return [f"{published['parameters']:,}", f"{published['accuracy']:.2f}{note}"]


TITLES = {"table": "Depth, heads and MLP", "forms": "Forms of the attention", "best": "The best small forms"}


def tables(result: Result) -> Tables:
    """A table for each group and data set, and one of stacked training."""
    rows = result["rows"]
    found = {}
    for group in GROUPS:
        for data in DATA:
            own = [row for row in rows if (row["group"], row["data"]) == (group, data)]
            if own:
                found[f"{group}-{data}"] = table_of(own)
    if result.get("stacked"):
        found["stacked"] = stacked_table(result["stacked"])
    if rows:
        found["figures"] = figure_table(
            {**images_of(result), **effort(result), **beside_published(rows), **best_forms(rows)}
        )
    return found


def images_of(result: Result) -> dict[str, str]:
    """How many images of each data set are trained on."""
    taken = result["data"].items()
    return {f"{DATA[data].title}: training images": f"{counted['train']:,}" for data, counted in taken}


def effort(result: Result) -> dict[str, object]:
    """How much was trained, how long it took, and what failed."""
    rows, seeds = result["rows"], len(result["settings"]["seeds"])
    names = [f"{row['data']} {row['name']}" for row in rows if row["status"] != "ok"]
    failed = {"rows whose training failed": ", ".join(names) or "none"}
    if not result["settings"].get("side_by_side"):
        return {
            "training the rows with all seeds, searches not counted": f"{hours(rows, seeds):.1f} hours",
            "returns to an earlier state after a loss that was not finite": sum(len(row["rollbacks"]) for row in rows),
            **failed,
        }
    trainings = [len(row["rates"]) * seeds for row in rows]
    seconds = sum(row["train_seconds"] * count for row, count in zip(rows, trainings, strict=True))
    diverged = sum(entry["diverged"] for row in rows for entry in row["learning_rate_search"])
    return {
        "trainings, of all rates and seeds": sum(trainings),
        "all trainings together": f"{seconds / 60:.1f} minutes",
        "trainings that diverged": diverged,
        **failed,
    }


def beside_published(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """How many rows are below the replication's."""
    found = {}
    for data, images in DATA.items():
        pairs = [
            (row, row["published"]["accuracy"])
            for row in rows
            if row["data"] == data and row["status"] == "ok" and row["published"]
        ]
        if pairs:
            below = sum(100 * row["quality"]["mean"] < accuracy for row, accuracy in pairs)
            found[f"{images.title}: rows less accurate than the replication's"] = f"{below} of {len(pairs)}"
    return found


def best_forms(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What the small form of the best validation accuracy reaches on each data set."""
    found = {}
    for data, images in DATA.items():
        best = best_of([row for row in rows if (row["group"], row["data"]) == ("best", data)])
        if best is not None:
            reached = f"{100 * best['quality']['mean']:.2f} % with {best['parameters']:,}"
            found[f"{images.title}: the best small form by validation, test accuracy and parameters"] = reached
            found[f"{images.title}: the goal, and the parameters allowed"] = (
                f"{100 * images.goal:g} % with {images.budget:,}"
            )
    return found


def plot(result: Result) -> Panels | None:
    """Accuracy against parameters on each data set."""
    drawn = []
    for data, images in DATA.items():
        rows = [row for row in result["rows"] if row["data"] == data and row["status"] == "ok"]
        points = {}
        for group in GROUPS:
            own = [row for row in rows if row["group"] == group]
            quality = {end: [100 * row["quality"][end] for row in own] for end in ("mean", "low", "high")}
            if own:
                name = f"{TITLES[group]}, epochs: {own[0]['epochs']}"
                sizes = [row["parameters"] for row in own]
                points[name] = Points(sizes, quality["mean"], quality["low"], quality["high"], joined=False)
        others = [row["published"] for row in rows if row["published"]]
        if others:
            points[f"published replication, epochs: {PUBLISHED_EPOCHS}"] = Points(
                [row["parameters"] for row in others], [row["accuracy"] for row in others], joined=False, hollow=True
            )
        if points:
            drawn.append(Panel(images.title, "parameters", "accuracy, %", points, log_y=False))
    return Panels(drawn) if drawn else None


def best_of(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The row of the best validation accuracy; the test split stays a judge."""
    good = [row for row in rows if row["status"] == "ok" and row["validation_accuracy"]]
    return max(good, key=lambda row: statistics.fmean(row["validation_accuracy"]), default=None)


def table_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """One group's table."""
    published = any(row["published"] for row in rows)
    lines = []
    for row in rows:
        lines.append([*row["says"].values(), *(published_cells(row) if published else ()), *cells(row)])
    own = ("published parameters", "published, %") if published else ()
    return table((*rows[0]["says"], *own, *HEADER), lines)


def hours(rows: Sequence[Mapping[str, Any]], seeds: int) -> float:
    """Of all seeds' training; a row's seconds are a seed's."""
    return seeds * sum(row["train_seconds"] or 0.0 for row in rows) / 3600


WAYS = {
    "in turn": "in turn",
    "stacked": "stacked",
    "as a graph": "stacked, a step one CUDA graph",
}
"""How training several seeds was measured -> its words."""


def stacked_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The gain of training all seeds at once."""
    ways = [way for way in WAYS if way in rows[0]["images_per_second"]]
    lines = [
        (
            DATA[row["data"]].title,
            row["name"],
            f"{row['parameters']:,}",
            row["seeds"],
            row["batch_size"],
            *(f"{row['images_per_second'][way]:,.0f}" for way in ways),
            *(f"{row['gains'][way]:.2f}" for way in ways[1:]),
        )
        for row in rows
    ]
    speeds = [f"{WAYS[way]}, images/s" for way in ways]
    gains = [f"gain, {WAYS[way]}" for way in ways[1:]]
    return table(("data", "form", "parameters", "seeds", "batch a seed", *speeds, *gains), lines)


IN_WORDS = {
    COLLAPSED: "one matrix for queries and keys",
    EXTREME: "one matrix for queries and keys, no values and output projection",
    SYMMETRIC: "symmetric queries and keys",
}
"""A form of the replication -> what is left out in it."""


def verdicts(result: Result) -> list[Verdict]:
    """Of what stands beside a whole model with as many heads, the first row of its study."""
    found = []
    for study in dict.fromkeys(row["study"] for row in result["rows"]):
        rows = [row for row in result["rows"] if row["study"] == study]
        whole = rows[0]
        for row in rows[1:]:
            # Of the best small forms all but this are not reduced from the first, they are others.
            unlike = row["says"].get("heads") != whole["says"].get("heads") or row["name"].startswith("grid")
            if row["difference"] is None or unlike or row["epochs"] < LEARNED_EPOCHS or len(row["rates"]) < 2:
                continue  # what is best with another rate is not the worse form
            what = [IN_WORDS.get(row["says"].get("form"), ""), "" if row["says"]["MLP"] == "yes" else "no MLP"]
            group = {
                "table": f"{row['says'].get('layers')} layers, MLP of ratio 4: ",
                "forms": "",
                "best": f"the small form of {whole['parameters']:,} parameters: ",
            }
            seeds = len(row["quality"]["per_seed"])
            elsewhere = ""
            if row["published"] and whole["published"]:
                gap = row["published"]["accuracy"] - whole["published"]["accuracy"]
                elsewhere = f"a replication, {PUBLISHED_EPOCHS} epochs: {row['published']['note'] or f'{gap:+.1f}'}"
            found.append(
                Verdict(
                    f"{DATA[row['data']].title}, {row['epochs']} epochs",
                    group[row["group"]] + ", ".join(filter(None, what)),
                    row["parameters"] / whole["parameters"],
                    {key: 100 * row["difference"][key] for key in ("mean", "low", "high")},
                    "points",
                    f"{seeds} seed{'s' * (seeds > 1)} from scratch, the whole model at "
                    f"{100 * whole['quality']['mean']:.1f} %",
                    elsewhere,
                )
            )
    return found


def stated(result: Result) -> Figures:
    """Every form's accuracy."""
    return {
        f"{DATA[row['data']].title}, {row['name']}": Interval.of(row["quality"])
        for row in result["rows"]
        if row["status"] == "ok"
    }


BENCHMARK = register(
    "quality",
    Benchmark(
        name="minimal",
        add_arguments=add_arguments,
        measure=measure,
        tables=tables,
        quick={
            "data_mnist": "digits",
            "data_cifar10": "none",
            "rows": ["attention", "attention-no-mlp"],
            "epochs": 1,
            "seeds": [0, 1],
            "train_limit": 128,
            "batch_size": 32,
            "device": "cpu",
            "stacked": 2,
            "rounds": 1,
        },
        verdicts=verdicts,
        plot=plot,
        stated=stated,
    ),
)

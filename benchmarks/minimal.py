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
from benchmarks.again import Figures
from benchmarks.interval import Interval
from benchmarks.minimal_rows import (
    COLLAPSED,
    DATA,
    EXTREME,
    GROUPS,
    RATES,
    REPLICATION,
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
from benchmarks.minimal_stacked import (
    TENSOR_FLOAT,
    figures_of,
    latencies,
    load_data,
    measure_stacked,
    tensor_float,
    train_rows,
)
from benchmarks.plots import Panel, Panels, Points
from benchmarks.room import Benchmark, Result, add_runs, progress, runs_of, span, study_rows, table, with_interval
from benchmarks.verdicts import Verdict
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
            # Of a single epoch the search's winner is the first seed's training.
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
INTRODUCTIONS = {
    "table": "Depth, heads and MLP, as in arXiv 2410.13732: d = 64, separate matrices, an MLP of ratio 4. The "
    "replication whose figures stand beside the forms below has six layers and an MLP of ratio 1 or none: of these "
    "rows, those of 6 layers without MLP, which stand there too.",
    "forms": "The rows of a public replication: 6 layers, an MLP of ratio 1; its validation accuracy (100 epochs, Adam "
    "at 1e-3) beside our test accuracy. With an MLP the counts are equal. Without one ours have 768 fewer: the norm "
    "before an MLP goes with it. Symmetric scores take one triangle of 64 x 64 and a bias a layer here, 2,144 numbers; "
    "there 2,080 with one head, and with four heads a triangle of 16 x 16 a head, 544.",
    "best": "Our small forms, trained with {augment}. The mixer takes the same of a patch's neighbours in every image "
    "and has neither values nor an output projection: a convolution of each channel by itself.",
}


def section(result: Result) -> str:
    """A table for each group and data set, and one of stacked training."""
    settings, rows = result["settings"], result["rows"]
    parts = []
    if rows:
        seeds = len(settings["seeds"])
        chance = "Means over seeds, with intervals of 95 % over seeds and test images"
        parts.append(
            f"Trained from scratch with {seeds} seed{'s' * (seeds > 1)}, d = 64, pooling by mean, batches of "
            f"{settings['batch_size']}, cosine schedule, for each form the best of the rates given on "
            f"{100 * VALIDATION:g} % of the training images. "
            f"{chance if seeds > 1 else 'Intervals of 95 % are over test images alone'}; the difference is to the "
            "first row of the same shape. Q is the number of outputs that the training data prescribe for each "
            f"parameter. {failures(result)} {costs_of(result)}"
        )
    for group in GROUPS:
        for data, images in DATA.items():
            own = [row for row in rows if (row["group"], row["data"]) == (group, data)]
            if own:
                parts += [f"#### {TITLES[group]}: {images.title}", text_of(own, result), table_of(own)]
    if result.get("stacked"):
        parts += ["#### All seeds as one batched model", stacked_section(result)]
    return "\n\n".join(parts)


def costs_of(result: Result) -> str:
    """How long it took, and what the times in the tables are."""
    rows, settings = result["rows"], result["settings"]
    seeds = len(settings["seeds"])
    if not settings.get("side_by_side"):
        return (
            f"Training the rows with all seeds took {hours(rows, seeds):.1f} hours, searches not counted; the command "
            "below may be the last of several that went on in the same run directories. Times and latencies were taken "
            "while other work ran beside them: the operations of one image compare better."
        )
    trainings = [len(row["rates"]) * seeds for row in rows]
    seconds = sum(row["train_seconds"] * count for row, count in zip(rows, trainings, strict=True))
    machine = result["environment"]
    graph = "" if machine["device"] == "cpu" else " whose training step is one CUDA graph"
    return (
        f"All {sum(trainings)} trainings together took {seconds / 60:.1f} minutes on {machine['device']} in "
        f"{machine['precision']}: all rates and seeds of a form are one batched model{graph}, and several forms train "
        "side by side, of whose time each training is given an even share in the tables. What is left of an epoch "
        "after its last whole batch is not seen. Rates are chosen by all seeds, at the end of the training; rows with "
        "one rate had no choice. Latencies are of one image on one thread of that machine's CPU, measured in turn, "
        "beside other work: the operations of one image compare better."
    )


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
    return Panels("Accuracy against parameters of every form, with intervals of 95 %", drawn) if drawn else None


def text_of(rows: Sequence[Mapping[str, Any]], result: Result) -> str:
    """What stands above the table of a group on one data set."""
    group, data = rows[0]["group"], rows[0]["data"]
    images, taken = DATA[data], result["data"][data]
    text = INTRODUCTIONS[group].format(augment=" and ".join(images.augment).replace("_", " "))
    text += f" Training images: {taken['train']:,} of `{Path(taken['source']).name}`; epochs: {rows[0]['epochs']}; "
    text += f"rates: {', '.join(f'{rate:g}' for rate in rows[0]['rates'])}."
    if below := below_published(rows):
        text += f" {below}"
    best = best_of(rows)
    if group == "best" and best is not None:
        reached = "reached" if best["quality"]["mean"] >= images.goal else "not reached"
        text += (
            f" At most {images.budget:,} parameters, as the replication's smallest form; by validation accuracy the "
            f"best has {best['parameters']:,} and {100 * best['quality']['mean']:.2f} %. The goal of "
            f"{100 * images.goal:g} % is {reached}."
        )
    return text


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


def below_published(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many rows are below the replication's; nothing where it has none of them."""
    pairs = [(row, row["published"]["accuracy"]) for row in rows if row["status"] == "ok" and row["published"]]
    if not pairs:
        return ""
    below = sum(100 * row["quality"]["mean"] < accuracy for row, accuracy in pairs)
    epochs = pairs[0][0]["epochs"]
    return (
        f"Of {len(pairs)} rows that the replication has, {below} are less accurate here, after {epochs} epoch"
        f"{'s' * (epochs > 1)} in place of {PUBLISHED_EPOCHS}."
    )


def hours(rows: Sequence[Mapping[str, Any]], seeds: int) -> float:
    """Of all seeds' training; a row's seconds are a seed's."""
    return seeds * sum(row["train_seconds"] or 0.0 for row in rows) / 3600


def failures(result: Result) -> str:
    """Whether a training diverged."""
    rows = result["rows"]
    failed = [f"{row['data']} {row['name']}" for row in rows if row["status"] != "ok"]
    text = f"Failed: {', '.join(failed)}." if failed else "No training diverged."
    if result["settings"].get("side_by_side"):
        diverged = sum(entry["diverged"] for row in rows for entry in row["learning_rate_search"])
        return f"{diverged} trainings diverged, of all rates. {text}" if diverged else text
    back = sum(len(row["rollbacks"]) for row in rows)
    return f"{text} Returns to an earlier state after a loss that was not finite: {back}."


WAYS = {
    "in turn": "in turn",
    "stacked": "stacked",
    "as a graph": "stacked, a step one CUDA graph",
}
"""How training several seeds was measured -> its words."""


def stacked_section(result: Result) -> str:
    """The gain of training all seeds at once."""
    rows = result["stacked"]
    ways = [way for way in WAYS if way in rows[0]["images_per_second"]]
    lines = [
        (
            DATA[row["data"]].title,
            row["name"],
            f"{row['parameters']:,}",
            *(f"{row['images_per_second'][way]:,.0f}" for way in ways),
            *(f"{row['gains'][way]:.2f}" for way in ways[1:]),
        )
        for row in rows
    ]
    speeds = [f"{WAYS[way]}, images/s" for way in ways]
    header = ("data", "form", "parameters", *speeds, *(f"gain, {WAYS[way]}" for way in ways[1:]))
    settings, machine = result["settings"], result["environment"]
    return f"""\
Training steps of {rows[0]["seeds"]} seeds as one batched model, against the same steps in turn, on {machine["device"]}
in {rows[0]["precision"]}; batches of {rows[0]["batch_size"]} a seed, data included; {settings["rounds"]} rounds in
turn, medians.

{table(header, lines)}"""


def summary(result: Result) -> str | None:
    """What the best small forms reach, beside the replication's smallest; None without them."""
    sentences = []
    for data, images in DATA.items():
        best = best_of([row for row in result["rows"] if (row["group"], row["data"]) == ("best", data)])
        if best is not None:
            extreme = next(p[data] for heads, mlp, form, p in REPLICATION if (form, mlp) == (EXTREME, False))
            says = best["says"]
            sentences.append(
                f"{100 * best['quality']['mean']:.2f} % on {images.title} with {best['parameters']:,} parameters and "
                f"{best['epochs']} epochs ({says['tokens are mixed by']}, MLP: {says['MLP']}, patches of "
                f"{says['patch']}, augmented images; a published replication's minimal attention without MLP: "
                f"{extreme.accuracy:.2f} % with {extreme.parameters:,} and {PUBLISHED_EPOCHS})"
            )
    if not sentences:
        return None
    text = f"Trained from scratch, small forms of a vision transformer reach {' and '.join(sentences)}."
    for data, images in DATA.items():
        if below := below_published([row for row in result["rows"] if row["data"] == data]):
            text += f" {images.title}: {below[0].lower()}{below[1:]}"
    if rows := result.get("stacked"):
        one = rows[0]
        gains = {way: span([row["gains"][way] for row in rows], ".1f") for way in one["gains"]}
        text += (
            f" On {result['environment']['device']} {one['seeds']} seeds as one batched model train "
            f"{gains['stacked']} times as fast as one after the other"
        )
        if "as a graph" in gains:
            text += f", and with its step as one CUDA graph, which theirs are not, {gains['as a graph']} times"
        text += f" ({', '.join(row['name'] for row in rows)}; {DATA[one['data']].title})."
    return text


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


BENCHMARK = Benchmark(
    name="minimal",
    title="Minimal attention from scratch",
    add_arguments=add_arguments,
    measure=measure,
    section=section,
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
    summary=summary,
    verdicts=verdicts,
    plot=plot,
    stated=stated,
)

"""The papers' tables of minimal attention, on MNIST and CIFAR-10, and the best small forms within the same budgets.

Three groups of rows on each data set, all trained from scratch with d=64:

- table: 6 and 12 layers, 1 and 4 heads, with and without MLP (of ratio 4), as in arXiv 2410.13732;
- forms: the rows of a public replication of it (6 layers, an MLP of ratio 1; 100 epochs), with its figures beside ours;
- best: our small forms that have no more parameters than the smallest of those (31,500 and 40,650).

Rows of one shape are one study of leanformer's own: each finds its rate in the same list on validation data, is trained
with every seed and judged on the test split, and what is finished is kept in ``--runs`` so that a run that was cut off
goes on. Without ``--epochs`` there is one, and of the best forms a few, which takes about two and a half hours on two
cores, a process each: ``--data-cifar10 none`` beside ``--data-mnist none``, and a third command with both that gathers
the rows. So short a training does not show where a form ends; ``--epochs 100`` on a GPU is the published one.
``--stacked K`` measures besides what training K seeds of a form as one batched model gains.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

import leanformer as lf
from benchmarks.again import Figures
from benchmarks.forms import BEST_SMALL, GRID, Form, plan_of, shallower, vit_config
from benchmarks.interval import Interval
from benchmarks.measuring import in_turn, median_ratio
from benchmarks.plots import Panel, Panels, Points
from benchmarks.room import Benchmark, Result, add_runs, progress, runs_of, study_rows, table, with_interval
from benchmarks.stacked import StackedStep
from benchmarks.verdicts import Verdict
from leanformer.config import ImageDataConfig, ImageTrainConfig
from leanformer.data.batches import ImageBatches
from leanformer.data.images import ImageData, load_images
from leanformer.errors import LeanformerError
from leanformer.learn.train import TrainingStep, make_accelerator, settle_precision
from leanformer.machine import environment, pick_device
from leanformer.model.baseline import fresh_model
from leanformer.model.surgery import parameter_count

Plan = dict[str, Any]
GROUPS = ("table", "forms", "best")
EPOCHS = {"table": 1, "forms": 1}
"""Without ``--epochs``; of the best forms each data set has its own."""
RATES = {"table": [3e-3, 1e-2], "forms": [3e-3, 1e-2], "best": [1e-2, 2e-2]}
"""Without ``--learning-rates``."""
PUBLISHED_EPOCHS = 100
LEARNED_EPOCHS = 15
"""From here on a difference says where two forms end: after one epoch forms are level that the replication finds 3 to
21 points apart."""
VALIDATION = 0.05
"""Part of the training images that rates are chosen on."""


@dataclass(frozen=True)
class Images:
    """A data set: its shape, and how the best forms are trained and how many parameters they may have."""

    title: str
    pixels: int
    channels: int
    patch: int
    augment: tuple[str, ...]
    epochs: int
    budget: int
    goal: float


DATA = {
    "mnist": Images("MNIST", 28, 1, 7, ("random_crop",), 5, 31_500, 0.985),
    "cifar10": Images("CIFAR-10", 32, 3, 8, ("horizontal_flip",), 10, 40_650, 0.66),
}


@dataclass(frozen=True)
class Published:
    """A row of the replication: parameters, and validation accuracy in percent."""

    parameters: int
    accuracy: float
    note: str = ""


@dataclass(frozen=True)
class Row:
    """One form on one data set.

    Args:
        data: Key of ``DATA``.
        group: One of ``GROUPS``.
        name: What ``--rows`` and the run directory call it.
        says: Column -> cell of the group's table.
        plan: What makes it of the ViT that ``config`` describes.
        layers: Of that ViT.
        patch: Pixels a side, of that ViT.
        published: The replication's figures.
    """

    data: str
    group: str
    name: str
    says: Mapping[str, str]
    plan: Plan
    patch: int
    layers: int = 6
    published: Published | None = None

    @property
    def study(self) -> str:
        """The study that it belongs to, with the other rows of this shape."""
        return f"{self.data}-{self.group}-{self.layers}-layers-patch-{self.patch}"

    @property
    def augment(self) -> tuple[str, ...]:
        """Augmentation of its training images."""
        return DATA[self.data].augment if self.group == "best" else ()

    def config(self) -> dict[str, Any]:
        """The configuration of the ViT."""
        images = DATA[self.data]
        config = vit_config(layers=self.layers, patch=self.patch, pixels=images.pixels)
        return {**config, "num_channels": images.channels}

    def model(self) -> PreTrainedModel:
        """The form with random weights, from PyTorch's global generator."""
        return lf.reduce(fresh_model("vit", self.config()), self.plan)


def form_of(qk: str, vo: str, heads: int) -> Form:
    """A form with biases, as the replication's, that pools by mean."""
    return {"qk": qk, "vo": vo, "heads": heads, "bias": True, "pooling": "mean"}


def heads_and_mlp(heads: int, mlp: bool) -> tuple[str, dict[str, str]]:
    """The end of a row's name, and its cells."""
    name = f"{heads}-head{'s' * (heads > 1)}{'-mlp' * mlp}"
    return name, {"heads": str(heads), "MLP": "yes" if mlp else "no"}


def table_rows(data: str) -> Iterable[Row]:
    """Depth, heads and MLP; what comes first at a depth is its reference."""
    for layers in (6, 12):
        for mlp in (True, False):
            for heads in (1, 4):
                name, cells = heads_and_mlp(heads, mlp)
                plan = plan_of(form_of("separate", "separate", heads)) | ({} if mlp else {"*.mlp": "none"})
                says = {"layers": str(layers), **cells}
                yield Row(data, "table", f"{layers}-layers-{name}", says, plan, DATA[data].patch, layers)


UNCHANGED, COLLAPSED, EXTREME, SYMMETRIC = "unchanged", "W_qk", "W_qk, no W_v W_o", "symmetric"
MATRICES = {
    UNCHANGED: ("separate", "separate"),
    COLLAPSED: ("collapsed", "separate"),
    EXTREME: ("collapsed", "none"),
    SYMMETRIC: ("symmetric", "separate"),
}
"""A form's name -> ``qk`` and ``vo`` of minimal_attention."""
NAMES = {UNCHANGED: "unchanged", COLLAPSED: "collapsed", EXTREME: "collapsed-no-values", SYMMETRIC: "symmetric"}
DIVERGED = "diverged"
REPLICATION: tuple[tuple[int, bool, str, dict[str, Published]], ...] = (
    (1, True, UNCHANGED, {"mnist": Published(156_298, 98.33), "cifar10": Published(165_450, 68.19)}),
    (4, True, UNCHANGED, {"mnist": Published(156_298, 98.73), "cifar10": Published(165_450, 67.72)}),
    (1, True, COLLAPSED, {"mnist": Published(131_338, 98.39)}),
    (1, True, EXTREME, {"mnist": Published(81_418, 98.22), "cifar10": Published(90_570, 65.14)}),
    (1, False, UNCHANGED, {"mnist": Published(106_378, 97.55), "cifar10": Published(115_530, 57.08)}),
    (4, False, UNCHANGED, {"mnist": Published(106_378, 98.24), "cifar10": Published(115_530, 61.37)}),
    (1, False, SYMMETRIC, {"mnist": Published(68_938, 82.02), "cifar10": Published(78_090, 9.84, DIVERGED)}),
    (4, False, SYMMETRIC, {"mnist": Published(59_722, 97.49), "cifar10": Published(68_874, 46.84)}),
    (1, False, COLLAPSED, {"mnist": Published(81_418, 97.69), "cifar10": Published(90_570, 56.19)}),
    (1, False, EXTREME, {"mnist": Published(31_498, 94.45), "cifar10": Published(40_650, 47.44)}),
)
"""Heads, MLP, form -> figures of a public replication: 100 epochs, d=64, 6 layers, patch 7 and 8, Adam at 1e-3."""


def form_rows(data: str) -> Iterable[Row]:
    """The replication's rows."""
    for heads, mlp, form, published in REPLICATION:
        qk, vo = MATRICES[form]
        name, cells = heads_and_mlp(heads, mlp)
        plan = {**plan_of(form_of(qk, vo, heads)), "*.mlp": {"block": "mlp", "hidden": 64} if mlp else "none"}
        says = {**cells, "form": form}
        yield Row(data, "forms", f"{NAMES[form]}-{name}", says, plan, DATA[data].patch, published=published.get(data))


ATTENTION: Plan = plan_of(BEST_SMALL)
MIXER: Plan = {"*.self_attention": GRID, "pooling": "mean"}
BEST: dict[str, tuple[tuple[str, int, int, int | None, Plan], ...]] = {
    "mnist": (
        ("grid", 4, 5, 24, MIXER),
        ("grid-3-layers", 4, 3, 50, MIXER),
        ("attention", 7, 6, 15, ATTENTION),
        ("attention-no-mlp", 7, 6, None, ATTENTION),
    ),
    "cifar10": (
        ("grid", 4, 5, 32, MIXER),
        ("grid-3-layers", 4, 3, 66, MIXER),
        ("attention", 8, 6, 14, ATTENTION),
        ("attention-no-mlp", 8, 6, None, ATTENTION),
    ),
}
"""Name, patch, layers, channels of the MLP, and the plan but for that."""


def best_rows(data: str) -> Iterable[Row]:
    """Our small forms."""
    mixer = "a mixer of 5 x 5 patches"
    attention = "attention: symmetric, 4 channel groups, a diagonal value"
    for name, patch, layers, hidden, plan in BEST[data]:
        says = {
            "patch": str(patch),
            "layers": str(layers),
            "tokens are mixed by": mixer if plan is MIXER else attention,
            "MLP": str(hidden or "none"),
        }
        whole = {**plan, "*.mlp": {"block": "mlp", "hidden": hidden} if hidden else "none", **shallower(layers)}
        yield Row(data, "best", name, says, whole, patch)


ROWS = tuple(row for data in DATA for rows in (table_rows, form_rows, best_rows) for row in rows(data))


def by_study(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows of one shape together, in their order."""
    studies: dict[str, list[Row]] = {}
    for row in rows:
        studies.setdefault(row.study, []).append(row)
    return studies


STUDIES = by_study(ROWS)
"""Study -> its rows; the first is its baseline, with which the others are compared."""


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
    parser.add_argument("--epochs", type=int, help=f"of all groups; by default 1, of the best forms {epochs}")
    parser.add_argument("--batch-size", type=int, default=128)
    rates = "; ".join(f"{group} {' '.join(f'{rate:g}' for rate in rates)}" for group, rates in RATES.items())
    parser.add_argument("--learning-rates", type=float, nargs="+", help=f"searched for each form; by default {rates}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--train-limit", type=int, help="training images; by default all")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument(
        "--stacked",
        type=int,
        default=0,
        metavar="K",
        help="also measures training K seeds as one batched model, on the best rows or on --rows",
    )
    parser.add_argument("--rounds", type=int, default=5, help="of that measurement")
    add_runs(parser)


def source_of(data: str, arguments: argparse.Namespace) -> str:
    """Where a data set comes from."""
    source: str = getattr(arguments, f"data_{data}")
    return source


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
    epochs = arguments.epochs
    if epochs is None:
        epochs = EPOCHS.get(reference.group, DATA[reference.data].epochs)
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
            "learning_rate": arguments.learning_rates or RATES[reference.group],
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


def described(row: Row, trained: Mapping[str, Any], figures: dict[str, Any]) -> dict[str, Any]:
    """A study's row as the results file has it: which form it is, how it was trained, and of its curves the ends."""
    curves = figures.pop("curves")
    return {
        "data": row.data,
        "group": row.group,
        "study": row.study,
        "name": row.name,
        "says": dict(row.says),
        "published": None if row.published is None else asdict(row.published),
        "epochs": trained["epochs"],
        "rates": trained["learning_rate"],
        **figures,
        "validation_accuracy": [curve["epochs"][-1]["validation_accuracy"] for curve in curves if curve["epochs"]],
    }


def measure(arguments: argparse.Namespace) -> Result:
    """Trains the rows, one study after the other, and measures stacked training where that is asked for."""
    if arguments.stacked < 0:
        raise LeanformerError(f"--stacked {arguments.stacked}: must be 0 or more")
    alone = arguments.only == "stacked"
    if alone and not arguments.stacked:
        raise LeanformerError("--only stacked: say how many seeds with --stacked K, such as --stacked 8")
    device = pick_device(arguments.device)
    result: Result = {"environment": environment(device, settle_precision("auto", device)), "data": {}, "rows": []}
    if not alone:
        studies = with_references(chosen_rows(arguments, (arguments.only,) if arguments.only else GROUPS))
        with runs_of("minimal", arguments) as runs:
            for number, (study, rows) in enumerate(studies.items(), start=1):
                progress(f"study {number} of {len(studies)}: {study}, {len(rows)} forms")
                found = run_study(rows, arguments, runs)
                result["data"][rows[0].data] = {key: found["data"][key] for key in ("source", "train", "test")}
                own = study_rows(found, KEPT)
                trained = found["study"]["train"]
                result["rows"] += [described(row, trained, figures) for row, figures in zip(rows, own, strict=True)]
    if arguments.stacked:
        rows = chosen_rows(arguments, GROUPS if arguments.rows else ("best",))
        result["stacked"] = measure_stacked(rows, arguments, device)
    return result


STEPS = 20
"""Training steps of a model and round where stacked training is measured."""


def speed_stacked(step: StackedStep, batches: ImageBatches, seeds: int) -> float:
    """Images a second of all models trained as one, data included."""
    images = 0
    started = time.perf_counter()
    streams = [batches.training(seed, epoch=0) for seed in range(seeds)]
    for own in islice(zip(*streams, strict=True), STEPS):
        losses = step(own)
        images += sum(len(batch["labels"]) for batch in own)
    losses.sum().item()  # waits for the device
    return images / (time.perf_counter() - started)


def speed_in_turn(steps: Sequence[TrainingStep], batches: ImageBatches) -> float:
    """Images a second of the same models trained one after the other on the same batches."""
    images = 0
    started = time.perf_counter()
    for seed, step in enumerate(steps):
        for batch in islice(batches.training(seed, epoch=0), STEPS):
            loss = step(batch)
            images += len(batch["labels"])
        loss.item()
    return images / (time.perf_counter() - started)


def measure_stacked(rows: Sequence[Row], arguments: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """What training all seeds of a form as one batched model gains."""
    config = ImageTrainConfig(batch_size=arguments.batch_size)
    precision = settle_precision(config.precision, device)
    accelerator = make_accelerator(precision, device)
    rate = (arguments.learning_rates or RATES["best"])[0]
    loaded: dict[str, ImageData] = {}
    found = []
    for row in rows:
        images = DATA[row.data]
        if row.data not in loaded:
            source = ImageDataConfig(
                source=source_of(row.data, arguments),
                validation_fraction=VALIDATION,
                train_limit=arguments.train_limit,
            )
            loaded[row.data] = load_images(source, device, (images.pixels, images.pixels), images.channels)
        data = loaded[row.data]
        batches = ImageBatches(data, arguments.batch_size, row.augment, data.mean, data.std)
        models = [row.model().to(device).train() for _ in range(arguments.stacked)]
        stacked = StackedStep(models, config, rate, precision)
        single = [TrainingStep(model, config, rate, accelerator) for model in models]
        speeds = in_turn(
            {
                "stacked": partial(speed_stacked, stacked, batches, len(models)),
                "in turn": partial(speed_in_turn, single, batches),
            },
            arguments.rounds,
        )
        for step in single:
            step.close()
        found.append(
            {
                "data": row.data,
                "group": row.group,
                "name": row.name,
                "parameters": parameter_count(models[0]),
                "seeds": len(models),
                "images_per_second": {name: statistics.median(own) for name, own in speeds.items()},
                "gain": median_ratio(speeds["stacked"], speeds["in turn"]),
                "rounds": speeds,
            }
        )
        progress(f"stacked {row.data} {row.name}: {found[-1]['gain']:.2f} times as fast as in turn")
    return found


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
    "table": "Depth, heads and MLP, as in arXiv 2410.13732: d = 64, separate matrices, an MLP of ratio 4.",
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
            f"parameter. {failures(rows)} Training the rows with all seeds took {hours(rows, seeds):.1f} hours, "
            "searches not counted; the command below may be the last of several that went on in the same run "
            "directories. Times and latencies were taken while other work ran beside them, and of one model in two "
            "tables they are up to twice apart: the operations of one image compare better."
        )
    for group in GROUPS:
        for data, images in DATA.items():
            own = [row for row in rows if (row["group"], row["data"]) == (group, data)]
            if own:
                parts += [f"### {TITLES[group]}: {images.title}", text_of(own, result), table_of(own)]
    if result.get("stacked"):
        parts += ["### All seeds as one batched model", stacked_section(result)]
    return "\n\n".join(parts)


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


def hours(rows: Sequence[Mapping[str, Any]], seeds: int) -> float:
    """Of all seeds' training; a row's seconds are a seed's."""
    return seeds * sum(row["train_seconds"] or 0.0 for row in rows) / 3600


def failures(rows: Sequence[Mapping[str, Any]]) -> str:
    """Whether a training diverged."""
    failed = [f"{row['data']} {row['name']}" for row in rows if row["status"] != "ok"]
    back = sum(len(row["rollbacks"]) for row in rows)
    text = f"Failed: {', '.join(failed)}." if failed else "No training diverged."
    return f"{text} Returns to an earlier state after a loss that was not finite: {back}."


def stacked_section(result: Result) -> str:
    """The gain of training all seeds at once."""
    rows = result["stacked"]
    lines = [
        (
            DATA[row["data"]].title,
            row["name"],
            f"{row['parameters']:,}",
            f"{row['images_per_second']['in turn']:,.0f}",
            f"{row['images_per_second']['stacked']:,.0f}",
            f"{row['gain']:.2f}",
        )
        for row in rows
    ]
    header = ("data", "form", "parameters", "in turn, images/s", "stacked, images/s", "gain")
    settings, machine = result["settings"], result["environment"]
    return f"""\
Training steps of {rows[0]["seeds"]} seeds as one batched model, against the same steps in turn, on {machine["device"]}
in {machine["precision"]}; batches of {settings["batch_size"]} a seed, data included; {settings["rounds"]} rounds in
turn, medians.

{table(header, lines)}"""


def summary(result: Result) -> str | None:
    """What the best small forms reach, beside the replication's smallest; None without them."""
    sentences = []
    for data, images in DATA.items():
        best = best_of([row for row in result["rows"] if (row["group"], row["data"]) == ("best", data)])
        if best is not None:
            extreme = next(p[data] for heads, mlp, form, p in REPLICATION if (form, mlp) == (EXTREME, False))
            sentences.append(
                f"{100 * best['quality']['mean']:.2f} % on {images.title} with {best['parameters']:,} parameters (a "
                f"published replication: {extreme.accuracy:.2f} % with {extreme.parameters:,})"
            )
    return (
        f"Trained from scratch, small forms of a vision transformer reach {' and '.join(sentences)}."
        if sentences
        else None
    )


def verdicts(result: Result) -> list[Verdict]:
    """Of what stands beside a whole model with as many heads, the first row of its study."""
    found = []
    for study in dict.fromkeys(row["study"] for row in result["rows"]):
        rows = [row for row in result["rows"] if row["study"] == study]
        whole = rows[0]
        for row in rows[1:]:
            if row["status"] != "ok" or row["group"] == "best" or row["says"]["heads"] != whole["says"]["heads"]:
                continue
            what = [row["says"].get("form"), None if row["says"]["MLP"] == "yes" else "no MLP"]
            layers = f"{row['says']['layers']} layers, MLP of ratio 4: " if "layers" in row["says"] else ""
            seeds = len(row["quality"]["per_seed"])
            found.append(
                Verdict(
                    DATA[row["data"]].title,
                    layers + ", ".join(part for part in what if part and part != UNCHANGED),
                    row["parameters"] / whole["parameters"],
                    {key: 100 * row["difference"][key] for key in ("mean", "low", "high")},
                    "points",
                    f"{seeds} seed{'s' * (seeds > 1)} from scratch, epochs: {row['epochs']}",
                    learned=row["epochs"] >= LEARNED_EPOCHS,
                )
            )
    return found


def stated(result: Result) -> Figures:
    """Every form's accuracy."""
    return {
        f"{DATA[row['data']].title}, {row['name']}": Interval(*(row["quality"][key] for key in ("mean", "low", "high")))
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

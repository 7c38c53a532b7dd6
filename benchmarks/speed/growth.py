"""How time and memory grow with layers, width, tokens, blocks taught, candidates, seeds and training images.

A training step (forward, backward, clipping, AdamW) of a ViT and of its extreme form, by layers, by width and by
tokens, which are more where patches are smaller; a step that teaches a translator's blocks, by their number; a
translation by ``generate``, by the tokens that are written; whole studies, by candidates, seeds and training images.
The work beside it is what grows by definition: floating-point operations of the products, blocks, tokens, or images
trained on in all trainings. Sizes are measured in turn, medians over rounds. A curve bends where the time for a unit of
work rises. Memory is that of tensors at most in a step, with weights and optimizer; of a study it is what it adds to
the resident memory of a new process.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel

import leanformer as lf
from benchmarks.kit.benchmark import CPU, Benchmark, Result, progress, register
from benchmarks.kit.forms import EXTREME, NOT_MEASURED, TINY_TEXT, vit_config
from benchmarks.kit.measuring import in_turn, seconds
from benchmarks.kit.plots import Panel, Panels, Points
from benchmarks.kit.processes import STUDY_IMPORTS, add_memory_option, runner, timed_study
from benchmarks.kit.tables import Tables, figure_table, table
from benchmarks.peers.teaching import RATE, Job
from benchmarks.speed.decoding import open_task, write
from benchmarks.speed.teaching import CONFIG
from leanformer.config.images import ImageTrainConfig
from leanformer.learn.lessons import teachable, teaching_loss
from leanformer.learn.step import TrainingStep, make_accelerator
from leanformer.measure.cost import forward_flops, peak_memory
from leanformer.model.baseline import fresh_model
from leanformer.model.weights import parameter_count

AXES = {
    "layers": "layers",
    "width": "d",
    "tokens": "tokens",
    "blocks": "blocks taught at once",
    "written": "tokens written",
    "candidates": "candidates",
    "seeds": "seeds",
    "images": "training images",
}
"""What grows -> its column's heading; each is an option with its sizes."""
STUDIES = ("candidates", "seeds", "images")
BENT = 1.25
"""A unit of work that takes so many times as long at the largest size as where it is fastest makes a bend."""

Row = dict[str, Any]
Point = tuple[float, Callable[[], object], float]
"""The work, the action, and the bytes of weights and optimizer that are held around it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--data", default="ylecun/mnist", help="of the studies: a hub id, a local copy, digits")
    parser.add_argument("--text", default="bentrevett/multi30k", help="Multi30k: a hub id, or a local copy")
    parser.add_argument("--set", action="append", metavar="KEY=VALUE", default=[], help="a key of multi30k.yaml")
    parser.add_argument(
        "--layers", type=int, nargs="*", default=[3, 6, 12, 24], help="none leaves the axis out, as below"
    )
    parser.add_argument("--width", type=int, nargs="*", default=[32, 64, 128, 256, 512])
    parser.add_argument(
        "--tokens", type=int, nargs="*", default=[14, 7, 4, 2, 1], help="as the pixels of a patch's side"
    )
    parser.add_argument("--blocks", type=int, nargs="*", default=[1, 2, 4, 8], help="at each of the attentions")
    parser.add_argument("--written", type=int, nargs="*", default=[10, 20, 50, 100, 200])
    parser.add_argument("--candidates", type=int, nargs="*", default=[1, 2, 4, 8, 16])
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 4, 8])
    parser.add_argument("--images", type=int, nargs="*", default=[1000, 4000, 16_000, 54_000])
    parser.add_argument("--batch-size", type=int, default=16, help="images of a training step")
    parser.add_argument("--few-images", type=int, default=1000, help="of the studies that grow in candidates and seeds")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--study-rounds", type=int, default=2)
    add_memory_option(parser)


def grown(axis: str, subjects: Mapping[str, Mapping[int, Point]], rounds: int) -> list[Row]:
    """Times and memory of several subjects along one axis.

    Args:
        axis: Its name.
        subjects: Name -> size -> the point.
        rounds: How often each is timed.
    """
    points = {(name, size): point for name, sizes in subjects.items() for size, point in sizes.items()}
    found = in_turn({str(key): partial(seconds, action) for key, (_, action, _) in points.items()}, rounds)
    rows = []
    for (name, size), (work, action, held) in points.items():
        own = found[str((name, size))]
        memory = (held + peak_memory(action, CPU)) / 1e6
        rows.append(
            {
                "axis": axis,
                "subject": name,
                "size": size,
                "work": work,
                "seconds": statistics.median(own),
                "memory_mb": memory,
                "rounds": own,
            }
        )
    progress(f"{axis}: done")
    return rows


# A training step


def step_of(model: PreTrainedModel, batch_size: int) -> Point:
    """A training step; its work is its operations."""
    config: Any = model.config
    batch = {
        "pixel_values": torch.randn(batch_size, config.num_channels, config.image_size, config.image_size),
        "labels": torch.arange(batch_size) % config.num_labels,
    }
    # The backward pass has two products for each of the forward pass.
    work = 3 * forward_flops(model.eval(), {"pixel_values": batch["pixel_values"]})
    step = TrainingStep(model.train(), ImageTrainConfig(), 1e-3, make_accelerator("float32", CPU))
    return work, partial(step, batch), 12 * parameter_count(model)


def steps_along(axis: str, shapes: Mapping[int, dict[str, Any]], arguments: argparse.Namespace) -> list[Row]:
    """A ViT's and its extreme form's training step.

    Args:
        axis: Its name.
        shapes: Size -> the ViT's configuration.
        arguments: The options.
    """
    torch.manual_seed(0)
    models = {size: fresh_model("vit", shape) for size, shape in shapes.items()}
    subjects = {
        "ViT": {size: step_of(model, arguments.batch_size) for size, model in models.items()},
        "extreme form": {
            size: step_of(lf.reduce(model, EXTREME), arguments.batch_size) for size, model in models.items()
        },
    }
    return grown(axis, subjects, arguments.rounds)


# Translators


def blocks_along(arguments: argparse.Namespace) -> list[Row]:
    """A step that teaches so many blocks at each attention of a small translator."""
    overrides = [f"data.source={arguments.text}", "data.train_limit=200", "train.batch_tokens=512", *arguments.set]
    points = {}
    accelerator = make_accelerator("float32", CPU)
    with ExitStack() as watching:
        for count in arguments.blocks:
            job = Job.make(overrides, ["XS"] * count)
            blocks, lessons = teachable(job.lessons), job.lessons
            observed = watching.enter_context(job.observed)  # each job has a teacher of its own
            step = TrainingStep(blocks, CONFIG, RATE, accelerator, teaching_loss(observed, lessons))
            points[len(lessons)] = (float(len(lessons)), partial(step, job.batches[0]), 12 * parameter_count(blocks))
        return grown("blocks", {"teaching": points}, arguments.rounds)


def written_along(arguments: argparse.Namespace) -> list[Row]:
    """A batch of eight sentences, translated by a teacher and by its student of slots."""
    task = open_task(argparse.Namespace(**vars(arguments) | {"data": arguments.text}))
    teacher = task.make_baseline(seed=0)
    models = {"teacher": teacher, "all": lf.reduce(teacher, task.study.candidates["all-slots"].plan)}
    ids = torch.full((8, 12), task.tokenizer.eos_id + 1)
    mask = torch.ones_like(ids)
    subjects: dict[str, dict[int, Point]] = {}
    for name, model in models.items():
        model.eval()
        held = 4 * parameter_count(model)
        subjects[name] = {
            tokens: (float(tokens), partial(write, model, ids, mask, 1, tokens), held) for tokens in arguments.written
        }
    return grown("written", subjects, arguments.rounds)


# Studies


def study(
    arguments: argparse.Namespace, candidates: int = 1, seeds: int = 1, images: int | None = None
) -> dict[str, Any]:
    """A small study, as plain data."""
    limit = images or arguments.few_images
    return {
        "name": "growth",
        "data": {"source": arguments.data, "image_size": 28, "train_limit": limit, "validation_fraction": 0.02},
        "baseline": {"model": "vit", "config": vit_config(d_model=32, layers=2)},
        "candidates": {f"form-{number}": {"plan": EXTREME} for number in range(candidates)},
        "train": {"epochs": 1, "learning_rate": 1e-3, "batch_size": 64},
        "seeds": list(range(seeds)),
        "measure": {"device": "cpu", "threads": arguments.threads, **NOT_MEASURED},
    }


def studies_along(axis: str, arguments: argparse.Namespace) -> list[Row]:
    """Whole studies, each in a process of its own."""
    sizes: Sequence[int] = getattr(arguments, axis)
    kept: dict[int, list[dict[str, Any]]] = {size: [] for size in sizes}
    plain = {size: study(arguments, **{axis: size}) for size in sizes}
    run = runner(arguments)

    def once(size: int) -> float:
        figures, memory = run(without_results, plain[size], imports=STUDY_IMPORTS)
        kept[size].append({**figures, "memory_mb": memory})
        progress(f"{axis}, {size}: {figures['seconds']:.1f} s")
        return float(figures["seconds"])

    found = in_turn({str(size): partial(once, size) for size in sizes}, arguments.study_rounds, warm_up=0)
    rows = []
    for size, figures in kept.items():
        own = plain[size]
        memory = [one["memory_mb"] for one in figures]
        rows.append(
            {
                "axis": axis,
                "subject": "study",
                "size": size,
                "work": float((1 + len(own["candidates"])) * len(own["seeds"]) * own["data"]["train_limit"]),
                "seconds": statistics.median(found[str(size)]),
                "memory_mb": None if None in memory else statistics.median(memory),
                "parts": {
                    part: statistics.median(one["parts"][part] for one in figures) for part in figures[0]["parts"]
                },
                "rounds": found[str(size)],
            }
        )
    return rows


def without_results(plain: dict[str, Any]) -> dict[str, Any]:
    """A study's time."""
    return {key: value for key, value in timed_study(plain).items() if key != "results"}


# Measuring and the page


def measure(arguments: argparse.Namespace) -> Result:
    """All axes that have sizes."""
    shapes: dict[str, dict[int, dict[str, Any]]] = {
        "layers": {size: vit_config(layers=size) for size in arguments.layers},
        "width": {size: vit_config(d_model=size) for size in arguments.width},
        "tokens": {(28 // size) ** 2 + 1: vit_config(patch=size) for size in arguments.tokens},
    }
    rows = [row for axis, own in shapes.items() if own for row in steps_along(axis, own, arguments)]
    if arguments.blocks:
        rows += blocks_along(arguments)
    if arguments.written:
        rows += written_along(arguments)
    for axis in STUDIES:
        if getattr(arguments, axis):
            rows += studies_along(axis, arguments)
    return {"rows": rows}


def bend(rows: Sequence[Mapping[str, Any]]) -> float:
    """How many times as long a unit of work takes at the largest size as where it is fastest."""
    unit = [row["seconds"] / row["work"] for row in rows]
    return float(unit[-1] / min(unit))


def curves(result: Result) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    """(axis, subject) -> its rows, by size."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in result["rows"]:
        found.setdefault((row["axis"], row["subject"]), []).append(row)
    return {key: sorted(rows, key=lambda row: row["size"]) for key, rows in found.items()}


def farthest_rounds(result: Result) -> float:
    """How many times as long as the fastest round the slowest of one row takes, where that is most."""
    return float(max(max(row["rounds"]) / min(row["rounds"]) for row in result["rows"]))


def tables(result: Result) -> Tables:
    """A table an axis, and how much the curves bend."""
    found = curves(result)
    shown = {}
    for axis in dict.fromkeys(axis for axis, _ in found):
        lines = []
        for (other, subject), rows in found.items():
            if other == axis:
                lines += [_line(subject, row, rows[0]) for row in rows]
        header = ["", AXES[axis], "work", "time", "time for a unit of work", "memory"]
        if axis in STUDIES:
            names = list(found[axis, "study"][0]["parts"])
            header += names
            lines = [
                (*line, *(f"{row['parts'][name]:.1f} s" for name in names))
                for line, row in zip(lines, found[axis, "study"], strict=True)
            ]
        shown[axis] = table(header, lines)
    bends = [(subject, AXES[axis], f"{bend(rows):.2f} x") for (axis, subject), rows in found.items()]
    return {
        **shown,
        "bends": table(("", "by", "time for a unit of work, at the largest size to where it is least"), bends),
        "figures": figure_table(
            {
                "curves": len(found),
                f"curves that bend: more than {BENT} x": sum(bend(rows) > BENT for rows in found.values()),
                "times of the same training step on several axes, apart": f"{farthest_axes(result):.2f} x",
                "rounds of one row, apart": f"{farthest_rounds(result):.1f} x",
            }
        ),
    }


def farthest_axes(result: Result) -> float:
    """How far apart the times of a training step are that stands on several axes; 1 where none does."""
    repeated: dict[tuple[str, float], list[float]] = {}
    for row in result["rows"]:
        if row["axis"] not in STUDIES:
            repeated.setdefault((row["subject"], row["work"]), []).append(row["seconds"])
    return max((max(times) / min(times) for times in repeated.values()), default=1.0)


def plot(result: Result) -> Panels | None:
    """Time against work along each axis, as multiples."""
    found = curves(result)
    drawn = []
    for axis in dict.fromkeys(axis for axis, _ in found):
        subjects = {subject: rows for (other, subject), rows in found.items() if other == axis}
        points = {
            subject: Points(
                [row["work"] / rows[0]["work"] for row in rows], [row["seconds"] / rows[0]["seconds"] for row in rows]
            )
            for subject, rows in subjects.items()
        }
        most = max(max(own.x) for own in points.values())
        diagonal = {"as the work": Points([1, most], [1, most], dashed=True)}
        drawn.append(Panel(f"by {AXES[axis]}", "work, multiples", "time, multiples", points | diagonal))
    return Panels(drawn)


def _line(subject: str, row: Mapping[str, Any], first: Mapping[str, Any]) -> tuple[str, ...]:
    work, time = row["work"] / first["work"], row["seconds"] / first["seconds"]
    memory = "not measured" if row["memory_mb"] is None else f"{row['memory_mb']:,.1f} MB"
    spent = f"{1000 * row['seconds']:,.1f} ms" if row["seconds"] < 1 else f"{row['seconds']:,.1f} s"
    return (subject, f"{row['size']:,}", f"{work:.2f} x", f"{spent}, {time:.2f} x", f"{time / work:.2f} x", memory)


BENCHMARK = register(
    "speed",
    Benchmark(
        name="growth",
        add_arguments=add_arguments,
        measure=measure,
        tables=tables,
        quick={
            "data": "digits",
            "set": [*TINY_TEXT],
            "layers": [1, 2],
            "width": [16, 32],
            "tokens": [14, 7],
            "blocks": [1, 2],
            "written": [2, 4],
            "candidates": [1],
            "seeds": [],
            "images": [],
            "batch_size": 4,
            "few_images": 64,
            "rounds": 1,
            "study_rounds": 1,
            "no_memory": True,
        },
        plot=plot,
    ),
)

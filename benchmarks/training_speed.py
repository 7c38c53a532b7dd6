"""Training speed of the extreme form against Hugging Face's own ViT of the same shape and batch.

Shape: d=64, 6 layers, patch 7, MLP of ratio 4. The extreme form has collapsed queries and keys, no values, no output
projection and no MLP. All go through leanformer's own training step (forward, backward, clipping, AdamW), with the same
batches. In each round every model is measured in turn; the ratio is taken round by round, and the median kept.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import islice
from typing import Any

import leanformer as lf
from benchmarks.forms import EXTREME, vit_config
from benchmarks.measuring import in_turn, median_ratio
from benchmarks.room import Benchmark, Result, table
from leanformer.config import ImageDataConfig, ImageTrainConfig
from leanformer.data.batches import ImageBatches
from leanformer.data.images import load_images
from leanformer.learn.train import TrainingStep, make_accelerator, settle_precision
from leanformer.machine import environment, pick_device
from leanformer.model.baseline import fresh_model
from leanformer.model.surgery import parameter_count


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--data", default="ylecun/mnist", help="images: a hub id, a local copy in its layout, digits")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="training steps a model and round")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")


def images_per_second(step: TrainingStep, batches: ImageBatches, steps: int) -> float:
    """The speed of one model's training."""
    examples = 0
    started = time.perf_counter()
    for batch in islice(batches.training(seed=0, epoch=0), steps):
        loss = step(batch)
        examples += len(batch["labels"])
    loss.item()  # waits for the device
    return examples / (time.perf_counter() - started)


def measure(arguments: argparse.Namespace) -> Result:
    """The speeds of every model in every round."""
    device = pick_device(arguments.device)
    config = ImageTrainConfig(batch_size=arguments.batch_size)
    precision = settle_precision(config.precision, device)
    accelerator = make_accelerator(precision, device)
    data = load_images(ImageDataConfig(source=arguments.data, image_size=28), device, None, None)
    batches = ImageBatches(data, arguments.batch_size, (), data.mean, data.std)
    rows: list[dict[str, Any]] = []
    ways: dict[str, Callable[[], float]] = {}
    for heads in (1, 4):
        baseline = fresh_model("vit", vit_config(heads=heads))
        models = {
            "ViT": baseline,
            "ViT, eager attention": fresh_model("vit", {**vit_config(heads=heads), "attn_implementation": "eager"}),
            "extreme form": lf.reduce(baseline, EXTREME),
        }
        for name, model in models.items():
            rows.append({"model": name, "heads": heads, "parameters": parameter_count(model)})
            step = TrainingStep(model.to(device).train(), config, 1e-3, accelerator)
            ways[f"{name}, {heads}"] = lambda step=step: images_per_second(step, batches, arguments.steps)  # type: ignore[misc]
    speeds = in_turn(ways, arguments.rounds)
    for row in rows:
        own = speeds[f"{row['model']}, {row['heads']}"]
        row["images_per_second"] = statistics.median(own)
        row["ratio_to_vit"] = median_ratio(own, speeds[f"ViT, {row['heads']}"])
        row["ratio_to_eager_vit"] = median_ratio(own, speeds[f"ViT, eager attention, {row['heads']}"])
        row["rounds"] = own
    return {"environment": environment(device, precision), "rows": rows}


def section(result: Result) -> str:
    """The table."""
    settings = result["settings"]
    rows = [
        (
            row["model"],
            row["heads"],
            f"{row['parameters']:,}",
            f"{row['images_per_second']:,.0f}",
            f"{row['ratio_to_vit']:.2f}",
            f"{row['ratio_to_eager_vit']:.2f}",
        )
        for row in result["rows"]
    ]
    return f"""\
The extreme form (one matrix an attention, no values, no MLP) against Hugging Face's own ViT of the same shape (d =
64, 6 layers, patches of 7 x 7 on 28 x 28 pixels, MLP of ratio 4) on batches of {settings["batch_size"]} images. Both
go through the same training step: forward, backward, clipping, AdamW. Rounds in turn: {settings["rounds"]}; medians.

{table(("model", "heads", "parameters", "images/s", "ratio to ViT", "ratio to eager ViT"), rows)}

Beyond fewer operations, what makes the difference is that patches are cut by a matrix product in place of a
convolution. Both sides have data as tensors on the device, without any work an image."""


def summary(result: Result) -> str:
    """How much faster the extreme form trains."""
    extreme = {row["heads"]: row["ratio_to_vit"] for row in result["rows"] if row["model"] == "extreme form"}
    return (
        f"A vision transformer reduced to its extreme form trains {extreme[1]:.1f} times as fast as Hugging Face's own "
        f"of the same shape with one head, {extreme[4]:.1f} times with four."
    )


BENCHMARK = Benchmark(
    name="training_speed",
    title="Training speed",
    add_arguments=add_arguments,
    measure=measure,
    section=section,
    quick={"data": "digits", "batch_size": 32, "rounds": 1, "steps": 2},
    summary=summary,
)

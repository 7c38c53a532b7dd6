"""Training speed of the extreme form against Hugging Face's own ViT of the same shape and batch.

Shape: d=64, 6 layers, patch 7, MLP of ratio 4. The extreme form has collapsed queries and keys, no values, no output
projection and no MLP; once it pools by mean, without a class token. All go through leanformer's own training step
(forward, backward, clipping, AdamW), with the same batches. In each round every model is measured in turn; the ratio is
taken round by round, and the median kept.

Beside each model's step the floor of it: the same matrix products alone, on the same tensors, with nothing in between.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

import leanformer as lf
from benchmarks.forms import EXTREME, vit_config
from benchmarks.measuring import in_turn, median_ratio
from benchmarks.room import Benchmark, Result, table
from leanformer.config import ImageDataConfig, ImageTrainConfig
from leanformer.data.batches import ImageBatches
from leanformer.data.images import load_images
from leanformer.learn.train import Batch, TrainingStep, make_accelerator, settle_precision
from leanformer.machine import environment, pick_device
from leanformer.model.baseline import fresh_model
from leanformer.model.surgery import parameter_count

GOAL = 8
EXTREME_FORMS = {"extreme form": "a class token", "extreme form, mean": "the mean of all tokens"}
"""Name in a row -> what its classifier reads."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--data", default="ylecun/mnist", help="images: a hub id, a local copy in its layout, digits")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="training steps a model and round")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")


class Products(TorchDispatchMode):
    """Records every matrix product that PyTorch does, forward and backward, with its tensors."""

    KINDS = ("mm", "addmm", "bmm", "baddbmm")

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Callable[[], object]] = []

    def __torch_dispatch__(self, function: Any, types: Any, given: Any = (), named: Any = None) -> Any:
        if function.overloadpacket.__name__ in self.KINDS:
            self.calls.append(partial(function, *(tensor.detach() for tensor in given), **(named or {})))
        return function(*given, **(named or {}))


def products_of(step: TrainingStep, batch: Batch) -> list[Callable[[], object]]:
    """The matrix products of a training step, to be done again."""
    with Products() as products:
        step(batch)
    return products.calls


def products_per_second(calls: Sequence[Callable[[], object]], images: int, steps: int) -> float:
    """The speed of a training that did nothing but a step's matrix products."""
    with torch.no_grad():
        started = time.perf_counter()
        for _ in range(steps):
            for call in calls:
                call()
        return images * steps / (time.perf_counter() - started)


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
            "extreme form, mean": lf.reduce(baseline, {**EXTREME, "pooling": "mean"}),
        }
        for name, model in models.items():
            rows.append({"model": name, "heads": heads, "parameters": parameter_count(model)})
            step = TrainingStep(model.to(device).train(), config, 1e-3, accelerator)
            ways[f"{name}, {heads}"] = partial(images_per_second, step, batches, arguments.steps)
            if device.type == "cpu":  # elsewhere products are only queued
                calls = products_of(step, next(batches.training(seed=0, epoch=0)))
                ways[f"{name}, {heads}, products"] = partial(
                    products_per_second, calls, arguments.batch_size, arguments.steps
                )
    speeds = in_turn(ways, arguments.rounds)
    for row in rows:
        own = speeds[f"{row['model']}, {row['heads']}"]
        row["images_per_second"] = statistics.median(own)
        row["ratio_to_vit"] = median_ratio(own, speeds[f"ViT, {row['heads']}"])
        row["ratio_to_eager_vit"] = median_ratio(own, speeds[f"ViT, eager attention, {row['heads']}"])
        row["rounds"] = own
        floor = speeds.get(f"{row['model']}, {row['heads']}, products")
        row["products_per_second"] = None if floor is None else statistics.median(floor)
        row["ratio_to_products"] = None if floor is None else median_ratio(own, floor)
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
            f"{row['products_per_second']:,.0f}" if row["products_per_second"] else "",
        )
        for row in result["rows"]
    ]
    return f"""\
The extreme form (one matrix an attention, no values, no MLP) against Hugging Face's own ViT of the same shape (d =
64, 6 layers, patches of 7 x 7 on 28 x 28 pixels, MLP of ratio 4) on batches of {settings["batch_size"]} images. Both
go through the same training step: forward, backward, clipping, AdamW. Rounds in turn: {settings["rounds"]}; medians.

{table(("model", "heads", "parameters", "images/s", "ratio to ViT", "ratio to eager ViT", "products alone"), rows)}

Beyond fewer operations, what makes the difference is that patches are cut by a matrix product in place of a
convolution, and that the last layer of a form with a class token computes no other token. Both sides have data as
tensors on the device, without any work an image.{floor_of(result)}"""


def floor_of(result: Result) -> str:
    """How far the extreme form is from what its matrix products take."""
    rows = {(row["model"], row["heads"]): row for row in result["rows"]}
    best = max((rows[model, 1] for model in EXTREME_FORMS), key=lambda row: row["ratio_to_vit"])
    if best["products_per_second"] is None:
        return ""
    ceiling = best["products_per_second"] / rows["ViT", 1]["images_per_second"]
    rounds = [own / vit for own, vit in zip(best["rounds"], rows["ViT", 1]["rounds"], strict=True)]
    reached = "reached" if best["ratio_to_vit"] >= GOAL else "not reached"
    return f"""

"Products alone" is the floor: the same matrix products of a step, forward and backward, on the same tensors, and
nothing else. The extreme form that reads {EXTREME_FORMS[best["model"]]} spends {100 * best["ratio_to_products"]:.0f} %
of its step in them. Were the rest of its step for nothing, it would train {ceiling:.1f} times as fast as the ViT; the
rest is norms, softmax, sums and the optimizer. The goal of {GOAL} times is {reached}: {best["ratio_to_vit"]:.1f} times
(rounds {min(rounds):.1f} to {max(rounds):.1f}), {100 * best["ratio_to_vit"] / ceiling:.0f} % of that floor."""


def summary(result: Result) -> str:
    """How much faster the extreme form trains."""
    extreme, mean = (
        {row["heads"]: row["ratio_to_vit"] for row in result["rows"] if row["model"] == model}
        for model in EXTREME_FORMS
    )
    return (
        f"A vision transformer reduced to its extreme form trains {extreme[1]:.1f} times as fast as Hugging Face's own "
        f"of the same shape with one head, {extreme[4]:.1f} times with four; {mean[1]:.1f} and {mean[4]:.1f} where it "
        "pools by mean."
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

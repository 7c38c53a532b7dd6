"""Training speed of the extreme form against Hugging Face's own ViT of the same shape and batch.

Shape: d=64, 6 layers, patch 7, MLP of ratio 4. The extreme form has collapsed queries and keys, no values, no output
projection and no MLP; once it pools by mean, without a class token. All go through leanformer's own training step
(forward, backward, clipping, AdamW), with the same batches, as they are and through torch.compile. In each round every
model is measured in turn, after a few steps of its own that do not count, as in a training the step before is always
the same model's; the ratio is taken round by round, and the median kept.

Beside each model's step the floor of it: the same matrix products alone, on the same tensors, with nothing in between.
Where the rest of a step goes, PyTorch's profiler says afterwards.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain, count, islice
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

import leanformer as lf
from benchmarks.kit.benchmark import Benchmark, Result, progress, register
from benchmarks.kit.forms import EXTREME, vit_config
from benchmarks.kit.measuring import in_turn, median_ratio, seconds
from benchmarks.kit.profiling import TRAINING_KINDS, in_percent, time_by_kind
from benchmarks.kit.tables import Tables, figure_table, span, table
from leanformer.config.images import ImageDataConfig, ImageTrainConfig
from leanformer.core.machine import environment, pick_device
from leanformer.data.image_batches import ImageBatches
from leanformer.data.images import load_images
from leanformer.learn.losses import Batch
from leanformer.learn.step import TrainingStep, make_accelerator, settle_precision
from leanformer.model.baseline import fresh_model
from leanformer.model.weights import parameter_count

HEADS = (1, 4)
GOAL = 8
WARM_UP = 2
"""Steps of a model in each round before those that are measured: the caches hold another model's tensors."""
EXTREME_FORMS = ("extreme form", "extreme form, mean")
"""Their names in the rows: the classifier of the one reads a class token, of the other the mean of all tokens."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--data", default="ylecun/mnist", help="images: a hub id, a local copy in its layout, digits")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="training steps a model and round")
    parser.add_argument("--no-compile", action="store_true", help="leave out what is compiled, which takes minutes")
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

    def repeat(times: int) -> None:
        for _ in range(times):
            for call in calls:
                call()

    with torch.no_grad():
        repeat(WARM_UP)
        return images * steps / seconds(partial(repeat, steps))


def train(step: TrainingStep, batches: Iterable[Batch]) -> int:
    """Steps on these batches, waits for the device and gives the number of examples."""
    examples = 0
    for batch in batches:
        loss = step(batch)
        examples += len(batch["labels"])
    loss.item()
    return examples


def images_per_second(step: TrainingStep, batches: ImageBatches, steps: int) -> float:
    """The speed of one model's training."""
    drawn = chain.from_iterable(batches.training(seed=0, epoch=epoch) for epoch in count())
    train(step, islice(drawn, WARM_UP))
    started = time.perf_counter()
    examples = train(step, islice(drawn, steps))
    return examples / (time.perf_counter() - started)


@contextmanager
def nothing_compiled_before() -> Iterator[None]:
    """torch.compile without what other processes have left it, so that the time it takes is that of the first time."""
    with TemporaryDirectory() as cache, patch.dict(os.environ, TORCHINDUCTOR_CACHE_DIR=cache):
        yield


def models_of(heads: int) -> dict[str, PreTrainedModel]:
    """What is compared, of so many heads; the first is what ratios are to."""
    baseline = fresh_model("vit", vit_config(heads=heads))
    return {
        "ViT": baseline,
        "ViT, eager attention": fresh_model("vit", {**vit_config(heads=heads), "attn_implementation": "eager"}),
        "extreme form": lf.reduce(baseline, EXTREME),
        "extreme form, mean": lf.reduce(baseline, {**EXTREME, "pooling": "mean"}),
    }


def measure(arguments: argparse.Namespace) -> Result:
    """The speeds of every model in every round."""
    device = pick_device(arguments.device)
    config = ImageTrainConfig(batch_size=arguments.batch_size)
    precision = settle_precision(config.precision, device)
    accelerator = make_accelerator(precision, device)
    data = load_images(ImageDataConfig(source=arguments.data, image_size=28), device, None, None)
    batches = ImageBatches(data, arguments.batch_size, (), data.mean, data.std)

    def step_of(model: PreTrainedModel, compiled: bool) -> TrainingStep:
        own = copy.deepcopy(model).to(device).train()
        return TrainingStep(own, config.model_copy(update={"compile": compiled}), 1e-3, accelerator)

    rows: list[dict[str, Any]] = []
    ways: dict[str, Callable[[], float]] = {}
    profiled: dict[str, TrainingStep] = {}
    with nothing_compiled_before():
        for heads in HEADS:
            for name, model in models_of(heads).items():
                row: dict[str, Any] = {"model": name, "heads": heads, "parameters": parameter_count(model)}
                rows.append(row)
                plain = step_of(model, compiled=False)
                ways[way_of(row, "plain")] = partial(images_per_second, plain, batches, arguments.steps)
                if device.type == "cpu":  # elsewhere products are only queued
                    calls = products_of(plain, next(batches.training(seed=0, epoch=0)))
                    ways[way_of(row, "products")] = partial(
                        products_per_second, calls, arguments.batch_size, arguments.steps
                    )
                    profiled[way_of(row, "plain")] = plain
                if not arguments.no_compile:
                    compiled = step_of(model, compiled=True)
                    first = islice(batches.training(seed=0, epoch=0), 1)
                    row["first_step_seconds"] = seconds(partial(train, compiled, first))
                    ways[way_of(row, "compiled")] = partial(images_per_second, compiled, batches, arguments.steps)
                progress(f"training_speed: {name}, heads: {heads}")
        speeds = in_turn(ways, arguments.rounds)
    for row in rows:
        vits = [other for other in rows if other["heads"] == row["heads"] and other["model"].startswith("ViT")]
        theirs = [speeds[way] for vit in vits for how in ("plain", "compiled") if (way := way_of(vit, how)) in speeds]
        own = speeds[way_of(row, "plain")]
        products, compiled_speeds = (speeds.get(way_of(row, how)) for how in ("products", "compiled"))
        row |= figures_of(own, theirs)
        row["products_per_second"] = None if products is None else statistics.median(products)
        row["ratio_to_products"] = None if products is None else median_ratio(own, products)
        step = profiled.get(way_of(row, "plain"))
        some = islice(batches.training(seed=0, epoch=0), arguments.steps)
        row["kinds"] = None if step is None else time_by_kind(partial(train, step, some), TRAINING_KINDS)
        row["compiled"] = None if compiled_speeds is None else figures_of(compiled_speeds, theirs)
    return {"environment": environment(device, precision), "rows": rows}


def way_of(row: Mapping[str, Any], how: str) -> str:
    """The name of a model's measurement."""
    return f"{row['model']}, {row['heads']}, {how}"


def figures_of(own: Sequence[float], vits: Sequence[Sequence[float]]) -> dict[str, Any]:
    """A model's speed, and its ratios to the ViT's, the first of whose speeds is that of the model as it comes."""
    return {
        "images_per_second": statistics.median(own),
        "ratio_to_vit": median_ratio(own, vits[0]),
        "ratio_to_fastest_vit": median_ratio(own, max(vits, key=statistics.median)),
        "rounds": own,
    }


def tables(result: Result) -> Tables:
    """Speeds, and what compiling and products come to."""
    rows = [
        (
            row["model"],
            row["heads"],
            f"{row['parameters']:,}",
            *shown(row),
            *shown(row["compiled"]),
            f"{row['products_per_second']:,.0f}" if row["products_per_second"] else "",
        )
        for row in result["rows"]
    ]
    ratios = ("to ViT", "to the fastest ViT")
    headers = ("model", "heads", "parameters", "images/s", *ratios, "compiled: images/s", *ratios, "products alone")
    return {
        "speed": table(headers, rows),
        "figures": figure_table({**best(result), **compiling(result), **floor_of(result)}),
    }


def shown(figures: dict[str, Any] | None) -> tuple[str, ...]:
    """A speed and its ratios as cells."""
    if figures is None:
        return "", "", ""
    ratios = (f"{figures[key]:.2f}" for key in ("ratio_to_vit", "ratio_to_fastest_vit"))
    return f"{figures['images_per_second']:,.0f}", *ratios


def best_of(result: Result, heads: int) -> Mapping[str, Any]:
    """The faster of the extreme forms with so many heads."""
    forms = [row for row in result["rows"] if row["heads"] == heads and row["model"] in EXTREME_FORMS]
    return max(forms, key=lambda row: row["ratio_to_vit"])


def best(result: Result) -> dict[str, str]:
    """How much faster than the ViT the extreme form trains, with the range of the rounds."""
    found = {f"the goal, heads: {HEADS[0]}": f"{GOAL} x"}
    for heads in HEADS:
        row = best_of(result, heads)
        vit = next(other for other in result["rows"] if (other["model"], other["heads"]) == ("ViT", heads))
        for how, own in (("", row), (", compiled", row["compiled"])):
            if own is not None:
                rounds = [one / other for one, other in zip(own["rounds"], vit["rounds"], strict=True)]
                what = f"the faster extreme form, heads: {heads}{how}, to ViT"
                found[what] = f"{own['ratio_to_vit']:.1f} x (rounds {min(rounds):.1f} to {max(rounds):.1f})"
    return found


def compiling(result: Result) -> dict[str, str]:
    """What compiling takes and gives."""
    extremes = [row for row in result["rows"] if row["model"] in EXTREME_FORMS]
    if any(row["compiled"] is None for row in extremes):
        return {}
    took = [row["first_step_seconds"] for row in extremes]
    gains = [median_ratio(row["compiled"]["rounds"], row["rounds"]) for row in extremes]
    found = {
        "compiling the extreme form makes it faster": f"{span(gains, '.2f')} x",
        "its first step then": f"{span(took, '.0f')} s",
    }
    if min(gains) > 1:
        repaid = max(spent / (1 - 1 / gain) for spent, gain in zip(took, gains, strict=True))
        found["a training that repays it takes without"] = f"{repaid / 60:.1f} min"
    return found


def floor_of(result: Result) -> dict[str, str]:
    """How far the extreme form is from what its matrix products take."""
    own = best_of(result, HEADS[0])
    if own["products_per_second"] is None:
        return {}
    vits = {row["heads"]: row["images_per_second"] for row in result["rows"] if row["model"] == "ViT"}
    ceilings = {heads: best_of(result, heads)["products_per_second"] / vits[heads] for heads in HEADS}
    return {
        "part of a step of the extreme form in products": f"{100 * own['ratio_to_products']:.0f} %",
        **{f"to ViT, were it products alone, heads: {heads}": f"{ratio:.1f} x" for heads, ratio in ceilings.items()},
        **in_percent("a step by the profiler", own.get("kinds") or {}),
    }


BENCHMARK = register(
    "speed",
    Benchmark(
        name="training_speed",
        add_arguments=add_arguments,
        measure=measure,
        tables=tables,
        quick={"data": "digits", "batch_size": 32, "rounds": 1, "steps": 2, "no_compile": True},
    ),
)

"""The models that several benchmarks measure, and studies of them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import leanformer as lf
from benchmarks.kit.benchmark import add_runs
from leanformer.model.baseline import fresh_model

EXTREME: dict[str, Any] = {
    "*.self_attention": {"block": "minimal_attention", "qk": "collapsed", "vo": "none"},
    "*.mlp": "none",
}
"""The plan of the extreme form: one matrix an attention, no values, no MLP; as many heads as the model has."""

TINY_TRANSLATOR = (
    "baseline.config.d_model=16",
    "baseline.config.encoder_layers=1",
    "baseline.config.decoder_layers=1",
)
TINY_TEXT = (
    *TINY_TRANSLATOR,
    "data.source=number-words",
    "data.numbers={largest: 999, train: 60, validation: 8, test: 8}",
    "data.tokenizer.vocabulary=300",
    "data.max_tokens=40",
    "train.epochs=1",
    "train.average_last=null",
    "distill.epochs=1",
    "decode.beam=1",
    "measure.repeats=1",
    "measure.latency_calls=1",
    "measure.throughput_batch=4",
)
"""Overrides of a translation study that make it run in seconds, for ``--quick``."""

TINY_EXAMPLE = (
    *TINY_TRANSLATOR,
    "train.epochs=1",
    "distill.epochs=1",
    "decode.max_tokens=12",
    "measure.repeats=1",
    "measure.latency_calls=1",
)
"""Overrides that do so for examples/number-words.yaml; the number of sentences is each benchmark's own."""

NOT_MEASURED = {"repeats": 1, "latency_calls": 1, "throughput_batch": 1}
"""The least that a study measures of time and memory, where they are not what it is run for."""

Form = dict[str, Any]
"""The arguments of ``minimal_attention`` at every self-attention, and the model's ``pooling``."""

BEST_SMALL: Form = {"qk": "symmetric", "vo": "none", "heads": 4, "diagonal_value": True, "pooling": "mean"}
"""The best found with attention of at most 31,500 parameters, with an MLP of 15 channels."""

GRID: dict[str, Any] = {
    "block": "mixer",
    "positions": "grid",
    "max_distance": 2,
    "groups": 64,
    "vo": "none",
    "gate": False,
}
"""What reads 5 x 5 patches in place of an attention, each of 64 channels by weights of its own."""

SMALL_GRID: dict[str, Any] = {
    "*.self_attention": {**GRID, "max_distance": 3},
    "*.mlp": {"block": "mlp", "hidden": 24},
    "pooling": "mean",
}
"""The best found of at most 31,500 parameters on the 4 x 4 patches of ``vit_config``, with ``SMALL_GRID_LAYERS``."""

SMALL_GRID_LAYERS = 4


def vit_config(d_model: int = 64, layers: int = 6, heads: int = 4, patch: int = 7, pixels: int = 28) -> dict[str, Any]:
    """A vision transformer on grey square images of ten digits; by default that of the published runs on MNIST.

    Source: arXiv 2410.13732 and a replication of it; MLP of ratio 4.
    """
    return {
        "hidden_size": d_model,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 4 * d_model,
        "patch_size": patch,
        "image_size": pixels,
        "num_channels": 1,
        "id2label": {number: str(number) for number in range(10)},
        "label2id": {str(number): number for number in range(10)},
    }


def shallower(layers: int, of: int = 6) -> dict[str, Any]:
    """The part of a plan that keeps the first layers alone, where there are more."""
    return {f"encoder.{number}.layer": "none" for number in range(layers, of)}


def plan_of(form: Form) -> dict[str, Any]:
    """The plan that gives a model this form."""
    attention = {key: value for key, value in form.items() if key != "pooling"}
    return {"*.self_attention": {"block": "minimal_attention", **attention}, "pooling": form["pooling"]}


def save_form(directory: Path, form: Form, mlp: Any) -> None:
    """Saves a form of ``vit_config`` as a study's baseline, unless it is there: a run goes on with the same one."""
    if not directory.exists():
        lf.save(lf.reduce(fresh_model("vit", vit_config()), {**plan_of(form), "*.mlp": mlp}), directory)


def add_image_options(
    parser: argparse.ArgumentParser, train_limit: int | None, epochs: int, seeds: Sequence[int]
) -> None:
    """The options of studies on images, with their defaults; ``image_study`` reads them."""
    parser.add_argument("--data", default="ylecun/mnist", help="MNIST: a hub id or a local copy in its layout")
    parser.add_argument("--train-limit", type=int, default=train_limit, help="training images; by default %(default)s")
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(seeds))
    add_runs(parser)


def image_study(
    name: str,
    form: Path,
    plans: Mapping[str, Any],
    arguments: argparse.Namespace,
    data: Mapping[str, Any],
    train: Mapping[str, Any],
    measure: Mapping[str, Any] = NOT_MEASURED,
) -> dict[str, Any]:
    """A study of a saved form, trained anew, and of what plans make of it.

    Args:
        name: Of the study.
        form: Where ``save_form`` put it.
        plans: Candidate -> its plan.
        arguments: The options.
        data, train, measure: Further keys of these sections.
    """
    return {
        "name": name,
        "data": {"source": arguments.data, "image_size": 28, "train_limit": arguments.train_limit, **data},
        "baseline": {"model": str(form), "fresh": True},
        "candidates": {candidate: {"plan": plan} for candidate, plan in plans.items()},
        "train": {"epochs": arguments.epochs, **train},
        "seeds": arguments.seeds,
        "measure": {"threads": arguments.threads, "device": "cpu", **measure},
    }

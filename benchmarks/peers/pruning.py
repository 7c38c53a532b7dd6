"""Pruning a trained ViT against a reduced form trained from scratch, at the same number of parameters, on MNIST.

A study of leanformer's own trains Hugging Face's ViT (d = 64, 6 layers, patch 7) and the best small form. Each trained
ViT is then pruned to at most the form's parameters and tuned for as many epochs as the form was trained, with the same
optimizer, schedule and rates, of which each model gets the one that is best on the validation split; nothing is
augmented:

- torch-pruning, uniform: the same part of the channels everywhere (Fang et al. 2023, arXiv 2301.12900);
- torch-pruning, isomorphic: ranked together among parts of like structure (Fang et al. 2024, arXiv 2407.04616);
- magnitude: the smallest weights of all matrices are zero and stay so; what is left is counted. The matrices keep their
  size, so nothing becomes smaller or faster without kernels for such patterns.

The pruned models have had the whole training of the ViT before that; the form has not. What the tuning alone does shows
a ViT that is tuned alike and not pruned.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.models.vit.modeling_vit import ViTAttention

import leanformer as lf
from benchmarks.kit.benchmark import CPU, Benchmark, Result, progress, register, runs_of
from benchmarks.kit.forms import NOT_MEASURED, SMALL_GRID, SMALL_GRID_LAYERS, add_image_options, shallower, vit_config
from benchmarks.kit.measuring import in_turn, median_ratio, seconds
from benchmarks.kit.observer import Observer
from benchmarks.kit.tables import Tables, figure_table, table, with_interval
from benchmarks.peers.libraries import peer, versions
from leanformer.config.images import ImageStudy
from leanformer.decide.statistics import compare
from leanformer.learn.losses import inputs_of
from leanformer.learn.step import TrainingStep, make_accelerator
from leanformer.learn.train import train
from leanformer.measure.cost import forward_flops, peak_memory
from leanformer.measure.quality import Predictions
from leanformer.model.weights import parameter_count
from leanformer.results.schema import rows_of
from leanformer.tasks.images import ImageClassification

DENSE, OWN, LONGER, MAGNITUDE = "baseline", "form", "longer", "magnitude"
STRUCTURED: dict[str, dict[str, Any]] = {
    "torch-pruning, uniform": {},
    "torch-pruning, isomorphic": {"global_pruning": True, "isomorphic": True},
}
"""Ways of torch-pruning -> its pruner's arguments."""
LABELS = {
    DENSE: "ViT, not pruned",
    OWN: "reduced form, from scratch",
    LONGER: "ViT, not pruned, tuned as the pruned ones",
    MAGNITUDE: "magnitude, zeros in place",
}
MEMORY_BATCH, SPEED_BATCH = 64, 256  # images of a training step, and of a forward pass
SEARCH_STEPS = 7  # of the pruning ratio, each halves what is left: to 1 %


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    add_image_options(parser, train_limit=10_000, epochs=8, seeds=(0, 1, 2))
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--search-epochs", type=int, default=1, help="of each rate")
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 3e-3, 1e-2])
    parser.add_argument("--rounds", type=int, default=5, help="of the speeds")


# Pruning


def prune_channels(model: PreTrainedModel, most: int, **settings: Any) -> PreTrainedModel:
    """Takes the channels of the smallest norm out by torch-pruning, until few enough numbers are left.

    Args:
        model: Hugging Face's ViT; it is left as it was.
        most: Stored numbers that may be left.
        settings: The pruner's.

    Returns:
        The largest that it finds, by halving, of those that fit.

    Raises:
        LeanformerError: torch-pruning is not installed.
    """
    pruning = peer("torch_pruning", "torch-pruning")

    def pruned(ratio: float) -> PreTrainedModel:
        student = copy.deepcopy(model).eval()
        attentions = [module for module in student.modules() if isinstance(module, ViTAttention)]
        config = student.config
        pruner = pruning.pruner.BasePruner(
            student,
            torch.zeros(1, config.num_channels, config.image_size, config.image_size),
            importance=pruning.importance.GroupMagnitudeImportance(),
            pruning_ratio=ratio,
            num_heads={
                projection: attention.num_attention_heads
                for attention in attentions
                for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
            },
            ignored_layers=[student.classifier],
            output_transform=lambda output: output.logits.sum(),
            **settings,
        )
        pruner.step()
        for attention in attentions:
            # The scores' scale stays: what is left of queries and keys goes on as it was.
            attention.head_dim = attention.q_proj.out_features // attention.num_attention_heads
        return student

    low, high = 0.0, 1.0
    best: PreTrainedModel | None = None
    with warnings.catch_warnings():
        # Of class token and positions, that they are pruned along their last dimension: so they should be.
        warnings.simplefilter("ignore")
        for _ in range(SEARCH_STEPS):
            ratio = (low + high) / 2
            student = pruned(ratio)
            if parameter_count(student) <= most:
                best, high = student, ratio
            else:
                low = ratio
    assert best is not None
    return best


def prune_weights(model: PreTrainedModel, most: int) -> PreTrainedModel:
    """Sets the smallest weights of all matrices to zero, but for the classifier's, and keeps them there in training.

    Args:
        model: It is left as it was.
        most: Numbers that are not zero afterwards, all others of the model included.
    """
    student = copy.deepcopy(model)
    matrices = [
        module.weight
        for name, module in student.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and name != "classifier"
    ]
    sizes = torch.cat([matrix.detach().abs().flatten() for matrix in matrices])
    left = most - (parameter_count(student) - len(sizes))
    threshold = sizes.topk(left).values[-1]
    for matrix in matrices:
        mask = matrix.detach().abs() >= threshold
        with torch.no_grad():
            matrix.mul_(mask)
        # A zero without a gradient stays one: its moments are zero, and decay is a multiple of it.
        matrix.register_hook(partial(torch.mul, mask))
    return student


def numbers_left(model: nn.Module) -> int:
    """Parameters that are not zero."""
    return sum(int(parameter.count_nonzero()) for parameter in model.parameters())


# Tuning


def tune(task: ImageClassification, model: PreTrainedModel, rate: float, seed: int, epochs: int) -> float:
    """Trains in place as the study trains; gives the validation accuracy, 0 where the training failed."""
    trained = train(
        model.train(),
        task.batches,
        task.study.train,
        rate,
        seed,
        Observer(task),
        make_accelerator("float32", CPU),
        epochs=epochs,
    )
    return trained.epochs[-1]["validation_accuracy"] if trained.status == "ok" else 0.0


def tune_all(
    task: ImageClassification,
    prune: Callable[[PreTrainedModel], PreTrainedModel],
    dense: dict[int, PreTrainedModel],
    zeros: bool,
) -> tuple[dict[str, Any], PreTrainedModel, np.ndarray]:
    """Prunes, if at all, and tunes every seed's ViT, at the rate that the first is best at after a search.

    Args:
        task: Of the study.
        prune: Gives a pruned copy.
        dense: Seed -> the trained ViT.
        zeros: Whether what is pruned is still there, as zeros.

    Returns:
        Figures; the first seed's model; whether each answer is right, shape (seeds, examples).
    """
    started = time.perf_counter()
    config = task.study.train
    seed, *_ = dense
    search_epochs = config.search_epochs or config.epochs
    search = {rate: tune(task, prune(dense[seed]), rate, seed, search_epochs) for rate in config.learning_rate}
    rate = max(search, key=lambda one: search[one])
    students = {seed: prune(model) for seed, model in dense.items()}
    before = [task.evaluate(student).score("accuracy") for student in students.values()]
    for seed, student in students.items():
        tune(task, student, rate, seed, config.epochs)
    right = np.stack([task.evaluate(student).correct for student in students.values()])
    first = next(iter(students.values()))
    figures = {
        "parameters": numbers_left(first) if zeros else parameter_count(first),
        "learning_rate": rate,
        "learning_rate_search": [{"learning_rate": rate, "accuracy": accuracy} for rate, accuracy in search.items()],
        "accuracy_before": before,
        "seconds": time.perf_counter() - started,
    }
    return figures, first, right


# Measuring


def study(arguments: argparse.Namespace) -> dict[str, Any]:
    """The ViT and the form, as plain data."""
    return {
        "name": "pruning",
        "data": {
            "source": arguments.data,
            "image_size": 28,
            "augment": [],  # which in trainings as short as these leaves the ViT at half of what it reads without
            "train_limit": arguments.train_limit,
        },
        "baseline": {"model": "vit", "config": vit_config(layers=arguments.layers)},
        "candidates": {OWN: {"plan": {**SMALL_GRID, **shallower(SMALL_GRID_LAYERS, arguments.layers)}}},
        "train": {
            "epochs": arguments.epochs,
            "learning_rate": arguments.rates,
            # With one rate there is nothing to search, and a study refuses what does nothing.
            **({"search_epochs": arguments.search_epochs} if len(arguments.rates) > 1 else {}),
        },
        "seeds": arguments.seeds,
        "measure": {"device": "cpu", "threads": arguments.threads, **NOT_MEASURED},
    }


def measure(arguments: argparse.Namespace) -> Result:
    """Accuracy, parameters, operations and speed of all ways."""
    peer("torch_pruning", "torch-pruning")  # before minutes of work
    own = lf.make_study(study(arguments))
    assert isinstance(own, ImageStudy)
    with runs_of("peers_pruning", arguments) as runs:
        results = lf.run(own, runs).results
        trials = {name: [runs / "trials" / name / f"seed-{seed}" for seed in own.seeds] for name in (DENSE, OWN)}
        dense = {seed: lf.load(path / "model") for seed, path in zip(own.seeds, trials[DENSE], strict=True)}
        models = {name: lf.load(paths[0] / "model") for name, paths in trials.items()}
        right = {
            name: np.stack([Predictions.read(path / "predictions.parquet").correct for path in paths])
            for name, paths in trials.items()
        }
    figures: dict[str, dict[str, Any]] = {
        row["name"]: {key: row[key] for key in ("parameters", "learning_rate", "learning_rate_search")}
        for row in rows_of(results)
    }
    most = figures[OWN]["parameters"]
    task = ImageClassification(own, CPU)
    ways: dict[str, Callable[[PreTrainedModel], PreTrainedModel]] = {
        LONGER: copy.deepcopy,
        **{name: partial(prune_channels, most=most, **settings) for name, settings in STRUCTURED.items()},
        MAGNITUDE: partial(prune_weights, most=most),
    }
    for name, prune in ways.items():
        figures[name], models[name], right[name] = tune_all(task, prune, dense, zeros=name == MAGNITUDE)
        progress(f"{name}: {right[name].mean():.2%}")
    (batch,) = task.batches.chosen(task.data.test, torch.arange(SPEED_BATCH) % len(task.data.test))
    inputs = inputs_of(batch)
    speeds = in_turn(
        {name: partial(_forward, model.eval(), inputs) for name, model in models.items()}, arguments.rounds
    )
    rows = []
    for name, model in models.items():
        gap = compare(right[OWN].astype(float), right[name].astype(float), own.accept.max_drop, 0.95).difference
        rows.append(
            {
                "way": name,
                **figures[name],
                "stored": parameter_count(model),
                "flops": forward_flops(model, task.example()),
                "accuracy": right[name].mean(axis=1).tolist(),
                "difference_to_form": None if name == OWN else {"mean": gap.mean, "low": gap.low, "high": gap.high},
                "speed": median_ratio(speeds[DENSE], speeds[name]),
                "rounds": speeds[name],
                "memory_mb": memory(task, model, batch),
            }
        )
    return {"peers": versions("torch-pruning"), "rows": rows}


def memory(task: ImageClassification, model: PreTrainedModel, batch: dict[str, Any]) -> dict[str, float]:
    """Megabytes of weights and of what is held at most beside them.

    Args:
        task: Of the study.
        model: It is left as it was.
        batch: Of ``SPEED_BATCH`` images.

    Returns:
        ``answering``: a forward pass of the batch; ``training``: a step of its first ``MEMORY_BATCH`` images, gradients
        and optimizer states included.
    """
    weights = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    step = TrainingStep(copy.deepcopy(model).train(), task.study.train, 1e-3, make_accelerator("float32", CPU))
    few = {name: tensor[:MEMORY_BATCH] for name, tensor in batch.items()}
    with torch.inference_mode():
        answering = peak_memory(lambda: model(**inputs_of(batch)), CPU)
    found = {"answering": answering, "training": peak_memory(lambda: step(few), CPU)}
    step.close()
    return {name: (weights + held) / 1e6 for name, held in found.items()}


@torch.inference_mode()
def _forward(model: PreTrainedModel, inputs: dict[str, Any]) -> float:
    return seconds(lambda: model(**inputs))


# The page


def tables(result: Result) -> Tables:
    """The form, the ViT, and what is pruned."""
    measured = all("memory_mb" in row for row in result["rows"])
    dense = next(row for row in result["rows"] if row["way"] == DENSE)
    lines = [
        (
            LABELS.get(row["way"], row["way"]),
            f"{row['parameters']:,}",
            f"{row['stored']:,}",
            f"{row['flops'] / 1e6:.1f}",
            speed_of(row, dense),
            *([f"{row['memory_mb']['answering']:.1f} / {row['memory_mb']['training']:.1f} MB"] if measured else []),
            "" if "accuracy_before" not in row else f"{100 * statistics.fmean(row['accuracy_before']):.2f} %",
            f"{100 * statistics.fmean(row['accuracy']):.2f} %",
            with_interval(row["difference_to_form"], 2, 100),
        )
        for row in result["rows"]
    ]
    header = (
        "way",
        "parameters",
        "stored numbers",
        "million operations an image",
        "speed",
        *(["memory"] if measured else []),
        "before tuning",
        "tuned",
        "points to the form",
    )
    return {
        "ways": table(header, lines),
        "figures": figure_table(
            {"torch-pruning": result["peers"]["torch-pruning"], "layers of the form": SMALL_GRID_LAYERS}
        ),
    }


def speed_of(row: Mapping[str, Any], dense: Mapping[str, Any]) -> str:
    """Of a forward pass, as a multiple of the ViT's, with the range of the rounds."""
    if row is dense:
        return "1.00 x"
    ratios = [whole / own for whole, own in zip(dense["rounds"], row["rounds"], strict=True)]
    return f"{row['speed']:.2f} x ({min(ratios):.1f} to {max(ratios):.1f})"


BENCHMARK = register(
    "peers",
    Benchmark(
        name="peers_pruning",
        add_arguments=add_arguments,
        measure=measure,
        tables=tables,
        quick={
            "data": "digits",
            "layers": 1,
            "train_limit": 128,
            "epochs": 1,
            "search_epochs": 1,
            "rates": [1e-3],
            "seeds": [0],
            "rounds": 1,
        },
    ),
)

"""The rows of ``minimal`` trained as batched models, all rates and seeds of a form at once; and what that gains."""

from __future__ import annotations

import argparse
import copy
import gc
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from transformers import PreTrainedModel

from benchmarks.kit.benchmark import progress
from benchmarks.kit.measuring import in_turn, median_ratio
from benchmarks.quality.minimal_rows import DATA, VALIDATION, Row, epochs_of, rates_of, source_of
from leanformer.config.classification import ClassAcceptConfig
from leanformer.config.images import ImageDataConfig, ImageTrainConfig
from leanformer.core.errors import LeanformerError
from leanformer.core.files import make_directory, write_atomically
from leanformer.core.machine import threads
from leanformer.core.signatures import files_signature
from leanformer.data.image_batches import ImageBatches
from leanformer.data.images import ImageData, load_images
from leanformer.decide.statistics import compare, quality_interval
from leanformer.learn.batched import StackedStep, StackedTraining, advance_together, example_order
from leanformer.learn.losses import Batch
from leanformer.learn.step import TrainingStep, make_accelerator
from leanformer.measure.cost import forward_flops, overdetermination_ratio
from leanformer.model.weights import parameter_count

TENSOR_FLOAT = "float32 (products in TF32)"
"""The precision of what is trained here on a GPU."""
LATENCY_CALLS = 20
LATENCY_ROUNDS = 3


@contextmanager
def tensor_float() -> Iterator[None]:
    """Products of float32 on a GPU in TF32, as long as it lasts."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def load_data(data: str, arguments: argparse.Namespace, device: torch.device) -> ImageData:
    """A data set on a device, split as the studies split it."""
    images = DATA[data]
    source = ImageDataConfig(
        source=source_of(data, arguments), validation_fraction=VALIDATION, train_limit=arguments.train_limit
    )
    return load_images(source, device, (images.pixels, images.pixels), images.channels)


def batches_of(row: Row, data: ImageData, arguments: argparse.Namespace) -> ImageBatches:
    """What a row is trained on."""
    return ImageBatches(data, arguments.batch_size, row.augment, data.mean, data.std)


def fresh_models(row: Row, seeds: Sequence[int], device: torch.device) -> list[PreTrainedModel]:
    """The row with each seed's random weights, in training mode."""
    models = []
    for seed in seeds:
        torch.manual_seed(seed)
        models.append(row.model().to(device).train())
    return models


@dataclass(frozen=True)
class Trained:
    """What a form's trainings ended with, by rate and seed.

    Args:
        validation: Accuracy, shape (rates, seeds).
        right: Whether each test answer is right, shape (rates, seeds, examples).
        finite: Whether every loss and gradient was, shape (rates, seeds).
        seconds: Of one training: the time that all took together, divided by their number.
    """

    validation: np.ndarray
    right: np.ndarray
    finite: np.ndarray
    seconds: float

    def save(self, path: Path, settings: str) -> None:
        """Writes it with what it follows from, whole or not at all."""
        content = BytesIO()
        np.savez_compressed(content, settings=np.array(settings), **asdict(self))
        make_directory(path.parent)
        write_atomically(path, content.getvalue())

    @classmethod
    def read(cls, path: Path, settings: str) -> Trained | None:
        """What is there, if it follows from the same.

        Raises:
            LeanformerError: The file is damaged.
        """
        if not path.exists():
            return None
        try:
            with np.load(path) as there:
                if str(there["settings"]) != settings:
                    return None
                return cls(there["validation"], there["right"], there["finite"], float(there["seconds"]))
        except (BadZipFile, KeyError, OSError, ValueError):
            raise LeanformerError(f"{path}: damaged; delete it and run again") from None

    def best_rate(self) -> int | None:
        """Number of the rate whose seeds do best on validation data, all of them finite; None if there is none."""
        mean = np.where(self.finite.all(axis=1), self.validation.mean(axis=1), -np.inf)
        return int(mean.argmax()) if np.isfinite(mean).any() else None


def train_rows(
    rows: Sequence[Row], data: ImageData, arguments: argparse.Namespace, device: torch.device, runs: Path
) -> dict[str, Trained]:
    """Trains the rows of one data set, some of them side by side.

    Returns:
        Key of each row -> its trainings.
    """
    files = {row.key: runs / f"{row.key}.npz" for row in rows}
    settings = {row.key: settings_of(row, arguments, device) for row in rows}
    read = {key: Trained.read(path, settings[key]) for key, path in files.items()}
    found = {key: there for key, there in read.items() if there is not None}
    waiting = [row for row in rows if row.key not in found]
    if not waiting:
        return found
    # All rows of a data set are trained as long.
    epochs = epochs_of(waiting[0], arguments)
    order = example_order(batches_of(waiting[0], data, arguments), arguments.seeds, epochs, device)
    for start in range(0, len(waiting), arguments.side_by_side):
        chunk = waiting[start : start + arguments.side_by_side]
        for row, trained in zip(chunk, train_chunk(chunk, data, arguments, order, device), strict=True):
            trained.save(files[row.key], settings[row.key])
            found[row.key] = trained
        done = ", ".join(f"{row.name} {100 * found[row.key].validation.mean(axis=1).max():.2f} %" for row in chunk)
        progress(f"{rows[0].data}: {len(found)} of {len(rows)} forms; on validation images {done}")
    return found


def settings_of(row: Row, arguments: argparse.Namespace, device: torch.device) -> str:
    """Everything that a row's trainings follow from."""
    source = source_of(row.data, arguments)
    return repr(
        {
            "source": source,
            "files": files_signature(source),
            "validation": VALIDATION,
            "train_limit": arguments.train_limit,
            "config": row.config(),
            "plan": row.plan,
            "augment": row.augment,
            "train": training_config(arguments).model_dump(),
            "epochs": epochs_of(row, arguments),
            "rates": rates_of(row, arguments),
            "seeds": arguments.seeds,
            "device": device.type,
        }
    )


def training_config(arguments: argparse.Namespace) -> ImageTrainConfig:
    """How all rows are trained, but for their rates and epochs."""
    return ImageTrainConfig(batch_size=arguments.batch_size)


def train_chunk(
    rows: Sequence[Row], data: ImageData, arguments: argparse.Namespace, order: torch.Tensor, device: torch.device
) -> list[Trained]:
    """Trains some rows side by side, with all rates and seeds of each."""
    trainings = []
    started = time.perf_counter()
    for row in rows:
        rates = rates_of(row, arguments)
        models = fresh_models(row, arguments.seeds, device) * len(rates)
        peaks = [rate for rate in rates for _ in arguments.seeds]
        step = StackedStep(models, training_config(arguments), peaks)
        batches = batches_of(row, data, arguments)
        trainings.append(StackedTraining(step, batches, order, seed=0))
    advance_together(trainings)
    seconds = (time.perf_counter() - started) / sum(training.step.models for training in trainings)
    found = []
    for row, training in zip(rows, trainings, strict=True):
        shape = (len(rates_of(row, arguments)), len(arguments.seeds))
        validation, right = (
            (training.answers(split) == split.labels).cpu().numpy().reshape(*shape, -1)
            for split in (data.validation, data.test)
        )
        finite = training.losses.isfinite().all(dim=0).cpu().numpy().reshape(shape)
        found.append(Trained(validation.mean(axis=2), right, finite, seconds))
    del trainings, training, step, models
    gc.collect()  # a graph holds its memory
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return found


def latencies(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Milliseconds of one image through each row on one CPU thread, measured in turn."""
    calls: dict[str, list[float]] = {row.key: [] for row in rows}
    ways = {row.key: partial(time_calls, row.model().eval(), example_of(row), calls[row.key]) for row in rows}
    with threads(1), torch.inference_mode():
        in_turn(ways, LATENCY_ROUNDS, warm_up=0)
    return {key: {"p50": statistics.median(own), "p95": float(np.quantile(own, 0.95))} for key, own in calls.items()}


def time_calls(model: PreTrainedModel, example: Batch, calls: list[float]) -> float:
    """Times calls of a model, after some that are not; gives the sum."""
    found = []
    for number in range(LATENCY_CALLS + LATENCY_CALLS // 2):
        started = time.perf_counter()
        model(**example)
        if number >= LATENCY_CALLS // 2:
            found.append(1e3 * (time.perf_counter() - started))
    calls += found
    return sum(found)


def example_of(row: Row) -> Batch:
    """One image of zeros."""
    images = DATA[row.data]
    return {"pixel_values": torch.zeros(1, images.channels, images.pixels, images.pixels)}


def figures_of(
    row: Row, trained: Trained, reference: Trained | None, training_images: int, arguments: argparse.Namespace
) -> dict[str, Any]:
    """A row's figures as a study has them, but for its latency.

    Args:
        row: Which.
        trained: Its trainings.
        reference: Those of the first row of its study; None for that itself.
        training_images: How many there are.
        arguments: The options.
    """
    accept = ClassAcceptConfig()
    model = row.model().eval()
    rates, best = rates_of(row, arguments), trained.best_rate()
    figures: dict[str, Any] = {
        "status": "failed" if best is None else "ok",
        "parameters": parameter_count(model),
        "q_ratio": overdetermination_ratio(training_images, 10, parameter_count(model)),
        "flops_per_example": forward_flops(model, example_of(row)),
        "learning_rate": rates[best or 0],
        "learning_rate_search": [
            {"learning_rate": rate, "accuracy": float(accuracy.mean()), "diverged": int((~finite).sum())}
            for rate, accuracy, finite in zip(rates, trained.validation, trained.finite, strict=True)
        ],
        "quality": None,
        "difference": None,
        "train_seconds": trained.seconds,
        "failures": [],
        "rollbacks": [],
        "validation_accuracy": [],
    }
    if best is None:
        seed = next(seed for seed, finite in zip(arguments.seeds, trained.finite[0], strict=True) if not finite)
        reason = "there is no rate at which the losses of all seeds stayed finite"
        return figures | {"failures": [{"seed": seed, "reason": reason}]}
    right = trained.right[best].astype(float)
    figures["quality"] = asdict(quality_interval(right, accept.confidence)) | {"per_seed": right.mean(axis=1).tolist()}
    figures["validation_accuracy"] = trained.validation[best].tolist()
    if reference is not None and (base := reference.best_rate()) is not None:
        comparison = compare(reference.right[base].astype(float), right, accept.max_drop, accept.confidence)
        figures["difference"] = asdict(comparison.difference)
    return figures


STEPS = 20
"""Training steps of a model and round where stacked training is measured."""


def speed_stacked(step: StackedStep, batches: ImageBatches, seeds: int) -> float:
    """Images a second of all models trained as one, each batch made and each kernel launched by the host."""
    images = 0
    started = time.perf_counter()
    streams = [batches.training(seed, epoch=0) for seed in range(seeds)]
    for own in islice(zip(*streams, strict=True), STEPS):
        losses = step({name: torch.stack([batch[name] for batch in own]) for name in own[0]})
        images += sum(len(batch["labels"]) for batch in own)
    losses.sum().item()  # waits for the device
    return images / (time.perf_counter() - started)


def speed_without_host(training: StackedTraining) -> float:
    """Images a second of all models trained as one, on a GPU as a graph; there must be steps left."""
    started = time.perf_counter()
    for _ in range(STEPS):
        training.advance()
    training.wait()
    return STEPS * training.images_a_step / (time.perf_counter() - started)


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
    config = training_config(arguments)
    accelerator = make_accelerator("float32", device)
    loaded: dict[str, ImageData] = {}
    found = []
    for row in rows:
        rate = rates_of(row, arguments)[0]
        if row.data not in loaded:
            loaded[row.data] = load_data(row.data, arguments, device)
        batches = batches_of(row, loaded[row.data], arguments)
        seeds = range(arguments.stacked)
        models = fresh_models(row, seeds, device)
        stacked = StackedStep(models, config, rate)
        single = [TrainingStep(copy.deepcopy(model), config, rate, accelerator) for model in models]
        ways = {
            "stacked": partial(speed_stacked, stacked, batches, len(models)),
            "in turn": partial(speed_in_turn, single, batches),
        }
        if device.type == "cuda":
            epochs = -(-STEPS * (arguments.rounds + 1) // (len(loaded[row.data].train) // arguments.batch_size or 1))
            order = example_order(batches, seeds, epochs, device)
            whole = StackedTraining(StackedStep(models, config, rate), batches, order, seed=0)
            ways["as a graph"] = partial(speed_without_host, whole)
        speeds = in_turn(ways, arguments.rounds)
        for step in single:
            step.close()
        gains = {name: median_ratio(own, speeds["in turn"]) for name, own in speeds.items()}
        found.append(
            {
                "data": row.data,
                "group": row.group,
                "name": row.name,
                "parameters": parameter_count(models[0]),
                "seeds": len(models),
                "batch_size": arguments.batch_size,
                "precision": TENSOR_FLOAT if device.type == "cuda" else "float32",
                "images_per_second": {name: statistics.median(own) for name, own in speeds.items()},
                "gains": gains,
                "rounds": speeds,
            }
        )
        said = ", ".join(f"{name} {gain:.2f}" for name, gain in gains.items() if name != "in turn")
        progress(f"{row.data} {row.name}: times as fast as in turn: {said}")
    return found

"""Training by transformers' Trainer, as leanformer trains."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset, IterableDataset
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from leanformer.config.images import ImageTrainConfig
from leanformer.data.image_batches import ImageBatches
from leanformer.data.images import ImageSplit
from leanformer.learn.losses import Batch
from leanformer.learn.step import make_optimizer

RATE = 1e-3


class Images(Dataset[Batch]):
    """Single images and their classes, normalized beforehand."""

    def __init__(self, batches: ImageBatches, split: ImageSplit) -> None:
        parts = list(batches.evaluation(split))
        self.pixel_values = torch.cat([batch["pixel_values"] for batch in parts])
        self.labels = torch.cat([batch["labels"] for batch in parts])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Batch:
        return {"pixel_values": self.pixel_values[index], "labels": self.labels[index]}


class ReadyBatches(IterableDataset[Batch]):
    """An epoch of leanformer's batches."""

    def __init__(self, batches: ImageBatches) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Batch]:
        return self.batches.training(seed=0, epoch=0)


class ReadyTrainer(Trainer):
    """A trainer whose data set gives whole batches."""

    def get_train_dataloader(self) -> DataLoader[Any]:
        """One item is one batch."""
        return DataLoader(self.train_dataset, batch_size=None)


class StepEnds(TrainerCallback):
    """When each step ended, in seconds."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_end(self, *arguments: Any, **named: Any) -> None:
        """Called by the trainer."""
        self.seconds.append(time.perf_counter())


def trainer_settings(directory: str | Path, batch_size: int, **settings: Any) -> TrainingArguments:
    """The trainer's arguments for training on the CPU as ``ImageTrainConfig`` says, without files, logs and bars."""
    return TrainingArguments(
        output_dir=str(directory),
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=1000,
        max_grad_norm=ImageTrainConfig().clip_norm,
        use_cpu=True,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **settings,
    )


def train_steps(
    model: PreTrainedModel, data: Images | ReadyBatches, batch_size: int, steps: int, directory: str | Path
) -> list[float]:
    """Trains with ``Trainer`` at a constant rate, by the very optimizer of leanformer's step; when each step ended."""
    optimizer = make_optimizer(model, ImageTrainConfig(), RATE)
    ends = StepEnds()
    kind = ReadyTrainer if isinstance(data, ReadyBatches) else Trainer
    trainer = kind(
        model=model,
        args=trainer_settings(directory, batch_size, max_steps=steps),
        train_dataset=data,
        optimizers=(optimizer, LambdaLR(optimizer, lambda _: 1.0)),
        callbacks=[ends],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return ends.seconds

"""Model inputs from a data set's splits: shuffled, augmented and normalized on the device, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from leanformer.data.augment import augment, normalize
from leanformer.data.images import ImageData, ImageSplit


def _generator(device: torch.device | str, *path: int) -> torch.Generator:
    """A generator that depends on the path alone (seed, epoch, ...), so that any step can be repeated."""
    state = int(np.random.SeedSequence(path).generate_state(1, dtype=np.uint64)[0] >> 1)
    return torch.Generator(device=device).manual_seed(state)


class JoinedSplit:
    """The examples of one split, and after them those of another.

    Args:
        first: The first.
        second: The second.
    """

    def __init__(self, first: ImageSplit, second: ImageSplit) -> None:
        self._parts = (first, second)
        self.labels = torch.cat([first.labels, second.labels])  # (n,) int64

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, index_batches: Sequence[torch.Tensor]) -> Iterator[dict[str, torch.Tensor]]:
        """As of any split (``ImageSplit``); in each batch the first split's examples come first."""
        first, second = self._parts
        own = [batch[batch < len(first)] for batch in index_batches]
        others = [batch[batch >= len(first)] - len(first) for batch in index_batches]
        # Each split reads ahead for itself, and is asked for no empty batch.
        reading = [
            split.batches([batch for batch in batches if len(batch)])
            for split, batches in ((first, own), (second, others))
        ]
        for sizes in zip(map(len, own), map(len, others), strict=True):
            read = [next(batches) for batches, size in zip(reading, sizes, strict=True) if size]
            yield {name: torch.cat([batch[name] for batch in read]) for name in read[0]}


@dataclass(frozen=True)
class ImageBatches:
    """The batches that a model is trained and evaluated on.

    Args:
        data: The splits.
        batch_size: Examples in a training step.
        augmentation: Names of augmentations, applied to training batches in this order.
        mean: Per channel, in pixel values from 0 to 1; subtracted.
        std: Per channel; divided by.
        evaluation_batch_size: Examples in a batch without gradients.
    """

    data: ImageData
    batch_size: int
    augmentation: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    evaluation_batch_size: int = 1000

    @property
    def steps_per_epoch(self) -> int:
        """Training steps in an epoch; the last batch may be smaller."""
        return -(-len(self.data.train) // self.batch_size)

    def order(self, seed: int, epoch: int) -> torch.Tensor:
        """The training examples' numbers in the order of one epoch, shape (examples,), on the CPU."""
        return torch.randperm(len(self.data.train), generator=_generator("cpu", seed, epoch))

    def training(self, seed: int, epoch: int, first_step: int = 0) -> Iterator[dict[str, torch.Tensor]]:
        """The batches of one epoch from ``first_step`` on; equal arguments give equal batches."""
        steps = self.data.train.batches(self.order(seed, epoch).split(self.batch_size)[first_step:])
        for step, batch in enumerate(steps, start=first_step):
            pixels = batch["pixel_values"]
            if self.augmentation:
                generator = _generator(pixels.device, seed, epoch, step)
                pixels = augment(pixels, self.augmentation, generator)
            yield {"pixel_values": normalize(pixels, self.mean, self.std, torch.float32), "labels": batch["labels"]}

    def evaluation(self, split: ImageSplit) -> Iterator[dict[str, torch.Tensor]]:
        """All of a split in its own order, without augmentation."""
        return self.chosen(split, torch.arange(len(split)), self.evaluation_batch_size)

    def chosen(
        self, split: ImageSplit, indices: torch.Tensor, batch_size: int | None = None
    ) -> Iterator[dict[str, torch.Tensor]]:
        """Chosen examples of a split in the given order, without augmentation; in one batch by default."""
        for batch in split.batches(indices.split(batch_size or len(indices))):
            yield {
                "pixel_values": normalize(batch["pixel_values"], self.mean, self.std, torch.float32),
                "labels": batch["labels"],
            }

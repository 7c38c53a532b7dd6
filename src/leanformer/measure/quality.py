"""A classifier's predictions, example by example."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import nn

from leanformer.measure.parquet import read_columns, read_groups, to_parquet
from leanformer.results.metrics import METRICS, Labels


@dataclass(frozen=True)
class Predictions:
    """A classifier's predictions, one entry per example.

    Args:
        labels: The correct classes, shape (examples,).
        predictions: The predicted classes, shape (examples,).
        losses: Cross-entropy per example in nats, shape (examples,).
        groups: The name of each example's group, which the table then shows; None where each stands for itself.
    """

    labels: np.ndarray
    predictions: np.ndarray
    losses: np.ndarray
    groups: Sequence[str] | None = None

    @property
    def correct(self) -> np.ndarray:
        """Whether each prediction is correct, shape (examples,), boolean."""
        return np.asarray(self.labels == self.predictions)

    @property
    def signature(self) -> str:
        """A hash of the predicted classes: what there is to see of them."""
        return hashlib.sha256(np.ascontiguousarray(self.predictions, dtype=np.int64).tobytes()).hexdigest()

    def statistics(self, metric: str) -> np.ndarray:
        """What each example contributes to a metric of labels, shape (examples, counts); see ``Metric.statistics``."""
        return METRICS[metric].statistics(Labels(self.labels, self.predictions))

    def score(self, metric: str) -> float:
        """The value of a metric of labels."""
        return METRICS[metric].of(self.statistics(metric))

    @property
    def loss(self) -> float:
        """Mean cross-entropy in nats."""
        return float(self.losses.mean())

    def table(self) -> pa.Table:
        """A table with one row per example: example, label, prediction, correct, loss, and the group if there are."""
        columns = {
            "example": np.arange(len(self.labels)),
            "label": self.labels,
            "prediction": self.predictions,
            "correct": self.correct,
            "loss": self.losses,
        }
        return pa.table(columns | ({} if self.groups is None else {"group": list(self.groups)}))

    def to_bytes(self) -> bytes:
        """The table as a parquet file's content."""
        return to_parquet(self.table())

    @classmethod
    def read(cls, path: Path) -> Predictions:
        """Reads a table back.

        Raises:
            LeanformerError: The file is missing or damaged.
        """
        columns = read_columns(path, ("label", "prediction", "loss"), "predictions")
        labels, predictions, losses = (column.to_numpy() for column in columns)
        return cls(labels, predictions, losses, read_groups(path, "predictions"))


Batch = Mapping[str, torch.Tensor]


def predict(model: nn.Module, batches: Iterable[Batch]) -> Predictions:
    """A classifier's predictions for batches of named inputs with ``labels``. Leaves the model in evaluation mode.

    Args:
        model: Called with each batch without its labels; returns ``logits`` of shape (batch, classes).
        batches: Inputs on the model's device.
    """
    model.eval()
    return predict_with(lambda inputs: model(**inputs).logits.float(), batches)


@torch.inference_mode()
def predict_with(logits_of: Callable[[Batch], torch.Tensor], batches: Iterable[Batch]) -> Predictions:
    """The predictions of whatever gives logits, such as an exported classifier.

    Args:
        logits_of: A batch without its labels -> logits, shape (batch, classes).
        batches: As in ``predict``.
    """
    labels, predictions, losses = [], [], []
    for batch in batches:
        logits = logits_of({name: tensor for name, tensor in batch.items() if name != "labels"})
        labels.append(batch["labels"])
        predictions.append(logits.argmax(dim=-1))
        losses.append(F.cross_entropy(logits, batch["labels"], reduction="none"))
    first, second, third = (torch.cat(part).cpu().numpy() for part in (labels, predictions, losses))
    return Predictions(first, second, third)

"""A classifier's predictions, example by example."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from torch import nn

from leanformer.measure.parquet import read_columns, read_groups, to_parquet
from leanformer.results.metrics import METRICS, Labels, Metric, metrics_of

PROBABILITIES = ("losses", "logits")
"""The fields of ``Labels`` that hold more of a model's probabilities than the class that it finds."""
THRESHOLDS = "thresholds"
"""Of the metrics that need one, in the metadata of the file's schema."""


@dataclass(frozen=True)
class Predictions(Labels):
    """A classifier's predictions, one entry per example; see ``Labels``. The losses are always there.

    Args:
        groups: The name of each example's group, which the table then shows; None where each stands for itself.
    """

    groups: Sequence[str] | None = None

    @property
    def correct(self) -> np.ndarray:
        """Whether each prediction is correct, shape (examples,), boolean."""
        return np.asarray(self.labels == self.predictions)

    def signatures(self, metric: Metric) -> list[str]:
        """Hashes of what there is to see of them: the classes, and the probabilities where a metric reads these.

        Args:
            metric: The metric of the study.
        """
        read = [np.asarray(self.predictions, dtype=np.int64)]
        read += [np.asarray(getattr(self, name), dtype=np.float32) for name in PROBABILITIES if name in metric.needs]
        return [hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest() for values in read]

    def statistics(self, metric: str) -> np.ndarray:
        """What each example contributes to a metric of labels, shape (examples, counts); see ``Metric.statistics``."""
        return METRICS[metric].statistics(self)

    def score(self, metric: str) -> float:
        """The value of a metric of labels."""
        return METRICS[metric].of(self.statistics(metric))

    def scores(self) -> dict[str, float]:
        """The value of each metric of labels that can be computed, by the metric's key."""
        return {metric.key: self.score(metric.key) for metric in metrics_of("labels") if metric.measures(self)}

    def with_thresholds(self, validation: Labels) -> Predictions:
        """The same, with the thresholds of those metrics that choose one on the validation split.

        Args:
            validation: The same model's predictions there.
        """
        chosen = {
            metric.key: metric.threshold(validation)
            for metric in metrics_of("labels")
            if metric.threshold is not None and all(getattr(validation, name) is not None for name in metric.needs)
        }
        return replace(self, thresholds=chosen)

    def select(self, rows: np.ndarray) -> Predictions:
        """The predictions of these examples, in their order."""
        groups = None if self.groups is None else [self.groups[row] for row in rows.tolist()]
        return replace(
            self,
            labels=self.labels[rows],
            predictions=self.predictions[rows],
            losses=None if self.losses is None else self.losses[rows],
            logits=None if self.logits is None else self.logits[rows],
            groups=groups,
        )

    @property
    def loss(self) -> float:
        """Mean cross-entropy in nats."""
        assert self.losses is not None
        return float(self.losses.mean())

    def table(self) -> pa.Table:
        """A table with one row per example: example, label, prediction, correct, loss; logits where they are
        kept, and the group if there are.

        Thresholds are in the metadata of the schema.
        """
        columns: dict[str, Any] = {
            "example": np.arange(len(self.labels)),
            "label": self.labels,
            "prediction": self.predictions,
            "correct": self.correct,
            "loss": self.losses,
        }
        if self.groups is not None:
            columns["group"] = list(self.groups)
        if self.logits is not None:
            flat = pa.array(self.logits.astype(np.float32).reshape(-1))
            columns["logits"] = pa.FixedSizeListArray.from_arrays(flat, self.logits.shape[1])
        table = pa.table(columns)
        return table.replace_schema_metadata({THRESHOLDS: json.dumps(self.thresholds)}) if self.thresholds else table

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
        found = cls(labels, predictions, losses, groups=read_groups(path, "predictions"))
        schema = pq.read_schema(path)
        if "logits" not in schema.names:
            return found
        (logits,) = read_columns(path, ("logits",), "predictions")
        flat = logits.combine_chunks().flatten().to_numpy()
        thresholds = json.loads((schema.metadata or {}).get(THRESHOLDS.encode(), b"{}"))
        return replace(found, logits=flat.reshape(len(found.labels), -1), thresholds=thresholds)


@dataclass(frozen=True)
class PooledPredictions(Predictions):
    """The predictions of the models of all folds of a cross-validation, each of its own examples.

    Thresholds and rankings are those of one model, so what examples contribute to a metric is found fold by fold.

    Args:
        folds: The numbers of each fold's examples in the pool, and the fold's predictions.
    """

    folds: Sequence[tuple[np.ndarray, Predictions]] = ()

    @classmethod
    def of(cls, folds: Sequence[tuple[np.ndarray, Predictions]]) -> PooledPredictions:
        """Puts the predictions of all folds in the pool's order; the folds hold each example once."""

        def in_order(field: str) -> np.ndarray:
            return _in_order([(rows, getattr(answers, field)) for rows, answers in folds])

        return cls(in_order("labels"), in_order("predictions"), in_order("losses"), folds=folds)

    def statistics(self, metric: str) -> np.ndarray:
        return _in_order([(rows, answers.statistics(metric)) for rows, answers in self.folds])


def _in_order(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Values of some examples each, in the order of the examples' numbers.

    Args:
        parts: Numbers, shape (examples,), and values, shape (examples, ...).
    """
    order = np.argsort(np.concatenate([rows for rows, _ in parts]))
    return np.concatenate([values for _, values in parts])[order]


Batch = Mapping[str, torch.Tensor]


def predict(model: nn.Module, batches: Iterable[Batch], keep_logits: bool = False) -> Predictions:
    """A classifier's predictions for batches of named inputs with ``labels``. Leaves the model in evaluation mode.

    Args:
        model: Called with each batch without its labels; returns ``logits`` of shape (batch, classes).
        batches: Inputs on the model's device.
        keep_logits: Whether the predictions hold the logits, which need 4 bytes for each example and class.
    """
    model.eval()
    return predict_with(lambda inputs: model(**inputs).logits.float(), batches, keep_logits)


@torch.inference_mode()
def predict_with(
    logits_of: Callable[[Batch], torch.Tensor], batches: Iterable[Batch], keep_logits: bool = False
) -> Predictions:
    """The predictions of whatever gives logits, such as an exported classifier.

    Args:
        logits_of: A batch without its labels -> logits, shape (batch, classes).
        batches: As in ``predict``.
        keep_logits: As in ``predict``.
    """
    labels, predictions, losses, kept = [], [], [], []
    for batch in batches:
        logits = logits_of({name: tensor for name, tensor in batch.items() if name != "labels"})
        labels.append(batch["labels"])
        predictions.append(logits.argmax(dim=-1))
        losses.append(F.cross_entropy(logits, batch["labels"], reduction="none"))
        if keep_logits:
            kept.append(logits)
    return Predictions(
        labels=torch.cat(labels).cpu().numpy(),
        predictions=torch.cat(predictions).cpu().numpy(),
        losses=torch.cat(losses).cpu().numpy(),
        logits=torch.cat(kept).cpu().numpy() if kept else None,
    )

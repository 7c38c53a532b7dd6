"""A classifier of texts that is opened: texts, or pairs of texts, in; names and probabilities out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from leanformer.core.errors import LeanformerError
from leanformer.runtime.classifier import BATCH, Prediction, predictions_of, softmax

Ids = NDArray[np.int64]


class Encodes(Protocol):
    """A tokenizer of classifiers (``data.classifier_tokenizers``).

    Attributes:
        pad_id: The id of padding.
    """

    pad_id: int

    def encode(
        self, texts: Sequence[str], seconds: Sequence[str] | None, max_tokens: int
    ) -> tuple[list[list[int]], list[list[int]]]:
        """The ids of texts, cut to ``max_tokens``, and of which text of a pair each token is."""


class Reads(Protocol):
    """What computes the logits of texts."""

    def logits(self, input_ids: Ids, attention_mask: Ids, token_type_ids: Ids) -> NDArray[np.float32]:
        """(batch, tokens) each -> (batch, classes)."""


class TextClassifier:
    """A classifier of texts, with its tokenizer.

    Args:
        classes: The names of the classes, in the order of the outputs.
        tokenizer: The model's.
        engine: What computes its logits.
        max_tokens: Longer texts are cut to so many tokens, as in training.
    """

    def __init__(self, classes: Sequence[str], tokenizer: Encodes, engine: Reads, max_tokens: int) -> None:
        self.classes = tuple(classes)
        self.max_tokens = max_tokens
        self._tokenizer = tokenizer
        self._engine = engine

    def predict(
        self,
        texts: Sequence[str],
        seconds: Sequence[str] | None = None,
        batch: int = BATCH,
        progress: Callable[[int], object] | None = None,
    ) -> list[Prediction]:
        """The most probable class of each text, and the probabilities of all.

        Args:
            texts: The texts.
            seconds: The other text of each pair, for a model that was trained on pairs.
            batch: Texts that are computed at once.
            progress: Called after each batch with its number of texts.

        Raises:
            LeanformerError: There are more other texts than texts, or fewer.
        """
        if seconds is not None and len(seconds) != len(texts):
            raise LeanformerError(f"seconds: {len(seconds):,} for {len(texts):,} texts; give one for each")
        ids, types = self._tokenizer.encode(texts, seconds, self.max_tokens)
        rows = np.zeros((len(texts), len(self.classes)))
        for chosen in _batches(ids, batch):
            longest = max(1, *(len(ids[row]) for row in chosen))
            padded = np.full((len(chosen), longest), self._tokenizer.pad_id, np.int64)
            mask, sides = np.zeros_like(padded), np.zeros_like(padded)
            for place, row in enumerate(chosen):
                length = len(ids[row])
                padded[place, :length], mask[place, :length], sides[place, :length] = ids[row], 1, types[row]
            rows[chosen] = softmax(self._engine.logits(padded, mask, sides))
            if progress is not None:
                progress(len(chosen))
        return predictions_of(self.classes, rows)


def _batches(ids: Sequence[Sequence[int]], batch: int) -> Iterator[list[int]]:
    """Texts of similar length together, by their numbers."""
    order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
    for start in range(0, len(order), batch):
        yield order[start : start + batch]

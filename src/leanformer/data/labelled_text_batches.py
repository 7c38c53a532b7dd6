"""Encoded labelled texts as batches of tensors: a token budget for each batch, texts of similar length together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from leanformer.data.classifier_tokenizers import ClassifierTokenizer
from leanformer.data.labelled_texts import LabelledTexts
from leanformer.data.text_batches import ENCODED_AT_A_TIME, DeviceSentences, Rows, Sentences, length_batches


@dataclass(frozen=True)
class EncodedTexts:
    """The ids of n texts with their classes.

    Args:
        tokens: The ids, marks included.
        types: Of each token whether it is of the first text of a pair (0) or the second (1); None where the model
            does not read it.
        labels: (n,) int64 class numbers, on the device.
        cut: How many texts were cut.
    """

    tokens: Sentences
    types: Sentences | None
    labels: Tensor
    cut: int

    def __len__(self) -> int:
        return len(self.tokens)


def encode_labelled(
    texts: LabelledTexts, tokenizer: ClassifierTokenizer, max_tokens: int, reads_types: bool, device: torch.device
) -> EncodedTexts:
    """Encodes labelled texts, cut to ``max_tokens``.

    Args:
        texts: The texts.
        tokenizer: The model's.
        max_tokens: Most tokens of a text, or of both of a pair, marks included.
        reads_types: Whether the model reads of which text of a pair a token is.
        device: Where the labels go.
    """
    ids: list[np.ndarray] = []
    types: list[np.ndarray] = []
    cut = 0
    for start in range(0, len(texts), ENCODED_AT_A_TIME):
        part = [side[start : start + ENCODED_AT_A_TIME] for side in texts.sides]
        # One token more tells whether a text is cut, which then loses it.
        longer, _ = tokenizer.encode(part[0], part[1] if len(part) > 1 else None, max_tokens + 1)
        cut += sum(len(row) > max_tokens for row in longer)
        found, of_text = tokenizer.encode(part[0], part[1] if len(part) > 1 else None, max_tokens)
        ids += (np.array(row, np.int32) for row in found)
        types += (np.array(row, np.int32) for row in of_text)
    return EncodedTexts(
        Sentences.joined(ids),
        Sentences.joined(types) if reads_types else None,
        torch.from_numpy(texts.labels).to(device),
        cut,
    )


class LabelledTextBatches:
    """The batches that a text classifier is trained and evaluated on.

    The batches of every epoch have the same sizes and lengths, so that the token budget holds and every epoch has as
    many steps. Which texts of equal length are in which batch is drawn again for each epoch, and so is the order of the
    batches.

    Args:
        train: The training texts.
        batch_tokens: Most tokens of a batch, padding included.
        pad_id: The id of padding.
        device: The device of the batches.

    Raises:
        LeanformerError: A text is longer than ``batch_tokens``.
    """

    def __init__(self, train: EncodedTexts, batch_tokens: int, pad_id: int, device: torch.device) -> None:
        self.train = train
        self.batch_tokens = batch_tokens
        self.pad_id = pad_id
        self.device = device
        self._lengths = train.tokens.lengths
        self._sizes = [len(rows) for rows in length_batches(self._lengths, batch_tokens)]
        self._placed = _Placed(train, pad_id, device)

    @property
    def steps_per_epoch(self) -> int:
        """Training steps in an epoch."""
        return len(self._sizes)

    def training(self, seed: int, epoch: int, first_step: int = 0) -> Iterator[dict[str, Tensor]]:
        """The batches of one epoch from ``first_step`` on; equal arguments give equal batches.

        Yields:
            As ``chosen``.
        """
        generator = np.random.default_rng((seed, epoch))
        shuffled = generator.permutation(len(self.train))
        order = shuffled[np.argsort(self._lengths[shuffled], kind="stable")]  # ties in the order of the shuffle
        batches = np.split(order, np.cumsum(self._sizes)[:-1])
        for step in generator.permutation(len(batches))[first_step:]:
            yield self._placed.batch(batches[step])

    def evaluation(self, texts: EncodedTexts) -> Iterator[dict[str, Tensor]]:
        """All of a split, shortest first and always in the same order: that of ``evaluation_rows``."""
        yield from self.chosen(texts, self.evaluation_rows(texts))

    def evaluation_rows(self, texts: EncodedTexts) -> list[Rows]:
        """The row numbers of each batch of ``evaluation``."""
        lengths = texts.tokens.lengths
        return length_batches(lengths, max(self.batch_tokens, int(lengths.max(initial=0))))

    def chosen(self, texts: EncodedTexts, batches: list[Rows]) -> Iterator[dict[str, Tensor]]:
        """Chosen texts, a batch for each array of row numbers.

        Yields:
            ``input_ids`` and ``attention_mask`` (B, L), for models that read them ``token_type_ids`` (B, L), and
            ``labels`` (B,), int64 on the device.
        """
        placed = self._placed if texts is self.train else _Placed(texts, self.pad_id, self.device)
        for rows in batches:
            yield placed.batch(rows)


class _Placed:
    """Texts whose ids are on the device."""

    def __init__(self, texts: EncodedTexts, pad_id: int, device: torch.device) -> None:
        self._tokens = DeviceSentences(texts.tokens, device)
        self._types = None if texts.types is None else DeviceSentences(texts.types, device)
        self._labels = texts.labels
        self._pad_id = pad_id

    def batch(self, rows: Rows) -> dict[str, Tensor]:
        ids, mask = self._tokens.padded(rows, self._pad_id)
        found = {"input_ids": ids, "attention_mask": mask.long()}
        if self._types is not None:
            found["token_type_ids"] = self._types.padded(rows, 0)[0]
        return {**found, "labels": self._labels[torch.from_numpy(rows).to(self._labels.device)]}

"""Encoded sentence pairs as batches of tensors: a token budget for each batch, sentences of similar length together.

Text is encoded once and kept as flat arrays of ids; a batch is gathered from them on the device, without Python work
for each token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from leanformer.core.errors import LeanformerError
from leanformer.data.pairs import SentencePairs
from leanformer.data.tokenizers import TranslationTokenizer

IGNORED = -100  # the label at which there is no loss
NOWHERE = -1
"""The place in a teacher's text of a token that begins inside one of the teacher's."""
ENCODED_AT_A_TIME = 10_000  # sentences

Rows = NDArray[np.int64]
Side = Literal["source", "target"]


@dataclass(frozen=True)
class Sentences:
    """The ids of n sentences, each with its end mark.

    Attributes:
        tokens: (total,) int32, one sentence after the other.
        offsets: (n + 1,) int64; sentence i is ``tokens[offsets[i]:offsets[i + 1]]``.
    """

    tokens: NDArray[np.int32]
    offsets: NDArray[np.int64]

    @classmethod
    def joined(cls, sentences: Sequence[NDArray[np.int32]]) -> Sentences:
        """Joins sentences, one after the other."""
        lengths = np.fromiter(map(len, sentences), np.int64, len(sentences))
        offsets = np.concatenate((np.zeros(1, np.int64), lengths.cumsum()))
        return cls(np.concatenate((np.zeros(0, np.int32), *sentences)), offsets)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(n,) tokens of each sentence."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> NDArray[np.int32]:
        """The ids of one sentence."""
        return self.tokens[self.offsets[row] : self.offsets[row + 1]]

    def containing(self, token: int) -> int:
        """How many sentences hold a token."""
        places = np.flatnonzero(self.tokens == token)
        return len(np.unique(np.searchsorted(self.offsets, places, side="right")))

    def select(self, rows: Rows) -> Sentences:
        """The sentences of these rows, in their order."""
        return Sentences.joined([self[row] for row in rows])


@dataclass(frozen=True)
class EncodedPairs:
    """The ids of sentence pairs, both sides with their end marks."""

    sources: Sentences
    targets: Sentences

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(n,) tokens of each pair's longer side."""
        return np.maximum(self.sources.lengths, self.targets.lengths)

    def select(self, rows: Rows) -> EncodedPairs:
        """The pairs of these rows, in their order."""
        return EncodedPairs(self.sources.select(rows), self.targets.select(rows))

    def without(self, rows: Rows) -> EncodedPairs:
        """The pairs but for these rows."""
        return self.select(np.setdiff1d(np.arange(len(self)), rows))

    def too_long(self, max_source: int | None = None, max_target: int | None = None) -> Rows:
        """The rows whose source or target has more tokens than these, the end mark included; ascending."""
        long = np.zeros(len(self), bool)
        for sentences, limit in ((self.sources, max_source), (self.targets, max_target)):
            if limit is not None:
                long |= sentences.lengths > limit
        return np.flatnonzero(long)


@dataclass(frozen=True)
class TeacherView:
    """Sentence pairs as a teacher reads them whose student has fewer target subwords.

    Attributes:
        pairs: The pairs in the teacher's ids.
        places: For each token of the student's target sentences the place, from 0, of the teacher's token that begins
            at the same letter; ``NOWHERE`` where none does.
        heads: (V,) int64; for each of the teacher's target subwords the student's that stands for its beginning, and
            the number of the student's subwords where none does.
        decoder_start_id: The teacher's id that decoder inputs begin with.
        pad_id: The teacher's id of padding.
    """

    pairs: EncodedPairs
    places: Sentences
    heads: NDArray[np.int64]
    decoder_start_id: int
    pad_id: int

    def without(self, rows: Rows) -> TeacherView:
        """The view of the pairs but for these rows."""
        kept = np.setdiff1d(np.arange(len(self.pairs)), rows)
        return replace(self, pairs=self.pairs.select(kept), places=self.places.select(kept))


def encode_pairs(pairs: SentencePairs, tokenizer: TranslationTokenizer) -> EncodedPairs:
    """Encodes sentence pairs, of any length; ``too_long`` and ``without`` leave out what is too long."""
    return EncodedPairs(
        _encode(pairs.sources, tokenizer.encode_source), _encode(pairs.targets, tokenizer.encode_target)
    )


def check_limit(splits: Mapping[str, EncodedPairs], limit: int) -> None:
    """Makes sure that a limit leaves something of each split.

    Args:
        splits: The splits by name, such as ``training``.
        limit: ``data.max_tokens``: most tokens of either side, the end mark included.

    Raises:
        LeanformerError: All pairs of a split are longer; the message says which limit would be enough for all splits.
    """
    nothing = {name: pairs for name, pairs in splits.items() if pairs.lengths.min() > limit}
    if nothing:
        counts = " and ".join(f"all {len(pairs):,} {name} pairs" for name, pairs in nothing.items())
        needed = max(math.ceil(np.median(pairs.lengths)) for pairs in nothing.values())
        raise LeanformerError(
            f"data.max_tokens: {counts} are longer than {limit} subwords; set it to {needed}, which takes half of "
            "them, or more"
        )


def _encode(texts: Sequence[str], encode: Callable[[Sequence[str]], list[list[int]]]) -> Sentences:
    """The sentences' ids, a part at a time, because Python's numbers take much memory."""
    ids: list[NDArray[np.int32]] = []
    for start in range(0, len(texts), ENCODED_AT_A_TIME):
        ids += (np.array(sentence, np.int32) for sentence in encode(texts[start : start + ENCODED_AT_A_TIME]))
    return Sentences.joined(ids)


def check_lengths(
    splits: Mapping[str, EncodedPairs], limit: int, what: str, sides: Mapping[str, Sequence[Side]]
) -> None:
    """Makes sure that a block can take all the sentences that it is to read.

    Args:
        splits: The splits by name. From ``test`` nothing is ever left out; from the others what is longer than
            ``data.max_tokens``.
        limit: The block's positions.
        what: The block and its site, for the message.
        sides: Which sentences of each split it reads.

    Raises:
        LeanformerError: Some have more tokens, the end mark included; the message says what would be enough.
    """
    lengths = {
        (split, side): (splits[split].sources if side == "source" else splits[split].targets).lengths
        for split in splits
        for side in sides[split]
    }
    long = {place: int((found > limit).sum()) for place, found in lengths.items() if found.max(initial=0) > limit}
    if not long:
        return
    split, side = next((place for place in long if place[0] == "test"), next(iter(long)))
    needed = max(int(found.max()) for found in lengths.values() if len(found))
    remedy = f"give the block max_length: {needed}"
    others = [pairs for name, pairs in splits.items() if name != "test"]
    if split != "test" and all(len(pairs.too_long(limit, limit)) < len(pairs) for pairs in others):
        remedy = f"set data.max_tokens to {limit} or {remedy}"
    raise LeanformerError(
        f"{long[split, side]:,} of {len(lengths[split, side]):,} {side} sentences are longer than the {limit} "
        f"positions of {what}, in the {split} split; {remedy}"
    )


def length_batches(lengths: NDArray[np.int64], batch_tokens: int) -> list[Rows]:
    """Cuts sentences, shortest first, into batches of at most ``batch_tokens`` tokens, padding included.

    Args:
        lengths: (n,) tokens of each sentence, of the longer side for pairs.

    Returns:
        (B,) row numbers of each batch: B times its longest sentence is at most ``batch_tokens``.

    Raises:
        LeanformerError: One sentence alone is longer.
    """
    order = np.argsort(lengths, kind="stable")
    ascending = lengths[order]
    if len(order) and ascending[-1] > batch_tokens:
        raise LeanformerError(
            f"train.batch_tokens: the longest sentence has {ascending[-1]:,} subwords, and a batch takes "
            f"{batch_tokens:,}; set it to {ascending[-1]} or more"
        )
    batches = []
    start = 0
    while start < len(order):
        # The sizes that would fit, if the batch ended at each of the next sentences, fall as these grow longer.
        window = ascending[start : start + batch_tokens]
        size = int((window * np.arange(1, len(window) + 1) <= batch_tokens).sum())
        batches.append(order[start : start + size])
        start += size
    return batches


class DeviceSentences:
    """Sentences whose ids are on the device."""

    def __init__(self, sentences: Sentences, device: torch.device) -> None:
        self.lengths = sentences.lengths
        self._tokens = torch.from_numpy(sentences.tokens).to(device)  # (total,) int32
        self._bounds = torch.from_numpy(np.stack((sentences.offsets[:-1], sentences.offsets[1:]))).to(device)  # (2, n)

    def padded(self, rows: Rows, pad_id: int) -> tuple[Tensor, Tensor]:
        """Rows of ids, padded to the longest: (B, L) int64, and (B, L) bool that is true at ids."""
        device = self._tokens.device
        starts, ends = self._bounds[:, torch.from_numpy(rows).to(device)].unsqueeze(-1)  # (B, 1)
        places = starts + torch.arange(int(self.lengths[rows].max()), device=device)  # (B, L)
        mask = places < ends
        ids = self._tokens[places.clamp(max=len(self._tokens) - 1)].long()
        return ids.masked_fill_(~mask, pad_id), mask


class TextBatches:
    """The batches that a translator is trained and evaluated on.

    The batches of every epoch have the same sizes, and the same lengths on the longer side of their pairs, so that the
    token budget holds and every epoch has as many steps. Which pairs of equal length are in which batch is drawn again
    for each epoch, and so is the order of the batches.

    Args:
        train: The training pairs.
        batch_tokens: Most tokens of a batch on its longer side, padding included.
        pad_id: The id of padding, in inputs.
        decoder_start_id: The id that decoder inputs begin with; None: with the last of each target, as mBART's do.
        device: The device of the batches.
        teacher: What the teacher of a student with fewer target subwords reads.

    Raises:
        LeanformerError: A pair is longer than ``batch_tokens``.
    """

    def __init__(
        self,
        train: EncodedPairs,
        batch_tokens: int,
        pad_id: int,
        decoder_start_id: int | None,
        device: torch.device | str = "cpu",
        teacher: TeacherView | None = None,
    ) -> None:
        self.train = train
        self.batch_tokens = batch_tokens
        self.pad_id = pad_id
        self.decoder_start_id = decoder_start_id
        self.device = torch.device(device)
        self._lengths = train.lengths
        self._sizes = [len(rows) for rows in length_batches(self._lengths, batch_tokens)]
        self._train_sides = self._sides(train)
        self._teacher = teacher
        if teacher is not None:
            self._teacher_sides = self._sides(teacher.pairs)
            self._places = DeviceSentences(teacher.places, self.device)
            self._heads = torch.from_numpy(teacher.heads).to(self.device)

    @property
    def steps_per_epoch(self) -> int:
        """Training steps in an epoch."""
        return len(self._sizes)

    def training(self, seed: int, epoch: int, first_step: int = 0) -> Iterator[dict[str, Tensor]]:
        """The batches of one epoch from ``first_step`` on; equal arguments give equal batches.

        Yields:
            As ``chosen``. With a teacher also ``teacher_input_ids`` (B, S) and ``teacher_decoder_input_ids`` (B, U) in
            the teacher's ids, ``teacher_places`` (B, T), which are ``NOWHERE`` at padding too, and
            ``teacher_heads`` (V,).
        """
        generator = np.random.default_rng((seed, epoch))
        shuffled = generator.permutation(len(self.train))
        order = shuffled[np.argsort(self._lengths[shuffled], kind="stable")]  # ties in the order of the shuffle
        batches = np.split(order, np.cumsum(self._sizes)[:-1])
        for step in generator.permutation(len(batches))[first_step:]:
            yield self._batch(self._train_sides, batches[step]) | self._of_teacher(batches[step])

    def evaluation(self, pairs: EncodedPairs) -> Iterator[dict[str, Tensor]]:
        """All of a split, shortest first and always in the same order; ``evaluation_rows`` says what each batch holds.

        Yields:
            As ``chosen``.
        """
        sides = self._sides(pairs)
        for rows in self.evaluation_rows(pairs):
            yield self._batch(sides, rows)

    def evaluation_rows(self, pairs: EncodedPairs) -> list[Rows]:
        """The row numbers of each batch of ``evaluation``, whose token budget is at least the longest pair's length."""
        return length_batches(pairs.lengths, max(self.batch_tokens, int(pairs.lengths.max(initial=0))))

    def chosen(self, pairs: EncodedPairs, rows: Rows) -> dict[str, Tensor]:
        """Chosen pairs in one batch, in the given order.

        Returns:
            ``input_ids`` and ``attention_mask`` (B, S), ``decoder_input_ids`` and ``labels`` (B, T), int64 on the
            device. Decoder inputs are the labels shifted right by one; labels are -100 at padding.
        """
        return self._batch(self._sides(pairs), rows)

    def _sides(self, pairs: EncodedPairs) -> tuple[DeviceSentences, DeviceSentences]:
        return DeviceSentences(pairs.sources, self.device), DeviceSentences(pairs.targets, self.device)

    def _of_teacher(self, rows: Rows) -> dict[str, Tensor]:
        teacher = self._teacher
        if teacher is None:
            return {}
        source_ids, _ = self._teacher_sides[0].padded(rows, teacher.pad_id)
        return {
            "teacher_input_ids": source_ids,
            "teacher_decoder_input_ids": _shifted(
                *self._teacher_sides[1].padded(rows, teacher.pad_id), teacher.decoder_start_id, teacher.pad_id
            ),
            "teacher_places": self._places.padded(rows, NOWHERE)[0],
            "teacher_heads": self._heads,
        }

    def _batch(self, sides: tuple[DeviceSentences, DeviceSentences], rows: Rows) -> dict[str, Tensor]:
        source_ids, source_mask = sides[0].padded(rows, self.pad_id)
        target_ids, target_mask = sides[1].padded(rows, self.pad_id)
        return {
            "input_ids": source_ids,
            "attention_mask": source_mask.long(),
            "decoder_input_ids": _shifted(target_ids, target_mask, self.decoder_start_id, self.pad_id),
            "labels": target_ids.masked_fill_(~target_mask, IGNORED),
        }


def _shifted(ids: Tensor, mask: Tensor, start_id: int | None, pad_id: int) -> Tensor:
    """The decoder inputs for target ids (B, T): shifted right by one, and padded where the mask is false."""
    shifted = ids.roll(1, dims=1)
    shifted[:, 0] = ids.gather(1, mask.sum(dim=1, keepdim=True) - 1)[:, 0] if start_id is None else start_id
    return shifted.masked_fill_(~mask, pad_id)

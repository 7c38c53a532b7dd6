"""Whether an exported model says the same as the model that it was made from: on real inputs, in its own engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from leanformer.core.errors import LeanformerError
from leanformer.core.translating import Ids, up_to_end, without_end
from leanformer.data.tokenizers import TranslationTokenizer
from leanformer.export.base import Logits, WritesLogits
from leanformer.export.generation import Search
from leanformer.model.generate import most_tokens, settings_of
from leanformer.runtime.engines.base import Classifies, Generates
from leanformer.runtime.manifest import Parity
from leanformer.runtime.translator import TextTokenizer

ENOUGH = 1_000
"""Inputs that are compared, where there are as many."""
TOLERANCE = 1e-4
"""By how much a logit in float32 may differ, in units of the greatest logit of its token where that is more than 1."""
AGREEMENT = 0.999
"""Least share of inputs with the same answer, in float32. The others must be near ties."""
BATCHES = (1, 3, 16, 64)
"""Inputs of a batch, in turn, so that the sizes differ from the example that a graph was made with."""
LOGITS_AT_ONCE = 50_000_000
"""Logits of a batch of translations that are held at once."""
LONGER = 32
"""A translation is compared up to twice its batch's longest source and so many subwords more."""

Item = TypeVar("Item")
Progress = Callable[[int], object]


@dataclass
class Comparison:
    """What was found so far.

    Args:
        inputs: Inputs that were compared.
        same: Those with the same answer.
        near_ties: Those with another answer whose logits differ by less than two logits may be off.
        largest: The largest difference between two logits.
        scaled: The same in units of ``TOLERANCE``'s definition.
    """

    inputs: int = 0
    same: int = 0
    near_ties: int = 0
    largest: float = 0.0
    scaled: float = 0.0

    def add_logits(self, own: Logits, other: Logits) -> None:
        """Compares logits, shape (tokens, vocabulary) or (images, classes).

        Args:
            own: The model's.
            other: The exported model's, of the same shape.
        """
        if not len(own):
            return
        differences = np.abs(own - other).max(axis=-1)
        differences = np.where(np.isnan(differences), np.inf, differences)
        units = np.maximum(1.0, np.abs(own.max(axis=-1)))
        self.largest = max(self.largest, float(differences.max()))
        self.scaled = max(self.scaled, float((differences / units).max()))

    def add_answer(self, same: bool, near_tie: bool) -> None:
        """Counts an input.

        Args:
            same: Whether the answers are the same.
            near_tie: Whether they are near; it does not count where they are the same.
        """
        self.inputs += 1
        self.same += same
        self.near_ties += near_tie and not same

    def parity(self, described: str, with_logits: bool) -> Parity:
        """The manifest's record."""
        return Parity(
            inputs=self.inputs,
            described=described,
            agreement=self.same / self.inputs,
            largest_difference=self.largest if with_logits else None,
            near_ties=self.near_ties,
        )

    def check(self, what: str) -> None:
        """The gate, for float32.

        Args:
            what: The exported model, for the message.

        Raises:
            LeanformerError: A logit differs by too much, or too many answers differ, or one does that is no near tie.
        """
        others = self.inputs - self.same
        if not self.scaled <= TOLERANCE:
            raise LeanformerError(
                f"{what}: not exported, as it does not say the same as the model: logits differ by up to "
                f"{self.largest:.2g} on {self.inputs:,} inputs, {self.scaled:.2g} of the greatest ({TOLERANCE:g} is "
                f"allowed), and {others:,} answers differ; please report this model"
            )
        # Of fewer than a thousand inputs, one near tie is allowed.
        if others > max(1, int((1 - AGREEMENT) * self.inputs + 1e-6)) or others > self.near_ties:
            raise LeanformerError(
                f"{what}: not exported, as it does not say the same as the model: {others:,} of {self.inputs:,} "
                f"answers differ, {self.near_ties:,} of them near ties (near ties in {1 - AGREEMENT:.1%} are allowed); "
                "please report this model"
            )


def compare_classifiers(
    model: PreTrainedModel, engine: Classifies, images: Iterable[NDArray[np.float32]], progress: Progress
) -> Comparison:
    """Compares an exported classifier with its model.

    Args:
        model: On the CPU, in float32 and evaluation mode.
        engine: The exported one.
        images: Prepared images, (channels, height, width) each.
        progress: Called with the number of further inputs.
    """
    found = Comparison()
    for batch in _batches(images):
        pixels = np.stack(batch)
        with torch.inference_mode():
            own: Logits = model(pixel_values=torch.from_numpy(pixels)).logits.numpy()
        other = engine.logits(pixels)
        found.add_logits(own, other)
        for row, answer in zip(own, other.argmax(axis=-1).tolist(), strict=True):
            best = int(row.argmax())
            found.add_answer(best == answer, _is_tie(row, best, answer))
        progress(len(batch))
    return found


def compare_translators(
    model: PreTrainedModel,
    engine: Generates,
    logits_of: WritesLogits | None,
    tokenizer: TranslationTokenizer,
    exported: TextTokenizer,
    sentences: Iterable[str],
    progress: Progress,
) -> Comparison:
    """Compares an exported translator with its model, greedily.

    Args:
        model: On the CPU, in float32 and evaluation mode, with its generation settings.
        engine: The exported one.
        logits_of: The logits of what the exported one writes; None: they are not compared.
        tokenizer: The model's.
        exported: The exported one's, which has to give the same ids and texts.
        sentences: Sources. Those that the model cannot read are left out.
        progress: Called with the number of further inputs.

    Raises:
        LeanformerError: The exported tokenizer gives other ids or texts.
    """
    found = Comparison()
    longest, most = most_tokens(model)
    # What may not be written has no logits in an engine: first, and later.
    never_first, never = (torch.isneginf(bias).numpy() for bias in Search.of(model).biases(model))
    for batch in _batches(sentences):
        sources = tokenizer.encode_source(batch)
        _check_same(batch, sources, exported.encode_source(batch), "ids")
        readable = [ids for ids in sources if len(ids) <= longest]
        limit = min(most, 2 * max(map(len, readable), default=0) + LONGER)
        size = max(1, LOGITS_AT_ONCE // (len(never) * limit))
        for start in range(0, len(readable), size):
            part = readable[start : start + size]
            own, logits = _written(model, tokenizer, part, limit)
            texts = [without_end(ids, tokenizer.eos_id) for ids in own]
            _check_same(texts, tokenizer.decode(texts), exported.decode(texts), "text")
            others = engine.generate(part, beam=1, max_tokens=limit)
            if logits_of is not None:
                for row, other_logits in enumerate(logits_of(part, limit)):
                    # Up to the first step at which they have not written the same before.
                    steps = min(_common(own[row], others[row]) + 1, len(logits[row]), len(other_logits))
                    compared = np.stack([logits[row][:steps], other_logits[:steps]])
                    compared[:, :, never] = 0
                    compared[:, :1, never_first] = 0
                    found.add_logits(*compared)
            for ids, other, known in zip(own, others, logits, strict=True):
                at = _common(ids, other)
                differ = at < min(len(ids), len(other))
                found.add_answer(ids == other, differ and _is_tie(known[at], ids[at], other[at]))
        progress(len(batch))
    return found


def _batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Items in batches of the sizes of ``BATCHES``."""
    rest = iter(items)
    for size in cycle(BATCHES):
        batch = list(islice(rest, size))
        if not batch:
            return
        yield batch


def _is_tie(logits: NDArray[np.float32], one: int, other: int) -> bool:
    """Whether two answers' logits are as near as two logits may be off."""
    allowed = 2 * TOLERANCE * max(1.0, float(np.abs(logits.max())))
    return abs(float(logits[one]) - float(logits[other])) <= allowed


def _written(
    model: PreTrainedModel, tokenizer: TranslationTokenizer, sources: Ids, limit: int
) -> tuple[Ids, list[Logits]]:
    """What the model writes: ids up to the end mark, and for each of them the logits."""
    rows = [torch.tensor(ids) for ids in sources]
    with torch.inference_mode():
        generated = model.generate(
            pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_id),
            attention_mask=pad_sequence([torch.ones_like(row) for row in rows], batch_first=True),
            generation_config=settings_of(model, tokenizer, 1, limit),
            return_dict_in_generate=True,
            output_logits=True,
        )
    ids = [up_to_end(row[1:], tokenizer.eos_id) for row in generated.sequences.tolist()]
    logits = torch.stack(generated.logits, dim=1).numpy()  # (batch, tokens, vocabulary)
    return ids, [logits[row, : len(own)] for row, own in enumerate(ids)]


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids two rows begin with alike."""
    pairs = zip(one, other, strict=False)
    return next((at for at, (left, right) in enumerate(pairs) if left != right), min(len(one), len(other)))


def _check_same(given: Sequence[object], own: Sequence[object], other: Sequence[object], what: str) -> None:
    """Makes sure that the exported tokenizer does what the model's own does.

    Raises:
        LeanformerError: It does not; the message names the first example.
    """
    for example, left, right in zip(given, own, other, strict=True):
        if left != right:
            raise LeanformerError(
                f"the tokenizer is not exported: in the form of the library tokenizers it makes other {what} of "
                f"{str(example)[:80]!r}; take a model with a tokenizer.json"
            )

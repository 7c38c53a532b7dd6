"""Translating sentences in batches of similar length, with whatever writes ids from ids."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from leanformer.core.errors import LeanformerError

Ids = list[list[int]]


class Tokenizer(Protocol):
    """The methods of a tokenizer that translating uses."""

    pad_id: int
    eos_id: int

    def encode_source(self, texts: list[str]) -> Ids:
        """Sentences as the encoder reads them, the end mark included, not padded."""

    def decode(self, ids: Ids) -> list[str]:
        """Plain text of the decoder's tokens, special tokens already removed."""


@dataclass(frozen=True)
class Translated:
    """Translations of sentences.

    Args:
        texts: One translation for each sentence.
        tokens: Tokens that were generated for them in all, end marks included, to compute tokens per second.
    """

    texts: list[str]
    tokens: int


def translate_with(
    generate: Callable[[Ids], Ids],
    tokenizer: Tokenizer,
    sentences: Sequence[str],
    *,
    longest: int,
    limit: str,
    batch_tokens: int,
    progress: Callable[[int], object] | None = None,
) -> Translated:
    """Translates sentences, those of a batch at once; an empty sentence gives an empty translation.

    Args:
        generate: The ids of a batch's sources -> the ids of their translations, without the start mark, with the end
            mark where a translation has ended.
        tokenizer: The translator's.
        sentences: Each gives one translation.
        longest: Most tokens of a source.
        limit: What sets that limit, for the message.
        batch_tokens: Most source tokens in a batch, padding included; a sentence with more is a batch of its own.
        progress: Called after each batch with the number of sentences that it has finished.

    Raises:
        LeanformerError: A sentence has more tokens than the translator reads.
    """
    written = [number for number, text in enumerate(sentences) if text.strip()]
    encoded = tokenizer.encode_source([sentences[number] for number in written]) if written else []
    for number, ids in zip(written, encoded, strict=True):
        if len(ids) > longest:
            raise LeanformerError(
                f"sentence {number + 1} has {len(ids)} tokens, and the model takes at most {longest} ({limit}); "
                "shorten or split it"
            )
    texts = [""] * len(sentences)
    if progress is not None and len(written) < len(sentences):
        progress(len(sentences) - len(written))
    tokens = 0
    for batch in _batches([len(ids) for ids in encoded], batch_tokens):
        hypotheses = generate([encoded[index] for index in batch])
        tokens += sum(map(len, hypotheses))
        decoded = tokenizer.decode([without_end(ids, tokenizer.eos_id) for ids in hypotheses])
        for index, text in zip(batch, decoded, strict=True):
            texts[written[index]] = text
        if progress is not None:
            progress(len(batch))
    return Translated(texts, tokens)


def _batches(lengths: Sequence[int], most_tokens: int) -> Iterator[list[int]]:
    """Indices in batches of at most so many tokens, padding included; the longest first, so that memory fails early."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    start = 0
    while start < len(order):
        size = max(1, most_tokens // lengths[order[start]])
        yield order[start : start + size]
        start += size


def up_to_end(ids: list[int], eos_id: int) -> list[int]:
    """The ids up to the end mark, with it."""
    return ids[: ids.index(eos_id) + 1] if eos_id in ids else ids


def without_end(ids: list[int], eos_id: int) -> list[int]:
    """The ids without the end mark that they end with, if they do."""
    return ids[:-1] if ids[-1] == eos_id else ids

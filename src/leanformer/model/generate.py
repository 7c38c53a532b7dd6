"""Translates sentences with a model, in batches."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, PreTrainedModel

from leanformer.core.errors import LeanformerError
from leanformer.model.hf import force_end, limit_length
from leanformer.model.students import length_limits


class Tokenizer(Protocol):
    """The methods of a tokenizer that ``translate`` uses."""

    pad_id: int
    eos_id: int

    def encode_source(self, texts: list[str]) -> list[list[int]]:
        """Sentences as the encoder reads them, the end mark included, not padded."""

    def decode(self, ids: list[list[int]]) -> list[str]:
        """Plain text of the decoder's tokens, special tokens already removed."""


@dataclass(frozen=True)
class Translated:
    """The result of ``translate``.

    Args:
        texts: One translation for each sentence.
        tokens: Tokens that were generated for them in all, end marks included, to compute tokens per second.
    """

    texts: list[str]
    tokens: int


@torch.inference_mode()
def translate(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    sentences: Sequence[str],
    *,
    beam: int = 1,
    max_tokens: int,
    batch_tokens: int,
    device: torch.device | str | None = None,
    progress: Callable[[int], object] | None = None,
) -> Translated:
    """Translates sentences by the model's own ``generate``, in batches of similar length.

    Args:
        model: An encoder-decoder. Its training mode and its generation settings are not changed; settings beyond these
            arguments (such as a length penalty) hold.
        tokenizer: Its tokenizer.
        sentences: Each gives one translation; an empty sentence gives an empty one.
        beam: Hypotheses kept for each sentence; 1 is greedy.
        max_tokens: Longest translation in tokens, end mark included; no more than the model's positions, and than its
            blocks can read, in any case.
        batch_tokens: Most source tokens in a batch, padding included and each hypothesis of the beam counted; a
            sentence with more is a batch of its own.
        device: Where the inputs go; by default where the model is.
        progress: Called after each batch with the number of sentences that it has finished.

    Raises:
        LeanformerError: A sentence has more tokens than the model has positions, or than its blocks can read.
    """
    written = [number for number, text in enumerate(sentences) if text.strip()]
    encoded = tokenizer.encode_source([sentences[number] for number in written]) if written else []
    positions = model.config.max_position_embeddings
    source_limit, target_limit = most_tokens(model)
    for number, ids in zip(written, encoded, strict=True):
        if len(ids) > source_limit:
            raise LeanformerError(
                f"sentence {number + 1} has {len(ids)} tokens, and the model takes at most {source_limit} "
                f"({'its max_position_embeddings' if source_limit == positions else 'the max_length of its blocks'}); "
                "shorten or split it"
            )
    texts = [""] * len(sentences)
    if progress is not None and len(written) < len(sentences):
        progress(len(sentences) - len(written))
    settings = _settings(model, tokenizer, beam, min(max_tokens, target_limit))
    modes = {module: module.training for module in model.modules()}
    model.eval()
    tokens = 0
    try:
        for batch in _batches([len(ids) for ids in encoded], batch_tokens // beam):
            rows = [torch.tensor(encoded[index]) for index in batch]
            inputs = pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_id)  # (batch, length)
            mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
            where = device or model.device
            generated = model.generate(inputs.to(where), attention_mask=mask.to(where), generation_config=settings)
            hypotheses = [_until(row[1:], tokenizer.eos_id) for row in generated.tolist()]  # without the start token
            tokens += sum(len(ids) for ids in hypotheses)
            decoded = tokenizer.decode([ids[:-1] if ids[-1] == tokenizer.eos_id else ids for ids in hypotheses])
            for index, text in zip(batch, decoded, strict=True):
                texts[written[index]] = text
            if progress is not None:
                progress(len(batch))
    finally:
        for module, training in modes.items():
            module.training = training
    return Translated(texts, tokens)


def most_tokens(model: PreTrainedModel) -> tuple[int, int]:
    """Most tokens of a source and of a target that a translator can read: its positions, or what its blocks can."""
    positions: int = model.config.max_position_embeddings
    source, target = (min(positions, limit or positions) for limit in length_limits(model))
    return source, target


def _settings(model: PreTrainedModel, tokenizer: Tokenizer, beam: int, max_tokens: int) -> GenerationConfig:
    """The model's generation settings, with what ``translate`` decides."""
    settings = copy.deepcopy(model.generation_config)
    settings.do_sample = False
    settings.num_beams = beam
    settings.pad_token_id = tokenizer.pad_id
    settings.eos_token_id = tokenizer.eos_id
    force_end(settings, tokenizer.eos_id)
    limit_length(settings, max_tokens)
    return settings


def _batches(lengths: Sequence[int], most_tokens: int) -> Iterator[list[int]]:
    """Indices in batches of at most so many tokens, padding included; the longest first, so that memory fails early."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    start = 0
    while start < len(order):
        size = max(1, most_tokens // lengths[order[start]])
        yield order[start : start + size]
        start += size


def _until(ids: list[int], eos: int) -> list[int]:
    """The ids up to the end mark, with it."""
    return ids[: ids.index(eos) + 1] if eos in ids else ids

"""Translates sentences with a model, in batches."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, PreTrainedModel

from leanformer.core.translating import Ids, Tokenizer, Translated, translate_with, up_to_end
from leanformer.model.family import find_family
from leanformer.model.hf import force_end, limit_length
from leanformer.model.students import length_limits

UNLIMITED = 2**31 - 1
"""The most tokens of a model whose positions do not end, such as T5's, which are relative."""


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
    source_limit, _ = most_tokens(model)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        return translate_with(
            lambda sources: generate(model, tokenizer, sources, beam=beam, max_tokens=max_tokens, device=device),
            tokenizer,
            sentences,
            longest=source_limit,
            limit="its max_position_embeddings"
            if source_limit == find_family(model).max_positions(model.config)
            else "the max_length of its blocks",
            batch_tokens=batch_tokens // beam,
            progress=progress,
        )
    finally:
        for module, training in modes.items():
            module.training = training


@torch.inference_mode()
def generate(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    sources: Sequence[Sequence[int]],
    *,
    beam: int = 1,
    max_tokens: int,
    device: torch.device | str | None = None,
) -> Ids:
    """The ids of translations of one batch of sources.

    Args:
        model: As of ``translate``, in evaluation mode.
        tokenizer: Its tokenizer.
        sources: Ids, each with its end mark; their lengths are not checked.
        beam: As of ``translate``.
        max_tokens: As of ``translate``.
        device: As of ``translate``.

    Returns:
        For each source the ids, without the start mark, with the end mark where the translation has ended.
    """
    settings = settings_of(model, tokenizer, beam, min(max_tokens, most_tokens(model)[1]))
    where = device or model.device
    rows = [torch.tensor(ids) for ids in sources]
    inputs = pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_id)  # (batch, length)
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    generated = model.generate(inputs.to(where), attention_mask=mask.to(where), generation_config=settings)
    return [up_to_end(row[1:], tokenizer.eos_id) for row in generated.tolist()]  # without the start token


def most_tokens(model: PreTrainedModel) -> tuple[int, int]:
    """Most tokens of a source and of a target that a translator can read: its positions, or what its blocks can.

    Where neither ends it is ``UNLIMITED``.
    """
    positions = most_positions(model)
    source, target = (min(positions, limit or positions) for limit in length_limits(model))
    return source, target


def most_positions(model: PreTrainedModel) -> int:
    """The positions that a translator has; ``UNLIMITED`` where they do not end."""
    return find_family(model).max_positions(model.config) or UNLIMITED


def decoder_start(model: PreTrainedModel) -> int | None:
    """The id that decoder inputs begin with in training, as the model's own shift of labels has it.

    Args:
        model: An encoder-decoder; an outline will do.

    Returns:
        None where they begin with the last token of each target, such as its language (mBART).
    """
    shift = getattr(model, "prepare_decoder_input_ids_from_labels", None)
    if shift is None:  # of M2M100, which shifts as most do
        start: int = model.config.decoder_start_token_id
        return start
    words = [token for token in range(3) if token != model.config.pad_token_id][:2]
    one, other = (int(shift(labels=torch.tensor([[word, word]]))[0, 0]) for word in words)
    return one if one == other else None


def settings_of(model: PreTrainedModel, tokenizer: Tokenizer, beam: int, max_tokens: int) -> GenerationConfig:
    """The model's generation settings, with what ``translate`` decides."""
    settings = copy.deepcopy(model.generation_config)
    settings.do_sample = False
    settings.num_beams = beam
    settings.pad_token_id = tokenizer.pad_id
    settings.eos_token_id = tokenizer.eos_id
    force_end(settings, tokenizer.eos_id)
    limit_length(settings, max_tokens)
    return settings

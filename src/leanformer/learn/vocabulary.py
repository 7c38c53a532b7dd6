"""``lf.trim_target_vocabulary``: a translator that writes with fewer subwords, and its tokenizer."""

from __future__ import annotations

import os
from collections.abc import Sequence

from transformers import PreTrainedModel

from leanformer.core.errors import LeanformerError, quoted
from leanformer.data.tokenizers import TranslationTokenizer
from leanformer.data.trimming import Trimmed, trim_target
from leanformer.model.family import find_family
from leanformer.model.plan import TARGET_VOCABULARY
from leanformer.model.students import reduce
from leanformer.model.vocabulary import check_can_be_trimmed, target_vocabulary


def trim_target_vocabulary(
    model: PreTrainedModel,
    tokenizer: TranslationTokenizer | str | os.PathLike[str],
    texts: Sequence[str],
    limit: int,
) -> tuple[PreTrainedModel, TranslationTokenizer]:
    """Leaves out the target subwords that texts need least; what is left still makes up every text.

    The decoder's embeddings, the output projection and its bias lose their rows alike. For the same tokens the new
    model's logits are the old one's at the subwords that are kept; but texts are cut into other tokens now, more of
    them, which a model has to get used to: tune it (``lf.distill``, or a study).

    Args:
        model: A translator with, or able to have, a vocabulary of its own on the target side (Marian), or a student of
            one. It is not changed.
        tokenizer: The model's tokenizer, or the model's directory or hub id.
        texts: Target sentences of the kind that the model is to write, such as those that it was trained on.
        limit: Most subwords of the target side, marks included; fewer stay where the texts need fewer.

    Returns:
        The student, whose plan names the kept subwords by their ids in ``model``, and its tokenizer, whose ``save``
        writes it beside a saved student.

    Raises:
        LeanformerError: The model is none of these, the tokenizer is not its own or of a kind that cannot be trimmed,
            there are no texts, or the limit leaves nothing out or less than what has to stay.
    """
    family = find_family(model)
    check_can_be_trimmed(model, family)
    if isinstance(tokenizer, str | os.PathLike):
        tokenizer = TranslationTokenizer.load(os.fspath(tokenizer))
    if not isinstance(tokenizer, TranslationTokenizer):
        raise LeanformerError(
            f"tokenizer: a model's directory or a TranslationTokenizer is wanted, not {type(tokenizer).__name__}"
        )
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts) or not texts:
        raise LeanformerError(f"texts: a list of one or more sentences is wanted, not {quoted(texts)}")
    trimmed = trim_for(model, tokenizer, texts, limit)
    return reduce(model, {TARGET_VOCABULARY: {"ids": list(trimmed.ids)}}), trimmed.tokenizer


def trim_for(model: PreTrainedModel, tokenizer: TranslationTokenizer, texts: Sequence[str], limit: int) -> Trimmed:
    """The tokenizer of a model that is yet to be trimmed, which may be an outline.

    Args:
        model: The model; it decides which marks have to stay.
        tokenizer: Its tokenizer.
        texts: Target sentences.
        limit: Most target subwords.

    Raises:
        LeanformerError: As for ``trim_target_vocabulary``.
    """
    check_can_be_trimmed(model, find_family(model))
    words, marks = target_vocabulary(model.config), (model.config.pad_token_id, model.config.eos_token_id)
    if tokenizer.target_vocabulary > words or (tokenizer.pad_id, tokenizer.eos_id) != marks:
        raise LeanformerError(
            f"tokenizer: its {tokenizer.target_vocabulary:,} target subwords with padding {tokenizer.pad_id} and end "
            f"{tokenizer.eos_id} do not belong to the model, which has {words:,} with padding {marks[0]} and end "
            f"{marks[1]}; take the model's own"
        )
    keep = {model.config.decoder_start_token_id}
    forced = getattr(model.generation_config, "forced_bos_token_id", None)
    return trim_target(tokenizer, texts, limit, keep if forced is None else {*keep, forced})

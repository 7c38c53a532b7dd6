"""What a model's generation settings ask for that an exported model has to do too."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel

from leanformer.core.errors import LeanformerError

NOT_FOLLOWED: dict[str, Any] = {
    "begin_suppress_tokens": None,
    "encoder_no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "exponential_decay_length_penalty": None,
    "forced_bos_token_id": None,
    "guidance_scale": 1.0,
    "max_time": None,
    "min_length": 0,
    "min_new_tokens": 0,
    "no_repeat_ngram_size": 0,
    "penalty_alpha": 0.0,
    "repetition_penalty": 1.0,
    "sequence_bias": None,
    "stop_strings": None,
    "watermarking_config": None,
}
"""Setting of a GenerationConfig that changes what is written, greedily too -> the value with which it does not."""


def never_written(model: PreTrainedModel) -> list[int]:
    """The subwords that a translator's generation settings forbid it to write, such as a Marian's padding.

    Args:
        model: A translator, or one on the device ``meta``.

    Raises:
        LeanformerError: The settings ask for what no exported model does.
    """
    settings = model.generation_config
    for key, neutral in NOT_FOLLOWED.items():
        value = getattr(settings, key, None)
        if value is not None and value != neutral:
            raise LeanformerError(
                f"generation_config.json sets {key}: {value!r}, which an exported model would not follow; remove the "
                "key, and measure the model without it"
            )
    forbidden = list(settings.suppress_tokens or ())
    for words in settings.bad_words_ids or ():
        if len(words) != 1:
            raise LeanformerError(
                f"generation_config.json sets bad_words_ids with {words}, several subwords, which an exported model "
                "would not follow; remove the entry, and measure the model without it"
            )
        # The end mark can always be written: transformers ignores it here.
        forbidden += [word for word in words if word != settings.eos_token_id]
    return sorted(set(forbidden))

"""What a model's generation settings ask for that an exported model has to do too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel

from leanformer.core.errors import LeanformerError

NOT_FOLLOWED: dict[str, Any] = {
    "encoder_no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "exponential_decay_length_penalty": None,
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


def check_followed(settings: GenerationConfig) -> None:
    """Checks that an exported model can do what generation settings ask for.

    Args:
        settings: A translator's.

    Raises:
        LeanformerError: They ask for what no exported model does.
    """
    for key, neutral in NOT_FOLLOWED.items():
        value = getattr(settings, key, None)
        if value is not None and value != neutral:
            raise LeanformerError(
                f"generation_config.json sets {key}: {value!r}, which an exported model would not follow; remove the "
                "key, and measure the model without it"
            )
    for words in settings.bad_words_ids or ():
        if len(words) != 1:
            raise LeanformerError(
                f"generation_config.json sets bad_words_ids with {words}, several subwords, which an exported model "
                "would not follow; remove the entry, and measure the model without it"
            )


@dataclass(frozen=True)
class Search:
    """What a greedy search needs to know beside the model.

    Args:
        start: The subword that starts a translation.
        end: The subword that ends one.
        padding: The subword after the end.
        never: Subwords that are never written, such as a Marian's padding.
        never_first: Subwords that are not written first.
        first: The subword that is always written first, or None.
    """

    start: int
    end: int
    padding: int
    never: frozenset[int]
    never_first: frozenset[int]
    first: int | None

    @classmethod
    def of(cls, model: PreTrainedModel) -> Search:
        """What a translator's generation settings say.

        Args:
            model: Its generation settings name one end mark.

        Raises:
            LeanformerError: As of ``check_followed``.
        """
        settings = model.generation_config
        check_followed(settings)
        start = settings.decoder_start_token_id
        # The end mark can always be written: transformers ignores it here.
        bad = {word for (word,) in settings.bad_words_ids or () if word != settings.eos_token_id}
        return cls(
            start=int(settings.bos_token_id if start is None else start),  # as transformers does
            end=int(settings.eos_token_id),
            padding=int(settings.pad_token_id),
            never=frozenset(bad | set(settings.suppress_tokens or ())),
            never_first=frozenset(settings.begin_suppress_tokens or ()),
            first=settings.forced_bos_token_id,
        )

    def biases(self, model: PreTrainedModel) -> tuple[torch.Tensor, torch.Tensor]:
        """What is added to the model's logits: of the first subword, and of the others; shape (vocabulary,) each.

        It is minus infinity at what may not be written, and 0 elsewhere.

        Args:
            model: The model, whose vocabulary it is.
        """
        bias = torch.zeros(len(model.get_output_embeddings().weight))
        bias[list(self.never)] = -torch.inf
        first = bias.clone()
        first[list(self.never_first)] = -torch.inf
        if self.first is not None:
            first = torch.full_like(bias, -torch.inf)
            first[self.first] = 0.0
        return first, bias

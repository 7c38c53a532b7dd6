"""What writing costs a translator: operations per sentence and token, and the size of the decoding state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import CacheLayerMixin, EncoderDecoderCache

from leanformer.blocks.kit.state import DecodingState
from leanformer.measure.cost import count_flops
from leanformer.model.generate import most_tokens


@dataclass(frozen=True)
class Lengths:
    """The lengths of a sentence pair in tokens, with the end mark of each side.

    Args:
        source: Tokens to read.
        target: Tokens to write.
    """

    source: int
    target: int


def decoding_costs(model: PreTrainedModel, median: Lengths, longest: Lengths) -> dict[str, Any]:
    """What one hypothesis costs, written token by token with a cache; a beam of b has b hypotheses.

    Args:
        model: An encoder-decoder in evaluation mode.
        median: The lengths for which operations and state are counted.
        longest: The lengths for which the state is counted again.

    Returns:
        ``decoding`` of a row in ``results.json``.
    """
    flops_per_source, flops_per_token = decoding_flops(model, median)
    return {
        "source_tokens": median.source,
        "target_tokens": median.target,
        "flops_per_source": flops_per_source,
        "flops_per_token": flops_per_token,
        "state_bytes": decoding_state_bytes(model, median),
        "longest": {
            "source_tokens": longest.source,
            "target_tokens": longest.target,
            "state_bytes": decoding_state_bytes(model, longest),
        },
    }


@torch.no_grad()
def decoding_flops(model: PreTrainedModel, lengths: Lengths) -> tuple[int, int]:
    """Operations of real decoding steps, counted as ``count_flops`` does.

    Args:
        model: An encoder-decoder in evaluation mode.
        lengths: The sentence's lengths.

    Returns:
        First the operations that are done once per sentence, independent of the target's length: the encoder's, and
        those by which the decoder prepares the source with the first token (keys and values, sums, slots). Second the
        operations of the token in the middle of the target, but at least of the second token. These grow linearly with
        the position, or not at all, so that this is the mean over the target; where a mixer's ``max_distance`` ends the
        growth within the target, it is slightly more than the mean.
    """
    sentence = _Sentence(model, lengths.source)
    first, cache = count_flops(lambda: sentence.read(1))
    second, cache = count_flops(lambda: sentence.read(1, cache))
    third = second
    if most_tokens(model)[1] > 2:
        third, _ = count_flops(lambda: sentence.read(1, cache))
    # Operations grow linearly, so the first token's own are 2 x second - third; the rest of it prepares the source.
    of_first_token = 2 * second - third
    before = sentence.read(max(1, (lengths.target + 1) // 2 - 1))
    of_middle_token, _ = count_flops(lambda: sentence.read(1, before))
    return sentence.encoder_flops + first - of_first_token, of_middle_token


@torch.no_grad()
def decoding_state_bytes(model: PreTrainedModel, lengths: Lengths) -> int:
    """Bytes of one hypothesis's state when all of its tokens are written; arguments as for ``decoding_flops``.

    The state is the keys and values of attention and the states of blocks. It does not include the encoder's output,
    which every model keeps, nor what a block keeps once for all sentences.
    """
    sentence = _Sentence(model, lengths.source)
    cache = sentence.read(max(1, lengths.target - 1))
    if lengths.target > 1:
        cache = sentence.read(1, cache)  # as in ``generate``: after a step, keys and values may be separate tensors
    layers = (*cache.self_attention_cache.layers, *cache.cross_attention_cache.layers)
    # Counted by storage, because keys and values may share one, and a view keeps its whole storage in memory.
    storages = [tensor.untyped_storage() for layer in layers for tensor in _tensors_of(layer)]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def _tensors_of(layer: CacheLayerMixin) -> Iterator[torch.Tensor]:
    """The tensors that a layer of a cache keeps for each sequence."""
    if isinstance(layer, DecodingState):
        yield from layer.sequence_tensors()
    elif layer.is_initialized:  # not so where no attention uses the layer
        yield from (layer.keys, layer.values)


class _Sentence:
    """One sentence that a model has encoded; its words do not matter.

    Args:
        model: An encoder-decoder in evaluation mode.
        tokens: Tokens of the source.
    """

    def __init__(self, model: PreTrainedModel, tokens: int) -> None:
        self._model = model
        ids = torch.zeros(1, tokens, dtype=torch.long, device=model.device)
        self._mask = torch.ones_like(ids)
        encoder = model.get_encoder()
        self.encoder_flops, self._encoded = count_flops(lambda: encoder(input_ids=ids, attention_mask=self._mask))

    def read(self, tokens: int, cache: EncoderDecoderCache | None = None) -> EncoderDecoderCache:
        """Lets the decoder read the next tokens of the target; without a cache, the first ones."""
        ids = torch.full((1, tokens), self._model.config.decoder_start_token_id, device=self._model.device)
        output = self._model(
            encoder_outputs=self._encoded,
            attention_mask=self._mask,
            decoder_input_ids=ids,
            past_key_values=cache,
            use_cache=True,
        )
        return output.past_key_values

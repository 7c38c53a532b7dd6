"""What writing costs a translator, counted: operations a sentence and a token, and the state that grows or does not."""

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
    """Of a sentence pair, in tokens, the end mark of each side included.

    Args:
        source: Tokens that are read.
        target: Tokens that are written.
    """

    source: int
    target: int


def decoding_costs(model: PreTrainedModel, median: Lengths, longest: Lengths) -> dict[str, Any]:
    """What one hypothesis costs that is written token by token with a cache; a beam of b has b of them.

    Args:
        model: An encoder-decoder in evaluation mode.
        median: The lengths at which operations and state are counted.
        longest: Those at which the state is counted again.

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
        lengths: Of the sentence.

    Returns:
        Those that are done once a sentence, however much is written: the encoder's, and those by which the decoder
        takes the source in (keys and values, sums, slots) with the first token. And those of the token in the middle of
        the target, or at least of the second: they grow linearly with the position, or not at all, so that this is the
        mean over the target; where a mixer's ``max_distance`` ends their growth within the target, it is at most a
        little more.
    """
    sentence = _Sentence(model, lengths.source)
    first, cache = count_flops(lambda: sentence.read(1))
    second, cache = count_flops(lambda: sentence.read(1, cache))
    third = second
    if most_tokens(model)[1] > 2:
        third, _ = count_flops(lambda: sentence.read(1, cache))
    # The first token's own operations are as many fewer than the second's as the second's are than the third's; what
    # it does beyond them is taking the source in.
    of_first_token = 2 * second - third
    before = sentence.read(max(1, (lengths.target + 1) // 2 - 1))
    of_middle_token, _ = count_flops(lambda: sentence.read(1, before))
    return sentence.encoder_flops + first - of_first_token, of_middle_token


@torch.no_grad()
def decoding_state_bytes(model: PreTrainedModel, lengths: Lengths) -> int:
    """Bytes that one hypothesis carries along when all of its tokens are written; arguments as of ``decoding_flops``.

    These are the keys and values of attention and the states of blocks. The encoder's output, which every model keeps,
    is not among them, nor what a block keeps once for all sentences.
    """
    sentence = _Sentence(model, lengths.source)
    cache = sentence.read(max(1, lengths.target - 1))
    if lengths.target > 1:
        cache = sentence.read(1, cache)  # as ``generate`` ends: what is one tensor at first may be two after a step
    layers = (*cache.self_attention_cache.layers, *cache.cross_attention_cache.layers)
    # By their storage, because keys may be the values too, and what a view keeps in memory is its whole storage.
    storages = [tensor.untyped_storage() for layer in layers for tensor in _held(layer)]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def _held(layer: CacheLayerMixin) -> Iterator[torch.Tensor]:
    """What a layer of a cache keeps of each sequence."""
    if isinstance(layer, DecodingState):
        yield from layer.sequence_tensors()
    elif layer.is_initialized:  # one that no attention uses never is
        yield from (layer.keys, layer.values)


class _Sentence:
    """One sentence that a model has encoded, whatever its words.

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
        """Has the decoder read tokens of the target, after those that the cache has read; without one, the first."""
        ids = torch.full((1, tokens), self._model.config.decoder_start_token_id, device=self._model.device)
        output = self._model(
            encoder_outputs=self._encoded,
            attention_mask=self._mask,
            decoder_input_ids=ids,
            past_key_values=cache,
            use_cache=True,
        )
        return output.past_key_values

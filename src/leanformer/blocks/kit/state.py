"""The state that is carried from token to token in decoding: layers of a Hugging Face cache."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from transformers.cache_utils import CacheLayerMixin

from leanformer.blocks.kit.tokens import stays


class DecodingState(CacheLayerMixin):
    """Takes the place of a layer's keys and values in a cache, and is handled by ``generate`` as they are.

    A block keeps in ``tensors`` what it needs of the tokens that it has read, batch first: beam search reorders them.
    Where consecutive sequences have the same tensors, as beams have for their sentence's source, it may keep them once
    for each ``repeats`` sequences. In ``shared`` it keeps what is the same for every sequence. A block that contains
    others gives each of them a ``part``, a state of its own.

    Args:
        length: Tokens read so far.
    """

    is_sliding = False

    def __init__(self) -> None:
        super().__init__()
        self.length = 0
        self.tensors: dict[str, torch.Tensor] = {}
        self.repeats = 1
        self.shared: dict[str, torch.Tensor] = {}
        self.parts: dict[str, DecodingState] = {}

    def part(self, name: str) -> DecodingState:
        """The state of a block within the block: it has read the same tokens, and is handled with this state."""
        part = self.parts.setdefault(name, DecodingState())
        part.length = self.length
        return part

    def sequence_tensors(self) -> Iterator[torch.Tensor]:
        """The tensors that are kept for each sequence, here and in all parts."""
        yield from self.tensors.values()
        for part in self.parts.values():
            yield from part.sequence_tensors()

    def get_seq_length(self) -> int:
        """Tokens read so far."""
        return self.length

    def get_max_length(self) -> int:
        """No maximum of its own."""
        return -1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of what a mask for the next tokens covers."""
        return self.length + query_length, 0

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Continues with other sequences of the batch, as beam search asks for."""
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keeps some sequences of the batch."""
        for part in self.parts.values():
            part.batch_select_indices(indices)
        if stays(indices, self.repeats * len(next(iter(self.tensors.values()), ())), self.repeats):
            return
        indices, self.repeats = indices // self.repeats, 1
        self.tensors = {
            name: tensor.index_select(0, indices.to(tensor.device)) for name, tensor in self.tensors.items()
        }

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeats every sequence of the batch."""
        for part in self.parts.values():
            part.batch_repeat_interleave(repeats)
        if self.repeats > 1:
            self.repeats *= repeats
        else:
            self.tensors = {name: tensor.repeat_interleave(repeats, dim=0) for name, tensor in self.tensors.items()}

    def reset(self) -> None:
        """Back to before the first token."""
        self.length, self.repeats = 0, 1
        self.tensors, self.shared, self.parts = {}, {}, {}

    def crop(self, tokens_to_remove: int) -> None:
        """Not possible: sums over the tokens read cannot be taken back, so that assisted generation does not work."""
        raise NotImplementedError("a block's decoding state cannot be cropped; generate without assistant")

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Not possible: there are no keys and values."""
        raise NotImplementedError("a decoding state holds no keys and values")

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Not possible: there are no keys and values."""
        raise NotImplementedError("a decoding state holds no keys and values")

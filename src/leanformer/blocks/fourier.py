"""Tokens and channels mixed by a Fourier transform, without a parameter (FNet, arXiv 2105.03824)."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import nn

from leanformer.blocks.base import Arguments, AttentionWeights, Block, BlockModule, register
from leanformer.blocks.prefix import wide
from leanformer.blocks.state import DecodingState
from leanformer.blocks.tokens import without_padding
from leanformer.errors import LeanformerError
from leanformer.model.sites import Site


class FourierModule(BlockModule):
    """What ``fourier`` builds; see there for the arguments."""

    def __init__(self, norm: Literal["backward", "ortho"]) -> None:
        super().__init__()
        self.norm = norm

    def forward(
        self,
        hidden_states: torch.Tensor,
        padding_mask: torch.Tensor | None = None,
        source: torch.Tensor | None = None,
        source_mask: torch.Tensor | None = None,
        state: DecodingState | None = None,
    ) -> torch.Tensor:
        """(batch, tokens, d_model) -> the same shape, zero at padding; see ``BlockModule``."""
        states, real = without_padding(hidden_states, padding_mask)
        lengths = real.sum(dim=1).clamp(min=1)[:, None, None]  # (batch, 1, 1)
        places = real.cumsum(dim=1) - 1  # among the real tokens
        # Whole numbers up to here: of large angles float32 keeps few digits.
        turns = places[:, :, None] * places[:, None] % lengths  # (batch, tokens, tokens)
        with torch.autocast(states.device.type, enabled=False):
            channels = torch.fft.fft(wide(states), dim=-1, norm=self.norm)
            lengths = lengths.to(channels.real.dtype)
            angles = turns * (2 * math.pi / lengths)
            # (cos - i sin)(a + i b) has the real part cos a + sin b.
            mixed = angles.cos() @ channels.real + angles.sin() @ channels.imag
            if self.norm == "ortho":
                mixed = mixed * lengths.rsqrt()
        return mixed.masked_fill(~real[..., None], 0).to(hidden_states.dtype)


@register
class Fourier(Block):
    """The real part of the discrete Fourier transform over tokens and channels of each sentence.

    y_ic = Re Σ_jk x_jk e^(-2πi (i j / n + c k / d)), where n is the number of the sentence's real tokens, and i and j
    count these: padding and the batch's other sentences change nothing. For encoders, which read all positions. It
    stores nothing, learns nothing, and has nothing of the attention that stood there.

    Source: Lee-Thorp et al. 2021, "FNet: Mixing Tokens with Fourier Transforms" (arXiv 2105.03824).
    """

    name = "fourier"
    kinds = frozenset({"self_attention"})

    class Arguments(Arguments):
        """What a plan may say.

        Args:
            norm: ``backward``, the published sums as they are; ``ortho``, over √(n d): as large as what was read.
        """

        norm: Literal["backward", "ortho"] = "backward"

    @classmethod
    def resolve(cls, arguments: Any, site: Site, teacher: AttentionWeights | None) -> dict[str, Any]:
        if site.causal:
            raise LeanformerError(
                f"{site.name}: a Fourier transform reads all tokens at once, and a decoder must not read later ones; "
                "take 'linear_attention', 'average' or 'slots' there"
            )
        return dict(arguments.model_dump())

    @classmethod
    def build(cls, arguments: Any, site: Site, teacher: AttentionWeights | None) -> nn.Module | None:
        return FourierModule(arguments.norm)

"""Positions in a block's input, where a model tells them in its attentions alone: blocks without scores need them."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import nn

from leanformer.blocks.kit.base import Arguments
from leanformer.blocks.kit.inputs import BlockInputs
from leanformer.blocks.kit.site import Site
from leanformer.core.errors import LeanformerError

SLOWEST = 10_000.0  # the slowest wave is as many times as long as the fastest

Positions = Literal["sinusoidal", "none"]


class PlacedArguments(Arguments):
    """The argument of every block that reads its own tokens without a notion of their order.

    Args:
        positions: ``sinusoidal``: waves of the position, each channel by a learned factor, are added to what the block
            reads; ``none``: they are not. None: where the model tells positions in its attentions alone.
    """

    positions: Positions | None = None

    def settled(self, site: Site) -> dict[str, Any]:
        """All arguments, with positions as they are at a site; without the key where none are needed or asked for.

        Raises:
            LeanformerError: They are asked for at a cross-attention, which reads the tokens of a source.
        """
        if site.reads_source and self.positions == "sinusoidal":
            raise LeanformerError(
                f"{site.name}: positions 'sinusoidal' are added to a text's own tokens, and what is read there is the "
                "source; leave 'positions' out"
            )
        settings = self.model_dump(exclude={"positions"})
        positions = self.positions or ("sinusoidal" if site.unplaced else "none")
        # "none" is written where it is not the default: a resolved plan that is resolved again stays what it is.
        return {**settings, "positions": positions} if site.unplaced or positions != "none" else settings


class SinusoidalPositions(nn.Module):
    """Waves of the position, added to tokens: any length, and d_model numbers.

    Real tokens are counted, so that padding before a text moves nothing.

    Source: Vaswani et al. 2017, "Attention Is All You Need" (arXiv 1706.03762), section 3.5; the learned factors, which
    start at 1, are this library's.

    Args:
        d_model: Channels of a token.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(d_model))

    def forward(self, inputs: BlockInputs) -> BlockInputs:
        """The inputs of a block with positions added to the tokens' hidden states."""
        states, mask = inputs.hidden_states, inputs.padding_mask
        tokens = states.shape[1]
        if mask is None:
            before = 0 if inputs.state is None else inputs.state.length
            position = torch.arange(tokens, device=states.device)[None] + before
        else:
            position = mask.long().cumsum(dim=1)[:, mask.shape[1] - tokens :] - 1
        return inputs.with_states(states + (self._waves(position) * self.factor).to(states.dtype))

    def _waves(self, position: torch.Tensor) -> torch.Tensor:
        """(batch or 1, tokens) -> (batch or 1, tokens, d_model): sines, then cosines."""
        channels = len(self.factor)
        sines = (channels + 1) // 2
        step = -math.log(SLOWEST) / max(1, sines - 1)
        angles = position[..., None] * (torch.arange(sines, device=position.device) * step).exp()
        return torch.cat((angles.sin(), angles[..., : channels - sines].cos()), dim=-1)


def positions_of(site: Site, positions: Positions | None) -> SinusoidalPositions | None:
    """The module that adds positions, where a block's arguments say so.

    Args:
        site: Where the block stands.
        positions: The argument of that name, resolved.
    """
    return SinusoidalPositions(site.d_model) if positions == "sinusoidal" else None


def placed(positions: SinusoidalPositions | None, inputs: BlockInputs) -> BlockInputs:
    """The inputs of a block, with positions where it adds some."""
    return inputs if positions is None else positions(inputs)

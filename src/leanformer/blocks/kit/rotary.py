"""Rotary positions: queries and keys are rotated by their positions, so that products tell how far apart tokens are.

Source: Su et al. 2021, "RoFormer: Enhanced Transformer with Rotary Position Embedding" (arXiv 2104.09864), section 3.2.
"""

from __future__ import annotations

import torch


def rotated(states: torch.Tensor, heads: int, rotary: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Queries or keys, rotated head by head.

    A head narrower than the model's own takes every so-many-th of its frequencies, from the fastest to the slowest; the
    channels of a wider one that are left over are not rotated.

    Args:
        states: Shape (batch, tokens, channels of all heads).
        heads: How many heads the channels are split into.
        rotary: As of ``BlockInputs``: the first half of the last axis holds an angle's cosine or sine for each pair of
            channels.
    """
    half = rotary[0].shape[-1] // 2
    by_head = states.unflatten(-1, (heads, -1))  # (batch, tokens, heads, d_head)
    pairs = min(half, by_head.shape[-1] // 2)
    step = half // pairs if pairs else 1
    cosine, sine = (table[..., None, : step * pairs : step].to(states.dtype) for table in rotary)
    left, right, rest = by_head.split((pairs, pairs, by_head.shape[-1] - 2 * pairs), dim=-1)
    return torch.cat((left * cosine - right * sine, right * cosine + left * sine, rest), dim=-1).flatten(-2)

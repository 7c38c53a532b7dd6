"""Rotary positions: queries and keys are rotated by their positions, so that products tell how far apart tokens are.

Source: Su et al. 2021, "RoFormer: Enhanced Transformer with Rotary Position Embedding" (arXiv 2104.09864), section 3.2.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F


def tables(given: Any, tokens: int) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Cosines and sines in the form of ``BlockInputs``, from what a model hands to its attention.

    Args:
        given: A pair of cosines and sines, or complex numbers of one for each pair of channels (Llama 4); with the axes
            (batch or 1, tokens, channels), or without the first.
        tokens: How many tokens the attention reads; those before the first row, as an image's class token, are not
            rotated (DINOv3).

    Returns:
        None where it is nothing of that form.
    """
    if isinstance(given, torch.Tensor) and given.is_complex():
        given = tuple(torch.cat((part, part), dim=-1) for part in (given.real, given.imag))
    if not (isinstance(given, tuple | list) and len(given) == 2 and all(torch.is_tensor(one) for one in given)):
        return None
    cosine, sine = (one[None] if one.dim() == 2 else one for one in given)
    before = tokens - cosine.shape[1]
    if cosine.dim() != 3 or before < 0:
        return None
    if before:
        cosine, sine = F.pad(cosine, (0, 0, before, 0), value=1.0), F.pad(sine, (0, 0, before, 0))
    return cosine, sine


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

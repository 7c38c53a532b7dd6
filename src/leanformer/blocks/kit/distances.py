"""How far apart tokens are: which are near enough to be read, and a learned bias of scores by distance."""

from __future__ import annotations

import math

import torch
from torch import nn

from leanformer.blocks.kit.site import Site
from leanformer.core.errors import LeanformerError

BUCKETS = 32
FARTHEST = 128  # tokens this far apart, and farther, share a bucket


def distances(asking: int, read: int, first: int, device: torch.device) -> torch.Tensor:
    """How far each token that is read stands behind each that attends, shape (asking, read); below 0: before it.

    Args:
        asking: How many tokens attend, in a row.
        read: How many tokens are read.
        first: Which of those that are read is the first that attends.
        device: Where the numbers are wanted.
    """
    own = torch.arange(asking, device=device) + first
    return torch.arange(read, device=device) - own[:, None]


def reach(site: Site, asked: int | None) -> int | None:
    """The greatest distance at which a block reads at a site: what is asked for, but no more than the window there.

    Args:
        site: The site.
        asked: The block's argument ``max_distance``.

    Returns:
        None where there is no limit.

    Raises:
        LeanformerError: A limit is asked for where the source is read.
    """
    if site.reads_source and asked is not None:
        raise LeanformerError(
            f"{site.name}: 'max_distance' is for tokens that read their own text, and here they read the source; leave "
            "it out"
        )
    return min((limit for limit in (asked, site.max_distance) if limit is not None), default=None)


class RelativeBias(nn.Module):
    """A learned number for each head and distance, which is added to scores: it knows of the order of tokens.

    Near distances have a number each, farther ones share one for a range that grows with the distance, up to one for
    all from 128 tokens on; before and after a token they are different numbers. They start at 0.

    Source: Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer"
    (arXiv 1910.10683), section 2.1.

    Args:
        heads: The attention's heads.
        causal: Whether a token reads no later ones.
    """

    def __init__(self, heads: int, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.weight = nn.Parameter(torch.zeros(heads, BUCKETS))

    def forward(self, apart: torch.Tensor) -> torch.Tensor:
        """Distances as of ``distances``, shape (asking, read) -> (heads, asking, read)."""
        buckets = _bucket(apart.abs(), BUCKETS if self.causal else BUCKETS // 2)
        if not self.causal:
            buckets = buckets + (apart > 0) * (BUCKETS // 2)
        return self.weight.index_select(1, buckets.flatten()).unflatten(1, apart.shape)


def _bucket(far: torch.Tensor, buckets: int) -> torch.Tensor:
    """The bucket of each distance, of so many: half of them hold one distance each."""
    exact = buckets // 2
    share = (far.clamp(min=exact) / exact).log() / math.log(FARTHEST / exact)
    ranges = exact + (share * (buckets - exact)).long()
    return torch.where(far < exact, far, ranges.clamp(max=buckets - 1))

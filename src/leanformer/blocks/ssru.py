"""A recurrence in place of a decoder's self-attention: one matrix product and a few operations a token (SSRU)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from leanformer.blocks.kit.base import Arguments, AttentionWeights, Block, BlockModule, register
from leanformer.blocks.kit.inputs import BlockInputs
from leanformer.blocks.kit.prefix import wide
from leanformer.blocks.kit.site import Site
from leanformer.blocks.kit.tokens import without_padding
from leanformer.core.errors import LeanformerError


class SsruModule(BlockModule):
    """The module that ``ssru`` builds; see there for the arguments."""

    def __init__(self, d_model: int, output: bool) -> None:
        super().__init__()
        self.maps = nn.Linear(d_model, 2 * d_model, bias=False)  # of the forget gate, then of what enters the cell
        self.forget_bias = nn.Parameter(torch.zeros(d_model))
        self.output = nn.Linear(d_model, d_model) if output else None

    def forward(self, inputs: BlockInputs) -> torch.Tensor:
        """(batch, tokens, d_model) -> the same shape; see ``BlockModule``."""
        states, mask, state = inputs.hidden_states, inputs.padding_mask, inputs.state
        if mask is not None:
            states, real = without_padding(states, mask)
        maps = self.maps(states)
        gate, value = wide(maps).chunk(2, dim=-1)  # each (batch, tokens, d_model)
        forget = torch.sigmoid(gate + self.forget_bias)
        if mask is not None:
            forget = forget.masked_fill(~real[..., None], 1.0)  # the cell goes past padding unchanged
        cells, kept = scan(forget, (1 - forget) * value)
        if state is not None:
            if state.tensors:
                cells = cells + kept * state.tensors["cell"][:, None]
            # Cloned, so that the other tokens' cells do not stay in memory.
            state.tensors = {"cell": cells[:, -1].clone()}
        cells = torch.relu(cells).to(maps.dtype)
        return cells if self.output is None else self.output(cells)


def scan(factors: torch.Tensor, terms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The recurrence cell_t = factor_t cell_{t-1} + term_t from a cell of zeros, for all tokens at once.

    Each round joins every token's span with the span of equal length before it, so that log2(tokens) rounds suffice.
    Nothing is divided by products of factors, which fall below the smallest number within a few dozen tokens.

    Args:
        factors: Shape (batch, tokens, channels).
        terms: Likewise.

    Returns:
        The cells, and the product of the factors up to each token: what is left there of a cell before the first.

    Source: Hillis and Steele 1986, "Data Parallel Algorithms"; for recurrences like this one Martin and Cundy 2018,
    "Parallelizing Linear Recurrent Neural Nets Over Sequence Length" (arXiv 1709.04057).
    """
    span = 1
    while span < terms.shape[1]:
        joined = terms[:, span:] + factors[:, span:] * terms[:, :-span]
        terms = torch.cat([terms[:, :span], joined], dim=1)
        factors = torch.cat([factors[:, :span], factors[:, span:] * factors[:, :-span]], dim=1)
        span *= 2
    return terms, factors


@register
class Ssru(Block):
    """The simpler simple recurrent unit, which stands in place of a decoder's self-attention in fast translators.

    For each channel, with x_t the token:

        f_t = sigmoid(W_f x_t + b_f),   c_t = f_t c_{t-1} + (1 - f_t) W x_t,   output relu(c_t).

    While decoding the state is the cell, d numbers, however many tokens were read; a token costs one matrix product, of
    W_f and W together, and some operations on d numbers. In training all tokens are computed at once (``scan``).

    It stores 2 d² + d, with ``output`` 3 d² + 2 d. Its weights start at random.

    Source: Kim et al. 2019, "From Research to Production and Back: Ludicrously Fast Neural Machine Translation" (WNGT),
    section 3.1; it has no output projection.
    """

    name = "ssru"
    kinds = frozenset({"self_attention"})

    class Arguments(Arguments):
        """``output``: whether a linear map of the cells follows, which may be negative as an attention's output is."""

        output: bool = False

    @classmethod
    def resolve(cls, arguments: Any, site: Site, teacher: AttentionWeights | None) -> dict[str, Any]:
        if not site.causal:
            raise LeanformerError(
                f"{site.name}: an ssru reads only a token and those before it, as a decoder does; take it at "
                "decoder.*.self_attention, and another block here"
            )
        return dict(arguments.model_dump())

    @classmethod
    def build(cls, arguments: Any, site: Site, teacher: AttentionWeights | None) -> nn.Module | None:
        return SsruModule(site.d_model, arguments.output)

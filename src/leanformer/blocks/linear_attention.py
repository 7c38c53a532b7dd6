"""Attention whose softmax is a product of features: linear in the tokens (arXiv 2006.16236)."""

from __future__ import annotations

from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from leanformer.blocks.kit.base import AttentionWeights, Block, register, set_linear
from leanformer.blocks.kit.inputs import BlockInputs
from leanformer.blocks.kit.positions import PlacedArguments, Positions, placed, positions_of
from leanformer.blocks.kit.prefix import wide, without_autocast
from leanformer.blocks.kit.site import Site
from leanformer.blocks.kit.state import DecodingState
from leanformer.blocks.kit.sums import SumsModule
from leanformer.blocks.kit.tokens import check_divides, without_padding

# The least sum of weights to divide by: features of one sign may all be zero in float32.
EPSILON = 1e-6


class LinearAttentionModule(SumsModule):
    """The module that ``linear_attention`` builds; the arguments are described there."""

    value: nn.Linear

    def __init__(self, site: Site, heads: int, positions: Positions | None = None) -> None:
        super().__init__(site)
        self.heads = heads
        self.query = nn.Linear(site.d_model, site.d_model)
        self.key = nn.Linear(site.d_model, site.d_model)
        self.value = nn.Linear(site.d_model, site.d_model, bias=False)
        self.output = nn.Linear(site.d_model, site.d_model)
        self.positions = positions_of(site, positions)

    @torch.no_grad()
    def start_from(self, teacher: AttentionWeights) -> None:
        """Takes a trained attention's values and output, and its queries and keys if it has as many heads."""
        self.take_over(teacher)
        if self.heads == teacher.num_heads:
            set_linear(self.query, teacher.query, teacher.query_bias)
            set_linear(self.key, teacher.key, teacher.key_bias)

    def mix(self, inputs: BlockInputs) -> torch.Tensor:
        """(batch, tokens, d_model) -> the same shape; see ``HeadsModule``."""
        inputs = placed(self.positions, inputs)
        states, real = without_padding(inputs.hidden_states, inputs.padding_mask)
        queries = _features(self._by_head(self.query(states)))
        if self.causal:
            sums = self._running(queries, states, real, inputs.state)
        else:
            sums = _product(queries, self.pooled(inputs, states, real))
        mixed = sums[..., :-1] / sums[..., -1:].clamp(min=EPSILON)  # (batch, heads, tokens, d_head)
        return mixed.transpose(1, 2).flatten(2).to(self.value.weight.dtype)

    def pool(self, states: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """Σ phi(key) [value, 1]: (batch, tokens, d_model) -> (batch, heads, d_head, d_head + 1)."""
        keys, values = self._read(states, real)
        return _product(keys.mT, values)

    def _running(
        self, queries: torch.Tensor, states: torch.Tensor, real: torch.Tensor, state: DecodingState | None
    ) -> torch.Tensor:
        """Each query's product with the sums up to its position, (batch, heads, tokens, d_head + 1).

        All positions at once, as n x n weights: only the last sums are stored, from which the next tokens continue.
        """
        keys, values = self._read(states, real)
        sums = _product(_product(queries, keys.mT).tril(), values)
        if state is not None:
            # Elementwise for one token: a product of one column and one row is slow in a batch.
            pooled = keys.mT * values if keys.shape[2] == 1 else _product(keys.mT, values)
            if state.tensors:
                sums = sums + _product(queries, state.tensors["pooled"])
                pooled = pooled + state.tensors["pooled"]
            state.tensors = {"pooled": pooled}
        return sums

    def _read(self, states: torch.Tensor, real: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """phi(key), zero at padding, (batch, heads, tokens, d_head), and values with a 1 appended, for the count."""
        keys = _features(self._by_head(self.key(states))) * real[:, None, :, None]
        return keys, F.pad(wide(self._by_head(self.value(states))), (0, 1), value=1.0)

    def _by_head(self, states: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, d_model) -> (batch, heads, tokens, d_head)."""
        return states.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def _features(projected: torch.Tensor) -> torch.Tensor:
    """phi(x) = elu(x) + 1, written as e^min(x, 0) + max(x, 0): elu of less than -17 is -1 in float32."""
    projected = wide(projected)
    return projected.clamp(max=0).exp() + projected.relu()


def _product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """A matrix product in the precision of its factors, under any autocast."""
    with without_autocast(left.device):
        return left @ right


@register
class LinearAttention(Block):
    """Attention with weights phi(query_i) · phi(key_j) over their sum, where phi(x) = elu(x) + 1, for each head.

    The product of phi(query_i) with Σ_j phi(key_j) value_jᵀ, over that with Σ_j phi(key_j): a token is compared with no
    other, but with sums, of real positions. The source is summed once for each sentence; in a decoder's self-attention
    the sums run, and are the state: d d_head + d numbers, however many tokens were read.

    It stores 4 d² + 3 d (queries, keys, values, output; values need no bias, since weights that sum to one pass it on).

    Source: Katharopoulos et al. 2020, "Transformers are RNNs: Fast Autoregressive Transformers with Linear Attention"
    (arXiv 2006.16236).
    """

    name = "linear_attention"
    kinds = frozenset({"self_attention", "cross_attention"})

    class Arguments(PlacedArguments):
        """The arguments in a plan, besides ``positions``.

        Args:
            heads: Channel groups with weights of their own; None: as many as the model has there.
        """

        heads: Annotated[int, Field(ge=1)] | None = None

    @classmethod
    def resolve(cls, arguments: Any, site: Site, teacher: AttentionWeights | None) -> dict[str, Any]:
        heads = arguments.heads or site.num_heads
        check_divides(site, "heads", heads)
        return {**arguments.settled(site), "heads": heads}

    @classmethod
    def build(cls, arguments: Any, site: Site, teacher: AttentionWeights | None) -> nn.Module | None:
        module = LinearAttentionModule(site, arguments.heads, arguments.positions)
        if teacher is not None:
            module.start_from(teacher)
        return module

"""Attention without scores: every token gets the mean of the values that it may read."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from leanformer.blocks.kit.base import AttentionWeights, Block, register
from leanformer.blocks.kit.inputs import BlockInputs
from leanformer.blocks.kit.prefix import running_sum, wide
from leanformer.blocks.kit.site import Site
from leanformer.blocks.kit.sums import SumsModule
from leanformer.blocks.kit.tokens import without_padding


class AverageModule(SumsModule):
    """The module that ``average`` builds."""

    value: nn.Linear
    output: nn.Linear

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.value = nn.Linear(site.d_model, site.d_model, bias=False)
        self.output = nn.Linear(site.d_model, site.d_model)

    def forward(self, inputs: BlockInputs) -> torch.Tensor:
        """The means, projected once where all tokens get the same; see ``BlockModule``."""
        return self.output(self._means(inputs)).expand_as(inputs.hidden_states)

    def mix(self, inputs: BlockInputs) -> torch.Tensor:
        """(batch, tokens, d_model) -> the same shape; see ``HeadsModule``."""
        return self._means(inputs).expand_as(inputs.hidden_states)

    def _means(self, inputs: BlockInputs) -> torch.Tensor:
        """Means of the values: (batch, tokens, d_model), or (batch, 1, d_model) where all tokens get the same."""
        state = inputs.state
        states, real = without_padding(inputs.hidden_states, inputs.padding_mask)
        if not self.causal:
            return self.pooled(inputs, states, real)
        counts = real[..., None].to(wide(states).dtype).expand_as(states[..., :1])
        entries = torch.cat([wide(states), counts], dim=-1)
        start = state.tensors["sums"] if state is not None and state.tensors else entries.new_zeros(1, 1, 1)
        sums = running_sum(entries[:, :, None], start[:, None])[:, :, 0]  # (batch, tokens, d_model + 1)
        if state is not None:
            # Cloned, so that the other positions do not stay in memory.
            state.tensors = {"sums": sums[:, -1:].clone()}
        return self._value_of_mean(sums[..., :-1], sums[..., -1:])

    def pool(self, states: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """The mean of the values: (batch, tokens, d_model) -> (batch, 1, d_model)."""
        return self._value_of_mean(wide(states).sum(dim=1, keepdim=True), real.sum(dim=1)[:, None, None])

    def _value_of_mean(self, sums: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """The value of the mean, which is the mean of the values: one product instead of one for each token."""
        means = sums / counts.clamp(min=1)  # there may be no real token
        return self.value(means.to(self.value.weight.dtype))


@register
class Average(Block):
    """Every token gets the mean of the values that it may read, as from an attention whose scores are all equal.

    output(mean_j value(y_j)) over real positions j: of the sentence in an encoder, of the tokens up to its own in a
    decoder, of the source at a cross-attention. What an attention gives beyond this it owes to its scores. In a decoder
    the state is a sum and a count, d + 1 numbers, and there is no limit to the length.

    It stores 2 d² + d (values, output).

    Source: Zhang et al. 2018, "Accelerating Neural Transformer via an Average Attention Network" (arXiv 1805.00631),
    for the running mean, here without the feed-forward network and the gate after it.
    """

    name = "average"
    kinds = frozenset({"self_attention", "cross_attention"})

    @classmethod
    def build(cls, arguments: Any, site: Site, teacher: AttentionWeights | None) -> nn.Module | None:
        module = AverageModule(site)
        if teacher is not None:  # values and output are projected as the attention does it
            module.take_over(teacher)
        return module

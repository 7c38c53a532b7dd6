"""Tokens mixed by weights that are the same for every sentence, and a gate that reads the token."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field, model_validator
from torch import nn

from leanformer.blocks.base import Arguments, AttentionWeights, Block, HeadsModule, register
from leanformer.blocks.some_heads import HeadList, groups_of, settle_heads
from leanformer.blocks.state import DecodingState
from leanformer.blocks.tokens import check_divides, check_length, check_positions, without_padding
from leanformer.errors import LeanformerError
from leanformer.model.sites import Site

MIXING_DEVIATION = 0.02


class MixerModule(HeadsModule):
    """What ``mixer`` builds; see there for the arguments."""

    max_length: int

    def __init__(self, site: Site, groups: int, max_length: int, width: int | None = None) -> None:
        super().__init__()
        self.site_name = site.name
        self.max_length = max_length
        self.value = nn.Linear(site.d_model, width or site.d_model)
        # Small beside the means of values that an attention gives: with weights far off, teaching starts far off.
        self.mixing = nn.Parameter(torch.empty(groups, max_length, max_length).normal_(std=MIXING_DEVIATION))
        self.gate = nn.Linear(site.d_model, width or site.d_model)
        nn.init.zeros_(self.gate.bias)
        self.output = nn.Linear(site.d_model, site.d_model) if width is None else None

    def mix(
        self,
        hidden_states: torch.Tensor,
        padding_mask: torch.Tensor | None = None,
        source: torch.Tensor | None = None,
        source_mask: torch.Tensor | None = None,
        state: DecodingState | None = None,
    ) -> torch.Tensor:
        """The heads; see ``HeadsModule``.

        Raises:
            LeanformerError: There are more tokens than ``max_length``.
        """
        tokens = hidden_states.shape[1]
        check_length(self.site_name, "mixer", self.max_length, tokens, "tokens")
        states, real = without_padding(hidden_states, padding_mask)
        values = self.value(states) * real[..., None]  # the bias too is nothing at padding
        values = values.unflatten(-1, (len(self.mixing), -1))  # (batch, tokens, groups, d_group)
        mixed = torch.einsum("gij,bjgc->bigc", self.mixing[:, :tokens, :tokens], values).flatten(2)
        gate = 2 * torch.sigmoid(self.gate(states))  # starts near 1
        return gate * mixed


@register
class Mixer(Block):
    """Static weights over positions for each group of channels, and a gate by the token of what they gave.

    output(2 sigmoid(x_i W_g + b_g) ⊙ Σ_j M[group, i, j] value(x_j)): position *i* takes of position *j* the same share
    in every sentence, and chooses among channels by what it holds itself. For encoders, which read all positions.
    Padding gives nothing; a shorter sentence uses the leading rows and columns of M. The weights may be negative, and
    are not divided by the sentence's length: both forms explain less of a trained encoder (docs/small-blocks.md).

    With G = ``groups`` and T = ``max_length`` it stores 3 d² + 3 d (value, gate, output) and G T² (M).

    Source: Tolstikhin et al. 2021, "MLP-Mixer" (arXiv 2105.01601), for static mixing over positions; Liu et al. 2021,
    "Pay Attention to MLPs" (gMLP, arXiv 2105.08050), for the product with a gate. Here the gate reads its own position
    and what it multiplies is mixed, by matrices of a group each, as heads have theirs.
    """

    name = "mixer"
    kinds = frozenset({"self_attention"})

    class Arguments(Arguments):
        """What a plan may say.

        Args:
            groups: Channel groups with mixing weights of their own; None: as many as the model has heads there.
            heads: Which heads of the attention are replaced, one group each; None: all, by the groups.
            max_length: Tokens that it can read.
        """

        groups: Annotated[int, Field(ge=1)] | None = None
        heads: HeadList | None = None
        max_length: Annotated[int, Field(ge=1)] = 50

        @model_validator(mode="after")
        def _fit(self) -> Mixer.Arguments:
            if self.groups is not None and self.heads is not None:
                raise ValueError("each of 'heads' is a group, and 'groups' is their number; leave one of them out")
            return self

    @classmethod
    def resolve(cls, arguments: Any, site: Site, teacher: AttentionWeights | None) -> dict[str, Any]:
        if site.causal:
            raise LeanformerError(
                f"{site.name}: a mixer reads all tokens at once, and a decoder must not read later ones; take 'slots', "
                "'synthesizer' or 'feed_forward' there"
            )
        check_positions(site, arguments.max_length)
        settings = arguments.model_dump()
        if arguments.heads is not None:
            return {**settings, "heads": settle_heads(site, arguments.heads, teacher)}
        groups = arguments.groups or site.num_heads
        check_divides(site, "groups", groups)
        return {**settings, "groups": groups}

    @classmethod
    def build(cls, arguments: Any, site: Site, teacher: AttentionWeights | None) -> nn.Module | None:
        groups, width = groups_of(site, arguments.heads or arguments.groups)
        module = MixerModule(site, groups, arguments.max_length, width)
        if teacher is not None:
            module.take_over(teacher)
        return module

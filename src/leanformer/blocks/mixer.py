"""Tokens mixed by weights that are the same for every sentence, and a gate that reads the token."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
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
    """What ``mixer`` builds, with weights by position or by distance; see there for the arguments."""

    def __init__(
        self, site: Site, groups: int, max_length: int | None, max_distance: int | None, width: int | None = None
    ) -> None:
        super().__init__()
        self.site_name = site.name
        self.max_length = max_length
        self.value = nn.Linear(site.d_model, width or site.d_model)
        if max_length is not None:
            # Small beside the means of values that an attention gives: with weights far off, teaching starts far off.
            mixing = torch.empty(groups, max_length, max_length).normal_(std=MIXING_DEVIATION)
        else:
            assert max_distance is not None
            # What no text was long enough to teach stays nothing. From j - i = -max_distance on.
            mixing = torch.zeros(groups, 2 * max_distance + 1)
        self.mixing = nn.Parameter(mixing)
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
        states, real = without_padding(hidden_states, padding_mask)
        values = self.value(states) * real[..., None]  # the bias too is nothing at padding
        values = values.unflatten(-1, (len(self.mixing), -1))  # (batch, tokens, groups, d_group)
        mixed = torch.einsum("gij,bjgc->bigc", self._weights(states.shape[1]), values).flatten(2)
        gate = 2 * torch.sigmoid(self.gate(states))  # starts near 1
        return gate * mixed

    def _weights(self, tokens: int) -> torch.Tensor:
        """Of each token for each, shape (groups, tokens, tokens)."""
        if self.max_length is not None:
            check_length(self.site_name, "mixer", self.max_length, tokens, "tokens")
            return self.mixing[:, :tokens, :tokens]
        beyond = tokens - 1 - self.mixing.shape[1] // 2  # distances in the text that have no weight; below 0 too many
        by_distance = F.pad(self.mixing, (beyond, beyond))  # (groups, 2 tokens - 1)
        return by_distance.unfold(1, tokens, 1).flip(1)  # [i, j] is by_distance[tokens - 1 + j - i]


@register
class Mixer(Block):
    """Static weights over positions for each group of channels, and a gate by the token of what they gave.

    output(2 sigmoid(x_i W_g + b_g) ⊙ Σ_j M[group, i, j] value(x_j)): position *i* takes of position *j* the same share
    in every sentence, and chooses among channels by what it holds itself. For encoders, which read all positions.
    Padding gives nothing. The weights may be negative, and are not divided by the sentence's length: both forms explain
    less of a trained encoder (docs/small-blocks.md).

    Of absolute positions a shorter sentence uses the leading rows and columns of M, and a longer one is an error. Of
    relative positions M[group, i, j] = w[group, j - i], and nothing where tokens are farther apart than
    ``max_distance``: there is no limit of length.

    With G = ``groups``, T = ``max_length`` and D = ``max_distance`` it stores 3 d² + 3 d (value, gate, output) and G T²
    (M) or G (2 D + 1) (w). On n tokens it takes 3 d² n + d n² multiply-adds, whatever D is.

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
            positions: What a weight goes by: where the two tokens stand (``absolute``), or how far from one another
                (``relative``).
            max_length: Of absolute positions: tokens that it can read.
            max_distance: Of relative positions: tokens farther from one another give each other nothing.
        """

        groups: Annotated[int, Field(ge=1)] | None = None
        heads: HeadList | None = None
        positions: Literal["absolute", "relative"] = "absolute"
        max_length: Annotated[int, Field(ge=1)] | None = Field(
            default_factory=lambda given: 50 if given["positions"] == "absolute" else None
        )
        max_distance: Annotated[int, Field(ge=0)] | None = Field(
            default_factory=lambda given: 49 if given["positions"] == "relative" else None
        )

        @model_validator(mode="after")
        def _fit(self) -> Mixer.Arguments:
            if self.groups is not None and self.heads is not None:
                raise ValueError("each of 'heads' is a group, and 'groups' is their number; leave one of them out")
            if (self.max_length is None) == (self.positions == "absolute"):
                raise ValueError("absolute positions have a 'max_length', relative ones have none")
            if (self.max_distance is None) == (self.positions == "relative"):
                raise ValueError("relative positions have a 'max_distance', absolute ones have none")
            return self

    @classmethod
    def resolve(cls, arguments: Any, site: Site, teacher: AttentionWeights | None) -> dict[str, Any]:
        if site.causal:
            raise LeanformerError(
                f"{site.name}: a mixer reads all tokens at once, and a decoder must not read later ones; take 'slots', "
                "'synthesizer' or 'feed_forward' there"
            )
        if arguments.max_length is not None:
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
        module = MixerModule(site, groups, arguments.max_length, arguments.max_distance, width)
        if teacher is not None:
            module.take_over(teacher)
        return module

"""Tokens mixed by weights that are the same for every sentence, and a gate that reads the token."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn

from leanformer.blocks.base import Arguments, AttentionWeights, Block, BlockModule, register
from leanformer.blocks.state import DecodingState
from leanformer.errors import LeanformerError
from leanformer.model.sites import Site


def without_padding(states: torch.Tensor, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """The states with zeros at padding, and which of them are real.

    Args:
        states: Shape (batch, tokens, d_model).
        mask: Boolean, shape (batch, tokens), or with the tokens before them; None: no padding.

    Returns:
        The states, and a boolean of shape (batch, tokens).
    """
    if mask is None:
        return states, states.new_ones(states.shape[:2], dtype=torch.bool)
    real = mask[:, mask.shape[1] - states.shape[1] :].bool()
    return states.masked_fill(~real[..., None], 0), real


def check_divides(site: Site, name: str, parts: int) -> None:
    """Whether the width falls into that many equal parts.

    Raises:
        LeanformerError: It does not; the message names the argument.
    """
    if site.d_model % parts:
        raise LeanformerError(
            f"{site.name}: {name} = {parts} does not divide the model's width; take a divisor of {site.d_model}"
        )


def check_positions(site: Site, max_length: int) -> None:
    """Whether a block is no longer than the positions of the model.

    Raises:
        LeanformerError: It is longer.
    """
    if site.max_positions is not None and max_length > site.max_positions:
        raise LeanformerError(
            f"{site.name}: max_length = {max_length} makes the block longer than the positions of the model; "
            f"take at most {site.max_positions}"
        )


def check_length(site_name: str, block: str, max_length: int, length: int, what: str) -> None:
    """Whether a block can read a text.

    Args:
        site_name: Where it stands.
        block: Its name.
        max_length: Most tokens that it can read.
        length: Tokens that it is given.
        what: What they are, in the plural.

    Raises:
        LeanformerError: There are too many.
    """
    if length > max_length:
        raise LeanformerError(
            f"{site_name}: its {block} block reads at most {max_length} {what}, not {length}; "
            "shorten the text, or make the block with a greater max_length"
        )


class MixerModule(BlockModule):
    """What ``mixer`` builds; see there for the arguments."""

    max_length: int

    def __init__(self, site: Site, groups: int, max_length: int) -> None:
        super().__init__()
        self.site_name = site.name
        self.max_length = max_length
        self.groups = groups
        self.value = nn.Linear(site.d_model, site.d_model)
        self.gate = nn.Linear(site.d_model, site.d_model)
        self.mixing = nn.Parameter(torch.empty(groups, max_length, max_length))
        self.output = nn.Linear(site.d_model, site.d_model)
        self.norm="MIXNORM"
        import os
        self.norm=os.environ.get("MIXNORM","raw")
        if self.norm=="raw": nn.init.normal_(self.mixing,std=0.02)
        if self.norm=="raw2": nn.init.normal_(self.mixing,std=max_length**-.5)
        if self.norm=="rawm": nn.init.normal_(self.mixing,mean=1/max_length,std=max_length**-.5)
        if self.norm=="count": nn.init.normal_(self.mixing,mean=1.,std=1.)
        if self.norm=="count0": nn.init.normal_(self.mixing,mean=0.,std=1.)
        if self.norm=="root": nn.init.normal_(self.mixing,std=1.)
        if self.norm=="soft": nn.init.normal_(self.mixing,std=.5)
        nn.init.zeros_(self.gate.bias)

    def forward(
        self,
        hidden_states: torch.Tensor,
        padding_mask: torch.Tensor | None = None,
        source: torch.Tensor | None = None,
        source_mask: torch.Tensor | None = None,
        state: DecodingState | None = None,
    ) -> torch.Tensor:
        tokens = hidden_states.shape[1]
        check_length(self.site_name, "mixer", self.max_length, tokens, "tokens")
        states, real = without_padding(hidden_states, padding_mask)
        values = self.value(states) * real[..., None]
        mixing = self.mixing[:, :tokens, :tokens]
        if self.norm=="soft":
            mixing = (mixing-mixing.amax(-1,keepdim=True).detach()).exp()
            den=torch.einsum("gij,bj->big",mixing,real.float()).clamp(min=1e-20)
        mixed = torch.einsum("gij,bjgc->bigc", mixing, values.unflatten(-1, (self.groups, -1)))
        if self.norm=="soft": mixed=mixed/den[...,None]
        if self.norm.startswith("count"): mixed = mixed/real.sum(1).clamp(min=1)[:,None,None,None]
        if self.norm=="root": mixed = mixed/real.sum(1).clamp(min=1)[:,None,None,None]**.5
        return self.output(2 * torch.sigmoid(self.gate(states)) * mixed.flatten(2))


@register
class Mixer(Block):
    name = "mixer"
    kinds = frozenset({"self_attention"})

    class Arguments(Arguments):
        groups: Annotated[int, Field(ge=1)] | None = None
        max_length: Annotated[int, Field(ge=1)] = 50

    @classmethod
    def resolve(cls, arguments: Any, site: Site, teacher: AttentionWeights | None) -> dict[str, Any]:
        if site.causal:
            raise LeanformerError(f"{site.name}: a mixer reads later tokens too, which a decoder must not; take 'feed_forward', 'synthesizer' or 'slots' there")
        groups = arguments.groups or site.num_heads
        check_divides(site, "groups", groups)
        check_positions(site, arguments.max_length)
        return {**arguments.model_dump(), "groups": groups}

    @classmethod
    def build(cls, arguments: Any, site: Site, teacher: AttentionWeights | None) -> nn.Module | None:
        return MixerModule(site, arguments.groups, arguments.max_length)

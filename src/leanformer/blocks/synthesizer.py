"""Mixing weights from a network of the token alone: no token is compared with another (arXiv 2005.00743)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn

from leanformer.blocks.kit.base import AttentionWeights, Block, HeadsModule, register
from leanformer.blocks.kit.distances import distances, reach
from leanformer.blocks.kit.inputs import BlockInputs
from leanformer.blocks.kit.positions import PlacedArguments, Positions, placed, positions_of
from leanformer.blocks.kit.prefix import wide
from leanformer.blocks.kit.site import Site
from leanformer.blocks.kit.some_heads import Heads, groups_of, settle_heads
from leanformer.blocks.kit.tokens import check_length, check_positions, without_padding

SourceScore = Literal["none", "linear", "network"]

# Instead of minus infinity, so that a row of nothing else has a softmax.
UNREAD = -1e30


class SynthesizerModule(HeadsModule):
    """The module that ``synthesizer`` builds; the arguments are described there."""

    value: nn.Linear
    max_length: int

    def __init__(
        self,
        site: Site,
        heads: int,
        hidden: int,
        source_score: SourceScore,
        max_length: int,
        width: int | None = None,
        max_distance: int | None = None,
        positions: Positions | None = None,
    ) -> None:
        super().__init__()
        self.site_name = site.name
        self.cross = site.reads_source
        self.causal = site.causal and not site.reads_source
        self.max_length = max_length
        self.heads = heads
        self.hidden = nn.Linear(site.d_model, hidden)
        self.score = nn.Linear(hidden, heads * max_length)  # head by head
        self.source_score: nn.Module | None = None
        if source_score == "linear":
            self.source_score = nn.Linear(site.d_model, heads, bias=False)
        elif source_score == "network":
            last = nn.Linear(hidden, heads, bias=False)
            self.source_score = nn.Sequential(nn.Linear(site.d_model, hidden), nn.ReLU(), last)
        self.value = nn.Linear(site.d_model, width or site.d_model, bias=width is not None)
        self.output = nn.Linear(site.d_model, site.d_model) if width is None else None
        self.max_distance = max_distance
        self.positions = positions_of(site, positions)

    def mix(self, inputs: BlockInputs) -> torch.Tensor:
        """The heads; see ``HeadsModule``.

        Raises:
            LeanformerError: There are more tokens to weigh, here or in the source, than ``max_length``.
        """
        state, inputs = inputs.state, placed(self.positions, inputs)
        states, real = without_padding(inputs.hidden_states, inputs.padding_mask)
        before = 0 if state is None else state.length
        if not self.cross:
            self._check_length(before + states.shape[1], "tokens")
            scores, values = self._read(states, real)
            if state is not None and state.tensors:
                scores = torch.cat([state.tensors["scores"], scores], dim=2)
                values = torch.cat([state.tensors["values"], values], dim=1)
        elif state is not None and state.tensors:
            scores, values = state.tensors["scores"], state.tensors["values"]
        else:
            if inputs.source is None:
                raise ValueError(f"{self.site_name}: a synthesizer that reads the source was called without it")
            self._check_length(inputs.source.shape[1], "tokens of the source")
            scores, values = self._read(*without_padding(inputs.source, inputs.source_mask))
        if state is not None:
            state.tensors = {"scores": scores, "values": values}
        scores = self._scores(states, values.shape[1]) + scores[:, :, None]  # (batch, heads, tokens, read)
        if self.causal and states.shape[1] > 1:
            later = torch.ones_like(scores[0, 0], dtype=torch.bool).triu(before + 1)
            scores = scores.masked_fill(later, UNREAD)
        if self.max_distance is not None:
            apart = distances(states.shape[1], scores.shape[-1], before, states.device)
            scores = scores.masked_fill(apart.abs() > self.max_distance, UNREAD)
        weights = scores.softmax(dim=-1).to(values.dtype)
        mixed = weights @ values.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (batch, heads, tokens, d_head)
        return mixed.transpose(1, 2).flatten(2)

    def _scores(self, states: torch.Tensor, read: int) -> torch.Tensor:
        """Each token's scores for the first positions: (batch, tokens, d) -> (batch, heads, tokens, read)."""
        if torch.compiler.is_exporting():  # the weights stay one matrix, as quantizers want it
            scores = wide(self.score(torch.relu(self.hidden(states))))
            return scores.unflatten(-1, (self.heads, -1))[..., :read].transpose(1, 2)
        weight = self.score.weight.unflatten(0, (self.heads, -1))[:, :read]  # (heads, read, hidden)
        bias = self.score.bias.unflatten(0, (self.heads, -1))[:, :read]
        hidden = torch.relu(self.hidden(states))
        scores = nn.functional.linear(hidden, weight.flatten(0, 1), bias.flatten())
        return wide(scores).unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _read(self, states: torch.Tensor, real: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores of tokens that are read, (batch, heads or 1, tokens), and their values, (batch, tokens, channels)."""
        if self.source_score is None:
            scores = wide(states.new_zeros(states.shape[0], 1, states.shape[1]))
        else:
            scores = wide(self.source_score(states)).transpose(1, 2)
        return scores.masked_fill(~real[:, None], UNREAD), self.value(states)

    def _check_length(self, length: int, what: str) -> None:
        check_length(self.site_name, "synthesizer", self.max_length, length, what)


@register
class Synthesizer(Block):
    """Weights over positions from a network of the token that attends, and a score of the token that is read.

    softmax_j(f(x_i)[head, j] + g(y_j)[head]) over real positions j, where f is linear, ReLU, linear: *i* says which
    positions it wants, *j* how much it has to give, and neither sees the other. Values and output are projected as an
    attention's are. In a decoder it is causal; while decoding it keeps values and scores of what it has read.

    With T = ``max_length``, H = ``hidden`` and h = ``heads`` it stores 2 d² + d (values, output), d H + H + h T (H + 1)
    (f), and for g nothing, d h (``linear``), or d H + H + H h (``network``).

    Source: Tay et al. 2020, "Synthesizer: Rethinking Self-Attention in Transformer Models" (arXiv 2005.00743), for the
    dense synthesizer f; g is this library's.
    """

    name = "synthesizer"
    kinds = frozenset({"self_attention", "cross_attention"})

    class Arguments(PlacedArguments):
        """The arguments in a plan, besides ``positions``.

        Args:
            heads: Channel groups with weights of their own, or which heads of the attention are replaced; None: as many
                groups as the model has heads there.
            hidden: Hidden units of the networks; None: twice the model's width.
            source_score: g: ``none``, a ``linear`` map, or a ``network`` as f is.
            max_length: Positions that f gives weights to, of the source where that is read.
            max_distance: Tokens farther apart are not read; at most the window of the attention there, which is the
                default.
        """

        heads: Heads | None = None
        hidden: Annotated[int, Field(ge=1)] | None = None
        source_score: SourceScore = "none"
        max_length: Annotated[int, Field(ge=1)] = 50
        max_distance: Annotated[int, Field(ge=0)] | None = None

    @classmethod
    def resolve(cls, arguments: Any, site: Site, teacher: AttentionWeights | None) -> dict[str, Any]:
        heads = settle_heads(site, arguments.heads, teacher)
        check_positions(site, arguments.max_length)
        settings = {**arguments.settled(site), "heads": heads, "hidden": arguments.hidden or 2 * site.d_model}
        settings["max_distance"] = reach(site, arguments.max_distance)
        return {key: value for key, value in settings.items() if value is not None}

    @classmethod
    def build(cls, arguments: Any, site: Site, teacher: AttentionWeights | None) -> nn.Module | None:
        settings = arguments.model_dump()
        settings["heads"], settings["width"] = groups_of(site, arguments.heads)
        module = SynthesizerModule(site, **settings)
        if teacher is not None:
            module.take_over(teacher)
        return module

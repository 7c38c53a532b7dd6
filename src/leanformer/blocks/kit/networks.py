"""The shallow networks that stand in for attention (arXiv 2311.10642, "Rethinking Attention"), whole and causal."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from leanformer.blocks.kit.prefix import (
    EPSILON,
    Slots,
    Sums,
    by_group,
    nothing_read,
    read_all,
    read_each,
    read_prefixes,
    wide,
)
from leanformer.blocks.kit.state import DecodingState


class Scale(nn.Module):
    """Gain and shift of a LayerNorm, one of each for every number that it normalizes."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(shape))
        self.bias = nn.Parameter(torch.zeros(shape))


class GroupedMap(nn.Module):
    """Weights of a linear map for each group, initialized as in PyTorch's ``Linear``.

    Args:
        weight: Shape of the weights, groups first.
        fan_in: Numbers that the map reads.
    """

    decayed: ClassVar[tuple[str, ...]] = ("weight",)

    def __init__(self, weight: tuple[int, ...], fan_in: int) -> None:
        super().__init__()
        bound = fan_in**-0.5
        self.weight = nn.Parameter(torch.empty(weight).uniform_(-bound, bound))


class GroupedLinear(GroupedMap):
    """The same with biases, laid out by position.

    Args:
        weight: Shape of the weights, groups first.
        bias: Shape of the biases.
        fan_in: Numbers that the map reads.
    """

    def __init__(self, weight: tuple[int, ...], bias: tuple[int, ...], fan_in: int) -> None:
        super().__init__(weight, fan_in)
        bound = fan_in**-0.5
        self.bias = nn.Parameter(torch.empty(bias).uniform_(-bound, bound))


class Network(nn.Module):
    """LayerNorm, linear, LeakyReLU(0.01), LayerNorm, linear over flattened tokens; ``groups`` of them side by side.

    With in = positions_in * d_model, out = positions_out * d_out it stores
    2 in + in hidden + hidden + 2 hidden + hidden out + out numbers for each group; with a rank, d_model rank +
    positions_in rank hidden in place of in hidden, and hidden positions_out rank + rank d_out in place of hidden out.

    Args:
        groups: Networks that read the same tokens; their outputs are laid side by side.
        positions_in: Tokens that it reads.
        positions_out: Tokens that it gives; 1 where it gives one for each prefix by the same weights.
        d_model: Width of a token.
        hidden: Hidden units of a group.
        padding_in_norm: Whether the first LayerNorm counts positions without a token as zeros.
        rank: Channels that all positions' tokens are mapped to alike before each position has weights of its own, and
            from which they are mapped back alike; None: each position's weights read and give all channels.
    """

    def __init__(
        self,
        groups: int,
        positions_in: int,
        positions_out: int,
        d_model: int,
        hidden: int,
        padding_in_norm: bool,
        rank: int | None,
    ) -> None:
        super().__init__()
        d_out = d_model // groups
        read, given = (d_model, d_out) if rank is None else (rank, rank)  # channels of a position's own weights
        self.padding_in_norm = padding_in_norm
        self.norm = Scale(groups, positions_in, d_model)
        self.first = GroupedLinear((groups, positions_in, read, hidden), (groups, hidden), fan_in=positions_in * read)
        self.hidden_norm = Scale(groups, hidden)
        self.last = GroupedLinear((groups, positions_out, given, hidden), (groups, positions_out, d_out), fan_in=hidden)
        self.down = None if rank is None else GroupedMap((groups, d_model, rank), fan_in=d_model)
        self.up = None if rank is None else GroupedMap((groups, rank, d_out), fan_in=rank)

    def slots(self, *cut: torch.Tensor) -> Slots:
        """The shares of some positions in the first norm's gain and shift and in the first linear map's weights."""
        gain, shift, weight = cut
        return Slots(gain, shift, weight, None if self.down is None else self.down.weight)

    def widened(self, output: torch.Tensor) -> torch.Tensor:
        """The last linear map's channels, (groups, ..., d_out), from the output of the positions' own weights."""
        return output if self.up is None else by_group(output, self.up.weight)

    def activate(self, hidden: torch.Tensor) -> torch.Tensor:
        """LeakyReLU, in place, and the second LayerNorm: (groups, ..., hidden) -> the same shape."""
        hidden = F.leaky_relu_(hidden)
        gain, shift = wide(self.hidden_norm.weight), wide(self.hidden_norm.bias)
        if len(gain) == 1:
            normed = F.layer_norm(hidden, hidden.shape[-1:], gain[0], shift[0], EPSILON)
        else:
            shape = (-1, *[1] * (hidden.dim() - 2), hidden.shape[-1])
            normed = F.layer_norm(hidden, hidden.shape[-1:], eps=EPSILON)
            normed = torch.addcmul(shift.view(shape), normed, gain.view(shape))
        return normed.to(self.last.weight.dtype)


class WholeNetwork(Network):
    """All tokens at once to all tokens at once: an encoder's."""

    def forward(self, states: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, d_model), zero where ``real``, (batch, tokens, 1), is 0 -> (batch, tokens, d_model)."""
        length = states.shape[1]
        entries = wide(states)
        if self.padding_in_norm:
            entries = F.pad(entries, (0, 0, 0, self.norm.weight.shape[1] - length))
            real = torch.ones_like(entries[..., :1])
        count = (real.sum(dim=(1, 2), keepdim=True) * states.shape[-1]).clamp(min=1)
        centered = (entries - entries.sum(dim=(1, 2), keepdim=True) / count) * real
        variance = centered.square().sum(dim=(1, 2), keepdim=True) / count
        normed = centered * (variance + EPSILON).rsqrt()  # (batch, positions, d_model)
        slots = self.slots(*(w[:, : real.shape[1]] for w in (self.norm.weight, self.norm.bias, self.first.weight)))
        rows = (normed * slots.gain[:, None] + slots.shift[:, None]) * real  # (groups, batch, positions, d_model)
        flat = slots.narrowed(rows.to(slots.weight.dtype)).flatten(2)
        hidden = self.activate(wide(flat @ slots.weight.flatten(1, 2)) + wide(self.first.bias)[:, None])
        output = hidden @ self.last.weight[:, :length].flatten(1, 2).mT  # (groups, batch, tokens * d_out or rank)
        output = self.widened(output.unflatten(2, (length, -1))) + self.last.bias[:, None, :length]
        return output.permute(1, 2, 0, 3).flatten(2)


class CausalNetwork(Network):
    """A token for each prefix, by the causal prefix identity; where there is a source, it is read before all of them.

    Args:
        sources: Positions of the source, the first of ``positions_in``; 0: it reads none.
        token_alone: Whether it reads only each position's own token of the decoder, instead of the prefix.
        gate: Whether the source's part of the first linear map is multiplied by a gate that reads the token.
        others: As in ``Network``.
    """

    def __init__(
        self,
        groups: int,
        positions_in: int,
        positions_out: int,
        d_model: int,
        hidden: int,
        padding_in_norm: bool,
        rank: int | None,
        sources: int,
        token_alone: bool,
        gate: bool,
    ) -> None:
        super().__init__(groups, positions_in, positions_out, d_model, hidden, padding_in_norm, rank)
        self.sources = sources
        self.token_alone = token_alone
        self.gate = GroupedLinear((groups, d_model, hidden), (groups, hidden), fan_in=d_model) if gate else None
        if self.gate is not None:
            nn.init.zeros_(self.gate.bias)

    def forward(
        self,
        states: torch.Tensor,
        real: torch.Tensor,
        source: torch.Tensor | None,
        source_real: torch.Tensor | None,
        state: DecodingState | None,
    ) -> torch.Tensor:
        """The output of each position.

        Args:
            states: Shape (batch, tokens, d_model), zero where there is no token.
            real: 1 where there is a token, else 0, shape (batch, tokens, 1); batch may be 1 where all are alike.
            source: As ``states``; not needed where the decoding state has read it.
            source_real: As ``real``.
            state: What was read before; updated with what is read now.

        Returns:
            Shape (batch, tokens, d_model).
        """
        first = 0 if state is None else state.length
        source_slots, slots = self._slots(0 if source is None else source.shape[1], first, states.shape[1])
        if state is not None and state.tensors:
            before = Sums.kept_in(state)
        else:
            before = self._start()
            if source is not None and source_real is not None:
                read = read_all(source_slots, source.transpose(0, 1), source_real.transpose(0, 1), self.padding_in_norm)
                before = before.plus(read)
        states, real = states.transpose(0, 1), real.transpose(0, 1)  # positions first
        if not self.token_alone:
            hidden = self._with_prefix(before, slots, states, real, state)
        else:
            hidden = self._with_token(before, slots, states, real)
            if state is not None and not state.tensors:
                before.keep_in(state)
        return self._give(self.activate(hidden), first)

    def _slots(self, sources: int, first: int, tokens: int) -> tuple[Slots, Slots]:
        """The shares of the source's tokens, and of the decoder's that are read now."""
        rest = self.norm.weight.shape[1] - self.sources
        if torch.compiler.is_exporting() and not self.token_alone:  # where the cuts are is not known yet
            tensors = (self.norm.weight, self.norm.bias, self.first.weight)
            source = [whole.narrow(1, 0, sources) for whole in tensors]
            return self.slots(*source), self.slots(*(w.narrow(1, self.sources + first, tokens) for w in tensors))
        own = [0, rest, 0] if self.token_alone else [first, tokens, rest - first - tokens]
        # Cut at once: each single cut would have a gradient of the whole size.
        cuts = [
            whole.split_with_sizes([sources, self.sources - sources, *own], dim=1)
            for whole in (self.norm.weight, self.norm.bias, self.first.weight)
        ]
        return self.slots(*(cut[0] for cut in cuts)), self.slots(*(cut[3] for cut in cuts))

    def _start(self) -> Sums:
        """The sums before the first token, the source's included."""
        whole = (self.norm.weight, self.norm.bias, self.first.weight)
        if not self.token_alone:
            return nothing_read(self.slots(*whole), self.first.bias, self.padding_in_norm)
        slots = self.slots(*(each[:, : self.sources] for each in whole))
        return nothing_read(slots, None, self.padding_in_norm)  # the bias comes with the token

    def _with_prefix(
        self, before: Sums, slots: Slots, states: torch.Tensor, real: torch.Tensor, state: DecodingState | None
    ) -> torch.Tensor:
        """Each prefix, with what was read before, after the first linear map: (groups, tokens, batch, hidden)."""
        # Padding after a sentence's end affects no real position, so that it may be counted like tokens, alike for all
        # sentences; not where padding comes before a real position, or more tokens follow. On a GPU this is not
        # checked: the check would wait for the GPU.
        alike = state is None and real.device.type == "cpu" and not bool((real[1:] > real[:-1]).any())
        sums = read_prefixes(slots, states, real, self.padding_in_norm, alike, before)
        if state is not None:
            sums.keep_in(state)
        return sums.mapped(*sums.normalization())

    def _with_token(self, source: Sums, slots: Slots, states: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """The source with each token alone, after the first linear map: (groups, tokens, batch, hidden)."""
        # One position's weights serve all tokens: as if all were at it, in a batch of tokens * batch.
        flat = states.reshape(1, -1, states.shape[-1])
        read = read_each(slots, flat, real.expand(-1, states.shape[1], -1).reshape(1, -1, 1), self.padding_in_norm)
        if self.padding_in_norm:
            own = nothing_read(slots, self.first.bias, padding_counts=True).plus(read)
        else:
            own = read._replace(shifts=read.shifts + wide(self.first.bias)[:, None, None])
        own = own._replace(
            products=own.products.unflatten(2, states.shape[:2])[:, 0],
            statistics=own.statistics.unflatten(1, states.shape[:2])[0],
        )
        both = source.plus(own)
        if self.gate is None:
            return both.mapped(*both.normalization())
        gate = wide(flat @ self.gate.weight) + wide(self.gate.bias)[:, None]  # (groups, tokens * batch, hidden)
        gate = 2 * torch.sigmoid(gate).unflatten(1, states.shape[:2])  # starts near 1
        mean, inverse = both.normalization()
        return torch.addcmul(own.mapped(mean, inverse), gate, source.mapped(mean, inverse))

    def _give(self, hidden: torch.Tensor, first: int) -> torch.Tensor:
        """The last linear map: (groups, tokens, batch, hidden) -> (batch, tokens, d_model)."""
        length = hidden.shape[1]
        weight: torch.Tensor = self.last.weight
        bias: torch.Tensor = self.last.bias
        if weight.shape[1] == 1:
            output = (hidden.flatten(1, 2) @ weight[:, 0].mT).unflatten(1, (length, -1))
        else:
            output = hidden @ weight[:, first : first + length].mT  # (groups, tokens, batch, d_out or rank)
            bias = bias[:, first : first + length]
        return (self.widened(output) + bias[:, :, None]).permute(2, 1, 0, 3).flatten(2)

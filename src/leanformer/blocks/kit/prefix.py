"""LayerNorm and a linear map over every prefix of a sequence at once: the causal prefix identity.

With z the flattened tokens, μ and σ the mean and deviation of its entries, gain γ, shift β and weights W, of which each
position owns a slice,

    (γ (z - μ) / σ + β) W = (z (γ W) - μ 1 (γ W)) / σ + β W.

z (γ W), 1 (γ W), β W, and of the statistics Σ z, Σ z² and the number of entries, are all sums over positions. So one
running sum gives every prefix its value, and one addition takes a further token in.

Shapes here: (groups, positions, batch, hidden), a group being a network of its own; positions before batch, because
each position's product with its own slice of W is one of a batch of matrix products.

Tensors are cut by ``split_with_sizes``: ``split`` does the same by way of Python, which counts in a step of one token.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from leanformer.blocks.kit.state import DecodingState

EPSILON = 1e-5  # of both LayerNorms, PyTorch's default


def wide(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor in float32 at least, because sums over positions are not exact in less."""
    return tensor if tensor.dtype.itemsize >= 4 else tensor.float()


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """A context of products in the precision of their factors, under any autocast."""
    # On the device "meta" there is no autocast to be switched off.
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def running_sum(terms: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """Sums of ``start`` and the first 1, 2, ... positions' terms.

    Args:
        terms: Shape (..., positions, batch, width). Used up: on a CPU the sums take their place.
        start: One position, broadcastable to the terms, which may have a batch of 1 where it has more.

    Returns:
        Shape (..., positions, batch, width).
    """
    if terms.shape[-3] == 1:
        return terms + start
    if terms.device.type != "cpu":
        return terms.cumsum(dim=-3) + start
    terms = terms.contiguous()
    if terms.shape[-2] < start.shape[-2]:  # the sums do not fit in the terms' place
        return _RunningSum.apply(terms, torch.zeros_like(terms[..., :1, :, :])) + start
    return _RunningSum.apply(terms, start)


class _RunningSum(torch.autograd.Function):
    """On a CPU: PyTorch's ``cumsum`` takes 20 times as long there where the dimension is not the last."""

    @staticmethod
    def forward(ctx: Any, terms: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        ctx.start_shape = start.shape
        ctx.mark_dirty(terms)
        terms[..., :1, :, :].add_(start)
        return _accumulate(terms)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        # A term is in its own and all later sums.
        later = _accumulate_from_the_end(gradient.clone(memory_format=torch.contiguous_format))
        return later, later[..., :1, :, :].sum_to_size(ctx.start_shape)


def _accumulate(terms: torch.Tensor) -> torch.Tensor:
    """Makes terms into their running sums over dimension -3, in place, by 2 log2(positions) additions of slices.

    Source: Brent and Kung 1982, "A Regular Layout for Parallel Adders".
    """
    sums = terms.movedim(-3, 0)
    length, step = len(sums), 1
    while 2 * step <= length:
        sums[2 * step - 1 :: 2 * step].add_(sums[step - 1 : length - step : 2 * step])
        step *= 2
    while step > 1:
        step //= 2
        sums[3 * step - 1 :: 2 * step].add_(sums[2 * step - 1 : length - step : 2 * step])
    return terms


def _accumulate_from_the_end(terms: torch.Tensor) -> torch.Tensor:
    """As ``_accumulate``, of each term and all later ones: the same slices seen from the other end, without a copy."""
    sums = terms.movedim(-3, 0)
    length, step = len(sums), 1
    while 2 * step <= length:
        first = length % (2 * step)
        sums[first : length - step : 2 * step].add_(sums[first + step :: 2 * step])
        step *= 2
    while step > 1:
        step //= 2
        if 3 * step <= length:
            first = (length - step) % (2 * step)
            sums[first : length - 2 * step : 2 * step].add_(sums[first + step : length - step : 2 * step])
    return terms


class Slots(NamedTuple):
    """Input positions, with their shares of the first LayerNorm and the first linear map.

    Args:
        gain: Shape (groups, positions, d_model).
        shift: Likewise.
        weight: Shape (groups, positions, d_model, hidden), or where it is factored (groups, positions, rank, hidden).
        down: The other factor, which all positions share, shape (groups, d_model, rank); None: it is not factored.
    """

    gain: torch.Tensor
    shift: torch.Tensor
    weight: torch.Tensor
    down: torch.Tensor | None

    def narrowed(self, rows: torch.Tensor) -> torch.Tensor:
        """What the weights are multiplied with: (groups, ..., d_model) -> the same, or (groups, ..., rank)."""
        return rows if self.down is None else by_group(rows, self.down)


def by_group(rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """All rows of a group by its matrix: (groups, ..., d_in), (groups, d_in, d_out) -> (groups, ..., d_out)."""
    return (rows.flatten(1, -2) @ weight).unflatten(1, rows.shape[1:-1])


class Sums(NamedTuple):
    """The sums over tokens that the identity needs; those of two sets of tokens add up.

    ``positions`` may be 1 where all share a value, and so may ``batch`` in gains, shifts and statistics.

    Args:
        products: z (γ W), shape (groups, positions, batch, hidden).
        gains: 1 (γ W) over the entries that count, likewise.
        shifts: β W over the entries that count, and a bias, likewise.
        statistics: Σ z, Σ z² and the number of entries that count, shape (positions, batch, 3).
    """

    products: torch.Tensor
    gains: torch.Tensor
    shifts: torch.Tensor
    statistics: torch.Tensor

    def plus(self, other: Sums) -> Sums:
        """The sums of both sets of tokens together."""
        return Sums(*(mine + its for mine, its in zip(self, other, strict=True)))

    def normalization(self) -> tuple[torch.Tensor, torch.Tensor]:
        """μ and 1 / σ, each of shape (positions, batch, 1)."""
        total, squares, count = self.statistics.split_with_sizes([1, 1, 1], dim=-1)
        count = count.clamp(min=1)  # before the first real token
        mean = total / count
        return mean, ((squares / count - mean * mean).clamp(min=0) + EPSILON).rsqrt()

    def mapped(self, mean: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
        """The normed tokens after the linear map, shape (groups, positions, batch, hidden)."""
        return torch.addcmul(self.products, mean, self.gains, value=-1).mul_(inverse).add_(self.shifts)

    def keep_in(self, state: DecodingState) -> None:
        """Keeps the last position's sums in a decoding state, batch first; in ``shared`` those of the whole batch."""
        state.tensors, state.shared = {}, {}
        batch = self.products.shape[-2]
        for name, sums in self._asdict().items():
            last = sums[..., -1, :, :].movedim(-2, 0)
            kept = state.shared if last.shape[0] < batch else state.tensors
            kept[name] = last if sums.shape[-3] == 1 else last.clone()  # the other positions would stay in memory

    @classmethod
    def kept_in(cls, state: DecodingState) -> Sums:
        """The sums kept in a decoding state, with one position."""
        kept = state.tensors | state.shared
        return cls(**{name: kept[name].movedim(0, -2).unsqueeze(-3) for name in cls._fields})


def nothing_read(slots: Slots, bias: torch.Tensor | None, padding_counts: bool) -> Sums:
    """The sums before the first token.

    Args:
        slots: The positions of all tokens that may come.
        bias: The linear map's bias, shape (groups, hidden); None adds none.
        padding_counts: Whether positions without a token are zeros that count: then all count from the start.
    """
    groups, positions, d_model = slots.gain.shape
    count, hidden = 0, slots.weight.shape[-1]
    constants = wide(slots.weight.new_zeros(groups, 2, hidden))
    if padding_counts:
        count = positions * d_model
        rows = slots.narrowed(torch.stack([slots.gain, slots.shift], dim=1))  # (groups, 2, positions, d_model or rank)
        constants = wide(rows.flatten(2) @ slots.weight.flatten(1, 2))
    gains, shifts = constants[:, :, None, None].unbind(dim=1)  # each (groups, 1, 1, hidden)
    if bias is not None:
        shifts = shifts + wide(bias)[:, None, None]
    return Sums(torch.zeros_like(gains), gains, shifts, gains.new_tensor([[[0.0, 0.0, count]]]))


def read_each(slots: Slots, states: torch.Tensor, real: torch.Tensor, padding_counts: bool) -> Sums:
    """The sums of each token by itself; a position without a token counts as a token of zeros.

    Args:
        slots: The positions of the tokens.
        states: Shape (positions, batch, d_model), zero where there is no token.
        real: 1 where there is a token, else 0, shape (positions, batch, 1); batch may be 1 where all are alike.
        padding_counts: As in ``nothing_read``.
    """
    return _split(_products(slots, states, padding_counts), states, real, padding_counts)


def read_prefixes(
    slots: Slots, states: torch.Tensor, real: torch.Tensor, padding_counts: bool, alike: bool, before: Sums
) -> Sums:
    """The sums of each prefix, with what was read before; arguments as in ``read_each``, and:

    Args:
        alike: Whether positions without a token may be counted as tokens of zeros, because no real one comes after
            them.
        before: The sums of what was read before, with one position.
    """
    products = _products(slots, states, padding_counts)
    if alike or padding_counts:
        missing = products.shape[2] - states.shape[1]
        start = F.pad(before.products.expand(-1, -1, states.shape[1], -1), (0, 0, 0, missing))
        sums = _split(running_sum(products, start), states, real, padding_counts)
        gains, shifts = sums.gains + before.gains, sums.shifts + before.shifts
    else:
        sums = _split(products, states, real, padding_counts)
        sums = sums._replace(products=running_sum(sums.products, before.products))
        gains, shifts = running_sum(sums.gains * real, before.gains), running_sum(sums.shifts * real, before.shifts)
    return Sums(sums.products, gains, shifts, running_sum(sums.statistics, before.statistics))


def _products(slots: Slots, states: torch.Tensor, padding_counts: bool) -> torch.Tensor:
    """z (γ W), and after the batch, unless padding counts, 1 (γ W) and β W: (groups, positions, batch + 2, hidden)."""
    rows = states * slots.gain[:, :, None]  # (groups, positions, batch, d_model)
    if not padding_counts:
        # As rows of the same product: the weights are read once.
        rows = torch.cat([rows, slots.gain[:, :, None], slots.shift[:, :, None]], dim=2)
    return wide(slots.narrowed(rows) @ slots.weight)


def _split(products: torch.Tensor, states: torch.Tensor, real: torch.Tensor, padding_counts: bool) -> Sums:
    if padding_counts:
        gains = shifts = products.new_zeros(1, 1, 1, 1)
    else:
        products, gains, shifts = products.split_with_sizes([states.shape[1], 1, 1], dim=2)
    return Sums(products, gains, shifts, _statistics(states, real, padding_counts))


def read_all(slots: Slots, states: torch.Tensor, real: torch.Tensor, padding_counts: bool) -> Sums:
    """The sums of all tokens; arguments as in ``read_each``."""
    rows = slots.narrowed(states * slots.gain[:, :, None])  # (groups, positions, batch, d_model or rank)
    products = wide(rows.transpose(1, 2).flatten(2) @ slots.weight.flatten(1, 2))  # (groups, batch, hidden)
    if padding_counts:
        gains = shifts = products.new_zeros(1, 1, 1, 1)
    else:
        constants = slots.narrowed(torch.stack([slots.gain, slots.shift], dim=2))  # (groups, positions, 2, ...)
        constants = constants @ slots.weight  # (groups, positions, 2, hidden)
        both = wide(torch.einsum("gpch,pb->gcbh", wide(constants), real[..., 0]))  # (groups, 2, batch, hidden)
        gains, shifts = both.unsqueeze(2).unbind(dim=1)  # each (groups, 1, batch, hidden)
    statistics = _statistics(states, real, padding_counts).sum(dim=0, keepdim=True)
    return Sums(products.unsqueeze(1), gains, shifts, statistics)


def _statistics(states: torch.Tensor, real: torch.Tensor, padding_counts: bool) -> torch.Tensor:
    """Σ z, Σ z² and the number of entries that count, shape (positions, batch, 3)."""
    entries = wide(states)
    count = torch.zeros_like(real) if padding_counts else real * states.shape[-1]
    total = entries.sum(-1, keepdim=True)
    return torch.cat([total, entries.square().sum(-1, keepdim=True), count.expand_as(total)], dim=-1)

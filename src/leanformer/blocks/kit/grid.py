"""Mixing of an image's patches by their distances in rows and in columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

# Where each patch reads only some others, a convolution is faster than products with matrices of all pairs, which have
# to be made from the offsets' weights first; with fewer patches than this its gradient on a CPU is far slower.
CONVOLVED_FROM_PATCHES = 49
# Up to this many channels in a group, products are up to twice as fast with channels before tokens in memory.
THIN = 8


@dataclass(frozen=True)
class Grid:
    """Patches in rows and columns, row by row, with special tokens (class, distillation) before them.

    Args:
        rows: Patches from top to bottom.
        columns: Patches from left to right.
        special_tokens: Tokens before the patches; they may have been dropped.
        max_distance: Patches farther from one another in rows or in columns have no weight.
    """

    rows: int
    columns: int
    special_tokens: int
    max_distance: int

    @property
    def patches(self) -> int:
        """How many there are."""
        return self.rows * self.columns

    @property
    def reach(self) -> tuple[int, int]:
        """Rows and columns, up or down, left or right, that a patch reads."""
        return min(self.max_distance, self.rows - 1), min(self.max_distance, self.columns - 1)

    @property
    def kernel(self) -> tuple[int, int]:
        """Rows and columns of the offsets that have a weight."""
        down, right = self.reach
        return 2 * down + 1, 2 * right + 1

    @property
    def offsets(self) -> int:
        """How many offsets between patches have a weight."""
        rows, columns = self.kernel
        return rows * columns

    @property
    def weights(self) -> int:
        """Weights of a group: of each offset, of each special token to and from patches, and among special tokens."""
        return self.offsets + 2 * self.special_tokens + self.special_tokens**2

    def mix(self, weights: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Mixes all tokens for each token.

        Args:
            weights: Shape (groups, ``self.weights``): those of the offsets, row by row; then what each special token
                takes from every patch; what each gives to every patch; and what each takes from each special token.
            values: Shape (batch, tokens, channels), a group's channels side by side: the special tokens, or none, and
                the patches.

        Returns:
            Shape (batch, tokens, channels).
        """
        there = values.shape[1] - self.patches
        special, patches = values[:, :there], values[:, there:]
        of_offsets = weights[:, : self.offsets]
        few = self.patches < CONVOLVED_FROM_PATCHES and torch.is_grad_enabled()
        if self.offsets < self.patches and not few:
            mixed = self._convolve(of_offsets, patches)
        else:
            mixed = mix_pairs(self._pairs(of_offsets), patches)
        if not there:
            return mixed
        of_special = weights[:, self.offsets :].repeat_interleave(values.shape[2] // len(weights), dim=0)
        taken, given, among = of_special.T.split([there, there, there**2])  # (numbers, channels)
        own = patches.sum(dim=1, keepdim=True) * taken
        own = own + (special[:, None] * among.unflatten(0, (there, there))).sum(dim=2)
        return torch.cat([own, mixed + (special * given).sum(dim=1, keepdim=True)], dim=1)

    def _convolve(self, weights: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
        """Convolves each channel, (batch, patches, channels), with its group's kernel, (groups, offsets)."""
        channels = patches.shape[2]
        kernels = weights.unflatten(1, (1, *self.kernel)).repeat_interleave(channels // len(weights), dim=0)
        image = patches.unflatten(1, (self.rows, self.columns)).permute(0, 3, 1, 2)
        return F.conv2d(image, kernels, padding=self.reach, groups=channels).permute(0, 2, 3, 1).flatten(1, 2)

    def _pairs(self, weights: torch.Tensor) -> torch.Tensor:
        """(groups, offsets) -> (groups, patches, patches), zero where two patches are too far apart."""
        (down, right), rows, columns = self.reach, self.rows, self.columns
        above, beside = rows - 1 - down, columns - 1 - right
        offsets = F.pad(weights.unflatten(1, self.kernel), (beside, beside, above, above))
        # [i, j] is the entry at rows - 1 - i + j, and likewise in columns.
        by_row = offsets.unfold(1, rows, 1).flip(1)  # (groups, rows, offsets in columns, rows read)
        both = by_row.unfold(2, columns, 1).flip(2)  # (groups, rows, columns, rows read, columns read)
        return both.reshape(len(weights), self.patches, self.patches)


def mix_pairs(weights: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Σ_j weights[group, i, j] values[batch, j], shape (batch, tokens, channels).

    Args:
        weights: Shape (groups, tokens, tokens read).
        values: Shape (batch, tokens read, channels), a group's channels side by side.
    """
    groups, tokens, read = weights.shape
    batch, _, channels = values.shape
    if torch.compiler.is_exporting():  # one product for each group in the graph, whatever the batch
        by_group = values.permute(2, 0, 1).unflatten(0, (groups, -1)).flatten(1, 2)  # (groups, channels * batch, read)
        mixed = (by_group @ weights.mT).unflatten(1, (channels // groups, batch))
        return mixed.permute(2, 3, 0, 1).flatten(2)
    if channels > THIN * groups:
        return torch.einsum("gij,bjgc->bigc", weights, values.unflatten(-1, (groups, -1))).flatten(2)
    by_channel = _Transposed.apply(values.flatten(0, 1)).view(groups, -1, read)  # a group's channels, of the batch
    mixed = torch.bmm(by_channel, weights.mT).view(channels, batch * tokens)
    return _Transposed.apply(mixed).view(batch, tokens, channels)


class _Transposed(torch.autograd.Function):
    """Transposes a matrix in memory, and its gradient: batches of products of strided parts are slow on a CPU."""

    generate_vmap_rule = True

    @staticmethod
    def forward(matrix: torch.Tensor) -> torch.Tensor:
        return matrix.T.contiguous()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        """Nothing is kept."""

    @staticmethod
    def backward(ctx: Any, given: torch.Tensor) -> torch.Tensor:
        return given.T.contiguous()

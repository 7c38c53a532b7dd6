"""Probes, which show what a site does: the best linear map, and blocks that are taught head by head."""

from __future__ import annotations

import torch
from torch import nn

from leanformer.blocks.kit.base import AttentionWeights, BlockModule, HeadsModule
from leanformer.blocks.kit.inputs import BlockInputs
from leanformer.blocks.kit.site import Site
from leanformer.blocks.kit.tokens import without_padding

# Relative to a feature's mean square; it keeps the equations solvable where features are linearly dependent.
RIDGE = 1e-6


def features(site: Site, inputs: BlockInputs) -> torch.Tensor:
    """The inputs of the linear map at a site, for each token: the token, the mean of the tokens it may read, and 1.

    Args:
        site: Its kind says what a token may read: only itself at an MLP, no later tokens in a decoder's self-attention.
        inputs: The site's inputs.

    Returns:
        Shape (batch, tokens, features), in double precision.
    """
    states, real = without_padding(inputs.hidden_states.double(), inputs.padding_mask)
    parts = [states]
    if site.reads_source:
        assert inputs.source is not None
        read, read_real = without_padding(inputs.source.double(), inputs.source_mask)
        mean = read.sum(dim=1, keepdim=True) / read_real.sum(dim=1).clamp(min=1)[:, None, None]
        parts.append(mean.expand(-1, states.shape[1], -1))
    elif site.causal and site.kind != "mlp":
        parts.append(states.cumsum(dim=1) / real.cumsum(dim=1).clamp(min=1)[..., None])
    elif site.kind != "mlp":
        mean = states.sum(dim=1, keepdim=True) / real.sum(dim=1).clamp(min=1)[:, None, None]
        parts.append(mean.expand_as(states))
    parts.append(states.new_ones(*states.shape[:2], 1))
    return torch.cat(parts, dim=-1)


class LeastSquares:
    """A linear map fitted to batches by least squares; it keeps sums of products and no batches."""

    def __init__(self) -> None:
        self._products: torch.Tensor | float = 0.0  # of features with features
        self._targets: torch.Tensor | float = 0.0  # of features with targets

    def add(self, given: torch.Tensor, target: torch.Tensor) -> None:
        """Adds a batch: features, shape (positions, features), and targets, shape (positions, channels)."""
        self._products = self._products + given.T @ given
        self._targets = self._targets + given.T @ target.double()

    def solve(self) -> torch.Tensor:
        """The map, shape (features, channels), in double precision."""
        products = self._products
        assert isinstance(products, torch.Tensor)
        assert isinstance(self._targets, torch.Tensor)
        ridge = RIDGE * products.diagonal().mean() * torch.eye(len(products), dtype=products.dtype).to(products)
        return torch.linalg.solve(products + ridge, self._targets)


class LinearModule(BlockModule):
    """A fitted linear map as a block at a site.

    Args:
        site: The site.
        weight: From ``LeastSquares``, shape (features, d_model).
    """

    def __init__(self, site: Site, weight: torch.Tensor) -> None:
        super().__init__()
        self.site = site
        self.weight: torch.Tensor
        self.register_buffer("weight", weight)

    def forward(self, inputs: BlockInputs) -> torch.Tensor:
        """(batch, tokens, d_model) -> the same shape; all tokens at once, for measuring, not for decoding."""
        if inputs.state is not None and inputs.state.length:
            raise NotImplementedError("a fitted linear map is for measuring, not for decoding")
        return (features(self.site, inputs) @ self.weight).to(inputs.hidden_states.dtype)


class HeadsProbe(BlockModule):
    """A block that is taught the heads before the output projection, so that R² is known for each head.

    Args:
        block: Initialised from the attention; its output projection is not trained.
        attention: That attention.
    """

    target = "heads"

    def __init__(self, block: HeadsModule, attention: AttentionWeights) -> None:
        super().__init__()
        self.block = block
        self.max_length = block.max_length
        # Where the block's values have no bias, the output projection holds the bias of the heads.
        folded = attention.value_bias is not None and getattr(block.value, "bias", None) is None
        shift = attention.value_bias if folded else torch.zeros_like(attention.value[0])
        self.shift: torch.Tensor
        self.register_buffer("shift", shift)

    def forward(self, inputs: BlockInputs) -> torch.Tensor:
        """As the block; see ``BlockModule``."""
        output: torch.Tensor = self.block(inputs)
        return output

    def taught(self, inputs: BlockInputs) -> torch.Tensor:
        """The heads side by side."""
        return self.block.mix(inputs) + self.shift

    def taught_parameters(self) -> list[nn.Parameter]:
        """All but the output projection's."""
        return [parameter for name, parameter in self.block.named_parameters() if not name.startswith("output.")]

"""How an attention spreads its weights: entropy and effective rank, head by head."""

from __future__ import annotations

import torch
from torch import nn

from leanformer.blocks.kit.base import BlockModule
from leanformer.blocks.kit.inputs import BlockInputs
from leanformer.blocks.kit.site import Site
from leanformer.model.family import Family


def weights_of(family: Family, site: Site, module: nn.Module, inputs: BlockInputs) -> torch.Tensor | None:
    """The weights with which an attention averages, or None where the module has none.

    Args:
        family: The model's family.
        site: The site.
        module: The module at the site: the family's own attention, or a block.
        inputs: The module's inputs, with the mask of its tokens.

    Returns:
        Shape (batch, heads, tokens, tokens read); each row sums to one.
    """
    if isinstance(module, BlockModule):
        return module.attention_weights(inputs)
    attention = family.attention_weights(module)
    if attention is None:
        return None
    read, read_mask = inputs.hidden_states, inputs.padding_mask
    if site.reads_source:
        assert inputs.source is not None
        read, read_mask = inputs.source, inputs.source_mask
    scores = attention.scores(inputs.hidden_states, read)
    if site.causal and not site.reads_source:
        scores = scores.masked_fill(~scores.new_ones(scores.shape[-2:], dtype=torch.bool).tril(), -torch.inf)
    elif read_mask is not None:
        scores = scores.masked_fill(~read_mask[:, None, None], -torch.inf)
    return scores.softmax(dim=-1)


class HeadSpread:
    """Averages over batches, for each head, how attention weights spread.

    Args:
        causal: Whether a token reads no later tokens.
    """

    def __init__(self, causal: bool) -> None:
        self._causal = causal
        self._entropy = torch.zeros(0, dtype=torch.float64)
        self._rank = torch.zeros(0, dtype=torch.float64)
        self._queries = 0
        self._sentences = 0
        self._read = 0

    def add(self, weights: torch.Tensor, mask: torch.Tensor | None, read_mask: torch.Tensor | None) -> None:
        """Adds a batch.

        Args:
            weights: Shape (batch, heads, tokens, tokens read).
            mask: Boolean, shape (batch, tokens): True at real queries; with None, all are real.
            read_mask: Boolean, shape (batch, tokens read): likewise for keys.
        """
        weights = weights.double()
        asks = torch.ones_like(weights[:, 0, :, 0], dtype=torch.bool) if mask is None else mask
        reads = torch.ones_like(weights[:, 0, 0], dtype=torch.bool) if read_mask is None else read_mask
        logs = weights.clamp(min=torch.finfo(torch.float64).tiny).log()
        entropy = -(weights * logs).sum(dim=-1)  # (batch, heads, tokens), nats
        # (batch, tokens): how many tokens each query may read
        readable = reads.cumsum(dim=-1) if self._causal else reads.sum(dim=-1, keepdim=True).expand_as(asks)
        # A query that may read only one token has no entropy to measure.
        chooses = asks & (readable > 1)
        part = entropy / readable.clamp(min=2).log()[:, None]
        real = weights * asks[:, None, :, None] * reads[:, None, None]
        values = torch.linalg.svdvals(real)
        values = values / values.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
        rank = torch.special.entr(values).sum(dim=-1).exp()  # (batch, heads)
        if not len(self._entropy):
            self._entropy = self._entropy.new_zeros(weights.shape[1])
            self._rank = self._rank.new_zeros(weights.shape[1])
        self._entropy += (part * chooses[:, None]).sum(dim=(0, 2)).cpu()
        self._rank += rank.sum(dim=0).cpu()
        self._queries += int(chooses.sum())
        self._sentences += len(weights)
        self._read += int(reads.sum())

    @property
    def entropy(self) -> list[float]:
        """For each head, the mean entropy of a query's weights, as part of its maximum (all weights alike)."""
        return [float(value) / max(1, self._queries) for value in self._entropy]

    @property
    def effective_rank(self) -> list[float]:
        """For each head, the mean effective rank of an example's weights: exp of the entropy of the singular values.

        Source: Roy and Vetterli 2007, "The effective rank: A measure of effective dimensionality" (EUSIPCO).
        """
        return [float(value) / self._sentences for value in self._rank]

    @property
    def tokens_read(self) -> float:
        """The mean number of readable tokens per example: the maximum of the effective rank."""
        return self._read / self._sentences

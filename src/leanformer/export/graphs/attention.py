"""A model's own attention as blocks: one plain form in the graph, whatever the family and the implementation."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel

from leanformer.blocks.kit.base import AttentionWeights, BlockModule, set_linear
from leanformer.blocks.kit.inputs import BlockInputs
from leanformer.blocks.kit.site import Site
from leanformer.blocks.kit.some_heads import KeptHeads
from leanformer.model.family import find_family
from leanformer.model.surgery import module_at, put, sites
from leanformer.model.weights import same_weights_other_modules


class AttentionBlock(BlockModule):
    """A model's own attention as a block, which keeps what it has read in a ``DecodingState`` as all blocks do.

    Args:
        site: Where it stands.
        weights: Its weights.
    """

    def __init__(self, site: Site, weights: AttentionWeights) -> None:
        super().__init__()
        self.heads = KeptHeads(site, weights)
        self.output = nn.Linear(len(weights.output), site.d_model, bias=weights.output_bias is not None)
        set_linear(self.output, weights.output, weights.output_bias)

    def forward(self, inputs: BlockInputs) -> torch.Tensor:
        """The heads, projected; see ``BlockModule``."""
        output: torch.Tensor = self.output(self.heads(inputs))
        return output


def of_blocks(model: PreTrainedModel) -> PreTrainedModel:
    """The same model with blocks at all attentions; it shares the other weights with the argument."""
    opened = same_weights_other_modules(model)
    family = find_family(opened)
    family.open(opened)
    for site in sites(opened):
        if site.kind in ("self_attention", "cross_attention"):
            module = module_at(opened, site.name)
            weights = None if module is None else family.attention_weights(module)
            if weights is not None:
                put(opened, site, AttentionBlock(site, weights))
    return opened.eval().requires_grad_(False)

"""What blocks share that read tokens by sums over them: where the sums come from."""

from __future__ import annotations

import torch

from leanformer.blocks.kit.base import HeadsModule
from leanformer.blocks.kit.inputs import BlockInputs
from leanformer.blocks.kit.site import Site
from leanformer.blocks.kit.tokens import without_padding


class SumsModule(HeadsModule):
    """A block that reads tokens by a sum over them: of a sentence, of the source, or running in a decoder."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site_name = site.name
        self.cross = site.reads_source
        self.causal = site.causal and not site.reads_source

    def pool(self, states: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """The sums over all tokens.

        Args:
            states: Shape (batch, tokens, d_model), zero at padding.
            real: Boolean, shape (batch, tokens): which are real.

        Returns:
            Batch first.
        """
        raise NotImplementedError

    def pooled(self, inputs: BlockInputs, states: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """The sums over the tokens, or at a cross-attention over the source, which is read with the first token.

        Args:
            inputs: The block's inputs.
            states: Its tokens, as in ``pool``.
            real: Likewise.
        """
        if not self.cross:
            return self.pool(states, real)
        state = inputs.state
        if state is not None and state.tensors:
            return state.tensors["pooled"]
        if inputs.source is None:
            raise ValueError(f"{self.site_name}: a block that reads the source was called without it")
        pooled = self.pool(*without_padding(inputs.source, inputs.source_mask))
        if state is not None:
            state.tensors = {"pooled": pooled}
        return pooled

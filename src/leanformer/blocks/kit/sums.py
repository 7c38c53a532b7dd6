"""What blocks have in common that know the tokens they read by sums: where the sums come from."""

from __future__ import annotations

import torch

from leanformer.blocks.kit.base import HeadsModule
from leanformer.blocks.kit.site import Site
from leanformer.blocks.kit.state import DecodingState
from leanformer.blocks.kit.tokens import without_padding


class SumsModule(HeadsModule):
    """A block that reads tokens by a sum over them: of a sentence, of the source, or running in a decoder."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site_name = site.name
        self.cross = site.reads_source
        self.causal = site.causal and not site.reads_source

    def pool(self, states: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """What is kept of all tokens together.

        Args:
            states: Shape (batch, tokens, d_model), zero at padding.
            real: Boolean, shape (batch, tokens): which are real.

        Returns:
            Batch first.
        """
        raise NotImplementedError

    def pooled(
        self,
        states: torch.Tensor,
        real: torch.Tensor,
        source: torch.Tensor | None,
        source_mask: torch.Tensor | None,
        state: DecodingState | None,
    ) -> torch.Tensor:
        """What is kept of the tokens, or at a cross-attention of the source, pooled with the first token.

        Args:
            states: As in ``pool``, and ``real``.
            source: As in ``BlockModule.forward``, and the others.
        """
        if not self.cross:
            return self.pool(states, real)
        if state is not None and state.tensors:
            return state.tensors["pooled"]
        if source is None:
            raise ValueError(f"{self.site_name}: a block that reads the source was called without it")
        pooled = self.pool(*without_padding(source, source_mask))
        if state is not None:
            state.tensors = {"pooled": pooled}
        return pooled

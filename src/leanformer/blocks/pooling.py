"""What a classifier reads: the class token, or the mean of all tokens."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from leanformer.blocks.kit.base import AttentionWeights, Block, register
from leanformer.blocks.kit.site import Site


class ClassTokenPooling(nn.Module):
    """The first token: (batch, tokens, d_model) -> (batch, d_model)."""

    needs_class_token: ClassVar[bool] = True

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return hidden_states[:, 0]


class MeanPooling(nn.Module):
    """The mean over tokens: (batch, tokens, d_model) -> (batch, d_model)."""

    needs_class_token: ClassVar[bool] = False

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return hidden_states.mean(dim=1)


@register
class ClassToken(Block):
    """Keeps the class token as what the classifier reads."""

    name = "class_token"
    kinds = frozenset({"pooling"})

    @classmethod
    def keeps(cls, arguments: Any) -> bool:
        return True


@register
class Mean(Block):
    """The classifier reads the mean of the patches' tokens; class and distillation tokens are dropped.

    Their positions are dropped too. Without values and MLP a class token can only take convex combinations of the other
    tokens, one hop in each layer; the mean reads all of them at once.
    """

    name = "mean"
    kinds = frozenset({"pooling"})

    @classmethod
    def build(cls, arguments: Any, site: Site, teacher: AttentionWeights | None) -> nn.Module | None:
        return MeanPooling()

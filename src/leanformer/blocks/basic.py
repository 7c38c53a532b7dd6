"""The blocks that keep what stands at a site, empty it, or give it an MLP of another width."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field, field_validator, model_validator
from torch import nn
from transformers.activations import ACT2FN

from leanformer.blocks.kit.base import Arguments, AttentionWeights, Block, register
from leanformer.blocks.kit.site import Site


@register
class Attention(Block):
    """Keeps the attention that stands there."""

    name = "attention"
    kinds = frozenset({"self_attention", "cross_attention"})

    @classmethod
    def keeps(cls, arguments: Any) -> bool:
        return True


@register
class Nothing(Block):
    """Empties the site: an attention or MLP is removed with its norm and residual, a layer as a whole."""

    name = "none"
    kinds = frozenset(
        {
            "self_attention",
            "cross_attention",
            "mlp",
            "self_attention_sublayer",
            "cross_attention_sublayer",
            "layer",
        }
    )

    @classmethod
    def build(cls, arguments: Any, site: Site, teacher: AttentionWeights | None) -> nn.Module | None:
        return None


# transformers' activations without parameters of their own.
ACTIVATIONS = tuple(sorted(set(ACT2FN) - {"prelu", "xielu"}))


class FeedForward(nn.Module):
    """Linear, activation, linear: (..., d_model) -> (..., hidden) -> (..., d_model)."""

    def __init__(self, d_model: int, hidden: int, activation: str) -> None:
        super().__init__()
        self.fc1 = nn.Linear(d_model, hidden)
        self.fc2 = nn.Linear(hidden, d_model)
        self.activation = ACT2FN[activation]

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.activation(self.fc1(hidden_states)))


@register
class Mlp(Block):
    """Keeps the MLP that stands there, or with ``hidden`` puts a fresh one of that width in its place.

    It stores 2 d hidden weights and d + hidden biases.
    """

    name = "mlp"
    kinds = frozenset({"mlp"})

    class Arguments(Arguments):
        """``hidden``: width, channels; None keeps the present MLP. ``activation``: a transformers activation."""

        hidden: Annotated[int, Field(ge=1)] | None = None
        activation: str = "gelu"

        @field_validator("activation")
        @classmethod
        def _is_known(cls, activation: str) -> str:
            if activation not in ACTIVATIONS:
                raise ValueError(f"no activation of transformers; known: {', '.join(ACTIVATIONS)}")
            return activation

        @model_validator(mode="after")
        def _is_used(self) -> Mlp.Arguments:
            if self.hidden is None and "activation" in self.model_fields_set:
                raise ValueError("'activation' goes with 'hidden'; without it the present MLP is kept")
            return self

    @classmethod
    def keeps(cls, arguments: Any) -> bool:
        return arguments.hidden is None

    @classmethod
    def build(cls, arguments: Any, site: Site, teacher: AttentionWeights | None) -> nn.Module | None:
        return FeedForward(site.d_model, arguments.hidden, arguments.activation)

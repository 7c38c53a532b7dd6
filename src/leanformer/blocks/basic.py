"""The blocks that keep what stands at a site, or some of its heads, empty it, or give it an MLP of another width."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field, field_validator, model_validator
from torch import nn
from transformers.activations import ACT2FN

from leanformer.blocks.kit.base import (
    OF_ANOTHER_KIND,
    Arguments,
    AttentionWeights,
    Block,
    MlpWeights,
    register,
    set_linear,
)
from leanformer.blocks.kit.site import Site
from leanformer.blocks.kit.some_heads import Heads, check_heads
from leanformer.core.errors import LeanformerError


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


@register
class Attention(Block):
    """Keeps the attention that stands there, or with ``keep_heads`` some of its heads.

    With k heads of d_head channels left it is an attention of the same kind whose projections map d to k d_head, and
    back. It stores 4 d k d_head weights, and k d_head or d biases for each projection that has one.
    """

    name = "attention"
    kinds = frozenset({"self_attention", "cross_attention"})
    own_attention = True

    class Arguments(Arguments):
        """The arguments in a plan.

        Args:
            keep_heads: How many heads stay, those that contribute most; or which, counted from 0. None: all of them.
        """

        keep_heads: Heads | None = None

    @classmethod
    def keeps(cls, arguments: Any) -> bool:
        return arguments.keep_heads is None

    @classmethod
    def chooses(cls, arguments: Any) -> bool:
        return isinstance(arguments.keep_heads, int)

    @classmethod
    def resolve(cls, arguments: Any, site: Site, teacher: AttentionWeights | None) -> dict[str, Any]:
        keep = arguments.keep_heads
        if isinstance(keep, list):
            return {"keep_heads": check_heads(site, "keep_heads", keep, "keeps", teacher)}
        if teacher is None:
            there = f"{site.block!r} stands there; reduce the teacher instead"
            if site.block == cls.name:
                there = OF_ANOTHER_KIND
            raise LeanformerError(
                f"{site.name}: keep_heads = {keep} keeps heads of the model's own attention, but {there}"
            )
        if keep >= teacher.num_heads:
            raise LeanformerError(
                f"{site.name}: keep_heads = {keep}, and the attention there has {teacher.num_heads} heads; keep fewer, "
                "or leave it out"
            )
        return {"keep_heads": keep}

    @classmethod
    def kept_heads(cls, arguments: Any, teacher: AttentionWeights, take_over: bool) -> AttentionWeights:
        """The heads that stay, as a whole attention; see ``Block``."""
        keep = arguments.keep_heads
        if not take_over:
            return teacher.of_heads(range(keep if isinstance(keep, int) else len(keep)))
        return teacher.without_others(keep if isinstance(keep, list) else teacher.most_important(keep))


# transformers' activations without parameters of their own.
ACTIVATIONS = tuple(sorted(set(ACT2FN) - {"prelu", "xielu"}))


class FeedForward(nn.Module):
    """Linear, activation, linear: (..., d_model) -> (..., hidden) -> (..., d_model)."""

    def __init__(self, d_model: int, hidden: int, activation: str) -> None:
        super().__init__()
        self.fc1 = nn.Linear(d_model, hidden)
        self.fc2 = nn.Linear(hidden, d_model)
        self.activation = ACT2FN[activation]
        self.activation_name = activation

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.activation(self.fc1(hidden_states)))


@register
class Mlp(Block):
    """Keeps the MLP that stands there, or with ``hidden`` puts one of that width in its place.

    It stores 2 d hidden weights and d + hidden biases.
    """

    name = "mlp"
    kinds = frozenset({"mlp"})

    class Arguments(Arguments):
        """The arguments in a plan.

        Args:
            hidden: Width, channels; None keeps the present MLP.
            activation: A transformers activation; None: ``gelu``, or with ``init: teacher`` that of the present MLP.
            init: ``fresh``, or ``teacher``: the neurons of the present MLP that contribute most.
        """

        hidden: Annotated[int, Field(ge=1)] | None = None
        activation: str | None = None
        init: Literal["fresh", "teacher"] = "fresh"

        @field_validator("activation")
        @classmethod
        def _is_known(cls, activation: str | None) -> str | None:
            if activation is not None and activation not in ACTIVATIONS:
                raise ValueError(f"no activation of transformers; known: {', '.join(ACTIVATIONS)}")
            return activation

        @model_validator(mode="after")
        def _is_used(self) -> Mlp.Arguments:
            for name in ("activation", "init"):
                if self.hidden is None and name in self.model_fields_set:
                    raise ValueError(f"{name!r} goes with 'hidden'; without it the present MLP is kept")
            return self

    @classmethod
    def keeps(cls, arguments: Any) -> bool:
        return arguments.hidden is None

    @classmethod
    def chooses(cls, arguments: Any) -> bool:
        return bool(arguments.init == "teacher")

    @classmethod
    def resolve(cls, arguments: Any, site: Site, teacher: MlpWeights | None) -> dict[str, Any]:
        settings = dict(arguments.model_dump())
        if arguments.init == "fresh":
            return settings | {"activation": arguments.activation or "gelu"}
        if teacher is None:
            raise LeanformerError(
                f"{site.name}: init 'teacher' takes over neurons of an MLP of two maps with an activation between, and "
                "the one there is of another kind, with a gate, or with maps of another form; take init 'fresh'"
            )
        if arguments.hidden > teacher.neurons:
            raise LeanformerError(
                f"{site.name}: hidden = {arguments.hidden} is more than the {teacher.neurons} neurons of the MLP "
                "there, which init 'teacher' takes over; take init 'fresh', or fewer"
            )
        if arguments.activation not in (None, teacher.activation):
            raise LeanformerError(
                f"{site.name}: init 'teacher' takes over neurons whose activation is {teacher.activation!r}, not "
                f"{arguments.activation!r}; leave 'activation' out"
            )
        if teacher.activation not in ACTIVATIONS:
            raise LeanformerError(
                f"{site.name}: init 'teacher' cannot take over the activation {teacher.activation!r} of the MLP there, "
                "which has numbers of its own; take init 'fresh'"
            )
        return settings | {"activation": teacher.activation}

    @classmethod
    def build(cls, arguments: Any, site: Site, teacher: MlpWeights | None) -> nn.Module | None:
        module = FeedForward(site.d_model, arguments.hidden, arguments.activation)
        if arguments.init == "teacher" and teacher is not None:
            kept = teacher.without_others(teacher.most_important(arguments.hidden))
            set_linear(module.fc1, kept.inner, kept.inner_bias)
            set_linear(module.fc2, kept.output, kept.output_bias)
        return module

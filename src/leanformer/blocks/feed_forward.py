"""Feed-forward networks in place of attention (arXiv 2311.10642, "Rethinking Attention", AAAI 2024)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import nn

from leanformer.blocks.kit.base import (
    OF_ANOTHER_KIND,
    Arguments,
    AttentionWeights,
    Block,
    BlockModule,
    register,
)
from leanformer.blocks.kit.inputs import BlockInputs
from leanformer.blocks.kit.networks import CausalNetwork, WholeNetwork
from leanformer.blocks.kit.prefix import wide
from leanformer.blocks.kit.site import Site
from leanformer.blocks.kit.tokens import check_length, check_positions, without_padding
from leanformer.core.errors import LeanformerError

# The published sizes: numbers that the network reads for each of its hidden units.
INPUTS_PER_HIDDEN = {"XS": 256, "S": 128, "M": 8, "L": 2}
INPUTS_PER_HIDDEN_OF_A_HEAD = {"XS": 32, "S": 16, "M": 8, "L": 4}

ATTENTIONS = ("self_attention", "cross_attention")


class FeedForwardModule(BlockModule):
    """The module that ``feed_forward`` builds; the arguments are described there.

    Args:
        site: Where it stands.
        hidden: Hidden units, of each head's network with ``per_head``.
        max_length: Tokens that it can read.
        per_head: Whether each head has its network.
        kept_bias: Whether the kept output projection has a bias; None: no projection is kept.
        padding_in_norm: As in ``Network``.
        rank: Likewise.
        token_alone: As in ``CausalNetwork``.
        gate: Likewise.
    """

    def __init__(
        self,
        site: Site,
        hidden: int,
        max_length: int,
        per_head: bool,
        kept_bias: bool | None,
        padding_in_norm: bool,
        rank: int | None,
        token_alone: bool,
        gate: bool,
    ) -> None:
        super().__init__()
        self.site_name = site.name
        self.max_length = max_length
        groups = site.num_heads if per_head else 1
        positions = input_positions(site, max_length, token_alone)
        causal = site.causal or site.reads_source
        # One set of output weights serves all prefixes, unless the network reads the source with the prefix: then each
        # position has its own, as in the published network.
        positions_out = max_length if not causal or (site.reads_source and not token_alone) else 1
        shape = (groups, positions, positions_out, site.d_model, hidden, padding_in_norm, rank)
        self.network: WholeNetwork | CausalNetwork
        if causal:
            sources = max_length if site.reads_source else 0
            self.network = CausalNetwork(*shape, sources=sources, token_alone=token_alone, gate=gate)
        else:
            self.network = WholeNetwork(*shape)
        self.output: nn.Linear | None = None
        if kept_bias is not None:
            self.output = nn.Linear(site.d_model, site.d_model, bias=kept_bias)
            self.target = "heads"

    def forward(self, inputs: BlockInputs) -> torch.Tensor:
        """As in every block; see ``BlockModule``.

        Raises:
            LeanformerError: There are more tokens, here or in the source, than ``max_length``.
        """
        output = self._network(inputs)
        return output if self.output is None else self.output(output)

    def taught(self, inputs: BlockInputs) -> torch.Tensor:
        """The heads side by side where the output projection is kept, else the output."""
        return self._network(inputs)

    def taught_parameters(self) -> list[nn.Parameter]:
        """All but the kept output projection's."""
        return list(self.network.parameters())

    def _network(self, inputs: BlockInputs) -> torch.Tensor:
        state, source = inputs.state, inputs.source
        self._check_length((0 if state is None else state.length) + inputs.hidden_states.shape[1], "tokens")
        states, real = _without_padding(inputs.hidden_states, inputs.padding_mask)
        if isinstance(self.network, WholeNetwork):
            return self.network(states, real)
        source_real = None
        if self.network.sources == 0 or (state is not None and state.tensors):
            source = None  # the network reads none, or it was read with the first token
        elif source is None:
            raise ValueError(f"{self.site_name}: a feed_forward block that reads the source was called without it")
        else:
            self._check_length(source.shape[1], "tokens of the source")
            source, source_real = _without_padding(source, inputs.source_mask)
        return self.network(states, real, source, source_real, state)

    def _check_length(self, length: int, what: str) -> None:
        assert self.max_length is not None
        check_length(self.site_name, "feed_forward", self.max_length, length, what)

    @torch.no_grad()
    def keep_output(self, teacher: AttentionWeights) -> None:
        """Takes the trained attention's output projection over, where one is kept."""
        if self.output is None:
            return
        self.output.weight.copy_(teacher.output.T)
        if self.output.bias is not None and teacher.output_bias is not None:
            self.output.bias.copy_(teacher.output_bias)


def _without_padding(states: torch.Tensor, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """As ``without_padding``, but 1 where a token is real, else 0, to count with.

    Its shape is (batch, tokens, 1); without a mask the batch is 1, so that what depends on it alone is computed once.
    """
    if mask is None:
        return states, states.new_ones(1, states.shape[1], 1, dtype=torch.promote_types(states.dtype, torch.float32))
    states, real = without_padding(states, mask)
    return states, real[..., None].to(wide(states).dtype)


def input_positions(site: Site, max_length: int, token_alone: bool) -> int:
    """Positions that a network reads at a site: the tokens, and those of the source where the site reads it."""
    if not site.reads_source:
        return max_length
    return max_length + (1 if token_alone else max_length)


@register
class FeedForward(Block):
    """A shallow network over the flattened tokens, taught by what it replaces.

    LayerNorm, linear, LeakyReLU(0.01), LayerNorm, linear. The site says which of the published schemes it is: at an
    attention ALR, with ``per_head`` ASLR; at an attention sublayer ALRR; at a layer ELR. At a causal site it gives each
    position its token from the prefix that ends there, for one addition and one small product for each token.

    Source: arXiv 2311.10642, "Rethinking Attention: Exploring Shallow Feed-Forward Neural Networks as an Alternative to
    Attention Layers in Transformers". Causality, decoding and the norm over real tokens alone are this library's.
    """

    name = "feed_forward"
    kinds = frozenset(
        {"self_attention", "cross_attention", "self_attention_sublayer", "cross_attention_sublayer", "layer"}
    )

    class Arguments(Arguments):
        """The arguments in a plan.

        Args:
            size: A published size, hidden units in proportion to the numbers read; S where ``hidden`` is not given.
            hidden: Hidden units, of each head's network with ``per_head``.
            max_length: Tokens that it can read.
            per_head: A network for each head, at attention sites.
            output: Whether the attention's output projection is ``kept`` or ``replaced`` too, at attention sites; None:
                kept, unless the attention there is of another kind than queries and keys alone.
            bias: Whether the kept output projection has a bias; None: as in the attention.
            padding_in_norm: The published LayerNorm, which counts the padding up to ``max_length`` as zeros; else it
                counts the real tokens alone.
            rank: Channels of each token that positions have weights of their own for, mapped from all channels, and
                back, by maps that all positions share; None: all channels, as published.
            reads: What it reads besides the source, at sites that read it: the ``prefix`` of the decoder's tokens (the
                default), or each position's ``token`` alone.
            gate: Whether what was read from the source is multiplied by a gate that reads the token; with ``token``.
        """

        size: Literal["XS", "S", "M", "L"] | None = None
        hidden: Annotated[int, Field(ge=1)] | None = None
        max_length: Annotated[int, Field(ge=1)] = 50
        per_head: bool = False
        output: Literal["kept", "replaced"] | None = None
        bias: bool | None = None
        padding_in_norm: bool = False
        rank: Annotated[int, Field(ge=1)] | None = None
        reads: Literal["prefix", "token"] | None = None
        gate: bool = False

        @model_validator(mode="after")
        def _fit(self) -> FeedForward.Arguments:
            if self.size is not None and self.hidden is not None:
                raise ValueError("'size' and 'hidden' both say how many hidden units; give one of them")
            if self.gate and self.reads != "token":
                raise ValueError("'gate' reads a token alone; give 'reads: token' with it")
            if self.bias is not None and self.output == "replaced":
                raise ValueError("'bias' is of the output projection, which 'output: replaced' removes; leave it out")
            return self

    @classmethod
    def resolve(cls, arguments: Any, site: Site, teacher: AttentionWeights | None) -> dict[str, Any]:
        given = {"per_head": arguments.per_head or None, "output": arguments.output, "bias": arguments.bias}
        for name, value in given.items():
            if site.kind not in ATTENTIONS and value is not None:
                raise LeanformerError(
                    f"{site.name}: argument {name!r} is for attentions, a {site.kind} is replaced whole; leave it out"
                )
        if arguments.reads is not None and not site.reads_source:
            raise LeanformerError(
                f"{site.name}: argument 'reads' is for places that read the source, which this one does not; "
                "leave it out"
            )
        check_positions(site, arguments.max_length)
        settings = arguments.model_dump()
        if site.kind in ATTENTIONS:
            # There is no projection to keep of an attention whose layout is not the common one.
            another_kind = teacher is None and site.block == "attention" and arguments.bias is None
            settings["output"] = arguments.output or ("replaced" if another_kind else "kept")
        if settings["output"] == "kept":
            settings["bias"] = cls._kept_bias(arguments, site, teacher)
        if site.reads_source:
            settings["reads"] = arguments.reads or "prefix"
        if arguments.hidden is None:
            sizes = INPUTS_PER_HIDDEN_OF_A_HEAD if arguments.per_head else INPUTS_PER_HIDDEN
            inputs = input_positions(site, arguments.max_length, arguments.reads == "token") * site.d_model
            settings["hidden"] = max(1, inputs // sizes[arguments.size or "S"])
        return {**settings, "size": None}  # written out in ``hidden``

    @classmethod
    def _kept_bias(cls, arguments: Any, site: Site, teacher: AttentionWeights | None) -> bool:
        if teacher is None:
            there = OF_ANOTHER_KIND if site.block == "attention" else f"{site.block!r} stands there"
            raise LeanformerError(
                f"{site.name}: 'output: kept' keeps the output projection of an attention, but {there}; take 'output: "
                "replaced'"
            )
        has_bias = teacher.output_bias is not None
        if arguments.bias not in (None, has_bias):
            raise LeanformerError(
                f"{site.name}: bias = {arguments.bias}, but the output projection that is kept there has "
                f"{'one' if has_bias else 'none'}; leave 'bias' out"
            )
        return has_bias

    @classmethod
    def build(cls, arguments: Any, site: Site, teacher: AttentionWeights | None) -> nn.Module | None:
        module = FeedForwardModule(
            site,
            hidden=arguments.hidden,
            max_length=arguments.max_length,
            per_head=arguments.per_head,
            kept_bias=arguments.bias if arguments.output == "kept" else None,
            padding_in_norm=arguments.padding_in_norm,
            rank=arguments.rank,
            token_alone=arguments.reads == "token",
            gate=arguments.gate,
        )
        if teacher is not None:
            module.keep_output(teacher)
        return module

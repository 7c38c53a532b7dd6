"""Tokens pooled into a few slots for each head, which a gate weighs: no token is compared with another."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import nn

from leanformer.blocks.kit.base import AttentionWeights, Block, HeadsModule, register, set_linear
from leanformer.blocks.kit.inputs import BlockInputs
from leanformer.blocks.kit.positions import PlacedArguments, Positions, placed, positions_of
from leanformer.blocks.kit.prefix import running_sum, wide, without_autocast
from leanformer.blocks.kit.site import Site
from leanformer.blocks.kit.some_heads import Heads, groups_of, settle_heads
from leanformer.blocks.kit.state import DecodingState
from leanformer.blocks.kit.tokens import repeats, without_padding

# Scores of running pools lie within plus and minus this: their exponentials and products of two fit float32 whatever
# comes later. A running maximum would give as much, but not all positions at once.
BOUND = 30.0


def bounded_exp(scaled: torch.Tensor) -> torch.Tensor:
    """``exp(BOUND tanh(score / BOUND))`` of scores that come multiplied by ``2 / BOUND``.

    By a sigmoid, as ``tanh(x) = 2 sigmoid(2 x) - 1``: on a CPU three times as fast as PyTorch's ``tanh``.
    """
    return torch.sigmoid(scaled).mul(2 * BOUND).sub_(BOUND).exp_()


class FactoredMap(nn.Module):
    """A linear map of a token for each head, of low rank.

    Args:
        d_model: Channels of a token.
        heads: Heads.
        rank: The rank of each head's map.
        width: Outputs of each head.
        bias: Whether it has one.
    """

    decayed: ClassVar[tuple[str, ...]] = ("up",)  # as ``down`` does, the map's other factor

    def __init__(self, d_model: int, heads: int, rank: int, width: int, bias: bool) -> None:
        super().__init__()
        self.down = nn.Linear(d_model, heads * rank, bias=False)
        self.up = nn.Parameter(torch.empty(heads, rank, width).normal_(std=rank**-0.5))
        self.bias = nn.Parameter(torch.zeros(heads * width)) if bias else None

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, d_model) -> (heads, batch, tokens, width): heads first, as the products give them."""
        if torch.compiler.is_exporting():  # as one matrix, which quantizers want
            mapped = F.linear(self.down(states), torch.block_diag(*self.up).T, self.bias)
            return mapped.unflatten(-1, (len(self.up), -1)).movedim(2, 0)
        parts = self.down(states).flatten(0, 1).unflatten(1, (len(self.up), -1)).transpose(0, 1)
        if self.bias is None:
            mapped = torch.bmm(parts, self.up)  # (heads, batch * tokens, width)
        else:
            mapped = torch.baddbmm(self.bias.view(len(self.up), 1, -1), parts, self.up)
        return mapped.unflatten(1, states.shape[:2])


class SlotsModule(HeadsModule):
    """The module that ``slots`` builds; the arguments are described there."""

    value: nn.Linear

    def __init__(
        self,
        site: Site,
        slots: int,
        heads: int,
        gate_hidden: int | None = None,
        rank: int | None = None,
        width: int | None = None,
        positions: Positions | None = None,
    ) -> None:
        super().__init__()
        self.site_name = site.name
        self.cross = site.reads_source
        self.causal = site.causal and not site.reads_source
        self.heads = heads
        self.slots = slots
        self.pool = self._map(site.d_model, slots, rank, bias=False)
        self.gate: nn.Module
        if gate_hidden is None:
            self.gate = self._map(site.d_model, slots, rank, bias=True)
        else:
            first = nn.Linear(site.d_model, gate_hidden)
            self.gate = nn.Sequential(first, nn.ReLU(), nn.Linear(gate_hidden, heads * slots))
        self.value = nn.Linear(site.d_model, width or site.d_model, bias=width is not None)
        self.output = nn.Linear(site.d_model, site.d_model) if width is None else None
        self.positions = positions_of(site, positions)

    def _map(self, d_model: int, width: int, rank: int | None, bias: bool) -> nn.Module:
        if rank is None:
            return nn.Linear(d_model, self.heads * width, bias=bias)
        return FactoredMap(d_model, self.heads, rank, width, bias)

    @torch.no_grad()
    def start_from(self, teacher: AttentionWeights) -> None:
        """Starts as near to a trained attention as is possible without data.

        Values and output are taken from it. If it has as many heads, slot k of a head pools as the head's query of a
        random token would, ``softmax_j(q_k . key_j)``; a linear gate measures how near the token's own query is to
        q_k: with enough prototypes this is the attention, its queries rounded to the nearest prototype.
        """
        self.take_over(teacher)
        if self.heads != teacher.num_heads:
            return
        queries, keys = (w.unflatten(1, (self.heads, -1)).transpose(0, 1) for w in (teacher.query, teacher.key))
        tokens = torch.randn(self.heads, self.slots, len(teacher.query)).to(teacher.query)
        prototypes = tokens @ queries  # (heads, slots, d_head)
        if teacher.query_bias is not None:
            prototypes = prototypes + teacher.query_bias.unflatten(0, (self.heads, 1, -1))
        _set_map(self.pool, keys @ prototypes.mT * teacher.scaling)
        if isinstance(self.gate, nn.Sequential):
            return
        # The square of a Gaussian kernel's width: half the variance of a random token's query, which may be 0.
        spread = (queries.square().sum(dim=(1, 2), keepdim=True) / 2).clamp(min=torch.finfo(queries.dtype).eps)
        weight = queries @ prototypes.mT / spread  # (heads, d_model, slots)
        near_bias = -prototypes.square().sum(dim=-1)[:, None] / 2  # (heads, 1, slots)
        if teacher.query_bias is not None:
            near_bias = near_bias + teacher.query_bias.unflatten(0, (self.heads, 1, -1)) @ prototypes.mT
        _set_map(self.gate, weight, (near_bias / spread).flatten())

    def mix(self, inputs: BlockInputs) -> torch.Tensor:
        """The heads; see ``HeadsModule``."""
        inputs = placed(self.positions, inputs)
        hidden_states, padding_mask, state = inputs.hidden_states, inputs.padding_mask, inputs.state
        if state is not None and torch.compiler.is_exporting():
            return self._exported_step(inputs, state)
        if state is not None and state.tensors and hidden_states.shape[1] == 1:
            real = None if padding_mask is None else padding_mask[:, -1:, None].bool()  # (batch, 1, 1)
            return self._step(hidden_states if real is None else hidden_states.masked_fill(~real, 0), real, state)
        states, real = without_padding(hidden_states, padding_mask)
        gates = wide(self._scores(self.gate, states)).softmax(dim=-1)
        if self.causal:
            return self._mix_running(gates, states, real, state)
        if self.cross:
            return self._mix(gates, self._source_slots(inputs))
        return self._mix(gates, self._slots(states, real))

    def _step(self, states: torch.Tensor, real: torch.Tensor | None, state: DecodingState) -> torch.Tensor:
        """One further token of each sequence.

        The time of such a small step depends on the number of operations: all linear maps of the token are one product.

        Args:
            states: Shape (batch, 1, d_model).
            real: Boolean, shape (batch, 1, 1): False at padding; None: there is none.
            state: The state, which has read the first tokens.

        Returns:
            The heads, shape (batch, 1, d_model).
        """
        batch, shared = len(states), state.shared or self._join(state)
        parts = F.linear(states, shared["weight"], shared["bias"])  # values, then what the maps to the slots give
        scores = parts[..., self.value.out_features :] if self.causal else parts
        if "up" in shared:
            down = scores.view(batch, len(shared["up"]), -1).transpose(0, 1)
            scores = torch.baddbmm(shared["up_bias"], down, shared["up"])  # (maps' heads, batch, slots)
        else:
            scores = scores.view(batch, -1, self.slots).transpose(0, 1)
        if isinstance(self.gate, nn.Sequential):
            gates = self.gate(states).view(batch, self.heads, -1).transpose(0, 1)
        else:
            gates = scores[-self.heads :] if self.causal else scores
        if not self.causal:
            return self._mix(wide(gates)[:, :, None].softmax(dim=-1), state.tensors["slots"].transpose(0, 1))
        gates = wide(gates.transpose(0, 1)).softmax(dim=-1)  # (batch, heads, slots)
        weights = bounded_exp(wide(scores[: self.heads].transpose(0, 1)))
        if real is not None:
            weights = weights * real
        numerator, denominator = state.tensors["numerator"], state.tensors["denominator"]
        values = wide(parts[..., : self.value.out_features]).view(batch, self.heads, -1, 1)
        if _changeable(numerator):  # the largest tensor of a step is read and written once, in the same place
            numerator.addcmul_(values, weights[:, :, None])
        else:
            numerator = torch.addcmul(numerator, values, weights[:, :, None])
        denominator = denominator + weights
        # Where padding comes first, it may be that nothing was read yet.
        shares = gates / (denominator if real is None else denominator.clamp(min=math.exp(-BOUND)))
        state.tensors = {"numerator": numerator, "denominator": denominator}
        if parts.dtype == numerator.dtype:
            return self._mix_one(shares, numerator)
        with without_autocast(states.device):
            return self._mix_one(shares, numerator).to(parts.dtype)

    def _exported_step(self, inputs: BlockInputs, state: DecodingState) -> torch.Tensor:
        """As ``_step``, but the first token too, and in as few operations of a graph as possible."""
        if self.cross and not state.tensors:
            self._source_slots(inputs)
        states, shared = inputs.hidden_states, self._join(state)
        state.shared = {}  # it is made of weights alone
        maps, values = F.linear(states, shared["weight"], shared["bias"]), None
        linear_gate = not isinstance(self.gate, nn.Sequential)
        each = self.heads * self.slots
        if "up" in shared:
            if self.causal:
                width = self.value.out_features
                values, maps = maps.split_with_sizes([width, maps.shape[-1] - width], dim=-1)
            maps = F.linear(maps, torch.block_diag(*shared["up"]).T, shared["up_bias"].flatten())
        sizes = [each] * (self.causal + linear_gate)
        if self.causal and values is None:
            sizes.insert(0, self.value.out_features)
        parts = list(maps.split_with_sizes(sizes, dim=-1)) if len(sizes) > 1 else [maps]
        gates = parts.pop() if linear_gate else self.gate(states)
        # Not len(states), which would freeze the batch of the example.
        shape = (states.shape[0], self.heads, 1, self.slots)
        shares = wide(gates).view(shape).softmax(dim=-1)
        if self.causal:
            weights = bounded_exp(wide(parts.pop())).view(shape)
            values = parts.pop() if values is None else values
            sums = {"numerator": wide(values).view(*shape[:2], -1, 1) * weights, "denominator": weights}
            state.tensors = {name: state.tensors[name] + new if state.tensors else new for name, new in sums.items()}
            shares, slots = shares / state.tensors["denominator"], state.tensors["numerator"]
        else:
            slots = state.tensors["slots"]
        return (shares @ slots.mT).view(states.shape[0], 1, -1)  # the slots: (batch, heads, d_head, slots)

    def _join(self, state: DecodingState) -> dict[str, torch.Tensor]:
        """The weights of a step's linear maps side by side, kept in the state for the steps to come.

        These are the values', where tokens are read, then those of the maps to the slots: of the pools, scaled as
        ``bounded_exp`` takes them, where tokens are read, and of the gate, unless that is a network. With low rank, the
        second factors of the maps are kept apart (``up``).
        """
        maps: list[Any] = [self.pool] if self.causal else []
        if not isinstance(self.gate, nn.Sequential):
            maps.append(self.gate)
        factored = bool(maps) and isinstance(maps[0], FactoredMap)
        scales = [2 / BOUND if module is self.pool else 1.0 for module in maps]
        first = [(module.down if factored else module, scale) for module, scale in zip(maps, scales, strict=True)]
        if self.causal:
            first.insert(0, (self.value, 1.0))
        empty = self.value.weight[:0]
        weights = [module.weight * scale for module, scale in first]
        biases = [w.new_zeros(len(w)) if m.bias is None else m.bias for (m, _), w in zip(first, weights, strict=True)]
        state.shared = {"weight": torch.cat([empty, *weights]), "bias": torch.cat([empty[:, 0], *biases])}
        if factored:
            no_bias = maps[0].up.new_zeros(self.heads * self.slots)
            given = [no_bias if module.bias is None else module.bias for module in maps]
            state.shared["up"] = torch.cat([module.up for module in maps])
            state.shared["up_bias"] = torch.cat(given).view(-1, 1, self.slots)
        return state.shared

    # Within a sentence heads come first: the large tensors, a number for each token and slot, are never copied.

    def _by_head(self, states: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, heads * each) -> (heads, batch, tokens, each)."""
        return states.unflatten(-1, (self.heads, -1)).movedim(2, 0)

    def _scores(self, module: nn.Module, states: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, d_model) -> (heads, batch, tokens, slots)."""
        scores: torch.Tensor = module(states)
        return scores if isinstance(module, FactoredMap) else self._by_head(scores)

    @staticmethod
    def _side_by_side(heads: torch.Tensor) -> torch.Tensor:
        """(heads, batch, tokens, d_head) -> (batch, tokens, d_model)."""
        return heads.permute(1, 2, 0, 3).flatten(2)

    def _mix(self, gates: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        """Gated sums, side by side.

        Args:
            gates: Shape (heads, batch, tokens, slots).
            slots: Shape (heads, sentences, d_head, slots): each for as many sequences of the batch, in turn.

        Returns:
            Shape (batch, tokens, d_model).
        """
        asking = gates.to(slots.dtype).reshape(len(gates) * slots.shape[1], -1, self.slots)
        mixed = torch.bmm(asking, slots.flatten(0, 1).mT)
        return self._side_by_side(mixed.view(*gates.shape[:-1], -1))

    @staticmethod
    def _mix_one(gates: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        """As ``_mix`` for one token: (batch, heads, slots), (batch, heads, d_head, slots) -> (batch, 1, d_model)."""
        mixed = torch.bmm(gates.reshape(-1, 1, gates.shape[-1]), slots.flatten(0, 1).mT)
        return mixed.view(len(gates), 1, -1)

    def _source_slots(self, inputs: BlockInputs) -> torch.Tensor:
        """The source's slots, (heads, sentences, d_head, slots), pooled with the first token."""
        state = inputs.state
        if state is not None and state.tensors:
            return state.tensors["slots"].transpose(0, 1)
        if inputs.source is None:
            raise ValueError(f"{self.site_name}: a slots block that reads the source was called without it")
        states, real = without_padding(inputs.source, inputs.source_mask)
        if state is None:
            return self._slots(states, real)
        # Beams of a sentence read the same source: it is pooled once, and they read it together in each step.
        state.repeats = repeats(states, real)
        slots = self._slots(states[:: state.repeats], real[:: state.repeats])
        state.tensors = {"slots": slots.transpose(0, 1)}
        return slots

    def _slots(self, states: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """Means of the real tokens' values: (batch, tokens, d_model) -> (heads, batch, d_head, slots)."""
        scores = wide(self._scores(self.pool, states))  # (heads, batch, tokens, slots)
        # Not minus infinity, so that a sentence without a token has slots too. Added: filling in a broadcast mask takes
        # six times as long.
        padding = torch.zeros_like(real, dtype=scores.dtype).masked_fill_(~real, torch.finfo(scores.dtype).min)
        scores += padding[..., None]
        values = self._by_head(self.value(states))
        if torch.compiler.is_exporting():  # engines are slow with a softmax over any dimension but the last
            return (scores.mT.softmax(dim=-1).to(values.dtype) @ values).mT
        # Slots last: a decoding step's product with the gates takes a third of the time so.
        return values.mT @ scores.softmax(dim=2).to(values.dtype)

    def _mix_running(
        self, gates: torch.Tensor, states: torch.Tensor, real: torch.Tensor, state: DecodingState | None
    ) -> torch.Tensor:
        """The gated sum of each position's own slots: means of the values up to there.

        A slot is a numerator by a denominator, both sums over positions. With s the gate by the denominator, and w a
        token's weight, position i gets Σ_j (Σ_slots s_i w_j) value_j over j up to i: only the last numerator is stored,
        from which the next tokens continue.
        """
        scores, values = wide(self._scores(self.pool, states)), self._by_head(wide(self.value(states)))
        with without_autocast(states.device):
            weights = bounded_exp(scores * (2 / BOUND)) * real[..., None]  # (heads, batch, tokens, slots)
            kept = {name: tensor.transpose(0, 1) for name, tensor in ({} if state is None else state.tensors).items()}
            start = kept["denominator"][:, None] if kept else weights.new_zeros(1, 1, 1, 1)
            denominators = running_sum(weights.transpose(1, 2).clone(), start).transpose(1, 2)
            # One real token has at least this weight; where none was read yet, this keeps the division finite.
            shares = gates / denominators.clamp(min=math.exp(-BOUND))
            mixed = (shares @ weights.mT).tril() @ values
            if state is not None:
                numerator = values.mT @ weights  # (heads, batch, d_head, slots)
                if kept:
                    mixed = mixed + shares @ kept["numerator"].mT
                    numerator = numerator + kept["numerator"]
                new = {"numerator": numerator, "denominator": denominators[:, :, -1]}
                # Copied, so that the other positions do not stay in memory.
                state.tensors = {
                    name: tensor.transpose(0, 1).clone(memory_format=torch.contiguous_format)
                    for name, tensor in new.items()
                }
        return self._side_by_side(mixed).to(self.value.weight.dtype)


@register
class Slots(Block):
    """Each head pools what it reads into K slots, and a gate that reads the token says how much of each it takes.

    Slot k is the mean of the values weighted by softmax_j(y_j p_k) over real positions j; the token's gate is a softmax
    over the slots, of a linear map or of linear, ReLU, linear; the gated sum goes through an output projection. The
    source is pooled once for each sentence, and a token costs O(K d) whatever its length, which has no limit. In a
    decoder's self-attention the pools run: numerator and denominator of each slot are the state, which does not grow,
    and a score s counts as 30 tanh(s / 30).

    With h = ``heads``, K = ``slots``, H = ``gate_hidden`` it stores 2 d² + d (values, output), m (pools), and m + h K
    (``linear`` gate) or d H + H + h K (H + 1) (``network``), where m = d h K, or with r = ``rank`` d h r + h r K.

    Source: this library's; related to Shen et al. 2021, "Efficient Attention: Attention with Linear Complexities"
    (arXiv 1812.01243), to the pooled seeds of Lee et al. 2019, "Set Transformer" (arXiv 1810.00825), and the latents of
    Jaegle et al. 2021, "Perceiver" (arXiv 2103.03206).
    """

    name = "slots"
    kinds = frozenset({"self_attention", "cross_attention"})

    class Arguments(PlacedArguments):
        """The arguments in a plan, besides ``positions``.

        Args:
            slots: Slots of each head.
            heads: Channel groups with slots of their own, or which heads of the attention are replaced; None: as many
                groups as the model has heads there.
            gate: What gives the gates: a ``linear`` map of the token, or a ``network``.
            gate_hidden: Hidden units of that network; None: twice the model's width.
            rank: The rank of each head's map to its slots, and of a linear gate's; None: not bounded.
        """

        slots: Annotated[int, Field(ge=1)] = 16
        heads: Heads | None = None
        gate: Literal["linear", "network"] = "network"
        gate_hidden: Annotated[int, Field(ge=1)] | None = None
        rank: Annotated[int, Field(ge=1)] | None = None

        @model_validator(mode="after")
        def _fit(self) -> Slots.Arguments:
            if self.gate_hidden is not None and self.gate == "linear":
                raise ValueError("'gate_hidden' is of 'gate: network', and the gate is linear; leave it out")
            return self

    @classmethod
    def resolve(cls, arguments: Any, site: Site, teacher: AttentionWeights | None) -> dict[str, Any]:
        settings = {**arguments.settled(site), "heads": settle_heads(site, arguments.heads, teacher)}
        if arguments.gate == "network":
            settings["gate_hidden"] = arguments.gate_hidden or 2 * site.d_model
        return settings

    @classmethod
    def build(cls, arguments: Any, site: Site, teacher: AttentionWeights | None) -> nn.Module | None:
        settings = arguments.model_dump(exclude={"gate"})
        settings["heads"], settings["width"] = groups_of(site, arguments.heads)
        module = SlotsModule(site, **settings)
        if teacher is not None:
            module.start_from(teacher)
        return module


def _changeable(tensor: torch.Tensor) -> bool:
    """Whether a tensor of a decoding state may be written to: no gradient needs its old numbers."""
    return torch.is_inference_mode_enabled() or not (torch.is_grad_enabled() or tensor.is_inference())


@torch.no_grad()
def _set_map(linear: nn.Module, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
    """Sets the maps of all heads, with low rank to the nearest maps of that rank (by singular values).

    Args:
        linear: A ``Linear`` whose outputs are head by head, or a ``FactoredMap``.
        weight: Shape (heads, d_model, width).
        bias: Shape (heads * width,).
    """
    if isinstance(linear, FactoredMap):
        left, values, right = torch.linalg.svd(weight.float(), full_matrices=False)
        rank = min(linear.up.shape[1], values.shape[1])
        root = values[:, :rank].sqrt()
        down, up = left[..., :rank] * root[:, None], root[..., None] * right[:, :rank]
        linear.down.weight.zero_()
        linear.up.zero_()
        linear.down.weight.unflatten(0, (len(weight), -1))[:, :rank].copy_(down.mT)
        linear.up[:, :rank].copy_(up)
        if linear.bias is not None and bias is not None:
            linear.bias.copy_(bias)
    else:
        assert isinstance(linear, nn.Linear)
        set_linear(linear, weight.transpose(0, 1).flatten(1), bias)

"""Tokens mixed by weights that are the same for every sentence, and a gate that reads the token."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import nn

from leanformer.blocks.kit.base import Arguments, AttentionWeights, Block, HeadsModule, register
from leanformer.blocks.kit.distances import reach
from leanformer.blocks.kit.grid import Grid, mix_pairs
from leanformer.blocks.kit.inputs import BlockInputs
from leanformer.blocks.kit.site import Site
from leanformer.blocks.kit.some_heads import HeadList, groups_of, settle_heads
from leanformer.blocks.kit.state import DecodingState
from leanformer.blocks.kit.tokens import check_divides, check_length, check_positions, without_padding
from leanformer.core.errors import LeanformerError

MIXING_DEVIATION = 0.02
USUAL_TOKENS = 16  # tokens read at which weights by distance are not scaled


class MixerModule(HeadsModule):
    """The module that ``mixer`` builds; the arguments are described there."""

    decayed: ClassVar[tuple[str, ...]] = ("mixing",)  # a matrix over positions, as a convolution's kernel is

    def __init__(
        self,
        site: Site,
        groups: int,
        max_length: int | None = None,
        max_distance: int | None = None,
        grid: Grid | None = None,
        vo: str = "separate",
        gate: bool = True,
        width: int | None = None,
    ) -> None:
        super().__init__()
        self.site_name = site.name
        self.max_length = max_length
        self.max_distance = max_distance
        self.grid = grid
        self.causal = site.causal
        self.value = nn.Linear(site.d_model, width or site.d_model) if vo == "separate" else None
        if grid is not None:
            bound = grid.offsets**-0.5  # as PyTorch's convolutions start
            mixing = torch.empty(groups, grid.weights).uniform_(-bound, bound)
        elif max_length is not None:
            # Small compared with an attention's means of values: teaching would start far off with large weights.
            mixing = torch.empty(groups, max_length, max_length).normal_(std=MIXING_DEVIATION)
        else:
            assert max_distance is not None
            # Distances that no text was long enough to teach stay 0. From j - i = -max_distance on, to 0 where causal.
            mixing = torch.zeros(groups, max_distance + 1 + (0 if site.causal else max_distance))
        self.mixing = nn.Parameter(mixing)
        self.gate = nn.Linear(site.d_model, width or site.d_model) if gate else None
        if self.gate is not None:
            nn.init.zeros_(self.gate.bias)
        self.output = nn.Linear(site.d_model, site.d_model) if vo == "separate" and width is None else None

    def mix(self, inputs: BlockInputs) -> torch.Tensor:
        """The heads; see ``HeadsModule``.

        Raises:
            LeanformerError: There are more tokens than ``max_length``, or not as many as the grid has patches.
        """
        state = inputs.state
        states, real = without_padding(inputs.hidden_states, inputs.padding_mask)
        # At padding the bias has to be zero too.
        values = states if self.value is None else self.value(states) * real[..., None]
        if state is not None:
            values = self._with_earlier(values, state)
        if self.grid is not None:
            self._check_grid(self.grid, values.shape[1])
            mixed = self.grid.mix(self.mixing, values)
        else:
            mixed = mix_pairs(self._weights(states.shape[1], values.shape[1]), values)
        if self.max_distance is not None:
            if state is not None and torch.compiler.is_exporting():
                near = torch.full((1, 1), state.length + 1, device=states.device).clamp(max=self.max_distance + 1)
            else:
                near = self._near(states, real if state is None else inputs.padding_mask, values.shape[1])
            near = near.to(torch.promote_types(mixed.dtype, torch.float32))
            mixed = mixed * (USUAL_TOKENS / near).sqrt().to(mixed.dtype)[..., None]
        if self.gate is None:
            return mixed
        gate = 2 * torch.sigmoid(self.gate(states))  # starts near 1
        return gate * mixed

    def _with_earlier(self, values: torch.Tensor, state: DecodingState) -> torch.Tensor:
        """The new values after the earlier ones that are near enough; the state keeps those that later tokens need."""
        assert self.max_distance is not None
        if torch.compiler.is_exporting():  # as many as a token may read, zeros in front of the first
            earlier = state.tensors or {"values": values.new_zeros(values.shape[0], self.max_distance, values.shape[2])}
            values = torch.cat([earlier["values"], values], dim=1)
            state.tensors = {"values": values[:, 1:]}
            return values
        if state.tensors:
            values = torch.cat([state.tensors["values"], values], dim=1)
        near = values[:, max(0, values.shape[1] - self.max_distance) :]
        state.tensors = {"values": near.clone()}  # a copy, so that the other values do not stay in memory
        return values

    def _near(self, states: torch.Tensor, mask: torch.Tensor | None, read: int) -> torch.Tensor:
        """How many real tokens each of the last ones may read, at least 1: shape (batch or 1, tokens)."""
        assert self.max_distance is not None
        real = states.new_ones(1, read, dtype=torch.bool) if mask is None else mask[:, mask.shape[1] - read :].bool()
        before = F.pad(real.cumsum(dim=1), (1, 0))  # (batch, read + 1): of each and of the end, those in front of it
        own = torch.arange(read - states.shape[1], read, device=states.device)
        last = own if self.causal else (own + self.max_distance).clamp(max=read - 1)
        near = before[:, last + 1] - before[:, (own - self.max_distance).clamp(min=0)]
        return near.clamp(min=1)

    def _weights(self, tokens: int, read: int) -> torch.Tensor:
        """The weights of all tokens that are read for each of the last ones, shape (groups, tokens, read)."""
        if self.max_distance is None:
            assert self.max_length is not None
            check_length(self.site_name, "mixer", self.max_length, tokens, "tokens")
            return self.mixing[:, :tokens, :tokens]
        if torch.compiler.is_exporting():  # to a graph for any number of tokens
            own, other = (torch.arange(length, device=self.mixing.device) for length in (tokens, read))
            distances = other - own[:, None] - (read - tokens) + self.max_distance  # from the least with a weight on
            padded = F.pad(self.mixing, (1, 1))
            index = (distances + 1).clamp(min=0, max=padded.shape[1] - 1)
            return padded.index_select(1, index.flatten()).unflatten(1, (tokens, read))
        # How many distances in the text, before and after, have no weight; below 0: how many weights are not used.
        before, after = read - 1 - self.max_distance, tokens - 1 - (0 if self.causal else self.max_distance)
        by_distance = F.pad(self.mixing, (before, after))  # (groups, read + tokens - 1)
        return by_distance.unfold(1, read, 1).flip(1)  # [i, j] is by_distance[tokens - 1 - i + j]

    def _check_grid(self, grid: Grid, tokens: int) -> None:
        """Makes sure that there are as many tokens as patches, with or without special tokens."""
        if tokens not in (grid.patches, grid.patches + grid.special_tokens):
            raise LeanformerError(
                f"{self.site_name}: its mixer block reads {grid.rows} x {grid.columns} patches and "
                f"{grid.special_tokens} tokens before them, not {tokens} tokens; give it images of the model's size"
            )


@register
class Mixer(Block):
    """Static weights over positions for each group of channels, and a gate from the token on what they give.

    output(2 sigmoid(x_i W_g + b_g) ⊙ Σ_j M[group, i, j] value(x_j)): position *i* takes the same share of position *j*
    in every sentence, and chooses among channels by its own token. Padding gives nothing. The weights may be
    negative: their softmax explains less of a trained encoder (docs/small-blocks.md).

    With relative positions M[group, i, j] = w[group, j - i] √(16 / n_i), and nothing where tokens are farther apart
    than ``max_distance``, where n_i is the number of tokens that are near enough: without the root, values for texts
    longer than those that taught it would be too large. There is no limit of length. In a decoder's self-attention j
    goes up to i, and while decoding the values of the last ``max_distance`` tokens are kept.

    On a grid M[group, i, j] = w[group, row_j - row_i, column_j - column_i] between the patches of an image, and nothing
    where they are farther apart than ``max_distance`` in rows or in columns. Class and distillation tokens are not on
    the grid: each takes the same share of every patch, and gives every patch the same.

    With absolute positions a shorter sentence uses the leading rows and columns of M, and a longer one is an error.
    That form is for encoders, where all tokens are read at once, and for inputs of one length, such as images.

    Without values (``vo: none``) the tokens themselves are mixed, and no projection follows; without the gate too, a
    grid's mixer is a convolution of each channel by itself, with kernels that a group shares.

    With G = ``groups``, T = ``max_length`` and D = ``max_distance`` it stores d² + d each of value, gate and output, as
    far as it has them, and of relative positions G (2 D + 1), in a decoder G (D + 1), of absolute ones G T², on a grid
    of R x C patches with s special tokens G ((2 min(D, R - 1) + 1) (2 min(D, C - 1) + 1) + 2 s + s²). On n tokens it
    takes d² n multiply-adds for each of value, gate and output, and d n² for mixing, whatever D is, where the grid is
    large and D is not d n (2 D + 1)²; a token in decoding takes d (D + 1) for mixing.

    Source: Tolstikhin et al. 2021, "MLP-Mixer" (arXiv 2105.01601), for static mixing over positions; Liu et al. 2021,
    "Pay Attention to MLPs" (gMLP, arXiv 2105.08050), for the product with a gate. Here the gate reads its own position
    and what it multiplies is mixed, by matrices of a group each, as heads have theirs. Wu et al. 2019, "Pay Less
    Attention with Lightweight and Dynamic Convolutions" (arXiv 1901.10430), for weights by distance that a group of
    channels shares; there a softmax norms them. Trockman and Kolter 2022, "Patches Are All You Need?" (ConvMixer, arXiv
    2201.09792), for convolutions of single channels between patches.
    """

    name = "mixer"
    kinds = frozenset({"self_attention"})

    class Arguments(Arguments):
        """The arguments in a plan.

        Args:
            groups: Channel groups with mixing weights of their own; None: as many as the model has heads there.
            heads: Which heads of the attention are replaced, one group each; None: all, by the groups.
            positions: What a weight depends on: the distance of two tokens (``relative``), the position of each
                (``absolute``), or the distances of two patches in rows and in columns (``grid``).
            max_distance: With relative positions: tokens farther apart give each other nothing; at most the window of
                the attention there. On a grid: likewise patches, in rows or in columns; None: each reads all.
            max_length: With absolute positions: tokens that it can read.
            special_tokens: On a grid: tokens before the patches; None: those that the model has.
            vo: ``separate``: values are mixed, and an output projection follows; ``none``: the tokens themselves are
                mixed, without a projection.
            gate: Whether each token weighs the channels of what it takes by a gate.
        """

        groups: Annotated[int, Field(ge=1)] | None = None
        heads: HeadList | None = None
        positions: Literal["relative", "absolute", "grid"] = "relative"
        max_distance: Annotated[int, Field(ge=0)] | None = Field(
            default_factory=lambda given: 49 if given.get("positions") == "relative" else None
        )
        max_length: Annotated[int, Field(ge=1)] | None = Field(
            default_factory=lambda given: 50 if given.get("positions") == "absolute" else None
        )
        special_tokens: Annotated[int, Field(ge=0)] | None = None
        vo: Literal["separate", "none"] = "separate"
        gate: bool = True

        @model_validator(mode="after")
        def _fit(self) -> Mixer.Arguments:
            if self.groups is not None and self.heads is not None:
                raise ValueError("each of 'heads' is a group, and 'groups' is their number; leave one of them out")
            if self.heads is not None and self.vo == "none":
                raise ValueError("'heads' are made of values; leave 'vo: none' or 'heads' out")
            for name, positions, needed in (
                ("max_distance", ("relative", "grid"), self.positions == "relative"),
                ("max_length", ("absolute",), True),
                ("special_tokens", ("grid",), False),
            ):
                given = getattr(self, name) is not None
                if given and self.positions not in positions:
                    raise ValueError(f"{name!r} is for positions {' and '.join(positions)}, not {self.positions}")
                if not given and needed and self.positions in positions:
                    raise ValueError(f"positions {self.positions} need a {name!r}; give a number, or leave it out")
            return self

    @classmethod
    def resolve(cls, arguments: Any, site: Site, teacher: AttentionWeights | None) -> dict[str, Any]:
        if arguments.max_length is not None:
            if site.causal:
                raise LeanformerError(
                    f"{site.name}: a mixer of absolute positions reads all tokens at once, and a decoder must not read "
                    "later ones; take 'positions: relative' there"
                )
            check_positions(site, arguments.max_length)
            if site.max_distance is not None and arguments.max_length > site.max_distance + 1:
                raise LeanformerError(
                    f"{site.name}: a mixer of absolute positions reads all its {arguments.max_length} tokens, and the "
                    f"attention there has a window: it reads tokens up to {site.max_distance} away; take 'positions: "
                    "relative' there"
                )
        settings = arguments.model_dump()
        if arguments.positions == "relative":
            settings["max_distance"] = reach(site, arguments.max_distance)
        if arguments.positions == "grid":
            if site.grid is None:
                raise LeanformerError(
                    f"{site.name}: 'positions: grid' is for patches of images; take 'positions: relative' here"
                )
            given = {"max_distance": max(site.grid) - 1, "special_tokens": site.special_tokens}
            settings |= {key: number for key, number in given.items() if settings[key] is None}
            # Where the model has none, weights for some may be left from an earlier plan; they are not used.
            if site.special_tokens and settings["special_tokens"] != site.special_tokens:
                raise LeanformerError(
                    f"{site.name}: special_tokens = {settings['special_tokens']}, but the model has "
                    f"{site.special_tokens} tokens before the patches; leave it out"
                )
        if arguments.heads is not None:
            return {**settings, "heads": settle_heads(site, arguments.heads, teacher)}
        groups = arguments.groups or site.num_heads
        check_divides(site, "groups", groups)
        return {**settings, "groups": groups}

    @classmethod
    def build(cls, arguments: Any, site: Site, teacher: AttentionWeights | None) -> nn.Module | None:
        groups, width = groups_of(site, arguments.heads or arguments.groups)
        grid, max_distance = None, arguments.max_distance
        if arguments.positions == "grid":
            assert site.grid is not None  # the plan was resolved against it
            grid, max_distance = Grid(*site.grid, arguments.special_tokens, arguments.max_distance), None
        module = MixerModule(
            site, groups, arguments.max_length, max_distance, grid, arguments.vo, arguments.gate, width
        )
        if teacher is not None:
            module.take_over(teacher)
        return module

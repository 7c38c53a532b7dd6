"""Feed-forward blocks: counts, the prefix identity against its definition, causality, padding, decoding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from cases import slow, some
from torch.utils.flop_counter import FlopCounterMode

from leanformer.blocks.feed_forward import FeedForward, FeedForwardModule
from leanformer.blocks.kit.base import AttentionWeights, check_arguments
from leanformer.blocks.kit.inputs import BlockInputs
from leanformer.blocks.kit.networks import CausalNetwork, GroupedMap, Scale
from leanformer.blocks.kit.prefix import running_sum
from leanformer.blocks.kit.site import Site, SiteKind
from leanformer.blocks.kit.state import DecodingState
from leanformer.core.errors import LeanformerError

SITES: dict[str, tuple[SiteKind, bool, bool]] = {  # kind, causal, reads_source
    "encoder self": ("self_attention", False, False),
    "encoder sublayer": ("self_attention_sublayer", False, False),
    "encoder layer": ("layer", False, False),
    "decoder self": ("self_attention", True, False),
    "decoder sublayer": ("self_attention_sublayer", True, False),
    "cross": ("cross_attention", True, True),
    "cross sublayer": ("cross_attention_sublayer", True, True),
    "decoder layer": ("layer", True, True),
}
PER_HEAD = {"per_head": True}
TOKEN = {"reads": "token"}
GATED = {"reads": "token", "gate": True}
RANK = {"rank": 3}
CAUSAL: list[tuple[str, dict[str, Any]]] = [
    ("decoder self", {}),
    ("decoder self", PER_HEAD),
    ("decoder sublayer", {}),
    ("cross", {}),
    ("cross", PER_HEAD),
    ("cross", TOKEN),
    ("cross", GATED),
    ("cross", {**GATED, **PER_HEAD}),
    ("cross sublayer", {}),
    ("cross sublayer", GATED),
    ("decoder layer", {}),
    ("decoder layer", TOKEN),
    ("decoder self", RANK),
    ("cross", RANK),
    ("cross", {**GATED, **PER_HEAD, **RANK}),
]
WHOLE: list[tuple[str, dict[str, Any]]] = [
    ("encoder self", {}),
    ("encoder self", PER_HEAD),
    ("encoder sublayer", {}),
    ("encoder layer", {}),
    ("encoder self", RANK),
    ("encoder self", {**PER_HEAD, **RANK}),
]
EITHER_NORM = pytest.mark.parametrize("padding_in_norm", [False, True], ids=["sound", "published"])
EACH_CAUSAL = pytest.mark.parametrize(("place", "settings"), CAUSAL)
EACH = pytest.mark.parametrize(("place", "settings"), CAUSAL + WHOLE)


def site(place: str, d_model: int = 16, heads: int = 4, max_positions: int | None = 64) -> Site:
    kind, causal, reads_source = SITES[place]
    side = "decoder" if causal else "encoder"
    return Site(f"{side}.0.{kind}", kind, "attention", d_model, heads, 0, 0, causal, reads_source, max_positions)


def resolve(where: Site, teacher: AttentionWeights | None = None, **settings: Any) -> dict[str, Any]:
    return FeedForward.resolve(check_arguments(FeedForward, settings, "plan"), where, teacher)


def build(
    place: str, d_model: int = 16, heads: int = 4, max_positions: int | None = 64, **settings: Any
) -> FeedForwardModule:
    """A block with the output projection replaced, where there is one."""
    where = site(place, d_model, heads, max_positions)
    if where.kind in ("self_attention", "cross_attention"):
        settings = {"output": "replaced", **settings}
    arguments = check_arguments(FeedForward, resolve(where, **settings), "plan")
    module = FeedForward.build(arguments, where, None)
    assert isinstance(module, FeedForwardModule)
    return module


def scrambled(place: str, **settings: Any) -> FeedForwardModule:
    """A small block whose weights, those of the norms included, are far from their initial values."""
    module = build(place, **{"hidden": 12, "max_length": 10, **settings})
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return module.eval()


def lengths_mask(tokens: int, *lengths: int) -> torch.Tensor:
    return torch.arange(tokens) < torch.tensor(lengths)[:, None]


def source_for(module: FeedForwardModule, batch: int, tokens: int, *lengths: int) -> dict[str, Any]:
    """A source with its mask, for a block that reads one."""
    if not (isinstance(module.network, CausalNetwork) and module.network.sources):
        return {}
    d_model = module.network.norm.weight.shape[-1]
    states = torch.randn(batch, tokens, d_model, dtype=module.network.norm.weight.dtype)
    return {"source": states, "source_mask": lengths_mask(tokens, *(lengths or [tokens] * batch))}


def naive(
    module: FeedForwardModule,
    hidden_states: torch.Tensor,
    padding_mask: torch.Tensor,
    source: torch.Tensor | None = None,
    source_mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """The definition: of each sentence, position and group one flattened pass over what it may read."""
    network = module.network
    causal = isinstance(network, CausalNetwork)
    length, d_model = module.max_length or 0, hidden_states.shape[-1]
    rows = []
    for number, sentence in enumerate(hidden_states):
        tokens = []
        for position in range(len(sentence)):
            kept, shown = hidden_states.new_zeros(length, d_model), torch.zeros(length, dtype=torch.bool)
            kept[: len(sentence)], shown[: len(sentence)] = sentence, padding_mask[number]
            if causal:
                shown[position + 1 :] = False
            if causal and network.token_alone:
                kept, shown = kept[position : position + 1], shown[position : position + 1]
            if source is not None and source_mask is not None:
                read, there = hidden_states.new_zeros(length, d_model), torch.zeros(length, dtype=torch.bool)
                read[: source.shape[1]], there[: source.shape[1]] = source[number], source_mask[number]
                kept, shown = torch.cat([read, kept]), torch.cat([there, shown])
            kept = kept * shown[:, None]
            groups = [
                naive_group(module, group, kept, shown, position, sentence[position])
                for group in range(len(network.norm.weight))
            ]
            tokens.append(torch.cat(groups))
        rows.append(torch.stack(tokens))
    return torch.stack(rows)


def naive_group(
    module: FeedForwardModule,
    group: int,
    kept: torch.Tensor,
    shown: torch.Tensor,
    position: int,
    token: torch.Tensor,
) -> torch.Tensor:
    network = module.network
    gain, shift, first = network.norm.weight[group], network.norm.bias[group], network.first.weight[group]
    if network.padding_in_norm:
        shown = torch.ones_like(shown)
    if network.down is not None:
        first = torch.einsum("cr,prh->pch", network.down.weight[group], first)
    normed = torch.zeros_like(kept)
    if shown.any():
        entries = kept[shown].flatten()
        entries = F.layer_norm(entries, entries.shape, gain[shown].flatten(), shift[shown].flatten())
        normed = normed.masked_scatter(shown[:, None], entries)
    by_position = torch.einsum("pc,pch->ph", normed, first)  # (positions, hidden)
    if isinstance(network, CausalNetwork) and network.gate is not None:
        gate = 2 * torch.sigmoid(token @ network.gate.weight[group] + network.gate.bias[group])
        by_position = torch.cat([by_position[:-1] * gate, by_position[-1:]])
    hidden = F.leaky_relu(by_position.sum(0) + network.first.bias[group], 0.01)
    hidden = F.layer_norm(hidden, hidden.shape, network.hidden_norm.weight[group], network.hidden_norm.bias[group])
    place = position if network.last.weight.shape[1] > 1 else 0
    output = network.last.weight[group, place] @ hidden
    if network.up is not None:
        output = output @ network.up.weight[group]
    return output + network.last.bias[group, place]


# Counts


PUBLISHED = {  # place -> size -> hidden, parameters; METHODS of arXiv 2311.10642 at d = 128, T = 50
    "encoder self": {
        "XS": (25, 339_275),
        "S": (50, 659_350),
        "M": (800, 10_261_600),
        "L": (3_200, 40_988_800),
    },
    "decoder self": {
        "XS": (25, 176_203),
        "S": (50, 339_478),
        "M": (800, 5_237_728),
        "L": (3_200, 20_912_128),
    },
    "cross": {
        "XS": (50, 992_150),
        "S": (100, 1_952_300),
        "M": (1_600, 30_756_800),
        "L": (6_400, 122_931_200),
    },
    "per head": {
        "XS": (200, 11_633_600),
        "S": (400, 23_158_400),
        "M": (800, 46_208_000),
        "L": (1_600, 92_307_200),
    },
}
PUBLISHED_AT = {
    "encoder self": "encoder self",
    "encoder sublayer": "encoder self",
    "encoder layer": "encoder self",
    "decoder self": "decoder self",
    "decoder sublayer": "decoder self",
    "cross": "cross",
    "cross sublayer": "cross",
    "decoder layer": "cross",
}


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("size", ["XS", "S", "M", "L"])
@pytest.mark.parametrize("place", PUBLISHED_AT)
def test_counts_are_the_published_ones(place: str, size: str) -> None:
    with torch.device("meta"):
        module = build(place, d_model=128, heads=8, size=size)
    hidden, parameters = PUBLISHED[PUBLISHED_AT[place]][size]
    assert module.network.hidden_norm.weight.shape == (1, hidden)
    assert count(module) == parameters


@pytest.mark.parametrize("size", ["XS", "S", "M", "L"])
def test_counts_per_head_are_the_published_ones(size: str) -> None:
    with torch.device("meta"):
        module = build("encoder self", d_model=128, heads=8, size=size, per_head=True)
    hidden, parameters = PUBLISHED["per head"][size]
    assert module.network.hidden_norm.weight.shape == (8, hidden)
    assert count(module) == parameters


@pytest.mark.parametrize(("d_model", "heads", "length"), [*slow((8, 2, 5)), (24, 4, 7), *slow((30, 3, 64))])
@EACH
def test_counts_follow_the_formula(place: str, settings: dict[str, Any], d_model: int, heads: int, length: int) -> None:
    hidden, groups = 9, heads if settings.get("per_head") else 1
    module = build(place, d_model, heads, hidden=hidden, max_length=length, **settings)
    token_alone = settings.get("reads") == "token"
    inputs = length * d_model
    if SITES[place][2]:
        inputs += d_model if token_alone else length * d_model
    positions_out = length if not SITES[place][1] or (SITES[place][2] and not token_alone) else 1
    outputs = positions_out * d_model // groups
    network = 2 * inputs + inputs * hidden + hidden + 2 * hidden + hidden * outputs + outputs
    if rank := settings.get("rank"):
        network += d_model * rank + inputs // d_model * rank * hidden - inputs * hidden
        network += hidden * positions_out * rank + rank * d_model // groups - hidden * outputs
    if settings.get("gate"):
        network += d_model * hidden + hidden
    assert count(module) == groups * network
    assert len(list(module.buffers())) == 0


@pytest.mark.parametrize(
    ("place", "settings", "hidden"),
    [
        ("encoder self", {}, 800 // 128),  # S, of 50 * 16 numbers
        ("encoder self", {"size": "XS"}, 800 // 256),
        ("encoder self", {"size": "XS", "max_length": 10}, 1),  # at least one
        ("cross", {"size": "M"}, 1600 // 8),
        ("cross", {"size": "M", "reads": "token"}, 816 // 8),
        ("cross", {"size": "L", "per_head": True}, 1600 // 4),
        ("decoder layer", {"hidden": 7}, 7),
    ],
)
def test_hidden_units_are_written_out(place: str, settings: dict[str, Any], hidden: int) -> None:
    if SITES[place][0].endswith("_attention"):
        settings = {"output": "replaced", **settings}
    resolved = resolve(site(place), **settings)
    assert (resolved["size"], resolved["hidden"]) == (None, hidden)
    assert resolve(site(place), **resolved) == resolved
    assert set(resolved) == set(FeedForward.Arguments.model_fields)


# The definition


MASKS = {
    "none": [[1, 1, 1, 1, 1, 1, 1]] * 3,
    "right": [[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0, 0]],
    "left": [[1, 1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1, 1], [0, 1, 1, 1, 1, 1, 1]],
    "holes": [[1, 0, 1, 1, 0, 1, 1], [1, 1, 1, 1, 1, 1, 1], [0, 1, 0, 0, 1, 1, 0]],
}


@pytest.mark.parametrize("padding", some(MASKS, "holes"))
@EITHER_NORM
@EACH
def test_output_is_the_definition(place: str, settings: dict[str, Any], padding_in_norm: bool, padding: str) -> None:
    module = scrambled(place, padding_in_norm=padding_in_norm, **settings)
    x, mask = torch.randn(3, 7, 16) + 0.5, torch.tensor(MASKS[padding]).bool()
    source = source_for(module, 3, 9, 9, 4, 7)
    expected = naive(module, x * mask[:, :, None], mask, **source)
    given = module(BlockInputs(x, None if padding == "none" else mask, **source))
    assert given.shape == x.shape
    torch.testing.assert_close(given[mask], expected[mask], rtol=1e-4, atol=1e-4)
    assert given.isfinite().all()


@EITHER_NORM
@pytest.mark.parametrize(("place", "settings"), [("decoder self", {}), ("cross", {}), ("encoder self", {})])
def test_output_is_the_definition_at_full_length(place: str, settings: dict[str, Any], padding_in_norm: bool) -> None:
    module = scrambled(place, hidden=40, max_length=50, padding_in_norm=padding_in_norm, **settings)
    x = torch.randn(2, 50, 16)
    source = source_for(module, 2, 50, 50, 31)
    expected = naive(module, x, torch.ones(2, 50, dtype=torch.bool), **source)
    torch.testing.assert_close(module(BlockInputs(x, **source)), expected, rtol=1e-4, atol=1e-4)


@EITHER_NORM
@pytest.mark.parametrize(
    ("place", "settings"),
    [
        ("encoder self", PER_HEAD),
        ("decoder self", PER_HEAD),
        ("cross", {}),
        ("cross", {**GATED, **PER_HEAD}),
        ("encoder self", {**PER_HEAD, **RANK}),
        ("cross", RANK),
    ],
)
def test_gradients_are_those_of_the_definition(place: str, settings: dict[str, Any], padding_in_norm: bool) -> None:
    module = scrambled(place, hidden=3, max_length=6, padding_in_norm=padding_in_norm, **settings).double()
    x, mask = torch.randn(2, 5, 16, dtype=torch.double), lengths_mask(5, 5, 3)
    source = source_for(module, 2, 6, 6, 4)
    weight = torch.randn(2, 5, 16, dtype=torch.double) * mask[:, :, None]
    states = [x.requires_grad_()] + ([source["source"].requires_grad_()] if source else [])
    learned = [*states, *module.parameters()]
    expected = torch.autograd.grad((naive(module, x, mask, **source) * weight).sum(), learned)
    given = torch.autograd.grad((module(BlockInputs(x, mask, **source)) * weight).sum(), learned)
    for mine, its in zip(given, expected, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-6, atol=1e-9)


@EITHER_NORM
@EACH
def test_every_number_learns(place: str, settings: dict[str, Any], padding_in_norm: bool) -> None:
    module = scrambled(place, padding_in_norm=padding_in_norm, **settings)
    module(BlockInputs(torch.randn(4, 10, 16), **source_for(module, 4, 10))).square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None
        assert (parameter.grad != 0).all(), name


@pytest.mark.parametrize(("batch", "of_start"), [(3, 1), (3, 3), (1, 3)])
@pytest.mark.parametrize("positions", [1, 2, 3, 7, 8, 50, 127])
def test_running_sum_is_cumsum(positions: int, batch: int, of_start: int) -> None:
    terms = torch.randn(2, positions, batch, 4, dtype=torch.double, requires_grad=True)
    start = torch.randn(2, 1, of_start, 4, dtype=torch.double, requires_grad=True)
    weight = torch.randn(2, positions, 3, 4, dtype=torch.double)
    given, expected = running_sum(terms.clone(), start), terms.cumsum(1) + start
    torch.testing.assert_close(given, expected)
    for mine, its in zip(
        torch.autograd.grad((given * weight).sum(), [terms, start]),
        torch.autograd.grad((expected * weight).sum(), [terms, start]),
        strict=True,
    ):
        torch.testing.assert_close(mine, its)


# Causality and padding


@pytest.mark.parametrize("masked", [*slow(False), True])
@EITHER_NORM
@EACH_CAUSAL
def test_later_positions_change_nothing_before(
    place: str, settings: dict[str, Any], padding_in_norm: bool, masked: bool
) -> None:
    module = scrambled(place, max_length=50, padding_in_norm=padding_in_norm, **settings)
    x = torch.randn(3, 50, 16)
    mask = lengths_mask(50, 50, 33, 41) if masked else None
    source = source_for(module, 3, 50, 50, 20, 7)
    before = module(BlockInputs(x, mask, **source))
    for position in (1, 2, 5, 16, 31, 49):
        changed = x.clone()
        changed[:, position:] = 100 * torch.randn_like(changed[:, position:])
        after = module(BlockInputs(changed, mask, **source))
        assert torch.equal(after[:, :position], before[:, :position])
        assert not torch.equal(after[:, position], before[:, position])


@pytest.mark.parametrize("dtype", [*slow(torch.float32), torch.float64])
@EITHER_NORM
@EACH
def test_padding_changes_nothing(
    place: str, settings: dict[str, Any], padding_in_norm: bool, dtype: torch.dtype
) -> None:
    """Beyond rounding, which differs between products of other shapes: a block as it starts, and in double precision
    one whose every number counts."""
    make, tolerance = (build, 1e-6) if dtype == torch.float32 else (scrambled, 1e-12)
    module = make(place, hidden=12, max_length=50, padding_in_norm=padding_in_norm, **settings).to(dtype)
    sentences = [torch.randn(1, length, 16, dtype=dtype) for length in (3, 17, 8)]
    sources = [source_for(module, 1, length) for length in (20, 5, 11)]
    alone = [module(BlockInputs(states, **source)) for states, source in zip(sentences, sources, strict=True)]
    for tokens, source_tokens in ((17, 20), (23, 50), (50, 31)):
        x = torch.full((3, tokens, 16), float("nan"), dtype=dtype)
        x_source = torch.full((3, source_tokens, 16), 1e9, dtype=dtype)
        for row, (states, source) in enumerate(zip(sentences, sources, strict=True)):
            x[row, : states.shape[1]] = states
            if source:
                x_source[row, : source["source"].shape[1]] = source["source"]
        read: dict[str, Any] = (
            {"source": x_source, "source_mask": lengths_mask(source_tokens, 20, 5, 11)} if sources[0] else {}
        )
        together = module(BlockInputs(x, lengths_mask(tokens, 3, 17, 8), **read))
        assert together.isfinite().all()
        for row, expected in enumerate(alone):
            assert (together[row, : expected.shape[1]] - expected[0]).abs().max() < tolerance


@pytest.mark.parametrize(("place", "settings"), [form for form in CAUSAL if not form[1].get("gate")])
def test_padding_at_the_end_changes_no_bit(place: str, settings: dict[str, Any]) -> None:
    module = scrambled(place, max_length=50, **settings)
    x, source = torch.randn(3, 13, 16), source_for(module, 3, 20, 20, 5, 11)
    short = module(BlockInputs(x, None, **source))
    for tokens in (14, 29, 50):
        padded = torch.cat([x, torch.randn(3, tokens - 13, 16)], dim=1)
        assert torch.equal(module(BlockInputs(padded, lengths_mask(tokens, 13, 13, 13), **source))[:, :13], short)


@EACH
def test_longer_texts_are_errors(place: str, settings: dict[str, Any]) -> None:
    module = scrambled(place, **settings)
    source = source_for(module, 1, 10)
    assert module(BlockInputs(torch.randn(1, 10, 16), **source)).shape == (1, 10, 16)
    with pytest.raises(LeanformerError, match=r"\.0\..* reads at most 10 tokens, not 13; .* a greater max_length"):
        module(BlockInputs(torch.randn(1, 13, 16), **source))
    if source:
        with pytest.raises(LeanformerError, match=r"reads at most 10 tokens of the source, not 11; "):
            module(BlockInputs(torch.randn(1, 4, 16), **source_for(module, 1, 11)))
        with pytest.raises(ValueError, match="called without it"):
            module(BlockInputs(torch.randn(1, 4, 16)))
    if SITES[place][1]:
        state = DecodingState()
        state.length = 10
        with pytest.raises(LeanformerError, match="reads at most 10 tokens, not 11; "):
            module(BlockInputs(torch.randn(1, 1, 16), **source, state=state))


def test_an_empty_sentence_gives_finite_numbers() -> None:
    for place, settings in CAUSAL + WHOLE:
        module = scrambled(place, **settings)
        source = source_for(module, 2, 4, 0, 4)
        assert module(BlockInputs(torch.randn(2, 5, 16), lengths_mask(5, 0, 5), **source)).isfinite().all()


# Decoding


def decode(
    module: FeedForwardModule,
    state: DecodingState,
    hidden_states: torch.Tensor,
    mask: torch.Tensor | None,
    chunks: list[int],
    **source: Any,
) -> torch.Tensor:
    """The tokens given a few at a time, as a layer does it; the source, as it comes, only the first time."""
    outputs = []
    for tokens in chunks:
        stop = state.length + tokens
        seen = None if mask is None else mask[:, :stop]
        outputs.append(module(BlockInputs(hidden_states[:, state.length : stop], seen, **source, state=state)))
        state.length, source = stop, {}
    return torch.cat(outputs, dim=1)


@pytest.mark.parametrize("padding", some(MASKS, "holes"))
@pytest.mark.parametrize("chunks", [*slow([1] * 7), [3, 1, 1, 2], *slow([7])])
@EITHER_NORM
@EACH_CAUSAL
def test_decoding_equals_all_at_once(
    place: str, settings: dict[str, Any], padding_in_norm: bool, chunks: list[int], padding: str
) -> None:
    module = scrambled(place, padding_in_norm=padding_in_norm, **settings)
    x, mask = torch.randn(3, 7, 16), torch.tensor(MASKS[padding]).bool()
    source = source_for(module, 3, 9, 9, 4, 7)
    given_mask = None if padding == "none" else mask
    expected = module(BlockInputs(x, given_mask, **source))
    given = decode(module, DecodingState(), x, given_mask, chunks, **source)
    torch.testing.assert_close(given[mask], expected[mask], rtol=1e-5, atol=1e-5)


@EITHER_NORM
@EACH_CAUSAL
def test_decoding_goes_on_with_other_beams(place: str, settings: dict[str, Any], padding_in_norm: bool) -> None:
    module = scrambled(place, padding_in_norm=padding_in_norm, **settings)
    first, then = torch.randn(4, 5, 16), torch.randn(4, 4, 16)
    source = source_for(module, 4, 9, 9, 4, 7, 2)
    beams = torch.tensor([2, 0, 2, 1])
    state = DecodingState()
    decode(module, state, first, None, [1] * 5, **source)
    state.reorder_cache(beams)  # type: ignore[arg-type]
    whole = torch.cat([first[beams], then], dim=1)
    given = decode(module, state, whole, None, [1] * 4)
    expected = module(BlockInputs(whole, **{name: tensor[beams] for name, tensor in source.items()}))
    torch.testing.assert_close(given, expected[:, 5:], rtol=1e-5, atol=1e-5)


@EITHER_NORM
@EACH_CAUSAL
def test_decoding_with_a_mask_at_some_steps_and_more_sequences_later(
    place: str, settings: dict[str, Any], padding_in_norm: bool
) -> None:
    module = scrambled(place, padding_in_norm=padding_in_norm, **settings)
    x, state, mask = torch.randn(2, 6, 16), DecodingState(), torch.ones(2, 6, dtype=torch.bool)
    mask[0, 2] = False
    source = source_for(module, 2, 9, 9, 4)
    decode(module, state, x, None, [2], **source)
    decode(module, state, x, mask, [1])
    state.batch_repeat_interleave(2)
    x, mask = x.repeat_interleave(2, dim=0), mask.repeat_interleave(2, dim=0)
    given = decode(module, state, x, None, [1, 1, 1])
    expected = module(
        BlockInputs(x, mask, **{name: tensor.repeat_interleave(2, dim=0) for name, tensor in source.items()})
    )
    torch.testing.assert_close(given, expected[:, 3:], rtol=1e-5, atol=1e-5)


@EACH_CAUSAL
def test_decoding_state_does_not_grow(place: str, settings: dict[str, Any]) -> None:
    module = scrambled(place, max_length=50, **settings)
    x, state = torch.randn(2, 50, 16), DecodingState()
    source = source_for(module, 2, 30)

    def memory() -> int:
        assert all(len(tensor) == 2 for tensor in state.tensors.values())
        assert all(len(tensor) == 1 for tensor in state.shared.values())
        kept = [*state.tensors.values(), *state.shared.values()]
        return sum(tensor.untyped_storage().nbytes() for tensor in kept)

    decode(module, state, x, None, [1], **source)
    once = memory()
    groups, hidden = module.network.hidden_norm.weight.shape
    # Without padding anywhere gains and shifts are the same for both sequences, and kept once.
    alike = 2 if source else 1
    assert once == 4 * (2 * (groups * hidden + 3) + alike * 2 * groups * hidden)
    for tokens in (20, 1):
        decode(module, state, x, None, [tokens])
        assert memory() == once


# Precision


@EITHER_NORM
@EACH
def test_bfloat16_comes_close_to_float32(place: str, settings: dict[str, Any], padding_in_norm: bool) -> None:
    module = build(place, hidden=64, max_length=50, padding_in_norm=padding_in_norm, **settings)
    x, source = torch.randn(2, 50, 16), source_for(module, 2, 50)
    expected = module(BlockInputs(x, **source))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        given = module(BlockInputs(x, **source))
    deviation = (given - expected).square().mean() / expected.var()
    assert 0 < deviation < 1e-4
    source = {name: t.bfloat16() if t.is_floating_point() else t for name, t in source.items()}
    half = module.to(torch.bfloat16)(BlockInputs(x.bfloat16(), **source))
    assert half.dtype == torch.bfloat16
    assert (half - expected).square().mean() / expected.var() < 1e-3


@EACH_CAUSAL
def test_sums_are_kept_in_float32(place: str, settings: dict[str, Any]) -> None:
    module = scrambled(place, **settings)
    state = DecodingState()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        decode(module, state, torch.randn(2, 6, 16), None, [4, 1, 1], **source_for(module, 2, 5))
        terms = torch.randn(1, 50, 3, 4)
        sums = running_sum(terms.clone(), torch.zeros(1, 1, 1, 4))
    assert {tensor.dtype for tensor in (state.tensors | state.shared).values()} == {torch.float32}
    torch.testing.assert_close(sums.double(), terms.double().cumsum(1), rtol=1e-5, atol=1e-5)


# The attention's output projection


def attention_weights(d_model: int = 16, bias: bool = True) -> AttentionWeights:
    query, key, value, output = torch.randn(4, d_model, d_model)
    output_bias = torch.randn(d_model) if bias else None
    return AttentionWeights(query, key, value, output, None, None, None, output_bias, 4, 0.5)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize("place", ["encoder self", "decoder self", "cross"])
def test_output_projection_is_kept(place: str, per_head: bool, bias: bool) -> None:
    where, teacher = site(place), attention_weights(bias=bias)
    resolved = resolve(where, teacher, hidden=12, max_length=10, per_head=per_head)
    assert (resolved["output"], resolved["bias"]) == ("kept", bias)
    arguments = check_arguments(FeedForward, resolved, "plan")
    module = FeedForward.build(arguments, where, teacher)
    assert isinstance(module, FeedForwardModule)
    assert module.target == "heads"
    x, source = torch.randn(2, 8, 16), source_for(module, 2, 9)
    heads = module.taught(BlockInputs(x, None, **source))
    expected = heads @ teacher.output + (0 if teacher.output_bias is None else teacher.output_bias)
    torch.testing.assert_close(module(BlockInputs(x, **source)), expected)
    taught = {id(parameter) for parameter in module.taught_parameters()}
    assert taught == {id(parameter) for parameter in module.network.parameters()}
    assert count(module) == count(module.network) + 16 * 16 + 16 * bias
    loaded = FeedForward.build(arguments, where, None)
    assert loaded is not None
    loaded.load_state_dict(module.state_dict())
    assert torch.equal(loaded(BlockInputs(x, **source)), module(BlockInputs(x, **source)))


@EACH
def test_a_replaced_output_is_taught_whole(place: str, settings: dict[str, Any]) -> None:
    module = scrambled(place, **settings)
    assert module.target == "output"
    x, source = torch.randn(2, 8, 16), source_for(module, 2, 9)
    assert torch.equal(module.taught(BlockInputs(x, None, **source)), module(BlockInputs(x, **source)))
    assert len(module.taught_parameters()) == len(list(module.parameters()))


# Arguments, initial values, operations


@pytest.mark.parametrize(
    ("place", "settings", "line"),
    [
        ("cross", {"size": "XXL"}, r"argument 'size' of block 'feed_forward': .* not 'XXL'"),
        ("cross", {"size": "S", "hidden": 50}, "'size' and 'hidden' both say how many hidden units; give one of them"),
        ("cross", {"rank": 0}, r"argument 'rank' of block 'feed_forward': .* not 0"),
        ("cross", {"hidden": 0}, r"argument 'hidden' of block 'feed_forward': .* not 0"),
        ("cross", {"max_length": 0}, r"argument 'max_length' of block 'feed_forward': .* not 0"),
        ("cross", {"max_length": "50"}, r"argument 'max_length' of block 'feed_forward': .* not '50'"),
        ("cross", {"heads": 4}, "block 'feed_forward' has no argument 'heads'; its arguments: size, hidden, "),
        ("cross", {"gate": True}, "'gate' reads a token alone; give 'reads: token' with it"),
        ("cross", {"gate": True, "reads": "prefix"}, "'gate' reads a token alone; give 'reads: token' with it"),
        ("cross", {"bias": True, "output": "replaced"}, "'bias' is of the output projection, which 'output: replaced'"),
        (
            "decoder self",
            {"reads": "token", "output": "replaced"},
            "decoder.0.self_attention: argument 'reads' is for places that read the source, which this one does not; "
            "leave it out",
        ),
        ("encoder layer", {"reads": "prefix"}, "encoder.0.layer: argument 'reads' is for places that read the source"),
        (
            "encoder sublayer",
            {"per_head": True},
            "encoder.0.self_attention_sublayer: argument 'per_head' is for attentions, a self_attention_sublayer is "
            "replaced whole; leave it out",
        ),
        ("decoder layer", {"per_head": True}, "decoder.0.layer: argument 'per_head' is for attentions, a layer is"),
        ("cross sublayer", {"output": "kept"}, "decoder.0.cross_attention_sublayer: argument 'output' is for attentio"),
        ("encoder layer", {"bias": False}, "encoder.0.layer: argument 'bias' is for attentions"),
        (
            "decoder self",
            {"max_length": 65, "output": "replaced"},
            "decoder.0.self_attention: max_length = 65 makes the block longer than the positions of the model; "
            "take at most 64",
        ),
        (
            "cross",
            {"output": "kept"},
            "decoder.0.cross_attention: 'output: kept' keeps the output projection of an attention, but the one there "
            "is of another kind: .*; take 'output: replaced'",
        ),
    ],
)
def test_wrong_arguments_are_named(place: str, settings: dict[str, Any], line: str) -> None:
    with pytest.raises(LeanformerError, match=line) as error:
        resolve(site(place), **settings)
    assert "\n" not in str(error.value)


def test_bias_is_the_kept_projections_own() -> None:
    with pytest.raises(LeanformerError, match="bias = True, but the output projection that is kept there has none;"):
        resolve(site("cross"), attention_weights(bias=False), bias=True)
    with pytest.raises(LeanformerError, match="bias = False, but the output projection that is kept there has one;"):
        resolve(site("cross"), attention_weights(bias=True), bias=False)


@EACH
def test_initial_values(place: str, settings: dict[str, Any]) -> None:
    module = build(place, hidden=40, max_length=50, **settings)
    network = module.network
    fan_in = {"first": network.first.weight[0, ..., 0].numel(), "last": 40, "gate": 16, "down": 16, "up": 3}
    for name, part in network.named_modules():
        if isinstance(part, Scale):
            assert (part.weight == 1).all()
            assert (part.bias == 0).all()
        elif isinstance(part, GroupedMap):
            bound = fan_in[name] ** -0.5
            assert part.weight.abs().max() <= bound
            if part.weight[0].numel() < 100:  # too few to tell more
                continue
            assert 0.95 * bound < part.weight.abs().max()
            assert part.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
    x = torch.randn(8, 50, 16)
    assert 0.1 < module(BlockInputs(x, **source_for(module, 8, 50))).std() < 2
    if isinstance(network, CausalNetwork) and network.gate is not None:
        gate = 2 * torch.sigmoid(x.flatten(0, 1) @ network.gate.weight)
        assert gate.mean().item() == pytest.approx(1, abs=0.05)


@EITHER_NORM
@EACH
def test_operations_follow_the_formula(place: str, settings: dict[str, Any], padding_in_norm: bool) -> None:
    module = build(place, hidden=5, max_length=10, padding_in_norm=padding_in_norm, **settings)
    d, hidden, length, batch, n, s = 16, 5, 10, 3, 7, 9
    groups = 4 if settings.get("per_head") else 1
    source = source_for(module, batch, s)
    with FlopCounterMode(display=False) as counter:
        module(BlockInputs(torch.randn(batch, n, d), **source))
    rank, unfactored = settings.get("rank"), d * hidden * groups
    # Multiply-adds of one token in the first linear map of all groups, and in the last.
    given = unfactored if rank is None else groups * (d * rank + rank * hidden)
    taken = d * hidden if rank is None else groups * hidden * rank + rank * d
    if (place, settings) in WHOLE:
        read = batch * (length if padding_in_norm else n)
    else:
        token_alone = settings.get("reads") == "token"
        read = batch * n + (batch * s if source else 0)
        positions = (length if source else 0) + (1 if token_alone else length)
        counted = (s if source else 0) + (1 if token_alone else n)
        read += 2 * (positions if padding_in_norm else counted)
    expected = 2 * (given * read + batch * n * taken)
    if settings.get("gate"):
        expected += 2 * batch * n * unfactored
    if source and not padding_in_norm:
        expected += 2 * 2 * groups * batch * s * hidden
    assert counter.get_total_flops() == expected

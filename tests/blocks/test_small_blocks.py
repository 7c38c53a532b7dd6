"""Blocks without a comparison of tokens: counts, definitions, causality, padding, decoding, teaching."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from cases import slow, some
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from leanformer.blocks.average import Average, AverageModule
from leanformer.blocks.kit.base import AttentionWeights, Block, BlockModule, check_arguments
from leanformer.blocks.kit.inputs import BlockInputs
from leanformer.blocks.kit.site import Site, SiteKind
from leanformer.blocks.kit.some_heads import SomeHeadsModule, replace_heads
from leanformer.blocks.kit.state import DecodingState
from leanformer.blocks.kit.tokens import repeats
from leanformer.blocks.linear_attention import LinearAttention, LinearAttentionModule
from leanformer.blocks.mixer import Mixer, MixerModule
from leanformer.blocks.slots import FactoredMap, Slots, SlotsModule
from leanformer.blocks.ssru import Ssru, SsruModule, scan
from leanformer.blocks.synthesizer import Synthesizer, SynthesizerModule
from leanformer.core.errors import LeanformerError

SITES: dict[str, tuple[SiteKind, bool, bool]] = {  # kind, causal, reads_source
    "encoder self": ("self_attention", False, False),
    "decoder self": ("self_attention", True, False),
    "cross": ("cross_attention", True, True),
}
BLOCKS: dict[str, type[Block]] = {
    block.name: block for block in (Mixer, Synthesizer, Slots, LinearAttention, Average, Ssru)
}
Form = dict[str, Any]
ABSOLUTE: Form = {"block": "mixer", "positions": "absolute"}
ABSOLUTES: list[Form] = [ABSOLUTE, {**ABSOLUTE, "heads": [0, 2]}]
RELATIVE: Form = {"block": "mixer", "max_distance": 5}
BARE: Form = {"vo": "none", "gate": False}
RELATIVES: list[Form] = [
    RELATIVE,
    {**RELATIVE, "heads": [1]},
    {**RELATIVE, **BARE},
    {**RELATIVE, "gate": False},
    {**RELATIVE, "vo": "none"},
]
GRID: Form = {"block": "mixer", "positions": "grid"}
GRIDS: list[Form] = [GRID, {**GRID, "max_distance": 1, "groups": 16, **BARE}, {**GRID, "heads": [0, 2]}]
SYNTHESIZERS: list[Form] = [
    *({"block": "synthesizer", "source_score": form} for form in ("none", "linear", "network")),
    {"block": "synthesizer", "source_score": "linear", "heads": [1]},
]
SLOTS: list[Form] = [
    {"block": "slots", "slots": 5, "gate": "linear"},
    {"block": "slots", "slots": 3, "gate": "network"},
    {"block": "slots", "slots": 5, "gate": "linear", "rank": 2},
    {"block": "slots", "slots": 5, "gate": "linear", "rank": 2, "heads": [0, 2]},
    {"block": "slots", "slots": 3, "gate": "network", "heads": [1]},
]
LINEAR_ATTENTION: Form = {"block": "linear_attention"}
AVERAGE: Form = {"block": "average"}
SSRUS: list[Form] = [{"block": "ssru"}, {"block": "ssru", "output": True}]
ANYWHERE = [*SYNTHESIZERS, *SLOTS, LINEAR_ATTENTION, AVERAGE]
CAUSAL = [(place, form) for place in ("decoder self", "cross") for form in ANYWHERE]
CAUSAL += [("decoder self", form) for form in RELATIVES + SSRUS]
ALL = [("encoder self", form) for form in ABSOLUTES + RELATIVES + ANYWHERE] + CAUSAL
LIMITED = [(place, form) for place, form in ALL if form["block"] == "synthesizer" or "positions" in form]


def forms(chosen: list[tuple[str, Form]]) -> pytest.MarkDecorator:
    names = [f"{place}, {' '.join(str(value) for value in form.values())}" for place, form in chosen]
    return pytest.mark.parametrize(("place", "form"), chosen, ids=names)


def site(place: str, d_model: int = 16, heads: int = 4, max_positions: int | None = 64) -> Site:
    kind, causal, reads_source = SITES[place]
    side = "decoder" if causal else "encoder"
    return Site(f"{side}.0.{kind}", kind, "attention", d_model, heads, 0, 0, causal, reads_source, max_positions)


def image_site(rows: int = 3, columns: int = 4, special_tokens: int = 1) -> Site:
    return replace(site("encoder self", max_positions=None), grid=(rows, columns), special_tokens=special_tokens)


def resolve(where: Site, block: str, **settings: Any) -> dict[str, Any]:
    teacher = attention(where.d_model, where.num_heads) if isinstance(settings.get("heads"), list) else None
    return BLOCKS[block].resolve(check_arguments(BLOCKS[block], settings, "plan"), where, teacher)


def build(where: Site, block: str, *, teacher: AttentionWeights | None = None, **settings: Any) -> BlockModule:
    assert where.kind in BLOCKS[block].kinds
    arguments = check_arguments(BLOCKS[block], resolve(where, block, **settings), "plan")
    if isinstance(settings.get("heads"), list):
        kept = teacher or attention(where.d_model, where.num_heads)
        some = replace_heads(BLOCKS[block], arguments, where, kept, take_over=teacher is not None)
        assert some.target == "heads"
        return some
    module = BLOCKS[block].build(arguments, where, teacher)
    assert isinstance(module, BlockModule)
    assert module.target == "output"
    return module


def mixing(module: Any) -> Any:
    """The block itself where it replaces some heads alone."""
    return module.block if isinstance(module, SomeHeadsModule) else module


def scrambled(place: str, form: Form, **settings: Any) -> BlockModule:
    """A small block whose weights are far from their initial values."""
    module = build(site(place), **{**form, **settings})
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return module.eval()


def lengths_mask(tokens: int, *lengths: int) -> torch.Tensor:
    return torch.arange(tokens) < torch.tensor(lengths)[:, None]


def source_for(place: str, batch: int, tokens: int, *lengths: int) -> dict[str, Any]:
    """A source with its mask, at a place that reads one."""
    if place != "cross":
        return {}
    mask = lengths_mask(tokens, *(lengths or [tokens] * batch))
    return {"source": torch.randn(batch, tokens, 16), "source_mask": mask}


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# Counts


@pytest.mark.parametrize(
    ("place", "form", "parameters"),
    [
        ("encoder self", {"block": "mixer"}, 50_328),
        ("decoder self", {"block": "mixer"}, 49_936),
        ("encoder self", ABSOLUTE, 69_536),
        ("cross", {"block": "synthesizer"}, 168_720),
        ("cross", {"block": "synthesizer", "source_score": "linear"}, 169_744),
        ("cross", {"block": "synthesizer", "source_score": "network"}, 203_792),
        ("cross", {"block": "slots"}, 115_200),
        ("cross", {"block": "slots", "slots": 64}, 263_040),
        ("cross", {"block": "slots", "gate": "linear"}, 65_792),
        ("cross", {"block": "slots", "gate": "linear", "slots": 64, "rank": 8}, 57_984),
        ("cross", LINEAR_ATTENTION, 65_920),
        ("cross", AVERAGE, 32_896),
        ("decoder self", SSRUS[0], 32_896),
        ("decoder self", SSRUS[1], 49_408),
    ],
)
def test_counts_at_the_usual_size(place: str, form: Form, parameters: int) -> None:
    with torch.device("meta"):
        assert count(build(site(place, d_model=128, heads=8), **form)) == parameters


OF_WIDTH = {  # numbers stored by blocks that no argument makes larger
    "linear_attention": lambda d: 4 * d * d + 3 * d,
    "average": lambda d: 2 * d * d + d,
}


@pytest.mark.parametrize(("d", "h", "length", "hidden"), [*slow((8, 4, 5, None)), (24, 4, 7, 9), *slow((30, 3, 64, 1))])
@forms(ALL)
def test_counts_follow_the_formula(place: str, form: Form, d: int, h: int, length: int, hidden: int | None) -> None:
    units = hidden or 2 * d
    # The other heads' queries, keys and values and the output projection stay; what is mixed has a bias then.
    some = len(form["heads"]) if "heads" in form else h
    channels = some * d // h
    rest = 3 * (d + 1) * (d - channels) + d * d + d
    value = d * channels + (channels if "heads" in form else 0)
    model_heads, h = h, some
    if form["block"] == "mixer":
        size = {"max_distance": length} if "max_distance" in form else {"max_length": length}
        module = build(site(place, d, model_heads), **{**form, **size})
        distances = length + 1 if place == "decoder self" else 2 * length + 1
        weights = distances if "max_distance" in form else length * length
        projections = (0 if "vo" in form else rest + d * channels + channels) + form.get("gate", True) * (
            d + 1
        ) * channels
        expected = projections + h * weights
    elif form["block"] == "synthesizer":
        module = build(site(place, d, model_heads), max_length=length, hidden=hidden, **form)
        of_source = {"none": 0, "linear": d * h, "network": d * units + units + units * h}[form["source_score"]]
        expected = rest + value + d * units + units + h * length * (units + 1) + of_source
    elif form["block"] == "ssru":
        module = build(site(place, d, h), **form)
        expected = 2 * d * d + d + form.get("output", False) * (d * d + d)
    elif form["block"] in OF_WIDTH:
        module = build(site(place, d, h), **form)
        expected = OF_WIDTH[form["block"]](d)
    else:
        linear, k, rank = form["gate"] == "linear", form["slots"], form.get("rank")
        settings = form if linear else {**form, "gate_hidden": hidden}
        module = build(site(place, d, model_heads), **settings)
        maps = d * h * k if rank is None else d * h * rank + h * rank * k
        gate = maps + h * k if linear else d * units + units + h * k * (units + 1)
        expected = rest + value + maps + gate
    assert count(module) == expected
    assert len(list(module.buffers())) == 0


WHOLE: Form = {"special_tokens": None, "vo": "separate", "gate": True}


@pytest.mark.parametrize(
    ("place", "form", "resolved"),
    [
        (
            "encoder self",
            {"block": "mixer"},
            {"groups": 4, "heads": None, "positions": "relative", "max_distance": 49, "max_length": None, **WHOLE},
        ),
        (
            "encoder self",
            {"block": "mixer", "groups": 2, "positions": "absolute"},
            {"groups": 2, "heads": None, "positions": "absolute", "max_distance": None, "max_length": 50, **WHOLE},
        ),
        (
            "decoder self",
            {"block": "mixer", "heads": [3, 0], "positions": "relative", "max_distance": 7},
            {"groups": None, "heads": [0, 3], "positions": "relative", "max_distance": 7, "max_length": None, **WHOLE},
        ),
        (
            "cross",
            {"block": "synthesizer"},
            {"heads": 4, "hidden": 32, "source_score": "none", "max_length": 50},
        ),
        (
            "cross",
            {"block": "slots"},
            {"slots": 16, "heads": 4, "gate": "network", "gate_hidden": 32, "rank": None},
        ),
        (
            "decoder self",
            {"block": "slots", "gate": "linear", "heads": 1, "rank": 3},
            {"slots": 16, "heads": 1, "gate": "linear", "gate_hidden": None, "rank": 3},
        ),
        ("decoder self", {"block": "linear_attention"}, {"heads": 4}),
        ("cross", {"block": "linear_attention", "heads": 2}, {"heads": 2}),
        ("cross", {"block": "average"}, {}),
        ("decoder self", {"block": "ssru"}, {"output": False}),
        (
            "decoder self",
            {"block": "slots", "heads": [2, 0, 1]},
            {"slots": 16, "heads": [0, 1, 2], "gate": "network", "gate_hidden": 32, "rank": None},
        ),
    ],
)
def test_arguments_are_written_out(place: str, form: Form, resolved: dict[str, Any]) -> None:
    assert resolve(site(place), **form) == resolved
    assert resolve(site(place), form["block"], **resolved) == resolved


# The definitions


def naive(
    module: Any,
    hidden_states: torch.Tensor,
    padding_mask: torch.Tensor,
    source: torch.Tensor | None = None,
    source_mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Token by token, from the real tokens that each may read."""
    sentences = []
    for number, sentence in enumerate(hidden_states):
        read, mask = sentence, padding_mask[number]
        if source is not None and source_mask is not None:
            read, mask = source[number], source_mask[number]
        tokens = []
        for position, token in enumerate(sentence):
            allowed = mask.clone()
            if source is None and getattr(mixing(module), "causal", isinstance(module, SsruModule)):
                allowed[position + 1 :] = False
            if not allowed.any():
                tokens.append(torch.full_like(token, float("nan")))  # not compared
                continue
            where = allowed.nonzero()[:, 0]
            mixed = NAIVE[type(module)](module, token, position, read[where], where)
            tokens.append(mixed if module.output is None else mixed @ module.output.weight.T + module.output.bias)
        sentences.append(torch.stack(tokens))
    return torch.stack(sentences)


def naive_mixer(
    module: Any, token: torch.Tensor, position: int, read: torch.Tensor, where: torch.Tensor
) -> torch.Tensor:
    values = read if module.value is None else read @ module.value.weight.T + module.value.bias  # (read, d_model)
    groups = values.chunk(len(module.mixing), dim=1)
    weights = [naive_weights(group, module.max_distance, position, where) for group in module.mixing]
    mixed = torch.cat([weight @ group for weight, group in zip(weights, groups, strict=True)])
    if module.max_distance is not None:
        near = int(((where - position).abs() <= module.max_distance).sum())
        mixed = mixed * (16 / max(1, near)) ** 0.5
    if module.gate is None:
        return mixed
    return 2 * torch.sigmoid(token @ module.gate.weight.T + module.gate.bias) * mixed


def naive_weights(weights: torch.Tensor, farthest: int | None, position: int, where: torch.Tensor) -> torch.Tensor:
    """Of a group, by the two positions, or by their distance: the token itself stands behind all before it."""
    if farthest is None:
        return weights[position, where]
    distances = (where - position).tolist()
    return torch.stack([weights[farthest + j] if abs(j) <= farthest else weights.new_zeros(()) for j in distances])


def naive_synthesizer(
    module: Any, token: torch.Tensor, position: int, read: torch.Tensor, where: torch.Tensor
) -> torch.Tensor:
    f = module.score(torch.relu(module.hidden(token))).view(module.heads, -1)[:, where]  # (heads, read)
    g = 0 if module.source_score is None else module.source_score(read).T
    values = module.value(read).chunk(module.heads, dim=1)
    return torch.cat([w @ value for w, value in zip((f + g).softmax(dim=-1), values, strict=True)])


def naive_slots(
    module: Any, token: torch.Tensor, position: int, read: torch.Tensor, where: torch.Tensor
) -> torch.Tensor:
    scores = head_maps(module.pool, read, module.heads)
    values = module.value(read).chunk(module.heads, dim=1)
    gates = head_maps(module.gate, token[None], module.heads)
    mixed = []
    for score, value, gate in zip(scores, values, gates, strict=True):
        bounded = 30 * torch.tanh(score / 30) if module.causal else score
        mixed.append(gate[0].softmax(dim=0) @ (bounded.softmax(dim=0).T @ value))
    return torch.cat(mixed)


def head_maps(module: nn.Module, tokens: torch.Tensor, heads: int) -> list[torch.Tensor]:
    """What each head's map gives: (tokens, d_model) -> (tokens, width) a head."""
    if not isinstance(module, FactoredMap):
        return list(module(tokens).chunk(heads, dim=1))
    downs = module.down.weight.chunk(heads)
    biases = torch.zeros(heads, 1) if module.bias is None else module.bias.view(heads, -1)
    return [tokens @ down.T @ up + bias for down, up, bias in zip(downs, module.up, biases, strict=True)]


def naive_linear_attention(
    module: Any, token: torch.Tensor, position: int, read: torch.Tensor, where: torch.Tensor
) -> torch.Tensor:
    query, keys, values = (
        states.unflatten(-1, (module.heads, -1))
        for states in (module.query(token), module.key(read), read @ module.value.weight.T)
    )
    mixed = []
    for head in range(module.heads):
        scores = (nn.functional.elu(keys[:, head]) + 1) @ (nn.functional.elu(query[head]) + 1)  # (read,)
        mixed.append(scores / scores.sum() @ values[:, head])
    return torch.cat(mixed)


def naive_average(
    module: Any, token: torch.Tensor, position: int, read: torch.Tensor, where: torch.Tensor
) -> torch.Tensor:
    return (read @ module.value.weight.T).mean(dim=0)


def naive_ssru(
    module: Any, token: torch.Tensor, position: int, read: torch.Tensor, where: torch.Tensor
) -> torch.Tensor:
    forget_weight, weight = module.maps.weight.chunk(2)
    cell = torch.zeros_like(token)
    for one in read:
        forget = torch.sigmoid(forget_weight @ one + module.forget_bias)
        cell = forget * cell + (1 - forget) * (weight @ one)
    return torch.relu(cell)


def naive_some_heads(
    module: Any, token: torch.Tensor, position: int, read: torch.Tensor, where: torch.Tensor
) -> torch.Tensor:
    replaced = NAIVE[type(module.block)](module.block, token, position, read, where).chunk(len(module.heads))
    heads = dict(zip(module.heads, replaced, strict=True))
    kept = module.kept
    projected = [linear(states) for linear, states in ((kept.query, token), (kept.key, read), (kept.value, read))]
    parts = zip(*(states.chunk(kept.heads, dim=-1) for states in projected), strict=True)
    for head, (query, key, value) in zip(module.kept_heads, parts, strict=True):
        heads[head] = (key @ query / len(query) ** 0.5).softmax(dim=0) @ value
    return torch.cat([heads[head] for head in range(len(heads))])


NAIVE: dict[type, Any] = {
    MixerModule: naive_mixer,
    SynthesizerModule: naive_synthesizer,
    SlotsModule: naive_slots,
    LinearAttentionModule: naive_linear_attention,
    AverageModule: naive_average,
    SsruModule: naive_ssru,
    SomeHeadsModule: naive_some_heads,
}

MASKS = {
    "none": [[1, 1, 1, 1, 1, 1, 1]] * 3,
    "right": [[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0, 0]],
    "left": [[1, 1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1, 1], [0, 1, 1, 1, 1, 1, 1]],
    "holes": [[1, 0, 1, 1, 0, 1, 1], [1, 1, 1, 1, 1, 1, 1], [0, 1, 0, 0, 1, 1, 0]],
}


@pytest.mark.parametrize("padding", some(MASKS, "holes"))
@forms(ALL)
def test_output_is_the_definition(place: str, form: Form, padding: str) -> None:
    module = scrambled(place, form)
    x, mask = torch.randn(3, 7, 16) + 0.5, torch.tensor(MASKS[padding]).bool()
    source = source_for(place, 3, 9, 9, 4, 7)
    expected = naive(module, x, mask, **source)
    given = module(BlockInputs(x, None if padding == "none" else mask, **source))
    assert given.shape == x.shape
    torch.testing.assert_close(given[mask], expected[mask], rtol=1e-4, atol=1e-4)
    assert given.isfinite().all()
    taught = module.taught(BlockInputs(x, None if padding == "none" else mask, **source))
    if isinstance(module, SomeHeadsModule):
        module.output.weight.data, module.output.bias.data = torch.eye(16), torch.zeros(16)
        given = module(BlockInputs(x, None if padding == "none" else mask, **source))[..., module.channels]
    assert torch.equal(taught, given)


def naive_grid(module: Any, x: torch.Tensor, rows: int, columns: int, special: int) -> torch.Tensor:
    """By loops over pairs of tokens; of ``special`` tokens before the patches those given last are there."""
    there = x.shape[1] - rows * columns
    down, right = (min(module.grid.max_distance, side - 1) for side in (rows, columns))
    offsets = module.mixing[:, : (2 * down + 1) * (2 * right + 1)].unflatten(1, (2 * down + 1, 2 * right + 1))
    taken, given, among = module.mixing[:, offsets[0].numel() :].split([special, special, special**2], dim=1)
    values = x if module.value is None else module.value(x)
    mixed = torch.zeros_like(values)
    for i in range(x.shape[1]):
        for j in range(x.shape[1]):
            if i < there and j < there:
                weight = among.unflatten(1, (special, special))[:, special - there + i, special - there + j]
            elif i < there:
                weight = taken[:, special - there + i]
            elif j < there:
                weight = given[:, special - there + j]
            else:
                (row, column), (other, beside) = divmod(i - there, columns), divmod(j - there, columns)
                if abs(other - row) > down or abs(beside - column) > right:
                    continue
                weight = offsets[:, down + other - row, right + beside - column]
            groups = values[:, j].unflatten(-1, (len(weight), -1))
            mixed[:, i] += (weight[:, None] * groups).flatten(1)
    return mixed if module.gate is None else 2 * torch.sigmoid(module.gate(x)) * mixed


@pytest.mark.parametrize(("special", "there"), [*slow((0, 0)), (1, 1), *slow((2, 2)), (2, 0)])
@pytest.mark.parametrize(("rows", "columns"), [(3, 4), *slow((1, 1)), (7, 8)])
@pytest.mark.parametrize("form", GRIDS)
def test_a_grid_goes_by_rows_and_columns(form: Form, rows: int, columns: int, special: int, there: int) -> None:
    """By all pairs of patches, and by convolution where there are many and few are read."""
    whole: Any = build(image_site(rows, columns, special), **form)
    module = mixing(whole)
    with torch.no_grad():
        for parameter in whole.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    down, right = (min(form.get("max_distance", 99), side - 1) for side in (rows, columns))
    weights = (2 * down + 1) * (2 * right + 1) + 2 * special + special**2
    assert module.mixing.shape == (form.get("groups", len(form.get("heads", range(4)))), weights)
    assert len(list(module.buffers())) == 0
    x = torch.randn(2, there + rows * columns, 16)
    expected = naive_grid(module, x, rows, columns, special)
    torch.testing.assert_close(
        whole.taught(BlockInputs(x)) if "heads" in form else module.mix(BlockInputs(x)), expected, rtol=1e-4, atol=1e-4
    )
    with torch.no_grad():  # where it may be another way
        torch.testing.assert_close(module.mix(BlockInputs(x)), expected, rtol=1e-4, atol=1e-4)
    if module.output is not None:
        expected = module.output(expected)
    if "heads" not in form:
        torch.testing.assert_close(whole(BlockInputs(x)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("rows", "columns"), [(5, 6), (7, 8)])
def test_a_bare_grid_is_a_convolution_of_single_channels(rows: int, columns: int) -> None:
    module: Any = build(image_site(rows, columns, 0), **GRID, max_distance=2, groups=16, **BARE)
    assert sorted(name for name, _ in module.named_parameters()) == ["mixing"]
    assert module.mixing.std().item() == pytest.approx(0.2 / 3**0.5, rel=0.1)  # uniform up to 1 / 5, as there
    x = torch.randn(3, rows * columns, 16, requires_grad=True)
    image = x.mT.unflatten(2, (rows, columns))
    convolved = nn.functional.conv2d(image, module.mixing.view(16, 1, 5, 5), padding=2, groups=16).flatten(2).mT
    torch.testing.assert_close(module(BlockInputs(x)), convolved, rtol=1e-4, atol=1e-5)
    towards = torch.randn_like(x)
    for one, other in zip(
        torch.autograd.grad(module(BlockInputs(x)), [x, module.mixing], towards),
        torch.autograd.grad(convolved, [x, module.mixing], towards),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_grid_of_other_images_is_an_error() -> None:
    module = build(image_site(special_tokens=2), **GRID)
    for tokens in (12, 14):
        module(BlockInputs(torch.randn(1, tokens, 16)))
    for tokens in (9, 13, 15):
        with pytest.raises(LeanformerError, match=f"3 x 4 patches and 2 tokens before them, not {tokens} tokens; give"):
            module(BlockInputs(torch.randn(1, tokens, 16)))


@pytest.mark.parametrize("form", GRIDS)
@pytest.mark.parametrize("side", [4, 7])
def test_a_grid_in_bfloat16_comes_close(form: Form, side: int) -> None:
    module, x = build(image_site(side, side), **form), torch.randn(2, 1 + side * side, 16)
    expected = module(BlockInputs(x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        given = module(BlockInputs(x))
    assert 0 < (given - expected).square().mean() / expected.var() < 1e-4
    given.sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters() if parameter.requires_grad)


def test_operations_of_a_grid() -> None:
    """Of pairs of patches, or of what is convolved; a multiply-add as two."""
    for side, counted in ((4, 16 * 16 * 16), (7, 49 * 16 * 9)):
        module = build(image_site(side, side, 0), **GRID, max_distance=1, groups=16, **BARE)
        with FlopCounterMode(display=False) as counter:
            module(BlockInputs(torch.randn(3, side * side, 16)))
        assert counter.get_total_flops() == 2 * 3 * counted


def test_a_grid_writes_out_what_it_reads() -> None:
    resolved = resolve(image_site(), **GRID)
    assert (resolved["max_distance"], resolved["special_tokens"]) == (3, 1)
    assert resolve(image_site(), "mixer", **resolved) == resolved
    for wrong in (0, 2):
        line = (
            rf"encoder\.0\.self_attention: special_tokens = {wrong}, but the model has 1 tokens before the patches; le"
        )
        with pytest.raises(LeanformerError, match=line):
            resolve(image_site(), **GRID, special_tokens=wrong)
    # Of a student whose pooling was changed later.
    assert resolve(image_site(special_tokens=0), **GRID, special_tokens=2)["special_tokens"] == 2


@pytest.mark.parametrize(("tokens", "farthest"), [(1, 0), (1, 5), (4, 0), (4, 2), (4, 3), (4, 4), (9, 2)])
@pytest.mark.parametrize("place", ["encoder self", "decoder self"])
def test_relative_weights_fit_any_length(place: str, tokens: int, farthest: int) -> None:
    module = scrambled(place, {**RELATIVE, "max_distance": farthest})
    x, mask = torch.randn(2, tokens, 16), torch.ones(2, tokens, dtype=torch.bool)
    expected = naive(module, x, mask)
    torch.testing.assert_close(module(BlockInputs(x)), expected, rtol=1e-4, atol=1e-4)
    if place == "decoder self":
        for chunks in ([1] * tokens, [tokens // 2, tokens - tokens // 2]):
            given = decode(module, DecodingState(), x, None, [chunk for chunk in chunks if chunk])
            torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-4)


def test_what_was_not_taught_by_distance_is_nothing() -> None:
    """Taught on three tokens: the weights of a longer text's distances have stayed at nothing."""
    module: Any = build(site("encoder self"), "mixer")
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
    for _ in range(3):
        module(BlockInputs(torch.randn(4, 3, 16))).square().mean().backward()
        optimizer.step()
    taught = torch.zeros(99, dtype=torch.bool)
    taught[49 - 2 : 49 + 3] = True
    assert (module.mixing[:, taught] != 0).all()
    assert (module.mixing[:, ~taught] == 0).all()


@pytest.mark.parametrize("place", ["encoder self", "decoder self"])
def test_relative_weights_know_no_position(place: str) -> None:
    """The same words further on in the text are given the same, far enough from its ends."""
    module = scrambled(place, RELATIVE)
    x = torch.randn(2, 40, 16)
    shifted = torch.cat([torch.randn(2, 9, 16), x], dim=1)
    torch.testing.assert_close(
        module(BlockInputs(shifted))[:, 9 + 5 :], module(BlockInputs(x))[:, 5:], rtol=1e-4, atol=1e-4
    )


@forms(ALL)
def test_gradients_reach_every_number(place: str, form: Form) -> None:
    """Those of the definition, in double precision; lengths up to the limit, so that every position is read."""
    settings = {"max_length": 6} if (place, form) in LIMITED else {}
    module = scrambled(place, form, **settings).double()
    x, mask = torch.randn(2, 6, 16, dtype=torch.double), lengths_mask(6, 6, 4)
    source = {name: t.double() if t.is_floating_point() else t for name, t in source_for(place, 2, 6, 6, 3).items()}
    weight = torch.randn(2, 6, 16, dtype=torch.double)
    parameters = list(module.parameters())
    given = torch.autograd.grad((module(BlockInputs(x, mask, **source)) * weight)[mask].sum(), parameters)
    expected = torch.autograd.grad((naive(module, x, mask, **source) * weight)[mask].sum(), parameters)
    for mine, its in zip(given, expected, strict=True):
        torch.testing.assert_close(mine, its)
    reached = [(gradient != 0).double().mean() for gradient in given]
    # Of a network, units that are silent for all these tokens get none: a quarter of them, by chance, is not rare.
    assert min(reached) > 0.5


@pytest.mark.parametrize("scale", [1e2, 1e4])
@pytest.mark.parametrize("place", ["decoder self", "cross", "encoder self"])
def test_slots_bear_any_score(place: str, scale: float) -> None:
    """Scores far apart, the largest first, last, or between: finite, and in float32 what they are in float64."""
    module = scrambled(place, SLOTS[0])
    assert isinstance(module, SlotsModule)
    with torch.no_grad():
        for parameter in module.pool.parameters():
            parameter.mul_(scale)
    x, source = torch.randn(4, 40, 16), source_for(place, 4, 40)
    x.requires_grad_()
    given = module(BlockInputs(x, **source))
    gradients = torch.autograd.grad(given.square().sum(), [x, *module.parameters()])
    assert all(gradient.isfinite().all() for gradient in gradients)
    source = {name: t.double() if t.is_floating_point() else t for name, t in source.items()}
    exact = module.double()(BlockInputs(x.double(), **source))
    torch.testing.assert_close(given.double(), exact, rtol=1e-3, atol=1e-3)


# Causality and padding


@pytest.mark.parametrize("masked", [*slow(False), True])
@forms(CAUSAL)
def test_later_positions_change_nothing_before(place: str, form: Form, masked: bool) -> None:
    module = scrambled(place, form)
    x = torch.randn(3, 50, 16)
    mask = lengths_mask(50, 50, 33, 41) if masked else None
    source = source_for(place, 3, 50, 50, 20, 7)
    before = module(BlockInputs(x, mask, **source))
    for position in (1, 2, 5, 16, 31, 49):
        changed = x.clone()
        changed[:, position:] = 100 * torch.randn_like(changed[:, position:])
        after = module(BlockInputs(changed, mask, **source))
        assert torch.equal(after[:, :position], before[:, :position])
        if (place, form) != ("cross", AVERAGE):  # which does not read the token that asks
            assert not torch.equal(after[:, position], before[:, position])


@pytest.mark.parametrize("dtype", [*slow(torch.float32), torch.float64])
@forms(ALL)
def test_padding_changes_nothing(place: str, form: Form, dtype: torch.dtype) -> None:
    """Beyond rounding, which differs between products of other shapes."""
    module, tolerance = scrambled(place, form).to(dtype), 1e-4 if dtype == torch.float32 else 1e-12
    sentences = [torch.randn(1, length, 16, dtype=dtype) for length in (3, 17, 8)]
    sources = [torch.randn(1, length, 16, dtype=dtype) for length in (20, 5, 11)]
    crossed = place == "cross"
    alone = [module(BlockInputs(x, source=y if crossed else None)) for x, y in zip(sentences, sources, strict=True)]
    for tokens, source_tokens in ((17, 20), (23, 50), (50, 31)):
        x = torch.full((3, tokens, 16), float("nan"), dtype=dtype)
        y = torch.full((3, source_tokens, 16), 1e9, dtype=dtype)
        for row in range(3):
            x[row, : sentences[row].shape[1]] = sentences[row]
            y[row, : sources[row].shape[1]] = sources[row]
        read: dict[str, Any] = {"source": y, "source_mask": lengths_mask(source_tokens, 20, 5, 11)} if crossed else {}
        together = module(BlockInputs(x, lengths_mask(tokens, 3, 17, 8), **read))
        assert together.isfinite().all()
        for row, expected in enumerate(alone):
            assert (together[row, : expected.shape[1]] - expected[0]).abs().max() < tolerance


@forms(ALL)
def test_an_empty_sentence_gives_finite_numbers(place: str, form: Form) -> None:
    module = scrambled(place, form)
    source = source_for(place, 2, 4, 0, 4)
    x = torch.randn(2, 5, 16, requires_grad=True)
    output = module(BlockInputs(x, lengths_mask(5, 0, 5), **source))
    assert output.isfinite().all()
    output.sum().backward()
    if (place, form) != ("cross", AVERAGE):
        assert x.grad is not None
        assert x.grad.isfinite().all()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in module.parameters())


@forms(LIMITED)
def test_longer_texts_are_errors(place: str, form: Form) -> None:
    module = scrambled(place, form, max_length=10)
    assert module.max_length == 10
    line = rf"\.0\..*: its {form['block']} block reads at most 10 tokens.*, not 13; .* a greater max_length"
    if place == "cross":  # the weights are over the source, the tokens that ask are as many as they like
        assert module(BlockInputs(torch.randn(1, 13, 16), **source_for(place, 1, 10))).shape == (1, 13, 16)
        with pytest.raises(LeanformerError, match=line):
            module(BlockInputs(torch.randn(1, 4, 16), **source_for(place, 1, 13)))
        return
    assert module(BlockInputs(torch.randn(1, 10, 16))).shape == (1, 10, 16)
    with pytest.raises(LeanformerError, match=line):
        module(BlockInputs(torch.randn(1, 13, 16)))
    if place == "decoder self":
        state = DecodingState()
        state.length = 12
        with pytest.raises(LeanformerError, match=line):
            module(BlockInputs(torch.randn(1, 1, 16), state=state))


@forms([(place, form) for place, form in ALL if (place, form) not in LIMITED])
def test_others_read_any_length(place: str, form: Form) -> None:
    module = scrambled(place, form)
    assert module.max_length is None
    assert module(BlockInputs(torch.randn(1, 300, 16), **source_for(place, 1, 400))).isfinite().all()


@pytest.mark.parametrize("form", ANYWHERE)
def test_a_missing_source_is_named(form: Form) -> None:
    with pytest.raises(ValueError, match=r"decoder\.0\.cross_attention: .* was called without it"):
        scrambled("cross", form)(BlockInputs(torch.randn(1, 4, 16)))


# Decoding


def decode(
    module: BlockModule,
    state: DecodingState,
    hidden_states: torch.Tensor,
    mask: torch.Tensor | None,
    chunks: list[int],
    **source: Any,
) -> torch.Tensor:
    """The tokens given a few at a time, as a layer does it; the source, as it comes, only the first time.

    Its mask comes each time: it says which of the keys that a state holds are real.
    """
    outputs = []
    for tokens in chunks:
        stop = state.length + tokens
        seen = None if mask is None else mask[:, :stop]
        outputs.append(module(BlockInputs(hidden_states[:, state.length : stop], seen, **source, state=state)))
        state.length = stop
        source.pop("source", None)
    return torch.cat(outputs, dim=1)


@pytest.mark.parametrize("padding", some(MASKS, "holes"))
@pytest.mark.parametrize("chunks", [*slow([1] * 7), [3, 1, 1, 2], *slow([7])])
@forms(CAUSAL)
def test_decoding_equals_all_at_once(place: str, form: Form, chunks: list[int], padding: str) -> None:
    module = scrambled(place, form)
    x, mask = torch.randn(3, 7, 16), torch.tensor(MASKS[padding]).bool()
    source = source_for(place, 3, 9, 9, 4, 7)
    given_mask = None if padding == "none" else mask
    expected = module(BlockInputs(x, given_mask, **source))
    given = decode(module, DecodingState(), x, given_mask, chunks, **source)
    torch.testing.assert_close(given[mask], expected[mask], rtol=1e-5, atol=1e-5)


@forms(CAUSAL)
def test_decoding_goes_on_with_other_beams(place: str, form: Form) -> None:
    module = scrambled(place, form)
    first, then = torch.randn(4, 5, 16), torch.randn(4, 4, 16)
    source = source_for(place, 4, 9, 9, 4, 7, 2)
    beams = torch.tensor([2, 0, 2, 1])
    state = DecodingState()
    decode(module, state, first, None, [1] * 5, **source)
    state.reorder_cache(beams)  # type: ignore[arg-type]
    whole = torch.cat([first[beams], then], dim=1)
    expected = module(BlockInputs(whole, **{name: tensor[beams] for name, tensor in source.items()}))
    masks = {name: tensor[beams] for name, tensor in source.items() if name == "source_mask"}
    given = decode(module, state, whole, None, [1] * 4, **masks)
    torch.testing.assert_close(given, expected[:, 5:], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("beams", [[1, 1, 3, 2, 5, 5], [4, 1, 3, 2, 5, 5]], ids=["of the same", "of another"])
@forms([(place, form) for place, form in CAUSAL if place == "cross"])
def test_beams_of_a_sentence_share_its_source(place: str, form: Form, beams: list[int]) -> None:
    """Two sentences of three beams, which go on as other beams of the same sentence, or of another one."""
    module = scrambled(place, form)
    source = {name: tensor.repeat_interleave(3, dim=0) for name, tensor in source_for(place, 2, 9, 9, 4).items()}
    first, then = torch.randn(6, 5, 16), torch.randn(6, 4, 16)
    state = DecodingState()
    decode(module, state, first, None, [2, 1, 1, 1], **source)
    if form["block"] == "slots":
        kept = state.parts["block"] if "heads" in form else state
        assert {len(tensor) for tensor in kept.tensors.values()} == {2}
    state.reorder_cache(torch.tensor(beams))  # type: ignore[arg-type]
    whole = torch.cat([first[beams], then], dim=1)
    expected = module(BlockInputs(whole, **{name: tensor[beams] for name, tensor in source.items()}))
    masks = {name: tensor[beams] for name, tensor in source.items() if name == "source_mask"}
    given = decode(module, state, whole, None, [1] * 4, **masks)
    torch.testing.assert_close(given, expected[:, 5:], rtol=1e-5, atol=1e-5)
    state.batch_repeat_interleave(2)
    again = torch.randn(12, 1, 16)
    whole = torch.cat([whole.repeat_interleave(2, dim=0), again], dim=1)
    expected = module(
        BlockInputs(whole, **{name: tensor[beams].repeat_interleave(2, dim=0) for name, tensor in source.items()})
    )
    masks = {name: tensor.repeat_interleave(2, dim=0) for name, tensor in masks.items()}
    given = decode(module, state, whole, None, [1], **masks)
    torch.testing.assert_close(given, expected[:, 9:], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("sentences", "expected"), [([0, 0, 1, 1], 2), ([0, 1, 0, 1], 1), ([0, 0, 0, 0, 1, 1], 2), ([0] * 5, 5), ([0], 1)]
)
def test_sequences_that_are_the_same_in_turn_are_counted(sentences: list[int], expected: int) -> None:
    states, real = torch.randn(2, 3, 4)[sentences], torch.ones(len(sentences), 3, dtype=torch.bool)
    assert repeats(states, real) == expected
    real[0, -1] = False
    assert repeats(states, real) == 1


@forms(CAUSAL)
def test_decoding_state_is_as_large_as_stated(place: str, form: Form) -> None:
    """Numbers a sentence.

    Of slots K d, running K (d + h); of a synthesizer d and a head's scores for each token; of a linear attention
    d (d_head + 1); of an average d, running d + 1; of an ssru d; of a mixer d for each token that is near enough.
    """
    module = scrambled(place, form)
    state, x = DecodingState(), torch.randn(2, 30, 16)

    def numbers() -> int:
        assert all(len(tensor) == 2 for tensor in state.tensors.values())
        tensors = [tensor for one in (state, *state.parts.values()) for tensor in one.tensors.values()]
        return sum(tensor.untyped_storage().nbytes() for tensor in tensors) // (4 * 2)

    source = source_for(place, 2, 9)
    for tokens in (1, 20, 1):
        decode(module, state, x, None, [tokens], **source)
        source = {}
        read = 9 if place == "cross" else state.length
        heads = len(form.get("heads", range(4)))
        kept = 2 * read * 4 * (4 - heads)  # keys and values of the heads that are left
        if form["block"] == "slots":
            assert numbers() == kept + form["slots"] * (4 * heads + (heads if place == "decoder self" else 0))
        elif form["block"] == "linear_attention":
            assert numbers() == 16 * (4 + 1)
        elif form["block"] == "average":
            assert numbers() == 16 + (1 if place == "decoder self" else 0)
        elif form["block"] == "ssru":
            assert numbers() == 16
        elif form["block"] == "mixer":
            assert numbers() == kept + min(read, form["max_distance"]) * 4 * heads
        else:
            assert numbers() == kept + read * (4 * heads + (1 if form["source_score"] == "none" else heads))


# Precision, initial values, operations


@forms(ALL)
def test_bfloat16_comes_close_to_float32(place: str, form: Form) -> None:
    module = scrambled(place, form) if "vo" in form else build(site(place), **form)  # which starts as nothing
    x, source = torch.randn(2, 50, 16), source_for(place, 2, 50)
    expected = module(BlockInputs(x, **source))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        given = module(BlockInputs(x, **source))
    deviation = (given - expected).square().mean() / expected.var()
    assert 0 < deviation < 1e-4
    source = {name: t.bfloat16() if t.is_floating_point() else t for name, t in source.items()}
    half = module.to(torch.bfloat16)(BlockInputs(x.bfloat16(), **source))
    assert half.dtype == torch.bfloat16
    assert (half - expected).square().mean() / expected.var() < 1e-3


@pytest.mark.parametrize("form", [SLOTS[1], LINEAR_ATTENTION, AVERAGE, SSRUS[0]])
def test_running_sums_are_kept_in_float32(form: Form) -> None:
    module, state = scrambled("decoder self", form), DecodingState()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        decode(module, state, torch.randn(2, 6, 16), None, [4, 1, 1])
    assert {tensor.dtype for tensor in state.tensors.values()} == {torch.float32}


@forms([(place, form) for place, form in ALL if form not in (LINEAR_ATTENTION, AVERAGE, *SSRUS)])
def test_gates_and_weights_start_near_uniform(place: str, form: Form) -> None:
    module: Any = mixing(build(site(place, d_model=128, heads=8), **form))
    x = torch.randn(1, 500, 128)
    if isinstance(module, MixerModule):
        assert module.mixing.std().item() == pytest.approx(0.02 if form in ABSOLUTES else 0.0, rel=0.05)
        if module.gate is not None:
            assert (2 * torch.sigmoid(module.gate(x))).mean().item() == pytest.approx(1, abs=0.02)
    else:
        if isinstance(module, SlotsModule):
            logits = module._scores(module.gate, x)
        else:
            logits = module.score(torch.relu(module.hidden(x))).unflatten(-1, (module.heads, -1))
        weights = logits.softmax(dim=-1)
        entropy = -(weights * weights.log()).sum(dim=-1).mean() / math.log(weights.shape[-1])
        assert 0.85 < entropy < 1


# Tokens, tokens of the source, sentences, and what it costs: multiply-adds of matrix products
@pytest.mark.parametrize(("n", "s", "batch"), [(7, 9, 3), *slow((2, 50, 4))])
@forms(ALL)
def test_operations_follow_the_formula(place: str, form: Form, n: int, s: int, batch: int) -> None:
    d, h = 16, len(form.get("heads", range(4)))
    c = 4 * h  # channels that the block gives; the others are an attention's
    module = build(site(place), **form)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        module(BlockInputs(torch.randn(batch, n, d), **source_for(place, batch, s)))
    read = s if place == "cross" else n
    if form["block"] == "mixer":
        projections = (0 if "vo" in form else c + d) + form.get("gate", True) * c
        expected = projections * d * n + c * n * n
    elif form["block"] == "synthesizer":
        hidden = 2 * d
        of_source = {"none": 0, "linear": d * h, "network": d * hidden + hidden * h}[form["source_score"]]
        expected = n * (d * d + d * hidden + hidden * h * read + c * read) + read * (d * c + of_source)
    elif form["block"] == "linear_attention":
        expected = 2 * d * d * (n + read)
        expected += n * n * (2 * d + h) if place == "decoder self" else (n + read) * d * (d // h + 1)
    elif form["block"] == "ssru":
        expected = (2 + form.get("output", False)) * d * d * n
    elif form["block"] == "average":
        expected = 2 * d * d * (n if place == "decoder self" else 1)
    else:
        k, rank = form["slots"], form.get("rank")
        pool = d * h * k if rank is None else d * h * rank + h * rank * k
        gate = pool if form["gate"] == "linear" else d * 2 * d + 2 * d * h * k
        expected = n * (d * d + gate) + read * (d * c + pool)
        expected += n * n * (h * k + c) if place == "decoder self" else (n + read) * k * c
    expected += (n * d + 2 * read * d + 2 * n * read) * (d - c)
    assert counter.get_total_flops() == 2 * batch * expected


# Arguments


@pytest.mark.parametrize(
    ("place", "form", "line"),
    [
        (
            "decoder self",
            ABSOLUTE,
            r"decoder\.0\.self_attention: a mixer of absolute positions reads all tokens at once, and a decoder must "
            "not read later ones; take 'positions: relative' there",
        ),
        (
            "encoder self",
            {"block": "mixer", "positions": "rotary"},
            "argument 'positions' of block 'mixer': .* 'relative', 'absolute' or 'grid', not 'rotary'",
        ),
        *(
            ("encoder self", {"block": "mixer", **wrong}, f"block 'mixer': {line}")
            for wrong, line in (
                ({"max_length": 50}, "'max_length' is for positions absolute, not relative"),
                ({"max_distance": None}, "positions relative need a 'max_distance'; give a number, or leave it out"),
                (
                    {"positions": "absolute", "max_distance": 9},
                    "'max_distance' is for positions relative and grid, not",
                ),
                ({"positions": "absolute", "max_length": None}, "positions absolute need a 'max_length'; give a numb"),
                ({"positions": "grid", "max_length": 9}, "'max_length' is for positions absolute, not grid"),
                ({"special_tokens": 1}, "'special_tokens' is for positions grid, not relative"),
                ({"vo": "none", "heads": [0]}, "'heads' are made of values; leave 'vo: none' or 'heads' out"),
            )
        ),
        (
            "encoder self",
            GRID,
            r"encoder\.0\.self_attention: 'positions: grid' is for patches of images; take 'positions: relative' here",
        ),
        (
            "encoder self",
            {"block": "mixer", "max_distance": -1},
            "argument 'max_distance' of block 'mixer': .* not -1",
        ),
        ("encoder self", {"block": "mixer", "groups": 3}, "groups = 3 does not divide the model's width; .* of 16"),
        ("encoder self", {"block": "mixer", "groups": 0}, r"argument 'groups' of block 'mixer': .* not 0"),
        (
            "encoder self",
            {"block": "mixer", "heads": 4},
            r"argument 'heads' of block 'mixer': input should be a list of heads, such as \[0, 2\], not 4",
        ),
        (
            "encoder self",
            {"block": "mixer", "heads": [1], "groups": 2},
            "block 'mixer': each of 'heads' is a group, and 'groups' is their number; leave one of them out",
        ),
        (
            "encoder self",
            {"block": "mixer", "heads": [4]},
            r"encoder\.0\.self_attention: heads = \[4\] names a head 4, but the attention there has heads 0 to 3",
        ),
        (
            "cross",
            {"block": "slots", "heads": [0, -1]},
            r"decoder\.0\.cross_attention: heads = \[0, -1\] names a head -1, but the attention there has heads 0 to 3",
        ),
        (
            "cross",
            {"block": "slots", "heads": []},
            r"decoder\.0\.cross_attention: heads = \[\] replaces no head; the attention there has heads 0 to 3",
        ),
        (
            "cross",
            {"block": "synthesizer", "heads": [3, 0, 3]},
            r"decoder\.0\.cross_attention: heads = \[3, 0, 3\] names head 3 twice; name it once",
        ),
        ("cross", {"block": "slots", "heads": [True]}, r"argument 'heads' of block 'slots': .* a list .* not \[True\]"),
        ("cross", {"block": "slots", "heads": "0"}, "argument 'heads' of block 'slots': .* valid integer, .* not '0'"),
        ("cross", {"block": "slots", "heads": 0}, "argument 'heads' of block 'slots': .* equal to 1, not 0"),
        (
            "encoder self",
            {**ABSOLUTE, "max_length": 65},
            "encoder.0.self_attention: max_length = 65 makes the block longer than the positions of the model; "
            "take at most 64",
        ),
        ("cross", {"block": "synthesizer", "max_length": 65}, "max_length = 65 makes the block longer than the pos"),
        ("cross", {"block": "synthesizer", "max_length": "9"}, "argument 'max_length' of block 'synthesizer': .* '9'"),
        ("cross", {"block": "synthesizer", "heads": 5}, "heads = 5 does not divide the model's width; .* of 16"),
        ("cross", {"block": "synthesizer", "hidden": 0}, "argument 'hidden' of block 'synthesizer': .* not 0"),
        (
            "cross",
            {"block": "synthesizer", "source_score": "quadratic"},
            "argument 'source_score' of block 'synthesizer': .*'none', 'linear' or 'network', not 'quadratic'",
        ),
        ("cross", {"block": "slots", "slots": 0}, "argument 'slots' of block 'slots': .* not 0"),
        ("cross", {"block": "slots", "heads": 32}, "heads = 32 does not divide the model's width; .* of 16"),
        ("cross", {"block": "slots", "gate": "none"}, "argument 'gate' of block 'slots': .* not 'none'"),
        ("cross", {"block": "slots", "gate_hidden": 0}, "argument 'gate_hidden' of block 'slots': .* not 0"),
        (
            "cross",
            {"block": "slots", "gate": "linear", "gate_hidden": 8},
            "block 'slots': 'gate_hidden' is of 'gate: network', and the gate is linear; leave it out",
        ),
        ("cross", {"block": "slots", "rank": 0}, "argument 'rank' of block 'slots': .* not 0"),
        ("cross", {"block": "average", "heads": 2}, "block 'average' has no argument 'heads'; its arguments: none"),
        ("cross", {"block": "linear_attention", "heads": 3}, "heads = 3 does not divide the model's width; .* of 16"),
        ("cross", {"block": "linear_attention", "heads": 0}, "argument 'heads' of block 'linear_attention': .* not 0"),
        (
            "encoder self",
            SSRUS[0],
            r"encoder\.0\.self_attention: an ssru reads only a token and those before it, as a decoder does; take it "
            r"at decoder\.\*\.self_attention, and another block here",
        ),
        ("decoder self", {"block": "ssru", "heads": 4}, "block 'ssru' has no argument 'heads'; its arguments: output"),
        ("cross", {"block": "slots", "max_length": 50}, "block 'slots' has no argument 'max_length'; its arguments: "),
    ],
)
def test_wrong_arguments_are_named(place: str, form: Form, line: str) -> None:
    with pytest.raises(LeanformerError, match=line) as error:
        resolve(site(place), **form)
    assert "\n" not in str(error.value)


# What is taken over from the attention that stood there


def attention(d: int = 16, heads: int = 4, bias: bool = True) -> AttentionWeights:
    names = ("query", "key", "value", "output")
    given: dict[str, Any] = {name: torch.randn(d, d) * d**-0.5 for name in names}
    given |= {f"{name}_bias": torch.randn(d) if bias else None for name in names}
    return AttentionWeights(**given, num_heads=heads, scaling=(d // heads) ** -0.5)


def attend(weights: AttentionWeights, asking: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
    value = read @ weights.value + (0 if weights.value_bias is None else weights.value_bias)
    mixed = weights.scores(asking, read).softmax(dim=-1) @ value.unflatten(-1, (weights.num_heads, -1)).transpose(1, 2)
    return mixed.transpose(1, 2).flatten(2) @ weights.output + (
        0 if weights.output_bias is None else weights.output_bias
    )


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("form", [form for form in (*ABSOLUTES, *RELATIVES, *ANYWHERE) if "vo" not in form])
def test_values_and_output_are_the_teachers(form: Form, bias: bool) -> None:
    """Where all tokens are alike, every weighting of them gives what the attention gives."""
    teacher = attention(bias=bias)
    module = build(site("encoder self"), teacher=teacher, **form)
    x = torch.randn(2, 1, 16).expand(2, 6, 16)  # no two of them farther apart than a mixer here reads
    if form["block"] == "mixer":
        with torch.no_grad():
            mixing(module).mixing.fill_(1 / 6 if form in ABSOLUTES else 1 / 96**0.5)
            if mixing(module).gate is not None:
                mixing(module).gate.weight.zero_()
    torch.testing.assert_close(module(BlockInputs(x)), attend(teacher, x, x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("heads", [None, [0, 2, 3]])
@pytest.mark.parametrize("rank", [None, 4, 3])
def test_slots_start_as_an_attention_with_rounded_queries(rank: int | None, heads: list[int] | None) -> None:
    """Many prototypes come near the attention itself, fewer less so; without the start there is nothing of it."""
    torch.manual_seed(0)
    teacher, where = attention(), site("cross")
    asking, source = torch.randn(8, 20, 16), torch.randn(8, 12, 16)
    expected = attend(teacher, asking, source)

    def missed(slots: int, start: AttentionWeights | None) -> float:
        module: Any = build(where, "slots", teacher=teacher, slots=slots, gate="linear", rank=rank, heads=heads)
        if start is None:  # what was kept stays
            for reset in mixing(module).modules():
                if isinstance(reset, nn.Linear):
                    reset.reset_parameters()
        with torch.no_grad():
            return float((module(BlockInputs(asking, source=source)) - expected).square().mean() / expected.var())

    assert missed(400, teacher) < 0.75 * missed(4, teacher) < missed(4, None)
    assert missed(400, teacher) < 0.35


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("dead", [False, True])
def test_slots_start_finite(slots: int, dead: bool) -> None:
    """With a single slot, and from heads that ask for nothing."""
    teacher = attention(bias=not dead)
    if dead:
        teacher.query[:, :8] = 0.0
    module = build(site("cross"), "slots", teacher=teacher, slots=slots, gate="linear", rank=2)
    assert all(parameter.isfinite().all() for parameter in module.parameters())
    assert module(BlockInputs(torch.randn(2, 5, 16), source=torch.randn(2, 6, 16))).isfinite().all()


@pytest.mark.parametrize("block", ["slots", "linear_attention"])
def test_blocks_of_other_heads_take_values_alone(block: str) -> None:
    teacher, where = attention(heads=4), site("cross")
    arguments = check_arguments(BLOCKS[block], resolve(where, block, heads=2), "plan")
    module: Any = BLOCKS[block].build(arguments, where, teacher)
    assert torch.equal(module.value.weight, teacher.value.T)
    if isinstance(module, LinearAttentionModule):
        assert not torch.equal(module.query.weight, teacher.query.T)


@pytest.mark.parametrize("bias", [True, False])
def test_linear_attention_starts_with_the_teachers_queries_and_keys(bias: bool) -> None:
    teacher, where = attention(bias=bias), site("encoder self")
    arguments = check_arguments(LinearAttention, resolve(where, "linear_attention"), "plan")
    module: Any = LinearAttention.build(arguments, where, teacher)
    x = torch.randn(5, 16)
    for linear, weight, given in (
        (module.query, teacher.query, teacher.query_bias),
        (module.key, teacher.key, teacher.key_bias),
    ):
        torch.testing.assert_close(linear(x), x @ weight + (0 if given is None else given))


@pytest.mark.parametrize("place", SITES)
def test_linear_attention_bears_features_that_vanish(place: str) -> None:
    module = scrambled(place, LINEAR_ATTENTION)
    assert isinstance(module, LinearAttentionModule)
    with torch.no_grad():
        for linear in (module.query, module.key):
            linear.weight.mul_(1e3)
            linear.bias.fill_(-1e3)
    x = torch.randn(3, 9, 16, requires_grad=True)
    output = module(BlockInputs(x, **source_for(place, 3, 9)))
    gradients = torch.autograd.grad(output.square().sum(), [x, *module.parameters()])
    assert all(tensor.isfinite().all() for tensor in (output, *gradients))


def test_a_model_without_a_limit_gives_none() -> None:
    where = site("encoder self", max_positions=None)
    assert resolve(where, **ABSOLUTE, max_length=1000)["max_length"] == 1000


@pytest.mark.parametrize("tokens", [1, 2, 5, 64, 100])
@pytest.mark.parametrize("factor", [0.0, 1e-6, 0.5, 1.0])
def test_a_scan_is_the_recurrence(tokens: int, factor: float) -> None:
    """With factors around this one; products of the small ones are far below what float32 can hold."""
    factors, terms = factor * torch.rand(3, tokens, 4) ** 0.01, torch.randn(3, tokens, 4)
    cells, kept = scan(factors, terms)
    cell, product = torch.zeros(3, 4, dtype=torch.double), torch.ones(3, 4, dtype=torch.double)
    for position in range(tokens):
        cell = factors[:, position] * cell + terms[:, position]
        product = factors[:, position] * product
        torch.testing.assert_close(cells[:, position].double(), cell, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(kept[:, position].double(), product, rtol=1e-4, atol=1e-30)

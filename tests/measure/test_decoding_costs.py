"""The cost of writing: operations and state, computed by hand and compared with ``generate``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import slow, some
from transformers import PreTrainedModel

import leanformer as lf
from leanformer.blocks.kit.state import DecodingState
from leanformer.measure.cost import count_flops
from leanformer.measure.writing import Lengths, decoding_costs, decoding_flops, decoding_state_bytes

MakeModel = Callable[..., PreTrainedModel]
Plan = dict[str, Any]

D, FFN, VOCABULARY, HEADS, LAYERS, LIMIT = 16, 24, 40, 4, 2, 12  # of ``make_translator``; the last of the plans' blocks
FLOAT = 4  # bytes
SLOTS, HIDDEN = 3, 10
S, T = 9, 7  # tokens of source and target
LENGTHS = Lengths(S, T)
PLAIN_SLOTS = {"block": "slots", "slots": SLOTS, "gate": "linear"}
FEED_FORWARD = {"block": "feed_forward", "hidden": HIDDEN, "max_length": LIMIT}
SYNTHESIZER = {"block": "synthesizer", "source_score": "linear", "max_length": LIMIT}

ENCODER = LAYERS * (2 * S * 4 * D * D + 2 * 2 * S * S * D + 2 * 2 * S * D * FFN)
MLP, WORDS = 2 * 2 * D * FFN, 2 * D * VOCABULARY


def student(make_translator: MakeModel, plan: Plan, family: str = "marian") -> PreTrainedModel:
    return lf.reduce(make_translator(family), plan)


def self_attention(read: int) -> int:
    """Operations of a token's self-attention over a number of tokens: four projections, scores, weighted values."""
    return 2 * 4 * D * D + 2 * 2 * read * D


def cross_attention(source: int) -> int:
    """The same for a source whose keys and values are cached."""
    return 2 * 2 * D * D + 2 * 2 * source * D


@pytest.mark.parametrize("family", ["marian", *slow("bart")])
def test_operations_of_attention_by_hand(make_translator: MakeModel, family: str) -> None:
    keys_and_values = LAYERS * 2 * S * 2 * D * D
    of_middle = LAYERS * (self_attention(read=4) + cross_attention(S) + MLP) + WORDS  # the fourth token of seven
    assert decoding_flops(make_translator(family), LENGTHS) == (ENCODER + keys_and_values, of_middle)


def test_operations_of_slots_by_hand(make_translator: MakeModel) -> None:
    """The cost does not depend on the position, nor, after pooling, on the source's length."""
    maps = D * HEADS * SLOTS  # multiply-adds of a token's map to the slots of each head
    running = 2 * (2 * D * D + 2 * maps + D * SLOTS)  # values and output; pools and gate; the gated sum
    reading = 2 * (D * D + maps + D * SLOTS)  # output; gate; the gated sum
    of_token = LAYERS * (running + reading + MLP) + WORDS
    pooling = LAYERS * 2 * S * (D * D + maps + D * SLOTS)  # values; pools; their weighted means
    # The first token has no sums yet, and weights only its own value.
    first = LAYERS * 2 * (HEADS * SLOTS + D)
    model = student(make_translator, {"decoder.*attention": PLAIN_SLOTS})
    assert decoding_flops(model, LENGTHS) == (ENCODER + pooling + first, of_token)
    longer = decoding_flops(model, Lengths(2 * S, 2 * T))
    assert longer[1] == of_token


@pytest.mark.parametrize(("farthest", "read"), [(2, 3), *slow((49, 4), (3, 4), (1, 2))])
def test_operations_of_a_mixer_by_hand(make_translator: MakeModel, farthest: int, read: int) -> None:
    """The fourth token reads four tokens, or only those within ``max_distance``."""
    mixer = 2 * (3 * D * D + read * D)  # value, gate and output; the values within the distance
    plan = {"decoder.*.self_attention": {"block": "mixer", "max_distance": farthest}}
    _, of_middle = decoding_flops(student(make_translator, plan), LENGTHS)
    assert of_middle == LAYERS * (mixer + cross_attention(S) + MLP) + WORDS


def test_operations_of_a_plan_that_keeps_some_attention(make_translator: MakeModel) -> None:
    """With running sums, a feed-forward block costs only the operations of its token."""
    network = 2 * (2 + 1) * D * HIDDEN  # the token with gain and shift of its position; the hidden units
    per_head_output = 2 * HIDDEN * D + 2 * D * D  # the heads; the teacher's output projection
    of_token = network + per_head_output
    plan = {"decoder.0.self_attention": FEED_FORWARD, "decoder.1.cross_attention": "none"}
    expected = of_token + self_attention(read=4) + cross_attention(S) + 2 * MLP + WORDS
    flops = decoding_flops(student(make_translator, plan), LENGTHS)
    assert flops == (ENCODER + 2 * S * 2 * D * D, expected)


WRITTEN: dict[str, tuple[str, Plan]] = {
    "attention": ("marian", {}),
    "attention of BART": ("bart", {}),
    "slots": ("marian", {"decoder.*attention": {**PLAIN_SLOTS, "gate": "network"}}),
    "slots of BART": ("bart", {"*attention": {**PLAIN_SLOTS, "rank": 2}}),
    "slots, some heads": ("marian", {"decoder.*attention": {**PLAIN_SLOTS, "heads": [0, 2]}}),
    "feed-forward": ("marian", {"*attention": FEED_FORWARD}),
    "feed-forward layer": ("marian", {"decoder.0.layer": FEED_FORWARD}),
    "synthesizer": ("marian", {"decoder.*attention": SYNTHESIZER}),
    "mixer": ("marian", {"*.self_attention": {"block": "mixer", "max_distance": T - 1}}),
    "minimal attention": (
        "marian",
        {
            "*.self_attention": "minimal_attention",  # keys and values are the tokens themselves
            "*.cross_attention": {"block": "minimal_attention", "qk": "separate", "vo": "separate"},
        },
    ),
    "sums": ("marian", {"decoder.*.self_attention": "average", "decoder.*.cross_attention": "linear_attention"}),
    "nothing": ("marian", {"decoder.*.self_attention": "none"}),
}


@torch.no_grad()
def written(model: PreTrainedModel, tokens: int) -> tuple[int, Any]:
    """Operations and last cache of ``generate``, forced to write a number of tokens from a source of S tokens."""
    ids = torch.randint(2, VOCABULARY, (1, S))
    settings = {"min_new_tokens": tokens, "max_new_tokens": tokens, "do_sample": False, "num_beams": 1}
    mask = torch.ones_like(ids)
    given: Any = model.generate
    flops, output = count_flops(lambda: given(ids, attention_mask=mask, return_dict_in_generate=True, **settings))
    assert output.sequences.shape[1] == tokens + 1
    return flops, output.past_key_values


def bytes_of(layer: Any) -> int:
    """The bytes of a cache layer's tensors, each counted by itself."""
    if isinstance(layer, DecodingState):
        parts = sum(bytes_of(part) for part in layer.parts.values())
        return parts + sum(tensor.numel() * tensor.element_size() for tensor in layer.tensors.values())
    return 0 if layer.keys is None else FLOAT * (layer.keys.numel() + layer.values.numel())


@pytest.mark.parametrize("name", some(WRITTEN, "attention", "synthesizer"))
def test_a_sentence_and_its_tokens_are_all_that_generate_does(make_translator: MakeModel, name: str) -> None:
    """The state is that of the last cache. For an odd number of tokens, the middle one costs as much as the mean."""
    family, plan = WRITTEN[name]
    model = student(make_translator, plan, family)
    flops, cache = written(model, T)
    once, of_token = decoding_flops(model, LENGTHS)
    assert once + T * of_token == flops
    layers = (*cache.self_attention_cache.layers, *cache.cross_attention_cache.layers)
    assert decoding_state_bytes(model, LENGTHS) == sum(bytes_of(layer) for layer in layers)


RUNNING, POOLED = SLOTS * (D + HEADS), SLOTS * D
ONE_TENSOR = "one tensor as keys and values of both layers, the encoder's output"
SUMS = 3 * HIDDEN + 3  # three sums for each hidden unit; of the entries their sum, squares and number
STATES: dict[str, tuple[Plan, Callable[[int, int], int]]] = {
    "attention": ({}, lambda source, target: LAYERS * 2 * (source + target) * D),
    "slots": ({"decoder.*attention": PLAIN_SLOTS}, lambda source, target: LAYERS * (RUNNING + POOLED)),
    "feed-forward": ({"decoder.*attention": FEED_FORWARD}, lambda source, target: LAYERS * 2 * SUMS),
    "mixer": (
        {"decoder.*.self_attention": {"block": "mixer", "max_distance": T}, "decoder.*.cross_attention": "none"},
        lambda source, target: LAYERS * min(target, T) * D,
    ),
    "slots for the source": (
        {"decoder.*.cross_attention": PLAIN_SLOTS},
        lambda source, target: LAYERS * (2 * target * D + POOLED),
    ),
    "half of the heads": (
        {"decoder.*attention": {**PLAIN_SLOTS, "heads": [1, 2]}},
        lambda source, target: LAYERS * (RUNNING + POOLED + 2 * (source + target) * D) // 2,
    ),
    ONE_TENSOR: (
        {"decoder.*.self_attention": "none", "decoder.*.cross_attention": "minimal_attention"},
        lambda source, target: source * D,
    ),
    "nothing": ({"decoder.*attention": "none"}, lambda source, target: 0),
}


@pytest.mark.parametrize("name", some(STATES, "attention", "half of the heads", ONE_TENSOR))
def test_state_by_hand(make_translator: MakeModel, name: str) -> None:
    plan, numbers = STATES[name]
    model = student(make_translator, plan)
    for lengths in (LENGTHS, Lengths(S, T + 1), Lengths(S + 2, T)):
        assert decoding_state_bytes(model, lengths) == FLOAT * numbers(lengths.source, lengths.target)


def test_state_in_half_precision_is_half(make_translator: MakeModel) -> None:
    model = make_translator().to(torch.bfloat16)
    assert decoding_state_bytes(model, LENGTHS) == 2 * LAYERS * 2 * (S + T) * D


@pytest.mark.parametrize("target", [1, *slow(2)])
def test_the_shortest_targets_and_limits(make_translator: MakeModel, target: int) -> None:
    """The second token is counted where there is none in the middle; the third is not where there is no position."""
    model = student(make_translator, {"decoder.*.self_attention": {**FEED_FORWARD, "max_length": 2}})
    assert decoding_flops(model, Lengths(S, target)) == decoding_flops(model, Lengths(S, 2))
    attention = make_translator()
    of_second = LAYERS * (self_attention(read=2) + cross_attention(S) + MLP) + WORDS
    assert decoding_flops(attention, Lengths(S, target))[1] == of_second


def test_row_of_the_results(make_translator: MakeModel) -> None:
    model = make_translator()
    once, of_token = decoding_flops(model, LENGTHS)
    assert decoding_costs(model, LENGTHS, Lengths(20, 30)) == {
        "source_tokens": S,
        "target_tokens": T,
        "flops_per_source": once,
        "flops_per_token": of_token,
        "state_bytes": LAYERS * 2 * (S + T) * D * FLOAT,
        "longest": {"source_tokens": 20, "target_tokens": 30, "state_bytes": LAYERS * 2 * 50 * D * FLOAT},
    }

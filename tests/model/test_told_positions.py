"""Blocks where a model tells positions in its attentions alone: they find the order of tokens themselves."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from architectures.tiny import ARCHITECTURES, Architecture, make_inputs, make_model
from transformers import PreTrainedModel
from transformers.models.t5.modeling_t5 import T5Attention

import leanformer as lf
from leanformer.blocks.kit.distances import RelativeBias, distances
from leanformer.blocks.kit.inputs import BlockInputs
from leanformer.blocks.kit.positions import SinusoidalPositions
from leanformer.blocks.kit.state import DecodingState
from leanformer.model.finding.finder import FoundStack, find
from leanformer.model.plan import Plan
from leanformer.model.surgery import module_at, resolve

T5 = "T5ForConditionalGeneration"
ADDING = ("linear_attention", "slots", "synthesizer")
"""Blocks that add positions to what they read."""


def entry_of(model: str) -> Architecture:
    return next(entry for entry in ARCHITECTURES if entry.model == model)


def student_of(model: PreTrainedModel, plan: dict[str, Any]) -> PreTrainedModel:
    """A student whose new weights are far from their initial values."""
    student = lf.reduce(model, plan)
    generator = torch.Generator().manual_seed(1)
    for name in student.config.plan:
        block = module_at(student, name)
        assert block is not None
        for parameter in block.parameters():
            parameter.data.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return student.eval()


@pytest.mark.parametrize(
    ("model", "unplaced"),
    [
        (T5, True),
        ("LlamaForCausalLM", True),
        ("BloomForCausalLM", True),
        ("MistralForCausalLM", True),
        ("BertForSequenceClassification", False),
        ("MBartForConditionalGeneration", False),
        ("OPTForCausalLM", False),
        ("RoFormerForSequenceClassification", False),  # it adds positions too
        ("Dinov2ForImageClassification", False),
    ],
)
def test_a_site_says_whether_hidden_states_tell_positions(model: str, unplaced: bool) -> None:
    sites = [site for site in lf.sites(make_model(entry_of(model))) if site.kind == "self_attention"]
    assert {site.unplaced for site in sites} == {unplaced}


@pytest.mark.parametrize(
    ("name", "usual"), [("minimal_attention", "relative"), *((name, "sinusoidal") for name in ADDING)]
)
def test_positions_are_the_default_where_nothing_else_tells_them(name: str, usual: str) -> None:
    for model, expected in ((T5, usual), ("BertForSequenceClassification", None)):
        plan = lf.reduce(make_model(entry_of(model)), {"*.self_attention": name}).config.plan
        assert {entry.get("positions") for entry in plan.values()} == {expected}
    switched_off = {"*.self_attention": {"block": name, "positions": "none"}}
    plan = lf.reduce(make_model(entry_of(T5)), switched_off).config.plan
    assert {entry.get("positions") for entry in plan.values()} <= {None, "none"}
    made = make_model(entry_of("BertForSequenceClassification"))
    asked = lf.reduce(made, {"*.self_attention": {"block": name, "positions": usual}}).config.plan
    assert {entry["positions"] for entry in asked.values()} == {usual}


@pytest.mark.parametrize("model", [T5, "LlamaForCausalLM", "MistralForCausalLM", "BertForSequenceClassification"])
@pytest.mark.parametrize("positions", [{}, {"positions": "none"}])
def test_a_resolved_plan_stays_what_it_is(model: str, positions: dict[str, str]) -> None:
    made = make_model(entry_of(model))
    for name in ("minimal_attention", *ADDING):
        resolved = resolve(made, {"*.self_attention": {"block": name, **positions}})
        assert resolve(made, cast(Plan, resolved)) == resolved
        assert lf.reduce(made, cast(Plan, resolved)).config.plan == resolved


@pytest.mark.parametrize("name", ["minimal_attention", *ADDING])
@torch.no_grad()
def test_the_order_of_tokens_is_told(name: str) -> None:
    """Without positions an encoder of such blocks gives each token the same, wherever it stands."""
    made = make_model(entry_of(T5))
    ids = make_inputs(made, "text_to_text", batch=1, length=9)["input_ids"]
    order = torch.tensor([4, 2, 8, 0, 1, 6, 3, 7, 5])
    for positions, same in ((None, False), ("none", name != "synthesizer")):
        block = {"block": name} if positions is None else {"block": name, "positions": positions}
        encoder = student_of(made, {"encoder.*.self_attention": block}).get_encoder()
        states, moved = (encoder(input_ids=given).last_hidden_state for given in (ids, ids[:, order]))
        assert torch.allclose(states[:, order], moved, atol=1e-4) == same


@pytest.mark.parametrize("name", ["minimal_attention", *ADDING, "average", "mixer", "ssru", "feed_forward"])
def test_decoding_equals_all_at_once(name: str) -> None:
    made = make_model(entry_of(T5))
    sites = "decoder.*.self_attention" if name == "ssru" else "*.self_attention"
    student = student_of(made, {sites: name})
    prompt = {key: value for key, value in make_inputs(made, "text_to_text").items() if not key.startswith("decoder")}
    cached, uncached = (
        student.generate(
            **prompt,
            num_beams=2,
            min_new_tokens=7,
            max_new_tokens=7,
            use_cache=use_cache,
            output_logits=True,
            return_dict_in_generate=True,
        )
        for use_cache in (True, False)
    )
    assert torch.equal(cached.sequences, uncached.sequences)
    for ours, all_at_once in zip(cached.logits, uncached.logits, strict=True):
        torch.testing.assert_close(ours, all_at_once, rtol=0, atol=1e-3)


@pytest.mark.parametrize("causal", [True, False])
@torch.no_grad()
def test_a_relative_bias_is_that_of_t5(causal: bool) -> None:
    bias = RelativeBias(2, causal)
    bias.weight.normal_()
    apart = distances(300, 300, 0, torch.device("cpu"))
    buckets = T5Attention._relative_position_bucket(apart, bidirectional=not causal)
    seen = apart <= 0 if causal else torch.ones_like(apart, dtype=torch.bool)
    torch.testing.assert_close(bias(apart)[:, seen], bias.weight[:, buckets[seen]])


@torch.no_grad()
def test_a_relative_bias_is_added_to_scores() -> None:
    made = make_model(entry_of(T5))
    block: Any = module_at(student_of(made, {"*.self_attention": "minimal_attention"}), "encoder.0.self_attention")
    x, mask = torch.randn(2, 60, 32), torch.ones(2, 60, dtype=torch.bool)
    mask[1, 40:] = False
    weights = block.attention_weights(BlockInputs(x, mask))
    by_head = x.unflatten(-1, (block.heads, -1)).transpose(1, 2)
    mixed = (weights @ by_head).transpose(1, 2).flatten(2)
    torch.testing.assert_close(block(BlockInputs(x, mask))[mask], mixed[mask], rtol=1e-4, atol=1e-4)
    few = block(BlockInputs(x[:, :9], mask[:, :9]))  # by plain products
    weights = block.attention_weights(BlockInputs(x[:, :9]))
    torch.testing.assert_close(few, (weights @ by_head[:, :, :9]).transpose(1, 2).flatten(2), rtol=1e-4, atol=1e-4)
    block.bias.weight.zero_()
    assert not torch.allclose(block.attention_weights(BlockInputs(x[:, :9])), weights, atol=1e-3)


@torch.no_grad()
def test_padding_before_a_text_moves_no_position() -> None:
    positions = SinusoidalPositions(7)
    x = torch.randn(1, 5, 7)
    expected = positions(BlockInputs(x)).hidden_states
    mask = torch.tensor([[False, False, True, True, True, True, True]])
    padded = positions(BlockInputs(torch.cat([torch.randn(1, 2, 7), x], dim=1), mask)).hidden_states
    torch.testing.assert_close(padded[:, 2:], expected)
    state = DecodingState()
    state.length = 6
    last = positions(BlockInputs(x[:, 4:], mask, state=state)).hidden_states
    torch.testing.assert_close(last, expected[:, 4:])
    state.length = 4
    torch.testing.assert_close(positions(BlockInputs(x[:, 4:], state=state)).hidden_states, expected[:, 4:])


def test_a_model_is_looked_at_once_to_resolve_a_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_model(entry_of("OPTForCausalLM"))
    plan: Plan = {
        "*.self_attention": {"block": "slots", "heads": [1, 2]},
        "*.mlp": {"block": "mlp", "hidden": 3, "init": "teacher"},
    }
    expected = resolve(lf.reduce(made, {}), plan)
    looks: list[PreTrainedModel] = []

    def counted(model: PreTrainedModel) -> dict[str, FoundStack]:
        looks.append(model)
        return find(model)

    monkeypatch.setattr("leanformer.model.families.found.find", counted)
    assert resolve(made, plan) == expected
    assert len(looks) == 1


def test_feed_forward_replaces_the_projection_of_an_attention_of_another_kind() -> None:
    made = make_model(entry_of(T5))
    plan = lf.reduce(made, {"*.self_attention": "feed_forward"}).config.plan
    assert {(entry["output"], entry["bias"]) for entry in plan.values()} == {("replaced", None)}
    bert = lf.reduce(make_model(entry_of("BertForSequenceClassification")), {"*.self_attention": "feed_forward"})
    assert {entry["output"] for entry in bert.config.plan.values()} == {"kept"}


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (
            {"*.self_attention": {"block": "feed_forward", "output": "kept"}},
            "'output: kept' keeps the output projection of an attention, but the one there is of another kind: .*; "
            "take 'output: replaced'",
        ),
        (
            {"*.cross_attention": {"block": "minimal_attention", "positions": "relative"}},
            "positions 'relative' are those of tokens that read their own text, and here they read the source",
        ),
        (
            {"*.cross_attention": {"block": "slots", "positions": "sinusoidal"}},
            "positions 'sinusoidal' are added to a text's own tokens, and what is read there is the source",
        ),
    ],
)
def test_what_does_not_fit_is_said(plan: dict[str, Any], message: str) -> None:
    with pytest.raises(lf.LeanformerError, match=message) as raised:
        lf.reduce(make_model(entry_of(T5)), plan)
    assert "\n" not in str(raised.value)

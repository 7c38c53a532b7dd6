"""What blocks take over from attentions and MLPs that were found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures.tiny import ARCHITECTURES, Architecture, make_inputs, make_model
from transformers import PreTrainedModel, StaticCache

import leanformer as lf
from leanformer.blocks.kit.base import AttentionWeights
from leanformer.blocks.kit.rotary import rotated, tables
from leanformer.model.family import find_family
from leanformer.model.surgery import module_at, resolve

PLAIN = [
    "BertForSequenceClassification",
    "OPTForCausalLM",
    "Dinov2ForImageClassification",
    "MBartForConditionalGeneration",
]
SAME = {"block": "minimal_attention", "qk": "separate", "vo": "separate", "init": "teacher"}


def entry(model: str) -> Architecture:
    return next(found for found in ARCHITECTURES if found.model == model)


def outputs(model: PreTrainedModel, inputs: dict[str, Any]) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(**inputs).logits
    return logits


@pytest.fixture
def make() -> Callable[[str], tuple[PreTrainedModel, dict[str, Any]]]:
    def made(name: str) -> tuple[PreTrainedModel, dict[str, Any]]:
        model = make_model(entry(name))
        return model, make_inputs(model, entry(name).kind)

    return made


@pytest.mark.parametrize("name", PLAIN)
def test_a_block_with_all_matrices_of_the_teacher_is_the_teacher(name: str, make: Any) -> None:
    model, inputs = make(name)
    student = lf.reduce(model, {"*_attention": SAME})
    before, after = outputs(model, inputs), outputs(student, inputs)
    if "input_ids" in inputs and before.shape[:2] == inputs["input_ids"].shape:  # padding may give anything
        before, after = (logits[inputs["attention_mask"] != 0] for logits in (before, after))
    torch.testing.assert_close(after, before, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", PLAIN)
def test_heads_that_add_nothing_may_go(name: str, make: Any) -> None:
    model, inputs = make(name)
    family = find_family(model)
    opened = lf.reduce(model, {})
    names = [site.name for site in lf.sites(opened) if site.kind.endswith("attention")]
    for site in names:
        projection: Any = family.output_projection(module_at(opened, site))
        width = projection.in_features // 4
        projection.weight.data[:, width : 2 * width] = 0
    student = lf.reduce(opened, {site: {"block": "attention", "keep_heads": [0, 2, 3]} for site in names})
    torch.testing.assert_close(outputs(student, inputs), outputs(opened, inputs), rtol=0, atol=1e-5)
    assert all(
        after.parameters < before.parameters
        for before, after in zip(lf.sites(opened), lf.sites(student), strict=True)
        if before.name in names
    )


@pytest.mark.parametrize("name", ["BertForSequenceClassification", "OPTForCausalLM"])
def test_an_mlp_of_all_neurons_is_the_teachers(name: str, make: Any) -> None:
    model, inputs = make(name)
    student = lf.reduce(model, {"*.mlp": {"block": "mlp", "hidden": 64, "init": "teacher"}})
    torch.testing.assert_close(outputs(student, inputs), outputs(model, inputs), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "plan", "message"),
    [
        ("LlamaForCausalLM", {"*.self_attention": SAME}, "init 'teacher' takes over a Hugging Face attention"),
        ("LlamaForCausalLM", {"*.mlp": {"block": "mlp", "hidden": 8, "init": "teacher"}}, "is of another kind"),
        (
            "LlamaForCausalLM",
            {"*.self_attention": {"block": "attention", "keep_heads": 2}},
            "the one there is of another",
        ),
        (
            "BertForSequenceClassification",
            {"*.self_attention": {"block": "minimal_attention", "positions": "rotary"}},
            "positions 'rotary' rotates by the model's own angles, and there are none there",
        ),
    ],
)
def test_what_cannot_be_taken_over_is_said(name: str, plan: Any, message: str, make: Any) -> None:
    model, _ = make(name)
    with pytest.raises(lf.LeanformerError, match=message) as raised:
        lf.reduce(model, plan)
    assert "\n" not in str(raised.value)


def test_only_a_plain_attention_has_weights_in_the_common_layout(make: Any) -> None:
    for name, plain in (("OPTForCausalLM", True), ("LlamaForCausalLM", False), ("T5ForConditionalGeneration", False)):
        opened = lf.reduce(make(name)[0], {})
        first = next(site.name for site in lf.sites(opened) if site.kind == "self_attention")
        weights = find_family(opened).attention_weights(module_at(opened, first))
        assert isinstance(weights, AttentionWeights) == plain, name


def angles(tokens: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """As transformers makes them: each of the frequencies twice."""
    frequencies = 10_000.0 ** (-torch.arange(0, width, 2) / width)
    angle = torch.arange(tokens)[:, None] * frequencies
    return torch.cat((angle, angle), -1).cos()[None], torch.cat((angle, angle), -1).sin()[None]


@pytest.mark.parametrize("width", [4, 8, 16])
def test_products_of_rotated_tokens_depend_on_their_distance(width: int) -> None:
    torch.manual_seed(0)
    query, key = torch.randn(1, 1, 16).expand(1, 9, 16), torch.randn(1, 1, 16).expand(1, 9, 16)
    turned = [rotated(states, 2, angles(9, width)).unflatten(-1, (2, 8)).transpose(1, 2) for states in (query, key)]
    scores = turned[0] @ turned[1].mT  # (1, heads, tokens, tokens)
    for distance in range(-8, 9):
        along = scores.diagonal(distance, -2, -1)
        torch.testing.assert_close(along, along[..., :1].expand_as(along))
    assert scores.std() > 0.1


def test_a_minimal_attention_of_llama_knows_the_order_of_tokens(make: Any) -> None:
    """Llama tells positions in no other way: in one layer, what a last token gives would not depend on the order."""
    model, _ = make("LlamaForCausalLM")
    one_layer = lf.reduce(model, {"decoder.[12].layer": "none"})
    ids = torch.tensor([[5, 6, 7, 8], [7, 5, 6, 8]])
    for positions, differ in (("none", False), (None, True)):
        block = {"block": "minimal_attention", "positions": positions}
        given = {key: value for key, value in block.items() if value is not None}
        first, second = outputs(lf.reduce(one_layer, {"decoder.0.self_attention": given}), {"input_ids": ids})[:, -1]
        assert torch.allclose(first, second, atol=1e-5) != differ


def test_a_student_in_half_precision_tells_positions_as_its_model(make: Any, tmp_path: Path) -> None:
    """Frequencies are held in float32 whatever the weights are, and are loaded so."""
    made, inputs = make("LlamaForCausalLM")
    made.to(torch.bfloat16).save_pretrained(tmp_path / "model")
    model = lf.load(tmp_path / "model")
    assert model.dtype == torch.bfloat16
    assert torch.equal(outputs(lf.reduce(model, {}), inputs), outputs(model, inputs))
    student = lf.reduce(model, {"decoder.0.self_attention": "minimal_attention"})
    lf.save(student, tmp_path / "student")
    assert {parameter.dtype for parameter in student.parameters()} == {torch.bfloat16}
    assert torch.equal(outputs(lf.load(tmp_path / "student"), inputs), outputs(student, inputs))


@pytest.mark.parametrize("plan", [{"decoder.1.self_attention": "slots"}, {"decoder.0.layer": "none"}])
def test_a_cache_of_fixed_size_is_refused(plan: Any, make: Any) -> None:
    student = lf.reduce(make("LlamaForCausalLM")[0], plan)
    with pytest.raises(lf.LeanformerError, match="a cache that grows, not with one of fixed size"):
        student(input_ids=torch.tensor([[5, 6, 7]]), past_key_values=StaticCache(student.config, 9))


def test_a_block_for_a_whole_layer_is_refused_before_anything_is_made(make: Any) -> None:
    with pytest.raises(lf.LeanformerError, match="no block can stand for the whole of it"):
        resolve(make("BertForSequenceClassification")[0], {"encoder.0.layer": "feed_forward"})


def test_angles_are_read_in_every_form_that_models_hand_on() -> None:
    cosine, sine = angles(5, 8)
    expected = (cosine, sine)
    for form in ((cosine, sine), [cosine[0], sine[0]], torch.complex(cosine, sine)[..., :4]):
        found = tables(form, 5)
        assert found is not None
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    prefixed = tables((cosine, sine), 7)  # two tokens stand before the first row, and are not rotated
    assert prefixed is not None
    states = torch.randn(1, 7, 8)
    turned = rotated(states, 1, prefixed)
    assert torch.equal(turned[:, :2], states[:, :2])
    assert torch.equal(turned[:, 2:], rotated(states[:, 2:], 1, expected))
    assert tables((cosine, sine), 4) is None
    assert tables(torch.zeros(1, 5, 8), 5) is None

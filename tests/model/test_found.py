"""Students of any architecture: attentions are found, and blocks stand in for them, in every architecture of a list."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures.tiny import ARCHITECTURES, Architecture, make_inputs, make_model, make_prompt
from cases import some
from transformers import PreTrainedModel

import leanformer as lf
from leanformer.blocks.kit.site import Site
from leanformer.model.finding import facts

QUICK = {
    "AlbertForSequenceClassification",  # norm and residual in the attention
    "BertForSequenceClassification",  # the output projection beside the attention, two maps in the layer
    "BloomForCausalLM",  # attentions add the residual
    "Dinov2ForImageClassification",
    "LlamaForCausalLM",
    "MixtralForCausalLM",
    "T5ForConditionalGeneration",  # a table of positions that layers share
}
REDUCIBLE = [entry for entry in ARCHITECTURES if not (entry.without_attention or entry.model_type in facts.NOT_FOUND)]
EXACT = 1e-5


def cases(entries: Iterable[Architecture]) -> list[Any]:
    entries = list(entries)
    return some(entries, *(entry for entry in entries if entry.model in QUICK))


def name(entry: Architecture) -> str:
    return f"{entry.kind}-{entry.model}"


def output_of(model: PreTrainedModel, inputs: dict[str, Any]) -> torch.Tensor:
    """The logits, or the first tensor of numbers that a model without a head returns."""
    with torch.no_grad():
        outputs = model(**inputs)
    tensors = [value for value in outputs.to_tuple() if isinstance(value, torch.Tensor) and value.is_floating_point()]
    logits = outputs.get("logits")
    return logits if isinstance(logits, torch.Tensor) else next(tensor for tensor in tensors if tensor.dim())


def storages(model: PreTrainedModel) -> set[int]:
    return {tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers()) if tensor.numel()}


def attentions(model: PreTrainedModel) -> list[Site]:
    return [site for site in lf.sites(model) if site.kind in ("self_attention", "cross_attention")]


def reduced(model: PreTrainedModel, sites: Iterable[Site]) -> PreTrainedModel:
    torch.manual_seed(1)
    return lf.reduce(model, {site.name: "minimal_attention" for site in sites})


def first_layers(model: PreTrainedModel) -> list[Site]:
    return [site for site in attentions(model) if site.name.split(".")[1] == "0"]


def test_the_page_says_how_many_architectures_are_reduced_and_why_others_are_not() -> None:
    page = (Path(__file__).parents[2] / "docs" / "architectures.md").read_text(encoding="utf-8")
    passing = len({entry.model_type for entry in REDUCIBLE})
    assert passing >= 100
    assert f"A list of {len(ARCHITECTURES)} tiny models" in page
    assert f"of its architectures, {passing} pass" in page
    for model_type, reason in facts.NOT_FOUND.items():
        assert f"| `{model_type}` | {reason} |" in page


@pytest.mark.parametrize("entry", cases(REDUCIBLE), ids=name)
def test_opening_changes_no_output(entry: Architecture) -> None:
    model = make_model(entry)
    inputs = make_inputs(model, entry.kind)
    opened, before = output_of(lf.reduce(model, {}), inputs), output_of(model, inputs)
    if "image" in entry.kind:  # the patches of some become a matrix product; convolutions depend on where weights lie
        torch.testing.assert_close(opened, before, rtol=0, atol=EXACT)
    else:
        assert torch.equal(opened, before)


@pytest.mark.parametrize("entry", cases(REDUCIBLE), ids=name)
def test_a_student_is_saved_and_loaded_bit_for_bit(entry: Architecture, tmp_path: Path) -> None:
    model = make_model(entry)
    inputs = make_inputs(model, entry.kind)
    student = reduced(model, attentions(model))
    there = output_of(student, inputs)
    assert there.isfinite().all()
    assert not torch.allclose(there, output_of(model, inputs))
    assert not storages(student) & storages(model)
    lf.save(student, tmp_path)
    loaded = lf.load(tmp_path)
    weights = loaded.state_dict()
    assert weights.keys() == student.state_dict().keys()
    assert all(torch.equal(weights[key], tensor) for key, tensor in student.state_dict().items())
    # A product of experts may depend on where in memory its weights lie.
    torch.testing.assert_close(output_of(loaded, inputs), there, rtol=0, atol=1e-6)


@pytest.mark.parametrize("entry", cases(entry for entry in REDUCIBLE if entry.kind.startswith("text")), ids=name)
def test_a_student_reads_no_padding(entry: Architecture) -> None:
    model = make_model(entry)
    inputs = make_inputs(model, entry.kind)
    others = {**inputs, "input_ids": inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, 50)}
    student = reduced(model, attentions(model))

    def at_real_tokens(one: PreTrainedModel, given: dict[str, Any]) -> torch.Tensor:
        output = output_of(one, given)
        per_token = entry.kind != "text_to_text" and output.shape[:2] == inputs["input_ids"].shape
        return output[inputs["attention_mask"] != 0] if per_token else output

    if entry.reads_padding is not None:  # the architecture does so beside its attention
        assert not torch.allclose(at_real_tokens(model, others), at_real_tokens(model, inputs), atol=EXACT)
        return
    torch.testing.assert_close(at_real_tokens(student, others), at_real_tokens(student, inputs), rtol=0, atol=EXACT)


@pytest.mark.parametrize("entry", cases(entry for entry in REDUCIBLE if entry.generates), ids=name)
def test_a_student_reads_no_later_token(entry: Architecture) -> None:
    model = make_model(entry)
    inputs = make_inputs(model, entry.kind)
    key = "decoder_input_ids" if "decoder_input_ids" in inputs else "input_ids"
    changed = inputs[key].clone()
    changed[:, -1] = (changed[:, -1] + 7) % 90 + 3
    student = reduced(model, attentions(model))
    before, after = (output_of(student, given)[:, :-1] for given in (inputs, {**inputs, key: changed}))
    if entry.reads_ahead is not None:
        assert not torch.allclose(after, before, atol=EXACT)
        return
    torch.testing.assert_close(after, before, rtol=0, atol=EXACT)


@pytest.mark.parametrize("which", ["all", "first", "emptied", "layer"])
@pytest.mark.parametrize("entry", cases(entry for entry in REDUCIBLE if entry.generates), ids=name)
def test_a_student_writes_the_same_with_and_without_a_cache(entry: Architecture, which: str) -> None:
    """Positions are counted where layer 0, or every layer, has no attention left."""
    model = make_model(entry)
    layers = [site for site in lf.sites(model) if site.kind == "layer" and site.name.split(".")[1] == "0"]
    if which == "layer" and not layers:
        pytest.skip("no layer of it can be taken out")
    if which in ("all", "first"):
        student = reduced(model, attentions(model) if which == "all" else first_layers(model))
    else:
        emptied = layers if which == "layer" else attentions(model)
        student = lf.reduce(model, {site.name: "none" for site in emptied})
    prompt = make_prompt(model, entry.kind)
    cached, uncached = (
        student.generate(**prompt, do_sample=False, min_new_tokens=6, max_new_tokens=6, use_cache=use_cache)
        for use_cache in (True, False)
    )
    assert torch.equal(cached, uncached) or entry.uncached is not None


@pytest.mark.parametrize("entry", cases(REDUCIBLE), ids=name)
def test_hidden_states_and_the_attentions_that_stay_are_recorded(entry: Architecture) -> None:
    model = make_model(entry)
    inputs = make_inputs(model, entry.kind)
    replaced = first_layers(model)
    with torch.no_grad():
        before, after = (
            one(**inputs, output_hidden_states=True, output_attentions=True)
            for one in (model, reduced(model, replaced))
        )
    for key in ("hidden_states", "encoder_hidden_states", "decoder_hidden_states"):
        assert len(after.get(key) or ()) == len(before.get(key) or ()), key
    if entry.unrecorded is None:
        recorded = ("attentions", "encoder_attentions", "decoder_attentions", "cross_attentions")
        count = [
            sum(isinstance(maps, torch.Tensor) for key in recorded for maps in one.get(key) or ())
            for one in (before, after)
        ]
        # Models of several parts, or several stages, may record those of one alone.
        assert count[1] == count[0] - len(replaced) if count[0] == len(attentions(model)) else count[1] <= count[0]


@pytest.mark.parametrize("entry", cases(REDUCIBLE), ids=name)
def test_any_site_can_be_emptied(entry: Architecture) -> None:
    model = make_model(entry)
    inputs = make_inputs(model, entry.kind)
    for kind in {site.kind for site in lf.sites(model)} & {"self_attention", "mlp", "layer"}:
        student = lf.reduce(model, {f"*.{kind}": "none"})
        assert output_of(student, inputs).isfinite().all(), kind
        assert all(site.parameters == 0 for site in lf.sites(student) if site.kind == kind)


@pytest.mark.parametrize("entry", [entry for entry in ARCHITECTURES if entry not in REDUCIBLE], ids=name)
def test_what_cannot_be_reduced_says_why(entry: Architecture) -> None:
    reason = facts.NOT_FOUND.get(entry.model_type, "no attention was found in it")
    with pytest.raises(lf.LeanformerError, match=reason):
        lf.sites(make_model(entry))

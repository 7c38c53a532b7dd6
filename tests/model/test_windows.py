"""Windows of attentions: they are found in a model's configuration, and blocks keep to them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures.tiny import ARCHITECTURES, Architecture, make_inputs, make_model, make_prompt
from cases import some
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

import leanformer as lf
from leanformer.model.finding import facts
from leanformer.model.finding.finder import find
from leanformer.model.surgery import module_at

MASKED_OTHERWISE = ("canine", "gpt_neo", "longt5", "mpt")
"""Model types whose attentions get no mask that shows what they read: in chunks, made by themselves, or inverted."""
TEXTS = [
    entry
    for entry in ARCHITECTURES
    if entry.kind in ("text", "text_to_continue", "text_to_text")
    and not entry.without_attention
    and entry.model_type not in (*facts.NOT_FOUND, *MASKED_OTHERWISE)
]
LENGTH = 20
BLOCKS: dict[str, dict[str, Any]] = {
    "minimal": {"block": "minimal_attention"},
    "minimal, relative": {"block": "minimal_attention", "positions": "relative", "heads": 1},
    "mixer": {"block": "mixer"},
    "synthesizer": {"block": "synthesizer"},
}
WINDOWED = {"MistralForCausalLM": 0, "Gemma3ForCausalLM": 0, "ModernBertForSequenceClassification": 1}
"""Model -> the first of its layers that has a window."""


def entry_of(model: str) -> Architecture:
    return next(entry for entry in ARCHITECTURES if entry.model == model)


def windows(model: PreTrainedModel) -> dict[str, int | None]:
    return {site.name: site.max_distance for site in lf.sites(model) if site.kind == "self_attention"}


def student_of(model: PreTrainedModel, plan: dict[str, Any]) -> PreTrainedModel:
    """A student whose new weights are far from their initial values."""
    student = lf.reduce(model, plan)
    generator = torch.Generator().manual_seed(1)
    for name in student.config.plan:
        block = module_at(student, name)
        for parameter in () if block is None else block.parameters():
            parameter.data.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return student.eval()


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("MistralForCausalLM", [5, 5, 5]),
        ("Gemma3ForCausalLM", [5, 5, None]),
        ("Gemma2ForCausalLM", [5, None, 5]),
        ("ModernBertForSequenceClassification", [None, 3, 3]),
        ("Exaone4ForCausalLM", [5, 5, None]),
        ("MiniMaxForCausalLM", [5, 5, 5]),
        ("Llama4ForCausalLM", [5, 5, None]),
        ("GPTNeoForCausalLM", [None, 5, None]),
        ("LongT5ForConditionalGeneration", [3, 3, 3, None, None]),
        ("T5GemmaForConditionalGeneration", [6, None, 6, 5, None]),
        ("LlamaForCausalLM", [None, None, None]),
    ],
)
def test_windows_are_found(model: str, expected: list[int | None]) -> None:
    made = make_model(entry_of(model))
    assert list(windows(made).values()) == expected
    assert windows(lf.reduce(made, {"*.self_attention": "none"})) == windows(made)


def test_a_window_may_be_switched_on_from_a_layer_on() -> None:
    settings = Qwen2Config(
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=16,
        vocab_size=9,
        use_sliding_window=True,
        sliding_window=4,
        max_window_layers=1,
    )
    assert list(windows(Qwen2ForCausalLM(settings)).values()) == [None, 3, 3]


@pytest.mark.parametrize(
    "entry", some(TEXTS, entry_of("MistralForCausalLM"), entry_of("Gemma3ForCausalLM")), ids=lambda entry: entry.model
)
def test_a_window_is_that_of_the_mask_that_an_attention_gets(entry: Architecture) -> None:
    model = make_model(entry)
    seen: dict[str, int] = {}

    def watch(name: str, form: Any) -> Callable[..., None]:
        def hook(_: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            given = form.bind(arguments, named)
            mask = next((given[key] for key in facts.MASKS if isinstance(given.get(key), torch.Tensor)), None)
            if mask is not None and mask.dim() == 4 and mask.shape[-2] == mask.shape[-1]:
                rows, columns = torch.where(mask[0, 0] > -1.0 if mask.is_floating_point() else mask[0, 0] != 0)
                seen[name] = int((rows - columns).max())

        return hook

    for stack_name, stack in find(model).items():
        for number, layer in enumerate(stack.layers):
            if (place := layer.places.get("self_attention")) is not None:
                name = f"{stack_name}.{number}.self_attention"
                hook = watch(name, place.form)
                model.get_submodule(place.path).register_forward_pre_hook(hook, with_kwargs=True)
    inputs = make_inputs(model, entry.kind, length=LENGTH)
    with torch.no_grad():
        model(**inputs)
    found = windows(model)
    for name, farthest in seen.items():
        # A decoder beside an encoder reads two tokens fewer.
        assert farthest in ((LENGTH - 1, LENGTH - 3) if found[name] is None else (found[name],)), name


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("model", WINDOWED)
@torch.no_grad()
def test_nothing_outside_the_window_is_read(model: str, block: str) -> None:
    entry = entry_of(model)
    made = make_model(entry)
    site = f"{'decoder' if entry.generates else 'encoder'}.{WINDOWED[model]}.self_attention"
    student = student_of(made, {"*.self_attention": "none", site: BLOCKS[block]})
    window = windows(student)[site]
    assert window == {"decoder": 5, "encoder": 3}[site.split(".")[0]]
    outputs: list[torch.Tensor] = []
    there = module_at(student, site)
    assert there is not None
    there.register_forward_hook(lambda *call: outputs.append(call[-1]))
    ids = make_inputs(made, entry.kind, batch=1, length=LENGTH)["input_ids"]
    changed = ids.clone()
    changed[:, 9] = 3 + (ids[:, 9] + 5) % 90
    for given in (ids, changed):
        student(input_ids=given, attention_mask=torch.ones_like(given))
    differs = [bool((row > 1e-6).any()) for row in (outputs[0] - outputs[1]).abs()[0]]
    first = 9 if entry.generates else 9 - window
    assert [row for row, differs_there in enumerate(differs) if differs_there] == list(range(first, 9 + window + 1))


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("model", [name for name in WINDOWED if entry_of(name).generates])
@pytest.mark.parametrize("where", ["*", "decoder.1"])
def test_decoding_past_the_window_equals_all_at_once(model: str, block: str, where: str) -> None:
    """With padding before a prompt that is longer than the window, by a block alone and beside own attentions."""
    entry = entry_of(model)
    made = make_model(entry)
    student = student_of(made, {f"{where}.self_attention": BLOCKS[block]})
    prompt = make_prompt(made, entry.kind, length=9)
    cached, uncached = (
        student.generate(
            **prompt,
            do_sample=False,
            min_new_tokens=9,
            max_new_tokens=9,
            use_cache=use_cache,
            output_logits=True,
            return_dict_in_generate=True,
        )
        for use_cache in (True, False)
    )
    assert torch.equal(cached.sequences, uncached.sequences)
    for ours, all_at_once in zip(cached.logits, uncached.logits, strict=True):
        torch.testing.assert_close(ours, all_at_once, rtol=0, atol=1e-4)
    if block.startswith("minimal"):
        kept = cached.past_key_values.layers[1].tensors
        assert {tensor.shape[1] for tensor in kept.values()} == {windows(student)["decoder.1.self_attention"]}


@torch.no_grad()
def test_tokens_that_are_nowhere_near_a_real_one_give_finite_numbers() -> None:
    entry = entry_of("ModernBertForSequenceClassification")
    made = make_model(entry)
    student = student_of(made, {"*.self_attention": BLOCKS["minimal, relative"]})
    ids = make_inputs(made, entry.kind, batch=2, length=60)["input_ids"]  # from 48 tokens on by the fused kernel
    mask = torch.ones_like(ids)
    mask[:, 30:] = 0
    assert student.model(input_ids=ids, attention_mask=mask).last_hidden_state.isfinite().all()


@torch.no_grad()
def test_a_student_made_before_blocks_knew_of_windows_reads_what_it_read(tmp_path: Path) -> None:
    entry = entry_of("MistralForCausalLM")
    made = make_model(entry)
    student = student_of(made, {"*.self_attention": "minimal_attention"})
    lf.save(student, tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    for arguments in settings["plan"].values():
        assert arguments.pop("max_distance") == 5
    (tmp_path / "config.json").write_text(json.dumps(settings))
    inputs = make_inputs(made, entry.kind, length=LENGTH)
    old, new = (lf.load(path)(**inputs).logits for path in (tmp_path, _saved(student, tmp_path / "new")))
    torch.testing.assert_close(old[:1, :6], new[:1, :6])
    assert not torch.allclose(old[:1, 6:], new[:1, 6:], atol=1e-3)


def _saved(student: PreTrainedModel, directory: Path) -> Path:
    lf.save(student, directory)
    return directory


def test_a_plan_may_ask_for_less_than_the_window_and_gets_no_more() -> None:
    made = make_model(entry_of("Gemma3ForCausalLM"))
    for name in ("minimal_attention", "mixer", "synthesizer"):
        for asked, given in ((2, [2, 2, 2]), (40, [5, 5, 40])):
            plan = lf.reduce(made, {"*.self_attention": {"block": name, "max_distance": asked}}).config.plan
            assert [entry["max_distance"] for entry in plan.values()] == given, name


@pytest.mark.parametrize(
    ("model", "plan", "message"),
    [
        (
            "ModernBertForSequenceClassification",
            {"*.1.self_attention": {"block": "mixer", "positions": "absolute", "max_length": 9}},
            "a mixer of absolute positions reads all its 9 tokens, and the attention there has a window: it reads "
            "tokens up to 3 away; take 'positions: relative' there",
        ),
        (
            "T5ForConditionalGeneration",
            {"*.cross_attention": {"block": "minimal_attention", "max_distance": 3}},
            "'max_distance' is for tokens that read their own text, and here they read the source; leave it out",
        ),
    ],
)
def test_what_does_not_fit_a_window_is_said(model: str, plan: dict[str, Any], message: str) -> None:
    with pytest.raises(lf.LeanformerError, match=message) as raised:
        lf.reduce(make_model(entry_of(model)), plan)
    assert "\n" not in str(raised.value)

"""Facts about transformers that hold for every architecture of the catalogue, and those that the catalogue excepts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import torch
import transformers
from architectures.inputs import KINDS
from architectures.tiny import ARCHITECTURES, Architecture, make_inputs, make_model, make_prompt
from cases import some

QUICK = {
    "BertForSequenceClassification",
    "CLIPVisionModel",
    "GPT2LMHeadModel",
    "LlamaForCausalLM",
    "MambaForCausalLM",
    "MarianMTModel",
    "T5ForConditionalGeneration",
    "Wav2Vec2ForCTC",
}


def cases(architectures: Iterable[Architecture]) -> list[Any]:
    architectures = list(architectures)
    return some(architectures, *(entry for entry in architectures if entry.model in QUICK))


def name(architecture: Architecture) -> str:
    return f"{architecture.kind}-{architecture.model}"


def tensors(output: Any) -> Iterator[torch.Tensor]:
    if isinstance(output, torch.Tensor):
        yield output
    elif isinstance(output, dict):
        yield from tensors(tuple(output.values()))
    elif isinstance(output, tuple):
        for part in output:
            yield from tensors(part)


def test_every_entry_says_its_model_type_and_stands_once() -> None:
    for entry in ARCHITECTURES:
        assert getattr(transformers, entry.model).config_class.model_type == entry.model_type
    assert max(Counter(map(name, ARCHITECTURES)).values()) == 1


def test_every_kind_of_input_has_an_architecture() -> None:
    assert {entry.kind for entry in ARCHITECTURES} == set(KINDS)


def test_same_seed_same_model_and_inputs() -> None:
    entry = next(entry for entry in ARCHITECTURES if entry.model == "BertForSequenceClassification")
    first, second, other = (make_model(entry, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not any(torch.equal(first[key], other[key]) for key in first if first[key].is_floating_point())
    model = make_model(entry)
    inputs, same = make_inputs(model, "text", batch=3, length=9), make_inputs(model, "text", batch=3, length=9)
    assert all(torch.equal(inputs[key], same[key]) for key in inputs)
    assert inputs["attention_mask"].sum(1).tolist() == [9, 9, 6]


@pytest.mark.parametrize("entry", cases(ARCHITECTURES), ids=name)
def test_it_can_be_called_and_returns_its_attention_maps(entry: Architecture) -> None:
    model = make_model(entry)
    with torch.no_grad():
        outputs = model(**make_inputs(model, entry.kind), output_attentions=True)
    assert all(tensor.isfinite().all() for tensor in tensors(outputs))

    maps = {key: len(value) for key, value in outputs.items() if key in EXPECTED and value}
    expected = dict(zip(EXPECTED[1:], (3, 2, 2))) if model.config.is_encoder_decoder else {"attentions": entry.attentions}
    assert maps == ({} if entry.without_attention or entry.unrecorded else expected)


EXPECTED = ("attentions", "encoder_attentions", "decoder_attentions", "cross_attentions")


def generating() -> Iterator[Any]:
    for case in cases(entry for entry in ARCHITECTURES if entry.generates):
        yield case


@pytest.mark.parametrize("entry", list(generating()), ids=name)
def test_it_writes_the_same_with_and_without_a_cache(entry: Architecture) -> None:
    model = make_model(entry)
    prompt = make_prompt(model, entry.kind)
    cached, uncached = (
        model.generate(**prompt, do_sample=False, min_new_tokens=6, max_new_tokens=6, use_cache=use_cache)
        for use_cache in (True, False)
    )
    assert torch.equal(cached, uncached) != bool(entry.uncached)

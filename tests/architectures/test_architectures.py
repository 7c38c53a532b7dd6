"""Facts about transformers that hold for every architecture of the catalogue, but those that it excepts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from cases import some

from architectures.inputs import KINDS
from architectures.tiny import ARCHITECTURES, Architecture, make_inputs, make_model, make_prompt

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


@pytest.mark.long  # it imports every architecture
def test_every_entry_names_the_model_type_of_its_model() -> None:
    for entry in ARCHITECTURES:
        assert getattr(transformers, entry.model).config_class.model_type == entry.model_type


def test_no_entry_stands_twice_and_every_kind_of_input_is_used() -> None:
    assert max(Counter(map(name, ARCHITECTURES)).values()) == 1
    assert {entry.kind for entry in ARCHITECTURES} == set(KINDS)


def test_the_seed_decides_on_the_model_and_its_inputs() -> None:
    entry = next(entry for entry in ARCHITECTURES if entry.model == "BertForSequenceClassification")
    model, same, other = (make_model(entry, seed=seed) for seed in (3, 3, 4))
    for one, two, three in zip(model.parameters(), same.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
        assert not torch.equal(one, three)  # neither biases nor norms are at their initial values

    first, again, another = (make_inputs(model, entry.kind, batch=3, length=9, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first["input_ids"], again["input_ids"])
    assert not torch.equal(first["input_ids"], another["input_ids"])
    assert first["attention_mask"].sum(dim=1).tolist() == [9, 9, 6]


@pytest.mark.parametrize("entry", cases(ARCHITECTURES), ids=name)
def test_a_model_can_be_called_and_returns_its_attention_maps(entry: Architecture) -> None:
    model = make_model(entry)
    with torch.no_grad():
        outputs = model(**make_inputs(model, entry.kind), output_attentions=True)
    assert all(tensor.isfinite().all() for tensor in tensors(outputs))

    if entry.without_attention:
        return
    if entry.unrecorded:
        expected = {}
    elif model.config.is_encoder_decoder:
        expected = {"encoder_attentions": 3, "decoder_attentions": 2, "cross_attentions": 2}
    else:
        expected = {"attentions": entry.attentions}
    names = ("attentions", "encoder_attentions", "decoder_attentions", "cross_attentions")
    assert {name: len(outputs[name]) for name in names if outputs.get(name)} == expected


@pytest.mark.parametrize("entry", cases(entry for entry in ARCHITECTURES if entry.generates), ids=name)
def test_a_model_writes_the_same_with_and_without_a_cache(entry: Architecture) -> None:
    model = make_model(entry)
    settings = {"do_sample": False, "num_beams": 1, "min_new_tokens": 6, "max_new_tokens": 6}
    settings |= {"return_dict_in_generate": True, "output_logits": True}
    cached, uncached = (
        model.generate(**make_prompt(model, entry.kind), **settings, use_cache=use_cache) for use_cache in (True, False)
    )
    same = torch.equal(cached.sequences, uncached.sequences) and all(
        torch.allclose(one, other, atol=1e-3) for one, other in zip(cached.logits, uncached.logits, strict=True)
    )
    assert same != bool(entry.uncached)


@pytest.mark.parametrize("entry", cases(ARCHITECTURES), ids=name)
def test_a_model_is_the_same_after_saving_and_loading(entry: Architecture, tmp_path: Path) -> None:
    model = make_model(entry)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path, attn_implementation="eager")
    inputs = make_inputs(model, entry.kind)
    with torch.no_grad():
        outputs, again = model(**inputs), loaded(**inputs)
    same = all(
        torch.allclose(one, other, atol=1e-5) for one, other in zip(tensors(outputs), tensors(again), strict=True)
    )
    assert same != bool(entry.not_loaded)

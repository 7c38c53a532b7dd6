"""Translators of any architecture as graphs: what they write in ONNX Runtime is what ``generate`` writes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures.tiny import ARCHITECTURES, Architecture, make_model
from cases import slow
from found_translators import write
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel
from word_tokenizers import GERMAN, ODD_TEXTS
from written_graphs import check_graph, check_steps

import leanformer as lf
from leanformer.core.errors import LeanformerError
from leanformer.data.tokenizers import TranslationTokenizer
from leanformer.export.base import FORMATS
from leanformer.export.graphs import translator
from leanformer.export.run import Samples, _write_tokenizer, export_model
from leanformer.model.finding.facts import NO_GRAPH, NOT_FOUND
from leanformer.model.generate import translate
from leanformer.runtime import load
from leanformer.runtime.translator import TextTokenizer, Translator

Plan = dict[str, Any]
TRANSLATORS = {
    entry.model_type: entry
    for entry in ARCHITECTURES
    if entry.kind == "text_to_text" and entry.model_type not in ("bart", "marian", *NOT_FOUND)
}
# The distance from which on T5 tells no farther from far is well within what is read and written here.
TRANSLATORS["t5"] = replace(
    TRANSLATORS["t5"], config={"relative_attention_num_buckets": 8, "relative_attention_max_distance": 16}
)
PLANS: dict[str, Plan] = {
    "teacher": {},
    "slots": {"*attention": {"block": "slots", "slots": 3}},
    # The first decoder layer, which counts what was read and holds T5's table of positions, has a block or nothing.
    "mixed": {
        "encoder.0.self_attention": "mixer",
        "decoder.0.self_attention": "ssru",
        "decoder.1.cross_attention": "minimal_attention",
        "decoder.1.mlp": "none",
    },
    "emptied": {
        "decoder.0.self_attention": "none",
        "decoder.1.cross_attention": "none",
        "encoder.1.layer": "none",
        "encoder.0.mlp": "none",
    },
    "a layer less": {"decoder.0.layer": "none"},
}
QUICK = ("t5", "m2m_100", "mbart", "pegasus")


def made(entry: Architecture, plan: str = "teacher") -> PreTrainedModel:
    """A translator or its student, with generation settings as its tokenizer would give them."""
    model = make_model(entry)
    settings = {"encoder_no_repeat_ngram_size": None, "min_length": None, "pad_token_id": 1, "eos_token_id": 2}
    begins = {
        "m2m_100": {"decoder_start_token_id": 2, "forced_bos_token_id": 7},  # as NLLB, with the target's language
        "mbart": {"decoder_start_token_id": 7},  # the target's language
    }
    begin = begins.get(entry.model_type, {"decoder_start_token_id": 1, "forced_bos_token_id": None})
    model.generation_config.update(**settings, **begin)
    return lf.reduce(model, PLANS[plan]).eval() if PLANS[plan] else model


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("plan", ["teacher", "mixed", "emptied", *slow("slots", "a layer less")])
def test_steps_of_a_graph_are_the_models(name: str, plan: str) -> None:
    check_steps(made(TRANSLATORS[name], plan))


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "plan"),
    [
        *(("t5", plan) for plan in PLANS),
        *(("m2m_100", plan) for plan in ("slots", "mixed")),
        ("mbart", "emptied"),
        ("pegasus", "mixed"),
    ],
)
def test_graphs_of_students_write_what_the_students_write(name: str, plan: str) -> None:
    check_graph(made(TRANSLATORS[name], plan))


@pytest.mark.long
@pytest.mark.parametrize("entry", TRANSLATORS.values(), ids=TRANSLATORS)
def test_graphs_of_all_architectures_write_what_the_models_write(entry: Architecture) -> None:
    model = made(entry)
    if entry.model_type in NO_GRAPH:
        with pytest.raises(LeanformerError, match=f"onnx: this is a {entry.model}, and {NO_GRAPH[entry.model_type]}"):
            FORMATS["onnx"].check(model, "float32")
    else:
        check_graph(model)


def test_what_writes_no_translations_is_one_line() -> None:
    model = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=40))
    with pytest.raises(LeanformerError, match="onnx: this is a GPT2LMHeadModel, and classifiers of images and trans"):
        FORMATS["onnx"].check(model, "float32")


def test_what_no_graph_can_be_made_of_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no such operation\nas this one")

    monkeypatch.setattr(translator, "TranslatorGraphs", fail)
    said = r"no graph can be made of a T5ForConditionalGeneration \(no such operation\); use it with transformers$"
    with pytest.raises(LeanformerError, match=said):
        FORMATS["onnx"].write(made(TRANSLATORS["t5"]), tmp_path, "float32")


def readied(name: str, place: Path) -> Path:
    """A student's directory with its tokenizer, set to two languages or a prefix where it knows any."""
    directory = write(name, place / "teacher")
    languages = ("de", "en") if name in ("nllb", "mbart") else None
    prefix = "translate German to English: " if name == "t5" else None
    tokenizer = TranslationTokenizer.load(directory, languages, None, prefix)
    model = lf.load(directory)
    generator = torch.Generator().manual_seed(0)
    spread = 0.3 if name == "t5" else 0.6  # T5 does not divide its scores: greater weights make much of rounding
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(spread * torch.randn(parameter.shape, generator=generator))
    first = tokenizer.first_id
    start = tokenizer.last_id if tokenizer.last_id is not None else model.config.decoder_start_token_id
    # With random weights it would write hardly anything else than languages, of which NLLB's tokenizer knows 202.
    marks = [number for number in tokenizer.sides[1].all_special_ids if number not in (first, tokenizer.eos_id)]
    model.generation_config.update(
        forced_bos_token_id=first, decoder_start_token_id=start, suppress_tokens=sorted(marks)
    )
    plan = {"encoder.0.self_attention": "mixer", "decoder.0.self_attention": "ssru", "decoder.1.mlp": "none"}
    lf.save(lf.reduce(model, plan), place / "student")
    tokenizer.save(place / "student")
    return place / "student"


@pytest.mark.parametrize("name", ["t5", "nllb", "mbart", "pegasus"])
def test_the_exported_tokenizer_gives_the_same_ids_and_texts(name: str, tmp_path: Path) -> None:
    directory = readied(name, tmp_path)
    tokenizer, model = TranslationTokenizer.load(directory), lf.load(directory)
    texts = _write_tokenizer(tokenizer, model, tmp_path)
    assert texts.prefix == ("translate German to English: " if name == "t5" else "")
    assert texts.version == (2 if name == "t5" else 1)  # readers of version 1 put nothing before a source
    assert texts.max_target_tokens == (4096 if name == "t5" else 64)  # T5's positions do not end
    exported = TextTokenizer(tmp_path, texts)
    sentences = [*GERMAN[:60], *(text for text in ODD_TEXTS if text.strip())]
    assert exported.encode_source(sentences) == tokenizer.encode_source(sentences)
    every = list(range(tokenizer.target_vocabulary))
    rows = [every[first : first + 9] for first in range(0, len(every), 9)]
    assert exported.decode(rows) == tokenizer.decode(rows)


@pytest.mark.long
@pytest.mark.parametrize("name", ["t5", "nllb", "mbart", "pegasus"])
def test_an_exported_student_translates_as_before(name: str, tmp_path: Path) -> None:
    directory = readied(name, tmp_path)
    tokenizer = TranslationTokenizer.load(directory)
    sentences = [*GERMAN[:60], *(text for text in ODD_TEXTS if text.strip())]
    own = translate(lf.load(directory), tokenizer, sentences, max_tokens=20, batch_tokens=200).texts
    assert len(set(own)) > 5
    for precision in ("float32", "int8", "float16"):
        out = tmp_path / precision
        manifest = export_model(
            lf.load(directory),
            str(directory),
            Samples(GERMAN[:200], "of this test"),
            out,
            to="onnx",
            precision=precision,
        )
        assert manifest.texts is not None
        assert (manifest.version, manifest.texts.prefix) == (manifest.texts.version, tokenizer.prefix)
        runtime = load(out)
        assert isinstance(runtime, Translator)
        assert runtime.tokenizer.encode_source(sentences) == tokenizer.encode_source(sentences)
        written = runtime.translate(sentences, max_tokens=20, batch_tokens=333)
        if precision == "float32":
            assert manifest.parity.agreement == 1.0
            assert written == own
        assert len(written) == len(sentences)

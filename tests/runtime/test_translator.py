"""Translators that are opened, on both engines."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from exported import LONGEST, change_manifest, manifest, words_tokenizer, write_translator
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from benchmarks.peers.translation import convert
from leanformer.config.translation import TokenizerConfig
from leanformer.core.errors import LeanformerError
from leanformer.data.tokenizers import TranslationTokenizer, train_tokenizer
from leanformer.model.generate import translate
from leanformer.runtime import Translator, load
from leanformer.runtime.manifest import TextInput, write_manifest
from leanformer.runtime.translator import TextTokenizer


def opened(directory: Path, **texts: Any) -> Translator:
    write_translator(directory, **texts)
    translator = load(directory, threads=1)
    assert isinstance(translator, Translator)
    return translator


def test_lines_come_back_in_their_order(tmp_path: Path) -> None:
    translator = opened(tmp_path)
    lines = ["one two", "", "three three three", " ", "two", "one one one one"]
    wanted = ["uno dos", "", "tres tres tres", "", "dos", "uno uno uno uno"]
    for batch_tokens in (1, 8, 4096):
        finished: list[int] = []
        assert translator.translate(lines, batch_tokens=batch_tokens, progress=finished.append) == wanted
        assert sum(finished) == len(lines)
    assert translator.translate("two") == ["dos"]
    assert translator.translate([]) == []
    assert translator.translate(lines, max_tokens=2)[0] == "uno dos"
    assert translator.translate(lines, max_tokens=1)[5] == "uno"


def test_ids_go_through_padded_and_masked(tmp_path: Path) -> None:
    translator = opened(tmp_path)
    assert translator.generate([[3, 0], [4, 5, 3, 0]]) == [[6, 0], [7, 8, 6, 0]]
    assert translator.generate([[3, 4, 5, 3, 4, 5]], max_tokens=90) == [[6, 7, 8, 6, 7]]  # at most what it can write


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"lines": ["one", "one " * LONGEST]},
            "sentence 2 has 7 tokens, and the model takes at most 6 (max_source_tokens",
        ),
        ({"lines": ["one", 2]}, "sentence 2: give text, not 2"),
        ({"lines": ["one \ud800"]}, "sentence 1: holds half a character, "),
        ({"lines": ["one"], "beam": 4}, "beam 4: a model that is exported to ONNX searches greedily"),
        ({"lines": ["one"], "beam": 0}, "beam: give a whole number from 1 to 1,000, not 0"),
        ({"lines": ["one"], "max_tokens": 0}, "max_tokens: give a whole number from 1 to 100,000, not 0"),
        ({"lines": ["one"], "batch_tokens": True}, "batch_tokens: give a whole number"),
    ],
)
def test_bad_arguments_get_one_line(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(LeanformerError, match=f"^{re.escape(message)}"):
        opened(tmp_path).translate(**arguments)


# Text


def trained(kind: Literal["bpe", "unigram"], directory: Path) -> TranslationTokenizer:
    texts = ["drei Männer gehen über die Straße.", "zwei Hunde laufen , nicht wahr ?", "it 's </s> not me ."] * 5
    tokenizer = train_tokenizer(TokenizerConfig(kind=kind, vocabulary=300), texts, texts)
    tokenizer.save(directory)
    return tokenizer


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_text_is_split_and_joined_as_transformers_does(kind: Literal["bpe", "unigram"], tmp_path: Path) -> None:
    own = trained(kind, tmp_path)
    texts = TextInput(
        source_tokenizer="tokenizer.json",
        target_tokenizer="tokenizer.json",
        pad_id=own.pad_id,
        eos_id=own.eos_id,
        max_source_tokens=99,
        max_target_tokens=99,
        split_special_tokens=True,
    )
    light = TextTokenizer(tmp_path, texts)
    lines = ["Zwei Männer , nicht?", "a </s> in the text", "漢字 and 🙂", "x" * 50, "it 's not ."]
    ids = own.encode_source(lines)
    assert light.encode_source(lines) == ids
    rows = [*ids, [own.pad_id, 5, 99, own.eos_id, own.pad_id], [], [200, 201]]  # bytes that are no characters too
    assert light.decode(rows) == own.decode(rows)


def test_marks_in_a_text_and_spaces_before_punctuation(tmp_path: Path) -> None:
    """What a tokenizer's own file does not say."""
    backend = words_tokenizer()
    backend.save(str(tmp_path / "tokenizer.json"))
    for split, clean in ((False, True), (True, False)):
        theirs = PreTrainedTokenizerFast(
            tokenizer_object=words_tokenizer(),
            eos_token="</s>",
            pad_token="<pad>",
            unk_token="<unk>",
            split_special_tokens=split,
            clean_up_tokenization_spaces=clean,
        )
        texts = TextInput(
            source_tokenizer="tokenizer.json",
            target_tokenizer="tokenizer.json",
            pad_id=2,
            eos_id=0,
            max_source_tokens=9,
            max_target_tokens=9,
            split_special_tokens=split,
            clean_up=clean,
        )
        light = TextTokenizer(tmp_path, texts)
        lines = ["one </s> two", "three"]
        assert light.encode_source(lines) == theirs(lines)["input_ids"]
        assert light.decode([[3, 4, 0]]) == theirs.batch_decode([[3, 4, 0]], skip_special_tokens=True)
    text = "a . b ? c ! d , e ' f do n't I 'm he 's we 've you 're"
    light._target = type("Echo", (), {"decode_batch": staticmethod(lambda rows, skip_special_tokens: [text])})()
    light._clean_up = True
    assert light.decode([[1]]) == [theirs.clean_up_tokenization(text)]


# CTranslate2


@pytest.fixture
def converted(make_translator: Callable[..., PreTrainedModel], tmp_path: Path) -> tuple[PreTrainedModel, Translator]:
    """A model of PyTorch, and the same in CTranslate2's form."""
    vocabularies = {"vocab_size": 300, "decoder_vocab_size": 300, "tie_word_embeddings": False}
    model = make_translator(seed=32, pad_token_id=2, decoder_start_token_id=2, **vocabularies)
    with torch.no_grad():
        for layer in model.model.decoder.layers:
            layer.encoder_attn.out_proj.weight.mul_(3)  # what is written depends on the source
        model.final_logits_bias[0, 0] += 2.5  # some translations end
    own = trained("bpe", tmp_path)
    assert own.source_vocabulary == 300
    convert(model, tmp_path / "ctranslate2", "float32")
    texts = TextInput(
        source_tokenizer="tokenizer.json",
        target_tokenizer="tokenizer.json",
        pad_id=2,
        eos_id=0,
        max_source_tokens=32,
        max_target_tokens=20,
        split_special_tokens=True,
    )
    write_manifest(tmp_path, manifest(format="ctranslate2", task="translation", texts=texts))
    translator = load(tmp_path, threads=1)
    assert isinstance(translator, Translator)
    return model, translator


def test_ctranslate2_translates_as_pytorch_does(converted: tuple[PreTrainedModel, Translator], tmp_path: Path) -> None:
    model, translator = converted
    lines = ["zwei Hunde", "", "drei Männer gehen", "x y z", "nicht wahr ?"]
    own = TranslationTokenizer.load(tmp_path)
    for most in (20, 5, 2, 1):
        wanted = translate(model, own, lines, max_tokens=most, batch_tokens=64).texts
        assert translator.translate(lines, max_tokens=most) == wanted
        assert translator.translate(lines, max_tokens=most, batch_tokens=10) == wanted
    assert len(set(translator.translate(lines))) >= 4
    ids = own.encode_source(["zwei Hunde"])
    (written,) = translator.generate(ids, max_tokens=5)
    generated = model.generate(torch.tensor(ids), max_new_tokens=5, num_beams=1, forced_eos_token_id=0)[0, 1:].tolist()
    assert written == generated[: generated.index(0) + 1]
    assert len(translator.translate(lines, beam=4)) == len(lines)


def test_ctranslate2_runs_on_its_devices(
    converted: tuple[PreTrainedModel, Translator], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        LeanformerError, match=r"^device directml: ctranslate2 runs on none of this name; choose auto, cpu"
    ):
        load(tmp_path, device="directml")
    monkeypatch.setattr("ctranslate2.get_cuda_device_count", lambda: 0)
    with pytest.raises(LeanformerError, match=r"^device cuda: ctranslate2 finds none here; choose cpu"):
        load(tmp_path, device="cuda")


def test_what_ctranslate2_cannot_open_is_named(converted: tuple[PreTrainedModel, Translator], tmp_path: Path) -> None:
    (tmp_path / "ctranslate2" / "model.bin").write_bytes(b"\x63\x00\x00\x00")  # of a version to come
    change_manifest(tmp_path, versions={"ctranslate2": "9.9"})
    with pytest.raises(
        LeanformerError, match=r"ctranslate2: ctranslate2 .* cannot open it \(.*; install ctranslate2 9\.9"
    ):
        load(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sources": [[3, 0]], "beam": 0}, "beam: give a whole number from 1 to 1,000, not 0"),
        ({"sources": [[3, 0]], "max_tokens": -1}, "max_tokens: give a whole number from 1 to 100,000, not -1"),
        ({"sources": [[3, 9, 0]]}, "sources: give ids from 0 to 8, one at least for each source"),
        ({"sources": [[-1, 0]]}, "sources: give ids from 0 to 8"),
        ({"sources": [[3, 0], []]}, "sources: give ids from 0 to 8, one at least"),
    ],
)
def test_ids_that_cannot_be_are_refused(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    translator = opened(tmp_path)
    with pytest.raises(LeanformerError, match=f"^{re.escape(message)}"):
        translator.generate(**arguments)
    assert translator.generate([]) == []

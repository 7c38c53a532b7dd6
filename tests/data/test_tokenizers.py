"""Subword tokenizers: trained, kept with a model, and wrapped where a model brings its own."""

from __future__ import annotations

import json
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, BartTokenizer
from word_tokenizers import ENGLISH, GERMAN, ODD_TEXTS, trained, write_marian

from leanformer.config.translation import TokenizerConfig
from leanformer.core.errors import LeanformerError
from leanformer.data.tokenizers import TranslationTokenizer, train_tokenizer

KINDS = [(kind, shared) for kind in ("bpe", "unigram") for shared in (True, False)]


@pytest.mark.parametrize(("kind", "shared"), KINDS)
def test_any_text_comes_back(kind: str, shared: bool) -> None:
    tokenizer = trained(kind, shared)
    texts = [*ODD_TEXTS, *ENGLISH[:50], *GERMAN[:50]]
    ids = tokenizer.encode_target(texts)
    assert tokenizer.decode(ids) == [unicodedata.normalize("NFC", text) for text in texts]
    for sentence in (*ids, *tokenizer.encode_source(texts)):
        assert sentence[-1] == tokenizer.eos_id
        assert not {tokenizer.eos_id, tokenizer.pad_id} & set(sentence[:-1])


@pytest.mark.parametrize(("kind", "shared"), KINDS)
def test_subwords_are_learned(kind: str, shared: bool) -> None:
    tokenizer = trained(kind, shared)
    assert tokenizer.shared == shared
    for size in (tokenizer.source_vocabulary, tokenizer.target_vocabulary):
        assert 259 < size <= 400
    assert (tokenizer.eos_id, tokenizer.pad_id) == (0, 2)
    english = sum(map(len, tokenizer.encode_source(ENGLISH))) / sum(map(len, ENGLISH))
    german = sum(map(len, tokenizer.encode_target(GERMAN))) / sum(map(len, GERMAN))
    assert english < 0.3  # subwords a character
    assert german < 0.3
    if not shared:  # each side knows its own language alone
        assert sum(map(len, tokenizer.encode_source(GERMAN))) > 1.5 * sum(map(len, tokenizer.encode_target(GERMAN)))


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_the_vocabulary_is_a_limit(kind: Any) -> None:
    assert trained(kind, vocabulary=260).source_vocabulary <= 260
    small = train_tokenizer(TokenizerConfig(kind=kind), ["a few words", "a few more"], ["wenige Worte", "mehr"])
    assert 259 <= small.source_vocabulary < 300
    assert small.decode(small.encode_target(["a few Worte"])) == ["a few Worte"]


@pytest.mark.parametrize(("kind", "shared"), KINDS)
def test_it_is_kept_with_the_model(kind: str, shared: bool, tmp_path: Path) -> None:
    tokenizer = trained(kind, shared)
    tokenizer.save(tmp_path)
    again = TranslationTokenizer.load(tmp_path)
    texts = [*ODD_TEXTS, *GERMAN[:20]]
    assert again.shared == shared
    assert again.encode_source(texts) == tokenizer.encode_source(texts)
    assert again.encode_target(texts) == tokenizer.encode_target(texts)
    assert again.decode(again.encode_target(texts)) == tokenizer.decode(tokenizer.encode_target(texts))
    assert again.signature() == tokenizer.signature()


def in_a_fresh_process(script: str, *arguments: str, **environment: str) -> str:
    """What a script prints in a new interpreter that finds what tests share."""
    run = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=Path(__file__).parents[1],
        env={"OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout


@pytest.mark.long
def test_training_it_again_gives_the_same_in_another_process() -> None:
    own = [trained(kind, shared).signature() for kind, shared in KINDS]
    assert len(set(own)) == 4
    script = f"from word_tokenizers import trained\nprint([trained(*kind).signature() for kind in {KINDS}])\n"
    assert in_a_fresh_process(script, PYTHONHASHSEED="7", TOKENIZERS_PARALLELISM="false") == f"{own}\n"


def test_another_text_or_option_gives_another_signature() -> None:
    signatures = {
        trained().signature(),
        trained(vocabulary=401).signature(),
        trained(lowercase=True).signature(),
        train_tokenizer(TokenizerConfig(vocabulary=400), GERMAN, GERMAN).signature(),
    }
    assert len(signatures) == 4


def test_lowercase() -> None:
    tokenizer = trained(lowercase=True)
    ids = tokenizer.encode_target(["ÄRGER in Istanbul"])
    assert tokenizer.decode(ids) == ["ärger in istanbul"]
    assert ids == tokenizer.encode_target(["ärger IN istanbul"])


def test_no_texts_and_tensors() -> None:
    tokenizer = trained()
    assert tokenizer.encode_source([]) == tokenizer.encode_target([]) == []
    ids = tokenizer.encode_target(["zwei"])
    padded = torch.tensor([[*ids[0], tokenizer.pad_id, tokenizer.pad_id]])
    assert tokenizer.decode(padded) == ["zwei"]


@pytest.mark.long
def test_transformers_reads_it_beside_a_models_configuration(tmp_path: Path) -> None:
    tokenizer = trained()
    text = "two  hundred </s> and é"
    model_types = ("marian", "bart", "leanformer_marian")
    for model_type in model_types:
        tokenizer.save(tmp_path / model_type)
        (tmp_path / model_type / "config.json").write_text(json.dumps({"model_type": model_type}))
    script = (
        "import sys, transformers\n"
        "for directory in sys.argv[2:]:\n"
        "    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)\n"
        "    ids = tokenizer(sys.argv[1])['input_ids']\n"
        "    print(ids, [tokenizer.decode(ids, skip_special_tokens=True)], tokenizer.pad_token, tokenizer.eos_token)\n"
    )
    printed = in_a_fresh_process(script, text, *(str(tmp_path / model_type) for model_type in model_types))
    assert printed == f"{tokenizer.encode_source([text])[0]} {[text]} <pad> </s>\n" * 3


# Tokenizers that trained models bring


@pytest.fixture
def marian_directory(tmp_path: Path) -> Path:
    return write_marian(tmp_path)


@pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")
def test_a_marian_tokenizer(marian_directory: Path, tmp_path: Path) -> None:
    tokenizer = TranslationTokenizer.load(marian_directory)
    own = AutoTokenizer.from_pretrained(marian_directory)
    assert tokenizer.encode_source(ENGLISH[:5]) == own(ENGLISH[:5])["input_ids"]
    assert tokenizer.encode_target(GERMAN[:5]) == own(text_target=GERMAN[:5])["input_ids"]
    assert tokenizer.encode_target(GERMAN[:5]) != tokenizer.encode_source(GERMAN[:5])
    assert tokenizer.decode(tokenizer.encode_target(GERMAN)) == GERMAN
    assert (tokenizer.eos_id, tokenizer.pad_id) == (0, len(own) - 1)
    assert tokenizer.source_vocabulary == tokenizer.target_vocabulary == len(own)
    tokenizer.save(tmp_path / "again")
    again = TranslationTokenizer.load(tmp_path / "again")
    assert again.signature() == tokenizer.signature()
    assert again.encode_target(GERMAN[:5]) == tokenizer.encode_target(GERMAN[:5])
    vocabulary = json.loads((marian_directory / "vocab.json").read_text())
    vocabulary["new"] = len(vocabulary)
    (tmp_path / "again" / "vocab.json").write_text(json.dumps(vocabulary))
    assert TranslationTokenizer.load(tmp_path / "again").signature() != tokenizer.signature()


@pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")
def test_references_in_the_form_of_a_marian_tokenizer(marian_directory: Path) -> None:
    """That of the target side's SentencePiece model (nmt_nfkc), as its decoded ids have it."""
    tokenizer = TranslationTokenizer.load(marian_directory)
    for text in (unicodedata.normalize("NFD", "fünfzig"), "  drei  und\u3000ﬁnf ", GERMAN[40]):
        assert tokenizer.normalize(text) == unicodedata.normalize("NFKC", " ".join(text.split()))
        assert tokenizer.normalize(text) == tokenizer.decode(tokenizer.encode_target([text]))[0] or "ﬁ" in text
    assert not tokenizer.lowercases


@pytest.mark.parametrize(("kind", "shared"), KINDS)
@pytest.mark.parametrize("lowercase", [False, True])
def test_references_in_the_form_of_a_trained_tokenizer(kind: str, shared: bool, lowercase: bool) -> None:
    tokenizer = trained(kind, shared, lowercase=lowercase)
    assert tokenizer.lowercases == lowercase
    for text in ODD_TEXTS:
        decoded = tokenizer.decode(tokenizer.encode_target([text]))[0]
        assert tokenizer.normalize(text) == decoded.strip()


def test_a_bart_tokenizer(tmp_path: Path) -> None:
    marks = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    pieces = [*marks, *sorted({character for text in GERMAN for character in text} - {" "}), "Ġ", "ei", "Ġz"]
    BartTokenizer(
        vocab={piece: index for index, piece in enumerate(pieces)}, merges=[("e", "i"), ("Ġ", "z")]
    ).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bart"}))
    tokenizer = TranslationTokenizer.load(tmp_path)
    assert (tokenizer.pad_id, tokenizer.eos_id) == (1, 2)
    ids = tokenizer.encode_target(["zweieinhalb"])[0]
    assert (ids[0], ids[-1]) == (0, 2)
    assert pieces.index("ei") in ids
    assert tokenizer.decode([ids]) == ["zweieinhalb"]


def test_a_directory_without_a_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bart"}))
    with pytest.raises(LeanformerError, match=r"holds no tokenizer \(tokenizer\.json, .*\); copy it from where"):
        TranslationTokenizer.load(tmp_path)


def test_one_side_is_missing(tmp_path: Path) -> None:
    trained(shared=False).save(tmp_path)
    (tmp_path / "target_tokenizer" / "tokenizer.json").unlink()
    (tmp_path / "target_tokenizer" / "tokenizer_config.json").unlink()
    with pytest.raises(LeanformerError, match=r"/target_tokenizer: holds no tokenizer \("):
        TranslationTokenizer.load(tmp_path)


def test_a_damaged_file(tmp_path: Path) -> None:
    trained().save(tmp_path)
    file = tmp_path / "tokenizer.json"
    file.write_text(file.read_text()[:1000])
    with pytest.raises(LeanformerError, match=r"its tokenizer cannot be read \(.+\)$") as caught:
        TranslationTokenizer.load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("without", "message"),
    [
        ("eos_token", "the tokenizer of .* has no end mark; a translator's tokenizer has pad_token and eos_token"),
        ("pad_token", "the tokenizer of .* has no padding; a translator's"),
        ("post_processor", "the tokenizer of .* puts no end mark </s> after a sentence"),
    ],
)
def test_a_tokenizer_that_serves_no_translator(without: str, message: str, tmp_path: Path) -> None:
    trained().save(tmp_path)
    name = "tokenizer.json" if without == "post_processor" else "tokenizer_config.json"
    values = json.loads((tmp_path / name).read_text())
    values[without] = None
    (tmp_path / name).write_text(json.dumps(values))
    with pytest.raises(LeanformerError, match=message):
        TranslationTokenizer.load(tmp_path)

"""Tokenizers of many languages, and prefixes of sources."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from found_translators import MADE, pieces
from transformers import T5Tokenizer

from leanformer.core.errors import LeanformerError
from leanformer.data.model_languages import code_for, codes_of, knows_languages
from leanformer.data.tokenizers import TranslationTokenizer


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directories of tokenizers alone."""
    root = tmp_path_factory.mktemp("tokenizers")
    for name, model_type in (("nllb", "m2m_100"), ("mbart", "mbart"), ("t5", "t5")):
        MADE[name]()[1].save_pretrained(root / name)
        (root / name / "config.json").write_text(json.dumps({"model_type": model_type}))
    return root


@pytest.mark.parametrize(
    ("name", "language", "code"),
    [
        ("nllb", "de", "deu_Latn"),
        ("nllb", "eng_Latn", "eng_Latn"),
        ("nllb", "ENG_latn", "eng_Latn"),
        ("mbart", "de", "de_DE"),
        ("mbart", "en", "en_XX"),
    ],
)
def test_a_language_has_the_tokenizers_code(place: Path, name: str, language: str, code: str) -> None:
    tokenizer = MADE[name]()[1]
    assert knows_languages(tokenizer)
    assert code in codes_of(tokenizer)
    assert code_for(tokenizer, language, "source_language", {}) == code


def test_a_code_that_the_study_gives_wins() -> None:
    tokenizer = MADE["nllb"]()[1]
    assert code_for(tokenizer, "sq", "source_language", {"sq": "als_Latn"}) == "als_Latn"


@pytest.mark.parametrize(
    ("language", "given", "said"),
    [
        ("zh", {}, r"data\.target_language: 'zh' may be zho_Hans or zho_Hant"),
        ("als", {"als": "als_Lat"}, r"data\.language_codes: 'als_Lat' is none of the \d+ languages .* als_Latn"),
        ("deu_Lat", {}, r"data\.target_language: 'deu_Lat' is none of .*such as .*deu_Latn.*data\.language_codes"),
    ],
)
def test_a_language_that_it_does_not_know_is_one_line(language: str, given: dict[str, str], said: str) -> None:
    with pytest.raises(LeanformerError, match=said) as caught:
        code_for(MADE["nllb"]()[1], language, "target_language", given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "first", "last"), [("nllb", "eng_Latn", None), ("mbart", None, "en_XX")])
def test_the_language_is_where_the_tokenizer_puts_it(
    place: Path, tmp_path: Path, name: str, first: str | None, last: str | None
) -> None:
    tokenizer = TranslationTokenizer.load(place / name, ("de", "en"))
    (side, _), other = tokenizer.sides, TranslationTokenizer.load(place / name, ("en", "de"))
    ids = {code: side.convert_tokens_to_ids(code) for code in (first, last) if code}
    assert (tokenizer.first_id, tokenizer.last_id) == (ids.get(str(first)), ids.get(str(last)))
    assert tokenizer.encode_source(["a"]) != tokenizer.encode_target(["a"])
    assert tokenizer.signature() != other.signature()
    tokenizer.save(tmp_path)
    again = TranslationTokenizer.load(tmp_path)
    assert (again.first_id, again.last_id) == (tokenizer.first_id, tokenizer.last_id)
    assert again.encode_source(["acht"]) == tokenizer.encode_source(["acht"])
    assert again.decode(again.encode_target(["eight"])) == ["eight"]
    assert again.signature() == tokenizer.signature()


def test_a_tokenizer_that_is_set_to_no_language_is_one_line(place: Path) -> None:
    with pytest.raises(LeanformerError, match="knows 202 languages and is set to none"):
        TranslationTokenizer.load(place / "nllb")


def test_codes_for_a_tokenizer_of_no_languages_are_one_line(place: Path) -> None:
    with pytest.raises(LeanformerError, match=r"data\.language_codes does nothing here"):
        TranslationTokenizer.load(place / "t5", ("de", "en"), {"de": "deu"})


def test_a_prefix_stands_before_sources_and_stays_with_the_model(place: Path, tmp_path: Path) -> None:
    plain, prefix = TranslationTokenizer.load(place / "t5"), "to: "
    tokenizer = TranslationTokenizer.load(place / "t5", ("de", "en"), prefix=prefix)
    assert tokenizer.encode_source(["acht"]) == plain.encode_source(["to: acht"])
    assert tokenizer.encode_target(["eight"]) == plain.encode_target(["eight"])
    assert tokenizer.signature() != plain.signature()
    tokenizer.save(tmp_path)
    again = TranslationTokenizer.load(tmp_path)
    assert again.prefix == prefix
    assert TranslationTokenizer.load(tmp_path, prefix="").prefix == ""


def test_a_tokenizer_of_one_language_needs_no_code() -> None:
    assert not knows_languages(T5Tokenizer(vocab=pieces("<pad>", "</s>", "<unk>"), extra_ids=0))

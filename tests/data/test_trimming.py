"""Tokenizers with fewer target subwords: every text is still cut into them, and each of them can occur."""

from __future__ import annotations

import unicodedata
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast
from word_tokenizers import ENGLISH, GERMAN, ODD_TEXTS, trained, write_marian

from leanformer.core.errors import LeanformerError
from leanformer.data.tokenizers import TranslationTokenizer
from leanformer.data.trimming import Trimmed, trim_target

LIMIT = 300
KINDS = [(kind, shared) for kind in ("bpe", "unigram") for shared in (True, False)]
no_sacremoses = pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")


def subwords(tokenizer: TranslationTokenizer) -> list[str]:
    target = tokenizer.sides[1]
    pieces: list[str] = target.convert_ids_to_tokens(list(range(tokenizer.target_vocabulary)))
    return pieces


def tokens(tokenizer: TranslationTokenizer, texts: list[str]) -> int:
    return sum(map(len, tokenizer.encode_target(texts)))


@pytest.mark.parametrize(("kind", "shared"), KINDS)
def test_any_text_comes_back(kind: str, shared: bool, tmp_path: Path) -> None:
    whole = trained(kind, shared)
    trimmed = trim_target(whole, GERMAN, LIMIT).tokenizer
    texts = [*ODD_TEXTS, *ENGLISH[:30], *GERMAN[:30]]
    ids = trimmed.encode_target(texts)
    assert trimmed.decode(ids) == [unicodedata.normalize("NFC", text) for text in texts]
    for sentence in ids:
        assert sentence[-1] == trimmed.eos_id
        assert max(sentence) < LIMIT
        assert not {trimmed.eos_id, trimmed.pad_id} & set(sentence[:-1])
    assert trimmed.encode_source(texts) == whole.encode_source(texts)
    trimmed.save(tmp_path)
    again = TranslationTokenizer.load(tmp_path)
    assert again.encode_target(texts) == ids
    assert again.signature() == trimmed.signature() != whole.signature()


@pytest.mark.parametrize(("kind", "shared"), KINDS)
def test_subwords_keep_their_names_and_marks_their_ids(kind: str, shared: bool) -> None:
    whole = trained(kind, shared)
    trimmed = trim_target(whole, GERMAN, LIMIT)
    assert len(trimmed.ids) == trimmed.tokenizer.target_vocabulary == LIMIT
    assert trimmed.ids[:3] == (0, 1, 2)
    assert list(trimmed.ids) == sorted(set(trimmed.ids))
    assert subwords(trimmed.tokenizer) == [subwords(whole)[one] for one in trimmed.ids]
    assert set(pre_tokenizers.ByteLevel.alphabet()) < set(subwords(trimmed.tokenizer))
    assert (trimmed.tokenizer.pad_id, trimmed.tokenizer.eos_id) == (whole.pad_id, whole.eos_id)


@pytest.mark.parametrize(("kind", "shared"), KINDS)
def test_each_kept_subword_can_still_be_formed(kind: str, shared: bool) -> None:
    """Cut by itself, it stays whole wherever the whole tokenizer leaves it whole."""
    whole = trained(kind, shared)
    trimmed = trim_target(whole, GERMAN, LIMIT).tokenizer
    before, after = (tokenizer.sides[1].backend_tokenizer.model for tokenizer in (whole, trimmed))
    stays = [piece for piece in subwords(trimmed)[3:] if len(before.tokenize(piece)) == 1]
    assert len(stays) > LIMIT - 20
    assert all([token.value for token in after.tokenize(piece)] == [piece] for piece in stays)


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_what_is_left_out_is_needed_least(kind: str) -> None:
    """Not many more tokens than with a tokenizer of that size that was trained on the same texts."""
    trimmed = trim_target(trained(kind), GERMAN, LIMIT).tokenizer
    own = trained(kind, shared=False, vocabulary=LIMIT)
    assert tokens(trimmed, GERMAN) < 1.1 * tokens(own, GERMAN)


def test_subwords_that_texts_do_not_need_are_left_out_below_the_limit() -> None:
    whole = trained("bpe")
    used = {one for sentence in whole.encode_target(GERMAN) for one in sentence}
    trimmed = trim_target(whole, GERMAN, 399)
    assert len(trimmed.ids) < 399
    assert used < set(trimmed.ids)
    assert tokens(trimmed.tokenizer, GERMAN) == tokens(whole, GERMAN)


def test_equal_texts_give_equal_tokenizers_in_any_order() -> None:
    whole = trained("bpe")
    ids = trim_target(whole, GERMAN, LIMIT).ids
    assert trim_target(whole, GERMAN[::-1], LIMIT).ids == ids


def words_tokenizer(model: Any, **marks: str) -> TranslationTokenizer:
    """A tokenizer that splits at spaces, knows letters and no bytes, and has its marks at the end."""
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<unk>", "</s>", "<pad>"])
    end = tokenizer.token_to_id("</s>")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", end)])
    return TranslationTokenizer(
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>", pad_token="<pad>", **marks
        )
    )


PAIRS = [("a", "b"), ("b", "c"), ("ab", "c"), ("a", "bc"), ("abc", "d"), ("x", "y")]


def pairs_tokenizer() -> TranslationTokenizer:
    """Byte pairs where ``abc`` is made of ``ab`` and ``c``, although it is also the merge of ``a`` and ``bc``."""
    pieces = [*"abcdxyz", *dict.fromkeys("".join(pair) for pair in PAIRS)]
    return words_tokenizer(models.BPE({piece: number for number, piece in enumerate(pieces)}, PAIRS))


def test_a_merge_keeps_the_parts_that_it_is_really_made_of() -> None:
    whole = pairs_tokenizer()
    assert subwords(whole) == [*"abcdxyz", "ab", "bc", "abc", "abcd", "xy", "<unk>", "</s>", "<pad>"]
    trimmed = trim_target(whole, ["abcd abcd abcd xy"], 13).tokenizer
    # Neither z, which does not occur, nor bc, which nothing is made of.
    assert set(subwords(whole)) - set(subwords(trimmed)) == {"z", "bc"}
    assert trimmed.sides[1].tokenize("abcd xy") == ["abcd", "xy"]


def test_marks_with_large_ids_come_last_and_change_places_on_the_source_side() -> None:
    whole = pairs_tokenizer()
    assert (whole.eos_id, whole.pad_id) == (13, 14)
    trimmed = trim_target(whole, ["abcd abcd abcd xy"], 12)
    assert subwords(trimmed.tokenizer) == [*"abcdxy", "ab", "abc", "abcd", "<unk>", "</s>", "<pad>"]
    assert (trimmed.tokenizer.eos_id, trimmed.tokenizer.pad_id) == (10, 11)
    assert trimmed.tokenizer.encode_target(["abcd xy"]) == [[8, 4, 5, 10]]
    before = whole.encode_source(["abcd xy z"])[0]
    assert before == [10, 11, 6, 13]
    # The source's abcd had the id 10 and xy 11; they have those of the marks now.
    assert trimmed.tokenizer.encode_source(["abcd xy z"])[0] == [13, 14, 6, 10]


# Marian


@no_sacremoses
def test_a_marian_tokenizer(tmp_path: Path) -> None:
    whole = TranslationTokenizer.load(write_marian(tmp_path))
    limit = 90
    trimmed = trim_target(whole, GERMAN, limit)
    assert len(trimmed.ids) == limit == trimmed.tokenizer.target_vocabulary
    assert [trimmed.ids[place] for place in (0, 1, limit - 1)] == [0, 1, whole.pad_id]
    assert (trimmed.tokenizer.eos_id, trimmed.tokenizer.pad_id) == (0, limit - 1)
    names = {one: piece for piece, one in whole.sides[1].get_vocab().items()}
    target = trimmed.tokenizer.sides[1]
    assert [names[one] for one in trimmed.ids] == target.convert_ids_to_tokens(list(range(limit)))
    ids = trimmed.tokenizer.encode_target(GERMAN)
    assert trimmed.tokenizer.decode(ids) == GERMAN
    assert max(map(max, ids)) < limit
    assert trimmed.tokenizer.unknown_id not in set(chain.from_iterable(ids))
    # The source subword that had the id of padding now has the old one of padding.
    swap = {whole.pad_id: limit - 1, limit - 1: whole.pad_id}
    assert trimmed.tokenizer.encode_source(ENGLISH[:9]) == [
        [swap.get(one, one) for one in sentence] for sentence in whole.encode_source(ENGLISH[:9])
    ]
    trimmed.tokenizer.save(tmp_path / "again")
    again = TranslationTokenizer.load(tmp_path / "again")
    assert again.encode_target(GERMAN) == ids
    assert again.encode_source(ENGLISH[:9]) == trimmed.tokenizer.encode_source(ENGLISH[:9])
    assert again.normalize("  drei  und") == "drei und"


@no_sacremoses
def test_letters_that_the_texts_lack_are_unknown_where_a_tokenizer_has_no_bytes(tmp_path: Path) -> None:
    whole = TranslationTokenizer.load(write_marian(tmp_path))
    assert whole.unknown_id is not None
    assert whole.unknown_id not in whole.encode_target(["vier"])[0]
    trimmed = trim_target(whole, [text for text in GERMAN if "v" not in text], 60).tokenizer
    assert trimmed.unknown_id in trimmed.encode_target(["vier"])[0]


# Errors


def refused(tokenizer: TranslationTokenizer, limit: Any) -> str:
    with pytest.raises(LeanformerError) as error:
        trim_target(tokenizer, GERMAN, limit)
    return str(error.value)


def test_a_limit_that_is_none() -> None:
    whole = trained("bpe")
    assert "limit 258 is less than the 259 subwords that have to stay (marks and all single bytes)" in refused(
        whole, 258
    )
    assert "give 259 or more" in refused(whole, 1)
    assert len(trim_target(whole, GERMAN, 259).ids) == 259
    assert "limit 400 leaves nothing out of the 400 target subwords; give less" in refused(whole, 400)
    for limit in (0, -1, True, 2.5, "many", None, [300]):
        assert "it must be a whole number, 1 or more" in refused(whole, limit)
    letters = refused(pairs_tokenizer(), 3)
    assert "marks and all letters of the training sentences" in letters


def test_a_tokenizer_of_another_kind() -> None:
    words = words_tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="<unk>"))
    assert "a tokenizer of the kind WordLevel cannot be left out; kinds that can: BPE, Unigram" in refused(words, 3)


@no_sacremoses
def test_a_sentencepiece_model_of_another_kind(tmp_path: Path) -> None:
    directory = write_marian(tmp_path, model_type="bpe")
    assert "sentencepiece model is not of the kind unigram" in refused(TranslationTokenizer.load(directory), 60)


def test_ids_are_those_of_the_whole() -> None:
    trimmed = trim_target(trained("bpe"), GERMAN, LIMIT, keep=(399,))
    assert isinstance(trimmed, Trimmed)
    assert 399 in trimmed.ids


@pytest.mark.parametrize("form", ["prefix", "suffix", "bytes and suffix"])
def test_letters_that_have_another_form_inside_a_word_stay_writable(form: str) -> None:
    of_bytes = "bytes" in form
    mark: dict[str, Any] = {"continuing_subword_prefix": "##"} if form == "prefix" else {"end_of_word_suffix": "</w>"}
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", **mark))
    tokenizer.pre_tokenizer = (
        pre_tokenizers.ByteLevel(add_prefix_space=False) if of_bytes else pre_tokenizers.WhitespaceSplit()
    )
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=["<unk>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if of_bytes else [],
        **mark,
        show_progress=False,
    )
    tokenizer.train_from_iterator(ENGLISH, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    whole = TranslationTokenizer(
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>", pad_token="<pad>")
    )
    limit = whole.target_vocabulary - 60
    trimmed = trim_target(whole, ENGLISH, limit)
    assert len(trimmed.ids) <= limit
    assert not any(0 in sentence for sentence in trimmed.tokenizer.encode_target(ENGLISH))
    with pytest.raises(LeanformerError, match="subwords that have to stay"):
        trim_target(whole, ENGLISH, 20)

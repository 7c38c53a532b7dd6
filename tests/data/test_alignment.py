"""Where a teacher's subwords and those of a student with fewer begin at the same letter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from word_tokenizers import ENGLISH, GERMAN, trained, write_marian

from leanformer.data.alignment import Alignment
from leanformer.data.pairs import SentencePairs
from leanformer.data.text_batches import NOWHERE, EncodedPairs, TeacherView, TextBatches, encode_pairs
from leanformer.data.tokenizers import TranslationTokenizer
from leanformer.data.trimming import Trimmed, subword_texts, trim_target

PAIRS = SentencePairs(tuple(ENGLISH), tuple(GERMAN))


def aligned(whole: TranslationTokenizer, trimmed: Trimmed) -> tuple[EncodedPairs, EncodedPairs, Alignment]:
    before, after = encode_pairs(PAIRS, whole), encode_pairs(PAIRS, trimmed.tokenizer)
    return before, after, Alignment(whole, trimmed, before.targets, after.targets)


def check(whole: TranslationTokenizer, trimmed: Trimmed) -> None:
    """Against the letters before each token, one sentence at a time."""
    texts = subword_texts(whole)
    own_texts = [texts[one] for one in trimmed.ids]
    before, after, alignment = aligned(whole, trimmed)
    places = alignment.places(before.targets, after.targets)
    inside = 0
    for row in range(len(PAIRS)):
        starts = [
            b"".join(texts[one] for one in before.targets[row][:place]) for place in range(len(before.targets[row]))
        ]
        own = after.targets[row]
        expected = []
        for place in range(len(own)):
            text = b"".join(own_texts[one] for one in own[:place])
            expected.append(starts.index(text) if text in starts else NOWHERE)
        assert places[row].tolist() == expected
        assert expected[-1] == len(before.targets[row]) - 1  # the end marks
        inside += expected.count(NOWHERE)
    assert inside > 0.05 * len(after.targets.tokens)
    heads = alignment.heads
    assert heads[list(trimmed.ids)].tolist() == list(range(len(trimmed.ids)))
    for one in set(before.targets.tokens.tolist()) - set(trimmed.ids):
        assert texts[one].startswith(own_texts[heads[one]])
        assert own_texts[heads[one]]


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_places_and_beginnings(kind: str) -> None:
    whole = trained(kind)
    check(whole, trim_target(whole, GERMAN, 300))


@pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")
def test_a_marian_tokenizer_is_aligned_too(tmp_path: Path) -> None:
    whole = TranslationTokenizer.load(write_marian(tmp_path))
    trimmed = trim_target(whole, GERMAN, 90)
    check(whole, trimmed)
    assert trimmed.tokenizer.pad_id != whole.pad_id


def test_texts_with_letters_that_one_side_does_not_know() -> None:
    """Its letters cannot be counted; what comes first is still the same."""
    whole = trained("bpe")
    _, after, alignment = aligned(whole, trim_target(whole, GERMAN, 300))
    other = encode_pairs(PAIRS.select([1, 0]), whole)
    places = alignment.places(other.targets, after.targets.select(np.array([0, 1])))
    assert all(places[row].tolist() == [0] + [NOWHERE] * (len(places[row]) - 1) for row in (0, 1))


def test_batches_hold_what_the_teacher_reads() -> None:
    whole = trained("bpe")
    trimmed = trim_target(whole, GERMAN, 300)
    before, after, alignment = aligned(whole, trimmed)
    places = alignment.places(before.targets, after.targets)
    view = TeacherView(before, places, alignment.heads, decoder_start_id=1, pad_id=whole.pad_id)
    rows = np.array([0])
    batches = TextBatches(after.without(rows), 2000, trimmed.tokenizer.pad_id, 2, teacher=view.without(rows))
    seen = 0
    for batch in batches.training(0, 0):
        assert torch.equal(batch["teacher_input_ids"], batch["input_ids"])
        assert (batch["decoder_input_ids"][:, 0] == 2).all()
        assert (batch["teacher_decoder_input_ids"][:, 0] == 1).all()
        assert torch.equal(batch["teacher_heads"], torch.from_numpy(alignment.heads))
        assert (batch["teacher_places"][batch["labels"] == -100] == NOWHERE).all()
        for number, labels in enumerate(batch["labels"]):
            own = labels[labels != -100].tolist()
            row = next(one for one in range(1, len(PAIRS)) if after.targets[one].tolist() == own)
            read = batch["teacher_decoder_input_ids"][number, 1:].tolist()
            expected = before.targets[row].tolist()
            assert read[: len(expected) - 1] == expected[:-1]
            assert set(read[len(expected) - 1 :]) <= {whole.pad_id}
            assert batch["teacher_places"][number, : len(own)].tolist() == places[row].tolist()
            seen += 1
    assert seen == len(PAIRS) - 1
    assert "teacher_places" not in next(iter(batches.evaluation(after)))

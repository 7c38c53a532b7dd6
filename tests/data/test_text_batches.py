"""Encoding sentence pairs, and the batches that a translator is trained and evaluated on."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from num2words import num2words
from torch import Tensor

from leanformer.config.translation import TokenizerConfig
from leanformer.core.errors import LeanformerError
from leanformer.data.pairs import SentencePairs
from leanformer.data.text_batches import (
    EncodedPairs,
    Sentences,
    TextBatches,
    check_lengths,
    check_limit,
    encode_pairs,
    length_batches,
)
from leanformer.data.tokenizers import TranslationTokenizer, train_tokenizer

PAD, START, END = 2, 1, 0
ENGLISH = tuple(num2words(number) for number in range(0, 9000, 11))
GERMAN = tuple(num2words(number, lang="de") for number in range(0, 9000, 11))
PAIRS = SentencePairs(ENGLISH, GERMAN)


@pytest.fixture(scope="module")
def tokenizer() -> TranslationTokenizer:
    return train_tokenizer(TokenizerConfig(vocabulary=300), ENGLISH, GERMAN)


def numbered(count: int = 300, seed: int = 0, longest: int = 20) -> EncodedPairs:
    """Pairs of random lengths whose ids say which they are: 10 + row on the source side, 1000 + row on the target's."""
    rng = np.random.default_rng(seed)
    sides = []
    for base in (10, 1000):
        lengths = rng.integers(2, longest + 1, count)
        ids = (np.array([*[base + row] * (length - 1), END], np.int32) for row, length in enumerate(lengths))
        sides.append(Sentences.joined(list(ids)))
    return EncodedPairs(*sides)


def rows_of(batch: dict[str, Tensor]) -> list[int]:
    return [int(row) for row in batch["input_ids"][:, 0] - 10]


def equal(one: list[dict[str, Tensor]], other: list[dict[str, Tensor]]) -> bool:
    return len(one) == len(other) and all(
        a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
        for a, b in zip(one, other, strict=True)
    )


def make(pairs: EncodedPairs | None = None, batch_tokens: int = 100) -> TextBatches:
    return TextBatches(numbered() if pairs is None else pairs, batch_tokens, PAD, START)


# Encoding


def test_encoding_keeps_every_sentence(tokenizer: TranslationTokenizer) -> None:
    encoded = encode_pairs(PAIRS, tokenizer)
    assert len(encoded) == len(PAIRS)
    assert encoded.sources.tokens.dtype == encoded.targets.tokens.dtype == np.int32
    assert [sentence.tolist() for sentence in map(encoded.sources.__getitem__, range(len(encoded)))] == (
        tokenizer.encode_source(ENGLISH)
    )
    assert encoded.targets[7].tolist() == tokenizer.encode_target([GERMAN[7]])[0]
    assert encoded.lengths.tolist() == np.maximum(encoded.sources.lengths, encoded.targets.lengths).tolist()


def test_encoding_in_parts_gives_the_same(tokenizer: TranslationTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = encode_pairs(PAIRS, tokenizer)
    monkeypatch.setattr("leanformer.data.text_batches.ENCODED_AT_A_TIME", 100)
    parts = encode_pairs(PAIRS, tokenizer)
    for one, other in ((whole.sources, parts.sources), (whole.targets, parts.targets)):
        assert np.array_equal(one.tokens, other.tokens)
        assert np.array_equal(one.offsets, other.offsets)


def test_long_sentences_are_left_out_on_both_sides(tokenizer: TranslationTokenizer) -> None:
    everything = encode_pairs(PAIRS, tokenizer)
    source_limit, target_limit = int(everything.sources.lengths.max()) - 3, int(everything.targets.lengths.max()) - 2
    long = everything.too_long(source_limit, target_limit)
    by_hand = [
        row
        for row in range(len(PAIRS))
        if len(everything.sources[row]) > source_limit or len(everything.targets[row]) > target_limit
    ]
    assert long.tolist() == by_hand
    assert set(everything.too_long(source_limit)) | set(everything.too_long(None, target_limit)) == set(by_hand)
    kept = everything.without(long)
    assert 0 < len(long) < len(PAIRS)
    rest = [row for row in range(len(PAIRS)) if row not in by_hand]
    assert tokenizer.decode([ids.tolist() for ids in map(kept.targets.__getitem__, range(len(kept)))]) == [
        GERMAN[row] for row in rest
    ]
    assert kept.sources.lengths.max() <= source_limit
    assert kept.targets.lengths.max() <= target_limit


def test_nothing_is_left_to_train_on(tokenizer: TranslationTokenizer) -> None:
    pairs = encode_pairs(PAIRS, tokenizer)
    shorter, longer = (pairs.select(rows) for rows in np.array_split(np.argsort(pairs.lengths), 2))
    needed = int(np.ceil(np.median(longer.lengths)))
    assert needed > np.median(shorter.lengths)
    with pytest.raises(
        LeanformerError,
        match=rf"^data\.max_tokens: all {len(shorter)} training pairs and all {len(longer)} validation pairs are "
        rf"longer than 1 subwords; set it to {needed}, which takes half of them, or more$",
    ):
        check_limit({"training": shorter, "validation": longer}, 1)
    check_limit({"training": shorter, "validation": longer}, needed)
    limit = int(longer.lengths.min()) - 1
    with pytest.raises(LeanformerError, match=rf"all {len(longer)} validation pairs are longer .* set it to {needed},"):
        check_limit({"training": shorter, "validation": longer}, limit)


@pytest.mark.parametrize("sides", [["source", "target"], ["target"]])
def test_a_block_that_is_too_short_counts_the_sentences(sides: Any) -> None:
    encoded = numbered(seed=1)
    lengths = {"source": encoded.sources.lengths, "target": encoded.targets.lengths}
    counts = {side: int((of_side > 18).sum()) for side, of_side in lengths.items()}
    assert 0 < counts["source"] != counts["target"] > 0
    needed = max(int(lengths[side].max()) for side in sides)
    check_lengths({"train": encoded}, 20, "any block", {"train": sides})
    what = "feed_forward at encoder.0.self_attention"
    found = f"{counts[sides[0]]} of 300 {sides[0]} sentences are longer than the 18 positions of {what}, in the"
    with pytest.raises(LeanformerError) as caught:
        check_lengths({"train": encoded}, 18, what, {"train": sides})
    assert str(caught.value) == f"{found} train split; set data.max_tokens to 18 or give the block max_length: {needed}"
    with pytest.raises(LeanformerError) as caught:  # from the test split nothing is left out
        check_lengths({"train": encoded, "test": encoded}, 18, what, {"train": sides, "test": sides})
    assert str(caught.value) == f"{found} test split; give the block max_length: {needed}"
    check_lengths({"train": encoded, "test": encoded}, needed, what, {"train": sides, "test": sides})
    check_lengths({"train": encoded.without(encoded.too_long(18, 18))}, 18, what, {"train": sides})


# Batches


def test_what_a_batch_holds() -> None:
    sources = Sentences.joined([np.array(ids, np.int32) for ids in ([5, 6, 7, END], [8, END])])
    targets = Sentences.joined([np.array(ids, np.int32) for ids in ([9, END], [10, 11, END])])
    batch = make(EncodedPairs(sources, targets)).chosen(EncodedPairs(sources, targets), np.array([1, 0]))
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        "input_ids": [[8, END, PAD, PAD], [5, 6, 7, END]],
        "attention_mask": [[1, 1, 0, 0], [1, 1, 1, 1]],
        "decoder_input_ids": [[START, 10, 11], [START, 9, PAD]],
        "labels": [[10, 11, END], [9, END, -100]],
    }
    assert all(tensor.dtype == torch.int64 for tensor in batch.values())


@pytest.mark.parametrize("batch_tokens", [20, 21, 64, 100, 10_000])
def test_every_epoch_holds_every_pair_once_within_the_budget(batch_tokens: int) -> None:
    batches = make(batch_tokens=batch_tokens)
    for epoch in range(3):
        seen = []
        steps = 0
        for batch in batches.training(seed=0, epoch=epoch):
            size, source_length = batch["input_ids"].shape
            assert batch["labels"].shape == batch["decoder_input_ids"].shape
            assert size * max(source_length, batch["labels"].shape[1]) <= batch_tokens
            assert torch.equal(batch["labels"][:, 0] - 1000, batch["input_ids"][:, 0] - 10)  # the sides belong together
            seen += rows_of(batch)
            steps += 1
        assert steps == batches.steps_per_epoch
        assert sorted(seen) == list(range(300))


def test_batches_are_full() -> None:
    batches = make(batch_tokens=400)
    real = sum(int(batch["attention_mask"].sum()) for batch in batches.training(0, 0))
    padded = sum(batch["input_ids"].numel() for batch in batches.training(0, 0))
    assert batches.steps_per_epoch <= -(-int(numbered().lengths.sum()) // 400) + 3
    assert real / padded > 0.6  # source and target lengths are independent here, which they are not in text


def test_an_epoch_is_a_function_of_seed_and_number() -> None:
    batches = make()
    epoch = list(batches.training(3, 4))
    assert equal(epoch, list(make().training(3, 4)))
    assert not equal(epoch, list(batches.training(3, 5)))
    assert not equal(epoch, list(batches.training(4, 4)))
    for first_step in (1, 7, len(epoch)):
        assert equal(epoch[first_step:], list(batches.training(3, 4, first_step)))


def test_pairs_meet_others_in_each_epoch_and_batches_come_in_another_order() -> None:
    batches = make(numbered(2000, longest=12), 200)
    epochs = [[rows_of(batch) for batch in batches.training(0, epoch)] for epoch in range(2)]
    assert [len(rows) for rows in epochs[0]] != [len(rows) for rows in epochs[1]]
    partners = [{row: set(rows) for rows in epoch for row in rows} for epoch in epochs]
    again = np.mean([len(partners[0][row] & partners[1][row]) / len(partners[0][row]) for row in range(2000)])
    assert again < 0.4


def test_evaluation_holds_all_in_one_order() -> None:
    batches = make()
    validation = numbered(77, seed=1, longest=150)  # some are longer than the training budget
    found = list(batches.evaluation(validation))
    rows = batches.evaluation_rows(validation)
    assert [rows_of(batch) for batch in found] == [part.tolist() for part in rows]
    assert sorted(np.concatenate(rows)) == list(range(77))
    assert equal(found, list(batches.evaluation(validation)))
    for batch, part in zip(found, rows, strict=True):
        assert equal([batch], [batches.chosen(validation, part)])


def test_length_batches() -> None:
    assert [rows.tolist() for rows in length_batches(np.array([3, 1, 2, 5, 2]), 6)] == [[1, 2, 4], [0], [3]]
    assert length_batches(np.array([], np.int64), 6) == []


def test_a_pair_longer_than_the_budget() -> None:
    message = r"^train\.batch_tokens: the longest sentence has 20 subwords, and a batch takes 19; set it to 20 or more$"
    with pytest.raises(LeanformerError, match=message):
        make(batch_tokens=19)
    assert make(batch_tokens=20).steps_per_epoch


def test_multi30k(shared_data: Any) -> None:
    lines = [json.loads(line) for line in (shared_data / "multi30k" / "train.jsonl").open()][:4000]
    pairs = SentencePairs(tuple(line["de"] for line in lines), tuple(line["en"] for line in lines))
    tokenizer = train_tokenizer(TokenizerConfig(vocabulary=4000), pairs.sources, pairs.targets)
    everything = encode_pairs(pairs, tokenizer)
    left_out = everything.too_long(50, 50)
    encoded = everything.without(left_out)
    assert len(left_out) < 10
    real = padded = 0
    for batch in TextBatches(encoded, 4096, tokenizer.pad_id, tokenizer.pad_id).training(0, 0):
        real += int(batch["attention_mask"].sum() + (batch["labels"] != -100).sum())
        padded += batch["input_ids"].numel() + batch["labels"].numel()
    assert real / padded > 0.85

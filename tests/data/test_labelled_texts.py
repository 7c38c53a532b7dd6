"""Labelled texts: where they come from, which columns are read, how they are divided, encoded and put into batches."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from tiny_texts import opinions, tiny_tokenizer, write_texts

from leanformer.config.text_classification import ClassTextDataConfig
from leanformer.core.errors import LeanformerError
from leanformer.data.labelled_text_batches import LabelledTextBatches, encode_labelled
from leanformer.data.labelled_texts import LabelledTextData, LabelledTexts, load_labelled_texts, load_tested_texts

CPU = torch.device("cpu")


def load(source: Path | str, **keys: Any) -> LabelledTextData:
    return load_labelled_texts(ClassTextDataConfig(source=str(source), **keys))


def error_of(source: Path | str, **keys: Any) -> str:
    with pytest.raises(LeanformerError) as caught:
        load(source, **keys)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def all_texts(data: LabelledTextData) -> set[tuple[str, str]]:
    parts = (data.train, data.validation, data.test)
    return {(text, data.classes[label]) for part in parts for text, label in zip(part.texts, part.labels, strict=True)}


def test_the_same_texts_from_every_kind_of_file(tmp_path: Path) -> None:
    rows = opinions(60)
    tsv = write_texts(tmp_path / "a.tsv", rows)
    (tmp_path / "a.csv").write_text("label;text\n" + "".join(f'{label};"{text}"\n' for text, label in rows))
    objects = [{"text": text, "label": label} for text, label in rows]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(one) + "\n" for one in objects))
    datasets.Dataset.from_list(objects).to_parquet(tmp_path / "a.parquet")
    bare = write_texts(tmp_path / "bare.tsv", rows, ())
    packed = tmp_path / "b.tsv.gz"
    packed.write_bytes(gzip.compress(tsv.read_bytes()))
    (tmp_path / "hub").mkdir()
    datasets.Dataset.from_list(objects).to_parquet(tmp_path / "hub/train-00000-of-00001.parquet")
    files = [tsv, tmp_path / "a.csv", tmp_path / "a.jsonl", tmp_path / "a.parquet", bare, packed, tmp_path / "hub"]
    first, *others = (load(file) for file in files)
    assert all_texts(first) == set(rows)
    assert first.classes == ("bad", "good")
    for other in others:
        assert all_texts(other) == all_texts(first)
        assert other.test.texts == first.test.texts
    assert {len(first.train), len(first.validation), len(first.test)} == {43, 5, 12}


def test_given_splits_and_classes_by_number(tmp_path: Path) -> None:
    for name, seed in (("train", 0), ("dev", 1), ("test", 2)):
        numbered = [(text, {"good": "10", "bad": "9"}[label]) for text, label in opinions(20, seed)]
        write_texts(tmp_path / f"{name}.tsv", numbered, ())
    data = load(tmp_path, train_limit=10)
    assert data.classes == ("9", "10")  # as numbers, not as texts
    assert (len(data.train), len(data.validation), len(data.test)) == (10, 20, 20)


def test_pairs_and_columns_are_found_or_given(tmp_path: Path) -> None:
    rows = [(str(number), text, f"{text} again", label) for number, (text, label) in enumerate(opinions(30))]
    file = write_texts(tmp_path / "pairs.tsv", rows, ("idx", "premise", "hypothesis", "label"))
    data = load(file)
    assert data.pairs
    assert data.train.rows()[0][1] == f"{data.train.rows()[0][0]} again"
    assert "columns: premise and hypothesis (text), label (label)" in data.notes
    single = load(file, text="hypothesis")
    assert single.train.seconds is None
    odd = write_texts(tmp_path / "odd.tsv", rows, ("idx", "left", "right", "verdict"))
    assert "several text columns: left, right, verdict; set data.text to one" in error_of(odd, label="idx", text=None)
    assert load(odd, text="left", second_text="right", label="verdict").pairs
    assert "no column 'x' in" in error_of(odd, text="x", label="verdict")
    assert "name the column of the other text too" in error_of(odd, second_text="left", label="verdict")


def test_groups_stay_whole(tmp_path: Path) -> None:
    rows = [(text, label, f"author-{number // 4}") for number, (text, label) in enumerate(opinions(80))]
    data = load(write_texts(tmp_path / "a.tsv", rows, ("text", "label", "author")), group="author")
    parts = [set(part.groups or ()) for part in (data.train, data.validation, data.test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 20


def test_what_is_wrong_with_texts_is_said_in_one_line(tmp_path: Path) -> None:
    rows = opinions(30)
    empty = [*rows[:3], ("", "good"), *rows[3:]]
    assert "row 3, column 'text': the text is empty (1 of 31 are)" in error_of(write_texts(tmp_path / "e.tsv", empty))
    minus = [(text, {"good": "1", "bad": "-1"}[label]) for text, label in rows]
    assert "label -1 is out of range (-1 often stands for no label)" in error_of(write_texts(tmp_path / "m.tsv", minus))
    missing = [*rows, ("a fine film", "")]
    assert "no label; fill it in" in error_of(write_texts(tmp_path / "n.tsv", missing))
    turned = [(label, text) for text, label in rows]
    assert "has 30 classes for 30 training examples" in error_of(write_texts(tmp_path / "t.tsv", turned, ()))
    one = [(text, "good") for text, _ in rows]
    assert "one class only ('good')" in error_of(write_texts(tmp_path / "o.tsv", one))
    assert "3 columns without names; give two" in error_of(
        write_texts(tmp_path / "w.tsv", [(*row, "x") for row in rows], ())
    )
    assert "1 columns, and 2 in line 1" in error_of(write_texts(tmp_path / "c.tsv", [*rows, ("alone",)]))
    assert "is a file of another kind; give one of .csv" in error_of(write_texts(tmp_path / "a.docx", rows))
    (tmp_path / "nothing").mkdir()
    assert "holds no tables of texts" in error_of(tmp_path / "nothing")
    assert "no such directory or file" in error_of(tmp_path / "not there")
    file = write_texts(tmp_path / "named.tsv", [(*row, "x") for row in rows], ("words", "label", "more"))
    assert "several text columns: words, more; set data.text to one" in error_of(file)
    assert "data.subset does nothing here" in error_of(file, subset="x")


def test_warnings_about_leaks_and_conflicts(tmp_path: Path) -> None:
    rows = opinions(30)
    write_texts(tmp_path / "data/train.tsv", [*rows, (rows[0][0], "bad")])
    write_texts(tmp_path / "data/dev.tsv", opinions(10, seed=2))
    write_texts(tmp_path / "data/test.tsv", [*opinions(10, seed=1), (rows[2][0].upper(), rows[2][1])])
    (tmp_path / "more.txt").write_text(f"{opinions(10, seed=1)[0][0]}\nsome other text\n")
    data = load(tmp_path / "data", unlabelled=str(tmp_path / "more.txt"))
    codes = [warning.code for warning in data.warnings]
    assert codes.count("leaked-sentences") == 2
    assert "conflicting-labels" in codes
    assert data.unlabelled == (opinions(10, seed=1)[0][0], "some other text")


def test_the_built_in_texts(tmp_path: Path) -> None:
    numbers: Any = {"languages": ("de", "en"), "largest": 10_000, "train": 100, "validation": 20, "test": 30}
    data, again = (load_labelled_texts(ClassTextDataConfig(numbers=numbers)) for _ in range(2))
    assert data.classes == ("de", "en")
    assert (len(data.train), len(data.validation), len(data.test)) == (100, 20, 30)
    assert data.train.texts == again.train.texts
    assert not set(data.train.texts) & set(data.test.texts)
    wrong: Any = {**numbers, "languages": ("de", "xx")}
    assert "number-languages has no language 'xx'" in error_of("number-languages", numbers=wrong)


def test_tested_texts_are_numbered_as_the_model_has_its_classes(tmp_path: Path) -> None:
    file = write_texts(tmp_path / "new.tsv", opinions(6))
    config = ClassTextDataConfig(source=str(file))
    data = load_tested_texts(config, ("model", ["good", "bad", "none"]))
    assert data.classes == ("good", "bad", "none")
    assert data.test.labels.tolist() == [0, 1] * 3
    with pytest.raises(LeanformerError, match="class 'good' is none of the model's"):
        load_tested_texts(config, ("model", ["fine", "bad"]))


def test_texts_are_cut_and_padded_in_batches_of_similar_length() -> None:
    tokenizer = tiny_tokenizer()
    rows = opinions(40)
    texts = LabelledTexts(tuple(text for text, _ in rows), None, np.arange(40) % 2)
    encoded = encode_labelled(texts, tokenizer, 8, False, CPU)
    whole = encode_labelled(texts, tokenizer, 100, False, CPU)
    assert encoded.tokens.lengths.max() == 8
    assert encoded.cut == int((whole.tokens.lengths > 8).sum()) > 0
    end, start = tokenizer.marks["sep_token_id"], tokenizer.marks["cls_token_id"]
    assert all(encoded.tokens[row][0] == start and encoded.tokens[row][-1] == end for row in range(40))

    batches = LabelledTextBatches(whole, 64, tokenizer.pad_id, CPU)
    seen = []
    for batch in batches.training(seed=0, epoch=0):
        assert batch["input_ids"].numel() <= 64
        assert torch.equal(batch["attention_mask"] == 0, batch["input_ids"] == tokenizer.pad_id)
        seen += [
            tuple(ids[mask == 1].tolist())
            for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
        ]
    assert sorted(seen) == sorted(tuple(whole.tokens[row].tolist()) for row in range(40))
    first, second = (list(batches.training(0, epoch)) for epoch in (0, 0))
    assert all(torch.equal(one["labels"], two["labels"]) for one, two in zip(first, second, strict=True))


def test_a_pair_says_of_which_text_each_token_is() -> None:
    tokenizer = tiny_tokenizer()
    texts = LabelledTexts(("a fine film",), ("a dull story with people",), np.array([0]))
    encoded = encode_labelled(texts, tokenizer, 9, True, CPU)
    assert encoded.types is not None
    assert len(encoded.types[0]) == len(encoded.tokens[0]) == 9
    assert sorted(set(encoded.types[0].tolist())) == [0, 1]
    batch = next(LabelledTextBatches(encoded, 64, tokenizer.pad_id, CPU).training(0, 0))
    assert batch["token_type_ids"].tolist() == [encoded.types[0].tolist()]

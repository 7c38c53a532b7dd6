"""Sources of sentence pairs, how they are divided, and what bad ones get."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub.errors import RepositoryNotFoundError

from leanformer.config.images import ImageDataConfig
from leanformer.config.translation import NumberWordsConfig, TextDataConfig
from leanformer.core.errors import LeanformerError
from leanformer.data.image_sources import open_source
from leanformer.data.iwslt import read_iwslt
from leanformer.data.pairs import SentencePairs
from leanformer.data.text_sources import TextData, load_text

ENGLISH = tuple(f"this is sentence {number}" for number in range(40))
GERMAN = tuple(f"dies ist Satz {number}" for number in range(40))
PAIRS = tuple(zip(ENGLISH, GERMAN, strict=True))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def load(source: Path | str, **keys: Any) -> TextData:
    languages = {"source_language": "en", "target_language": "de"}
    return load_text(TextDataConfig(source=str(source), **{**languages, **keys}))


def error_of(source: Path | str, **keys: Any) -> str:
    """The one line that loading a bad source ends with."""
    with pytest.raises(LeanformerError) as caught:
        load(source, **keys)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rows(pairs: SentencePairs) -> list[tuple[str, str]]:
    return list(zip(pairs.sources, pairs.targets, strict=True))


def everything(data: TextData) -> list[tuple[str, str]]:
    return sorted(rows(data.train) + rows(data.validation) + rows(data.test))


def write_lines(file: Path, lines: Sequence[str], end: str = "\n") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes("".join(line + end for line in lines).encode())
    return file


def write_plain(prefix: Path, english: Sequence[str] = ENGLISH, german: Sequence[str] = GERMAN) -> Path:
    write_lines(prefix.with_name(prefix.name + ".en"), english)
    write_lines(prefix.with_name(prefix.name + ".de"), german)
    return prefix


def write_jsonl(file: Path, values: Sequence[Any]) -> Path:
    return write_lines(file, [json.dumps(value, ensure_ascii=False) for value in values])


def columns(pairs: Sequence[tuple[str | None, str | None]] = PAIRS) -> list[dict[str, str | None]]:
    return [{"en": english, "de": german} for english, german in pairs]


def write_tmx(file: Path, units: Sequence[str], end: str = "</body></tmx>\n", encoding: str = "utf-8") -> Path:
    head = f'<?xml version="1.0" encoding="{encoding}"?>\n<!DOCTYPE tmx SYSTEM "tmx14.dtd">\n<tmx version="1.4">'
    header = '<header creationtool="t" creationtoolversion="1" segtype="sentence" o-tmf="t" adminlang="en" '
    header += 'srclang="en" datatype="plaintext"/>\n<body>\n'
    file.write_bytes((head + header + "\n".join(units) + "\n" + end).encode(encoding))
    return file


def unit(**texts: str) -> str:
    variants = (f'<tuv xml:lang="{code.replace("_", "-")}"><seg>{text}</seg></tuv>' for code, text in texts.items())
    return f"<tu>{''.join(variants)}</tu>"


# The archive as published: metadata lines of a training file, and documents of the others.


def tagged(talks: dict[str, Sequence[str]], language: str) -> list[str]:
    lines = []
    for number, sentences in talks.items():
        lines += [
            f"<url>http://www.ted.com/talks/{number}</url>",
            f"<keywords>talks, {language}</keywords>",
            "<speaker>Al Gore</speaker>",
            f"<talkid>{number}</talkid>",
            f"<title>Title in {language}</title>",
            f"<description>TED Talk Subtitles and Transcript: in {language} & more</description>",
            *(['<translator href="http://www.ted.com/profiles/1">A B</translator>'] if language == "de" else []),
            *sentences,
        ]
    return lines


def documents(talks: dict[str, Sequence[str]], kind: str = "srcset") -> str:
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        "<mteval>",
        f'<{kind} setid="iwslt2017-dev2010" srclang="english">',
    ]
    for number, sentences in talks.items():
        lines += [f'<doc docid="{number}" genre="lectures">', f"<url>http://www.ted.com/{number}?a=1&b=2</url>"]
        lines += [f"<talkid>{number}</talkid>", "<title>Title & more</title>"]
        lines += [f'<seg id="{index}"> {text} </seg>' for index, text in enumerate(sentences, start=1)]
        lines += ["</doc>"]
    return "\n".join([*lines, f"</{kind}>", "</mteval>", ""])


TALKS_EN: dict[str, Sequence[str]] = {"1": ["Thank you.", "<3 is a heart.", ""], "22": ["One & two.", "Bye."]}
TALKS_DE: dict[str, Sequence[str]] = {"1": ["Danke.", "<3 ist ein Herz.", "Leer."], "22": ["Eins & zwei.", "Ade."]}
DEV_EN: dict[str, Sequence[str]] = {"535": ["Research &amp; Development", "R&D costs 5 &lt; 6"], "7": ["End."]}
DEV_DE: dict[str, Sequence[str]] = {"535": ["Forschung &amp; Entwicklung", "F&E kostet 5 &lt; 6"], "7": ["Ende."]}


def write_iwslt(
    root: Path,
    train: tuple[dict[str, Sequence[str]], dict[str, Sequence[str]]] | None = (TALKS_EN, TALKS_DE),
    dev: tuple[dict[str, Sequence[str]], dict[str, Sequence[str]]] = (DEV_EN, DEV_DE),
) -> Path:
    for language, side in (("en", 0), ("de", 1)):
        if train is not None:
            write_lines(root / f"train.tags.en-de.{language}", tagged(train[side], language))
        for part in ("dev2010", "tst2010", "tst2015"):
            text = documents(dev[side]) if part == "dev2010" else documents({part: [f"{part} {language}"]})
            (root / f"IWSLT17.TED.{part}.en-de.{language}.xml").write_text(text)
    return root


# What good sources give


def test_number_words_are_the_default() -> None:
    assert TextDataConfig().source == "number-words"
    numbers = NumberWordsConfig(train=200, validation=15, test=20)
    data = load_text(TextDataConfig(numbers=numbers, train_limit=100, validation_limit=10, test_limit=20))
    assert [len(split) for split in (data.train, data.validation, data.test)] == [100, 10, 20]
    assert data.notes[0] == "numbers to 1,000,000 in words (cardinal; seed 0)"
    assert "train split limited to 100 of 200 pairs (seed 0)" in data.notes


def test_multi30k(shared_data: Path) -> None:
    data = load(shared_data / "multi30k", source_language="de", target_language="en")
    assert [len(split) for split in (data.train, data.validation, data.test)] == [29_000, 1_014, 1_000]
    assert rows(data.test)[0] == (
        "Ein Mann mit einem orangefarbenen Hut, der etwas anstarrt.",
        "A man in an orange hat starring at something.",
    )
    assert "columns: de (source), en (target)" in data.notes
    (leaked,) = data.warnings
    assert (leaked.code, leaked.count) == ("leaked-sentences", 2)
    assert "validation: 2 of 1,014 pairs are in the training split too (1 by the source sentence, 1 by the" in str(
        leaked
    )


@pytest.mark.parametrize("swap", [False, True])
def test_aligned_files_by_their_prefix(tmp_path: Path, swap: bool) -> None:
    write_plain(tmp_path / "corpus.v1")
    languages = {"source_language": "de", "target_language": "en"} if swap else {}
    data = load(tmp_path / "corpus.v1", **languages)
    assert everything(data) == sorted(zip(GERMAN, ENGLISH, strict=True) if swap else PAIRS)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [34, 2, 4]
    assert any(
        note.startswith("no test split: 0.1 of the training sentences set aside (4 of 40") for note in data.notes
    )


@pytest.mark.parametrize("name", ["valid", "validation", "val", "dev"])
def test_a_directory_of_aligned_files(tmp_path: Path, name: str) -> None:
    write_plain(tmp_path / "train")
    write_plain(tmp_path / name, ENGLISH[:3], GERMAN[:3])
    write_plain(tmp_path / "test", ["new", ENGLISH[5]], ["neu", "anders"])
    write_plain(tmp_path / "extra")
    data = load(tmp_path)
    assert rows(data.train) == list(PAIRS)
    assert rows(data.validation) == list(PAIRS[:3])
    assert rows(data.test) == [("new", "neu"), (ENGLISH[5], "anders")]
    assert "splits not used: extra" in data.notes
    assert [(warning.code, warning.count) for warning in data.warnings] == [
        ("leaked-sentences", 3),
        ("leaked-sentences", 1),
    ]
    assert "validation: 3 of 3 pairs are in the training split too (3 whole); " in str(data.warnings[0])
    assert "test: 1 of 2 pairs are in the training split too (1 by the source sentence); " in str(data.warnings[1])


def test_lines_end_at_line_feeds_alone(tmp_path: Path) -> None:
    english = ["a\u2028b", "c\x85d", "e\x0cf", "\ufeffg"]
    write_lines(tmp_path / "train.en", ["\ufeffstart", *english])
    write_lines(tmp_path / "train.de", ["Anfang", "1", "2", "3", "4"], end="\r\n")
    pairs = everything(load(tmp_path / "train", test_fraction=0.2, validation_fraction=0.25))
    assert pairs == sorted(zip(["start", *english], ["Anfang", "1", "2", "3", "4"], strict=True))


def test_pairs_with_an_empty_side_go_together_and_are_counted(tmp_path: Path) -> None:
    english, german = list(ENGLISH), list(GERMAN)
    english[3], german[7], english[9], german[9] = "", "  \t", "", ""
    data = load(write_plain(tmp_path / "train", english, german))
    assert everything(data) == sorted(pair for row, pair in enumerate(PAIRS) if row not in (3, 7, 9))
    assert "train: 3 of 40 pairs left out, as a side is empty" in data.notes


def test_tsv(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "pairs.tsv", [f"{english}\t{german}" for english, german in PAIRS], end="\r\n")
    assert everything(load(file)) == sorted(PAIRS)


def test_tsv_with_a_header(tmp_path: Path) -> None:
    lines = ["id\tde\ten", *(f"{row}\t{german}\t{english}" for row, (english, german) in enumerate(PAIRS)), ""]
    data = load(write_lines(tmp_path / "pairs.tsv", lines))
    assert everything(data) == sorted(PAIRS)
    assert "train: 1 of 41 pairs left out, as a side is empty" in data.notes


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_tmx(tmp_path: Path, encoding: str) -> None:
    units = [
        unit(
            en_US=f"Press <bpt i='1'>&lt;b&gt;</bpt><hi>key</hi> {row}<ept i='1'>&lt;/b&gt;</ept>\n now",
            DE=f"Taste {row} ü",
        )
        for row in range(20)
    ]
    units += [unit(en_GB="colour", en="color", en_US="gray", de_AT="Farbe"), unit(en="alone"), unit(fr="seul", de="da")]
    data = load(write_tmx(tmp_path / "memory.tmx", units, encoding=encoding))
    assert everything(data) == sorted(
        [*((f"Press key {row} now", f"Taste {row} ü") for row in range(20)), ("color", "Farbe")]
    )
    assert data.notes[0] == "2 translation units without both languages left out"


def test_tmx_with_a_region_wanted(tmp_path: Path) -> None:
    units = [unit(en_GB=f"grey {row}", en_US=f"gray {row}", de=f"grau {row}") for row in range(20)]
    units.append(unit(en_GB="colour", de="Farbe"))  # another region is another language
    data = load(write_tmx(tmp_path / "memory.tmx", units), source_language="en-US", target_language="de-CH")
    assert everything(data) == sorted((f"gray {row}", f"grau {row}") for row in range(20))


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_one_table_file(tmp_path: Path, suffix: str, nested: bool) -> None:
    values: list[Any] = [{"id": row, **pair} for row, pair in enumerate(columns())]
    if nested:
        values = [{"id": str(row), "translation": pair} for row, pair in enumerate(columns())]
    file = tmp_path / f"pairs.{suffix}"
    if suffix == "jsonl":
        write_jsonl(file, values)
    else:
        pq.write_table(pa.Table.from_pylist(values), file)
    data = load(file, source_language="de", target_language="en")
    assert everything(data) == sorted(zip(GERMAN, ENGLISH, strict=True))


def test_brackets_in_a_text_are_not_nested(tmp_path: Path) -> None:
    english = [f'{"[{" * 100} " {number}' for number in range(40)]
    write_jsonl(tmp_path / "p.jsonl", columns(list(zip(english, GERMAN, strict=True))))
    assert everything(load(tmp_path / "p.jsonl")) == sorted(zip(english, GERMAN, strict=True))


def test_a_directory_in_the_hubs_layout(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", columns([*PAIRS, (None, "nichts"), ("two\r\n lines", "zwei\nZeilen")]))
    write_jsonl(tmp_path / "val.jsonl", columns(PAIRS[:2]))
    data = load(tmp_path)
    assert len(data.train) + len(data.test) == 41
    assert rows(data.validation) == list(PAIRS[:2])
    assert ("two lines", "zwei Zeilen") in everything(data)
    assert "train: 1 of 42 pairs left out, as a side is empty" in data.notes


# The IWSLT archive


@pytest.mark.parametrize("swap", [False, True])
def test_an_iwslt_archive(tmp_path: Path, swap: bool) -> None:
    languages = {"source_language": "de", "target_language": "en"} if swap else {}
    data = load(write_iwslt(tmp_path), **languages)
    splits = [rows(split) for split in (data.train, data.validation, data.test)]
    if swap:
        splits = [[(target, source) for source, target in split] for split in splits]
    assert splits[0] == [
        ("Thank you.", "Danke."),
        ("<3 is a heart.", "<3 ist ein Herz."),
        ("One & two.", "Eins & zwei."),
        ("Bye.", "Ade."),
    ]
    assert splits[1] == [
        ("Research & Development", "Forschung & Entwicklung"),
        ("R&D costs 5 < 6", "F&E kostet 5 < 6"),
        ("End.", "Ende."),
    ]
    assert splits[2] == [("tst2010 en", "tst2010 de"), ("tst2015 en", "tst2015 de")]
    assert "train.tags.en-de.*: 2 talks, 5 pairs (train)" in data.notes
    assert "train: 1 of 5 pairs left out, as a side is empty" in data.notes


def test_the_published_iwslt_files(shared_data: Path, tmp_path: Path) -> None:
    splits, notes = read_iwslt(shared_data / "iwslt2017", ("de", "en"))
    assert {role: len(pairs) for role, pairs in splits.items()} == {"validation": 888, "test": 8_079}
    assert len(notes) == 7
    for file in (shared_data / "iwslt2017").glob("*.xml"):
        shutil.copy(file, tmp_path)
    for language, talks in (("en", TALKS_EN), ("de", TALKS_DE)):
        write_lines(tmp_path / f"train.tags.en-de.{language}", tagged(talks, language))
    data = load(tmp_path, source_language="de", target_language="en")
    assert [len(split) for split in (data.train, data.validation, data.test)] == [4, 888, 8_079]
    assert data.validation.sources[1].startswith("Aber dies drückt nicht stark genug die Ernsthaftigkeit")
    assert data.validation.targets[1].startswith("But this understates the seriousness of this particular problem")
    assert (data.test.sources[-1], data.test.targets[-1]) != ("", "")


# Splits


def test_set_aside_sentences_are_never_trained_on(tmp_path: Path) -> None:
    english = [f"sentence {number % 20}" for number in range(60)]
    german = [f"Satz {number}" for number in range(60)]  # three translations each
    write_plain(tmp_path / "train", english, german)
    data = load(tmp_path / "train", test_fraction=0.2, validation_fraction=0.25)
    sources = [set(split.sources) for split in (data.train, data.validation, data.test)]
    assert [len(part) for part in sources] == [12, 4, 4]
    assert len(set.union(*sources)) == 20
    assert len(data.test) == 12
    assert sorted(zip(english, german, strict=True)) == everything(data)


def test_the_seed_decides_what_is_set_aside(tmp_path: Path) -> None:
    write_plain(tmp_path / "train")
    assert load(tmp_path / "train", split_seed=1) == load(tmp_path / "train", split_seed=1)
    assert load(tmp_path / "train", split_seed=1).test != load(tmp_path / "train", split_seed=2).test


def test_limits_keep_the_order_and_are_told(tmp_path: Path) -> None:
    write_plain(tmp_path / "train")
    write_plain(tmp_path / "val")
    write_plain(tmp_path / "test")
    data = load(tmp_path, train_limit=10, validation_limit=5, test_limit=100)
    for split, size in ((data.train, 10), (data.validation, 5), (data.test, 40)):
        assert len(split) == size
        order = [PAIRS.index(pair) for pair in rows(split)]
        assert order == sorted(order)
    assert "train split limited to 10 of 40 pairs (seed 0)" in data.notes
    assert not any(note.startswith("test split limited") for note in data.notes)
    assert data.train != load(tmp_path, train_limit=10, split_seed=1).train


# What bad sources get


def write_bytes(file: Path, content: bytes) -> Path:
    file.write_bytes(content)
    return file


def write_cut_tmx(root: Path) -> None:
    write_tmx(root / "m.tmx", [unit(en="a", de="b")] * 3, end="")


def write_cut_xml(root: Path) -> None:
    file = write_iwslt(root) / "IWSLT17.TED.tst2010.en-de.de.xml"
    file.write_text(file.read_text().replace("</doc>\n</srcset>\n</mteval>\n", ""))


def write_double_segment(root: Path) -> None:
    file = write_iwslt(root) / "IWSLT17.TED.dev2010.en-de.en.xml"
    file.write_text(file.read_text().replace('<seg id="2">', '<seg id="1">'))


def write_only_one_side(root: Path) -> None:
    (write_iwslt(root) / "IWSLT17.TED.tst2015.en-de.de.xml").unlink()


# What writes the data, the source below the directory, the configuration's other keys, and the message.
BAD: dict[str, tuple[Callable[[Path], Any], str, dict[str, Any], str]] = {
    "one language twice": (
        lambda root: write_plain(root / "train"),
        "",
        {"target_language": "en"},
        r"^data\.target_language: 'en' is the source language too; give two languages$",
    ),
    "empty directory": (
        lambda root: None,
        "",
        {},
        r"^data\.source .*: holds no files of pairs \(\.tsv, \.csv, \.tmx, \.jsonl, \.parquet\), no IWSLT archive, and "
        r"no files such as train\.en and train\.de$",
    ),
    "a name that is not UTF-8": (
        lambda root: write_lines(root / "caf\udce9.tsv", ["a\tb"]),
        "",
        {},
        r"^.*/caf\\udce9\.tsv: its name is not UTF-8; rename it$",
    ),
    "a table that is a pipe": (
        lambda root: os.mkfifo(root / "train.parquet"),
        "",
        {},
        r"^.*/train\.parquet: is a pipe, not a file; replace or remove it$",
    ),
    "nothing there": (
        lambda root: None,
        "corpus/train",
        {},
        r"^data\.source .*/corpus/train: no such directory or file, and no .*/corpus/train\.en and .*train\.de$",
    ),
    "a file of another kind": (
        lambda root: write_lines(root / "pairs.xls", ["a,b"]),
        "pairs.xls",
        {},
        r"^data\.source .*/pairs\.xls: is a file of another kind; give one of \.tsv, \.csv, \.tmx, \.jsonl, "
        r"\.parquet, packed \(\.gz\) or not$",
    ),
    "one side of two": (
        lambda root: write_plain(root / "train"),
        "train.de",
        {},
        r"^data\.source .*/train\.de: is a file of another kind; give .*/train for it and its partner in the other",
    ),
    "unequal line counts": (
        lambda root: write_plain(root / "train", ENGLISH[:-1]),
        "train",
        {},
        r"^.*/train\.en has 39 lines, but .*/train\.de has 40; line by line they must be each other's translation$",
    ),
    "unequal line counts in a directory": (
        lambda root: (write_plain(root / "train"), write_plain(root / "test", ENGLISH, GERMAN[:7])),
        "",
        {},
        r"/test\.en has 40 lines, but .*/test\.de has 7;",
    ),
    "missing partner": (
        lambda root: write_lines(root / "train.en", ENGLISH),
        "train",
        {},
        r"^.*/train\.de: no such file, but there is .*/train\.en; aligned plain files come in pairs$",
    ),
    "missing partner in a directory": (
        lambda root: (write_plain(root / "train"), write_lines(root / "test.de", GERMAN)),
        "",
        {},
        r"/test\.en: no such file, but there is .*/test\.de;",
    ),
    "not UTF-8": (
        lambda root: (write_plain(root / "train"), write_bytes(root / "train.de", b"eins\nzwei\nf\xfcnf\n")),
        "train",
        {},
        r"^.*/train\.de, line 3: byte 0xfc is not UTF-8; convert the file to UTF-8$",
    ),
    "empty file": (
        lambda root: (write_plain(root / "train"), write_bytes(root / "train.de", b"")),
        "train",
        {},
        r"^.*/train\.de: is empty; fill it or remove it$",
    ),
    "file of blank lines": (
        lambda root: (write_plain(root / "train"), write_bytes(root / "train.de", b"\n" * 40)),
        "train",
        {},
        r"^.*/train\.de: is empty; fill it or remove it$",
    ),
    "no pair without an empty side": (
        lambda root: write_plain(root / "train", ["a", ""], ["", "b"]),
        "train",
        {},
        r"^data\.source .*: all 2 pairs of the train split have an empty side; give it pairs with text on both$",
    ),
    "two validation splits": (
        lambda root: [write_plain(root / name) for name in ("train", "val", "dev")],
        "",
        {},
        r"data\.source .*: splits (dev and val|val and dev) are both for validation; keep one",
    ),
    "no training split": (
        lambda root: [write_plain(root / name) for name in ("val", "test")],
        "",
        {},
        r"data\.source .*: no training split among test, val; one must be named 'train'",
    ),
    "too few to set aside": (
        lambda root: write_plain(root / "train", ENGLISH[:5], GERMAN[:5]),
        "train",
        {},
        r"^data\.test_fraction: 0\.1 of 5 distinct source sentences leaves the test split empty; the data has no test "
        r"split, so give a larger fraction, 0\.4 or more$",
    ),
    "one sentence over and over": (
        lambda root: write_plain(root / "train", ["same"] * 40),
        "train",
        {"test_fraction": 0.9},
        r"^data\.source .*: 1 distinct source sentence to divide, which is too few to train and judge with; give 4 or "
        r"more \(1 for training, 1 for validation, 2 for test\)$",
    ),
    "three sentences": (
        lambda root: write_plain(root / "train", ENGLISH[:3], GERMAN[:3]),
        "train",
        {"test_fraction": 0.34, "validation_fraction": 0.5},
        r"^data\.source .*: 3 distinct source sentences to divide, which is too few to train and judge with; give 4 or",
    ),
    "two sentences and a test split": (
        lambda root: (
            write_plain(root / "train", ENGLISH[:1], GERMAN[:1]),
            write_plain(root / "test", ENGLISH[5:9], GERMAN[5:9]),
        ),
        "",
        {},
        r"1 distinct source sentence to divide, .* give 2 or more \(1 for training, 1 for validation\)$",
    ),
    "tsv with three columns": (
        lambda root: write_lines(root / "p.tsv", ["a\tb\tc"] * 20),
        "p.tsv",
        {},
        r"^.*/p\.tsv, line 1: 3 columns; give two, en and de, or a first line with the columns' names",
    ),
    "tsv line with a tab too many": (
        lambda root: write_lines(root / "p.tsv", ["a\tb"] * 6 + ["a\tb\tc"]),
        "p.tsv",
        {},
        r"^.*/p\.tsv, line 7: 3 columns, but line 1 has 2; a sentence must not contain a tab$",
    ),
    "tsv line without a tab": (
        lambda root: write_lines(root / "p.tsv", ["en\tde", "a\tb", "only"]),
        "p.tsv",
        {},
        r"^.*/p\.tsv, line 3: 1 column, but line 1 has 2;",
    ),
    "tsv header of other languages": (
        lambda root: write_lines(root / "p.tsv", ["en\tfr\tit", "a\tb\tc"]),
        "p.tsv",
        {},
        r"^.*/p\.tsv, line 1: no column 'de'; there are en, fr, it$",
    ),
    "tsv that is not UTF-8": (
        lambda root: write_bytes(root / "p.tsv", b"a\tb\n\xff\tb\n"),
        "p.tsv",
        {},
        r"^.*/p\.tsv, line 2: byte 0xff is not UTF-8",
    ),
    "tmx that ends early": (
        write_cut_tmx,
        "m.tmx",
        {},
        r"^.*/m\.tmx, line 8: not whole XML \(no element found\); copy",
    ),
    "tmx that is no XML": (
        lambda root: write_bytes(root / "m.tmx", b"<tmx><body></tmx>"),
        "m.tmx",
        {},
        r"^.*/m\.tmx, line 1: not well-formed XML \(mismatched tag\); fix that line, or export the file again$",
    ),
    "empty tmx": (lambda root: write_bytes(root / "m.tmx", b""), "m.tmx", {}, r"^.*/m\.tmx: is empty; fill it"),
    "tmx of other languages": (
        lambda root: write_tmx(root / "m.tmx", [unit(en="a", fr_FR="b")]),
        "m.tmx",
        {},
        r"^.*/m\.tmx: no unit has both en and de; its languages are en, fr-FR$",
    ),
    "tmx without units": (
        lambda root: write_tmx(root / "m.tmx", []),
        "m.tmx",
        {},
        r"^.*/m\.tmx: no unit has both en and de; it holds no translation units$",
    ),
    "wrong language column": (
        lambda root: write_jsonl(root / "train.jsonl", columns()),
        "",
        {"source_language": "fr"},
        r"^data\.source_language: no column 'fr' in .*; there are en, de$",
    ),
    "wrong language in translation": (
        lambda root: write_jsonl(root / "p.jsonl", [{"translation": pair} for pair in columns()]),
        "p.jsonl",
        {"target_language": "fr"},
        r"^data\.target_language: no column 'fr' in .*; there are en, de$",
    ),
    "column of numbers": (
        lambda root: write_jsonl(root / "p.jsonl", [{"en": "one", "de": 1}] * 20),
        "p.jsonl",
        {},
        r"^data\.target_language: column 'de' of .* holds whole numbers; it must hold a text in each row, which in "
        r"JSON is in double quotes$",
    ),
    "column of nothing": (
        lambda root: write_jsonl(root / "p.jsonl", [{"en": "one", "de": None}] * 20),
        "p.jsonl",
        {},
        r"column 'de' of .* holds nothing; it must hold a text in each row",
    ),
    "column of texts and numbers": (
        lambda root: write_jsonl(root / "p.jsonl", [{"en": "one", "de": 1}, {"en": "one", "de": "eins"}] * 20),
        "p.jsonl",
        {},
        r"column 'de' of .* holds values of several kinds, such as texts and numbers; it must hold a text in each row",
    ),
    "column of lists": (
        lambda root: write_jsonl(root / "p.jsonl", [{"en": [0.5], "de": "eins"}] * 20),
        "p.jsonl",
        {},
        r"column 'en' of .* holds lists; it must hold a text in each row",
    ),
    "column of objects": (
        lambda root: write_jsonl(root / "p.jsonl", [{"en": {"a": 0.5}, "de": "eins"}] * 20),
        "p.jsonl",
        {},
        r"column 'en' of .* holds objects with columns of their own; it must hold a text in each row",
    ),
    "column of numbers with decimals": (
        lambda root: write_jsonl(root / "p.jsonl", [{"en": 0.5, "de": "eins"}] * 20),
        "p.jsonl",
        {},
        r"column 'en' of .* holds numbers with decimals; it must hold a text in each row",
    ),
    "column of truth values": (
        lambda root: write_jsonl(root / "p.jsonl", [{"en": True, "de": "eins"}] * 20),
        "p.jsonl",
        {},
        r"column 'en' of .* holds true and false; it must hold a text in each row",
    ),
    "column of dates": (
        lambda root: pq.write_table(pa.table({"en": [date(2000, 1, 1)], "de": ["eins"]}), root / "p.parquet"),
        "p.parquet",
        {},
        r"column 'en' of .* holds values of the type date32; it must hold a text in each row",
    ),
    "nested far too deep": (
        lambda root: write_lines(root / "p.jsonl", ['{"en": "[{", "de": "b"}', '{"en": ' + "[" * 10**5 + "]" * 10**5]),
        "p.jsonl",
        {},
        r"^.*/p\.jsonl, line 2: brackets are nested more than 60 deep; write one object on each line, with plain",
    ),
    "nested too deep in a packed file": (
        lambda root: write_bytes(root / "p.jsonl.gz", gzip.compress(b'{"a":' * 61 + b'"x"' + b"}" * 61)),
        "p.jsonl.gz",
        {},
        r"^.*/p\.jsonl\.gz, line 1: brackets are nested more than 60 deep",
    ),
    "jsonl that is cut": (
        lambda root: write_lines(root / "p.jsonl", ['{"en": "a", "de": "b"}', '{"en": "a", "d']),
        "p.jsonl",
        {},
        r"^.*/p\.jsonl, line 2: not complete JSON \(.*\); write one object on each line$",
    ),
    "jsonl that is not UTF-8": (
        lambda root: write_bytes(root / "p.jsonl", b'{"en": "a", "de": "b"}\n{"en": "a", "de": "\xe4"}\n'),
        "p.jsonl",
        {},
        r"^.*/p\.jsonl, split train, row 1, column 'de': byte 0xe4 is not UTF-8; convert the file to UTF-8$",
    ),
    "jsonl in UTF-16": (
        lambda root: write_bytes(root / "p.jsonl", '{"en": "a", "de": "b"}\n'.encode("utf-16")),
        "p.jsonl",
        {},
        r"^.*/p\.jsonl, line 1: byte 0xff is not UTF-8; convert the file to UTF-8$",
    ),
    "jsonl of lists": (
        lambda root: write_jsonl(root / "p.jsonl", [["a", "b"]] * 20),
        "p.jsonl",
        {},
        r"^.*/p\.jsonl, line 1: holds no JSON object; write one object on each line$",
    ),
    "empty jsonl": (
        lambda root: write_bytes(root / "p.jsonl", b""),
        "p.jsonl",
        {},
        r"^.*/p\.jsonl: is empty; fill it or remove it$",
    ),
    "cut parquet": (
        lambda root: write_bytes(root / "p.parquet", b"PAR1 and no more"),
        "p.parquet",
        {},
        r"^.*/p\.parquet: not a whole parquet file \(.*\); copy or download it again$",
    ),
    "iwslt of other languages": (
        write_iwslt,
        "",
        {"target_language": "fr"},
        r"^data\.source .*: an IWSLT archive without files of en-fr; there are en-de$",
    ),
    "iwslt without its training file": (
        lambda root: write_iwslt(root, train=None),
        "",
        {},
        r"^data\.source .*: holds no training file train\.tags\.en-de\.en \(or of the other direction\); take it from",
    ),
    "iwslt with a side missing": (
        write_only_one_side,
        "",
        {},
        r"^.*/IWSLT17\.TED\.tst2015\.en-de\.de\.xml: no such file, but there is .*\.en\.xml; the two belong together$",
    ),
    "iwslt with a segment missing": (
        lambda root: write_iwslt(root, dev=(DEV_EN, {**DEV_DE, "535": DEV_DE["535"][:1]})),
        "",
        {},
        r"^.*dev2010\.en-de\.en\.xml: talk 535 has 2 sentences, and 1 in .*dev2010\.en-de\.de\.xml; number 2 is in one "
        "of them alone$",
    ),
    "iwslt with a segment twice": (
        write_double_segment,
        "",
        {},
        r"^.*dev2010\.en-de\.en\.xml: talk 535 has two segments '1'; each has its own number$",
    ),
    "iwslt with documents in another order": (
        lambda root: write_iwslt(root, dev=(DEV_EN, dict(reversed(DEV_DE.items())))),
        "",
        {},
        r"^.*dev2010\.en-de\.en\.xml: talk 1 has the number 535, but 7 in .*; both must hold the same talks in",
    ),
    "iwslt with a document missing": (
        lambda root: write_iwslt(root, dev=({"535": DEV_EN["535"]}, DEV_DE)),
        "",
        {},
        r"^.*dev2010\.en-de\.en\.xml has 1 talks, but .*dev2010\.en-de\.de\.xml has 2; both must hold the same$",
    ),
    "iwslt that ends early": (
        write_cut_xml,
        "",
        {},
        r"^.*tst2010\.en-de\.de\.xml, line 9: not whole XML \(no element found\); copy or download the file again$",
    ),
    "iwslt with a training line missing": (
        lambda root: write_iwslt(root, train=(TALKS_EN, {**TALKS_DE, "1": TALKS_DE["1"][:2]})),
        "",
        {},
        r"^.*train\.tags\.en-de\.en: talk 1 has 3 sentences, and 2 in .*train\.tags\.en-de\.de; number 3 is in one",
    ),
    "iwslt with a training talk missing": (
        lambda root: write_iwslt(root, train=(TALKS_EN, {"22": TALKS_DE["22"]})),
        "",
        {},
        r"^.*train\.tags\.en-de\.en: talk 1 has the number 1, but 22 in .*train\.tags\.en-de\.de; both must hold",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_source_is_one_clear_line(case: str, tmp_path: Path) -> None:
    write, name, keys, message = BAD[case]
    write(tmp_path)
    assert re.search(message, error := error_of(tmp_path / name, **keys)), error


def test_a_subset_of_what_has_none_is_one_line(tmp_path: Path) -> None:
    write_plain(tmp_path / "plain" / "train")
    write_iwslt(tmp_path / "archive")
    write_jsonl(tmp_path / "p.jsonl", columns())
    for name in ("plain", "plain/train", "archive", "p.jsonl"):
        load(tmp_path / name)
        assert error_of(tmp_path / name, subset="x") == (
            f"data.subset does nothing here: 'x' would be a configuration of a hub data set, and {tmp_path / name} is "
            "none; leave it out"
        )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pipe", r"pipe: is a pipe; give a file or a directory$"),
        ("/dev/null", "^data.source /dev/null: is a device; give a file or a directory$"),
        ("loop", r"loop: cannot be read \(a loop of links\); give another path$"),
        ("loop/train", r"loop/train: cannot be read \(a loop of links\); give another path$"),
        ("broken", r"broken: is a link to gone, which does not exist; repair the link$"),
        ("n" * 300, r"n: cannot be read \(File name too long\); give another path$"),
        ("~no-such-user/train", r"^data\.source ~no-such-user/train: the home directory ~no-such-user is not known;"),
    ],
)
def test_what_is_no_source_is_called_by_its_name(tmp_path: Path, name: str, message: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("other")
    (tmp_path / "other").symlink_to("loop")
    (tmp_path / "broken").symlink_to("gone")
    source = name if name.startswith("~") else str(tmp_path / name)
    assert re.search(message, error_of(source))
    with pytest.raises(LeanformerError, match=message):  # of images too
        open_source(ImageDataConfig(source=source))


def test_the_hub_is_asked_where_nothing_local_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    def dataset_info(_: object, name: str, timeout: float) -> None:
        response: Any = SimpleNamespace(headers={}, request=None)
        raise RepositoryNotFoundError("404", response=response)

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    assert error_of("some/thing") == (
        "data.source some/thing: no such directory or file, and no some/thing.en and some/thing.de, and as a hub data "
        "set it does not exist or is private; check the name"
    )

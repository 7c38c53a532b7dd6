"""Files of sentence pairs as people have them: packed, from any system, in odd encodings, damaged, malicious."""

from __future__ import annotations

import encodings
import gzip
import json
import pkgutil
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from num2words import num2words

from leanformer.config.translation import TextDataConfig
from leanformer.core.errors import LeanformerError
from leanformer.core.signatures import files_signature
from leanformer.data import text_reading
from leanformer.data.languages import match_codes
from leanformer.data.pairs import SentencePairs
from leanformer.data.text_files import read_csv, read_tsv
from leanformer.data.text_reading import decode_text, read_lines, split_lines
from leanformer.data.text_sources import TextData, load_text
from leanformer.data.tmx import read_tmx

ENGLISH = tuple(f"sentence {number}, \u201cquoted\u201d" for number in range(40))
GERMAN = tuple(f"Satz {number}; «schön»" for number in range(40))
PAIRS = sorted(zip(ENGLISH, GERMAN, strict=True))
LANGUAGES = ("en", "de")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def load(source: Path, **keys: Any) -> TextData:
    return load_text(TextDataConfig(source=str(source), **{"source_language": "en", "target_language": "de", **keys}))


def rows(*splits: SentencePairs) -> list[tuple[str, str]]:
    return sorted(pair for pairs in splits for pair in zip(pairs.sources, pairs.targets, strict=True))


def everything(data: TextData) -> list[tuple[str, str]]:
    return rows(data.train, data.validation, data.test)


def error_of(read: Callable[[], object]) -> str:
    with pytest.raises(LeanformerError) as caught:
        read()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def tsv(end: str = "\n", header: str | None = None) -> str:
    lines = [f"{english}\t{german}" for english, german in PAIRS]
    return end.join([*([header] if header else []), *lines]) + end


def csv_text(delimiter: str = ",") -> str:
    def quoted(text: str) -> str:
        return '"' + text.replace('"', '""') + '"'

    return "".join(f"{quoted(english)}{delimiter}{quoted(german)}\r\n" for english, german in PAIRS)


def jsonl() -> str:
    return "".join(json.dumps({"en": english, "de": german}) + "\n" for english, german in PAIRS)


def tmx(encoding: str = "utf-8", attributes: str = ' version="1.4"', prefix: str = "", doctype: str = "") -> str:
    units = "".join(
        f'<{prefix}tu><{prefix}tuv xml:lang="EN-us"><{prefix}seg>{english}</{prefix}seg></{prefix}tuv>'
        f'<{prefix}tuv xml:lang="de"><{prefix}seg>{german}</{prefix}seg></{prefix}tuv></{prefix}tu>\n'
        for english, german in PAIRS
    )
    return (
        f'<?xml version="1.0" encoding="{encoding}"?>\n{doctype}<{prefix}tmx{attributes}>'
        f"<{prefix}header/><{prefix}body>\n{units}</{prefix}body></{prefix}tmx>\n"
    )


# Encodings, line ends and packing


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("packed", [False, True])
def test_plain_files_of_any_system(tmp_path: Path, encoding: str, end: str, packed: bool) -> None:
    for language, lines in (("en", ENGLISH), ("de", GERMAN)):
        content = "".join(line + end for line in lines).encode(encoding)
        file = tmp_path / f"train.{language}{'.gz' if packed else ''}"
        file.write_bytes(gzip.compress(content) if packed else content)
    assert everything(load(tmp_path / "train")) == everything(load(tmp_path)) == PAIRS


def test_one_side_alone_may_be_packed_and_an_unpacked_file_goes_first(tmp_path: Path) -> None:
    (tmp_path / "train.en").write_text("\n".join(ENGLISH))
    (tmp_path / "train.de.gz").write_bytes(gzip.compress("\n".join(GERMAN).encode()))
    assert everything(load(tmp_path)) == PAIRS
    (tmp_path / "train.en.gz").write_bytes(b"not read")
    assert everything(load(tmp_path)) == everything(load(tmp_path / "train")) == PAIRS


def test_a_packed_source_that_changed_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "train.de.gz"
    file.write_bytes(gzip.compress(b"eins\n"))
    before = files_signature(str(tmp_path / "train"), ("de.gz",))
    file.write_bytes(gzip.compress(b"eins\nzwei und noch mehr\n"))
    assert None is not before != files_signature(str(tmp_path / "train"), ("de.gz",))


def test_a_carriage_return_ends_a_line_only_where_no_line_feed_does() -> None:
    assert split_lines("a\rb\rc") == ["a", "b", "c"]
    assert split_lines("a\rb\rc\r") == ["a", "b", "c"]
    assert split_lines("a\rb\nc\n") == ["a\rb", "c"]
    assert split_lines("a\r\n\r\nb\r\n") == ["a", "", "b"]
    assert split_lines("a\u2028b\x0bc\x85d\ne") == ["a\u2028b\x0bc\x85d", "e"]


def test_files_are_told_apart_by_their_content_not_their_name(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_text("plain\n")  # unpacked on its way, the name left
    (tmp_path / "b").write_bytes(gzip.compress(b"packed\n"))
    assert read_lines(tmp_path / "a.gz") == ["plain"]
    assert read_lines(tmp_path / "b") == ["packed"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"eins\nzw\xf6lf\n", "x, line 2: byte 0xf6 is not UTF-8; convert the file to UTF-8"),
        ("eins\nzwei\n".encode("utf-16-le"), "x, line 1: holds a NUL character, as UTF-16 without a byte order mark "),
        (b"eins\nzwei \0 drei\n", "x, line 2: holds a NUL character"),
        ("eins\nzwei\n".encode("utf-16")[:-1], "x, line 2: byte 0x0a is not UTF-16; convert the file to UTF-8"),
    ],
)
def test_other_encodings_are_one_line(content: bytes, message: str) -> None:
    assert message in error_of(lambda: decode_text(content, "x"))


def test_a_file_of_a_mark_alone_is_empty(tmp_path: Path) -> None:
    (tmp_path / "p.tsv").write_bytes("\r\n".encode("utf-16"))
    assert "p.tsv: is empty; fill it or remove it" in error_of(lambda: load(tmp_path / "p.tsv"))


def contents() -> dict[str, str]:
    return {"p.tsv": tsv(), "p.csv": csv_text(), "p.tmx": tmx(), "p.jsonl": jsonl()}


@pytest.mark.parametrize("name", contents())
def test_every_kind_of_file_may_be_packed(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(contents()[name], newline="")
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(contents()[name].encode()))
    assert everything(load(tmp_path / f"{name}.gz")) == everything(load(tmp_path / name)) == PAIRS


@pytest.mark.parametrize("name", contents())
def test_a_packed_file_that_is_cut_is_one_line(tmp_path: Path, name: str) -> None:
    file = tmp_path / f"{name}.gz"
    file.write_bytes(gzip.compress(contents()[name].encode())[:-20])
    message = error_of(lambda: load(file))
    assert message.startswith(f"{file}: not a whole gzip file (Compressed file ended before")
    assert message.endswith("); copy or download it again")
    file.write_bytes(gzip.compress(contents()[name].encode())[:40] + b"x" * 500)
    assert error_of(lambda: load(file)).startswith(f"{file}: not a whole gzip file (")


@pytest.mark.parametrize("name", contents())
def test_a_file_that_unpacks_to_far_too_much_is_one_line(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_reading, "UNPACKED_FREELY", 2**20)
    file = tmp_path / f"{name}.gz"
    start = contents()[name].encode()[:60]
    file.write_bytes(gzip.compress(start + b"a" * 2**23))
    message = error_of(lambda: load(file))
    assert message.startswith(f"{file}: unpacks to more than 100 times its size")
    assert "unpack it (gunzip) and give the unpacked file" in message


def test_a_large_file_that_is_well_packed_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_reading, "UNPACKED_FREELY", 1)
    lines = ["".join(random.Random(number).choices("abc def", k=50)) for number in range(1000)]
    (tmp_path / "t.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    assert read_lines(tmp_path / "t.gz") == lines


# Tables


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\r\n", "\n", "\r"])
def test_comma_separated_values(tmp_path: Path, delimiter: str, end: str) -> None:
    (tmp_path / "p.csv").write_text(csv_text(delimiter).replace("\r\n", end), newline="")
    assert everything(load(tmp_path / "p.csv")) == PAIRS


def test_quotes_in_comma_separated_values(tmp_path: Path) -> None:
    text = 'id,DE,en-GB\r\n1,"Er sagte: ""Ja, gut""","He said ""yes, fine"""\r\n\r\n2,"zwei\r\nZeilen",two "lines"\r\n'
    (tmp_path / "p.csv").write_text(text, newline="")
    found = read_csv(tmp_path / "p.csv", LANGUAGES)
    assert found.sources == ('He said "yes, fine"', "", 'two "lines"')
    assert found.targets == ('Er sagte: "Ja, gut"', "", "zwei\r\nZeilen")


def test_a_header_decides_over_the_number_of_columns(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("de;note, please;en\nja;a, b;yes\n")
    assert rows(read_csv(tmp_path / "p.csv", LANGUAGES)) == [("yes", "ja")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'a,b\n"c,d\ne,f\n',
            r"p\.csv, line 2: not whole CSV \(unexpected end of data\); a column that begins with a quote",
        ),
        (
            'a,b\n"c" d,e\n',
            r"p\.csv, line 2: not whole CSV \(.*\); a column that begins with a quote must end with one",
        ),
        ("a,b\nc,d,e\n", r"p\.csv, line 2: 3 columns, but line 1 has 2; a sentence with a ',' must be in double quote"),
        ("a,b,c\n", r"p\.csv, line 1: 3 columns; give two, en and de, or a first line with the columns' names"),
        ("EN,fr\na,b\n", r"p\.csv, line 1: no column 'de'; there are EN, fr"),
    ],
)
def test_bad_comma_separated_values(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "p.csv").write_text(text)
    assert re.search(message, error := error_of(lambda: read_csv(tmp_path / "p.csv", LANGUAGES))), error


@pytest.mark.parametrize("header", ["EN\tDE", "En\tde", "en-US\tde_DE", " eN \tDe-AT", "eng\tx\tDE\ten"])
def test_headers_in_any_case(tmp_path: Path, header: str) -> None:
    columns = header.split("\t")
    values = {column: "yes" if column.strip().lower() in ("en", "en-us") else "ja" for column in columns}
    (tmp_path / "p.tsv").write_text(f"{header}\n" + "\t".join(values.values()) + "\n")
    assert rows(read_tsv(tmp_path / "p.tsv", LANGUAGES)) == [("yes", "ja")]


@pytest.mark.parametrize(
    "names",
    [
        ("English", "German"),
        (" english", "GERMAN "),
        ("eng", "deu"),
        ("eng_Latn", "ger"),
        ("text_en", "text_de"),
        ("en_text", "de_text"),
        ("source.en", "target.de"),
        ("English sentence", "German translation"),
        ("en-US", "German"),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_headers_that_name_the_languages_in_other_words(tmp_path: Path, names: tuple[str, str], turned: bool) -> None:
    order = slice(None, None, -1 if turned else 1)
    for name, mark, read in (("p.tsv", "\t", read_tsv), ("p.csv", ",", read_csv), ("p.csv", ";", read_csv)):
        (tmp_path / name).write_text(f"{mark.join(names[order])}\n{mark.join(('yes', 'ja')[order])}\n")
        assert rows(read(tmp_path / name, LANGUAGES)) == [("yes", "ja")]
    table = [dict(zip(names, pair, strict=True)) for pair in PAIRS]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    assert everything(load(tmp_path / "p.jsonl")) == PAIRS


def test_a_header_in_quotes(tmp_path: Path) -> None:
    (tmp_path / "p.tsv").write_text('"de"\t"en"\n"Er sagte: ""Ja"""\t"He said ""yes"""\nja\tyes\n')
    assert rows(read_tsv(tmp_path / "p.tsv", LANGUAGES)) == [('He said "yes"', 'Er sagte: "Ja"'), ("yes", "ja")]
    (tmp_path / "p.tsv").write_text('"German"\t"English"\n"Ja," sagte er\t"Yes," he said\n')
    message = error_of(lambda: read_tsv(tmp_path / "p.tsv", LANGUAGES))
    assert re.search(
        r"p\.tsv, line 2: not whole CSV \(.*\); a column that begins with a quote must end with one", message
    )
    (tmp_path / "p.tsv").write_text('"Ja"\t"Yes"\n')  # no header: the quotes are the sentences' own
    assert rows(read_tsv(tmp_path / "p.tsv", LANGUAGES)) == [('"Ja"', '"Yes"')]


@pytest.mark.parametrize(
    "header",
    ["source\ttarget", "SRC\tTgt", '"source"\t"target"', "source_text\ttarget_text", "French\tItalian", "fra\tita"],
)
def test_a_first_row_of_other_names_is_no_pair(tmp_path: Path, header: str) -> None:
    first, second = (name.strip('"') for name in header.split("\t"))
    for name, mark, read in (("p.tsv", "\t", read_tsv), ("p.csv", ";", read_csv)):
        (tmp_path / name).write_text(f"{header.replace(chr(9), mark)}\nyes{mark}ja\n")
        assert error_of(lambda name=name, read=read: read(tmp_path / name, LANGUAGES)) == (  # type: ignore[misc]
            f"{tmp_path / name}, line 1: {first!r} and {second!r} look like the names of columns, not like a sentence "
            "and its translation; name the columns en and de there, or remove the line"
        )


def test_a_first_row_that_names_one_of_the_languages(tmp_path: Path) -> None:
    for header in ("English\tFrench", "eng\ttranslation", "source\tenglish"):
        (tmp_path / "p.tsv").write_text(f"{header}\nyes\tja\n")
        message = error_of(lambda: read_tsv(tmp_path / "p.tsv", LANGUAGES))
        assert message.endswith(f"line 1: no column 'de'; there are {header.replace(chr(9), ', ')}")


@pytest.mark.parametrize(
    "first",
    [
        ("one", "eins"),
        ("German", "Deutsch"),
        ("English", "Englisch"),
        ("text", "Text"),
        ("target", "Ziel"),
        ("Hindi", "Hindi"),
        ("Text.", "Ziel."),
        ("the", "die"),
        ("in", "im"),
        ("so", "also"),
        ("I am here.", "Ich bin da."),
        ("Source: Reuters.", "Quelle: Reuters."),
        ("", "ja"),
    ],
)
def test_a_first_row_of_single_words_is_a_pair(tmp_path: Path, first: tuple[str, str]) -> None:
    for name, mark, read in (("p.tsv", "\t", read_tsv), ("p.csv", ",", read_csv)):
        (tmp_path / name).write_text(f"{mark.join(first)}\nyes{mark}ja\n")
        assert rows(read(tmp_path / name, LANGUAGES)) == sorted([first, ("yes", "ja")])


def test_number_words_are_no_headers(tmp_path: Path) -> None:
    for source, target in (("sv", "de"), ("es", "fr"), ("it", "pt"), ("fi", "en")):
        for number in range(21):
            first = num2words(number, lang=source), num2words(number, lang=target)
            (tmp_path / "p.tsv").write_text("\t".join(first) + "\n")
            assert rows(read_tsv(tmp_path / "p.tsv", (source, target))) == [first]


def test_which_name_means_a_language() -> None:
    assert match_codes(["EN", "en", "de"], LANGUAGES) == ("en", "de")
    assert match_codes(["en-GB", "EN", "DE"], LANGUAGES) == ("EN", "DE")
    assert match_codes(["eng_Latn", "de"], ("eng", "DE")) == ("eng_Latn", "de")
    assert match_codes(["pt-BR", "pt-PT"], ("pt", "pt-BR")) == ("pt-PT", "pt-BR")  # not one column for both
    assert match_codes(["en"], ("en", "en-US")) == ("en", None)
    assert match_codes(["en-GB"], ("en-US", "de")) == (None, None)
    assert match_codes(["eng-GB", "German"], ("en-US", "de")) == (None, "German")
    assert match_codes(["eng", "en"], LANGUAGES) == ("en", None)
    assert match_codes(["English", "ger"], ("eng", "deu")) == ("English", "ger")
    assert match_codes(["English", "ger"], LANGUAGES, as_code=True) == (None, None)
    assert match_codes(["german-speaking", "en passant"], LANGUAGES) == (None, None)


def test_columns_of_tables_in_another_case(tmp_path: Path) -> None:
    flat = "".join(json.dumps({"EN": english, "De": german}) + "\n" for english, german in PAIRS)
    nested = "".join(json.dumps({"translation": {"DE": german, "en": english}}) + "\n" for english, german in PAIRS)
    for text in (flat, nested):
        (tmp_path / "p.jsonl").write_text(text)
        data = load(tmp_path / "p.jsonl")
        assert everything(data) == PAIRS
    assert "columns: en (source), DE (target)" in data.notes


def test_the_hubs_own_kind_of_translations(tmp_path: Path) -> None:
    features = datasets.Features({"translation": datasets.Translation(["EN", "de-DE"])})
    pairs = [{"EN": english, "de-DE": german} for english, german in PAIRS]
    datasets.Dataset.from_dict({"translation": pairs}, features=features).to_parquet(str(tmp_path / "train.parquet"))
    data = load(tmp_path)
    assert everything(data) == PAIRS
    assert "columns: EN (source), de-DE (target)" in data.notes


def test_odd_characters_in_tables(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text("".join(f'{{"en": "a\u2028b{row}", "de": "c\\u0085d"}}\n' for row in range(30)))
    assert everything(load(tmp_path / "p.jsonl")) == sorted((f"a\u2028b{row}", "c\x85d") for row in range(30))
    (tmp_path / "p.jsonl").write_text('{"en": "a", "de": "c"}\n{"en": "a\\ud83d", "de": "c"}\n')
    assert error_of(lambda: load(tmp_path / "p.jsonl")) == (
        f"{tmp_path / 'p.jsonl'}, line 2: \\ud83d is half of a character; write both halves, or the character itself"
    )


# Directories


@pytest.mark.parametrize(("kind", "end"), [("tsv", ""), ("csv", ""), ("tmx", ""), ("tsv", ".gz"), ("tmx", ".gz")])
def test_a_directory_of_files_of_pairs(tmp_path: Path, kind: str, end: str) -> None:
    whole = contents()[f"p.{kind}"].encode()
    for name in ("train", "Test"):
        content = whole if name == "train" else whole.replace(b"entence", b"est").replace(b"Satz", b"Probe")
        (tmp_path / f"{name}.{kind}{end}").write_bytes(gzip.compress(content) if end else content)
    data = load(tmp_path)
    assert rows(data.train, data.validation) == PAIRS
    assert rows(data.test) == sorted((a.replace("entence", "est"), b.replace("Satz", "Probe")) for a, b in PAIRS)
    assert f"files: Test.{kind}{end}, train.{kind}{end}" in data.notes


def test_a_directory_of_packed_tables(tmp_path: Path) -> None:
    for name in ("train", "test"):
        (tmp_path / f"{name}.jsonl.gz").write_bytes(gzip.compress(jsonl().encode()))
    data = load(tmp_path)
    assert rows(data.train, data.validation) == rows(data.test) == PAIRS
    (tmp_path / "test.jsonl.gz").write_bytes(gzip.compress(jsonl().encode())[:-9])
    assert re.search(r"test\.jsonl\.gz: not a whole gzip file", error_of(lambda: load(tmp_path)))
    (tmp_path / "test.jsonl.gz").write_bytes(gzip.compress(jsonl().encode() + b'{"en": 1'))
    assert re.search(r"test\.jsonl\.gz, line 41: not complete JSON", error_of(lambda: load(tmp_path)))


def test_files_of_several_kinds_in_a_directory(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text(tsv())
    (tmp_path / "dev.csv").write_text(csv_text(), newline="")
    (tmp_path / "test.en").write_text("one\n")
    (tmp_path / "test.de").write_text("eins\n")
    (tmp_path / "words.csv").write_text("a,b,c,d\n")
    data = load(tmp_path)
    assert (rows(data.train), rows(data.validation), rows(data.test)) == (PAIRS, PAIRS, [("one", "eins")])
    assert "splits not used: words" in data.notes


@pytest.mark.parametrize("other", ["test.tsv", "Dev.csv.gz", "test.de"])
def test_a_split_in_a_file_of_another_kind_is_not_left_out(tmp_path: Path, other: str) -> None:
    (tmp_path / "train.jsonl").write_text(jsonl())
    (tmp_path / other).write_text(tsv())
    assert re.search(
        r": holds train\.jsonl and \S+; give all splits in files of one kind$", error_of(lambda: load(tmp_path))
    )


def test_other_files_beside_tables_are_told(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(jsonl())
    (tmp_path / "more.de").write_text("x")
    data = load(tmp_path)
    assert everything(data) == PAIRS
    assert "files not used: more.de" in data.notes


@pytest.mark.parametrize("other", ["train.csv", "train.tsv.gz", "train.en"])
def test_two_files_for_one_split(tmp_path: Path, other: str) -> None:
    (tmp_path / "train.tsv").write_text(tsv())
    (tmp_path / other).write_text("x")
    assert "are both the split 'train'; keep one of them" in error_of(lambda: load(tmp_path))


# Translation memories


@pytest.mark.parametrize(
    ("declared", "encoding"),
    [
        ("UTF-8", "utf-8-sig"),
        ("utf-16", "utf-16"),
        ("utf-16", "utf-16-be"),
        ("utf-16", "utf-16-le"),
        ("UTF-16", "utf-8"),  # converted since, the declaration left
        ("utf_16", "utf-8"),
        ("UCS-2", "utf-8"),
        ("windows-1252", "cp1252"),
        ("gb18030", "gb18030"),  # of several bytes a character, which expat does not read
    ],
)
@pytest.mark.parametrize("namespace", ["none", "default", "prefix"])
def test_memories_in_odd_encodings_and_namespaces(tmp_path: Path, declared: str, encoding: str, namespace: str) -> None:
    attributes = {"none": "", "default": ' xmlns="http://www.lisa.org/tmx14"', "prefix": ' xmlns:t="urn:x"'}[namespace]
    text = tmx(declared, attributes, "t:" if namespace == "prefix" else "")
    (tmp_path / "m.tmx").write_bytes(text.encode(encoding))
    pairs, others = read_tmx(tmp_path / "m.tmx", LANGUAGES)
    assert (rows(pairs), others) == (PAIRS, 0)


def test_any_declared_encoding_is_read_or_one_line(tmp_path: Path) -> None:
    body = b'<tmx><body><tu><tuv xml:lang="en"><seg>\xe4\xff\x81 \\u00e4</seg></tuv></tu></body></tmx>'
    for module in pkgutil.iter_modules(encodings.__path__):
        (tmp_path / "m.tmx").write_bytes(f'<?xml version="1.0" encoding="{module.name}"?>\n'.encode() + body)
        assert "m.tmx" in error_of(lambda: read_tmx(tmp_path / "m.tmx", LANGUAGES)), module.name


def test_a_memory_in_latin_1(tmp_path: Path) -> None:
    text = tmx("ISO-8859-1").replace("\u201c", "").replace("\u201d", "")
    (tmp_path / "m.tmx").write_bytes(text.encode("iso-8859-1"))
    assert read_tmx(tmp_path / "m.tmx", LANGUAGES)[0].targets == tuple(german for _, german in PAIRS)


def test_inline_markup_in_a_namespace_and_spaces_of_the_sentence(tmp_path: Path) -> None:
    segment = "12\u00a0000\n   <bpt i='1'>code</bpt>km<ph>x</ph> \u3000<hi>far</hi><!-- note --> "
    unit = f'<tu><tuv xml:lang="en"><seg>{segment}</seg></tuv><tuv lang="de"><seg>weit</seg></tuv></tu>'
    (tmp_path / "m.tmx").write_text(f'<tmx xmlns="urn:tmx"><body>{unit}</body></tmx>')
    assert rows(read_tmx(tmp_path / "m.tmx", LANGUAGES)[0]) == [("12\u00a0000 km \u3000far", "weit")]


def test_a_memory_that_is_read_in_many_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_reading, "AT_A_TIME", 7)  # within characters, within tags
    (tmp_path / "m.tmx").write_bytes(tmx("utf-16").encode("utf-16"))
    assert rows(read_tmx(tmp_path / "m.tmx", LANGUAGES)[0]) == PAIRS


BOMB = "<!DOCTYPE tmx [" + "".join(
    f'<!ENTITY a{number} "{f"&a{number - 1};" * 10 if number else "aaaaaaaaaa"}">' for number in range(12)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            tmx(doctype=f"{BOMB}]>\n").encode(),
            r"m\.tmx: declares the entity 'a0', and entities could fill the memory; remove",
        ),
        (
            tmx(doctype='<!DOCTYPE tmx [<!ENTITY secret SYSTEM "file:///etc/passwd">]>\n').encode(),
            r"m\.tmx: declares the entity 'secret', .*; remove the declarations \(<!ENTITY \.\.\.>\)",
        ),
        (
            tmx(doctype='<!DOCTYPE tmx [<!ENTITY % p "x">]>\n').encode(),
            r"m\.tmx: declares the entity 'p'",
        ),
        (tmx("klingon").encode(), r"m\.tmx, line 1: the encoding 'klingon' is not known; convert the file to UTF-8"),
        (tmx("hex").encode(), r"m\.tmx, line 1: the encoding 'hex' is not known"),
        *(
            (tmx(name).encode(), rf"m\.tmx, line 1: the encoding '{name}' is not known; convert the file to UTF-8")
            for name in ("idna", "punycode", "undefined", "unicode_escape", "raw_unicode_escape", "Unicode-Escape")
        ),
        (
            tmx().encode("cp1252"),
            r"m\.tmx, line 3: byte 0x93 is not utf-8; convert the file to UTF-8 and let its first line say so",
        ),
        (
            tmx().encode()[:-4],
            r"m\.tmx, line 43: not whole XML \(unclosed token\); copy or down",
        ),
        (tmx().encode()[:200] + b"\xc3", r"m\.tmx, line \d+: "),
        (
            b"<tmx><body>\nR&D</body></tmx>",
            r"m\.tmx, line 2: not well-formed XML \(.*\); fix that line, or export the",
        ),
        (b"<tmx><body>\n&nbsp;</body></tmx>", r"m\.tmx, line 2: not well-formed XML \(undefined entity.*\); fix that"),
        (b"", r"m\.tmx: is empty; fill it or remove it"),
        (b"\xff\xfe", r"m\.tmx, line 1: not whole XML \(no element found\)"),
    ],
)
def test_bad_memories(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "m.tmx").write_bytes(content)
    assert re.search(message, error := error_of(lambda: read_tmx(tmp_path / "m.tmx", LANGUAGES))), error


def test_markup_of_any_depth(tmp_path: Path) -> None:
    deep = "<hi>" * 20_000 + "a" + "</hi>" * 20_000
    unit = f'<tu><tuv xml:lang="en"><seg>{deep}</seg></tuv><tuv xml:lang="de"><seg>b</seg></tuv></tu>'
    (tmp_path / "m.tmx").write_text(f"<tmx><body>{unit}</body></tmx>")
    assert rows(read_tmx(tmp_path / "m.tmx", LANGUAGES)[0]) == [("a", "b")]


def test_one_language_in_two_cases(tmp_path: Path) -> None:
    (tmp_path / "p.tsv").write_text(tsv())
    message = error_of(lambda: load(tmp_path / "p.tsv", source_language="pt-BR", target_language="PT_br"))
    assert message == "data.target_language: 'PT_br' is the source language too; give two languages"


def test_an_entity_that_is_declared_in_the_second_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_reading, "AT_A_TIME", 50)
    (tmp_path / "m.tmx").write_text(tmx(doctype=f"<!-- {'x' * 200} -->{BOMB}]>\n"))
    assert "declares the entity 'a0'" in error_of(lambda: read_tmx(tmp_path / "m.tmx", LANGUAGES))


def test_entities_in_the_other_xml_files(tmp_path: Path) -> None:
    for language in LANGUAGES:
        (tmp_path / f"train.tags.en-de.{language}").write_text("<talkid>1</talkid>\na\nb\n")
        head = f'<?xml version="1.0" encoding="UTF-8"?>\n{BOMB.replace("tmx", "mteval")}]>\n'
        body = '<mteval><srcset><doc docid="1"><seg id="1">&a11;</seg></doc></srcset></mteval>\n'
        (tmp_path / f"IWSLT17.TED.dev2010.en-de.{language}.xml").write_text(head + body)
    assert re.search(r"dev2010\.en-de\.en\.xml: declares the entity 'a0'", error_of(lambda: load(tmp_path)))


def test_a_packed_archive(tmp_path: Path) -> None:
    for language, sentences in (("en", ENGLISH), ("de", GERMAN)):
        text = "<talkid>1</talkid>\n" + "\n".join(sentences) + "\n"
        (tmp_path / f"train.tags.en-de.{language}.gz").write_bytes(gzip.compress(text.encode()))
        text = '<mteval><srcset><doc docid="1"><seg id="1">x</seg></doc></srcset></mteval>\n'
        (tmp_path / f"IWSLT17.TED.tst2010.en-de.{language}.xml.gz").write_bytes(gzip.compress(text.encode()))
    data = load(tmp_path)
    assert rows(data.train, data.validation) == PAIRS
    assert len(data.test) == 1
    (tmp_path / "train.tags.en-de.en").write_bytes(gzip.decompress((tmp_path / "train.tags.en-de.en.gz").read_bytes()))
    (tmp_path / "train.tags.en-de.de").write_bytes(gzip.decompress((tmp_path / "train.tags.en-de.de.gz").read_bytes()))
    assert rows(load(tmp_path).train, load(tmp_path).validation) == PAIRS  # not twice

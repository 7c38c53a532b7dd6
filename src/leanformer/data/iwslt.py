"""The IWSLT 2017 archive as published: TED talks with metadata in between, aligned talk by talk.

``train.tags.en-de.en`` and its partner hold a talk's metadata in lines that begin with a tag, and its sentences in the
others. ``IWSLT17.TED.dev2010.en-de.en.xml``, ``...tst2010...`` and so on hold a ``doc`` for each talk and a
``seg`` for each sentence.
Cettolo et al. 2017, "Overview of the IWSLT 2017 Evaluation Campaign".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from leanformer.core.errors import LeanformerError
from leanformer.data.pairs import SentencePairs
from leanformer.data.text_reading import read_lines, read_text
from leanformer.data.tmx import without_entities, xml_problem

METADATA = re.compile(
    r"\s*</?(url|keywords|speaker|talkid|title|description|reviewer|translator|transcript|doc|content)\b[^<>]*>", re.I
)
TALK_ID = re.compile(r"\s*<talkid>\s*(.*?)\s*</talkid>", re.I)
BARE_AMPERSAND = re.compile(r"&(?!(amp|lt|gt|quot|apos|#\d+|#x[0-9a-fA-F]+);)")
ROLES = {"tra": "train", "dev": "validation", "tst": "test"}  # of the parts train, dev2010, tst2010, ...


@dataclass(frozen=True)
class _Talk:
    """A talk on one side.

    Attributes:
        name: its number at TED.
        sentences: its sentences by their number; in training files, which have none, they are counted from 1.
    """

    name: str
    sentences: dict[str, str]


def is_iwslt(directory: Path) -> bool:
    """Whether a directory holds files of the archive."""
    return any(directory.glob("train.tags.*-*.*")) or any(directory.glob("IWSLT??.*.xml*"))


def read_iwslt(directory: Path, languages: tuple[str, str]) -> tuple[dict[str, SentencePairs], list[str]]:
    """The splits of the archive: its training file, ``dev*`` for validation, and all ``tst*`` together for testing.

    Args:
        directory: holds the archive's files of one language pair, in either direction.
        languages: source and target.

    Returns:
        ``{role: pairs}`` of what is there, each pair in the group of its talk, and in words which files were read.

    Raises:
        LeanformerError: for files of other languages only, a missing partner, damaged files, and talks or sentences
            that do not correspond.
    """
    splits: dict[str, SentencePairs] = {}
    notes = []
    parts = _parts(directory, languages)
    for name, part in parts.items():
        if name.removesuffix(".gz") in parts and name.endswith(".gz"):
            continue  # the unpacked file is beside it
        files = [directory / name.format(language) for language in languages]
        for file, partner in zip(files, reversed(files), strict=True):
            if not file.is_file():
                raise LeanformerError(f"{file}: no such file, but there is {partner}; the two belong together")
        role = ROLES[part[:3]]
        sides = [(_read_tagged if role == "train" else _read_xml)(file) for file in files]
        pairs = _align(files, sides)
        before = splits.get(role, SentencePairs((), ()))
        splits[role] = SentencePairs(
            before.sources + pairs.sources,
            before.targets + pairs.targets,
            (*(before.groups or ()), *(pairs.groups or ())),
        )
        notes.append(f"{name.format('*')}: {len(sides[0]):,} talks, {len(pairs):,} pairs ({role})")
    return splits, notes


def _parts(directory: Path, languages: tuple[str, str]) -> dict[str, str]:
    """The file names with ``{}`` for the language, and the part of the archive that each is: train, dev2010, ..."""
    by_direction: dict[str, dict[str, str]] = {}
    for file in sorted(directory.iterdir()):
        match = re.fullmatch(
            r"(train\.tags|IWSLT\d\d\.\w+\.(?P<part>(dev|tst)\d+))\.(?P<pair>\w+-\w+)\.(?P<language>\w+)(\.xml)?(\.gz)?",
            file.name,
        )
        if match is not None:
            name = file.name[: match.start("language")] + "{}" + file.name[match.end("language") :]
            by_direction.setdefault(match["pair"], {})[name] = match["part"] or "train"
    for direction in ("-".join(languages), "-".join(reversed(languages))):
        if direction in by_direction:
            return by_direction[direction]
    raise LeanformerError(
        f"data.source {directory}: an IWSLT archive without files of {'-'.join(languages)}; there are "
        f"{', '.join(by_direction) or 'none with a known name'}"
    )


def _read_tagged(file: Path) -> list[_Talk]:
    """The talks of a training file; metadata between sentences begins a new one."""
    talks: list[_Talk] = []
    name, in_metadata = "", True
    for line in read_lines(file):
        if METADATA.match(line):
            if not in_metadata:
                name, in_metadata = "", True
            if match := TALK_ID.match(line):
                name = match[1]
            continue
        if in_metadata:
            talks.append(_Talk(name, {}))
            in_metadata = False
        sentences = talks[-1].sentences
        sentences[str(len(sentences) + 1)] = line
    return talks


def _read_xml(file: Path) -> list[_Talk]:
    """The documents of a development or test file, whose ampersands may not be escaped."""
    content = BARE_AMPERSAND.sub("&amp;", read_text(file))
    try:
        root = ElementTree.fromstring("".join(without_entities(file, [content])))
    except ElementTree.ParseError as error:
        raise LeanformerError(xml_problem(file, error)) from error
    talks = []
    for document in root.iter("doc"):
        talk = _Talk(document.get("docid", ""), {})
        for segment in document.iter("seg"):
            number = segment.get("id", "")
            if number in talk.sentences:
                raise LeanformerError(f"{file}: talk {talk.name} has two segments {number!r}; each has its own number")
            talk.sentences[number] = "".join(segment.itertext())
        talks.append(talk)
    return talks


def _align(files: list[Path], sides: list[list[_Talk]]) -> SentencePairs:
    """The pairs of two files, talk by talk and sentence by sentence."""
    sources: list[str] = []
    targets: list[str] = []
    talks: list[str] = []
    for count, (source, target) in enumerate(zip(*sides, strict=False), start=1):
        if source.name != target.name:
            raise LeanformerError(
                f"{files[0]}: talk {count} has the number {source.name or '(none)'}, but {target.name or '(none)'} in "
                f"{files[1]}; both must hold the same talks in the same order"
            )
        if alone := [*source.sentences.keys() ^ target.sentences.keys()]:
            raise LeanformerError(
                f"{files[0]}: talk {source.name or count} has {len(source.sentences):,} sentences, and "
                f"{len(target.sentences):,} in {files[1]}; number {min(alone, key=_as_number)} is in one of them alone"
            )
        sources += source.sentences.values()
        targets += (target.sentences[number] for number in source.sentences)
        talks += [source.name or f"{files[0].name}, talk {count}"] * len(source.sentences)
    if len(sides[0]) != len(sides[1]):
        raise LeanformerError(
            f"{files[0]} has {len(sides[0]):,} talks, but {files[1]} has {len(sides[1]):,}; both must hold the same"
        )
    return SentencePairs(tuple(sources), tuple(targets), tuple(talks))


def _as_number(number: str) -> tuple[int, str]:
    return (int(number), "") if number.isdecimal() else (0, number)

"""What the commands read: lines of text, objects of JSON Lines, image files."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leanformer.core.errors import LeanformerError, first_line, quoted
from leanformer.data.image_files import is_image
from leanformer.data.text_reading import decode_text, read_parts, split_lines, unpacked_name
from leanformer.data.walking import check_name, files_below

KEYS = ("text", "source")
"""Where an object holds its text, if no key is given: the first of these that it has."""
SECOND = "second_text"
"""Where it holds the other text of a pair."""
ANSWER = "translation"
"""Where its translation goes."""
CLASS_KEYS = ("label", "probability", "probabilities")
"""Where its class goes."""
JSON_LINES = (".jsonl", ".ndjson")


def read_lines(path: Path | None) -> list[str]:
    """The lines of a file or of standard input, read as training data are: in UTF-8, or with a byte order mark.

    Raises:
        LeanformerError: The text cannot be read, or is in another encoding.
    """
    name = _name(path)
    if path is not None and (path.is_char_device() or path.is_block_device()) and not path.samefile(os.devnull):
        raise LeanformerError(f"{name}: cannot be read: it is a device, which may never end; give a file")
    if path is not None and path.is_fifo() and path.parts[:2] != ("/", "dev"):  # not the shell's <(zcat text.gz)
        raise LeanformerError(f"{name}: cannot be read: it is a pipe, which may wait forever; give a file, or < {name}")
    if path is None:
        if sys.stdin is None:
            raise LeanformerError("standard input is closed; give a file")
        try:
            content = sys.stdin.buffer.read()
        except OSError as error:
            raise LeanformerError(f"{name}: cannot be read: {error.strerror}") from None
    else:
        content = b"".join(read_parts(path))
    # Split at the line ends of training data alone, so that translations stay in line with their sentences.
    return split_lines(decode_text(content, name)) if content else []


def _name(path: Path | None) -> str:
    return "standard input" if path is None else str(path)


@dataclass(frozen=True)
class Texts:
    """Sentences, and what stood around them.

    Args:
        sentences: The sentences.
        objects: For each the object that it was read from; None where it was a plain line.
    """

    sentences: list[str]
    objects: list[dict[str, Any] | None]


def read_texts(path: Path | None, key: str | None, answers: Sequence[str] = (ANSWER,)) -> Texts:
    """The sentences of a file or of standard input: lines, or the objects of JSON Lines with a text each.

    A file is read as JSON Lines where its name ends so, where a key is given, and where its first line is an object.

    Args:
        path: The file; None: standard input.
        key: Where the objects hold their text; None: at ``text`` or ``source``.
        answers: The keys at which answers will be written, which must be free.

    Raises:
        LeanformerError: The text cannot be read, or an object has no text; the message names the line.
    """
    lines = read_lines(path)
    named = path is not None and unpacked_name(path).suffix.lower() in JSON_LINES
    if not (named or key is not None or (lines and _is_object(lines[0]))):
        return Texts(lines, [None] * len(lines))
    sentences: list[str] = []
    objects: list[dict[str, Any] | None] = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            found = _object(line, f"{_name(path)}, line {number}", answers)
            sentences.append(_text(found, key, f"{_name(path)}, line {number}"))
            objects.append(found)
    return Texts(sentences, objects)


def _is_object(line: str) -> bool:
    try:
        return line.lstrip().startswith("{") and isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _object(line: str, where: str, answers: Sequence[str]) -> dict[str, Any]:
    try:
        found = json.loads(line, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise LeanformerError(f"{where}: not JSON ({first_line(error)}); each line must be an object") from None
    if not isinstance(found, dict):
        raise LeanformerError(f"{where}: {quoted(found)} is no object; each line must be one, with a text in it")
    for answer in answers:
        if answer in found:
            what = "translation" if answer == ANSWER else "model's answer"
            raise LeanformerError(f"{where}: has a key {answer!r} already, where the {what} goes; rename it")
    return found


def second_texts(texts: Texts) -> list[str] | None:
    """The other text of each pair, at ``second_text`` of the objects; None where there are no pairs.

    Raises:
        LeanformerError: Some objects have one and others not, or one is no text.
    """
    found = [None if read is None else read.get(SECOND) for read in texts.objects]
    if not any(text is not None for text in found):
        return None
    for number, text in enumerate(found, start=1):
        if not isinstance(text, str):
            raise LeanformerError(f"object {number}: {SECOND!r} is {quoted(text)}; it must be text, in all or in none")
    return [str(text) for text in found]


def _text(found: dict[str, Any], key: str | None, where: str) -> str:
    wanted = key if key is not None else next((name for name in KEYS if name in found), None)
    if wanted is None or wanted not in found:
        missing = repr(wanted) if wanted is not None else " or ".join(map(repr, KEYS))
        there = ", ".join(found) or "nothing"
        raise LeanformerError(f"{where}: no key {missing}; there is {there}: say with --key where the text is")
    value = found[wanted]
    if not isinstance(value, str):
        raise LeanformerError(f"{where}: {wanted!r} is {quoted(value)}; it must be text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise LeanformerError(f"{where}: {wanted!r} holds half a character, {quoted(value)}; write it anew") from None
    return value


def image_files(inputs: Sequence[Path]) -> list[Path]:
    """The image files that are given, and those below the folders that are given, in order of their names.

    Raises:
        LeanformerError: Nothing is given, a folder holds no images, or a name is not UTF-8.
    """
    if not inputs:
        raise LeanformerError("no images are given; name image files, or folders of them")
    found: list[Path] = []
    for place in inputs:
        if place.is_dir():
            inside = [file for file in files_below(place) if is_image(file)]
            if not inside:
                raise LeanformerError(f"{place}: holds no images; give a folder with files such as .png or .jpg")
            found += inside
        else:
            check_name(str(place.parent), place.name)
            found.append(place)
    return found


def check_inputs(inputs: Sequence[Path]) -> None:
    """Makes sure that what is given is there, before a model is opened.

    Raises:
        LeanformerError: It is not; the message names it.
    """
    for place in inputs:
        if not os.path.lexists(place):
            raise LeanformerError(f"{place}: no such file or directory")

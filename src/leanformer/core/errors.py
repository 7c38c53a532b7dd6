"""The one exception that a user's mistake raises, and text that is safe to show."""

from __future__ import annotations

import re
import reprlib
import unicodedata

_INVISIBLE = ("Cc", "Cf", "Zl", "Zp", "Cs")
"""Unicode's categories of characters that a terminal obeys or does not show: controls, formats, line and paragraph
separators, surrogates."""
_KEPT = "\u200c\u200d\u00ad"  # joiners and soft hyphens, which ordinary words contain


def printable(text: str) -> str:
    """Text on one line, in which characters that a terminal would obey are written as escapes.

    Names of files, classes, columns and candidates come from users' data; none of them reaches a terminal raw.
    """
    if text.isprintable():
        return text
    return "".join(
        character if unicodedata.category(character) not in _INVISIBLE or character in _KEPT else _escaped(character)
        for character in text
    )


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


class _Quoted(reprlib.Repr):
    """``repr`` of any value, however large or deep, cut where it is long."""

    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to write numbers of more than 4,300 digits, and nobody wants to read those of more than 40.
        digits = int(x.bit_length() * 0.30103) + 1
        return repr(x) if digits <= 40 else f"a whole number of about {digits:,} digits"


_QUOTED = _Quoted()
_QUOTED.maxlevel, _QUOTED.maxstring, _QUOTED.maxother = 3, 60, 60
_QUOTED.maxdict, _QUOTED.maxlist, _QUOTED.maxtuple, _QUOTED.maxset = 4, 6, 6, 6


def quoted(value: object) -> str:
    """A value as a message quotes it: as Python writes it, in at most 100 characters."""
    text = _QUOTED.repr(value)
    return text if len(text) <= 100 else f"{text[:70]}...{text[-27:]}"


def first_line(error: BaseException) -> str:
    """The first line of a library's or the system's error message, for a message of one line."""
    if isinstance(error, OSError) and error.strerror:  # without its number
        return str(error.strerror)
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


_LONGEST = 470
"""Most characters that a message has."""


def _in_short(message: str) -> str:
    """A message cut to a readable length: first its long words are cut, then its middle."""
    if len(message) <= _LONGEST:
        return message
    message = re.sub(r"\S{81,}", lambda word: f"{word[0][:50]}...{word[0][-27:]}", message)
    return message if len(message) <= _LONGEST else f"{message[: _LONGEST - 145]} ... {message[-140:]}"


class LeanformerError(Exception):
    """A mistake in what the user gave: a study, a plan, data, a model or a run directory.

    Its message is one line that says what is wrong, where, and what would be right; a line that is too long to read
    is cut, long words first. The command line prints it without a traceback and exits with code 2.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(_in_short(printable(str(message))))

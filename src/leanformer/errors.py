"""The one exception that a user's mistake raises, and text that is safe to show."""

from __future__ import annotations

import unicodedata

_INVISIBLE = ("Cc", "Cf", "Zl", "Zp", "Cs")
"""Unicode's categories of what a terminal obeys, or does not show: controls, formats, line and paragraph separators,
surrogates."""
_KEPT = "\u200c\u200d\u00ad"  # joiners and soft hyphens stand inside of ordinary words


def printable(text: str) -> str:
    """Text on one line, in which nothing that a terminal would obey is left: such characters are written as escapes.

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


class LeanformerError(Exception):
    """A mistake in what the user gave: a study, a plan, data, a model or a run directory.

    Its message is one line that says what is wrong, where, and what would be right. The command line prints it
    without a traceback and exits with code 2; in Python it is raised as it is.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(str(message)))

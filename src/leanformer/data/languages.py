"""Language codes as data write them: ``en``, ``EN``, ``en-US``, ``en_us``, ``eng_Latn``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable


def match_codes(names: Iterable[str], languages: tuple[str, str]) -> tuple[str | None, str | None]:
    """Which of the names that data give their languages mean these two; a name means one of them at most.

    As it is written goes first, then the same code in another case, then one that differs in having a region.

    Args:
        names: Codes, such as the names of columns.
        languages: Two codes.
    """
    names = list(names)
    found: dict[str, str] = {}
    degrees: tuple[Callable[[str, str], bool], ...] = (str.__eq__, same_language, _same_but_for_region)
    for matches in degrees:
        for language in languages:
            free = (name for name in names if name not in found.values() and matches(name, language))
            if language not in found and (name := next(free, None)) is not None:
                found[language] = name
    source, target = map(found.get, languages)
    return source, target


def primary_code(language: str) -> str:
    """The language alone, in small letters: ``zh`` of ``zh_CN``."""
    return _parts(language)[0]


def same_language(name: str, language: str) -> bool:
    """Whether two codes are one, written in another case or with another mark between their parts."""
    return _parts(name) == _parts(language)


def _same_but_for_region(name: str, language: str) -> bool:
    own, wanted = _parts(name), _parts(language)
    return len(own) != len(wanted) and own[0] == wanted[0]


def _parts(code: str) -> list[str]:
    """The language, and the region or script where the code has one."""
    return re.split("[-_]", code.strip().lower(), maxsplit=1)

"""Languages as data name them: ``en``, ``EN``, ``en-US``, ``eng_Latn``, ``English``, ``text_en``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache

# ISO 639: each code of two letters, and those of three for the same language (639-3, and 639-2/B where it differs).
_ISO_639 = """
aa:aar ab:abk ae:ave af:afr ak:aka am:amh an:arg ar:ara as:asm av:ava ay:aym az:aze ba:bak be:bel bg:bul bi:bis bm:bam
bn:ben bo:bod,tib br:bre bs:bos ca:cat ce:che ch:cha co:cos cr:cre cs:ces,cze cu:chu cv:chv cy:cym,wel da:dan
de:deu,ger dv:div dz:dzo ee:ewe el:ell,gre en:eng eo:epo es:spa et:est eu:eus,baq fa:fas,per ff:ful fi:fin fj:fij
fo:fao fr:fra,fre fy:fry ga:gle gd:gla gl:glg gn:grn gu:guj gv:glv ha:hau he:heb hi:hin ho:hmo hr:hrv ht:hat hu:hun
hy:hye,arm hz:her ia:ina id:ind ie:ile ig:ibo ii:iii ik:ipk io:ido is:isl,ice it:ita iu:iku ja:jpn jv:jav ka:kat,geo
kg:kon ki:kik kj:kua kk:kaz kl:kal km:khm kn:kan ko:kor kr:kau ks:kas ku:kur kv:kom kw:cor ky:kir la:lat lb:ltz lg:lug
li:lim ln:lin lo:lao lt:lit lu:lub lv:lav mg:mlg mh:mah mi:mri,mao mk:mkd,mac ml:mal mn:mon mr:mar ms:msa,may mt:mlt
my:mya,bur na:nau nb:nob nd:nde ne:nep ng:ndo nl:nld,dut nn:nno no:nor nr:nbl nv:nav ny:nya oc:oci oj:oji om:orm
or:ori os:oss pa:pan pi:pli pl:pol ps:pus pt:por qu:que rm:roh rn:run ro:ron,rum ru:rus rw:kin sa:san sc:srd sd:snd
se:sme sg:sag sh:hbs si:sin sk:slk,slo sl:slv sm:smo sn:sna so:som sq:sqi,alb sr:srp ss:ssw st:sot su:sun sv:swe
sw:swa ta:tam te:tel tg:tgk th:tha ti:tir tk:tuk tl:tgl tn:tsn to:ton tr:tur ts:tso tt:tat tw:twi ty:tah ug:uig uk:ukr
ur:urd uz:uzb ve:ven vi:vie vo:vol wa:wln wo:wol xh:xho yi:yid yo:yor za:zha zh:zho,chi zu:zul
"""
_TWO_LETTERS = {
    code: two for two, three in (entry.split(":") for entry in _ISO_639.split()) for code in (two, *three.split(","))
}
_ROLES = frozenset(
    {"source", "sources", "src", "target", "targets", "tgt", "trg", "input", "output", "original", "translation"}
    | {"reference", "ref", "text", "sentence", "sentences", "segment", "language", "lang", "column"}
)
"""Words of column names that say what a column is for."""
_CODE = re.compile(r"([a-z]{2,3})(?:[-_]([a-z]{2}|[a-z]{4}|[0-9]{3}))?")  # with a region or a script
_LONGEST = 30  # letters of a column's name


def match_codes(
    names: Iterable[str], languages: tuple[str, str], as_code: bool = False
) -> tuple[str | None, str | None]:
    """Finds the names that mean two languages among those that the data use; a name means one of them at most.

    The exact code is tried first, then the same code in another case, then the code with or without a region, then the
    language's other codes and its English name, with or without a word for the column's use: ``deu``, ``German`` and
    ``text_de`` mean ``de``.

    Args:
        names: Codes, such as the names of columns.
        languages: Two codes.
        as_code: Whether only codes match, not other names of the languages.
    """
    names = list(names)
    found: dict[str, str] = {}
    degrees: tuple[Callable[[str, str], bool], ...] = (str.__eq__, same_language, _same_but_for_region, means)
    for matches in degrees[: 3 if as_code else 4]:
        for language in languages:
            free = (name for name in names if name not in found.values() and matches(name, language))
            if language not in found and (name := next(free, None)) is not None:
                found[language] = name
    source, target = map(found.get, languages)
    return source, target


def primary_code(language: str) -> str:
    """The language alone, in lower case: ``zh`` of ``zh_CN``."""
    return _parts(language)[0]


def same_language(name: str, language: str) -> bool:
    """Whether two codes are the same but for their case and the mark between their parts."""
    return _parts(name) == _parts(language)


def is_column_name(name: str) -> bool:
    """Whether a text is a language's code or English name, or says what a column is for, or both."""
    return 0 < len(name) <= _LONGEST and (_named_language(name) is not None or not _without_roles(name))


def means(name: str, language: str) -> bool:
    """Whether a code or a name means a language, whatever region or script one of the two adds."""
    own = _named_language(name) if len(name) <= _LONGEST else None
    wanted = _named_language(language)
    return own is not None and wanted is not None and _same_parts(own, wanted)


@lru_cache(maxsize=1024)
def _named_language(name: str) -> tuple[str, ...] | None:
    """The language that a name means: its shortest code, and the region or script where there is one."""
    words = _without_roles(name)
    if not words:
        return None
    code = _CODE.fullmatch(words)
    if code is not None and code[1] in _TWO_LETTERS:
        return (_TWO_LETTERS[code[1]], *filter(None, [code[2]]))
    from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE  # seldom needed

    named = TO_LANGUAGE_CODE.get(words)
    return None if named is None else (named,)


def _without_roles(name: str) -> str:
    """A column's name in lower case, without the words for the column's use."""
    parts = re.split(r"([-_.:\s]+)", name.strip().lower())  # words at even indices, separators at odd ones
    if "" in parts:  # punctuation at an end, as in sentences
        return name
    while parts and parts[0] in _ROLES:
        del parts[:2]
    while parts and parts[-1] in _ROLES:
        del parts[-2:]
    return "".join(parts)


def _same_but_for_region(name: str, language: str) -> bool:
    own, wanted = _parts(name), _parts(language)
    return len(own) != len(wanted) and own[0] == wanted[0]


def _same_parts(own: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    """Whether two languages are the same in all parts that both have."""
    return all(one == other for one, other in zip(own, wanted, strict=False))


def _parts(code: str) -> list[str]:
    """The language, and the region or script where the code has one."""
    return re.split("[-_]", code.strip().lower(), maxsplit=1)

"""The codes by which a tokenizer of many languages knows source and target: ``deu_Latn`` for ``de`` in NLLB's."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

from transformers import PreTrainedTokenizerBase

from leanformer.core.errors import LeanformerError, quoted
from leanformer.data.languages import means, same_language

_CODE = re.compile(r"[a-z]{2,3}_[A-Za-z]{2,4}")
_MOST_NAMED = 5
"""Codes that a message names at most."""


def knows_languages(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer has to be told the languages of source and target, which it marks in what it gives."""
    return hasattr(tokenizer, "set_tgt_lang_special_tokens")


def codes_of(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The codes of the languages that a tokenizer knows."""
    known = getattr(tokenizer, "lang_code_to_id", None)
    return list(known) if known else [token for token in tokenizer.all_special_tokens if _CODE.fullmatch(token)]


def code_for(tokenizer: PreTrainedTokenizerBase, language: str, key: str, given: Mapping[str, str]) -> str:
    """The code by which a tokenizer knows a language.

    Args:
        tokenizer: One of many languages.
        language: The language as the data name it.
        key: The study's key that names it, for messages.
        given: Language -> code, where the study says it.

    Raises:
        LeanformerError: It knows no such language, or several codes may be meant; the message names close ones.
    """
    codes = codes_of(tokenizer)
    name = tokenizer.name_or_path or "the model"
    wanted = given.get(language, language)
    remedy = f"write data.language_codes: {{{language}: CODE}}"
    for matches in (str.__eq__, same_language, means):
        found = [code for code in codes if matches(code, wanted)]
        if len(found) > 1:
            raise LeanformerError(
                f"data.{key}: {language!r} may be {' or '.join(found[:_MOST_NAMED])} to the tokenizer of {name}; "
                f"{remedy}"
            )
        if found:
            return found[0]
    close = difflib.get_close_matches(wanted, codes, _MOST_NAMED, 0.0)
    where = f"data.{key}: {language!r}" if language not in given else f"data.language_codes: {quoted(wanted)}"
    raise LeanformerError(
        f"{where} is none of the {len(codes)} languages that the tokenizer of {name} knows, such as "
        f"{', '.join(close)}; {remedy}, or take a model that knows it"
    )

"""How translations are scored: with which of sacreBLEU's tokenizers, with case or without, in which form of text."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from sacrebleu.metrics.bleu import BLEU

from leanformer.core.errors import LeanformerError
from leanformer.core.sacrebleu_internals import DOWNLOADED, EXTRAS, model_file, model_url
from leanformer.data.languages import primary_code
from leanformer.results.metrics import metrics_of

CHINESE = frozenset({"zh", "zho", "chi", "cmn", "yue", "wuu", "nan", "hak", "gan", "lzh"})
JAPANESE = frozenset({"ja", "jpn"})
KOREAN = frozenset({"ko", "kor"})
UNSPACED = frozenset(
    {"th", "tha", "lo", "lao", "km", "khm", "my", "mya", "bur", "bo", "bod", "tib", "dz", "dzo", "shn"}
)
"""Languages that are written without spaces between words, by their codes (ISO 639-1 to 639-3)."""

# The scripts of such languages, for language codes that are not known.
_KANA = re.compile("[\u3040-\u30ff]")
_HAN = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_OTHER_UNSPACED = re.compile("[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff]")  # Thai, Lao, Tibetan; Myanmar; Khmer
_LETTER = re.compile(r"[^\W\d_]|[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff]")  # not all of their vowels are letters
_SAMPLE = 200  # sentences


@dataclass(frozen=True)
class Scoring:
    """How translations are scored: with sacreBLEU's defaults, except for these settings.

    Args:
        tokenize: sacreBLEU's tokenizer for metrics that count words, by its name.
        lowercase: Whether case is ignored.
        normalize: The form in which texts are scored, hypotheses and references alike.
    """

    tokenize: str = "13a"
    lowercase: bool = False
    normalize: Callable[[str], str] = str

    def texts(self, texts: Sequence[str]) -> list[str]:
        """Texts in the form in which they are scored."""
        normalized = map(self.normalize, texts)
        return [text.lower() for text in normalized] if self.lowercase else list(normalized)

    @cached_property
    def signatures(self) -> dict[str, str]:
        """The signature of each metric that has one, to be stated with its score."""
        return {
            metric.key: metric.signature(self.tokenize, self.lowercase)
            for metric in metrics_of("texts")
            if metric.signature is not None
        }


def choose_tokenizer(wanted: str, language: str, references: Sequence[str], key: str = "accept.tokenize") -> str:
    """The tokenizer that splits a target language into words for metrics that count them.

    ``auto`` is ``zh`` for Chinese, and the MeCab tokenizer for Japanese and Korean where it is installed. Otherwise,
    and for other languages without spaces between words, it is ``flores200`` if its model is on the disk, else
    ``char``. If the language code is not known, the script of the sentences decides. ``13a`` is for all others.

    Args:
        wanted: sacreBLEU's name of it, or ``auto``.
        language: The target language's code.
        references: Sentences in it.
        key: Where it was asked for, for the message.

    Raises:
        LeanformerError: The tokenizer that is asked for by name is not available.
    """
    if wanted != "auto":
        if problem := _problem(wanted):
            raise LeanformerError(f"{key}: {wanted} {problem}")
        return wanted
    kind = _kind(language, references)
    if kind in ("13a", "zh"):
        return kind
    candidates = ("flores200",) if kind == "char" else (kind, "flores200")
    return next((name for name in candidates if _problem(name) is None), "char")


def _kind(language: str, references: Sequence[str]) -> str:
    """The tokenizer that suits a language best, available or not."""
    code = primary_code(language)
    for codes, name in ((CHINESE, "zh"), (JAPANESE, "ja-mecab"), (KOREAN, "ko-mecab"), (UNSPACED, "char")):
        if code in codes:
            return name
    text = "".join(references[:_SAMPLE])
    kana, han, others = (len(script.findall(text)) for script in (_KANA, _HAN, _OTHER_UNSPACED))
    if 2 * (kana + han + others) <= len(_LETTER.findall(text)):
        return "13a"
    return "char" if others > kana + han else "ja-mecab" if 10 * kana > han else "zh"


def _problem(tokenize: str) -> str | None:
    """Why a tokenizer is not available, and what to do; None where it is. Nothing is ever downloaded."""
    if tokenize in DOWNLOADED:
        url, file = model_url(tokenize), model_file(tokenize)
        if not os.path.isfile(file):
            return f"needs its model on the disk; download {url} to {file}, or take char"
        remedy = f"download {url} to {file} again, or take char"
    else:
        remedy = f"run pip install 'sacrebleu[{EXTRAS.get(tokenize)}]', or take char"
    try:
        BLEU(tokenize=tokenize)
    except Exception as error:  # of any type: a library is missing or damaged
        return f"cannot be used ({type(error).__name__}); {remedy}"
    return None

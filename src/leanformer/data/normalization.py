"""How a tokenizer normalises a text before it splits it: the only form in which its model can write that text.

No translation can match a reference that is scored in another form (decomposed letters, full-width ones, capitals where
the tokenizer has none).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator

from tokenizers import normalizers
from transformers import PreTrainedTokenizerBase

SPACE_MARK = "\u2581"  # what SentencePiece writes for a space

Normalize = Callable[[str], str]


def normalizer_of(tokenizer: PreTrainedTokenizerBase) -> Normalize:
    """How a tokenizer normalises a target text, in Unicode's composed form (NFC), without outer spaces.

    Marks of where words begin are not part of the text: the step that puts one in front is left out, and a mark that
    stands for a space becomes a space again, as it does when ids are decoded.

    Args:
        tokenizer: One with rules of the ``tokenizers`` library, or with a SentencePiece model (Marian's own for the
            target side among them); of any other the text is only composed.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    pieces = getattr(tokenizer, "spm_target", None) or getattr(tokenizer, "sp_model", None)
    steps: list[Normalize] = []
    if backend is not None:
        steps = [step.normalize_str for step in _text_steps(backend.normalizer)]
    elif pieces is not None:
        steps = [pieces.normalize]
    marks_spaces = pieces is not None or SPACE_MARK in f"{backend and (backend.normalizer, backend.decoder)!r}"

    def normalize(text: str) -> str:
        for step in steps:
            text = step(text)
        if marks_spaces:
            text = text.replace(SPACE_MARK, " ")
        return unicodedata.normalize("NFC", text).strip()

    return normalize


def _text_steps(normalizer: normalizers.Normalizer | None) -> Iterator[normalizers.Normalizer]:
    """The steps of a normaliser that change the text itself, without those that only prepare it for splitting."""
    if isinstance(normalizer, normalizers.Sequence):
        for number in range(len(normalizer)):  # it has no iterator
            yield from _text_steps(normalizer[number])
    elif normalizer is not None and not isinstance(normalizer, normalizers.Prepend | normalizers.ByteLevel):
        yield normalizer


def loses_letters(text: str, normalized: str) -> bool:
    """Whether a normaliser has taken away or changed letters, digits or accents, beyond their case and Unicode form."""
    return text != normalized and _letters(text) != _letters(normalized)


def _letters(text: str) -> str:
    composed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return "".join(character for character in composed if unicodedata.category(character)[0] in "LMN")

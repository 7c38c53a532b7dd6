"""A translator that is opened: lines in, their translations out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from leanformer.core.bounds import BATCH, BEAM, TOKENS
from leanformer.core.errors import LeanformerError, quoted
from leanformer.core.translating import Ids, Translated, translate_with
from leanformer.runtime.engines.base import Generates
from leanformer.runtime.manifest import TextInput

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BATCH_TOKENS = 4096
_CLEANED = {
    " .": ".",
    " ?": "?",
    " !": "!",
    " ,": ",",
    " ' ": "'",
    " n't": "n't",
    " 'm": "'m",
    " 's": "'s",
    " 've": "'ve",
    " 're": "'re",
}
"""What ``clean_up_tokenization`` of transformers replaces, in this order."""


class TextTokenizer:
    """Both sides of a translator's tokenizer, by the library ``tokenizers`` alone.

    Args:
        directory: The exported directory.
        texts: Its part of the manifest.
    """

    def __init__(self, directory: Path, texts: TextInput) -> None:
        self.pad_id = texts.pad_id
        self.eos_id = texts.eos_id
        self._clean_up = texts.clean_up
        self._prefix = texts.prefix
        self._source = _open(directory / texts.source_tokenizer)
        same = texts.target_tokenizer == texts.source_tokenizer
        self._target = self._source if same else _open(directory / texts.target_tokenizer)
        # What a tokenizer's file does not say.
        self._source.encode_special_tokens = texts.split_special_tokens

    @cached_property
    def source_size(self) -> int:
        """One more than the largest id of the source side."""
        return 1 + max(self._source.get_vocab().values())

    def encode_source(self, texts: Sequence[str]) -> Ids:
        """The ids of source sentences with their prefix, each with its end mark."""
        return [encoding.ids for encoding in self._source.encode_batch([self._prefix + text for text in texts])]

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """The target sentences of rows of ids, without marks."""
        texts: list[str] = self._target.decode_batch([list(row) for row in ids], skip_special_tokens=True)
        return [_cleaned(text) for text in texts] if self._clean_up else texts


def _open(file: Path) -> Tokenizer:
    from tokenizers import Tokenizer  # imported here: a classifier starts sooner without it

    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _cleaned(text: str) -> str:
    for old, new in _CLEANED.items():
        text = text.replace(old, new)
    return text


class Translator:
    """A translator.

    Args:
        texts: How text becomes its input, and its output text.
        tokenizer: Of both sides.
        engine: What writes ids from ids.
    """

    def __init__(self, texts: TextInput, tokenizer: TextTokenizer, engine: Generates) -> None:
        self.texts = texts
        self.tokenizer = tokenizer
        self._engine = engine

    @property
    def max_source_tokens(self) -> int:
        """Most subwords of a source, the end mark included."""
        return self.texts.max_source_tokens

    def translate(
        self,
        lines: Sequence[str] | str,
        beam: int = 1,
        max_tokens: int | None = None,
        batch_tokens: int = BATCH_TOKENS,
        progress: Callable[[int], object] | None = None,
    ) -> list[str]:
        """Translates sentences, in batches of similar length.

        Args:
            lines: Sentences; one may be given alone. An empty one gives an empty translation.
            beam: Hypotheses kept for each sentence; 1 is greedy, which every engine can.
            max_tokens: Longest translation in subwords, end mark included; by default, and at most, what the model
                can write.
            batch_tokens: Most subwords of sources in a batch, padding included and each hypothesis counted; a
                sentence with more is a batch of its own.
            progress: Called after each batch with the number of sentences that it has finished.

        Returns:
            A translation for each sentence, in their order.

        Raises:
            LeanformerError: A sentence has more subwords than the model reads, or the engine cannot search with a beam.
        """
        return self.translated(lines, beam, max_tokens, batch_tokens, progress).texts

    def translated(
        self,
        lines: Sequence[str] | str,
        beam: int = 1,
        max_tokens: int | None = None,
        batch_tokens: int = BATCH_TOKENS,
        progress: Callable[[int], object] | None = None,
    ) -> Translated:
        """As ``translate``, with the number of subwords that were written."""
        sentences = [lines] if isinstance(lines, str) else list(lines)
        for index, sentence in enumerate(sentences):
            if not isinstance(sentence, str):
                raise LeanformerError(f"sentence {index + 1}: give text, not {quoted(sentence)}")
            try:
                sentence.encode()
            except UnicodeEncodeError:
                raise LeanformerError(f"sentence {index + 1}: holds half a character, {quoted(sentence)}") from None
        _check("beam", beam, BEAM)
        _check("batch_tokens", batch_tokens, BATCH)
        if max_tokens is not None:
            _check("max_tokens", max_tokens, TOKENS)
        return translate_with(
            lambda sources: self._generate(sources, beam, max_tokens),
            self.tokenizer,
            sentences,
            longest=self.texts.max_source_tokens,
            limit="max_source_tokens of its manifest.json",
            batch_tokens=batch_tokens // beam,
            progress=progress,
        )

    def generate(self, sources: Sequence[Sequence[int]], *, beam: int = 1, max_tokens: int | None = None) -> Ids:
        """The ids of translations of one batch of sources.

        Args:
            sources: Ids, each with its end mark.
            beam: As in ``translate``.
            max_tokens: As in ``translate``.

        Returns:
            For each source the ids, without the start mark, with the end mark where the translation has ended.

        Raises:
            LeanformerError: As of ``translate``, but for the lengths, which are not checked; or an id is not the
                source tokenizer's.
        """
        _check("beam", beam, BEAM)
        if max_tokens is not None:
            _check("max_tokens", max_tokens, TOKENS)
        for ids in sources:
            if not ids or not all(0 <= one < self.tokenizer.source_size for one in ids):
                raise LeanformerError(
                    f"sources: give ids from 0 to {self.tokenizer.source_size - 1:,}, one at least for each source"
                )
        return self._generate(sources, beam, max_tokens) if len(sources) else []

    def _generate(self, sources: Sequence[Sequence[int]], beam: int, max_tokens: int | None) -> Ids:
        most = self.texts.max_target_tokens
        return self._engine.generate(sources, beam=beam, max_tokens=min(max_tokens or most, most))


def _check(name: str, value: object, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise LeanformerError(f"{name}: give a whole number from 1 to {most:,}, not {quoted(value)}")

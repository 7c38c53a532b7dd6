"""What a teacher with more subwords says of a text that its student cuts into smaller ones.

The teacher reads the text as it knows it. Where both cut the text at the same letter, its distribution over its next
subword becomes one over the student's: a subword that the student lacks is written by the student in several, so its
probability goes to the first of these. Inside such a subword the teacher says nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leanformer.data.text_batches import NOWHERE, Sentences
from leanformer.data.tokenizers import TranslationTokenizer
from leanformer.data.trimming import Trimmed, subword_texts


class Alignment:
    """Finds where a tokenizer and the trimmed one that was made from it cut texts alike.

    Args:
        tokenizer: The tokenizer with all target subwords.
        trimmed: What was made of it.
        before: Target sentences in its ids. What its subwords are cut into is learned from them.
        after: The same sentences in the ids of the trimmed one.
    """

    def __init__(self, tokenizer: TranslationTokenizer, trimmed: Trimmed, before: Sentences, after: Sentences) -> None:
        texts = subword_texts(tokenizer)
        self._ids = np.array(trimmed.ids)
        self._lengths = np.array([len(text) for text in texts], np.int64)
        self.heads = self._heads(texts, before, after)

    def places(self, before: Sentences, after: Sentences) -> Sentences:
        """For each token of ``after`` the place of the token of ``before`` that begins at the same letter.

        Args:
            before: Target sentences in the ids of the tokenizer with all subwords.
            after: The same sentences in those of the trimmed one.

        Returns:
            Sentences of places in those of ``before``, ``NOWHERE`` for a token without one. A sentence that has letters
            unknown to one of the tokenizers has its first token's place alone.
        """
        starts, own_starts = self._starts(before, self._lengths), self._starts(after, self._lengths[self._ids])
        width = 1 + max(int(starts.max(initial=0)), int(own_starts.max(initial=0)))
        rows, own_rows = (np.repeat(np.arange(len(one)), one.lengths) for one in (before, after))
        keys, own_keys = rows * width + starts, own_rows * width + own_starts
        found = np.searchsorted(keys, own_keys)
        place = found - before.offsets[own_rows]
        # The end marks begin at the whole texts' lengths.
        same = starts[before.offsets[1:] - 1] == own_starts[after.offsets[1:] - 1]
        is_there = (keys[found.clip(max=len(keys) - 1)] == own_keys) & (same[own_rows] | (own_starts == 0))
        # Tokens without letters, such as marks, leave open which of two is meant.
        is_there &= (_is_alone(keys)[found.clip(max=len(keys) - 1)]) & _is_alone(own_keys)
        return Sentences(np.where(is_there, place, NOWHERE).astype(np.int32), after.offsets)

    @staticmethod
    def _starts(sentences: Sentences, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        """(total,) the bytes of a sentence before each of its tokens."""
        before = np.concatenate((np.zeros(1, np.int64), lengths[sentences.tokens].cumsum()))
        return before[:-1] - np.repeat(before[sentences.offsets[:-1]], sentences.lengths)

    def _heads(self, texts: list[bytes], before: Sentences, after: Sentences) -> NDArray[np.int64]:
        size = len(self._ids)
        places = self.places(before, after)
        met = places.tokens != NOWHERE
        rows = np.repeat(np.arange(len(after)), after.lengths)[met]
        whole = before.tokens[before.offsets[rows] + places.tokens[met]].astype(np.int64)
        pairs, counts = np.unique(whole * size + after.tokens[met], return_counts=True)
        pairs = pairs[np.argsort(counts, kind="stable")]  # of several beginnings the most frequent is written last
        heads = np.full(len(texts), size, np.int64)
        known = {texts[one]: number for number, one in enumerate(self._ids) if texts[one]}
        for one, text in enumerate(texts):  # of what the sentences do not have, the longest beginning
            heads[one] = next((known[text[:end]] for end in range(len(text), 0, -1) if text[:end] in known), size)
        heads[pairs // size] = pairs % size
        heads[self._ids] = np.arange(size)
        return heads


def _is_alone(keys: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each of ascending keys differs from those beside it."""
    differs = np.concatenate(([True], keys[1:] != keys[:-1], [True]))
    alone: NDArray[np.bool_] = differs[:-1] & differs[1:]
    return alone

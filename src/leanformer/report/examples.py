"""Translations side by side: the words in which a candidate's differs from the baseline's, and which are right."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby
from typing import Any, Literal

# Scripts without spaces between words are compared by character.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+|[^\w\s]")

Mark = Literal["", "right", "wrong"]
Piece = tuple[str, Mark]
"""A part of a translation; marked where the other translation differs, ``right`` where the reference has it too."""


@dataclass(frozen=True)
class Pair:
    """A test sentence and two translations of it.

    Args:
        source: The sentence that was translated.
        reference: The translation by a person.
        baseline: The baseline's translation, in pieces.
        candidate: The candidate's translation, in pieces.
        baseline_score: The baseline's score on this sentence, in points.
        candidate_score: The candidate's score.
    """

    source: str
    reference: str
    baseline: list[Piece]
    candidate: list[Piece]
    baseline_score: float
    candidate_score: float


def side_by_side(row: Mapping[str, Any]) -> list[Pair]:
    """A candidate's examples, with the differences marked."""
    pairs = []
    for example in row["examples"]:
        baseline, candidate, reference = (_words(example[key]) for key in ("baseline", "candidate", "reference"))
        same = SequenceMatcher(None, baseline, candidate, autojunk=False).get_matching_blocks()
        ours = {block.a + step for block in same for step in range(block.size)}
        theirs = {block.b + step for block in same for step in range(block.size)}
        pairs.append(
            Pair(
                example["source"],
                example["reference"],
                _pieces(example["baseline"], ours, _aligned(baseline, reference)),
                _pieces(example["candidate"], theirs, _aligned(candidate, reference)),
                example["baseline_score"],
                example["candidate_score"],
            )
        )
    return pairs


def _words(text: str) -> list[str]:
    return _WORD.findall(text)


def _aligned(words: list[str], reference: list[str]) -> set[int]:
    """Positions of the words that the reference also has, in the same order."""
    blocks = SequenceMatcher(None, words, reference, autojunk=False).get_matching_blocks()
    return {block.a + step for block in blocks for step in range(block.size)}


def _pieces(text: str, same: set[int], right: set[int]) -> list[Piece]:
    marks: list[tuple[re.Match[str], Mark]] = [
        (found, "" if number in same else "right" if number in right else "wrong")
        for number, found in enumerate(_WORD.finditer(text))
    ]
    pieces: list[Piece] = []
    end = 0
    for mark, group in groupby(marks, key=lambda marked: marked[1]):
        words = [found for found, _ in group]
        pieces += [(text[end : words[0].start()], ""), (text[words[0].start() : words[-1].end()], mark)]
        end = words[-1].end()
    return [piece for piece in (*pieces, (text[end:], "")) if piece[0]]

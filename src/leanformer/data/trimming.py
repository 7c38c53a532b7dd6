"""Tokenizers that write with fewer subwords: those that a corpus needs, into which every other text is cut too.

Which subwords stay: those without which the corpus's target side would have the most tokens. The least used are left
out, the corpus is encoded again with what is left, and counted again, a few times over.
"""

from __future__ import annotations

import heapq
import json
import re
import tempfile
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
from numpy.typing import NDArray
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Tokenizer, pre_tokenizers
from transformers import MarianTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from leanformer.core.errors import LeanformerError, quoted
from leanformer.data.tokenizers import PREFIX, TranslationTokenizer

ROUNDS = 6
"""How often the corpus is encoded and counted at most; each round but the last leaves out half of what is too much."""
_SINGLE_BYTE = re.compile("<0x[0-9A-F]{2}>")
"""A byte of a letter that has no subword, as sentencepiece writes it."""
_NEVER = -1e6
"""The log probability of a mark among the pieces of a unigram model: no text is cut into it."""

Parts = Mapping[int, tuple[int, int]]


@dataclass(frozen=True)
class Trimmed:
    """A tokenizer with fewer target subwords, and where these come from.

    Args:
        tokenizer: The tokenizer; each side has its own.
        ids: For each of its target ids, the id that the subword had before.
    """

    tokenizer: TranslationTokenizer
    ids: tuple[int, ...]


def trim_target(
    tokenizer: TranslationTokenizer, texts: Sequence[str], limit: int, keep: Collection[int] = ()
) -> Trimmed:
    """Leaves out target subwords that texts need least. The source side keeps all of its own.

    What stays in any case: the marks, and all single bytes of a tokenizer that works on bytes, else all letters of the
    texts. So a tokenizer that works on bytes still writes every text, and any other what it wrote before, except
    for letters that the texts do not have.

    The marks keep their ids. One whose id would be too large gets a smaller one, on the source side too, where it
    changes places with the subword that has that id.

    Args:
        tokenizer: Byte pairs (with any alphabet), unigram, or a ``MarianTokenizer`` with a unigram model; unchanged.
        texts: Target sentences, such as those of the training split.
        limit: Most target subwords, marks included. Fewer stay where the texts need fewer.
        keep: Further ids that have to stay, such as the one that a decoder starts with.

    Raises:
        LeanformerError: The limit is too small, or leaves nothing out; or the tokenizer is of another kind.
    """
    source, target = tokenizer.sides
    side = _side(target, "target")
    marks = {tokenizer.pad_id, tokenizer.eos_id, *side.marks, *keep}
    check_trim(limit, tokenizer.target_vocabulary)
    ids = _order(_chosen(side, texts, limit, marks), marks)
    new = {old: number for number, old in enumerate(ids)}
    own_source = _side(source, "source")
    places = {old: old for old in own_source.pieces.values()}
    for mark in {tokenizer.pad_id, tokenizer.eos_id}:
        places[mark], places[new[mark]] = new[mark], mark
    moved = any(old != place for old, place in places.items())
    own = own_source.with_ids(places) if moved else source
    if tokenizer.prefix:
        own.init_kwargs[PREFIX] = tokenizer.prefix
    return Trimmed(TranslationTokenizer(own, side.with_ids(new)), tuple(ids))


def subword_texts(tokenizer: TranslationTokenizer) -> list[bytes]:
    """The bytes that each target subword stands for, by its id, spaces as the tokenizer writes them; none for marks.

    Args:
        tokenizer: Of a kind that can be trimmed.

    Raises:
        LeanformerError: It is of another kind.
    """
    side = _side(tokenizer.sides[1], "target")
    texts = [b""] * (max(side.pieces.values()) + 1)
    for piece, one in side.pieces.items():
        if one not in side.marks:
            is_byte = _SINGLE_BYTE.fullmatch(piece)
            texts[one] = bytes([int(piece[3:5], 16)]) if is_byte else side.bare(piece).encode()
    return texts


def check_trim(limit: Any, whole: int) -> None:
    """Checks that a limit is a number of subwords that leaves some out.

    Args:
        limit: Most target subwords.
        whole: How many there are.

    Raises:
        LeanformerError: It is not.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise LeanformerError(f"target_vocabulary: limit is {quoted(limit)}; it must be a whole number, 1 or more")
    if limit >= whole:
        raise LeanformerError(
            f"target_vocabulary: limit {limit:,} leaves nothing out of the {whole:,} target subwords; give less"
        )


def _chosen(side: _Side, texts: Sequence[str], limit: int, marks: Collection[int]) -> set[int]:
    """The ids that stay."""
    units = side.units(texts)
    times = np.fromiter(units.values(), np.int64, len(units))
    kept = set(side.pieces.values())
    for number in range(ROUNDS):
        cut = side.cut(list(units), kept)
        lengths = np.fromiter(map(len, cut), np.int64, len(cut))
        used = np.fromiter(chain.from_iterable(cut), np.int64, int(lengths.sum()))
        counts = np.zeros(max(side.pieces.values()) + 1, np.int64)
        np.add.at(counts, used, times.repeat(lengths))
        fixed = side.with_parts({*marks, *side.letters(counts)})
        if len(fixed) > limit:
            raise LeanformerError(
                f"target_vocabulary: limit {limit:,} is less than the {len(fixed):,} subwords that have to stay (marks "
                f"and {side.letters_are}); give {len(fixed):,} or more"
            )
        surplus = len(kept) - limit
        last = number == ROUNDS - 1 or surplus <= limit // 100
        _leave_out(kept, counts, side.parts, fixed, limit if last else limit + surplus // 2)
        if len(kept) <= limit:
            break
    return kept


def _leave_out(kept: set[int], counts: NDArray[np.int64], parts: Parts, fixed: Collection[int], goal: int) -> None:
    """Leaves out the least used subwords, down to a number, and any that are not used at all.

    What a kept subword is merged from is kept too, for it could not be formed otherwise. Without it, a text has its two
    parts in its place, which are counted so.
    """
    needed_by = Counter(part for whole in kept if whole in parts for part in parts[whole])
    heap = [(int(counts[one]), -one) for one in kept if not needed_by[one] and one not in fixed]
    heapq.heapify(heap)
    while heap and (len(kept) > goal or heap[0][0] == 0):
        count, negative = heapq.heappop(heap)  # of equal ones the one that was learned last
        kept.remove(-negative)
        for part in parts.get(-negative, ()):
            counts[part] += count
            needed_by[part] -= 1
            if not needed_by[part] and part not in fixed:
                heapq.heappush(heap, (int(counts[part]), -part))


def _order(kept: Collection[int], marks: Collection[int]) -> list[int]:
    """The kept ids in their new order: marks stay where they are, or come last where their ids are too large."""
    fixed = {mark for mark in marks if mark < len(kept)}
    rest = iter([*sorted(set(kept) - set(marks)), *sorted(set(marks) - fixed)])
    return [place if place in fixed else next(rest) for place in range(len(kept))]


class _Side(ABC):
    """One side's tokenizer, whose subwords can be left out and get other ids.

    Attributes:
        pieces: Subword -> id.
        marks: The ids of its marks.
        parts: The id of a merged subword -> those of the two that it is merged from.
        bytes: The ids of single bytes, if it works on bytes.
    """

    pieces: Mapping[str, int]
    marks: Collection[int]
    parts: Parts
    bytes: Collection[int]

    @abstractmethod
    def with_ids(self, new: Mapping[int, int]) -> PreTrainedTokenizerBase:
        """The tokenizer with these subwords alone.

        Args:
            new: The id of a kept subword -> its new id; the new ones go from 0 to their number - 1.
        """

    @abstractmethod
    def units(self, texts: Sequence[str]) -> Counter[str]:
        """The parts of texts that are cut each by itself, such as words, and how often each occurs."""

    @abstractmethod
    def cut(self, units: Sequence[str], kept: Collection[int]) -> list[list[int]]:
        """The ids of the subwords that units are cut into where only some are kept."""

    def bare(self, piece: str) -> str:
        """A subword without what only tells where in a word it stands."""
        return piece

    @property
    def letters_are(self) -> str:
        """What ``letters`` are, in words."""
        return "all single bytes" if self.bytes else "all letters of the training sentences"

    def letters(self, counts: NDArray[np.int64]) -> set[int]:
        """The ids of what any text is cut into at worst: single bytes, or the letters of all that was counted."""
        if self.bytes:
            return set(self.bytes)
        if self.parts:  # what merges begin with, whatever form a letter has inside a word
            return {one for one in self.with_parts(np.flatnonzero(counts).tolist()) if one not in self.parts}
        used = {piece: one for piece, one in self.pieces.items() if counts[one] and one not in self.marks}
        letters = set("".join(used))
        # A subword stays if no other has one of its letters.
        alone = {one for piece, one in used.items() if not all(letter in self.pieces for letter in piece)}
        return {self.pieces[letter] for letter in letters if letter in self.pieces} | alone

    def with_parts(self, ids: Iterable[int]) -> set[int]:
        """These ids, and those of all that they are merged from."""
        found: set[int] = set()
        waiting = list(ids)
        while waiting:
            one = waiting.pop()
            if one not in found:
                found.add(one)
                waiting += self.parts.get(one, ())
        return found


class _Fast(_Side):
    """A tokenizer of the ``tokenizers`` library: merged byte pairs, or a unigram model."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._content: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
        self._model: dict[str, Any] = self._content["model"]
        self._unigram = self._model["type"] == "Unigram"
        self.pieces = tokenizer.get_vocab()
        self.marks = {added["id"] for added in self._content["added_tokens"]}
        self.parts = {} if self._unigram else _parts(self._merges, self.pieces)
        alphabets = (pre_tokenizers.ByteLevel.alphabet(), [f"<0x{byte:02X}>" for byte in range(256)])
        alphabet = next((one for one in alphabets if self.pieces.keys() >= set(one)), ())
        # Inside a word, or at its end, a byte may have another form, where the tokenizer has learned it.
        forms = [(self._prefix, ""), ("", self._model.get("end_of_word_suffix") or ""), ("", "")]
        self.bytes = {
            self.pieces[form]
            for byte in alphabet
            for before, after in forms
            if (form := f"{before}{byte}{after}") in self.pieces
        }

    @property
    def _prefix(self) -> str:
        """What a subword that does not begin a word begins with."""
        return self._model.get("continuing_subword_prefix") or ""

    def bare(self, piece: str) -> str:
        return piece.removeprefix(self._prefix).removesuffix(self._model.get("end_of_word_suffix") or "")

    @property
    def _merges(self) -> list[tuple[str, str, str]]:
        """Left part, right part and the whole of each merge, in their order."""
        prefix = self._prefix
        pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in self._model["merges"])
        return [(left, right, left + right.removeprefix(prefix)) for left, right in pairs]

    def with_ids(self, new: Mapping[int, int]) -> PreTrainedTokenizerBase:
        tokenizer = self._tokenizer
        return PreTrainedTokenizerFast(
            tokenizer_object=self._with_ids(new),
            **tokenizer.special_tokens_map,
            model_max_length=tokenizer.model_max_length,
            clean_up_tokenization_spaces=tokenizer.clean_up_tokenization_spaces,
            split_special_tokens=tokenizer.split_special_tokens,
        )

    def units(self, texts: Sequence[str]) -> Counter[str]:
        backend: Tokenizer = self._tokenizer.backend_tokenizer
        found: Counter[str] = Counter()
        for text in texts:
            normal = text if backend.normalizer is None else backend.normalizer.normalize_str(text)
            if backend.pre_tokenizer is None:
                found[normal] += 1
            else:
                found.update(word for word, _ in backend.pre_tokenizer.pre_tokenize_str(normal))
        return found

    def cut(self, units: Sequence[str], kept: Collection[int]) -> list[list[int]]:
        ids = _order(kept, self.marks)
        model = self._with_ids({old: number for number, old in enumerate(ids)}).model
        return [[ids[token.id] for token in model.tokenize(unit)] for unit in units]

    def _with_ids(self, new: Mapping[int, int]) -> Tokenizer:
        names = {place: piece for piece, one in self.pieces.items() if (place := new.get(one)) is not None}
        # All marks are among the model's pieces: of one that is not, the library chooses the id itself.
        if self._unigram:
            scores = dict(self._model["vocab"])
            vocabulary: Any = [[names[place], scores.get(names[place], _NEVER)] for place in range(len(names))]
            changed = {"unk_id": new.get(self._model["unk_id"]), "vocab": vocabulary}
        else:
            places = {piece: place for place, piece in names.items()}
            merges = [[left, right] for left, right, whole in self._merges if {left, right, whole} <= places.keys()]
            changed = {"vocab": places, "merges": merges}
        added = [{**one, "id": new[one["id"]]} for one in self._content["added_tokens"] if one["id"] in new]
        content = {
            **self._content,
            "model": {**self._model, **changed},
            "added_tokens": sorted(added, key=lambda one: one["id"]),
            "post_processor": self._numbered(self._content["post_processor"], new),
        }
        return Tokenizer.from_str(json.dumps(content))

    def _numbered(self, processor: Any, new: Mapping[int, int]) -> Any:
        """What adds the marks, with their new ids."""
        if not isinstance(processor, dict):
            return processor
        changed = dict(processor)
        for key in ("sep", "cls"):  # of BERT's and RoBERTa's
            if isinstance(processor.get(key), list):
                changed[key] = [processor[key][0], new[processor[key][1]]]
        if "special_tokens" in processor:  # of a template
            changed["special_tokens"] = {
                name: {**mark, "ids": [new[one] for one in mark["ids"]]}
                for name, mark in processor["special_tokens"].items()
            }
        if "processors" in processor:  # several, one after the other
            changed["processors"] = [self._numbered(inner, new) for inner in processor["processors"]]
        return changed


def _parts(merges: Sequence[tuple[str, str, str]], pieces: Mapping[str, int]) -> dict[int, tuple[int, int]]:
    """Each merged subword's two parts: of several merges that make it, those of the one that it is made by."""
    ways: dict[str, list[tuple[str, str]]] = {}
    for left, right, whole in merges:
        ways.setdefault(whole, []).append((left, right))
    ranks = {(left, right): rank for rank, (left, right, _) in enumerate(merges)}
    found = {}
    for whole, pairs in ways.items():
        pair = pairs[0] if len(pairs) == 1 else _last_pair(whole, ranks, pairs)
        found[pieces[whole]] = (pieces[pair[0]], pieces[pair[1]])
    return found


def _last_pair(whole: str, ranks: Mapping[tuple[str, str], int], pairs: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """The two parts from which a subword is made when it is encoded by itself, merge by merge."""
    symbols = list(whole)
    while len(symbols) > 2:
        ranked = [(ranks[pair], place) for place, pair in enumerate(pairwise(symbols)) if pair in ranks]
        if not ranked:
            break
        _, place = min(ranked)
        symbols[place : place + 2] = ["".join(symbols[place : place + 2])]
    pair = tuple(symbols)
    return pair if len(pair) == 2 and pair in pairs else pairs[0]


class _Marian(_Side):
    """One side of a ``MarianTokenizer``, whose subwords are cut by a model of ``sentencepiece``.

    Args:
        tokenizer: The tokenizer.
        side: ``source`` or ``target``.
    """

    def __init__(self, tokenizer: MarianTokenizer, side: str) -> None:
        self._tokenizer = tokenizer
        target = side == "target"
        self.pieces = tokenizer.target_encoder if target and tokenizer.separate_vocabs else tokenizer.encoder
        # Where a side has a tokenizer of its own, either of its two models is that of this side.
        self._spm: sentencepiece.SentencePieceProcessor = tokenizer.spm_target if target else tokenizer.spm_source
        self._proto = sentencepiece_model_pb2.ModelProto.FromString(self._spm.serialized_model_proto())
        if self._proto.trainer_spec.model_type != sentencepiece_model_pb2.TrainerSpec.UNIGRAM:
            raise LeanformerError(
                "target_vocabulary: the tokenizer's sentencepiece model is not of the kind unigram, the one kind of "
                "which subwords can be left out"
            )
        self.marks = {self.pieces[str(mark)] for mark in tokenizer.all_special_tokens if str(mark) in self.pieces}
        self.parts = {}
        byte = sentencepiece_model_pb2.ModelProto.SentencePiece.BYTE
        self.bytes = [
            self.pieces[one.piece] for one in self._proto.pieces if one.type == byte and one.piece in self.pieces
        ]

    def with_ids(self, new: Mapping[int, int]) -> PreTrainedTokenizerBase:
        tokenizer = self._tokenizer
        with tempfile.TemporaryDirectory() as directory:  # it is made of files alone, and keeps their content
            model, vocabulary = Path(directory, "side.spm"), Path(directory, "vocab.json")
            model.write_bytes(self._model_of(new))
            names = {piece: new[one] for piece, one in self.pieces.items() if one in new}
            vocabulary.write_text(json.dumps(names), encoding="utf-8")
            return MarianTokenizer(
                str(model),
                str(model),
                str(vocabulary),
                source_lang=tokenizer.source_lang,
                target_lang=tokenizer.target_lang,
                unk_token=tokenizer.unk_token,
                eos_token=tokenizer.eos_token,
                pad_token=tokenizer.pad_token,
                model_max_length=tokenizer.model_max_length,
                sp_model_kwargs=tokenizer.sp_model_kwargs,
            )

    def units(self, texts: Sequence[str]) -> Counter[str]:
        return Counter(texts)

    def cut(self, units: Sequence[str], kept: Collection[int]) -> list[list[int]]:
        model = sentencepiece.SentencePieceProcessor(model_proto=self._model_of(kept))
        unknown = self.pieces[str(self._tokenizer.unk_token)]
        return [[self.pieces.get(piece, unknown) for piece in unit] for unit in model.encode(list(units), out_type=str)]

    def _model_of(self, kept: Collection[int]) -> bytes:
        """The file of the model with these pieces, and those that are no subwords of the translator."""
        normal = sentencepiece_model_pb2.ModelProto.SentencePiece.NORMAL
        left_out = {piece for piece, one in self.pieces.items() if one not in kept}
        proto = sentencepiece_model_pb2.ModelProto()
        proto.CopyFrom(self._proto)
        del proto.pieces[:]
        proto.pieces.extend(one for one in self._proto.pieces if one.type != normal or one.piece not in left_out)
        content: bytes = proto.SerializeToString()
        return content


def _side(tokenizer: PreTrainedTokenizerBase, side: str) -> _Side:
    if isinstance(tokenizer, MarianTokenizer):
        return _Marian(tokenizer, side)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    kind = type(tokenizer).__name__ if backend is None else type(backend.model).__name__
    if kind not in ("BPE", "Unigram"):
        raise LeanformerError(
            f"target_vocabulary: subwords of a tokenizer of the kind {kind} cannot be left out; kinds that can: BPE, "
            "Unigram, MarianTokenizer"
        )
    return _Fast(tokenizer)

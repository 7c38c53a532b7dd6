"""Subword tokenizers of translators: trained where the model brings none (``subwords``), wrapped where it brings its
own, kept with the model. Their files are ordinary Hugging Face ones."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, processors
from torch import Tensor
from transformers import AutoTokenizer, MarianTokenizer, PreTrainedTokenizerBase

from leanformer.config.translation import TokenizerConfig
from leanformer.core.errors import LeanformerError, first_line
from leanformer.data.model_languages import code_for, codes_of, knows_languages
from leanformer.data.normalization import Normalize, normalizer_of
from leanformer.data.sentence_pieces import source_form, target_form
from leanformer.data.subwords import END, trained_subwords, wrapped

SIDES = ("source_tokenizer", "target_tokenizer")  # directories, where each side has its own
PREFIX = "source_prefix"
"""The key of ``tokenizer_config.json`` that holds what stands before each source."""
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
    "source.spm",
    "sentencepiece.bpe.model",
    "spiece.model",
)


class TranslationTokenizer:
    """Text to subwords and back, for both sides of a translator.

    A prefix of sources and the languages of a tokenizer of many are among the tokenizer's own settings, so that a saved
    model goes on with them.

    Args:
        source: The tokenizer of the source side.
        target: That of the target side; by default ``source`` serves both.

    Raises:
        LeanformerError: A tokenizer has no padding or end mark, or the sides differ in them.
    """

    def __init__(self, source: PreTrainedTokenizerBase, target: PreTrainedTokenizerBase | None = None) -> None:
        self._source = source
        self._target = source if target is None else target
        marks = {(side.pad_token_id, side.eos_token_id) for side in (self._source, self._target)}
        if len(marks) > 1:
            raise LeanformerError("the tokenizers of source and target have different ids for padding or for the end")
        pad_id, eos_id = marks.pop()
        if pad_id is None or eos_id is None:
            raise LeanformerError(
                f"the tokenizer of {source.name_or_path or 'the model'} has no "
                f"{'end mark' if eos_id is None else 'padding'}; a translator's tokenizer has pad_token and eos_token"
            )
        self.pad_id: int = pad_id
        self.eos_id: int = eos_id
        if self.eos_id not in self._marked:
            raise LeanformerError(
                f"the tokenizer of {source.name_or_path or 'the model'} puts no end mark {source.eos_token} after a "
                "sentence; a translator's must, or its translations never end"
            )

    @property
    def sides(self) -> tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase]:
        """The tokenizers of source and target; the same where one serves both."""
        return self._source, self._target

    @property
    def shared(self) -> bool:
        """Whether one tokenizer serves both sides."""
        return self._source is self._target

    @property
    def source_vocabulary(self) -> int:
        """Subwords of the source side, marks included."""
        return len(self._source)

    @property
    def target_vocabulary(self) -> int:
        """Subwords of the target side, marks included."""
        if isinstance(self._target, MarianTokenizer) and self._target.separate_vocabs:
            return len(self._target.target_encoder)
        return len(self._target)

    @property
    def prefix(self) -> str:
        """What stands before each source, such as ``translate German to English: ``."""
        return str(self._source.init_kwargs.get(PREFIX) or "")

    @cached_property
    def first_id(self) -> int | None:
        """The id that every target begins with: its language's (NLLB); None where there is none."""
        first = self._marked[0]
        return first if first == self._language_id else None

    @cached_property
    def last_id(self) -> int | None:
        """The id that every target ends with after its end mark: its language's (mBART); None where there is none."""
        last = self._marked[-1]
        return last if last == self._language_id else None

    @cached_property
    def _marked(self) -> list[int]:
        return self.encode_target(["a"])[0]

    @property
    def _language_id(self) -> int | None:
        """The id of the target's language, where the tokenizer knows several."""
        target: Any = self._target
        if not knows_languages(target):
            return None
        token = target.get_lang_token(target.tgt_lang) if hasattr(target, "get_lang_token") else target.tgt_lang
        return int(target.convert_tokens_to_ids(token))

    @property
    def unknown_id(self) -> int | None:
        """The id of letters that the target side does not know; None where it knows all."""
        return self._target.unk_token_id

    def encode_source(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of source sentences with their prefix, each with its end mark."""
        return self._source([self.prefix + text for text in texts], verbose=False)["input_ids"] if texts else []

    def encode_target(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of target sentences, each with its end mark."""
        return self._target(text_target=list(texts), verbose=False)["input_ids"] if texts else []

    def decode(self, ids: Sequence[Sequence[int]] | Tensor) -> list[str]:
        """The target sentences of rows of ids, without marks."""
        return self._target.batch_decode(ids, skip_special_tokens=True)

    @cached_property
    def normalize(self) -> Normalize:
        """Normalises a target text to the form that the tokenizer knows, in which references have to be scored."""
        return normalizer_of(self._target)

    @property
    def lowercases(self) -> bool:
        """Whether target texts come out in lower case."""
        return self.normalize("A") == "a"

    def library_forms(self) -> tuple[Tokenizer, Tokenizer]:
        """The sides in the form of the library ``tokenizers``, which needs no transformers: source and target.

        The source's puts no prefix before texts. The target's is for decoding; where one tokenizer serves both sides,
        it is the same object.

        Raises:
            LeanformerError: A side has no such form.
        """
        source = _source_form(self._source)
        if self.shared and not isinstance(self._source, MarianTokenizer):
            return source, source
        target = self._target
        return source, target_form(target) if isinstance(target, MarianTokenizer) else _source_form(target)

    @property
    def splits_marks(self) -> bool:
        """Whether a mark in a source, such as ``</s>``, is text like any other."""
        return bool(self._source.split_special_tokens)

    @property
    def cleans_up(self) -> bool:
        """Whether spaces before punctuation are taken out of translations."""
        return bool(self._target.clean_up_tokenization_spaces)

    def save(self, directory: Path | str) -> None:
        """Writes the tokenizer's files into a model's directory, or those of each side into a directory below it."""
        if self.shared:
            self._source.save_pretrained(directory)
        else:
            for name, side in zip(SIDES, (self._source, self._target), strict=True):
                side.save_pretrained(Path(directory) / name)

    @classmethod
    def load(
        cls,
        model: Path | str,
        languages: tuple[str, str] | None = None,
        codes: Mapping[str, str] | None = None,
        prefix: str | None = None,
    ) -> TranslationTokenizer:
        """The tokenizer that a model brings: one that was trained here, or that of any trained translator.

        Args:
            model: A model's directory, or its hub id.
            languages: Those of source and target, as the data name them, for a tokenizer that knows many; None: those
                that it is set to.
            codes: Language -> the tokenizer's code for it, where that does not follow from the language.
            prefix: What is put before each source; None: what the tokenizer says.

        Raises:
            LeanformerError: The model brings none, or one that cannot be read; or it does not know the languages.
        """
        directory = Path(os.path.expanduser(model))
        path, own = str(model), {} if prefix is None else {PREFIX: prefix}
        if directory.is_dir():
            sides = [directory / name for name in SIDES]
            if any(side.is_dir() for side in sides):
                for side in sides:
                    check_files(side)
                return cls(load_tokenizer(str(sides[0]), own), load_tokenizer(str(sides[1])))
            check_files(directory)
            path = str(directory)
        tokenizer = load_tokenizer(path, own)
        if not knows_languages(tokenizer):
            if codes:
                raise LeanformerError(
                    f"data.language_codes does nothing here: the tokenizer of {model} does not tell languages apart; "
                    "leave it out"
                )
            return cls(tokenizer)
        if languages is not None:
            keys = ("source_language", "target_language")
            pair = [code_for(tokenizer, *one, codes or {}) for one in zip(languages, keys, strict=True)]
            return cls(load_tokenizer(path, {**own, **dict(zip(("src_lang", "tgt_lang"), pair, strict=True))}))
        if getattr(tokenizer, "tgt_lang", None) is None:
            raise LeanformerError(
                f"{model}: its tokenizer knows {len(codes_of(tokenizer))} languages and is set to none; save it with "
                "src_lang and tgt_lang, or make a student of it in a study"
            )
        return cls(tokenizer)

    def signature(self) -> str:
        """A hash of what the tokenizer does: equal for equal tokenizers, wherever they are stored."""
        sides = [self._source] if self.shared else [self._source, self._target]
        marks = [self.prefix.encode()] + [str(self._language_id).encode()] * (self._language_id is not None)
        return hashlib.sha256(b"".join([*map(fingerprint, sides), *marks])).hexdigest()


def check_files(directory: Path) -> None:
    """Makes sure that there is a tokenizer: ``transformers`` makes an empty one for some models without files."""
    if not any((directory / name).is_file() for name in TOKENIZER_FILES):
        raise LeanformerError(
            f"{directory}: holds no tokenizer ({', '.join(TOKENIZER_FILES[:4])} or the like); copy it from where the "
            "model was trained"
        )


def _source_form(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """A tokenizer in the form of the library ``tokenizers``: a copy.

    Raises:
        LeanformerError: It has none.
    """
    if isinstance(tokenizer, MarianTokenizer):
        return source_form(tokenizer)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise LeanformerError(
            f"the tokenizer of {tokenizer.name_or_path or 'the model'} is a {type(tokenizer).__name__}, which has no "
            "form for the library tokenizers; take a model with a tokenizer.json"
        )
    return Tokenizer.from_str(backend.to_str())


def load_tokenizer(path: str, settings: Mapping[str, str] | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of a directory or of the hub.

    Raises:
        LeanformerError: It cannot be read.
    """
    try:
        return AutoTokenizer.from_pretrained(path, trust_remote_code=False, **(settings or {}))  # no code of its own
    except Exception as error:  # of many types, from several libraries
        raise LeanformerError(f"{path}: its tokenizer cannot be read ({first_line(error)})") from error


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> bytes:
    """A hash of a tokenizer's vocabulary and rules."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        return hashlib.sha256(backend.to_str().encode()).digest()
    digest = hashlib.sha256()
    with tempfile.TemporaryDirectory() as directory:
        for file in sorted(tokenizer.save_vocabulary(directory)):
            digest.update(Path(file).name.encode() + hashlib.sha256(Path(file).read_bytes()).digest())
    return digest.digest()


def train_tokenizer(config: TokenizerConfig, sources: Sequence[str], targets: Sequence[str]) -> TranslationTokenizer:
    """Trains a tokenizer on both sides together, or one for each; equal arguments give equal tokenizers.

    Args:
        config: The study's ``data.tokenizer`` section.
        sources: Sentences of the source side.
        targets: Sentences of the target side.
    """
    if config.shared:
        return TranslationTokenizer(_with_end(config, [*sources, *targets]))
    return TranslationTokenizer(_with_end(config, sources), _with_end(config, targets))


def _with_end(config: TokenizerConfig, texts: Sequence[str]) -> PreTrainedTokenizerBase:
    """A tokenizer that puts the end mark after each text."""
    tokenizer = trained_subwords(config, texts)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, 0)])
    return wrapped(tokenizer)

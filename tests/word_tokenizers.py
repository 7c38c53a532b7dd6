"""Tokenizers of numbers in words that tests share: trained here, or as a trained Marian brings them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import sentencepiece
from num2words import num2words
from transformers import MarianTokenizer

from leanformer.config.translation import TokenizerConfig
from leanformer.data.tokenizers import TranslationTokenizer, train_tokenizer

ENGLISH = [num2words(number) for number in range(0, 6000, 7)]
GERMAN = [num2words(number, lang="de") for number in range(0, 6000, 7)]

ODD_TEXTS = [
    "",
    " ",
    "  leading, double  and trailing spaces ",
    "tab\tline\nfeed\r\n",
    "12,345.67 % of 0007",
    "e\u0301 is not composed, \u00e9 is",
    "Straße, ǅ, İstanbul, ﬁ, ½",
    "日本語と한국어、العربية, עברית, ไทย",
    "👩‍👩‍👧‍👦 \U0001f600 \ufe0f",
    "\x00 \x7f \u2028 \u200b \ufeff \xa0 \u3000",
    "</s> <pad> <unk> are text here",
    "\u2581 and Ġ and \u0120",
    "don't won't 'ts",
]


def trained(kind: Any = "bpe", shared: bool = True, vocabulary: int = 400, **keys: Any) -> TranslationTokenizer:
    config = TokenizerConfig(kind=kind, shared=shared, vocabulary=vocabulary, **keys)
    return train_tokenizer(config, ENGLISH, GERMAN)


def write_pieces(file: Path, texts: list[str], model_type: str) -> list[str]:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        vocab_size=120,
        model_type=model_type,
        hard_vocab_limit=False,
        character_coverage=1.0,
        minloglevel=2,
    )
    file.write_bytes(model.getvalue())
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    return [processor.id_to_piece(index) for index in range(len(processor))]


def write_marian(place: Path, model_type: str = "unigram") -> Path:
    """Files as Hugging Face's own ``save_pretrained`` of a trained Marian writes them, in a directory of their own."""
    files = place / "files"
    files.mkdir()
    pieces = [
        *write_pieces(files / "source.spm", ENGLISH, model_type),
        *write_pieces(files / "target.spm", GERMAN, model_type),
    ]
    names = dict.fromkeys(
        ["</s>", "<unk>", *(piece for piece in pieces if piece not in ("<s>", "</s>", "<unk>")), "<pad>"]
    )
    (files / "vocab.json").write_text(json.dumps({piece: index for index, piece in enumerate(names)}))
    tokenizer = MarianTokenizer(
        str(files / "source.spm"),
        str(files / "target.spm"),
        str(files / "vocab.json"),
        source_lang="en",
        target_lang="de",
    )
    directory = place / "model"
    tokenizer.save_pretrained(directory)
    (directory / "config.json").write_text(json.dumps({"model_type": "marian"}))
    return directory

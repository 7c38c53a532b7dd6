"""Trains subword tokenizers on bytes (Radford et al. 2019, section 2.2).

Any text can be encoded, and is decoded unchanged in Unicode's composed form (NFC).
"""

from __future__ import annotations

import io
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sentencepiece
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from leanformer.config.subwords import SubwordsConfig

END, UNKNOWN, PADDING = "</s>", "<unk>", "<pad>"  # with the ids 0, 1 and 2


def trained_subwords(config: SubwordsConfig, texts: Sequence[str]) -> Tokenizer:
    """One tokenizer of at most ``config.vocabulary`` subwords, the 256 bytes and three marks among them.

    Args:
        config: How it is trained.
        texts: What it is trained on; equal arguments give equal tokenizers.
    """
    normalizer: list[Any] = [normalizers.NFC()]
    if config.lowercase:
        normalizer.append(normalizers.Lowercase())
        normalizer.append(normalizers.NFC())  # some letters are decomposed when they are lowercased
    normalize = normalizers.Sequence(normalizer)
    split = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if config.kind == "bpe":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.normalizer = normalize
        tokenizer.pre_tokenizer = split
        trainer = trainers.BpeTrainer(
            vocab_size=config.vocabulary,
            min_frequency=2,
            special_tokens=[END, UNKNOWN, PADDING],
            initial_alphabet=split.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
    else:
        words = Counter(word for text in texts for word, _ in split.pre_tokenize_str(normalize.normalize_str(text)))
        tokenizer = Tokenizer(models.Unigram(_unigram_pieces(words, config.vocabulary), unk_id=1))
        tokenizer.normalizer = normalize
        tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def wrapped(tokenizer: Tokenizer, **marks: str) -> PreTrainedTokenizerFast:
    """A trained tokenizer as transformers has it.

    Args:
        tokenizer: The result of ``trained_subwords``, with further marks and what it puts around texts.
        marks: Further marks, such as ``cls_token``.
    """
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        unk_token=UNKNOWN,
        pad_token=PADDING,
        clean_up_tokenization_spaces=False,
        split_special_tokens=True,  # a "</s>" in a text is text
        **marks,
    )


def _unigram_pieces(words: Counter[str], vocabulary: int) -> list[tuple[str, float]]:
    """The pieces and log probabilities of a unigram model (Kudo 2018), the marks first.

    They are learned by ``sentencepiece``, because the trainer of ``tokenizers`` sums in another order each time.
    """
    words = words + Counter(dict.fromkeys(pre_tokenizers.ByteLevel.alphabet(), 1))  # every byte is a piece
    model = io.BytesIO()
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "words.tsv")
        # Only what occurs in two contexts is tried as a piece: a word that occurs more than once is written without and
        # with a space after it.
        lines = [(word, count - count // 2) for word, count in sorted(words.items())]
        spaced = [(f"{word} ", count // 2) for word, count in sorted(words.items()) if count > 1]
        file.write_text("".join(f"{text}\t{count}\n" for text, count in lines + spaced), encoding="utf-8")
        sentencepiece.SentencePieceTrainer.train(
            input=str(file),
            input_format="tsv",
            model_writer=model,
            model_type="unigram",
            vocab_size=vocabulary + bool(spaced),  # the space takes one
            hard_vocab_limit=False,
            character_coverage=1.0,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            split_by_whitespace=True,
            split_by_unicode_script=False,
            split_by_number=False,
            num_threads=1,
            minloglevel=2,
            bos_id=-1,
            eos_id=0,
            unk_id=1,
            pad_id=2,
            eos_piece=END,
            unk_piece=UNKNOWN,
            pad_piece=PADDING,
        )
    learned = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    pieces = [(learned.id_to_piece(index), learned.get_score(index)) for index in range(len(learned))]
    return [(piece, score) for piece, score in pieces if piece != "\u2581"]  # the space

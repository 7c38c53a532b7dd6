"""Tiny translators of architectures that are found, with random weights and tokenizers of number words."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from transformers import (
    M2M100Config,
    M2M100ForConditionalGeneration,
    MBartConfig,
    MBartForConditionalGeneration,
    MBartTokenizer,
    NllbTokenizer,
    PegasusConfig,
    PegasusForConditionalGeneration,
    PegasusTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    T5Config,
    T5ForConditionalGeneration,
    T5Tokenizer,
)
from word_tokenizers import ENGLISH, GERMAN

BART_SIZES: dict[str, Any] = {
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "max_position_embeddings": 64,
    "dropout": 0.0,
    "init_std": 0.1,
}
"""Keys of the configurations of BART's kind."""
T5_SIZES: dict[str, Any] = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "dropout_rate": 0.0}
T5_TASK = {"translation_de_to_en": {"prefix": "translate German to English: "}}


def pieces(*marks: str) -> list[tuple[str, float]]:
    """Subwords of number words with their scores, behind these marks."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*ENGLISH, *GERMAN, "translate to:"]),
        model_writer=model,
        vocab_size=120,
        hard_vocab_limit=False,
        character_coverage=1.0,
        minloglevel=2,
    )
    learned = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    found = [(learned.id_to_piece(index), learned.get_score(index)) for index in range(3, len(learned))]
    return [*((mark, 0.0) for mark in marks), *found]


def letters(*marks: str) -> dict[str, int]:
    """The letters of number words with their ids, behind these marks."""
    texts = "".join([*ENGLISH, *GERMAN])
    return {piece: number for number, piece in enumerate([*marks, "\u2581", *sorted(set(texts) - {" "})])}


def t5() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    tokenizer = T5Tokenizer(vocab=pieces("<pad>", "</s>", "<unk>"), extra_ids=0)
    config = T5Config(vocab_size=len(tokenizer) + 5, decoder_start_token_id=0, task_specific_params=T5_TASK, **T5_SIZES)
    return T5ForConditionalGeneration(config), tokenizer


def nllb() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    tokenizer = NllbTokenizer(vocab=letters("<s>", "<pad>", "</s>", "<unk>"), merges=[])
    config = M2M100Config(vocab_size=len(tokenizer), **BART_SIZES)
    return M2M100ForConditionalGeneration(config), tokenizer


def mbart() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    tokenizer = MBartTokenizer(vocab=pieces("<s>", "<pad>", "</s>", "<unk>"))
    return MBartForConditionalGeneration(MBartConfig(vocab_size=len(tokenizer), **BART_SIZES)), tokenizer


def pegasus() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    tokenizer = PegasusTokenizer(
        vocab=pieces("<pad>", "</s>", "<unk>"), offset=0, mask_token=None, mask_token_sent=None
    )
    config = PegasusConfig(vocab_size=len(tokenizer), **BART_SIZES)
    return PegasusForConditionalGeneration(config), tokenizer


MADE: dict[str, Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerBase]]] = {
    "t5": t5,
    "nllb": nllb,
    "mbart": mbart,
    "pegasus": pegasus,
}
"""Name -> makes the translator and its tokenizer."""


def write(name: str, directory: Path) -> Path:
    """A translator's directory, as ``save_pretrained`` writes it."""
    torch.manual_seed(0)
    model, tokenizer = MADE[name]()
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def study_of(directory: Path, **changes: Any) -> dict[str, Any]:
    """A study of a translator on number words; it takes some seconds."""
    study: dict[str, Any] = {
        "name": "found",
        "task": "translation",
        "data": {
            "source": "number-words",
            "numbers": {"train": 200, "validation": 20, "test": 40, "largest": 999},
            "max_tokens": 60,
        },
        "baseline": {"model": str(directory)},
        "candidates": {
            "slots": {
                "method": "distill",
                "plan": {"*attention": {"block": "slots", "slots": 4, "gate": "linear"}},
                "finetune": {"epochs": 1, "targets": "teacher"},
            },
        },
        "train": {"epochs": 1, "learning_rate": 3e-3, "batch_tokens": 1024, "label_smoothing": 0.0},
        "distill": {"epochs": 1, "learning_rate": 3e-3},
        "decode": {"max_tokens": 12},
        "seeds": [0],
        "measure": {"latency_calls": 1, "repeats": 1, "throughput_batch": 2},
    }
    return {**study, **changes}

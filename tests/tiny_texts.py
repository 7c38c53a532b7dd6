"""Tiny labelled texts, and tiny encoders of several architectures in directories as they come from the hub."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from transformers import PreTrainedModel

from leanformer.config.subwords import SubwordsConfig
from leanformer.data.classifier_tokenizers import ClassifierTokenizer

GOOD = ("fine", "great", "lovely", "superb")
BAD = ("awful", "dull", "poor", "weak")
OTHERS = ("a", "film", "the", "story", "with", "and", "of", "people")
_SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
}
_DISTILBERT = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 40}
ENCODERS: dict[str, Callable[..., PreTrainedModel]] = {
    "bert": lambda **keys: hf.BertModel(hf.BertConfig(**_SIZES, **keys)),
    "bert for masked words": lambda **keys: hf.BertForMaskedLM(hf.BertConfig(**_SIZES, **keys)),
    "roberta": lambda **keys: hf.RobertaModel(hf.RobertaConfig(**_SIZES, **keys)),
    "distilbert": lambda **keys: hf.DistilBertModel(hf.DistilBertConfig(**_DISTILBERT, **keys)),
    "electra": lambda **keys: hf.ElectraModel(hf.ElectraConfig(**_SIZES, embedding_size=16, **keys)),
    "albert": lambda **keys: hf.AlbertModel(hf.AlbertConfig(**_SIZES, embedding_size=16, **keys)),
    "modernbert": lambda **keys: hf.ModernBertModel(hf.ModernBertConfig(**_SIZES, **keys)),
}


def opinions(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Texts of 3 to 12 words, each with one word that says its class: ``good`` or ``bad``."""
    rng = random.Random(seed)
    found = []
    for number in range(count):
        words = rng.choices(OTHERS, k=rng.randint(2, 11))
        label = ("good", "bad")[number % 2]
        words.insert(rng.randrange(len(words)), rng.choice(GOOD if label == "good" else BAD))
        found.append((f"{' '.join(words)} {number + 1000 * seed}", label))
    return found


def write_texts(file: Path, rows: Sequence[Sequence[str]], names: Sequence[str] = ("text", "label")) -> Path:
    """Writes a table with tabs between columns; no names: without a first line."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join("\t".join(row) + "\n" for row in ([names] if names else []) + list(rows)))
    return file


def tiny_tokenizer() -> ClassifierTokenizer:
    """A tokenizer that knows such texts."""
    return ClassifierTokenizer.trained(SubwordsConfig(vocabulary=300), [text for text, _ in opinions(50)])


def write_encoder(directory: Path, name: str = "bert", model: PreTrainedModel | None = None) -> Path:
    """Writes such a model, or another, with a tokenizer. Returns the directory."""
    tokenizer = tiny_tokenizer()
    if model is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = ENCODERS[name](vocab_size=tokenizer.vocabulary, **tokenizer.marks)
    model.save_pretrained(directory)
    tokenizer.save(directory, 32)
    return directory

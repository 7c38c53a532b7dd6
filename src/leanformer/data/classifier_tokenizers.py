"""The tokenizer of a text classifier: that of a trained model, or one that is trained on the study's texts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tokenizers import processors
from transformers import PreTrainedTokenizerBase

from leanformer.config.subwords import SubwordsConfig
from leanformer.core.bounds import TOKENS
from leanformer.core.errors import LeanformerError
from leanformer.data.subwords import END, trained_subwords, wrapped
from leanformer.data.tokenizers import check_files, load_tokenizer

START = "<s>"
"""What stands before a text in a tokenizer that is trained here; classifiers read the answer there."""
Encoded = tuple[list[list[int]], list[list[int]]]
"""The ids of texts, and of each token whether it is of the first text of a pair (0) or the second (1)."""


class ClassifierTokenizer:
    """Texts, or pairs of texts, to the ids of their subwords, with the marks that the model was trained with.

    Args:
        tokenizer: That of transformers.

    Raises:
        LeanformerError: It has no padding.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if tokenizer.pad_token_id is None:
            raise LeanformerError(
                f"the tokenizer of {tokenizer.name_or_path or 'the model'} has no padding token, so that texts of "
                "different lengths make no batch; set its pad_token and save it again"
            )
        self._tokenizer = tokenizer
        self.pad_id = int(tokenizer.pad_token_id)

    @property
    def vocabulary(self) -> int:
        """Subwords, marks included."""
        return len(self._tokenizer)

    @property
    def marks(self) -> dict[str, int]:
        """The ids of the marks, by the keys of a model's configuration."""
        names = ("pad", "bos", "eos", "cls", "sep")
        found = {f"{name}_token_id": getattr(self._tokenizer, f"{name}_token_id", None) for name in names}
        return {key: number for key, number in found.items() if number is not None}

    def added(self, pairs: bool) -> int:
        """How many marks are put around a text, or around both of a pair."""
        return int(self._tokenizer.num_special_tokens_to_add(pair=pairs))

    def encode(self, texts: Sequence[str], seconds: Sequence[str] | None, max_tokens: int) -> Encoded:
        """The ids of texts, each cut to ``max_tokens`` with its marks; of a pair the longer text is cut.

        Args:
            texts: The texts.
            seconds: The other text of each pair.
            max_tokens: Most tokens; as many as the marks at least.
        """
        if not len(texts):
            return [], []
        found = self._tokenizer(
            list(texts),
            None if seconds is None else list(seconds),
            truncation=True,
            max_length=max_tokens,
            return_attention_mask=False,
            return_token_type_ids=True,
            verbose=False,
        )
        ids: list[list[int]] = found["input_ids"]
        return ids, found.get("token_type_ids") or [[0] * len(row) for row in ids]

    @property
    def max_tokens(self) -> int | None:
        """Most tokens of a text, as the tokenizer says; None where it says none."""
        most = self._tokenizer.model_max_length
        return int(most) if most <= TOKENS else None

    def save(self, directory: Path | str, max_tokens: int) -> None:
        """Writes the tokenizer's files into a model's directory.

        Args:
            directory: The directory.
            max_tokens: Most tokens of a text, to which it is set.
        """
        self._tokenizer.model_max_length = max_tokens
        self._tokenizer.save_pretrained(directory)

    @classmethod
    def load(cls, model: Path | str) -> ClassifierTokenizer:
        """The tokenizer that a model brings.

        Args:
            model: The model's directory, or its hub id.

        Raises:
            LeanformerError: It brings none, or one that cannot be read or has no padding.
        """
        directory = Path(os.path.expanduser(model))
        if directory.is_dir():
            check_files(directory)
            return cls(load_tokenizer(str(directory)))
        return cls(load_tokenizer(str(model)))

    @classmethod
    def trained(cls, config: SubwordsConfig, texts: Sequence[str]) -> ClassifierTokenizer:
        """A tokenizer that is trained on texts; equal arguments give equal tokenizers.

        It writes ``<s> text </s>``, and of a pair ``<s> text </s> other text </s>``.

        Args:
            config: The study's ``data.tokenizer`` section.
            texts: The training texts, both of each pair.
        """
        tokenizer = trained_subwords(config.model_copy(update={"vocabulary": config.vocabulary - 1}), texts)
        tokenizer.add_special_tokens([START])
        start, end = (tokenizer.token_to_id(mark) for mark in (START, END))
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{START} $A {END}",
            pair=f"{START} $A {END} $B:1 {END}:1",
            special_tokens=[(START, start), (END, end)],
        )
        return cls(wrapped(tokenizer, bos_token=START, cls_token=START, sep_token=END))

"""The keys by which a study says how a subword tokenizer is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from leanformer.core.fields import Section


class SubwordsConfig(Section):
    """The subword tokenizer that is trained where the model brings none."""

    kind: Literal["bpe", "unigram"] = "bpe"
    vocabulary: Annotated[int, Field(ge=260, le=10**6)] = 8000
    """Most subwords, with the 256 bytes and the special tokens; fewer where the text does not hold so many."""
    lowercase: bool = False
    """All texts in lower case."""

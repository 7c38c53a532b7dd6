"""The baseline of a study of translators."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from leanformer.core.errors import LeanformerError, quoted
from leanformer.model.baseline import Baseline


@dataclass(frozen=True)
class TextGeometry:
    """The vocabularies that a translator reads and writes, and how long its sentences may be.

    Args:
        source_vocabulary: Subwords of the source side.
        target_vocabulary: Subwords of the target side.
        shared: Whether both are one vocabulary.
        pad_id: The id of padding; a fresh decoder starts with it too.
        eos_id: The id of the end mark.
        positions: Most subwords of a sentence.
        first_id: The id that every translation begins with, such as that of its language (NLLB); None: there is none.
        start_id: The id that a decoder starts with where that is not the model's own, but the language (mBART).
    """

    source_vocabulary: int
    target_vocabulary: int
    shared: bool
    pad_id: int
    eos_id: int
    positions: int
    first_id: int | None = None
    start_id: int | None = None


class TextBaseline(Baseline):
    """The baseline of a study of translators; see ``Baseline``."""

    def __init__(self, source: str, settings: Mapping[str, Any], fresh: bool) -> None:
        super().__init__(source, settings, fresh, "translation")

    def check(self, geometry: TextGeometry, asked_by: str = "data") -> None:
        """Checks that the model fits its tokenizer and the data.

        Args:
            geometry: What it is to read and write.
            asked_by: The study's section whose ``max_tokens`` sets the positions.

        Raises:
            LeanformerError: It does not; the message names both sides.
        """
        for name, mine in _marks(geometry).items():
            if name in self.settings and self.settings[name] != mine:
                raise LeanformerError(
                    f"baseline.config: {name} is {quoted(self.settings[name])}, and the tokenizer of the data says "
                    f"{mine}; leave it out"
                )
        config = self.outline(geometry).config
        if not isinstance(getattr(config, "vocab_size", None), int):
            raise LeanformerError(
                f"baseline.model: {self.source} has no vocab_size in its configuration, but parts with configurations "
                "of their own; take a translator that is one model"
            )
        layers, more = (getattr(config, key, None) for key in ("num_layers", "num_decoder_layers"))
        if layers is not None and more is not None and more > layers:
            raise LeanformerError(
                f"baseline.model: {self.source} has {more} num_decoder_layers and {layers} num_layers, and "
                "transformers does not write with more layers in the decoder; take a decoder of so many, or fewer"
            )
        target = getattr(config, "decoder_vocab_size", None) or config.vocab_size
        for what, words, rows in (
            ("source", geometry.source_vocabulary, config.vocab_size),
            ("target", geometry.target_vocabulary, target),
        ):
            if words > rows:
                raise LeanformerError(
                    f"baseline.model: the tokenizer of {self.source} has {words:,} subwords on the {what} side, the "
                    f"model {rows:,}; they do not belong together"
                )
        for name, mine in (("pad_token_id", geometry.pad_id), ("eos_token_id", geometry.eos_id)):
            theirs = getattr(config, name)
            if theirs != mine:
                raise LeanformerError(
                    f"baseline.model: {name} is {mine} in the tokenizer of {self.source} and {theirs} in the model; "
                    "they do not belong together"
                )
        most = self.family.max_positions(config)
        if most is not None and geometry.positions > most:
            raise LeanformerError(
                f"{asked_by}.max_tokens: {geometry.positions} subwords, but the model has {most} positions; set "
                f"{asked_by}.max_tokens to that or less"
            )

    def make(self, geometry: TextGeometry, seed: int) -> PreTrainedModel:
        """The baseline as a trial starts with it; it writes in the language of the data."""
        return _in_language(self._make(seed, self._fitted(geometry)), geometry)

    def outline(self, geometry: TextGeometry) -> PreTrainedModel:
        """The baseline without its weights, on the device "meta": where only its structure matters."""
        return _in_language(self._outline(self._fitted(geometry)), geometry)

    def _fitted(self, geometry: TextGeometry) -> dict[str, Any]:
        """The settings of a fresh model that follow from the tokenizer and the data."""
        known = inspect.signature(self.family.config_class).parameters
        marks = {key: mark for key, mark in _marks(geometry).items() if key in (*known, "decoder_start_token_id")}
        settings: dict[str, Any] = {"vocab_size": geometry.source_vocabulary, **marks}
        if "scale_embedding" in known:
            settings["scale_embedding"] = True
        if self.trained is None:
            most = self.family.max_positions(self.family.config_class())
            if most is not None and geometry.positions > most:
                settings["max_position_embeddings"] = geometry.positions
        if self.trained is None and not geometry.shared:
            if not self.family.has_decoder_vocabulary:
                raise LeanformerError(
                    f"data.tokenizer.shared: {self.family.name} has one vocabulary for both languages; leave it true, "
                    "or take marian"
                )
            settings |= {
                "decoder_vocab_size": geometry.target_vocabulary,
                "share_encoder_decoder_embeddings": False,
            }
        elif self.family.has_decoder_vocabulary:
            settings["decoder_vocab_size"] = geometry.target_vocabulary
        return settings


def _in_language(model: PreTrainedModel, geometry: TextGeometry) -> PreTrainedModel:
    """Lets a model write in the language of the data, where it knows several. Changes the model."""
    if geometry.first_id is not None:
        model.generation_config.forced_bos_token_id = geometry.first_id
    if geometry.start_id is not None:
        model.config.decoder_start_token_id = model.generation_config.decoder_start_token_id = geometry.start_id
    return model


def _marks(geometry: TextGeometry) -> dict[str, int | None]:
    """The tokenizer's special tokens, as keys of a fresh model's configuration."""
    return {
        "pad_token_id": geometry.pad_id,
        "bos_token_id": geometry.eos_id,
        "eos_token_id": geometry.eos_id,
        "forced_eos_token_id": None,
        "decoder_start_token_id": geometry.pad_id,
    }

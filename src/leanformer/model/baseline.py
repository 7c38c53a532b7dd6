"""The model that a study compares its candidates with: a fresh configuration of a family, or a trained model."""

from __future__ import annotations

import copy
import inspect
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoModelForSeq2SeqLM, PreTrainedConfig, PreTrainedModel

from leanformer.core.errors import LeanformerError, quoted
from leanformer.model.directory import ATTENTIONS, RECOMMENDED
from leanformer.model.family import FAMILIES, Family, family_named, find_family
from leanformer.model.fresh_settings import check_fresh_settings, with_decimal_points
from leanformer.model.new_head import refitted
from leanformer.model.sizes import check_memory, check_settings, mistake_of, outline
from leanformer.model.students import load
from leanformer.model.vision import TASK, class_names, pixel_input, sides
from leanformer.model.weights import HALF, device_and_dtype, in_float32


def fresh_model(family_name: str, settings: Mapping[str, Any]) -> PreTrainedModel:
    """A model of a family with random weights, from PyTorch's global generator.

    Args:
        family_name: A family's name, or the model type of any other encoder-decoder of transformers.
        settings: The family's configuration keys.

    Raises:
        LeanformerError: The family, a key or a value is wrong.
    """
    family, config = _fresh_config(family_name, settings)
    with _mistakes_named(settings):
        check_memory(outline(family.model_class, config), "baseline.config")
        return family.model_class(config)


def fresh_outline(family_name: str, settings: Mapping[str, Any]) -> PreTrainedModel:
    """The model of ``fresh_model`` without weights, on the device "meta"; random generators are not changed.

    Raises:
        LeanformerError: The family, a key or a value is wrong, or the model would not fit into the memory.
    """
    family, config = _fresh_config(family_name, settings)
    with _mistakes_named(settings):
        described = outline(family.model_class, config)
        check_memory(described, "baseline.config")
        return described


def _fresh_config(family_name: str, settings: Mapping[str, Any]) -> tuple[Family, PreTrainedConfig]:
    """A family and its configuration with these settings, checked."""
    family = family_named(family_name, AutoModelForSeq2SeqLM)
    if family is None:
        raise LeanformerError(f"unknown family {family_name!r}; families: {', '.join(FAMILIES)}")
    known = {
        *inspect.signature(family.config_class).parameters,
        "decoder_start_token_id",  # some take it without naming it
        "num_labels",
        "id2label",
        "label2id",
        "attn_implementation",
    }
    keys = f"{', '.join(family.shape_keys)} and the others" if family.shape_keys else "those"
    for key in settings:
        if key not in known:
            raise LeanformerError(
                f"baseline.config: {family_name} has no key {key!r}; it has {keys} of its transformers configuration"
            )
    attention = settings.get("attn_implementation")
    if attention is not None and attention not in ATTENTIONS:
        raise LeanformerError(
            f"baseline.config: attn_implementation is {str(attention)[:60]!r}, and transformers may fetch code for it; "
            f"write one of {', '.join(RECOMMENDED)}"
        )
    check_settings(settings, "baseline.config")
    with _mistakes_named(settings):
        config = family.config_class(**with_decimal_points(settings))
        family.check_config(config, "baseline.config")
        return family, config


@contextmanager
def _mistakes_named(settings: Mapping[str, Any]) -> Iterator[None]:
    """Turns what transformers raises for a wrong configuration into one line."""
    try:
        yield
    except KeyError as error:  # an activation that is looked up by its name
        raise LeanformerError(f"baseline.config: transformers knows no {error}") from None
    except StrictDataclassError as error:
        raise LeanformerError(f"baseline.config: {mistake_of(error, settings)}") from None
    except (TypeError, ValueError, RuntimeError, AssertionError, AttributeError) as error:
        raise LeanformerError(f"baseline.config: {' '.join(str(error).split())[:200]}") from None


_CHANNELS = (1, 3)


@dataclass(frozen=True)
class ImageGeometry:
    """The images that a classifier takes, and its classes."""

    channels: int
    height: int
    width: int
    classes: tuple[str, ...]


class Baseline:
    """Makes a study's baseline, as often as there are seeds.

    Args:
        source: A family's name, a model directory, or a hub id.
        settings: Configuration keys, for a family.
        fresh: Use only a trained model's shape.
        task: The study's task.

    Attributes:
        notes: What was done with a trained model, in words.

    Raises:
        LeanformerError: There is no such model, it is for another task, or ``settings`` are given for a trained one.
    """

    def __init__(self, source: str, settings: Mapping[str, Any], fresh: bool, task: str) -> None:
        self.source = source
        self.settings = dict(settings)
        self.fresh = fresh
        self.trained: PreTrainedModel | None = None
        self.notes: list[str] = []
        others = "" if task != "translation" else ", or the model type of any other encoder-decoder, such as t5"
        is_type = source in FAMILIES or not os.path.isdir(source)
        named = family_named(source, AutoModelForSeq2SeqLM) if is_type else None
        if named is not None:
            self.family = named
            check_settings(settings, "baseline.config")
            check_fresh_settings(settings, self.family, "baseline.config")
        else:
            families = ", ".join(name for name, family in FAMILIES.items() if family.task == task)
            if "/" not in source and not os.path.isdir(os.path.expanduser(source)):
                raise LeanformerError(
                    f"baseline.model: {source!r} is neither a family ({families}{others}) nor a model directory nor "
                    "a hub id (owner/name)"
                )
            if settings:
                raise LeanformerError(
                    f"baseline.config: {source} brings its own configuration; leave the key out, or take a family "
                    f"({families}) as the model"
                )
            self.trained = load(source)
            _, precision = device_and_dtype(self.trained)
            if precision in HALF:
                self.trained = in_float32(self.trained)
                kept = str(precision).removeprefix("torch.")
                self.notes.append(f"{source} is kept in {kept}; it is trained, measured and saved in float32")
            self.trained = self._prepared(self.trained)
            self.family = find_family(self.trained)
        if self.family.task != task:
            fitting = ", ".join(name for name, family in FAMILIES.items() if family.task == task)
            raise LeanformerError(
                f"baseline.model: {source} is for {self._purpose()}, the study is of {task}; families "
                f"for it: {fitting}{others}{self._hint()}"
            )

    def _prepared(self, trained: PreTrainedModel) -> PreTrainedModel:
        """A trained model, as it was loaded, in the form that the task needs."""
        return trained

    def _purpose(self) -> str:
        """What the model is for."""
        return self.family.task or f"other work ({self.family.model_class.__name__})"

    def _hint(self) -> str:
        """What a message says further where the model is for another task."""
        return ""

    def _make(self, seed: int, settings: Mapping[str, Any]) -> PreTrainedModel:
        """The baseline as it starts: with its trained weights, or with random ones from the seed.

        PyTorch's global generator is left as the seed and the initialization leave it, so that the new weights of a
        student of this model follow from the seed too.
        """
        torch.manual_seed(seed)
        if self.trained is not None:
            return type(self.trained)(self.trained.config) if self.fresh else self.trained
        return fresh_model(self.source, {**settings, **self.settings})

    def _outline(self, settings: Mapping[str, Any]) -> PreTrainedModel:
        """The same without weights, on the device "meta"; random generators are not changed."""
        if self.trained is not None:
            return outline(type(self.trained), copy.deepcopy(self.trained.config))
        return fresh_outline(self.source, {**settings, **self.settings})


class ImageBaseline(Baseline):
    """The baseline of a study of image classifiers; see ``Baseline``.

    Args:
        source: As there; with ``new_head`` any trained model that reads images.
        settings: As there.
        fresh: As there.
        new_head: Whether a trained model's head is replaced by one for the data's classes.
    """

    def __init__(self, source: str, settings: Mapping[str, Any], fresh: bool, new_head: bool = False) -> None:
        self.new_head = new_head
        if new_head and source in FAMILIES:
            raise LeanformerError(
                f"baseline.head: a fresh {source} has a new head anyway; leave the key out, or take a trained model"
            )
        super().__init__(source, settings, fresh, TASK)
        if self.channels is not None and self.channels not in _CHANNELS:
            what = (
                f"baseline.model: {source}" if self.trained is not None else "baseline.config: num_channels: the model"
            )
            raise LeanformerError(
                f"{what} takes {self.channels} channels, and images are read with 1 (grey) or 3 (color); take a model "
                "of 1 or 3 channels"
            )

    def _prepared(self, trained: PreTrainedModel) -> PreTrainedModel:
        if not self.new_head:
            return trained
        with torch.random.fork_rng(devices=[]):  # of a head that is replaced when the data's classes are known
            return refitted(trained, ("0", "1"), None, self.source)

    def _hint(self) -> str:
        reads = getattr(self.trained, "main_input_name", "") == "pixel_values"
        return "; or give it a head for the data's classes: baseline.head: new" if reads else ""

    @property
    def special_tokens(self) -> int:
        """Tokens that the model puts before the patches."""
        return self.family.special_tokens if self.trained is None else self.family.special_tokens_left(self.trained)

    @property
    def image_size(self) -> tuple[int, int] | None:
        """Height and width that the model takes, where it prescribes them."""
        if self.trained is not None:
            return pixel_input(self.trained.config).size
        size = self.settings.get("image_size")
        return None if size is None else sides(size)

    @property
    def follows_images(self) -> bool:
        """Whether the model is brought to the images' size, and not they to its own."""
        return self.trained is not None and (self.new_head or self.family.is_found)

    @property
    def channels(self) -> int | None:
        """Channels that the model takes, where it prescribes them."""
        if self.trained is not None:
            return pixel_input(self.trained.config).channels
        channels = self.settings.get("num_channels")
        return channels if isinstance(channels, int) else None

    @property
    def keeps_weights(self) -> bool:
        """Whether trials start from trained weights, so that images must be prepared as these were trained on."""
        return self.trained is not None and not self.fresh

    @property
    def head(self) -> tuple[str, tuple[str, ...]] | None:
        """A trained head's source, and the names of its outputs in their order; None where the head is new."""
        if not self.keeps_weights or self.new_head:
            return None
        assert self.trained is not None
        return self.source, class_names(self.trained.config)

    def check(self, geometry: ImageGeometry) -> None:
        """Checks that the model fits the data, and brings one that follows the images to their size.

        Raises:
            LeanformerError: It does not; the message names both sides.
        """
        self._check_patches(geometry)
        if self.follows_images:
            self._follow(geometry)
        config = self.outline(geometry).config
        if config.num_labels != len(geometry.classes):
            hint = ", or give it a new head: baseline.head: new" if self.trained is not None else ""
            raise LeanformerError(
                f"baseline.model: {self.source} has {config.num_labels} classes, the data have "
                f"{len(geometry.classes)}; take data or a model with as many{hint}"
            )
        channels = pixel_input(config).channels
        if self.trained is not None and channels != geometry.channels:
            raise LeanformerError(
                f"baseline.model: {self.source} takes {channels} channels, the images have "
                f"{geometry.channels}; leave data.channels out to have them converted"
            )
        if channels != geometry.channels:
            raise LeanformerError(
                f"baseline.config: num_channels is {channels}, the images have {geometry.channels}; "
                "set data.channels, or leave num_channels out"
            )
        expected = self.image_size or (geometry.height, geometry.width)
        if expected != (geometry.height, geometry.width):
            raise LeanformerError(
                f"data.image_size: the model takes {expected[0]}x{expected[1]} pixels, the images have "
                f"{geometry.height}x{geometry.width}; leave data.image_size out to have them resized"
            )

    def _check_patches(self, geometry: ImageGeometry) -> None:
        patch = pixel_input(self.outline(geometry).config).patch
        if patch is None:
            return
        for side, length, patch_length in (
            ("height", geometry.height, patch[0]),
            ("width", geometry.width, patch[1]),
        ):
            if not length % patch_length:
                continue
            if self.trained is not None:
                near = max(1, round(length / patch_length)) * patch_length
                raise LeanformerError(
                    f"data.image_size: {self.source} cuts images into patches of {patch_length} pixels, which do not "
                    f"divide the images' {side} of {length}; take a multiple, such as {near}"
                )
            divisors = ", ".join(str(d) for d in range(1, length + 1) if length % d == 0)
            raise LeanformerError(
                f"baseline.config: patch_size {patch_length} does not divide the images' {side} of {length} "
                f"pixels; take one of {divisors}, or set data.image_size"
            )

    def _follow(self, geometry: ImageGeometry) -> None:
        """Brings the trained model to the images' size, once for all trials."""
        assert self.trained is not None
        size, own = (geometry.height, geometry.width), self.image_size
        if size[0] != size[1] and size != own and self.family.is_found:
            raise LeanformerError(
                f"data.image_size: {self.source} takes square images, not {size[0]}x{size[1]} pixels; give one number"
            )
        if self.new_head or size != own:
            with torch.random.fork_rng(devices=[]):
                self.trained = self._refitted(geometry)
        if own is not None and size != own:
            self.notes.append(
                f"{self.source} was trained on images of {own[0]}x{own[1]} pixels; its positions are interpolated for "
                f"{size[0]}x{size[1]}"
            )

    def _refitted(self, geometry: ImageGeometry) -> PreTrainedModel:
        assert self.trained is not None
        size = None if self.image_size is None else (geometry.height, geometry.width)
        return refitted(self.trained, geometry.classes if self.new_head else None, size, self.source)

    def make(self, geometry: ImageGeometry, seed: int) -> PreTrainedModel:
        """The baseline as a trial starts with it."""
        if self.new_head and not self.fresh:
            torch.manual_seed(seed)  # of the head; see ``_make``
            return self._refitted(geometry)
        return self._make(seed, self._fitted(geometry))

    def outline(self, geometry: ImageGeometry) -> PreTrainedModel:
        """The baseline without its weights, on the device "meta": where only its structure matters."""
        return self._outline(self._fitted(geometry))

    def _fitted(self, geometry: ImageGeometry) -> dict[str, Any]:
        """The settings of a fresh model that follow from the data; a trained one gets the names of its classes."""
        height, width = geometry.height, geometry.width
        labels = dict(enumerate(geometry.classes))
        names = {int(number): name for number, name in self.settings.get("id2label", labels).items()}
        if self.trained is not None and self.trained.config.num_labels == len(labels):
            # Whatever the old head called them, the shipped model answers with the data's classes.
            self.trained.config.id2label = labels
            self.trained.config.label2id = {name: number for number, name in labels.items()}
        return {
            "image_size": height if height == width else [height, width],
            "num_channels": geometry.channels,
            "id2label": labels,
            "label2id": {name: number for number, name in names.items()},
        }


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

"""The model that a study compares its candidates with: a fresh configuration of a family, or a trained model."""

from __future__ import annotations

import copy
import inspect
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
)

from leanformer.core.errors import LeanformerError
from leanformer.model.directory import ATTENTIONS, RECOMMENDED
from leanformer.model.family import FAMILIES, Family, family_named, find_family
from leanformer.model.fresh_settings import check_fresh_settings, with_decimal_points
from leanformer.model.sizes import check_memory, check_settings, mistake_of, outline
from leanformer.model.students import load
from leanformer.model.weights import HALF, device_and_dtype, in_float32

MODELS: Mapping[str, tuple[Any, str]] = {
    "translation": (AutoModelForSeq2SeqLM, "the model type of any other encoder-decoder, such as t5"),
    "text-classification": (
        AutoModelForSequenceClassification,
        "the model type of any encoder, such as bert or distilbert",
    ),
}
"""Task -> the ``Auto`` class that makes its models of a model type, and what a message says of these."""


def fresh_model(family_name: str, settings: Mapping[str, Any], task: str = "translation") -> PreTrainedModel:
    """A model of a family with random weights, from PyTorch's global generator.

    Args:
        family_name: A family's name, or the model type of any other architecture of transformers for the task.
        settings: The family's configuration keys.
        task: The study's task.

    Raises:
        LeanformerError: The family, a key or a value is wrong.
    """
    family, config = _fresh_config(family_name, settings, task)
    with _mistakes_named(settings):
        check_memory(outline(family.model_class, config), "baseline.config")
        return family.model_class(config)


def fresh_outline(family_name: str, settings: Mapping[str, Any], task: str = "translation") -> PreTrainedModel:
    """The model of ``fresh_model`` without weights, on the device "meta"; random generators are not changed.

    Raises:
        LeanformerError: The family, a key or a value is wrong, or the model would not fit into the memory.
    """
    family, config = _fresh_config(family_name, settings, task)
    with _mistakes_named(settings):
        described = outline(family.model_class, config)
        check_memory(described, "baseline.config")
        return described


def _family_for(name: str, task: str) -> Family | None:
    """The family of a name, among those of every task and the architectures that a task's models may have."""
    auto_class, _ = MODELS.get(task, MODELS["translation"])  # of another task, a message says what it is for
    return family_named(name, auto_class)


def _models_of(task: str) -> str:
    """The models of a task that a study can name, in words."""
    families = [name for name, family in FAMILIES.items() if family.task == task]
    _, others = MODELS.get(task, (None, ""))
    return ", ".join([*families, *([f"or {others}" if families else others] if others else [])])


def _fresh_config(family_name: str, settings: Mapping[str, Any], task: str) -> tuple[Family, PreTrainedConfig]:
    """A family and its configuration with these settings, checked."""
    family = _family_for(family_name, task)
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
        self._task = task
        fitting = _models_of(task)
        is_type = source in FAMILIES or not os.path.isdir(source)
        named = _family_for(source, task) if is_type else None
        if named is not None:
            self.family = named
            check_settings(settings, "baseline.config")
            check_fresh_settings(settings, self.family, "baseline.config")
        else:
            if "/" not in source and not os.path.isdir(os.path.expanduser(source)):
                raise LeanformerError(
                    f"baseline.model: {source!r} is neither a family ({fitting}) nor a model directory nor "
                    "a hub id (owner/name)"
                )
            if settings:
                raise LeanformerError(
                    f"baseline.config: {source} brings its own configuration; leave the key out, or take a family "
                    f"({fitting}) as the model"
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
            raise LeanformerError(
                f"baseline.model: {source} is for {self._purpose()}, the study is of {task}; families "
                f"for it: {fitting}{self._hint()}"
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
        return fresh_model(self.source, {**settings, **self.settings}, self._task)

    def _outline(self, settings: Mapping[str, Any]) -> PreTrainedModel:
        """The same without weights, on the device "meta"; random generators are not changed."""
        if self.trained is not None:
            return outline(type(self.trained), copy.deepcopy(self.trained.config))
        return fresh_outline(self.source, {**settings, **self.settings}, self._task)

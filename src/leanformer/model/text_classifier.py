"""Models that read texts and classify them: how long their texts may be, and how one is made of a trained body."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from leanformer.core.errors import LeanformerError
from leanformer.model.family import Family
from leanformer.model.heads import body_of, check_complete, head_parameters
from leanformer.model.hf import classes_of
from leanformer.model.shapes.student import Student
from leanformer.model.surgery import sites

TASK = "text-classification"
"""The study's task that text classifiers are for."""


def longest_text(model: PreTrainedModel, family: Family) -> int | None:
    """Most tokens of a text that a model has positions for; None where they do not end.

    Models of RoBERTa's kind number positions from the id of padding on, so that they have fewer than rows for them.
    """
    found = [most] if (most := family.max_positions(model.config)) is not None else []
    for name, module in model.named_modules():
        places = name.endswith("position_embeddings") and isinstance(module, nn.Embedding)
        if places and module.padding_idx is not None:
            found.append(module.num_embeddings - module.padding_idx - 1)
    return min(found, default=None)


def reads_types(model: PreTrainedModel) -> bool:
    """Whether a model reads of which text of a pair a token is."""
    types = getattr(model.config, "type_vocab_size", 0)
    return isinstance(types, int) and types > 1 and "token_type_ids" in inspect.signature(model.forward).parameters


def check_reads_both_ways(model: PreTrainedModel, where: str) -> None:
    """Checks that a model is an encoder, whose tokens read those before and after them.

    Raises:
        LeanformerError: It is none.
    """
    if any(site.causal for site in sites(model)):
        raise LeanformerError(
            f"baseline.model: {where} is a {type(model).__name__}, whose tokens read only those before them; take an "
            "encoder, such as a BERT, RoBERTa or ModernBERT"
        )


def with_new_head(model: PreTrainedModel, classes: Sequence[str], where: str) -> tuple[PreTrainedModel, frozenset[str]]:
    """A text classifier with a model's trained body.

    Args:
        model: Any encoder of texts of transformers, or a student that classifies them. It is not changed.
        classes: The names of the head's classes. It gets random weights from PyTorch's global generator, and so does
            the pooling before it, where the body was trained without.
        where: How messages call the model.

    Returns:
        A new model in float32, in evaluation mode; and the names of its parameters that have random weights.

    Raises:
        LeanformerError: The model reads no texts, or transformers has no classifier of its architecture.
    """
    config = copy.deepcopy(model.config)
    found = classes_of(AutoModelForSequenceClassification, type(config))
    model_class = type(model) if isinstance(model, Student) else next(iter(found), None)
    if model_class is None or config.is_encoder_decoder or body_of(model).main_input_name != "input_ids":
        raise LeanformerError(
            f"baseline.model: {where} is a {type(model).__name__}, of which transformers has no classifier of texts by "
            "an encoder alone; take an encoder, such as a BERT, RoBERTa or ModernBERT"
        )
    config.id2label = dict(enumerate(classes))
    config.label2id = {name: number for number, name in enumerate(classes)}
    config.dtype = torch.float32
    refit: PreTrainedModel = model_class(config)
    body: Any = body_of(refit)
    weights = body_of(model).state_dict()
    missing = [name for name in body.state_dict() if name not in weights]
    check_complete(refit, missing, where)
    body.load_state_dict({name: weights[name] for name in body.state_dict() if name in weights}, strict=False)
    absent = {id(parameter) for name, parameter in body.named_parameters() if name in missing}
    new = head_parameters(refit) | {name for name, one in refit.named_parameters() if id(one) in absent}
    return refit.eval(), frozenset(new)

"""Dropout that is another one while a model is tuned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

import leanformer as lf
from leanformer.config.base import FinetuneConfig
from leanformer.learn.dropout import dropout, has_dropout


def test_every_dropout_that_is_on_is_set_and_restored() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention_dropout, self.activation_dropout, self.dropout_name = 0.3, 0.0, "dropout"

    on, off, attention = nn.Dropout(0.2), nn.Dropout(0.0), Attention()
    model = nn.Sequential(on, off, attention)

    def rates() -> list[object]:
        return [on.p, off.p, attention.attention_dropout, attention.activation_dropout, attention.dropout_name]

    with dropout(model, 0.05):
        assert rates() == [0.05, 0.0, 0.05, 0.0, "dropout"]
    assert rates() == [0.2, 0.0, 0.3, 0.0, "dropout"]
    with dropout(model, None):
        assert on.p == 0.2
    assert has_dropout(model)
    assert not has_dropout(off)


def check(model: PreTrainedModel, inputs: dict[str, Any]) -> None:
    opened = lf.reduce(model, {}).eval()
    expected = opened(**inputs).logits
    opened.train()
    assert not torch.allclose(opened(**inputs).logits, expected)
    with dropout(opened, 0.0):
        torch.testing.assert_close(opened(**inputs).logits, expected)


@pytest.mark.parametrize("family", ["vit", "deit"])
def test_a_classifier_in_training_without_dropout_is_as_in_evaluation(
    family: str, make_model: Callable[..., PreTrainedModel]
) -> None:
    model = make_model(family, hidden_dropout_prob=0.4, attention_probs_dropout_prob=0.4)
    check(model, {"pixel_values": torch.randn(2, 1, 16, 16)})


@pytest.mark.parametrize("family", ["marian", "bart"])
def test_a_translator_in_training_without_dropout_is_as_in_evaluation(
    family: str, make_translator: Callable[..., PreTrainedModel]
) -> None:
    model = make_translator(family, dropout=0.4, attention_dropout=0.4, activation_dropout=0.4)
    check(model, {"input_ids": torch.tensor([[3, 4, 0]]), "decoder_input_ids": torch.tensor([[1, 5, 6]])})


def test_students_are_tuned_with_the_dropout_that_is_asked_for(make_translator: Callable[..., PreTrainedModel]) -> None:
    batch = {
        "input_ids": torch.tensor([[3, 4, 9, 0]]),
        "decoder_input_ids": torch.tensor([[1, 5, 6]]),
        "labels": torch.tensor([[5, 6, 0]]),
    }

    def student(own: float, wanted: float | None) -> PreTrainedModel:
        finetune = FinetuneConfig(epochs=1, targets="data", dropout=wanted)
        return lf.distill(make_translator(dropout=own), {"*.mlp": "none"}, [batch], finetune=finetune)

    asked, without, with_its_own = (student(*rates) for rates in ((0.4, 0.0), (0.0, None), (0.4, None)))
    weights = [model.state_dict() for model in (asked, without, with_its_own)]
    assert all(torch.equal(weights[1][name], tensor) for name, tensor in weights[0].items())
    assert not all(torch.equal(weights[2][name], tensor) for name, tensor in weights[0].items())
    assert asked.config.dropout == 0.4

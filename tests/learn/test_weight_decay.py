"""Which parameters decay: matrices that multiply tokens, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

import leanformer as lf
from leanformer.learn.weight_decay import parameter_groups

MakeModel = Callable[..., PreTrainedModel]


def decayed(model: nn.Module) -> set[str]:
    groups = parameter_groups(model, 0.5)
    assert {group["weight_decay"] for group in groups} <= {0.5, 0.0}
    ids = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    return {name for name, parameter in model.named_parameters() if id(parameter) in ids}


@pytest.mark.parametrize(
    ("plan", "suffixes"),
    [
        (
            {"block": "minimal_attention", "qk": "symmetric", "diagonal_value": True, "temperature": True},
            ["similarity"],
        ),
        ({"block": "slots", "slots": 4, "gate": "linear", "rank": 3}, ["pool.up", "gate.up", "pool.down", "value"]),
        ({"block": "mixer"}, ["mixing", "value", "gate", "output"]),
        ({"block": "mixer", "positions": "grid", "vo": "none", "gate": False}, ["mixing"]),
        ({"block": "feed_forward", "size": "S", "rank": 4}, ["network.first", "network.up", "network.down"]),
        ({"block": "synthesizer"}, ["score", "hidden", "value", "output"]),
        ({"block": "linear_attention"}, ["query", "key", "value", "output"]),
        ({"block": "average"}, ["value", "output"]),
    ],
    ids=lambda plan: plan["block"] if isinstance(plan, dict) else "",
)
def test_of_each_block_what_multiplies_tokens_decays(make_model: MakeModel, plan: Any, suffixes: list[str]) -> None:
    student = lf.reduce(make_model(), {"*.self_attention": plan})
    found = decayed(student)
    start = "vit.layers.0.self_attention.block."
    for suffix in suffixes:
        assert {f"{start}{suffix}", f"{start}{suffix}.weight"} & found, suffix
    for name, parameter in student.named_parameters():
        # Parameters with one number per channel never decay; matrices always do.
        if name.startswith(start) and name not in found:
            assert name.endswith(("bias", "diagonal_value", "temperature")) or "norm" in name, name
        assert not (name in found and parameter.dim() < 2 and "similarity" not in name), name


@pytest.mark.parametrize("name", ["vit", "deit"])
def test_embeddings_and_norms_do_not_decay(make_model: MakeModel, name: str) -> None:
    for parameter in decayed(lf.reduce(make_model(name), {})):
        assert "embeddings" not in parameter or parameter.endswith("projection.weight")
        assert "norm" not in parameter


def test_what_does_not_learn_is_in_no_group() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
    model[0].requires_grad_(False)
    (group,) = parameter_groups(model, 0.1)
    assert group["weight_decay"] == 0.0
    assert len(group["params"]) == 2


def test_a_block_of_ones_own_says_what_decays() -> None:
    class Own(nn.Module):
        decayed = ("matrix",)

        def __init__(self) -> None:
            super().__init__()
            self.matrix, self.gain = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))

    assert decayed(Own()) == {"matrix"}

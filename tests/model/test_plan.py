"""Plans that say how many layers stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from transformers import PreTrainedModel

import leanformer as lf
from leanformer.model.plan import evenly
from leanformer.model.surgery import resolve

MakeModel = Callable[..., PreTrainedModel]


def left(model: PreTrainedModel, plan: dict[str, Any]) -> dict[str, list[int]]:
    """The layers of each stack that a plan leaves."""
    found: dict[str, list[int]] = {}
    for site in lf.sites(lf.reduce(model, plan)):
        if site.kind == "layer" and site.block != "none":
            stack, number, _ = site.name.split(".")
            found.setdefault(stack, []).append(int(number))
    return found


@pytest.mark.parametrize(
    ("layers", "count", "expected"),
    [
        (12, 1, [0]),
        (12, 2, [0, 11]),
        (12, 3, [0, 6, 11]),
        (12, 4, [0, 4, 7, 11]),
        (12, 6, [0, 2, 4, 7, 9, 11]),  # as Shleifer and Rush have it
        (6, 3, [0, 3, 5]),
        (5, 3, [0, 2, 4]),
        (3, 3, [0, 1, 2]),
        (1, 1, [0]),
    ],
)
def test_layers_are_spread_evenly(layers: int, count: int, expected: list[int]) -> None:
    assert evenly(range(layers), count) == expected


def test_so_many_layers_stay(make_translator: MakeModel) -> None:
    teacher = make_translator(encoder_layers=3, decoder_layers=6)
    assert left(teacher, {"decoder.layers": {"keep": 3}}) == {"encoder": [0, 1, 2], "decoder": [0, 3, 5]}
    assert left(teacher, {"decoder.layers": {"keep": [4, 1]}}) == {"encoder": [0, 1, 2], "decoder": [1, 4]}
    assert left(teacher, {"*.layers": {"keep": 2}}) == {"encoder": [0, 2], "decoder": [0, 5]}
    assert resolve(teacher, {"decoder.layers": {"keep": 6}}) == {}
    assert resolve(teacher, {"encoder.layers": {"keep": 2}}) == {"encoder.1.layer": {"block": "none"}}


def test_later_entries_override_earlier_ones(make_translator: MakeModel) -> None:
    teacher = make_translator(decoder_layers=4)
    assert left(teacher, {"decoder.*.layer": "none", "decoder.layers": {"keep": 2}})["decoder"] == [0, 3]
    assert left(teacher, {"decoder.layers": {"keep": 2}, "decoder.0.layer": "none"})["decoder"] == [3]
    assert left(teacher, {"decoder.layers": {"keep": 3}, "*r.layers": {"keep": [0, 1]}})["decoder"] == [0, 1]


def test_what_stays_may_be_replaced_in_part(make_translator: MakeModel) -> None:
    plan = resolve(make_translator(), {"decoder.layers": {"keep": [1]}, "decoder.*.mlp": "none"})
    assert plan == {"decoder.0.layer": {"block": "none"}, "decoder.1.mlp": {"block": "none"}}


def test_a_student_keeps_some_of_its_own_layers(make_translator: MakeModel) -> None:
    student = lf.reduce(make_translator(decoder_layers=6), {"decoder.layers": {"keep": [1, 2, 4]}})
    assert left(student, {"decoder.layers": {"keep": 2}})["decoder"] == [1, 4]
    with pytest.raises(lf.LeanformerError, match=r"keep = \[0\] names layer 0, but the decoder has 3 layers: 1, 2, 4$"):
        lf.reduce(student, {"decoder.layers": {"keep": [0]}})


WRONG: list[Any] = [2, "none", None, {}, {"keep": "2"}, {"keep": True}, {"keep": []}, {"keep": 2, "choose": "x"}]
THERE = "the encoder has 3 layers: 0, 1, 2$"


@pytest.mark.parametrize(
    ("pattern", "entry", "line"),
    [
        ("decoder.layers", {"keep": 1}, "plan 'decoder.layers' matches no stack of layers; the model has 'encoder.lay"),
        ("encoder.layers", {"keep": 4}, f"plan 'encoder.layers': keep = 4 is not a number .* can stay; {THERE}"),
        ("encoder.layers", {"keep": 0}, "keep = 0 is not a number of layers that can stay"),
        ("encoder.layers", {"keep": [3]}, rf"keep = \[3\] names layer 3, but {THERE}"),
        ("encoder.layers", {"keep": [0, 0]}, r"keep = \[0, 0\] names layer 0 twice; name it once"),
        *(
            (
                "*.layers",
                entry,
                rf"plan '\*.layers': write {{keep: 2}}, how many .* {{keep: \[0, 2\]}}, which .*; {THERE}",
            )
            for entry in WRONG
        ),
    ],
)
def test_mistakes_are_named(make_model: MakeModel, pattern: str, entry: Any, line: str) -> None:
    with pytest.raises(lf.LeanformerError, match=line) as error:
        lf.reduce(make_model(), {pattern: entry})
    assert "\n" not in str(error.value)

"""Classifiers with a new head, from models that were trained for something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from tiny_vision import BACKBONES, SIDE, tiny_backbone
from transformers import PreTrainedModel

import leanformer as lf
from leanformer.core.errors import LeanformerError
from leanformer.model.heads import body_of, head_parameters
from leanformer.model.new_head import refitted
from leanformer.model.vision import prefix_tokens

LARGER = 24  # pixels
CLASSES = ("a", "b", "c")


@torch.no_grad()
def tokens(model: PreTrainedModel, side: int, **arguments: Any) -> torch.Tensor:
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    if model.config.model_type == "vit_mae":  # else it shuffles patches
        arguments["noise"] = torch.arange((side // 4) ** 2).expand(2, -1)
    states: torch.Tensor = body_of(model)(images, **arguments).last_hidden_state
    return states


@pytest.mark.parametrize("name", BACKBONES)
def test_the_body_stays_and_the_head_is_new(name: str) -> None:
    model = tiny_backbone(name)
    classifier = refitted(model, CLASSES, None, name)
    assert torch.allclose(tokens(classifier, SIDE), tokens(model, SIDE), atol=1e-5)
    assert type(classifier).__name__.startswith("Pooled") == (name == "dinov3")
    assert head_parameters(classifier) == {"classifier.weight", "classifier.bias"}
    assert classifier(torch.zeros(1, 3, SIDE, SIDE)).logits.shape == (1, 3)
    assert list(classifier.config.id2label.values()) == list(CLASSES)


@pytest.mark.parametrize("name", [name for name in BACKBONES if name != "vit_mae"])
def test_positions_are_interpolated_once_as_the_model_itself_would_at_each_call(name: str) -> None:
    model = tiny_backbone(name)
    classifier = refitted(model, CLASSES, (LARGER, LARGER), name)
    asks = name.startswith(("siglip", "clip", "vit", "deit"))
    wanted = tokens(model, LARGER, **({"interpolate_pos_encoding": True} if asks else {}))
    assert torch.allclose(tokens(classifier, LARGER), wanted, atol=1e-5)


@pytest.mark.parametrize("name", BACKBONES)
def test_a_student_is_saved_and_loaded(name: str, tmp_path: Path) -> None:
    classifier = refitted(tiny_backbone(name), CLASSES, (LARGER, LARGER), name)
    sites = lf.sites(classifier)
    assert {site.name for site in sites} >= {"encoder.0.self_attention", "encoder.1.mlp", "encoder.1.layer"}
    assert {site.grid for site in sites if site.kind == "self_attention"} == {(6, 6)}
    student = lf.reduce(classifier, {"encoder.0.self_attention": "slots", "encoder.1.mlp": "none"})
    lf.save(student, tmp_path)
    images = torch.randn(2, 3, LARGER, LARGER)
    with torch.no_grad():
        assert torch.equal(lf.load(tmp_path)(images).logits, student.eval()(images).logits)


def test_tokens_before_the_patches_are_counted() -> None:
    found = {name: prefix_tokens(body_of(tiny_backbone(name))) for name in BACKBONES}
    others = {"siglip": 0, "siglip tower": 0, "deit": 2, "dinov2 with registers": 5, "dinov3": 3}
    assert found == {name: others.get(name, 1) for name in BACKBONES}


def test_a_classifier_keeps_its_head_where_none_is_asked_for() -> None:
    classifier = refitted(tiny_backbone("dinov2"), CLASSES, None, "dinov2")
    larger = refitted(classifier, None, (LARGER, LARGER), "dinov2")
    assert torch.equal(larger.classifier.weight, classifier.classifier.weight)
    other = refitted(classifier, ("x", "y"), None, "dinov2")
    assert other(torch.zeros(1, 3, SIDE, SIDE)).logits.shape == (1, 2)


def test_a_student_gets_a_new_head_too() -> None:
    student = lf.reduce(refitted(tiny_backbone("beit"), CLASSES, None, "beit"), {"encoder.1.mlp": "none"})
    other = refitted(student, ("x", "y"), None, "beit")
    assert torch.equal(tokens(other, SIDE), tokens(student, SIDE))


def test_windows_stay_as_they_are() -> None:
    config = hf.SwinConfig(image_size=32, patch_size=4, embed_dim=16, depths=[1, 2], num_heads=[2, 4], window_size=4)
    classifier = refitted(hf.SwinModel(config), CLASSES, (64, 64), "swin")
    assert classifier(torch.zeros(1, 3, 64, 64)).logits.shape == (1, 3)
    assert {site.grid for site in lf.sites(classifier)} == {None}


def test_what_cannot_get_a_head() -> None:
    def error(model: PreTrainedModel, size: tuple[int, int] | None = None) -> str:
        with pytest.raises(LeanformerError) as caught:
            refitted(model, CLASSES, size, "DIR")
        return str(caught.value)

    sizes: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 9}
    assert "DIR is a BertModel, which is no model of images" in error(hf.BertModel(hf.BertConfig(**sizes)))
    pvt = hf.PvtModel(hf.PvtConfig(hidden_sizes=[4, 4, 8, 8], depths=[1] * 4, num_attention_heads=[1] * 4))
    assert "DIR cannot read images of 64x64 pixels" in error(pvt, (64, 64))
    model = tiny_backbone("dinov2")
    del model.encoder.layer[1].mlp.fc1
    assert "DIR has no weights for encoder.layer.1.mlp.fc1" in error(model)

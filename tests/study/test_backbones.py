"""Studies of images that start from trained models of any architecture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from places import ROOT
from studies import run, without_timings
from tiny_vision import SIDE, tiny_backbone, write_backbone, write_images

import leanformer as lf
from leanformer.core.errors import LeanformerError
from leanformer.learn.step import make_optimizer
from leanformer.measure.inputs import image_input
from leanformer.model.new_head import refitted
from leanformer.tasks.base import open_task
from leanformer.tasks.images import ImageClassification

CPU = torch.device("cpu")
SLOTS = {"encoder.0.self_attention": "slots"}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images") / "data")


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_backbone(tmp_path_factory.mktemp("dinov2"))


def study_of(images: Path, model: Path | str, **keys: Any) -> dict[str, Any]:
    """A study of a few seconds."""
    return {
        "name": "backbones",
        "data": {"source": str(images), "test_fraction": 0.4, "validation_fraction": 0.2, **keys.pop("data", {})},
        "baseline": {"model": str(model), "head": "new", **keys.pop("baseline", {})},
        "candidates": {"slots": {"plan": SLOTS, "method": "distill"}},
        "train": {"epochs": 1, "batch_size": 16, "learning_rate": 1e-3, **keys.pop("train", {})},
        "distill": {"epochs": 1},
        "finetune": {"epochs": 1},
        "seeds": [0],
        "measure": {"repeats": 1, "latency_calls": 1, "throughput_batch": 4, "device": "cpu"},
        **keys,
    }


def task_of(images: Path, model: Path | str, **keys: Any) -> ImageClassification:
    task = open_task(lf.make_study(study_of(images, model, **keys)), CPU)
    assert isinstance(task, ImageClassification)
    return task


def error_of(images: Path, model: Path | str, **keys: Any) -> str:
    with pytest.raises(LeanformerError) as caught:
        task_of(images, model, **keys)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.long
def test_a_study_from_a_backbone_with_a_new_head(images: Path, dinov2: Path, tmp_path: Path) -> None:
    candidates = {
        "slots": {"plan": SLOTS, "method": "distill"},
        "lean": {
            "plan": {
                "*.self_attention": {"block": "minimal_attention", "vo": "separate", "init": "teacher"},
                "encoder.1.mlp": {"block": "mlp", "hidden": 24, "init": "teacher"},
            },
            "method": "distill",
        },
        "shorter": {"plan": {"encoder.1.layer": "none"}},
    }
    keys = {"data": {"image_size": 24}, "train": {"head_learning_rate": 0.01}}
    study = study_of(images, dinov2, candidates=candidates, **keys)
    result, _ = run(study, tmp_path / "run")
    notes = result.results["data"]["notes"]
    assert any("images of 16x16 pixels; its positions are interpolated for 24x24" in note for note in notes)
    rows = [result.results["baseline"], *result.results["candidates"]]
    assert {row["status"] for row in rows} == {"ok"}
    baseline, _, lean, shorter = rows
    assert lean["flops_per_example"] < baseline["flops_per_example"]
    assert shorter["parameters"] < lean["parameters"] < baseline["parameters"]

    model = lf.load(tmp_path / "run/trials/slots/seed-0/model")
    assert model.config.image_size == 24
    assert set(model.config.id2label.values()) == {"class-0", "class-1", "class-2"}
    prepared = json.loads((tmp_path / "run/trials/slots/seed-0/model/preprocessor_config.json").read_text())
    assert prepared["size"] == {"height": 24, "width": 24}
    assert prepared["image_std"] == [0.25] * 3

    new = write_images(tmp_path / "new", first=500)
    confirmed = lf.confirm(tmp_path / "run", str(new), candidate="slots")
    assert confirmed.result["data"]["examples"] == 60

    again, log = run(study, tmp_path / "run")
    assert without_timings(again.results) == without_timings(result.results)
    assert "teaching" not in log


@pytest.mark.long
@pytest.mark.parametrize("name", ["siglip tower", "clip", "beit", "vit_mae"])
def test_studies_from_other_backbones(name: str, images: Path, tmp_path: Path) -> None:
    model = write_backbone(tmp_path / "model", name)
    result, _ = run(study_of(images, model), tmp_path / "run")
    assert [row["status"] for row in result.results["candidates"]] == ["ok"]


def test_a_trained_classifier_of_any_architecture_is_a_baseline(images: Path, tmp_path: Path) -> None:
    trained = refitted(tiny_backbone("clip"), ["class-2", "class-1", "class-0"], None, "clip")
    model = write_backbone(tmp_path / "model", model=trained)
    result, _ = run(study_of(images, model, baseline={"head": None}, train={"epochs": 0}), tmp_path / "run")
    assert result.results["data"]["classes"] == ["class-2", "class-1", "class-0"]  # as the head has them
    assert [row["status"] for row in result.results["candidates"]] == ["ok"]
    directory = tmp_path / "run/trials/baseline/seed-0/model"
    kept = lf.load(directory)
    told = image_input(str(directory), kept)
    assert (told.height, told.width, told.classes) == (SIDE, SIDE, ("class-2", "class-1", "class-0"))
    assert torch.equal(kept.classifier.weight, trained.classifier.weight)


@pytest.mark.long
def test_the_study_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs/small-image-data.md").read_text(encoding="utf-8")
    (tmp_path / "parts.yaml").write_text(page.partition("```yaml\n")[2].partition("```")[0], encoding="utf-8")
    sizes = {"hidden_size": 16, "num_hidden_layers": 12, "num_attention_heads": 2, "mlp_ratio": 96}  # as wide MLPs
    config = hf.Dinov2Config(**sizes, image_size=28, patch_size=14)
    write_backbone(tmp_path / "models/dinov2-small", model=hf.Dinov2Model(config))
    write_images(tmp_path / "photos", each=12)
    write_images(tmp_path / "more-photos", each=3, first=100)
    monkeypatch.chdir(tmp_path)
    shorter = ["train.epochs=1", "train.learning_rate=1e-3", "distill.epochs=1", "finetune.epochs=1", "seeds=[0]"]
    shorter += ["data.image_size=28", "measure={repeats: 1, latency_calls: 1, throughput_batch: 2, device: cpu}"]
    result, _ = run(lf.read_study("parts.yaml", shorter), tmp_path / "run")
    assert {row["status"] for row in result.results["candidates"]} == {"ok"}
    assert result.results["data"]["unlabelled"] == 9


def test_seeds_differ_in_the_head_alone(images: Path, dinov2: Path) -> None:
    task = task_of(images, dinov2)
    first, again, second = (task.make_baseline(seed) for seed in (0, 0, 1))
    for name, weight in first.named_parameters():
        assert torch.equal(weight, again.get_parameter(name))
        assert torch.equal(weight, second.get_parameter(name)) == (name != "classifier.weight")


def test_the_models_own_preparation_says_how_large_images_are(images: Path, tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"size": {"shortest_edge": 14}, "crop_size": {"height": 12, "width": 12}}
    task = task_of(images, write_backbone(tmp_path, **sizes))
    assert task.baseline_outline.config.image_size == 12
    assert task.example()["pixel_values"].shape == (1, 3, 12, 12)
    assert task.batches.mean == (0.5, 0.5, 0.5)


def test_a_new_head_learns_ten_times_as_fast(images: Path, dinov2: Path) -> None:
    for keys, factor in (({}, 10), ({"head_learning_rate": 4e-3}, 4)):
        task = task_of(images, dinov2, train=keys)
        model = task.make_baseline(0)
        optimizer = make_optimizer(model, task.study.train, 1e-3, task.rate_factors(model, 1e-3))
        heads = {id(parameter) for parameter in model.classifier.parameters()}
        for group in optimizer.param_groups:
            of_head = {id(parameter) in heads for parameter in group["params"]}
            assert of_head == {group["rate_factor"] != 1}
            assert group["rate_factor"] in (1, factor)


def test_what_no_study_can_start_from(images: Path, dinov2: Path, tmp_path: Path) -> None:
    marian = {"d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 10, "pad_token_id": 0}
    marian |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    hf.MarianMTModel(hf.MarianConfig(**marian, decoder_start_token_id=0)).save_pretrained(tmp_path / "marian")
    assert "is a MarianMTModel, which is no model of images" in error_of(images, tmp_path / "marian")
    assert "a fresh vit has a new head anyway" in error_of(images, "vit")
    assert "is for other work (Dinov2Model), the study is of image-classification" in error_of(
        images, dinov2, baseline={"head": None}
    )
    assert "baseline.head: new" in error_of(images, dinov2, baseline={"head": None})

    patches = error_of(images, dinov2, data={"image_size": 18})
    assert "patches of 4 pixels, which do not divide the images' height of 18; take a multiple, such as 16" in patches
    assert "takes square images, not 16x24 pixels" in error_of(images, dinov2, data={"image_size": (16, 24)})

    trained = refitted(tiny_backbone("dinov2"), ["a", "b"], None, "dinov2")
    classifier = write_backbone(tmp_path / "two", model=trained)
    message = error_of(images, classifier, baseline={"head": None})
    assert "has 2 classes, the data have 3" in message
    assert "or give it a new head: baseline.head: new" in message

    tiny_backbone("dinov2").save_pretrained(tmp_path / "bare")
    message = error_of(images, tmp_path / "bare")
    assert "has no preprocessor_config.json" in message
    assert "set data.image_size and data.normalize" in message
    numbers = [[0.5] * 3, [0.5] * 3]
    task = task_of(images, tmp_path / "bare", data={"image_size": SIDE, "normalize": numbers})
    assert task.example()["pixel_values"].shape == (1, 3, SIDE, SIDE)


def test_keys_without_effect(images: Path, dinov2: Path) -> None:
    def error(**keys: Any) -> str:
        with pytest.raises(LeanformerError) as caught:
            lf.make_study(study_of(images, dinov2, **keys))
        return str(caught.value)

    assert "baseline.head does nothing here" in error(baseline={"fresh": True})
    assert "train.head_learning_rate does nothing here: only a new head" in error(
        baseline={"head": None}, train={"head_learning_rate": 1e-3}
    )

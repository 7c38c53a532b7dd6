"""What heads and neurons do on data, and that smaller parts are made of those that do most, wherever they are made."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from transformers import PreTrainedModel

import leanformer as lf
from leanformer.blocks.kit.inputs import BlockInputs
from leanformer.learn.activity import EXAMPLES, Moments, find_activities
from leanformer.learn.lessons import Lesson, explained
from leanformer.learn.losses import Batch, inputs_of
from leanformer.learn.observe import Observed, frozen_copy
from leanformer.model.hf import attend
from leanformer.model.surgery import choosing_sites, module_at, resolve

MakeModel = Callable[..., PreTrainedModel]
HEADS = {"*attention": {"block": "attention", "keep_heads": 2}}
NEURONS = {"*.mlp": {"block": "mlp", "hidden": 6, "init": "teacher"}}


def sentences(seed: int) -> Batch:
    """Three pairs, padded at the right."""
    generator = torch.Generator().manual_seed(seed)
    ids, labels = (torch.randint(2, 40, (3, length), generator=generator) for length in (7, 5))
    mask = torch.arange(7) < torch.tensor([[7], [4], [2]])
    labels = labels.where(torch.arange(5) < torch.tensor([[3], [5], [1]]), -100)
    return {
        "input_ids": ids.where(mask, 1),
        "attention_mask": mask.long(),
        "decoder_input_ids": F.pad(labels, (1, -1), value=1).where(labels != -100, 1),
        "labels": labels,
    }


def pictures(seed: int, count: int = 8) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return {"pixel_values": torch.randn(count, 1, 16, 16, generator=generator), "labels": torch.zeros(count).long()}


class Batches:
    """Training data that count how many of their batches were read."""

    def __init__(self, batches: list[Batch]) -> None:
        self.batches = batches
        self.read = 0

    @property
    def steps_per_epoch(self) -> int:
        return len(self.batches)

    def training(self, seed: int, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        for batch in self.batches:
            self.read += 1
            yield batch


def found(model: PreTrainedModel, plan: Mapping[str, Any], batches: Batches) -> dict[str, Any]:
    return find_activities(model, resolve(model, plan).items(), batches)


def test_moments_are_those_of_all_batches_together() -> None:
    states = torch.randn(50, 6) + 2
    for groups, width in ((3, 2), (None, 1)):
        moments = Moments(groups)
        for part in states.split([20, 1, 29]):
            moments.add(part)
        activity = moments.activity()
        for number, own in enumerate(states.double().split(width, dim=1)):
            torch.testing.assert_close(activity.mean[number], own.mean(dim=0))
            torch.testing.assert_close(activity.covariance[number], own.T.cov(correction=0).view(width, width))


def test_nothing_is_read_where_nothing_is_chosen(make_translator: MakeModel) -> None:
    batches = Batches([])
    plan: dict[str, Any] = {
        "*attention": {"block": "attention", "keep_heads": [0, 1]},
        "*.mlp": {"block": "mlp", "hidden": 4},
    }
    assert found(make_translator(), plan, batches) == {}
    assert batches.read == 0
    assert choosing_sites([("encoder.0.mlp", {"block": "mlp", "hidden": 4, "init": "teacher"})]) == ["encoder.0.mlp"]


def test_so_many_examples_are_read(make_model: MakeModel) -> None:
    batches = Batches([pictures(seed, EXAMPLES // 4) for seed in range(6)])
    found(make_model(num_hidden_layers=1), {"encoder.0.mlp": NEURONS["*.mlp"]}, batches)
    assert batches.read == 4


@pytest.mark.parametrize("family", ["marian", "bart"])
def test_activities_are_those_of_real_tokens(make_translator: MakeModel, family: str) -> None:
    """Neurons and heads by transformers' own modules, padding left out by hand."""
    model: Any = make_translator(family)
    batches = Batches([sentences(0), sentences(1)])
    activities = found(model, {**HEADS, **NEURONS}, batches)
    assert len(activities) == 10
    given: dict[str, list[torch.Tensor]] = {}
    layers = {"encoder": model.base_model.encoder.layers[1], "decoder": model.base_model.decoder.layers[1]}
    places = {
        "encoder.1.self_attention": layers["encoder"].self_attn.out_proj,
        "encoder.1.mlp": layers["encoder"].fc2,
        "decoder.1.self_attention": layers["decoder"].self_attn.out_proj,
        "decoder.1.cross_attention": layers["decoder"].encoder_attn.out_proj,
        "decoder.1.mlp": layers["decoder"].fc2,
    }
    hooks = [
        module.register_forward_pre_hook(
            lambda _, arguments, name=name: given.setdefault(name, []).append(arguments[0])
        )
        for name, module in places.items()
    ]
    for batch in batches.batches:
        model(**inputs_of(batch))
    for hook in hooks:
        hook.remove()
    for name, tensors in given.items():
        masks = [
            b["labels"] != -100 if name.startswith("decoder") else b["attention_mask"] == 1 for b in batches.batches
        ]
        real = torch.cat([tensor[mask] for tensor, mask in zip(tensors, masks, strict=True)]).double()
        mean, covariance = real.mean(dim=0), real.T.cov(correction=0)
        groups = activities[name].mean.shape[0]
        assert groups == (24 if name.endswith("mlp") else 4)
        torch.testing.assert_close(activities[name].mean.flatten(), mean, rtol=1e-5, atol=1e-6)
        width = len(mean) // groups
        for group in range(groups):
            own = slice(group * width, (group + 1) * width)
            torch.testing.assert_close(activities[name].covariance[group], covariance[own, own], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", ["vit", "deit", "marian", "bart"])
def test_what_never_changes_is_left_out_without_a_loss(
    make_model: MakeModel, make_translator: MakeModel, family: str
) -> None:
    """Heads and neurons of great weight that always give the same: their weights would keep them."""
    images = family in ("vit", "deit")
    model: Any = (make_model if images else make_translator)(family)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            width = len(parameter) // 4
            if "v_proj" in name:
                parameter[:width] = 0 if name.endswith("weight") else 30.0  # head 0
            elif "fc1" in name:
                parameter[:4] = 0 if name.endswith("weight") else 30.0
    plan = {
        "*attention": {"block": "attention", "keep_heads": 3},
        "*.mlp": {"block": "mlp", "hidden": (48 if images else 24) - 4, "init": "teacher"},
    }
    batches = [pictures(0)] if images else [sentences(0), sentences(1)]
    student = lf.reduce(model, plan, found(model, plan, Batches(batches))).eval()
    other: Any = pictures(9) if images else sentences(9)
    with torch.no_grad():
        expected, given = (one(**inputs_of(other)).logits for one in (model, student))
    torch.testing.assert_close(given, expected, rtol=1e-3, atol=1e-3)


# An attention of transformers as a lesson


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", ["encoder.0.self_attention", "decoder.1.self_attention", "decoder.0.cross_attention"])
def test_all_heads_explain_all(make_translator: MakeModel, kind: str, implementation: str) -> None:
    teacher = frozen_copy(lf.reduce(make_translator(attn_implementation=implementation), {}))
    student = lf.reduce(teacher, {kind: {"block": "attention", "keep_heads": [0, 1, 2, 3]}})
    block = module_at(student, kind)
    assert block is not None
    lesson = Lesson(kind, next(site for site in lf.sites(student) if site.name == kind), block)
    assert lesson.target == "output"
    with Observed(teacher, [(kind, "output")]) as observed:
        assert explained(observed, [lesson], [sentences(0), sentences(1)])[kind] == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_an_attention_without_any_mask_reads_all(make_model: MakeModel, implementation: str) -> None:
    opened = lf.reduce(make_model(attn_implementation=implementation), {})
    module, x = module_at(opened, "encoder.0.self_attention"), torch.randn(2, 5, 24)
    assert module is not None
    torch.testing.assert_close(attend(module, BlockInputs(x), causal=False), module(x)[0], rtol=1e-4, atol=1e-5)


# Where students are made


def test_distill_starts_from_what_the_data_show(make_translator: MakeModel) -> None:
    """Neurons that the data leave at zero are never taken, whatever their weights."""
    model: Any = make_translator(activation_function="relu")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "fc1" in name:
                parameter[::2] = -0.001 if name.endswith("bias") else 0  # silent on all data
            elif "fc2.weight" in name:
                parameter[:, ::2] = 1e6
    teach = lf.DistillConfig(epochs=1, learning_rate=1e-9)
    plan = {"*.mlp": {"block": "mlp", "hidden": 12, "init": "teacher"}, **HEADS}
    student: Any = lf.distill(model, plan, [sentences(0), sentences(1)], teach=teach)
    other = sentences(9)
    heads = lf.reduce(model, HEADS, found(model, HEADS, Batches([sentences(1), sentences(0)]))).eval()
    with torch.no_grad():
        expected, given = (one(**inputs_of(other)).logits for one in (heads, student))
    torch.testing.assert_close(given, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.long
@pytest.mark.parametrize("method", ["scratch", "distill"])
def test_a_study_takes_what_a_trained_baseline_does_on_data(
    digits_study: Callable[..., dict[str, Any]], make_model: MakeModel, tmp_path: Path, method: str
) -> None:
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    teacher = make_model(**shape, patch_size=4, image_size=8, num_labels=10, hidden_act="relu")
    with torch.no_grad():
        for name, parameter in teacher.named_parameters():
            if "fc1" in name:
                parameter[::2] = -0.001 if name.endswith("bias") else 0
            elif "fc2.weight" in name:
                parameter[:, ::2] = 1e6
    lf.save(teacher, tmp_path / "teacher")
    plan = {"*.mlp": {"block": "mlp", "hidden": 16, "init": "teacher"}}
    study = digits_study(
        baseline={"model": str(tmp_path / "teacher")}, candidates={"few": {"plan": plan, "method": method}}, seeds=[0]
    )
    study["train"] |= {"epochs": 0}
    if method == "distill":
        study |= {"distill": {"epochs": 1, "learning_rate": 1e-9}, "finetune": {"epochs": 0}}
    lf.run(study, tmp_path / "run", Console(file=io.StringIO()))
    student, batch = lf.load(tmp_path / "run/trials/few/seed-0/model"), pictures(0)
    images = batch["pixel_values"][..., :8, :8]
    with torch.no_grad():
        torch.testing.assert_close(student(images).logits, teacher(images).logits, rtol=1e-3, atol=1e-3)

"""Sites, plans, reducing, saving and loading."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import slow
from safetensors import safe_open
from transformers import AutoModelForImageClassification, PreTrainedModel, ResNetConfig, ResNetModel

import leanformer as lf
from leanformer.measure.cost import forward_flops
from leanformer.model.weights import parameter_count

MakeModel = Callable[..., PreTrainedModel]

MINIMAL: dict[str, Any] = {
    "*.self_attention": {"block": "minimal_attention", "qk": "symmetric", "diagonal_value": True, "temperature": True},
    "*.mlp": "none",
    "encoder.0.mlp": {"block": "mlp", "hidden": 7},
    "pooling": "mean",
}


ON_GRID: dict[str, Any] = {"*.self_attention": {"block": "mixer", "positions": "grid"}}


def images(size: int = 16) -> torch.Tensor:
    return torch.randn(6, 1, size, size, generator=torch.Generator().manual_seed(1))


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        return model(pixel_values=images()).logits


@pytest.fixture(params=["vit", "deit"])
def teacher(request: pytest.FixtureRequest, make_model: MakeModel) -> PreTrainedModel:
    return make_model(request.param)


def test_sites_are_named_in_order(teacher: PreTrainedModel) -> None:
    names = [site.name for site in lf.sites(teacher)]
    first = ["self_attention", "self_attention_sublayer", "mlp", "layer"]
    assert names[:5] == [*(f"encoder.0.{kind}" for kind in first), "encoder.1.self_attention"]
    assert names[-1] == "pooling"
    assert len(names) == 3 * 4 + 1
    mlp = next(site for site in lf.sites(teacher) if site.name == "encoder.1.mlp")
    assert (mlp.block, mlp.parameters, mlp.norm_parameters) == ("mlp", 2 * 24 * 48 + 24 + 48, 48)


def test_opening_changes_nothing(teacher: PreTrainedModel) -> None:
    student = lf.reduce(teacher, {})
    torch.testing.assert_close(logits(student), logits(teacher), atol=1e-6, rtol=1e-5)
    assert parameter_count(student) == parameter_count(teacher)


@pytest.mark.parametrize("plan", [{}, {"*.self_attention": "minimal_attention"}])
def test_tokens_that_are_masked_are_not_read(teacher: PreTrainedModel, plan: dict[str, Any]) -> None:
    """By Hugging Face's attention as by blocks: what a masked token holds changes nothing."""
    student = lf.reduce(teacher, plan)
    tokens = student.base_model.embeddings.position_embeddings.shape[1]
    mask = torch.ones(len(images()), tokens, dtype=torch.long)
    mask[:, -1] = 0
    with torch.no_grad():
        before = student(pixel_values=images(), attention_mask=mask).logits
        student.base_model.embeddings.position_embeddings[:, -1] += 1.0
        torch.testing.assert_close(student(pixel_values=images(), attention_mask=mask).logits, before)
        assert not torch.allclose(student(pixel_values=images()).logits, before, atol=1e-4)


LAST_LAYERS: dict[str, dict[str, Any]] = {
    "unchanged": {},
    "separate": {"*.self_attention": {"block": "minimal_attention", "qk": "separate", "bias": True}},
    "collapsed": {"*.self_attention": {"block": "minimal_attention", "vo": "none"}, "*.mlp": "none"},
    "symmetric": MINIMAL | {"pooling": "class_token"},
    "slots": {"*.self_attention": {"block": "slots", "slots": 4}},
    "grid": ON_GRID,
    "sublayer": {"*.self_attention_sublayer": {"block": "feed_forward", "max_length": 18}},
    "layer": {"encoder.2.layer": {"block": "feed_forward", "max_length": 18}},
    "attention gone": {"encoder.2.self_attention": "none"},
    "layer gone": {"encoder.2.layer": "none"},
    "all gone": {"*.layer": "none"},
}
SOME_LAST_LAYERS = ("unchanged", "collapsed", "slots", "layer", "attention gone")
"""Quick tests; the others are among the slow ones."""


@pytest.mark.parametrize(
    "plan",
    [
        pytest.param(plan, id=name, marks=() if name in SOME_LAST_LAYERS else pytest.mark.long)
        for name, plan in LAST_LAYERS.items()
    ],
)
def test_the_last_layer_computes_the_class_token_alone(teacher: PreTrainedModel, plan: dict[str, Any]) -> None:
    """Hidden states make it compute every token: logits and gradients are the same, the operations are more."""
    student = lf.reduce(teacher, plan).train()
    found = {}
    for whole in (False, True):
        student.zero_grad()
        outputs = student(pixel_values=images(), output_hidden_states=whole)
        outputs.logits.square().sum().backward()
        gradients = {
            name: parameter.grad.clone() for name, parameter in student.named_parameters() if parameter.grad is not None
        }
        found[whole] = (outputs.logits.detach(), gradients)
    torch.testing.assert_close(found[False], found[True], atol=1e-5, rtol=1e-4)
    tokens = student.base_model.embeddings.position_embeddings.shape[1]
    outputs = student(pixel_values=images(), output_hidden_states=True)
    assert [states.shape[1] for states in outputs.hidden_states] == [tokens] * len(outputs.hidden_states)
    asked: list[dict[str, Any]] = [{}, {"output_hidden_states": True}]
    few, all_tokens = (forward_flops(student, {"pixel_values": images(), **more}) for more in asked)
    assert few <= all_tokens if plan in (LAST_LAYERS["layer"], LAST_LAYERS["all gone"]) else few < all_tokens


def test_a_masked_token_is_not_read_by_the_class_token_alone(teacher: PreTrainedModel) -> None:
    student = lf.reduce(teacher, LAST_LAYERS["symmetric"])
    tokens = student.base_model.embeddings.position_embeddings.shape[1]
    mask = torch.ones(len(images()), tokens, dtype=torch.long)
    mask[:, -1] = 0
    asked: dict[str, Any] = {"pixel_values": images(), "attention_mask": mask}
    with torch.no_grad():
        torch.testing.assert_close(student(**asked).logits, student(**asked, output_hidden_states=True).logits)


def test_reduce_leaves_its_argument(teacher: PreTrainedModel) -> None:
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    modules = [type(module) for module in teacher.modules()]
    config = teacher.config.to_dict()
    lf.reduce(teacher, MINIMAL)
    assert [type(module) for module in teacher.modules()] == modules
    assert teacher.config.to_dict() == config
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())


def test_reduce_keeps_what_it_does_not_replace_and_leaves_nothing_dead(teacher: PreTrainedModel) -> None:
    student = lf.reduce(teacher, MINIMAL)
    body = teacher.base_model
    kept = student.base_model
    special = {"vit": 1, "deit": 2}[teacher.config.model_type]
    assert torch.equal(kept.embeddings.position_embeddings, body.embeddings.position_embeddings[:, special:])
    assert torch.equal(kept.layers[1].self_attention.norm.weight, body.layers[1].layernorm_before.weight)
    assert torch.equal(student.classifier.weight, teacher.classifier.weight)
    names = [name for name, _ in student.named_parameters()]
    assert not any("token" in name for name in names)
    assert not any("proj." in name and "projection" not in name for name in names)
    assert not any(".1.mlp" in name for name in names)
    d = 24
    expected = (
        parameter_count(teacher.base_model.embeddings)
        - special * 2 * d  # class and distillation tokens with their positions
        + parameter_count(teacher.base_model.layernorm)
        + parameter_count(teacher.classifier)
        + 3 * (d * (d + 1) // 2 + d + 4 + 2 * d)
        + (2 * d * 7 + 7 + d + 2 * d)
    )
    assert parameter_count(student) == expected
    # Every number that is stored has an effect.
    student.train()
    student(pixel_values=images(), labels=torch.arange(6) % 5).loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in student.parameters())


def test_a_student_is_a_hugging_face_model(teacher: PreTrainedModel) -> None:
    student = lf.reduce(teacher, MINIMAL)
    assert isinstance(student, type(teacher))
    output = student(pixel_values=images(), labels=torch.arange(6) % 5, output_hidden_states=True)
    torch.testing.assert_close(output.loss, torch.nn.functional.cross_entropy(output.logits, torch.arange(6) % 5))
    assert len(output.hidden_states) == 4
    assert student(pixel_values=images(), return_dict=False)[0].shape == (6, 5)
    assert student.eval().training is False


def test_larger_images_by_interpolation(teacher: PreTrainedModel) -> None:
    student = lf.reduce(teacher, {"pooling": "mean"})
    with torch.no_grad():
        assert student(images(32), interpolate_pos_encoding=True).logits.shape == (6, 5)
        torch.testing.assert_close(student(images(), interpolate_pos_encoding=True).logits, logits(student))
    with pytest.raises(ValueError, match="32x32 pixels given to a model for 16x16"):
        student(images(32))


@pytest.mark.parametrize(
    "plan", [MINIMAL, ON_GRID, *slow({"*.mlp": "none"}, {"encoder.1.layer": "none"}, {"pooling": "mean"}), {}]
)
def test_save_and_load_are_exact(teacher: PreTrainedModel, plan: dict[str, Any], tmp_path: Path) -> None:
    student = lf.reduce(teacher, plan)
    lf.save(student, tmp_path / "model")
    files = ["config.json", "model.safetensors", "modeling_leanformer.py"]
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == files
    with safe_open(tmp_path / "model" / "model.safetensors", "pt") as file:
        stored = sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118
    assert stored == parameter_count(student)
    loaded = lf.load(tmp_path / "model")
    assert torch.equal(logits(loaded), logits(student))
    assert lf.sites(loaded) == lf.sites(student)
    assert not loaded.training


def test_save_pretrained_and_auto_model_do_as_well(teacher: PreTrainedModel, tmp_path: Path) -> None:
    student = lf.reduce(teacher, MINIMAL)
    student.save_pretrained(tmp_path)
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path)
    assert torch.equal(logits(loaded), logits(student))


@pytest.mark.long
def test_a_fresh_process_loads_the_same(make_model: MakeModel, tmp_path: Path) -> None:
    student = lf.reduce(make_model(), MINIMAL)
    lf.save(student, tmp_path / "model")
    torch.save(images(), tmp_path / "images.pt")
    code = (
        "import sys, torch, leanformer as lf; torch.set_num_threads(1);"
        f"print(lf.load(sys.argv[1])(torch.load(r'{tmp_path / 'images.pt'}')).logits.double().sum().item().hex())"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "model"], capture_output=True, text=True, check=True)
    assert float.fromhex(done.stdout.split()[-1]) == pytest.approx(logits(student).double().sum().item(), abs=1e-5)


def test_precision_survives(make_model: MakeModel, tmp_path: Path) -> None:
    student = lf.reduce(make_model().to(torch.bfloat16), MINIMAL)
    assert {p.dtype for p in student.parameters()} == {torch.bfloat16}
    lf.save(student, tmp_path / "model")
    loaded = lf.load(tmp_path / "model")
    state = student.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict().items())
    assert {p.dtype for p in loaded.parameters()} == {torch.bfloat16}


def test_a_student_of_a_student(teacher: PreTrainedModel, tmp_path: Path) -> None:
    first = lf.reduce(teacher, MINIMAL)
    second = lf.reduce(first, {"encoder.2.layer": "none", "encoder.0.mlp": "none"})
    assert parameter_count(second) < parameter_count(first)
    kept = second.state_dict()
    for name, tensor in first.state_dict().items():
        if ".layers.2." not in name and ".mlp." not in name:
            assert torch.equal(kept[name], tensor)
    lf.save(second, tmp_path / "model")
    assert torch.equal(logits(lf.load(tmp_path / "model")), logits(second))


def test_a_grid_is_that_of_the_images(teacher: PreTrainedModel, tmp_path: Path) -> None:
    special = {"vit": 1, "deit": 2}[teacher.config.model_type]
    there = {(site.grid, site.special_tokens) for site in lf.sites(teacher) if site.kind == "self_attention"}
    assert there == {((4, 4), special)}
    for plan, kept in ((ON_GRID, special), ({**ON_GRID, "pooling": "mean"}, 0)):
        student = lf.reduce(teacher, plan)
        entry = student.config.plan["encoder.1.self_attention"]
        assert (entry["max_distance"], entry["special_tokens"]) == (3, kept)
        shapes = {parameter.shape for name, parameter in student.named_parameters() if name.endswith("mixing")}
        assert shapes == {(4, 49 + 2 * kept + kept**2)}
    # Pooling that changes later leaves weights of tokens that are gone.
    later = lf.reduce(lf.reduce(teacher, ON_GRID), {"pooling": "mean"})
    assert {site.special_tokens for site in lf.sites(later)} == {0}
    lf.save(later, tmp_path / "model")
    assert torch.equal(logits(lf.load(tmp_path / "model")), logits(later))


def test_images_that_are_no_square(make_model: MakeModel, tmp_path: Path) -> None:
    student = lf.reduce(make_model(image_size=(8, 20)), {**ON_GRID, "pooling": "mean"})
    assert {site.grid for site in lf.sites(student)} >= {(2, 5)}
    x = torch.randn(3, 1, 8, 20)
    lf.save(student, tmp_path / "model")
    assert torch.equal(lf.load(tmp_path / "model")(x).logits, student(x).logits)


def test_images_that_patches_do_not_divide(teacher: PreTrainedModel, make_model: MakeModel) -> None:
    uneven = make_model(image_size=18)
    x = torch.randn(3, 1, 18, 18)
    student = lf.reduce(uneven, {})
    torch.testing.assert_close(student(x).logits, uneven(x).logits, atol=1e-6, rtol=1e-5)
    assert lf.reduce(uneven, ON_GRID)(x).logits.shape == (3, 5)


def test_a_mixer_of_before_is_loaded(make_model: MakeModel, tmp_path: Path) -> None:
    """Of a plan that was saved without the arguments that came later."""
    plan: dict[str, Any] = {"*.self_attention": {"block": "mixer", "positions": "absolute", "max_length": 17}}
    student = lf.reduce(make_model(), plan)
    lf.save(student, tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    config = json.loads(file.read_text())
    for entry in config["plan"].values():
        for key in ("special_tokens", "vo", "gate"):
            del entry[key]
    file.write_text(json.dumps(config))
    assert torch.equal(logits(lf.load(tmp_path / "model")), logits(student))


@pytest.mark.parametrize("plan", [MINIMAL, ON_GRID])
def test_evaluated_then_trained(make_model: MakeModel, plan: dict[str, Any]) -> None:
    student = lf.reduce(make_model(), plan)
    with torch.inference_mode():
        student(pixel_values=images())
    student(pixel_values=images(), labels=torch.arange(6) % 5).loss.backward()
    assert all(parameter.grad is not None for parameter in student.parameters())


def test_later_patterns_override_earlier_ones(teacher: PreTrainedModel) -> None:
    plan: dict[str, Any] = {"*.mlp": "none", "encoder.[1-2].mlp": {"block": "mlp", "hidden": 5}, "encoder.2.mlp": "mlp"}
    student = lf.reduce(teacher, plan)
    blocks = {site.name: (site.block, site.parameters) for site in lf.sites(student) if site.kind == "mlp"}
    assert blocks["encoder.0.mlp"] == ("none", 0)
    assert blocks["encoder.1.mlp"] == ("mlp", 2 * 24 * 5 + 5 + 24)
    assert blocks["encoder.2.mlp"] == ("mlp", 2 * 24 * 48 + 48 + 24)


def test_an_emptied_layer_takes_everything_in_it(teacher: PreTrainedModel) -> None:
    student = lf.reduce(teacher, {"encoder.1.layer": "none", "*.self_attention": "minimal_attention"})
    assert parameter_count(student.base_model.layers[1]) == 0
    assert set(student.config.plan) == {"encoder.1.layer", "encoder.0.self_attention", "encoder.2.self_attention"}


def test_the_plan_in_the_file_says_everything(teacher: PreTrainedModel, tmp_path: Path) -> None:
    lf.save(lf.reduce(teacher, MINIMAL), tmp_path)
    plan = json.loads((tmp_path / "config.json").read_text())["plan"]
    assert plan["encoder.1.self_attention"] == {
        "block": "minimal_attention",
        "qk": "symmetric",
        "vo": "none",
        "heads": 4,
        "diagonal_value": True,
        "temperature": True,
        "qk_norm": False,
        "bias": False,
        "dropout": 0.0,
        "init": "orthogonal",
    }


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"*.atention": "none"}, r"plan '\*\.atention' matches no site; sites look like"),
        ({"*.mlp": "nothing"}, "unknown block 'nothing'; known blocks: attention, average, class_token"),
        ({"*.mlp": "minimal_attention"}, "cannot stand at encoder.0.mlp; blocks that can: mlp, none"),
        ({"pooling": "none"}, "block 'none' cannot stand at pooling; blocks that can: class_token, mean"),
        ({"*": "none"}, "block 'none' cannot stand at pooling"),
        (
            {"*.self_attention": {"block": "minimal_attention", "qv": "collapsed"}},
            "has no argument 'qv'; its arguments: qk",
        ),
        ({"*.self_attention": {"block": "minimal_attention", "qk": "merged"}}, "argument 'qk' .* not 'merged'"),
        (
            {"*.self_attention": {"block": "minimal_attention", "heads": 0}},
            "argument 'heads' .* greater than or equal to 1",
        ),
        ({"*.self_attention": {"block": "minimal_attention", "heads": "4"}}, "argument 'heads' .* integer, not '4'"),
        ({"*.mlp": {"block": "mlp", "hidden": -1}}, "argument 'hidden'"),
        ({"*.mlp": {"block": "mlp", "hidden": 4, "activation": "gleu"}}, "argument 'activation'"),
        ({"*.mlp": {"hidden": 4}}, "the key 'block' with the block's name is missing"),
        ({"*.mlp": None}, "write a block's name"),
        (["*.mlp"], "a plan is a mapping"),
    ],
)
def test_every_mistake_in_a_plan_is_named(make_model: MakeModel, plan: Any, message: str) -> None:
    with pytest.raises(lf.LeanformerError, match=message) as raised:
        lf.reduce(make_model(), plan)
    assert "\n" not in str(raised.value)


def test_an_emptied_place_stays_empty(make_model: MakeModel) -> None:
    student = lf.reduce(make_model(), {"*.mlp": "none"})
    with pytest.raises(lf.LeanformerError, match=r"encoder\.0\.mlp was emptied when this student was made"):
        lf.reduce(student, {"encoder.0.mlp": {"block": "mlp", "hidden": 4}})
    assert parameter_count(lf.reduce(student, {"*.mlp": "none"})) == parameter_count(student)
    with pytest.raises(lf.LeanformerError, match=r"'mlp' keeps what stands there, but encoder\.0\.mlp is 'none'"):
        lf.reduce(student, {"*.mlp": "mlp"})
    with pytest.raises(lf.LeanformerError, match="'class_token' keeps what stands there, but pooling is 'mean'"):
        lf.reduce(lf.reduce(make_model(), {"pooling": "mean"}), {"pooling": "class_token"})


def test_init_teacher_needs_an_attention(make_model: MakeModel) -> None:
    student = lf.reduce(make_model(), {"*.self_attention": "minimal_attention"})
    with pytest.raises(lf.LeanformerError, match="init 'teacher' takes over a Hugging Face attention"):
        lf.reduce(student, {"*.self_attention": {"block": "minimal_attention", "init": "teacher"}})


def test_other_models_are_refused(make_model: MakeModel) -> None:
    convolutions = ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic"))
    with pytest.raises(lf.LeanformerError, match="ResNetModel: no attention was found in it, neither in transformers"):
        lf.sites(convolutions)
    with pytest.raises(lf.LeanformerError, match="not Linear"):
        lf.sites(torch.nn.Linear(1, 1))


def damaged(path: Path, what: str) -> None:
    weights = path / "model.safetensors"
    if what == "cut":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif what == "no weights":
        weights.unlink()
    elif what == "no config":
        (path / "config.json").unlink()
    elif what == "config is no JSON":
        (path / "config.json").write_text("{")
    else:
        config = json.loads((path / "config.json").read_text())
        if what == "another plan":
            config["plan"] = {}
        else:
            config["model_type"] = "bert"
        (path / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("cut", "not a model that can be loaded"),
        ("no weights", "not a model that can be loaded"),
        ("no config", "it holds no config.json"),
        ("config is no JSON", "not a model that can be loaded"),
        ("another plan", "the weights do not fit the configuration"),
        ("another type", "model type 'bert' with the class LeanViTForImageClassification is not one of"),
    ],
)
def test_damaged_models_are_refused(make_model: MakeModel, tmp_path: Path, what: str, message: str) -> None:
    lf.save(lf.reduce(make_model(), MINIMAL), tmp_path / "model")
    damaged(tmp_path / "model", what)
    with pytest.raises(lf.LeanformerError, match=message) as raised:
        lf.load(tmp_path / "model")
    assert "\n" not in str(raised.value)
    assert str(tmp_path / "model") in str(raised.value)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(lf.LeanformerError, match="no such model directory"):
        lf.load(tmp_path / "nothing")

"""An attention of fewer heads, an MLP of the teacher's neurons: what is kept, and what it then gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import slow
from transformers import PreTrainedModel

import leanformer as lf
from leanformer.blocks.basic import FeedForward
from leanformer.blocks.kit.activity import Activity, most_important
from leanformer.blocks.kit.base import AttentionWeights, MlpWeights
from leanformer.model.family import find_family
from leanformer.model.shapes.open import OpenFamily
from leanformer.model.surgery import module_at

MakeModel = Callable[..., PreTrainedModel]
FAMILIES = pytest.mark.parametrize("family", ["vit", *slow("deit"), "marian", *slow("bart")])


@pytest.fixture
def make(make_model: MakeModel, make_translator: MakeModel) -> MakeModel:
    def of(family: str, **settings: Any) -> PreTrainedModel:
        return (make_model if family in ("vit", "deit") else make_translator)(family, **settings)

    return of


@torch.no_grad()
def outputs(model: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    if model.main_input_name == "pixel_values":
        return model(torch.randn(3, 1, 16, 16, generator=generator)).logits
    ids, targets = (torch.randint(2, 40, (3, length), generator=generator) for length in (7, 5))
    mask = torch.arange(7) < torch.tensor([[7], [4], [2]])
    return model(input_ids=ids, attention_mask=mask.long(), decoder_input_ids=targets).logits


def attentions(model: PreTrainedModel) -> dict[str, Any]:
    opened = lf.reduce(model, {})
    names = [site.name for site in lf.sites(opened) if site.kind in ("self_attention", "cross_attention")]
    return {name: module_at(opened, name) for name in names}


@torch.no_grad()
def silence(model: PreTrainedModel, heads: list[int]) -> None:
    """Lets heads add nothing to the output of any attention."""
    family = find_family(model)
    for module in model.modules():
        if family.attention_weights(module) is not None:
            projection: Any = family.output_projection(module)
            for head in heads:
                width = projection.in_features // 4
                projection.weight[:, head * width : (head + 1) * width] = 0


# Fewer heads


@FAMILIES
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_kept_heads_give_what_they_gave_before(make: MakeModel, family: str, implementation: str) -> None:
    teacher = make(family, attn_implementation=implementation)
    student = lf.reduce(teacher, {"*attention": {"block": "attention", "keep_heads": [2, 0]}})
    silence(teacher, [1, 3])
    torch.testing.assert_close(outputs(student), outputs(teacher), rtol=1e-4, atol=1e-5)
    assert set(map(str, student.config.plan.values())) == {"{'block': 'attention', 'keep_heads': [0, 2]}"}


@FAMILIES
def test_it_is_the_familys_own_attention(make: MakeModel, family: str, tmp_path: Path) -> None:
    teacher = make(family)
    student = lf.reduce(teacher, {"*attention": {"block": "attention", "keep_heads": 3}})
    of_family = find_family(teacher)
    for name, module in attentions(student).items():
        weights = of_family.attention_weights(module)
        assert weights is not None
        assert (weights.num_heads, weights.query.shape[1], module.head_dim) == (3, 3 * module.head_dim, module.head_dim)
        d = len(weights.query)
        site = next(site for site in lf.sites(student) if site.name == name)
        assert (site.block, site.parameters) == ("attention", (4 * d + 3) * 3 * d // 4 + d)
    lf.save(student, tmp_path)
    assert torch.equal(outputs(lf.load(tmp_path)), outputs(student))


@FAMILIES
def test_heads_that_add_nothing_go_first(make: MakeModel, family: str) -> None:
    teacher = make(family)
    silence(teacher, [0, 2])
    student = lf.reduce(teacher, {"*attention": {"block": "attention", "keep_heads": 2}})
    torch.testing.assert_close(outputs(student), outputs(teacher), rtol=1e-4, atol=1e-5)


def test_heads_are_judged_by_value_and_output_together() -> None:
    d, heads = 12, 3
    value, output = torch.randn(d, d), torch.randn(d, d)
    weights = AttentionWeights(value, value, value, output, None, None, None, None, heads, 1.0)
    norms = [float((value[:, own] @ output[own]).norm()) for own in (slice(0, 4), slice(4, 8), slice(8, 12))]
    for count in (1, 2, 3):
        assert weights.most_important(count) == sorted(sorted(range(heads), key=lambda head: -norms[head])[:count])


def test_fewer_heads_can_be_made_fewer_still(make: MakeModel, tmp_path: Path) -> None:
    teacher = make("marian")
    once = lf.reduce(teacher, {"*attention": {"block": "attention", "keep_heads": [0, 1, 3]}})
    twice = lf.reduce(once, {"*attention": {"block": "attention", "keep_heads": [2]}})
    silence(teacher, [0, 1, 2])  # the third of those that were left is head 3
    torch.testing.assert_close(outputs(twice), outputs(teacher), rtol=1e-4, atol=1e-5)
    lf.save(twice, tmp_path)
    assert torch.equal(outputs(lf.load(tmp_path)), outputs(twice))
    # Another block may stand there, but not take over what it has no room for.
    assert outputs(lf.reduce(once, {"*attention": "slots"})).isfinite().all()


@pytest.mark.parametrize(
    ("keep", "line"),
    [
        (0, r"argument 'keep_heads' of block 'attention': input should be greater than or equal to 1, not 0"),
        ("2", r"argument 'keep_heads' of block 'attention': .* a list of heads such as \[0, 2\], not '2'"),
        (4, r"encoder\.0\.self_attention: keep_heads = 4, and the attention there has 4 heads; keep fewer"),
        ([], r"encoder\.0\.self_attention: keep_heads = \[\] keeps no head; the attention there has heads 0 to 3"),
        ([1, 1], r"keep_heads = \[1, 1\] names head 1 twice; name it once"),
        ([4], r"keep_heads = \[4\] names a head 4, but the attention there has heads 0 to 3"),
    ],
)
def test_wrong_heads_are_named(make_model: MakeModel, keep: Any, line: str) -> None:
    with pytest.raises(lf.LeanformerError, match=line) as error:
        lf.reduce(make_model(), {"*.self_attention": {"block": "attention", "keep_heads": keep}})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("before", "entry", "line"),
    [
        (
            "slots",
            {"block": "attention", "keep_heads": 2},
            "keeps heads of the model's own attention, but 'slots' stan",
        ),
        (
            "slots",
            {"block": "attention", "keep_heads": [0]},
            "keeps heads of the model's own attention, but 'slots' st",
        ),
        (2, {"block": "attention", "keep_heads": 3}, "keep_heads = 3, and the attention there has 2 heads"),
        (
            2,
            {"block": "minimal_attention", "init": "teacher"},
            "but 'attention of fewer heads' stands there; take init",
        ),
        (
            2,
            {"block": "slots", "heads": [0]},
            "but 'attention of fewer heads' stands there; reduce the teacher instead",
        ),
    ],
)
def test_what_does_not_fit_a_student_is_named(make_model: MakeModel, before: Any, entry: Any, line: str) -> None:
    first = before if isinstance(before, str) else {"block": "attention", "keep_heads": before}
    student = lf.reduce(make_model(), {"*.self_attention": first})
    with pytest.raises(lf.LeanformerError, match=line) as error:
        lf.reduce(student, {"*.self_attention": entry})
    assert "\n" not in str(error.value)


# Fewer neurons


def mlps(model: PreTrainedModel) -> list[Any]:
    opened = lf.reduce(model, {})
    return [module_at(opened, site.name) for site in lf.sites(opened) if site.kind == "mlp"]


@FAMILIES
@pytest.mark.parametrize("activation", ["relu", "gelu_new"])
def test_neurons_that_add_nothing_go_first(make: MakeModel, family: str, activation: str) -> None:
    known = find_family(make(family))
    assert isinstance(known, OpenFamily)
    key = known.activation_key
    teacher = make(family, **{key: activation})
    with torch.no_grad():
        for module in teacher.modules():
            if hasattr(module, "fc2"):
                module.fc2.weight[:, ::2] = 0
    half = mlps(teacher)[0].fc1.out_features // 2
    student = lf.reduce(teacher, {"*.mlp": {"block": "mlp", "hidden": half, "init": "teacher"}})
    torch.testing.assert_close(outputs(student), outputs(teacher), rtol=1e-4, atol=1e-5)
    for module in mlps(student):
        assert isinstance(module, FeedForward)
        assert (module.fc1.out_features, module.activation_name) == (half, activation)
    # A student's neurons can be chosen from again, with its own activation.
    again = lf.reduce(student, {"*.mlp": {"block": "mlp", "hidden": half, "init": "teacher"}})
    assert torch.equal(outputs(again), outputs(student))


def test_without_the_teacher_neurons_are_new(make_model: MakeModel) -> None:
    teacher = make_model()
    plan = lf.reduce(teacher, {"*.mlp": {"block": "mlp", "hidden": 48}}).config.plan
    assert plan["encoder.0.mlp"] == {"block": "mlp", "hidden": 48, "activation": "gelu", "init": "fresh"}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"init": "teacher"}, "'init' goes with 'hidden'; without it the present MLP is kept"),
        ({"hidden": 8, "init": "orthogonal"}, "argument 'init' of block 'mlp': input should be 'fresh' or 'teacher'"),
        (
            {"hidden": 49, "init": "teacher"},
            r"encoder\.0\.mlp: hidden = 49 is more than the 48 neurons of the MLP there, which init 'teacher' takes",
        ),
        (
            {"hidden": 8, "init": "teacher", "activation": "relu"},
            r"encoder\.0\.mlp: init 'teacher' takes over neurons whose activation is 'gelu', not 'relu'; leave 'activ",
        ),
    ],
)
def test_wrong_neurons_are_named(make_model: MakeModel, arguments: Any, line: str) -> None:
    with pytest.raises(lf.LeanformerError, match=line) as error:
        lf.reduce(make_model(), {"*.mlp": {"block": "mlp", **arguments}})
    assert "\n" not in str(error.value)


def test_an_activation_that_learns_is_not_taken_over(make_model: MakeModel) -> None:
    with pytest.raises(lf.LeanformerError, match=r"cannot take over the activation 'prelu' of the MLP there"):
        lf.reduce(make_model(hidden_act="prelu"), {"*.mlp": {"block": "mlp", "hidden": 8, "init": "teacher"}})


# What is done on data


@pytest.mark.parametrize("width", [1, 3])
def test_importance_is_the_error_that_is_made_without_a_group(width: int) -> None:
    """Of each group alone: the variance of what it adds, which is left where its mean stays."""
    states = torch.randn(500, 4 * width, dtype=torch.double) @ torch.randn(4 * width, 4 * width, dtype=torch.double)
    states, output = states + 3 * torch.randn(4 * width), torch.randn(4 * width, 5, dtype=torch.double)
    groups = states.unflatten(1, (4, width)).transpose(0, 1)
    centred = groups - groups.mean(dim=1, keepdim=True)
    activity = Activity(groups.mean(dim=1), centred.mT @ centred / 500)
    importance = activity.importance(output)
    for group in range(4):
        others = [other for other in range(4) if other != group]
        rows = output.unflatten(0, (4, width))
        without = sum(groups[other] @ rows[other] for other in others) + activity.mean_without(others, output)
        error = (without - states @ output).square().sum(dim=1).mean()
        torch.testing.assert_close(importance[group], error)
    assert most_important(importance, 2) == sorted(importance.argsort(descending=True)[:2].tolist())


def test_a_constant_neuron_becomes_a_bias() -> None:
    inner, output = torch.randn(4, 6), torch.randn(6, 4)
    inner_bias = torch.randn(6)
    inner[:, 1], inner_bias[1], output[1] = 0, 9.0, 50.0  # by its weights out, it is the greatest by far
    x = torch.randn(40, 4)
    inside = torch.relu(x @ inner + inner_bias).double()
    covariance = inside.var(dim=0, correction=0)[:, None, None]
    weights = MlpWeights(
        inner, output, inner_bias, torch.randn(4), "relu", Activity(inside.mean(0)[:, None], covariance)
    )
    kept = weights.most_important(5)
    assert kept == [0, 2, 3, 4, 5]
    fewer = weights.without_others(kept)
    given = torch.relu(x @ fewer.inner + fewer.inner_bias) @ fewer.output + fewer.output_bias
    torch.testing.assert_close(given, inside.float() @ output + weights.output_bias, rtol=1e-4, atol=1e-3)

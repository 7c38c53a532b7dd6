"""The forms of minimal attention: their counts, their arithmetic, and what they take over from a teacher."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from leanformer.blocks.kit import dot_product
from leanformer.blocks.kit.dot_product import attend, split_heads
from leanformer.blocks.kit.inputs import BlockInputs
from leanformer.blocks.minimal_attention import MinimalAttentionModule, TriangularLinear
from leanformer.core.errors import LeanformerError
from leanformer.model.students import reduce
from leanformer.model.surgery import sites
from leanformer.model.weights import parameter_count

MakeModel = Callable[..., PreTrainedModel]


def build(d_model: int = 12, **settings: Any) -> MinimalAttentionModule:
    defaults = {
        "heads": 1,
        "qk": "collapsed",
        "vo": "none",
        "bias": False,
        "diagonal_value": False,
        "temperature": False,
        "qk_norm": False,
        "dropout": 0.0,
    }
    module = MinimalAttentionModule(d_model, **{**defaults, **settings})
    module.initialize("orthogonal")
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module.eval()


@pytest.mark.parametrize("d_model", [8, 24, 33])
@pytest.mark.parametrize("qk", ["separate", "collapsed", "symmetric"])
@pytest.mark.parametrize("vo", ["separate", "collapsed", "none"])
def test_counts_follow_the_formulas(d_model: int, qk: str, vo: str) -> None:
    d = d_model
    expected = {"separate": 2 * d * d, "collapsed": d * d, "symmetric": d * (d + 1) // 2}[qk]
    expected += {"separate": 2 * d * d, "collapsed": d * d, "none": 0}[vo]
    for heads in (head for head in (1, 3, 4) if d % head == 0):
        assert parameter_count(build(d, qk=qk, vo=vo, heads=heads)) == expected
        extras = build(d, qk=qk, vo=vo, heads=heads, diagonal_value=True, temperature=True)
        assert parameter_count(extras) == expected + d + heads


@pytest.mark.parametrize("layers", [1, 4])
@pytest.mark.parametrize(("heads", "d_model"), [(1, 16), (4, 16), (3, 24)])
def test_counts_of_whole_models(make_model: MakeModel, layers: int, heads: int, d_model: int) -> None:
    """Of 12 d² a layer (4 + 8), no MLP leaves 4 d², collapsed 3 d², without V and O 1 d², symmetric half of it."""
    d = d_model
    teacher = make_model(
        hidden_size=d, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=4 * d, qkv_bias=False
    )
    rest = parameter_count(teacher) - sum(
        site.parameters + site.norm_parameters for site in sites(teacher) if site.kind in ("self_attention", "mlp")
    )
    for plan, weights in {
        "none": 4 * d * d + d,  # Hugging Face's output projection has a bias always
        "collapsed": 3 * d * d,
        "no V, no O": d * d,
        "symmetric": d * (d + 1) // 2,
    }.items():
        attention: dict[str, dict[str, Any]] = {
            "none": {"block": "attention"},
            "collapsed": {"block": "minimal_attention", "qk": "collapsed", "vo": "separate"},
            "no V, no O": {"block": "minimal_attention", "qk": "collapsed", "vo": "none"},
            "symmetric": {"block": "minimal_attention", "qk": "symmetric", "vo": "none"},
        }
        student = reduce(teacher, {"*.mlp": "none", "*.self_attention": attention[plan]})
        norms = 2 * d  # the attention's; the MLP's is gone with it
        assert parameter_count(student) == rest + layers * (weights + norms), plan


def naive(module: MinimalAttentionModule, x: torch.Tensor) -> torch.Tensor:
    """The definition, head by head, example by example."""
    d = x.shape[-1]
    width = d // module.heads
    outputs = []
    for example in x:
        columns = []
        for head in range(module.heads):
            own = slice(head * width, (head + 1) * width)
            if module.qk == "symmetric":
                query = key = (example @ module.similarity.matrix())[:, own]
            elif module.qk == "collapsed":
                query, key = (example @ module.similarity.weight.T)[:, own], example[:, own]
            else:
                query, key = (example @ module.query.weight.T)[:, own], (example @ module.key.weight.T)[:, own]
            if module.qk_norm:
                query, key = (side / (side.pow(2).mean(-1, keepdim=True) + 1e-12).sqrt() for side in (query, key))
            scores = query @ key.T / width**0.5
            if module.temperature is not None:
                scores = scores * module.temperature[head]
            value = (example if module.value is None else example @ module.value.weight.T)[:, own]
            columns.append(torch.softmax(scores, dim=-1) @ value)
        output = torch.cat(columns, dim=-1)
        if module.diagonal_value is not None:
            output = output * module.diagonal_value
        if module.output is not None:
            output = output @ module.output.weight.T
        outputs.append(output)
    return torch.stack(outputs)


FORMS = list(itertools.product(["separate", "collapsed", "symmetric"], ["separate", "collapsed", "none"], [1, 3]))


@pytest.mark.parametrize(("qk", "vo", "heads"), FORMS)
@pytest.mark.parametrize("extras", [False, True])
@torch.no_grad()
def test_output_is_the_definition(qk: str, vo: str, heads: int, extras: bool) -> None:
    module = build(qk=qk, vo=vo, heads=heads, diagonal_value=extras, temperature=extras, qk_norm=extras)
    x = torch.randn(2, 5, 12)
    torch.testing.assert_close(module(BlockInputs(x)), naive(module, x), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("heads", [1, 3])
def test_symmetric_scores_are_symmetric_and_semidefinite(heads: int) -> None:
    module = build(qk="symmetric", heads=heads)
    x = torch.randn(1, 7, 12)
    projected = split_heads(module.similarity(x), heads)
    scores = projected @ projected.transpose(-1, -2)
    torch.testing.assert_close(scores, scores.transpose(-1, -2))
    assert torch.linalg.eigvalsh(scores).min() > -1e-4


def test_triangular_stores_half_and_gradients_reach_it() -> None:
    linear = TriangularLinear(5, bias=False)
    full = torch.randn(5, 5)
    linear.pack(full)
    assert linear.weight.shape == (15,)
    torch.testing.assert_close(linear.matrix(), full.tril())
    x = torch.randn(3, 5)
    linear(x).sum().backward()
    reference = full.tril().requires_grad_()
    (x @ reference).sum().backward()
    assert linear.weight.grad is not None
    assert reference.grad is not None
    rows, columns = torch.tril_indices(5, 5)
    torch.testing.assert_close(linear.weight.grad, reference.grad[rows, columns])


@pytest.mark.parametrize("masked", [False, True])
def test_fused_and_plain_paths_agree(masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, value = (torch.randn(2, 6, 12) for _ in range(3))
    keep = torch.rand(2, 1, 6, 6) > 0.3
    keep[..., 0] = True
    mask = keep if masked else None
    monkeypatch.setattr(dot_product, "FUSED_FROM_TOKENS_ON_CPU", 1)
    fused = attend(query, key, value, 3, mask)
    monkeypatch.setattr(dot_product, "FUSED_FROM_TOKENS_ON_CPU", 1000)
    torch.testing.assert_close(attend(query, key, value, 3, mask), fused, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("shared", ["nothing", "key and value", "everything"])
def test_gradients_of_few_tokens(shared: str, heads: int) -> None:
    """Against finite differences, and against PyTorch's own gradient of the same formula."""
    shapes = ((2, 5, 6), (2, 7, 6), (2, 7, 6))
    query, key, value = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes)
    places = {"nothing": (0, 1, 2), "key and value": (0, 1, 1), "everything": (0, 0, 0)}[shared]
    different = (query, key, value)[: max(places) + 1]

    def ours(*tensors: torch.Tensor) -> torch.Tensor:
        query, key, value = (tensors[place] for place in places)
        return attend(query, key, value, heads)

    assert torch.autograd.gradcheck(ours, different)
    parts = (different[place].unflatten(-1, (heads, -1)).transpose(1, 2) for place in places)
    expected = F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)
    chosen = torch.randn_like(expected)
    for left, right in zip(
        torch.autograd.grad(ours(*different), different, chosen),
        torch.autograd.grad(expected, different, chosen),
        strict=True,
    ):
        torch.testing.assert_close(left, right)


def test_a_second_derivative_of_few_tokens_is_refused() -> None:
    """It would be wrong: the gradient is our own, and its own is not written."""
    states = torch.randn(1, 3, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(attend(states, states, states, 1).square().sum(), states, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_dropout_is_for_training_alone() -> None:
    module = build(dropout=0.5)
    x = torch.randn(2, 6, 12)
    assert torch.equal(module(BlockInputs(x)), module(BlockInputs(x)))
    module.train()
    assert not torch.equal(module(BlockInputs(x)), module(BlockInputs(x)))


def logits(model: PreTrainedModel) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        return model(pixel_values=torch.randn(6, 1, 16, 16, generator=generator)).logits


@pytest.mark.parametrize("family", ["vit", "deit"])
@pytest.mark.parametrize("qk", ["separate", "collapsed"])
@pytest.mark.parametrize("vo", ["separate", "collapsed"])
@pytest.mark.parametrize("bias", [True, False])
def test_one_head_collapses_exactly(make_model: MakeModel, family: str, qk: str, vo: str, bias: bool) -> None:
    teacher = make_model(family, num_attention_heads=1, qkv_bias=bias)
    plan = {"*.self_attention": {"block": "minimal_attention", "qk": qk, "vo": vo, "init": "teacher"}}
    student = reduce(teacher, plan)
    assert not any("q_proj" in name for name in student.state_dict())
    torch.testing.assert_close(logits(student), logits(teacher), atol=1e-5, rtol=1e-5)


def test_separate_keeps_several_heads_exactly(make_model: MakeModel) -> None:
    teacher = make_model(num_attention_heads=4)
    plan = {"*.self_attention": {"block": "minimal_attention", "qk": "separate", "vo": "separate", "init": "teacher"}}
    torch.testing.assert_close(logits(reduce(teacher, plan)), logits(teacher), atol=1e-5, rtol=1e-5)


def test_collapsed_heads_hold_their_own_columns(make_model: MakeModel) -> None:
    """Head i's columns are those of W_q,i W_k,iᵀ: of all matrices the closest to it where that head reads it."""
    teacher = make_model(num_attention_heads=4, num_hidden_layers=1)
    plan = {"*.self_attention": {"block": "minimal_attention", "qk": "collapsed", "vo": "collapsed", "init": "teacher"}}
    weight = reduce(teacher, plan).vit.layers[0].self_attention.block.similarity.weight.T
    attention = teacher.vit.layers[0].attention
    for head in range(4):
        own = slice(head * 6, head * 6 + 6)
        product = attention.q_proj.weight.T[:, own] @ attention.k_proj.weight[own]
        torch.testing.assert_close(weight[:, own], product[:, own], atol=1e-5, rtol=1e-4)


def test_fewer_heads_take_the_mean_of_theirs(make_model: MakeModel) -> None:
    teacher = make_model(num_attention_heads=4, num_hidden_layers=1)
    plan = {"*.self_attention": {"block": "minimal_attention", "heads": 1, "init": "teacher"}}
    weight = reduce(teacher, plan).vit.layers[0].self_attention.block.similarity.weight.T
    attention = teacher.vit.layers[0].attention
    scale = 24**0.5 / 6**0.5  # scores are divided by the root of the head's width, which has grown
    torch.testing.assert_close(
        weight, attention.q_proj.weight.T @ attention.k_proj.weight / 4 * scale, atol=1e-5, rtol=1e-4
    )


def test_symmetric_takes_the_closest_semidefinite_matrix(make_model: MakeModel) -> None:
    teacher = make_model(num_attention_heads=1, num_hidden_layers=1)
    plan = {"*.self_attention": {"block": "minimal_attention", "qk": "symmetric", "init": "teacher"}}
    factor = reduce(teacher, plan).vit.layers[0].self_attention.block.similarity.matrix().detach()
    attention = teacher.vit.layers[0].attention
    product = (attention.q_proj.weight.T @ attention.k_proj.weight).detach()
    symmetric = (product + product.T) / 2
    values, vectors = torch.linalg.eigh(symmetric)
    expected = vectors @ torch.diag(values.clamp(min=0)) @ vectors.T
    torch.testing.assert_close(factor @ factor.T, expected, atol=1e-4, rtol=1e-3)
    distance = torch.linalg.norm(factor @ factor.T - product)
    for _ in range(20):  # any other semi-definite matrix nearby is farther away
        moved = factor + 0.05 * torch.randn_like(factor)
        assert torch.linalg.norm(moved @ moved.T - product) > distance


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"heads": 5}, "heads = 5 does not divide the model's width; take a divisor of 24"),
        ({"heads": 3, "init": "teacher"}, "neither divides nor is a multiple of the teacher's 4 heads"),
        ({"heads": 2, "qk": "separate", "init": "teacher"}, "keep its 4 heads, not 2"),
        ({"qk_norm": True, "init": "teacher"}, "qk_norm changes the scores"),
    ],
)
def test_arguments_that_do_not_fit(make_model: MakeModel, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(LeanformerError, match=message):
        reduce(make_model(), {"*.self_attention": {"block": "minimal_attention", **arguments}})

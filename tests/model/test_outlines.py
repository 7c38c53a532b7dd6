"""Structure without weights: what is said of an outline is what is said of the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import some
from transformers import PreTrainedModel

import leanformer as lf
from leanformer.measure.cost import forward_flops, parameters_by_kind
from leanformer.model.baseline import fresh_model, fresh_outline
from leanformer.model.image_baseline import ImageBaseline, ImageGeometry
from leanformer.model.sizes import outline
from leanformer.model.students import outline_of_student, reduce
from leanformer.model.surgery import sites
from leanformer.model.text_baseline import TextBaseline, TextGeometry
from leanformer.model.weights import parameter_count, same_weights_other_modules

MakeModel = Callable[..., PreTrainedModel]
IMAGES: list[dict[str, Any]] = [
    {},
    {"*.mlp": "none", "encoder.1.layer": "none"},
    {"*.self_attention": {"block": "minimal_attention", "qk": "symmetric", "init": "teacher"}, "pooling": "mean"},
    {"*.self_attention": {"block": "mixer", "positions": "grid"}},
    {"*.self_attention": {"block": "mixer", "positions": "grid", "max_distance": 1}, "pooling": "mean"},
    {"encoder.0.self_attention": {"block": "slots", "heads": [1, 2]}},
    {"encoder.1.self_attention_sublayer": {"block": "feed_forward", "size": "S"}},
]
TEXTS: list[dict[str, Any]] = [
    {},
    {"*attention": {"block": "slots", "slots": 3, "rank": 2}},
    {"*attention": {"block": "feed_forward", "max_length": 20}},
    {"*attention": {"block": "synthesizer", "max_length": 20}},
    {"decoder.*attention": "linear_attention", "encoder.*attention": "mixer"},
    {"*attention": "average", "decoder.0.layer": "none"},
    {"*attention": "minimal_attention"},
]


def example_of(model: PreTrainedModel) -> dict[str, Any]:
    """One example, on the model's device; without a mask, whose numbers would be looked at."""
    if model.config.is_encoder_decoder:
        ids = torch.tensor([[5, 6, 7, 8, 0]])
        inputs = {"input_ids": ids, "decoder_input_ids": ids[:, :3]}
    else:
        inputs = {"pixel_values": torch.randn(1, 1, 16, 16)}
    return {name: tensor.to(model.device) for name, tensor in inputs.items()}


@pytest.mark.parametrize(
    ("name", "plan"),
    some(
        [*(("vit", plan) for plan in IMAGES), *(("marian", plan) for plan in TEXTS), ("bart", TEXTS[1])],
        *(("vit", IMAGES[2]), ("vit", IMAGES[3]), ("marian", TEXTS[4]), ("marian", TEXTS[5]), ("bart", TEXTS[1])),
    ),
)
@pytest.mark.parametrize("of_an_outline", [False, True])
def test_an_outline_of_a_student_says_what_the_student_says(
    make_model: MakeModel, make_translator: MakeModel, name: str, plan: dict[str, Any], of_an_outline: bool
) -> None:
    model = make_model() if name == "vit" else make_translator(name)
    student = reduce(model, plan).eval()
    before = torch.get_rng_state()
    given = outline(type(model), model.config).eval() if of_an_outline else model
    described = outline_of_student(given, plan)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(tensor.is_meta for tensor in (*described.parameters(), *described.buffers()))
    assert sites(described) == sites(student)
    assert described.config.to_dict() == student.config.to_dict()
    assert parameter_count(described) == parameter_count(student)
    assert parameters_by_kind(described) == parameters_by_kind(student)
    shapes = [(key, tensor.shape) for key, tensor in student.state_dict().items()]
    assert [(key, tensor.shape) for key, tensor in described.state_dict().items()] == shapes
    assert forward_flops(described, example_of(described)) == forward_flops(student, example_of(student))
    if student.can_generate():
        assert described.generation_config.to_dict() == student.generation_config.to_dict()


def test_a_plan_that_does_not_fit_is_named_for_an_outline_too(make_model: MakeModel) -> None:
    model = make_model()
    with pytest.raises(lf.LeanformerError, match="matches no site"):
        outline_of_student(outline(type(model), model.config), {"decoder.*": "none"})


def test_an_outline_of_a_family_is_its_fresh_model() -> None:
    settings = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    described, model = fresh_outline("vit", settings), fresh_model("vit", settings)
    assert next(described.parameters()).is_meta
    assert sites(described) == sites(model)
    assert described.config.to_dict() == model.config.to_dict()


def test_baselines_have_outlines(tmp_path: Any, make_model: MakeModel) -> None:
    lf.save(make_model(), tmp_path)
    images = ImageGeometry(1, 16, 16, tuple("abcde"))
    settings = {"patch_size": 4, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 8}
    texts = TextGeometry(30, 30, True, 1, 0, 20)
    small = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    cases: list[tuple[Any, Any]] = [
        (ImageBaseline("vit", settings, fresh=False), images),
        (ImageBaseline(str(tmp_path), {}, fresh=False), images),
        (TextBaseline("marian", {**small, **heads}, fresh=False), texts),
    ]
    for baseline, geometry in cases:
        before = torch.get_rng_state()
        described = baseline.outline(geometry)
        assert torch.equal(torch.get_rng_state(), before)
        assert next(described.parameters()).is_meta
        model = baseline.make(geometry, seed=0)
        assert sites(described) == sites(model)
        assert described.config.to_dict() == model.config.to_dict()


def test_reduce_makes_its_blocks_among_the_arguments_own_weights(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The argument and the student are all that is held: no third copy."""
    from leanformer.model import students

    model = make_model()
    opened: list[PreTrainedModel] = []

    def keep(model: PreTrainedModel) -> PreTrainedModel:
        opened.append(same_weights_other_modules(model))
        return opened[-1]

    monkeypatch.setattr(students, "same_weights_other_modules", keep)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    structure = repr(model)
    student = reduce(model, {"*.self_attention": "average", "encoder.0.mlp": "none"})
    own = {id(parameter) for parameter in model.parameters()}
    kept = [name for name, parameter in opened[0].named_parameters() if id(parameter) not in own]
    assert kept
    assert all(".self_attention.block." in name for name in kept)  # the new blocks'
    assert not own & {id(parameter) for parameter in student.parameters()}
    storages = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    assert not storages & {tensor.untyped_storage().data_ptr() for tensor in student.state_dict().values()}
    assert repr(model) == structure
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())

"""Marian and BART: sites, reducing, saving, loading, generating."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
import torch.nn.functional as F
from cases import slow, some
from safetensors import safe_open
from transformers import AutoModelForSeq2SeqLM, DynamicCache, PreTrainedModel
from transformers.masking_utils import create_bidirectional_mask

import leanformer as lf
from leanformer.blocks.kit.inputs import BlockInputs
from leanformer.blocks.kit.state import DecodingState
from leanformer.model import hf, layers
from leanformer.model.students import length_limits
from leanformer.model.surgery import module_at
from leanformer.model.weights import parameter_count

MakeModel = Callable[..., PreTrainedModel]
Plan = dict[str, Any]
Tensors = dict[str, torch.Tensor]

D, FFN, VOCABULARY, POSITIONS = 16, 24, 40, 32  # of ``make_translator``
LIMIT = 12
FF = {"block": "feed_forward", "hidden": 10, "max_length": LIMIT}
PER_HEAD = {**FF, "per_head": True}
PADDED = {**FF, "padding_in_norm": True}
GATED = {**FF, "reads": "token", "gate": True}
MINIMAL = {"block": "minimal_attention"}
SLOTS = {"block": "slots", "slots": 3}
MIXER = {"block": "mixer", "max_distance": 3}
ABSOLUTE = {"block": "mixer", "positions": "absolute", "max_length": LIMIT}
SYNTHESIZER = {"block": "synthesizer", "source_score": "linear", "max_length": LIMIT}

ENCODER_PLANS: dict[str, Plan] = {
    "encoder self": {"encoder.*.self_attention": FF},
    "encoder self, a head each": {"encoder.*.self_attention": PER_HEAD},
    "encoder self, padding in norm": {"encoder.*.self_attention": PADDED},
    "encoder self, output replaced": {"encoder.*.self_attention": {**FF, "output": "replaced"}},
    "encoder sublayer": {"encoder.*.self_attention_sublayer": FF},
    "encoder layer": {"encoder.*.layer": FF},
    "encoder layer, padding in norm": {"encoder.1.layer": PADDED},
    "encoder minimal": {"encoder.*.self_attention": {**MINIMAL, "diagonal_value": True, "temperature": True}},
    "encoder mixer": {"encoder.0.self_attention": MIXER, "encoder.1.self_attention": {**MIXER, "heads": [0, 3]}},
    "encoder mixer, absolute": {"encoder.*.self_attention": ABSOLUTE},
    "encoder linear, average": {"encoder.0.self_attention": "linear_attention", "encoder.1.self_attention": "average"},
    "encoder slots": {"encoder.*.self_attention": SLOTS},
    "encoder, some heads": {
        "encoder.0.self_attention": {**ABSOLUTE, "heads": [1, 3]},
        "encoder.1.self_attention": {**SLOTS, "heads": [2]},
    },
    "mlp": {"encoder.*.mlp": {"block": "mlp", "hidden": 5}, "decoder.1.mlp": {"block": "mlp", "hidden": 7}},
    "no mlp": {"*.mlp": "none"},
    "some neurons": {"*.mlp": {"block": "mlp", "hidden": 9, "init": "teacher"}},
    "encoder, few heads": {"encoder.*.self_attention": {"block": "attention", "keep_heads": 3}},
    "encoder layer none": {"encoder.0.layer": "none"},
}
DECODER_PLANS: dict[str, Plan] = {
    "nothing": {},
    "self": {"decoder.*.self_attention": FF},
    "self, a head each": {"decoder.*.self_attention": PER_HEAD},
    "self, padding in norm": {"decoder.*.self_attention": {**PADDED, "output": "replaced"}},
    "self, one layer": {"decoder.1.self_attention": FF},
    "self sublayer": {"decoder.*.self_attention_sublayer": FF},
    "cross": {"decoder.*.cross_attention": FF},
    "cross, padding in norm": {"decoder.*.cross_attention": PADDED},
    "cross, token": {"decoder.*.cross_attention": {**FF, "reads": "token"}},
    "cross, gate": {"decoder.*.cross_attention": {**GATED, "output": "replaced"}},
    "cross, gate, a head each, padding in norm": {
        "decoder.*.cross_attention": {**GATED, "per_head": True, "padding_in_norm": True}
    },
    "cross, one layer": {"decoder.1.cross_attention": GATED},
    "cross sublayer": {"decoder.*.cross_attention_sublayer": FF},
    "cross sublayer, gate": {"decoder.*.cross_attention_sublayer": GATED},
    "layer": {"decoder.*.layer": FF},
    "layer, padding in norm": {"decoder.0.layer": PADDED},
    "layer, token": {"decoder.1.layer": {**GATED, "padding_in_norm": True}},
    "minimal self": {"decoder.*.self_attention": {**MINIMAL, "qk": "symmetric", "vo": "separate", "qk_norm": True}},
    "minimal cross": {"decoder.*.cross_attention": {**MINIMAL, "vo": "collapsed", "bias": True}},
    "minimal everywhere": {"*attention": {**MINIMAL, "qk": "separate", "heads": 2}},
    "low rank": {"*attention": {**FF, "rank": 2}},
    "linear attention": {"decoder.*attention": "linear_attention"},
    "average": {"decoder.*attention": "average"},
    "ssru": {"decoder.0.self_attention": "ssru", "decoder.1.self_attention": {"block": "ssru", "output": True}},
    "mixer": {"decoder.*.self_attention": MIXER},
    "slots": {"decoder.*attention": SLOTS},
    "synthesizer": {"decoder.*attention": SYNTHESIZER},
    "slots, some heads": {"decoder.*attention": {**SLOTS, "heads": [0, 2]}},
    "synthesizer, some heads": {"decoder.*attention": {**SYNTHESIZER, "heads": [3]}},
    "few heads": {"decoder.*attention": {"block": "attention", "keep_heads": 2}},
    "few heads, one layer": {
        "decoder.0.self_attention": {"block": "attention", "keep_heads": [3, 1]},
        "decoder.1.cross_attention": {"block": "attention", "keep_heads": 1},
    },
    "one layer": {"decoder.layers": {"keep": 1}},
    "mixer, some heads": {"decoder.*.self_attention": {**MIXER, "heads": [0, 3]}},
    "some heads, one layer": {
        "decoder.1.self_attention": {**SLOTS, "heads": [3, 1, 2], "gate": "linear", "rank": 2},
        "decoder.0.cross_attention": {**SLOTS, "heads": [0, 1, 2, 3]},
    },
    "no first self": {"decoder.0.self_attention": "none"},
    "no first cross": {"decoder.0.cross_attention": "none"},
    "no first layer": {"decoder.0.layer": "none"},
    "no first layer, cross after": {"decoder.0.layer": "none", "decoder.1.cross_attention": FF},
    "everything": {"*attention": FF, "*.mlp": {"block": "mlp", "hidden": 5}},
}
PLANS = {**ENCODER_PLANS, **DECODER_PLANS}
# Marian's code paths are BART's but for the embeddings: every plan on the one, one of each kind of place on the other.
EACH = [
    *(("marian", name) for name in PLANS),
    *(("bart", name) for name in ("encoder layer", "cross, gate", "layer", "minimal everywhere", "everything")),
    *(("bart", name) for name in ("encoder, some heads", "slots, some heads", "few heads", "encoder, few heads")),
]
EACH_DECODER = [(family, name) for family, name in EACH if name in DECODER_PLANS]
# Every block, kind of place and family; all others are among the slow tests.
QUICK = [
    *(("marian", name) for name in ("encoder linear, average", "mlp", "self", "cross sublayer, gate", "ssru", "mixer")),
    *(("marian", name) for name in ("linear attention", "average", "synthesizer, some heads", "few heads, one layer")),
    *(("marian", name) for name in ("one layer", "no first layer, cross after", "everything")),
    *(("bart", name) for name in ("encoder layer", "cross, gate", "layer", "minimal everywhere", "slots, some heads")),
]
QUICK_DECODER = [case for case in QUICK if case in EACH_DECODER]
each = pytest.mark.parametrize(("family", "plan"), some(EACH, *QUICK))
each_decoder = pytest.mark.parametrize(("family", "plan"), some(EACH_DECODER, *QUICK_DECODER))
EACH_FAMILY = pytest.mark.parametrize("family", ["marian", "bart"])

LENGTHS = (9, 6, 4)


def sources(extra: int = 0) -> Tensors:
    """Three sentences of unequal length, padded at the right, and by so many more columns."""
    ids = torch.randint(2, VOCABULARY, (3, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(9 + extra) < torch.tensor(LENGTHS)[:, None]
    return {"input_ids": F.pad(ids, (0, extra)).where(mask, 1), "attention_mask": mask.long()}


def batch() -> Tensors:
    ids = torch.randint(2, VOCABULARY, (3, 7), generator=torch.Generator().manual_seed(2))
    return {**sources(), "decoder_input_ids": ids}


def labels() -> torch.Tensor:
    ids = torch.randint(2, VOCABULARY, (3, 7), generator=torch.Generator().manual_seed(3))
    return ids.where(torch.arange(7) < torch.tensor([[7], [5], [3]]), -100)


@torch.no_grad()
def logits(model: PreTrainedModel, use_cache: bool = False, /, **changes: torch.Tensor) -> torch.Tensor:
    return model(**{**batch(), **changes}, use_cache=use_cache).logits


@torch.no_grad()
def scramble(model: PreTrainedModel, generator: torch.Generator) -> PreTrainedModel:
    """Takes the weights of a student's new blocks far from their initial values."""
    for name in model.config.plan or {}:
        module = module_at(model, name)
        for parameter in () if module is None else module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


@pytest.fixture(scope="module")
def teachers(make_translator: MakeModel) -> dict[str, PreTrainedModel]:
    """A teacher of each family, to be left as it is."""
    dropout = {"dropout": 0.1, "attention_dropout": 0.1, "activation_dropout": 0.1}
    return {family: make_translator(family, **dropout) for family in ("marian", "bart")}


@pytest.fixture(scope="module")
def students(teachers: dict[str, PreTrainedModel]) -> Callable[[str, str], PreTrainedModel]:
    """A family's student of a plan by name, to be left as it is."""
    made: dict[tuple[str, str], PreTrainedModel] = {}

    def student(family: str, plan: str) -> PreTrainedModel:
        if (family, plan) not in made:
            torch.manual_seed(0)  # whichever test asks first
            made[family, plan] = scramble(lf.reduce(teachers[family], PLANS[plan]), torch.Generator().manual_seed(1))
        return made[family, plan]

    return student


Students = Callable[[str, str], PreTrainedModel]


@pytest.fixture(scope="module")
def opened(teachers: dict[str, PreTrainedModel]) -> dict[str, Tensors]:
    """The weights of the teachers with open layers."""
    return {family: state_of(lf.reduce(teacher, {})) for family, teacher in teachers.items()}


# Sites


@EACH_FAMILY
def test_sites_are_named_in_order(teachers: dict[str, PreTrainedModel], family: str) -> None:
    encoder = ["self_attention", "self_attention_sublayer", "mlp", "layer"]
    decoder = [*encoder[:2], "cross_attention", "cross_attention_sublayer", "mlp", "layer"]
    found = lf.sites(teachers[family])
    assert [site.name for site in found] == [
        *(f"encoder.{number}.{kind}" for number in range(2) for kind in encoder),
        *(f"decoder.{number}.{kind}" for number in range(2) for kind in decoder),
    ]
    assert all(site.name.endswith(f".{site.kind}") for site in found)
    assert all(site.causal == site.name.startswith("decoder") for site in found)
    reading = {"cross_attention", "cross_attention_sublayer", "layer"}
    assert all(site.reads_source == (site.causal and site.kind in reading) for site in found)
    assert {site.d_model for site in found} == {D}
    assert {site.max_positions for site in found} == {POSITIONS}
    kept = {"self_attention": "attention", "cross_attention": "attention", "mlp": "mlp", "layer": "layer"}
    assert all(site.block == kept.get(site.kind, "sublayer") for site in found)


@EACH_FAMILY
def test_sites_count_what_is_stored(teachers: dict[str, PreTrainedModel], family: str) -> None:
    attention, norm, mlp = 4 * (D * D + D), 2 * D, 2 * D * FFN + D + FFN
    expected = {
        "self_attention": (attention, norm),
        "cross_attention": (attention, norm),
        "self_attention_sublayer": (attention + norm, 0),
        "cross_attention_sublayer": (attention + norm, 0),
        "mlp": (mlp, norm),
    }
    for site in lf.sites(teachers[family]):
        layer = (attention + norm) * (2 if site.causal else 1) + mlp + norm
        assert (site.parameters, site.norm_parameters) == expected.get(site.kind, (layer, 0)), site.name


def test_sites_have_the_heads_of_their_side(make_translator: MakeModel) -> None:
    model = make_translator(encoder_attention_heads=2, decoder_attention_heads=8)
    assert {(site.causal, site.num_heads) for site in lf.sites(model)} == {(False, 2), (True, 8)}


def test_sites_of_a_student_say_what_stands_there(students: Students) -> None:
    found = {site.name: site for site in lf.sites(students("marian", "everything"))}
    assert found["decoder.0.cross_attention"].block == "feed_forward"
    assert found["encoder.1.mlp"].parameters == 2 * D * 5 + D + 5
    found = {site.name: site for site in lf.sites(students("marian", "layer, token"))}
    assert found["decoder.1.layer"].block == "feed_forward"
    assert found["decoder.1.mlp"].block == "none"
    assert found["decoder.1.cross_attention_sublayer"].parameters == 0
    assert found["decoder.0.layer"].block == "layer"
    found = {site.name: site for site in lf.sites(students("marian", "no first layer"))}
    assert {(found[name].block, found[name].parameters) for name in found if "decoder.0" in name} == {("none", 0)}


LAYERS = 2 * (4 * (D * D + D) * 3 + 2 * (2 * D * FFN + D + FFN) + 5 * 2 * D)


@pytest.mark.long
@pytest.mark.parametrize(
    ("family", "settings", "rest"),
    [
        ("marian", {}, VOCABULARY * D),
        ("marian", {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 30}, (VOCABULARY + 30) * D),
        ("marian", {"tie_word_embeddings": False}, 4 * VOCABULARY * D),
        ("bart", {}, VOCABULARY * D + 2 * (POSITIONS + 2) * D + 2 * 2 * D),
    ],
    ids=["tied, computed positions", "a vocabulary a side", "four tables", "learned positions"],
)
def test_every_number_is_counted_once(
    make_translator: MakeModel, tmp_path: Path, family: str, settings: dict[str, Any], rest: int
) -> None:
    model = make_translator(family, **settings)
    assert parameter_count(model) == LAYERS + rest
    student = lf.reduce(model, {"*.mlp": "none"})
    assert parameter_count(student) == LAYERS + rest - 4 * (2 * D * FFN + D + FFN + 2 * D)
    words = {name: tensor % 30 for name, tensor in batch().items() if name.endswith("ids")}
    torch.testing.assert_close(logits(lf.reduce(model, {}), **words), logits(model, **words), atol=1e-6, rtol=1e-5)
    lf.save(student, tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        stored = sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118
    assert stored == parameter_count(student) + student.final_logits_bias.numel()
    assert torch.equal(logits(lf.load(tmp_path), **words), logits(student, **words))


# Reducing


@EACH_FAMILY
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_opening_changes_nothing(make_translator: MakeModel, family: str, implementation: str) -> None:
    teacher = make_translator(family)
    teacher.set_attn_implementation(implementation)
    student = lf.reduce(teacher, {})
    assert student.config._attn_implementation == implementation
    assert isinstance(student, type(teacher))
    assert parameter_count(student) == parameter_count(teacher)
    wanted = {"output_hidden_states": True, "output_attentions": implementation == "eager"}
    with torch.no_grad():
        expected, given = teacher(**batch(), **wanted), student(**batch(), **wanted)
    assert given.keys() == expected.keys()
    for name in expected:
        if name != "past_key_values":
            torch.testing.assert_close(given[name], expected[name], atol=1e-6, rtol=1e-6)
    assert len(given.encoder_hidden_states) == len(given.decoder_hidden_states) == 3
    if implementation == "eager":
        assert [len(given[f"{name}_attentions"]) for name in ("encoder", "decoder", "cross")] == [2, 2, 2]


@EACH_FAMILY
def test_students_record_what_is_left(teachers: dict[str, PreTrainedModel], family: str) -> None:
    plan: Plan = {"encoder.0.self_attention": FF, "decoder.0.layer": "none", "decoder.1.cross_attention": MINIMAL}
    student = lf.reduce(teachers[family], plan)
    student.set_attn_implementation("eager")
    with torch.no_grad():
        output = student(**batch(), output_hidden_states=True, output_attentions=True)
    assert len(output.encoder_hidden_states) == len(output.decoder_hidden_states) == 3
    assert [len(output[f"{name}_attentions"] or ()) for name in ("encoder", "decoder", "cross")] == [1, 1, 0]


def state_of(model: PreTrainedModel) -> Tensors:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@EACH_FAMILY
def test_reduce_leaves_its_argument(make_translator: MakeModel, family: str) -> None:
    teacher = make_translator(family)
    before, expected = state_of(teacher), logits(teacher)
    modules = [type(module) for module in teacher.modules()]
    config, generation = teacher.config.to_dict(), teacher.generation_config.to_dict()
    student = scramble(lf.reduce(teacher, PLANS["everything"]), torch.Generator())
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.zero_()
    assert [type(module) for module in teacher.modules()] == modules
    assert teacher.config.to_dict() == config
    assert teacher.generation_config.to_dict() == generation
    assert equal(state_of(teacher), before)
    assert torch.equal(logits(teacher), expected)


def place(name: str, entry: dict[str, Any]) -> str:
    """Where the weights of what a plan replaces or empties lie in a student's layers."""
    stack, number, kind = name.split(".")
    layer = f"model.{stack}.layers.{number}."
    if kind == "layer":
        return layer
    sublayer = f"{layer}{kind.removesuffix('_sublayer')}."
    return sublayer if kind.endswith("_sublayer") or entry["block"] == "none" else f"{sublayer}block."


@each
def test_every_other_weight_is_kept_and_nothing_dead_is_left(
    opened: dict[str, Tensors], students: Students, family: str, plan: str
) -> None:
    student = students(family, plan)
    whole, kept = opened[family], state_of(student)
    gone = {name: place(name, entry) for name, entry in student.config.plan.items()}
    new = {
        f"{prefix}{'block.' if name.endswith('.layer') else ''}{inner}"
        for name, prefix in gone.items()
        for inner in (module_at(student, name) or torch.nn.Identity()).state_dict()
    }
    old = {name for name in whole if not name.startswith(tuple(gone.values()))}
    assert set(kept) == old | new
    unchanged = [name for name in old if torch.equal(kept[name], whole[name])]
    assert len(unchanged) == len(old)
    assert len(old) < len(whole) or not gone


@each
def test_every_number_learns(students: Students, family: str, plan: str) -> None:
    student = copy.deepcopy(students(family, plan)).train()
    student(**batch(), labels=labels()).loss.backward()
    for name, parameter in student.named_parameters():
        if not parameter.requires_grad:
            assert "embed_positions" in name
            continue
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        # A bias of keys adds the same to all scores of a query: it has no effect, and rounding for a gradient.
        assert parameter.grad.abs().sum() > 0 or name.endswith(("k_proj.bias", "key.bias")), name


@EACH_FAMILY
def test_loss_and_logits_from_labels(students: Students, family: str) -> None:
    student = students(family, "everything")
    with torch.no_grad():
        output = student(**batch(), labels=labels())
        shifted = student(**sources(), labels=labels())
    assert torch.equal(output.logits, logits(student))
    torch.testing.assert_close(output.loss, F.cross_entropy(output.logits.flatten(0, 1), labels().flatten()))
    before = labels().roll(1, dims=1).where(torch.arange(7) > 0, 1)  # each token's predecessor, padding at first
    assert torch.equal(shifted.logits, logits(student, decoder_input_ids=before.where(before != -100, 1)))


@pytest.mark.parametrize("plan", ["nothing", "everything", "layer, token"])
def test_gradient_checkpointing_changes_nothing(students: Students, plan: str) -> None:
    def gradients(checkpointing: bool) -> Tensors:
        student = copy.deepcopy(students("marian", plan)).train()
        if checkpointing:
            student.gradient_checkpointing_enable()
        torch.manual_seed(0)  # of dropout
        student(**batch(), labels=labels(), use_cache=False).loss.backward()
        return {name: p.grad for name, p in student.named_parameters() if p.grad is not None}

    assert equal(gradients(True), gradients(False))


def test_precision_survives(teachers: dict[str, PreTrainedModel], tmp_path: Path) -> None:
    student = lf.reduce(copy.deepcopy(teachers["marian"]).to(torch.bfloat16), PLANS["everything"])
    assert {parameter.dtype for parameter in student.parameters()} == {torch.bfloat16}
    lf.save(student, tmp_path)
    loaded = lf.load(tmp_path)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}
    assert torch.equal(logits(loaded), logits(student))


@EACH_FAMILY
def test_a_student_of_a_student(teachers: dict[str, PreTrainedModel], tmp_path: Path, family: str) -> None:
    first = scramble(lf.reduce(teachers[family], {"*.self_attention": FF}), torch.Generator().manual_seed(0))
    second = lf.reduce(first, {"decoder.1.layer": FF, "encoder.0.mlp": "none"})
    assert set(second.config.plan) == {
        "encoder.0.self_attention",
        "encoder.0.mlp",
        "encoder.1.self_attention",
        "decoder.0.self_attention",
        "decoder.1.layer",
    }
    kept = state_of(second)
    for name, tensor in state_of(first).items():
        if not name.startswith(("model.decoder.layers.1.", "model.encoder.layers.0.mlp.")):
            assert torch.equal(kept[name], tensor), name
    lf.save(second, tmp_path)
    assert torch.equal(logits(lf.load(tmp_path)), logits(second))


def test_patterns_match_one_stack(teachers: dict[str, PreTrainedModel]) -> None:
    def changed(plan: Plan) -> set[str]:
        return set(lf.reduce(teachers["marian"], plan).config.plan)

    assert changed({"encoder.*.self_attention": FF}) == {"encoder.0.self_attention", "encoder.1.self_attention"}
    assert changed({"decoder.1.*attention": FF}) == {"decoder.1.self_attention", "decoder.1.cross_attention"}
    assert changed({"*.self_attention": FF, "decoder.*.self_attention": "attention"}) == {
        "encoder.0.self_attention",
        "encoder.1.self_attention",
    }
    assert len(changed({"*.self_attention": FF})) == 4


def test_wide_sites_take_inner_ones_along(teachers: dict[str, PreTrainedModel]) -> None:
    plan: Plan = {
        "*.layer": FF,
        "decoder.0.layer": {**FF, "reads": "token"},
        "*.self_attention": MINIMAL,
        "*.mlp": "none",
        "*_sublayer": FF,
    }
    student = lf.reduce(teachers["marian"], plan)
    assert set(student.config.plan) == {
        f"{stack}.{number}.layer" for stack in ("encoder", "decoder") for number in (0, 1)
    }
    plan = {"*_sublayer": FF, "*attention": MINIMAL, "*.mlp": "none"}
    kinds = {name.split(".")[2] for name in lf.reduce(teachers["marian"], plan).config.plan}
    assert kinds == {"self_attention_sublayer", "cross_attention_sublayer", "mlp"}


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"decoder.2.mlp": "none"}, r"plan 'decoder\.2\.mlp' matches no site; sites look like 'decoder\.\d\.mlp'"),
        ({"encoder.*.cross_attention": FF}, r"plan 'encoder\.\*\.cross_attention' matches no site"),
        ({"pooling": "mean"}, "plan 'pooling' matches no site"),
        ({"*.mlp": FF}, r"block 'feed_forward' cannot stand at encoder\.0\.mlp; blocks that can: mlp, none"),
        ({"*.layer": MINIMAL}, r"block 'minimal_attention' cannot stand at encoder\.0\.layer; blocks that can: feed_f"),
        ({"*_sublayer": "attention"}, r"block 'attention' cannot stand at encoder\.0\.self_attention_sublayer"),
        (
            {"*.self_attention": {**FF, "max_length": 33}},
            r"encoder\.0\.self_attention: max_length = 33 makes .* take at most 32",
        ),
    ],
)
def test_every_mistake_in_a_plan_is_named(teachers: dict[str, PreTrainedModel], plan: Plan, message: str) -> None:
    with pytest.raises(lf.LeanformerError, match=message) as raised:
        lf.reduce(teachers["marian"], plan)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", ["self_attention", "cross_attention", "cross_attention_sublayer", "layer"])
def test_a_decoder_plan_on_an_encoder_only_model_is_named(make_model: MakeModel, kind: str) -> None:
    with pytest.raises(lf.LeanformerError, match=rf"plan 'decoder\.\*\.{kind}' matches no site; sites look like 'enc"):
        lf.reduce(make_model(), {f"decoder.*.{kind}": FF})


@pytest.mark.parametrize(
    ("heads", "form"),
    [
        *slow((1, {"qk": "collapsed", "vo": "separate"})),
        (1, {"qk": "collapsed", "vo": "collapsed"}),
        *slow((1, {"qk": "separate", "vo": "collapsed"})),
        (4, {"qk": "separate", "vo": "separate"}),
    ],
)
@EACH_FAMILY
def test_init_teacher_is_the_same_function(
    make_translator: MakeModel, family: str, heads: int, form: dict[str, Any]
) -> None:
    teacher = make_translator(family, encoder_attention_heads=heads, decoder_attention_heads=heads)
    for sites in ("encoder.*.self_attention", "decoder.*.self_attention", "decoder.*.cross_attention"):
        student = lf.reduce(teacher, {sites: {**MINIMAL, **form, "init": "teacher"}})
        torch.testing.assert_close(logits(student), logits(teacher), atol=1e-4, rtol=1e-4)


# Saving and loading


@each
def test_save_and_load_are_exact(students: Students, tmp_path: Path, family: str, plan: str) -> None:
    student = students(family, plan)
    lf.save(student, tmp_path / "model")
    with safe_open(tmp_path / "model" / "model.safetensors", "pt") as file:
        shapes = {name: file.get_tensor(name).shape for name in file.keys()}  # noqa: SIM118
    state = state_of(student)
    assert all(state[name].shape == shape for name, shape in shapes.items())
    assert sum(shape.numel() for shape in shapes.values()) == parameter_count(student) + VOCABULARY
    saved = json.loads((tmp_path / "model" / "config.json").read_text())
    assert saved["plan"] == student.config.plan
    loaded = lf.load(tmp_path / "model")
    assert not loaded.training
    assert equal(state_of(loaded), state)
    assert torch.equal(logits(loaded), logits(student))
    assert lf.sites(loaded) == lf.sites(student)
    assert loaded.generation_config.max_length == student.generation_config.max_length


def test_the_plan_in_the_file_says_everything(teachers: dict[str, PreTrainedModel], tmp_path: Path) -> None:
    plan: Plan = {
        "decoder.0.cross_attention": {"block": "feed_forward", "size": "S", "max_length": 16},
        "encoder.0.layer": {"block": "feed_forward", "size": "XS", "max_length": 32},
        "decoder.0.self_attention": "minimal_attention",
        "decoder.1.mlp": "none",
    }
    lf.save(lf.reduce(teachers["bart"], plan), tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())["plan"]
    assert saved["decoder.0.cross_attention"] == {
        "block": "feed_forward",
        "size": None,
        "hidden": 2 * 16 * D // 128,
        "max_length": 16,
        "per_head": False,
        "output": "kept",
        "bias": True,
        "padding_in_norm": False,
        "rank": None,
        "reads": "prefix",
        "gate": False,
    }
    assert saved["encoder.0.layer"]["hidden"] == 32 * D // 256
    assert saved["encoder.0.layer"]["output"] is saved["encoder.0.layer"]["reads"] is None
    assert saved["decoder.0.self_attention"]["heads"] == 4
    assert saved["decoder.1.mlp"] == {"block": "none"}


@EACH_FAMILY
def test_a_translator_saved_by_transformers_goes_in(
    teachers: dict[str, PreTrainedModel], tmp_path: Path, family: str
) -> None:
    teachers[family].save_pretrained(tmp_path / "teacher")
    teacher = lf.load(tmp_path / "teacher")
    assert torch.equal(logits(teacher), logits(teachers[family]))
    student = lf.reduce(teacher, PLANS["everything"])
    student.save_pretrained(tmp_path / "student")
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "student")
    assert torch.equal(logits(loaded), logits(student))


@pytest.mark.long
def test_a_fresh_process_translates_the_same(students: Students, tmp_path: Path) -> None:
    student = students("marian", "everything")
    lf.save(student, tmp_path / "model")
    torch.save(sources(), tmp_path / "sources.pt")
    code = (
        "import sys, torch, leanformer as lf; torch.set_num_threads(1); model = lf.load(sys.argv[1]);"
        "sources = torch.load(sys.argv[2]);"
        "print(model.generate(**sources, do_sample=False).tolist(), model.generate(**sources, num_beams=3).tolist())"
    )
    command: list[str | Path] = [sys.executable, "-c", code, tmp_path / "model", tmp_path / "sources.pt"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    expected = [student.generate(**sources(), num_beams=beams, do_sample=False).tolist() for beams in (1, 3)]
    assert done.stdout.splitlines()[-1] == " ".join(str(ids) for ids in expected)


# What a decoder may see


@pytest.mark.parametrize("use_cache", [*slow(False), True], ids=["without cache", "with cache"])
@each_decoder
def test_later_tokens_change_nothing_before(students: Students, family: str, plan: str, use_cache: bool) -> None:
    student = students(family, plan)
    before = logits(student, use_cache)
    for position in (1, 4, 6):
        changed = batch()["decoder_input_ids"].clone()
        changed[:, position:] = (changed[:, position:] + 5) % VOCABULARY
        after = logits(student, use_cache, decoder_input_ids=changed)
        assert torch.equal(after[:, :position], before[:, :position])
        assert not torch.isclose(after[:, position:], before[:, position:]).all(dim=-1).any()


@each
def test_padding_and_companions_change_nothing(students: Students, family: str, plan: str) -> None:
    student = students(family, plan)
    together = logits(student)
    torch.testing.assert_close(logits(student, **sources(extra=2)), together, atol=2e-5, rtol=1e-5)
    for number, length in enumerate(LENGTHS):
        one = {name: tensor[number : number + 1] for name, tensor in batch().items()}
        one["input_ids"] = one["input_ids"][:, :length]
        del one["attention_mask"]
        with torch.no_grad():
            alone = student(**one).logits[0]
        torch.testing.assert_close(alone, together[number], atol=2e-5, rtol=1e-5)
    # Padding in the target stands behind its real tokens, whether a mask says so or not.
    mask = (torch.arange(7) < torch.tensor([[7], [5], [3]])).long()
    masked = logits(
        student, decoder_input_ids=batch()["decoder_input_ids"].where(mask == 1, 1), decoder_attention_mask=mask
    )
    torch.testing.assert_close(masked[mask == 1], together[mask == 1], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("use_cache", [*slow(False), True], ids=["without cache", "with cache"])
@each_decoder
def test_what_the_targets_mask_hides_changes_nothing(
    students: Students, family: str, plan: str, use_cache: bool
) -> None:
    student = students(family, plan)
    real = torch.arange(7) >= torch.tensor([[0], [2], [1]])
    ids = batch()["decoder_input_ids"]
    before, after = (
        logits(student, use_cache, decoder_input_ids=ids.where(real, word), decoder_attention_mask=real.long())
        for word in (5, 23)
    )
    torch.testing.assert_close(after[real], before[real], atol=2e-5, rtol=1e-5)
    assert not torch.isclose(before[real], logits(student, decoder_input_ids=ids.where(real, 5))[real]).all()


@each
def test_masks_reach_blocks_under_every_attention(students: Students, family: str, plan: str) -> None:
    student = copy.deepcopy(students(family, plan))
    expected = logits(student)
    student.set_attn_implementation("eager")
    torch.testing.assert_close(logits(student), expected, atol=2e-5, rtol=1e-5)
    unmasked = logits(student, attention_mask=torch.ones(3, 9, dtype=torch.long))
    assert not torch.isclose(unmasked[1:], expected[1:]).all()


# Generating

MODES: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "beam": {"do_sample": False, "num_beams": 3},
    "sampling": {"do_sample": True},
}


def translate(model: PreTrainedModel, given: Tensors, **settings: Any) -> torch.Tensor:
    torch.manual_seed(5)
    # Each word once: weights of chance would write one word over and over, whatever the source.
    return model.generate(**given, **{"max_length": 9, "no_repeat_ngram_size": 1, **settings})


@pytest.mark.parametrize(
    ("plan", "self_read", "cross_read"),
    [("everything", False, False), ("self", False, True), ("cross", True, False), ("cross, one layer", True, True)],
)
def test_masks_that_nobody_reads_are_not_made(
    students: Students, monkeypatch: pytest.MonkeyPatch, plan: str, self_read: bool, cross_read: bool
) -> None:
    """Hugging Face makes one in the form of its attention, unless it is given one."""
    made: set[tuple[str, bool]] = set()
    original = layers.pass_through

    def record(slot: Any, inputs: BlockInputs, **for_attention: Any) -> torch.Tensor:
        if "past_key_values" in for_attention:  # an attention of the decoder
            kind = "cross" if "key_value_states" in for_attention else "self"
            made.add((kind, for_attention["attention_mask"] is not hf.NO_MASK))
        return original(slot, inputs, **for_attention)

    monkeypatch.setattr(layers, "pass_through", record)
    students("marian", plan).generate(torch.tensor([[5, 6, 7]]), max_new_tokens=1, do_sample=False)
    assert made == {("self", self_read), ("cross", cross_read)}


def step_after(student: PreTrainedModel, read: int, cache: Any = None, **settings: Any) -> Any:
    """The output of a student with a cache for the token after as many, which the cache has read."""
    given = {**batch(), **settings}
    ids = given.pop("decoder_input_ids")
    with torch.no_grad():
        if cache is None:
            cache = student(**given, decoder_input_ids=ids[:, :read], use_cache=True).past_key_values
        # As generate does it: the source is read once.
        given["encoder_outputs"] = student.get_encoder()(given.pop("input_ids"), given["attention_mask"])
        return student(**given, decoder_input_ids=ids[:, read : read + 1], past_key_values=cache, use_cache=True)


@pytest.mark.long
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@each_decoder
def test_the_short_way_of_a_step_changes_nothing(
    students: Students, monkeypatch: pytest.MonkeyPatch, family: str, plan: str, implementation: str
) -> None:
    """Hugging Face's own way is taken where more than the output is asked for."""
    student = copy.deepcopy(students(family, plan))
    student.set_attn_implementation(implementation)
    decoder = student.base_model.decoder
    step = Mock(side_effect=decoder.step)
    monkeypatch.setattr(decoder, "step", step)
    expected = step_after(student, 3, output_hidden_states=True)
    assert len(expected.decoder_hidden_states) == 3
    assert step.call_count == 0
    given = step_after(student, 3)
    assert step.call_count == 1
    torch.testing.assert_close(given.logits, expected.logits, atol=2e-5, rtol=1e-5)
    # The steps to come go on from it, with the masks of the source that were made.
    ids = batch()["decoder_input_ids"]
    whole = logits(student, decoder_input_ids=ids[:, :5])
    again = step_after(student, 4, given.past_key_values).logits
    torch.testing.assert_close(again[:, 0], whole[:, 4], atol=2e-5, rtol=1e-5)
    assert step.call_count == 2


@pytest.mark.parametrize("plan", ["self", "cross", "cross, one layer"])
def test_masks_of_a_source_are_made_once(students: Students, monkeypatch: pytest.MonkeyPatch, plan: str) -> None:
    make = Mock(side_effect=create_bidirectional_mask)
    monkeypatch.setattr(hf, "create_bidirectional_mask", make)
    student = students("marian", plan)
    student.generate(**sources(), max_new_tokens=5, do_sample=False)
    assert make.call_count == (plan != "cross")
    # Another mask is another source.
    cache = step_after(student, 2).past_key_values
    every = torch.ones(3, 9, dtype=torch.long)
    given = step_after(student, 3, cache, attention_mask=every).logits
    cache = step_after(student, 2, output_hidden_states=True).past_key_values
    expected = step_after(student, 3, cache, attention_mask=every, output_hidden_states=True).logits
    torch.testing.assert_close(given, expected, atol=2e-5, rtol=1e-5)


@EACH_FAMILY
def test_positions_end_in_a_step_too(students: Students, family: str) -> None:
    student = students(family, "self")
    cache = step_after(student, 3).past_key_values
    for layer in cache.self_attention_cache.layers:
        layer.length = POSITIONS
    with pytest.raises(IndexError):
        step_after(student, 4, cache)


def test_beams_of_a_sentence_keep_its_keys(students: Students) -> None:
    """They are copied only where a sentence goes on from another's."""
    student = students("marian", "self")
    given = {name: tensor.repeat_interleave(2, dim=0) for name, tensor in batch().items()}
    with torch.no_grad():
        cache = student(**given, use_cache=True).past_key_values
    layer = cache.cross_attention_cache.layers[1]
    before = layer.keys
    cache.reorder_cache(torch.tensor([1, 0, 2, 2, 4, 5]))
    assert layer.keys is before
    cache.reorder_cache(torch.tensor([2, 3, 0, 1, 4, 5]))
    assert torch.equal(layer.keys, before[[2, 3, 0, 1, 4, 5]])
    cache.reorder_cache(torch.tensor([1, 0, 3, 3, 5, 4]))
    assert torch.equal(layer.keys, before[[2, 3, 0, 1, 4, 5]])
    cache.batch_select_indices(torch.tensor([0, 2, 3]))
    cache.reorder_cache(torch.tensor([1, 0, 2]))
    assert torch.equal(layer.keys, before[[0, 2, 1]])


@pytest.mark.parametrize("plan", ["self", "slots"])
def test_fewer_sentences_are_left_of_a_cache(students: Students, plan: str) -> None:
    """Their beams stand where equal ones stood, and yet the others have to go."""
    student = students("marian", plan)
    given = {name: tensor.repeat_interleave(2, dim=0) for name, tensor in batch().items()}
    ids = given.pop("decoder_input_ids")
    left = torch.tensor([0, 1, 2, 3])
    with torch.no_grad():
        cache = student(**given, decoder_input_ids=ids[:, :3], use_cache=True).past_key_values
        cache.reorder_cache(torch.tensor([1, 0, 2, 3, 5, 4]))  # from here on it is known which are the same
        cache.reorder_cache(left)
        given = {name: tensor[left] for name, tensor in given.items()}
        after = student(**given, decoder_input_ids=ids[left, 3:4], past_key_values=cache, use_cache=True).logits
    torch.testing.assert_close(after[:, 0], logits(student)[[0, 0, 1, 1], 3], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("plan", ["slots", "everything"])
def test_steps_can_be_learned_from_and_mixed(students: Students, plan: str) -> None:
    """What a step writes to is written to only where no gradient, and no mode of PyTorch, forbids it."""
    student = students("marian", plan)
    ids = batch()["decoder_input_ids"]
    expected = logits(student)[:, 4]

    def go_on(cache: Any, read: int) -> Any:
        return student(
            **sources(), decoder_input_ids=ids[:, read : read + 1], past_key_values=cache, use_cache=True
        )  # fmt: skip

    cache = student(**sources(), decoder_input_ids=ids[:, :3], use_cache=True).past_key_values
    go_on(cache, 3)
    last = go_on(cache, 4).logits[:, 0]
    torch.testing.assert_close(last, expected, atol=2e-5, rtol=1e-5)
    last.sum().backward()
    student.zero_grad()
    with torch.inference_mode():
        cache = student(**sources(), decoder_input_ids=ids[:, :3], use_cache=True).past_key_values
        go_on(cache, 3)
    with torch.no_grad():
        torch.testing.assert_close(go_on(cache, 4).logits[:, 0], expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("mode", ["beam", *slow("greedy", "sampling")])
@each_decoder
def test_a_cache_changes_nothing(students: Students, family: str, plan: str, mode: str) -> None:
    student = students(family, plan)
    cached = translate(student, sources(), use_cache=True, **MODES[mode])
    assert cached.tolist() == translate(student, sources(), use_cache=False, **MODES[mode]).tolist()
    assert len({tuple(row) for row in cached.tolist()}) > 1
    # Companions change nothing either; by chance, sentences of a batch go other ways than alone.
    for number in {"greedy": (0, 1, 2), "beam": (2,), "sampling": ()}[mode]:
        alone = translate(student, alone_of(number), **MODES[mode])
        assert F.pad(alone[0], (0, cached.shape[1] - alone.shape[1]), value=1).tolist() == cached[number].tolist()


def alone_of(number: int) -> Tensors:
    """One of the sentences, without padding."""
    return {"input_ids": sources()["input_ids"][number : number + 1, : LENGTHS[number]]}


@pytest.mark.parametrize(
    "plan",
    [
        "self",
        "cross",
        "minimal self",
        "slots, some heads",
        *slow("cross sublayer", "layer", "slots", "synthesizer", "synthesizer, some heads", "mixer"),
    ],
)
def test_beams_are_followed_in_the_cache(students: Students, monkeypatch: pytest.MonkeyPatch, plan: str) -> None:
    """The comparison above would tell if they were not."""
    student = students("marian", plan)
    expected = translate(student, sources(), num_beams=4)
    monkeypatch.setattr(DecodingState, "reorder_cache", lambda self, beams: None)
    assert translate(student, sources(), num_beams=4).tolist() != expected.tolist()


@pytest.mark.parametrize(
    "plan", ["everything", "slots, some heads", *slow("layer, token", "no first layer, cross after", "mixer")]
)
def test_more_of_generate(students: Students, plan: str) -> None:
    """Several answers a sentence, and words to begin with, padded at the left."""
    student = students("marian", plan)
    begun = {
        "decoder_input_ids": torch.tensor([[1, 1, 5], [1, 7, 8], [1, 1, 9]]),
        "decoder_attention_mask": torch.tensor([[0, 1, 1], [1, 1, 1], [0, 1, 1]]),
    }
    settings: list[dict[str, Any]] = [
        {"num_beams": 4, "num_return_sequences": 3},
        {"do_sample": True, "num_beams": 2},
        {"num_return_sequences": 2, "do_sample": True},
        {**begun, "do_sample": False},
    ]
    for each in settings:
        assert (
            translate(student, sources(), **each).tolist()
            == translate(student, sources(), **each, use_cache=False).tolist()
        )


@pytest.mark.parametrize("plan", ["encoder mixer", "mixer", "mixer, some heads", "encoder slots"])
def test_blocks_without_a_limit_read_what_the_model_reads(students: Students, plan: str) -> None:
    student = students("marian", plan)
    assert length_limits(student) == (None, None)
    longest = {name: torch.full((1, POSITIONS), 5) for name in ("input_ids", "decoder_input_ids")}
    assert student(**longest).logits.isfinite().all()


WITHOUT_END = {"suppress_tokens": [0], "do_sample": False}


@pytest.mark.parametrize("plan", ["self", "everything", *slow("cross", "layer, token", "synthesizer")])
def test_a_student_writes_as_far_as_its_blocks_read(students: Students, plan: str) -> None:
    student = students("marian", plan)
    assert student.generation_config.max_length == LIMIT + 1
    longest = student.generate(**sources(), **WITHOUT_END)
    assert longest.shape == (3, LIMIT + 1)  # the last token is written and not read
    assert longest.tolist() == student.generate(**sources(), **WITHOUT_END, use_cache=False).tolist()
    for use_cache in (True, False):
        with pytest.raises(
            lf.LeanformerError, match=rf"decoder\.\d\.\w+: its \w+ block reads at most {LIMIT} tokens, not"
        ):
            student.generate(**sources(), **WITHOUT_END, use_cache=use_cache, max_length=LIMIT + 2)


@pytest.mark.parametrize("plan", ["encoder self", "encoder layer", "cross", "cross, gate", "layer", "synthesizer"])
def test_a_longer_source_is_named(students: Students, plan: str) -> None:
    longer = {"input_ids": torch.full((1, LIMIT + 1), 5)}
    with pytest.raises(
        lf.LeanformerError, match=rf"coder\.0\.\w+: its \w+ block reads at most {LIMIT} tokens"
    ) as raised:
        students("marian", plan).generate(**longer)
    assert "\n" not in str(raised.value)


def test_the_longest_output_is_the_teachers_where_that_is_less(make_translator: MakeModel) -> None:
    teacher = make_translator()

    def longest(plan: Plan) -> int | None:
        return lf.reduce(teacher, plan).generation_config.max_length

    before = teacher.generation_config.max_length
    assert longest({"encoder.*.self_attention": FF}) == longest(PLANS["minimal everywhere"]) == before
    assert longest({"*.self_attention": FF, "decoder.0.self_attention": {**FF, "max_length": 6}}) == 7
    teacher.generation_config.max_length = 5
    assert longest(PLANS["self"]) == 5
    teacher.generation_config.max_length = 30
    assert longest(PLANS["self"]) == LIMIT + 1
    assert longest(PLANS["no mlp"]) == 30


@pytest.mark.parametrize("plan", ["self", "cross", "cross, one layer", "layer", "minimal self", "no first self"])
def test_assisted_generation_is_refused(students: Students, make_translator: MakeModel, plan: str) -> None:
    """It takes back tokens that were read, and sums over tokens do not go back."""
    with pytest.raises(NotImplementedError, match="cannot be cropped; generate without assistant"):
        students("marian", plan).generate(**alone_of(0), assistant_model=make_translator(seed=1), do_sample=False)


@pytest.mark.parametrize("plan", ["self", "cross", "layer", "minimal cross"])
def test_other_caches_are_refused(students: Students, plan: str) -> None:
    student = students("marian", plan)
    with pytest.raises(lf.LeanformerError, match="decodes with an EncoderDecoderCache, not with a DynamicCache"):
        student(**batch(), past_key_values=DynamicCache(config=student.config))


@pytest.mark.parametrize("name", ["attention_mask", "decoder_attention_mask"])
def test_other_masks_are_refused(students: Students, name: str) -> None:
    mask = {name: torch.ones(3, 1, 7, 7)}
    with pytest.raises(lf.LeanformerError, match=r"attention masks of shape \(batch, tokens\), not of 4 dimensions"):
        students("marian", "self")(**{**batch(), **mask})

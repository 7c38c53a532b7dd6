"""Some heads of an attention replaced: what is kept, what is counted, what learns, what goes wrong."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cases
import pytest
import torch
from transformers import PreTrainedModel

import leanformer as lf
from leanformer.blocks.kit.base import HeadsModule
from leanformer.blocks.kit.inputs import BlockInputs
from leanformer.blocks.kit.some_heads import SomeHeadsModule
from leanformer.blocks.kit.state import DecodingState
from leanformer.learn.lessons import Lesson, answer, explained
from leanformer.learn.observe import Observed, frozen_copy
from leanformer.model.family import find_family
from leanformer.model.surgery import module_at

MakeModel = Callable[..., PreTrainedModel]
Form = dict[str, Any]

HEADS = [0, 3]  # of four
WIDTH = {"vit": 6, "deit": 6, "marian": 4, "bart": 4}  # of a head of ``make_model`` and ``make_translator``
FORMS: dict[str, Form] = {
    "slots": {"block": "slots", "slots": 3, "gate": "linear"},
    "synthesizer": {"block": "synthesizer", "max_length": 20},
    "mixer": {"block": "mixer", "positions": "absolute", "max_length": 20},  # which gives something before it learns
}
PLACES = [
    *((family, "encoder", "self_attention", form) for family in ("vit", "deit", "marian") for form in FORMS),
    *(("marian", "decoder", kind, form) for kind in ("self_attention", "cross_attention") for form in list(FORMS)[:2]),
    ("bart", "encoder", "self_attention", "slots"),
    ("bart", "decoder", "self_attention", "slots"),
    ("bart", "decoder", "cross_attention", "synthesizer"),
]
SOME_PLACES = [
    ("vit", "encoder", "self_attention", "slots"),
    ("deit", "encoder", "self_attention", "mixer"),
    ("marian", "encoder", "self_attention", "synthesizer"),
    ("marian", "decoder", "self_attention", "slots"),
    ("marian", "decoder", "cross_attention", "slots"),
    ("bart", "decoder", "cross_attention", "synthesizer"),
]
each_place = pytest.mark.parametrize(("family", "stack", "kind", "form"), cases.some(PLACES, *SOME_PLACES))


@pytest.fixture
def make(make_model: MakeModel, make_translator: MakeModel) -> MakeModel:
    def teacher(family: str, **settings: Any) -> PreTrainedModel:
        return (make_model if family in ("vit", "deit") else make_translator)(family, **settings)

    return teacher


def batch(family: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    if family in ("vit", "deit"):
        images = torch.randn(4, 1, 16, 16, generator=generator)
        return {"pixel_values": images, "labels": torch.randint(0, 5, (4,), generator=generator)}
    mask = torch.arange(9) < torch.tensor([[9], [6], [4]])
    words = torch.randint(2, 40, (2, 3, 9), generator=generator)
    labels = words[1].where(torch.arange(9) < torch.tensor([[7], [9], [3]]), -100)
    return {
        "input_ids": words[0].where(mask, 1),
        "attention_mask": mask.long(),
        "decoder_input_ids": labels.roll(1, dims=1).clamp(min=1),
        "labels": labels,
    }


@torch.no_grad()
def logits(model: PreTrainedModel) -> torch.Tensor:
    return model(**batch(str(model.config.model_type).removeprefix("leanformer_"))).logits


def attention_of(model: PreTrainedModel, site: str) -> Any:
    """The attention at a site of a model with open layers."""
    return module_at(model, site)


def some(model: PreTrainedModel, site: str) -> SomeHeadsModule:
    module = module_at(model, site)
    assert isinstance(module, SomeHeadsModule)
    return module


def test_weights_of_some_heads_are_their_slices(make: MakeModel) -> None:
    teacher = lf.reduce(make("vit"), {})
    attention = attention_of(teacher, "encoder.1.self_attention")
    weights = find_family(teacher).attention_weights(attention)
    assert weights is not None
    part = weights.of_heads([3, 1])
    rows = [*range(18, 24), *range(6, 12)]
    assert torch.equal(part.query, attention.q_proj.weight[rows].T)
    assert torch.equal(part.key, attention.k_proj.weight[rows].T)
    assert torch.equal(part.value, attention.v_proj.weight[rows].T)
    assert torch.equal(part.output, attention.o_proj.weight[:, rows].T)
    assert part.query_bias is not None
    assert torch.equal(part.query_bias, attention.q_proj.bias[rows])
    assert torch.equal(part.output_bias, attention.o_proj.bias)  # type: ignore[arg-type]
    assert (part.num_heads, part.scaling) == (2, 6**-0.5)


@each_place
def test_without_the_replaced_heads_it_is_the_attention_without_them(
    make: MakeModel, family: str, stack: str, kind: str, form: str
) -> None:
    """Nothing in their channels, or nothing made of them by the projection: the same."""
    teacher = make(family)
    student = lf.reduce(teacher, {f"{stack}.*.{kind}": {**FORMS[form], "heads": HEADS}})
    opened = lf.reduce(teacher, {})
    whole = logits(student)
    for site in student.config.plan:
        module = some(student, site)
        assert module.block.value is not None
        torch.nn.init.zeros_(module.block.value.weight)
        torch.nn.init.zeros_(module.block.value.bias)
        projection: Any = find_family(opened).output_projection(attention_of(opened, site))
        with torch.no_grad():
            projection.weight[:, [head * WIDTH[family] + i for head in HEADS for i in range(WIDTH[family])]] = 0
    torch.testing.assert_close(logits(student), logits(opened), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(whole, logits(opened), atol=1e-2)
    assert not torch.allclose(logits(teacher), logits(opened), atol=1e-2)


class Heads(HeadsModule):
    """Gives what another student's kept part gives: the attention's own heads."""

    def __init__(self, kept: Any) -> None:
        super().__init__()
        self.kept = kept

    def mix(self, inputs: BlockInputs) -> torch.Tensor:
        return self.kept(inputs)


@each_place
def test_a_block_that_gives_the_heads_explains_all_and_changes_nothing(
    make: MakeModel, family: str, stack: str, kind: str, form: str
) -> None:
    teacher, site = make(family), f"{stack}.1.{kind}"
    student = lf.reduce(teacher, {site: {**FORMS[form], "heads": [1]}})
    others = lf.reduce(teacher, {site: {**FORMS[form], "heads": [0, 2, 3]}})
    module = some(student, site)
    assert not torch.allclose(logits(student), logits(teacher), atol=1e-2)
    taught = module.block
    module.block = Heads(some(others, site).kept)
    torch.testing.assert_close(logits(student), logits(teacher), atol=1e-5, rtol=1e-4)
    opened = frozen_copy(lf.reduce(teacher, {}))
    place = {place.name: place for place in lf.sites(opened)}[site]
    lesson = Lesson("heads", place, module)
    with Observed(opened, [(site, "heads")]) as observed:
        given, target = answer(lesson, observed.read(batch(family)))
        perfect = explained(observed, [lesson], [batch(family)])["heads"]
        module.block = taught
        poor = explained(observed, [lesson], [batch(family)])["heads"]
    assert given.shape == target.shape
    assert given.shape[1] == WIDTH[family]
    assert poor < 0.995 < perfect == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_all_heads_listed_are_the_plain_block(make: MakeModel, form: str, bias: bool) -> None:
    teacher = make("vit", qkv_bias=bias)
    plain = lf.reduce(teacher, {"*.self_attention": FORMS[form]})
    listed = lf.reduce(teacher, {"*.self_attention": {**FORMS[form], "heads": [2, 0, 3, 1]}})
    for site in plain.config.plan:
        module, block = some(listed, site), module_at(plain, site)
        assert block is not None
        assert module.kept is None
        assert listed.config.plan[site]["heads"] == [0, 1, 2, 3]
        own = {"value.weight", "value.bias", "output.weight", "output.bias"}
        drawn = {name: tensor for name, tensor in block.state_dict().items() if name not in own}
        assert drawn
        assert not module.block.load_state_dict(drawn, strict=False).unexpected_keys
    torch.testing.assert_close(logits(listed), logits(plain), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("heads", [[2], [0, 1, 3], [0, 1, 2, 3]])
def test_what_is_kept_is_the_attentions_and_what_learns_is_new(
    make: MakeModel, heads: list[int], bias: bool, tmp_path: Path
) -> None:
    d, width, slots = 24, 6 * len(heads), 3
    teacher = make("vit", qkv_bias=bias)
    student = lf.reduce(teacher, {"*.self_attention": {**FORMS["slots"], "heads": heads}})
    site = {site.name: site for site in lf.sites(student)}["encoder.0.self_attention"]
    before = {site.name: site for site in lf.sites(teacher)}[site.name].parameters
    learns = sum(parameter.numel() for parameter in some(student, site.name).taught_parameters())
    assert learns == d * width + width + 2 * d * len(heads) * slots + len(heads) * slots
    removed = 3 * (d + bias) * width  # queries, keys and values of the heads
    assert site.parameters == before - removed + learns
    lf.save(student, tmp_path)
    loaded = lf.load(tmp_path)
    assert torch.equal(logits(loaded), logits(student))


def test_kept_heads_are_dropped_in_training_as_before(make: MakeModel, tmp_path: Path) -> None:
    plan = {"decoder.*attention": {**FORMS["slots"], "heads": HEADS}}
    student = lf.reduce(make("marian", attention_dropout=0.3), plan)
    lf.save(student, tmp_path)
    for model in (student, lf.load(tmp_path)):
        kept = some(model, "decoder.1.cross_attention").kept
        assert kept is not None
        assert kept.dropout == 0.3
        states = torch.randn(2, 6, 16)
        assert torch.equal(kept(BlockInputs(states, source=states)), kept(BlockInputs(states, source=states)))
        kept.train()
        assert not torch.equal(kept(BlockInputs(states, source=states)), kept(BlockInputs(states, source=states)))


@pytest.mark.parametrize("family", ["vit", "marian"])
def test_only_the_block_is_taught_and_all_is_tuned(make: MakeModel, family: str) -> None:
    teacher = make(family)
    plan: dict[str, Any] = {"encoder.*.self_attention": {**FORMS["mixer"], "heads": HEADS}}
    if family == "marian":
        plan["decoder.*attention"] = {**FORMS["slots"], "heads": [1]}
    records: list[dict[str, float]] = []
    teach = lf.DistillConfig(epochs=8, learning_rate=1e-2)
    student = lf.distill(teacher, plan, [batch(family)], [batch(family)], teach, progress=records.append)
    learns = {name for name, parameter in student.named_parameters() if parameter.requires_grad}
    assert learns == {
        name for name, parameter in lf.reduce(teacher, plan).named_parameters() if parameter.requires_grad
    }
    for site in student.config.plan:
        assert records[-1][f"r2 {site}"] > records[0][f"r2 {site}"]
    start = lf.reduce(teacher, plan).state_dict()
    for name, tensor in student.state_dict().items():
        if ".block.block." not in name:
            assert torch.equal(tensor, start[name]), name
    tuned = copy.deepcopy(student).train()
    tuned(**batch(family)).loss.backward()
    kept = some(tuned, next(iter(student.config.plan))).kept
    assert kept is not None
    assert kept.value is not None
    assert kept.value.weight.grad is not None


def test_a_loaded_student_is_reduced_again(make: MakeModel, tmp_path: Path) -> None:
    lf.save(lf.reduce(make("marian"), {"decoder.*.cross_attention": {**FORMS["slots"], "heads": HEADS}}), tmp_path)
    first = lf.load(tmp_path)
    plan = {
        "decoder.0.cross_attention": FORMS["slots"],
        "decoder.*.self_attention": {**FORMS["synthesizer"], "heads": [1]},
    }
    second = lf.reduce(first, plan)
    assert {site: entry["heads"] for site, entry in second.config.plan.items()} == {
        "decoder.0.cross_attention": 4,
        "decoder.1.cross_attention": HEADS,
        "decoder.0.self_attention": [1],
        "decoder.1.self_attention": [1],
    }
    kept = [some(model, "decoder.1.cross_attention").state_dict() for model in (first, second)]
    assert all(torch.equal(kept[0][name], kept[1][name]) for name in kept[0])
    lf.save(second, tmp_path / "again")
    assert torch.equal(logits(lf.load(tmp_path / "again")), logits(second))


@pytest.mark.parametrize("block", [FORMS["slots"], {"block": "minimal_attention"}, {**FORMS["slots"], "heads": [1]}])
def test_where_the_attention_is_gone_there_are_no_heads(make: MakeModel, block: Form) -> None:
    student = lf.reduce(make("marian"), {"decoder.1.cross_attention": block})
    line = (
        rf"^decoder\.1\.cross_attention: heads = \[0\] replaces heads of the model's own attention, but "
        rf"'{block['block']}' stands there; reduce the teacher instead$"
    )
    with pytest.raises(lf.LeanformerError, match=line):
        lf.reduce(student, {"*.cross_attention": {**FORMS["slots"], "heads": [0]}})


def test_a_states_parts_go_where_it_goes() -> None:
    state = DecodingState()
    state.length = 3
    part = state.part("kept")
    part.tensors = {"key": torch.tensor([[0.0], [1.0], [2.0]])}
    assert part.length == 3
    state.reorder_cache(torch.tensor([2, 0]))  # type: ignore[arg-type]
    state.batch_repeat_interleave(2)
    assert part.tensors["key"].flatten().tolist() == [2, 2, 0, 0]
    state.length = 5
    assert state.part("kept") is part
    assert part.length == 5
    state.reset()
    assert state.part("kept").tensors == {}

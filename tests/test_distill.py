"""Teaching blocks what a teacher's parts do, and tuning the student that they make."""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

import leanformer as lf
from leanformer.config import TrainConfig
from leanformer.learn import train as loop
from leanformer.learn.distill import (
    Lesson,
    Observed,
    Target,
    answer,
    divergence,
    explained,
    frozen_copy,
    in_groups,
    relative_error,
    teachable,
    teaching_loss,
    training_bytes,
    tuning_loss,
)
from leanformer.learn.train import Batch, make_accelerator, train
from leanformer.model.surgery import module_at

MakeModel = Callable[..., PreTrainedModel]
Plan = dict[str, Any]

D, HEADS, VOCABULARY, LIMIT = 16, 4, 40, 12  # the first three of ``make_translator``
FF = {"block": "feed_forward", "hidden": 10, "max_length": LIMIT}
MLP = {"block": "mlp", "hidden": 12}
EVERYTHING: Plan = {"*attention": FF, "*.mlp": MLP}


def make_batch(seed: int, sources: Sequence[int] = (9, 6, 4, 8), targets: Sequence[int] = (7, 5, 3, 6)) -> Batch:
    """Sentences of these lengths, padded at the right."""
    generator = torch.Generator().manual_seed(seed)

    def words(lengths: Sequence[int], padding: int) -> torch.Tensor:
        ids = torch.randint(2, VOCABULARY, (len(lengths), max(lengths)), generator=generator)
        return ids.where(torch.arange(max(lengths)) < torch.tensor(lengths)[:, None], padding)

    ids, labels = words(sources, 1), words(targets, -100)
    return {
        "input_ids": ids,
        "attention_mask": (ids != 1).long(),
        "decoder_input_ids": F.pad(labels, (1, -1), value=1).where(labels != -100, 1),
        "labels": labels,
    }


BATCHES = [make_batch(seed) for seed in range(6)]
HELD_OUT = [make_batch(100), make_batch(101, (5, 7), (4, 2)), make_batch(102, (10,), (8,))]
REAL = {"encoder": BATCHES[0]["attention_mask"] == 1, "decoder": BATCHES[0]["labels"] != -100}


@pytest.fixture(scope="module")
def teachers(make_translator: MakeModel) -> dict[str, PreTrainedModel]:
    """A teacher of each family, to be left as it is."""
    return {family: make_translator(family) for family in ("marian", "bart")}


@pytest.fixture(scope="module")
def opened(teachers: dict[str, PreTrainedModel]) -> PreTrainedModel:
    """The Marian with open layers, to be left as it is."""
    return frozen_copy(lf.reduce(teachers["marian"], {}))


def copied(model: PreTrainedModel) -> PreTrainedModel:
    return copy.deepcopy(model)


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def make_lessons(teacher: PreTrainedModel, plan: Plan, seed: int = 0) -> list[Lesson]:
    """The blocks of a plan as lessons, each away from its initial values."""
    torch.manual_seed(seed)
    student = lf.reduce(teacher, plan)
    lessons = []
    for site in lf.sites(student):
        if site.name in student.config.plan:
            block = module_at(student, site.name)
            assert block is not None
            lessons.append(Lesson(site.name, site, block))
    return lessons


def observe(teacher: PreTrainedModel, lessons: Sequence[Lesson]) -> Observed:
    return Observed(teacher, [(lesson.site.name, lesson.target) for lesson in lessons])


# What is seen of a teacher


def attention_by_hand(attention: Any, states: torch.Tensor, source: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """The heads side by side; ``seen`` says which tokens of the source each position may read."""

    def heads(projection: nn.Linear, given: torch.Tensor) -> torch.Tensor:
        return projection(given).unflatten(-1, (HEADS, -1)).transpose(1, 2)

    scores = heads(attention.q_proj, states) @ heads(attention.k_proj, source).transpose(2, 3) / (D // HEADS) ** 0.5
    scores = scores.masked_fill(~seen[:, None], float("-inf"))
    return (scores.softmax(dim=-1) @ heads(attention.v_proj, source)).transpose(1, 2).flatten(2)


@torch.no_grad()
def by_hand(model: Any, batch: Batch, stack: str) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Site of a stack's second layer -> what it is given and what it gives; ``heads``: the same before projecting."""
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    states = model(**inputs, output_hidden_states=True)
    given = states[f"{stack}_hidden_states"][1]
    layer = getattr(model.base_model, stack).layers[1]
    real = batch["attention_mask"][:, None, :] == 1
    tokens = given.shape[1]
    causal = torch.ones(tokens, tokens, dtype=torch.bool).tril()[None]
    found = {}
    places = {"self_attention": (layer.self_attn, layer.self_attn_layer_norm)}
    if stack == "decoder":
        places["cross_attention"] = (layer.encoder_attn, layer.encoder_attn_layer_norm)
    x = given
    for kind, (attention, norm) in places.items():
        if kind == "cross_attention":
            heads = attention_by_hand(attention, x, states.encoder_last_hidden_state, real)
        else:
            heads = attention_by_hand(attention, x, x, real if stack == "encoder" else causal)
        found[f"{kind} heads"] = (x, heads)
        found[kind] = (x, attention.out_proj(heads))
        after = norm(x + found[kind][1])
        found[f"{kind}_sublayer"] = (x, after)
        x = after
    found["mlp"] = (x, layer.fc2(F.gelu(layer.fc1(x))))
    found["layer"] = (given, layer.final_layer_norm(x + found["mlp"][1]))
    return found


@pytest.mark.parametrize("stack", ["encoder", "decoder"])
@pytest.mark.parametrize("family", ["marian", "bart"])
def test_a_teacher_shows_what_its_parts_do(teachers: dict[str, PreTrainedModel], family: str, stack: str) -> None:
    teacher = copied(teachers[family])
    expected = by_hand(teacher, BATCHES[0], stack)
    wanted: list[tuple[str, Target]] = [
        (f"{stack}.1.{name.split()[0]}", "heads" if name.endswith(" heads") else "output") for name in expected
    ]
    with Observed(lf.reduce(teacher, {}), wanted) as observed:
        seen = observed.read(BATCHES[0])
    real = REAL[stack]
    for (name, (given, shown)), (site, target) in zip(expected.items(), wanted, strict=True):
        torch.testing.assert_close(seen.inputs[site][real], given[real], atol=1e-5, rtol=1e-5, msg=name)
        torch.testing.assert_close(seen.targets[site, target][real], shown[real], atol=1e-5, rtol=1e-5, msg=name)
    assert len(seen.targets) == len(expected)
    with torch.no_grad():
        inputs = {name: tensor for name, tensor in BATCHES[0].items() if name != "labels"}
        outputs = teacher(**inputs)
    torch.testing.assert_close(seen.outputs.logits, outputs.logits, atol=1e-5, rtol=1e-5)
    assert seen.source is not None
    assert seen.source_mask is not None
    assert seen.target_mask is not None
    torch.testing.assert_close(seen.source, outputs.encoder_last_hidden_state, atol=1e-5, rtol=1e-5)
    assert torch.equal(seen.source_mask, REAL["encoder"])
    assert torch.equal(seen.target_mask, REAL["decoder"])


@pytest.mark.parametrize("site", ["encoder.0.self_attention", "decoder.1.self_attention", "decoder.0.cross_attention"])
def test_heads_projected_are_the_output(opened: PreTrainedModel, site: str) -> None:
    with Observed(opened, [(site, "heads"), (site, "output")]) as observed:
        seen = observed.read(BATCHES[0])
    attention: Any = module_at(opened, site)
    assert torch.equal(attention.out_proj(seen.targets[site, "heads"]), seen.targets[site, "output"])
    assert not seen.targets[site, "heads"].requires_grad


def test_keyword_arguments_are_seen_alike(opened: PreTrainedModel) -> None:
    """Transformers is free to call its modules by keyword."""
    site = "encoder.0.self_attention"
    teacher = copied(opened)
    sublayer: Any = module_at(teacher, f"{site}_sublayer")
    attention = sublayer.block
    sublayer.forward = lambda hidden_states, **_: attention(hidden_states=hidden_states * 2)[0]
    attention.forward = lambda hidden_states, **_: (attention.out_proj(input=hidden_states + 1), None)
    layer: Any = module_at(teacher, "encoder.0.layer")
    layer.forward = lambda hidden_states, *_, **__: sublayer(hidden_states=hidden_states)
    wanted: list[tuple[str, Target]] = [(site, "heads"), (site, "output"), (f"{site}_sublayer", "output")]
    with Observed(teacher, wanted) as observed:
        seen = observed.read(BATCHES[0])
    assert torch.equal(seen.inputs[site], seen.inputs[f"{site}_sublayer"] * 2)
    assert torch.equal(seen.targets[site, "heads"], seen.inputs[site] + 1)
    assert torch.equal(seen.targets[site, "output"], attention.out_proj(seen.inputs[site] + 1))
    assert torch.equal(seen.targets[site, "output"], seen.targets[f"{site}_sublayer", "output"])


def test_an_image_classifier_shows_its_parts(make_model: MakeModel) -> None:
    teacher = lf.reduce(make_model("vit"), {})
    images = torch.randn(3, 1, 16, 16)
    wanted: list[tuple[str, Target]] = [
        ("encoder.1.self_attention", "heads"),
        ("encoder.1.self_attention", "output"),
        ("encoder.1.mlp", "output"),
        ("encoder.1.layer", "output"),
    ]
    with Observed(teacher, wanted) as observed:
        seen = observed.read({"pixel_values": images, "labels": torch.tensor([0, 1, 2])})
    assert seen.source is seen.source_mask is seen.target_mask is None
    layer: Any = module_at(teacher, "encoder.1.layer")
    with torch.no_grad():
        states = teacher(images, output_hidden_states=True).hidden_states
        projected = layer.self_attention.block.o_proj(seen.targets["encoder.1.self_attention", "heads"])
        middle = states[1] + projected
        given = layer.mlp.norm(middle)
        after = middle + layer.mlp.block(given)
    torch.testing.assert_close(seen.inputs["encoder.1.self_attention"], layer.self_attention.norm(states[1]))
    torch.testing.assert_close(seen.targets["encoder.1.self_attention", "output"], projected)
    torch.testing.assert_close(seen.inputs["encoder.1.mlp"], given)
    torch.testing.assert_close(seen.targets["encoder.1.layer", "output"], after)
    torch.testing.assert_close(after, states[2])


@pytest.mark.parametrize("target", ["output", "heads"])
def test_a_site_that_shows_nothing_is_named(opened: PreTrainedModel, target: Target) -> None:
    teacher = copied(opened)
    before = hooks(teacher)
    sublayer: Any = module_at(teacher, "encoder.1.self_attention_sublayer")
    sublayer.forward = lambda hidden_states, **_: hidden_states
    with (
        Observed(teacher, [("encoder.0.self_attention", target), ("encoder.1.self_attention", target)]) as observed,
        pytest.raises(lf.LeanformerError, match=r"nothing was seen at encoder\.1\.self_attention: ") as raised,
    ):
        observed.read(BATCHES[0])
    assert "\n" not in str(raised.value)
    assert hooks(teacher) == before


def test_heads_that_go_past_the_projection_are_not_seen(opened: PreTrainedModel) -> None:
    teacher = copied(opened)
    attention: Any = module_at(teacher, "encoder.1.self_attention")
    attention.forward = lambda hidden_states, **_: (hidden_states, None)
    with (
        Observed(teacher, [("encoder.1.self_attention", "heads")]) as observed,
        pytest.raises(lf.LeanformerError, match=r"nothing was seen at encoder\.1\.self_attention: "),
    ):
        observed.read(BATCHES[0])


def test_nothing_of_an_earlier_batch_is_seen(opened: PreTrainedModel) -> None:
    teacher = copied(opened)
    sublayer: Any = module_at(teacher, "encoder.1.self_attention_sublayer")
    with Observed(teacher, [("encoder.1.self_attention", "output")]) as observed:
        observed.read(BATCHES[0])
        sublayer.forward = lambda hidden_states, **_: hidden_states
        with pytest.raises(lf.LeanformerError, match="nothing was seen"):
            observed.read(BATCHES[0])


@pytest.mark.parametrize(
    ("plan", "site", "target", "message"),
    [
        ({"encoder.1.self_attention": "none"}, "encoder.1.self_attention", "output", "nothing to teach at .* is empty"),
        ({"encoder.1.self_attention": "none"}, "encoder.1.self_attention", "heads", "nothing to teach at .* is empty"),
        ({"encoder.1.layer": "none"}, "encoder.1.mlp", "output", "nothing to teach at .* is empty"),
        ({"encoder.1.self_attention": FF}, "encoder.1.self_attention", "heads", "no attention of its own at"),
        ({}, "encoder.1.mlp", "heads", "no attention of its own at"),
    ],
)
def test_a_site_that_cannot_teach_is_named(
    teachers: dict[str, PreTrainedModel], plan: Plan, site: str, target: Target, message: str
) -> None:
    teacher = lf.reduce(teachers["marian"], plan)
    before = hooks(teacher)
    observed = Observed(teacher, [("encoder.0.self_attention", "heads"), (site, target)])
    with pytest.raises(lf.LeanformerError, match=message) as raised, observed:
        pass
    assert site in str(raised.value)
    assert "\n" not in str(raised.value)
    assert hooks(teacher) == before


def test_hooks_are_gone_afterwards(opened: PreTrainedModel) -> None:
    before = hooks(opened)
    wanted: list[tuple[str, Target]] = [("encoder.0.self_attention", "heads"), ("decoder.1.layer", "output")]
    with Observed(opened, wanted):
        assert hooks(opened) == before + 3
    assert hooks(opened) == before
    with pytest.raises(ZeroDivisionError), Observed(opened, wanted):
        raise ZeroDivisionError
    assert hooks(opened) == before


def test_a_batch_without_decoder_tokens_is_named(opened: PreTrainedModel) -> None:
    batch = {name: tensor for name, tensor in BATCHES[0].items() if name != "decoder_input_ids"}
    with (
        Observed(opened, []) as observed,
        pytest.raises(lf.LeanformerError, match="no decoder_input_ids") as raised,
    ):
        observed.read(batch)
    assert "\n" not in str(raised.value)


# How well a block does


def plain_error(given: torch.Tensor, target: torch.Tensor) -> float:
    """1 - R² over all channels, of rows that count."""
    given, target = given.detach().double(), target.detach().double()
    return float(((given - target) ** 2).sum() / ((target - target.mean(dim=0)) ** 2).sum())


def test_the_relative_error_is_what_r2_leaves() -> None:
    given, target = torch.randn(2, 5, 3), torch.randn(2, 5, 3) * 4 + 2
    expected = plain_error(given.flatten(0, 1), target.flatten(0, 1))
    assert float(relative_error(given, target)) == pytest.approx(expected, rel=1e-5)
    assert float(relative_error(target, target)) == 0.0
    mean = target.flatten(0, 1).mean(dim=0).expand_as(target)
    assert float(relative_error(mean, target)) == pytest.approx(1.0, rel=1e-5)
    assert torch.isfinite(relative_error(torch.ones(4, 3), torch.zeros(4, 3)))


WIDE: Plan = {
    "encoder.0.self_attention": FF,
    "encoder.0.mlp": MLP,
    "encoder.1.layer": FF,
    "decoder.0.self_attention": {"block": "minimal_attention", "qk": "symmetric"},
    "decoder.0.cross_attention": FF,
    "decoder.1.self_attention_sublayer": FF,
    "decoder.1.cross_attention_sublayer": {**FF, "reads": "token"},
}


def by_plain_rows(opened: PreTrainedModel, lesson: Lesson, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """A block's and its site's numbers at real positions, each sentence read alone and without its padding."""
    rows = []
    for number in range(len(batch["labels"])):
        source = int(batch["attention_mask"][number].sum())
        target = int((batch["labels"][number] != -100).sum())
        alone = {
            "input_ids": batch["input_ids"][number : number + 1, :source],
            "decoder_input_ids": batch["decoder_input_ids"][number : number + 1, :target],
            "labels": batch["labels"][number : number + 1, :target],
        }
        with observe(opened, [lesson]) as observed:
            rows.append(answer(lesson, observed.read(alone)))
    given, shown = zip(*rows, strict=True)
    return torch.cat(given), torch.cat(shown)


def test_the_loss_is_that_of_real_positions(opened: PreTrainedModel) -> None:
    lessons = make_lessons(opened, WIDE)
    assert len(lessons) == len(WIDE)
    with observe(opened, lessons) as observed:
        terms = list(teaching_loss(observed, lessons)(None, BATCHES[0]))
    for lesson, term in zip(lessons, terms, strict=True):
        expected = plain_error(*by_plain_rows(opened, lesson, BATCHES[0]))
        assert float(term) == pytest.approx(expected, rel=1e-4), lesson.key


def test_padding_changes_no_loss(opened: PreTrainedModel) -> None:
    lessons = make_lessons(opened, WIDE)
    other = {name: tensor.clone() for name, tensor in BATCHES[0].items()}
    for name, stack in (("input_ids", "encoder"), ("decoder_input_ids", "decoder")):
        noise = torch.randint(2, VOCABULARY, other[name].shape)
        other[name] = other[name].where(REAL[stack], noise)
        assert not torch.equal(other[name], BATCHES[0][name])
    with observe(opened, lessons) as observed:
        loss = teaching_loss(observed, lessons)
        before = [(float(term), gradients(term, lesson)) for lesson, term in zip(lessons, loss(None, BATCHES[0]), strict=True)]
        after = [(float(term), gradients(term, lesson)) for lesson, term in zip(lessons, loss(None, other), strict=True)]
    for (value, given), (other_value, other_given) in zip(before, after, strict=True):
        assert value == pytest.approx(other_value, rel=1e-5)
        torch.testing.assert_close(given, other_given, atol=1e-6, rtol=1e-4)


def gradients(term: torch.Tensor, lesson: Lesson) -> list[torch.Tensor]:
    learns = lesson.block.taught_parameters() if hasattr(lesson.block, "taught_parameters") else lesson.block.parameters()
    return [gradient.clone() for gradient in torch.autograd.grad(term, list(learns))]


def test_r2_is_that_of_all_held_out_batches_together(opened: PreTrainedModel) -> None:
    lessons = make_lessons(opened, WIDE)
    with observe(opened, lessons) as observed:
        found = explained(observed, lessons, iter(HELD_OUT))
    assert list(found) == [lesson.key for lesson in lessons]
    for lesson in lessons:
        given, shown = zip(*(by_plain_rows(opened, lesson, batch) for batch in HELD_OUT), strict=True)
        assert found[lesson.key] == pytest.approx(1 - plain_error(torch.cat(given), torch.cat(shown)), rel=1e-4)


class Always(nn.Module):
    """Gives the same row whatever it reads."""

    def __init__(self, row: torch.Tensor) -> None:
        super().__init__()
        self.row = row

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.row.expand_as(hidden_states)


@pytest.mark.parametrize("name", ["encoder.1.mlp", "decoder.0.mlp"])
def test_a_perfect_block_explains_all_and_the_mean_nothing(opened: PreTrainedModel, name: str) -> None:
    site = {site.name: site for site in lf.sites(opened)}[name]
    perfect = Lesson("perfect", site, copy.deepcopy(module_at(opened, name)))
    assert isinstance(perfect.block, nn.Module)
    shown = torch.cat([by_plain_rows(opened, perfect, batch)[1] for batch in HELD_OUT])
    mean = Lesson("mean", site, Always(shown.mean(dim=0)))
    far = Lesson("far", site, Always(shown.mean(dim=0) + 100))
    with observe(opened, [perfect]) as observed:
        found = explained(observed, [perfect, mean, far], HELD_OUT)
    assert found["perfect"] == pytest.approx(1.0, abs=1e-10)
    assert found["mean"] == pytest.approx(0.0, abs=1e-5)
    assert found["far"] < -1


def test_measuring_leaves_blocks_in_their_mode(opened: PreTrainedModel) -> None:
    site = {site.name: site for site in lf.sites(opened)}["encoder.0.mlp"]
    noisy = Lesson("noisy", site, nn.Sequential(nn.Dropout(0.5), nn.Linear(D, D)))
    still = Lesson("still", site, nn.Linear(D, D).eval())
    with observe(opened, [noisy]) as observed:
        found = [explained(observed, [noisy, still], HELD_OUT) for _ in range(2)]
    assert found[0] == found[1]
    assert noisy.block.training
    assert not still.block.training


# Learning together


class Listed:
    """Batches as ``train`` takes them; raises at a moment if told to."""

    def __init__(self, batches: Sequence[Batch], error: BaseException | None = None, at: tuple[int, int] = (0, 0)) -> None:
        self.batches = batches
        self.error = error
        self.at = at

    @property
    def steps_per_epoch(self) -> int:
        return len(self.batches)

    def training(self, seed: int, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        for step in range(first_step, len(self.batches)):
            if self.error is not None and (epoch, step) == self.at:
                raise self.error
            yield self.batches[(step + seed + epoch) % len(self.batches)]


class Silent:
    """Watches nothing."""

    def validate(self, model: nn.Module, last: bool) -> dict[str, float]:
        return {}

    def epoch_ended(self, record: dict[str, float], examples_per_second: float) -> None: ...

    def step_ended(self, epoch: int, step: int, steps_per_epoch: int) -> None: ...

    def rolled_back(self, reason: str) -> None: ...


def teach(opened: PreTrainedModel, lessons: Sequence[Lesson], weight_decay: float = 0.1) -> None:
    config = TrainConfig(epochs=2, weight_decay=weight_decay, clip_norm=None)
    accelerator = make_accelerator("float32", torch.device("cpu"))
    with observe(opened, lessons) as observed:
        loss = teaching_loss(observed, lessons)
        trained = train(teachable(lessons), Listed(BATCHES), config, 1e-2, 0, Silent(), accelerator, loss=loss)
    assert trained.status == "ok"


def test_blocks_learn_together_what_they_learn_alone(opened: PreTrainedModel) -> None:
    before = weights(opened)
    lessons = make_lessons(opened, WIDE)
    first = [copy.deepcopy(lesson) for lesson in lessons]
    teach(opened, lessons)
    for together, alone in zip(lessons, first, strict=True):
        start = weights(alone.block)
        teach(opened, [alone])
        assert equal(weights(alone.block), weights(together.block)), alone.key
        assert not equal(weights(alone.block), start), alone.key
    assert equal(weights(opened), before)


@pytest.mark.parametrize("per_head", [False, True])
def test_the_kept_projection_never_changes(opened: PreTrainedModel, per_head: bool) -> None:
    lessons = make_lessons(opened, {"*attention": {**FF, "per_head": per_head}})
    assert len(lessons) == 6
    assert {lesson.target for lesson in lessons} == {"heads"}
    before = [weights(lesson.block) for lesson in lessons]
    teach(opened, lessons)
    for lesson, was in zip(lessons, before, strict=True):
        for name, tensor in weights(lesson.block).items():
            assert torch.equal(tensor, was[name]) == name.startswith("output."), (lesson.key, name)
        attention: Any = module_at(opened, lesson.site.name)
        block: Any = lesson.block
        assert torch.equal(block.output.weight, attention.out_proj.weight)
        assert torch.equal(block.output.bias, attention.out_proj.bias)


def test_a_replaced_projection_learns(opened: PreTrainedModel) -> None:
    lessons = make_lessons(opened, {"encoder.0.self_attention": {**FF, "output": "replaced"}})
    assert lessons[0].target == "output"
    assert all(parameter.requires_grad for parameter in teachable(lessons).parameters())


def test_groups_bound_memory_and_keep_order(opened: PreTrainedModel) -> None:
    site = lf.sites(opened)[0]
    lessons = [
        Lesson(str(number), site, nn.Linear(width, 10, bias=False)) for number, width in enumerate([3, 3, 3, 9, 1, 30, 2])
    ]
    sizes = [training_bytes(lesson.block) for lesson in lessons]
    assert sizes[0] == 7 * 30 * 4  # weights, gradients, two moments, and a copy of weights and moments
    assert training_bytes(nn.Linear(3, 10, dtype=torch.bfloat16)) == 7 * 40 * 2
    limit = sizes[0] * 3.0
    groups = in_groups(lessons, limit)
    assert [[lesson.key for lesson in group] for group in groups] == [["0", "1", "2"], ["3"], ["4"], ["5"], ["6"]]
    for group in groups:
        assert len(group) == 1 or sum(training_bytes(lesson.block) for lesson in group) <= limit
    for bound in (0.0, 1.0, sizes[0] * 4.0, 1e9):
        groups = in_groups(lessons, bound)
        assert [lesson for group in groups for lesson in group] == lessons
        assert all(groups)
        for group in groups:
            assert len(group) == 1 or sum(training_bytes(lesson.block) for lesson in group) <= bound
    assert len(in_groups(lessons, 1e9)) == 1
    assert in_groups([], 1e9) == []

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
from cases import slow
from torch import nn
from transformers import PreTrainedModel

import leanformer as lf
from leanformer.blocks.kit.base import BlockModule
from leanformer.config.base import TrainConfig
from leanformer.learn import train as loop
from leanformer.learn.lessons import (
    Lesson,
    answer,
    explained,
    in_groups,
    teachable,
    teaching_config,
    teaching_loss,
    training_bytes,
)
from leanformer.learn.losses import Batch, divergence, relative_error, tuning_loss, with_fewer_subwords
from leanformer.learn.observe import Observed, Target, frozen_copy
from leanformer.learn.step import make_accelerator
from leanformer.learn.train import train
from leanformer.model.surgery import module_at
from leanformer.study import teaching

MakeModel = Callable[..., PreTrainedModel]
Plan = dict[str, Any]

D, HEADS, VOCABULARY, LIMIT = 16, 4, 40, 12  # the first three of ``make_translator``
FF = {"block": "feed_forward", "hidden": 10, "max_length": LIMIT}
MLP = {"block": "mlp", "hidden": 12}
SOME: Plan = {"*.0.*attention": FF, "*.1.mlp": MLP}


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
    """A teacher of each family, which tests must not change."""
    return {family: make_translator(family) for family in ("marian", "bart")}


@pytest.fixture(scope="module")
def opened(teachers: dict[str, PreTrainedModel]) -> PreTrainedModel:
    """The Marian with open layers, which tests must not change."""
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
    """The blocks of a plan as lessons, with weights other than the initial ones."""
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


# Observing a teacher


def attention_by_hand(attention: Any, states: torch.Tensor, source: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """The heads side by side; ``seen`` says which tokens of the source each position may read."""

    def heads(projection: nn.Linear, given: torch.Tensor) -> torch.Tensor:
        return projection(given).unflatten(-1, (HEADS, -1)).transpose(1, 2)

    scores = heads(attention.q_proj, states) @ heads(attention.k_proj, source).transpose(2, 3) / (D // HEADS) ** 0.5
    scores = scores.masked_fill(~seen[:, None], float("-inf"))
    return (scores.softmax(dim=-1) @ heads(attention.v_proj, source)).transpose(1, 2).flatten(2)


@torch.no_grad()
def by_hand(model: Any, batch: Batch, stack: str) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Site of a stack's second layer -> its input and output; ``heads``: its output before the projection."""
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


def test_a_translator_that_is_watched_computes_no_logits(opened: PreTrainedModel) -> None:
    """Logits over a vocabulary of 58,000 would take as long as six and six layers of d = 512."""
    teacher = copied(opened)
    teacher.get_output_embeddings().register_forward_hook(lambda *_: pytest.fail("logits are computed"))
    with Observed(teacher, [("decoder.1.cross_attention", "output")]) as observed:
        observed.read(BATCHES[0])


def test_keyword_arguments_are_seen_alike(opened: PreTrainedModel) -> None:
    """Transformers may call its modules by keyword."""
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


@pytest.mark.parametrize("number", [1, 2])
def test_an_image_classifier_shows_its_parts(make_model: MakeModel, number: int) -> None:
    """All tokens are observed, also in the last layer, where the classifier reads only the class token."""
    teacher = lf.reduce(make_model("vit"), {})
    images = torch.randn(3, 1, 16, 16)
    wanted: list[tuple[str, Target]] = [
        (f"encoder.{number}.self_attention", "heads"),
        (f"encoder.{number}.self_attention", "output"),
        (f"encoder.{number}.mlp", "output"),
        (f"encoder.{number}.layer", "output"),
    ]
    with Observed(teacher, wanted) as observed:
        seen = observed.read({"pixel_values": images, "labels": torch.tensor([0, 1, 2])})
    assert seen.source is seen.source_mask is seen.target_mask is None
    layer: Any = module_at(teacher, f"encoder.{number}.layer")
    with torch.no_grad():
        states = teacher(images, output_hidden_states=True).hidden_states
        projected = layer.self_attention.block.o_proj(seen.targets[f"encoder.{number}.self_attention", "heads"])
        middle = states[number] + projected
        given = layer.mlp.norm(middle)
        after = middle + layer.mlp.block(given)
    normed = layer.self_attention.norm(states[number])
    torch.testing.assert_close(seen.inputs[f"encoder.{number}.self_attention"], normed)
    torch.testing.assert_close(seen.targets[f"encoder.{number}.self_attention", "output"], projected)
    torch.testing.assert_close(seen.inputs[f"encoder.{number}.mlp"], given)
    torch.testing.assert_close(seen.targets[f"encoder.{number}.layer", "output"], after)
    torch.testing.assert_close(after, states[number + 1])


@pytest.mark.parametrize("target", ["output", "heads"])
def test_a_site_that_shows_nothing_is_named(opened: PreTrainedModel, target: Target) -> None:
    teacher = copied(opened)
    before = hooks(teacher)
    sublayer: Any = module_at(teacher, "encoder.1.self_attention_sublayer")
    sublayer.forward = lambda inputs, **_: inputs.hidden_states
    with (
        Observed(teacher, [("encoder.0.self_attention", target), ("encoder.1.self_attention", target)]) as observed,
        pytest.raises(
            lf.LeanformerError, match=r"forward pass does not go through the site encoder\.1\.self_attention$"
        ) as raised,
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
        pytest.raises(
            lf.LeanformerError, match=r"forward pass does not go through the site encoder\.1\.self_attention$"
        ),
    ):
        observed.read(BATCHES[0])


def test_nothing_of_an_earlier_batch_is_seen(opened: PreTrainedModel) -> None:
    teacher = copied(opened)
    sublayer: Any = module_at(teacher, "encoder.1.self_attention_sublayer")
    with Observed(teacher, [("encoder.1.self_attention", "output")]) as observed:
        observed.read(BATCHES[0])
        sublayer.forward = lambda inputs, **_: inputs.hidden_states
        with pytest.raises(lf.LeanformerError, match="forward pass does not go through"):
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
    """1 - R² over all channels, for rows that count."""
    given, target = given.detach().double(), target.detach().double()
    return float(((given - target) ** 2).sum() / ((target - target.mean(dim=0)) ** 2).sum())


def test_the_relative_error_is_what_r2_leaves() -> None:
    given, target = torch.randn(2, 5, 3), torch.randn(2, 5, 3) * 4 + 2
    expected = plain_error(given.flatten(0, 1), target.flatten(0, 1))
    assert float(relative_error(given, target)) == pytest.approx(expected, rel=1e-5)
    assert float(relative_error(target, target)) == 0.0
    mean = target.flatten(0, 1).mean(dim=0).expand_as(target)
    assert float(relative_error(mean, target)) == pytest.approx(1.0, rel=1e-5)


def test_a_target_that_does_not_vary_is_learned_too(make_translator: MakeModel) -> None:
    """For a single position, and for an attention whose values are all 0."""
    assert float(relative_error(torch.zeros(4, 3), torch.zeros(4, 3))) == 0.0
    assert float(relative_error(torch.ones(4, 3), torch.zeros(4, 3))) == 12.0
    assert float(relative_error(torch.zeros(1, 3), torch.ones(1, 3))) == 3.0
    teacher = make_translator()
    with torch.no_grad():
        for parameter in teacher.model.encoder.layers[0].self_attn.v_proj.parameters():
            parameter.zero_()
    records: list[dict[str, float]] = []
    lf.distill(teacher, {"encoder.0.self_attention": FF}, BATCHES, HELD_OUT, TEACH, progress=records.append)
    assert records[-1]["train_loss"] < records[0]["train_loss"]


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
    """A block's outputs and its site's at real positions, with each sentence read alone and without padding."""
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
        assert float(term.detach()) == pytest.approx(expected, rel=1e-4), lesson.key


def test_padding_changes_no_loss(opened: PreTrainedModel) -> None:
    lessons = make_lessons(opened, WIDE)
    other = {name: tensor.clone() for name, tensor in BATCHES[0].items()}
    for name, stack in (("input_ids", "encoder"), ("decoder_input_ids", "decoder")):
        noise = torch.randint(2, VOCABULARY, other[name].shape)
        other[name] = other[name].where(REAL[stack], noise)
        assert not torch.equal(other[name], BATCHES[0][name])
    with observe(opened, lessons) as observed:
        loss = teaching_loss(observed, lessons)
        before = [
            (float(term.detach()), gradients(term, lesson))
            for lesson, term in zip(lessons, loss(None, BATCHES[0]), strict=True)
        ]
        after = [
            (float(term.detach()), gradients(term, lesson))
            for lesson, term in zip(lessons, loss(None, other), strict=True)
        ]
    for (value, given), (other_value, other_given) in zip(before, after, strict=True):
        assert value == pytest.approx(other_value, rel=1e-5)
        torch.testing.assert_close(given, other_given, atol=1e-6, rtol=1e-4)


def gradients(term: torch.Tensor, lesson: Lesson) -> tuple[torch.Tensor, ...]:
    block = lesson.block
    learns = block.taught_parameters() if isinstance(block, BlockModule) else block.parameters()
    return torch.autograd.grad(term, list(learns))


def test_r2_is_that_of_all_held_out_batches_together(opened: PreTrainedModel) -> None:
    lessons = make_lessons(opened, WIDE)
    with observe(opened, lessons) as observed:
        found = explained(observed, lessons, iter(HELD_OUT))
    assert list(found) == [lesson.key for lesson in lessons]
    for lesson in lessons:
        given, shown = zip(*(by_plain_rows(opened, lesson, batch) for batch in HELD_OUT), strict=True)
        assert found[lesson.key] == pytest.approx(1 - plain_error(torch.cat(given), torch.cat(shown)), rel=1e-4)


class Always(nn.Module):
    """Returns the same row for any input."""

    def __init__(self, row: torch.Tensor) -> None:
        super().__init__()
        self.row = row

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.row.expand_as(hidden_states)


@pytest.mark.parametrize("name", ["encoder.1.mlp", "decoder.0.mlp"])
def test_a_perfect_block_explains_all_and_the_mean_nothing(opened: PreTrainedModel, name: str) -> None:
    site = {site.name: site for site in lf.sites(opened)}[name]
    taught = module_at(opened, name)
    assert taught is not None
    perfect = Lesson("perfect", site, copy.deepcopy(taught))
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
    """Batches for ``train``; can raise an error at a given moment."""

    def __init__(
        self, batches: Sequence[Batch], error: BaseException | None = None, at: tuple[int, int] = (0, 0)
    ) -> None:
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
    """An observer that does nothing."""

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


@pytest.mark.long
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


@pytest.mark.parametrize("per_head", [*slow(False), True])
def test_the_kept_projection_never_changes(opened: PreTrainedModel, per_head: bool) -> None:
    lessons = make_lessons(opened, {"*attention": {**FF, "per_head": per_head}})
    assert len(lessons) == 6
    assert {lesson.target for lesson in lessons} == {"heads"}
    for name, parameter in teachable(lessons).named_parameters():
        assert parameter.requires_grad == (".output." not in name), name
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


def test_the_teachers_pass_is_charged_to_all_blocks_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def read(batch: Batch) -> None:
        nonlocal now
        now += 6.0

    def terms(seen: None, lessons: Sequence[float]) -> Iterator[torch.Tensor]:
        nonlocal now
        for seconds in lessons:
            now += seconds
            yield torch.zeros(())

    monkeypatch.setattr(teaching, "time", SimpleNamespace(perf_counter=lambda: now))
    monkeypatch.setattr(teaching, "teaching_terms", terms)
    clock = teaching._Clock(SimpleNamespace(read=read), [1.0, 3.0, 2.0])  # type: ignore[arg-type,list-item]
    assert clock.shares() == [1 / 3] * 3
    for _ in range(2):
        for _ in clock(None, {}):
            now += 1.0  # backward
    assert clock.shares() == pytest.approx([4 / 15, 6 / 15, 5 / 15])


def test_groups_bound_memory_and_keep_order(opened: PreTrainedModel) -> None:
    site = lf.sites(opened)[0]
    lessons = [
        Lesson(str(number), site, nn.Linear(width, 10, bias=False))
        for number, width in enumerate([3, 3, 3, 9, 1, 30, 2])
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


# lf.distill

TEACH = lf.DistillConfig(epochs=3, learning_rate=1e-2)
TUNE = lf.FinetuneConfig(epochs=2, learning_rate=1e-3, logits=0.5, hidden_states=0.5)


@pytest.fixture(scope="module")
def distilled(teachers: dict[str, PreTrainedModel]) -> tuple[PreTrainedModel, list[dict[str, float]]]:
    """A student with blocks at every kind of site, which tests must not change, and the records of its teaching."""
    records: list[dict[str, float]] = []
    torch.manual_seed(123)
    student = lf.distill(teachers["marian"], SOME, BATCHES, HELD_OUT, TEACH, TUNE, 3, progress=records.append)
    return student, records


def test_blocks_learn_what_the_teacher_does(teachers: dict[str, PreTrainedModel]) -> None:
    records: list[dict[str, float]] = []
    batches = [make_batch(seed, (12, 9, 10, 8) * 4, (10, 8, 6, 9) * 4) for seed in range(8)]
    config = lf.DistillConfig(epochs=6, learning_rate=1e-2)
    student = lf.distill(teachers["marian"], SOME, batches, HELD_OUT, config, progress=records.append)
    assert [record["epoch"] for record in records] == [1, 2, 3, 4, 5, 6]
    keys = {f"r2 {name}" for name in student.config.plan}
    assert all(set(record) == {"epoch", "train_loss"} | keys for record in records)
    for key in sorted(keys):
        assert records[-1][key] > records[0][key], key
    assert records[-1]["train_loss"] < 0.8 * records[0]["train_loss"]
    assert hooks(student) == 0


@pytest.mark.long
def test_blocks_learn_a_batch_by_heart(teachers: dict[str, PreTrainedModel]) -> None:
    plan: Plan = {name: {**FF, "hidden": 48} if "attention" in name else {**MLP, "hidden": 48} for name in SOME}
    records: list[dict[str, float]] = []
    config = lf.DistillConfig(epochs=60, learning_rate=1e-2)
    lf.distill(teachers["marian"], plan, BATCHES[:1], BATCHES[:1], config, progress=records.append)
    worst = min(value for key, value in records[-1].items() if key.startswith("r2"))
    assert worst > 0.5


def test_what_is_told_is_what_the_student_does(teachers: dict[str, PreTrainedModel], opened: PreTrainedModel) -> None:
    records: list[dict[str, float]] = []
    student = lf.distill(teachers["marian"], WIDE, BATCHES, HELD_OUT, TEACH, progress=records.append)
    places = {site.name: site for site in lf.sites(student)}
    for name in student.config.plan:
        block = module_at(student, name)
        assert block is not None
        lesson = Lesson(name, places[name], block)
        given, shown = zip(*(by_plain_rows(opened, lesson, batch) for batch in HELD_OUT), strict=True)
        expected = 1 - plain_error(torch.cat(given), torch.cat(shown))
        assert records[-1][f"r2 {name}"] == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_only_new_blocks_learn(teachers: dict[str, PreTrainedModel]) -> None:
    student = lf.distill(teachers["marian"], SOME, BATCHES, teach=TEACH)
    torch.manual_seed(0)
    untaught = weights(lf.reduce(teachers["marian"], SOME))
    changed = {name for name, tensor in weights(student).items() if not torch.equal(tensor, untaught[name])}
    learned = set()
    for name in student.config.plan:
        block = module_at(student, name)
        assert block is not None
        learned |= {id(parameter) for part, parameter in block.named_parameters() if not part.startswith("output.")}
    assert changed == {name for name, parameter in student.named_parameters() if id(parameter) in learned}


def test_the_student_is_a_model_like_any_other(
    teachers: dict[str, PreTrainedModel],
    distilled: tuple[PreTrainedModel, list[dict[str, float]]],
    tmp_path: Path,
) -> None:
    student, records = distilled
    assert [sorted(record)[:2] for record in records[:3]] == [["epoch", "r2 decoder.0.cross_attention"]] * 3
    assert [set(record) for record in records[3:]] == [{"epoch", "train_loss", "validation_loss"}] * 2
    assert not any(module.training for module in student.modules())
    fresh = dict(lf.reduce(teachers["marian"], SOME).named_parameters())
    for name, parameter in student.named_parameters():
        assert parameter.requires_grad == fresh[name].requires_grad, name  # all but Marian's computed positions
        assert parameter.grad is None, name
    lf.save(student, tmp_path)
    loaded = lf.load(tmp_path)
    assert equal(weights(loaded), weights(student))
    words = {name: HELD_OUT[0][name] for name in ("input_ids", "attention_mask")}
    written = student.generate(**words, do_sample=False, max_length=9)
    assert written.shape[0] == 4
    assert loaded.generate(**words, do_sample=False, max_length=9).tolist() == written.tolist()
    assert student.generate(**words, do_sample=False, max_length=9, use_cache=False).tolist() == written.tolist()


@pytest.mark.parametrize("training", [*slow(False), True])
def test_the_teacher_is_left_as_it_was(make_translator: MakeModel, training: bool) -> None:
    teacher = make_translator(dropout=0.1).train(training)
    for parameter in list(teacher.parameters())[::2]:
        parameter.requires_grad_(False)
    learns = [parameter.requires_grad for parameter in teacher.parameters()]
    before, config = weights(teacher), teacher.config.to_dict()
    student = lf.distill(teacher, SOME, BATCHES[:2], HELD_OUT, lf.DistillConfig(epochs=1), TUNE)
    assert equal(weights(teacher), before)
    assert teacher.config.to_dict() == config
    assert all(module.training == training for module in teacher.modules())
    assert [parameter.requires_grad for parameter in teacher.parameters()] == learns
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert hooks(teacher) == 0
    shared = {parameter.data_ptr() for parameter in teacher.parameters()}
    assert not shared & {parameter.data_ptr() for parameter in student.parameters()}
    assert not student.training


def test_a_teacher_in_training_mode_teaches_without_dropout(make_translator: MakeModel) -> None:
    teacher = make_translator(dropout=0.3, activation_dropout=0.3)
    one = lf.distill(teacher, {"encoder.0.self_attention": FF}, BATCHES, teach=TEACH)
    other = lf.distill(teacher.train(), {"encoder.0.self_attention": FF}, BATCHES, teach=TEACH)
    assert equal(weights(one), weights(other))


@pytest.mark.long
def test_a_seed_repeats_a_student(
    teachers: dict[str, PreTrainedModel], distilled: tuple[PreTrainedModel, list[dict[str, float]]]
) -> None:
    torch.manual_seed(321)
    records: list[dict[str, float]] = []
    again = lf.distill(teachers["marian"], SOME, BATCHES, HELD_OUT, TEACH, TUNE, 3, progress=records.append)
    assert equal(weights(again), weights(distilled[0]))
    assert records == distilled[1]
    other = lf.distill(teachers["marian"], SOME, BATCHES, HELD_OUT, TEACH, seed=4)
    assert not equal(weights(other), weights(again))


class Stop:
    """A progress callback that raises after a number of epochs."""

    def __init__(self, epochs: int) -> None:
        self.left = epochs

    def __call__(self, record: dict[str, float]) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


INTERRUPTED: Plan = {"encoder.*.self_attention": FF, "encoder.0.layer": FF, "decoder.1.mlp": MLP}


@pytest.fixture(scope="module")
def uninterrupted(make_translator: MakeModel) -> tuple[PreTrainedModel, PreTrainedModel, list[dict[str, float]]]:
    """A teacher with dropout, its student, and the records of its teaching."""
    teacher = make_translator(dropout=0.1)
    records: list[dict[str, float]] = []
    given = Listed(BATCHES[:4])
    student = lf.distill(teacher, INTERRUPTED, given, HELD_OUT[1:], TEACH, TUNE, progress=records.append)
    return teacher, student, records


def check_it_goes_on(
    uninterrupted: tuple[PreTrainedModel, PreTrainedModel, list[dict[str, float]]], file: Path, epochs: int
) -> None:
    """Distills again from a checkpoint of a number of epochs."""
    teacher, expected, whole = uninterrupted
    records: list[dict[str, float]] = []
    torch.manual_seed(77)
    student = lf.distill(
        teacher,
        INTERRUPTED,
        Listed(BATCHES[:4]),
        HELD_OUT[1:],
        TEACH,
        TUNE,
        checkpoint=file,
        progress=records.append,
    )
    assert equal(weights(student), weights(expected))
    assert records == whole[epochs:]
    for parameter, wanted in zip(student.parameters(), expected.parameters(), strict=True):
        assert parameter.requires_grad == wanted.requires_grad
    assert not list(file.parent.iterdir())


@pytest.mark.parametrize("epochs", [1, *slow(3, 4, 5)])
def test_an_interrupted_distillation_goes_on(
    uninterrupted: tuple[PreTrainedModel, PreTrainedModel, list[dict[str, float]]], tmp_path: Path, epochs: int
) -> None:
    """Interrupted during the three epochs of teaching, after them, during the two of tuning, and after them."""
    file = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        lf.distill(
            uninterrupted[0],
            INTERRUPTED,
            Listed(BATCHES[:4]),
            HELD_OUT[1:],
            TEACH,
            TUNE,
            checkpoint=file,
            progress=Stop(epochs),
        )
    assert list(tmp_path.iterdir())
    check_it_goes_on(uninterrupted, file, epochs)


@pytest.mark.parametrize("at", [pytest.param((0, 3), marks=pytest.mark.long), (2, 1)])
@pytest.mark.parametrize("error", [KeyboardInterrupt, *slow(RuntimeError)])
def test_batches_that_break_off_are_gone_on_with(
    uninterrupted: tuple[PreTrainedModel, PreTrainedModel, list[dict[str, float]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    at: tuple[int, int],
    error: type[BaseException],
) -> None:
    monkeypatch.setattr(loop, "STEPS_BETWEEN_BOUNDARIES", 2)
    if error is RuntimeError:  # only checkpoints of the usual interval exist then
        clock = SimpleNamespace(monotonic=itertools.count(0.0, 31.0).__next__, perf_counter=time.perf_counter)
        monkeypatch.setattr(loop, "time", clock)
    file = tmp_path / "state"
    with pytest.raises(error):
        lf.distill(uninterrupted[0], INTERRUPTED, Listed(BATCHES[:4], error(), at), teach=TEACH, checkpoint=str(file))
    assert file.exists()
    check_it_goes_on(uninterrupted, file, at[0])


@pytest.mark.parametrize(
    ("plan", "batches", "message"),
    [
        (SOME, [], "no batch to learn from"),
        ({"encoder.7.*": FF}, BATCHES, r"plan 'encoder\.7\.\*' matches no site"),
        ({"encoder.0.mlp": FF}, BATCHES, r"cannot stand at encoder\.0\.mlp"),
        ({"encoder.0.layer": {**FF, "max_length": 5}}, BATCHES, r"encoder\.0\.layer: .* reads at most 5 tokens"),
    ],
)
def test_what_cannot_be_distilled_is_named(
    teachers: dict[str, PreTrainedModel], plan: Plan, batches: list[Batch], message: str
) -> None:
    with pytest.raises(lf.LeanformerError, match=message) as raised:
        lf.distill(teachers["marian"], plan, batches)
    assert "\n" not in str(raised.value)


def test_a_loss_that_is_not_finite_is_named(
    teachers: dict[str, PreTrainedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A rate that no configuration may have.
    far = teaching_config(lf.DistillConfig(epochs=1)).model_copy(update={"learning_rate": (1e38,)})
    monkeypatch.setattr("leanformer.learn.distill.teaching_config", lambda teach: far)
    plan: Plan = {"encoder.0.self_attention": FF}
    with pytest.raises(lf.LeanformerError, match="teaching failed: the loss or its gradient was not finite") as raised:
        lf.distill(teachers["marian"], plan, BATCHES)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("plan", [{"decoder.*.mlp": "none"}, *slow({"encoder.*.self_attention": "none"})])
def test_a_plan_with_nothing_to_teach_is_reduced(teachers: dict[str, PreTrainedModel], plan: Plan) -> None:
    student = lf.distill(teachers["marian"], plan, BATCHES, HELD_OUT)
    assert equal(weights(student), weights(lf.reduce(teachers["marian"], plan)))
    tuned = lf.distill(teachers["marian"], plan, BATCHES, HELD_OUT, finetune=TUNE)
    assert not equal(weights(student), weights(tuned))


def test_a_block_without_parameters_stands_beside_taught_ones(
    teachers: dict[str, PreTrainedModel], tmp_path: Path
) -> None:
    records: list[dict[str, float]] = []
    plan: Plan = {"encoder.0.self_attention": "none", "encoder.1.self_attention": "average"}
    student = lf.distill(teachers["marian"], plan, BATCHES, HELD_OUT, TEACH, progress=records.append)
    assert {key for key in records[-1] if key.startswith("r2")} == {"r2 encoder.1.self_attention"}
    assert lf.sites(student)[0].parameters == 0
    lf.save(student, tmp_path)
    assert equal(weights(lf.load(tmp_path)), weights(student))


def test_a_student_teaches_a_student(teachers: dict[str, PreTrainedModel]) -> None:
    """The teacher's own blocks keep their weights."""
    first = lf.distill(teachers["marian"], {"encoder.*.self_attention": FF}, BATCHES, teach=TEACH)
    records: list[dict[str, float]] = []
    plan: Plan = {"decoder.*.cross_attention": FF, "encoder.1.layer": FF}
    second = lf.distill(first, plan, BATCHES, HELD_OUT, TEACH, progress=records.append)
    assert set(second.config.plan) == {
        "encoder.0.self_attention",
        "encoder.1.layer",
        "decoder.0.cross_attention",
        "decoder.1.cross_attention",
    }
    assert {key for key in records[0] if key.startswith("r2")} == {
        f"r2 {name}" for name in set(second.config.plan) - {"encoder.0.self_attention"}
    }
    kept = [module_at(model, "encoder.0.self_attention") for model in (first, second)]
    assert kept[0] is not None
    assert kept[1] is not None
    assert equal(weights(kept[0]), weights(kept[1]))


@pytest.mark.parametrize("per_head", [False, *slow(True)])
def test_an_image_classifier_is_distilled(make_model: MakeModel, tmp_path: Path, per_head: bool) -> None:
    teacher = make_model("vit")
    before = weights(teacher)
    plan: Plan = {
        "*.self_attention": {"block": "feed_forward", "hidden": 16, "max_length": 17, "per_head": per_head},
        "*.mlp": {"block": "mlp", "hidden": 24},
    }
    images = torch.randn(5, 16, 1, 16, 16)
    batches = [{"pixel_values": each, "labels": torch.randint(0, 5, (16,))} for each in images]
    records: list[dict[str, float]] = []
    config = lf.DistillConfig(epochs=5, learning_rate=1e-2)
    student = lf.distill(teacher, plan, batches[:4], batches[4:], config, TUNE, progress=records.append)
    assert len(records) == 7
    keys = [f"r2 {name}" for name in student.config.plan]
    assert len(keys) == 6
    for key in keys:
        assert records[4][key] > records[0][key], key
    assert records[6]["validation_loss"] > 0
    assert equal(weights(teacher), before)
    assert not student.training
    assert all(parameter.requires_grad for parameter in student.parameters())
    lf.save(student, tmp_path)
    loaded = lf.load(tmp_path)
    with torch.no_grad():
        assert torch.equal(loaded(images[4]).logits, student(images[4]).logits)
    mlp: Any = module_at(student, "encoder.0.mlp")
    assert mlp.fc1.out_features == 24


# Tuning the whole


def terms_of(student: Any, teacher: Any, batch: Batch, label_smoothing: float = 0.0, **settings: float) -> torch.Tensor:
    """The tuning loss with one term."""
    config = lf.FinetuneConfig(**{"cross_entropy": 0.0, "logits": 0.0, **settings})  # type: ignore[arg-type]
    (term,) = list(tuning_loss(teacher, config, label_smoothing)(student, batch))
    return term


class Mute:
    """A teacher that must not be called."""

    def __call__(self, **_: Any) -> None:
        raise AssertionError("the teacher was asked")


@pytest.fixture(scope="module")
def student(teachers: dict[str, PreTrainedModel]) -> PreTrainedModel:
    """A student without teaching, which tests must not change."""
    torch.manual_seed(0)
    return lf.reduce(teachers["marian"], SOME)


@torch.no_grad()
def outputs_of(model: Any, batch: Batch) -> Any:
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    return model(**inputs, output_hidden_states=True)


def test_cross_entropy_leaves_padding_out_and_asks_no_teacher(student: PreTrainedModel) -> None:
    batch = BATCHES[0]
    logits = outputs_of(student, batch).logits
    for smoothing in (0.0, 0.1):
        expected = F.cross_entropy(logits[REAL["decoder"]], batch["labels"][REAL["decoder"]], label_smoothing=smoothing)
        for teacher in (None, Mute()):
            found = terms_of(student, teacher, batch, smoothing, cross_entropy=2.0)
            assert float(found.detach()) == pytest.approx(2 * float(expected), rel=1e-5)
    whole = F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=-100)
    assert float(terms_of(student, None, batch, cross_entropy=1.0).detach()) == pytest.approx(float(whole), rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_the_divergence_is_kullback_and_leiblers(temperature: float) -> None:
    given, wanted = torch.randn(5, 7) * 3, torch.randn(5, 7) * 3
    q, p = (torch.softmax(logits.double() / temperature, dim=1) for logits in (given, wanted))
    expected = (p * (p / q).log()).sum(dim=1).mean()
    found = divergence(given, wanted, temperature)
    assert float(found) == pytest.approx(float(expected) * temperature**2, rel=1e-5)
    assert float(divergence(wanted, given, temperature)) != pytest.approx(float(found), rel=1e-2)
    assert float(divergence(wanted, wanted, temperature)) == 0.0


def test_a_subword_that_is_gone_counts_as_what_it_begins_with() -> None:
    probabilities = torch.tensor([[0.1, 0.2, 0.3, 0.15, 0.25], [0.0, 1.0, 0.0, 0.0, 0.0]])
    heads = torch.tensor([0, 2, 1, 0, 3])  # the last one begins with nothing that is left
    found = with_fewer_subwords(probabilities.log().clamp_min(-200), heads, 3)
    assert torch.allclose(found.exp(), torch.tensor([[0.25, 0.3, 0.2], [0.0, 0.0, 1.0]]), atol=1e-6)
    assert found.isfinite().all()


def test_a_teacher_of_more_subwords_reads_its_own(
    opened: PreTrainedModel, teachers: dict[str, PreTrainedModel]
) -> None:
    """The terms of a batch with all that the teacher reads, by hand from its outputs at the aligned positions."""
    ids = [0, 1, 2, 3, 5, 8, 4, 6]
    student = copied(lf.reduce(teachers["marian"], {"target_vocabulary": {"ids": ids}}))
    words = opened.config.decoder_vocab_size or opened.config.vocab_size
    heads = torch.tensor([ids.index(one) if one in ids else one % 8 for one in range(words)])
    heads[-1] = 8
    batch = {
        "input_ids": torch.tensor([[3, 5, 7, 0], [4, 6, 0, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
        "decoder_input_ids": torch.tensor([[0, 4, 3, 5], [0, 6, 0, 0]]),
        "labels": torch.tensor([[4, 3, 5, 0], [6, 0, -100, -100]]),
        "teacher_input_ids": torch.tensor([[3, 5, 7, 0], [4, 6, 0, 0]]),
        "teacher_decoder_input_ids": torch.tensor([[0, 9, 8], [0, 4, 0]]),
        "teacher_places": torch.tensor([[0, -1, 1, 2], [0, 1, -1, -1]]),
        "teacher_heads": heads,
    }
    own = {name: batch[name] for name in ("input_ids", "attention_mask", "decoder_input_ids")}
    others = {"attention_mask": batch["attention_mask"]} | {
        name: batch[f"teacher_{name}"] for name in ("input_ids", "decoder_input_ids")
    }
    with torch.no_grad():
        given, wanted = student(**own, output_hidden_states=True), opened(**others, output_hidden_states=True)
    places = [(0, 0, 0), (0, 2, 1), (0, 3, 2), (1, 0, 0), (1, 1, 1)]
    logits = torch.stack([given.logits[row, place] for row, place, _ in places])
    target = torch.stack([wanted.logits[row, place] for row, _, place in places])
    expected = divergence(logits, with_fewer_subwords(target, heads, 8), 2.0)
    assert float(terms_of(student, opened, batch, logits=1.0, temperature=2.0).detach()) == pytest.approx(
        float(expected), rel=1e-5
    )
    errors = []
    for layer in range(1, len(given.decoder_hidden_states)):
        errors.append(
            plain_error(
                torch.stack([given.decoder_hidden_states[layer][row, place] for row, place, _ in places]),
                torch.stack([wanted.decoder_hidden_states[layer][row, place] for row, _, place in places]),
            )
        )
    mean = sum(errors) / (2 * len(errors))  # the encoders are alike
    assert float(terms_of(student, opened, batch, hidden_states=1.0).detach()) == pytest.approx(mean, rel=1e-4)


def test_the_terms_are_weighed(student: PreTrainedModel, opened: PreTrainedModel) -> None:
    batch = BATCHES[1]
    given, wanted = outputs_of(student, batch), outputs_of(opened, batch)
    crossed = float(terms_of(student, Mute(), batch, cross_entropy=1.0).detach())
    counts = batch["labels"] != -100
    diverged = float(divergence(given.logits[counts], wanted.logits[counts], 3.0))
    real = {"encoder": batch["attention_mask"] == 1, "decoder": batch["labels"] != -100}
    errors = [
        plain_error(given[f"{stack}_hidden_states"][layer][mask], wanted[f"{stack}_hidden_states"][layer][mask])
        for stack, mask in real.items()
        for layer in (1, 2)
    ]
    hidden = sum(errors) / 4
    assert float(terms_of(student, opened, batch, logits=0.7, temperature=3.0).detach()) == pytest.approx(
        0.7 * diverged, rel=1e-5
    )
    assert float(terms_of(student, opened, batch, hidden_states=0.3).detach()) == pytest.approx(0.3 * hidden, rel=1e-4)
    every = terms_of(student, opened, batch, cross_entropy=1.5, logits=0.7, temperature=3.0, hidden_states=0.3)
    assert float(every.detach()) == pytest.approx(1.5 * crossed + 0.7 * diverged + 0.3 * hidden, rel=1e-4)


def test_nothing_is_asked_of_the_teacher_itself(opened: PreTrainedModel) -> None:
    itself = copied(opened).requires_grad_(True)
    for batch in (BATCHES[0], HELD_OUT[2]):
        assert float(terms_of(itself, opened, batch, logits=1.0).detach()) == 0.0
        assert float(terms_of(itself, opened, batch, hidden_states=1.0).detach()) == 0.0


def test_padding_changes_no_tuning(student: PreTrainedModel, opened: PreTrainedModel) -> None:
    other = {name: tensor.clone() for name, tensor in BATCHES[0].items()}
    for name, stack in (("input_ids", "encoder"), ("decoder_input_ids", "decoder")):
        other[name] = other[name].where(REAL[stack], 7)
    settings = {"cross_entropy": 1.0, "logits": 1.0, "hidden_states": 1.0}
    expected = float(terms_of(student, opened, BATCHES[0], **settings).detach())
    assert float(terms_of(student, opened, other, **settings).detach()) == pytest.approx(expected, rel=1e-5)


def test_tuning_leaves_the_teacher_out_of_the_gradient(
    student: PreTrainedModel, teachers: dict[str, PreTrainedModel]
) -> None:
    learns = copied(student)
    teacher = lf.reduce(teachers["marian"], {})
    terms_of(learns, teacher, BATCHES[0], cross_entropy=1.0, logits=1.0, hidden_states=1.0).backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(parameter.grad is not None for parameter in learns.parameters() if parameter.requires_grad)


def test_hidden_states_of_an_image_classifier(make_model: MakeModel) -> None:
    teacher = make_model("vit")
    opened = frozen_copy(lf.reduce(teacher, {}))
    batch = {"pixel_values": torch.randn(4, 1, 16, 16), "labels": torch.tensor([0, 1, 2, 3])}
    assert float(terms_of(copied(opened), opened, batch, hidden_states=1.0, logits=1.0).detach()) == 0.0
    student = lf.reduce(teacher, {"*.mlp": MLP})
    given, wanted = outputs_of(student, batch).hidden_states, outputs_of(opened, batch).hidden_states
    errors = [plain_error(given[layer].flatten(0, 1), wanted[layer].flatten(0, 1)) for layer in (1, 2, 3)]
    found = terms_of(student, opened, batch, hidden_states=1.0)
    assert float(found.detach()) == pytest.approx(sum(errors) / 3, rel=1e-5)


@pytest.mark.parametrize(
    ("attention", "message"),
    [
        ({"block": "feed_forward", "max_length": 17}, "encoder.0.self_attention learns by position"),
        (
            {"block": "mixer", "positions": "grid"},
            "the mixer at encoder.0.self_attention .* special_tokens",
        ),
        ("minimal_attention", "finetune.hidden_states compares tokens"),
    ],
)
def test_tokens_that_only_the_teacher_has_are_an_error_at_once(
    make_model: MakeModel, attention: Any, message: str
) -> None:
    batch = {"pixel_values": torch.randn(4, 1, 16, 16), "labels": torch.tensor([0, 1, 2, 3])}
    plan = {"*.self_attention": attention, "pooling": "mean"}
    tuning = lf.FinetuneConfig(epochs=1, hidden_states=1.0)
    with pytest.raises(lf.LeanformerError, match=message) as raised:
        lf.distill(make_model("vit"), plan, [batch], finetune=tuning)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("form", [{}, {"positions": "grid", "special_tokens": 1}])
def test_distances_are_the_same_without_the_class_token(make_model: MakeModel, form: dict[str, Any]) -> None:
    batch = {"pixel_values": torch.randn(4, 1, 16, 16), "labels": torch.tensor([0, 1, 2, 3])}
    plan: Plan = {"*.self_attention": {"block": "mixer", **form}, "pooling": "mean"}
    records: list[dict[str, float]] = []
    teach = lf.DistillConfig(epochs=8, learning_rate=1e-2)
    student = lf.distill(make_model("vit"), plan, [batch], [batch], teach, progress=records.append)
    for layer in range(3):
        assert records[-1][f"r2 encoder.{layer}.self_attention"] > records[0][f"r2 encoder.{layer}.self_attention"]
    assert student(pixel_values=batch["pixel_values"]).logits.isfinite().all()


def test_batches_without_labels_are_an_error(make_model: MakeModel) -> None:
    with pytest.raises(lf.LeanformerError, match="batches: batch 0 has no 'labels'"):
        lf.distill(make_model("vit"), {"*.mlp": MLP}, iter([{"pixel_values": torch.randn(4, 1, 16, 16)}]))

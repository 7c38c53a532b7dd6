"""The benchmarks against other libraries: both sides do the same work."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import slow
from transformers import PreTrainedModel

import leanformer as lf
from benchmarks.__main__ import main
from benchmarks.kit import profiling
from benchmarks.kit.benchmark import CPU, parse
from benchmarks.kit.forms import TINY_TEXT, vit_config
from benchmarks.kit.processes import here, in_new_process
from benchmarks.peers import pruning as peers_pruning
from benchmarks.peers import teaching as peers_teaching
from benchmarks.peers import trainer
from benchmarks.peers import training as peers_training
from benchmarks.peers import translation as peers_translation
from benchmarks.speed import growth
from leanformer.config.images import ImageDataConfig, ImageTrainConfig
from leanformer.config.translation import TranslationTrainConfig
from leanformer.data.image_batches import ImageBatches
from leanformer.data.images import load_images
from leanformer.learn.step import TrainingStep, make_accelerator
from leanformer.model.baseline import fresh_model
from leanformer.model.plan import Plan
from leanformer.model.weights import parameter_count


@pytest.fixture(scope="module")
def batches() -> ImageBatches:
    data = load_images(ImageDataConfig(image_size=28, train_limit=96), CPU)
    return ImageBatches(data, 32, (), data.mean, data.std)


@pytest.fixture
def vit() -> PreTrainedModel:
    torch.manual_seed(0)
    return fresh_model("vit", vit_config(d_model=16, layers=2))


@pytest.fixture(scope="module")
def teacher() -> PreTrainedModel:
    """A translator that has begun to learn to copy, whose padding is a subword like others."""
    torch.manual_seed(0)
    shape = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
    marks = {"pad_token_id": 2, "decoder_start_token_id": 2, "eos_token_id": 0, "bos_token_id": 0}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    sizes = {"vocab_size": 50, "decoder_vocab_size": 50, "max_position_embeddings": 64, "init_std": 0.2}
    others = {"scale_embedding": True, "activation_function": "relu", "forced_eos_token_id": None}
    model: Any = fresh_model("marian", {**shape, **marks, **heads, **sizes, **others})
    with torch.no_grad():
        model.model.shared.weight[2].normal_(std=0.2)
    step = TrainingStep(model.train(), TranslationTrainConfig(), 3e-3, make_accelerator("float32", CPU))
    for _ in range(200):
        ids = torch.randint(3, 50, (32, 6))
        ids[:, -1] = 0
        start = torch.full((32, 1), 2)
        step({"input_ids": ids, "decoder_input_ids": torch.cat((start, ids[:, :-1]), dim=1), "labels": ids})
    return model.eval()


SOURCES = [[3 + (number * step) % 47 for number in range(length)] + [0] for step, length in enumerate(range(2, 14), 1)]


def answers(way: peers_translation.Way) -> peers_translation.Ids:
    return peers_translation.run_all(way, peers_translation.cut(SOURCES, 5))


# Another library that is missing


@pytest.mark.parametrize(("name", "module"), [("peers_translation", "ctranslate2"), ("peers_pruning", "torch_pruning")])
def test_a_missing_library(
    name: str, module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert main([name, "--quick"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert module.replace("_", "-") in error
    assert "pip install -c constraints.txt -e '.[bench]'" in error


# Both sides do the same work


@pytest.mark.parametrize("tokens", [*slow(None), 7])
def test_ctranslate2_writes_what_generate_writes(
    tokens: int | None, teacher: PreTrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ctranslate2")
    monkeypatch.setattr(peers_translation, "MOST_TOKENS", 20)
    wanted = answers(peers_translation.generating(teacher, tokens))
    peers_translation.convert(teacher, tmp_path / "float32", "float32")
    assert answers(peers_translation.ctranslating(tmp_path / "float32", "float32", tokens)) == wanted
    assert len({tuple(ids) for ids in wanted}) > len(SOURCES) / 2
    if tokens is None:
        assert min(map(len, wanted)) < 20  # some end by themselves
    else:
        assert {len(ids) for ids in wanted} == {tokens}


def test_int8_is_smaller_and_near(teacher: PreTrainedModel, tmp_path: Path) -> None:
    pytest.importorskip("ctranslate2")
    sizes = {}
    for quantization in peers_translation.QUANTIZATIONS:
        peers_translation.convert(teacher, tmp_path / quantization, quantization)
        sizes[quantization] = (tmp_path / quantization / "model.bin").stat().st_size
    assert sizes["int8"] < sizes["float32"] / 2
    first = [ids[0] for ids in answers(peers_translation.ctranslating(tmp_path / "int8", "int8", 1))]
    wanted = [ids[0] for ids in answers(peers_translation.generating(teacher, 1))]
    # Of 50 subwords; how far the teacher has come depends on how its training rounds on the machine.
    assert sum(a == b for a, b in zip(first, wanted, strict=True)) > len(wanted) / 4


def test_only_a_marian_teacher_is_converted(vit: PreTrainedModel, tmp_path: Path) -> None:
    with pytest.raises(lf.LeanformerError, match="the first model is of type vit"):
        peers_translation.convert(vit, tmp_path / "converted", "float32")


def test_trainer_on_ready_batches_ends_with_the_same_weights(
    batches: ImageBatches, vit: PreTrainedModel, tmp_path: Path
) -> None:
    other = copy.deepcopy(vit)
    step = TrainingStep(vit.train(), ImageTrainConfig(), trainer.RATE, make_accelerator("float32", CPU))
    assert len(peers_training.own_steps(step, batches, 3)) == 3
    step.close()
    ends = trainer.train_steps(other, trainer.ReadyBatches(batches), 32, 3, tmp_path)
    assert len(ends) == 3
    torch.testing.assert_close(dict(other.named_parameters()), dict(vit.named_parameters()))


def test_trainer_on_single_images(batches: ImageBatches, vit: PreTrainedModel, tmp_path: Path) -> None:
    images = trainer.Images(batches, batches.data.train)
    (whole,) = batches.chosen(batches.data.train, torch.arange(len(images)))
    torch.testing.assert_close(images[5]["pixel_values"], whole["pixel_values"][5])
    assert images[5]["labels"] == whole["labels"][5]
    before = copy.deepcopy(vit.state_dict())
    assert len(trainer.train_steps(vit, images, 32, 4, tmp_path)) == 4  # one more than an epoch has
    assert not torch.equal(vit.state_dict()["classifier.weight"], before["classifier.weight"])


@pytest.mark.long
def test_both_orders_of_teaching_end_with_the_same_blocks(tmp_path: Path) -> None:
    overrides = [*TINY_TEXT, "data.train_limit=24", "train.batch_tokens=96"]
    together, alone = (peers_teaching.Job.make(overrides, ["XS", "S"]) for _ in range(2))
    untaught = copy.deepcopy(alone.lessons)
    peers_teaching.teach_at_once(together, epochs=2)
    peers_teaching.extract(alone, tmp_path)
    for lesson in alone.lessons:
        peers_teaching.teach_alone(lesson, tmp_path, len(alone.batches), epochs=2)
    assert len(alone.batches) > 1
    assert len(alone.lessons) == 6
    for one, other, before in zip(together.lessons, alone.lessons, untaught, strict=True):
        torch.testing.assert_close(one.block.state_dict(), other.block.state_dict())
        assert any(
            not torch.equal(a, b) for a, b in zip(one.block.parameters(), before.block.parameters(), strict=True)
        )


# Pruning


@pytest.mark.parametrize("way", peers_pruning.STRUCTURED)
def test_channels_are_pruned_to_fit(way: str, vit: PreTrainedModel) -> None:
    pytest.importorskip("torch_pruning")
    whole = parameter_count(vit)
    pruned = peers_pruning.prune_channels(vit, whole // 2, **peers_pruning.STRUCTURED[way])
    assert whole // 4 < parameter_count(pruned) <= whole // 2
    assert parameter_count(vit) == whole
    logits = pruned(torch.randn(3, 1, 28, 28)).logits
    assert logits.shape == (3, 10)
    logits.sum().backward()


@pytest.mark.parametrize("options", [[], ["--quick"]])
def test_the_study_of_pruning_is_one(options: list[str]) -> None:
    arguments = parse(peers_pruning.BENCHMARK, options)
    searched = lf.make_study(peers_pruning.study(arguments)).train.search_epochs
    assert (searched is None) == (len(arguments.rates) == 1)


def test_pruned_weights_stay_zero(batches: ImageBatches, vit: PreTrainedModel) -> None:
    for parameter in vit.parameters():  # zeros of its own, in biases, would be counted as pruned
        torch.nn.init.normal_(parameter, std=0.1)
    whole = parameter_count(vit)
    pruned = peers_pruning.prune_weights(vit, whole // 2)
    assert peers_pruning.numbers_left(vit) == whole
    assert peers_pruning.numbers_left(pruned) == whole // 2
    kept = pruned.vit.layers[0].mlp.fc1.weight.detach() != 0
    largest = vit.vit.layers[0].mlp.fc1.weight.detach().abs()
    assert largest[kept].min() > largest[~kept].max()
    step = TrainingStep(pruned.train(), ImageTrainConfig(), 1e-2, make_accelerator("float32", CPU))
    before = pruned.vit.layers[0].mlp.fc1.weight.detach().clone()
    for batch in batches.training(seed=0, epoch=0):
        step(batch)
    after = pruned.vit.layers[0].mlp.fc1.weight.detach()
    assert not after[~kept].any()
    assert (after[kept] != before[kept]).float().mean() > 0.9


# Shares, curves and memory


def test_shares_of_a_translation(teacher: PreTrainedModel) -> None:
    action = lambda: answers(peers_translation.generating(teacher, 5))  # noqa: E731
    for shares in (peers_translation.time_by_part(teacher, action, 2), profiling.time_by_kind(action)):
        assert sum(shares.values()) == pytest.approx(1)
        assert min(shares.values()) >= 0
    assert not teacher._forward_hooks
    kinds = profiling.time_by_kind(action)
    assert kinds["products"] > 0
    assert kinds["layer norms"] > 0
    assert kinds[profiling.AROUND] > 0


def test_bend() -> None:
    rows = [{"seconds": seconds, "work": work} for seconds, work in ((1.0, 1.0), (1.6, 2.0), (4.8, 4.0))]
    assert growth.bend(rows) == pytest.approx(1.5)  # 1.2 seconds a unit, against 0.8
    assert growth.bend(rows[:1]) == 1


def test_how_far_rounds_are_apart_is_said() -> None:
    rows = [{"rounds": [1.0, 1.5, 1.2]}, {"rounds": [4.0, 2.0]}, {"rounds": [3.0]}]
    assert growth.farthest_rounds({"rows": rows}) == 2
    dense, row = {"speed": 1.0, "rounds": [4.0, 3.0]}, {"speed": 1.7, "rounds": [2.0, 2.0]}
    assert peers_pruning.speed_of(dense, dense) == "1.00 x"
    assert peers_pruning.speed_of(row, dense) == "1.70 x (1.5 to 2.0)"


@pytest.mark.long
def test_memory_of_a_new_process() -> None:
    large = bytes(range(250)) * 1_600_000  # this process's memory is none of the other's
    size, memory = in_new_process(eval, "len(bytes(range(250)) * 400_000)")  # what takes no import of this file
    assert size == 100_000_000
    assert memory is None or 95 <= memory < 150
    assert len(large) == 400_000_000
    assert here(len, large, imports=("no.such.module",)) == (len(large), None)


@pytest.mark.parametrize("plan", peers_training.FORMS.values(), ids=peers_training.FORMS)
def test_every_form_of_the_study_can_be_made(plan: Plan) -> None:
    vit = fresh_model("vit", vit_config())
    form = lf.reduce(vit, plan)
    assert form(torch.zeros(1, 1, 28, 28)).logits.shape == (1, 10)
    assert parameter_count(form) < parameter_count(vit)

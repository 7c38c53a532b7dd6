"""Training with torch.compile: the same results, for all forms of a study, and a one-line error where it fails."""

from __future__ import annotations

import copy
import shutil
from functools import partial
from typing import Any

import pytest
import torch
import torch._dynamo as dynamo
from cases import slow
from torch._inductor import config as inductor
from transformers import PreTrainedModel

import leanformer as lf
from leanformer.config.images import ImageTrainConfig
from leanformer.config.translation import TranslationTrainConfig
from leanformer.core.errors import LeanformerError
from leanformer.learn.losses import Batch
from leanformer.learn.step import TrainingStep, make_accelerator
from leanformer.model.baseline import fresh_model

CPU = torch.device("cpu")
EXTREME: dict[str, Any] = {"*.self_attention": {"block": "minimal_attention", "vo": "none"}, "*.mlp": "none"}


def image_model(width: int = 16) -> PreTrainedModel:
    torch.manual_seed(0)
    settings = {"hidden_size": width, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    return fresh_model("vit", {**settings, "patch_size": 4, "image_size": 8, "num_channels": 1, "num_labels": 10})


def image_batch() -> Batch:
    torch.manual_seed(1)
    return {"pixel_values": torch.randn(6, 1, 8, 8), "labels": torch.randint(10, (6,))}


def step_of(model: PreTrainedModel, compile: bool, precision: str = "float32") -> TrainingStep:
    config = ImageTrainConfig(compile=compile)
    return TrainingStep(model.train(), config, 1e-2, make_accelerator(precision, CPU))


@pytest.fixture
def only_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile with a quick backend that changes nothing, and refuses models that are not one graph."""
    real = torch.compile

    def traced(model: Any, dynamic: bool, options: object) -> Any:
        return real(model, dynamic=dynamic, backend="eager", fullgraph=True)

    monkeypatch.setattr(torch, "compile", traced)
    dynamo.reset()


def graphs() -> int:
    """The number of graphs that were compiled so far."""
    return int(dynamo.utils.counters["stats"]["unique_graphs"])


@pytest.mark.long  # compiles
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_a_compiled_training_is_the_training() -> None:
    plain = lf.reduce(image_model(), EXTREME)
    compiled = copy.deepcopy(plain)
    steps = [step_of(model, compile) for model, compile in ((plain, False), (compiled, True))]
    before = graphs()
    for _ in range(3):
        losses = [step(image_batch()) for step in steps]
        torch.testing.assert_close(losses[1], losses[0], rtol=1e-4, atol=1e-5)
    assert graphs() == before + 1  # one graph, not one for each step
    for name, weight in plain.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[name], weight, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "block",
    [
        {"block": "minimal_attention", "qk": "symmetric", "diagonal_value": True, "temperature": True, "qk_norm": True},
        *slow(
            {"block": "mixer", "positions": "grid", "special_tokens": 1},
            {"block": "feed_forward", "size": "XS", "max_length": 5},
            {"block": "slots", "slots": 4},
            {"block": "synthesizer", "max_length": 5},
            {"block": "linear_attention"},
        ),
    ],
    ids=lambda block: str(block["block"]),
)
@pytest.mark.usefixtures("only_traced")
def test_every_form_is_one_graph(block: dict[str, Any]) -> None:
    before = graphs()
    step_of(lf.reduce(image_model(), {"*.self_attention": block}), True)(image_batch())
    assert graphs() == before + 1


@pytest.mark.long
@pytest.mark.usefixtures("only_traced")
@pytest.mark.parametrize("limit", ["recompile_limit", *slow("accumulated_recompile_limit")])
def test_more_forms_are_compiled_than_pytorch_would(limit: str) -> None:
    with dynamo.config.patch({limit: 2, "fail_on_recompile_limit_hit": True}):
        kept = [step_of(lf.reduce(image_model(width), EXTREME), True) for width in (8, 16, 24)]
        for step in kept:
            step(image_batch())


@pytest.mark.usefixtures("only_traced", "fresh_accelerate")
@pytest.mark.parametrize("precision", ["float32", *slow("bfloat16")])
def test_a_second_seed_finds_it_compiled(precision: str) -> None:
    before = graphs()
    for _ in range(2):
        step = step_of(lf.reduce(image_model(), EXTREME), True, precision)
        assert step(image_batch()).isfinite()
        step.close()
        assert graphs() == before + 1


@pytest.mark.usefixtures("only_traced")
@pytest.mark.long
def test_batches_of_text_of_other_shapes_are_not_compiled_anew() -> None:
    settings = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 20, "pad_token_id": 0}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8}
    model = fresh_model("marian", {**settings, **heads, "eos_token_id": 1, "decoder_start_token_id": 0})
    step = TrainingStep(
        lf.reduce(model, {"*.cross_attention": {"block": "slots", "slots": 4}}).train(),
        TranslationTrainConfig(compile=True),
        1e-3,
        make_accelerator("float32", CPU),
    )
    before = graphs()
    for sentences, source, target in ((6, 6, 6), (4, 9, 11), (3, 5, 4)):
        tokens = partial(torch.randint, 2, 20)
        step(
            {
                "input_ids": tokens((sentences, source)),
                "attention_mask": torch.ones(sentences, source, dtype=torch.long),
                "decoder_input_ids": tokens((sentences, target)),
                "labels": tokens((sentences, target)),
            }
        )
    assert graphs() == before + 1


def test_without_a_compiler_there_is_one_line() -> None:
    dynamo.reset()
    with (
        inductor.patch({"cpp.cxx": (None, "no-such-compiler"), "force_disable_caches": True}),
        pytest.raises(
            LeanformerError, match=r"train.compile: PyTorch cannot compile .*no-such-compiler.*false"
        ) as told,
    ):
        step_of(lf.reduce(image_model(24), EXTREME), True)(image_batch())
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "block",
    [{"block": "minimal_attention"}, *slow({"block": "mixer", "positions": "grid"}, {"block": "slots", "slots": 4})],
    ids=lambda block: str(block["block"]),
)
def test_a_student_can_be_exported(block: dict[str, Any]) -> None:
    """Tracing goes through blocks, because their inputs are plain tensors."""
    student = lf.reduce(image_model(), {"*.self_attention": block}).eval()
    pixels = image_batch()["pixel_values"]
    exported = torch.export.export(student, (pixels,)).module()
    torch.testing.assert_close(exported(pixels).logits, student(pixels).logits)

"""One training step: clipping for every way of computing the gradient, and the model after ``close``."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from leanformer.config.images import ImageTrainConfig
from leanformer.learn.batched import StackedStep
from leanformer.learn.losses import Batch, Loss, cross_entropy
from leanformer.learn.step import TrainingStep, make_accelerator
from leanformer.model.baseline import fresh_model

CPU = torch.device("cpu")


def make(seed: int = 0) -> PreTrainedModel:
    torch.manual_seed(seed)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    return fresh_model("vit", {**shape, "patch_size": 4, "image_size": 8, "num_channels": 1, "num_labels": 10}).train()


def make_batch(seed: int = 1) -> Batch:
    torch.manual_seed(seed)
    return {"pixel_values": torch.randn(6, 1, 8, 8), "labels": torch.arange(6)}


def in_two_terms(model: Any, batch: Batch) -> Iterator[Tensor]:
    """The mean over the batch as two terms, one for each half."""
    for half in (slice(0, 3), slice(3, 6)):
        yield cross_entropy(model(pixel_values=batch["pixel_values"][half]).logits, batch["labels"][half]) / 2


def learned_from(clip_norm: float | None, precision: str = "float32", loss: Loss | None = None) -> list[Tensor]:
    """The gradient of each weight that the optimizer gets in the first step."""
    model = make()
    step = TrainingStep(model, ImageTrainConfig(clip_norm=clip_norm), 1e-3, make_accelerator(precision, CPU), loss)
    seen: list[Tensor] = []

    def note(*_: Any) -> None:
        seen.extend(weight.grad.clone() for weight in model.parameters() if weight.grad is not None)

    step.optimizer.register_step_pre_hook(note)
    assert step(make_batch()).isfinite()
    step.close()
    return seen


def norm_of(gradients: list[Tensor]) -> float:
    """The norm of all gradients together."""
    return float(torch.stack([gradient.norm() for gradient in gradients]).norm())


LOSSES = pytest.mark.parametrize("loss", [None, in_two_terms], ids=["one term", "two terms"])
PRECISIONS = pytest.mark.parametrize("precision", ["float32", "bfloat16"])


@pytest.mark.usefixtures("fresh_accelerate")
@PRECISIONS
@LOSSES
def test_gradients_are_clipped_to_the_norm(precision: str, loss: Loss | None) -> None:
    whole = learned_from(None, precision, loss)
    norm = norm_of(whole)
    assert norm > 0.5
    clipped = learned_from(norm / 4, precision, loss)
    assert norm_of(clipped) == pytest.approx(norm / 4, rel=1e-4)
    for given, gradient in zip(clipped, whole, strict=True):  # all by the same factor
        torch.testing.assert_close(given, gradient / 4, rtol=1e-3, atol=1e-6)


@pytest.mark.usefixtures("fresh_accelerate")
@PRECISIONS
@LOSSES
def test_gradients_within_the_norm_are_left_as_they_are(precision: str, loss: Loss | None) -> None:
    whole = learned_from(None, precision, loss)
    within = learned_from(norm_of(whole) * 1.01, precision, loss)
    assert all(torch.equal(given, gradient) for given, gradient in zip(within, whole, strict=True))


def test_terms_are_clipped_as_their_sum() -> None:
    """Each term is differentiated by itself; the norm is that of all terms together."""
    for given, gradient in zip(learned_from(0.1, loss=in_two_terms), learned_from(0.1), strict=True):
        torch.testing.assert_close(given, gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("clip_norm", [0.1, None])
def test_models_trained_as_one_are_clipped_each_by_its_own_norm(clip_norm: float | None) -> None:
    models = [make(seed) for seed in range(3)]
    with torch.no_grad():
        models[1].classifier.weight *= 20  # its gradient is the largest by far
    stacked = StackedStep(models, ImageTrainConfig(clip_norm=clip_norm), 1e-3)
    norms: list[Tensor] = []

    def note(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        flat = [weight.grad for group in optimizer.param_groups for weight in group["params"]]
        norms.append(torch.cat(flat, dim=1).norm(dim=1))

    stacked.optimizer.register_step_pre_hook(note)
    batch = make_batch()
    stacked({name: torch.stack([tensor] * 3) for name, tensor in batch.items()})
    for model, norm in zip(models, norms[0].tolist(), strict=True):
        cross_entropy(model(pixel_values=batch["pixel_values"]).logits, batch["labels"]).backward()
        own = float(nn.utils.clip_grad_norm_(model.parameters(), math.inf))
        assert norm == pytest.approx(own if clip_norm is None else min(own, clip_norm), rel=1e-3)


@pytest.mark.usefixtures("fresh_accelerate")
@PRECISIONS
def test_a_closed_step_leaves_the_model_as_it_was(precision: str) -> None:
    model = make()
    step = TrainingStep(model, ImageTrainConfig(), 1e-3, make_accelerator(precision, CPU))
    step(make_batch())
    step.close()
    assert "forward" not in model.__dict__
    # The model has transformers' wrappers of the forward pass again.
    assert isinstance(model(make_batch()["pixel_values"], return_dict=False), tuple)


@pytest.mark.usefixtures("fresh_accelerate")
@PRECISIONS
def test_a_closed_step_keeps_no_model_alive(precision: str) -> None:
    model = make()
    step = TrainingStep(model, ImageTrainConfig(), 1e-3, make_accelerator(precision, CPU))
    step(make_batch())
    alive = weakref.ref(model)
    gc.collect()
    gc.disable()  # so that circular references would show
    try:
        step.close()
        del model, step
        assert alive() is None
    finally:
        gc.enable()


@pytest.mark.usefixtures("fresh_accelerate")
@PRECISIONS
def test_a_models_own_forward_stays(precision: str) -> None:
    model = make()
    forward = model.forward
    model.forward = lambda pixel_values: forward(pixel_values)
    own = model.forward
    step = TrainingStep(model, ImageTrainConfig(), 1e-3, make_accelerator(precision, CPU))
    step(make_batch())
    step.close()
    assert model.forward is own

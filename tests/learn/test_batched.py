"""Models trained as one batched model: they learn the same as alone, and models that cannot be stacked are refused."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any, cast

import pytest
import torch
from cases import slow
from transformers import PreTrainedModel

import leanformer as lf
from leanformer.config.images import ImageDataConfig, ImageTrainConfig
from leanformer.core.errors import LeanformerError
from leanformer.data.image_batches import ImageBatches
from leanformer.data.images import MemorySplit, StreamSplit, load_images
from leanformer.data.reading import ImageReader
from leanformer.learn.batched import StackedStep, StackedTraining, advance_together, example_order
from leanformer.learn.schedule import rate_factor
from leanformer.learn.step import TrainingStep, make_accelerator
from leanformer.measure.quality import predict
from leanformer.model.baseline import fresh_model

CPU = torch.device("cpu")


FORMS: dict[str, dict[str, Any]] = {
    "Hugging Face's own": {},
    "extreme": {"*.self_attention": "minimal_attention", "*.mlp": "none"},
    "symmetric": {
        "*.self_attention": {"block": "minimal_attention", "qk": "symmetric", "diagonal_value": True},
        "*.mlp": {"block": "mlp", "hidden": 5},
        "pooling": "mean",
    },
    "grid": {
        "*.self_attention": {
            "block": "mixer",
            "positions": "grid",
            "max_distance": 2,
            "groups": 16,
            "vo": "none",
            "gate": False,
        },
        "pooling": "mean",
    },
}


def models_of(plan: dict[str, Any], patch: int) -> list[PreTrainedModel]:
    """Three seeds of one form."""
    shape = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "patch_size": patch,
        "image_size": 8,
        "num_channels": 1,
        "num_labels": 10,
    }
    models = []
    for seed in range(3):
        torch.manual_seed(seed)
        models.append(lf.reduce(fresh_model("vit", shape), plan).train())
    return models


@pytest.fixture(scope="module")
def batches() -> ImageBatches:
    data = load_images(ImageDataConfig(source="digits", train_limit=80), CPU)
    return ImageBatches(data, 16, ("random_crop",), data.mean, data.std)


TOKENS = pytest.mark.parametrize("patch", [2, *slow(1)], ids=["16-tokens", "64-tokens"])
RATES = [1e-2, 1e-2, 3e-3]


def check_weights(stacked: StackedStep, models: list[PreTrainedModel]) -> None:
    """The stack learns the same weights as separate models."""
    for number, model in enumerate(models):
        learned = {name: value[number] for name, value in stacked.parameters().items()}
        assert set(learned) == {name for name, _ in model.named_parameters()}
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(learned[name], parameter, rtol=1e-3, atol=1e-4)


@TOKENS
@pytest.mark.parametrize("plan", FORMS.values(), ids=FORMS)
def test_stacked_seeds_learn_as_they_do_apart(plan: dict[str, Any], patch: int, batches: ImageBatches) -> None:
    config = ImageTrainConfig(clip_norm=0.5, weight_decay=0.1, label_smoothing=0.1)
    models = models_of(plan, patch)
    before = copy.deepcopy(models[0].state_dict())
    stacked = StackedStep(models, config, RATES)
    together = torch.stack(
        [
            stacked({name: torch.stack([batch[name] for batch in own]) for name in own[0]})
            for own in zip(*(batches.training(seed, 0) for seed in range(3)), strict=True)
        ]
    )
    assert all(torch.equal(value, before[name]) for name, value in models[0].state_dict().items())

    accelerator = make_accelerator("float32", CPU)
    for seed, model in enumerate(models):
        step = TrainingStep(model, config, RATES[seed], accelerator)
        apart = torch.stack([step(batch) for batch in batches.training(seed, 0)])
        assert len(apart) == 5
        torch.testing.assert_close(together[:, seed], apart, rtol=1e-4, atol=1e-5)
    check_weights(stacked, models)


def test_a_stacked_training_is_the_training_of_each(batches: ImageBatches) -> None:
    plain = dataclasses.replace(batches, augmentation=(), batch_size=24)
    config = ImageTrainConfig(warmup=0.2)
    first, second, _ = models_of(FORMS["symmetric"], 2)
    models = [first, second, copy.deepcopy(first), copy.deepcopy(second)]
    rates = [1e-2, 1e-2, 3e-3, 3e-3]
    training = StackedTraining(StackedStep(models, config, rates), plain, example_order(plain, [4, 5], 2, CPU), 0)
    advance_together([training])
    assert training.done == training.steps == 6  # three batches of each epoch's 80 images; 8 images are left out
    training.wait()

    accelerator = make_accelerator("float32", CPU)
    for model, rate, seed in zip(models, rates, (4, 5, 4, 5), strict=True):
        step = TrainingStep(model, config, rate, accelerator)
        whole = [batch for epoch in range(2) for batch in list(plain.training(seed, epoch))[:3]]
        for number, batch in enumerate(whole):
            step.set_learning_rate(rate * rate_factor(config.schedule, number, 6, config.warmup))
            step(batch)
    check_weights(training.step, models)
    assert isinstance(plain.data.test, MemorySplit)
    expected = [predict(model, plain.evaluation(plain.data.test)).predictions for model in models]
    assert training.answers(plain.data.test).tolist() == [own.tolist() for own in expected]


def test_a_stack_is_augmented_and_says_where_its_loss_is_not_finite(batches: ImageBatches) -> None:
    models = models_of(FORMS["extreme"], 2)
    with torch.no_grad():
        next(models[1].parameters()).fill_(torch.nan)
    order = example_order(batches, range(3), 1, CPU)
    plain = dataclasses.replace(batches, augmentation=())
    losses = []
    for own, seed in ((batches, 0), (batches, 0), (batches, 1), (plain, 0)):
        training = StackedTraining(StackedStep(models, ImageTrainConfig(), 1e-2), own, order, seed)
        advance_together([training])
        losses.append(training.losses)
    assert losses[0].isfinite().all(dim=0).tolist() == [True, False, True]
    finite = [own[:, [0, 2]] for own in losses]
    assert torch.equal(finite[0], finite[1])
    assert not torch.equal(finite[0], finite[2])
    assert not torch.equal(finite[0], finite[3])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, where a step is captured as a CUDA graph")
def test_a_captured_step_is_the_step() -> None:
    device = torch.device("cuda")
    data = load_images(ImageDataConfig(source="digits", train_limit=80), device)
    batches = ImageBatches(data, 16, (), data.mean, data.std)
    models = [model.to(device) for model in models_of(FORMS["symmetric"], 2)]
    order = example_order(batches, range(3), 2, device)
    config = ImageTrainConfig(warmup=0.2)
    captured = StackedTraining(StackedStep(models, config, RATES), batches, order, 0)
    advance_together([captured])
    step = StackedStep(models, config, RATES)
    for number, examples in enumerate(order.split(16, dim=1)):
        step.set_rate_factor(rate_factor(config.schedule, number, captured.steps, config.warmup))
        (batch,) = batches.chosen(data.train, examples.flatten())
        losses = step({name: value.unflatten(0, (3, 16)) for name, value in batch.items()})
        torch.testing.assert_close(captured.losses[number], losses, rtol=1e-3, atol=1e-4)


def test_a_batch_of_more_images_than_there_are_is_an_error(batches: ImageBatches) -> None:
    with pytest.raises(LeanformerError, match="the batch size of 500 is more than the 80 "):
        example_order(dataclasses.replace(batches, batch_size=500), [0], 1, CPU)


def test_only_images_in_memory_are_trained_on(batches: ImageBatches) -> None:
    class Empty:
        """A split of images that is never read."""

    on_disk = StreamSplit(cast(ImageReader, Empty()), batches.data.train.labels, CPU)
    elsewhere = dataclasses.replace(batches, data=dataclasses.replace(batches.data, train=on_disk))
    step = StackedStep(models_of(FORMS["extreme"], 2), ImageTrainConfig(), 1e-2)
    with pytest.raises(LeanformerError, match="the training images are not in memory"):
        StackedTraining(step, elsewhere, example_order(batches, range(3), 1, CPU), 0)


def test_what_cannot_be_stacked_is_refused() -> None:
    config = ImageTrainConfig()
    models = models_of(FORMS["extreme"], 2)
    for wrong, rates, message in (
        ([], 1e-2, "there is no model to train"),
        (models, [1e-2, 3e-3], "there are 3 models and 2 learning rates"),
        (
            [*models, models_of(FORMS["symmetric"], 2)[0]],
            1e-2,
            r"models\[3\] must have the shape of models\[0\]: its vit.embeddings.cls_token is missing, ",
        ),
    ):
        with pytest.raises(LeanformerError, match=message):
            StackedStep(wrong, config, rates)


def test_a_stacked_optimizer_forgets(batches: ImageBatches) -> None:
    step = StackedStep(models_of(FORMS["extreme"], 2), ImageTrainConfig(), 1e-2)
    batch = next(batches.training(0, 0))
    step({name: torch.stack([tensor] * 3) for name, tensor in batch.items()})
    states = list(step.optimizer.state.values())
    assert any(tensor.abs().sum() > 0 for state in states for tensor in state.values())
    step.forget()
    assert all(tensor.abs().sum() == 0 for state in states for tensor in state.values())

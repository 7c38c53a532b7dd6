"""The training loop: learning, repeating, resuming, and failing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import slow
from transformers import PreTrainedModel

import leanformer as lf
from leanformer.config.images import ImageDataConfig, ImageTrainConfig
from leanformer.core.errors import LeanformerError
from leanformer.data.image_batches import ImageBatches
from leanformer.data.images import load_images
from leanformer.learn import train as loop
from leanformer.learn.checkpoint import Snapshot
from leanformer.learn.losses import Batch, cross_entropy
from leanformer.learn.schedule import rate_factor
from leanformer.learn.step import TrainingStep, make_accelerator, make_optimizer
from leanformer.learn.train import Trained, train
from leanformer.measure.quality import predict
from leanformer.model.baseline import fresh_model

CPU = torch.device("cpu")


class _InterruptedError(Exception):
    """Stands for the end of a killed process."""


@dataclass
class Watcher:
    """Records the loop's calls; stops it after a number of steps."""

    batches: ImageBatches
    stop_after: int | None = None
    steps: int = 0
    told: list[str] = field(default_factory=list)

    def validate(self, model: torch.nn.Module, last: bool) -> dict[str, float]:
        answers = predict(model, self.batches.evaluation(self.batches.data.validation))
        return {"validation_loss": answers.loss, "validation_accuracy": answers.score("accuracy")}

    def step_ended(self, epoch: int, step: int, steps_per_epoch: int) -> None:
        self.steps += 1
        if self.steps == self.stop_after:
            raise _InterruptedError

    def epoch_ended(self, record: dict[str, float], examples_per_second: float) -> None:
        self.told.append(f"epoch {record['epoch']}")

    def rolled_back(self, reason: str) -> None:
        self.told.append(reason)


@pytest.fixture(scope="module")
def batches() -> ImageBatches:
    data = load_images(ImageDataConfig(source="digits", train_limit=300), CPU)
    return ImageBatches(data, 64, ("random_crop",), data.mean, data.std)


def make(dropout: float = 0.0) -> PreTrainedModel:
    torch.manual_seed(0)
    return fresh_model(
        "vit",
        {
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "patch_size": 4,
            "image_size": 8,
            "num_channels": 1,
            "num_labels": 10,
            "hidden_dropout_prob": dropout,
        },
    )


def fit(
    model: PreTrainedModel,
    batches: ImageBatches,
    watcher: Watcher | None = None,
    checkpoint: Path | None = None,
    rate: float = 3e-3,
    seed: int = 0,
    **settings: float,
) -> Trained:
    config = ImageTrainConfig(**{"epochs": 4, "batch_size": 64, "checkpoint_seconds": 0.0, **settings})  # type: ignore[arg-type]
    return train(
        model, batches, config, rate, seed, watcher or Watcher(batches), make_accelerator("float32", CPU), checkpoint
    )


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_it_learns(batches: ImageBatches) -> None:
    plain = ImageBatches(batches.data, 32, (), batches.mean, batches.std)
    trained = fit(make(), plain, rate=1e-2, epochs=30)
    assert trained.status == "ok"
    assert [record["epoch"] for record in trained.epochs] == list(range(1, 31))
    assert trained.epochs[-1]["train_loss"] < 0.25 * trained.epochs[0]["train_loss"]
    assert trained.epochs[-1]["validation_accuracy"] > 0.6
    assert trained.examples == 30 * len(plain.data.train)


def test_a_seed_repeats_a_training(batches: ImageBatches) -> None:
    one, other = make(dropout=0.1), make(dropout=0.1)
    first = fit(one, batches)
    torch.manual_seed(0)
    make(dropout=0.1)  # resets the global generator to its state before the first training
    second = fit(other, batches)
    assert equal(weights(one), weights(other))
    assert first.epochs == second.epochs


@pytest.mark.parametrize("stop_after", [*slow(1, 5), 7, *slow(13)])
def test_a_resumed_training_goes_the_same_way(
    batches: ImageBatches, stop_after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "STEPS_BETWEEN_BOUNDARIES", 2)  # so that it also resumes in the middle of an epoch
    whole = make(dropout=0.1)
    expected = fit(whole, batches)
    cut = make(dropout=0.1)
    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(_InterruptedError):
        fit(cut, batches, Watcher(batches, stop_after), checkpoint)
    assert checkpoint.exists() == (stop_after > 2)
    resumed = make(dropout=0.1)
    watcher = Watcher(batches)
    result = fit(resumed, batches, watcher, checkpoint)
    assert equal(weights(resumed), weights(whole))
    assert result.epochs == expected.epochs
    assert result.examples == expected.examples
    if stop_after > 2:
        assert watcher.steps < 4 * batches.steps_per_epoch


def test_ctrl_c_leaves_a_checkpoint(batches: ImageBatches, tmp_path: Path) -> None:
    class Impatient(Watcher):
        def step_ended(self, epoch: int, step: int, steps_per_epoch: int) -> None:
            if epoch == 2:
                raise KeyboardInterrupt

    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fit(make(), batches, Impatient(batches), checkpoint, checkpoint_seconds=1000.0)
    assert Snapshot.read(checkpoint, CPU).numbers["epoch"] == 2


@pytest.mark.parametrize("damage", ["cut", "empty", "other"])
def test_a_damaged_checkpoint_is_named(batches: ImageBatches, tmp_path: Path, damage: str) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(_InterruptedError):
        fit(make(), batches, Watcher(batches, 8), checkpoint)
    content = checkpoint.read_bytes()
    checkpoint.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "other": b"not a checkpoint"}[damage])
    with pytest.raises(lf.LeanformerError, match="the checkpoint is damaged") as raised:
        fit(make(), batches, None, checkpoint)
    assert str(checkpoint) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "a training with seed = 0, not 1"),
        *slow(
            ({"rate": 2e-2}, "a training with learning_rate = 0.003, not 0.02"),
            ({"epochs": 9}, "a training with epochs = 4, not 9"),
        ),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(
    batches: ImageBatches, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(_InterruptedError):
        fit(make(), batches, Watcher(batches, 8), checkpoint)
    with pytest.raises(lf.LeanformerError, match=message):
        fit(make(), batches, None, checkpoint, **changes)
    fit(make(), batches, None, checkpoint)


class _Poisoned(ImageBatches):
    """Returns infinite pixels at chosen moments, counted over all attempts."""

    def training(self, seed: int, epoch: int, first_step: int = 0) -> Iterator[dict[str, torch.Tensor]]:
        for step, batch in enumerate(super().training(seed, epoch, first_step), start=first_step):
            if poison(epoch, step):
                batch["pixel_values"] = batch["pixel_values"] * math.inf
            yield batch


poison: Callable[[int, int], bool]


def poisoned(batches: ImageBatches, rule: Callable[[int, int], bool]) -> _Poisoned:
    global poison
    poison = rule
    return _Poisoned(batches.data, batches.batch_size, batches.augmentation, batches.mean, batches.std)


def test_one_bad_moment_is_rolled_back_with_a_lower_rate(batches: ImageBatches) -> None:
    left = [True]

    def once(epoch: int, step: int) -> bool:
        return epoch == 1 and step == 2 and left[0] and not left.__setitem__(0, False)

    data = poisoned(batches, once)
    watcher = Watcher(data)
    model = make()
    trained = fit(model, data, watcher)
    assert trained.status == "ok"
    assert len(trained.epochs) == 4
    assert trained.rollbacks == [
        "the loss or its gradient was not finite at epoch 2, step 3: back to the last good state, learning rate 0.00075"
    ]
    assert trained.rollbacks[0] in watcher.told
    assert trained.examples == 4 * len(batches.data.train)
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())


def test_three_bad_moments_end_it(batches: ImageBatches) -> None:
    data = poisoned(batches, lambda epoch, step: epoch == 1)
    trained = fit(make(), data)
    assert trained.status == "failed"
    assert "not finite at epoch 2, step 1, after 2 returns to the last good state" in trained.reason
    assert len(trained.rollbacks) == 2
    assert len(trained.epochs) == 1


@pytest.mark.long
def test_a_rolled_back_training_resumes_the_same_way(batches: ImageBatches, tmp_path: Path) -> None:
    """The rates and the count of rollbacks are part of the checkpoint."""
    data = poisoned(batches, lambda epoch, step: epoch == 3)
    whole = make()
    expected = fit(whole, data)
    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(_InterruptedError):
        fit(make(), data, Watcher(data, 3 * data.steps_per_epoch - 1), checkpoint)
    result = fit(make(), data, None, checkpoint)
    assert result.reason == expected.reason
    assert result.rollbacks == expected.rollbacks


def test_an_infinite_gradient_is_seen(batches: ImageBatches, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss may still be finite where its gradient is not."""
    model = make()
    model.classifier.weight.register_hook(lambda gradient: gradient * math.inf)
    assert fit(model, batches).status == "failed"


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.2])
def test_schedules_rise_and_fall(schedule: str, warmup: float) -> None:
    factors = [rate_factor(schedule, step, 100, warmup) for step in range(100)]  # type: ignore[arg-type]
    assert max(factors) <= 1.0
    assert min(factors) >= 0.0
    if warmup:
        assert factors[19] == pytest.approx(1.0)
        assert factors[0] < 0.1
        assert factors[:20] == sorted(factors[:20])
    assert factors[20:] == sorted(factors[20:], reverse=True)
    assert factors[-1] == (1.0 if schedule == "constant" else pytest.approx(0.0, abs=1e-5))


def test_only_matrices_decay() -> None:
    model = lf.reduce(
        make(), {"*.self_attention": {"block": "minimal_attention", "qk": "symmetric", "temperature": True}}
    )
    groups = make_optimizer(model, ImageTrainConfig(weight_decay=0.5), 1e-3).param_groups
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        matrix = name.endswith("weight") and "norm" not in name
        assert decays[id(parameter)] == (0.5 if matrix else 0.0), name


def test_label_smoothing_and_clipping_reach_the_loop(batches: ImageBatches) -> None:
    plain = fit(make(), batches, epochs=1).epochs[0]["train_loss"]
    assert fit(make(), batches, epochs=1, label_smoothing=0.3).epochs[0]["train_loss"] != plain
    still = make()
    before = weights(still)
    fit(still, batches, epochs=1, rate=1e-12)
    assert all(torch.allclose(tensor, before[name], atol=1e-9) for name, tensor in still.state_dict().items())


class Keeper(Watcher):
    """Keeps a model's weights after each epoch as the last step left them."""

    model: torch.nn.Module
    kept: list[dict[str, torch.Tensor]]
    measured: dict[str, torch.Tensor]

    def step_ended(self, epoch: int, step: int, steps_per_epoch: int) -> None:
        if step == steps_per_epoch:
            self.kept.append(weights(self.model))
        super().step_ended(epoch, step, steps_per_epoch)

    def validate(self, model: torch.nn.Module, last: bool) -> dict[str, float]:
        if last:
            self.measured = weights(model)
        return super().validate(model, last)


def keep(model: torch.nn.Module, batches: ImageBatches, stop_after: int | None = None) -> Keeper:
    keeper = Keeper(batches, stop_after)
    keeper.model, keeper.kept = model, []
    return keeper


@pytest.mark.parametrize("last", [*slow(1), 3, *slow(9)])
def test_the_last_epochs_are_averaged(batches: ImageBatches, last: int) -> None:
    model = make(dropout=0.1)
    model.classifier.bias.requires_grad_(False)
    keeper = keep(model, batches)
    fit(model, batches, keeper, average_last=last)
    counted = keeper.kept[-last:]
    assert len(counted) == min(last, 4)
    for name, tensor in weights(model).items():
        mean = torch.stack([kept[name].double() for kept in counted]).mean(dim=0)
        torch.testing.assert_close(tensor.double(), mean, atol=1e-7, rtol=1e-6)
    assert torch.equal(model.classifier.bias, counted[0]["classifier.bias"])
    assert equal(keeper.measured, weights(model))
    plain = make(dropout=0.1)
    plain.classifier.bias.requires_grad_(False)
    fit(plain, batches)
    assert equal(weights(plain), keeper.kept[-1])
    assert equal(weights(plain), weights(model)) == (last == 1)


@pytest.mark.parametrize("stop_after", [*slow(8), 13, *slow(17)])
def test_a_resumed_average_is_the_same(
    batches: ImageBatches, stop_after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "STEPS_BETWEEN_BOUNDARIES", 2)
    whole = make(dropout=0.1)
    keeper = keep(whole, batches)
    fit(whole, batches, keeper, average_last=3)
    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(_InterruptedError):
        fit(make(dropout=0.1), batches, Watcher(batches, stop_after), checkpoint, average_last=3)
    resumed = make(dropout=0.1)
    fit(resumed, batches, None, checkpoint, average_last=3)
    assert equal(weights(resumed), weights(whole))
    for name, tensor in weights(resumed).items():
        mean = torch.stack([kept[name].double() for kept in keeper.kept[1:]]).mean(dim=0)
        torch.testing.assert_close(tensor.double(), mean, atol=1e-7, rtol=1e-6)


def test_a_rolled_back_epoch_counts_once_in_the_average(batches: ImageBatches) -> None:
    left = [True]

    class Doubting(Keeper):
        """Returns a loss that is not finite once, after the weights of an epoch were added."""

        def validate(self, model: torch.nn.Module, last: bool) -> dict[str, float]:
            found = super().validate(model, last)
            return {"validation_loss": math.nan} if last and left and left.pop() else found

    model = make()
    keeper = Doubting(batches)
    keeper.model, keeper.kept = model, []
    trained = fit(model, batches, keeper, average_last=2)
    assert len(trained.rollbacks) == 1
    assert len(keeper.kept) == 5
    for name, tensor in weights(model).items():
        mean = (keeper.kept[2][name].double() + keeper.kept[4][name].double()) / 2
        torch.testing.assert_close(tensor.double(), mean, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize(("steps", "warmup"), [(100, 0.2), (100, 0.0), (37, 0.1), (10, 1.0)])
def test_inverse_sqrt_is_the_published_formula(steps: int, warmup: float) -> None:
    """Vaswani et al. 2017, equation 3, by its greatest value: min(step ** -0.5, step * rising ** -1.5)."""
    rising = max(1, round(warmup * steps))
    for step in range(steps):
        expected = min((step + 1) ** -0.5, (step + 1) * rising**-1.5) * rising**0.5
        assert rate_factor("inverse_sqrt", step, steps, warmup) == pytest.approx(expected, rel=1e-12)


def test_terms_of_a_loss_are_their_sum(batches: ImageBatches) -> None:
    batch = next(batches.training(0, 0))
    seen: list[bool] = []

    def by_one(model: Any, batch: Batch) -> Iterator[torch.Tensor]:
        for part in (0, 1, 2):
            seen.append(first.classifier.weight.grad is not None)
            yield cross_entropy(model(batch["pixel_values"][part::3]).logits, batch["labels"][part::3]) * (part + 1)

    def at_once(model: Any, batch: Batch) -> Iterator[torch.Tensor]:
        logits = model(batch["pixel_values"]).logits
        terms = [cross_entropy(logits[part::3], batch["labels"][part::3]) * (part + 1) for part in (0, 1, 2)]
        yield terms[0] + terms[1] + terms[2]

    first, second = make(), make()
    gradients: list[list[torch.Tensor]] = []
    totals: list[torch.Tensor] = []
    for model, loss in ((first, by_one), (second, at_once)):
        step = TrainingStep(model, ImageTrainConfig(clip_norm=None), 1e-3, make_accelerator("float32", CPU), loss)

        def note(optimizer: Any, *_: Any, model: PreTrainedModel = model) -> None:
            gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])

        step.optimizer.register_step_pre_hook(note)
        totals.append(step(batch))
        step.close()
    assert seen == [False, True, True]  # each is differentiated before the next is computed
    torch.testing.assert_close(totals[0], totals[1])
    assert len(gradients[0]) == len(gradients[1]) > 20
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert one.grad is None
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.usefixtures("fresh_accelerate")
def test_another_precision_in_one_process_is_refused() -> None:
    make_accelerator("bfloat16", CPU)
    with pytest.raises(LeanformerError, match=r"float32 on cpu: .*accelerate cannot change it; start a new process"):
        make_accelerator("float32", CPU)

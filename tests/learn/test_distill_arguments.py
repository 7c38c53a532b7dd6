"""The arguments that ``lf.distill`` accepts and refuses."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel

import leanformer as lf
from leanformer.learn.batch_checks import check_batches
from leanformer.learn.observe import frozen_copy

MakeModel = Callable[..., PreTrainedModel]

MLP = {"block": "mlp", "hidden": 12}
IMAGES = {"pixel_values": torch.randn(4, 1, 16, 16), "labels": torch.tensor([0, 1, 2, 3])}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batches": None}, "batches: a list of batches is wanted, .* not NoneType"),
        ({"batches": 5}, "batches: a list of batches is wanted, .* not int"),
        ({"batches": "images"}, "batches: a list of batches is wanted, .* not str"),
        ({"batches": torch.zeros(3, 1)}, "batches: a list of batches is wanted, .* not Tensor"),
        ({"batches": IMAGES}, "batches: .* not one mapping; put it into a list"),
        ({"batches": [IMAGES, 5]}, "batches: batch 1 is of type int; a list of batches is wanted"),
        (
            {"batches": [{**IMAGES, "labels": [0, 1, 2, 3]}]},
            "batches: batch 0 holds, as 'labels', a value of type list",
        ),
        ({"batches": []}, "batches: there is no batch to learn from"),
        ({"validation": None}, "validation: a list of batches is wanted, .* not NoneType"),
        ({"validation": [{"pixel_values": torch.zeros(4, 1, 16, 16)}]}, "validation: batch 0 has no 'labels'"),
        ({"teach": {"epochs": 1}}, "teach: a DistillConfig or None is wanted, not dict"),
        ({"teach": 3}, "teach: a DistillConfig or None is wanted, not int"),
        ({"finetune": lf.DistillConfig()}, "finetune: a FinetuneConfig or None is wanted, not DistillConfig"),
        ({"seed": None}, "seed: a whole number from 0 to 4,294,967,295 is wanted, not None"),
        ({"seed": True}, "seed: a whole number from 0 to 4,294,967,295 is wanted, not True"),
        ({"seed": -1}, "seed: .* not -1"),
        ({"seed": 1.5}, "seed: .* not 1.5"),
        ({"seed": 10**30}, "seed: .* not 1000000"),
        ({"progress": 5}, "progress: a function of an epoch's numbers or None is wanted, not int"),
        ({"checkpoint": 5}, "checkpoint: give a path, as text or as a Path, not int"),
        ({"checkpoint": ""}, "checkpoint: give a path, as text or as a Path, not ''"),
        ({"checkpoint": "."}, "checkpoint: . is not a regular file"),
        ({"checkpoint": "/"}, "checkpoint: / is not a regular file"),
        ({"checkpoint": "/dev/null/file"}, "checkpoint: /dev/null is not a directory; name a file in one"),
    ],
    ids=lambda value: value.split(":")[0] if isinstance(value, str) else next(iter(value)),
)
def test_each_argument_of_a_wrong_type_is_named(make_model: MakeModel, arguments: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"batches": [IMAGES], **arguments}
    with pytest.raises(lf.LeanformerError, match=message) as raised:
        lf.distill(make_model("vit"), {"*.mlp": MLP}, **given)
    assert "\n" not in str(raised.value)


def changed_at(path: Path) -> tuple[int, ...]:
    """Values that differ between files, and after a file is written; reading a file does not change them."""
    found = path.lstat()
    return found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns


@pytest.mark.parametrize("kind", ["directory", "pipe", "device", "dangling link", "notes", "weights", "tuning"])
@pytest.mark.parametrize("plan", [{"*.mlp": MLP}, {"*.mlp": "none"}], ids=["teaches", "teaches nothing"])
def test_a_checkpoint_is_no_other_file(make_model: MakeModel, tmp_path: Path, kind: str, plan: Any) -> None:
    """An existing file that is not a checkpoint is not changed; at the end it would be deleted."""
    path = tmp_path / "there"
    there = path.with_name("there.tuning") if kind == "tuning" else path
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/null")
    elif kind == "dangling link":
        path.symlink_to(tmp_path / "none")
    elif kind == "weights":
        save_file({"a": torch.zeros(2)}, path)
    else:
        there.write_text("mine")
    before = changed_at(there)
    with pytest.raises(lf.LeanformerError, match=r"is not a regular file|is damaged") as raised:
        lf.distill(make_model("vit"), plan, [IMAGES], checkpoint=path)
    assert str(there) in str(raised.value)
    assert changed_at(there) == before


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_a_teacher_in_half_precision_teaches_in_float32(make_model: MakeModel, precision: torch.dtype) -> None:
    """The same as with a teacher that was converted to float32; the weights of the given one do not change."""
    teacher = make_model("vit").to(precision)
    wide = make_model("vit")
    wide.load_state_dict(teacher.state_dict())
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    tuning = lf.FinetuneConfig(epochs=1)
    teach = lf.DistillConfig(epochs=2)
    students = [lf.distill(model, {"*.mlp": MLP}, [IMAGES], teach=teach, finetune=tuning) for model in (teacher, wide)]
    assert {parameter.dtype for student in students for parameter in student.parameters()} == {torch.float32}
    assert all(
        torch.equal(*pair) for pair in zip(*(student.state_dict().values() for student in students), strict=True)
    )
    assert {parameter.dtype for parameter in teacher.parameters()} == {precision}
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())


PIXELS, LABELS = IMAGES["pixel_values"], IMAGES["labels"]
SENTENCES = {
    "input_ids": torch.tensor([[3, 4, 0], [5, 0, 1]]),
    "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]]),
    "decoder_input_ids": torch.tensor([[1, 7], [1, 8]]),
    "labels": torch.tensor([[7, 0], [8, -100]]),
}


def assert_refused_untaught(teacher: PreTrainedModel, right: Any, wrong: Any, message: str) -> None:
    """In the first batch, in the second batch, and in validation."""
    given: tuple[tuple[dict[str, Any], str], ...] = (
        ({"batches": [wrong]}, "batches: batch 0"),
        ({"batches": [right, wrong]}, "batches: batch 1"),
        ({"batches": [right], "validation": [wrong]}, "validation: batch 0"),
    )
    for arguments, where in given:
        epochs: list[Any] = []
        with pytest.raises(lf.LeanformerError) as raised:
            lf.distill(teacher, {"*.mlp": MLP}, **arguments, progress=epochs.append)
        assert str(raised.value).startswith(f"{where}{message}")
        assert "\n" not in str(raised.value)
        assert not epochs


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pixel_values": None}, " has no pixel_values, which the teacher reads"),
        (
            {"pixel_values": torch.randn(4, 1, 32, 32)},
            ": pixel_values has the shape (4, 1, 32, 32); it must be (images, 1, 16, 16)",
        ),
        ({"pixel_values": torch.randn(4, 3, 16, 16)}, ": pixel_values has the shape (4, 3, 16, 16); it must be"),
        ({"pixel_values": PIXELS[0]}, ": pixel_values has the shape (1, 16, 16); it must be"),
        ({"pixel_values": PIXELS[:0], "labels": LABELS[:0]}, ": pixel_values has the shape (0, 1, 16, 16)"),
        ({"pixel_values": PIXELS.to(torch.uint8)}, ": pixel_values are of type uint8; give them as floats"),
        ({"pixel_values": PIXELS.to_sparse()}, ": pixel_values is a sparse tensor"),
        ({"pixel_values": PIXELS.to("meta")}, ": pixel_values is on the device meta, the teacher on cpu"),
        ({"labels": LABELS.to("meta")}, ": labels is on the device meta, the teacher on cpu"),
        ({"labels": LABELS[:1]}, ": labels has the shape (1,); it must be (4,)"),
        ({"labels": torch.tensor([0, 1, 2, 99])}, ": 99 is among the labels; they go from 0 to 4 for this teacher"),
        ({"labels": torch.tensor([0, 1, 2, -5])}, ": -5 is among the labels; they go from 0 to 4"),
        ({"labels": torch.randn(4)}, ": labels are of type float32; give whole numbers, of type int64"),
        ({"labels": LABELS.to(torch.int32)}, ": labels are of type int32; give whole numbers, of type int64"),
        ({"bool_masked_pos": torch.zeros(7, 3)}, ": the teacher cannot read it: "),
    ],
)
def test_batches_of_images_that_do_not_fit_are_named_before_anything_is_taught(
    make_model: MakeModel, changes: dict[str, Any], message: str
) -> None:
    wrong = {key: value for key, value in {**IMAGES, **changes}.items() if value is not None}
    assert_refused_untaught(make_model("vit"), IMAGES, wrong, message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_ids": None}, " has no input_ids, which the teacher reads"),
        ({"decoder_input_ids": None}, " has no decoder_input_ids, which the teacher reads; transformers' DataCollator"),
        ({"input_ids": torch.tensor([[3, 40], [1, 1]])}, ": 40 is among the input_ids; they go from 0 to 39"),
        ({"decoder_input_ids": torch.tensor([[1, -1], [1, 1]])}, ": -1 is among the decoder_input_ids"),
        ({"input_ids": torch.ones(2, 3)}, ": input_ids are of type float32; give whole numbers"),
        ({"input_ids": torch.ones(2, 33).long()}, ": input_ids are 33 tokens long, and the teacher has 32 positions"),
        ({"decoder_input_ids": torch.ones(3, 2).long()}, ": decoder_input_ids has the shape (3, 2); it must be (2, to"),
        ({"attention_mask": torch.ones(2, 2)}, ": attention_mask has the shape (2, 2); it must be (2, 3)"),
        ({"labels": torch.ones(2, 3).long()}, ": labels has the shape (2, 3); it must be (2, 2)"),
        ({"labels": torch.tensor([[7, 0], [40, -100]])}, ": 40 is among the labels; they go from 0 to 39"),
    ],
)
def test_batches_of_sentences_that_do_not_fit_are_named_before_anything_is_taught(
    make_translator: MakeModel, changes: dict[str, Any], message: str
) -> None:
    wrong = {key: value for key, value in {**SENTENCES, **changes}.items() if value is not None}
    assert_refused_untaught(make_translator(), SENTENCES, wrong, message)


def test_labels_of_nothing_are_no_mistake(make_model: MakeModel) -> None:
    batch = {**IMAGES, "labels": torch.tensor([-100, 1, 2, -100])}
    tuned = lf.distill(make_model("vit"), {"*.mlp": MLP}, [batch], [batch], finetune=lf.FinetuneConfig(epochs=1))
    assert all(tensor.isfinite().all() for tensor in tuned.state_dict().values())


def test_checking_batches_changes_nothing(make_model: MakeModel) -> None:
    """The check draws no random numbers (dropout is off), so that results still depend on the seed alone."""
    teacher = make_model("vit", hidden_dropout_prob=0.5).train()
    opened = frozen_copy(lf.reduce(teacher, {}))
    before = torch.get_rng_state()
    check_batches(opened, [IMAGES, IMAGES], "batches")
    assert torch.equal(before, torch.get_rng_state())
    assert teacher.training


@pytest.mark.parametrize("family", ["vit", "marian"])
def test_a_model_without_numbers_is_named(
    make_model: MakeModel, make_translator: MakeModel, family: str, tmp_path: Path
) -> None:
    model = (make_model() if family == "vit" else make_translator()).to("meta")
    for do, argument in (
        (lambda: lf.reduce(model, {"*.mlp": "none"}), "model"),
        (lambda: lf.save(model, tmp_path / "model"), "model"),
        (lambda: lf.distill(model, {"*.mlp": MLP}, [IMAGES]), "teacher"),
    ):
        with pytest.raises(lf.LeanformerError, match=f"^{argument}: .* is on the device 'meta' and has no numbers"):
            do()
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("steps", [0, -1, True, 1.5, "x", None])
def test_steps_of_an_epoch_are_a_number(make_model: MakeModel, steps: Any) -> None:
    class Drawn:
        steps_per_epoch = steps

        def training(self, seed: int, epoch: int, first_step: int = 0) -> Iterator[dict[str, torch.Tensor]]:
            raise AssertionError("nothing is to be drawn")

    with pytest.raises(lf.LeanformerError, match=r"^batches: steps_per_epoch is .*; it must be a whole number"):
        lf.distill(make_model("vit"), {"*.mlp": MLP}, Drawn())

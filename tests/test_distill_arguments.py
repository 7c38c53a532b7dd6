"""What ``lf.distill`` takes and what it refuses."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel

import leanformer as lf

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
        ({"checkpoint": 5}, "checkpoint: a path as text or as a Path is wanted, not int"),
        ({"checkpoint": ""}, "checkpoint: a path as text or as a Path is wanted, not ''"),
        ({"checkpoint": "."}, "checkpoint: . is no plain file"),
        ({"checkpoint": "/"}, "checkpoint: / is no plain file"),
        ({"checkpoint": "/dev/null/file"}, "checkpoint: /dev/null is no directory; name a file in one"),
    ],
    ids=lambda value: value.split(":")[0] if isinstance(value, str) else next(iter(value)),
)
def test_each_argument_of_a_wrong_type_is_named(make_model: MakeModel, arguments: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"batches": [IMAGES], **arguments}
    with pytest.raises(lf.LeanformerError, match=message) as raised:
        lf.distill(make_model("vit"), {"*.mlp": MLP}, **given)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", ["directory", "pipe", "device", "dangling link", "notes", "weights", "tuning"])
@pytest.mark.parametrize("plan", [{"*.mlp": MLP}, {"*.mlp": "none"}], ids=["teaches", "teaches nothing"])
def test_a_checkpoint_is_no_other_file(make_model: MakeModel, tmp_path: Path, kind: str, plan: Any) -> None:
    """What is there already and no checkpoint stays as it is: at the end it would be removed."""
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
    before = there.lstat()
    with pytest.raises(lf.LeanformerError, match=r"is no plain file|is damaged") as raised:
        lf.distill(make_model("vit"), plan, [IMAGES], checkpoint=path)
    assert str(there) in str(raised.value)
    assert there.lstat() == before


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_a_teacher_in_half_precision_teaches_in_float32(make_model: MakeModel, precision: torch.dtype) -> None:
    """As one that was made float32 before; its own weights stay as they were."""
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

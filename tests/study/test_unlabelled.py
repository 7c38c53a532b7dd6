"""Examples without labels, from which students learn what their teacher answers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from image_files import random_image
from studies import run, tiny_marian
from tiny_vision import write_images

import leanformer as lf
from leanformer.config.base import FinetuneConfig
from leanformer.core.errors import LeanformerError
from leanformer.data.unlabelled import NO_LABEL
from leanformer.learn.losses import tuning_loss
from leanformer.tasks.base import open_task
from leanformer.tasks.images import ImageClassification
from leanformer.tasks.translation import Translation

CPU = torch.device("cpu")
VIT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "patch_size": 10}


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Labelled images, and others without classes."""
    return write_images(tmp_path / "data"), write_images(tmp_path / "more", classes=2, each=4, first=100)


def study_of(images: Path, unlabelled: Path | None, **keys: Any) -> dict[str, Any]:
    more = {} if unlabelled is None else {"unlabelled": str(unlabelled)}
    return {
        "name": "unlabelled",
        "data": {
            "source": str(images),
            "test_fraction": 0.4,
            "validation_fraction": 0.2,
            **more,
            **keys.pop("data", {}),
        },
        "baseline": {"model": "vit", "config": VIT},
        "candidates": {"slots": {"plan": {"*.self_attention": "slots"}, "method": "distill"}},
        "train": {"epochs": 1, "batch_size": 16, "learning_rate": 1e-3},
        "distill": {"epochs": 1},
        "finetune": {"epochs": 1},
        "seeds": [0],
        "measure": {"repeats": 1, "latency_calls": 1, "throughput_batch": 4, "device": "cpu"},
        **keys,
    }


def task_of(*arguments: Any, **keys: Any) -> ImageClassification:
    task = open_task(lf.make_study(study_of(*arguments, **keys)), CPU)
    assert isinstance(task, ImageClassification)
    return task


@pytest.mark.parametrize("storage", ["memory", "stream"])
def test_students_read_them_and_the_baseline_does_not(folders: tuple[Path, Path], storage: str) -> None:
    task = task_of(*folders, data={"storage": storage})
    labelled, unlabelled = len(task.data.train), 8
    assert task.summary()["unlabelled"] == unlabelled
    plain = torch.cat([batch["labels"] for batch in task.batches.training(0, 0)])
    assert len(plain) == labelled
    assert (plain >= 0).all()
    for batches in (task.teaching_batches(2), task.tuning_batches()):
        read = list(batches.training(seed=0, epoch=0))
        labels = torch.cat([batch["labels"] for batch in read])
        assert len(labels) == labelled + unlabelled
        assert int((labels == NO_LABEL).sum()) == unlabelled
        assert len({pixels.numpy().tobytes() for batch in read for pixels in batch["pixel_values"]}) == len(labels)


def test_images_without_a_class_have_the_teachers_answer_alone() -> None:
    class Answers(torch.nn.Module):
        def __init__(self, logits: torch.Tensor) -> None:
            super().__init__()
            self.logits = torch.nn.Parameter(logits)

        def forward(self, pixel_values: torch.Tensor) -> Any:
            return type("Outputs", (), {"logits": self.logits})

    given, wanted = torch.randn(4, 3), torch.randn(4, 3)

    def terms(labels: list[int], **weights: float) -> tuple[float, torch.Tensor]:
        student = Answers(given.clone())
        loss = tuning_loss(Answers(wanted), FinetuneConfig(**weights), 0.0)  # type: ignore[arg-type]
        (term,) = loss(student, {"pixel_values": torch.zeros(4), "labels": torch.tensor(labels)})
        term.backward()
        assert student.logits.grad is not None
        return float(term.detach()), student.logits.grad

    labels = [0, 1, NO_LABEL, NO_LABEL]
    value, gradient = terms(labels, logits=0.0)
    wanted_value = float(torch.nn.functional.cross_entropy(given[:2], torch.tensor(labels[:2]))) / 2
    assert value == pytest.approx(wanted_value, rel=1e-5)
    assert (gradient[2:] == 0).all()
    value, gradient = terms(labels, cross_entropy=0.0)
    assert value == pytest.approx(terms([0, 1, 2, 0], cross_entropy=0.0)[0])
    assert (gradient[2:] != 0).any()
    value, gradient = terms([NO_LABEL] * 4, logits=0.0)
    assert value == 0
    assert (gradient == 0).all()


@pytest.mark.long
def test_a_study_of_images(folders: tuple[Path, Path], tmp_path: Path) -> None:
    images, unlabelled = folders
    first, _ = run(study_of(images, None), tmp_path / "run")
    result, log = run(study_of(images, unlabelled), tmp_path / "run")
    assert "baseline, seed 0 runs again" not in log
    assert "slots, seed 0 runs again: unlabelled_files" in log
    assert result.results["data"]["unlabelled"] == 8
    assert result.results["baseline"]["quality"] == first.results["baseline"]["quality"]
    assert result.results["data"]["test"] == first.results["data"]["test"]
    _, log = run(study_of(images, unlabelled), tmp_path / "run")
    assert "runs again" not in log
    random_image(1, (20, 20), "RGB").save(unlabelled / "another.png")
    _, log = run(study_of(images, unlabelled), tmp_path / "run")
    assert "slots, seed 0 runs again" in log
    assert "baseline, seed 0 runs again" not in log


@pytest.mark.long
def test_folds_of_cross_validation_have_them_too(folders: tuple[Path, Path], tmp_path: Path) -> None:
    study = study_of(*folders)
    study["data"] = {key: value for key, value in study["data"].items() if key != "test_fraction"}
    study["data"]["cross_validation"] = 2
    result, _ = run(study, tmp_path / "run")
    assert result.results["data"]["unlabelled"] == 8
    assert [row["status"] for row in result.results["candidates"]] == ["ok"]


def test_test_images_among_them_are_told(folders: tuple[Path, Path]) -> None:
    images, unlabelled = folders
    task = task_of(images, unlabelled)
    assert not task.warnings
    for file in images.glob("class-0/*.png"):
        shutil.copy(file, unlabelled / file.name)
    warned = [warning for warning in task_of(images, unlabelled).warnings if warning.code == "leaked-images"]
    assert [warning.sentence.split(":")[0] for warning in warned] == [
        "validation images that are pixel for pixel in the images without a class",
        "test images that are pixel for pixel in the images without a class",
    ]


def test_what_cannot_be_read(folders: tuple[Path, Path], tmp_path: Path) -> None:
    def error(unlabelled: Path, **keys: Any) -> str:
        with pytest.raises(LeanformerError) as caught:
            task_of(folders[0], unlabelled, **keys)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    scratch = {"shorter": {"plan": {"*.mlp": "none"}}}
    defaults: dict[str, Any] = {"distill": {}, "finetune": {}}
    assert "data.unlabelled does nothing here: only students learn from it, and no candidate has" in error(
        folders[1], candidates=scratch, **defaults
    )
    assert "no such directory; give a folder of images" in error(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "holds no images" in error(tmp_path / "empty")
    (folders[1] / "broken.png").write_bytes(b"no image")
    assert "broken.png: not a readable image" in error(folders[1])


# Translation


def text_study(unlabelled: Path, **keys: Any) -> dict[str, Any]:
    return {
        "name": "sentences",
        "task": "translation",
        "data": {
            "numbers": {"train": 60, "validation": 10, "test": 10},
            "tokenizer": {"vocabulary": 300},
            "unlabelled": str(unlabelled),
        },
        "baseline": tiny_marian(1),
        "candidates": {"slots": {"plan": {"encoder.0.self_attention": "slots"}, "method": "distill"}},
        "train": {"epochs": 1, "batch_tokens": 400},
        "distill": {"epochs": 1},
        "finetune": {"epochs": 1, "teacher_beam": 1},
        "seeds": [0],
        "measure": {"repeats": 1, "latency_calls": 1, "throughput_batch": 4, "device": "cpu"},
        **keys,
    }


@pytest.fixture
def sentences(tmp_path: Path) -> Path:
    file = tmp_path / "more.de"
    file.write_text("eine Million\n\nneun Millionen\n" + "sieben " * 500 + "\n", encoding="utf-8")
    return file


def test_a_teacher_translates_sentences_for_its_students(sentences: Path) -> None:
    task = open_task(lf.make_study(text_study(sentences)), CPU)
    assert isinstance(task, Translation)
    assert task.summary()["unlabelled"] == 2  # neither the empty line nor the long one
    train = task.summary()["train"]
    told = task.write_training(task.make_baseline(0), 1, lambda _: None)
    assert len(told) == train + 2
    answers = [f"answer {number}" for number in range(train + 2)]

    def targets(batches: Any) -> list[str]:
        rows = [row for batch in batches.training(seed=0, epoch=0) for row in batch["labels"]]
        return task.tokenizer.decode([row[row >= 0].tolist() for row in rows])

    assert sorted(targets(task.batches_with(answers))) == sorted(answers)
    taught = targets(task.told_batches(answers, 1))
    assert sorted(taught) == sorted([*targets(task.batches), *answers[-2:]])


@pytest.mark.long
def test_a_study_of_translators(sentences: Path, tmp_path: Path) -> None:
    result, log = run(text_study(sentences), tmp_path / "run")
    assert [row["status"] for row in result.results["candidates"]] == ["ok"]
    assert result.results["data"]["unlabelled"] == 2
    assert "the teacher's own translations" in log
    _, again = run(text_study(sentences), tmp_path / "run")
    assert "the teacher's own translations" not in again


def test_test_sentences_among_them_are_told(sentences: Path) -> None:
    task = open_task(lf.make_study(text_study(sentences)), CPU)
    assert isinstance(task, Translation)
    assert "leaked-sentences" not in {warning.code for warning in task.warnings if "unlabelled" in warning.sentence}
    sentences.write_text("\n".join(task.data.test.sources[:3]), encoding="utf-8")
    warned = open_task(lf.make_study(text_study(sentences)), CPU).warnings
    (found,) = [warning for warning in warned if "data.unlabelled" in warning.sentence]
    assert found.sentence.startswith("test: 3 of 10 source sentences are in data.unlabelled too")


def test_files_of_sentences_that_cannot_be_read(tmp_path: Path) -> None:
    def error(file: Path) -> str:
        with pytest.raises(LeanformerError) as caught:
            open_task(lf.make_study(text_study(file)), CPU)
        return str(caught.value)

    assert "no such file; give a text file with one sentence a line" in error(tmp_path / "nowhere.de")
    (tmp_path / "empty.de").write_text("\n \n")
    assert "is empty" in error(tmp_path / "empty.de")

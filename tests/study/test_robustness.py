"""Studies that measure robustness: the model that is decided on answers corrupted test examples, once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from studies import results_of, rows_of, run, tiny_marian, without_timings

import leanformer as lf
from leanformer.config.reader import make_study
from leanformer.core.errors import LeanformerError
from leanformer.data.corruptions import IMAGES, TEXTS
from leanformer.learn.train import Trained
from leanformer.measure.quality import Predictions
from leanformer.measure.translation import Translations
from leanformer.model.students import load
from leanformer.runtime.loading import load as open_exported
from leanformer.study import shipping, training
from leanformer.study.prepare import PreparedStudy
from leanformer.study.robustness import RobustnessStep, less_robust
from leanformer.tasks.base import open_task
from leanformer.tasks.images import ImageClassification

MakeStudy = Callable[..., dict[str, Any]]


def trial_of(directory: Path, name: str, seed: int) -> dict[str, Any]:
    path = directory / "trials" / name / f"seed-{seed}" / "result.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def quick_study(digits_study: MakeStudy, robust: bool) -> dict[str, Any]:
    """A study of digits in two seconds, with one candidate."""
    study = digits_study(candidates={"no-mlp": {"plan": {"*.mlp": "none"}}})
    study["data"] |= {"train_limit": 128, "test_limit": 100}
    study["train"] = {"epochs": 1, "batch_size": 64, "learning_rate": 1e-2}
    study["measure"] |= {"robustness": robust}
    return study


def test_it_is_measured_later_without_training_and_once(
    digits_study: MakeStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = {name: IMAGES[name].meaning for name in ("jpeg", "noise")}
    monkeypatch.setattr(ImageClassification, "corruptions", two)  # the long tests have all
    directory = tmp_path / "run"
    run(quick_study(digits_study, False), directory)
    before = results_of(directory)
    assert before["corruptions"] == []
    assert before["baseline"]["robustness"] is None
    assert not (directory / "robustness").exists()
    costs = (directory / "costs.json").read_bytes()

    def no_training(*arguments: Any, **named: Any) -> None:
        raise AssertionError("a model was trained")

    monkeypatch.setattr("leanformer.study.training.train", no_training)
    run(quick_study(digits_study, True), directory)
    assert (directory / "costs.json").read_bytes() == costs
    log = (directory / "run.jsonl").read_text(encoding="utf-8").splitlines()
    assert len([line for line in log if '"note": "answered"' in line]) == 4  # no figure before the look is recorded
    results = results_of(directory)
    assert results["corruptions"] == [{"name": name, "meaning": meaning} for name, meaning in two.items()]
    rows = rows_of(directory)
    # What the rows say, from the models themselves.
    task = open_task(make_study(quick_study(digits_study, True)), torch.device("cpu"))
    for name, row in rows.items():
        trials = {seed: trial_of(directory, name, seed) for seed in (0, 1)}
        best = max(trials, key=lambda seed: trials[seed]["validation"]["validation_accuracy"])
        model = load(directory / "trials" / name / f"seed-{best}" / "model")
        noisy = task.corrupted("noise").evaluate(model)
        (entry,) = (entry for entry in row["robustness"] if entry["corruption"] == "noise")
        accuracy = float((noisy.labels == noisy.predictions).mean())  # type: ignore[attr-defined]
        assert entry["quality"] == pytest.approx(accuracy)
        assert entry["loss"] == pytest.approx(accuracy - trials[best]["accuracy"])
    assert all(entry["extra_loss"] is None for entry in rows["baseline"]["robustness"])
    for mine, theirs in zip(rows["no-mlp"]["robustness"], rows["baseline"]["robustness"], strict=True):
        assert mine["extra_loss"]["mean"] == pytest.approx(mine["loss"] - theirs["loss"])
        assert mine["difference"]["mean"] == pytest.approx(mine["quality"] - theirs["quality"])
    # Decisions are the same.
    assert {name: row["decision"] for name, row in rows.items()} == {
        row["name"]: row["decision"] for row in (before["baseline"], *before["candidates"])
    }
    # A resume answers nothing again, except what is missing.
    steps: list[str] = []
    real = RobustnessStep.run

    def noted(step: RobustnessStep, prepared: PreparedStudy) -> None:
        steps.append(step.title)
        real(step, prepared)

    monkeypatch.setattr(RobustnessStep, "run", noted)
    lost = directory / "robustness" / "no-mlp" / "torch" / "jpeg" / "result.json"
    lost.unlink()
    (lost.parent / "settings.json").unlink()
    run(quick_study(digits_study, True), directory)
    assert steps == ["no-mlp · jpeg"]
    assert without_timings(results_of(directory)) == without_timings(results)


def test_streamed_images_are_corrupted_alike(digits_study: MakeStudy) -> None:
    study = quick_study(digits_study, True)
    study["data"] |= {"train_limit": 20, "test_limit": 12}
    pixels = []
    for storage in ("memory", "stream"):
        study["data"]["storage"] = storage
        task = open_task(make_study(study), torch.device("cpu")).corrupted("shift")
        assert isinstance(task, ImageClassification)
        pixels.append(torch.cat([batch["pixel_values"] for batch in task.batches.evaluation(task.data.test)]))
        clean = open_task(make_study(study), torch.device("cpu"))
        assert isinstance(clean, ImageClassification)
        (whole,) = (batch["pixel_values"] for batch in clean.batches.evaluation(clean.data.test))
        assert (pixels[-1] != whole).any()
    assert torch.equal(*pixels)


def test_a_task_without_corruptions_refuses_the_key(
    digits_study: MakeStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageClassification, "corruptions", {})
    with pytest.raises(LeanformerError, match=r"measure\.robustness does nothing here: .*; leave it out"):
        run(quick_study(digits_study, True), tmp_path / "run")


def entry(corruption: str, mean: float, more: bool) -> dict[str, Any]:
    return {"corruption": corruption, "extra_loss": {"mean": mean}, "loses_more": more}


def test_a_warning_names_where_the_recommended_student_loses_more(digits_study: MakeStudy) -> None:
    study = make_study(quick_study(digits_study, True))
    rows = {
        "no-mlp": [entry("noise", -0.021, True), entry("blur", -0.05, False), entry("jpeg", -0.034, True)],
        "baseline": [entry("noise", 0.0, False)],
    }
    (warning,) = less_robust(study, "no-mlp", rows)
    assert (warning.code, warning.count) == ("less-robust", 2)
    assert warning.sentence.startswith(
        "no-mlp loses more than the baseline on corrupted test examples (jpeg -3.4 points, noise -2.1 points): "
    )
    assert less_robust(study, "baseline", rows) == []
    assert less_robust(study, None, rows) == []
    assert less_robust(study, "no-mlp", {}) == []


def words_study(**changes: Any) -> dict[str, Any]:
    """A study on number words."""
    study: dict[str, Any] = {
        "name": "words",
        "task": "translation",
        "data": {
            "source": "number-words",
            "numbers": {"train": 600, "validation": 30, "test": 40, "largest": 2000},
            "tokenizer": {"vocabulary": 300},
            "max_tokens": 30,
        },
        "baseline": tiny_marian(decoder_layers=1),
        "candidates": {"lean": {"plan": {"decoder.*.mlp": "none"}}},
        "train": {"epochs": 2, "batch_tokens": 512, "learning_rate": 1e-2, "label_smoothing": 0.0},
        "seeds": [0],
        "accept": {"metric": "chrf", "max_drop": 30.0},
        "measure": {"repeats": 1, "latency_calls": 1, "throughput_batch": 4, "threads": 1, "robustness": True},
    }
    return study | changes


def test_sentences_that_a_model_could_not_read_stay_as_they_are() -> None:
    task = open_task(make_study(words_study()), torch.device("cpu"))
    clean = task.data.test.sources  # type: ignore[attr-defined]
    loud = task.corrupted("upper-case").data.test.sources  # type: ignore[attr-defined]
    assert loud == tuple(TEXTS["upper-case"](sentence, 0) for sentence in clean)
    free = task.corruption_settings("upper-case")
    task = open_task(make_study(words_study()), torch.device("cpu"))
    lengths = [len(ids) for ids in task.tokenizer.encode_source([one.upper() for one in clean])]  # type: ignore[attr-defined]
    limit = int(np.median(lengths))
    task._source_limits.append(limit)  # type: ignore[attr-defined]
    some = task.corrupted("upper-case").data.test.sources  # type: ignore[attr-defined]
    expected = [one.upper() if length <= limit else one for one, length in zip(clean, lengths, strict=True)]
    assert list(some) == expected
    assert clean != some != loud
    assert task.corruption_settings("upper-case") != free


@pytest.mark.long
def test_exported_translators_answer_in_their_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "ENOUGH", 24)
    study = words_study(ship={"to": "ctranslate2", "precision": ["float32", "int8"]}, prefer="bytes", seeds=[0, 1])
    directory = tmp_path / "run"
    run(study, directory, report=True)
    rows = rows_of(directory)
    assert list(rows) == ["baseline", "baseline-int8", "lean", "lean-int8"]
    task = open_task(make_study(study), torch.device("cpu"))
    names = [corruption["name"] for corruption in results_of(directory)["corruptions"]]
    assert "typos" in names
    assert "lower-case" not in names  # number words have small letters alone
    for row in rows.values():
        assert [found["corruption"] for found in row["robustness"]] == names
        translator: Any = open_exported(directory / row["artifact"]["directory"])
        corrupted: Any = task.corrupted("typos")
        texts = translator.translate(list(corrupted.data.test.sources), max_tokens=30)
        score = Translations(corrupted.data.test.sources, corrupted.data.test.targets, tuple(texts)).score("chrf")
        (found,) = (found for found in row["robustness"] if found["corruption"] == "typos")
        assert found["quality"] == pytest.approx(score)
        assert found["loss"] == pytest.approx(score - row["quality"]["mean"])
    assert rows["baseline"]["robustness"][0]["extra_loss"] is None
    assert rows["baseline-int8"]["robustness"][0]["extra_loss"] is not None
    assert "Quality on corrupted test sentences" in (directory / "report.html").read_text(encoding="utf-8")
    # Another metric scores the same answers.
    run(study | {"accept": {"metric": "bleu", "max_drop": 30.0}}, directory)
    kept = Translations.read(directory / "robustness/lean/ctranslate2-int8/typos/predictions.parquet")
    (found,) = (found for found in rows_of(directory)["lean-int8"]["robustness"] if found["corruption"] == "typos")
    assert found["quality"] == pytest.approx(kept.score("bleu"))


@pytest.mark.long
def test_a_whole_study_of_digits(digits_study: MakeStudy, tmp_path: Path) -> None:
    study = digits_study()
    study["train"] = {"epochs": 12, "batch_size": 64, "learning_rate": 1e-2}
    study["measure"] |= {"robustness": True}
    result, log = run(study, tmp_path / "run", jobs=2, report=True)
    rows = rows_of(tmp_path / "run")
    for name, row in rows.items():
        assert {found["corruption"] for found in row["robustness"]} == set(IMAGES)
        for found in row["robustness"]:
            assert f"{name} · {found['corruption']}" in log
            kept = Predictions.read(
                tmp_path / "run" / "robustness" / name / "torch" / found["corruption"] / "predictions.parquet"
            )
            assert found["quality"] == pytest.approx(float(kept.correct.mean()))
    # Corruptions of a moderate severity cost a trained model something, and not all.
    losses = {found["corruption"]: found["loss"] for found in rows["baseline"]["robustness"]}
    assert np.mean(list(losses.values())) < -0.02
    assert min(found["quality"] for found in rows["baseline"]["robustness"]) > 0.1
    assert isinstance(result, lf.StudyResult)


@pytest.mark.long
def test_a_failed_training_has_no_robustness(
    digits_study: MakeStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = training.train_model

    def fails_without_mlp(prepared: Any, step: Any, *arguments: Any, **named: Any) -> Trained:
        if step.name == "no-mlp":
            return Trained(status="failed", reason="the loss was not finite")
        return real(prepared, step, *arguments, **named)

    monkeypatch.setattr("leanformer.study.trials.train_model", fails_without_mlp)
    run(quick_study(digits_study, True), tmp_path / "run")
    rows = rows_of(tmp_path / "run")
    assert rows["no-mlp"]["status"] == "failed"
    assert rows["no-mlp"]["robustness"] is None
    assert len(rows["baseline"]["robustness"]) == len(IMAGES)

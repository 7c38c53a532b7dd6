"""The main job, end to end on the built-in digits."""

from __future__ import annotations

import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import processes
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from filelock import FileLock
from rich.console import Console
from studies import results_of, rows_of, run, without_timings

import leanformer as lf
from leanformer.config.base import TrainConfig
from leanformer.config.images import ImageDataConfig
from leanformer.core.json_files import read_sealed, sealed
from leanformer.data.image_batches import ImageBatches
from leanformer.data.images import load_images
from leanformer.learn.step import TrainingStep
from leanformer.learn.train import Trained, train
from leanformer.measure.quality import predict
from leanformer.model.weights import parameter_count
from leanformer.report.summary import decision_lines, results_table
from leanformer.results.reader import read_results
from leanformer.study import costing, training
from leanformer.study.graph import exports_of, trials_of
from leanformer.study.store import RunDirectory

MakeStudy = Callable[..., dict[str, Any]]
FILES_OF_MODELS = {
    "README.md",  # of the recommended one
    "config.json",
    "model.safetensors",
    "modeling_leanformer.py",
    "preprocessor_config.json",
}
KILLS = int(os.environ.get("LEANFORMER_KILLS", "5"))


def sizes(directory: Path) -> dict[str, tuple[int, int]]:
    """Files below a directory with size and time of change, but for the card, which follows the results."""
    return {
        str(path.relative_to(directory)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in directory.rglob("*")
        if path.is_file() and path.name != "README.md"
    }


@pytest.fixture
def whole(digits_run: Path) -> Path:
    """The directory of a study that ran to its end; tests that change it work on a copy."""
    return digits_run


@pytest.fixture
def finished(whole: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


# The files of a run


def test_the_run_directory_is_as_designed(whole: Path) -> None:
    for name in ("study.yaml", "results.json", "report.html"):
        assert (whole / name).stat().st_size > 100
    for candidate in ("baseline", "no-mlp", "minimal"):
        for seed in (0, 1):
            trial = whole / "trials" / candidate / f"seed-{seed}"
            files = {path.name for path in (trial / "model").iterdir()}
            assert {"config.json", "model.safetensors", "preprocessor_config.json"} <= files
            assert files <= FILES_OF_MODELS
            assert ("modeling_leanformer.py" in files) == (candidate != "baseline")
            result = json.loads((trial / "result.json").read_text())
            answers = pq.read_table(trial / "predictions.parquet").to_pydict()
            assert result["accuracy"] == pytest.approx(np.mean(answers["correct"]))
            assert len(answers["label"]) == results_of(whole)["data"]["test"] == 898
            assert not (trial / "checkpoint.safetensors").exists()
    assert not list(whole.rglob("*.partial"))


def test_results_say_what_the_trials_gave(whole: Path) -> None:
    results, rows = results_of(whole), rows_of(whole)
    baseline = rows["baseline"]
    for name, row in rows.items():
        model = lf.load(whole / row["trials"][0] / "model")
        assert row["parameters"] == parameter_count(model) == sum(row["parameters_by_kind"].values())
        assert row["parameters_ratio"] == row["parameters"] / baseline["parameters"]
        assert row["q_ratio"] == results["data"]["train"] * 10 / row["parameters"]
        per_seed = [json.loads((whole / trial / "result.json").read_text())["accuracy"] for trial in row["trials"]]
        # The model that ships is the best on the validation split; the recipe is all of them.
        validated = [row["curves"][place]["epochs"][-1]["validation_accuracy"] for place in range(2)]
        assert row["decided_seed"] == row["seeds"][int(np.argmax(validated))]
        assert row["quality"]["per_seed"] == pytest.approx([per_seed[row["decided_seed"]]])
        assert row["recipe"]["quality"]["per_seed"] == pytest.approx(per_seed)
        assert row["recipe"]["quality"]["mean"] == pytest.approx(np.mean(per_seed))
        assert row["quality"]["low"] < row["quality"]["mean"] < row["quality"]["high"]
        assert len(row["curves"]) == 2
        assert len(row["curves"][0]["epochs"]) == 3
        assert sum(entry["examples"] for entry in row["per_class"]) == 898
        for key in ("train_seconds", "throughput_per_second", "peak_memory_mb", "train_peak_memory_mb"):
            assert row[key] > 0
        assert 0 < row["latency_ms"]["p50"] <= row["latency_ms"]["p95"]
        assert row["decoding"] is row["ms_per_token"] is None  # classifiers do not write text
        if name != "baseline":
            for statement, own, other in (
                (row, row["quality"]["mean"], baseline["quality"]["mean"]),
                (row["recipe"], np.mean(per_seed), baseline["recipe"]["quality"]["mean"]),
            ):
                assert statement["difference"]["mean"] == pytest.approx(own - other)
                assert statement["difference"]["low"] < own - other < statement["difference"]["high"]
                assert statement["decision"] in ("accept", "reject", "undecided")
            assert (row["scope"], row["recipe"]["scope"]) == ("one trained pair", "seeds and examples")
            assert row["recipe"]["broken_at_most"] == pytest.approx(1 - 0.05**0.5)
            assert [test["seed"] for test in row["mcnemar"]] == [row["decided_seed"]]
    minimal = rows["minimal"]
    assert {change["block"] for change in minimal["changes"] if change["kind"] == "self_attention"} == {
        "minimal_attention"
    }
    assert minimal["parameters_by_kind"]["mlp"] == 0
    assert results["recommended"] in rows
    assert (whole / results["ship"] / "model.safetensors").exists()


def test_a_shipped_model_answers_as_measured(whole: Path, digits_study: MakeStudy) -> None:
    study = digits_study()
    data = load_images(ImageDataConfig(**study["data"]), torch.device("cpu"))
    trial = whole / "trials" / "minimal" / "seed-1"
    answers = predict(lf.load(trial / "model"), ImageBatches(data, 64, (), data.mean, data.std).evaluation(data.test))
    kept = pq.read_table(trial / "predictions.parquet").to_pydict()
    assert answers.predictions.tolist() == kept["prediction"]
    assert answers.labels.tolist() == kept["label"]
    # The processor beside the model prepares a raw image as the study did.
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(trial / "model")
    image = next(iter(data.test.batches([torch.tensor([0])])))["pixel_values"][0]
    pixels = processor(image, return_tensors="pt")["pixel_values"]
    expected = next(iter(ImageBatches(data, 1, (), data.mean, data.std).evaluation(data.test)))["pixel_values"][:1]
    assert torch.allclose(pixels, expected, atol=1e-5)


def test_every_model_has_the_same_search(whole: Path) -> None:
    for row in rows_of(whole).values():
        searched = row["learning_rate_search"]
        assert [run["learning_rate"] for run in searched] == [3e-3, 1e-2]
        best = max(searched, key=lambda run: (run["accuracy"], -run["loss"]))
        assert row["learning_rate"] == best["learning_rate"]
        # No trial is the winner of a search: every seed is trained on its own.
        search = whole / "trials" / row["name"] / "search"
        kept = [json.loads(path.read_text())["trained"]["epochs"] for path in search.glob("*/result.json")]
        assert len(kept) == 2
        assert not any(curve["epochs"] in kept for curve in row["curves"])
        assert not list(search.glob("*/model"))
        settings = [read_sealed(path) for path in (whole / "trials" / row["name"]).rglob("settings.json")]
        assert sorted(one["seed"] for one in settings) == [0, 1, 2**32, 2**32]


def test_plain_lines_where_there_is_no_terminal(whole: Path) -> None:
    log = (whole / "log.txt").read_text()
    assert "\x1b" not in log
    assert "storage: memory" in log
    done = re.findall(r"tiny: \[(\d+)/12\] (\S+) · (?:rate|seed)", log)
    assert [int(number) for number, _ in done] == list(range(1, 13))
    assert re.search(r"\[12/12\] minimal · seed 1  loss \d\.\d+  val acc \d+\.\d%  [\d,]+ ex/s", log)


def test_the_study_file_reads_back(whole: Path, digits_study: MakeStudy) -> None:
    assert lf.read_study(whole / "study.yaml") == lf.make_study(digits_study())


# Running again


def test_nothing_is_done_twice(finished: Path, digits_study: MakeStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    before, trials = results_of(finished), sizes(finished / "trials")

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(training, "train", never)
    monkeypatch.setattr(costing, "measure_costs", never)
    card = finished / str(before["ship"]) / "README.md"
    written = card.stat().st_mtime_ns
    run(digits_study(), finished)
    assert results_of(finished) == before
    assert sizes(finished / "trials") == trials
    assert card.stat().st_mtime_ns == written


def test_what_changed_runs_again_and_says_why(finished: Path, digits_study: MakeStudy) -> None:
    before = sizes(finished / "trials")
    study = digits_study()
    study["candidates"]["no-mlp"]["plan"] = {"*.mlp": {"block": "mlp", "hidden": 2}}
    _, log = run(study, finished)
    assert 'no-mlp, seed 0 runs again: plan.*.mlp: "none" -> {"block": "mlp", "hidden": 2}' in log
    after = sizes(finished / "trials")
    changed = {name.split("/")[0] for name in after if after[name] != before.get(name)}
    assert changed == {"no-mlp"}
    mlp = 2 * (16 * 2 * 2 + 16 + 2 + 2 * 16)  # two layers: weights, biases, norm
    assert rows_of(finished)["no-mlp"]["parameters_by_kind"]["mlp"] == mlp


@pytest.mark.long
def test_a_key_that_earlier_versions_did_not_have_trains_nothing_while_it_has_its_default(
    finished: Path, digits_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in finished.rglob("settings.json"):
        settings = read_sealed(path)
        del settings["train"]["label_smoothing"], settings["data"]["split_seed"], settings["baseline"]["fresh"]
        path.write_text(sealed(settings), encoding="utf-8")
    with monkeypatch.context() as patch:
        patch.setattr(training, "train", lambda *_, **__: pytest.fail("trained again"))
        run(digits_study(), finished)
    study = digits_study()
    study["train"]["label_smoothing"] = 0.25
    _, log = run(study, finished)
    assert "no-mlp, seed 0 runs again: train.label_smoothing: null -> 0.25" in log


def test_another_acceptance_trains_nothing(
    finished: Path, digits_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "train", lambda *_, **__: pytest.fail("trained again"))
    run(digits_study(accept={"max_drop": 0.28}, prefer="latency"), finished)
    results = results_of(finished)
    assert [row["decision"] for row in results["candidates"]] == ["accept", "accept"]
    assert results["recommended"] == "baseline"
    assert "as there is no interval (it takes 6 rounds, and measure.repeats is 1)" in results["recommendation"]
    assert "here there were too few rounds for intervals" in results["method"]["cost"]


def test_rounds_decide_which_is_cheaper(
    finished: Path, digits_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "train", lambda *_, **__: pytest.fail("trained again"))
    study = digits_study(accept={"max_drop": 0.28}, prefer="latency")
    study["measure"]["repeats"] = 6
    _, log = run(study, finished)
    rows = rows_of(finished)
    latencies = {name: row["speeds"][0]["rounds"]["latency_ms"] for name, row in rows.items()}
    assert rows["baseline"]["cost_ratios"] is None
    shown = {}
    for name in ("no-mlp", "minimal"):
        ratios = sorted(mine / base for mine, base in zip(latencies[name], latencies["baseline"], strict=True))
        expected = {"median": (ratios[2] + ratios[3]) / 2, "low": ratios[0], "high": ratios[-1]}
        assert rows[name]["cost_ratios"]["latency"] == pytest.approx(expected)
        assert rows[name]["speeds"][0]["ratios"]["latency"] == rows[name]["cost_ratios"]["latency"]
        assert rows[name]["cost_ratios"]["train_seconds"]["median"] > 0
        if ratios[-1] < 1:
            shown[name] = expected["median"]
    results = results_of(finished)
    assert results["recommended"] == min(shown, key=lambda name: shown[name], default="baseline")
    for warning in results["warnings"]:
        assert f"[{warning['code']}]" in log


def test_what_duplicates_are_looked_for_trains_nothing(
    finished: Path, digits_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "train", lambda *_, **__: pytest.fail("trained again"))
    study = digits_study()
    study["data"]["duplicates"] = "none"
    run(study, finished)
    assert not any("pixel for pixel" in note for note in results_of(finished)["data"]["notes"])


@pytest.mark.long
def test_a_further_seed_trains_that_seed_alone(finished: Path, digits_study: MakeStudy) -> None:
    before = sizes(finished / "trials")
    run(digits_study(seeds=[2, 0, 1]), finished)  # also where it is the first
    after = sizes(finished / "trials")
    new = {name for name in after if after[name] != before.get(name)}
    assert new
    assert all("/seed-2/" in name for name in new)
    assert all(len(row["recipe"]["quality"]["per_seed"]) == 3 for row in rows_of(finished).values())


@pytest.mark.long
def test_a_search_of_an_earlier_version_runs_again(finished: Path, digits_study: MakeStudy) -> None:
    for path in (finished / "trials").glob("*/search/*/settings.json"):
        path.write_text(sealed(read_sealed(path) | {"seed": 0}), encoding="utf-8")
    trials = sizes(finished / "trials")
    _, log = run(digits_study(), finished)
    assert log.count("runs again: seed: 0 -> 4294967296") == 6
    assert "minimal, search at rate 0.01 runs again: seed: 0" in log
    after = sizes(finished / "trials")
    assert {name.split("/")[1] for name in after if after[name] != trials[name]} == {"search"}


def test_further_seeds_of_the_baseline_train_it_alone(finished: Path, digits_study: MakeStudy) -> None:
    before = sizes(finished / "trials")
    study = digits_study()
    study["baseline"]["seeds"] = [2, 1, 0]
    run(study, finished)
    after = sizes(finished / "trials")
    new = {name for name in after if after[name] != before.get(name)}
    assert new
    assert all(name.startswith("baseline/seed-2/") for name in new)
    number = read_results(finished)["looks"]["number"]
    run(study, finished)  # again: no seed is missing, and nothing is new
    assert read_results(finished)["looks"]["number"] == number
    rows = read_results(finished)
    baseline = rows["baseline"]
    assert baseline["seeds"] == [0, 1, 2]
    assert baseline["decided_seed"] in (0, 1)  # of those that the candidates have too
    assert len(baseline["recipe"]["quality"]["per_seed"]) == 3
    for row in rows["candidates"]:
        assert row["seeds"] == [0, 1]
        gap = np.mean(row["recipe"]["quality"]["per_seed"]) - np.mean(baseline["recipe"]["quality"]["per_seed"])
        assert row["recipe"]["difference"]["mean"] == pytest.approx(gap)
        (test,) = row["mcnemar"]
        gap = row["quality"]["mean"] - baseline["quality"]["mean"]
        assert (test["candidate_only"] - test["baseline_only"]) / 898 == pytest.approx(gap)


def test_of_further_seeds_of_the_baseline_none_is_exported(digits_study: MakeStudy) -> None:
    study = digits_study(ship={"to": "onnx"})
    study["baseline"]["seeds"] = [0, 1, 2]
    prepared: Any = SimpleNamespace(study=lf.make_study(study), is_distilled=lambda name: False)
    for name, seeds in (("baseline", [0, 1, 2]), ("no-mlp", [0, 1])):
        assert [trial.seed for trial in trials_of(prepared, name)] == seeds
        (export,) = exports_of(prepared, name)
        assert [trial.seed for trial in export.trials] == [0, 1]


@pytest.mark.long
def test_a_student_is_compared_with_the_teachers_of_its_seeds(digits_study: MakeStudy, tmp_path: Path) -> None:
    study = digits_study(
        seeds=[0, 1],
        train={"epochs": 2, "batch_size": 64, "learning_rate": 3e-3},
        distill={"epochs": 1},
        finetune={"epochs": 1},
    )
    study["baseline"]["seeds"] = [0, 1, 2, 3]
    average = {"plan": {"*.self_attention": "average"}}
    study["candidates"] = {"scratch": average, "student": {**average, "method": "distill"}}
    run(study, tmp_path / "run")
    rows = rows_of(tmp_path / "run")
    baseline = rows["baseline"]["recipe"]["quality"]["per_seed"]
    assert len(baseline) == 4
    for name, rivals in (("scratch", baseline), ("student", baseline[:2])):
        row, recipe = rows[name], rows[name]["recipe"]
        assert recipe["difference"]["mean"] == pytest.approx(recipe["quality"]["mean"] - np.mean(rivals))
        of_classes = sum(part["examples"] * part["difference"] for part in row["per_class"]) / 898
        assert of_classes == pytest.approx(row["difference"]["mean"])
    assert not (tmp_path / "run" / "teaching" / "seed-2").exists()


def test_a_second_process_is_told(whole: Path, digits_study: MakeStudy) -> None:
    with (
        FileLock(whole / ".lock"),
        pytest.raises(lf.LeanformerError, match="another leanformer process runs in this directory"),
    ):
        run(digits_study(), whole)


def test_another_studys_directory_is_left_alone(whole: Path, digits_study: MakeStudy, tmp_path: Path) -> None:
    before = sizes(whole)
    with pytest.raises(lf.LeanformerError, match=r"run directory of study 'tiny' .* not of 'other'; .* --out"):
        run(digits_study(name="other"), whole)
    assert sizes(whole) == before
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(lf.LeanformerError, match="neither empty nor a run directory"):
        run(digits_study(), tmp_path)


# Other studies


def test_a_failed_candidate_does_not_stop_the_study(
    digits_study: MakeStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails_without_mlp(model: Any, *arguments: Any) -> Trained:
        if (model.config.to_dict().get("plan") or {}).keys() == {"encoder.0.mlp", "encoder.1.mlp"}:
            return Trained(status="failed", reason="the loss was not finite")
        return train(model, *arguments)

    monkeypatch.setattr(training, "train", fails_without_mlp)
    train_once = {"epochs": 1, "batch_size": 64, "learning_rate": 3e-3}
    result, log = run(digits_study(train=train_once), tmp_path / "run", report=True)
    rows = rows_of(tmp_path / "run")
    assert (rows["no-mlp"]["status"], rows["no-mlp"]["decision"]) == ("failed", "reject")
    assert "the loss was not finite" in rows["no-mlp"]["reason"]
    assert rows["no-mlp"]["quality"] is None
    assert rows["minimal"]["status"] == rows["baseline"]["status"] == "ok"
    assert "failed: the loss was not finite" in log
    assert result.recommended in ("baseline", "minimal")
    assert "no-mlp" in result.report.read_text()


def test_a_failed_baseline_recommends_nothing(
    digits_study: MakeStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # At this rate, which no study file may have, every training diverges, and no rollback helps.
    set_rate = TrainingStep.set_learning_rate
    monkeypatch.setattr(TrainingStep, "set_learning_rate", lambda self, rate: set_rate(self, 1e38))
    study = digits_study(train={"epochs": 1, "batch_size": 64, "clip_norm": None, "learning_rate": 1e-3}, seeds=[0])
    result, _ = run(study, tmp_path / "run")
    assert result.recommended is None
    assert "the baseline failed" in result.results["recommendation"]
    assert all(row["status"] == "failed" for row in rows_of(tmp_path / "run").values())
    with pytest.raises(lf.LeanformerError, match="the baseline failed"):
        result.model()


@pytest.mark.long
def test_one_seed_speaks_of_one_trained_pair(digits_study: MakeStudy, tmp_path: Path) -> None:
    study = digits_study(seeds=[7], train={"epochs": 1, "batch_size": 64, "learning_rate": 3e-3})
    result, _ = run(study, tmp_path / "run", report=True)
    assert {row["scope"] for row in result.results["candidates"]} == {"one trained pair"}
    console = Console(file=io.StringIO(), width=80)
    console.print(results_table(result.results))
    shown = "\n".join([*decision_lines(result.results), console.file.getvalue()])  # type: ignore[attr-defined]
    assert "one trained pair" in shown
    assert "one trained pair" in result.report.read_text()


def test_a_trained_baseline_is_taken_as_it_is(whole: Path, digits_study: MakeStudy, tmp_path: Path) -> None:
    trained = whole / "trials" / "baseline" / "seed-0"
    study = digits_study(
        name="trained",
        baseline={"model": str(trained / "model")},
        candidates={
            "teacher-start": {
                "plan": {"*.self_attention": {"block": "minimal_attention", "vo": "collapsed", "init": "teacher"}}
            }
        },
        train={"epochs": 0, "batch_size": 64, "learning_rate": 1e-3},
        seeds=[0],
    )
    run(study, tmp_path / "run")
    rows = rows_of(tmp_path / "run")
    accuracy = json.loads((trained / "result.json").read_text())["accuracy"]
    assert rows["baseline"]["quality"]["per_seed"] == [accuracy]  # the same test examples, normalized alike
    assert rows["teacher-start"]["parameters"] < rows["baseline"]["parameters"]
    # Two heads cannot be collapsed exactly, but most of what they learned remains: chance would give a tenth.
    assert rows["teacher-start"]["quality"]["mean"] > 0.3


@pytest.mark.long
def test_images_too_many_for_memory_are_streamed(digits_study: MakeStudy, tmp_path: Path) -> None:
    study = digits_study(
        candidates={"no-mlp": {"plan": {"*.mlp": "none"}}},
        train={"epochs": 1, "batch_size": 64, "learning_rate": 3e-3},
        seeds=[0],
    )
    in_memory, _ = run(study, tmp_path / "memory")
    study["data"]["storage"] = "stream"
    streamed, log = run(study, tmp_path / "stream")
    assert "storage: stream" in log
    assert without_timings(streamed.results["candidates"]) == without_timings(in_memory.results["candidates"])


@pytest.mark.long
def test_deit_runs_alike(digits_study: MakeStudy, tmp_path: Path) -> None:
    study = digits_study(train={"epochs": 1, "batch_size": 64, "learning_rate": 3e-3}, seeds=[0])
    study["baseline"]["model"] = "deit"
    result, _ = run(study, tmp_path / "run")
    assert all(row["status"] == "ok" for row in rows_of(tmp_path / "run").values())
    assert type(result.model()).__name__.endswith("DeiTForImageClassification")


# Interrupted


@pytest.fixture
def arguments(digits_study: MakeStudy, tmp_path: Path) -> list[str]:
    """The command line of the module's study, with a run directory ``run``."""
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(digits_study(), sort_keys=False))
    return ["run", str(path), "--out", str(tmp_path / "run")]


@pytest.mark.long
@pytest.mark.parametrize("interval", [0.0, TrainConfig().checkpoint_seconds])
def test_killed_at_any_moment_it_ends_with_the_same_results(
    whole: Path, arguments: list[str], digits_study: MakeStudy, tmp_path: Path, interval: float
) -> None:
    """With a checkpoint after each epoch, and with the default interval, in which these trainings write none."""
    arguments += ["--set", f"train.checkpoint_seconds={interval}"]
    directory = tmp_path / "run"
    whole_results = results_of(whole)
    whole_results["study"]["train"]["checkpoint_seconds"] = interval
    expected = without_timings(whole_results)
    # Relative to the time of the whole study on this machine, so that kills hit all stages on any machine.
    seconds = (whole / "results.json").stat().st_mtime - (whole / "study.yaml").stat().st_mtime
    processes.start(["--version"], tmp_path / "errors.txt").join()  # the server first imports everything
    moments = random.Random(3)
    kills = done = 0
    while kills < KILLS:
        process = processes.start(arguments, tmp_path / "errors.txt")
        process.join(moments.uniform(0, seconds))
        process.kill()
        process.join()
        finished = len(list(directory.rglob("result.json")))
        assert finished >= done  # what was finished stays
        if process.exitcode == 0:  # it ended before the kill
            assert without_timings(results_of(directory)) == expected
            shutil.rmtree(directory)
            finished = 0
        else:
            assert process.exitcode == -signal.SIGKILL
            kills += 1
        done = finished
    study = digits_study()
    study["train"]["checkpoint_seconds"] = interval
    run(study, directory)
    assert without_timings(results_of(directory)) == expected
    assert not list(directory.rglob("*.partial"))


@pytest.mark.long
def test_trainings_side_by_side_give_the_same_results(whole: Path, digits_study: MakeStudy, tmp_path: Path) -> None:
    _, log = run(digits_study(), tmp_path / "run", jobs=2)
    assert without_timings(results_of(tmp_path / "run")) == without_timings(results_of(whole))
    counted = re.findall(r"^tiny: \[(\d+)/(\d+)\]", log, re.MULTILINE)
    assert counted == [(str(number), "12") for number in range(1, 13)]  # each step once
    assert log.count("tiny: columns: ") == 1  # the processes do not repeat the notes on the data


def test_fewer_than_one_job_is_refused(digits_study: MakeStudy, tmp_path: Path) -> None:
    with pytest.raises(lf.LeanformerError, match=r"^jobs 0: must be a whole number from 1 to 256$"):
        lf.run(digits_study(), tmp_path / "run", jobs=0)
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_what_is_there_is_counted_before_other_processes_begin(finished: Path, digits_study: MakeStudy) -> None:
    for name in ("no-mlp", "minimal"):
        shutil.rmtree(finished / "trials" / name / "seed-1")
    _, log = run(digits_study(), finished, jobs=2)
    assert re.findall(r"^tiny: \[(\d+)/(\d+)\]", log, re.MULTILINE) == [("11", "12"), ("12", "12")]


def test_a_directory_in_which_another_process_still_works_is_left_alone(
    finished: Path, digits_study: MakeStudy
) -> None:
    """The main process was killed, and its workers have not noticed yet."""
    worker = RunDirectory(finished, lf.make_study(digits_study()))
    worker.work_in(1)
    with pytest.raises(lf.LeanformerError, match="another leanformer process"):
        run(digits_study(), finished)
    del worker
    run(digits_study(), finished)


def test_a_directory_that_was_emptied_but_for_its_locks_is_an_empty_one(
    digits_study: MakeStudy, tmp_path: Path
) -> None:
    for name in (".lock", ".lock-1"):
        (tmp_path / name).touch()
    with RunDirectory(tmp_path, lf.make_study(digits_study())):
        assert (tmp_path / "study.yaml").exists()


@pytest.mark.long  # a new process imports everything
@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c_while_other_processes_start_is_one_line(arguments: list[str], tmp_path: Path) -> None:
    with (tmp_path / "errors.txt").open("w+") as errors:
        command = [sys.executable, "-m", "leanformer", *arguments, "--jobs", "2"]
        hear = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # tests in the background ignore Ctrl-C
        with subprocess.Popen(command, stderr=errors, start_new_session=True, preexec_fn=hear) as process:
            while "storage: " not in (tmp_path / "errors.txt").read_text():
                assert process.poll() is None
                time.sleep(0.05)
            time.sleep(1.0)
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the processes that it has started too
        assert process.returncode == 130
        lines = (tmp_path / "errors.txt").read_text().strip().splitlines()
    assert lines[-1] == "leanformer: stopped; run the same command again to go on"
    assert not any("Traceback" in line or line.startswith(" ") for line in lines)


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c_ends_cleanly_and_the_next_run_goes_on(
    whole: Path, arguments: list[str], digits_study: MakeStudy, tmp_path: Path
) -> None:
    directory = tmp_path / "run"
    process = processes.start(arguments, tmp_path / "errors.txt")
    while not list(directory.rglob("result.json")):
        assert process.is_alive()
        time.sleep(0.05)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    process.join(30)
    assert process.exitcode == 130
    errors = (tmp_path / "errors.txt").read_text()
    assert errors.strip().splitlines()[-1] == "leanformer: stopped; run the same command again to go on"
    assert "Traceback" not in errors
    kept = {name: entry for name, entry in sizes(directory / "trials").items() if name.endswith("result.json")}
    run(digits_study(), directory)
    assert kept.items() <= sizes(directory / "trials").items()
    assert without_timings(results_of(directory)) == without_timings(results_of(whole))


@pytest.mark.long
def test_a_full_disk_loses_nothing(whole: Path, arguments: list[str], digits_study: MakeStudy, tmp_path: Path) -> None:
    pytest.importorskip("resource")
    directory = tmp_path / "run"
    # Room for what the small forms write, not for the baseline's checkpoint.
    process = processes.start(arguments, tmp_path / "errors.txt", largest_file=30_000)
    process.join()
    assert process.exitcode == 2
    errors = (tmp_path / "errors.txt").read_text()
    assert "Traceback" not in errors
    assert re.search(r"leanformer: error: .*cannot be written", errors.strip().splitlines()[-1])
    assert not list(directory.rglob("*.partial"))
    run(digits_study(), directory)
    assert without_timings(results_of(directory)) == without_timings(results_of(whole))

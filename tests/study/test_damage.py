"""Damaged files are found, named, set aside and made again; links and lost directories are noticed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cases import slow
from studies import results_of, run, without_timings

import leanformer as lf
from leanformer.core.json_files import read_sealed, sealed
from leanformer.core.signatures import content_signature, files_signature
from leanformer.learn.checkpoint import Snapshot
from leanformer.study import training
from leanformer.study.assemble import assemble
from leanformer.study.store import RunDirectory

MakeStudy = Callable[..., dict[str, Any]]


@pytest.fixture
def finished(digits_run: Path, tmp_path: Path) -> Path:
    """A finished study, to be damaged."""
    return Path(shutil.copytree(digits_run, tmp_path / "run"))


def flip(path: Path, where: float = 0.5) -> None:
    """Flips one bit of a file, at a fraction of its length."""
    content = bytearray(path.read_bytes())
    content[int(where * (len(content) - 1))] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("damage", "file"),
    [
        (flip, "model/model.safetensors"),
        *slow(
            (Path.unlink, "predictions.parquet"),
            (cut, "result.json"),
            (Path.unlink, "model/config.json"),
            (
                lambda path: shutil.copy(path.parents[2] / "seed-1" / "model" / path.name, path),
                "model/model.safetensors",
            ),
            (lambda path: flip(path, 0.99), "model/model.safetensors"),
            (lambda path: flip(path, 0.01), "model/model.safetensors"),
            (cut, "model/model.safetensors"),
            (flip, "model/config.json"),
            (Path.unlink, "model/model.safetensors"),
            (lambda path: shutil.rmtree(path.parent), "model/config.json"),
            (lambda path: path.write_text("{}"), "model/adapter_config.json"),
            (lambda path: path.write_bytes(b""), "model/pytorch_model.bin"),
            (flip, "predictions.parquet"),
            (cut, "predictions.parquet"),
            (lambda path: path.write_text(path.read_text().replace("0", "1", 1)), "result.json"),
            (lambda path: path.write_text("[1]"), "result.json"),
            (lambda path: path.write_text("[" * 100_000), "result.json"),
            (cut, "settings.json"),
            (lambda path: path.write_text(path.read_text().replace("digits", "digitr", 1)), "settings.json"),
            (Path.unlink, "settings.json"),
        ),
    ],
)
def test_a_damaged_trial_is_named_set_aside_and_trained_again(
    finished: Path, digits_study: MakeStudy, damage: Callable[[Path], object], file: str
) -> None:
    before = results_of(finished)
    trial = finished / "trials" / "minimal" / "seed-0"
    damage(trial / file)
    result, log = run(digits_study(), finished)
    (line,) = [line for line in log.splitlines() if "runs again" in line]
    assert line.startswith(f"tiny: minimal, seed 0 runs again: {trial}/")
    assert file in line
    assert line.endswith(f"what was there is now {trial}.damaged")
    assert (finished / "trials" / "minimal" / "seed-0.damaged").is_dir()
    assert without_timings(result.results) == without_timings(before)
    _, log = run(digits_study(), finished)
    assert "again" not in log


@pytest.mark.long
def test_a_note_beside_a_model_is_left_alone(finished: Path, digits_study: MakeStudy) -> None:
    for name in ("README.md", ".DS_Store"):
        (finished / "trials" / "minimal" / "seed-0" / "model" / name).write_text("mine")
    _, log = run(digits_study(), finished)
    assert "again" not in log


@pytest.mark.long
def test_damage_is_set_aside_each_time_under_a_name_of_its_own(finished: Path, digits_study: MakeStudy) -> None:
    trial = finished / "trials" / "no-mlp" / "seed-1"
    for name in ("seed-1.damaged", "seed-1.damaged-2"):
        flip(trial / "predictions.parquet")
        run(digits_study(), finished)
        assert (trial.parent / name / "predictions.parquet").is_file()


@pytest.mark.long
def test_an_older_study_without_sums_is_taken_as_it_is(finished: Path, digits_study: MakeStudy) -> None:
    for path in finished.rglob("result.json"):
        content = json.loads(path.read_text())
        assert content.pop("sha256")
        assert "files" in content  # of a search there is none
        del content["files"]
        path.write_text(json.dumps(content))
    _, log = run(digits_study(), finished)
    assert "again" not in log


@pytest.mark.long
def test_a_damaged_record_of_costs_is_measured_anew(finished: Path, digits_study: MakeStudy) -> None:
    path = finished / "costs.json"
    path.write_text(path.read_text().replace("p50", "p51", 1))
    _, log = run(digits_study(), finished)
    assert f"{path}: damaged (its SHA-256 does not match); it is measured again" in log


def test_a_sealed_file_tells_a_changed_digit(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text(sealed({"loss": 0.125, "words": ["ä"]}), encoding="utf-8")
    assert read_sealed(path) == {"loss": 0.125, "words": ["ä"]}
    path.write_text(path.read_text(encoding="utf-8").replace("0.125", "0.126"), encoding="utf-8")
    with pytest.raises(lf.LeanformerError, match=r"result\.json: damaged \(its SHA-256 does not match"):
        read_sealed(path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="root gives up its rights in it")
@pytest.mark.parametrize("name", ["model/model.safetensors", "result.json", "settings.json"])
def test_what_may_not_be_read_is_not_called_damage(finished: Path, digits_study: MakeStudy, name: str) -> None:
    trial = finished / "trials" / "minimal" / "seed-0"
    settings = read_sealed(trial / "settings.json")
    directory = RunDirectory(finished, lf.make_study(digits_study()))
    for place in (finished, *finished.parents[:-1]):
        place.chmod(0o755)
    (trial / name).chmod(0)
    os.seteuid(65534)
    try:
        with pytest.raises(lf.LeanformerError, match=rf"{name}: cannot be read: Permission denied$"):
            directory.prepare(trial, settings)
    finally:
        os.seteuid(0)
    assert not (trial.parent / "seed-0.damaged").exists()


# Checkpoints


@pytest.fixture
def cut_off(finished: Path, digits_study: MakeStudy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A study whose last trial was interrupted after its second epoch."""
    trial = finished / "trials" / "minimal" / "seed-1"
    (trial / "result.json").unlink()

    def interrupted(self: Any, record: dict[str, float], examples_per_second: float) -> None:
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.TrialObserver, "epoch_ended", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(digits_study(), finished)
    yield finished
    assert not list(trial.glob("checkpoint.safetensors"))


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        *slow(*(lambda path, part=part: flip(path, part) for part in (0.4, 0.02, 0.2, 0.6, 0.8, 0.9, 0.999))),
        *slow(lambda path: path.write_bytes(b"")),
    ],
)
def test_a_damaged_checkpoint_is_set_aside_and_training_starts_again(
    cut_off: Path, digits_study: MakeStudy, digits_run: Path, damage: Callable[[Path], object]
) -> None:
    checkpoint = cut_off / "trials" / "minimal" / "seed-1" / "checkpoint.safetensors"
    damage(checkpoint)
    result, log = run(digits_study(), cut_off)
    assert f"tiny: {checkpoint}: the checkpoint is damaged" in log
    assert f"it is now {checkpoint}.damaged, and this training starts again" in log
    assert without_timings(result.results) == without_timings(results_of(digits_run))


@pytest.mark.long
def test_a_foreign_checkpoint_is_set_aside(cut_off: Path, digits_study: MakeStudy, digits_run: Path) -> None:
    import torch

    trial = cut_off / "trials" / "minimal" / "seed-1"
    found = Snapshot.read(trial / "checkpoint.safetensors", torch.device("cpu"))
    name = next(name for name in found.tensors if name.startswith("model."))
    tensors = {**found.tensors, name: torch.zeros(3, 5)}
    Snapshot(tensors, found.numbers).write(trial / "checkpoint.safetensors")
    result, log = run(digits_study(), cut_off)
    assert f"the checkpoint is from another model ({name.removeprefix('model.')} has the shape (3, 5) there" in log
    assert without_timings(result.results) == without_timings(results_of(digits_run))


@pytest.mark.long
def test_an_undamaged_checkpoint_is_gone_on_with(cut_off: Path, digits_study: MakeStudy, digits_run: Path) -> None:
    result, log = run(digits_study(), cut_off)
    assert "starts again" not in log
    assert without_timings(result.results) == without_timings(results_of(digits_run))


# Links, and a run directory that is moved or deleted


@pytest.mark.parametrize("name", ["trials", *slow("trials/minimal", "trials/minimal/seed-0")])
def test_a_trial_directory_that_is_a_link_is_refused(finished: Path, digits_study: MakeStudy, name: str) -> None:
    place = finished / name
    elsewhere = finished.parent / "elsewhere"
    place.rename(elsewhere)
    place.symlink_to(elsewhere, target_is_directory=True)
    before = sorted(path.name for path in elsewhere.rglob("*"))
    changed = digits_study(train={**digits_study()["train"], "epochs": 4})
    with pytest.raises(lf.LeanformerError, match=rf"{name}: is a link; .*put the directory itself in its place"):
        run(changed, finished)
    assert sorted(path.name for path in elsewhere.rglob("*")) == before


def test_a_run_directory_may_be_reached_by_a_link(digits_study: MakeStudy, finished: Path) -> None:
    link = finished.parent / "link"
    link.symlink_to(finished, target_is_directory=True)
    result, log = run(digits_study(), link)
    assert "again" not in log
    assert (finished / (result.results["ship"] or "") / "config.json").is_file()


@pytest.mark.parametrize(
    ("take_away", "named"),
    [
        (lambda path: path.rename(path.with_name("moved")), r"run: moved, deleted or replaced"),
        *slow(
            (shutil.rmtree, r"run: moved, deleted or replaced"),
            (lambda path: (path / "study.yaml").unlink(), r"study\.yaml: moved, deleted or replaced"),
        ),
        (lambda path: (path / ".lock").unlink(), r"\.lock: moved, deleted or replaced"),
    ],
)
def test_a_directory_that_is_taken_away_is_noticed_at_the_next_step(
    digits_study: MakeStudy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    take_away: Callable[[Path], object],
    named: str,
) -> None:
    directory = tmp_path / "run"
    steps = []
    monkeypatch.setattr("leanformer.study.store.SECONDS_BETWEEN_CHECKS", 0.0)
    step_ended = training.TrialObserver.step_ended

    def takes_away(self: Any, epoch: int, step: int, steps_per_epoch: int) -> None:
        steps.append(step)
        if len(steps) == 10:
            take_away(directory)
        step_ended(self, epoch, step, steps_per_epoch)

    monkeypatch.setattr(training.TrialObserver, "step_ended", takes_away)
    with pytest.raises(lf.LeanformerError, match=named):
        run(digits_study(), directory)
    assert len(steps) == 10
    assert not directory.exists() or (directory / "trials").exists()  # nothing was made again at the old place


def test_a_shipped_model_that_is_not_there_is_said(
    finished: Path, digits_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loses(*arguments: Any) -> dict[str, Any]:
        results = assemble(*arguments)
        (finished / results["ship"] / "model.safetensors").unlink()
        return results

    monkeypatch.setattr("leanformer.study.run.assemble", loses)
    with pytest.raises(lf.LeanformerError, match=r"model\.safetensors: missing; the model to ship cannot be used"):
        run(digits_study(), finished)


# Files that were edited


def test_data_that_keep_their_sizes_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    file = tmp_path / "model" / "model.safetensors"
    file.write_bytes(b"a" * 300)
    before = files_signature(str(tmp_path / "model")), content_signature(str(tmp_path / "model"))
    file.write_bytes(b"a" * 299 + b"b")
    after = files_signature(str(tmp_path / "model")), content_signature(str(tmp_path / "model"))
    assert before[0] == after[0]
    assert before[1] != after[1]
    monkeypatch.setattr("leanformer.core.signatures.WHOLE", 100)
    monkeypatch.setattr("leanformer.core.signatures.SAMPLE", 10)
    sampled = content_signature(str(tmp_path / "model"))
    file.write_bytes(b"a" * 150 + b"b" + b"a" * 148 + b"b")
    assert content_signature(str(tmp_path / "model")) == sampled
    file.write_bytes(b"a" * 300)
    assert content_signature(str(tmp_path / "model")) != sampled
    assert content_signature("owner/name") is None


@pytest.mark.long
def test_a_baseline_that_was_trained_anew_runs_again(
    finished: Path, digits_study: MakeStudy, tmp_path: Path, make_model: Any
) -> None:
    model = tmp_path / "model"
    shutil.copytree(finished / "trials" / "baseline" / "seed-0" / "model", model)
    study = digits_study(baseline={"model": str(model)}, seeds=[0], candidates={"no-mlp": {"plan": {"*.mlp": "none"}}})
    study["train"] = {"epochs": 1, "batch_size": 64, "learning_rate": 3e-3}
    directory = tmp_path / "again"
    run(study, directory)
    _, log = run(study, directory)
    assert "again" not in log
    shutil.copytree(finished / "trials" / "baseline" / "seed-1" / "model", model, dirs_exist_ok=True)
    _, log = run(study, directory)
    assert log.count("runs again: baseline_content: ") == 2


@pytest.mark.long
def test_an_older_study_that_names_no_contents_is_taken_as_it_is(finished: Path, digits_study: MakeStudy) -> None:
    for path in finished.rglob("settings.json"):
        settings = read_sealed(path)
        for key in ("data_content", "baseline_content"):
            del settings[key]
        path.write_text(json.dumps(settings))
    _, log = run(digits_study(), finished)
    assert "again" not in log


# The run directory's study.yaml


def test_a_damaged_copy_of_the_study_says_how_to_go_on(finished: Path, digits_study: MakeStudy) -> None:
    copy = (finished / "study.yaml").read_text(encoding="utf-8")
    (finished / "study.yaml").write_bytes(copy.encode().replace(b"epochs", b"ep\x1fchs", 1))
    with pytest.raises(
        lf.LeanformerError, match=r"this file is the copy of the study that ran here: replace it with your study file"
    ):
        run(digits_study(), finished)
    (finished / "study.yaml").write_text(json.dumps(digits_study()), encoding="utf-8")  # as the message advises
    _, log = run(digits_study(), finished)
    assert "again" not in log


def test_a_wrong_study_object_leaves_nothing_behind(digits_study: MakeStudy, tmp_path: Path) -> None:
    wrong = lf.make_study(digits_study()).model_copy(update={"seeds": "x"})
    with pytest.raises(lf.LeanformerError, match="seeds"):
        lf.run(wrong, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(os.name != "posix", reason="names are bytes")
def test_a_run_directory_has_a_name_that_weights_can_be_read_from(digits_study: MakeStudy, tmp_path: Path) -> None:
    with pytest.raises(lf.LeanformerError, match="its name is not UTF-8"):
        lf.run(digits_study(), os.fsdecode(bytes(tmp_path) + b"/out\xe9"))
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(lf.LeanformerError, match="it is a link that leads to no directory"):
        lf.run(digits_study(), tmp_path / "link")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"source": "digits", "train_limit": 50, "test_limit": 1}}, "the test split has 1 image"),
        ({"data": {"source": "digits", "normalize": [[127.5], [127.5]]}}, "data.normalize"),
        ({"data": {"source": "/"}}, "is the whole file system"),
        (
            {"candidates": {"a": {"plan": {"*.mlp": "none"}}, "b": {"plan": {"encoder.[01].mlp": "none"}}}},
            r"candidates\.a and candidates\.b put the same blocks at the same sites",
        ),
    ],
)
def test_what_cannot_come_to_a_decision_is_refused_before_training(
    digits_study: MakeStudy, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(lf.LeanformerError, match=message):
        run(digits_study(**changes), tmp_path / "run")
    assert not (tmp_path / "run" / "trials").exists()


def test_half_a_character_in_results_is_written_as_an_escape(finished: Path) -> None:
    from leanformer.core.files import write_atomically

    write_atomically(finished / "note.txt", "caf\udce9")
    assert (finished / "note.txt").read_text(encoding="utf-8") == "caf\\udce9"

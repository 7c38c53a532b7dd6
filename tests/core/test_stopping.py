"""Requests to end, kills inside of deletions, exit codes, out of memory."""

from __future__ import annotations

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
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import processes
import pytest
import torch
from cases import slow
from studies import results_of, run, without_timings

import leanformer as lf
from leanformer.cli import NOTHING_RECOMMENDED
from leanformer.core import stopping
from leanformer.core.memory import memory_named
from leanformer.learn.step import TrainingStep

MakeStudy = Callable[..., dict[str, Any]]

posix = pytest.mark.skipif(os.name != "posix", reason="sends a signal")


def write(study: dict[str, Any], path: Path) -> str:
    path.write_text(json.dumps(study), encoding="utf-8")
    return str(path)


# Signals


@posix
@pytest.mark.long
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_request_to_end_writes_a_checkpoint(
    digits_study: MakeStudy, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """With the usual interval between checkpoints, none of which is due."""
    study = digits_study(seeds=[0], candidates={"no-mlp": {"plan": {"*.mlp": "none"}}})
    study["train"] = {"epochs": 3000, "batch_size": 64, "learning_rate": 3e-3}
    directory = tmp_path / "run"
    arguments = ["run", write(study, tmp_path / "study.yaml"), "--out", str(directory)]
    process = processes.start(arguments, tmp_path / "errors.txt")
    settings = directory / "trials" / "baseline" / "seed-0" / "settings.json"
    while not settings.exists():
        assert process.is_alive()
        time.sleep(0.02)
    time.sleep(1.5)  # some epochs
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join(30)
    assert process.exitcode == code
    errors = (tmp_path / "errors.txt").read_text().strip().splitlines()
    assert errors[-1] == f"leanformer: stopped by {number.name}; run the same command again to go on"
    assert not any("Traceback" in line or "Exception" in line for line in errors)
    assert (settings.parent / "checkpoint.safetensors").stat().st_size > 1000


@posix
@pytest.mark.long  # lines that tell of both come after ten seconds
def test_a_request_to_end_reaches_trainings_side_by_side(digits_study: MakeStudy, tmp_path: Path) -> None:
    """A cluster sends it to all processes at once."""
    study = digits_study(seeds=[0, 1], candidates={"no-mlp": {"plan": {"*.mlp": "none"}}})
    study["train"] = {"epochs": 3000, "batch_size": 64, "learning_rate": 3e-3}
    directory = tmp_path / "run"
    command = [sys.executable, "-m", "leanformer", "run", write(study, tmp_path / "study.yaml"), "--jobs", "2"]
    with (tmp_path / "errors.txt").open("w") as errors:
        with subprocess.Popen(
            [*command, "--out", str(directory)], stderr=errors, stdout=errors, start_new_session=True
        ) as process:
            while len(set(re.findall(r"baseline · seed \d  epoch", (tmp_path / "errors.txt").read_text()))) < 2:
                assert process.poll() is None
                time.sleep(0.05)
            os.killpg(process.pid, signal.SIGTERM)
        assert process.returncode == 143
    lines = (tmp_path / "errors.txt").read_text().strip().splitlines()
    assert lines[-1] == "leanformer: stopped by SIGTERM; run the same command again to go on"
    assert not any("Traceback" in line for line in lines)
    assert len(list(directory.glob("trials/*/seed-*/checkpoint.safetensors"))) == 2


@pytest.mark.long
@posix
def test_ctrl_c_twice_at_any_moment_is_one_line(digits_study: MakeStudy, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    study = digits_study(train={"epochs": 300, "batch_size": 64, "learning_rate": [3e-3, 1e-2]})
    arguments = ["run", write(study, tmp_path / "study.yaml"), "--out", str(directory)]
    processes.start(["--version"], tmp_path / "errors.txt").join()  # the server takes its time to import everything
    moments = random.Random(1)
    for _ in range(6):
        process = processes.start(arguments, tmp_path / "errors.txt")
        while not (tmp_path / "errors.txt").exists() or "starting" not in (tmp_path / "errors.txt").read_text():
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 2.0))
        assert process.pid is not None
        for gap in (moments.choice([0.0, 0.001, 0.01, 0.1]), 0.0):
            with suppress(ProcessLookupError):  # it may have ended already
                os.kill(process.pid, signal.SIGINT)
            time.sleep(gap)
        process.join(30)
        lines = (tmp_path / "errors.txt").read_text().strip().splitlines()
        assert process.exitcode == 130, lines
        assert [line for line in lines if line.startswith("leanformer: ")] in (
            ["leanformer: stopped; run the same command again to go on"],
            ["leanformer: stopped"],  # the second came while the first was being told
        )
        assert lines[-1].startswith("leanformer: stopped")
        assert not any("Traceback" in line or "Exception" in line or "Abort" in line for line in lines)
        (tmp_path / "errors.txt").unlink()


@posix
@pytest.mark.parametrize("library", ["typer", *slow("rich", "torch")])
def test_ctrl_c_while_libraries_are_loaded_is_one_line(library: str) -> None:
    script = f"""
import builtins, os, signal, sys
from leanformer.__main__ import main
load = builtins.__import__
def interrupted(name, *arguments, **named):
    if name.split(".")[0] == {library!r}:
        builtins.__import__ = load
        os.kill(os.getpid(), signal.SIGINT)
    return load(name, *arguments, **named)
builtins.__import__ = interrupted
sys.argv = ["leanformer", "sites", "vit"]
main()
"""
    hear = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, preexec_fn=hear, check=False)
    assert done.returncode == 130
    assert done.stderr == "leanformer: stopped\n"


def test_a_request_whose_exception_was_swallowed_is_not_forgotten() -> None:
    with stopping.listening([signal.SIGTERM]):
        with pytest.raises(stopping.Stopped):
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(stopping.Stopped) as caught:
            stopping.check()
        assert caught.value.code == 143
    stopping.check()  # it was the other's


def test_a_request_while_an_object_is_cleared_away_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    class Interrupted:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    with stopping.listening([signal.SIGTERM]):
        Interrupted()
        assert capsys.readouterr().err == ""
        with pytest.raises(stopping.Stopped):
            stopping.check()


def test_what_must_not_be_disturbed_ends_first() -> None:
    done = []

    def write_something() -> None:
        with stopping.undisturbed():
            signal.raise_signal(signal.SIGTERM)
            done.append("written")

    with stopping.listening([signal.SIGTERM]), pytest.raises(stopping.Stopped):
        write_something()
    assert done == ["written"]


def test_a_signal_that_somebody_else_handles_is_theirs() -> None:
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        with stopping.listening():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [signal.SIGTERM]


# Kills


def _killed_in_a_deletion(study: dict[str, Any], directory: Path, which: int) -> None:
    """Runs a study and kills itself in the middle of a deletion, half of the files being gone."""
    from leanformer.core import files

    count = 0

    def rmtree(path: Path) -> None:
        nonlocal count
        doomed = sorted(place for place in Path(path).rglob("*") if place.is_file())
        for place in doomed[: len(doomed) // 2] if count == which else doomed:
            place.unlink()
        if count == which:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1
        shutil.rmtree(path)

    class Deletions:
        pass

    Deletions.rmtree = staticmethod(rmtree)  # type: ignore[attr-defined]
    files.shutil = Deletions  # type: ignore[assignment, attr-defined]
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115  (as long as the process lasts)
    lf.run(study, directory)


def killed_in_deletions(
    study: dict[str, Any], changed: dict[str, Any], digits_run: Path, tmp_path: Path, which: int
) -> bool:
    """Whether there was a deletion of this number; after the kill both studies give what they give undisturbed."""
    # In a folder of its own: a ledger tells of looks at the same test split in run directories beside it.
    directory = Path(shutil.copytree(digits_run, tmp_path / str(which) / "run"))
    process = processes.SERVER.Process(target=_killed_in_a_deletion, args=(changed, directory, which))
    process.start()
    process.join()
    if process.exitcode == 0:
        return False
    assert process.exitcode == -signal.SIGKILL
    result, _ = run(study, directory)
    assert without_timings(result.results) == without_timings(results_of(digits_run))
    assert not list(directory.rglob("*.removed"))
    assert result.model() is not None
    for trial in (*result.results["baseline"]["trials"], *result.results["candidates"][0]["trials"]):
        lf.load(directory / trial / "model")
    return True


@posix
@pytest.mark.long
@pytest.mark.parametrize("which", [0, 4])
def test_a_kill_inside_a_deletion_leaves_nothing_half(
    digits_run: Path, digits_study: MakeStudy, tmp_path: Path, which: int
) -> None:
    changed = digits_study(train={**digits_study()["train"], "epochs": 2})
    assert killed_in_deletions(digits_study(), changed, digits_run, tmp_path, which)


@posix
@pytest.mark.long
def test_a_kill_inside_each_deletion_leaves_nothing_half(
    digits_run: Path, digits_study: MakeStudy, tmp_path: Path
) -> None:
    changed = digits_study(train={**digits_study()["train"], "epochs": 2})
    count = 0
    while killed_in_deletions(digits_study(), changed, digits_run, tmp_path, count):
        count += 1
    assert count > 8


# Exit codes


def test_a_study_whose_baseline_fails_exits_5(
    digits_study: MakeStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from leanformer.cli import main

    study = digits_study(seeds=[0])
    study["train"] = {"epochs": 1, "batch_size": 64, "learning_rate": 3e-3}

    def infinite(self: TrainingStep, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.tensor(torch.inf)

    monkeypatch.setattr(TrainingStep, "__call__", infinite)
    monkeypatch.setattr(
        sys, "argv", ["leanformer", "run", write(study, tmp_path / "s.yaml"), "--out", str(tmp_path / "r")]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == NOTHING_RECOMMENDED == 5
    assert "Nothing can be recommended: the baseline failed" in capsys.readouterr().out


# Memory


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_out_of_memory_names_the_batch_size(
    digits_study: MakeStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(self: TrainingStep, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        raise error

    monkeypatch.setattr(TrainingStep, "__call__", full)
    with pytest.raises(
        lf.LeanformerError,
        match=r"^out of memory while training .* with train\.batch_size 64; lower train\.batch_size$",
    ):
        run(digits_study(), tmp_path / "run")


def test_pytorchs_own_words_for_a_full_memory_are_known() -> None:
    message = r"^out of memory while testing; ask for less$"
    for size in (2**46, 2**62):
        with pytest.raises(lf.LeanformerError, match=message), memory_named("testing", "ask for less"):
            torch.empty(size)


def test_another_error_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2"), memory_named("testing", "ask for less"):
        torch.zeros(2, 3) @ torch.zeros(2, 3)

"""A study of translators, end to end: a teacher on number words, students taught by it, and errors for bad input."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console
from studies import results_of, rows_of, run, without_timings
from transformers import MarianConfig, MarianMTModel

import leanformer as lf
from leanformer import cli
from leanformer.blocks.kit import base
from leanformer.blocks.kit.base import AttentionWeights, Block, BlockModule
from leanformer.blocks.kit.inputs import BlockInputs
from leanformer.blocks.kit.site import Site
from leanformer.config.translation import NumberWordsConfig, TextDataConfig, TokenizerConfig
from leanformer.core.signatures import files_signature
from leanformer.data.number_words import number_words
from leanformer.data.text_sources import load_text
from leanformer.data.tokenizers import TranslationTokenizer, train_tokenizer
from leanformer.measure.translation import Translations
from leanformer.model.generate import translate
from leanformer.model.weights import parameter_count
from leanformer.study import teaching
from leanformer.study.executors import InThisProcess
from leanformer.study.graph import run_steps
from leanformer.study.prepare import PreparedStudy
from leanformer.tasks.translation import Translation

ALR = {"block": "feed_forward", "hidden": 8, "max_length": 30}
ONE_HEAD = {"block": "slots", "slots": 4, "gate": "linear", "heads": [1]}


def words_study(**changes: Any) -> dict[str, Any]:
    """A study on number words that takes a few seconds."""
    study: dict[str, Any] = {
        "name": "words",
        "task": "translation",
        "data": {
            "source": "number-words",
            "numbers": {"train": 400, "validation": 30, "test": 40, "largest": 2000},
            "tokenizer": {"vocabulary": 300},
            "max_tokens": 30,
        },
        "baseline": {
            "model": "marian",
            "config": {
                "d_model": 16,
                "encoder_layers": 2,
                "decoder_layers": 2,
                "encoder_attention_heads": 2,
                "decoder_attention_heads": 2,
                "encoder_ffn_dim": 32,
                "decoder_ffn_dim": 32,
                "dropout": 0.0,
                "init_std": 0.1,
            },
        },
        "candidates": {
            "encoder": {"method": "distill", "plan": {"encoder.*.self_attention": ALR}},
            "both": {
                "method": "distill",
                "plan": {"*.self_attention": ALR, "decoder.1.self_attention": ONE_HEAD},
                "finetune": {"epochs": 1, "targets": "data"},
            },
            "scratch": {"plan": {"encoder.*.self_attention": {"block": "minimal_attention"}}},
        },
        "train": {"epochs": 2, "batch_tokens": 512, "learning_rate": 1e-2, "checkpoint_seconds": 0},
        "distill": {"epochs": 2},
        "finetune": {"epochs": 0},
        "seeds": [0, 1],
        "decode": {"max_tokens": 12},
        "measure": {"repeats": 1, "latency_calls": 1, "throughput_batch": 8, "device": "cpu", "threads": 1},
    }
    return {**study, **changes}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The directory and the log of a study that ran to its end."""
    directory = tmp_path_factory.mktemp("translation") / "run"
    _, log = run(words_study(), directory)
    return directory, log


# The files of a run


def test_trials_hold_model_tokenizer_and_a_translation_a_sentence(whole: tuple[Path, str]) -> None:
    directory, _ = whole
    for name in ("baseline", "encoder", "both", "scratch"):
        trial = directory / "trials" / name / "seed-1"
        names = {path.name for path in (trial / "model").iterdir()}
        assert {"config.json", "model.safetensors", "generation_config.json", "tokenizer.json"} <= names
        answers = Translations.read(trial / "predictions.parquet")
        assert len(answers.sources) == 40
        result = json.loads((trial / "result.json").read_text())
        assert result["bleu"] == pytest.approx(answers.score("bleu"))
        assert result["chrf"] == pytest.approx(answers.score("chrf"))
        model, tokenizer = lf.load(trial / "model"), TranslationTokenizer.load(trial / "model")
        again = translate(model, tokenizer, answers.sources, max_tokens=12, batch_tokens=4096).texts
        assert tuple(again) == answers.hypotheses
    assert not list(directory.rglob("*.partial"))
    assert not list(directory.rglob("group-*"))


def test_rows_say_what_was_taught_and_what_it_stores(whole: tuple[Path, str]) -> None:
    directory, _ = whole
    rows = rows_of(directory)
    d, length, hidden = 16, 30, 8
    size = length * d
    network = 2 * size + size * hidden + hidden + 2 * hidden + hidden * size + size
    changes = {change["site"]: change for change in rows["encoder"]["changes"]}
    for layer in (0, 1):
        change = changes[f"encoder.{layer}.self_attention"]
        assert change["added"] == network
        assert change["removed"] == 3 * (d * d + d)  # queries, keys and values; the output projection stays
        assert len(change["r2_per_seed"]) == 2
        assert change["r2"] == pytest.approx(sum(change["r2_per_seed"]) / 2)
    assert changes["decoder.0.self_attention"]["r2"] is None
    of_a_head = {change["site"]: change for change in rows["both"]["changes"]}["decoder.1.self_attention"]
    assert of_a_head["removed"] == 3 * (d + 1) * 8  # its queries, keys and values; the other head's stay too
    assert of_a_head["added"] == (d + 1) * 8 + d * 4 + (d + 1) * 4  # values, pools, gate
    assert of_a_head["arguments"]["heads"] == [1]
    assert len(of_a_head["r2_per_seed"]) == 2
    teaching = rows["encoder"]["teaching"]
    assert (teaching["blocks"], teaching["epochs"]) == (2, 2)
    assert rows["both"]["teaching"]["blocks"] == 4
    assert rows["scratch"]["teaching"] is rows["baseline"]["teaching"] is None
    for row in rows.values():
        model = lf.load(directory / row["trials"][0] / "model")
        assert row["parameters"] == parameter_count(model) == sum(row["parameters_by_kind"].values())
        assert row["tokens_per_second"] > 0
        assert row["ms_per_token"]["one"] > 0
        assert row["ms_per_token"]["batch"] == pytest.approx(1000 / row["tokens_per_second"])
        assert row["q_ratio"] is None
        recipe = row["recipe"]["quality"]
        assert recipe["mean"] == pytest.approx(sum(recipe["per_seed"]) / 2)
        assert row["quality"]["per_seed"] == [recipe["per_seed"][row["seeds"].index(row["decided_seed"])]]
        assert row["scores"]["bleu"]["per_seed"] == row["quality"]["per_seed"]
        assert sum(entry["sentences"] for entry in row["by_length"]) == 40
    assert len(rows["both"]["curves"][0]["epochs"]) == 1
    assert rows["encoder"]["curves"][0]["epochs"] == []


def test_rows_say_what_writing_costs(whole: tuple[Path, str]) -> None:
    """At the lengths of the test split, limited to the study's longest translation."""
    directory, _ = whole
    rows = rows_of(directory)
    tokenizer = TranslationTokenizer.load(directory / "trials/baseline/seed-0/model")
    answers = Translations.read(directory / "trials/baseline/seed-0/predictions.parquet")
    sources = [len(ids) for ids in tokenizer.encode_source(list(answers.sources))]
    targets = [len(ids) for ids in tokenizer.encode_target(list(answers.references))]
    assert max(targets) > 12
    decoding = rows["baseline"]["decoding"]
    median, longest = (int(np.median(sources)), int(np.median(targets))), (max(sources), 12)
    assert (decoding["source_tokens"], decoding["target_tokens"]) == median
    assert (decoding["longest"]["source_tokens"], decoding["longest"]["target_tokens"]) == longest
    d, layers, hidden = 16, 2, 8
    for counted, lengths in ((decoding, median), (decoding["longest"], longest)):
        assert counted["state_bytes"] == 4 * layers * 2 * sum(lengths) * d
    assert rows["encoder"]["decoding"]["state_bytes"] == decoding["state_bytes"]
    assert rows["encoder"]["decoding"]["flops_per_token"] == decoding["flops_per_token"]
    assert rows["encoder"]["decoding"]["flops_per_source"] != decoding["flops_per_source"]
    # In its decoder a feed-forward block, and slots in place of one of two heads.
    both, source = rows["both"]["decoding"], median[0]
    sums, slots = 3 * hidden + 3, 4 * (d // 2 + 1)
    kept = 2 * median[1] * (d // 2)
    assert both["state_bytes"] == 4 * (layers * 2 * source * d + sums + slots + kept)


@pytest.mark.long
def test_costs_of_a_version_that_measured_less_are_measured_anew(whole: tuple[Path, str], tmp_path: Path) -> None:
    directory = Path(shutil.copytree(whole[0], tmp_path / "run"))
    costs = json.loads((directory / "costs.json").read_text())
    del costs["settings"]["figures"]
    for measured in costs["costs"].values():
        del measured["speeds"]["torch"]["ms_per_token"]
    (directory / "costs.json").write_text(json.dumps(costs))
    _, log = run(words_study(), directory)
    assert "measuring time and memory of 4 models in turn" in log
    assert "epoch" not in log.replace("train.epochs", "")
    assert rows_of(directory)["both"]["ms_per_token"]["one"] > 0
    _, log = run(words_study(), directory)
    assert "measuring" not in log


def test_blocks_that_candidates_share_are_taught_once(whole: tuple[Path, str]) -> None:
    directory, log = whole
    taught = [path.parent.name for path in (directory / "teaching" / "seed-0").glob("*/result.json")]
    assert len(taught) == 4  # two sites of the encoder, shared, and two of the decoder
    assert "teaching 4 blocks" in log
    rows = rows_of(directory)
    first, second = ({change["site"]: change["r2"] for change in rows[name]["changes"]} for name in ("encoder", "both"))
    assert first["encoder.0.self_attention"] == second["encoder.0.self_attention"]


@pytest.mark.long
def test_students_side_by_side_come_out_the_same(whole: tuple[Path, str], tmp_path: Path) -> None:
    _, log = run(words_study(), tmp_path / "run", jobs=2)
    assert without_timings(results_of(tmp_path / "run")) == without_timings(results_of(whole[0]))
    shown, expected = (re.findall(r"^words: \[.*?\] (.*?)  ", text, re.MULTILINE) for text in (log, whole[1]))
    assert sorted(shown) == sorted(expected)


@pytest.mark.long  # starts processes three times
def test_blocks_of_one_seed_are_taught_side_by_side_and_come_out_the_same(
    whole: tuple[Path, str], tmp_path: Path
) -> None:
    study = words_study(seeds=[0])
    study["candidates"]["both"]["finetune"] = {"epochs": 1, "teacher_beam": 1}
    _, log = run(study, tmp_path / "run", jobs=3)
    assert log.count("teaching 2 blocks · seed 0") == 1 < log.count("teaching 1 block · seed 0")
    assert log.count("the teacher's own translations · seed 0  ") == 1
    for block in (whole[0] / "teaching/seed-0").glob("*/block.safetensors"):
        assert (tmp_path / "run" / block.relative_to(whole[0])).read_bytes() == block.read_bytes()
    counted = re.findall(r"^words: \[(\d+)/(\d+)\]", log, re.MULTILINE)
    assert counted == [(str(number), "8") for number in range(1, 9)]  # four models, three teachings and the answers
    shutil.rmtree(tmp_path / "run/trials/encoder")
    shutil.rmtree(next((tmp_path / "run/teaching/seed-0").glob("decoder.0*")))
    _, log = run(study, tmp_path / "run", jobs=3)
    assert re.findall(r"^words: \[(\d+)/8\] (.*?)  ", log, re.MULTILINE) == [
        ("7", "teaching 1 block · seed 0"),  # all others were done
        ("8", "encoder · seed 0"),
    ]


def test_the_student_is_the_teacher_but_for_its_blocks(whole: tuple[Path, str]) -> None:
    directory, _ = whole
    teacher, student = (lf.load(directory / f"trials/{name}/seed-0/model") for name in ("baseline", "encoder"))
    theirs, mine = teacher.state_dict(), student.state_dict()
    assert torch.equal(mine["model.shared.weight"], theirs["model.shared.weight"])
    assert torch.equal(mine["model.decoder.layers.1.mlp.block.fc1.weight"], theirs["model.decoder.layers.1.fc1.weight"])
    tuned = lf.load(directory / "trials/both/seed-0/model").state_dict()
    assert not torch.equal(tuned["model.shared.weight"], theirs["model.shared.weight"])


@pytest.mark.long
def test_a_finished_study_is_not_run_again_and_a_new_candidate_reuses_blocks(
    whole: tuple[Path, str], tmp_path: Path
) -> None:
    directory = Path(shutil.copytree(whole[0], tmp_path / "run"))
    before = without_timings(results_of(directory))
    _, log = run(words_study(), directory)
    assert "epoch" not in log.replace("train.epochs", "")
    assert without_timings(results_of(directory)) == before
    study = words_study()
    plan = {"decoder.0.self_attention": ALR, "decoder.1.self_attention": ONE_HEAD}
    study["candidates"]["decoder"] = {"method": "distill", "plan": plan}
    _, log = run(study, directory)
    assert "teaching" not in log.replace("seed-", "")  # its blocks were taught for another candidate
    assert rows_of(directory)["decoder"]["status"] == "ok"


@pytest.mark.long
def test_what_touches_teaching_runs_again_and_says_why(whole: tuple[Path, str], tmp_path: Path) -> None:
    directory = Path(shutil.copytree(whole[0], tmp_path / "run"))
    _, log = run(words_study(distill={"epochs": 1}), directory)
    assert "encoder.0.self_attention is taught again: distill.epochs: 2 -> 1" in log
    assert "encoder, seed 0 runs again: distill.epochs: 2 -> 1" in log
    assert "scratch, seed 0 runs again" not in log


@pytest.mark.long
def test_another_way_to_decode_trains_nothing_anew(whole: tuple[Path, str], tmp_path: Path) -> None:
    directory = Path(shutil.copytree(whole[0], tmp_path / "run"))
    before = rows_of(directory)
    weights = (directory / "trials/both/seed-1/model/model.safetensors").stat().st_mtime_ns
    study = words_study(decode={"beam": 2, "max_tokens": 6})
    result, log = run(study, directory)
    assert "both, seed 1 is evaluated again: beam: 1 -> 2; max_tokens: 12 -> 6" in log
    assert "epoch" not in log.replace("train.epochs", "")
    assert "teaching" not in log
    assert (directory / "trials/both/seed-1/model/model.safetensors").stat().st_mtime_ns == weights
    assert result.results["decode"]["beam"] == 2
    after = rows_of(directory)
    assert after["baseline"]["curves"] == before["baseline"]["curves"]
    assert after["baseline"]["latency_ms"] != before["baseline"]["latency_ms"]  # measured again too
    trial = directory / "trials/baseline/seed-0"
    model, tokenizer = lf.load(trial / "model"), TranslationTokenizer.load(trial / "model")
    answers = Translations.read(trial / "predictions.parquet")
    again = translate(model, tokenizer, answers.sources, beam=2, max_tokens=6, batch_tokens=4096).texts
    assert tuple(again) == answers.hypotheses
    _, log = run(study, directory)
    assert "again" not in log


@pytest.mark.long
def test_tuning_averages_as_it_says_itself(tmp_path: Path) -> None:
    """It does not follow the settings of the teacher's training."""
    plan = {"encoder.*.self_attention": ALR}
    tunings: dict[str, dict[str, Any]] = {
        "last": {"epochs": 2},
        "mean": {"epochs": 2, "average_last": 2},
        "first": {"epochs": 1},
    }
    tunings = {name: {**tuning, "targets": "data"} for name, tuning in tunings.items()}
    study = words_study(seeds=[0])
    study["train"] |= {"average_last": 2, "schedule": "constant", "warmup": 0.0}
    study["candidates"] = {
        name: {"method": "distill", "plan": plan, "finetune": tuning} for name, tuning in tunings.items()
    }
    run(study, tmp_path / "run")
    last, mean, first = (lf.load(tmp_path / f"run/trials/{name}/seed-0/model").state_dict() for name in tunings)
    name = "model.shared.weight"
    assert not torch.equal(mean[name], last[name])
    torch.testing.assert_close(mean[name], (first[name] + last[name]) / 2)


@pytest.mark.long
def test_a_plan_that_changes_nothing_is_the_control_of_tuning(tmp_path: Path) -> None:
    """The candidate is the trained teacher, tuned as a student is; no block is taught for it."""
    study = words_study(seeds=[0])
    study["candidates"] = {
        "control": {"method": "distill", "plan": {}, "finetune": {"epochs": 1, "learning_rate": 1e-3}}
    }
    result, log = run(study, tmp_path / "run", report=True)
    assert "teaching" not in log
    (row,) = result.results["candidates"]
    assert row["status"] == "ok"
    assert row["parameters"] == result.results["baseline"]["parameters"]
    assert not any(change["changed"] for change in row["changes"])
    teacher, tuned = (
        lf.load(tmp_path / f"run/trials/{name}/seed-0/model").state_dict() for name in ("baseline", "control")
    )
    moved = (tuned["model.shared.weight"] - teacher["model.shared.weight"]).abs().max()
    assert 0 < moved < 0.1
    assert result.results["recommended"] == "baseline"  # it has as many parameters
    assert "control" in (tmp_path / "run/report.html").read_text(encoding="utf-8")


@pytest.mark.long
def test_a_student_learns_from_the_teachers_own_translations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each candidate's cross-entropy is with its own targets; the teacher translates once for all candidates."""
    asked: list[int] = []
    original = Translation.write_training

    def count(self: Translation, teacher: Any, beam: int, progress: Any) -> list[str]:
        asked.append(beam)
        return original(self, teacher, beam, progress)

    monkeypatch.setattr(Translation, "write_training", count)
    plan = {"encoder.*.self_attention": ALR}
    tunings: dict[str, dict[str, Any]] = {
        "data": {"epochs": 1, "logits": 0.0, "targets": "data"},
        "teacher": {"epochs": 1, "logits": 0.0, "targets": "teacher", "teacher_beam": 2},
        "again": {"epochs": 2, "teacher_beam": 2},  # the teacher's targets by default
    }
    study = words_study(seeds=[0])
    study["data"]["numbers"]["train"] = 200  # writing takes the most time here
    study["candidates"] = {
        name: {"method": "distill", "plan": plan, "finetune": tuning} for name, tuning in tunings.items()
    }
    _, log = run(study, tmp_path / "run")
    assert asked == [2]
    assert log.count("the teacher's own translations · seed 0") == 1
    kept = json.loads((tmp_path / "run/teaching/seed-0/answers-beam-2/result.json").read_text())["answers"]
    assert len(kept) == 200
    teacher = lf.load(tmp_path / "run/trials/baseline/seed-0/model")
    tokenizer = TranslationTokenizer.load(tmp_path / "run/trials/baseline/seed-0/model")
    numbers = NumberWordsConfig(train=200, validation=30, test=40, largest=2000)
    sources = number_words(TextDataConfig(numbers=numbers))["train"].sources
    assert translate(teacher, tokenizer, sources[:5], beam=2, max_tokens=30, batch_tokens=4096).texts == kept[:5]
    losses = {
        row["name"]: row["curves"][0]["epochs"][0]["train_loss"]
        for row in rows_of(tmp_path / "run").values()
        if row["curves"][0]["epochs"]
    }
    seconds = {
        name: json.loads((tmp_path / f"run/trials/{name}/seed-0/result.json").read_text())["answering_seconds"]
        for name in tunings
    }
    assert seconds["data"] == 0 < seconds["teacher"] == seconds["again"]
    row = rows_of(tmp_path / "run")["teacher"]
    assert row["train_seconds"] > seconds["teacher"]
    # A teacher's own translations are likely for the teacher, and for its student too.
    assert losses["teacher"] < 0.9 * losses["data"]
    shutil.rmtree(tmp_path / "run/trials/again")
    study["candidates"] = {"again": study["candidates"]["again"]}
    run(study, tmp_path / "run")
    assert asked == [2]
    study["train"]["epochs"] = 1
    run(study, tmp_path / "run")
    assert asked == [2, 2]
    before = results_of(tmp_path / "run")
    shutil.rmtree(tmp_path / "run/trials/again/seed-0")
    path = tmp_path / "run/teaching/seed-0/answers-beam-2/result.json"
    path.write_text(path.read_text().replace("seconds", "sedonds", 1))
    _, log = run(study, tmp_path / "run")
    assert f"the teacher's own translations, seed 0, are made again: {path}: damaged" in log
    assert without_timings(results_of(tmp_path / "run")) == without_timings(before)


@pytest.mark.long
def test_a_teacher_without_usable_translations_fails_its_student_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_usable(self: Translation, targets: Any) -> Any:
        raise lf.LeanformerError("none of the teacher's translations ends")

    monkeypatch.setattr(Translation, "batches_with", none_usable)
    study = words_study(seeds=[0])
    study["candidates"] = {
        "student": {
            "method": "distill",
            "plan": {"encoder.*.self_attention": ALR},
            "finetune": {"epochs": 1, "targets": "teacher"},
        },
        "no-mlp": {"plan": {"encoder.*.mlp": "none"}},
    }
    study["data"]["numbers"]["train"] = 100
    run(study, tmp_path / "run")
    rows = rows_of(tmp_path / "run")
    assert rows["student"]["status"] == "failed"
    assert rows["student"]["failures"][0]["reason"] == "none of the teacher's translations ends"
    assert rows["no-mlp"]["status"] == "ok"


@pytest.mark.long
def test_beside_a_baseline_that_cannot_translate_nothing_is_accepted(tmp_path: Path) -> None:
    study = words_study(seeds=[0], accept={"metric": "bleu", "max_drop": 50.0}, train={"epochs": 0})
    study["candidates"] = {"encoder": {"method": "distill", "plan": {"encoder.*.self_attention": ALR}}}
    result, _ = run(study, tmp_path / "run")
    (row,) = result.results["candidates"]
    assert row["decision"] == "undecided"
    assert "a model that has learned nothing (0.00) would be within 50 BLEU of it" in row["reason"]
    assert result.recommended == "baseline"
    assert "The baseline itself has" in result.results["recommendation"]


def run_until_teaching_is_cut_off(study: dict[str, Any], directory: Path) -> None:
    """Ctrl-C interrupts a teaching in its second epoch."""

    def stop(self: Any, epoch: int, step: int, steps_per_epoch: int) -> None:
        if epoch == 1:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(teaching._TeachingObserver, "step_ended", stop)
        with pytest.raises(KeyboardInterrupt):
            run(study, directory)


@pytest.mark.long
def test_a_teaching_cut_off_with_other_settings_is_not_gone_on_with(tmp_path: Path) -> None:
    study = words_study(seeds=[0], train={"epochs": 1, "batch_tokens": 512, "checkpoint_seconds": 0})
    study["candidates"] = {"encoder": {"method": "distill", "plan": {"encoder.*.self_attention": ALR}}}
    run_until_teaching_is_cut_off(study, tmp_path / "run")
    (stale,) = (tmp_path / "run/teaching/seed-0").glob("group-*")
    study["distill"] = {"epochs": 3}
    result, _ = run(study, tmp_path / "run")
    assert result.results["candidates"][0]["teaching"]["epochs"] == 3
    assert not stale.exists()


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shows the steps of several processes one after the other."""

    def one_by_one(prepared: PreparedStudy) -> None:
        run_steps(prepared, InThisProcess(), lambda step: step.run(prepared), 1)

    monkeypatch.setattr("leanformer.study.held_out.run_side_by_side", one_by_one)


@pytest.mark.long
@pytest.mark.usefixtures("in_this_process")
def test_a_group_that_was_cut_off_goes_on_though_another_has_ended(
    whole: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = words_study(seeds=[0])
    seen: list[tuple[int, int]] = []
    show = teaching._TeachingObserver.step_ended

    def note(self: Any, epoch: int, step: int, steps_per_epoch: int) -> None:
        show(self, epoch, step, steps_per_epoch)
        seen.append((epoch, step))
        if seen.count((1, 1)) == 2 and not (tmp_path / "stopped").exists():  # the second group's second epoch
            (tmp_path / "stopped").touch()
            raise KeyboardInterrupt

    monkeypatch.setattr(teaching._TeachingObserver, "step_ended", note)
    with pytest.raises(KeyboardInterrupt):
        run(study, tmp_path / "run", jobs=2)
    assert len(list((tmp_path / "run/teaching/seed-0").glob("*/result.json"))) == 2
    steps = max(step for _, step in seen)
    seen.clear()
    run(study, tmp_path / "run", jobs=2)
    assert seen == [(1, step) for step in range(1, steps + 1)]  # it goes on from the end of its first epoch
    for block in (whole[0] / "teaching/seed-0").glob("*/block.safetensors"):
        assert (tmp_path / "run" / block.relative_to(whole[0])).read_bytes() == block.read_bytes()


@pytest.mark.long
def test_candidates_in_another_order_take_over_no_moments(whole: tuple[Path, str], tmp_path: Path) -> None:
    """An optimizer identifies its parameters only by their order."""
    study = words_study(seeds=[0])
    study["candidates"] = {
        f"encoder-{number}": {"method": "distill", "plan": {f"encoder.{number}.self_attention": ALR}}
        for number in range(2)
    }
    run_until_teaching_is_cut_off(study, tmp_path / "run")
    study["candidates"] = dict(reversed(study["candidates"].items()))
    run(study, tmp_path / "run")
    for block in (whole[0] / "teaching/seed-0").glob("encoder.*/block.safetensors"):
        assert (tmp_path / "run" / block.relative_to(whole[0])).read_bytes() == block.read_bytes()
    assert not list((tmp_path / "run").rglob("*group-*"))


class Halved(BlockModule):
    """A block that returns half of its input."""

    def forward(self, inputs: BlockInputs) -> torch.Tensor:
        return inputs.hidden_states / 2


class Halving(Block):
    """A user's block that has nothing to learn."""

    name = "halving"
    kinds = frozenset({"self_attention"})

    @classmethod
    def build(cls, arguments: Any, site: Site, teacher: AttentionWeights | None) -> Halved:
        return Halved()


@pytest.mark.long
def test_a_block_without_parameters_is_measured_once(
    whole: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Halving.name not in base.BLOCKS  # all other blocks are registered now
    monkeypatch.setitem(base.BLOCKS._items, Halving.name, Halving)
    study = words_study(seeds=[0])
    plan = {"encoder.0.self_attention": ALR, "encoder.1.self_attention": {"block": "halving"}}
    study["candidates"] = {"half": {"method": "distill", "plan": plan}}
    _, log = run(study, tmp_path / "run")
    assert log.count("teaching 1 block · seed 0  ") == 1
    assert all(change["r2"] < 1 for change in rows_of(tmp_path / "run")["half"]["changes"] if change["site"] in plan)
    (block,) = (whole[0] / "teaching/seed-0").glob("encoder.0.*/block.safetensors")
    assert (tmp_path / "run" / block.relative_to(whole[0])).read_bytes() == block.read_bytes()
    shutil.rmtree(tmp_path / "run/trials/half")
    monkeypatch.setattr(teaching.Teaching, "teach", lambda *_: pytest.fail("taught again"))
    run(study, tmp_path / "run")


@pytest.mark.long
def test_one_seed_speaks_of_one_pair(tmp_path: Path) -> None:
    study = words_study(seeds=[3], accept={"metric": "chrf", "max_drop": 0.5})
    study["candidates"] = {"encoder": study["candidates"]["encoder"]}
    result, _ = run(study, tmp_path / "run")
    (row,) = result.results["candidates"]
    assert row["scope"] == "one trained pair"
    assert "one trained pair" in row["reason"]
    assert "chrF" in row["reason"]
    assert row["paired_bootstrap"][0]["seed"] == 3


@pytest.mark.long
def test_a_trained_marian_goes_in_and_a_student_comes_out(tmp_path: Path, whole: tuple[Path, str]) -> None:
    """A teacher saved by Hugging Face with its tokenizer; it is not trained further."""
    source = whole[0] / "trials/baseline/seed-0/model"
    teacher = lf.load(source)
    assert type(teacher) is MarianMTModel
    teacher.save_pretrained(tmp_path / "marian")
    TranslationTokenizer.load(source).save(tmp_path / "marian")
    study = words_study(baseline={"model": str(tmp_path / "marian")}, seeds=[0])
    study["train"] = {"epochs": 0}
    del study["data"]["tokenizer"]  # the model has its own
    study["candidates"] = {"encoder": {"method": "distill", "plan": {"encoder.*.self_attention": ALR}}}
    result, _ = run(study, tmp_path / "run")
    kept = lf.load(tmp_path / "run/trials/baseline/seed-0/model").state_dict()
    assert all(torch.equal(kept[name], tensor) for name, tensor in teacher.state_dict().items())
    assert result.results["candidates"][0]["status"] == "ok"


@pytest.mark.long
def test_images_are_distilled_by_the_same_machinery(
    tmp_path: Path, digits_study: Callable[..., dict[str, Any]]
) -> None:
    study = digits_study(
        candidates={
            "taught": {
                "method": "distill",
                "plan": {
                    "*.self_attention": {"block": "feed_forward", "hidden": 16, "max_length": 5},
                    "*.mlp": {"block": "mlp", "hidden": 8},
                },
                "finetune": {"epochs": 1},
            }
        },
        train={"epochs": 3, "batch_size": 64, "learning_rate": 3e-3},
        distill={"epochs": 3},
        seeds=[0],
    )
    result, _ = run(study, tmp_path / "run")
    settings = json.loads((tmp_path / "run/trials/taught/seed-0/settings.json").read_text())
    assert settings["finetune"]["targets"] == "data"  # a classifier writes no texts
    (row,) = result.results["candidates"]
    assert row["status"] == "ok"
    assert all(change["r2"] is not None for change in row["changes"] if change["changed"])
    assert row["per_class"]


def test_sources_that_changed_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    for name in ("pairs.tsv", "corpus/train.de", "corpus/train.en"):
        (tmp_path / name).write_text("eins\n")
    sources = {"pairs.tsv": "pairs.tsv", "corpus": "corpus/train.en", "corpus/train": "corpus/train.de"}
    for source, changed in sources.items():
        before = files_signature(str(tmp_path / source), ("de", "en"))
        assert before == files_signature(str(tmp_path / source), ("de", "en")) is not None
        with (tmp_path / changed).open("a") as file:
            file.write("zwei\n")
        assert files_signature(str(tmp_path / source), ("de", "en")) != before
    assert files_signature("owner/name", ("de", "en")) is None


@pytest.mark.long
def test_another_metric_judges_without_training(tmp_path: Path) -> None:
    study = words_study(seeds=[0], train={"epochs": 1, "batch_tokens": 512, "learning_rate": [3e-3, 1e-2]})
    study["candidates"] = {"scratch": study["candidates"]["scratch"]}
    del study["distill"]  # no candidate is distilled
    run(study, tmp_path / "run")
    result, log = run({**study, "accept": {"metric": "chrf", "max_drop": 1.0}}, tmp_path / "run")
    assert result.results["metric"] == "chrf"
    assert "epoch" not in log.replace("train.epochs", "")


# Fewer target subwords


@pytest.fixture(scope="module")
def trimmed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The directory and the log of a study whose students write with fewer subwords than their teacher."""
    directory = tmp_path_factory.mktemp("trimmed") / "run"
    subwords = {"target_vocabulary": {"limit": 280}}
    candidates = {
        # As good as not tuned: what is left is the teacher, trimmed.
        "as_it_was": {"method": "distill", "plan": subwords, "finetune": {"epochs": 1, "learning_rate": 1e-12}},
        "smaller": {
            "method": "distill",
            "plan": {**subwords, "decoder.1.mlp": "none", "encoder.*.self_attention": ALR},
            "finetune": {"epochs": 1, "teacher_beam": 1, "hidden_states": 0.1},
        },
        "scratch": {"plan": subwords},
    }
    train = {**words_study()["train"], "epochs": 1}
    study = words_study(candidates=candidates, seeds=[0], train=train, distill={"epochs": 1})
    _, log = run(study, directory, report=True)
    return directory, log


def test_students_with_fewer_subwords_have_a_tokenizer_of_their_own(trimmed: tuple[Path, str]) -> None:
    directory, log = trimmed
    assert "candidates.smaller: 280 target subwords, with which targets have" in log
    assert "candidates.smaller: 22 of 40 test references have more than the 12 subwords" in log
    for name in ("as_it_was", "smaller", "scratch"):
        trial = directory / "trials" / name / "seed-0"
        assert (trial / "model/target_tokenizer/tokenizer.json").is_file()
        answers = Translations.read(trial / "predictions.parquet")
        model, tokenizer = lf.load(trial / "model"), TranslationTokenizer.load(trial / "model")
        assert tokenizer.target_vocabulary == model.config.decoder_vocab_size == 280
        again = translate(model, tokenizer, answers.sources, max_tokens=12, batch_tokens=4096).texts
        assert tuple(again) == answers.hypotheses


def test_the_teacher_is_trimmed_as_by_hand(trimmed: tuple[Path, str]) -> None:
    """The subwords that stay are those that the targets of the training split need."""
    directory, _ = trimmed
    targets = load_text(TextDataConfig(**words_study()["data"])).train.targets
    baseline, student = (directory / "trials" / name / "seed-0/model" for name in ("baseline", "as_it_was"))
    by_hand, tokenizer = lf.trim_target_vocabulary(lf.load(baseline), baseline, targets, 280)
    found = lf.load(student)
    assert found.config.plan == by_hand.config.plan
    assert TranslationTokenizer.load(student).signature() == tokenizer.signature()
    for name, tensor in by_hand.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], tensor, rtol=0, atol=1e-6, msg=name)


def test_rows_show_the_subwords_that_are_kept(trimmed: tuple[Path, str]) -> None:
    rows = rows_of(trimmed[0])
    assert rows["as_it_was"]["plan"] == {"target_vocabulary": {"limit": 280}}
    for name in ("as_it_was", "scratch"):
        change = rows[name]["changes"][-1]
        assert (change["site"], change["block"]) == ("target_vocabulary", "subwords")
        assert change["arguments"] == {"limit": 280, "kept": 280}
        # The matrix that both sides shared stays the source's.
        assert (change["removed"], change["added"]) == (0, 280 * 16)
        assert rows[name]["parameters"] == rows["baseline"]["parameters"] + 280 * 16
        saved = 2 * (300 - 280) * 16  # a product of the output projection for each subword, counted as two operations
        assert rows["baseline"]["decoding"]["flops_per_token"] - rows[name]["decoding"]["flops_per_token"] == saved
    assert {taught["site"] for taught in rows["smaller"]["teaching"]["curves"]} == {
        "encoder.0.self_attention",
        "encoder.1.self_attention",
    }
    assert "target_vocabulary" in (trimmed[0] / "report.html").read_text(encoding="utf-8")


@pytest.mark.long
def test_a_finished_study_with_fewer_subwords_is_not_run_again(trimmed: tuple[Path, str]) -> None:
    study = lf.read_study(trimmed[0] / "study.yaml")
    before = without_timings(results_of(trimmed[0]))
    _, log = run(study, trimmed[0])
    assert "again" not in log
    assert "[1/" not in log
    assert without_timings(results_of(trimmed[0])) == before


# Interrupted


def _run_in_process(study: dict[str, Any], directory: str) -> None:
    torch.set_num_threads(1)
    lf.run(study, directory, Console(file=io.StringIO()))


@pytest.mark.long  # five kills of a study
def test_killed_at_random_moments_ends_with_the_same_results(whole: tuple[Path, str], tmp_path: Path) -> None:
    directory = tmp_path / "run"
    context = multiprocessing.get_context("fork")
    moments = random.Random(5)
    for _ in range(3):
        process = context.Process(target=_run_in_process, args=(words_study(), str(directory)))
        process.start()
        time.sleep(moments.uniform(0.3, 4.0))
        if process.is_alive():
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
        process.join()
    run(words_study(), directory)
    assert without_timings(results_of(directory)) == without_timings(results_of(whole[0]))


# Bad input


def marian(tmp_path: Path, **settings: Any) -> Path:
    """A tiny trained translator's directory."""
    config = {
        "vocab_size": 300,
        "decoder_vocab_size": 300,
        "d_model": 8,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 8,
        "decoder_ffn_dim": 8,
        "max_position_embeddings": 40,
        "pad_token_id": 2,
        "eos_token_id": 0,
        "decoder_start_token_id": 2,
        "forced_eos_token_id": None,
    }
    path = tmp_path / "marian"
    MarianMTModel(MarianConfig(**{**config, **settings})).save_pretrained(path)
    return path


def with_tokenizer(path: Path) -> Path:
    pairs = number_words(lf.make_study(words_study()).data)["train"]  # type: ignore[arg-type]
    train_tokenizer(TokenizerConfig(vocabulary=300), pairs.sources, pairs.targets).save(path)
    return path


def plan(candidate: dict[str, Any], **changes: Any) -> dict[str, Any]:
    study = words_study(candidates={"bad": {"method": "distill", **candidate}}, **changes)
    if "baseline" in changes:
        del study["data"]["tokenizer"]
    return study


def data(**keys: Any) -> dict[str, Any]:
    study = words_study()
    study["data"] = {**study["data"], **keys}
    if "source" in keys:
        del study["data"]["numbers"]
    return study


def baseline(model: Path | str, **changes: Any) -> dict[str, Any]:
    study = words_study(baseline={"model": str(model)}, **changes)
    study["data"].pop("tokenizer", None)
    return study


BAD_STUDIES: dict[str, tuple[Callable[[Path], dict[str, Any]], str]] = {
    "an unknown task": (lambda _: words_study(task="summarization"), "no task 'summarization'"),
    "an image key in text data": (lambda _: data(image_size=8), "unknown key 'data.image_size'"),
    "an image metric": (
        lambda _: words_study(accept={"metric": "accuracy"}),
        "accept.metric: input should be 'bleu' or 'chrf'",
    ),
    "a batch size in images": (lambda _: words_study(train={"batch_size": 8}), "unknown key 'train.batch_size'"),
    "one language": (lambda _: data(source_language="en"), "'en' is the source language too"),
    "a language without number words": (lambda _: data(source_language="xx"), "'xx'"),
    "a missing source": (lambda tmp: data(source=str(tmp / "none")), "no such directory or file"),
    "no pair short enough": (lambda _: data(max_tokens=1), "validation pairs are longer than 1 subwords"),
    "a batch too small": (
        lambda _: words_study(train={"epochs": 1, "batch_tokens": 3}),
        "batch_tokens: the longest sentence has",
    ),
    "a block for a decoder on an encoder-only site": (
        lambda _: plan({"plan": {"encoder.*.cross_attention": ALR}}),
        "matches no site",
    ),
    "an image family": (lambda _: words_study(baseline={"model": "vit"}), "vit is for image-classification"),
    "an unknown family": (lambda _: words_study(baseline={"model": "t6"}), "'t6' is neither a family (marian, bart"),
    "heads that do not divide": (
        lambda _: words_study(baseline={"model": "marian", "config": {"d_model": 16, "encoder_attention_heads": 3}}),
        "encoder_attention_heads 3 does not divide d_model 16",
    ),
    "an unknown key of the family": (
        lambda _: words_study(baseline={"model": "marian", "config": {"hidden_sise": 16}}),
        "marian has no key 'hidden_sise'; it has d_model",
    ),
    "separate vocabularies for bart": (
        lambda _: data(tokenizer={"vocabulary": 300, "shared": False}) | {"baseline": {"model": "bart"}},
        "bart has one vocabulary for both languages",
    ),
    "a size and a width": (
        lambda _: plan({"plan": {"encoder.*.self_attention": {"block": "feed_forward", "size": "S", "hidden": 3}}}),
        "hidden",
    ),
    "an unknown size": (
        lambda _: plan({"plan": {"encoder.*.self_attention": {"block": "feed_forward", "size": "XXL"}}}),
        "argument 'size' of block 'feed_forward'",
    ),
    "a block shorter than the sentences": (
        lambda _: plan({"plan": {"encoder.*.self_attention": {**ALR, "max_length": 4}}}),
        "source sentences are longer than the 4 positions of candidates.bad at encoder.0.self_attention",
    ),
    "a block for each head of a layer": (
        lambda _: plan({"plan": {"encoder.*.layer": {**ALR, "per_head": True}}}),
        "per_head",
    ),
    "a feed-forward block in place of an MLP": (
        lambda _: plan({"plan": {"*.mlp": ALR}}),
        "block 'feed_forward' cannot stand at encoder.0.mlp",
    ),
    "nothing to teach": (lambda _: plan({"plan": {"*.mlp": "none"}}), "the plan only empties sites"),
    "too few subwords": (
        lambda _: plan({"plan": {"target_vocabulary": {"limit": 20}}}),
        "candidates.bad: target_vocabulary: limit 20 is less than the 259 subwords that have to stay",
    ),
    "as many subwords as there are": (
        lambda _: plan({"plan": {"target_vocabulary": {"limit": 300}}}),
        "candidates.bad: target_vocabulary: limit 300 leaves nothing out of the 300 target subwords",
    ),
    "a list of limits": (
        lambda _: plan({"plan": {"target_vocabulary": {"limit": [280]}}}),
        "target_vocabulary: limit is [280]; it must be a whole number",
    ),
    "subwords without a limit": (
        lambda _: plan({"plan": {"target_vocabulary": "none"}}),
        "plan 'target_vocabulary': write {limit: 2000}, the most subwords to keep, not 'none'",
    ),
    "fewer subwords of bart": (
        lambda _: plan(
            {"plan": {"target_vocabulary": {"limit": 280}}},
            baseline={"model": "bart", "config": words_study()["baseline"]["config"]},
        ),
        "candidates.bad: plan 'target_vocabulary': bart has one vocabulary for both sides",
    ),
    "fewer subwords, not tuned": (
        lambda _: plan({"plan": {"target_vocabulary": {"limit": 280}}}),
        "the plan only leaves out subwords, so that there is no block to teach",
    ),
    "fewer subwords of images": (
        lambda _: {
            "name": "words",
            "task": "image-classification",
            "baseline": {"model": "vit", "config": {"hidden_size": 16, "num_attention_heads": 2, "patch_size": 4}},
            "candidates": {"bad": {"plan": {"target_vocabulary": {"limit": 280}}}},
        },
        "plan 'target_vocabulary': vit is for image-classification and writes no subwords",
    ),
    "a control that is not tuned": (
        lambda _: plan({"plan": {}, "finetune": {"epochs": 0}}),
        "to see what tuning alone does, take method distill with finetune epochs",
    ),
    "tuning what is trained": (
        lambda _: words_study(candidates={"bad": {"plan": {"*.mlp": "none"}, "finetune": {"epochs": 1}}}),
        "finetune goes with method: distill",
    ),
    "tuning with no aim": (
        lambda _: plan({"plan": {"encoder.*.self_attention": ALR}}, finetune={"cross_entropy": 0.0, "logits": 0.0}),
        "cross_entropy, logits and hidden_states are all 0",
    ),
    "a teacher's answers where no text is written": (
        lambda _: {
            "name": "words",
            "task": "image-classification",
            "baseline": {"model": "vit", "config": {"hidden_size": 16, "num_attention_heads": 2, "patch_size": 4}},
            "candidates": {"bad": {"method": "distill", "plan": {"*.mlp": {"block": "mlp", "hidden": 4}}}},
            "finetune": {"epochs": 1, "targets": "teacher"},
        },
        "finetune.targets 'teacher' needs models that write text",
    ),
    "dropout of a model without any": (
        lambda _: {
            "name": "words",
            "task": "image-classification",
            "baseline": {"model": "vit", "config": {"hidden_size": 16, "num_attention_heads": 2, "patch_size": 4}},
            "candidates": {"bad": {"method": "distill", "plan": {"*.mlp": {"block": "mlp", "hidden": 4}}}},
            "finetune": {"epochs": 1, "dropout": 0.1},
        },
        "candidates.bad: finetune.dropout does nothing here: the baseline has no dropout",
    ),
    "no epoch of teaching": (lambda _: words_study(distill={"epochs": 0}), "distill.epochs"),
    "a tokenizer beside a teacher's own": (
        lambda tmp: words_study(baseline={"model": str(with_tokenizer(marian(tmp)))}),
        "has its own tokenizer; leave the section out",
    ),
    "a teacher without tokenizer": (lambda tmp: baseline(marian(tmp)), "holds no tokenizer"),
    "a teacher of another vocabulary": (
        lambda tmp: baseline(with_tokenizer(marian(tmp, vocab_size=200, decoder_vocab_size=200))),
        "they do not belong together",
    ),
    "a teacher of another end mark": (
        lambda tmp: baseline(with_tokenizer(marian(tmp, eos_token_id=5))),
        "eos_token_id is 0 in the tokenizer",
    ),
    "sentences beyond the teacher's positions": (
        lambda tmp: data(max_tokens=50) | {"baseline": {"model": str(with_tokenizer(marian(tmp)))}},
        "the model has 40 positions",
    ),
    "translations beyond the teacher's positions": (
        lambda tmp: words_study(decode={"max_tokens": 50}, baseline={"model": str(with_tokenizer(marian(tmp)))}),
        "decode.max_tokens: 50 subwords, but the model has 40 positions; set decode.max_tokens to that or less",
    ),
    "a block beyond the teacher's positions": (
        lambda tmp: plan(
            {"plan": {"encoder.*.self_attention": {**ALR, "max_length": 60}}},
            baseline={"model": str(with_tokenizer(marian(tmp)))},
        ),
        "longer than the positions of the model",
    ),
    "a configuration beside a trained teacher": (
        lambda tmp: words_study(baseline={"model": str(marian(tmp)), "config": {"d_model": 8}}),
        "brings its own configuration",
    ),
}


@pytest.mark.parametrize("case", BAD_STUDIES)
def test_a_bad_study_gets_one_line(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make, message = BAD_STUDIES[case]
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(make(tmp_path), sort_keys=False))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["leanformer", "run", "study.yaml"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("leanformer: error: ")
    assert message in error
    assert not (tmp_path / "runs/words/results.json").exists()
    assert not (tmp_path / "runs/words/trials").exists()


# leanformer translate


def translate_command(monkeypatch: pytest.MonkeyPatch, *arguments: str, text: bytes | None = None) -> int:
    monkeypatch.setattr("sys.argv", ["leanformer", "translate", *arguments])
    if text is not None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_translate_reads_lines_and_writes_lines(
    whole: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    trial = whole[0] / "trials/both/seed-0"
    answers = Translations.read(trial / "predictions.parquet")
    text = "\n".join([answers.sources[0], "", *answers.sources[1:]]) + "\n"
    expected = [answers.hypotheses[0], "", *answers.hypotheses[1:]]
    model = str(trial / "model")
    assert translate_command(monkeypatch, model, "--max-tokens", "12", text=text.encode()) == 0
    assert capsys.readouterr().out.split("\n")[:-1] == expected
    (tmp_path / "in.txt").write_text(text)
    out = tmp_path / "out.txt"
    options = ("--max-tokens", "12", "--beam", "2", "--batch-tokens", "64", "--out", str(out))
    assert translate_command(monkeypatch, model, str(tmp_path / "in.txt"), *options) == 0
    assert len(out.read_text().split("\n")) == len(expected) + 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"eins\n\xff\xfe\n", "standard input, line 2: byte 0xff is not UTF-8; convert the file to UTF-8"),
        (b"eins\n" + b"neun " * 60, "sentence 2 has"),
    ],
)
def test_translate_names_a_bad_line(
    text: bytes,
    message: str,
    whole: tuple[Path, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert translate_command(monkeypatch, str(whole[0] / "trials/encoder/seed-0/model"), text=text) == 2
    assert message in capsys.readouterr().err


def test_translate_writes_to_a_pipe_and_leaves_it_there(
    whole: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    model = str(whole[0] / "trials/encoder/seed-0/model")
    assert translate_command(monkeypatch, model, "--max-tokens", "12", "--out", str(pipe), text=b"eins\n\nzwei\n") == 0
    assert os.read(reader, 10_000).count(b"\n") == 3
    os.close(reader)
    assert pipe.is_fifo()


class Endless(io.BytesIO):
    """Standard input that never ends, such as the output of ``yes``."""

    def read(self, size: int | None = -1, /) -> bytes:
        raise AssertionError("it was waited for")


def test_translate_wants_a_translator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], make_model: Callable[..., Any]
) -> None:
    lf.save(make_model(), tmp_path / "vit")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(Endless()))
    assert translate_command(monkeypatch, str(tmp_path / "vit")) == 2
    assert "a model for image-classification, not a translator" in capsys.readouterr().err
    assert translate_command(monkeypatch, str(tmp_path / "vit"), text=b"eins\n") == 2
    assert "a model for image-classification, not a translator" in capsys.readouterr().err
    assert translate_command(monkeypatch, str(marian(tmp_path)), text=b"eins\n") == 2
    assert "holds no tokenizer" in capsys.readouterr().err

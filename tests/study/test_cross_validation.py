"""Cross-validation from the study file to the results: each fold is a study of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_files import png, write_parquet
from PIL import Image
from sklearn.datasets import load_digits
from studies import results_of, rows_of, run, tiny_marian, without_timings

import leanformer as lf
from leanformer.core.errors import LeanformerError
from leanformer.measure.quality import PooledPredictions, Predictions
from leanformer.report.page import render, write_report
from leanformer.report.summary import decision_lines
from leanformer.study import training
from leanformer.study.confirm import confirm
from leanformer.study.export import export
from leanformer.study.pilot import read_pilot


def images(directory: Path, first: int, count: int, **columns: Any) -> Path:
    """Some of the digits, in two classes: even and odd."""
    digits = load_digits()
    chosen = slice(first, first + count)
    return write_parquet(
        directory,
        labels=[int(number) % 2 for number in digits.target[chosen]],
        images=[png(Image.fromarray((image * 15).astype(np.uint8))) for image in digits.images[chosen]],
        **columns,
    )


def study_of(source: Path, **changes: Any) -> dict[str, Any]:
    study: dict[str, Any] = {
        "name": "folded",
        "data": {"source": str(source), "cross_validation": 2},
        "baseline": {
            "model": "vit",
            "config": {
                "hidden_size": 8,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "intermediate_size": 16,
                "patch_size": 4,
            },
        },
        "candidates": {"no-mlp": {"plan": {"*.mlp": "none"}}},
        "train": {"epochs": 1, "batch_size": 16, "learning_rate": 1e-2, "checkpoint_seconds": 0},
        "seeds": [0],
        "accept": {"max_drop": 0.3},
        "measure": {"repeats": 1, "latency_calls": 1, "device": "cpu", "threads": 1},
    }
    return {**study, **changes}


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a cross-validation with two folds and one seed."""
    directory = tmp_path_factory.mktemp("folds")
    run(study_of(images(directory / "images", 0, 40)), directory / "run")
    return directory / "run"


def answers_of(directory: Path, name: str, seed: int, folds: int) -> list[Predictions]:
    return [
        Predictions.read(
            directory / "folds" / f"seed-{seed}-fold-{fold}" / "trials" / name / f"seed-{seed}" / "predictions.parquet"
        )
        for fold in range(1, folds + 1)
    ]


def test_every_example_is_answered_once_and_all_of_them_are_decided_on(quick: Path) -> None:
    results, rows = results_of(quick), rows_of(quick)
    assert results["cross_validation"]["folds"] == 2
    assert results["data"]["test"] == 40
    right = {}
    for name, row in rows.items():
        parts = answers_of(quick, name, 0, 2)
        assert sum(len(part.labels) for part in parts) == 40
        right[name] = np.mean(np.concatenate([part.correct for part in parts]))
        assert row["quality"]["mean"] == pytest.approx(right[name])
        assert row["recipe"] is None
        assert row["trials"] == [f"folds/seed-0-fold-{row['decided_fold']}/trials/{name}/seed-0"]
    row = rows["no-mlp"]
    assert row["difference"]["mean"] == pytest.approx(right["no-mlp"] - right["baseline"])
    assert row["scope"] == "seeds and examples"
    assert sum(found["examples"] for found in row["per_class"]) == 40


def test_the_models_that_ship_are_the_best_on_validation_and_are_named(quick: Path) -> None:
    results = results_of(quick)
    row = rows_of(quick)[results["recommended"]]
    validated = {}
    for fold in (1, 2):
        trial = quick / "folds" / f"seed-0-fold-{fold}" / "trials" / row["name"] / "seed-0"
        validated[fold] = json.loads((trial / "result.json").read_text())["validation"]["validation_accuracy"]
    assert validated[row["decided_fold"]] == max(validated.values())
    assert results["ship"] == f"{row['trials'][0]}/model"
    assert f"Its model of seed 0, fold {row['decided_fold']} ships" in results["recommendation"]
    assert "trained on 1/2 of the data" in results["recommendation"]
    assert lf.load(quick / results["ship"]).config.hidden_size == 8


def test_the_ledger_stands_at_the_top_alone_and_no_figure_is_shown_before_the_end(quick: Path) -> None:
    assert (quick / "ledger.json").exists()
    assert not list((quick / "folds").rglob("ledger.json"))
    events = [json.loads(line) for line in (quick / "run.jsonl").read_text().splitlines()]
    ends = [place for place, event in enumerate(events) if event["event"] == "step_ended"]
    shown = [place for place, event in enumerate(events) if event["event"] == "measured"]
    assert len(ends) == 4
    assert min(shown) > max(ends)
    assert {event["step"] for event in events if event["event"] == "step_started"} == {
        f"{name} · seed 0 · fold {fold} of seed 0" for name in ("baseline", "no-mlp") for fold in (1, 2)
    }


def test_table_and_page_say_that_it_is_a_cross_validation(quick: Path) -> None:
    results = results_of(quick)
    page, lines = render(results), " ".join(decision_lines(results))
    assert "Cross-validation in 2 folds" in page
    assert "corrected resampled t test" in page
    assert "tested on 2 folds in turn" in page
    assert "one trained pair only" not in page + lines
    assert "looks at" not in lines or "at these data" in lines


def test_run_again_it_trains_nothing_and_takes_no_look(quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = results_of(quick)
    monkeypatch.setattr(training, "train", lambda *_: pytest.fail("A model was trained again."))
    run(lf.read_study(quick / "study.yaml"), quick)
    assert without_timings(results_of(quick)) == without_timings(before)
    assert before["looks"]["number"] == 1


def test_a_fold_is_not_run_alone(quick: Path, tmp_path: Path) -> None:
    with pytest.raises(LeanformerError, match="this is the study of one fold") as caught:
        run(lf.read_study(quick / "folds" / "seed-0-fold-1" / "study.yaml"), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_pilot_needs_a_test_split(quick: Path) -> None:
    with pytest.raises(LeanformerError, match=r"pilot .*: a cross-validation, whose models each answered one fold"):
        read_pilot(quick)


def test_answers_with_thresholds_are_those_of_each_fold() -> None:
    labels = np.array([0, 1, 0, 1])
    logits = np.array([[2.0, 0.0], [0.0, 1.0], [0.0, 2.0], [0.0, 3.0]])
    parts = [
        (
            np.array(rows),
            Predictions(
                labels[rows],
                logits[rows].argmax(axis=1),
                np.zeros(2),
                logits[rows],
                classes=2,
                positive=1,
                thresholds={"recall_at_false_alarms": threshold},
            ),
        )
        for rows, threshold in (([1, 2], 2.5), ([0, 3], 0.0))
    ]
    pooled = PooledPredictions.of(parts)
    assert pooled.labels.tolist() == labels.tolist()
    assert pooled.predictions.tolist() == [0, 1, 1, 1]
    found = pooled.statistics("recall_at_false_alarms")
    for rows, part in parts:
        assert found[rows].tolist() == part.statistics("recall_at_false_alarms").tolist()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"data": {"cross_validation": 1}}, "data.cross_validation.folds: input should be greater than or equal to 2"),
        ({"data": {"cross_validation": 21}}, "data.cross_validation.folds: input should be less than or equal to 20"),
        ({"data": {"cross_validation": "5"}}, "data.cross_validation: input should be a mapping of keys"),
        ({"data": {"cross_validation": {"folds": 3, "fold": 4}}}, "data.cross_validation: there is no fold 4 of 3"),
        ({"data": {"cross_validation": 5, "test_fraction": 0.3}}, "data.test_fraction does nothing here: data.cross"),
        ({"data": {"cross_validation": 5, "test_limit": 10}}, "data.test_limit does nothing here: data.cross_vali"),
        ({"baseline": {"model": "vit", "seeds": [0, 1]}}, "baseline.seeds does not go with data.cross_validation"),
        ({"measure": {"robustness": True}}, "measure.robustness does not go with data.cross_validation"),
        ({"ship": {"to": "onnx"}}, "ship does not go with data.cross_validation"),
    ],
)
def test_bad_input_is_one_clear_line(changes: dict[str, Any], line: str) -> None:
    study = study_of(Path("images"), data={"cross_validation": 5})
    with pytest.raises(LeanformerError) as caught:
        lf.make_study({**study, **changes})
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_too_many_folds_end_before_anything_is_trained(tmp_path: Path) -> None:
    source = images(tmp_path / "images", 0, 8)
    with pytest.raises(LeanformerError, match=r"data\.cross_validation: 5 folds, and a class has"):
        run(study_of(source, data={"source": str(source), "cross_validation": 5}), tmp_path / "run")
    assert not list((tmp_path / "run").rglob("trials"))


# Whole studies


SEARCHED = {"epochs": 2, "batch_size": 16, "learning_rate": [3e-3, 1e-2], "checkpoint_seconds": 0}
TAUGHT = {"method": "distill", "plan": {"*.self_attention": {"block": "feed_forward", "hidden": 8, "max_length": 5}}}


@pytest.mark.long
def test_interrupted_and_with_two_jobs_it_has_the_same_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_of(
        images(tmp_path / "images", 0, 48),
        candidates={"no-mlp": {"plan": {"*.mlp": "none"}}, "taught": TAUGHT},
        train=SEARCHED,
        distill={"epochs": 1},
        finetune={"epochs": 1},
        seeds=[0, 1],
    )
    run(study, tmp_path / "first" / "run")
    ended: list[int] = []
    of_epoch: Callable[..., None] = training.TrialObserver.epoch_ended

    def interrupted(self: Any, record: dict[str, float], examples_per_second: float) -> None:
        of_epoch(self, record, examples_per_second)
        ended.append(1)
        if len(ended) == 23:  # in the middle of a fold
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.TrialObserver, "epoch_ended", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(study, tmp_path / "second" / "run")
    assert not (tmp_path / "second" / "run" / "results.json").exists()
    _, log = run(study, tmp_path / "second" / "run", jobs=2)
    assert "runs again" not in log
    first, second = (without_timings(results_of(tmp_path / name / "run")) for name in ("first", "second"))
    assert second == first
    assert set(rows_of(tmp_path / "second" / "run")) == {"baseline", "no-mlp", "taught"}

    # A third repeat is a second look at the same pool; what ships stays chosen.
    before = {
        name: (row["decided_seed"], row["decided_fold"]) for name, row in rows_of(tmp_path / "second" / "run").items()
    }
    run({**study, "seeds": [0, 1, 2]}, tmp_path / "second" / "run")
    results = results_of(tmp_path / "second" / "run")
    assert results["looks"]["number"] == 2
    assert results["looks"]["candidates"] == 2
    now = {
        name: (row["decided_seed"], row["decided_fold"]) for name, row in rows_of(tmp_path / "second" / "run").items()
    }
    assert now == before
    with pytest.raises(LeanformerError, match="seeds: seed 2 was evaluated"):
        run(study, tmp_path / "second" / "run")


@pytest.mark.long
def test_a_failed_training_in_any_fold_rejects_the_recipe(tmp_path: Path) -> None:
    train = {"epochs": 2, "batch_size": 16, "learning_rate": 1e-2, "checkpoint_seconds": 0}
    study = study_of(images(tmp_path / "images", 0, 40), train=train)
    directory = tmp_path / "run"
    original: Callable[..., Any] = vars(training)["train"]

    def fails(*arguments: Any, **named: Any) -> Any:
        trained = original(*arguments, **named)
        checkpoint = arguments[7]
        if "fold-2" in str(checkpoint) and "no-mlp" in str(checkpoint):
            trained.status, trained.reason = "failed", "the loss is not finite"
        return trained

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "train", fails)
        run(study, directory)
    row = rows_of(directory)["no-mlp"]
    assert row["decision"] == "reject"
    assert row["failures"] == [{"seed": 0, "reason": "fold 2: the loss is not finite"}]
    assert results_of(directory)["recommended"] == "baseline"


@pytest.mark.long
def test_what_ships_can_be_confirmed_exported_and_reported(quick: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    confirmed = confirm(quick, str(images(tmp_path / "new", 500, 60)), candidate="no-mlp")
    assert confirmed.result["candidate"]["directory"].startswith("folds/seed-0-fold-")
    assert confirmed.result["data"]["known"] == 0
    exported = export(quick, "onnx", out=tmp_path / "onnx")
    decision = exported.manifest.decision
    assert decision is not None
    assert decision["of"] == "trained models"
    assert decision["reason"] == rows_of(quick)[results_of(quick)["recommended"]]["reason"]
    assert "Cross-validation in 2 folds" in write_report(quick).read_text(encoding="utf-8")


@pytest.mark.long
@pytest.mark.parametrize("metric", ["balanced_accuracy", "auc", "accuracy_at_coverage", "log_loss"])
def test_other_metrics_are_compared_fold_by_fold(metric: str, tmp_path: Path) -> None:
    study = study_of(images(tmp_path / "images", 0, 60), accept={"metric": metric})
    run(study, tmp_path / "run", report=True)
    row = rows_of(tmp_path / "run")["no-mlp"]
    assert row["difference"]["low"] < row["difference"]["mean"] < row["difference"]["high"]


@pytest.mark.long
def test_shares_of_errors_and_groups(tmp_path: Path) -> None:
    source = images(tmp_path / "images", 0, 40, patient=[row // 4 for row in range(40)])
    study = study_of(
        source,
        data={"source": str(source), "label_column": "label", "group": "patient", "cross_validation": 3},
        accept={"max_drop": "300%"},
    )
    run(study, tmp_path / "run")
    results = results_of(tmp_path / "run")
    assert results["data"]["groups"] == 10
    assert results["accept"]["max_ratio"] == 4
    assert 0 < rows_of(tmp_path / "run")["no-mlp"]["p_value"] < 1


@pytest.mark.long
def test_translators_are_cross_validated_too(tmp_path: Path) -> None:
    numbers = ["null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"]
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    rows = [
        f"{numbers[a]} {numbers[b]} {numbers[a]} {numbers[b]}\t{words[a]} {words[b]} {words[a]} {words[b]}"
        for a in range(6)
        for b in range(10)
    ]
    (tmp_path / "pairs.tsv").write_text("de\ten\n" + "\n".join(rows) + "\n", encoding="utf-8")
    study: dict[str, Any] = {
        "name": "folded-words",
        "task": "translation",
        "data": {
            "source": str(tmp_path / "pairs.tsv"),
            "tokenizer": {"vocabulary": 300},
            "max_tokens": 40,
            "cross_validation": 2,
        },
        "baseline": tiny_marian(1),
        "candidates": {
            "encoder": {
                "method": "distill",
                "plan": {"encoder.*.self_attention": {"block": "feed_forward", "hidden": 8, "max_length": 60}},
            }
        },
        "train": {"epochs": 2, "batch_tokens": 512, "checkpoint_seconds": 0},
        "distill": {"epochs": 1},
        "finetune": {"epochs": 1, "targets": "data"},
        "seeds": [0, 1],
        "decode": {"max_tokens": 12},
        "measure": {"repeats": 1, "latency_calls": 1, "throughput_batch": 8, "device": "cpu", "threads": 1},
    }
    run(study, tmp_path / "run", jobs=2, report=True)
    results = results_of(tmp_path / "run")
    row = rows_of(tmp_path / "run")["encoder"]
    assert results["data"]["test"] == 60
    assert len(row["quality"]["per_seed"]) == 2
    assert row["difference"] is not None
    assert "a score is the mean over the folds" in results["method"]["interval"]

"""The benchmark of minimal attention: its rows' parameters, which of them run together, and stacked training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import leanformer as lf
from benchmarks.kit.benchmark import parse
from benchmarks.kit.forms import GRID
from benchmarks.quality import minimal
from benchmarks.quality.minimal import BENCHMARK, with_references
from benchmarks.quality.minimal_rows import DATA, ROWS, STUDIES, Row
from benchmarks.quality.minimal_stacked import Trained, figures_of, settings_of
from leanformer.core.errors import LeanformerError
from leanformer.model.weights import parameter_count

CPU = torch.device("cpu")
D, LAYERS = 64, 6
# Of the replication, on MNIST and on CIFAR-10.
PUBLISHED = {
    "unchanged-1-head-mlp": (156_298, 165_450),
    "unchanged-4-heads-mlp": (156_298, 165_450),
    "collapsed-1-head-mlp": (131_338, None),
    "collapsed-no-values-1-head-mlp": (81_418, 90_570),
    "unchanged-1-head": (106_378, 115_530),
    "unchanged-4-heads": (106_378, 115_530),
    "symmetric-1-head": (68_938, 78_090),
    "symmetric-4-heads": (59_722, 68_874),
    "collapsed-1-head": (81_418, 90_570),
    "collapsed-no-values-1-head": (31_498, 40_650),
}


def rows_of(group: str) -> list[Row]:
    return [row for row in ROWS if row.group == group]


def test_forms_have_the_replications_parameters_but_for_what_the_page_names() -> None:
    for row in rows_of("forms"):
        published = PUBLISHED[row.name][list(DATA).index(row.data)]
        assert (row.published and row.published.parameters) == published
        if published is None:
            continue
        differences = 0
        if "mlp" not in row.name:
            differences -= LAYERS * 2 * D  # the norm before the MLP
        if row.name.startswith("symmetric"):
            differences += LAYERS * D  # the bias of the triangle
        if row.name == "symmetric-4-heads":  # one triangle for all heads, not one a head
            differences += LAYERS * (D * (D + 1) // 2 - 4 * (16 * 17 // 2))
        assert parameter_count(row.model()) - published == differences, row.name


@pytest.mark.long
def test_the_table_has_a_usual_transformers_parameters() -> None:
    rows = rows_of("table")
    assert {(row.data, *row.says.values()) for row in rows} == {
        (data, layers, heads, mlp) for data in DATA for layers in ("6", "12") for heads in "14" for mlp in ("yes", "no")
    }
    for row in rows:
        attention = 4 * (D * D + D) + 2 * D
        mlp = 8 * D * D + 4 * D + D + 2 * D
        # patches of 7 x 7 or 8 x 8 x 3 numbers, 16 positions, last norm, classifier
        rest = ({"mnist": 49, "cifar10": 192}[row.data] + 1) * D + 16 * D + 2 * D + 10 * (D + 1)
        expected = int(row.says["layers"]) * (attention + (mlp if row.says["MLP"] == "yes" else 0)) + rest
        assert parameter_count(row.model()) == expected, row.name


def test_the_best_forms_keep_to_the_budget() -> None:
    for row in rows_of("best"):
        assert parameter_count(row.model()) <= {"mnist": 31_500, "cifar10": 40_650}[row.data], row.name


@pytest.mark.long
def test_a_row_is_the_same_model_as_candidate_beside_its_reference() -> None:
    # The plans of tables and forms are the same on both data sets.
    for rows in (rows for rows in STUDIES.values() if rows[0].data == "mnist" or rows[0].group == "best"):
        reference = rows[0].model()
        for row in rows[1:]:
            as_candidate = lf.reduce(reference, row.plan).state_dict()
            assert {name: value.shape for name, value in as_candidate.items()} == {
                name: value.shape for name, value in row.model().state_dict().items()
            }, row.name


def test_chosen_rows_come_with_what_they_are_compared_with() -> None:
    def trained(*names: str) -> list[str]:
        chosen = [row for row in ROWS if row.data == "mnist" and row.name in names]
        return [row.name for rows in with_references(chosen).values() for row in rows]

    assert trained("symmetric-4-heads") == ["unchanged-1-head-mlp", "symmetric-4-heads"]
    assert trained("attention") == ["attention", "attention-no-mlp"]  # a study has a candidate
    assert trained("attention-no-mlp", "6-layers-1-head") == [
        "6-layers-1-head-mlp",
        "6-layers-1-head",
        "attention",
        "attention-no-mlp",
    ]
    assert [row for rows in with_references(ROWS).values() for row in rows] == list(ROWS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--only", "stacked"], "--stacked K"),
        (["--only", "best", "--rows", "symmetric-4-heads"], "leave no row"),
        (["--data-mnist", "none", "--data-cifar10", "none"], "leave no row"),
        (["--stacked", "-1"], "--stacked -1"),
        (["--side-by-side", "-1"], "--side-by-side -1"),
        (["--side-by-side", "2", "--epochs", "0"], "--epochs 0: must be at least 1"),
        (["--side-by-side", "2", "--batch-size", "0"], "--batch-size 0: must be at least 1"),
    ],
)
def test_options_that_leave_nothing_to_do_are_errors(options: list[str], message: str) -> None:
    with pytest.raises(LeanformerError, match=message):
        BENCHMARK.measure(parse(BENCHMARK, ["--device", "cpu", *options]))


def result_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    settings = {"seeds": [0], "batch_size": 8, "rounds": 1}
    data = {data: {"source": f"somewhere/{data}", "train": 57_000, "test": 10_000} for data in DATA}
    return {"settings": settings, "data": data, "rows": rows}


def figures(name: str, data: str = "mnist", **changed: Any) -> dict[str, Any]:
    row = next(row for row in ROWS if (row.name, row.data) == (name, data))
    quality = {"mean": 0.985, "low": 0.98, "high": 0.99, "per_seed": [0.985]}
    measured = {
        "status": "ok",
        "parameters": 31_396,
        "q_ratio": 18.2,
        "flops_per_example": 1_234_567,
        "learning_rate": 1e-2,
        "quality": quality,
        "difference": None,
        "train_seconds": 10.0,
        "latency_ms": {"p50": 1.0, "p95": 2.0},
        "failures": [],
        "rollbacks": [],
        "validation_accuracy": [0.98],
        **changed,
    }
    return minimal.described(row, 1, [1e-2], measured)


def test_the_page_says_what_failed_and_what_is_best_by_validation() -> None:
    failed: dict[str, Any] = {
        "status": "failed",
        "quality": None,
        "failures": [{"seed": 0, "reason": "the loss was not finite"}],
    }
    luckier: dict[str, Any] = {
        "quality": {"mean": 0.99, "low": 0.98, "high": 1.0},
        "validation_accuracy": [0.9],
    }
    result = result_of(
        [figures("attention"), figures("attention-no-mlp", parameters=18_634, **luckier), figures("grid", **failed)]
    )
    shown = BENCHMARK.tables(result)
    assert "| rows whose training failed | mnist grid |" in shown["figures"]
    assert "failed: the loss was not finite" in shown["best-mnist"]
    best = "the best small form by validation, test accuracy and parameters"
    assert f"| MNIST: {best} | 98.50 % with 31,396 |" in shown["figures"]
    assert "| MNIST: the goal, and the parameters allowed | 98.5 % with 31,500 |" in shown["figures"]


def test_rows_below_the_replication_are_counted() -> None:
    better: dict[str, Any] = {"quality": {"mean": 0.99, "low": 0.98, "high": 1.0}}
    rows = [figures("unchanged-1-head-mlp", **better), figures("unchanged-4-heads-mlp"), figures("attention")]
    said = {"MNIST: rows less accurate than the replication's": "1 of 2"}
    assert minimal.beside_published(rows) == said  # 98.5 % where it has 98.73
    assert minimal.beside_published(rows[2:]) == {}


def test_the_page_has_the_replications_figures_beside_ours() -> None:
    gap = {"mean": -0.01, "low": -0.02, "high": 0.001}
    shown = BENCHMARK.tables(
        result_of(
            [
                figures("unchanged-1-head-mlp", parameters=156_298),
                figures("symmetric-1-head", "cifar10", difference=gap),
                figures("collapsed-1-head-mlp", "cifar10", rollbacks=[{"seed": 0, "what": "back"}]),
            ]
        )
    )
    unchanged = "| 1 | yes | unchanged | 156,298 | 98.33 | 156,298 | 18.2 | 98.50 (98.00 to 99.00) |  |"
    assert unchanged in shown["forms-mnist"]
    assert "| 1 | no | symmetric | 78,090 | 9.84 (diverged) | 31,396 |" in shown["forms-cifar10"]
    assert "| -1.00 (-2.00 to +0.10) |" in shown["forms-cifar10"]
    assert "| 1 | yes | W_qk |  |  | 31,396 |" in shown["forms-cifar10"]
    assert "| rows whose training failed | none |" in shown["figures"]
    assert "| returns to an earlier state after a loss that was not finite | 1 |" in shown["figures"]
    assert "| CIFAR-10: training images | 57,000 |" in shown["figures"]


FORMS: dict[str, dict[str, Any]] = {
    "Hugging Face's own": {},
    "extreme": {"*.self_attention": "minimal_attention", "*.mlp": "none"},
    "symmetric": {
        "*.self_attention": {"block": "minimal_attention", "qk": "symmetric", "diagonal_value": True},
        "*.mlp": {"block": "mlp", "hidden": 5},
        "pooling": "mean",
    },
    "grid": {"*.self_attention": {**GRID, "groups": 16}, "pooling": "mean"},
}


TOKENS = pytest.mark.parametrize("patch", [2, 1], ids=["16-tokens", "64-tokens"])
RATES = [1e-2, 1e-2, 3e-3]


def test_the_rate_is_chosen_by_all_seeds_that_stayed_finite(tmp_path: Path) -> None:
    right = np.zeros((3, 2, 5), dtype=bool)
    validation = np.array([[0.9, 0.1], [0.6, 0.7], [0.99, 0.99]])
    finite = np.array([[True, True], [True, True], [True, False]])
    trained = Trained(validation, right, finite, 2.5)
    assert trained.best_rate() == 1
    assert Trained(validation, right, finite & False, 2.5).best_rate() is None
    trained.save(tmp_path / "runs" / "row.npz", "these settings")
    again = Trained.read(tmp_path / "runs" / "row.npz", "these settings")
    assert again is not None
    assert again.seconds == 2.5
    assert np.array_equal(again.validation, validation)
    assert Trained.read(tmp_path / "runs" / "row.npz", "others") is None
    (tmp_path / "runs" / "row.npz").write_bytes(b"PK cut off")
    with pytest.raises(LeanformerError, match=r"row\.npz: damaged; delete it"):
        Trained.read(tmp_path / "runs" / "row.npz", "these settings")


def test_a_row_without_a_finite_rate_has_failed_and_nothing_is_held_against_it() -> None:
    arguments = parse(BENCHMARK, ["--side-by-side", "2"])
    row, whole = (
        row for row in ROWS if row.data == "mnist" and row.name in ("unchanged-1-head-mlp", "symmetric-1-head")
    )
    right = np.array([[[1, 1, 0, 1]] * 3] * 2, dtype=bool)
    good = Trained(np.full((2, 3), 0.75), right, np.ones((2, 3), dtype=bool), 1.0)
    bad = Trained(np.full((2, 3), 0.1), right, np.array([[True, False, True], [False, True, True]]), 1.0)
    failed = figures_of(row, bad, good, 100, arguments)
    assert failed["status"] == "failed"
    assert failed["failures"][0]["seed"] == 1
    assert "no rate at which" in failed["failures"][0]["reason"]
    assert [entry["diverged"] for entry in failed["learning_rate_search"]] == [1, 1]
    alone = figures_of(whole, good, bad, 100, arguments)
    assert (alone["status"], alone["difference"]) == ("ok", None)
    result = result_of([minimal.described(one, 15, [1e-3, 1e-2], own) for one, own in ((row, failed), (whole, alone))])
    result["settings"]["side_by_side"] = 2
    effort = minimal.effort(result)
    assert effort["trainings that diverged"] == 2
    assert effort["rows whose training failed"] == f"mnist {row.name}"
    assert BENCHMARK.verdicts is not None
    assert BENCHMARK.verdicts(result) == []


@pytest.mark.long
def test_rows_trained_side_by_side_are_rows_of_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["--rows", "attention", "attention-no-mlp"]
    options = ["--quick", "--side-by-side", "2", "--stacked", "0", "--runs", str(tmp_path), *names]
    arguments = parse(BENCHMARK, options)
    result = BENCHMARK.measure(arguments)
    whole, reduced = result["rows"]
    assert [row["name"] for row in (whole, reduced)] == ["attention", "attention-no-mlp"]
    assert whole["difference"] is None
    assert reduced["difference"]["mean"] == pytest.approx(reduced["quality"]["mean"] - whole["quality"]["mean"])
    assert [entry["learning_rate"] for entry in whole["learning_rate_search"]] == whole["rates"] == [1e-2]
    assert len(whole["quality"]["per_seed"]) == len(whole["validation_accuracy"]) == 2
    assert whole["train_seconds"] > 0
    shown = BENCHMARK.tables({**result, "settings": vars(arguments)})
    assert "| trainings, of all rates and seeds | 4 |" in shown["figures"]

    def fail(*_: Any) -> None:
        raise AssertionError("it is trained again")

    monkeypatch.setattr("benchmarks.quality.minimal_stacked.train_chunk", fail)
    again = BENCHMARK.measure(parse(BENCHMARK, options))
    assert [row["quality"] for row in again["rows"]] == [row["quality"] for row in result["rows"]]
    row = STUDIES[whole["study"]][0]
    for other in (["--batch-size", "16"], ["--data-mnist", str(tmp_path)], ["--learning-rates", "0.1"]):
        assert settings_of(row, parse(BENCHMARK, [*options, *other]), CPU) != settings_of(row, arguments, CPU)


def test_a_reduction_is_held_against_a_whole_model_with_as_many_heads() -> None:
    gap = {"mean": -0.01, "low": -0.02, "high": 0.001}
    rows = [
        figures("unchanged-1-head-mlp", parameters=200),
        figures("collapsed-1-head-mlp", parameters=150, difference=gap),
        figures("collapsed-1-head", parameters=50, difference=gap),
        figures("symmetric-4-heads", parameters=20, difference=gap),  # of one head is not known
        figures("6-layers-1-head-mlp", parameters=200),
        figures("6-layers-1-head", parameters=100, difference=gap),
        figures("attention", parameters=10),
        figures("attention-no-mlp", parameters=8, difference=gap),
        figures("grid", parameters=9),
        figures("grid-3-layers", parameters=7, difference=gap),
    ]
    assert BENCHMARK.verdicts is not None
    assert BENCHMARK.verdicts(result_of(rows)) == []  # too few epochs to say, and one rate
    found = BENCHMARK.verdicts(result_of([row | {"epochs": 15, "rates": [1e-3, 1e-2]} for row in rows]))
    assert [(verdict.reduction, verdict.parameters) for verdict in found] == [
        ("one matrix for queries and keys", 0.75),
        ("one matrix for queries and keys, no MLP", 0.25),
        ("6 layers, MLP of ratio 4: no MLP", 0.5),
        ("the small form of 10 parameters: no MLP", 0.8),
    ]
    assert found[0].difference == {"mean": -1.0, "low": -2.0, "high": 0.1}
    assert found[0].grounds == "1 seed from scratch, the whole model at 98.5 %"
    assert found[0].elsewhere == "a replication, 100 epochs: +0.1"
    assert found[0].data == "MNIST, 15 epochs"

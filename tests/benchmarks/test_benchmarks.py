"""The benchmarks: every one runs with --quick, and the page is what the results files give."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import main
from benchmarks.kit import benchmark as kit
from benchmarks.kit import pages
from benchmarks.kit.again import simulated
from benchmarks.kit.drawing import draw, same_drawing
from benchmarks.kit.interval import Interval
from benchmarks.kit.measuring import in_turn, median_ratio
from benchmarks.kit.plots import Panel, Panels, Points
from benchmarks.kit.verdicts import WORDS, Verdict
from benchmarks.quality import multi30k
from benchmarks.quality.multi30k import against_control, best_tuned
from leanformer.core.errors import LeanformerError
from leanformer.measure import cost
from leanformer.measure.translation import Translations

SECONDS = ("decoder_block", "simulate_decisions")
"""Benchmarks that --quick runs in a second; the others are among the slow tests."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in SECONDS else pytest.mark.long) for name in kit.names()]
)
def test_quick(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A study's costliest measurement, which tests/measure/test_cost.py covers.
    monkeypatch.setattr(cost, "peak_memory", lambda action, device: 0)
    benchmark = kit.find(name)
    out = tmp_path / "out.json"
    try:
        returned = kit.run(benchmark, ["--quick", "--out", str(out)])
    except LeanformerError as error:
        if "pip install" in str(error):  # a library that only this comparison needs
            pytest.skip(str(error))
        raise
    result = json.loads(out.read_text())
    assert result == json.loads(json.dumps(returned))
    assert list(result)[: len(kit.ENVELOPE)] == list(kit.ENVELOPE)
    assert len(result) > len(kit.ENVELOPE)
    assert result["benchmark"] == name
    assert result["command"] == f"python -m benchmarks {name} --quick --out {out}"
    assert datetime.fromisoformat(result["date"]).utcoffset() is not None
    assert result["quick"] is True
    assert result["environment"]["threads"] == 1
    assert result["settings"].items() >= json.loads(json.dumps(dict(benchmark.quick), default=str)).items()
    assert list(tmp_path.iterdir()) == [out]
    shown = benchmark.tables(result)
    assert shown
    for text in shown.values():
        assert "| --- |" in text
        assert not re.search(r"\b(nan|inf|None)\b", text)
    if benchmark.plot is not None and (plot := benchmark.plot(result)) is not None:
        assert draw(plot).endswith("</svg>\n")


@pytest.mark.parametrize("name", kit.names())
def test_interface(name: str) -> None:
    benchmark = kit.find(name)
    assert benchmark.name == name
    assert benchmark.about.partition("\n")[0].endswith((".", "?"))
    full, quick = kit.parse(benchmark, []), kit.parse(benchmark, ["--quick"])
    assert full.out == kit.RESULTS / f"{name}.json"
    assert quick.out is None
    assert benchmark.quick.keys() <= vars(full).keys()
    assert {key: vars(quick)[key] for key in benchmark.quick} == benchmark.quick


def test_paths_of_the_repository_are_named_from_its_root() -> None:
    assert kit._shown(multi30k.STUDY) == "benchmarks/quality/multi30k.yaml"
    assert kit._shown(Path("runs/here")) == "runs/here"


def test_command_line_wins_over_quick() -> None:
    benchmark = kit.find("training_speed")
    arguments = kit.parse(benchmark, ["--quick", "--rounds", "3"])
    assert arguments.rounds == 3
    assert arguments.steps == benchmark.quick["steps"]


def test_run_directories(tmp_path: Path) -> None:
    quick = argparse.Namespace(quick=True, runs=None)
    with kit.runs_of("mnist", quick) as directory:
        (directory / "study.yaml").touch()
    assert not directory.exists()
    with kit.runs_of("mnist", argparse.Namespace(quick=True, runs=tmp_path)) as directory:
        assert directory == tmp_path / "mnist"
    with kit.runs_of("mnist", argparse.Namespace(quick=False, runs=None)) as directory:
        assert directory == Path("runs/benchmarks/mnist")


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in kit.names():
        assert sum(line.split()[:1] == [name] for line in lines) == 1


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["trainingspeed"], "did you mean training_speed?"),
        (["nothing-like-it"], "python -m benchmarks lists them"),
        (["training_speed", "--rounds", "many"], "invalid int value"),
        (["training_speed", "--threads", "0"], "must be at least 1"),
        (["training_speed", "--quick", "--out", "FILE/result.json"], "cannot be written"),
        (["training_speed", "--quick", "--out", "."], "it is a directory"),
        (["training_speed", "--quick", "--data", "no/such/directory"], "no/such/directory"),
        (["decoding", "--quick", "teacher"], "NAME=DIRECTORY"),
        (["multi30k", "--quick", "--only", "encoder-slot"], "has no candidate 'encoder-slot'"),
        (["ablation", "--quick", "--only", "heads-5"], "there is no such form"),
        (["attention_ablation", "--quick", "--only", "x"], "has no such candidate"),
        (["attention_kernels", "--quick", "--shapes", "64"], "such as 64x4"),
        (["decoder_block", "--quick", "--length", "10"], "position 50"),
        (["page", "--chek"], "--chek"),
    ],
)
def test_mistakes(
    argv: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("not a directory")
    assert main(argv) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("benchmarks: error: ")
    assert said in line


def test_pages_are_what_the_files_give(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["page", "--check"]) == 0, capsys.readouterr().err


def make_result(**changes: Any) -> dict[str, Any]:
    """The result file of a benchmark whose table is short."""
    return {
        "benchmark": "teaching",
        "command": "python -m benchmarks teaching --rounds 7",
        "date": "2026-01-02T03:04:05+00:00",
        "seconds": 12.0,
        "quick": False,
        "environment": {"processor": "Abacus", "python": "3.11.7", "torch": "2.13.0", "device": "cpu", "threads": 2},
        "settings": {"layers": 2, "d_model": 8, "sentences": 3, "rounds": 7},
        "blocks": 24,
        "sites": 6,
        "parameters": 1_500_000,
        "together_seconds": 3.0,
        "teacher_seconds": 0.5,
        "parts_seconds": 4.0,
        "ratio": 0.75,
        "peak_memory_mb": 25.0,
        **changes,
    }


def write_result(results: Path, name: str = "teaching", **changes: Any) -> None:
    """A results file of ``make_result``, of second runs under ``again/``."""
    path = results / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(make_result(**changes)))


def test_tables_of_files(tmp_path: Path) -> None:
    write_result(tmp_path)
    tables = pages.all_tables(tmp_path)
    assert "| all at once | 3.000 |" in tables["teaching", "times"]
    run = tables["teaching", "run"]
    assert "| results | [teaching.json](../../benchmarks/results/teaching.json) |" in run
    assert "| command | `python -m benchmarks teaching --rounds 7` |" in run
    assert "| date | 2026-01-02 |\n| took | 12.0 s |\n| machine | Abacus, 2 threads |" in run
    assert "| versions | torch 2.13.0, Python 3.11.7 |" in run
    assert not pages.drawings(tmp_path)


def test_a_second_run_is_compared(tmp_path: Path) -> None:
    write_result(tmp_path, ratio=0.75, ratios=[0.7, 0.75, 0.9])
    for ratio, inside, what in ((0.75, 1, "all are the same"), (0.8, 1, "then 0.8"), (0.95, 0, "then 0.95")):
        write_result(tmp_path, "again/teaching", ratio=ratio, ratios=[ratio])
        row = pages.all_tables(tmp_path)[pages.ALL, "second-runs"].splitlines()[-1]
        assert row.startswith("| [teaching.json](../../benchmarks/results/teaching.json) | [again/teaching.json](")
        assert f"| {inside} of 1 | " in row
        assert what in row
    write_result(tmp_path, "again/teaching", benchmark="decoding")
    with pytest.raises(LeanformerError, match="nothing that a second run could be compared with"):
        pages.all_tables(tmp_path)


def test_a_second_run_is_compared_with_the_file_of_its_name(tmp_path: Path) -> None:
    write_result(tmp_path, ratio=0.75, ratios=[0.7, 0.75, 0.9])
    write_result(tmp_path, "teaching-elsewhere", ratio=2.0, ratios=[1.9, 2.1])
    write_result(tmp_path, "again/teaching-elsewhere", ratio=2.05, ratios=[2.05])
    write_result(tmp_path, "teaching-elsewhere-again", ratio=2.2, ratios=[2.2])
    runs = pages.all_tables(tmp_path)[pages.ALL, "second-runs"].splitlines()[2:]
    assert [row.count("[teaching-elsewhere.json](") for row in runs] == [1, 1]
    assert [row.split(" | ")[2] for row in runs] == ["1 of 1", "0 of 1"]


def test_a_second_run_of_something_else_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_result(tmp_path)
    write_result(tmp_path, "again/teaching")
    stated = iter([{"one": Interval(1.0, 0.0, 2.0)}, {"other": Interval(1.0, 0.0, 2.0)}])
    monkeypatch.setattr(pages, "find", lambda name: replace(kit.find(name), stated=lambda result: next(stated)))
    with pytest.raises(LeanformerError, match=r"none of its figures is in teaching\.json"):
        pages.second_runs(*pages.read_runs(tmp_path))


def test_shares_have_binomial_intervals() -> None:
    rows = [{"seeds": 1, "false_accepts": 0.05, "replicates": 1000}]
    figure = simulated(rows, ["seeds"])["seeds 1"]
    assert figure.mean == 0.05
    assert figure.low == pytest.approx(0.0373, abs=1e-4)  # Clopper and Pearson's, by a table
    assert figure.high == pytest.approx(0.0654, abs=1e-4)
    assert figure.holds(0.04)
    assert not figure.holds(0.07)


def test_what_is_not_known_of_a_run_is_said(tmp_path: Path) -> None:
    write_result(tmp_path, date=None, environment=None)
    environment = {"processor": "Abacus", "python": "3.11.7", "device": "GPU 9"}
    write_result(tmp_path, "teaching-gpu", quick=True, environment=environment)
    tables = pages.all_tables(tmp_path)
    first, second = tables["teaching", "run"], tables["teaching-gpu", "run"]
    assert "| date | not recorded |" in first
    assert "| machine | not recorded |\n| versions | not recorded |" in first
    assert "Made with `--quick`" not in first
    assert "Made with `--quick`" in second
    assert "GPU 9 (Abacus)" in second


@pytest.mark.parametrize(("unit", "scale"), [("BLEU", 0.5), ("points", 1.0)])
@pytest.mark.parametrize(
    ("mean", "low", "high", "word"),
    [
        (0.5, -0.9, 1.0, "safe"),
        (-0.9, -1.5, -0.3, "undecided"),
        (-1.1, -1.5, -0.3, "undecided"),
        (-2.0, -2.9, -1.1, "not safe"),
    ],
)
def test_what_is_safe_lies_within_the_margin(
    unit: Any, scale: float, mean: float, low: float, high: float, word: str
) -> None:
    difference = {"mean": scale * mean, "low": scale * low, "high": scale * high}
    assert Verdict("data", "no MLP", 0.5, difference, unit, "3 seeds").word == word


def test_of_several_tunings_validation_data_choose() -> None:
    rows = {
        "x": {"validation_bleu": 30.0},
        "x-tuned": {"validation_bleu": 31.0},
        "x-sequence": {"validation_bleu": 29.0},
    }
    assert best_tuned("x", rows) == "-tuned"
    assert best_tuned("y", rows) is None
    del rows["x-tuned"]["validation_bleu"]
    assert best_tuned("x", rows) == "-sequence"


def test_what_another_teacher_moves_is_said() -> None:
    first = {"slots": Interval(-0.2, -0.6, 0.2), "mixer": Interval(0.1, -0.4, 0.6), "synthesizer": Interval(-4, -5, -3)}
    second = {"slots": Interval(-0.5, -1, 0), "mixer": Interval(-1.4, -2, -1), "synthesizer": Interval(-3.9, -5, -3)}
    path = kit.RESULTS / "multi30k.json"
    translated = pages.Run(path, kit.read_result(path))
    repeat = pages.Repeat(translated, translated, first, second)
    assert repeat.inside == 2
    assert repeat.of_translations
    said = pages.other_teachers([repeat, repeat]).splitlines()[2:]
    assert said == [
        "| multi30k, then multi30k | 2 of 3 | 2 of 3 | 0.3 | 1.5 |",
        "| multi30k, then multi30k | 2 of 3 | 2 of 3 | 0.3 | 1.5 |",
        "| all | 4 of 6 | 4 of 6 | 0.3 | 1.5 |",
    ]
    assert not replace(repeat, again=pages.Run(path, make_result())).of_translations
    assert pages.other_teachers([]) == ""


def test_of_each_layer_r2_stands_in_its_cell() -> None:
    assert multi30k.r2_of([0.5, 0.25, 1.0]) == "0.50 / 0.25 / 1.00"
    assert multi30k.r2_of([0.5, 0.25, 1.0, 0.25]) == "0.50 in the mean"
    assert multi30k.r2_of([]) == ""


def test_a_tuned_student_is_held_against_the_teacher_tuned_alike(tmp_path: Path) -> None:
    reference = ("a dog runs over the green field", "two men stand near the old red car")
    texts = {
        "nothing-sequence": reference,
        "slots-sequence": (reference[0], "two women stand near the old red car"),
        "slots-tuned": reference,
        "nothing-tuned-longer": reference,
        "slots": reference,
    }
    for name, hypotheses in texts.items():
        path = tmp_path / "trials" / name / "seed-7"
        path.mkdir(parents=True)
        (path / "predictions.parquet").write_bytes(Translations(("x", "y"), reference, hypotheses).to_bytes())
    results: dict[str, Any] = {
        "candidates": [{"name": name, "status": "ok"} for name in texts],
        "seeds": [7],
        "accept": {"max_drop": 0.5, "confidence": 0.95},
    }
    found = against_control("slots-sequence", results, tmp_path)
    assert found is not None
    assert found["low"] < found["mean"] < -1
    for name in ("slots", "slots-tuned", "nothing-sequence", "baseline"):
        assert against_control(name, results, tmp_path) is None
    results["candidates"] = [{"name": "slots-sequence", "status": "ok"}]  # what else is there is of an older run
    assert against_control("slots-sequence", results, tmp_path) is None


def test_the_control_is_run_tuned_alone() -> None:
    arguments = kit.parse(kit.find("multi30k"), ["--only", "nothing", "all-slots", "--tune"])
    assert list(multi30k.make_study(arguments)["candidates"]) == [
        "all-slots",
        "both-slots-tuned-longer",
        "all-slots-tuned-longer",
        "nothing-tuned-longer",
        "all-slots-sequence",
        "nothing-sequence",
    ]


def test_what_tuning_gives_is_of_students_far_off_and_near() -> None:
    def row(difference: float | None) -> dict[str, Any]:
        return {"difference": None if difference is None else {"mean": difference}}

    found = {
        "baseline": row(None),
        "cross": row(-20.0),
        "cross-tuned": row(-12.0),
        "slots": row(-0.2),
        "both": row(-5.0),
    }
    result = kit.read_result(kit.RESULTS / "multi30k.json")
    facts = multi30k.facts(result, {**found, "slots-tuned": row(-0.5), "both-tuned": row(-1.0)})
    assert facts["an epoch of tuning gives students more than 10 BLEU off"] == "+8.0"
    assert facts["an epoch of tuning gives students within 1 BLEU"] == "-0.3"
    assert not any("an epoch of tuning" in what for what in multi30k.facts(result, {"baseline": row(None)}))


@pytest.mark.parametrize("order", [1, -1])
def test_in_short_a_reduction_stands_once_by_the_least_favourable_row(order: int) -> None:
    differences = {
        "good": {"mean": 0.6, "low": 0.1, "high": 1.0},
        "fair": {"mean": 0.0, "low": -0.6, "high": 0.6},
        "poor": {"mean": -2.0, "low": -3.0, "high": -1.0},
    }
    rows = [Verdict("texts", "slots", 0.9, differences[which], "BLEU", "a teacher") for which in ("good", "fair")]
    rows.append(Verdict("texts", "mixer", 0.8, differences["poor"], "BLEU", "a teacher"))
    rows.append(Verdict("images", "slots", 0.7, differences["good"], "BLEU", "a teacher", elsewhere="others: +0.1"))
    assert pages.reductions(rows[::order]).splitlines()[2:] == [
        *(line for line in TEXTS if order == 1),
        "| images | slots | safe | 70 % | +0.60 (+0.10 to +1.00) BLEU |",
        *(line for line in TEXTS if order == -1),
    ]


TEXTS = (
    "| texts | slots | undecided | 90 % | 0.00 (-0.60 to +0.60) BLEU |",
    "| texts | mixer | not safe | 80 % | -2.00 (-3.00 to -1.00) BLEU |",
)


def test_every_reduction_has_its_verdict() -> None:
    """Of the files that are there: all verdicts of all files, the safe ones first; of second runs those of teachers."""
    known = [
        verdict
        for path in sorted(kit.RESULTS.rglob("*.json"), key=lambda path: (len(path.parts), path.name))
        if (verdicts := kit.find((result := kit.read_result(path))["benchmark"]).verdicts) is not None
        for verdict in verdicts(result)
        if path.parent == kit.RESULTS or verdict.unit == "BLEU"
    ]
    tables = pages.all_tables()
    once = tables[pages.ALL, "reductions"].splitlines()[2:]
    form = "one matrix for queries and keys, no values and output projection"
    assert once[0] == f"| MNIST, 15 epochs | {form} | safe | 52 % | +0.03 (-0.32 to +0.37) points |"
    assert len(once) == len({(verdict.data, verdict.reduction) for verdict in known})
    every = tables[pages.ALL, "every-reduction"]
    words = [line.split("|")[1].strip() for line in every.splitlines()][2:]
    assert len(words) == len(known) > 20
    assert words == sorted(words, key=WORDS.index)
    assert "one teacher (41.3 BLEU), one epoch, 5e-4 |" in every  # of the second run
    row = next(row for row in known if (row.data, row.reduction) == ("Multi30k, de to en", "cross, `synthesizer`"))
    assert f"| not safe | {row.data} | cross, `synthesizer` | 116 % | -5.03 (" in every
    assert row.grounds == "one teacher (40.3 BLEU), one epoch, 5e-4, as the teacher"
    tuned = "encoder self, `mixer`, `positions: absolute`"
    row = next(row for row in known if (row.data, row.reduction) == ("Multi30k, de to en", tuned))
    assert f"| safe | {row.data} | {tuned} | 101 % | +0.28 (" in every
    assert row.grounds == "one teacher (40.3 BLEU), one epoch, 5e-4, as the teacher"


@pytest.mark.parametrize(
    "path", sorted(kit.RESULTS.rglob("*.json")), ids=lambda path: str(path.relative_to(kit.RESULTS))
)
def test_the_command_of_every_file_is_one_of_today_that_writes_it(path: Path) -> None:
    result = kit.read_result(path)
    python, module, benchmarks, name, *options = shlex.split(result["command"])
    assert (python, module, benchmarks, name) == ("python", "-m", "benchmarks", result["benchmark"])
    out = kit.parse(kit.find(name), options).out
    assert (kit.ROOT / out).resolve() == path.resolve()


def test_figures_are_on_the_pages_with_what_they_show() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in pages.pages())
    there = {path.name for path in (pages.DOCS / "images" / "benchmarks").iterdir()}
    assert {"growth.svg", "minimal.svg", "multi30k.svg", "peers_training.svg", "decoder_block.svg"} <= there
    assert there == set(re.findall(r"^!\[.+\]\(\.\./images/benchmarks/(\S+)\)$", text, flags=re.MULTILINE))


def test_figures_that_are_not_what_the_files_give(tmp_path: Path) -> None:
    results, docs = tmp_path / "results", tmp_path / "docs"
    results.mkdir()
    shutil.copy(kit.RESULTS / "decoder_block.json", results)
    docs.mkdir()
    (docs / "benchmarks.md").write_text("# Benchmarks\n")
    pages.write(results, docs)
    plot = docs / "images" / "benchmarks" / "decoder_block.svg"
    drawn = plot.read_text()
    assert not pages.stale(results, docs)
    plot.write_text(drawn.replace("by the sentence", "by a sentence"))
    assert pages.stale(results, docs) == [plot]
    plot.write_text(re.sub(r"L \d+\.\d+", "L 1.5", drawn))  # another curve
    assert pages.stale(results, docs) == [plot]
    plot.unlink()
    assert pages.stale(results, docs) == [plot]
    pages.write(results, docs)
    assert not pages.stale(results, docs)
    stale = plot.with_name("gone.svg")
    stale.write_text(drawn)
    assert pages.stale(results, docs) == [stale]
    pages.write(results, docs)
    assert not stale.exists()


def test_a_drawing_is_the_same_but_for_the_last_digits() -> None:
    panel = Panel("title", "x", "y", {"one": Points([1.0, 10.0], [2.0, 3.0], [1.9, 2.9], [2.2, 3.3])})
    drawn = draw(Panels([panel]))
    assert draw(Panels([panel])) == drawn
    first = re.search(r"\d+\.\d+", drawn)
    assert first is not None
    number = float(first[0])
    assert same_drawing(drawn, drawn.replace(first[0], f"{number + 0.001:.6f}"))
    assert not same_drawing(drawn, drawn.replace(first[0], f"{number + 0.1:.6f}"))
    higher = Points([1.0, 10.0], [2.0, 3.1], [1.9, 2.9], [2.2, 3.3])
    assert not same_drawing(drawn, draw(Panels([replace(panel, points={"one": higher})])))


def test_files_that_are_no_results(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    file.write_text('{"benchmark": "teaching"}')
    with pytest.raises(LeanformerError, match="no command, date, seconds"):
        kit.read_result(file)
    file.write_text(json.dumps(make_result(benchmark="teachings")))
    with pytest.raises(LeanformerError, match="'teachings'"):
        kit.read_result(file)


def test_an_interrupted_benchmark_leaves_the_file_of_before(tmp_path: Path) -> None:
    def fail(arguments: argparse.Namespace) -> dict[str, Any]:
        raise LeanformerError("no")

    out = tmp_path / "out.json"
    out.write_text("before")
    benchmark = kit.Benchmark("x", lambda parser: None, fail, lambda result: {})
    with pytest.raises(LeanformerError, match="no"):
        kit.run(benchmark, ["--out", str(out)])
    assert out.read_text() == "before"
    assert list(tmp_path.iterdir()) == [out]


def test_in_turn() -> None:
    calls: list[str] = []

    def way(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    figures = in_turn({"a": lambda: way("a"), "b": lambda: way("b")}, rounds=2, warm_up=1)
    # Each comes first in half of the rounds; the warm-up's figures are not kept.
    assert calls in (["a", "b", "b", "a", "a", "b"], ["b", "a", "a", "b", "b", "a"])
    assert sorted(figures["a"] + figures["b"]) == [3, 4, 5, 6]


def test_median_ratio() -> None:
    assert median_ratio([2.0, 9.0, 8.0], [1.0, 3.0, 2.0]) == 3.0  # of 2, 3 and 4; the medians' ratio is 4


@pytest.mark.parametrize(("gain", "repaid"), [(1.25, True), (0.9, False)])
def test_training_speed_says_what_compiling_gives(gain: float, repaid: bool) -> None:
    def figures(speed: float) -> dict[str, Any]:
        ratios = {"ratio_to_vit": speed / 100, "ratio_to_fastest_vit": speed / 125}
        return {"images_per_second": speed, **ratios, "rounds": [speed, speed]}

    speeds = {"ViT": 100.0, "ViT, eager attention": 110.0, "extreme form": 600.0, "extreme form, mean": 700.0}
    rows = [
        {
            "model": model,
            "heads": heads,
            "parameters": 1000,
            **figures(speed),
            "products_per_second": 2 * speed,
            "ratio_to_products": 0.5,
            "first_step_seconds": 30.0,
            "compiled": figures(gain * speed),
        }
        for heads in (1, 4)
        for model, speed in speeds.items()
    ]
    benchmark = kit.find("training_speed")
    result = make_result(rows=rows, settings={"batch_size": 8, "rounds": 2, "steps": 4})
    shown = benchmark.tables(result)["figures"]
    assert f"| compiling the extreme form makes it faster | {gain:.2f} x |\n| its first step then | 30 s |" in shown
    assert ("| a training that repays it takes without | 2.5 min |" in shown) == repaid  # 30 s / (1 - 1 / 1.25)
    assert "| to ViT, were it products alone, heads: 1 | 14.0 x |" in shown
    assert "| the goal, heads: 1 | 8 x |" in shown
    assert "| the faster extreme form, heads: 1, to ViT | 7.0 x (rounds 7.0 to 7.0) |" in shown
    compiled = f"{7 * gain:.1f} x (rounds {7 * gain:.1f} to {7 * gain:.1f})"
    assert f"| the faster extreme form, heads: 4, compiled, to ViT | {compiled} |" in shown
    assert f"| {5.6 * gain:.2f} |" in benchmark.tables(result)["speed"]

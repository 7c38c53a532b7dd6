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

from benchmarks import NAMES, multi30k, page, room
from benchmarks.__main__ import main
from benchmarks.kit.again import simulated
from benchmarks.kit.drawing import draw, same_drawing
from benchmarks.kit.interval import Interval
from benchmarks.kit.measuring import in_turn, median_ratio
from benchmarks.quality.multi30k import against_control, best_tuned
from benchmarks.quality.multi30k_findings import what_it_says
from benchmarks.kit.plots import Panel, Panels, Points
from benchmarks.kit.verdicts import WORDS, Verdict
from leanformer.core.errors import LeanformerError
from leanformer.measure import cost
from leanformer.measure.translation import Translations


@pytest.mark.parametrize("name", NAMES)
def test_quick(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A study's costliest measurement, which tests/test_cost.py covers.
    monkeypatch.setattr(cost, "peak_memory", lambda action, device: 0)
    benchmark = room.find(name)
    out = tmp_path / "out.json"
    try:
        returned = room.run(benchmark, ["--quick", "--out", str(out)])
    except LeanformerError as error:
        if "pip install" in str(error):  # a library that only this comparison needs
            pytest.skip(str(error))
        raise
    result = json.loads(out.read_text())
    assert result == json.loads(json.dumps(returned))
    assert list(result)[: len(room.ENVELOPE)] == list(room.ENVELOPE)
    assert len(result) > len(room.ENVELOPE)
    assert result["benchmark"] == name
    assert result["command"] == f"python -m benchmarks {name} --quick --out {out}"
    assert datetime.fromisoformat(result["date"]).utcoffset() is not None
    assert result["quick"] is True
    assert result["environment"]["threads"] == 1
    assert result["settings"].items() >= json.loads(json.dumps(dict(benchmark.quick), default=str)).items()
    assert list(tmp_path.iterdir()) == [out]
    text = benchmark.section(result)
    assert "| --- |" in text
    assert not re.search(r"\b(nan|inf|None)\b", text)
    assert benchmark.summary is None or isinstance(benchmark.summary(result), str)
    if benchmark.plot is not None and (plot := benchmark.plot(result)) is not None:
        assert draw(plot).endswith("</svg>\n")


@pytest.mark.parametrize("name", NAMES)
def test_interface(name: str) -> None:
    benchmark = room.find(name)
    assert benchmark.name == name
    assert room.first_line(name).endswith(".")
    full, quick = room.parse(benchmark, []), room.parse(benchmark, ["--quick"])
    assert full.out == room.RESULTS / f"{name}.json"
    assert quick.out is None
    assert benchmark.quick.keys() <= vars(full).keys()
    assert {key: vars(quick)[key] for key in benchmark.quick} == benchmark.quick


def test_paths_of_the_repository_are_named_from_its_root() -> None:
    assert room._shown(Path(room.__file__).with_name("multi30k.yaml")) == "benchmarks/quality/multi30k.yaml"
    assert room._shown(Path("runs/here")) == "runs/here"


def test_command_line_wins_over_quick() -> None:
    benchmark = room.find("training_speed")
    arguments = room.parse(benchmark, ["--quick", "--rounds", "3"])
    assert arguments.rounds == 3
    assert arguments.steps == benchmark.quick["steps"]


def test_run_directories(tmp_path: Path) -> None:
    quick = argparse.Namespace(quick=True, runs=None)
    with room.runs_of("mnist", quick) as directory:
        (directory / "study.yaml").touch()
    assert not directory.exists()
    with room.runs_of("mnist", argparse.Namespace(quick=True, runs=tmp_path)) as directory:
        assert directory == tmp_path / "mnist"
    with room.runs_of("mnist", argparse.Namespace(quick=False, runs=None)) as directory:
        assert directory == Path("runs/benchmarks/mnist")


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in NAMES:
        assert sum(line.split(" ")[0] == name for line in lines) == 1


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


def test_page_is_what_the_files_give(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["page", "--check"]) == 0, capsys.readouterr().err


@pytest.fixture
def page_of_growth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page elsewhere, of one results file."""
    results = tmp_path / "results"
    results.mkdir()
    shutil.copy(room.RESULTS / "growth.json", results)
    rendered = page.render(results)
    monkeypatch.setattr(page, "render", lambda: rendered)
    monkeypatch.setattr(page, "PAGE", tmp_path / "benchmarks.md")


@pytest.mark.usefixtures("page_of_growth")
def test_page_check_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["page", "--check"]) == 1
    assert main(["page"]) == 0
    assert main(["page", "--check"]) == 0
    page.PAGE.write_text(page.PAGE.read_text().replace("1", "2", 1))
    capsys.readouterr()
    assert main(["page", "--check"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


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


def test_page_of_files(tmp_path: Path) -> None:
    (tmp_path / "teaching.json").write_text(json.dumps(make_result()))
    text, plots = page.render(tmp_path)
    assert not plots
    assert "- Teaching 24 blocks at once takes 0.75 times as long" in text
    assert "| all at once | 3.000 |" in text
    assert "```\npython -m benchmarks teaching --rounds 7\n```" in text
    assert "[teaching.json](../benchmarks/results/teaching.json); 2026-01-02; took 12.0 s; Abacus, 2 threads" in text
    assert "`training_speed`" in text.partition("## Not measured yet")[2]
    assert all(len(line) <= 120 for line in text.splitlines() if not line.startswith(("|", "python")))


def test_a_second_run_is_compared(tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    (tmp_path / "teaching.json").write_text(json.dumps(make_result(ratio=0.75, ratios=[0.7, 0.75, 0.9])))
    second = tmp_path / "again" / "teaching.json"
    for ratio, inside, what in ((0.75, 1, "all are the same"), (0.8, 1, "then 0.8"), (0.95, 0, "then 0.95")):
        second.write_text(json.dumps(make_result(ratio=ratio, ratios=[ratio])))
        row = page.render(tmp_path)[0].partition("## Run again")[2]
        assert f"| Teaching everything at once | {inside} of 1 | " in row
        assert what in row
    second.write_text(json.dumps(make_result(benchmark="decoding")))
    with pytest.raises(LeanformerError, match="nothing that a second run could be compared with"):
        page.render(tmp_path)


def test_a_second_run_is_compared_with_the_file_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    (tmp_path / "teaching.json").write_text(json.dumps(make_result(ratio=0.75, ratios=[0.7, 0.75, 0.9])))
    there = {"processor": "Slide Rule", "python": "3.11.7"}
    elsewhere = make_result(ratio=2.0, ratios=[1.9, 2.1], environment=there)
    (tmp_path / "teaching-elsewhere.json").write_text(json.dumps(elsewhere))
    (tmp_path / "again" / "teaching-elsewhere.json").write_text(json.dumps(make_result(ratio=2.05, ratios=[2.05])))
    row = page.render(tmp_path)[0].partition("## Run again")[2]
    assert "| Teaching everything at once, Slide Rule | 1 of 1 | " in row
    again = make_result(ratio=2.2, ratios=[2.2], environment={**there, "processor": "Fingers"})
    (tmp_path / "teaching-elsewhere-again.json").write_text(json.dumps(again))
    text = page.render(tmp_path)[0]
    assert "### Teaching everything at once, Fingers" in text
    assert "| Teaching everything at once, Slide Rule | 0 of 1 | " in text.partition("## Run again")[2]


def test_several_files_of_a_benchmark_have_headings_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "teaching.json").write_text(json.dumps(make_result()))
    text = page.render(tmp_path)[0]
    assert "### " not in text
    assert "([Teaching everything at once](#teaching-everything-at-once))" in " ".join(text.split())
    (tmp_path / "teaching-b.json").write_text(json.dumps(make_result()))
    (tmp_path / "teaching-gpu.json").write_text(
        json.dumps(make_result(environment={"processor": "Abacus", "python": "3.11.7", "device": "GPU 9"}))
    )
    text = page.render(tmp_path)[0]
    assert [line for line in text.splitlines() if line.startswith("### ")] == [
        "### Teaching everything at once, Abacus (teaching)",
        "### Teaching everything at once, Abacus (teaching-b)",
        "### Teaching everything at once, GPU 9",
    ]
    assert "([Teaching everything at once, GPU 9](#teaching-everything-at-once-gpu-9))" in " ".join(text.split())


def test_a_second_run_of_something_else_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "again").mkdir()
    for path in (tmp_path / "teaching.json", tmp_path / "again" / "teaching.json"):
        path.write_text(json.dumps(make_result(ratio=0.75, ratios=[0.75])))
    stated = iter([{"one": Interval(1.0, 0.0, 2.0)}, {"other": Interval(1.0, 0.0, 2.0)}])
    monkeypatch.setattr(page, "find", lambda name: replace(room.find(name), stated=lambda result: next(stated)))
    with pytest.raises(LeanformerError, match=r"none of its figures is in teaching\.json"):
        page.render(tmp_path)


def test_shares_have_binomial_intervals() -> None:
    rows = [{"seeds": 1, "false_accepts": 0.05, "replicates": 1000}]
    figure = simulated(rows, ["seeds"])["seeds 1"]
    assert figure.mean == 0.05
    assert figure.low == pytest.approx(0.0373, abs=1e-4)  # Clopper and Pearson's, by a table
    assert figure.high == pytest.approx(0.0654, abs=1e-4)
    assert figure.holds(0.04)
    assert not figure.holds(0.07)


def test_page_says_what_is_not_known(tmp_path: Path) -> None:
    (tmp_path / "teaching.json").write_text(json.dumps(make_result(date=None, environment=None)))
    (tmp_path / "teaching-gpu.json").write_text(
        json.dumps(make_result(quick=True, environment={"processor": "Abacus", "python": "3.11.7", "device": "GPU 9"}))
    )
    text = " ".join(page.render(tmp_path)[0].split())
    first, second = text.split("### Teaching everything at once, GPU 9")
    assert "date not recorded; took 12.0 s; machine and versions not recorded." in first
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
    translated = room.read_result(room.RESULTS / "multi30k.json")
    repeat = page.Repeat("Texts", first, second, translated)
    assert repeat.inside == 2
    said = " ".join(page.other_teachers([repeat]).split())
    assert said == (
        "Where all was done again with another (so many differences to the teacher inside those intervals: 2 of 3), "
        "2 of 3 became worse; half of them moved by more than 0.3 BLEU, the farthest by 1.5."
    )
    assert page.other_teachers([replace(repeat, result=make_result())]) == ""


def test_of_each_layer_r2_stands_in_its_cell() -> None:
    assert multi30k.r2_of([0.5, 0.25, 1.0]) == "0.50 / 0.25 / 1.00"
    assert multi30k.r2_of([0.5, 0.25, 1.0, 0.25]) == "0.50 in the mean"
    assert multi30k.r2_of([]) == ""


def test_what_a_teacher_has_not_been_measured_with_is_named() -> None:
    assert multi30k.not_measured(dict.fromkeys(multi30k.LABELS)) == ""
    assert (
        multi30k.not_measured(dict.fromkeys(set(multi30k.LABELS) - {"encoder-L", "cross-S"}))
        == " Not measured with this teacher: encoder self, `feed_forward` L; cross, `feed_forward` S."
    )


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
    arguments = room.parse(room.find("multi30k"), ["--only", "nothing", "all-slots", "--tune"])
    assert list(multi30k.make_study(arguments)["candidates"]) == [
        "all-slots",
        "both-slots-tuned-longer",
        "all-slots-tuned-longer",
        "nothing-tuned-longer",
        "all-slots-sequence",
        "nothing-sequence",
    ]


def test_what_carries_more_than_the_teacher_is_named() -> None:
    cost = {"state_bytes": 10, "flops_per_token": 10}
    costs = {"baseline": cost, "encoder-slots": cost, "all-slots": {**cost, "state_bytes": 11}}
    said = "At the median length these carry more than the teacher: all attention, by `slots`."
    assert multi30k.larger(costs).strip() == said
    assert multi30k.larger({"baseline": cost}) == ""


def test_findings_are_of_rows_that_are_there() -> None:
    def row(difference: float) -> dict[str, Any]:
        return {"difference": {"mean": difference}, "added": 50, "removed": 100}

    teacher = {"baseline": {"difference": None}}
    rows = {**teacher, "both-slots": row(-0.02), "both-M": row(-2.5), "both-M-tuned": row(-1.5)}
    (finding,) = what_it_says(rows).split("\n- ")
    assert "both (50 % fewer parameters) are at\n+0.0 as taught; by" in finding
    assert "the published networks of size M, at -2.5 as taught and -1.5 tuned." in finding
    assert what_it_says({**teacher, "both-slots": row(-0.2)}) == ""
    alike = {**rows, "both-M-tuned": {**row(-1.5), "against_control": {"mean": -1.9}}}
    assert "at -2.5 as taught and -1.9 tuned." in what_it_says(alike)
    crossed = {"cross-XS": row(-20.0), "cross-S": row(-15.0)}
    said = what_it_says(crossed)
    assert "in sizes XS to\nS: they are at -20.0 to -15.0 as taught, with 0 times" in said
    assert "in sizes XS to\nM: they are at -20.0 to -5.0 as taught" in what_it_says({**crossed, "cross-M": row(-5.0)})
    tuned = {"cross-sum-50": row(-20.0), "cross-sum-50-tuned": row(-12.0), "both-slots-tuned": row(-0.52)}
    assert "off +8.0 points, and those within a point\n-0.5." in what_it_says({**rows, **tuned})


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
    parts = page.in_short(rows[::order])
    assert dict(zip(parts[::2], parts[1::2], strict=True)) == {
        "**texts**": "- Undecided: slots (90 %, 0.0).\n- Not safe: mixer (80 %, -2.0).",
        "**images**": "- Safe: slots (70 %, +0.6; others: +0.1).",
    }


def test_the_page_begins_with_what_was_safe() -> None:
    """Of the files that are there: all verdicts of all files, the safe ones first; of second runs those of teachers."""
    known = [
        verdict
        for path in sorted(room.RESULTS.rglob("*.json"), key=lambda path: (len(path.parts), path.name))
        if (verdicts := room.find((result := room.read_result(path))["benchmark"]).verdicts) is not None
        for verdict in verdicts(result)
        if path.parent == room.RESULTS or verdict.unit == "BLEU"
    ]
    text = page.PAGE.read_text()
    plain, _, rest = text.partition("## In plain words")[2].partition("## Every reduction")
    assert "\n\n**MNIST, 15 epochs**\n\n- Safe: one matrix for queries and keys" in plain
    assert "](#every-reduction)" in plain
    every = rest.partition("\n## ")[0]
    words = [line.split("|")[1].strip() for line in every.splitlines() if line.startswith("|")][2:]
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
    "path", sorted(room.RESULTS.rglob("*.json")), ids=lambda path: str(path.relative_to(room.RESULTS))
)
def test_the_command_of_every_file_is_one_of_today_that_writes_it(path: Path) -> None:
    result = room.read_result(path)
    python, module, benchmarks, name, *options = shlex.split(result["command"])
    assert (python, module, benchmarks, name) == ("python", "-m", "benchmarks", result["benchmark"])
    out = room.parse(room.find(name), options).out
    assert (room.RESULTS.parents[1] / out).resolve() == path.resolve()


def test_plots_are_on_the_page_with_what_they_show() -> None:
    text = page.PAGE.read_text()
    there = {path.name for path in page.plot_directory().iterdir()}
    assert {"growth.svg", "minimal.svg", "multi30k.svg", "peers_training.svg", "decoder_block.svg"} <= there
    assert there == set(re.findall(r"^!\[.+\]\(images/benchmarks/(\S+)\)$", text, flags=re.MULTILINE))


@pytest.mark.usefixtures("page_of_growth")
def test_plots_that_are_not_what_the_files_give() -> None:
    page.write()
    plot = page.plot_directory() / "growth.svg"
    drawn = plot.read_text()
    plot.write_text(drawn.replace("by layers", "by width"))
    assert not page.is_current()
    plot.write_text(re.sub(r"L \d+\.\d+", "L 1.5", drawn))  # another curve
    assert not page.is_current()
    plot.unlink()
    assert not page.is_current()
    page.write()
    assert page.is_current()
    stale = page.plot_directory() / "gone.svg"
    stale.write_text(drawn)
    assert not page.is_current()
    page.write()
    assert not stale.exists()


def test_a_drawing_is_the_same_but_for_the_last_digits() -> None:
    panel = Panel("title", "x", "y", {"one": Points([1.0, 10.0], [2.0, 3.0], [1.9, 2.9], [2.2, 3.3])})
    drawn = draw(Panels("what it shows", [panel]))
    assert draw(Panels("what it shows", [panel])) == drawn
    first = re.search(r"\d+\.\d+", drawn)
    assert first is not None
    number = float(first[0])
    assert same_drawing(drawn, drawn.replace(first[0], f"{number + 0.001:.6f}"))
    assert not same_drawing(drawn, drawn.replace(first[0], f"{number + 0.1:.6f}"))
    higher = Points([1.0, 10.0], [2.0, 3.1], [1.9, 2.9], [2.2, 3.3])
    assert not same_drawing(drawn, draw(Panels("what it shows", [replace(panel, points={"one": higher})])))


def test_files_that_are_no_results(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    file.write_text('{"benchmark": "teaching"}')
    with pytest.raises(LeanformerError, match="no command, date, seconds"):
        room.read_result(file)
    file.write_text(json.dumps(make_result(benchmark="teachings")))
    with pytest.raises(LeanformerError, match="'teachings'"):
        room.read_result(file)


def test_an_interrupted_benchmark_leaves_the_file_of_before(tmp_path: Path) -> None:
    def fail(arguments: argparse.Namespace) -> dict[str, Any]:
        raise LeanformerError("no")

    out = tmp_path / "out.json"
    out.write_text("before")
    benchmark = room.Benchmark("x", "X", lambda parser: None, fail, lambda result: "")
    with pytest.raises(LeanformerError, match="no"):
        room.run(benchmark, ["--out", str(out)])
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
    benchmark = room.find("training_speed")
    result = make_result(rows=rows, settings={"batch_size": 8, "rounds": 2, "steps": 4})
    text = " ".join(benchmark.section(result).split())
    assert f"trains {gain:.2f} to {gain:.2f} times as fast. Its first step then takes 30 to 30 seconds" in text
    assert ("repaid in a training that takes more than 2.5 minutes" in text) == repaid  # 30 s / (1 - 1 / 1.25)
    assert "it would train 14.0 times as fast" in text
    reached = "reached, compiled (8.8 times; rounds 8.8 to 8.8)" if repaid else "not reached, compiled (6.3 times"
    assert f"is not reached (7.0 times; rounds 7.0 to 7.0) and {reached}" in text
    assert benchmark.summary is not None
    said = benchmark.summary(result)
    assert said is not None
    read = "it reads the mean of all tokens"
    assert f"7.0 times with four, where {read}; compiled {7 * gain:.1f} and {7 * gain:.1f} times" in said
    assert f"times, and {5.6 * gain:.1f}" in said

"""Planning a test from assumptions and from a pilot: the numbers, the files, and what is refused."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_examples import example_results, translation_results
from rich.console import Console

import leanformer as lf
from leanformer.__main__ import main
from leanformer.decide import judge, statistics
from leanformer.measure.quality import Predictions
from leanformer.measure.translation import Translations
from leanformer.report.power import power_table
from leanformer.results.metrics import METRICS

STATED: dict[str, Any] = {"quality": 0.95, "margin": 0.02}


def on_terminal(results: dict[str, Any]) -> str:
    output = io.StringIO()
    Console(file=output, width=80).print(power_table(results))
    return output.getvalue()


def make_pilot(directory: Path, results: dict[str, Any]) -> dict[str, list[Any]]:
    """A run directory with results and predictions; gives each model's answers, seed by seed."""
    generator = np.random.default_rng(5)
    directory.mkdir()
    (directory / "results.json").write_text(json.dumps(results), encoding="utf-8")
    answers: dict[str, list[Any]] = {}
    words = [f"{first} {second} {third}" for first in "abcde" for second in "fghij" for third in "klm"]
    for row in (results["baseline"], *results["candidates"]):
        for trial in row["trials"]:
            found: Any
            if results["task"] == "translation":
                written = [text if generator.random() < 0.8 else f"{text} x y z" for text in words]
                found = Translations(tuple(words), tuple(words), tuple(written))
            else:
                labels = np.arange(500) % 10
                wrong = generator.random(500) < 0.06
                found = Predictions(labels, np.where(wrong, (labels + 1) % 10, labels), np.zeros(500))
            answers.setdefault(row["name"], []).append(found)
            (directory / trial).mkdir(parents=True)
            (directory / trial / "predictions.parquet").write_bytes(found.to_bytes())
    return answers


def test_table_page_and_json_of_stated_assumptions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leanformer.study.plan_test.CURVE", 8)
    found = lf.plan_test(**STATED, luck=0.002, candidates=4, seeds=[5, 1], directory=tmp_path / "plan")
    assert found.json is not None
    assert found.page is not None
    results = json.loads(found.json.read_text(encoding="utf-8"))
    assert results == json.loads(json.dumps(found.results))
    assert [plan["seeds"] for plan in results["plans"]] == [1, 5]
    (pair, recipe) = (plan["examples"] for plan in results["plans"])
    assert pair["confirm"] < pair["single_look"] < pair["look"]
    assert recipe["look"] < pair["look"]  # seeds average out half of the examples' variance
    # Half of each model's errors are the other's too: 5 % of the examples differ, and half of that with each training.
    assert results["assumed"]["examples"] == pytest.approx(0.025)
    assert results["assumed"]["interaction"] == pytest.approx([0.0125, 0.0125])
    assert results["assumed"]["luck"] == pytest.approx([4e-6, 4e-6])
    assert len(results["curves"]) == 3 * 2
    for curve in results["curves"]:
        (needed,) = (plan["examples"] for plan in results["plans"] if plan["seeds"] == curve["seeds"])
        for examples, power in zip(curve["examples"], curve["power"], strict=True):
            if not 0.9 < examples / needed[curve["level"]] < 1.1:  # power has small steps
                assert (power >= 0.8) == (examples >= needed[curve["level"]])
    table = on_terminal(results)
    assert max(map(len, table.splitlines())) <= 80
    for number in (*pair.values(), *recipe.values()):
        assert f"{number:,}" in table
        assert f"<span>{number:,}</span>" in found.page.read_text(encoding="utf-8")
    page = found.page.read_text(encoding="utf-8")
    assert "baseline and candidate differ on 5 % of the examples" in page
    assert "src=" not in page.split("<script>")[0]
    assert '"5 seeds"' in page
    assert 'data-label="each of 2 looks, p at most 0.00625"' in page  # on a phone, where the head is not seen
    assert "None: no number of examples suffices" not in page


def test_nothing_is_written_without_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = lf.plan_test(**STATED)
    assert (found.json, found.page, found.results["curves"]) == (None, None, [])
    assert [plan["seeds"] for plan in found.results["plans"]] == [1]
    assert not list(tmp_path.iterdir())


def test_students_beside_their_teachers() -> None:
    found = lf.plan_test(**STATED, luck=0.004, correlation=0.75, churn=0.2, seeds=[3]).results["assumed"]
    assert found["luck"] == pytest.approx([2 * 0.004**2 * 0.25])
    assert found["interaction"] == pytest.approx([0.2 * 0.05])


def test_a_pilot_of_images(tmp_path: Path) -> None:
    results = example_results()
    results["candidates"], results["recommended"] = results["candidates"][:2], results["baseline"]["name"]
    answers = make_pilot(tmp_path / "run", results)
    name = results["candidates"][0]["name"]
    found = lf.plan_test(pilot=tmp_path / "run", candidate=name, seeds=[1]).results
    baseline, candidate = ([one.statistics("accuracy") for one in answers[of]] for of in ("baseline", name))
    paired = results["candidates"][0]["method"] == "distill"
    expected = judge.compare(METRICS["accuracy"], baseline, candidate, 0.01, 0.95, paired=paired).components
    assert found["assumed"]["examples"] == pytest.approx(expected.examples)
    assert found["assumed"]["interaction"] == pytest.approx(expected.interaction)
    assert found["assumed"]["luck"] == pytest.approx([max(0.0, between) for between in expected.seeds])
    assert found["margin"] == results["accept"]["max_drop"]
    assert found["candidates"] == len(results["candidates"])
    assert found["quality"] == pytest.approx(np.mean([one.score("accuracy") for one in answers["baseline"]]))
    assert f"candidate {name}" in " ".join(on_terminal(found).split())
    # Without a name it is the candidate whose differences vary most.
    most = lf.plan_test(pilot=tmp_path / "run", seeds=[1]).results["assumed"]
    assert most["examples"] + sum(most["interaction"]) >= expected.examples + sum(expected.interaction)


def test_a_pilot_of_a_metric_that_reads_more_than_right_and_wrong(tmp_path: Path) -> None:
    results = example_results()
    classes = results["data"]["classes"] = [str(number) for number in range(10)]
    results["metric"] = results["accept"]["metric"] = "macro_f1"
    answers = make_pilot(tmp_path / "run", results)
    for metric in ("macro_f1", "balanced_accuracy"):
        found = lf.plan_test(pilot=tmp_path / "run", metric=metric, margin=0.02, seeds=[1]).results
        scores = [replace(one, classes=len(classes)).score(metric) for one in answers["baseline"]]
        assert found["quality"] == pytest.approx(np.mean(scores))
    for metric in ("auc", "cost"):  # needs logits, and costs
        with pytest.raises(lf.LeanformerError, match=f"metric '{metric}': .* has answers for accuracy, "):
            lf.plan_test(pilot=tmp_path / "run", metric=metric, margin=0.02)


def test_a_pilot_of_groups(tmp_path: Path) -> None:
    """Pairs of examples on which models are right or wrong together correlate by 1: each counts half."""
    results = example_results()
    results["candidates"], results["recommended"] = results["candidates"][:1], results["baseline"]["name"]
    make_pilot(tmp_path / "run", results)
    generator = np.random.default_rng(1)
    labels = np.repeat(np.arange(250) % 10, 2)
    for row in (results["baseline"], *results["candidates"]):
        for trial in row["trials"]:
            wrong = np.repeat(generator.random(250) < 0.06, 2)
            groups = [str(example // 2) for example in range(500)]
            found = Predictions(labels, np.where(wrong, (labels + 1) % 10, labels), np.zeros(500), groups=groups)
            (tmp_path / "run" / trial / "predictions.parquet").write_bytes(found.to_bytes())
    assumed = lf.plan_test(pilot=tmp_path / "run", seeds=[1]).results["assumed"]
    assert assumed["group_size"] == 2
    assert assumed["intraclass"] == pytest.approx(1, abs=0.05)
    with pytest.raises(lf.LeanformerError, match="group_size does nothing here: the pilot says it"):
        lf.plan_test(pilot=tmp_path / "run", group_size=3.0)


def test_a_pilot_of_text(tmp_path: Path) -> None:
    results = translation_results()
    make_pilot(tmp_path / "run", results)
    name = results["candidates"][0]["name"]
    for metric in (None, "chrf"):
        found = lf.plan_test(pilot=tmp_path / "run", candidate=name, metric=metric, margin=3.0, seeds=[1]).results
        assert found["metric"] == (metric or "bleu")
        assert found["assumed"]["largest"] == 100
        assert not found["assumed"]["outcomes"]
        assert found["plans"][0]["examples"]["confirm"] > 20


def write_predictions(path: Path, right: np.ndarray, groups: bool = False, weights: bool = False) -> Path:
    """A file of predictions of one or several seeds, with groups of five examples."""
    header = ["id", "label", "guess", "seed", *(["group"] if groups else []), *(["weight"] if weights else [])]
    lines = [",".join(header)]
    for seed, of_seed in enumerate(np.atleast_2d(right)):
        for number, correct in enumerate(of_seed):
            cells = [number, "cat", "cat" if correct else "dog", seed]
            cells += ([f"talk-{number // 5}"] if groups else []) + ([1 + number % 2] if weights else [])
            lines.append(",".join(map(str, cells)))
    path.write_text("\n".join(lines))
    return path


def test_a_pilot_of_two_files_of_predictions(tmp_path: Path) -> None:
    """The variances are those of ``lf.compare`` on the same files, the margin and the numbers are the usual ones."""
    generator = np.random.default_rng(2)
    old, new = (generator.random((3, 400)) < share for share in (0.95, 0.92))
    files = [write_predictions(tmp_path / f"{name}.csv", right) for name, right in (("old", old), ("new", new))]
    names = {"prediction": "guess"}
    found = lf.plan_test(pilot=files, columns=names, margin=0.02).results
    expected = statistics.compare(old.astype(float), new.astype(float), 0.01, 0.95).components
    assert found["assumed"]["examples"] == pytest.approx(expected.examples)
    assert found["assumed"]["interaction"] == pytest.approx(expected.interaction)
    assert found["quality"] == pytest.approx(old.mean())
    assert (found["metric"], found["candidates"], found["looks"]) == ("accuracy", 1, 2)
    assert found["pilot"] == f"{files[0]} and {files[1]}"
    assert [plan["seeds"] for plan in found["plans"]] == [1, 3, 5, 10]
    assert f"From 400 test examples and 3 seeds of {found['pilot']}: " in found["assumptions"][1]
    grouped_file = write_predictions(tmp_path / "grouped.csv", new, groups=True)  # one of the two names them
    grouped = lf.plan_test(pilot=[files[0], grouped_file], columns=names, margin=0.02).results
    assert grouped["assumed"]["group_size"] == 5
    assert grouped["assumed"]["examples"] == pytest.approx(expected.examples)
    # One seed says nothing about others.
    alone = [write_predictions(tmp_path / f"alone-{number}.csv", right[:1]) for number, right in enumerate((old, new))]
    with pytest.raises(lf.LeanformerError, match=r"not known from a pilot with one; take one with several"):
        lf.plan_test(pilot=alone, columns=names, seeds=[3])
    with pytest.raises(lf.LeanformerError, match=r"new.csv of 3 seeds; give several seeds in both, or only one of the"):
        lf.plan_test(pilot=[alone[0], files[1]], columns=names)
    weighted = write_predictions(tmp_path / "weighted.csv", new, weights=True)
    with pytest.raises(lf.LeanformerError, match=r"its examples have weights, and plans are for examples that"):
        lf.plan_test(pilot=[files[0], weighted], columns=names)


def test_the_command_takes_two_files_as_a_pilot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = np.arange(300) % 20 > 0
    old, new = (write_predictions(tmp_path / f"{name}.csv", right) for name in ("old", "new"))
    arguments = ["plan-test", "--pilot", str(old), "--pilot", str(new), "--prediction", "guess", "--margin", "0.02"]
    monkeypatch.setattr("sys.argv", ["leanformer", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert "From 300 test examples and 1 seed of " in " ".join(capsys.readouterr().out.split())


def test_a_pilot_whose_margin_is_a_share_of_errors_needs_a_drop(tmp_path: Path) -> None:
    results = example_results()
    results["accept"] |= {"max_drop": 0.0, "max_ratio": 1.1}
    make_pilot(tmp_path / "run", results)
    with pytest.raises(lf.LeanformerError, match=r"margin is missing: the pilot's is a share of the baseline's errors"):
        lf.plan_test(pilot=tmp_path / "run", seeds=[1])
    assert lf.plan_test(pilot=tmp_path / "run", seeds=[1], margin=0.02).results["margin"] == 0.02


def test_a_pilot_without_predictions(tmp_path: Path) -> None:
    results = example_results()
    make_pilot(tmp_path / "run", results)
    with pytest.raises(lf.LeanformerError, match=r"metric 'bleu': .* has answers for accuracy"):
        lf.plan_test(pilot=tmp_path / "run", metric="bleu")
    trial = tmp_path / "run" / results["baseline"]["trials"][0]
    (trial / "predictions.parquet").unlink()
    with pytest.raises(lf.LeanformerError, match=r"predictions.parquet: not readable as predictions"):
        lf.plan_test(pilot=tmp_path / "run")
    with pytest.raises(lf.LeanformerError, match=r"candidate 'x': .* has no such candidate that succeeded"):
        lf.plan_test(pilot=tmp_path / "run", candidate="x")
    results["baseline"]["trials"] = []
    (tmp_path / "run" / "results.json").write_text(json.dumps(results), encoding="utf-8")
    with pytest.raises(lf.LeanformerError, match=r"its results name no trials of baseline"):
        lf.plan_test(pilot=tmp_path / "run")


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({}, "quality is missing: give the baseline's quality, such as 0.95, or a pilot"),
        ({"quality": 1.5}, "quality 1.5: accuracy goes from 0 to 1"),
        ({"quality": -1.0}, "Assumptions: quality: input should be greater than or equal to 0, not -1.0"),
        ({"quality": float("nan")}, "Assumptions: quality: input should be a finite number, not nan"),
        ({"metric": "x"}, "metric 'x' is none that decides; give one of accuracy, bleu, chrf"),
        ({**STATED, "margin": 1.0}, "margin 1: accuracy goes from 0 to 1; give less"),
        ({**STATED, "drop": 0.02}, "drop 0.02 is not less than the margin 0.02: no number of examples can show it"),
        (
            {**STATED, "drop": 0.01, "disagree": 0.005},
            "disagree 0.005 is less than the drop 0.01: models differ on as many examples at least",
        ),
        (
            {**STATED, "disagree": 0.2},
            "disagree 0.2: with quality 0.95 and drop 0 two models cannot differ on so many examples",
        ),
        ({**STATED, "deviation": 1.0}, "deviation does nothing for accuracy; give disagree, or a pilot"),
        ({"metric": "bleu", "quality": 30.0}, "deviation is missing: BLEU is no share of right answers"),
        ({"metric": "bleu", "quality": 30.0, "disagree": 0.1}, "disagree does nothing for BLEU; give deviation"),
        ({**STATED, "churn": 0.3}, "churn does nothing here: it is about several seeds; give luck too"),
        ({**STATED, "correlation": 0.3}, "correlation does nothing here"),
        ({**STATED, "intraclass": 0.3}, "intraclass does nothing here: there are no groups; give group_size too"),
        ({**STATED, "candidate": "x"}, "candidate does nothing here: it is one of a pilot; give pilot too"),
        ({**STATED, "seeds": [3]}, "seeds 3: how much trainings differ from seed to seed is not known; give luck"),
        ({**STATED, "seeds": [1, 1]}, "Assumptions: seeds: seeds must be distinct"),
        ({**STATED, "seeds": [0]}, "Assumptions: seeds.0: input should be greater than or equal to 1, not 0"),
        ({**STATED, "looks": 6}, "Assumptions: looks: input should be less than or equal to 5, not 6"),
        ({**STATED, "confidence": 0.5}, "Assumptions: confidence: input should be greater than 0.5, not 0.5"),
        ({**STATED, "columns": {"id": "x"}}, "columns does nothing here: it is about two files of predictions"),
        ({**STATED, "tokenizer": "zh"}, "tokenizer does nothing here: it is about two files of predictions"),
        ({"pilot": [__file__] * 3}, "pilot: give a run directory or two files of predictions, not 3 paths"),
        ({"pilot": __file__}, f"pilot {__file__}: is one file; give two files of predictions, or a run directory"),
        ({"pilot": ["a.csv", "b.csv"], "candidate": "x"}, "candidate does nothing here: the second file"),
        ({"pilot": ["a.csv", "a.csv"]}, "a.csv: is given twice; give the files of different models"),
        ({"pilot": "./nowhere", "quality": 0.9}, "quality does nothing here: the pilot says it; give either"),
        (
            {**STATED, "luck": 0.1, "seeds": [3]},
            "no number of examples up to 100,000,000 shows a margin of 2 points with at most 3 seeds; take more seeds",
        ),
    ],
)
def test_what_is_refused(given: dict[str, Any], line: str) -> None:
    with pytest.raises(lf.LeanformerError) as error:
        lf.plan_test(**given)
    assert str(error.value).startswith(line)

"""``measure.from``: a study takes the times of ``leanformer bench`` in place of its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from studies import results_of, rows_of, run

import leanformer as lf
from leanformer.core.errors import LeanformerError
from leanformer.results.bench import digest
from leanformer.study.bench import bench
from leanformer.study.costing import Costing
from leanformer.study.given_times import GivenTimes

MakeStudy = Callable[..., dict[str, Any]]
NAMES = ("baseline", "no-mlp")


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leanformer.measure.bench.LEAST_SECONDS", 0)


@pytest.fixture
def study(digits_study: MakeStudy) -> dict[str, Any]:
    """One candidate, one seed, one short training."""
    made = digits_study(seeds=[0], prefer="latency", accept={"max_drop": 0.5})
    made["train"] |= {"epochs": 1, "learning_rate": 3e-3}
    del made["candidates"]["minimal"]
    return made


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study") / "run"


@pytest.fixture
def finished(template: Path, study: dict[str, Any], tmp_path: Path) -> Path:
    if not template.exists():
        run(study, template)
    return Path(shutil.copytree(template, tmp_path / "run"))


def given(study: dict[str, Any], path: Path) -> dict[str, Any]:
    return {**study, "measure": {**study["measure"], "from": str(path)}}


def models(directory: Path, names: tuple[str, ...] = NAMES) -> list[str]:
    return [str(directory / "trials" / name / "seed-0" / "model") for name in names]


def timed_elsewhere(directory: Path, path: Path, **settings: Any) -> dict[str, Any]:
    """The file of another machine, on which copies of the models lie and the baseline is faster."""
    copies = []
    for number, model in enumerate(models(directory)):
        copies.append(str(shutil.copytree(model, path.parent / f"copy-{number}", dirs_exist_ok=True)))
    bench(copies, **{"batches": [1, 2, 4], "rounds": 6, **settings}, out=path)
    content: dict[str, Any] = json.loads(path.read_text())
    content["environment"]["processor"] = "a small processor"
    for model, ms in zip(content["models"], (2.0, 5.0), strict=True):
        for timing in model["timings"]:
            wall = ms * timing["batch"]
            timing["wall_ms"] = {"median": wall, "low": wall, "high": wall}
            timing["p95_ms"] = 3 * wall
            timing["rounds"]["wall_ms"] = [wall * busy for busy in (1.0, 1.2, 1.0, 3.0, 1.0, 1.0)]
    path.write_text(json.dumps(content))
    return content


def test_a_study_decides_on_times_of_another_machine(
    finished: Path, study: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = rows_of(finished)
    file = tmp_path / "bench.json"
    timed_elsewhere(finished, file)
    monkeypatch.setattr("leanformer.study.costing.measure_costs", None)  # training is not measured again either
    result, log = run(given(study, file), finished, report=True)
    after = rows_of(finished)
    for name, ms in zip(NAMES, (2.0, 5.0), strict=True):
        row = after[name]
        ratios = row["cost_ratios"] or {}
        assert row["latency_ms"] == {"p50": ms, "p95": 3 * ms}
        assert row["throughput_per_second"] == pytest.approx(1000 / ms)  # of the largest batch, whose call takes 4 ms
        assert (row["peak_memory_mb"], row["ms_per_token"]) == (None, None)
        assert row["speeds"] == [
            {
                "runtime": "torch",
                "latency_ms": row["latency_ms"],
                "ms_per_token": None,
                "throughput_per_second": row["throughput_per_second"],
                "tokens_per_second": None,
                "peak_memory_mb": None,
                "rounds": {
                    "latency_ms": pytest.approx([ms, 1.2 * ms, ms, 3 * ms, ms, ms]),
                    "ms_per_token": [],
                    "throughput_per_second": pytest.approx([1000 / ms / busy for busy in (1, 1.2, 1, 3, 1, 1)]),
                    "tokens_per_second": [],
                    "peak_memory_mb": [],
                },
                "ratios": None if name == "baseline" else {key: ratios[key] for key in row["speeds"][0]["ratios"]},
            }
        ]
        for key in ("train_examples_per_second", "train_seconds", "quality"):
            assert row[key] == before[name][key]
    # Both were slower in the same rounds.
    found = after["no-mlp"]["cost_ratios"]
    assert found["latency"] == pytest.approx({"median": 2.5, "low": 2.5, "high": 2.5})
    assert found["throughput"] == pytest.approx({"median": 0.4, "low": 0.4, "high": 0.4})
    assert (found["memory"], found["token_time"]) == (None, None)
    assert result.recommended == "baseline"
    # The quartiles of the baseline's rounds are 2 and 2.3 ms.
    (warning,) = results_of(finished)["warnings"]
    assert warning["code"] == "noisy-machine"
    assert "latency varies by 15 % between rounds (interquartile range); measure again" in warning["sentence"]
    assert f"warning: {warning['sentence']} [noisy-machine]" in " ".join(log.split())
    assert f"latency and throughput are those in {file}" in log
    assert (
        "by leanformer bench with random pixels, as medians of 6 rounds, on a small processor ("
        in (results_of(finished)["method"]["cost"])
    )
    assert "a small processor" in (finished / "report.html").read_text()


@pytest.mark.long
def test_what_was_measured_here_is_kept(
    finished: Path, study: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = rows_of(finished)
    timed_elsewhere(finished, tmp_path / "bench.json")
    monkeypatch.setattr("leanformer.study.costing.measure_costs", None)
    for made, is_the_same in ((given(study, tmp_path / "bench.json"), False), (study, True)):
        run(made, finished)
        assert (rows_of(finished)["no-mlp"]["latency_ms"] == before["no-mlp"]["latency_ms"]) == is_the_same


@pytest.mark.long
def test_training_is_measured_here_where_it_was_not(finished: Path, study: dict[str, Any], tmp_path: Path) -> None:
    timed_elsewhere(finished, tmp_path / "bench.json")
    (finished / "costs.json").unlink()
    run(given(study, tmp_path / "bench.json"), finished)
    row = rows_of(finished)["no-mlp"]
    assert row["latency_ms"]["p50"] == 5.0
    assert row["train_examples_per_second"] > 0


def test_a_file_without_a_model_of_the_study(finished: Path, study: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "b.json"
    bench(models(finished, ("baseline",)), batches=[1], rounds=6, out=file)
    before = (finished / "results.json").read_bytes()
    with pytest.raises(lf.LeanformerError) as refused:
        run(given(study, file), finished)
    assert f"measure.from {file}: has no times of no-mlp (torch) as they are now; measure all where they run" in str(
        refused.value
    )
    assert str(refused.value).endswith(f" --out {file}")
    assert (finished / "results.json").read_bytes() == before


def test_a_file_of_other_calls(tmp_path: Path, finished: Path) -> None:
    file = tmp_path / "b.json"
    content = timed_elsewhere(finished, file, batches=[2])
    with pytest.raises(LeanformerError, match="has no calls with one example, whose time is the latency"):
        GivenTimes(str(file), "image-classification", 1)
    with pytest.raises(LeanformerError, match="holds models for image-classification, and the study's are for trans"):
        GivenTimes(str(file), "translation", 1)
    with pytest.raises(LeanformerError, match=r"at most None subwords, and the study has decode\.max_tokens 9"):
        GivenTimes(str(file), "image-classification", 1, 9)
    content["environment"].pop("processor")
    file.write_text(json.dumps(content))
    with pytest.raises(LeanformerError, match=r"environment.*: processor is missing"):
        GivenTimes(str(file), "image-classification", 1)
    content["environment"]["processor"] = "a processor"
    content["models"][0]["timings"][0]["wall_ms"] = {"median": 0.0, "low": 0.0, "high": 1.0}
    file.write_text(json.dumps(content))
    with pytest.raises(LeanformerError, match=r"wall_ms.*a call takes more than 0 ms"):
        GivenTimes(str(file), "image-classification", 1)
    content["models"][0]["timings"][0]["wall_ms"]["median"] = 0.5
    content["beam"] = 4
    file.write_text(json.dumps(content))
    with pytest.raises(LeanformerError, match=r"measured with a beam of 4, and the study has decode\.beam 1"):
        GivenTimes(str(file), "image-classification", 1)


@pytest.mark.parametrize(
    ("measured", "words"),
    [
        (["Ein Haus .", "", "Zwei Hunde ."], None),
        (["Noch ein Haus ."], None),
        (["Zwei Hunde .", "Ein Haus ."], "its models were given other sentences (de.txt) than the study's test or"),
        (None, "its models were given de.txt, and it does not tell whether these are the study's sentences"),
    ],
)
def test_times_of_other_sentences_are_said_to_be(
    measured: list[str] | None, words: str | None, tmp_path: Path, finished: Path
) -> None:
    file = tmp_path / "b.json"
    content = timed_elsewhere(finished, file)
    content |= {"task": "translation", "inputs": "de.txt", "max_tokens": 9}
    content["sentences"] = None if measured is None else digest(measured)
    file.write_text(json.dumps(content))
    sentences = {"test": ("Ein Haus .", "Zwei Hunde ."), "validation": ("Noch ein Haus .",)}
    found = GivenTimes(str(file), "translation", 1, 9, sentences).warnings
    assert [warning.code for warning in found] == ([] if words is None else ["other-sentences"])
    for warning in found:
        assert str(words) in warning.sentence
        assert "leanformer bench DIR... --data STUDY.yaml" in warning.sentence
    assert GivenTimes(str(file), "translation", 1, 9).warnings == []


def test_a_missing_file_is_said_before_anything_is_trained(study: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(lf.LeanformerError, match=r"measure\.from: .*b\.json: cannot be read: No such file"):
        run(given(study, tmp_path / "b.json"), tmp_path / "run")
    assert not (tmp_path / "run" / "trials").exists()


def test_memory_is_not_among_the_times(study: dict[str, Any]) -> None:
    made = {**given(study, Path("b.json")), "prefer": "memory"}
    with pytest.raises(lf.LeanformerError, match=r"memory is not in the file of measure\.from, which holds times"):
        lf.make_study(made)


def test_the_key_is_written_as_it_is_read(study: dict[str, Any], tmp_path: Path) -> None:
    made = lf.make_study(given(study, Path("b.json")))
    (tmp_path / "study.yaml").write_text(made.to_yaml())
    assert "  from: b.json\n" in made.to_yaml()
    assert lf.read_study(tmp_path / "study.yaml") == made
    with pytest.raises(lf.LeanformerError, match=r"unknown key 'measure\.form'; did you mean 'from'\?"):
        lf.make_study({**study, "measure": {"form": "b.json"}})


def test_a_model_that_the_engine_does_not_hold_has_no_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared: Any = SimpleNamespace(
        study=SimpleNamespace(runtimes=("onnx",), name="s"),
        given_times=SimpleNamespace(speeds=lambda places: {}, path="b.json"),
        reporter=SimpleNamespace(say=lambda line: None),
        directory=SimpleNamespace(path=tmp_path),
    )
    outcome: Any = SimpleNamespace(has_model=True, name="slots", exports=())
    monkeypatch.setattr(Costing, "_settings", lambda self, runtimes: {})
    monkeypatch.setattr(Costing, "_measured", lambda self, runtimes: {"slots": {"training": None, "speeds": {}}})
    assert Costing(prepared, [outcome]).costs() == {"slots": {"training": None, "speeds": {}}}

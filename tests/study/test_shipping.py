"""Studies that ship: every model is exported, and decisions and costs are those of the exported files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sacrebleu
from studies import results_of, rows_of, run, tiny_marian

import leanformer as lf
from leanformer.__main__ import main
from leanformer.config.base import Precision, Runtime, ShipConfig
from leanformer.core.errors import LeanformerError
from leanformer.decide.decision import Decision, recommend
from leanformer.export.base import FORMATS
from leanformer.export.run import export_model
from leanformer.measure.engine_memory import translating_memory
from leanformer.measure.translation import Translations
from leanformer.results.costs import RUNTIMES
from leanformer.results.metrics import METRICS
from leanformer.results.rows import Median
from leanformer.runtime.loading import load as open_exported
from leanformer.runtime.manifest import PRECISIONS, read_manifest
from leanformer.study import shipping
from leanformer.study.arms import best_seed
from leanformer.study.export import _decision

COMPARED = 24


def words_study(**changes: Any) -> dict[str, Any]:
    """A study on number words that ships to CTranslate2, in seconds."""
    study: dict[str, Any] = {
        "name": "shipped",
        "task": "translation",
        "data": {
            "source": "number-words",
            "numbers": {"train": 600, "validation": 30, "test": 40, "largest": 2000},
            "tokenizer": {"vocabulary": 300},
            "max_tokens": 30,
        },
        "baseline": tiny_marian(decoder_layers=2),
        "candidates": {"lean": {"plan": {"decoder.*.mlp": "none"}}},
        "train": {"epochs": 2, "batch_tokens": 512, "learning_rate": 1e-2, "label_smoothing": 0.0},
        "seeds": [0, 1],
        "accept": {"metric": "bleu", "max_drop": 30.0},
        "ship": {"to": "ctranslate2", "precision": ["float32", "int8"]},
        "prefer": "bytes",
        "measure": {"repeats": 1, "latency_calls": 1, "throughput_batch": 4, "threads": 1},
    }
    return study | changes


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The run directory of ``words_study``."""
    directory = tmp_path_factory.mktemp("runs") / "shipped"
    measured: list[float | None] = []

    def measured_once(*arguments: Any) -> float | None:
        """The memory of the first model stands for all: each is measured in a new process, which imports everything."""
        if not measured:
            measured.append(translating_memory(*arguments))
        return measured[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shipping, "ENOUGH", COMPARED)
        patch.setattr("leanformer.tasks.translation.translating_memory", measured_once)
        run(words_study(), directory)
        yield directory


def test_the_keys_are_those_of_the_formats() -> None:
    assert set(FORMATS) == set(RUNTIMES) - {"torch"}
    assert set(RUNTIMES) == set(Runtime.__args__)  # type: ignore[attr-defined]
    assert set(PRECISIONS) == set(Precision.__args__)  # type: ignore[attr-defined]
    assert set(FORMATS) == set(ShipConfig.model_fields["to"].annotation.__args__)  # type: ignore[union-attr]


def test_each_precision_is_a_candidate(finished: Path) -> None:
    rows = rows_of(finished)
    assert list(rows) == ["baseline", "baseline-int8", "lean", "lean-int8"]
    for name, row in rows.items():
        assert row["artifact"]["precision"] == ("int8" if name.endswith("int8") else "float32")
        assert row["artifact"]["compared"] == COMPARED
        assert len(row["quality"]["per_seed"]) == 1
        assert row["scope"] == "one trained pair"
        assert row["bytes"] == lf_bytes(finished / row["artifact"]["directory"])
    assert rows["lean-int8"]["bytes"] < rows["lean"]["bytes"] < rows["baseline"]["bytes"]
    assert rows["lean-int8"]["parameters"] == rows["lean"]["parameters"]
    # The recipe has no precision.
    assert [name for name, row in rows.items() if row["recipe"] is not None] == ["baseline", "lean"]
    # Holm's correction counts all three.
    tested = sorted(row["p_value"] for row in rows.values() if row["p_value"] is not None)
    adjusted = sorted(row["p_adjusted"] for row in rows.values() if row["p_adjusted"] is not None)
    assert len(tested) == 3
    assert adjusted[0] == pytest.approx(min(1.0, 3 * tested[0]))


def lf_bytes(directory: Path) -> int:
    """The bytes of the engine's files of an exported directory."""
    return sum(file.stat().st_size for file in (directory / "ctranslate2").rglob("*") if file.is_file())


def test_the_quality_is_that_of_the_files(finished: Path) -> None:
    for name, row in rows_of(finished).items():
        directory = finished / row["artifact"]["directory"]
        kept = Translations.read(directory.parent / "predictions.parquet")
        translator: Any = open_exported(directory)
        assert translator.translate(list(kept.sources), max_tokens=30) == list(kept.hypotheses), name
        score = sacrebleu.corpus_bleu(list(kept.hypotheses), [list(kept.references)]).score
        assert row["quality"]["mean"] == pytest.approx(score)


def test_the_best_seed_on_validation_ships_and_the_recipe_has_all(finished: Path) -> None:
    rows = rows_of(finished)
    for name in ("baseline", "lean"):
        trials = {
            seed: json.loads((finished / "trials" / name / f"seed-{seed}" / "result.json").read_text())
            for seed in (0, 1)
        }
        best = max(trials, key=lambda seed: trials[seed]["validation"]["validation_bleu"])
        for form in (name, f"{name}-int8"):
            assert rows[form]["artifact"]["seed"] == best
            assert rows[form]["artifact"]["before"]["mean"] == pytest.approx(trials[best]["bleu"])
        recipe = rows[name]["recipe"]
        assert recipe["quality"]["per_seed"] == pytest.approx([trials[seed]["bleu"] for seed in (0, 1)])
        assert recipe["scope"] == "seeds and examples"
    assert rows["lean"]["recipe"]["decision"] in ("accept", "undecided", "reject")


def test_the_exported_directories_tell_what_was_decided_on_them(finished: Path) -> None:
    for row in rows_of(finished).values():
        directory = finished / row["artifact"]["directory"]
        told = read_manifest(directory).decision
        assert told is not None
        assert (told["of"], told["decision"], told["reason"]) == ("exported model", row["decision"], row["reason"])
        assert told["quality"]["mean"] == row["quality"]["mean"]
        if row["decision"] is not None:
            assert f"decision on this exported model: **{row['decision']}**" in (directory / "README.md").read_text()


def test_an_export_by_hand_names_the_decision_on_the_same_model(finished: Path) -> None:
    rows = rows_of(finished)
    best = rows["lean"]["artifact"]["seed"]
    for name, precision in (("lean", "float32"), ("lean-int8", "int8")):
        found = _decision(finished, f"trials/lean/seed-{best}", "ctranslate2", precision)
        assert found is not None
        assert {key: rows[name][key] for key in ("decision", "reason", "quality", "difference")} == {
            key: value for key, value in found.items() if key not in ("metric", "of")
        }
        assert (found["of"], found["metric"]) == ("exported model", "bleu")
    # On another precision, format or seed there is no decision but the recipe's.
    for trial, form, precision in (
        (best, "ctranslate2", "float16"),
        (best, "onnx", "int8"),
        (1 - best, "onnx", "int8"),
    ):
        found = _decision(finished, f"trials/lean/seed-{trial}", form, precision)
        assert found is not None
        assert (found["of"], found["reason"]) == ("trained models", rows["lean"]["recipe"]["reason"])
        assert len(found["quality"]["per_seed"]) == 2
    assert _decision(finished, "trials/other/seed-0", "onnx", "int8") is None


def test_a_tie_on_validation_goes_to_the_first_seed() -> None:
    trials = {3: {"validation": {"validation_bleu": 1.0}}, 1: {"validation": {"validation_bleu": 1.0}}}
    assert best_seed(trials, METRICS["bleu"]) == 3
    assert best_seed({0: {"validation": {}}, **trials}, METRICS["bleu"]) == 3  # an earlier version wrote no quality


def test_costs_are_those_of_the_engine(finished: Path) -> None:
    results = results_of(finished)
    for row in rows_of(finished).values():
        (speed,) = row["speeds"]
        assert speed["runtime"] == "ctranslate2"
        assert speed["latency_ms"] == row["latency_ms"]
        assert speed["peak_memory_mb"] == row["peak_memory_mb"] > 20  # of a whole process
        assert row["train_examples_per_second"] > 0
    assert "exported models in CTranslate2" in results["method"]["cost"]
    assert results["shipped"] == rows_of(finished)[results["recommended"]]["artifact"]["directory"]
    assert results["ship"].startswith(f"trials/{results['recommended'].removesuffix('-int8')}/seed-")


def test_the_command_names_what_to_deploy(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = lf.StudyResult(finished, results_of(finished), finished / "report.html")
    monkeypatch.setattr("leanformer.study.run.run", lambda study, out, jobs: ended)
    monkeypatch.setattr("sys.argv", ["leanformer", "run", str(finished / "study.yaml"), "--out", str(finished)])
    with pytest.raises(SystemExit):
        main()
    shipped = results_of(finished)["shipped"]
    assert f"shipped: {finished / shipped}\n" in capsys.readouterr().out


def test_nothing_is_exported_twice(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = results_of(finished)

    def never(*arguments: Any, **settings: Any) -> None:
        raise AssertionError("exported again")

    monkeypatch.setattr(shipping, "export_model", never)
    card = finished / "exports" / "lean" / "ctranslate2-float32" / "exported" / "README.md"
    card.write_text(card.read_text().replace("# license:", "license: mit #"))  # as its owner does
    _, log = run(words_study(accept={"metric": "bleu", "max_drop": 29.0}), finished)  # decided anew
    assert "again" not in log
    told = read_manifest(card.parent).decision
    assert told is not None
    assert "29" in told["reason"]
    assert "license: mit" in card.read_text()
    run(words_study(), finished)
    after = results_of(finished)
    apart = ("environment", "warnings")
    assert {key: after[key] for key in after if key not in apart} == {
        key: before[key] for key in before if key not in apart
    }
    # That the margin was another one in between stays known.
    assert "changed-after-look" in [warned["code"] for warned in after["warnings"]]


def test_a_failed_export_is_recorded_and_a_full_disk_stops_the_study(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = Path(shutil.copytree(finished, tmp_path / "run"))
    exported: list[Path] = []

    def fails(*arguments: Any, **settings: Any) -> Any:
        exported.append(arguments[3])
        if len(exported) == 1:
            raise LeanformerError("it says something else")
        raise LeanformerError("exported: cannot be written") from OSError("No space left on device")

    monkeypatch.setattr(shipping, "export_model", fails)
    with pytest.raises(LeanformerError, match="exported: cannot be written"):
        run(words_study(ship={"to": "ctranslate2", "precision": ["float32", "float16"]}), directory)
    failed, stopped = (path.parent for path in exported)
    result = json.loads((failed / "result.json").read_text())
    assert (result["status"], result["reason"]) == ("failed", "it says something else")
    assert not (stopped / "result.json").exists()


def test_an_export_knows_the_weights_that_it_was_made_of(finished: Path) -> None:
    best = rows_of(finished)["lean"]["artifact"]["seed"]
    trial = json.loads((finished / "trials" / "lean" / f"seed-{best}" / "result.json").read_text())
    settings = json.loads((finished / "exports" / "lean" / "ctranslate2-float32" / "settings.json").read_text())
    assert settings["weights"] == {"model/model.safetensors": trial["files"]["model/model.safetensors"]}


@pytest.mark.long
def test_a_damaged_file_is_exported_again(finished: Path) -> None:
    model = finished / "exports" / "lean" / "ctranslate2-int8" / "exported" / "ctranslate2" / "model.bin"
    whole = model.read_bytes()
    model.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    _, log = run(words_study(), finished)
    assert "lean, exported to ctranslate2 in int8 runs again" in log
    assert model.read_bytes() == whole


@pytest.mark.long
def test_a_failed_export_fails_its_candidate_alone(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: Any, **settings: Any) -> Any:
        if settings["precision"] == "float16":
            raise LeanformerError("it says something else")
        return export_model(*arguments, **settings)

    monkeypatch.setattr(shipping, "export_model", fails)
    ship = {"to": "ctranslate2", "precision": ["float32", "float16"]}
    run(words_study(ship=ship), finished)
    rows = rows_of(finished)
    assert [rows[name]["status"] for name in ("lean", "lean-float16")] == ["ok", "failed"]
    assert rows["lean-float16"]["decision"] == "reject"
    assert rows["lean-float16"]["reason"] == "Its export failed: it says something else."
    # By hand it is exported with the recipe's decision, which that says nothing about.
    found = _decision(finished, f"trials/lean/seed-{rows['lean']['artifact']['seed']}", "ctranslate2", "float16")
    assert found is not None
    assert (found["of"], found["reason"]) == ("trained models", rows["lean"]["recipe"]["reason"])
    assert results_of(finished)["shipped"] is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"candidates": {"slots": {"plan": {"encoder.*.self_attention": "slots"}}}},
            r"candidates.slots: .*encoder.0.self_attention",
        ),
        ({"ship": {"to": "onnx"}, "decode": {"beam": 4}}, "decode.beam 4: a translator that is exported to onnx"),
        (
            {"measure": {"runtimes": ["torch", "onnx"]}, "decode": {"beam": 4}},
            "searches greedily; set decode.beam to 1",
        ),
        ({"ship": {"to": "tflite"}}, "ship.to: input should be 'onnx' or 'ctranslate2', not 'tflite'"),
        ({"ship": {"to": "onnx", "precision": ["int8", "int8"]}}, "precisions must be distinct"),
        (
            {"candidates": {"a": {"plan": {"*.mlp": "none"}}, "a-int8": {"plan": {"decoder.*.mlp": "none"}}}},
            "the name 'a-int8' is that of a in int8",
        ),
    ],
)
def test_what_cannot_ship_is_refused_before_anything_is_trained(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(LeanformerError, match=message):
        run(words_study(**changes), tmp_path / "run")
    assert not (tmp_path / "run" / "trials").exists()


def test_the_most_may_be_the_best() -> None:
    def accepted(p_value: float) -> Decision:
        return Decision("accept", "", p_value, p_value, None, None)

    decisions = {"slow": accepted(0.01), "fast": accepted(0.02)}
    prices = {"base": 100.0, "slow": 150.0, "fast": 300.0}
    ratios = {"slow": Median(median=1.5, low=1.4, high=1.6), "fast": Median(median=3.0, low=2.9, high=3.1)}
    name, sentence = recommend(prices, decisions, "base", "throughput", ratios)
    assert (name, sentence) == (
        "fast",
        "Ship fast: it is accepted, with 3.00 x the baseline's throughput (2.90 to 3.10), the most of 2 accepted "
        "candidates.",
    )
    ratios = {"slow": Median(median=0.4, low=0.3, high=0.5), "fast": Median(median=0.7, low=0.6, high=0.8)}
    name, sentence = recommend(prices, decisions, "base", "throughput", ratios)
    assert (name, sentence) == ("base", "Keep the baseline: no accepted candidate has more throughput.")


@pytest.mark.long
def test_images_ship_to_onnx_and_are_measured_in_both(digits_study: Any, tmp_path: Path) -> None:
    study = digits_study(ship={"to": "onnx", "precision": ["float32", "int8"]}, prefer="latency")
    study["measure"] |= {"runtimes": ["onnx", "torch"]}
    result, _ = run(study, tmp_path / "run")
    for row in rows_of(tmp_path / "run").values():
        assert [speed["runtime"] for speed in row["speeds"]] == ["onnx", "torch"]
        if row["artifact"]["precision"] == "float32":
            assert row["artifact"]["agreement"] >= 0.999
            assert row["artifact"]["largest_difference"] < 1e-4
            assert row["quality"]["mean"] == pytest.approx(row["artifact"]["before"]["mean"], abs=0.01)
    shipped: Any = lf.runtime.load(result.directory / result.results["shipped"])
    assert len(shipped.classes) == 10

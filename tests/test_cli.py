"""The commands, and the table of what bad input gets: one clear line, exit code 2, nothing lost."""

from __future__ import annotations

import importlib.metadata
import io
import itertools
import json
import re
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from exported import write_translator
from PIL import Image
from report_examples import example_results
from transformers import PreTrainedModel

import leanformer as lf
from leanformer import cli

MakeStudy = Callable[..., dict[str, Any]]


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of a command."""
    monkeypatch.setattr("sys.argv", ["leanformer", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


@pytest.fixture
def leanformer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """Calls a command in an empty directory; gives its exit code."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: call(monkeypatch, *arguments)


@pytest.fixture
def quick(digits_study: MakeStudy) -> dict[str, Any]:
    """A study of a second or two."""
    study = digits_study(train={"epochs": 1, "batch_size": 64, "learning_rate": 3e-3}, seeds=[0])
    study["data"]["train_limit"] = 100
    return study


def write(study: dict[str, Any], path: Path) -> str:
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    return str(path)


def png(color: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8), color, dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def image_folder(root: Path, classes: int = 2, images: int = 12) -> Path:
    """``root/class/*.png``, 8 x 8 pixels, grey."""
    for number in range(classes):
        for image in range(images):
            path = root / f"class-{number}" / f"{image:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(100 * number + image))
    return root


def parquet(root: Path, labels: list[int], images: list[bytes] | None = None) -> Path:
    """A local data set in the hub's layout, with two class names."""
    features = {
        "info": {
            "features": {
                "image": {"_type": "Image"},
                "label": {"_type": "ClassLabel", "names": ["cat", "dog"]},
            }
        }
    }
    contents = images or [png(7 * number % 255) for number in range(len(labels))]
    table = pa.table(
        {
            "image": [{"bytes": content, "path": None} for content in contents],
            "label": pa.array(labels, pa.int64()),
        }
    ).replace_schema_metadata({"huggingface": json.dumps(features)})
    (root / "data").mkdir(parents=True)
    pq.write_table(table, root / "data" / "train-00000-of-00001.parquet")
    return root


# The commands


def test_run_ends_with_table_decision_and_report(
    leanformer: Callable[..., int], quick: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert leanformer("run", write(quick, tmp_path / "study.yaml"), "--set", "train.epochs=2") == 0
    output = capsys.readouterr().out
    for word in ("baseline", "no-mlp", "minimal", "model:", "report: runs/tiny/report.html"):
        assert word in output
    assert (tmp_path / "runs/tiny/report.html").exists()
    results = json.loads((tmp_path / "runs/tiny/results.json").read_text())
    assert len(results["baseline"]["curves"][0]["epochs"]) == 2

    (tmp_path / "runs/tiny/report.html").unlink()
    assert leanformer("report", "runs/tiny") == 0
    assert capsys.readouterr().out.strip() == "runs/tiny/report.html"
    assert "no-mlp" in (tmp_path / "runs/tiny/report.html").read_text()


@pytest.mark.parametrize(
    ("recommended", "decisions", "ends", "at_gate"),
    [
        ("four-heads", ["accept"], 0, 0),
        ("baseline", ["reject"], 0, 3),
        ("baseline", ["undecided"], 0, 4),
        ("baseline", ["reject", "undecided"], 0, 4),
        ("baseline", ["accept"], 0, 4),  # accepted, and not shown to be cheaper
        (None, ["reject"], 5, 5),
    ],
)
def test_run_ends_with_zero_and_at_the_gate_with_the_decision(
    recommended: str | None,
    decisions: list[str],
    ends: int,
    at_gate: int,
    leanformer: Callable[..., int],
    quick: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    results = example_results()
    results["recommended"] = recommended
    for row, decision in zip(results["candidates"], itertools.cycle(decisions), strict=False):
        row["decision"] = decision
    found = lf.StudyResult(tmp_path, results, tmp_path / "report.html")
    monkeypatch.setattr("leanformer.study.run.run", lambda *_, **__: found)
    study = write(quick, tmp_path / "study.yaml")
    assert leanformer("run", study) == ends
    assert leanformer("run", study, "--gate") == at_gate


def test_export_says_what_it_wrote_and_how_it_was_compared(
    leanformer: Callable[..., int],
    make_translator: Callable[..., PreTrainedModel],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from leanformer.config.translation import TokenizerConfig
    from leanformer.data.tokenizers import train_tokenizer

    texts = ["eins", "zwei", "drei"]
    tokenizer = train_tokenizer(TokenizerConfig(vocabulary=270), texts, texts)
    size = tokenizer.source_vocabulary
    marks = {"pad_token_id": tokenizer.pad_id, "decoder_start_token_id": tokenizer.pad_id}
    lf.save(make_translator("marian", vocab_size=size, decoder_vocab_size=size, **marks), tmp_path / "model")
    tokenizer.save(tmp_path / "model")
    (tmp_path / "data").mkdir()
    for split, lines in {"train": 12, "validation": 3, "test": 3}.items():
        rows = [{"de": f"{texts[row % 3]} {row} {split}", "en": f"word {row} {split}"} for row in range(lines)]
        (tmp_path / "data" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["export", "model", "--to", "ctranslate2", "--precision", "int8", "--data", "data"]
    assert leanformer(*arguments) == 0, capsys.readouterr().err
    out = tmp_path / "exports/model-ctranslate2-int8"
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    exported, parity = capsys.readouterr().out.splitlines()
    assert exported == f"exported: exports/model-ctranslate2-int8 ({size:,} bytes)"
    assert re.match(r"parity: \d+ of 15 translations differ", parity)
    assert leanformer("export", "model", "--to", "ctranslate2", "--set", "test_limit=1") == 2
    assert "--set: it sets keys of the data; give --data too" in capsys.readouterr().err


def test_sites_of_a_family_and_of_a_student(
    leanformer: Callable[..., int],
    make_model: Callable[..., PreTrainedModel],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert leanformer("sites", "vit") == 0
    listed = capsys.readouterr().out
    assert "encoder.11.self_attention" in listed
    student = lf.reduce(make_model(), {"*.mlp": "none"})
    lf.save(student, tmp_path / "student")
    assert leanformer("sites", str(tmp_path / "student")) == 0
    lines = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert lines["encoder.0.mlp"] == ["none", "0"]
    assert lines["encoder.2.self_attention"] == ["attention", f"{4 * (24 * 24 + 24):,}"]


def test_bench_prints_models_times_and_the_machine(
    leanformer: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("leanformer.measure.bench.LEAST_SECONDS", 0)
    monkeypatch.setenv("COLUMNS", "80")
    names = ("a", "b" * 100)
    for name in names:
        write_translator(tmp_path / name)
    (tmp_path / "text.txt").write_text("one two\nthree\n")
    options = ("--data", "text.txt", "--batch", "1", "--batch", "64", "--length", "5", "--rounds", "6")
    assert leanformer("bench", *names, *options, "--out", "bench.json") == 0
    output = capsys.readouterr().out
    assert all(len(line) <= 80 for line in output.splitlines())
    assert output.count("ONNX Runtime float32") == 2
    for words in (
        " 1x5 1 ",
        "64x5 1 ",
        " 5 ",
        " 320 ",
        "text.txt; medians of 6 rounds",
        "threads 1",
        "json: bench.json",
    ):
        assert words in output
    sizes = [sum(model["files"].values()) for model in json.loads((tmp_path / "bench.json").read_text())["models"]]
    assert sizes == [sum(file.stat().st_size for file in (tmp_path / name).iterdir()) for name in names]


def test_plan_test_prints_the_numbers_and_where_the_page_is(
    leanformer: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    options = ["--metric", "bleu", "--quality", "30", "--margin", "0.5", "--deviation", "0", "--candidates", "4"]
    assert leanformer("plan-test", *options, "--looks", "2", "--seeds", "1", "--out", "plan") == 0
    output = capsys.readouterr().out
    assert all(len(line) <= 80 for line in output.splitlines())
    assert "each of 2 looks" in output
    assert "one trained pair" in output
    assert "1,013" in output
    assert "page: plan/plan-test.html" in output
    assert json.loads((tmp_path / "plan/plan-test.json").read_text())["plans"][0]["examples"]["look"] == 1013
    assert leanformer("plan-test", "--quality", "0.9", "--margin", "0.01", "--drop", "0.02") == 2
    assert "drop 0.02 is not less than the margin 0.01" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("margin", "losses", "code", "words"),
    [
        ("0.01", 0, 0, "new: accept. +0.00 points; a drop of 1 point or more is ruled out"),
        ("0.01", 60, 3, "new: reject. -5.00 points; the drop is more than 1 point"),
        ("0.01", 12, 4, "new: undecided. -1.00 points; a drop of 1 point or more is not "),
        (
            "50%",
            6,
            0,
            "new: accept. 1.05 times the baseline's error rate; an error rate of 1.50 times ",
        ),
        ("x", 0, 2, "max_drop (--max-drop): input should be a valid number, not 'x'"),
    ],
)
def test_compare_ends_with_the_decision_as_its_exit_code(
    margin: str,
    losses: int,
    code: int,
    words: str,
    leanformer: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, wrong in (("old", 120), ("new", 120 + losses)):
        lines = [f"{number},{number % 3},{(number + (number < wrong)) % 3}" for number in range(1_200)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["example,label,prediction", *lines]))
    command = ["compare", "old.csv", "new.csv", "--id", "example", "--max-drop", margin]
    assert leanformer(*command, "--quiet") == code
    quiet = capsys.readouterr()
    assert words in (quiet.out if code != 2 else quiet.err)
    assert len((quiet.out + quiet.err).splitlines()) == 1
    assert leanformer(*command, "--out", "out") == code
    told = capsys.readouterr().out
    assert (code == 2) == (not (tmp_path / "out").exists())
    if code != 2:
        assert "page: out/comparison.html" in told
        assert told.splitlines()[0].split() == ["model", "accuracy", "difference", "p", "decision"]


def test_version(leanformer: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert leanformer("--version") == 0
    assert capsys.readouterr().out.strip() == f"leanformer {importlib.metadata.version('leanformer')}"


def test_the_package_is_a_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["leanformer", "--version"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("leanformer", run_name="__main__")
    assert not ended.value.code
    assert importlib.metadata.version("leanformer") in capsys.readouterr().out


def test_a_wrong_command_is_a_short_error(leanformer: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert leanformer("walk") == 2
    assert "No such command 'walk'" in capsys.readouterr().err
    assert leanformer("run") == 2
    assert "Missing argument" in capsys.readouterr().err


# Bad input


def at(study: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """The study with ``value`` at a dotted key."""
    inner = study
    *path, last = key.split(".")
    for part in path:
        inner = inner.setdefault(part, {})
    inner[last] = value
    return study


Change = Callable[[dict[str, Any], Path], object]


def put(key: str, value: Any) -> Change:
    return lambda study, _: at(study, key, value)


def with_source(make: Callable[[Path], Path]) -> Change:
    return lambda study, path: at(study, "data", {"source": str(make(path / "data"))})


def corrupt_parquet(root: Path) -> Path:
    images = [png(number) for number in range(40)]
    images[17] = images[17][:30]
    return parquet(root, [0, 1] * 20, images)


def corrupt_folder(root: Path) -> Path:
    image_folder(root)
    (root / "class-1" / "05.png").write_bytes(png()[:30])
    return root


def empty_class_folder(root: Path) -> Path:
    (root / "class-0").mkdir(parents=True)
    return root


def not_a_model(root: Path) -> str:
    root.mkdir()
    (root / "notes.txt").write_text("no model here")
    return str(root)


def model_without_weights(root: Path) -> str:
    root.mkdir()
    (root / "config.json").write_text('{"model_type": "vit"}')
    return str(root)


ATTENTION = "candidates.minimal.plan"

BAD_STUDIES: dict[str, tuple[Change, list[str]]] = {
    "unknown key": (put("train.epoch", 5), ["study.yaml", "unknown key 'train.epoch'", "did you mean 'epochs'"]),
    "unknown key at the top": (put("acept", {}), ["unknown key 'acept'", "did you mean 'accept'"]),
    "wrong type": (put("train.epochs", "ten"), ["train.epochs", "integer", "'ten'"]),
    "number out of range": (put("accept.confidence", 1.5), ["accept.confidence", "less than 1", "1.5"]),
    "missing key": (lambda study, _: study.pop("candidates"), ["the key 'candidates' is missing"]),
    "unknown task": (put("task", "chess"), ["task", "image-classification"]),
    "rate twice": (put("train.learning_rate", [0.003, 0.0030000001]), ["train.learning_rate", "distinct"]),
    "seed twice": (put("seeds", [1, 1]), ["seeds must be distinct"]),
    "candidate called baseline": (
        put("candidates", {"baseline": {"plan": {"*.mlp": "none"}}}),
        ["candidates", "'baseline' is reserved"],
    ),
    "unknown block": (
        put(ATTENTION, {"*.mlp": "nothing"}),
        ["candidates.minimal", "'*.mlp'", "unknown block 'nothing'", "none"],
    ),
    "unknown argument": (
        put(ATTENTION, {"*.mlp": {"block": "mlp", "width": 3}}),
        ["candidates.minimal", "'*.mlp'", "no argument 'width'", "hidden"],
    ),
    "wrong argument": (
        put(ATTENTION, {"*.self_attention": {"block": "minimal_attention", "qk": "triangular"}}),
        ["candidates.minimal", "'qk'", "'collapsed'", "triangular"],
    ),
    "argument without effect": (
        put(ATTENTION, {"*.mlp": {"block": "mlp", "activation": "relu"}}),
        ["candidates.minimal", "'activation' goes with 'hidden'"],
    ),
    "unknown activation": (
        put(ATTENTION, {"*.mlp": {"block": "mlp", "hidden": 4, "activation": "gleu"}}),
        ["candidates.minimal", "no activation of transformers", "gelu", "'gleu'"],
    ),
    "heads that do not divide": (
        put(ATTENTION, {"*.self_attention": {"block": "minimal_attention", "heads": 3}}),
        ["candidates.minimal", "heads = 3 does not divide", "16"],
    ),
    "block at the wrong site": (
        put(ATTENTION, {"*.mlp": "minimal_attention"}),
        ["candidates.minimal", "minimal_attention", "encoder.0.mlp", "mlp, none"],
    ),
    "pattern that matches nothing": (
        put(ATTENTION, {"decoder.*": "none"}),
        ["candidates.minimal", "'decoder.*'", "matches no site", "encoder.1.mlp", "self_attention"],
    ),
    "plan that changes nothing": (
        put(ATTENTION, {"*.self_attention": "attention"}),
        ["candidates.minimal", "changes nothing", "method distill with finetune epochs"],
    ),
    "empty plan": (put(ATTENTION, {}), ["candidates.minimal", "changes nothing"]),
    "missing data": (put("data.source", "./nowhere"), ["data.source ./nowhere", "no such directory"]),
    "missing column": (
        lambda study, path: at(
            study, "data", {"source": str(parquet(path / "data", [0, 1] * 20)), "label_column": "kind"}
        ),
        ["data.label_column", "no column 'kind'", "label"],
    ),
    "one class only": (with_source(lambda root: image_folder(root, classes=1)), ["data", "class-0", "two"]),
    "labels out of range": (
        with_source(lambda root: parquet(root, [0, 1] * 19 + [0, 2])),
        ["train-00000-of-00001.parquet", "row 39", "2"],
    ),
    "corrupt image in parquet": (with_source(corrupt_parquet), ["train-00000-of-00001.parquet", "row 17"]),
    "corrupt image in a folder": (with_source(corrupt_folder), ["class-1/05.png"]),
    "no images": (with_source(empty_class_folder), ["data", "image"]),
    "empty split": (put("data.validation_fraction", 0.0), ["validation"]),
    "patch that does not divide": (
        put("baseline.config.patch_size", 3),
        ["patch_size 3 does not divide", "height of 8", "1, 2, 4, 8"],
    ),
    "unknown key of the model": (put("baseline.config.hidden", 3), ["baseline.config", "'hidden'", "hidden_size"]),
    "heads that do not divide the width": (
        put("baseline.config.num_attention_heads", 3),
        ["baseline.config", "num_attention_heads 3", "16"],
    ),
    "unknown family": (
        lambda study, _: at(study, "baseline.model", "vitt"),
        ["baseline.model: 'vitt' is neither a family (vit, deit)"],
    ),
    "unknown activation of the model": (put("baseline.config.hidden_act", "gleu"), ["baseline.config", "'gleu'"]),
    "no heads": (put("baseline.config.num_attention_heads", 0), ["num_attention_heads is 0", "1 or more"]),
    "missing model": (
        lambda study, _: at(study, "baseline", {"model": "./nowhere"}),
        ["./nowhere", "no such model directory"],
    ),
    "directory that is no model": (
        lambda study, path: at(study, "baseline", {"model": not_a_model(path / "model")}),
        ["not a model directory", "config.json"],
    ),
    "model without weights": (
        lambda study, path: at(study, "baseline", {"model": model_without_weights(path / "model")}),
        ["model", "not a model that can be loaded"],
    ),
}


@pytest.mark.parametrize("case", BAD_STUDIES)
def test_bad_studies(
    case: str,
    leanformer: Callable[..., int],
    quick: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change, words = BAD_STUDIES[case]
    change(quick, tmp_path)
    assert_refused(leanformer("run", write(quick, tmp_path / "study.yaml")), capsys, words)
    assert not list(tmp_path.glob("runs/*/trials"))


def assert_refused(code: int, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    """One line of error that has all the words, exit code 2."""
    errors = capsys.readouterr().err
    lines = [line for line in errors.splitlines() if line.startswith("leanformer: error: ")]
    assert len(lines) == 1, errors
    assert errors.splitlines()[-1] == lines[0]
    assert "Traceback" not in errors
    for word in words:
        assert word in lines[0]
    assert len(lines[0]) < 500
    assert code == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["study.yaml", "cannot be read"]),
        ("name: [", ["study.yaml", "line 1"]),
        ("name: a\nname: b\n", ["study.yaml", "line 2", "'name' is given twice"]),
        ("candidates:\n  010: {}\n", ["study.yaml", "the key 'name' is missing"]),
        ("candidates:\n  1: {}\n", ["study.yaml", "line 2", "reads the key 1 as a number; put it in quotes"]),
        ("candidates:\n  true: {}\n", ["study.yaml", "line 2", "the key true as a truth value; put it in quotes"]),
        ("- a\n- b\n", ["study.yaml", "a study is a mapping"]),
    ],
)
def test_bad_study_files(
    content: str | None,
    words: list[str],
    leanformer: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if content is not None:
        (tmp_path / "study.yaml").write_text(content)
    assert_refused(leanformer("run", "study.yaml"), capsys, words)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("train.epochs", ["--set train.epochs", "key=value"]),
        ("train.epochs=x", ["train.epochs", "integer"]),
        ("train.epoch=3", ["unknown key 'train.epoch'"]),
        ("name.first=x", ["--set name.first=x", "'name' holds a value"]),
        ("seeds=[0", ["--set seeds=[0", "not YAML"]),
    ],
)
def test_bad_settings(
    setting: str,
    words: list[str],
    leanformer: Callable[..., int],
    quick: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert_refused(leanformer("run", write(quick, tmp_path / "study.yaml"), "--set", setting), capsys, words)


def test_numbers_as_people_write_them(digits_study: MakeStudy, tmp_path: Path) -> None:
    text = yaml.safe_dump(digits_study(accept={"confidence": "X"})).replace("'X'", "9e-1").replace(": X", ": 9e-1")
    (tmp_path / "study.yaml").write_text(text)
    study = lf.read_study(tmp_path / "study.yaml", ["train.learning_rate=[1e-3, 2.5E-4]", "train.epochs=10"])
    assert study.accept.confidence == 0.9
    assert study.train.learning_rate == (0.001, 0.00025)
    assert study.train.epochs == 10


def test_bad_directories(
    leanformer: Callable[..., int], quick: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    study = write(quick, tmp_path / "study.yaml")
    assert_refused(leanformer("run", study, "--out", "file"), capsys, ["file", "cannot be used as a run directory"])
    assert_refused(leanformer("report", "nowhere"), capsys, ["nowhere/results.json", "no such file"])
    assert_refused(leanformer("sites", "./nowhere"), capsys, ["./nowhere", "no such model directory"])


def test_bad_weights(
    leanformer: Callable[..., int],
    make_model: Callable[..., PreTrainedModel],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lf.save(lf.reduce(make_model(), {"*.mlp": "none"}), tmp_path / "whole")
    weights = (tmp_path / "whole" / "model.safetensors").read_bytes()
    shutil.copytree(tmp_path / "whole", tmp_path / "half")
    (tmp_path / "half" / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    assert_refused(leanformer("sites", "./half"), capsys, ["./half", "not a model that can be loaded"])
    shutil.copytree(tmp_path / "whole", tmp_path / "other")
    config = json.loads((tmp_path / "whole" / "config.json").read_text())
    (tmp_path / "other" / "config.json").write_text(json.dumps({**config, "hidden_size": 32}))
    assert_refused(leanformer("sites", "./other"), capsys, ["./other", "do not fit the configuration"])
    (tmp_path / "other" / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}))
    assert_refused(leanformer("sites", "./other"), capsys, ["./other", "plan 'encoder.1.mlp'", "no such site"])


def test_a_device_that_is_not_there(
    leanformer: Callable[..., int],
    quick: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    quick["measure"]["device"] = "cuda"
    assert_refused(
        leanformer("run", write(quick, tmp_path / "study.yaml")), capsys, ["measure.device", "no 'cuda' here", "cpu"]
    )

"""Confirmations: the model that ships and the baseline's answer data that nobody has seen, once."""

from __future__ import annotations

import html
import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sacrebleu
import torch
from PIL import Image
from rich.console import Console
from sklearn.datasets import load_digits
from statsmodels.stats.multitest import multipletests
from studies import results_of, rows_of, run, tiny_marian

import leanformer as lf
from leanformer.__main__ import main
from leanformer.config.reader import make_study
from leanformer.config.translation import NumberWordsConfig, TextDataConfig
from leanformer.core.errors import LeanformerError
from leanformer.core.json_files import read_sealed, sealed
from leanformer.data.number_words import number_words
from leanformer.data.tokenizers import TranslationTokenizer
from leanformer.decide import statistics
from leanformer.decide.ratio import exact_p_values
from leanformer.measure.quality import Predictions
from leanformer.measure.translation import Translations
from leanformer.model.generate import translate
from leanformer.model.students import load
from leanformer.report.confirmation import confirmation_lines, confirmation_table
from leanformer.report.page import write_report
from leanformer.runtime.loading import load as open_exported
from leanformer.study import confirm as confirming
from leanformer.study import shipping
from leanformer.study.ledger import FILE, Ledger, Seen, is_of_study

OWN, NEW = 500, 200
SPREAD = 20.0  # grey levels of noise, so that no new image is one of the study's


def noisy(count: int = NEW, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Digits with noise: uint8 images of 8x8, and their classes."""
    digits = load_digits()
    noise = np.random.default_rng(seed).normal(0, SPREAD, (count, 8, 8))
    images = np.clip(np.rint(digits.images[:count] * (255 / 16)) + noise, 0, 255).astype(np.uint8)
    return images, digits.target[:count]


def write_folder(directory: Path, images: np.ndarray, classes: np.ndarray, name: str = "{:04}") -> Path:
    """A folder a class; the file's name is made from the image's number, and that of its group of four."""
    for number, (pixels, label) in enumerate(zip(images, classes, strict=True)):
        (directory / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(directory / str(label) / f"{name.format(number, number // 4)}.png")
    return directory


def write_data(base: Path, name: str = "{:04}") -> None:
    """The study's own images and new ones, as folders of images."""
    digits = load_digits()
    own = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    write_folder(base / "own", own[:OWN], digits.target[:OWN], name)
    write_folder(base / "new", *noisy(), name)


def image_study(base: Path, **changes: Any) -> dict[str, Any]:
    """A study on the study's own images, in seconds.

    Args:
        base: Where ``write_data`` wrote them.
        changes: Sections whose keys are set beside the others.
    """
    study: dict[str, Any] = {
        "name": "tiny",
        "data": {"source": str(base / "own"), "test_fraction": 0.4},
        "baseline": {
            "model": "vit",
            "config": {
                "hidden_size": 16,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "intermediate_size": 32,
                "patch_size": 4,
            },
        },
        "candidates": {
            "no-mlp": {"plan": {"*.mlp": "none"}},
            "half": {"plan": {"*.mlp": {"block": "mlp", "hidden": 8}}},
        },
        "train": {"epochs": 4, "batch_size": 16, "learning_rate": 1e-2},
        "accept": {"max_drop": 0.15},
        "seeds": [0],
        "measure": {"repeats": 1, "latency_calls": 1, "device": "cpu", "threads": 1},
    }
    return study | {
        key: {**study[key], **value} if isinstance(value, dict) and key in study else value
        for key, value in changes.items()
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a small study of digits that recommends a candidate, and its files as folders of images."""
    base = tmp_path_factory.mktemp("confirm")
    write_data(base)
    result, _ = run(image_study(base), base / "run")
    assert result.recommended == "no-mlp", result.results["recommendation"]
    return base / "run"


@pytest.fixture
def own_run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the run directory."""
    shutil.copytree(finished, tmp_path / "runs" / "tiny")
    return tmp_path / "runs" / "tiny"


def confirm(directory: Path, data: Any, candidate: str | None = None) -> lf.Confirmed:
    return lf.confirm(directory, data, candidate, Console(file=io.StringIO()))


def right(directory: Path, name: str, images: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Whether the model that ships is right on each image, from the model's own files."""
    trial = directory / "trials" / name / f"seed-{rows_of(directory)[name]['decided_seed']}" / "model"
    settings = json.loads((trial / "preprocessor_config.json").read_text())
    mean, std = settings["image_mean"], settings["image_std"]
    pixels = torch.from_numpy((images / 255 - mean) / std).float()[:, None]
    model = load(trial).eval()
    with torch.inference_mode():
        found = model(pixel_values=pixels).logits.argmax(-1).numpy()
    names = np.array([int(model.config.id2label[number]) for number in range(10)])
    return np.asarray(names[found] == classes)


def test_the_recommended_model_is_tested_once_on_all_new_examples(
    own_run: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = finished.parent / "new"
    found = confirm(own_run, str(new))
    images, classes = noisy()
    base, lean = (right(own_run, name, images, classes) for name in ("baseline", "no-mlp"))
    result = found.result
    assert result["data"]["examples"] == NEW
    assert result["data"]["known"] == 0
    assert result["baseline"]["quality"]["mean"] == pytest.approx(base.mean())
    assert result["candidate"]["quality"]["mean"] == pytest.approx(lean.mean())
    assert result["difference"]["mean"] == pytest.approx(lean.mean() - base.mean())
    assert (result["candidate"]["name"], result["candidates"]) == ("no-mlp", 1)
    assert result["p_adjusted"] == result["p_value"]  # the whole error for one model
    assert found.decision == ("accept" if result["p_value"] <= 0.05 else "undecided")
    # What is kept is complete and sealed.
    kept = read_sealed(found.directory / "result.json", required=True)
    assert found.directory.parent == own_run / "confirmations"
    assert found.directory.name == f"{result['data']['signature'][:12]}-no-mlp"
    assert {key: value for key, value in kept.items() if key != "files"} == result
    assert set(kept["files"]) == {"baseline.parquet", "candidate.parquet"}
    assert not is_of_study(own_run, result["data"]["signature"])
    # The study's own results and looks are as they were.
    assert results_of(own_run) == results_of(finished)

    def no_answers(*_: Any) -> None:
        raise AssertionError("a model answered again")

    ledger = json.loads((own_run / FILE).read_text())
    monkeypatch.setattr(confirming, "_answers", no_answers)
    assert confirm(own_run, {"source": str(new)}).result == result
    assert json.loads((own_run / FILE).read_text()) == ledger


def test_the_report_shows_confirmations(own_run: Path, finished: Path) -> None:
    write_report(own_run)
    assert "On new data" not in (own_run / "report.html").read_text(encoding="utf-8")
    found = confirm(own_run, str(finished.parent / "new"))
    page = " ".join(html.unescape((own_run / "report.html").read_text(encoding="utf-8")).split())
    section = page.split('<section id="confirmations">')[1].split("</section>")[0]
    result = found.result
    for part in (
        "no-mlp",
        f"{NEW} new examples",
        result["data"]["source"],
        result["date"],
        f"{100 * result['candidate']['quality']['mean']:.1f} (",
        f"{100 * result['difference']['mean']:+.1f} ({100 * result['difference']['low']:+.1f}, ",
        result["decision"],
        result["reason"],
    ):
        assert part in section
    assert "Left out" not in section
    # A damaged one is named, and the page is written nevertheless.
    path = found.directory / "result.json"
    path.write_text(path.read_text().replace('"accept"', '"reject"'))
    write_report(own_run)
    page = " ".join((own_run / "report.html").read_text(encoding="utf-8").split())
    assert f"<code>{path.relative_to(own_run).as_posix()}</code> is damaged." in page
    assert result["reason"] not in page


@pytest.mark.long
def test_all_models_that_were_confirmed_on_the_same_data_count(own_run: Path, finished: Path, tmp_path: Path) -> None:
    new = tmp_path / "elsewhere"
    shutil.copytree(finished.parent / "new", new)
    first = confirm(own_run, str(finished.parent / "new"))
    second = confirm(own_run, str(new), "half")  # a copy is the same data
    assert second.result["data"]["signature"] == first.result["data"]["signature"]
    assert second.result["candidates"] == 2
    again = read_sealed(first.directory / "result.json")
    values = [first.result["p_value"], second.result["p_value"]]
    assert [again["p_adjusted"], second.result["p_adjusted"]] == pytest.approx(multipletests(values, method="holm")[1])
    assert again["candidates"] == 2
    page = Ledger(own_run, first.result["data"]["signature"], 1)
    assert page.taken == 1
    assert len(page.evaluated("artifact")) == 2
    # What was deleted still counts.
    shutil.rmtree(first.directory)
    alone = confirm(own_run, str(new), "half").result
    assert (alone["candidates"], alone["p_adjusted"]) == (2, pytest.approx(min(1.0, 2 * values[1])))


@pytest.mark.long
def test_a_decision_that_the_correction_changes_is_told(own_run: Path, finished: Path) -> None:
    new = str(finished.parent / "new")
    first = confirm(own_run, new)
    path = first.directory / "result.json"
    told = read_sealed(path)
    opposite = "reject" if first.decision != "reject" else "accept"
    files = told.pop("files")
    path.write_text(sealed({**told, "decision": opposite, "files": files}))
    second = confirm(own_run, new, "half")
    assert second.result["revised"] == [{"candidate": "no-mlp", "before": opposite, "now": first.decision}]
    assert read_sealed(path)["decision"] == first.decision


@pytest.mark.parametrize(
    ("wrong", "code", "said"), [(0, 0, "is confirmed on"), (25, 4, "is not decided on"), (120, 3, "is rejected on")]
)
def test_the_command_says_the_decision_by_its_exit_code(
    own_run: Path,
    finished: Path,
    wrong: int,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def answers(task: Any, _: Path, model: Any) -> Predictions:
        """The baseline's are all right; of the candidate's, so many of 200 are wrong, with a margin of 15 %."""
        labels = task.data.test.labels.numpy()
        found = labels.copy()
        if model.name != "baseline":
            found[:wrong] = (found[:wrong] + 1) % 10
        return Predictions(labels, found, np.zeros(len(labels)))

    monkeypatch.setattr(confirming, "_answers", answers)
    monkeypatch.setattr("sys.argv", ["leanformer", "confirm", str(own_run), str(finished.parent / "new")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code
    out = " ".join(capsys.readouterr().out.split())
    assert f"no-mlp {said} {NEW} new examples: " in out
    assert f"result: {own_run / 'confirmations'}" in out
    assert ("Expected to decide it: " in out) == (code == 4)


def refused(directory: Path, data: Any, candidate: str | None = None) -> str:
    with pytest.raises(LeanformerError) as error:
        confirm(directory, data, candidate)
    assert not list((directory / "confirmations").glob("*/result.json"))
    assert "confirmation" not in (directory / FILE).read_text()
    return str(error.value)


def test_data_that_are_not_new_are_refused(own_run: Path, finished: Path, tmp_path: Path) -> None:
    own = finished.parent / "own"
    copied = tmp_path / "copied"
    shutil.copytree(own, copied)
    assert "these are the study's own files" in refused(own_run, str(copied))
    (copied / "0" / "0000.png").unlink()
    line = refused(own_run, str(copied))
    assert "499 of 499 new examples are in the study's own data too" in line
    # A tenth may be known, with a warning.
    images, classes = noisy(50)
    mixed = write_folder(tmp_path / "mixed", images, classes)
    for number in range(5):
        shutil.copy(next((own / str(number)).glob("*.png")), mixed / str(number) / "known.png")
    found = confirm(own_run, str(mixed)).result
    assert found["data"]["known"] == 5
    assert [row["code"] for row in found["warnings"]] == ["known-examples"]
    # Where the study's data are gone, nobody can compare.
    results = results_of(own_run)
    results["study"]["data"]["source"] = str(tmp_path / "gone")
    (own_run / "results.json").write_text(json.dumps(results))
    found = confirm(own_run, str(finished.parent / "new")).result
    assert found["data"]["known"] is None
    assert [row["code"] for row in found["warnings"]] == ["freshness-unknown"]


@pytest.mark.long
def test_data_that_do_not_fit_the_model_are_refused(own_run: Path, tmp_path: Path) -> None:
    images, classes = noisy(30)
    other = write_folder(tmp_path / "other", images, classes)
    (other / "3").rename(other / "three")
    assert "class 'three' is none of the model's ('0', '1'" in refused(own_run, str(other))
    colored = write_folder(tmp_path / "colored", np.stack([images, images // 2, images // 3], -1), classes)
    line = refused(own_run, str(colored))
    assert "the images are in color, and the model takes images that are grey; set data.channels to 1" in line
    assert confirm(own_run, {"source": str(colored), "channels": 1}).result["data"]["examples"] == 30


@pytest.mark.long
def test_what_cannot_be_confirmed_is_named(own_run: Path, finished: Path, tmp_path: Path) -> None:
    new = str(finished.parent / "new")
    unlabeled = tmp_path / "unlabeled"
    unlabeled.mkdir()
    Image.fromarray(noisy(1)[0][0]).save(unlabeled / "one.png")
    assert "lies in no class directory" in refused(own_run, str(unlabeled))
    assert "this study has no result of it; there are: no-mlp (accept), half" in refused(own_run, new, "nobody")
    assert "unknown key 'data.colour'" in refused(own_run, {"source": new, "colour": 1})
    results = results_of(own_run)
    results |= {"recommended": "baseline", "ship": "trials/baseline/seed-0/model", "picked": None}
    (own_run / "results.json").write_text(json.dumps(results))
    line = refused(own_run, new)
    assert (
        "recommends the baseline, so that there is nothing to confirm; --candidate NAME takes another: no-mlp" in line
    )
    weights = own_run / "trials" / "half" / f"seed-{rows_of(own_run)['half']['decided_seed']}" / "model"
    with (weights / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    assert "damaged" in refused(own_run, new, "half")


@pytest.mark.long
def test_a_study_that_looks_at_confirmed_data_has_no_look_left(own_run: Path, finished: Path) -> None:
    found = confirm(own_run, str(finished.parent / "new")).result
    ledger = Ledger(own_run, found["data"]["signature"], 1)
    ledger.look(Seen(["x"], {"artifact": {"a": "a"}, "recipe": {}}, [0], found["accept"]))
    assert ledger.taken == 2  # of one
    assert is_of_study(own_run, found["data"]["signature"])


# Images: what else a study may say


def confirmed_from_files(found: lf.Confirmed) -> list[Predictions]:
    """The baseline's answers and the candidate's, as they are kept."""
    return [Predictions.read(found.directory / f"{name}.parquet") for name in ("baseline", "candidate")]


@pytest.mark.long
def test_thresholds_are_those_of_the_studys_validation_split(tmp_path: Path) -> None:
    write_data(tmp_path)
    accept = {"metric": "recall_at_false_alarms", "positive": "3", "false_alarm_rate": 0.1, "max_drop": 0.3}
    run(image_study(tmp_path, accept=accept), tmp_path / "run")
    found = confirm(tmp_path / "run", str(tmp_path / "new"), "no-mlp")
    (place,) = (tmp_path / "run").glob("trials/no-mlp/seed-0/predictions.parquet")
    thresholds = Predictions.read(place).thresholds
    answers = confirmed_from_files(found)[1]
    assert answers.thresholds == thresholds
    assert answers.logits is not None
    exponents = np.exp(answers.logits.astype(float))
    probability = (exponents / exponents.sum(axis=1, keepdims=True))[:, 3]
    alarm = probability > 1 / (1 + np.exp(-thresholds["recall_at_false_alarms"]))
    assert np.bincount(answers.labels).tolist() == np.bincount(noisy()[1]).tolist()
    recall = alarm[answers.labels == 3].mean()
    assert found.result["candidate"]["quality"]["mean"] == pytest.approx(recall)
    # On the new data that threshold has a false-alarm rate of its own.
    assert answers.with_thresholds(answers).thresholds != answers.thresholds


@pytest.mark.long
def test_a_share_of_the_baselines_errors_is_a_margin_here_too(tmp_path: Path) -> None:
    write_data(tmp_path)
    run(image_study(tmp_path, accept={"max_drop": "60%"}), tmp_path / "run")
    found = confirm(tmp_path / "run", str(tmp_path / "new"), "no-mlp")
    old, new = confirmed_from_files(found)
    counts = [(a & b).sum() for a, b in ((~old.correct, new.correct), (old.correct, ~new.correct))]
    expected = exact_p_values(int(counts[0]), int(counts[1]), int((~old.correct & ~new.correct).sum()), 1.6)
    assert found.result["p_value"] == pytest.approx(expected[0])
    assert found.result["accept"]["max_ratio"] == 1.6
    assert "times the baseline's" in found.result["reason"]
    lines = " ".join(confirmation_lines(found.result))
    assert "times the baseline's" in lines
    output = io.StringIO()
    Console(file=output, width=100).print(confirmation_table(found.result))
    assert "accuracy" in output.getvalue()


@pytest.mark.long
def test_groups_are_those_of_the_new_data(tmp_path: Path) -> None:
    write_data(tmp_path, "{:04}-{:03}")
    group = {"pattern": r"-(\d{3})"}
    run(image_study(tmp_path, data={"group": group}, accept={"max_drop": 0.3}), tmp_path / "run")
    found = confirm(tmp_path / "run", str(tmp_path / "new"), "no-mlp")
    assert (found.result["data"]["examples"], found.result["data"]["groups"]) == (NEW, NEW // 4)
    old, new = confirmed_from_files(found)
    assert old.groups is not None
    assert len(set(old.groups)) == NEW // 4
    expected = statistics.compare(
        old.correct[None].astype(float), new.correct[None].astype(float), 0.3, 0.95, np.array(old.groups)
    )
    difference = found.result["difference"]
    assert (difference["low"], difference["high"]) == pytest.approx((expected.difference.low, expected.difference.high))
    assert found.result["p_value"] == pytest.approx(expected.p_noninferior)
    # Where the same data are given in another order, the answers of before keep their own groups.
    images, classes = noisy()
    write_folder(tmp_path / "again", images[::-1], classes[::-1], "{0:04}-{1:03}")
    other = confirm(tmp_path / "run", str(tmp_path / "again"), "half")
    assert other.result["data"]["signature"] == found.result["data"]["signature"]
    again = read_sealed(found.directory / "result.json")
    assert again["candidates"] == 2
    assert again["p_value"] == pytest.approx(found.result["p_value"], rel=1e-6, abs=0)
    with pytest.raises(LeanformerError, match="group"):  # each image needs one
        confirm(tmp_path / "run", {"source": str(tmp_path / "new"), "group": {"pattern": "object"}})


@pytest.mark.long
def test_exported_classifiers_answer_as_they_ship(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_data(tmp_path)
    monkeypatch.setattr(shipping, "ENOUGH", 24)
    run(image_study(tmp_path, ship={"to": "onnx", "precision": ["float32", "int8"]}), tmp_path / "run")
    for name in ("no-mlp", "no-mlp-int8"):
        found = confirm(tmp_path / "run", str(tmp_path / "new"), name)
        artifact = rows_of(tmp_path / "run")[name]["artifact"]
        assert found.result["candidate"]["directory"] == artifact["directory"]
        answers = confirmed_from_files(found)[1]
        classifier: Any = open_exported(tmp_path / "run" / artifact["directory"])
        files = sorted((tmp_path / "new").glob("*/*.png"))
        said = [int(prediction.label) for prediction in classifier.predict(files)]
        right = np.mean([int(file.parent.name) == label for file, label in zip(files, said, strict=True)])
        assert found.result["candidate"]["quality"]["mean"] == pytest.approx(right)
        assert np.bincount(answers.predictions, minlength=10).tolist() == np.bincount(said, minlength=10).tolist()
    assert found.result["candidates"] == 2  # both precisions count
    assert found.result["baseline"]["directory"] == rows_of(tmp_path / "run")["baseline"]["artifact"]["directory"]


@pytest.mark.long
@pytest.mark.parametrize("whose", ["study", "new data"])
def test_streamed_images_are_answered_as_those_in_memory(
    whose: str, own_run: Path, finished: Path, tmp_path: Path
) -> None:
    new = str(finished.parent / "new")
    expected = confirm(own_run, new)
    if whose == "study":
        directory = tmp_path / "streamed" / "run"
        run(image_study(finished.parent, data={"storage": "stream"}), directory)
    else:
        directory = tmp_path / "copy" / "run"
        shutil.copytree(finished, directory)
    found = confirm(directory, new if whose == "study" else {"source": new, "storage": "stream"})
    for key in ("baseline", "candidate"):
        assert found.result[key]["quality"] == expected.result[key]["quality"]
    assert found.result["data"] == expected.result["data"]  # the same data, by their signature too
    assert found.result["difference"] == expected.result["difference"]
    with pytest.raises(LeanformerError, match="these are the study's own files"):
        confirm(directory, {"source": str(finished.parent / "own"), "storage": "stream"})


# Texts


def words_study(**changes: Any) -> dict[str, Any]:
    """A study on number words, in seconds."""
    study: dict[str, Any] = {
        "name": "words",
        "task": "translation",
        "data": {
            "source": "number-words",
            "numbers": {"train": 600, "validation": 30, "test": 40, "largest": 5000},
            "tokenizer": {"vocabulary": 300},
            "max_tokens": 40,
        },
        "baseline": tiny_marian(decoder_layers=2),
        "candidates": {"lean": {"plan": {"decoder.*.mlp": "none", "target_vocabulary": {"limit": 290}}}},
        "train": {"epochs": 2, "batch_tokens": 512, "learning_rate": 1e-2, "label_smoothing": 0.0},
        "seeds": [0, 1],
        "accept": {"metric": "bleu", "max_drop": 30.0},
        "measure": {"repeats": 1, "latency_calls": 1, "throughput_batch": 4, "threads": 1, "device": "cpu"},
    }
    return study | changes


@pytest.mark.long
@pytest.mark.parametrize("ship", [None, {"to": "ctranslate2", "precision": ["float32", "int8"]}])
def test_translators_answer_as_they_ship(
    ship: dict[str, Any] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipping, "ENOUGH", 24)
    directory = tmp_path / "run"
    study = words_study(**({} if ship is None else {"ship": ship}))
    run(study, directory)
    assert "are in the study's own data too" in refused(directory, "number-words", "lean")
    known = {source for pairs in number_words(make_study(study).data).values() for source in pairs.sources}  # type: ignore[arg-type]
    drawn = number_words(TextDataConfig(split_seed=7, numbers=NumberWordsConfig(train=100, largest=10**6)))["train"]
    new = [pair for pair in zip(drawn.sources, drawn.targets, strict=True) if pair[0] not in known]
    for language, side in zip(("de", "en"), zip(*new, strict=True), strict=True):
        (tmp_path / f"new.{language}").write_text("".join(f"{line}\n" for line in side))
    name = "lean" if ship is None else "lean-int8"
    found = confirm(directory, str(tmp_path / "new"), name)
    row = rows_of(directory)[name]
    assert (found.result["data"]["examples"], found.result["data"]["known"]) == (len(new), 0)
    assert found.result["candidate"]["directory"] == (
        f"trials/lean/seed-{row['decided_seed']}/model" if ship is None else row["artifact"]["directory"]
    )
    kept = Translations.read(found.directory / "candidate.parquet")
    assert list(kept.sources) == (tmp_path / "new.de").read_text().splitlines()
    place = directory / found.result["candidate"]["directory"]
    if ship is None:
        lines = lf_translate(place, kept.sources)
    else:
        translator: Any = open_exported(place)
        lines = translator.translate(list(kept.sources), max_tokens=40)
    assert list(kept.hypotheses) == lines
    score = sacrebleu.corpus_bleu(lines, [list(kept.references)]).score
    assert found.result["candidate"]["quality"]["mean"] == pytest.approx(score)


def lf_translate(directory: Path, sentences: Sequence[str]) -> list[str]:
    """The translations of a trained model, as the command translate writes them."""
    tokenizer = TranslationTokenizer.load(directory)
    return translate(load(directory), tokenizer, sentences, max_tokens=40, batch_tokens=4096).texts

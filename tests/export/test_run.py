"""Exporting a translator: what is written, the gate of parity, and that nothing is left of what fails."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from exported import write_classifier
from transformers import PreTrainedModel

import leanformer as lf
from leanformer.config.translation import TokenizerConfig
from leanformer.core.errors import LeanformerError
from leanformer.core.files import sha256
from leanformer.data.tokenizers import TranslationTokenizer, train_tokenizer
from leanformer.export.base import FORMATS, OpenWriter
from leanformer.export.parity import Comparison
from leanformer.export.run import Origin, Samples, _versions, check_place, export_model
from leanformer.measure.inputs import _told_apart
from leanformer.model.generate import translate
from leanformer.runtime.manifest import Manifest
from leanformer.runtime.translator import Translator

WORDS = ("eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun", "zehn")
SENTENCES = [" ".join(WORDS[(3 * first + step) % 10] for step in range(1 + first % 5)) for first in range(40)]
PLAN: dict[str, Any] = {"decoder.1.layer": "none", "encoder.0.mlp": "none"}


@pytest.fixture(scope="module")
def translator(make_translator: Callable[..., PreTrainedModel], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student's directory, with its tokenizer."""
    directory = tmp_path_factory.mktemp("student")
    tokenizer = train_tokenizer(TokenizerConfig(vocabulary=280), SENTENCES, SENTENCES)
    size = tokenizer.source_vocabulary
    marks = {"pad_token_id": tokenizer.pad_id, "decoder_start_token_id": tokenizer.pad_id}
    teacher = make_translator("marian", vocab_size=size, decoder_vocab_size=size, **marks)
    teacher.final_logits_bias[0, tokenizer.eos_id] += 2
    lf.save(lf.reduce(teacher, PLAN), directory)
    tokenizer.save(directory)
    return directory


def exported(translator: Path, out: Path, precision: Any = "float32", **settings: Any) -> Manifest:
    samples = Samples(iter(SENTENCES), "of this test")
    return export_model(
        lf.load(translator), str(translator), samples, out, to="ctranslate2", precision=precision, **settings
    )


def test_an_exported_translator(translator: Path, tmp_path: Path) -> None:
    out = tmp_path / "exported"
    decision = {
        "decision": "accept",
        "reason": "It loses little.",
        "metric": "bleu",
        "quality": {"mean": 40.0, "low": 39.0, "high": 41.0},
        "difference": None,
    }
    manifest = exported(translator, out, origin=Origin("words", "lean", 3, decision))
    assert json.loads((out / "manifest.json").read_text())["source"]["candidate"] == "lean"
    student = lf.load(translator)
    assert manifest.plan == student.config.plan
    assert (
        manifest.source.parameters == sum(weight.numel() for weight in student.parameters()) - 2 * 32 * 16
    )  # positions
    assert manifest.source.architecture == "marian"
    assert manifest.texts is not None
    assert (manifest.texts.max_source_tokens, manifest.texts.eos_id) == (32, 0)
    files = {path.relative_to(out).as_posix(): sha256(path) for path in out.rglob("*") if path.is_file()}
    assert manifest.files == {name: digest for name, digest in files.items() if name != "manifest.json"}
    assert {"tokenizer.json", "README.md", "ctranslate2/model.bin"} < set(files)
    assert (manifest.parity.inputs, manifest.parity.agreement, manifest.parity.near_ties) == (40, 1.0, 0)
    assert manifest.parity.largest_difference is not None
    assert manifest.parity.largest_difference < 1e-4
    assert {"leanformer", "torch", "transformers", "ctranslate2"} <= set(manifest.versions)

    own = translate(student, TranslationTokenizer.load(translator), SENTENCES, max_tokens=32, batch_tokens=64).texts
    runtime = lf.runtime.load(out)
    assert isinstance(runtime, Translator)
    assert runtime.translate(SENTENCES) == own
    assert len(set(own)) > 1

    card = (out / "README.md").read_text()
    metadata = yaml.safe_load(card.split("---")[1])
    assert metadata["pipeline_tag"] == "translation"
    assert "license" not in metadata
    for part in ("**accept**", "It loses little.", "| 40 | 39 to 41 |", "study `words`", "`decoder.1.layer`: `none`"):
        assert part in card
    assert "0 of 40 translations differ, so at most 7.2 % do (95 % confidence), logits within" in card


def test_a_changed_weight_is_noticed(translator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    form = FORMATS["ctranslate2"]
    write = form.write

    def write_another(model: PreTrainedModel, directory: Path, precision: Any) -> OpenWriter | None:
        changed = lf.load(translator)
        with torch.no_grad():
            changed.model.decoder.layers[0].cross_attention.norm.bias[0] += 0.1
        return write(changed, directory, precision)

    out = tmp_path / "exported"
    exported(translator, out)
    before = (out / "manifest.json").read_bytes()
    monkeypatch.setattr(form, "write", write_another)
    with pytest.raises(LeanformerError, match=r"ctranslate2 float32: not exported, .* logits differ by up to 0\.\d+"):
        exported(translator, out)
    assert (out / "manifest.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["exported"]
    # In another precision the agreement is shown, and nothing is refused.
    parity = exported(translator, out, "int8").parity
    assert parity.largest_difference is None
    assert parity.agreement <= 1


def test_the_gate() -> None:
    def of(inputs: int, same: int, near_ties: int, scaled: float = 0.0) -> Comparison:
        return Comparison(inputs, same, near_ties, scaled, scaled)

    for passing in (of(1000, 1000, 0), of(1000, 999, 1), of(20, 19, 1), of(3000, 2997, 3), of(10, 10, 0, 1e-4)):
        passing.check("it")
    for failing in (of(1000, 999, 0), of(1000, 998, 2), of(20, 18, 2), of(3000, 2997, 2), of(9, 9, 0, 2e-4)):
        with pytest.raises(LeanformerError, match="it: not exported, as it does not say the same as the model"):
            failing.check("it")
    broken, logits = Comparison(), torch.zeros(2, 3).numpy()
    broken.add_logits(logits, torch.full((2, 3), float("nan")).numpy())
    with pytest.raises(LeanformerError, match="logits differ by up to inf on"):
        broken.check("it")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"to": "tflite"}, "there is no format 'tflite'; formats: "),
        ({"precision": "int4"}, "there is no precision 'int4'; precisions of ctranslate2: float32, int8, float16"),
    ],
)
def test_unknown_names(translator: Path, tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(LeanformerError) as refused:
        lf.export(translator, **{"to": "ctranslate2", "out": tmp_path / "exported", **settings})
    assert str(refused.value).startswith(message)
    assert not list(tmp_path.iterdir())


def test_a_directory_with_other_files_is_kept(translator: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    refused = r"holds files that are no part of an exported model \({}\); give a new or empty directory"
    with pytest.raises(LeanformerError, match=refused.format("letter.txt")):
        exported(translator, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
    (tmp_path / "letter.txt").rename(tmp_path / "manifest.json")  # as other programs call theirs
    with pytest.raises(LeanformerError, match=refused.format("manifest.json")):
        exported(translator, tmp_path)
    assert (tmp_path / "manifest.json").read_text() == "dear"


def test_a_file_beside_an_earlier_export_is_kept(tmp_path: Path) -> None:
    write_classifier(tmp_path)
    check_place(tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "letter.txt").write_text("dear")
    with pytest.raises(LeanformerError, match=r"no part of an exported model \(notes/letter.txt\)"):
        check_place(tmp_path)


@pytest.mark.parametrize(
    ("form", "package", "extra"),
    [("onnx", "onnxscript", "train"), ("onnx", "onnxruntime", "onnx"), ("ctranslate2", "ctranslate2", "ctranslate2")],
)
def test_a_missing_package_is_named_before_anything_is_written(
    form: str, package: str, extra: str, translator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    message = rf"exporting to {form} needs .* \({package}\); install them: pip install 'leanformer\[{extra}\]'"
    with pytest.raises(LeanformerError, match=message):
        lf.export(translator, form, out=tmp_path / "exported")
    assert not list(tmp_path.iterdir())


def test_the_version_of_a_distribution_with_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.metadata.version

    def version(name: str) -> str:  # as where onnxruntime-gpu is installed
        if name == "onnxruntime":
            raise importlib.metadata.PackageNotFoundError(name)
        return found(name)

    before = _versions(FORMATS["onnx"])
    monkeypatch.setattr(importlib.metadata, "version", version)
    assert _versions(FORMATS["onnx"]) == before


def test_a_model_in_half_precision_is_exported_as_its_numbers_in_float32(translator: Path, tmp_path: Path) -> None:
    files = []
    for name, model in (
        ("half", lf.load(translator).to(torch.bfloat16)),
        ("whole", lf.load(translator).to(torch.bfloat16).float()),
    ):
        samples = Samples(SENTENCES, "of this test")
        manifest = export_model(model, str(translator), samples, tmp_path / name, to="ctranslate2")
        assert manifest.parity.agreement == 1.0
        files.append((tmp_path / name / "ctranslate2/model.bin").read_bytes())
    assert files[0] == files[1]


def test_a_model_in_double_precision(translator: Path, tmp_path: Path) -> None:
    model = lf.load(translator).to(torch.float64)
    samples = Samples(SENTENCES, "of this test")
    with pytest.raises(LeanformerError, match="the model's weights are in float64; models in float32 are exported"):
        export_model(model, str(translator), samples, tmp_path / "exported", to="ctranslate2")


def test_data_that_the_model_cannot_read(translator: Path, tmp_path: Path) -> None:
    samples = Samples(["eins " * 100], "of this test")
    with pytest.raises(LeanformerError, match="of this test: holds no input that the model can read"):
        export_model(lf.load(translator), str(translator), samples, tmp_path / "exported", to="ctranslate2")
    assert not list(tmp_path.iterdir())


def test_a_tokenizer_that_does_something_else(
    translator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = train_tokenizer(TokenizerConfig(vocabulary=270), SENTENCES[:3], SENTENCES[:3]).library_forms()
    monkeypatch.setattr(TranslationTokenizer, "library_forms", lambda self: other)
    with pytest.raises(LeanformerError, match=r"the tokenizer is not exported: .* it makes other ids of '"):
        exported(translator, tmp_path / "exported")
    assert not list(tmp_path.iterdir())


def test_the_working_directory_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (".", "sub/..", str(tmp_path), str(tmp_path.parent)):
        with pytest.raises(LeanformerError, match="the directory that this runs in cannot be replaced"):
            check_place(Path(name))


def test_classes_of_one_name_are_told_apart() -> None:
    assert _told_apart(("crane", "dog", "crane")) == ("crane (0)", "dog", "crane (2)")

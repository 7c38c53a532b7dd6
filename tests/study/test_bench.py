"""``leanformer bench``: equal work for all models, what it writes, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from exported import IMAGES, LONGEST, manifest, write_classifier, write_translator
from PIL import Image
from tokenizers import Tokenizer
from transformers import PreTrainedModel

import leanformer as lf
from leanformer.config.reader import read_study
from leanformer.config.translation import TokenizerConfig
from leanformer.core.errors import LeanformerError
from leanformer.data.tokenizers import train_tokenizer
from leanformer.model.generate import translate
from leanformer.results.bench import Bench, digest, read_bench
from leanformer.runtime.engines.onnx import OnnxClassifier, OnnxTranslator
from leanformer.study.bench import bench, identity
from leanformer.tasks.base import open_task

MakeModel = Callable[..., PreTrainedModel]
WORDS = ("one", "two", "three")
END = 0


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call a round is enough: no time is looked at."""
    monkeypatch.setattr("leanformer.measure.bench.LEAST_SECONDS", 0)


@pytest.fixture
def sentences(tmp_path: Path) -> Path:
    """Of 1 to 5 words."""
    file = tmp_path / "sentences.txt"
    file.write_text("".join(" ".join((WORDS * 2)[:count]) + "\n" for count in (3, 1, 5, 2, 4)))
    return file


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What exported models are given, call after call."""
    found: list[Any] = []
    generate, logits = OnnxTranslator.generate, OnnxClassifier.logits

    def spied(self: Any, sources: Any, *, beam: int, max_tokens: int) -> Any:
        found.append((sources, max_tokens))
        return generate(self, sources, beam=beam, max_tokens=max_tokens)

    def spied_logits(self: Any, pixel_values: Any) -> Any:
        found.append(pixel_values)
        return logits(self, pixel_values)

    monkeypatch.setattr(OnnxTranslator, "generate", spied)
    monkeypatch.setattr(OnnxClassifier, "logits", spied_logits)
    return found


def test_classifiers_get_the_same_images(tmp_path: Path, given: list[Any]) -> None:
    write_classifier(tmp_path / "a")
    write_classifier(tmp_path / "b")
    found = bench([str(tmp_path / "a"), str(tmp_path / "b")], batches=[2, 3, 2], rounds=6)
    assert {images.shape for images in given} == {(2, 1, 4, 5), (3, 1, 4, 5)}
    assert len({images.tobytes() for images in given}) == 2
    assert [(timing.batch, timing.length, timing.tokens) for timing in found.models[0].timings] == [
        (2, None, None),
        (3, None, None),
    ]
    for model in found.models:
        for timing in model.timings:
            assert len(timing.rounds.wall_ms) == len(timing.rounds.cpu_ms) == found.rounds == 6
            assert timing.wall_ms.median == np.median(timing.rounds.wall_ms)
            assert timing.wall_ms.low == min(timing.rounds.wall_ms)  # of six, the interval is all of them
            first = found.models[0].timings[model.timings.index(timing)]
            ratios = np.divide(first.rounds.wall_ms, timing.rounds.wall_ms)
            assert timing.speed.median == pytest.approx(np.median(ratios))


def test_translators_get_sentences_of_all_lengths(tmp_path: Path, sentences: Path, given: list[Any]) -> None:
    write_translator(tmp_path / "t")
    found = bench([str(tmp_path / "t")], batches=[1, 5, 10], data=sentences, max_tokens=4, rounds=6)
    one, five, ten = ([len(ids) for ids in sources] for sources, _ in (given[0], given[1], given[2]))
    assert one == [4]  # of median length, with the end mark
    assert five == [2, 3, 4, 5, 6]
    assert ten == [2, 2, 3, 3, 4, 4, 5, 5, 6, 6]
    assert {most for _, most in given} == {4}
    # It writes a word for each word and the end mark, at most four in all.
    assert [timing.tokens for timing in found.models[0].timings] == [4, 2 + 3 + 4 + 4 + 4, 2 * 17]


def test_lengths_are_exact_whatever_the_sentences(tmp_path: Path, sentences: Path, given: list[Any]) -> None:
    write_translator(tmp_path / "t")
    found = bench([str(tmp_path / "t")], batches=[1, 5], lengths=[2, LONGEST], data=sentences, rounds=6)
    ids = {word: Tokenizer.from_file(str(tmp_path / "t" / "tokenizer.json")).token_to_id(word) for word in WORDS}
    one, two, three = (ids[word] for word in WORDS)
    assert [len(sources) for sources, _ in given[:4]] == [1, 1, 5, 5]
    assert given[0][0] == [[one, END]]
    assert given[1][0] == [[one, two, three, one, two, END]]  # three words, repeated
    assert given[3][0][0] == [one] * 5 + [END]
    assert {len(row) for sources, _ in given for row in sources} == {2, LONGEST}
    assert [(timing.batch, timing.length) for timing in found.models[0].timings] == [
        (1, 2),
        (1, LONGEST),
        (5, 2),
        (5, LONGEST),
    ]


@pytest.mark.long
def test_sentences_of_a_study_of_objects_and_built_in(tmp_path: Path, given: list[Any]) -> None:
    write_translator(tmp_path / "t", max_source_tokens=100)
    (tmp_path / "pairs.tsv").write_text("".join(f"{'one ' * number}\tuno\n" for number in range(1, 31)))
    study = {
        "name": "words",
        "task": "translation",
        "data": {"source": str(tmp_path / "pairs.tsv"), "test_limit": 1},
        "baseline": {"model": "marian"},
        "candidates": {"lean": {"plan": {"*.mlp": "none"}}},
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    (tmp_path / "objects.jsonl").write_text(json.dumps({"text": "two two"}) + "\n")
    found = bench([str(tmp_path / "t")], batches=[1], data=tmp_path / "study.yaml", rounds=6)
    assert found.inputs == f"test sentences of {tmp_path / 'study.yaml'}"
    task = open_task(read_study(tmp_path / "study.yaml"), torch.device("cpu"))
    assert found.sentences == digest(task.sentences()["test"])
    assert found.sentences != digest(task.sentences()["validation"])
    assert set(given[0][0][0]) == {3, END}
    given.clear()
    bench([str(tmp_path / "t")], batches=[1], data=tmp_path / "objects.jsonl", rounds=6)
    assert given[0][0] == [[4, 4, END]]
    assert bench([str(tmp_path / "t")], batches=[1], rounds=6).inputs == "number words"


def test_models_in_pytorch_stand_beside_exported_ones(
    tmp_path: Path, make_model: MakeModel, sentences: Path, given: list[Any]
) -> None:
    lf.save(make_model(image_size=[4, 5], patch_size=1), tmp_path / "model")
    settings = {"do_resize": False, "do_normalize": True, "image_mean": [0.5], "image_std": [0.5], "do_rescale": True}
    settings |= {
        "rescale_factor": 1 / 255,
        "size": {"height": 4, "width": 5},
        "image_processor_type": "ViTImageProcessor",
    }
    (tmp_path / "model" / "preprocessor_config.json").write_text(json.dumps(settings))
    write_classifier(tmp_path / "exported")
    out = tmp_path / "new" / "bench.json"
    found = bench([str(tmp_path / "model"), str(tmp_path / "exported")], batches=[1], threads=1, rounds=6, out=out)
    assert read_bench(out) == found
    trained, exported = found.models
    digest = hashlib.sha256((tmp_path / "model" / "model.safetensors").read_bytes()).hexdigest()
    assert trained.key == identity(str(tmp_path / "model")) == ("torch", "float32", digest)
    assert exported.key == ("onnx", "float32", manifest().source.weights)
    assert exported.files == {
        name: (tmp_path / "exported" / name).stat().st_size for name in ("manifest.json", "model.onnx")
    }
    assert exported.bytes == sum(exported.files.values())
    assert {"leanformer", "torch", "onnxruntime", "processor", "cpu_flags"} <= set(found.environment)


def test_a_translator_in_pytorch_writes_what_it_translates(
    tmp_path: Path, make_translator: MakeModel, sentences: Path
) -> None:
    tokenizer = train_tokenizer(TokenizerConfig(vocabulary=270), WORDS, WORDS)
    size = tokenizer.source_vocabulary
    marks = {"eos_token_id": tokenizer.eos_id, "pad_token_id": tokenizer.pad_id}
    model = make_translator(vocab_size=size, decoder_vocab_size=size, **marks)
    lf.save(model, tmp_path / "model")
    tokenizer.save(tmp_path / "model")
    found = bench([str(tmp_path / "model")], batches=[1, 5], data=sentences, max_tokens=7, rounds=6)
    by_length = sorted(sentences.read_text().splitlines(), key=len)
    for timing, chosen in zip(found.models[0].timings, (by_length[2:3], by_length), strict=True):
        translated = translate(model, tokenizer, chosen, max_tokens=7, batch_tokens=1000)
        assert timing.tokens == translated.tokens


def test_a_study_is_not_needed_and_neither_is_pytorch(tmp_path: Path, sentences: Path) -> None:
    write_translator(tmp_path / "t")
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'datasets', 'scipy'): sys.modules[name] = None\n"
        "from leanformer import cli\n"
        "sys.argv = ['leanformer', *sys.argv[1:]]\n"
        "cli.main()\n"
    )
    arguments = ["bench", "t", "--data", str(sentences), "--rounds", "6", "--batch", "1", "--out", "bench.json"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.returncode == 0
    assert "json: bench.json" in done.stdout
    assert "torch" not in read_bench(tmp_path / "bench.json").environment


def changed(directory: Path) -> None:
    with (directory / "model.onnx").open("ab") as file:
        file.write(b"x")


def nothing(directory: Path) -> None:
    pass


REFUSED: dict[str, tuple[Callable[[Path], object], dict[str, Any], str]] = {
    "no model": (lambda path: (path / "empty").mkdir(), {"models": ["t", "empty"]}, "empty: not a model directory"),
    "two tasks": (
        lambda path: write_classifier(path / "c"),
        {"models": ["t", "c"]},
        "t is for translation and c for image-classification; bench models of one task",
    ),
    "a changed file": (lambda path: changed(path / "t"), {}, "model.onnx: changed since it was exported"),
    "too long a length": (
        nothing,
        {"lengths": [7]},
        "t: --length 7, and the model takes at most 6; take shorter sources (--length)",
    ),
    "too long sentences": (
        lambda path: (path / "sentences.txt").write_text("one two one two one two\n"),
        {},
        "t: a sentence has 7 subwords, and the model takes at most 6; take shorter sources (--length)",
    ),
    "a beam in ONNX": (nothing, {"beam": 2}, "t: beam 2: a model that is exported to ONNX searches greedily"),
    "no sentences": (
        lambda path: (path / "sentences.txt").write_text("\n \n"),
        {},
        "--data sentences.txt: holds no sentences; give a file with one a line",
    ),
    "a study of images": (
        lambda path: (path / "s.yaml").write_text(
            "{name: s, candidates: {a: {plan: {}}}, data: {source: digits}, baseline: {model: vit}}"
        ),
        {"data": Path("s.yaml")},
        "--data s.yaml: a study of the task image-classification, whose data are no sentences",
    ),
    "lengths of images": (
        lambda path: write_classifier(path / "c"),
        {"models": ["c"], "lengths": [3], "data": None},
        "--length does nothing here: the models classify images; leave it out",
    ),
    "sentences for images": (
        lambda path: write_classifier(path / "c"),
        {"models": ["c"]},
        "--data does nothing here: the models classify images; leave it out",
    ),
    "a beam of images": (
        lambda path: write_classifier(path / "c"),
        {"models": ["c"], "data": None, "beam": 2},
        "--beam does nothing here: the models classify images; leave it out",
    ),
    "a place that cannot be written": (
        lambda path: (path / "out").mkdir(),
        {"out": Path("out")},
        "out: cannot be written: it is a directory; give a file's path",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_is_named_in_one_line_and_nothing_is_written(
    case: str, tmp_path: Path, sentences: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_translator(tmp_path / "t")
    prepare, arguments, line = REFUSED[case]
    prepare(tmp_path)
    settings: dict[str, Any] = {"models": ["t"], "data": Path(sentences.name), "out": Path("new/bench.json")}
    with pytest.raises(LeanformerError) as refused:
        bench(**{**settings, **arguments})
    assert line in str(refused.value)
    assert not (tmp_path / "new").exists()


def test_built_in_sentences_need_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_translator(tmp_path / "t")
    monkeypatch.setitem(sys.modules, "num2words", None)
    monkeypatch.delitem(sys.modules, "leanformer.data.number_words", raising=False)
    with pytest.raises(
        LeanformerError, match=r"not installed \(num2words\); give --data FILE with one sentence a line"
    ):
        bench([str(tmp_path / "t")])


CONTENT: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another version": (
        lambda content: content.update(version=9),
        "its version is 9, and this leanformer reads version 1",
    ),
    "no version": (lambda content: content.pop("version"), "its version is None"),
    "no models": (lambda content: content.pop("models"), "not what leanformer bench writes"),
    "an empty list": (lambda content: content.update(models=[]), "damaged (models: "),
    "no times": (
        lambda content: content["models"][0].pop("timings"),
        "damaged (the key 'models.0.timings' is missing)",
    ),
    "another engine": (lambda content: content["models"][0].update(runtime="tpu"), "damaged (models.0.runtime: "),
    "an interval beside its median": (
        lambda content: content["models"][0]["timings"][0]["wall_ms"].update(low=9.0, median=1.0),
        "damaged (models.0.timings.0.wall_ms: the median 1 is not from 9 to",
    ),
}


@pytest.mark.parametrize("case", CONTENT)
def test_a_file_that_holds_something_else(case: str, tmp_path: Path) -> None:
    write_classifier(tmp_path / "c")
    file = tmp_path / "bench.json"
    bench([str(tmp_path / "c")], batches=[1], rounds=6, out=file)
    change, line = CONTENT[case]
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    with pytest.raises(LeanformerError) as refused:
        read_bench(file, "measure.from")
    assert f"measure.from {file}: {line}" in str(refused.value)
    assert "write it anew: leanformer bench DIR... --out FILE" in str(refused.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(LeanformerError, match=r"measure\.from: .*nowhere: cannot be read: No such file"):
        read_bench(tmp_path / "nowhere", "measure.from")
    (tmp_path / "text").write_text("{")
    with pytest.raises(LeanformerError, match=r"^\S*text: not JSON; write it anew"):
        read_bench(tmp_path / "text")


def test_the_file_is_as_its_form_says(tmp_path: Path) -> None:
    write_classifier(tmp_path / "c", IMAGES)
    Image.new("L", (5, 4)).save(tmp_path / "c" / "example.png")
    found = bench([str(tmp_path / "c")], rounds=6, out=tmp_path / "bench.json")
    assert [timing.batch for timing in found.models[0].timings] == [1, 32]
    assert list(json.loads((tmp_path / "bench.json").read_text())) == list(Bench.model_fields)
    assert "example.png" in found.models[0].files

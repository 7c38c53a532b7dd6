"""``leanformer predict`` and ``translate``: exported models, and others by PyTorch."""

from __future__ import annotations

import gzip
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from exported import IMAGES, write_classifier, write_translator
from image_files import random_image
from PIL import Image
from transformers import PreTrainedModel

import leanformer as lf
from leanformer import cli
from leanformer.config.translation import TokenizerConfig
from leanformer.data.image_files import Resizing
from leanformer.data.preprocessing import shipped_processor
from leanformer.data.tokenizers import train_tokenizer
from leanformer.model.generate import translate


@pytest.fixture
def leanformer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs a command in an empty directory: its exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, text: str | None = None) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["leanformer", *arguments])
        if text is not None:
            monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        with pytest.raises(SystemExit) as ended:
            cli.main()
        output, error = capsys.readouterr()
        return int(ended.value.code or 0), output, error

    return run


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Files in folders, beside what is no image."""
    files = [tmp_path / "images" / name for name in ("a.png", "inner/b.png", "inner/deep/c.PNG", "z.jpg")]
    for number, file in enumerate(files):
        file.parent.mkdir(parents=True, exist_ok=True)
        random_image(number, (9, 7)).save(file)
    (tmp_path / "images" / "notes.txt").write_text("no image")
    (tmp_path / "images" / ".hidden.png").write_text("no image")
    return files


def test_images_of_a_folder_are_classified(leanformer: Run, pictures: list[Path], tmp_path: Path) -> None:
    write_classifier(tmp_path / "model")
    wanted = lf.runtime.load("model").predict(pictures)  # type: ignore[union-attr]
    code, output, _ = leanformer("predict", "model", "images", "--batch", "3")
    assert code == 0
    lines = [json.loads(line) for line in output.splitlines()]
    assert [line["file"] for line in lines] == [str(file.relative_to(tmp_path)) for file in pictures]
    for line, prediction in zip(lines, wanted, strict=True):
        assert (line["label"], line["probability"]) == (prediction.label, pytest.approx(prediction.probability, 1e-5))
        assert line["probabilities"] == pytest.approx(prediction.probabilities, 1e-5)
        numbers = list(line["probabilities"].values())
        assert numbers == sorted(numbers, reverse=True)

    assert leanformer("predict", "model", "images", "--out", "new/answers.jsonl") == (0, "", "")
    assert (tmp_path / "new/answers.jsonl").read_text() == output
    _, output, _ = leanformer("predict", "model", "images/z.jpg", "images/a.png", "--top", "2")
    first, second = [json.loads(line) for line in output.splitlines()]
    assert (first, second) == tuple(
        {**line, "probabilities": dict(list(line["probabilities"].items())[:2])} for line in (lines[3], lines[0])
    )
    _, output, _ = leanformer("predict", "model", "images/a.png", "--format", "lines")
    assert output == f"images/a.png\t{lines[0]['label']}\t{lines[0]['probability']}\n"
    _, output, _ = leanformer("predict", "model", "images/a.png", "--format", "lines", "--top", "9")
    assert output.rstrip("\n").split("\t")[1::2] == list(lines[0]["probabilities"])


def test_a_model_that_is_not_exported(
    leanformer: Run, pictures: list[Path], tmp_path: Path, make_model: Callable[..., PreTrainedModel]
) -> None:
    model = lf.reduce(make_model(num_labels=3), {"*.mlp": "none"})
    lf.save(model, tmp_path / "student")
    processor = shipped_processor(Resizing((16, 16)), (0.4,), (0.3,), False, None)
    (tmp_path / "student/preprocessor_config.json").write_text(processor.to_json_string())
    code, output, _ = leanformer("predict", "student", "images", "--device", "cpu", "--threads", "1")
    assert code == 0
    image = lf.read_image(pictures[0], tmp_path / "student").resize((16, 16), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy((np.asarray(image, np.float32) / 255 - 0.4) / 0.3)[None, None]
    with torch.inference_mode():
        wanted = model(pixels).logits.softmax(-1)[0].tolist()
    found = json.loads(output.splitlines()[0])["probabilities"]
    assert [found[f"LABEL_{number}"] for number in range(3)] == pytest.approx(wanted, 1e-4)


LINES = '{"id": 7, "text": "one two", "n": [1, null]}\n\n{"text": "", "source": "three", "id": "\\ud800"}\n'


def test_sentences_are_translated(leanformer: Run, tmp_path: Path) -> None:
    write_translator(tmp_path / "model")
    assert leanformer("predict", "model", text="one two\n\nthree\n")[1].splitlines() == [
        '{"text": "one two", "translation": "uno dos"}',
        '{"text": "", "translation": ""}',
        '{"text": "three", "translation": "tres"}',
    ]
    wanted = [
        '{"id": 7, "text": "one two", "n": [1, null], "translation": "uno dos"}',
        '{"text": "", "source": "three", "id": "\\ud800", "translation": ""}',
    ]
    assert leanformer("predict", "model", text=LINES)[1].splitlines() == wanted
    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress(LINES.encode()))
    (tmp_path / "more.txt").write_text("two\n")
    assert leanformer("predict", "model", "in.jsonl.gz", "more.txt", "--out", "out.jsonl") == (0, "", "")
    assert (tmp_path / "out.jsonl").read_text().splitlines() == [*wanted, '{"text": "two", "translation": "dos"}']
    output = leanformer("predict", "model", "--key", "from", text='{"from": "three"}\n')[1]
    assert json.loads(output) == {"from": "three", "translation": "tres"}
    assert leanformer("predict", "model", "--format", "lines", text=LINES)[1] == "uno dos\n\n"
    assert leanformer("predict", "model", text="") == (0, "", "")
    for options in ((), ("--threads", "1", "--device", "cpu")):
        assert leanformer("translate", "model", *options, text="one two\n\nthree\n")[1] == "uno dos\n\ntres\n"


def test_a_translator_that_is_not_exported(
    leanformer: Run, tmp_path: Path, make_translator: Callable[..., PreTrainedModel]
) -> None:
    lines = ["zwei Hunde", "drei"]
    tokenizer = train_tokenizer(TokenizerConfig(vocabulary=300), lines, lines)
    size = tokenizer.source_vocabulary
    marks = {"pad_token_id": tokenizer.pad_id, "decoder_start_token_id": tokenizer.pad_id}
    model = make_translator(vocab_size=size, decoder_vocab_size=size, **marks)
    lf.save(model, tmp_path / "model")
    tokenizer.save(tmp_path / "model")
    wanted = translate(model, tokenizer, lines, max_tokens=256, batch_tokens=4096).texts
    code, output, _ = leanformer("predict", "model", "--device", "cpu", text="\n".join(lines))
    assert code == 0
    assert [json.loads(line) for line in output.splitlines()] == [
        {"text": line, "translation": translation} for line, translation in zip(lines, wanted, strict=True)
    ]


BAD: dict[str, tuple[list[str], str | None, str]] = {
    "no such file": (["predict", "model", "none.png"], None, "none.png: no such file or directory"),
    "no model": (["predict", "nowhere", "images"], None, "nowhere: no such model directory"),
    "no images": (["predict", "model"], None, "no images are given; name image files, or folders of them"),
    "an empty folder": (
        ["predict", "model", "empty"],
        None,
        "empty: holds no images; give a folder with files such as",
    ),
    "a text": (["predict", "model", "images/notes.txt"], None, "images/notes.txt: not a readable image (of no known"),
    "a broken image": (["predict", "model", "broken", "--out", "out"], None, "broken/b.png: not a readable image ("),
    "a key for images": (["predict", "model", "images", "--key", "text"], None, "--key: model reads images"),
    "top of a translator": (["predict", "words", "--top", "3"], "one\n", "--top: words is a translator"),
    "a changed file": (["predict", "changed", "images"], None, "changed/model.onnx: changed since it was exported"),
    "a classifier": (["translate", "model"], "one\n", "model: a model for image-classification, not a translator"),
    "a beam": (["translate", "words", "--beam", "3"], "one\n", "beam 3: a model that is exported to ONNX searches"),
    "a device": (["predict", "words", "--device", "mps"], "one\n", "device mps: onnxruntime has none of this name"),
    "no PyTorch device": (["predict", "student", "images", "--device", "coreml"], None, "no device is called 'coreml'"),
    "no preparation": (["predict", "student", "images"], None, "student: has no preprocessor_config.json"),
    "too long": (["predict", "words"], "one\n" + "one " * 9, "sentence 2 has 10 tokens, and the model takes at most 6"),
    "no JSON": (["predict", "words", "bad.jsonl"], None, "bad.jsonl, line 2: not JSON ("),
    "no object": (["predict", "words", "--key", "a"], "[1]\n", "standard input, line 1: [1] is no object"),
    "no text": (["predict", "words"], '{"a": 1, "b": 2}', "line 1: no key 'text' or 'source'; there is a, b: say with"),
    "no such key": (["predict", "words", "--key", "c"], '{"a": 1}', "line 1: no key 'c'; there is a: say with --key"),
    "no string": (["predict", "words"], '{"text": 5}', "standard input, line 1: 'text' is 5; it must be text"),
    "half a letter": (["predict", "words"], '{"text": "\\ud800"}', "line 1: 'text' holds half a character"),
    "an answer": (["predict", "words"], '{"text": "a", "translation": "b"}', "line 1: has a key 'translation' already"),
}


@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_line(
    case: str, leanformer: Run, tmp_path: Path, make_model: Callable[..., PreTrainedModel]
) -> None:
    write_classifier(tmp_path / "model")
    arguments, text, message = BAD[case]
    if "words" in arguments:
        write_translator(tmp_path / "words")
    if "student" in arguments:
        lf.save(make_model(), tmp_path / "student")
    shutil.copytree(tmp_path / "model", tmp_path / "changed")
    (tmp_path / "changed/model.onnx").write_bytes(b"another")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    shutil.copy(tmp_path / "images/a.png", tmp_path / "broken/a.png")
    (tmp_path / "broken/b.png").write_bytes((tmp_path / "images/a.png").read_bytes()[:60])
    (tmp_path / "bad.jsonl").write_text('{"text": "one"}\n{"text": \n')
    code, output, error = leanformer(*arguments, text=text)
    assert code == 2, (output, error)
    assert error.count("\n") == 1, error
    assert message in error
    assert error.startswith("leanformer: error: ")
    assert not (tmp_path / "out").exists()


def test_names_that_a_terminal_would_obey(leanformer: Run, tmp_path: Path) -> None:
    write_classifier(tmp_path / "model", IMAGES.model_copy(update={"classes": ("a\tb", "\x1b[31mred", "c")}))
    random_image(0, (9, 7)).save(tmp_path / "x\ny.png")
    _, output, _ = leanformer("predict", "model", "x\ny.png", "--format", "lines", "--top", "3")
    assert output.count("\n") == 1
    assert "\x1b" not in output
    assert output.count("\t") == 6
    assert json.loads(leanformer("predict", "model", "x\ny.png")[1])["file"] == "x\ny.png"


LIGHT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "datasets", "huggingface_hub", "rich", "yaml"):
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Missing())
from leanformer.__main__ import main

main()
"""


def test_an_exported_model_needs_no_pytorch(tmp_path: Path) -> None:
    write_classifier(tmp_path / "images")
    random_image(0, (9, 7)).save(tmp_path / "a.png")
    command = [sys.executable, "-c", LIGHT, "predict", "images", "a.png", "--format", "lines"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"a\.png\t\w+\t0\.\d+\n", done.stdout)

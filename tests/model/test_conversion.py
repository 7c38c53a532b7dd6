"""``leanformer convert``: pickled weights become safetensors, and nothing that is pickled runs."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import slow
from safetensors.torch import load_file
from transformers import PreTrainedModel
from typer.testing import CliRunner

import leanformer as lf
from leanformer.cli import app
from leanformer.config.translation import TokenizerConfig
from leanformer.data.tokenizers import TranslationTokenizer, train_tokenizer

MakeModel = Callable[..., PreTrainedModel]


class Bomb:
    """Unpickled as code would have it, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def line_of(call: Callable[[], object]) -> str:
    """The error's message, which is one line."""
    with pytest.raises(lf.LeanformerError) as raised:
        call()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def pickled(model: PreTrainedModel, directory: Path, parts: int = 1, zipped: bool = True) -> Path:
    """A directory as older ones are: the model's weights in one pickle, or in parts with an index."""
    lf.save(model, directory)
    (directory / "model.safetensors").unlink()
    state = model.state_dict()
    if parts == 1:
        torch.save(state, directory / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
        return directory
    weight_map: dict[str, str] = {}
    for part in range(parts):
        file = f"pytorch_model-{part + 1:05}-of-{parts:05}.bin"
        names = list(state)[part::parts]
        torch.save({name: state[name] for name in names}, directory / file)
        weight_map |= dict.fromkeys(names, file)
    (directory / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return directory


@pytest.mark.parametrize("family", ["vit", *slow("deit"), "marian", *slow("bart")])
@pytest.mark.parametrize("student", [*slow(False), True])
@pytest.mark.parametrize(
    ("parts", "zipped", "precision"), [*slow((1, True, "float32"), (1, False, "float16")), (3, True, "bfloat16")]
)
def test_every_number_is_kept(
    make_model: MakeModel,
    make_translator: MakeModel,
    tmp_path: Path,
    family: str,
    student: bool,
    parts: int,
    zipped: bool,
    precision: str,
) -> None:
    model = (make_model if family in ("vit", "deit") else make_translator)(family)
    model = lf.reduce(model, {"*.mlp": "none"} if student else {}) if student else model
    model = model.to(getattr(torch, precision))
    source = pickled(model, tmp_path / "model", parts, zipped)
    assert lf.convert(source, tmp_path / "out") == tmp_path / "out"
    assert (tmp_path / "out" / "model.safetensors").is_file()
    loaded = lf.load(tmp_path / "out")
    assert type(loaded) is type(model)
    assert loaded.dtype == model.dtype
    computed = set(model._keys_to_ignore_on_save or ())
    for name, tensor in model.state_dict().items():
        assert name in computed or torch.equal(tensor, loaded.state_dict()[name]), name
    assert sorted(os.listdir(tmp_path)) == ["model", "out"]


def test_numbers_of_two_types_are_kept_whatever_the_configuration_says(make_model: MakeModel, tmp_path: Path) -> None:
    source = pickled(make_model(), tmp_path / "model")
    state = make_model().state_dict()
    state = {name: tensor.half() if i % 2 else tensor.double() / 3 for i, (name, tensor) in enumerate(state.items())}
    torch.save(state, source / "pytorch_model.bin")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "dtype": "float16", "output_attentions": True}))
    lf.convert(source, tmp_path / "out")
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert {tensor.dtype for tensor in found.values()} == {torch.float64}
    assert all(torch.equal(tensor.double(), found[name]) for name, tensor in state.items())


def test_complex_numbers_are_refused_by_name(make_model: MakeModel, tmp_path: Path) -> None:
    source = pickled(make_model(), tmp_path / "model")
    state = make_model().state_dict() | {"classifier.bias": torch.zeros(5, dtype=torch.complex64)}
    torch.save(state, source / "pytorch_model.bin")
    line = line_of(lambda: lf.convert(source, tmp_path / "out"))
    assert "pytorch_model.bin: 'classifier.bias' is of type complex64, which no model here holds" in line


def test_a_link_to_nowhere_is_no_place(make_model: MakeModel, tmp_path: Path) -> None:
    source = pickled(make_model(), tmp_path / "model")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    line = line_of(lambda: lf.convert(source, tmp_path / "link"))
    assert line == f"{tmp_path / 'link'}: is a broken link; remove it, or give a new directory"
    assert sorted(os.listdir(tmp_path)) == ["link", "model"]


def test_what_goes_along(make_translator: MakeModel, tmp_path: Path) -> None:
    """A tokenizer, an image processor and how the model generates; no code, and no address of any."""
    texts = ["one two three", "two three", "three one"]
    tokenizer = train_tokenizer(TokenizerConfig(vocabulary=270), texts, texts)
    model = make_translator(vocab_size=tokenizer.source_vocabulary, decoder_vocab_size=tokenizer.source_vocabulary)
    model.generation_config.num_beams = 3
    source = pickled(model, tmp_path / "model")
    tokenizer.save(source)
    for file in ("config.json", "tokenizer_config.json", "preprocessor_config.json"):
        path = source / file
        settings = json.loads(path.read_text()) if path.exists() else {"image_mean": [0.5]}
        path.write_text(json.dumps({**settings, "auto_map": {"AutoConfig": "code.Config"}}))
    (source / "code.py").write_text("raise AssertionError")
    (source / "notes.txt").write_text("mine")
    out = lf.convert(source, tmp_path / "out")
    assert sorted(os.listdir(out)) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert not any("auto_map" in path.read_text() for path in out.glob("*config.json"))
    assert json.loads((out / "preprocessor_config.json").read_text()) == {"image_mean": [0.5]}
    assert TranslationTokenizer.load(out).signature() == tokenizer.signature()
    assert lf.load(out).generation_config.num_beams == 3


def test_tokenizers_of_both_sides_go_along(make_translator: MakeModel, tmp_path: Path) -> None:
    texts = ["one two three", "two three", "three one"]
    tokenizer = train_tokenizer(TokenizerConfig(vocabulary=270, shared=False), texts, texts)
    source = pickled(make_translator(), tmp_path / "model")
    tokenizer.save(source)
    out = lf.convert(source, tmp_path / "out")
    assert TranslationTokenizer.load(out).signature() == tokenizer.signature()


def test_generation_settings_of_an_older_model(make_translator: MakeModel, tmp_path: Path) -> None:
    """They stand in config.json."""
    source = pickled(make_translator(), tmp_path / "model")
    (source / "generation_config.json").unlink()
    settings = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**settings, "num_beams": 6, "bad_words_ids": [[1]]}))
    generation = lf.load(lf.convert(source, tmp_path / "out")).generation_config
    assert (generation.num_beams, generation.bad_words_ids) == (6, [[1]])


@pytest.mark.parametrize("how", ["torch", "torch of before", "plain pickle"])
def test_a_pickle_that_would_run_is_one_line(make_model: MakeModel, tmp_path: Path, how: str) -> None:
    source = pickled(make_model(), tmp_path / "model")
    marker = tmp_path / "marker"
    contents = {"vit.a": torch.zeros(2), "bomb": Bomb(marker)}
    if how == "plain pickle":
        (source / "pytorch_model.bin").write_bytes(pickle.dumps(contents))
    else:
        torch.save(contents, source / "pytorch_model.bin", _use_new_zipfile_serialization=how == "torch")
    line = line_of(lambda: lf.convert(source, tmp_path / "out"))
    assert line.startswith(
        f"{source}: not a model that can be converted: pytorch_model.bin is damaged, or holds more than"
    )
    assert "weights_only=False" not in line
    assert "pytorch_model.bin" in line_of(lambda: lf.load(source))
    assert sorted(os.listdir(tmp_path)) == ["model"]
    # The same file does run where it is trusted, so that the test is one.
    torch.load(source / "pytorch_model.bin", weights_only=False) if how != "plain pickle" else pickle.loads(
        (source / "pytorch_model.bin").read_bytes()
    )
    assert marker.is_dir()


def whole(directory: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(directory / "pytorch_model.bin", weights_only=True)
    return state


def replaced(directory: Path, **entries: Any) -> None:
    torch.save(
        {**whole(directory), **{name.replace("__", "."): value for name, value in entries.items()}},
        directory / "pytorch_model.bin",
    )


def missing(directory: Path) -> None:
    state = whole(directory)
    del state["classifier.bias"]
    torch.save(state, directory / "pytorch_model.bin")


def index(name: str) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        (directory / "pytorch_model.bin").rename(directory.parent / "other.bin")
        (directory / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"a": name}}))

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda path: (path / "pytorch_model.bin").unlink(),
            "it holds neither pytorch_model.bin nor",
        ),
        (
            lambda path: (path / "pytorch_model.bin").write_bytes(b"abc"),
            "pytorch_model.bin is damaged, or holds more than",
        ),
        (
            lambda path: os.truncate(path / "pytorch_model.bin", 9000),
            "pytorch_model.bin is damaged, or holds more than",
        ),
        (lambda path: torch.save([1], path / "pytorch_model.bin"), "holds no mapping of names to tensors, but a list"),
        (lambda path: replaced(path, epoch=3), "'epoch' is not a plain tensor; save the model's state_dict alone"),
        (
            lambda path: replaced(path, stretched=torch.zeros(1).expand(10**6, 10**6)),
            "'stretched' claims more numbers than the file holds",
        ),
        (
            lambda path: replaced(path, more=torch.zeros(2)),
            "do not fit the configuration: 1 unexpected keys",
        ),
        (missing, "the weights do not fit the configuration: 1 missing keys, such as classifier.bias"),
        (
            lambda path: replaced(path, classifier__bias=torch.zeros(7)),
            "the weights do not fit the configuration: 1 mismatched keys",
        ),
        (
            lambda path: replaced(path, classifier__bias=torch.full((5,), float("nan"))),
            "5 of the 5 numbers of classifier.bias are not finite",
        ),
        (index("../other.bin"), "the weights must be in the directory itself"),
        (index("none.bin"), "names 'none.bin', and there is no such file"),
        (
            lambda path: (path / "config.json").write_text('{"model_type": "bert"}'),
            "architectures is None; it must name the class of the model",
        ),
        (lambda path: (path / "config.json").unlink(), "it holds no config.json"),
        (lambda path: (path / "tokenizer_config.json").write_text("{"), "tokenizer_config.json is not JSON"),
    ],
)
def test_what_is_not_converted(
    make_model: MakeModel, tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    """Nothing half-written is left."""
    source = pickled(make_model(), tmp_path / "model")
    damage(source)
    assert message in line_of(lambda: lf.convert(source, tmp_path / "out"))
    assert not [name for name in os.listdir(tmp_path) if name not in ("model", "other.bin")]


def test_safetensors_are_not_converted(make_model: MakeModel, tmp_path: Path) -> None:
    lf.save(make_model(), tmp_path / "model")
    assert "its weights are safetensors already" in line_of(lambda: lf.convert(tmp_path / "model", tmp_path / "out"))


def test_where_the_result_may_go(make_model: MakeModel, tmp_path: Path) -> None:
    source = pickled(make_model(), tmp_path / "model")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    for taken in ("file", "full", "model"):
        assert "exists already" in line_of(partial(lf.convert, source, tmp_path / taken))
    assert "cannot be written" in line_of(lambda: lf.convert(source, tmp_path / "file" / "out"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    lf.convert(source, tmp_path / "link")
    assert lf.load(tmp_path / "empty").dtype == torch.float32
    lf.convert(source, tmp_path / "new" / "below")
    assert sorted(os.listdir(tmp_path)) == ["empty", "file", "full", "link", "model", "new"]
    assert os.listdir(tmp_path / "new") == ["below"]


def test_the_command(make_model: MakeModel, tmp_path: Path) -> None:
    source = pickled(make_model(), tmp_path / "model")
    done = CliRunner().invoke(app, ["convert", str(source), str(tmp_path / "out")])
    assert (done.exit_code, done.stdout) == (0, f"model: {tmp_path / 'out'}\n")
    done = CliRunner().invoke(app, ["convert", str(source), str(tmp_path / "out")])
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(f"leanformer: error: {tmp_path / 'out'}: exists already")

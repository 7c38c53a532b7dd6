"""Model directories that are not to be trusted, damaged or of other kinds; and what Auto classes make of students."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import transformers
from cases import slow
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    BertModel,
    DeiTConfig,
    DeiTForImageClassificationWithTeacher,
    PreTrainedModel,
    ViTConfig,
)
from typer.testing import CliRunner, Result

import leanformer as lf
from leanformer.cli import app
from leanformer.config.base import TrainConfig
from leanformer.config.translation import TokenizerConfig
from leanformer.data.preprocessing import read_preprocessing
from leanformer.data.tokenizers import TranslationTokenizer, train_tokenizer
from leanformer.learn.step import TrainingStep, make_accelerator
from leanformer.model.baseline import fresh_model
from leanformer.model.image_baseline import ImageBaseline
from leanformer.model.text_baseline import TextBaseline

MakeModel = Callable[..., PreTrainedModel]

# What a directory may bring: each class marks that it was imported, and would be taken for any part of a model.
CODE = """
from pathlib import Path
Path({marker!r}).touch()
from transformers import *
class Config(ViTConfig): model_type = "{model_type}"
class Model(ViTForImageClassification): pass
class Tokenizer(PreTrainedTokenizerFast): pass
class Processor(ViTImageProcessor): pass
"""


def line_of(call: Callable[[], object]) -> str:
    """The error's message, which is one line."""
    with pytest.raises(lf.LeanformerError) as raised:
        call()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def change(directory: Path, **settings: Any) -> None:
    change_file(directory / "config.json", **settings)


def change_file(path: Path, **settings: Any) -> None:
    """Sets keys of a file's JSON; ... takes one out."""
    old = json.loads(path.read_text()) if path.exists() else {}
    new = {key: value for key, value in {**old, **settings}.items() if value is not ...}
    path.write_text(json.dumps(new))


def with_code(directory: Path, marker: Path, model_type: str | None = None) -> None:
    """Gives a directory Python code and names it wherever transformers looks for such names."""
    if model_type is not None:
        change(directory, model_type=model_type)
    known = json.loads((directory / "config.json").read_text())["model_type"]
    (directory / "code.py").write_text(CODE.format(marker=str(marker), model_type=known))
    names = {
        "AutoConfig": "code.Config",
        "AutoModel": "code.Model",
        "AutoModelForImageClassification": "code.Model",
        "AutoModelForSeq2SeqLM": "code.Model",
        "AutoTokenizer": ["code.Tokenizer", "code.Tokenizer"],
        "AutoImageProcessor": "code.Processor",
    }
    change(directory, auto_map=names)
    for file in ("tokenizer_config.json", "preprocessor_config.json"):
        change_file(directory / file, auto_map=names)
    custom = directory / "custom_generate"
    custom.mkdir()
    (custom / "generate.py").write_text(f"from pathlib import Path\nPath({str(marker)!r}).touch()\n")


def command(*arguments: str | Path) -> Result:
    """What a command prints where standard input says yes to everything."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input="y\n" * 20)


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is asked is an error."""

    def asked(*arguments: object) -> str:
        raise AssertionError("somebody was asked")

    monkeypatch.setattr("builtins.input", asked)


@pytest.fixture
def saved(make_model: MakeModel, tmp_path: Path) -> Path:
    lf.save(make_model(), tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def translator(make_translator: MakeModel, tmp_path: Path) -> Path:
    """With its tokenizer."""
    texts = ["one two three", "two three", "three one"]
    tokenizer = train_tokenizer(TokenizerConfig(vocabulary=270), texts, texts)
    size = tokenizer.source_vocabulary
    model = make_translator(
        vocab_size=size,
        decoder_vocab_size=size,
        eos_token_id=tokenizer.eos_id,
        pad_token_id=tokenizer.pad_id,
        decoder_start_token_id=tokenizer.pad_id,
    )
    lf.save(model, tmp_path / "translator")
    tokenizer.save(tmp_path / "translator")
    return tmp_path / "translator"


# Code


def test_code_of_a_directory_never_runs(saved: Path, translator: Path, tmp_path: Path) -> None:
    """Not even where standard input says yes."""
    marker = tmp_path / "marker"
    wanted = lf.load(saved).state_dict()
    vocabulary = TranslationTokenizer.load(translator).source_vocabulary
    with_code(saved, marker)
    with_code(translator, marker)
    loaded = lf.load(saved)
    assert type(loaded).__module__.startswith("transformers.models.vit")
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in loaded.state_dict().items())
    assert TranslationTokenizer.load(translator).source_vocabulary == vocabulary
    read_preprocessing(str(saved), "vit", None, 1, own_size=True, own_numbers=True)
    sites = command("sites", saved)
    assert (sites.exit_code, "ViTForImageClassification" in sites.stdout) == (0, True), sites.output
    (tmp_path / "text").write_text("one two\n")
    translated = command("translate", translator, tmp_path / "text", "--device", "cpu", "--max-tokens", "3")
    assert (translated.exit_code, translated.stdout.count("\n")) == (0, 1), translated.output
    assert not marker.exists()


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize(
    ("model_type", "problem"),
    [
        ("other", "model type 'other' is not supported: transformers has no such architecture"),
        ("bert", "config.json: model_type 'bert' and the class ViTForImageClassification do not belong together"),
    ],
)
def test_code_of_an_unknown_architecture_is_refused_unasked(
    saved: Path, tmp_path: Path, model_type: str, problem: str
) -> None:
    marker = tmp_path / "marker"
    with_code(saved, marker, model_type)

    wanted = f"{saved}: not a model that can be loaded: {problem}"
    for task in (ImageBaseline, TextBaseline):
        assert line_of(partial(task, str(saved), {}, fresh=False)).startswith(wanted)
    assert line_of(lambda: lf.load(saved)).startswith(wanted)
    study: dict[str, Any] = {
        "name": "x",
        "data": {"source": "digits"},
        "candidates": {"no": {"plan": {"*.mlp": "none"}}},
    }
    assert line_of(lambda: lf.run({**study, "baseline": {"model": str(saved)}}, tmp_path / "run")).startswith(wanted)
    assert line_of(lambda: lf.inspect(saved, "digits", tmp_path / "inspected")).startswith(wanted)
    assert not marker.exists()


@pytest.mark.usefixtures("nobody")
def test_a_tokenizer_of_code_is_refused_unasked(translator: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    with_code(translator, marker)
    change(translator, model_type="other")
    change_file(translator / "tokenizer_config.json", tokenizer_class="Tokenizer")

    assert "its tokenizer cannot be read" in line_of(lambda: TranslationTokenizer.load(translator))
    assert not marker.exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"attn_implementation": "kernels-community/flash-attn"},
            "attn_implementation is 'kernels-community/flash-attn'",
        ),
        (
            {"_attn_implementation": "flash_attention_2"},
            "remove the key, or write one of eager",
        ),
        ({"attn_implementation": {"": "kernels-community/flash-attn"}}, "remove the key"),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "its weights are quantized"),
        ({"quantization_config": {"quant_method": "gptq"}}, "save it in float32, float16 or bfloat16"),
        ({"transformers_weights": "../other.safetensors"}, "name the file model.safetensors"),
        ({"fusion_config": {"patch_embeddings": True}}, "it asks for fused layers"),
        ({"dtype": "nonsense"}, "dtype is 'nonsense'; it must be one of float64, float32, float16, bfloat16"),
        ({"torch_dtype": ["float32"], "dtype": ...}, "torch_dtype is"),
        ({"torch_dtype": "int8", "dtype": ...}, "torch_dtype is 'int8'"),
        ({"to_dict": 5}, "config.json: "),
        ({"return_dict": False}, "return_dict is False; it must be true, as outputs are read by their names"),
        ({"output_hidden_states": "x"}, "output_hidden_states is 'x'; it must be true or false"),
        ({"patch_size": 20}, "patch_size 20 is more than image_size 16"),
        ({"hidden_dropout_prob": None}, "hidden_dropout_prob is None; it must be from 0 to less than 1"),
        ({"hidden_act": "gleu"}, "gleu"),
        ({"id2label": 7}, "config.json: "),
        ({"model_type": ["vit"]}, r"model_type is ['vit']; it must name an architecture"),
        ({"model_type": ...}, "model_type is None; it must name an architecture"),
        (
            {"model_type": "timm_wrapper", "architecture": "vit_tiny"},
            "a timm model (vit_tiny), which",
        ),
        ({"model_type": ..., "architecture": "vit_tiny_patch16_224"}, "take a ViT or DeiT in the form of transformers"),
        ({"model_type": "leanformer_vit", "plan": [1]}, "plan must be a mapping of sites"),
        (
            {"model_type": "leanformer_vit", "plan": {"encoder.0.mlp": {"block": "mlp", "hidden": 10**12}}},
            "argument 'hidden' must be at most 1,048,576",
        ),
    ],
)
def test_what_a_configuration_may_not_say(saved: Path, settings: dict[str, Any], message: str) -> None:
    change(saved, **settings)
    line = line_of(lambda: lf.load(saved))
    assert message in line
    assert line.startswith(f"{saved}: not a model that can be loaded: ")


def test_no_library_is_loaded_because_a_configuration_says_so(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(sys.modules)
    change(saved, quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True})
    line_of(lambda: lf.load(saved))
    assert not [name for name in set(sys.modules) - before if name.startswith(("bitsandbytes", "kernels", "peft"))]


# Sizes


@pytest.fixture
def all_digits() -> Iterator[None]:
    """Python reads and writes numbers of any length."""
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    yield
    sys.set_int_max_str_digits(before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"num_hidden_layers": 10**30},
            f"num_hidden_layers is {10**30}; it must be a whole number",
        ),
        ({"num_hidden_layers": 10**5000}, "num_hidden_layers is a number of more than 30 digits"),
        ({"num_hidden_layers": 200_000}, "num_hidden_layers is 200000; it must be a whole number, from 1 to 1,000"),
        ({"hidden_size": 10**9}, "hidden_size is 1000000000; it must be a whole number, from 1 to 65,536"),
        ({"hidden_size": -24}, "hidden_size is -24; it must be a whole number, 1 or more"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0; it must be a whole number, 1 or more"),
        ({"num_hidden_layers": True}, "num_hidden_layers is True; it must be a whole number"),
        ({"num_hidden_layers": 3.0}, "num_hidden_layers is 3.0; it must be a whole number"),
        ({"num_hidden_layers": "3"}, "num_hidden_layers is '3'; it must be a whole number"),
        ({"hidden_size": None}, "hidden_size is None; it must be a whole number"),
        ({"hidden_size": [24]}, "hidden_size is a list; it must be a whole number"),
        ({"image_size": [16, 16, 16]}, "image_size is a list; it must be a whole number, or height and width"),
        ({"image_size": [16, 10**9]}, "image_size is a list; it must be a whole number, or height and width"),
        ({"image_size": 10**9}, "image_size is 1000000000"),
        ({"layer_norm_eps": float("nan")}, "layer_norm_eps is nan; it must be a finite number"),
        ({"hidden_dropout_prob": 1.5}, "hidden_dropout_prob is 1.5; it must be from 0 to less than 1"),
        ({"hidden_dropout_prob": float("inf")}, "hidden_dropout_prob is inf"),
        ({"encoder_stride": 10**20}, "encoder_stride is 100000000000000000000"),
        ({"num_attention_heads": 5}, "num_attention_heads 5 does not divide hidden_size 24"),
    ],
)
def test_sizes_beyond_reason_are_refused_at_once(
    saved: Path, settings: dict[str, Any], message: str, all_digits: None
) -> None:
    """In a directory as in a study."""
    change(saved, **settings)
    line = line_of(lambda: lf.load(saved))
    assert line.startswith(f"{saved}: not a model that can be loaded: config.json: {message}")
    line = line_of(lambda: fresh_model("vit", {"hidden_size": 24, **settings}))
    assert line.startswith(f"baseline.config: {message}")


def test_models_beyond_reason_are_refused_at_once(saved: Path) -> None:
    """A model of hundreds of billions of parameters, of sizes that are each within bounds."""
    settings = {"hidden_size": 16384, "num_hidden_layers": 100, "intermediate_size": 65536}
    change(saved, **settings)
    assert "the weights do not fit the configuration: it describes 322," in line_of(lambda: lf.load(saved))
    line = line_of(lambda: fresh_model("vit", {**settings, "num_attention_heads": 8}))
    assert line.startswith("baseline.config: a model of 322,")
    assert line.endswith("GB are free on this machine; make it smaller")


def test_a_number_of_endless_digits_is_no_json(saved: Path) -> None:
    (saved / "config.json").write_text('{"model_type": "vit", "num_hidden_layers": ' + "9" * 100_000 + "}")
    assert "config.json is not JSON" in line_of(lambda: lf.load(saved))


@pytest.mark.parametrize(
    ("key", "value"),
    [("encoder_layers", 200_000), ("d_model", 10**9), ("vocab_size", 10**12), ("max_position_embeddings", 10**12)],
)
def test_sizes_of_translators(translator: Path, key: str, value: int) -> None:
    change(translator, **{key: value})
    wanted = f"{key} is {value}; it must be a whole number, from 1 to"
    assert wanted in line_of(lambda: lf.load(translator))
    assert wanted in line_of(lambda: fresh_model("marian", {key: value}))
    assert wanted in line_of(lambda: TextBaseline("bart", {key: value}, fresh=False))


@pytest.mark.parametrize("key", ["pad_token_id", "decoder_start_token_id"])
@pytest.mark.parametrize("value", [-1, 10**6])
def test_marks_of_translators(translator: Path, key: str, value: int) -> None:
    words = json.loads((translator / "config.json").read_text())["vocab_size"]
    change(translator, **{key: value})
    wanted = f"{key} is {value}; it must be the number of a subword, from 0 to"
    assert f"{wanted} {words - 1}" in line_of(lambda: lf.load(translator))
    assert wanted in line_of(lambda: fresh_model("marian", {key: value}))


def test_a_plan_is_a_students(saved: Path) -> None:
    """In the configuration of another model it says nothing."""
    sites = lf.sites(lf.load(saved))
    change(saved, plan={"encoder.0.mlp": {"block": "none"}}, attribute_map={"hidden_size": "image_size"})
    assert lf.sites(lf.load(saved)) == sites


def test_what_does_not_fit_into_memory_is_refused(make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model()
    free = psutil.virtual_memory()._replace(available=4 * model.num_parameters() - 1)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    keys = "hidden_size num_hidden_layers intermediate_size num_attention_heads patch_size image_size num_channels"
    shape = {key: getattr(model.config, key) for key in (*keys.split(), "num_labels")}
    assert f"baseline.config: a model of {model.num_parameters():,} parameters takes 0.0 GB" in line_of(
        lambda: fresh_model("vit", shape)
    )
    smaller = fresh_model("vit", {**shape, "num_hidden_layers": 2})
    assert line_of(lambda: lf.reduce(smaller, {"*.mlp": {"block": "mlp", "hidden": 2**20}})).startswith(
        "plan: a model of"
    )


def test_outlines_draw_no_random_numbers() -> None:
    """A fresh model's weights follow from the seed as ever."""
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    torch.manual_seed(3)
    fresh = fresh_model("vit", shape)
    torch.manual_seed(3)
    plain = type(fresh)(ViTConfig(**shape))
    assert all(torch.equal(tensor, plain.state_dict()[name]) for name, tensor in fresh.state_dict().items())


def test_attention_of_the_hub_in_a_study() -> None:
    line = line_of(lambda: fresh_model("vit", {"attn_implementation": "kernels-community/flash-attn"}))
    assert line.startswith("baseline.config: attn_implementation is 'kernels-community/flash-attn'")
    assert "write one of eager, sdpa" in line


# Files


def config_as_directory(path: Path) -> None:
    (path / "config.json").unlink()
    (path / "config.json").mkdir()


def pipe(path: Path) -> None:
    (path / "config.json").unlink()
    os.mkfifo(path / "config.json")


def deep(path: Path) -> None:
    (path / "config.json").write_text('{"a": ' * 800_000)


def huge(path: Path) -> None:
    with (path / "config.json").open("wb") as file:
        file.truncate(2**31)


def index(path: Path, name: str) -> None:
    (path / "model.safetensors").rename(path / "part.safetensors")
    tensors = load_file(path / "part.safetensors")
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(tensors, name)}))


def outside(path: Path) -> None:
    index(path, "../part.safetensors")
    (path / "part.safetensors").rename(path.parent / "part.safetensors")


def absolute(path: Path) -> None:
    index(path, str(path / "part.safetensors"))


def no_map(path: Path) -> None:
    index(path, "part.safetensors")
    (path / "model.safetensors.index.json").write_text('{"weight_map": ["part.safetensors"]}')


def pickled(path: Path) -> None:
    torch.save(load_file(path / "model.safetensors"), path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()


def renamed(path: Path) -> None:
    (path / "model.safetensors").rename(path / "model.gguf")


def adapter(path: Path) -> None:
    (path / "adapter_config.json").write_text('{"base_model_name_or_path": "some/other"}')


def distributed(path: Path) -> None:
    shutil.copy(path / "model.safetensors", path / "shard-00001-model-00001-of-00001.safetensors")


def pipe_for_weights(path: Path) -> None:
    (path / "model.safetensors").unlink()
    os.mkfifo(path / "model.safetensors")


def broken_link(path: Path) -> None:
    (path / "model.safetensors").unlink()
    (path / "model.safetensors").symlink_to("gone")


def part_that_is_a_pipe(path: Path) -> None:
    index(path, "part.safetensors")
    (path / "part.safetensors").unlink()
    os.mkfifo(path / "part.safetensors")


def index_that_is_a_directory(path: Path) -> None:
    (path / "model.safetensors").unlink()
    (path / "model.safetensors.index.json").mkdir()


def complex_numbers(path: Path) -> None:
    save_file({"classifier.bias": torch.zeros(3, dtype=torch.complex64)}, path / "model.safetensors")


def pickle_as_safetensors(path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, path / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (config_as_directory, "config.json is not a regular file"),
        (pipe, "config.json is not a regular file"),
        (lambda path: (path / "config.json").write_text("[1]"), "config.json holds no JSON object, but a list"),
        (lambda path: (path / "config.json").write_text("null"), "config.json holds no JSON object"),
        (lambda path: (path / "config.json").write_bytes(b"\xff\xfe{}"), "config.json is not JSON"),
        (deep, "config.json is not JSON"),
        (huge, "config.json has more than 67,108,864 bytes; it is no configuration"),
        (outside, "index.json names '../part.safetensors'; the weights must be in the directory itself"),
        (absolute, "the weights must be in the directory itself"),
        (lambda path: index(path, "none.safetensors"), "names 'none.safetensors', and there is no such file"),
        (no_map, "holds no weight_map of tensors to files"),
        (pickled, "its weights are pickled (pytorch_model.bin), and a pickle can run code; write them as safetensors"),
        (renamed, "it holds no model.safetensors, only model.gguf, which leanformer does not read"),
        (lambda path: (path / "model.safetensors").unlink(), "it holds no model.safetensors; save it with"),
        (adapter, "a PEFT adapter is beside the weights; merge it into the model"),
        (distributed, "a distributed checkpoint of PyTorch"),
        (pickle_as_safetensors, "model.safetensors: "),
        (pipe_for_weights, "model.safetensors is a pipe; put the file itself in its place"),
        (broken_link, "model.safetensors is a broken link; put the file itself in its place"),
        (part_that_is_a_pipe, "index.json names 'part.safetensors', which is a pipe"),
        (index_that_is_a_directory, "model.safetensors.index.json is a directory; put the file itself"),
        (complex_numbers, "model.safetensors: 'classifier.bias' is of type C64, which no model here holds; save it"),
    ],
)
def test_files_that_are_refused(saved: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(saved)
    line = line_of(lambda: lf.load(saved))
    assert line.startswith(f"{saved}: not a model that can be loaded: ")
    assert message in line


def test_the_command_for_pickles_is_named(saved: Path) -> None:
    pickled(saved)
    assert line_of(lambda: lf.load(saved)).endswith(f"leanformer convert {saved} OUT")


def test_parts_and_links_are_read(saved: Path, tmp_path: Path) -> None:
    wanted = lf.load(saved).state_dict()
    tensors = load_file(saved / "model.safetensors")
    names = sorted(tensors)
    files = {"model-00001-of-00002.safetensors": names[:9], "model-00002-of-00002.safetensors": names[9:]}
    (saved / "model.safetensors").unlink()
    for file, part in files.items():
        save_file({name: tensors[name] for name in part}, tmp_path / file, metadata={"format": "pt"})
        (saved / file).symlink_to(tmp_path / file)  # as in the hub's cache
    weight_map = {name: file for file, part in files.items() for name in part}
    (saved / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (tmp_path / "link").symlink_to(saved)
    found = lf.load(tmp_path / "link").state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())


def test_a_distilled_deit_is_told_apart(tmp_path: Path) -> None:
    config = DeiTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, image_size=8, patch_size=4
    )
    DeiTForImageClassificationWithTeacher(config).save_pretrained(tmp_path)
    assert "a distilled DeiT with two classifiers" in line_of(lambda: lf.load(tmp_path))


@pytest.mark.parametrize("channels", [2, 4])
def test_channels_that_no_image_has(make_model: MakeModel, tmp_path: Path, channels: int) -> None:
    lf.save(make_model(num_channels=channels), tmp_path / "model")
    line = line_of(lambda: ImageBaseline(str(tmp_path / "model"), {}, fresh=False))
    assert f"model takes {channels} channels, and images are read with 1 (grey) or 3 (color)" in line
    line = line_of(lambda: ImageBaseline("vit", {"num_channels": channels}, fresh=False))
    assert line.startswith(f"baseline.config: num_channels: the model takes {channels} channels")


# The hub


def test_the_hub_gives_data_alone_and_the_configuration_first(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for files by their names, and for weights only of a model that can be read."""
    asked: list[tuple[str, str | None, list[str]]] = []

    def snapshot_download(name: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, revision, allow_patterns))
        return str(saved)

    monkeypatch.setattr("leanformer.model.directory.snapshot_download", snapshot_download)
    wanted = lf.load(saved).state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in lf.load("some/model").state_dict().items())
    configuration = ["config.json", "generation_config.json"]
    weights = ["model.safetensors", "model.safetensors.index.json", "model-*.safetensors"]
    assert asked == [("some/model", None, configuration), ("some/model", saved.name, [*configuration, *weights])]
    asked.clear()
    change(saved, model_type="other")
    assert line_of(lambda: lf.load("some/model")).startswith("some/model: not a model that can be loaded: model type")
    assert len(asked) == 1


def test_a_hub_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot_download(name: str, **settings: Any) -> str:
        raise ConnectionError("nobody\nanswers")

    monkeypatch.setattr("leanformer.model.directory.snapshot_download", snapshot_download)
    line = line_of(lambda: lf.load("some/model"))
    assert "no such directory here, and the hub does not give it (nobody answers)" in line


# Numbers


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers_are_neither_saved_nor_loaded(
    make_model: MakeModel, tmp_path: Path, value: float
) -> None:
    model = make_model()
    lf.save(model, tmp_path / "model")
    with torch.no_grad():
        model.classifier.bias[3] = value
    line = line_of(lambda: lf.save(model, tmp_path / "new"))
    assert f"1 of the 5 numbers of classifier.bias are not finite ({value})" in line
    assert not (tmp_path / "new").exists()
    tensors = load_file(tmp_path / "model" / "model.safetensors")
    tensors["classifier.bias"][3] = value
    save_file(tensors, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    assert "numbers of classifier.bias are not finite" in line_of(lambda: lf.load(tmp_path / "model"))


def test_a_buffer_may_be_infinite_but_no_nan(make_translator: MakeModel, tmp_path: Path) -> None:
    model = make_translator()
    model.final_logits_bias[0, 5] = float("-inf")  # a word that is never written
    lf.save(model, tmp_path / "model")
    assert torch.equal(lf.load(tmp_path / "model").final_logits_bias, model.final_logits_bias)
    model.final_logits_bias[0, 5] = float("nan")
    assert "final_logits_bias" in line_of(lambda: lf.save(model, tmp_path / "model"))


def test_names_of_classes_are_kept(make_model: MakeModel, tmp_path: Path) -> None:
    names = dict(enumerate(["ash", "beech", "elm", "fir", "oak"]))
    model = make_model(id2label=names, label2id={name: number for number, name in names.items()})
    for made in (model, lf.reduce(model, {"*.mlp": "none"})):
        lf.save(made, tmp_path / "model")
        assert lf.load(tmp_path / "model").config.id2label == names


@pytest.mark.parametrize("precision", [torch.float16, *slow(torch.bfloat16, torch.float32)])
@pytest.mark.parametrize("fresh", [False, True])
def test_a_study_trains_in_float32(make_model: MakeModel, tmp_path: Path, precision: torch.dtype, fresh: bool) -> None:
    lf.save(make_model().to(precision), tmp_path / "model")
    assert lf.load(tmp_path / "model").dtype == precision
    baseline = ImageBaseline(str(tmp_path / "model"), {}, fresh)
    made = baseline._make(0, {})
    assert {parameter.dtype for parameter in made.parameters()} == {torch.float32}
    assert made.config.dtype in (None, torch.float32)
    assert bool(baseline.notes) == (precision != torch.float32)
    if not fresh:
        saved = lf.load(tmp_path / "model").state_dict()
        assert all(torch.equal(tensor, saved[name].float()) for name, tensor in made.state_dict().items())


@pytest.mark.long
@pytest.mark.usefixtures("nobody")
def test_a_study_tells_that_it_trains_in_float32_and_runs_no_code(
    make_model: MakeModel, digits_study: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    lf.save(make_model(image_size=8, num_labels=10).to(torch.float16), tmp_path / "model")
    with_code(tmp_path / "model", tmp_path / "marker")
    study = digits_study(
        baseline={"model": str(tmp_path / "model")},
        candidates={"no-mlp": {"plan": {"*.mlp": "none"}}},
        train={"epochs": 1, "batch_size": 128, "learning_rate": [1e-3]},
        seeds=[0],
    )
    with pytest.raises(lf.LeanformerError, match=r"the image processor of .* says auto_map: .* not understood"):
        lf.run(study, tmp_path / "run")
    study["data"] |= {"image_size": 8, "normalize": "data"}
    result = lf.run(study, tmp_path / "run")
    note = f"{tmp_path / 'model'} is kept in float16; it is trained, measured and saved in float32"
    assert note in result.results["data"]["notes"]
    assert not (tmp_path / "marker").exists()
    for name in ("baseline", "no-mlp"):
        assert lf.load(tmp_path / "run" / "trials" / name / "seed-0" / "model").dtype == torch.float32


@pytest.mark.parametrize("said", ["float16", *slow("bfloat16", "float64"), None])
def test_weights_are_loaded_as_they_are_stored_whatever_the_configuration_says(
    make_model: MakeModel, tmp_path: Path, said: str | None
) -> None:
    model = make_model()
    lf.save(model, tmp_path / "model")
    change(tmp_path / "model", dtype=said)
    loaded = lf.load(tmp_path / "model")
    assert loaded.dtype == loaded.config.dtype == torch.float32
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert not ImageBaseline(str(tmp_path / "model"), {}, fresh=False).notes


def test_weights_of_several_types_are_loaded_in_the_one_that_holds_all(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model()
    lf.save(model, tmp_path / "model")
    types = (torch.float16, torch.bfloat16)  # none of these holds the other's numbers
    stored = {name: tensor.to(types[i % 2]) for i, (name, tensor) in enumerate(model.state_dict().items())}
    save_file(stored, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    loaded = lf.load(tmp_path / "model")
    assert loaded.dtype == torch.float32
    assert all(torch.equal(tensor.float(), loaded.state_dict()[name]) for name, tensor in stored.items())


@pytest.mark.parametrize("key", ["output_attentions", "output_hidden_states"])
def test_what_is_asked_for_beside_the_output_is_left_out(saved: Path, tmp_path: Path, key: str) -> None:
    change(saved, **{key: True})
    model = lf.load(saved)
    lf.save(model, tmp_path / "again")
    lf.save(lf.reduce(model, {"*.mlp": "none"}), tmp_path / "student")
    assert not getattr(lf.load(tmp_path / "student").config, key)


def test_a_configuration_that_cannot_be_saved_is_one_line(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model(attn_implementation="eager")
    model.config.output_attentions = True
    model.config._attn_implementation = "sdpa"
    line = line_of(lambda: lf.save(model, tmp_path / "model"))
    assert "the model cannot be written: " in line
    assert "output_attentions" in line


def test_flex_attention_is_not_trained_on_a_cpu(saved: Path) -> None:
    change(saved, attn_implementation="flex_attention")
    model, accelerator = lf.load(saved), make_accelerator("float32", torch.device("cpu"))
    line = line_of(lambda: TrainingStep(model, TrainConfig(), 1e-3, accelerator))
    assert line.startswith("attn_implementation: flex_attention cannot be trained on a CPU; write sdpa or eager")


def test_a_wrong_head_is_one_line_and_no_report(saved: Path, capfd: pytest.CaptureFixture[str]) -> None:
    change(saved, id2label={"0": "a", "1": "b"}, label2id={"a": 0, "b": 1})
    transformers.logging.set_verbosity_warning()  # as outside of these tests
    try:
        assert "the weights do not fit the configuration: 2 mismatched keys" in line_of(lambda: lf.load(saved))
    finally:
        transformers.logging.set_verbosity_error()
    assert capfd.readouterr() == ("", "")


# Auto classes


@pytest.mark.long
def test_auto_classes_ask_where_they_miss_leanformer_and_importing_it_is_light(
    make_model: MakeModel, tmp_path: Path
) -> None:
    """In a new process, which takes its seconds: here students are known already."""
    lf.reduce(make_model(), {"*.mlp": "none"}).save_pretrained(tmp_path)
    code = """
import sys, leanformer
print([name for name in ("torch", "transformers") if name in sys.modules])
from transformers import AutoModelForImageClassification
try:
    AutoModelForImageClassification.from_pretrained(sys.argv[1])
except ValueError as error:
    print("\\nerror:", str(error).splitlines()[0])
import leanformer.auto
print(type(AutoModelForImageClassification.from_pretrained(sys.argv[1])).__module__)
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, input="n\n", capture_output=True, text=True, check=True)
    light, *asked, loaded = done.stdout.splitlines()
    assert light == "[]"
    assert "contains custom code which must be executed" in asked[-1]
    assert loaded == "leanformer.model.families.vit"


# Types


WRONG_MODELS: dict[str, Any] = {
    "None": None,
    "number": 5,
    "list": [],
    "path": "model",
    "Linear": nn.Linear(2, 2),
    "configuration": ViTConfig(),
    "class": BertModel,
}


@pytest.mark.parametrize("wrong", WRONG_MODELS.values(), ids=list(WRONG_MODELS))
def test_each_function_wants_a_model(wrong: Any, tmp_path: Path) -> None:
    for call in (lambda: lf.sites(wrong), lambda: lf.reduce(wrong, {}), lambda: lf.save(wrong, tmp_path / "model")):
        line = line_of(call)
        assert line.startswith("model: ")
        assert "leanformer reduces Hugging Face models, not" in line
    assert line_of(lambda: lf.distill(wrong, {}, [])).startswith("teacher: ")
    assert not (tmp_path / "model").exists()


def test_what_is_close_to_a_model_gets_a_hint() -> None:
    assert "not str; load it first: lf.load(...)" in line_of(lambda: lf.sites("model"))
    assert "not ViTConfig; make a model of the configuration first" in line_of(lambda: lf.sites(ViTConfig()))


@pytest.mark.parametrize("wrong", [None, 5, [], {}, b"model", "", "a\0b", nn.Linear(2, 2)], ids=repr)
def test_each_function_wants_a_path(make_model: MakeModel, wrong: Any) -> None:
    assert line_of(lambda: lf.load(wrong)).startswith("source: give a path, as text")
    assert line_of(lambda: lf.save(make_model(), wrong)).startswith("directory: give a path, as text")
    assert line_of(lambda: lf.convert(wrong, "out")).startswith("source: give a path, as text")
    assert line_of(lambda: lf.convert("model", wrong)).startswith("out: give a path, as text")


@pytest.mark.parametrize("wrong", [None, 5, [], "none", nn.Linear(2, 2)], ids=repr)
def test_each_function_wants_a_plan(make_model: MakeModel, wrong: Any) -> None:
    batch = {"pixel_values": torch.zeros(1, 1, 16, 16), "labels": torch.zeros(1, dtype=torch.long)}
    for call in (lambda: lf.reduce(make_model(), wrong), lambda: lf.distill(make_model(), wrong, [batch])):
        assert "a plan is a mapping of site patterns to blocks, not" in line_of(call)


def test_a_model_is_saved_here_and_nowhere_else(
    make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    lf.save(make_model(), ".")
    assert sorted(os.listdir()) == ["config.json", "model.safetensors"]
    (tmp_path / "file").touch()
    assert "not a directory; choose another place" in line_of(lambda: lf.save(make_model(), tmp_path / "file"))
    assert "not a model directory, but a file" in line_of(lambda: lf.load(tmp_path / "file"))
    assert line_of(lambda: lf.load("nothing")).startswith("nothing: no such model directory, and no hub id")
    assert "no file can be called 'xxx" in line_of(lambda: lf.load("x" * 100_000))
    assert "directory: no file can be called 'xxx" in line_of(lambda: lf.save(make_model(), "x" * 300))


def test_generation_settings_that_contradict_themselves_are_one_line(
    make_translator: MakeModel, tmp_path: Path
) -> None:
    model = make_translator()
    model.generation_config.num_beams, model.generation_config.num_return_sequences = 1, 4
    assert "the model cannot be written: " in line_of(lambda: lf.save(model, tmp_path / "model"))
    assert not os.listdir(tmp_path)


# Damage


@pytest.mark.parametrize("part", [0.001, 0.3, 0.5, 0.7, 0.9, 1.0])
def test_a_flipped_bit_of_the_weights_is_found(saved: Path, part: float) -> None:
    file = saved / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[max(9, int(part * (len(content) - 1)))] ^= 1
    file.write_bytes(content)
    with pytest.raises(lf.LeanformerError, match=r"model\.safetensors: damaged|safetensors"):
        lf.load(saved)


def test_weights_that_transformers_saves_anew_carry_no_sum_of_others(saved: Path) -> None:
    model = lf.load(saved)
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    model.save_pretrained(saved)
    assert torch.equal(next(lf.load(saved).parameters()), next(model.parameters()))


def test_a_sealed_file_is_an_ordinary_one(saved: Path) -> None:
    from safetensors import safe_open

    with safe_open(saved / "model.safetensors", framework="pt") as file:
        assert file.metadata()["format"] == "pt"
        assert len(file.metadata()["sha256"]) == 64
    again = type(lf.load(saved)).from_pretrained(saved)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), lf.load(saved).parameters(), strict=True))

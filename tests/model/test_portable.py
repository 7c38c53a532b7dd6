"""Students that transformers alone loads: with the file that they carry, in a process that has no leanformer."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import textwrap
import venv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from places import ROOT
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedModel
from transformers.dynamic_module_utils import get_class_from_dynamic_module

import leanformer as lf
from leanformer.blocks.kit.base import BLOCKS
from leanformer.data.image_files import Resizing
from leanformer.data.preprocessing import shipped_processor
from leanformer.model.portable.student_file import FILE

MakeModel = Callable[..., PreTrainedModel]

# Loads each directory as a stranger does, and prints whether it says the same.
STRANGER = """
import json, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("leanformer", "pydantic", "pydantic_core"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
import torch, transformers
from safetensors.torch import load_file

transformers.logging.set_verbosity_error()
found = {}
for directory, auto in json.loads(sys.argv[1]).items():
    given = load_file(directory + "/given.safetensors")
    logits = given.pop("logits")
    words = given.pop("words", None)
    start = {name: tensor for name, tensor in given.items() if name != "decoder_input_ids"}
    config = transformers.AutoConfig.from_pretrained(directory, trust_remote_code=True)
    model = getattr(transformers, auto).from_pretrained(directory, trust_remote_code=True)
    with torch.no_grad():
        same = torch.equal(model.eval()(**given).logits, logits)
    if words is not None:
        same = same and torch.equal(model.generate(**start, max_new_tokens=8, num_beams=2, do_sample=False), words)
    model.save_pretrained(directory + "/again")
    again = getattr(transformers, auto).from_pretrained(directory + "/again", trust_remote_code=True)
    with torch.no_grad():
        kept = torch.equal(again.eval()(**given).logits, logits)
    found[directory] = [same, kept, type(config).__name__, type(model).__name__]
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Case:
    """A student.

    Args:
        model: The class of the model that it is made from; one of the families' that lie in ``conftest.py`` by name.
        auto: The class of transformers that loads it.
        plan: Its plan.
    """

    model: str
    auto: str
    plan: Mapping[str, Any]


VIT = "AutoModelForImageClassification"
MARIAN = "AutoModelForSeq2SeqLM"
SYNTHESIZER = {"block": "synthesizer", "max_length": 16, "source_score": "network"}
SIZES: dict[str, Any] = {"vocab_size": 40, "num_labels": 3, "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 0}
WIDTHS = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 32}
SHAPES: dict[str, dict[str, Any]] = {
    "BertForSequenceClassification": WIDTHS,
    "LlamaForCausalLM": WIDTHS,
    "GPT2LMHeadModel": {"n_embd": 24, "n_layer": 3, "n_head": 4, "n_positions": 32},
    "OPTForCausalLM": {**WIDTHS, "ffn_dim": 32, "word_embed_proj_dim": 24, "max_position_embeddings": 32},
    "T5ForConditionalGeneration": {
        "d_model": 24, "d_kv": 6, "d_ff": 32, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 1,
    },
}  # fmt: skip

QUICK = {
    "vit": Case("vit", VIT, {"encoder.0.self_attention": "slots", "encoder.1.mlp": "none", "pooling": "mean"}),
    "bert": Case(
        "BertForSequenceClassification",
        "AutoModelForSequenceClassification",
        {
            "encoder.0.self_attention": "average",
            "encoder.1.mlp": {"block": "mlp", "hidden": 8},
            "encoder.2.layer": "none",
        },
    ),
    "marian": Case("marian", MARIAN, {"decoder.*.self_attention": "ssru", "encoder.0.self_attention": SYNTHESIZER}),
    "gpt2": Case("GPT2LMHeadModel", "AutoModelForCausalLM", {"decoder.1.self_attention": "slots"}),
}

# Each block once where it can stand, and each kind of place.
EACH = {
    "keep_heads": Case("vit", VIT, {"*.self_attention": {"block": "attention", "keep_heads": [0, 3]}}),
    "some_heads": Case("vit", VIT, {"encoder.1.self_attention": {"block": "slots", "heads": [1, 2]}}),
    "average": Case("marian", MARIAN, {"decoder.*.self_attention": "average", "*.cross_attention": "average"}),
    "class_token": Case("deit", VIT, {"pooling": "class_token", "encoder.0.mlp": "none"}),
    "feed_forward": Case(
        "marian", MARIAN, {"*.self_attention": {"block": "feed_forward", "size": "M", "max_length": 16}}
    ),
    "of_heads": Case(
        "vit", VIT, {"encoder.0.self_attention": {"block": "feed_forward", "per_head": True, "size": "L"}}
    ),
    "of_sublayers": Case("bart", MARIAN, {"*_sublayer": {"block": "feed_forward", "size": "L", "max_length": 16}}),
    "of_a_layer": Case("deit", VIT, {"encoder.1.layer": {"block": "feed_forward", "size": "L"}}),
    "linear_attention": Case(
        "LlamaForCausalLM", "AutoModelForCausalLM", {"decoder.*.self_attention": "linear_attention"}
    ),
    "mean": Case("deit", VIT, {"pooling": "mean", "*.self_attention": "average"}),
    "minimal_attention": Case(
        "vit", VIT, {"*.self_attention": {"block": "minimal_attention", "qk_norm": True, "temperature": True}}
    ),
    "mixer": Case("vit", VIT, {"*.self_attention": "mixer"}),
    "mixer_of_texts": Case(
        "marian", MARIAN, {"encoder.*.self_attention": {"block": "mixer", "positions": "absolute", "max_length": 16}}
    ),
    "mlp": Case("T5ForConditionalGeneration", MARIAN, {"*.mlp": {"block": "mlp", "hidden": 8}}),
    "none": Case("bart", MARIAN, {"decoder.0.cross_attention": "none", "encoder.1.layer": "none", "*.mlp": "none"}),
    "slots": Case("T5ForConditionalGeneration", MARIAN, {"*_attention": {"block": "slots", "rank": 2}}),
    "ssru": Case(
        "LlamaForCausalLM", "AutoModelForCausalLM", {"decoder.*.self_attention": {"block": "ssru", "output": True}}
    ),
    "synthesizer": Case("T5ForConditionalGeneration", MARIAN, {"*_attention": SYNTHESIZER}),
    "target_vocabulary": Case(
        "marian", MARIAN, {"target_vocabulary": {"ids": list(range(20))}, "*.cross_attention": "slots"}
    ),
    "keep_found_heads": Case(
        "OPTForCausalLM", "AutoModelForCausalLM", {"*.self_attention": {"block": "attention", "keep_heads": 2}}
    ),
    "some_found_heads": Case(
        "OPTForCausalLM", "AutoModelForCausalLM", {"decoder.1.self_attention": {"block": "slots", "heads": [1]}}
    ),
}


@pytest.fixture
def make(make_model: MakeModel, make_translator: MakeModel) -> Callable[[str], PreTrainedModel]:
    """A tiny model by the name of its family or its class."""

    def of(name: str) -> PreTrainedModel:
        if name in SHAPES:
            kind = getattr(transformers, name)
            return kind(kind.config_class(**{**SIZES, **SHAPES[name]})).eval()
        return make_model(name) if name in ("vit", "deit") else make_translator(name)

    return of


def inputs_of(student: PreTrainedModel) -> dict[str, torch.Tensor]:
    if student.main_input_name == "pixel_values":
        return {"pixel_values": torch.randn(2, 1, 16, 16)}
    given = {"input_ids": torch.randint(2, 20, (2, 6))}
    if student.config.is_encoder_decoder:
        return {**given, "decoder_input_ids": torch.randint(2, 20, (2, 5))}
    return given


def saved(make: Callable[[str], PreTrainedModel], cases: Mapping[str, Case], directory: Path) -> dict[str, str]:
    """Saves students with inputs and what they answer; gives directory -> Auto class."""
    from safetensors.torch import save_file

    for name, case in cases.items():
        student = lf.reduce(make(case.model), case.plan).eval()
        lf.save(student, directory / name)
        given = inputs_of(student)
        with torch.no_grad():
            told = {**given, "logits": student(**given).logits}
            if student.can_generate():
                start = {key: value for key, value in given.items() if key != "decoder_input_ids"}
                told["words"] = student.generate(**start, max_new_tokens=8, num_beams=2, do_sample=False)
        save_file({key: value.contiguous() for key, value in told.items()}, directory / name / "given.safetensors")
    return {str(directory / name): case.auto for name, case in cases.items()}


def as_a_stranger(code: str, directory: Path, *arguments: str, python: str = sys.executable) -> str:
    """The last line that a program prints in a process of its own."""
    environment = {
        "HF_HOME": str(directory / "home"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PATH": "/usr/bin:/bin",
    }
    command = [python, "-c", textwrap.dedent(code), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=directory, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()[-1]


def check_all(make: Callable[[str], PreTrainedModel], cases: Mapping[str, Case], directory: Path) -> None:
    students = saved(make, cases, directory)
    found = json.loads(as_a_stranger(STRANGER, directory, json.dumps(students)))
    for name, (path, (same, kept, config, model)) in zip(cases, found.items(), strict=True):
        told = json.loads((Path(path) / "config.json").read_text())
        assert same, f"{name}: other answers"
        assert kept, f"{name}: other answers when it was saved again"
        assert told["auto_map"]["AutoConfig"] == f"modeling_leanformer.{config}"
        assert told["auto_map"][students[path]] == f"modeling_leanformer.{model}"


def test_transformers_alone_loads_students(make: Callable[[str], PreTrainedModel], tmp_path: Path) -> None:
    check_all(make, QUICK, tmp_path)


@pytest.mark.long
def test_transformers_alone_loads_each_block(make: Callable[[str], PreTrainedModel], tmp_path: Path) -> None:
    plans = [entry for case in EACH.values() for entry in case.plan.values()]
    tried = {entry if isinstance(entry, str) else entry.get("block") for entry in plans}
    assert tried >= {name for name, block in BLOCKS.items() if block.__module__.startswith("leanformer.")}
    check_all(make, EACH, tmp_path)


@pytest.mark.parametrize("case", QUICK.values(), ids=list(QUICK))
def test_the_file_holds_what_it_needs_and_no_more(
    make: Callable[[str], PreTrainedModel], tmp_path: Path, case: Case
) -> None:
    lf.reduce(make(case.model), case.plan).save_pretrained(tmp_path)
    text = (tmp_path / FILE).read_text()
    tree = ast.parse(text)
    imported = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom | ast.Import)
    }
    assert {str(module).partition(".")[0] for module in imported} <= {"torch", "transformers", *sys.stdlib_module_names}
    assert "Apache License 2.0" in (ast.get_docstring(tree) or "")
    defined = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert len(set(defined)) == len(defined)
    used = {entry if isinstance(entry, str) else entry["block"] for entry in case.plan.values()}
    registered = {node.name for node in tree.body if isinstance(node, ast.ClassDef) and node.decorator_list}
    blocks = {name: block.__name__ for name, block in BLOCKS.items()}
    assert registered & set(blocks.values()) == {blocks[name] for name in used}


def test_where_leanformer_is_imported_the_file_never_runs(make_model: MakeModel, tmp_path: Path) -> None:
    """tests/model/test_loading.py says what happens where it is not."""
    lf.reduce(make_model(), {"*.mlp": "none"}).save_pretrained(tmp_path)
    (tmp_path / FILE).write_text("raise SystemExit('the file ran')\n")
    for given in ({}, {"trust_remote_code": True}):
        model = transformers.AutoModelForImageClassification.from_pretrained(tmp_path, **given)
        assert type(model).__module__ == "leanformer.model.families.vit"
    assert type(lf.load(tmp_path)).__module__ == "leanformer.model.families.vit"


def test_leanformer_wants_its_own_class(make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    lf.save(lf.reduce(make_model(), {"*.mlp": "none"}), tmp_path / "student")
    name = "modeling_leanformer.LeanViTForImageClassification"
    stranger = get_class_from_dynamic_module(name, str(tmp_path / "student")).from_pretrained(tmp_path / "student")
    for call in (lambda: lf.sites(stranger), lambda: lf.reduce(stranger, {"*.self_attention": "none"})):
        with pytest.raises(lf.LeanformerError, match=r"model: this student is made of its directory's own code"):
            call()


# Blocks of other packages

OWN = '''
"""A package's block."""
from __future__ import annotations
from typing import Any
import math
import torch
from torch import nn
from leanformer.blocks.kit.base import Arguments, Block, BlockModule, register
from leanformer.blocks.kit.inputs import BlockInputs

FACTOR = 2.0
_KEPT = {"x": 1}

class Scaled(BlockModule):
    def __init__(self, width: int, power: int) -> None:
        super().__init__()
        self.factors = nn.Parameter(torch.ones(width) * FACTOR)
        self.power = power
    def forward(self, inputs: BlockInputs) -> torch.Tensor:
        return _scaled(inputs.hidden_states, self.factors) * math.sqrt(self.power)

def _scaled(states: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    return states * factors

@register
class ScaledBlock(Block):
    name = "NAME"
    kinds = frozenset({"self_attention"})
    class Arguments(Arguments):
        power: int = 3
    @classmethod
    def build(cls, arguments: Any, site: Any, teacher: Any) -> nn.Module:
        return Scaled(site.d_model, arguments.power)
'''


@pytest.mark.long
def test_a_block_of_another_package_is_in_the_file(
    make: Callable[[str], PreTrainedModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "scaled_blocks.py").write_text(OWN.strip().replace("NAME", "scaled_tokens"))
    monkeypatch.syspath_prepend(tmp_path / "code")
    __import__("scaled_blocks")
    check_all(make, {"own": Case("vit", VIT, {"*.self_attention": "scaled_tokens"})}, tmp_path)
    assert "Blocks of scaled_blocks are under its own license" in (tmp_path / "own" / FILE).read_text()


def test_a_block_whose_source_is_not_there_is_told(
    make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import ModuleType

    module = ModuleType("typed_in")
    monkeypatch.setitem(sys.modules, "typed_in", module)
    exec(OWN.replace("NAME", "typed_tokens"), vars(module))
    student = lf.reduce(make_model(), {"*.self_attention": "typed_tokens"})
    with pytest.warns(UserWarning, match=r"the source of the module 'typed_in' cannot be read") as told:
        lf.save(student, tmp_path / "student")
    assert len(told) == 1
    assert not (tmp_path / "student" / FILE).exists()
    told_map = json.loads((tmp_path / "student" / "config.json").read_text())["auto_map"]
    assert "import leanformer.auto first" in told_map["AutoConfig"]
    assert torch.equal(lf.load(tmp_path / "student").classifier.weight, student.classifier.weight)


# Grey images


def test_a_grey_student_reads_files_in_a_pipeline(make_model: MakeModel, tmp_path: Path) -> None:
    student = lf.reduce(make_model(), {"*.mlp": "none"})
    lf.save(student, tmp_path / "model")
    processor = shipped_processor(Resizing((16, 16)), [0.4], [0.3], on_white=False, bits=None)
    (tmp_path / "model" / "preprocessor_config.json").write_text(processor.to_json_string())
    grey = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 20), dtype=np.uint8))
    grey.save(tmp_path / "grey.png")
    read = lf.read_image(tmp_path / "grey.png", tmp_path / "model")
    assert read.mode == "L"
    pixels = transformers.AutoImageProcessor.from_pretrained(tmp_path / "model")(read, return_tensors="pt")
    assert pixels["pixel_values"].shape == (1, 1, 16, 16)
    with torch.no_grad():
        wanted = student(**pixels).logits.softmax(-1)[0].sort(descending=True).values
    classify = transformers.pipeline("image-classification", model=str(tmp_path / "model"))
    found = torch.tensor([answer["score"] for answer in classify(str(tmp_path / "grey.png"))])
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)  # the pipeline computes softmax by numpy


def test_color_is_read_by_its_brightness(make_model: MakeModel) -> None:
    student = lf.reduce(make_model(), {"*.mlp": "none"})
    color = torch.rand(2, 3, 16, 16)
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    with torch.no_grad():
        wanted = student(pixel_values=(color * weights).sum(1, keepdim=True)).logits
        torch.testing.assert_close(student(pixel_values=color).logits, wanted)
        torch.testing.assert_close(student(color).logits, wanted)


# An environment of its own

PIPELINES = """
import json, sys
from transformers import pipeline
classify = pipeline("text-classification", model=sys.argv[1], trust_remote_code=True)
write = pipeline("text-generation", model=sys.argv[2], trust_remote_code=True)
found = [classify("w5 w6 w7")[0]["score"], write("w5 w6", max_new_tokens=5, do_sample=False)[0]["generated_text"]]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter of a new environment with PyTorch and transformers, of the versions that are pinned."""
    place = tmp_path_factory.mktemp("environment")
    venv.create(place, with_pip=True)
    python = str(place / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "--no-compile", "-c", str(ROOT / "constraints.txt")]
    done = subprocess.run([*install, "torch", "transformers"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"PyTorch and transformers cannot be installed here: {done.stderr[-200:]}")
    return python


@pytest.mark.long
def test_an_environment_without_leanformer_is_enough(
    make: Callable[[str], PreTrainedModel], tmp_path: Path, stranger: str
) -> None:
    cases = {name: QUICK[name] for name in ("bert", "marian", "gpt2")}
    students = saved(make, cases, tmp_path)
    words = Tokenizer(WordLevel({f"w{number}": number for number in range(40)}, unk_token="w3"))
    words.pre_tokenizer = Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w1", eos_token="w0")
    for name in cases:
        tokenizer.save_pretrained(tmp_path / name)
    found = json.loads(as_a_stranger(STRANGER, tmp_path, json.dumps(students), python=stranger))
    assert all(same and kept for same, kept, *_ in found.values()), found
    classifier, writer = (str(tmp_path / name) for name in ("bert", "gpt2"))
    score, text = json.loads(as_a_stranger(PIPELINES, tmp_path, classifier, writer, python=stranger))
    given = tokenizer("w5 w6 w7", return_tensors="pt")
    with torch.no_grad():
        scores = lf.load(classifier)(input_ids=given["input_ids"], attention_mask=given["attention_mask"]).logits
        written = lf.load(writer).generate(
            tokenizer("w5 w6", return_tensors="pt")["input_ids"], max_new_tokens=5, do_sample=False
        )
    assert score == pytest.approx(scores.softmax(-1).max().item(), abs=1e-6)
    assert text == "w5 w6" + tokenizer.decode(written[0, 2:], skip_special_tokens=True)

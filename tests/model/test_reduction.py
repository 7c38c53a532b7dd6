"""From a model's directory to a student's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel
from typer.testing import CliRunner, Result

import leanformer as lf
from leanformer.cli import app

IDS = torch.tensor([[5, 6, 7, 8]])


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        vocab_size=99,
        max_position_embeddings=64,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "llama")
    (tmp_path / "llama" / "tokenizer.json").write_text("{}")
    return tmp_path / "llama"


def command(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(IDS).logits
    return found


def test_what_stays_is_what_it_was(llama: Path, tmp_path: Path) -> None:
    plan = {"decoder.1.layer": "none", "decoder.2.self_attention": "none"}
    written = lf.reduce_directory(llama, plan, tmp_path / "out")
    loaded, in_memory = lf.load(tmp_path / "out"), lf.reduce(lf.load(llama), plan)
    assert torch.equal(logits(loaded), logits(in_memory))
    assert torch.equal(logits(written), logits(in_memory))
    assert (tmp_path / "out" / "tokenizer.json").read_text() == "{}"
    assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight


def test_new_blocks_are_written_as_they_are_returned(llama: Path, tmp_path: Path) -> None:
    written = lf.reduce_directory(llama, {"*.self_attention": "minimal_attention"}, tmp_path / "out")
    assert torch.equal(logits(written), logits(lf.load(tmp_path / "out")))


def test_the_command(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text('"decoder.[12].layer": none\n')
    done = command("reduce", llama, tmp_path / "out", "--plan", tmp_path / "plan.yaml")
    assert done.exit_code == 0, done.output
    assert f"student: {tmp_path / 'out'} (" in done.stdout.replace("\n", "")
    assert [site.block for site in lf.sites(lf.load(tmp_path / "out")) if site.kind == "layer"] == [
        "layer",
        "none",
        "none",
    ]


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ("", "a plan is a mapping of sites to blocks"),
        ("- none\n", "a plan is a mapping of sites to blocks"),
        ('"encoder.*.mlp": none\n', "matches no site"),
        ('"*.mlp": mlp\n', "the plan changes nothing in this model"),
        ('"*.layer": minimal_attention\n', "cannot stand at decoder.0.layer"),
    ],
)
def test_wrong_plans_write_nothing(llama: Path, tmp_path: Path, plan: str, message: str) -> None:
    (tmp_path / "plan.yaml").write_text(plan)
    done = command("reduce", llama, tmp_path / "out", "--plan", tmp_path / "plan.yaml")
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())
    assert not (tmp_path / "out").exists()


def test_a_directory_in_use_is_not_touched(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(lf.LeanformerError, match="exists already"):
        lf.reduce_directory(llama, {"*.mlp": "none"}, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.txt"]

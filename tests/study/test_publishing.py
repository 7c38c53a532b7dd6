"""Models on the hub, and their cards."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import HfApi
from transformers import PreTrainedModel
from typer.testing import CliRunner

import leanformer as lf
from leanformer.cli import app
from leanformer.results.reader import read_results

MakeModel = Callable[..., PreTrainedModel]


@pytest.fixture(scope="module")
def finished(digits_study: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose lean candidate is recommended."""
    path = tmp_path_factory.mktemp("runs") / "tiny"
    study = digits_study(
        candidates={"lean": {"plan": {"*.mlp": "none", "encoder.0.self_attention": "average"}}},
        accept={"max_drop": 0.3},
        train={"epochs": 15, "batch_size": 64, "learning_rate": [1e-2]},
        prefer="parameters",
        seeds=[0],
    )
    lf.run(study, path)
    return path


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for the hub: a directory that repositories are written to."""
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")

    def create(self: HfApi, repo_id: str, *, private: bool, exist_ok: bool) -> str:
        (tmp_path / "hub" / repo_id).mkdir(parents=True, exist_ok=exist_ok)
        return f"https://hf.co/{repo_id}"

    def upload(self: HfApi, *, repo_id: str, folder_path: Path, commit_message: str) -> None:
        shutil.copytree(folder_path, tmp_path / "hub" / repo_id, dirs_exist_ok=True)

    monkeypatch.setattr(HfApi, "create_repo", create)
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    return tmp_path / "hub"


def metadata(card: str) -> dict[str, Any]:
    return dict(yaml.safe_load(card.split("---")[1]))


def test_the_recommended_model_has_a_card(finished: Path) -> None:
    results = read_results(finished)
    assert results["recommended"] == "lean"
    card = (finished / results["ship"] / "README.md").read_text()
    told = metadata(card)
    assert told["library_name"] == "transformers"
    assert told["pipeline_tag"] == "image-classification"
    assert told["tags"] == ["leanformer", "vit"]
    assert "license" not in told
    assert "base_model" not in told  # the baseline is a fresh one
    quality = results["candidates"][0]["quality"]
    assert told["model-index"][0]["results"][0]["metrics"] == [{"type": "accuracy", "value": quality["mean"]}]
    for part in (
        "`encoder.0.self_attention`: `average`",
        "the model `lean` of the study `tiny`",
        "on this model: **accept**",
        "| parameters |",
        "difference to the baseline",
        "`digits`: ",
        "trust_remote_code=True",
        "import leanformer.auto",
    ):
        assert part in card


def test_a_card_that_was_changed_stays(run: Path, hub: Path) -> None:
    card = next(run.glob("trials/lean/*/model/README.md"))
    written = card.read_text()
    card.write_text(written.replace("# license:", "license: mit #"))
    lf.run(run / "study.yaml", run)
    assert metadata(card.read_text())["license"].startswith("mit")
    lf.push_to_hub(run, "me/lean")
    assert (hub / "me" / "lean" / "README.md").read_text() == card.read_text()


def test_a_run_is_pushed_with_all_that_its_model_needs(run: Path, hub: Path) -> None:
    done = CliRunner().invoke(app, ["push", str(run), "me/lean"])
    assert (done.exit_code, done.stdout) == (0, "model: https://hf.co/me/lean\n"), done.output
    there = hub / "me" / "lean"
    assert {path.name for path in there.iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
        "modeling_leanformer.py",
        "preprocessor_config.json",
    }
    card = (there / "README.md").read_text()
    assert 'from_pretrained("me/lean", trust_remote_code=True)' in card
    assert "**accept**" in card
    assert lf.load(there).config.plan == lf.load(next(run.glob("trials/lean/*/model"))).config.plan


def test_a_model_of_no_study_has_a_card_of_what_is_known(make_model: MakeModel, tmp_path: Path, hub: Path) -> None:
    lf.save(lf.reduce(make_model(), {"*.mlp": "none"}), tmp_path / "model")
    assert lf.push_to_hub(tmp_path / "model", "me/own", private=True) == "https://hf.co/me/own"
    card = (hub / "me" / "own" / "README.md").read_text()
    assert metadata(card)["pipeline_tag"] == "image-classification"
    assert "`encoder.2.mlp`: `none`" in card
    assert "Decision" not in card


@pytest.mark.parametrize("wrong", ["own", "a/b/c", "/own", "me/", "me/ own", 5])
def test_a_repository_has_an_owner_and_a_name(run: Path, hub: Path, wrong: Any) -> None:
    with pytest.raises(lf.LeanformerError, match="repository: give a hub id, owner/name, not"):
        lf.push_to_hub(run, wrong)
    assert not hub.exists()


def test_whoever_is_not_logged_in_is_told(run: Path, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leanformer.study.publishing.get_token", lambda: None)
    done = CliRunner().invoke(app, ["push", str(run), "me/lean"])
    line = "me/lean: nobody is logged in to the hub; run 'hf auth login', or set HF_TOKEN"
    assert (done.exit_code, line in " ".join(done.output.split())) == (2, True), done.output
    assert not hub.exists()


def test_what_the_hub_says_is_one_line(run: Path, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **named: Any) -> str:
        raise ConnectionError("no route to the hub\nand many more lines")

    monkeypatch.setattr(HfApi, "create_repo", refuse)
    with pytest.raises(lf.LeanformerError, match=r"^me/lean: the hub does not take it \(no route to the hub\)$"):
        lf.push_to_hub(run, "me/lean")


def test_the_license_is_that_of_the_model_it_starts_from(
    make_model: MakeModel, digits_study: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    base = tmp_path / "base"
    names = {number: str(number) for number in range(10)}
    lf.save(
        make_model(
            image_size=8, num_labels=10, id2label=names, label2id={name: number for number, name in names.items()}
        ),
        base,
    )
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n# base\n")
    study = digits_study(
        baseline={"model": str(base)},
        candidates={"lean": {"plan": {"*.mlp": "none"}}},
        accept={"max_drop": 0.3},
        train={"epochs": 15, "batch_size": 64, "learning_rate": [1e-2]},
        prefer="parameters",
        seeds=[0],
    )
    results = lf.run(study, tmp_path / "run").results
    card = (tmp_path / "run" / results["ship"] / "README.md").read_text()
    assert metadata(card)["license"] == "apache-2.0"
    assert "made from `base`" in card
    assert "base_model" not in metadata(card)  # a directory is nothing that the hub could link to

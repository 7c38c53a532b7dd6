"""``lf.export``: which model is taken, what it is compared on, and what the manifest says of its study."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

import leanformer as lf
from leanformer.core.errors import LeanformerError
from leanformer.export.base import FORMATS, Format
from leanformer.results.reader import read_results
from leanformer.runtime.engines.base import ENGINES
from leanformer.runtime.manifest import Precision
from leanformer.study.export import export

MakeStudy = Callable[..., dict[str, Any]]


class Weights(Format):
    """A format that holds a classifier as transformers writes it, for these tests."""

    name = "weights"
    precisions = ("float32",)
    packages = ()

    def check(self, model: PreTrainedModel, precision: Precision) -> None:
        """Any model can be held."""

    def write(self, model: PreTrainedModel, directory: Path, precision: Precision) -> None:
        lf.save(model, directory / "weights")


class Runs:
    """Its engine."""

    def __init__(self, directory: Path, *_: object) -> None:
        self._model = lf.load(directory / "weights")

    def logits(self, pixel_values: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            logits: NDArray[np.float32] = self._model(torch.from_numpy(pixel_values)).logits.numpy()
        return logits


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of the format of these tests, which is known for the test alone."""
    for registry, item in ((FORMATS, Weights()), (ENGINES, Runs)):
        assert len(registry) > 0
        monkeypatch.setitem(registry._items, "weights", item)
    return "weights"


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study on the built-in digits, of a second or two."""
    directory = tmp_path_factory.mktemp("runs") / "tiny"
    lf.run(
        lf.make_study(
            {
                "name": "tiny",
                "data": {"source": "digits", "test_fraction": 0.5, "train_limit": 100},
                "baseline": {
                    "model": "vit",
                    "config": {
                        "hidden_size": 16,
                        "num_hidden_layers": 1,
                        "num_attention_heads": 2,
                        "intermediate_size": 32,
                        "patch_size": 4,
                    },
                },
                "candidates": {"no-mlp": {"plan": {"*.mlp": "none"}}},
                "train": {"epochs": 1, "batch_size": 64, "learning_rate": 3e-3},
                "accept": {"max_drop": 0.9},
                "seeds": [0],
                "measure": {"repeats": 1, "latency_calls": 3, "device": "cpu", "threads": 1},
            }
        ),
        directory,
    )
    return directory


def test_a_run_gives_the_model_that_it_recommends(
    run_directory: Path, weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    results = read_results(run_directory)
    exported = lf.export(run_directory, weights)
    assert exported.directory == Path("exports") / f"tiny-{results['recommended']}-seed-0-weights-float32"
    manifest = exported.manifest
    assert manifest.source.model == str(run_directory / results["ship"])
    assert (manifest.source.study, manifest.source.candidate, manifest.source.seed) == (
        "tiny",
        results["recommended"],
        0,
    )
    row = next(row for row in (results["baseline"], *results["candidates"]) if row["name"] == results["recommended"])
    assert manifest.decision is not None
    assert manifest.decision["quality"]["mean"] == row["quality"]["mean"]
    assert manifest.decision["metric"] == results["metric"]
    # 100 training images and those of the validation split; none of the test split.
    assert manifest.parity.inputs == results["data"]["train"] + results["data"]["validation"]
    assert manifest.parity.described == "of the training and validation data of digits"
    assert manifest.parity.agreement == 1.0
    assert manifest.images is not None
    assert len(manifest.images.classes) == 10

    other = lf.export(run_directory / "trials/baseline/seed-0/model", weights, out="here")
    assert (other.manifest.source.candidate, other.directory) == ("baseline", Path("here"))
    given = lf.export(run_directory, weights, out="here", data={"source": "digits", "train_limit": 20})
    assert given.manifest.parity.inputs < manifest.parity.inputs


def test_a_model_of_no_run_is_compared_on_what_is_built_in(run_directory: Path, weights: str, tmp_path: Path) -> None:
    shutil.copytree(run_directory / "trials/no-mlp/seed-0/model", tmp_path / "model")
    manifest = lf.export(tmp_path / "model", weights, out=tmp_path / "exported").manifest
    assert (manifest.parity.inputs, manifest.parity.described) == (1000, "built-in images of digits")
    assert manifest.source.study is None
    assert manifest.decision is None
    assert manifest.plan == {"encoder.0.mlp": {"block": "none"}}


def test_a_run_without_results(tmp_path: Path, run_directory: Path) -> None:
    (tmp_path / "study.yaml").write_bytes((run_directory / "study.yaml").read_bytes())
    with pytest.raises(LeanformerError, match=r"results.json: there is no such file; give the directory of a study"):
        lf.export(tmp_path, "ctranslate2")


def test_data_of_a_wrong_type(run_directory: Path) -> None:
    with pytest.raises(LeanformerError, match="data: give a source or a mapping of its keys, not 3"):
        lf.export(run_directory, "ctranslate2", data=3)  # type: ignore[arg-type]


def test_the_room_export_does_not_hide_the_function() -> None:
    assert isinstance(sys.modules["leanformer.export"], ModuleType)
    assert lf.export is export

"""Opening exported directories: what is refused, what is imported, where it runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from exported import change_manifest, manifest, write_classifier, write_translator

import leanformer as lf
from leanformer.core.errors import LeanformerError
from leanformer.runtime.classifier import Classifier
from leanformer.runtime.manifest import read_manifest, write_manifest


def without_manifest(directory: Path) -> None:
    (directory / "manifest.json").unlink()


def with_a_changed_file(directory: Path) -> None:
    with (directory / "model.onnx").open("ab") as file:
        file.write(b"x")


def without_a_file(directory: Path) -> None:
    (directory / "model.onnx").unlink()


def with_a_changed_manifest(directory: Path) -> None:
    file = directory / "manifest.json"
    file.write_text(file.read_text().replace('"cat"', '"cow"'))


def of_a_later_version(directory: Path) -> None:
    change_manifest(directory, version=3)


def of_another_format(directory: Path) -> None:
    change_manifest(directory, format="coreml-package")


def for_nothing(directory: Path) -> None:
    change_manifest(directory, images=None)


def with_a_graph_of_a_later_version(directory: Path) -> None:
    content = bytearray((directory / "model.onnx").read_bytes())
    assert content[:2] == b"\x08\x0a"  # the IR's version, 10
    content[1] = 120
    (directory / "model.onnx").write_bytes(content)
    change_manifest(directory, versions={"onnxruntime": "99.0"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without_manifest, "not an exported directory: it has no manifest.json; make one: leanformer export"),
        (
            with_a_changed_file,
            "model.onnx: changed since it was exported (its SHA-256 differs); export the model again",
        ),
        (without_a_file, "model.onnx: missing from the exported directory; export the model again"),
        (with_a_changed_manifest, "manifest.json: damaged (its SHA-256 does not match); export the model again"),
        (of_a_later_version, "manifest.json: its version is 3, and this leanformer reads versions 1 to 2"),
        (
            of_another_format,
            "of the format 'coreml-package', which this leanformer does not know; it runs onnx, ctranslate2",
        ),
        (for_nothing, "its manifest says neither images nor texts; export the model again"),
        (with_a_graph_of_a_later_version, "cannot open it on device cpu"),
        (with_a_graph_of_a_later_version, "install onnxruntime 99.0, or export the model again"),
    ],
)
def test_a_bad_directory_gets_one_line(damage: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    write_classifier(tmp_path)
    damage(tmp_path)
    start = str(tmp_path)[:40]  # long paths are cut
    with pytest.raises(LeanformerError, match=rf"^{re.escape(start)}.*{re.escape(message)}"):
        lf.runtime.load(tmp_path)


def test_the_card_may_be_changed(tmp_path: Path) -> None:
    write_classifier(tmp_path)
    (tmp_path / "README.md").write_text("# A model\n")
    write_manifest(tmp_path, read_manifest(tmp_path))
    assert "README.md" in read_manifest(tmp_path).files
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    assert isinstance(lf.runtime.load(tmp_path), Classifier)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"directory": 5}, "directory: give a path, not 5"),
        ({"threads": 0}, "threads: give a whole number from 1 to 4,096, not 0"),
        ({"device": "gpu"}, "device gpu: onnxruntime has none of this name; choose auto, coreml, cpu, cuda, directml"),
        (
            {"device": "tensorrt"},
            "device tensorrt: the installed onnxruntime has no TensorrtExecutionProvider; it has cpu",
        ),
    ],
)
def test_bad_arguments_get_one_line(
    arguments: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    write_classifier(tmp_path)
    with pytest.raises(LeanformerError, match=f"^{re.escape(message)}"):
        lf.runtime.load(**{"directory": tmp_path, **arguments})


class Sessions:
    """ONNX Runtime with a GPU's provider, which starts or not."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, problem: str | None = None, started: bool = True) -> None:
        self.asked: list[list[str]] = []
        session = onnxruntime.InferenceSession

        def open_session(model: str, settings: Any, providers: list[str], enable_fallback: int) -> Any:
            self.asked.append(providers)
            assert settings.intra_op_num_threads == 3
            if problem and len(providers) > 1:
                raise RuntimeError(problem)
            opened = session(model, settings, providers=["CPUExecutionProvider"])
            if started:
                opened.get_providers = lambda: providers
            return opened

        monkeypatch.setattr(onnxruntime, "InferenceSession", open_session)
        monkeypatch.setattr(
            onnxruntime,
            "get_available_providers",
            lambda: ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
        )


CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"


@pytest.mark.parametrize(
    ("device", "asked"),
    [("auto", [CUDA, CPU]), ("cpu", [CPU]), ("cuda", [CUDA, CPU]), ("tensorrt", [TENSORRT, CUDA, CPU])],
)
def test_a_device_is_a_provider_and_those_that_help_it(
    device: str, asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_classifier(tmp_path)
    sessions = Sessions(monkeypatch)
    lf.runtime.load(tmp_path, threads=3, device=device)
    assert sessions.asked == [asked]


def test_a_gpu_that_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an error where it was asked for, and the CPU takes its place where it was not."""
    write_classifier(tmp_path)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"problem": "CUDA failure 100"}, r"cannot open it on device cuda \(CUDA failure 100\); take another device"),
        ({"started": False}, "^device cuda: onnxruntime has the provider for it, but could not start it"),
    ]
    for settings, message in cases:
        with monkeypatch.context() as patch:
            sessions = Sessions(patch, **settings)
            with pytest.raises(LeanformerError, match=message):
                lf.runtime.load(tmp_path, threads=3, device="cuda")
            del sessions.asked[:]
            lf.runtime.load(tmp_path, threads=3, device="auto")
            assert sessions.asked == [[CUDA, CPU], [CPU]]


@pytest.mark.skipif(CUDA not in onnxruntime.get_available_providers(), reason="needs onnxruntime-gpu and a GPU")
def test_a_gpu_answers_as_the_cpu_does(tmp_path: Path) -> None:
    write_classifier(tmp_path / "images")
    write_translator(tmp_path / "texts")
    images = [np.random.default_rng(seed).integers(0, 256, (4, 5), np.uint8) for seed in range(3)]
    on_cpu: list[Any] = [lf.runtime.load(tmp_path / name, device="cpu") for name in ("images", "texts")]
    on_gpu: list[Any] = [lf.runtime.load(tmp_path / name, device="cuda") for name in ("images", "texts")]
    for own, other in zip(on_cpu[0].predict(images), on_gpu[0].predict(images), strict=True):
        assert own.label == other.label
        np.testing.assert_allclose([*own.probabilities.values()], [*other.probabilities.values()], atol=1e-3)
    assert on_cpu[1].translate(["one two"]) == on_gpu[1].translate(["one two"])


@pytest.mark.parametrize("engine", ["onnxruntime", "ctranslate2"])
def test_an_engine_that_is_not_installed(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = engine.removesuffix("runtime")
    write_classifier(tmp_path)
    change_manifest(tmp_path, format=name)
    monkeypatch.setattr("importlib.metadata.requires", lambda _: [f"{engine}>=1; extra == '{name}'"])
    monkeypatch.setitem(sys.modules, engine, None)
    with pytest.raises(LeanformerError, match=rf"{tmp_path} needs .*{engine}.*: pip install 'leanformer\[{name}\]'$"):
        lf.runtime.load(tmp_path)
    with_a_changed_file(tmp_path)  # files are checked first
    with pytest.raises(LeanformerError, match=r"changed since it was exported"):
        lf.runtime.load(tmp_path)


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_classifier(tmp_path)
    found = read_manifest(tmp_path)
    assert set(found.files) == {"model.onnx"}
    assert write_manifest(tmp_path, manifest(images=found.images)) == found == read_manifest(tmp_path)


ALONE = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "datasets", "huggingface_hub", "pyarrow", "pandas"):
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Missing())
import numpy as np
import leanformer as lf

classifier, translator = (lf.runtime.load(directory) for directory in sys.argv[1:])
print(classifier.predict([np.zeros((4, 5), np.uint8)])[0].label, translator.translate(["one two"]))
print(sorted(name for name in ("rich", "typer", "yaml") if name in sys.modules))
"""


def test_it_needs_neither_pytorch_nor_transformers(tmp_path: Path) -> None:
    write_classifier(tmp_path / "images")
    write_translator(tmp_path / "texts")
    command = [sys.executable, "-c", ALONE, str(tmp_path / "images"), str(tmp_path / "texts")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["dog ['uno dos']", "[]"]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ({"classes": ("cat", "dog", "cat")}, "two classes have one name"),
        ({"classes": ()}, "classes"),
        ({"std": (0.0,)}, "std"),
        ({"std": (0.5, 0.5)}, "std has 2 numbers for 1 channels"),
        ({"resample": 99}, "resample"),
        ({"size": (0, 5)}, "size"),
    ],
)
def test_an_impossible_manifest_is_damaged(images: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_classifier(tmp_path)
    whole = read_manifest(tmp_path).images
    assert whole is not None
    change_manifest(tmp_path, images=whole.model_copy(update=images))
    with pytest.raises(LeanformerError, match=rf"manifest\.json: damaged \(.*{message}.*; export the model again"):
        lf.runtime.load(tmp_path)


def test_a_manifest_names_files_of_its_directory_alone(tmp_path: Path) -> None:
    inside = "is not the name of a file inside the directory"
    for name, message in (
        ("../other.json", inside),
        ("/etc/passwd", inside),
        ("C:tokenizer.json", inside),
        ("other.json", r"damaged \(no SHA-256 of other\.json\)"),
    ):
        write_translator(tmp_path)
        texts = read_manifest(tmp_path).texts
        assert texts is not None
        change_manifest(tmp_path, texts=texts.model_copy(update={"source_tokenizer": name}))
        with pytest.raises(LeanformerError, match=message):
            lf.runtime.load(tmp_path)


def test_a_manifest_without_its_sum_is_damaged(tmp_path: Path) -> None:
    write_classifier(tmp_path)
    file = tmp_path / "manifest.json"
    content = json.loads(file.read_text())
    del content["sha256"]
    content["images"]["classes"].reverse()
    file.write_text(json.dumps(content))
    with pytest.raises(LeanformerError, match=r"manifest\.json: damaged \(it has no SHA-256\); export the model again"):
        lf.runtime.load(tmp_path)

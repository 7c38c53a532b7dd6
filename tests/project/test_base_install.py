"""The base install runs what was exported and loads nothing else; what needs an extra says which, in one line."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from places import ROOT

import leanformer as lf
from leanformer import cli
from leanformer.core.errors import LeanformerError
from leanformer.core.extras import extra_of, not_installed, require

BASE = ["filelock", "numpy", "pillow", "pydantic", "pydantic-core", "pyyaml", "rich", "tokenizers", "typer"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NEEDS = re.compile(
    r"(\S.*) needs packages that are not installed \((\w+)\); install them: pip install 'leanformer\[train\]'"
)


def test_the_base_install_is_small() -> None:
    assert sorted(canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]) == BASE
    extras = PROJECT["optional-dependencies"]
    assert [Requirement(line).name for line in extras["onnx"]] == ["onnxruntime"]
    assert [Requirement(line).name for line in extras["ctranslate2"]] == ["ctranslate2"]
    made, *_ = extras["dev"]  # what make installs
    assert {"train", "onnx", "ctranslate2"} <= Requirement(made).extras


def test_the_base_install_loads_no_package_of_an_extra() -> None:
    """In an environment that has them all."""
    code = """
import json, pkgutil, sys
from importlib import import_module

def modules(name):
    package = import_module(name)
    inside = pkgutil.walk_packages(getattr(package, "__path__", []), f"{name}.") if name != "leanformer" else []
    return [name, *(module.name for module in inside)]

rooms = [f"leanformer.{name}" for name in ("core", "results", "config", "runtime")]
others = [f"leanformer.{name}" for name in ("data.image_files", "serve.predict", "serve.translate", "cli", "__main__")]
loaded, before = {}, set(sys.modules)
for name in ["leanformer", *rooms, *others]:
    for module in modules(name):
        import_module(module)
        loaded[module] = sorted({name.partition(".")[0] for name in set(sys.modules) - before})
        before = set(sys.modules)
print(json.dumps(loaded))
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    loaded = json.loads(told.stdout)
    assert {"leanformer.core.files", "leanformer.config.reader", "leanformer.runtime.manifest"} <= set(loaded)
    homes = importlib.metadata.packages_distributions()
    extras = ("train", "onnx", "ctranslate2")
    heavy = {
        canonicalize_name(Requirement(line).name)
        for extra in extras
        for line in PROJECT["optional-dependencies"][extra]
    }
    found = {
        module: [name for name in names if {canonicalize_name(home) for home in homes.get(name, ())} & heavy]
        for module, names in loaded.items()
    }
    assert not {module: names for module, names in found.items() if names}


def required(names: list[str]) -> set[str]:
    """Distributions, and all that they need here."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name not in found:
            found.add(name)
            needed = map(Requirement, importlib.metadata.requires(name) or ())
            waiting += [one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Runs a program where only what the base install brings can be imported; gives the JSON that it prints."""
    if sys.platform == "win32":
        pytest.skip("needs symbolic links")
    site = tmp_path_factory.mktemp("site")
    for name in required(BASE):
        distribution = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            (site / top).symlink_to(str(distribution.locate_file(top)))
    (site / "leanformer").symlink_to(ROOT / "src" / "leanformer")
    about = importlib.metadata.distribution("leanformer")
    (site / f"leanformer-{about.version}.dist-info").mkdir()
    metadata = about.read_text("METADATA") or about.read_text("PKG-INFO") or ""
    (site / f"leanformer-{about.version}.dist-info" / "METADATA").write_text(metadata, encoding="utf-8")

    def call(code: str, *arguments: str, cwd: Path) -> Any:
        command = [sys.executable, "-S", "-c", code, *arguments]  # without site there are no installed packages
        environment = {**os.environ, "PYTHONPATH": str(site)}
        told = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
        assert told.returncode == 0, told.stderr
        return json.loads(told.stdout)

    return call


STUDY = """
name: tiny
data: {source: digits}
baseline: {model: vit}
candidates: {lean: {plan: {"*.mlp": none}}}
"""
# With arguments in which there is no mistake that could be told before a package is missed.
COMMANDS = {
    "compare": ["old.csv", "new.csv"],
    "confirm": ["runs/photos", "new"],
    "run": ["study.yaml"],
    "sites": ["vit"],
    "convert": ["model", "out"],
    "reduce": ["model", "out", "--plan", "plan.yaml"],
    "push": ["model", "owner/name"],
    "translate": ["model", "text.txt"],
    "predict": ["model", "text.txt"],
    "export": ["model", "--to", "onnx"],
    "bench": ["model"],
    "inspect": ["model", "digits"],
    "plan-test": ["--quality", "0.9"],
    "report": ["run"],
}
RUNS = """
import contextlib, io, json, sys
from leanformer.__main__ import main

told = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["leanformer", *arguments]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as ended:
            told.append((ended.code or 0, out.getvalue(), err.getvalue()))
print(json.dumps(told))
"""


@dataclass
class Told:
    """How a command ended."""

    code: int
    out: str
    error: str


@pytest.fixture(scope="module")
def commands(python: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Told]:
    """Command line -> how it ended, where only the base install is."""
    directory = tmp_path_factory.mktemp("commands")
    (directory / "study.yaml").write_text(STUDY)
    (directory / "wrong.yaml").write_text(STUDY + "nonsense: 1\n")
    (directory / "text.txt").write_text("one\n")
    for name in ("model", "run"):
        (directory / name).mkdir()
    (directory / "model" / "config.json").write_text('{"model_type": "marian"}')
    before = sorted(directory.rglob("*"))
    mistyped = [["predict", "modle", "text.txt"], ["translate", "modle", "text.txt"]]
    helps = [["--version"], ["--help"], *([name, "--help"] for name in COMMANDS)]
    lines = [*helps, ["run", "wrong.yaml"], *mistyped, *([name, *arguments] for name, arguments in COMMANDS.items())]
    told = python(RUNS, json.dumps(lines), cwd=directory)
    assert sorted(directory.rglob("*")) == before
    return {" ".join(line): Told(*ended) for line, ended in zip(lines, told, strict=True)}


def test_all_commands_are_tried() -> None:
    names = {command.name or getattr(command.callback, "__name__", "") for command in cli.app.registered_commands}
    assert set(COMMANDS) == names


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_needs_more_says_what_in_one_line(name: str, commands: dict[str, Told]) -> None:
    told = commands[" ".join((name, *COMMANDS[name]))]
    found = NEEDS.fullmatch(told.error.removeprefix("leanformer: error: ").removesuffix("\n"))
    assert found, told.error
    assert found[1] == f"leanformer {name}"
    assert (told.code, told.out) == (2, "")


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_needs_nothing_more(name: str, commands: dict[str, Told]) -> None:
    told = commands[f"{name} --help".lstrip()]
    assert (told.code, told.error) == (0, "")
    assert told.out.lstrip().startswith(f"Usage: leanformer {name}")


def test_the_version_needs_nothing_more(commands: dict[str, Told]) -> None:
    assert commands["--version"] == Told(0, f"leanformer {importlib.metadata.version('leanformer')}\n", "")


def test_a_mistake_is_told_before_a_missing_package(commands: dict[str, Told]) -> None:
    told = commands["run wrong.yaml"]
    assert told.code == 2
    assert told.error.startswith("leanformer: error: wrong.yaml: unknown key 'nonsense'")


@pytest.mark.parametrize("name", ["predict", "translate"])
def test_a_mistyped_directory_is_told_with_a_missing_package(name: str, commands: dict[str, Told]) -> None:
    told = commands[f"{name} modle text.txt"]
    assert (told.code, told.out) == (2, "")
    assert told.error == (
        "leanformer: error: modle: not an exported directory (it has no manifest.json), and any other model needs "
        "packages that are not installed (torch); install them: pip install 'leanformer[train]'\n"
    )


def test_completion_needs_nothing_more(python: Callable[..., Any], tmp_path: Path) -> None:
    code = (
        "import os; "
        "os.environ.update(_LEANFORMER_COMPLETE='complete_bash', COMP_WORDS='leanformer rep', COMP_CWORD='1')"
    )
    ((ended, out, _),) = python(f"{code}\n{RUNS}", json.dumps([[]]), cwd=tmp_path)
    assert (ended, out.strip()) == (0, "report")


def test_every_public_name_is_there_or_says_what_it_needs(python: Callable[..., Any], tmp_path: Path) -> None:
    code = """
import json
import leanformer as lf

told = {}
for name in lf.__all__:
    try:
        getattr(lf, name)
        told[name] = None
    except lf.LeanformerError as error:
        told[name] = str(error)
print(json.dumps(told))
"""
    told = python(code, cwd=tmp_path)
    there = {name for name, error in told.items() if error is None}
    configurations = {"DistillConfig", "FinetuneConfig", "Study", "make_study", "read_study"}
    assert there >= {*configurations, "LeanformerError", "Site", "read_image"}
    assert {"run", "load", "reduce", "distill"} <= set(lf.__all__) - there
    for name in set(told) - there:
        found = NEEDS.fullmatch(told[name])
        assert found, told[name]
        assert found[1] == f"leanformer.{name}"


def test_the_extra_of_a_module_is_read_from_the_metadata() -> None:
    for extra in ("train", "onnx", "ctranslate2", "tensorboard"):
        for line in PROJECT["optional-dependencies"][extra]:
            if "sqlalchemy" not in line:
                assert extra_of(Requirement(line).name.replace("-", "_")) == extra
    assert extra_of("sklearn") == "train"
    assert extra_of("numpy") is None
    assert extra_of("nothing_of_ours") is None


@pytest.mark.parametrize(
    ("module", "told"),
    [
        ("torch", "x needs packages that are not installed (torch); install them: pip install 'leanformer[train]'"),
        ("onnxruntime", "x needs packages that are not installed (onnxruntime); install them: pip install "
         "'leanformer[onnx]'"),
        ("torch.nothing", None),  # a part of a package that is there
        ("nothing_of_ours", None),
        (None, None),
    ],
)  # fmt: skip
def test_only_a_package_of_an_extra_is_told(module: str | None, told: str | None) -> None:
    found = not_installed(ModuleNotFoundError("No module", name=module), "x")
    assert (None if found is None else str(found)) == told


def test_any_other_missing_module_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(lf._HOMES, "run", "leanformer.nowhere")
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'leanformer\.nowhere'"):
        _ = lf.run
    monkeypatch.setattr("sys.argv", ["leanformer", "report", "."])
    monkeypatch.setitem(sys.modules, "leanformer.report.page", None)
    with pytest.raises(ModuleNotFoundError, match=r"leanformer\.report\.page"):
        cli.main()


def test_a_missing_package_is_told_in_this_process_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(lf._HOMES, "run", "torch_is_gone")
    monkeypatch.setattr("leanformer.core.extras._DISTRIBUTIONS", {"torch_is_gone": "torch"})
    with pytest.raises(LeanformerError, match=r"^leanformer\.run needs packages that are not installed"):
        _ = lf.run
    with pytest.raises(ModuleNotFoundError, match="torch_is_gone"):
        require("torch_is_gone")
    require("torch")

"""What is installed elsewhere: the distributions hold what they should, and the wheel works without the checkout."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from places import ROOT

from leanformer.core.extras import extra_of
from leanformer.core.sinks.tracking import TRACKERS
from leanformer.runtime.engines.base import ENGINES

FOLDERS = ["benchmarks", "docs", "examples", "src", "tests"]
FILES = ["CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "MANIFEST.in", "Makefile", "README.md"]
FILES += ["constraints.txt", "mkdocs.yml", "pyproject.toml"]
JUNK = shutil.ignore_patterns("__pycache__", "*.pyc", "*.egg-info", ".ipynb_checkpoints")


def test_all_that_is_imported_is_required() -> None:
    """Not installed by chance, as a tool's or another library's requirement."""
    imported: set[str] = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                imported.add(node.module.partition(".")[0])
    homes = importlib.metadata.packages_distributions()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    base = {canonicalize_name(Requirement(line).name) for line in project["dependencies"]}
    extras = [project["optional-dependencies"][name] for name in ("train", *ENGINES, *TRACKERS)]
    required = base | {canonicalize_name(Requirement(line).name) for line in chain.from_iterable(extras)}
    for name in sorted(imported - set(sys.stdlib_module_names) - {"leanformer"}):
        found = {canonicalize_name(home) for home in homes.get(name, ())} & required
        assert found, name
        assert found <= base or extra_of(name) is not None, name  # so that an error can say what to install


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the checkout holds, without what tests, tools and former builds have left there."""
    copy = tmp_path_factory.mktemp("checkout")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, copy / folder, ignore=JUNK)
    for file in FILES:
        shutil.copy(ROOT / file, copy / file)
    return copy


@pytest.fixture(scope="module")
def distributions(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the source distribution and the wheel that is built from it."""
    out = tmp_path_factory.mktemp("distributions")
    files = sorted(str(path.relative_to(checkout)) for path in checkout.rglob("*"))
    for folder in FOLDERS:  # what must not be packed
        (checkout / folder / "__pycache__").mkdir()
        (checkout / folder / "__pycache__" / "junk.cpython-311.pyc").write_bytes(b"")
    (checkout / "runs").mkdir()
    (checkout / "runs" / "results.json").write_text("{}")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(checkout)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    (out / "files").write_text("\n".join(name for name in files if (checkout / name).is_file()))
    return out


@pytest.mark.long
def test_the_source_distribution_holds_the_checkout(distributions: Path) -> None:
    with tarfile.open(next(distributions.glob("*.tar.gz"))) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    made = {name for name in names if "egg-info/" in name} | {"PKG-INFO", "setup.cfg"}
    assert names - made == set((distributions / "files").read_text().split("\n"))


@pytest.mark.long
def test_the_wheel_holds_the_package_alone(distributions: Path) -> None:
    with zipfile.ZipFile(next(distributions.glob("*.whl"))) as archive:
        names = set(archive.namelist())
    about = {name for name in names if name.split("/")[0].endswith(".dist-info")}
    inside = (distributions / "files").read_text().split("\n")
    assert names - about == {name.removeprefix("src/") for name in inside if name.startswith("src/")}
    assert any(name.endswith("licenses/LICENSE") for name in about)


def plain_environment() -> dict[str, str]:
    """The environment's variables without those that change what Python imports and writes."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


@pytest.fixture(scope="module")
def elsewhere(distributions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment that has the wheel, and the libraries of this one, but not the checkout."""
    environment = tmp_path_factory.mktemp("elsewhere") / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    places = {"base": str(environment), "platbase": str(environment)}
    # A line of a .pth file adds a directory, but not what that directory's own .pth files add: the editable install.
    here = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    (Path(sysconfig.get_path("purelib", vars=places)) / "libraries.pth").write_text("\n".join(here) + "\n")
    python = str(environment / "bin" / "python")
    wheel = str(next(distributions.glob("*.whl")))
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, "--ignore-installed", wheel], check=True)
    return environment


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="the environment's layout is that of Unix")
def test_the_wheel_works_without_the_checkout(elsewhere: Path, tmp_path: Path) -> None:
    shutil.copy(ROOT / "examples" / "digits.yaml", tmp_path)

    def call(*command: str) -> str:
        program, *arguments = command
        told = subprocess.run(
            [elsewhere / "bin" / program, *arguments],
            cwd=tmp_path,
            env=plain_environment(),
            capture_output=True,
            text=True,
        )
        assert told.returncode == 0, told.stderr
        return told.stdout

    where = call("python", "-c", "import leanformer; print(leanformer.__file__)").strip()
    assert Path(where).is_relative_to(elsewhere)
    assert call("leanformer", "--version").strip() == f"leanformer {importlib.metadata.version('leanformer')}"

    quick = ["train.epochs=1", "train.search_epochs=1", "data.train_limit=200", "seeds=[0]", "measure.repeats=1"]
    settings = [text for setting in quick for text in ("--set", setting)]
    table = call("leanformer", "run", "digits.yaml", *settings)
    assert "report: runs/digits/report.html" in table
    page = (tmp_path / "runs" / "digits" / "report.html").read_text(encoding="utf-8")
    assert "collapsed" in page
    assert "</html>" in page


MOST = {"onnx": 200, "ctranslate2": 270}  # megabytes, the engine included: docs/installing.md


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other files")
@pytest.mark.parametrize("extra", MOST)
def test_a_deployed_environment_is_small(extra: str, distributions: Path, tmp_path: Path) -> None:
    """Installed as docs/installing.md says; with the bytecode that running it leaves, without pip."""
    environment = tmp_path / "environment"
    python = str(environment / "bin" / "python")
    constraints = tmp_path / "constraints.txt"
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    constraints.write_text("\n".join(line for line in pinned if not line.startswith("huggingface_hub")))

    def call(*command: str) -> str:
        """What a command prints."""
        told = subprocess.run(command, cwd=tmp_path, env=plain_environment(), capture_output=True, text=True)
        if "connection broken" in told.stderr:
            pytest.skip("pip cannot reach the package index")
        assert told.returncode == 0, told.stderr
        return told.stdout

    call(sys.executable, "-m", "venv", "--without-pip", str(environment))
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--retries", "1"]
    wheel = next(distributions.glob("*.whl"))
    call(*pip, "--no-compile", "-c", str(constraints), f"{wheel}[{extra}]", "huggingface-hub<0.32")

    assert "translate" in call(str(environment / "bin" / "leanformer"), "--help")
    engine = {"onnx": "onnxruntime"}.get(extra, extra)
    call(python, "-c", f"import tokenizers, {engine}, leanformer.runtime, leanformer.serve.predict")
    packages = call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    size = int(call("du", "-sm", packages).split()[0])
    print(f"{extra}: {size} MB")
    assert size <= MOST[extra]

"""Completion of the command line by the shell: what it offers, and that it comes at once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent

# What bash does when the tabulator key is pressed; the words come as arguments, the last is the one to complete.
BASH = """
eval "$(_LEANFORMER_COMPLETE=source_bash leanformer)"
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_leanformer_completion leanformer
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["rep"], ["report"]),
        (["run", "--j"], ["--jobs"]),
        (["translate", "model", "--device", "c"], ["cpu", "cuda", "coreml"]),
        (["run", "stu"], [""]),  # nothing: bash then completes the names of files
    ],
)
def test_bash_completes(words: list[str], offered: list[str]) -> None:
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    told = subprocess.run(
        ["bash", "-c", BASH, "bash", "leanformer", *words], env=environment, capture_output=True, text=True, check=True
    )
    assert told.stdout.split("\n")[:-1] == offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_loads_nothing_heavy(shell: str) -> None:
    """Somebody waits for it at the keyboard."""
    environment = {
        **os.environ,
        "_LEANFORMER_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": "leanformer re",
        "COMP_CWORD": "1",
        "_TYPER_COMPLETE_ARGS": "leanformer re",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    code = """
import sys
from leanformer.cli import main
try:
    main()
finally:
    print(*{"torch", "transformers", "datasets", "numpy"} & set(sys.modules), file=sys.stderr)
"""
    told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert "report" in told.stdout
    assert told.stderr.strip() == ""


def _install(home: Path) -> subprocess.CompletedProcess[str]:
    """Installs completion as from bash, whose name typer finds among the parents of the process."""
    command = f"'{sys.executable}' -m leanformer --install-completion; exit $?"
    return subprocess.run(
        ["bash", "-c", command], env={**os.environ, "HOME": str(home)}, capture_output=True, text=True
    )


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_completion_is_installed_in_the_home_directory(tmp_path: Path) -> None:
    told = _install(tmp_path)
    assert told.returncode == 0, told.stderr
    script = tmp_path / ".bash_completions" / "leanformer.sh"
    assert script.name in (tmp_path / ".bashrc").read_text()
    assert "complete -o default -F _leanformer_completion leanformer" in script.read_text()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_a_home_directory_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    told = _install(tmp_path / "home")
    assert told.returncode == 2
    assert told.stderr.startswith("leanformer: error: completion cannot be installed: ")
    assert len(told.stderr.splitlines()) == 1

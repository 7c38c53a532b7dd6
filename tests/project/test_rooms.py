"""The rooms of the package: what they may import, and what the map says of it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from cases import slow
from places import ROOT

PACKAGE = ROOT / "src" / "leanformer"
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


def contracts() -> list[dict[str, Any]]:
    """The contracts of import-linter."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found: list[dict[str, Any]] = settings["tool"]["importlinter"]["contracts"]
    return found


def the_map() -> dict[str, set[str]]:
    """What each room may import, as the table of CONTRIBUTING says it."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text[text.index("| room | what it holds | may import |") :].split("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table]
    rooms = {room.strip("`"): imports for room, _, imports in rows}
    return {
        room: set(rooms) - {room} if imports == "all rooms" else set(re.findall(r"`([^`]+)`", imports))
        for room, imports in rooms.items()
    }


def lint(directory: Path) -> subprocess.CompletedProcess[str]:
    """Checks the contracts of the checkout on a package in ``directory``."""
    program = str(Path(sys.executable).with_name("lint-imports"))
    command = [program, str(ROOT / "pyproject.toml"), "--no-cache", "--no-logo"]
    environment = {**os.environ, "PYTHONPATH": str(directory)}
    return subprocess.run(command, capture_output=True, text=True, cwd=directory, env=environment)


def test_the_map_names_all_rooms() -> None:
    assert sorted(the_map()) == sorted([*ROOMS, "blocks.kit"])


def test_the_map_says_what_the_contracts_say() -> None:
    importers = {
        contract["protected_modules"][0].removeprefix("leanformer."): contract["allowed_importers"]
        for contract in contracts()
        if contract["type"] == "protected"
    }
    allowed = {
        room: {"core"} | {imported for imported, rooms in importers.items() if f"leanformer.{room}" in rooms}
        for room in the_map()
    }
    allowed["core"] = set()
    assert the_map() == allowed
    assert {"leanformer.cli"} <= set.intersection(*map(set, importers.values()))  # the commands may import all


def test_the_places_for_what_is_new_are_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = text[text.index("| a new ... | files | how |") :].split("\n\n")[0].splitlines()[2:]
    places = {place for row in rows for place in re.findall(r"`([^`]+)`", row.split("|")[2])}
    assert len(places) > len(rows) // 2
    assert not {place for place in places if not (PACKAGE / place.removesuffix("NAME.py")).exists()}


def test_no_more_lies_at_the_root() -> None:
    assert sorted(path.name for path in PACKAGE.glob("*.py")) == ["__init__.py", "__main__.py", "auto.py", "cli.py"]


def test_the_contracts_are_kept() -> None:
    told = lint(PACKAGE.parent)
    assert told.returncode == 0, told.stdout


@pytest.mark.parametrize(
    ("module", "imported", "contract"),
    [
        ("core.files", "leanformer.results.schema", "imports run downwards only"),
        ("learn.train", "leanformer.measure.cost", "who imports measure"),
        ("core.files", "torch", "the runtime reaches no heavy package"),  # through the manifest
        ("data.splits", "leanformer.data.images", "no circles, neither between rooms nor inside one"),
        *slow(
            ("report.page", "leanformer.study.run", "imports run downwards only"),
            ("learn.train", "leanformer.blocks.basic", "who imports blocks"),
            ("learn.train", "leanformer.results.schema", "who imports results"),
            ("config.base", "leanformer.results.schema", "of results, config knows metrics and costs alone"),
            ("report.page", "leanformer.config.base", "imports run downwards only"),
            ("blocks.kit.base", "leanformer.blocks.basic", "no circles, neither between rooms nor inside one"),
        ),
    ],
)
def test_an_import_that_is_not_allowed_breaks_a_contract(
    module: str, imported: str, contract: str, tmp_path: Path
) -> None:
    shutil.copytree(PACKAGE, tmp_path / "leanformer", ignore=shutil.ignore_patterns("__pycache__"))
    path = tmp_path / "leanformer" / Path(*module.split(".")).with_suffix(".py")
    path.write_text(path.read_text(encoding="utf-8") + f"\nimport {imported}\n", encoding="utf-8")
    told = lint(tmp_path)
    assert f"{contract} BROKEN" in told.stdout
    assert told.returncode == 1


def test_a_module_at_the_root_needs_a_floor(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "leanformer", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "leanformer" / "attic.py").write_text("")
    assert "leanformer.attic" in lint(tmp_path).stdout

"""The site of ``docs/``: all pages are in it, what they link to is there, and so are all public names."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from places import ROOT

import leanformer as lf

DOCS = ROOT / "docs"


def test_the_index_and_the_navigation_name_all_pages_in_one_order() -> None:
    index = re.findall(r"^- \[[^]]+\]\(([^)]+)\)", (DOCS / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n  - README.md\n")[2]
    assert re.findall(r"- (\S+\.md)$", navigation, flags=re.MULTILINE) == index
    assert sorted(index) == sorted(page.name for page in DOCS.glob("*.md") if page.name != "README.md")


def test_the_reference_names_all_public_names() -> None:
    named = re.findall(r"^::: leanformer\.(\w+)$", (DOCS / "api.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert sorted(named) == sorted(lf.__all__)


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: str(page.relative_to(DOCS)))
def test_what_is_inside_lists_is_indented_by_four(page: Path) -> None:
    """Fewer spaces are enough on GitHub; on the site a list, text or code would fall out of its item."""
    lines = ["", *page.read_text(encoding="utf-8").splitlines()]
    for number, (before, line) in enumerate(pairwise(lines), start=1):
        begins = re.match(r" {1,3}(```|[-*] |1\. )", line) or (not before and re.match(r" {1,3}\S", line))
        assert not begins, f"{page.name}, line {number}: {line}"


@pytest.mark.long
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="needs mkdocs: pip install -c constraints.txt -e '.[docs]'")
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # which material prints about its own successor
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    assert not list(tmp_path.rglob("*.py"))

    reference = (tmp_path / "api" / "index.html").read_text(encoding="utf-8")
    for name in lf.__all__:
        assert f'id="leanformer.{name}"' in reference

    outside = set()  # what lies outside docs/ and has come along
    for page in tmp_path.rglob("index.html"):
        for link in re.findall(r'<a[^>]* href="([^":#]+)[#"]', page.read_text(encoding="utf-8")):
            target = (page.parent / link).resolve()
            assert (target / "index.html" if target.is_dir() else target).is_file(), f"{page}: {link}"
            outside |= {target} if target.is_relative_to(tmp_path / "files") else set()
    assert any(path.suffix == ".json" for path in outside)

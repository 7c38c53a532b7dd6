"""The notebook of the main road: it runs, and what is kept of its output is true, small and of no one machine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from places import ROOT

NOTEBOOK = ROOT / "examples" / "digits.ipynb"
SAME_EVERYWHERE = ("lf.sites(", "lf.reduce(", "result.report", "result.model()")
"""What stands in cells whose output hangs on no training."""


def printed(notebook: Any) -> dict[str, str]:
    """Source -> what was printed, of each cell with code."""
    return {
        cell.source: "".join(output.text for output in cell.outputs if output.get("name") == "stdout")
        for cell in notebook.cells
        if cell.cell_type == "code"
    }


def test_the_notebook_is_small_and_of_no_one_machine() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text) < 20_000
    assert not re.search(r'["\s](/\w|[A-Z]:\\)', text)
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            assert output.output_type == "stream"
            assert output.name == "stdout"
        for link in re.findall(r"\]\(([^)]+)\)", cell.source) if cell.cell_type == "markdown" else ():
            assert (NOTEBOOK.parent / link).is_file()


@pytest.mark.long
def test_the_notebook_runs(tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    kept = printed(notebook)
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    now = printed(notebook)
    for source, text in kept.items():
        if any(call in source for call in SAME_EVERYWHERE):
            assert now[source] == text
        else:
            assert bool(now[source]) == bool(text)
    assert (tmp_path / "runs" / "notebook" / "report.html").is_file()

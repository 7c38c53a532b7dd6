"""Keeps the results of the demonstrations, and fills the pages' tables from them.

``make demo``, then ``python examples/keep_results.py``: copies the results of ``runs/`` to ``examples/results/``,
without the curves of training, and writes what stands in README.md and docs/quickstart.md between two comments::

    <!-- demo: digits -->
    <!-- end -->
"""

from __future__ import annotations

import json
import re
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console

from leanformer.core.files import write_atomically
from leanformer.report.summary import decision_lines, results_table
from leanformer.results.reader import read_results

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "examples" / "results"
DEMOS = ("digits", "number-words")
PAGES = (ROOT / "README.md", ROOT / "docs" / "quickstart.md")
MARKED = re.compile(r"(<!-- demo: (\S+) -->\n)(.*?)(<!-- end -->)", flags=re.DOTALL)
"""A place for a demonstration's output: its opening comment, the study's name, what stands there, the closing one."""
WIDTH = 80


def without_curves(results: dict[str, Any]) -> dict[str, Any]:
    """The results but for what was measured after each epoch, which is most of them."""
    rows = [results["baseline"], *results["candidates"]]
    baseline, *candidates = ({**row, "curves": []} for row in rows)
    return {**results, "baseline": baseline, "candidates": candidates}


def printed(results: dict[str, Any]) -> str:
    """What the command prints of them on a terminal of 80 columns: the table, warnings and all sentences."""
    stream = StringIO()
    console = Console(width=WIDTH, file=stream, color_system=None, highlight=False)
    console.print(results_table(results))
    headline, *lines = decision_lines(results)
    warnings = [f"Warning: {warned['sentence']} [{warned['code']}]" for warned in results["warnings"]]
    for line in (headline, *warnings, *lines):
        console.print(line, markup=False)
    return "".join(f"{line.rstrip()}\n" for line in stream.getvalue().splitlines())


def filled(page: str) -> str:
    """A page with the kept results in its places."""
    return MARKED.sub(lambda place: f"{place[1]}```\n{printed(read_results(KEPT / place[2]))}```\n{place[4]}", page)


def main() -> None:
    """Keeps the results of the runs in ``runs/``, and writes the pages."""
    for name in DEMOS:
        if not (ROOT / "runs" / name / "results.json").exists():
            continue  # the pages are written all the same: the command's sentences may have changed
        (KEPT / name).mkdir(parents=True, exist_ok=True)
        kept = json.dumps(without_curves(read_results(ROOT / "runs" / name)), indent=1, ensure_ascii=False)
        write_atomically(KEPT / name / "results.json", f"{kept}\n")
    for path in PAGES:
        write_atomically(path, filled(path.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()

"""The report of a study that ships: quality before and after export, the recipe beside, several runtimes."""

from __future__ import annotations

import io
from typing import Any

import pytest
from report_examples import example_results, exported_results
from rich.console import Console

from leanformer.report.page import render
from leanformer.report.summary import decision_lines, results_table
from leanformer.results.formats import share
from leanformer.results.migrate import migrate
from leanformer.results.schema import form_of


def checked(results: dict[str, Any]) -> dict[str, Any]:
    """Results in the form that is written."""
    return form_of(results).model_validate(migrate(results, 1)).content()


def on_terminal(results: dict[str, Any]) -> str:
    output = io.StringIO()
    Console(file=output, width=80).print(results_table(results))
    return output.getvalue()


def test_the_table_shows_quality_before_and_after_export() -> None:
    results = exported_results()
    results["candidates"][1]["artifact"]["before"] = {"mean": 0.981, "low": 0.97, "high": 0.99, "per_seed": [0.981]}
    table = on_terminal(checked(results))
    name = results["candidates"][1]["name"]
    (line,) = (line for line in table.splitlines() if line.split()[:1] == [name])
    assert "98.1→97.2" in line
    assert max(map(len, table.splitlines())) <= 80
    assert "→" not in on_terminal(checked(example_results()))


def test_the_lines_say_what_the_export_changed_and_what_holds_for_the_recipe() -> None:
    lines = decision_lines(checked(exported_results()))
    (exported,) = (line for line in lines if line.startswith("Exported to "))
    assert exported == (
        "Exported to ONNX Runtime in float32: accuracy 97.0 % before, 97.0 % after; 0 of 1,000 answers differ, so "
        "at most 0.3 % do (95 % confidence)."
    )
    assert any(line.startswith("Its recipe, trained anew, over 3 seeds: accept. ") for line in lines)
    assert not any("one trained pair only" in line for line in lines)
    assert not any("Exported" in line or "recipe" in line for line in decision_lines(checked(example_results())))


def test_the_page_has_tables_of_exported_models_and_of_runtimes() -> None:
    page = render(checked(exported_results()))
    for part in ('<table id="exports">', '<table id="speeds">', "PyTorch", "ONNX Runtime", "99.23 %", "before export"):
        assert part in page
    assert "exports/four-heads/onnx-float32/exported" in page
    plain = render(checked(example_results()))
    assert '<table id="exports">' not in plain
    assert '<table id="speeds">' not in plain


@pytest.mark.parametrize(("value", "text"), [(1.0, "100 %"), (0.99999, "99.99 %"), (0.9923, "99.23 %"), (0.0, "0 %")])
def test_a_share_is_all_only_where_it_is(value: float, text: str) -> None:
    assert share(value) == text

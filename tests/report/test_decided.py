"""How results are told whose decisions are on the one model that ships, at a look of several."""

from __future__ import annotations

import pytest
from report_examples import decided_results, example_results

from leanformer.report.columns import PAGE, result_columns
from leanformer.report.page import render
from leanformer.report.summary import decision_lines
from leanformer.results.migrate import migrate
from leanformer.results.schema import VERSION, form_of


def test_it_is_a_results_file() -> None:
    content = decided_results()
    written = form_of(content).model_validate(migrate(content, 1)).content()
    assert written["version"] == VERSION
    assert written["looks"]["history"][0]["candidates"] == [row["name"] for row in content["candidates"]]
    assert written["baseline"]["decided_seed"] == 2


def test_the_lines_tell_look_recipe_and_picking() -> None:
    text = "\n".join(decision_lines(decided_results()))
    assert "the limit is 0.025" in text
    assert "corrected for 8 candidates" in text
    assert "picked among 8 candidates; the interval that accounts for that is -0.9 to +0.2" in text
    assert "Its recipe, trained anew, over 3 seeds: accept. " in text
    assert "so at most 63.2 % of trainings do" in text
    assert "This is look 1 of 2 at this test split, on which 8 candidates were evaluated." in text
    assert "2.5 %" in text


def test_later_looks() -> None:
    later = "\n".join(decision_lines(decided_results(2)))
    assert "was ruled out at look 1 (now p" in later
    spent = "\n".join(decision_lines(decided_results(3)))
    assert "All 2 planned looks at this test split were taken before" in spent
    assert "leanformer confirm" in spent


def test_results_of_earlier_versions_say_nothing_of_looks() -> None:
    text = "\n".join(decision_lines(example_results()))
    assert "look" not in text
    assert "recipe" not in text
    assert "picked" not in text


@pytest.mark.parametrize("results", [decided_results(), example_results()])
def test_the_page_has_a_column_of_recipes_where_there_are_some(results: dict[str, object]) -> None:
    page = render(results)
    has = results["looks"] is not None
    assert ("over 3 seeds" in page) == has
    assert ("of the one model of each that would ship" in page) == has
    assert "recipe" in PAGE
    assert result_columns(results)["recipe"].head == "recipe"


def test_examples_without_labels_are_told() -> None:
    results = example_results()
    assert "without labels" not in "\n".join(decision_lines(results))
    results["data"]["unlabelled"] = 1_234
    assert "Distilled models also learned from 1,234 examples without labels" in "\n".join(decision_lines(results))

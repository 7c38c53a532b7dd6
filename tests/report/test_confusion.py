"""Confusion matrices on the report's page."""

from __future__ import annotations

import re
from typing import Any

from report_examples import example_results, translation_results

from leanformer.report.confusion import confusions
from leanformer.report.page import render
from leanformer.results.images import ImageResults
from leanformer.results.migrate import migrate
from leanformer.results.schema import rows_of


def three_classes() -> dict[str, Any]:
    """A study of three classes, of which the last has no test image, with two trained models each."""
    results = migrate(example_results(seeds=2, classes=3), 1)
    results["data"]["classes"] = ["cat", "<dog>", "cow"]
    for row in rows_of(results):
        pair = {"correct": "cat", "predicted": "<dog>", "count": 4, "examples": 100}
        row["confusion"] = {"models": 2, "matrix": [[96, 4, 0], [0, 50, 0], [0, 0, 0]], "pairs": [pair]}
    return ImageResults.model_validate(results).content()


def test_the_baseline_and_the_recommended_model_are_shown() -> None:
    baseline, chosen = confusions(three_classes())
    assert (baseline.row["name"], chosen.row["name"]) == ("baseline", "four-heads")
    assert [(name, answers) for name, answers, _ in baseline.lines] == [("cat", 100), ("<dog>", 50)]
    (_, _, cells), _ = baseline.lines
    assert [cell.count for cell in cells] == [96, 4, 0]
    assert [cell.right for cell in cells] == [True, False, False]
    assert [cell.shade for cell in cells] == [59, 12, 0]  # 60 times the square roots of 0.96, 0.04 and 0
    alone = three_classes() | {"recommended": "baseline"}
    assert [shown.row["name"] for shown in confusions(alone)] == ["baseline"]


def test_the_page_has_the_matrices_and_the_thresholds() -> None:
    results = three_classes()
    metric = "recall_at_false_alarms"
    results |= {"metric": metric, "accept": {**results["accept"], "metric": metric}}
    for row in rows_of(results):
        row["thresholds"] = [{"seed": seed, "threshold": 0.8321, "reached": 0.0125} for seed in (0, 1)]
    page = render(ImageResults.model_validate(results).content())
    tables = re.findall(r'<table class="confusion">.*?</table>', page, re.DOTALL)
    assert len(tables) == 2
    assert 'title="cat taken for &lt;dog&gt;: 4 of 100">4</td>' in tables[0]
    assert "summed over the trained models" in page
    assert 'data-label="threshold"><span>0.8321</span>' in page
    assert re.search(r'data-label="false-alarm rate"><span>1\.[23] %</span>', page)


def test_many_classes_are_a_list() -> None:
    results = three_classes()
    for row in rows_of(results):
        row["confusion"]["matrix"] = None
    results["baseline"]["confusion"]["pairs"] = []
    page = render(results)
    assert '<table class="confusion">' not in page
    assert page.count("<li>cat taken for &lt;dog&gt;: 4 of 100</li>") == 1
    assert "No test example was taken for another class." in page


def test_older_files_and_translators_have_none() -> None:
    assert confusions(migrate(example_results(), 1)) == confusions(migrate(translation_results(), 1)) == []

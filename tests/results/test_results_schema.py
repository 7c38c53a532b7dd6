"""The typed models of results.json: files are read as they were written, and older versions are converted."""

from __future__ import annotations

import copy
import json
import re
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from report_examples import example_results, translation_results
from rich.console import Console

from leanformer.core.errors import LeanformerError
from leanformer.report import page, summary
from leanformer.report.columns import PAGE, TERMINAL
from leanformer.results.migrate import migrate
from leanformer.results.reader import read_results
from leanformer.results.schema import FORMS, VERSION, form_of, rows_of

OLD = Path(__file__).parent / "results_of_version_1"
"""Files of studies from before there was a version, one for each task."""


def old(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((OLD / f"{name}.json").read_text(encoding="utf-8"))
    return content


def read(content: dict[str, Any], directory: Path) -> dict[str, Any]:
    (directory / "results.json").write_text(json.dumps(content), encoding="utf-8")
    return read_results(directory)


@pytest.mark.parametrize("name", ["images", "translation"])
def test_a_file_of_version_1_keeps_all_that_it_says(name: str, tmp_path: Path) -> None:
    content = old(name)
    assert "version" not in content
    migrated = read(content, tmp_path)
    assert migrated["version"] == VERSION
    for row, known in zip(rows_of(migrated), rows_of(content), strict=True):
        assert {key: json.loads(json.dumps(row[key])) for key in known} == known
    assert {key: value for key, value in migrated.items() if key not in ("version", "baseline", "candidates")} == {
        **{key: value for key, value in content.items() if key not in ("baseline", "candidates")},
        "shipped": None,
        "data": {"groups": None, **content["data"]},
        "accept": {"max_ratio": None, **content["accept"]},
        "corruptions": [],
        "looks": None,
        "picked": None,
        "cross_validation": None,
    }
    path = page.write_report(tmp_path)
    assert content["recommendation"] in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("content", [example_results(), translation_results(), old("images"), old("translation")])
def test_what_is_written_is_what_is_read(content: dict[str, Any], tmp_path: Path) -> None:
    form = form_of(content)
    written = form.model_validate(migrate(content, 1)).content()
    assert read(written, tmp_path) == written
    assert list(written) == list(form.model_fields)


def test_migrating_leaves_the_content_alone() -> None:
    content = example_results()
    for row in rows_of(content):
        for change in row["changes"]:
            del change["removed"], change["added"]
    before = copy.deepcopy(content)
    changes = migrate(content, 1)["baseline"]["changes"]
    assert content == before
    assert [(change["removed"], change["added"]) for change in changes] == [(0, 0)] * len(changes)


def test_files_of_earlier_versions_have_no_groups(tmp_path: Path) -> None:
    content = example_results()
    del content["data"]["groups"]
    assert read(content, tmp_path)["data"]["groups"] is None


@pytest.mark.parametrize("version", [0, 5, True, "2", None, 2.5])
def test_files_of_other_versions_are_refused(version: object, tmp_path: Path) -> None:
    with pytest.raises(
        LeanformerError, match=r"its version is .*, and this version of leanformer reads versions 1 to 4"
    ):
        read({**example_results(), "version": version}, tmp_path)


@pytest.mark.parametrize("key", ["trials", "decoding", "teaching", "more_seeds", "mcnemar"])
def test_of_this_version_every_key_is_there(key: str, tmp_path: Path) -> None:
    written = migrate(example_results(), 1)
    del written["candidates"][0][key]
    with pytest.raises(LeanformerError, match=rf"candidates\.0\.{key}: field required"):
        read(written, tmp_path)


def test_a_blank_row_says_that_nothing_is_known() -> None:
    blank = FORMS["translation"].blank_row()
    assert [blank[key] for key in ("quality", "decoding", "scores", "examples", "failures")] == [None] * 3 + [[]] * 2
    assert not {"name", "parameters", "scope"} & set(blank)


def test_a_quality_in_training_lies_where_its_metric_does(tmp_path: Path) -> None:
    content = example_results()
    content["baseline"]["learning_rate_search"][0]["accuracy"] = 2.0
    with pytest.raises(LeanformerError, match="baseline: its accuracy in training is 2; it goes from 0 to 1"):
        read(content, tmp_path)


def test_the_baseline_alone_may_have_further_seeds(tmp_path: Path) -> None:
    content = migrate(example_results(), 1)
    more = example_results(seeds=4)

    def with_seeds(row: dict[str, Any]) -> None:
        row["seeds"] = [*row["seeds"], 3]
        row["quality"] = {**row["quality"], "per_seed": more["baseline"]["quality"]["per_seed"]}

    with_seeds(content["baseline"])
    content["baseline"]["plan"] = {}
    found = read(content, tmp_path)
    assert found["baseline"]["seeds"] == [0, 1, 2, 3]
    shown = page.render(found)
    assert "3 seeds each, the baseline 4</p>" in shown
    assert "0, 1, 2; the baseline 0, 1, 2, 3</dd>" in shown
    with_seeds(content["candidates"][0])
    with pytest.raises(LeanformerError, match=r"its seeds are \[0, 1, 2, 3\], the study's \[0, 1, 2\]"):
        read(content, tmp_path)


def test_every_task_has_a_form_and_words() -> None:
    assert list(FORMS)[:2] == ["image-classification", "translation"]
    assert [form.wording.example for form in FORMS.values()][:2] == ["example", "sentence"]
    assert all(form.wording.example for form in FORMS.values())


def test_terminal_and_page_have_their_columns_from_one_list(monkeypatch: pytest.MonkeyPatch) -> None:
    results = migrate(example_results(), 1)
    monkeypatch.setattr(summary, "TERMINAL", (*TERMINAL, "p"))
    monkeypatch.setattr(page, "PAGE", ("speed", *PAGE))
    console = Console(file=StringIO(), width=120)
    console.print(summary.results_table(results))
    table = console.file.getvalue()  # type: ignore[attr-defined]
    assert table.splitlines()[0].split()[-1] == "p"
    assert re.search(r"no-mlp .*accept +0\.021", table)
    heads = re.search(r'<table id="quality">\n<thead>(.*)</thead>', page.render(results))
    assert heads is not None
    assert heads[1].startswith("<tr><th>candidate</th><th>speed</th>")

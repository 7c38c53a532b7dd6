"""The channel of warnings: a code, a sentence and a count, beside the decision wherever a result is shown."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from image_files import write_folder
from places import ROOT
from report_examples import example_results

import leanformer
from leanformer.cli import main
from leanformer.core.json_files import to_json
from leanformer.core.warning import CODES, StudyWarning, rows
from leanformer.report.page import render
from leanformer.results.reader import read_results

SOURCES = Path(leanformer.__file__).parent
DOCS = ROOT / "docs"


def warned() -> list[StudyWarning]:
    return [
        StudyWarning("leaked-images", "test: 3 of 719 images are in the training split too", 3),
        StudyWarning("similar-labels", "the classes 'cat' and 'cat\x1b[31m' differ\nby blanks", 2),
    ]


def test_every_code_is_given_somewhere_and_explained_on_its_page() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES.rglob("*.py") if path.name != "warning.py")
    page = (DOCS / "warnings.md").read_text(encoding="utf-8")
    for name in CODES:
        assert f'"{name}"' in code, f"nothing gives {name}"
        assert f"warning `{name}`" in page, f"docs/warnings.md does not explain {name}"
    named = set(re.findall(r"warning `([a-z-]+)`", page))
    assert named == set(CODES)


def test_a_warning_without_a_code_of_its_own_cannot_be_given() -> None:
    with pytest.raises(ValueError, match="no warning has the code 'nothing'"):
        StudyWarning("nothing", "something is wrong", 1)


def test_warnings_stand_at_the_top_of_the_report(tmp_path: Path) -> None:
    results: dict[str, Any] = {**example_results(), "warnings": rows(warned())}
    (tmp_path / "results.json").write_text(to_json(results), encoding="utf-8")
    page = render(read_results(tmp_path))
    decision = page[page.index('id="decision"') : page.index("</section>")]
    assert "3 of 719 images are in the training split too" in decision
    assert "<code>leaked-images</code>" in decision
    assert decision.index("headline") < decision.index("leaked-images")
    assert "\x1b" not in page


def test_a_warning_is_one_line_that_a_terminal_does_not_obey() -> None:
    _, second = map(str, warned())
    assert second == "warning: the classes 'cat' and 'cat\\x1b[31m' differ\\nby blanks [similar-labels]"


def test_a_leak_is_told_on_the_terminal_in_the_results_and_at_the_decision(
    tmp_path: Path, digits_study: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = write_folder(tmp_path / "photos" / "train", "cat", "dog", count=20, size=(8, 8))
    shutil.copytree(write_folder(tmp_path / "others", "cat", "dog", count=40, size=(8, 8)), photos.parent / "test")
    for path in (photos.parent / "test").glob("*/*.png"):
        if int(path.stem) < 20 and path != photos.parent / "test" / "cat" / "0.png":
            path.unlink()
    study = digits_study(data={"source": str(tmp_path / "photos")}, seeds=[0])
    study["candidates"] = {"no-mlp": {"plan": {"*.mlp": "none"}}}
    study["train"] = {"epochs": 1, "batch_size": 16, "learning_rate": 1e-3}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    monkeypatch.setattr(
        sys, "argv", ["leanformer", "run", str(tmp_path / "study.yaml"), "--out", str(tmp_path / "run")]
    )
    with pytest.raises(SystemExit, match="0"):
        main()
    shown = capsys.readouterr()
    assert "tiny: warning: test images that are pixel for pixel in the training split: 1 of 41" in shown.err
    assert "[leaked-images]" in shown.err
    assert re.search(
        r"^Warning: test images that are pixel for pixel in the training split: 1 of 41", shown.out, re.MULTILINE
    )
    (found,) = read_results(tmp_path / "run")["warnings"]
    assert (found["code"], found["count"]) == ("leaked-images", 1)
    assert found["sentence"].startswith("test images that are pixel for pixel in the training split: 1 of 41")
    assert found["sentence"] in (tmp_path / "run" / "report.html").read_text(encoding="utf-8").replace("&#39;", "'")

"""The ledger of looks at a test split, and what it leaves to later looks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from leanformer.core.errors import LeanformerError
from leanformer.study.ledger import FILE, Ledger, Seen, recipe_of

ACCEPT = {"metric": "accuracy", "max_drop": 0.01, "confidence": 0.95}


def opened(directory: Path, planned: int = 2, split: str = "split") -> Ledger:
    directory.mkdir(exist_ok=True)
    return Ledger(directory, split, planned)


def seen(
    outcomes: str,
    names: Mapping[str, str],
    seeds: tuple[int, ...] = (0,),
    baseline_seeds: tuple[int, ...] = (),
    **accept: Any,
) -> Seen:
    """One outcome a letter, and the same candidates for both statements."""
    return Seen(list(outcomes), {"artifact": names, "recipe": names}, seeds, {**ACCEPT, **accept}, baseline_seeds)


def test_only_new_outcomes_are_a_look(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    assert ledger.look(seen("ab", {"small": "1"})) == 1
    assert opened(tmp_path).look(seen("ab", {"small": "1"})) == 1  # a report again, after a resume
    assert opened(tmp_path).look(seen("a", {})) == 1  # without a candidate
    assert opened(tmp_path).look(seen("ab", {"small": "1"}, max_drop=0.02)) == 1  # another margin
    assert opened(tmp_path).look(seen("abc", {"small": "1"}, (0, 1))) == 2
    assert opened(tmp_path, split="other").taken == 0
    assert opened(tmp_path).taken == 2


def test_all_that_was_ever_evaluated_counts(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    ledger.look(seen("ab", {f"form-{number}": str(number) for number in range(60)}))
    ledger = opened(tmp_path)
    ledger.look(seen("c", {"form-7": "7"}, (0, 1)))
    look = ledger.for_statement("artifact", {"form-7": "7"}, compared=1, accept=ACCEPT)
    assert (look.number, look.planned, look.others) == (2, 2, 59)
    renamed = ledger.for_statement("artifact", {"winner": "7"}, compared=1, accept=ACCEPT)
    assert renamed.others == 59
    failed = ledger.for_statement("artifact", {"form-7": "7"}, compared=0, accept=ACCEPT)
    assert failed.others == 60


def test_accepted_stays_accepted_with_the_same_margin(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    ledger.look(seen("a", {"small": "1", "tiny": "2"}))
    ledger.keep_accepted("artifact", ["1"], ACCEPT)
    ledger.look(seen("ab", {"small": "1", "tiny": "2"}))
    ledger.keep_accepted("artifact", ["1", "2"], ACCEPT)
    names = {"renamed": "1", "tiny": "2"}
    ledger = opened(tmp_path)
    assert ledger.for_statement("artifact", names, 2, ACCEPT).accepted == {"renamed": 1, "tiny": 2}
    assert ledger.for_statement("recipe", names, 2, ACCEPT).accepted == {}
    assert ledger.for_statement("artifact", names, 2, {**ACCEPT, "max_drop": 0.005}).accepted == {}


def test_the_number_of_looks_is_set_before_the_first(tmp_path: Path) -> None:
    opened(tmp_path, 2)
    opened(tmp_path, 3).look(seen("a", {}))
    with pytest.raises(LeanformerError, match=r"accept.looks: 2, and 3 looks were planned .* put it back"):
        opened(tmp_path, 2)
    opened(tmp_path, 1, split="once").look(seen("a", {}))
    with pytest.raises(LeanformerError, match=r"accept.looks: 2, and 1 look was planned"):
        opened(tmp_path, 2, split="once")


def test_seeds_that_were_evaluated_stay(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    ledger.check_seeds([5], [5])
    ledger.look(seen("ab", {}, (0, 1, 2), baseline_seeds=(7, 8)))
    ledger.check_seeds([0, 1, 2], [0, 1, 2, 7, 8])  # the same study again
    ledger.check_seeds([0, 1, 2, 7], [0, 1, 2, 7, 8])
    with pytest.raises(LeanformerError, match=r"baseline.seeds: seeds 7, 8 were evaluated .* put them back"):
        ledger.check_seeds([0, 1, 2], [0, 1, 2])
    with pytest.raises(LeanformerError, match="seeds: seed 1 was evaluated on this test split at an earlier look"):
        ledger.check_seeds([0, 2], [0, 1, 2, 7, 8])


def test_what_ships_stays_chosen(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    assert ledger.ships("1") is None
    ledger.keep_ships({"1": 2})
    opened(tmp_path).keep_ships({"1": 0, "2": 1})
    ledger = opened(tmp_path)
    assert (ledger.ships("1"), ledger.ships("2")) == (2, 1)


def test_changes_after_a_look_are_said(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    assert ledger.changes(ACCEPT) == []
    ledger.look(seen("a", {"small": "1"}))
    assert ledger.changes(ACCEPT) == []
    ledger.look(seen("b", {"small": "1", "tiny": "2"}, (0, 1)))
    (warning,) = ledger.changes({**ACCEPT, "max_drop": 0.02})
    assert warning.code == "changed-after-look"
    for words in ("accept.max_drop was 0.01 and is 0.02", "one candidate joined", "one seed joined"):
        assert words in warning.sentence
    ledger.look(seen("c", {"tiny": "2"}, (0, 1)))
    (warning,) = ledger.changes(ACCEPT)
    assert "one candidate was left out" in warning.sentence


def test_a_margin_that_was_changed_and_put_back_is_said(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    for margin in (0.01, 0.3, 0.01, 0.01):  # one look
        ledger.look(seen("a", {"small": "1"}, max_ratio=None, max_drop=margin))
    (warning,) = opened(tmp_path).changes({**ACCEPT, "max_ratio": None})
    assert "accept.max_drop was 0.01, then 0.3 and is 0.01" in warning.sentence
    assert "max_ratio" not in warning.sentence
    (warning,) = opened(tmp_path).changes({**ACCEPT, "max_ratio": 1.1})
    assert "accept.max_ratio was null and is 1.1" in warning.sentence


def test_what_a_metric_does_not_read_is_no_change(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    ledger.look(seen("a", {"small": "1"}, metric="auc", positive="cat", coverage=0.95))
    ledger.look(seen("a", {"small": "1"}, metric="accuracy_at_coverage", positive=None, coverage=0.9))
    (warning,) = ledger.changes({**ACCEPT, "metric": "auc", "positive": "dog", "coverage": 0.95})
    assert "accept.metric was auc, then accuracy_at_coverage and is auc" in warning.sentence
    assert "accept.positive was cat and is dog" in warning.sentence
    assert "coverage was" not in warning.sentence


def test_looks_in_sibling_directories_are_told(tmp_path: Path) -> None:
    ledger = opened(tmp_path / "first")
    ledger.look(seen("a", {}))
    assert ledger.elsewhere() == []
    opened(tmp_path / "unrelated", split="other").look(seen("a", {}))
    second = opened(tmp_path / "second")
    (warning,) = second.elsewhere()
    assert warning.code == "looked-at-elsewhere"
    assert "first (1 look)" in warning.sentence
    assert "unrelated" not in warning.sentence


def test_another_test_split_in_the_same_directory_is_told(tmp_path: Path) -> None:
    opened(tmp_path, split="first").look(seen("a", {}))
    (warning,) = opened(tmp_path, split="second").other_splits()
    assert warning.code == "another-test-split"
    assert "another test split 1 time:" in warning.sentence
    assert opened(tmp_path, split="first").other_splits() == []
    opened(tmp_path / "new", split="fresh").confirmation(seen("b", {}))
    assert opened(tmp_path / "new", split="of the study").other_splits() == []  # a confirmation is no look of a study


def test_a_damaged_ledger_is_no_fresh_start(tmp_path: Path) -> None:
    opened(tmp_path).look(seen("a", {}))
    (tmp_path / FILE).write_text((tmp_path / FILE).read_text().replace('"a"', '"b"'))
    with pytest.raises(LeanformerError, match=r"ledger.json: damaged .* put back a copy, or start in a new run"):
        opened(tmp_path)


def test_a_recipe_is_known_whatever_its_seeds() -> None:
    settings = {"plan": {"a": "none", "b": "none"}, "seed": 0, "teacher": {"seed": 0, "train": {"epochs": 3}}}
    other = {"plan": {"a": "none", "b": "none"}, "seed": 4, "teacher": {"seed": 4, "train": {"epochs": 3}}}
    assert recipe_of(settings) == recipe_of(other)
    assert recipe_of(settings) != recipe_of({**settings, "plan": {"b": "none", "a": "none"}})
    assert recipe_of(settings) != recipe_of({**settings, "teacher": {"seed": 0, "train": {"epochs": 4}}})

"""``lf.compare``: decisions on files of predictions, against the functions that studies decide with."""

from __future__ import annotations

import csv
import html
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sacrebleu
import yaml

import leanformer as lf
from leanformer.core.errors import LeanformerError
from leanformer.decide import statistics
from leanformer.report.comparison import comparison_table
from leanformer.results.formats import ratio

Write = Callable[..., Path]
EXAMPLES = 1_200
OLD = np.arange(EXAMPLES) % 20 > 0
"""Which examples the old model gets right: 95 %."""
SAME = OLD ^ (np.arange(EXAMPLES) < 2)
"""With two more or less."""
WORSE = OLD & (np.arange(EXAMPLES) % 9 > 0)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes predictions of one or several seeds, in an order of their own."""

    def written(name: str, right: np.ndarray, seeds: Sequence[int] = (), **columns: Sequence[object]) -> Path:
        rows: list[dict[str, object]] = []
        for place, of_seed in enumerate(np.atleast_2d(right)):
            for number, correct in enumerate(of_seed.tolist()):
                row: dict[str, object] = {"id": f"e{number}", "label": "cat", "prediction": "cat" if correct else "dog"}
                row |= {key: values[number] for key, values in columns.items()}
                rows.append(row | ({"seed": seeds[place]} if seeds else {}))
        random.Random(name).shuffle(rows)
        path = tmp_path / name
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
        return path

    return written


def test_the_decision_is_that_of_a_study(write: Write) -> None:
    found = lf.compare(write("old.csv", OLD), write("new.csv", SAME), max_drop=0.02)
    (row,) = found.candidates
    expected = statistics.compare(OLD[None].astype(float), SAME[None].astype(float), 0.02, 0.95)
    assert row["difference"]["mean"] == pytest.approx(expected.difference.mean)
    assert row["difference"]["low"] == pytest.approx(expected.difference.low)
    assert row["p_value"] == pytest.approx(expected.p_noninferior)
    # All labels are one class here, so that a model that always says it is perfect: nothing is accepted.
    assert found.decision == "undecided"
    assert "a model that has learned nothing (100.00) would be within 2 points of it" in row["reason"]


@pytest.fixture
def pairs(tmp_path: Path) -> Callable[[dict[str, np.ndarray]], list[Path]]:
    """Files of predictions of four classes, by which examples are right."""

    def written(models: dict[str, np.ndarray]) -> list[Path]:
        paths = []
        for name, right in models.items():
            path = tmp_path / f"{name}.jsonl"
            lines = [
                json.dumps({"id": number, "label": number % 4, "prediction": (number + (not correct)) % 4})
                for number, correct in enumerate(right.tolist())
            ]
            path.write_text("\n".join(lines))
            paths.append(path)
        return paths

    return written


def test_several_new_files_are_corrected_by_holm(pairs: Callable[..., list[Path]], tmp_path: Path) -> None:
    old, *new = pairs({"old": OLD, "same": SAME, "worse": WORSE})
    found = lf.compare(old, new, max_drop=0.01, directory=tmp_path / "out")
    same, worse = found.candidates
    assert (same["name"], same["decision"], worse["decision"]) == ("same", "accept", "reject")
    assert same["p_adjusted"] == pytest.approx(2 * same["p_value"])
    assert found.decision == "reject"
    assert lf.compare(old, new[0], max_drop=0.01).decision == "accept"
    assert found.sentences[0] == f"same: accept. {same['reason']}"
    assert json.loads((tmp_path / "out" / "comparison.json").read_text()) == found.results
    page = html.unescape((tmp_path / "out" / "comparison.html").read_text())
    for words in (same["reason"], worse["reason"], "A model is accepted when a drop of 1 point or more is ruled out"):
        assert words in page
    assert comparison_table(found.results).row_count == 3


def test_a_ratio_of_error_rates_is_its_own_margin(pairs: Callable[..., list[Path]], tmp_path: Path) -> None:
    many = np.tile(OLD, 10)
    old, new = pairs({"old": many, "new": many | (np.arange(len(many)) % 100 == 0)})
    found = lf.compare(old, new, max_drop="10%", directory=tmp_path / "out")
    (row,) = found.candidates
    assert found.results["accept"] == {"metric": "accuracy", "max_drop": 0, "max_ratio": 1.1, "confidence": 0.95}
    assert row["decision"] == "accept"
    assert "an error rate of 1.10 times the baseline's or more is ruled out for this one trained pair" in row["reason"]
    assert row["difference"]["mean"] == pytest.approx(0.01)
    page = html.unescape((tmp_path / "out" / "comparison.html").read_text())
    assert "accepted when an error rate of 1.10 times the baseline's or more is ruled out" in page
    assert (ratio(1.1), ratio(1.125), ratio(2.0)) == ("1.10", "1.125", "2.00")


@pytest.mark.parametrize(("metric", "max_drop"), [("bleu", "10%"), ("chrf", "10 %")])
def test_scores_that_are_no_shares_have_no_ratio(metric: str, max_drop: str) -> None:
    with pytest.raises(LeanformerError, match=r"a margin for shares of right answers, and (BLEU|chrF) is none; "):
        lf.compare("old.csv", "new.csv", metric=metric, max_drop=max_drop)


SEEDS = np.stack([np.roll(OLD, shift) for shift in (0, 1, 2)])


def test_seeds_give_the_recipe_and_a_pair_the_artifact(write: Write) -> None:
    old, new = write("old.csv", SEEDS, [0, 1, 5]), write("new.csv", SEEDS[::-1], [3, 4, 7])
    found = lf.compare(old, new)
    assert found.candidates[0]["scope"] == "seeds and examples"
    assert found.candidates[0]["recipe"] is None
    assert found.results["baseline"]["seeds"] == [0, 1, 5]
    pair = lf.compare(old, new, pair=(5, 3))  # both have the third row of outcomes
    assert pair.candidates[0]["scope"] == "one trained pair"
    assert pair.candidates[0]["difference"]["mean"] == 0
    assert pair.candidates[0]["recipe"]["difference"] == found.candidates[0]["difference"]
    assert "This holds for the models of seed 5 (the baseline's) and of seed 3." in pair.sentences
    with pytest.raises(LeanformerError, match=r"pair: .*new\.csv has no seed 5; it has 3, 4, 7"):
        lf.compare(old, new, pair=(5, 5))
    alone = write("alone.csv", OLD)
    with pytest.raises(LeanformerError, match=r"alone\.csv has predictions of one model, and .*new\.csv of 3 seeds"):
        lf.compare(alone, new)
    assert lf.compare(alone, new, pair=(0, 4)).candidates[0]["recipe"] is None


def test_groups_and_weights_are_read_from_either_file(write: Write) -> None:
    groups = [number // 4 for number in range(EXAMPLES)]
    weights = np.where(np.arange(EXAMPLES) % 2, 3.0, 1.0)
    old, new = write("old.csv", OLD, group=groups), write("new.csv", WORSE, weight=weights.tolist())
    found = lf.compare(old, new)
    expected = statistics.compare(
        OLD[None].astype(float), WORSE[None].astype(float), 0.01, 0.95, np.array(groups), weights=weights
    )
    assert found.candidates[0]["difference"]["low"] == pytest.approx(expected.difference.low)
    assert found.results["data"] == {"test": 1_200, "groups": 300, "effective": pytest.approx(300)}
    assert found.results["baseline"]["quality"]["mean"] == pytest.approx(np.average(OLD, weights=weights))


def test_texts_are_scored_as_sacrebleu_does(tmp_path: Path) -> None:
    random_ = np.random.default_rng(0)
    words = np.array(["the", "a", "house", "tree", "cat", "is", "was", "green", "over", "and", "small", "man"])
    references = [" ".join(random_.choice(words, 9)) for _ in range(60)]
    worse = [" ".join(word if random_.random() < 0.8 else "of" for word in text.split()) for text in references]
    for name, texts in (("old", references), ("new", worse)):
        rows = [{"id": i, "label": r, "prediction": t} for i, (r, t) in enumerate(zip(references, texts, strict=True))]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for metric, official in (("bleu", sacrebleu.corpus_bleu), ("chrf", sacrebleu.corpus_chrf)):
        found: Any = lf.compare(tmp_path / "old.jsonl", tmp_path / "new.jsonl", metric=metric)
        assert found.candidates[0]["quality"]["mean"] == pytest.approx(official(worse, [references]).score)
        assert found.results["signature"].startswith("nrefs:1|case:mixed")
        assert found.decision == "reject"


def test_words_are_counted_by_the_tokenizer_that_is_asked_for(tmp_path: Path) -> None:
    references = ["das Haus steht am Fluss.", "die Katze schläft heute lange.", "er kommt, und sie geht."]
    written = ["das Haus steht an Fluss.", "die Katze schlief heute lange.", "er kommt und sie geht."]
    for name, texts in (("old", references), ("new", written)):
        rows = [{"id": i, "label": r, "prediction": t} for i, (r, t) in enumerate(zip(references, texts, strict=True))]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    scores = {}
    for tokenizer in ("auto", "13a", "char", "none"):
        found: Any = lf.compare(tmp_path / "old.jsonl", tmp_path / "new.jsonl", metric="bleu", tokenizer=tokenizer)
        used = "13a" if tokenizer == "auto" else tokenizer
        assert f"|tok:{used}|" in found.results["signature"]
        scores[tokenizer] = found.candidates[0]["quality"]["mean"]
        assert scores[tokenizer] == pytest.approx(sacrebleu.corpus_bleu(written, [references], tokenize=used).score)
    assert scores["auto"] == scores["13a"] != scores["char"] != scores["none"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"tokenizer": "zh"}, r"tokenizer \(--tokenizer\) does nothing for accuracy, which counts no words"),
        ({"tokenizer": "zh", "metric": "chrf"}, r"tokenizer \(--tokenizer\) does nothing for chrF"),
        (
            {"tokenizer": "words", "metric": "bleu"},
            r"tokenizer \(--tokenizer\): sacreBLEU has no 'words'; give auto, 13a, intl, zh",
        ),
        (
            {"metric": "nonsense"},
            r"metric \(--metric\): no metric of classes or texts is called 'nonsense'; give acc.*, bleu, chrf",
        ),
        ({"metric": "log_loss"}, r"no metric of classes or texts is called 'log_loss'"),
        ({"max_drop": -1}, r"max_drop \(--max-drop\): input should be greater than or equal to 0, not -1"),
        ({"max_drop": "ten"}, r"max_drop \(--max-drop\): input should be a valid number, not 'ten'"),
        ({"confidence": 2}, r"confidence \(--confidence\): input should be less than 1, not 2"),
        ({"pair": (0, True)}, r"pair: give the seeds of the old and of the new model"),
        ({"columns": {"text": "x"}}, "columns: there is no 'text'; a column holds id, label, prediction, seed, group"),
        ({"new": "old.csv"}, "old.csv: is given twice"),
        ({"new": []}, "new: give a file of predictions, or several"),
    ],
)
def test_arguments_are_checked_first(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(LeanformerError, match=words):
        lf.compare("old.csv", **{"new": "new.csv", **arguments})


def test_files_of_the_same_name_are_told_apart(pairs: Callable[..., list[Path]], tmp_path: Path) -> None:
    old, new = pairs({"old": OLD, "new": SAME})
    (tmp_path / "b").mkdir()
    again = new.rename(tmp_path / "b" / "old.jsonl")
    found = lf.compare(old, again)
    assert found.candidates[0]["name"] == str(again)


def test_one_group_alone_is_no_sample(write: Write) -> None:
    with pytest.raises(LeanformerError, match="all examples are of one group; give at least two groups"):
        lf.compare(write("old.csv", OLD, group=["x"] * EXAMPLES), write("new.csv", OLD))


def test_a_study_file_takes_a_share_of_the_baselines_errors() -> None:
    data = {"name": "a", "candidates": {"b": {"plan": {"*.mlp": "none"}}}, "accept": {"max_drop": "10%"}}
    study = lf.make_study(data)
    assert (study.accept.max_drop, study.accept.max_ratio) == (0, 1.1)
    assert study.accept.margin(0.9) == pytest.approx(0.01)
    assert lf.make_study(yaml.safe_load(study.to_yaml())) == study
    assert lf.make_study({**data, "accept": {"max_ratio": 1.1}}) == study
    with pytest.raises(LeanformerError, match="max_ratio stands in place of max_drop; leave one of them out"):
        lf.make_study({**data, "accept": {"max_ratio": 1.1, "max_drop": 0.01}})

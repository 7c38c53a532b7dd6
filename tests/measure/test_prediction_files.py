"""Files of predictions: every kind is read alike, and every mistake is told with its place and value."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from leanformer.core.errors import LeanformerError
from leanformer.measure.prediction_files import matched, read_predictions

ROWS: list[dict[str, Any]] = [
    {"id": "a", "label": 0, "prediction": 0, "seed": 1, "group": "x", "weight": 2.0},
    {"id": "b", "label": 1, "prediction": 0, "seed": 1, "group": "y", "weight": 0.5},
    {"id": "b", "label": 1, "prediction": 1, "seed": 3, "group": "y", "weight": 0.5},
    {"id": "a", "label": 0, "prediction": 2, "seed": 3, "group": "x", "weight": 2.0},
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A file of the kind that its name says."""
    names = list(rows[0])
    if path.suffix == ".parquet":
        pq.write_table(pa.table({name: [row[name] for row in rows] for name in names}), path)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    else:
        mark = "\t" if path.suffix == ".tsv" else ","
        lines = [names, *([str(row[name]) for name in names] for row in rows)]
        path.write_text("\r\n".join(mark.join(line) for line in lines), encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_every_kind_is_read_alike(suffix: str, tmp_path: Path) -> None:
    found = read_predictions(write(tmp_path / f"p{suffix}", ROWS), "labels", {})
    assert found.ids == ("a", "b")
    assert found.labels == ("0", "1")
    assert found.predictions == {1: ("0", "0"), 3: ("2", "1")}
    assert found.has_seeds
    assert found.groups == ("x", "y")
    assert found.weights == (2.0, 0.5)


def test_columns_may_have_other_names_and_classes_other_forms(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text('\ufeffexample;gold;guess\n1;3;3.0\n2;"c;d";c\n3;True;True\n', encoding="utf-8")
    found = read_predictions(path, "labels", {"id": "example", "label": "gold", "prediction": "guess"})
    assert found.labels == ("3", "c;d", "True")
    assert found.predictions == {0: ("3", "c", "True")}
    assert not found.has_seeds


def test_texts_may_be_empty_and_have_line_breaks(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text('id,source,label,prediction\n1,Haus,a house,\n2,"zwei\nZeilen",two lines,"two, 3.0"\n')
    found = read_predictions(path, "texts", {})
    assert found.predictions == {0: ("", "two, 3.0")}
    assert found.sources == ("Haus", "zwei\nZeilen")


HEAD = "id,label,prediction\n"
WRONG: dict[str, tuple[str, str, str]] = {
    "no column": (
        "p.csv",
        "id,label,guess\n1,a,a\n",
        "there is no column 'prediction'; there are 'id', 'label', ",
    ),
    "a column twice": ("p.csv", "id,label,label,prediction\n1,a,a,a\n", "2 columns are called 'label'"),
    "an id twice": ("p.csv", f"{HEAD}1,a,a\n2,a,a\n1,a,b\n", "line 4: the id '1' has a row before"),
    "an id twice in a seed": (
        "p.csv",
        "id,label,prediction,seed\n1,a,a,0\n2,a,a,0\n2,a,b,0\n",
        "line 4: the id '2' of seed 0 has a row before",
    ),
    "no id": ("p.csv", f"{HEAD},a,a\n", "line 2: id is empty"),
    "no class": (
        "p.jsonl",
        '{"id": 1, "label": "a", "prediction": "a"}\n{"id": 2, "label": "a"}',
        "line 2: prediction is",
    ),
    "a probability": (
        "p.jsonl",
        '{"id": 1, "label": 0, "prediction": 0.73}',
        "line 1: prediction is 0.73; write",
    ),
    "a probability as text": ("p.csv", f"{HEAD}1,0,0\n2,1,0.73\n", "line 3: prediction is '0.73', which is no class"),
    "other classes": (
        "p.csv",
        f"{HEAD}1,0,cat\n2,1,dog\n",
        "such as 'cat', 'dog', labels such as '0', '1'",
    ),
    "empty": ("p.csv", "", "is empty"),
    "no rows": ("p.csv", HEAD, "has no rows"),
    "one row": ("p.csv", f"{HEAD}1,a,a\n", "has one example"),
    "too few columns": ("p.csv", f"{HEAD}1,a,a\n2,a\n", "line 3: 2 columns, but line 1 has 3"),
    "an open quote": ("p.csv", f'{HEAD}1,"a,a\n', "line 2: not whole CSV"),
    "not JSON": ("p.jsonl", '{"id": 1\n', "line 1: not JSON"),
    "a list": ("p.jsonl", "[1]\n", "line 1: is [1]; write an object"),
    "no parquet": ("p.parquet", "some words", "cannot be read as parquet"),
    "another kind": ("p.txt", HEAD, "whose name ends in .csv, .tsv, .jsonl, .ndjson, .parquet"),
    "a negative weight": (
        "p.csv",
        "id,label,prediction,weight\n1,a,a,-1\n",
        "line 2: weight is '-1'; write a number",
    ),
    "no weight at all": ("p.csv", "id,label,prediction,weight\n1,a,a,0\n2,a,a,0\n", "every weight is 0"),
    "a weight of nothing": ("p.csv", "id,label,prediction,weight\n1,a,a,nan\n", "line 2: weight is 'nan'"),
    "a wrong seed": ("p.csv", "id,label,prediction,seed\n1,a,a,x\n", "line 2: seed is 'x'; write a whole number"),
    "seeds with other ids": (
        "p.csv",
        "id,label,prediction,seed\n1,a,a,0\n2,a,a,0\n1,a,a,1\n",
        "1 ids of seed 0 are not there for seed 1 ('2')",
    ),
    "seeds with other labels": (
        "p.csv",
        "id,label,prediction,seed\n1,a,a,0\n2,a,a,0\n1,a,a,1\n2,b,a,1\n",
        "line 5: the label of the id '2' is 'b', and 'a' in line 3",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_are_told_with_their_place(case: str, tmp_path: Path) -> None:
    name, content, words = WRONG[case]
    (tmp_path / name).write_text(content)
    with pytest.raises(LeanformerError) as told:
        read_predictions(tmp_path / name, "labels", {})
    assert str(told.value).startswith(str(tmp_path / name))
    assert words in str(told.value)


def test_a_column_that_was_asked_for_must_be_there(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", ROWS)
    with pytest.raises(LeanformerError, match=r"there is no column 'site'; there are 'id', .*; add it$"):
        read_predictions(path, "labels", {"group": "site"})


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_bytes(HEAD.encode() + b"caf\xe9,a,a\n")
    with pytest.raises(LeanformerError, match="byte 24 is not UTF-8"):
        read_predictions(tmp_path / "p.csv", "labels", {})


def test_rows_are_matched_by_id_in_any_order(tmp_path: Path) -> None:
    old = read_predictions(write(tmp_path / "old.csv", ROWS), "labels", {})
    new = matched(old, read_predictions(write(tmp_path / "new.jsonl", ROWS[::-1]), "labels", {}))
    assert (new.ids, new.labels, new.groups, new.weights) == (old.ids, old.labels, old.groups, old.weights)
    assert new.predictions == old.predictions


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": "c"}, "old.csv: 1 of 2 ids are not in .*new.csv \\('b'\\)"),
        ({"label": 0}, "new.csv: the label of 1 of 2 ids is another than in .*: that of 'b' is '0', and '1' there"),
        ({"group": "x"}, "the group of 1 of 2 ids is another"),
        ({"weight": 7.0}, "the weight of 1 of 2 ids is another than in .*: that of 'b' is 7.0, and 0.5 there"),
    ],
)
def test_files_of_other_examples_are_refused(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    changed = [{**row, **change} if row["id"] == "b" else row for row in ROWS]
    old = read_predictions(write(tmp_path / "old.csv", ROWS), "labels", {})
    new = read_predictions(write(tmp_path / "new.csv", changed), "labels", {})
    with pytest.raises(LeanformerError, match=words):
        matched(old, new)
    if "id" in change:
        with pytest.raises(LeanformerError, match=r"new\.csv: 1 of 2 ids are not in .*old.csv"):
            matched(new, old)

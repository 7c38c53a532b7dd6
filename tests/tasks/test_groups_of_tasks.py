"""The groups of the test examples, from the study file to a task's answers and its results."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from image_files import random_image

import leanformer as lf
from leanformer.core.errors import LeanformerError
from leanformer.measure.quality import Predictions
from leanformer.measure.translation import Translations
from leanformer.tasks.base import Outcome, Task, open_task

MEASURE = {"device": "cpu", "threads": 1}


def task_of(study: dict[str, Any]) -> Task:
    made = lf.make_study({"name": "grouped", "seeds": [0], "measure": MEASURE, **study})
    return open_task(made, torch.device("cpu"))


def photos(root: Path, objects: int, **data: Any) -> Task:
    for number in range(objects):
        directory = root / ("cat", "dog")[number % 2]
        directory.mkdir(parents=True, exist_ok=True)
        for photo in range(3):
            random_image(10 * number + photo, (8, 8)).save(directory / f"object{number}_{photo}.png")
    config = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    return task_of(
        {
            "data": {"source": str(root), **data},
            "baseline": {"model": "vit", "config": {**config, "patch_size": 4}},
            "candidates": {"lean": {"plan": {"*.mlp": "none"}}},
        }
    )


def pairs(file: Path, documents: int, **data: Any) -> Task:
    lines = [
        f"{row} a red hat number {row % 7}\t{row} ein roter Hut Nummer {row % 7}\tdoc{row % documents}"
        for row in range(120)
    ]
    file.write_text("\n".join(["en\tde\tdocument", *lines]))
    layers = {f"{side}_{part}": 1 for side in ("encoder", "decoder") for part in ("layers", "attention_heads")}
    widths = {"encoder_ffn_dim": 8, "decoder_ffn_dim": 8}
    return task_of(
        {
            "task": "translation",
            "data": {
                "source": str(file),
                "source_language": "en",
                "target_language": "de",
                "tokenizer": {"vocabulary": 300},
                **data,
            },
            "baseline": {"model": "marian", "config": {"d_model": 8, **layers, **widths}},
            "candidates": {"lean": {"plan": {"encoder.*.mlp": "none"}}},
            "decode": {"max_tokens": 4},
        }
    )


@pytest.mark.parametrize("task", ["images", "translation"])
def test_answers_and_results_have_the_groups_of_test_examples(task: str, tmp_path: Path) -> None:
    if task == "images":
        made = photos(tmp_path / "photos", 20, group={"pattern": r"object\d+"}, test_fraction=0.5)
        groups, size = 10, 3
    else:
        made = pairs(tmp_path / "pairs.tsv", 24, group="document", test_fraction=0.5)
        groups, size = 12, 5
    assert made.test_groups is not None
    assert made.test_groups.dtype == np.int64
    assert np.bincount(made.test_groups).tolist() == [size] * groups
    assert made.summary()["groups"] == groups
    made.check_test()
    assert not [warning for warning in made.warnings if "groups" in warning.code]

    path = tmp_path / "predictions.parquet"
    answers = made.evaluate(made.make_baseline(0).eval())
    path.write_bytes(answers.to_bytes())
    named = pq.read_table(path)["group"].to_pylist()
    assert [sorted(set(named)).index(name) for name in named] == made.test_groups.tolist()
    path.write_bytes(made.read_answers(path).to_bytes())  # as when answers are scored again
    assert pq.read_table(path)["group"].to_pylist() == named


@pytest.mark.parametrize("task", ["images", "translation"])
def test_intervals_and_decisions_count_groups(task: str, tmp_path: Path) -> None:
    if task == "images":
        made = photos(tmp_path / "photos", 40, group={"pattern": r"object\d+"}, test_fraction=0.5)
    else:
        made = pairs(tmp_path / "pairs.tsv", 24, group="document", test_fraction=0.5)
    assert made.test_groups is not None
    answers = made.evaluate(made.make_baseline(0).eval())
    right = made.test_groups % 3 > 0  # a model is right on all of a group, or on none
    better: Any
    worse: Any
    if isinstance(answers, Predictions):
        better = replace(answers, predictions=np.where(right, answers.labels, 1 - answers.labels))
        worse = replace(answers, predictions=np.where(right & (made.test_groups % 4 > 0), answers.labels, -1))
    else:
        assert isinstance(answers, Translations)
        texts = np.array(answers.references)
        better = replace(answers, hypotheses=tuple(np.where(right, texts, "etwas anderes ist hier").tolist()))
        worse = replace(
            answers, hypotheses=tuple(np.where(right & (made.test_groups % 4 > 0), texts, "nichts").tolist())
        )
    baseline, candidate = Outcome({0: better}), Outcome({0: worse})
    quality, comparison = made.quality(baseline), made.compare(baseline, candidate)
    (of_groups,) = made.details(candidate, baseline)["mcnemar" if task == "images" else "paired_bootstrap"]
    made.test_groups = None
    (of_one_by_one,) = made.details(candidate, baseline)["mcnemar" if task == "images" else "paired_bootstrap"]
    if task == "images":
        assert of_groups["p_value"] > 5 * of_one_by_one["p_value"]
    else:
        lengths = [test["difference"]["high"] - test["difference"]["low"] for test in (of_groups, of_one_by_one)]
        assert lengths[0] > 1.2 * lengths[1]
    assert quality.high - quality.low > 1.2 * (made.quality(baseline).high - made.quality(baseline).low)
    alone = made.compare(baseline, candidate)
    width, of_examples = (found.difference.high - found.difference.low for found in (comparison, alone))
    assert width > 1.2 * of_examples


def test_without_groups_each_example_stands_for_itself(tmp_path: Path) -> None:
    made = photos(tmp_path / "photos", 4)
    assert made.test_groups is None
    assert made.summary()["groups"] is None
    path = tmp_path / "predictions.parquet"
    path.write_bytes(made.evaluate(made.make_baseline(0)).to_bytes())
    assert "group" not in pq.read_schema(path).names


def test_few_test_groups(tmp_path: Path) -> None:
    made = pairs(tmp_path / "pairs.tsv", 20, group="document", test_fraction=0.3)
    made.check_test()
    assert [warning.count for warning in made.warnings if warning.code == "few-groups"] == [6]
    lines = (tmp_path / "pairs.tsv").read_text().splitlines()
    (tmp_path / "split").mkdir()
    (tmp_path / "split" / "train.tsv").write_text("\n".join(lines[:60]))
    (tmp_path / "split" / "test.tsv").write_text("\n".join([lines[0], *lines[61::20]]))
    made = task_of(
        {
            "task": "translation",
            "data": {
                "source": str(tmp_path / "split"),
                "source_language": "en",
                "target_language": "de",
                "group": "document",
                "tokenizer": {"vocabulary": 300},
            },
            "candidates": {"lean": {"plan": {"encoder.*.mlp": "none"}}},
        }
    )
    with pytest.raises(
        LeanformerError, match=r"data\.group: all 3 test examples are in one group, and a decision needs"
    ):
        made.check_test()

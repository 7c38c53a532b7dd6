"""The catalogue of metrics and costs: it is light, nothing else names a metric, and one file adds one."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module, invalidate_caches
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from places import ROOT
from rich.console import Console
from sacrebleu.metrics.ter import TER
from sklearn.metrics import recall_score
from studies import results_of, rows_of, run

import leanformer as lf
from leanformer.report import figures
from leanformer.report.page import write_report
from leanformer.report.summary import decision_lines, results_table
from leanformer.results import metrics
from leanformer.results.costs import COSTS, preferences
from leanformer.results.metrics import METRICS, judging
from leanformer.results.reader import read_results

SOURCE = Path(lf.__file__).parent
DOCS = ROOT / "docs"
NAMES = re.compile(
    r"\b(accuracy|balanced_accuracy|macro_f1|mcc|log_loss|auc|recall_at_false_alarms|accuracy_at_coverage|bleu|chrf|"
    r"exact_match|BLEU|chrF2?|exact match)\b"
)
FIELDS = ("results/classification.py", "results/translation.py")
"""Modules that may name metrics, because these are fields of results.json."""


def test_the_catalogue_loads_nothing_that_is_heavy() -> None:
    script = (
        "import sys; from leanformer.config.base import Study; from leanformer.results.metrics import METRICS; "
        "from leanformer.results.costs import COSTS; list(METRICS); "
        "print([name for name in ('torch', 'transformers', 'sacrebleu', 'numpy') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def named(path: Path) -> Iterator[str]:
    """Metrics that a module names in its code: as texts, attributes or variables, not in its docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    described = {
        id(statement.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        for statement in node.body
        if isinstance(statement, ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in described:
            yield from NAMES.findall(node.value)
        elif isinstance(node, ast.Attribute):
            yield from NAMES.findall(node.attr)
        elif isinstance(node, ast.arg):
            yield from NAMES.findall(node.arg)


def test_no_metric_is_named_outside_the_catalogue() -> None:
    modules = {path.relative_to(SOURCE).as_posix(): path for path in SOURCE.rglob("*.py")}
    found = {
        name: sorted(set(named(path)))
        for name, path in modules.items()
        if not name.startswith("results/metrics/") and name not in FIELDS
    }
    assert {name: words for name, words in found.items() if words} == {}
    pages = {path.name: NAMES.findall(path.read_text(encoding="utf-8")) for path in SOURCE.rglob("*.jinja")}
    assert {name: words for name, words in pages.items() if words} == {}


def test_a_metric_says_one_thing_once() -> None:
    assert [metric.key for metric in METRICS.values()] == list(METRICS)
    assert {"accuracy", "bleu", "chrf", "exact_match"} <= set(METRICS)
    assert {"bleu", "chrf"} <= {metric.key for metric in judging("texts")} <= set(METRICS) - {"exact_match"}
    margins = {"accuracy": "1 point", "bleu": "0.5 BLEU", "chrf": "0.5 chrF", "exact_match": "1 point"}
    assert margins.items() <= {metric.key: metric.margin(metric.max_drop) for metric in METRICS.values()}.items()
    with pytest.raises(ValueError, match="the name 'bleu' is registered twice"):
        METRICS.add("bleu", METRICS["chrf"])


def test_a_study_chooses_by_costs() -> None:
    assert preferences() == ["parameters", "latency", "train_seconds", "throughput", "memory", "bytes"]
    assert [key for key in preferences() if COSTS[key].is_better(2.0, 1.0)] == ["throughput"]
    row = {"latency_ms": {"p50": 2.0, "p95": 3.0}, "train_seconds": None, "decoding": None}
    assert [COSTS[key].of(row) for key in ("latency", "train_seconds", "state")] == [2.0, None, None]
    assert COSTS["latency"].part(row, {"latency_ms": {"p50": 4.0}}) == "50.0 %"
    assert COSTS["latency"].part(row, {"latency_ms": None}) == ""


# A metric in a file of its own


ERROR_RATE = '''
"""The part of the answers that are wrong."""
from leanformer.results.metrics import MeanMetric, register

register(
    MeanMetric(
        key="error_rate",
        name="error rate",
        brief="err",
        answers="labels",
        unit="%",
        difference_unit="points",
        scale=100.0,
        digits=1,
        max_drop=0.2,
        better="smaller",
        outcomes=lambda answers: answers.labels != answers.predictions,
    )
)
'''
WORST_RECALL = re.findall(r"```python\n(.*?)```", (DOCS / "adding-a-metric.md").read_text(encoding="utf-8"), re.DOTALL)[
    0
]
EDIT_RATE = '''
"""Translation edit rate (Snover et al. 2006): edits a word of the reference, in a hundred; less is better."""
import math

from leanformer.results.metrics import CorpusMetric, register
from leanformer.core.sacrebleu_internals import sentence_counts, signature


def official(lowercase):
    from sacrebleu.metrics.ter import TER

    return TER(case_sensitive=not lowercase)


register(
    CorpusMetric(
        key="ter",
        name="TER",
        brief="ter",
        answers="texts",
        difference_unit="TER",
        greatest=math.inf,
        max_drop=20.0,
        better="smaller",
        signature=lambda tokenize, lowercase: signature(official(lowercase)),
        counts=lambda answers: sentence_counts(
            official(answers.lowercase), answers.hypotheses, answers.references
        ),
        of_sums=lambda sums: 100 * sums[..., 0] / sums[..., 1],
    )
)
'''


@pytest.fixture
def add_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], metrics.Metric]:
    """Adds a module to the catalogue's package, for one test."""

    def add(key: str, module: str) -> metrics.Metric:
        directory = tmp_path / "metrics"
        directory.mkdir()
        (directory / f"{key}.py").write_text(module, encoding="utf-8")
        monkeypatch.setattr(metrics, "__path__", [*metrics.__path__, str(directory)])
        invalidate_caches()
        list(METRICS)
        monkeypatch.setattr(METRICS, "_items", dict(METRICS))
        import_module(f"leanformer.results.metrics.{key}")
        monkeypatch.delitem(sys.modules, f"leanformer.results.metrics.{key}")
        return METRICS[key]

    return add


def told(directory: Path) -> tuple[str, str]:
    """The table and the decision on the terminal, and the page."""
    results = read_results(directory)
    console = Console(file=StringIO(), width=120)
    console.print(results_table(results))
    written = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join([written, *decision_lines(results)]), write_report(directory).read_text(encoding="utf-8")


@pytest.mark.long
def test_a_mean_of_which_less_is_better_is_one_file(
    add_metric: Callable[..., metrics.Metric], digits_study: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    add_metric("error_rate", ERROR_RATE)
    candidates = {"no-mlp": {"plan": {"*.mlp": "none"}}}
    study = digits_study(accept={"metric": "error_rate"}, candidates=candidates, seeds=[0])
    run(study, tmp_path / "run")
    results, rows = results_of(tmp_path / "run"), rows_of(tmp_path / "run")
    assert results["accept"]["max_drop"] == 0.2
    baseline, candidate = rows["baseline"], rows["no-mlp"]
    for row in (baseline, candidate):
        right = sum(entry["accuracy"] * entry["examples"] for entry in row["per_class"]) / results["data"]["test"]
        assert row["quality"]["mean"] == pytest.approx(1 - right)
        best = min(row["learning_rate_search"], key=lambda found: (found["error_rate"], found["loss"]))
        assert row["learning_rate"] == best["learning_rate"]
    gap = candidate["difference"]
    assert gap["mean"] == pytest.approx(candidate["quality"]["mean"] - baseline["quality"]["mean"])
    assert gap["low"] < gap["mean"] < gap["high"]
    assert candidate["decision"] == "accept"
    assert f"{100 * gap['mean']:+.2f} points; a rise of 20 points or more is ruled out for this" in candidate["reason"]
    text, page = told(tmp_path / "run")
    assert "error rate in %; difference to the baseline in points" in " ".join(text.split())
    assert "A rise of 20 points or more is ruled out" in text
    assert f"{100 * candidate['quality']['mean']:.1f}" in text
    assert "<th>error rate<small>%</small></th>" in page


@pytest.mark.long
def test_a_score_of_labels_is_one_file(
    add_metric: Callable[..., metrics.Metric], digits_study: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    add_metric("worst_recall", WORST_RECALL)
    # A run directory from before the metric existed is decided by it, without training again.
    study = digits_study(candidates={"no-mlp": {"plan": {"*.mlp": "none"}}}, train={"epochs": 2, "batch_size": 64})
    study["train"]["learning_rate"] = 1e-2
    with pytest.MonkeyPatch.context() as before:
        before.setattr(METRICS, "_items", {key: metric for key, metric in METRICS.items() if key != "worst_recall"})
        run(study, tmp_path / "run")
    _, log = run({**study, "accept": {"metric": "worst_recall"}}, tmp_path / "run")
    assert "epoch 1" not in log
    row = rows_of(tmp_path / "run")["no-mlp"]
    for directory, value in zip(row["trials"], row["recipe"]["quality"]["per_seed"], strict=True):
        answers = pq.read_table(tmp_path / "run" / directory / "predictions.parquet")
        recalls = recall_score(answers["label"].to_numpy(), answers["prediction"].to_numpy(), average=None)
        assert value == pytest.approx(recalls.min())
    assert 0 <= row["quality"]["low"] <= row["quality"]["mean"] < row["quality"]["high"] < 1
    assert row["difference"]["low"] < row["difference"]["mean"] < row["difference"]["high"]
    text, page = told(tmp_path / "run")
    assert "worst-class recall in %" in text
    assert "Quality is worst-class recall in %" in page


@pytest.mark.long
def test_a_score_of_texts_of_which_less_is_better_is_one_file(
    add_metric: Callable[..., metrics.Metric], tmp_path: Path
) -> None:
    add_metric("ter", EDIT_RATE)
    size = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    study = {
        "name": "words",
        "task": "translation",
        "data": {
            "numbers": {"train": 200, "validation": 20, "test": 40, "largest": 1000},
            "tokenizer": {"vocabulary": 300},
            "max_tokens": 30,
        },
        "baseline": {"model": "marian", "config": {**size, **heads}},
        "candidates": {"no-mlp": {"plan": {"encoder.*.mlp": "none"}}},
        "train": {"epochs": 1, "batch_tokens": 1024, "learning_rate": [1e-3, 1e-2]},
        "accept": {"metric": "ter"},
        "seeds": [0],
        "measure": {"repeats": 1, "latency_calls": 1, "throughput_batch": 4, "device": "cpu", "threads": 1},
    }
    run(study, tmp_path / "run")
    results, rows = results_of(tmp_path / "run"), rows_of(tmp_path / "run")
    assert results["accept"]["max_drop"] == 20.0
    assert results["signatures"]["ter"].startswith("nrefs:1|case:mixed")
    for row in rows.values():
        assert row["scores"]["ter"] == row["quality"]
        answers = pq.read_table(tmp_path / "run" / row["trials"][0] / "predictions.parquet")
        written, references = answers["hypothesis"].to_pylist(), answers["reference"].to_pylist()
        assert row["quality"]["mean"] == pytest.approx(TER().corpus_score(written, [references]).score)
        assert len(answers["ter"]) == 40
        best = min(row["learning_rate_search"], key=lambda found: (found["ter"], found["loss"]))
        assert row["learning_rate"] == best["learning_rate"]
    gap = rows["no-mlp"]["difference"]
    assert gap["mean"] == pytest.approx(rows["no-mlp"]["quality"]["mean"] - rows["baseline"]["quality"]["mean"])
    # Worse is on the left and below, and so is the margin.
    apart = figures.difference(results)
    assert apart is not None
    assert apart.layout.xaxis.range[0] > 20 > 0 > apart.layout.xaxis.range[1]
    assert [line.x0 for line in apart.layout.shapes] == [0, 20]
    assert figures.quality_against_cost(results)["parameters"].layout.yaxis.autorange == "reversed"
    text, page = told(tmp_path / "run")
    assert "blue and minus are better" in page
    assert "TER" in text
    assert "<th>TER</th>" in page
    assert "<code>TER|nrefs:1" in page

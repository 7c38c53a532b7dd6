"""Running studies in tests, and comparing what came of them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import leanformer as lf
from leanformer.results import schema

TIMINGS = {
    "train_seconds",
    "train_examples_per_second",
    "latency_ms",
    "ms_per_token",
    "throughput_per_second",
    "tokens_per_second",
    "peak_memory_mb",
    "train_peak_memory_mb",
    "rounds",
    "ratios",
    "cost_ratios",
    "seconds",
}


def run(
    study: dict[str, Any] | lf.Study, directory: Path, jobs: int = 1, *, report: bool = False
) -> tuple[lf.StudyResult, str]:
    """The study's result, and what it wrote to a console that is no terminal.

    Its slowest measurement, of memory in PyTorch, is left out: tests/measure/test_cost.py covers it.

    Args:
        report: Whether the page is written, which takes longer than a tiny study trains; else it is an empty file.
    """
    log = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("leanformer.measure.cost.peak_memory", lambda action, device: 1)
        if not report:
            patch.setattr("leanformer.study.run.write_report", _empty_report)
        return lf.run(study, directory, Console(file=log, width=120), jobs), log.getvalue()


def _empty_report(directory: Path) -> Path:
    path = directory / "report.html"
    path.write_text("", encoding="utf-8")
    return path


def tiny_marian(decoder_layers: int) -> dict[str, Any]:
    """A study's ``baseline``: a Marian that learns number words in seconds."""
    return {
        "model": "marian",
        "config": {
            "d_model": 16,
            "encoder_layers": 1,
            "decoder_layers": decoder_layers,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 32,
            "decoder_ffn_dim": 32,
            "dropout": 0.0,
            "init_std": 0.1,
        },
    }


def without_timings(results: Any) -> str:
    """Results as text, without what another run measures otherwise."""

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: strip(inner) for key, inner in value.items() if key not in TIMINGS}
        return [strip(inner) for inner in value] if isinstance(value, list) else value

    return json.dumps(strip(results), indent=1)


def results_of(directory: Path) -> dict[str, Any]:
    """The content of a run directory's ``results.json``."""
    results: dict[str, Any] = json.loads((directory / "results.json").read_text(encoding="utf-8"))
    return results


def rows_of(directory: Path) -> dict[str, dict[str, Any]]:
    """Its rows by name, the baseline's included."""
    results = results_of(directory)
    return {row["name"]: row for row in schema.rows_of(results)}

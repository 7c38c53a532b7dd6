"""What it takes to check a study before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from leanformer.config.reader import make_study
from leanformer.core.events import Reporter
from leanformer.measure.cost import forward_flops
from leanformer.model import baseline
from leanformer.model.students import reduce
from leanformer.model.weights import parameter_count
from leanformer.study.prepare import PreparedStudy
from leanformer.study.store import RunDirectory

MakeStudy = Callable[..., dict[str, Any]]


def prepared(study: dict[str, Any], directory: Path) -> PreparedStudy:
    checked = make_study(study)
    with RunDirectory(directory, checked) as run_directory:
        return PreparedStudy(checked, run_directory, Reporter(checked.name))


def test_checking_ten_candidates_makes_no_model_with_weights(
    digits_study: MakeStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidates: dict[str, dict[str, Any]] = {
        name: {"plan": {site: "none"}}
        for name, site in {"a": "*.mlp", "b": "*.0.mlp", "c": "*.1.mlp", "d": "*.self_attention"}.items()
    }
    candidates |= {f"mlp-{hidden}": {"plan": {"*.mlp": {"block": "mlp", "hidden": hidden}}} for hidden in range(1, 7)}
    assert len(candidates) == 10
    study = digits_study(candidates=candidates)

    def refuse(*_: Any) -> None:
        pytest.fail("a baseline with weights was made")

    monkeypatch.setattr(baseline, "fresh_model", refuse)
    before = torch.random.get_rng_state()
    job = prepared(study, tmp_path / "run")
    assert set(job.plans) == {"baseline", *candidates}
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_structure_is_that_of_the_trained_model(digits_study: MakeStudy, tmp_path: Path) -> None:
    plan = {"*.mlp": {"block": "mlp", "hidden": 3}}
    job = prepared(digits_study(candidates={"thin": {"plan": plan}}), tmp_path / "run")
    student = reduce(job.task.make_baseline(0), plan).eval()
    found = job.structure("thin")
    assert found["parameters"] == parameter_count(student)
    assert found["flops_per_example"] == forward_flops(student, job.task.example())
    whole = job.structure("baseline")["parameters"]
    changed = [change for change in found["changes"] if change["changed"]]
    net = sum(change["parameters_before"] - change["parameters_after"] for change in changed)
    assert whole - found["parameters"] == net > 0

"""``lf.inspect``: how linear each site and head of a trained model is, and whether small blocks can replace it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import PreTrainedModel

from leanformer.config.base import STUDIES, DistillConfig, Study
from leanformer.config.reader import check_probe_name, make_study
from leanformer.core.errors import LeanformerError, printable, quoted
from leanformer.core.events import Reporter
from leanformer.core.files import make_directory, write_atomically
from leanformer.core.json_files import to_json
from leanformer.core.machine import environment, pick_device
from leanformer.core.memory import memory_named
from leanformer.core.paths import as_path, check_directory, check_file
from leanformer.core.progress import console_sink, quiet_libraries
from leanformer.core.warning import rows
from leanformer.learn.step import settle_precision
from leanformer.model.family import find_family
from leanformer.model.students import load
from leanformer.report.inspection import write_page
from leanformer.study.inspector import KEPT, PROBES, Inspector, choice_at, inspected_sites
from leanformer.tasks.base import open_task

TEACHING = DistillConfig(epochs=6, learning_rate=3e-3)


@dataclass(frozen=True)
class Inspection:
    """The result of an inspection.

    Args:
        results: The content of ``inspection.json``.
        json: That file.
        page: The page with the figures.
    """

    results: dict[str, Any]
    json: Path
    page: Path


def inspect(
    model: str | PathLike[str],
    data: str | Mapping[str, Any],
    directory: str | PathLike[str] | None = None,
    probes: Mapping[str, Mapping[str, Any]] | None = None,
    teach: DistillConfig = TEACHING,
    device: str = "auto",
    console: Console | None = None,
) -> Inspection:
    """Inspects every attention and MLP of a trained model, on held-out data.

    For each site it measures how much of its output the best linear map explains (a map of the token, and at an
    attention also of the mean of the tokens that it may read); how much each probe explains after a short teaching,
    for each head too; how the attention spreads; and what the model loses when this one site is emptied, made linear,
    or replaced by a probe. For each stack it finds the order in which layers could go.

    Args:
        model: A directory or hub id, of any supported family; a student too.
        data: A source, as in a study file's ``data.source``, or the whole ``data`` section. At most 4,000 training
            examples are used, unless the section sets ``train_limit``.
        directory: Where ``inspection.json`` and ``inspection.html`` go; by default ``inspections/`` and the model's
            name.
        probes: Name -> block with its arguments, as in a plan; by default ``PROBES``.
        teach: How the probes are taught.
        device: ``auto`` or a device's name.
        console: Where progress is shown; by default standard error.

    Raises:
        LeanformerError: Model, data or probes are wrong, or do not fit together.
    """
    as_path(model, "model")
    source = fspath(model)  # unchanged: ./model is a directory, model may be on the hub
    path = as_path(directory, "directory") if directory is not None else Path("inspections") / _name(source)
    _check_types(data, probes, teach, console)
    check_directory(path)
    for name in ("inspection.json", "inspection.html"):
        check_file(path / name)
    chosen = pick_device(device, "device")
    name = printable(path.name)
    with quiet_libraries(), Reporter(name, [console_sink(name, console)]) as reporter:
        # 1. model and data
        loaded = load(source)
        _check_probes(loaded, {} if probes is None or probes is PROBES else probes)
        study = study_of_data(loaded, source, {"source": data} if isinstance(data, str) else data, device)
        del loaded  # the task loads the model again
        task = open_task(study, chosen)
        for note in task.notes:
            reporter.say(f"{path.name}: {note}", style="dim")
        for warning in task.warnings:
            reporter.warn(str(warning))
        trained = task.make_baseline(seed=0).to(task.device).eval()
        inspector = Inspector(task, trained, probes, teach, reporter)
        with memory_named(f"inspecting with batches of {task.batch}", "take fewer or smaller probes, or less data"):
            # 2. linear maps, and how attention spreads
            inspector.fit()
            # 3. probes: what small blocks can learn
            inspector.teach()
            # 4. what the model loses when a site is replaced
            inspector.replace()
            # 5. in which order its layers could go
            inspector.shrink()
        results = {
            "format": 1,
            "model": source,
            "task": study.task,
            "data": task.summary(),
            "warnings": rows(task.warnings),
            "teaching": teach.model_dump(mode="json"),
            "probes": inspector.probes,
            **inspector.results(),
            "environment": environment(task.device, settle_precision("float32", task.device)),
        }
        make_directory(path)
        json = path / "inspection.json"
        write_atomically(json, to_json(results))
        return Inspection(results, json, write_page(results, path / "inspection.html"))


def _check_types(data: object, probes: object, teach: object, console: object) -> None:
    """Refuses arguments of ``inspect`` that have wrong types.

    Raises:
        LeanformerError: The message names the argument.
    """
    for name, given, types, wanted in (
        ("data", data, (str, Mapping), "a source or a mapping of its keys"),
        ("probes", {} if probes is None else probes, (Mapping,), "a mapping of names to blocks with their arguments"),
        ("teach", teach, (DistillConfig,), "a DistillConfig"),
        ("console", Console() if console is None else console, (Console,), "a rich.console.Console"),
    ):
        if not isinstance(given, types):
            raise LeanformerError(f"{name}: give {wanted}, not {quoted(given)}")
    for name, entry in probes.items() if isinstance(probes, Mapping) else ():
        check_probe_name(name, "probes:")
        if not isinstance(entry, Mapping):
            raise LeanformerError(f"probe {quoted(name)}: give {{'block': name, argument: value}}, not {quoted(entry)}")


def _name(source: str) -> str:
    parts = [part for part in Path(source).parts if part not in ("/", ".", "..")]
    # A trial's model lies in CANDIDATE/seed-N/model, whose last parts alone do not name it.
    return "-".join(parts[-4:-1] if parts[-1] == "model" and len(parts) > 3 else parts[-2:]) or "model"


def _check_probes(model: PreTrainedModel, probes: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuses, before any data are read, a probe that is wrong or fits no site of the model.

    Raises:
        LeanformerError: With the reason at the first site.
    """
    places = inspected_sites(model)
    for name, entry in probes.items():
        problems = []
        for site in places:
            try:
                choice_at(site, entry)
            except LeanformerError as error:
                problems.append(str(error))
        if places and len(problems) == len(places):
            # If the probe is the block that stands at another site, that reason says more than the first site's.
            raise LeanformerError(f"probe {name}: {KEPT if KEPT in problems else problems[0]}")


def study_of_data(model: PreTrainedModel, source: str, data: Mapping[str, Any], device: str) -> Study:
    """A study whose task reads the data and measures; its candidate is never trained."""
    task = find_family(model).task
    sections = STUDIES[task].for_inspection(getattr(model.config, "max_position_embeddings", None))
    if data.get("cross_validation") is not None:  # there is no test split to limit
        sections["data"].pop("test_limit", None)
    return make_study(
        {
            "name": "inspection",
            "task": task,
            "data": {**sections["data"], **data},
            "baseline": {"model": source},
            "candidates": {"emptied": {"plan": {"*.mlp": "none"}}},
            "train": {"epochs": 0, **sections["train"]},
            "measure": {"device": device},
        },
        "inspect",
    )

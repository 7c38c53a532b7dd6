"""Experiment trackers: what they are told, and that none of them can end a study."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import mlflow
import pytest
from accelerate import tracking
from accelerate.tracking import GeneralTracker
from places import ROOT
from studies import run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import leanformer as lf
from leanformer.core.events import Reporter
from leanformer.core.sinks import tracking as ours
from leanformer.core.sinks.tracking import TRACKERS, TrackedRun, TrackerSink, flat

MakeStudy = Callable[..., dict[str, Any]]


class Stub(GeneralTracker):
    """In the place of accelerate's class for a tracker that is not installed here."""

    requires_logging_directory = False
    made: ClassVar[list[Stub]] = []

    def __init__(self, run_name: str, **arguments: Any) -> None:
        super().__init__(_blank=True)
        self.project, self.arguments = run_name, arguments
        self.started_in: int | None = None
        self.config: dict[str, Any] = {}
        self.logged: list[tuple[dict[str, Any], int | None]] = []
        self.finished = False
        Stub.made.append(self)

    def start(self) -> None:
        self.started_in = threading.get_ident()

    @property
    def tracker(self) -> Any:
        return self

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        raise AssertionError("of the one run of a process alone")

    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        assert threading.get_ident() == self.started_in, "trackers keep their current run by thread"
        self.logged.append((values, step))

    def finish(self) -> None:
        assert threading.get_ident() == self.started_in
        self.finished = True


@pytest.fixture
def stubs(monkeypatch: pytest.MonkeyPatch) -> list[Stub]:
    for name in ("wandb", "trackio"):
        monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, name, Stub)
    monkeypatch.setattr(Stub, "made", [])
    return Stub.made


SETTINGS = {"plan": {"*.mlp": "none"}, "train": {"epochs": 1, "betas": (0.9, 0.99)}, "seed": 0, "subset": None}
FLAT = {"plan": '{"*.mlp": "none"}', "train.epochs": 1, "train.betas": "[0.9, 0.99]", "seed": 0}


def tell(sink: TrackerSink) -> None:
    """Two steps side by side, what they came to, and a decision."""
    workers = {process: Reporter("digits", [sink], process) for process in (1, 2)}
    with Reporter("digits", [sink]) as reporter:
        for process, worker in workers.items():
            worker.start(f"minimal · seed {process}", 1, SETTINGS)
        for process, worker in reversed(workers.items()):
            worker.epoch({"epoch": 1, "train_loss": 0.5 * process}, 1, 100.0, "")
            worker.done()
            worker.measured(f"minimal · seed {process}", {"test_accuracy": 0.25 * process})
        workers[1].start("minimal · seed 3", 1)
        workers[1].done()
        reporter.measured("minimal", {"quality.mean": 0.5, "decision": "accept"})


EPOCH = {"examples_per_second": 100.0}
LOGGED = {
    "minimal · seed 1": [({"train_loss": 0.5, **EPOCH}, 1), ({"test_accuracy": 0.25}, None)],
    "minimal · seed 2": [({"train_loss": 1.0, **EPOCH}, 1), ({"test_accuracy": 0.5}, None)],
    "minimal · seed 3": [],
    "minimal": [({"quality.mean": 0.5, "decision": "accept"}, None)],
}


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_run_for_each_step_and_candidate_side_by_side(name: str, stubs: list[Stub], tmp_path: Path) -> None:
    tell(TrackerSink(name, "digits", tmp_path))
    assert {stub.arguments["name"]: stub.logged for stub in stubs} == LOGGED
    assert {stub.project for stub in stubs} == {"digits"}
    assert all(stub.finished for stub in stubs)
    settings = {stub.arguments["name"]: stub.config or stub.arguments.get("config", {}) for stub in stubs}
    assert settings == {run: FLAT if run in ("minimal · seed 1", "minimal · seed 2") else {} for run in LOGGED}
    assert len({stub.started_in for stub in stubs[:2]}) == 2


def test_weights_and_biases_shows_nothing_of_its_own_on_the_terminal(stubs: list[Stub], tmp_path: Path) -> None:
    tell(TrackerSink("wandb", "digits", tmp_path))
    assert stubs[0].arguments["settings"] == {"silent": True, "console": "off"}
    assert stubs[0].arguments["reinit"] == "create_new"
    assert stubs[0].arguments["dir"] == tmp_path


def test_settings_become_flat() -> None:
    assert flat(SETTINGS) == FLAT
    assert flat({"a": {"b": {"c": True}, "d": {}}, "plan": {}}) == {"a.b.c": True}


def warnings_of(sink: TrackerSink) -> list[str]:
    """What is warned of while a study tells of its steps."""
    found: list[str] = []

    class Keep:
        def handle(self, event: Any) -> None:
            if event.name == "warning_given":
                found.append(event.message)

        def close(self) -> None: ...

    reporter = Reporter("digits", [Keep(), sink])
    with reporter:
        for number in range(5):
            reporter.start(f"minimal · seed {number}", 1, settings={"seed": number})
            reporter.epoch({"epoch": 1, "train_loss": 0.5}, 1, 100.0, "")
            reporter.done()
            reporter.measured(f"minimal · seed {number}", {"test_accuracy": 0.5})
    return found


@pytest.mark.parametrize("method", ["start", "log", "finish"])
def test_a_tracker_that_fails_is_warned_of_once(
    method: str, stubs: list[Stub], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError("the server is down")

    monkeypatch.setattr(Stub, method, fail)
    assert warnings_of(TrackerSink("trackio", "digits", tmp_path)) == [
        "trackio is off from here on: ConnectionError: the server is down"
    ]


def test_a_server_that_does_not_answer_holds_nothing_up(
    stubs: list[Stub], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = threading.Event()
    monkeypatch.setattr(Stub, "log", lambda *_, **__: answer.wait(60))
    monkeypatch.setattr(ours, "SECONDS_TO_FINISH", 0.1)
    try:
        assert warnings_of(TrackerSink("trackio", "digits", tmp_path)) == [
            "trackio is off from here on: TimeoutError: no answer in 0 seconds"
        ]
    finally:
        answer.set()


def test_a_tracker_that_does_not_answer_leaves_the_others_alone(
    stubs: list[Stub], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = threading.Event()
    hanging = type("Hanging", (Stub,), {"start": lambda _: answer.wait(60)})
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "wandb", hanging)
    monkeypatch.setattr(ours, "SECONDS_TO_FINISH", 0.5)
    hung, other = (TrackerSink(name, "digits", tmp_path) for name in ("wandb", "trackio"))
    try:
        with Reporter("digits", [hung, other]) as reporter:
            reporter.measured("minimal", {"quality.mean": 0.5})
        assert [stub.logged for stub in stubs if stub.finished] == [[({"quality.mean": 0.5}, None)]]
    finally:
        answer.set()


def scalars(directory: Path) -> dict[str, list[tuple[int, float]]]:
    """Name -> (step, value) of a run of TensorBoard's."""
    found = EventAccumulator(str(directory))
    found.Reload()
    return {name: [(one.step, one.value) for one in found.Scalars(name)] for name in found.Tags()["scalars"]}


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """MLflow as a process finds it in which nothing was set."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(TRACKERS["mlflow"], "_own_store", None)
    yield
    mlflow.set_tracking_uri(None)  # as it was


def mlflow_runs(directory: Path, experiment: str) -> Mapping[str, Any]:
    """Name -> run of an experiment in a run directory's store."""
    client = mlflow.MlflowClient(f"sqlite:///{directory}/mlflow.db")
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    assert found.artifact_location == (directory / "mlflow").as_uri()
    return {run.info.run_name: run for run in client.search_runs([found.experiment_id])}


@pytest.mark.usefixtures("no_server")
@pytest.mark.long
def test_a_study_in_tensorboard_and_mlflow(
    digits_study: MakeStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained by two workers, so that runs go on side by side; all are told of by this process alone.

    Slow, as the workers are new processes, and as MLflow makes some 40 tables.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ours, "SECONDS_TO_FINISH", 600.0)  # however busy the machine is
    forms = {"no-mlp": {"plan": {"*.mlp": "none"}}}
    study = digits_study(candidates=forms, seeds=[1], report_to=["tensorboard", "mlflow"])
    study["train"] = {**study["train"], "learning_rate": 0.01}
    directory = tmp_path / "run"
    result, log = run(study, directory, jobs=2)
    assert "off from here on" not in log
    assert [path.name for path in tmp_path.iterdir()] == ["run"], "nothing goes to the working directory"
    trials = {f"{name} · seed 1": f"trials/{name}/seed-1/result.json" for name in ("baseline", "no-mlp")}
    rows = {row["name"]: row for row in (result.results["baseline"], *result.results["candidates"])}
    runs = mlflow_runs(directory, "tiny")
    assert set(runs) == {*trials, "baseline", "no-mlp"}
    assert {path.name for path in (directory / "tensorboard").iterdir()} == set(runs)
    for title, file in trials.items():
        trained = json.loads((directory / file).read_text())
        seen = scalars(directory / "tensorboard" / title)
        for metric in ("train_loss", "validation_loss", "validation_accuracy"):
            expected = [(epoch["epoch"], epoch[metric]) for epoch in trained["trained"]["epochs"]]
            assert [step for step, _ in seen[metric]] == [step for step, _ in expected]
            assert [value for _, value in seen[metric]] == pytest.approx([value for _, value in expected])
            assert runs[title].data.metrics[metric] == expected[-1][1]
        assert len(seen["learning_rate"]) == 3
        assert not [name for name in seen if name.startswith("test")]  # of one training alone nothing is told
        assert runs[title].info.status == "FINISHED"
        params = runs[title].data.params
        assert (params["seed"], params["learning_rate"], params["train.epochs"]) == ("1", "0.01", "3")
    assert runs["no-mlp · seed 1"].data.params["plan"] == '{"*.mlp": "none"}'
    candidate = runs["no-mlp"]
    assert candidate.data.metrics["quality.mean"] == rows["no-mlp"]["quality"]["mean"]
    assert candidate.data.metrics["difference.low"] == rows["no-mlp"]["difference"]["low"]
    assert candidate.data.tags["decision"] == rows["no-mlp"]["decision"]
    assert scalars(directory / "tensorboard" / "no-mlp")["parameters"] == [(0, float(rows["no-mlp"]["parameters"]))]
    # Who is told changes no trial: nothing is trained again without them.
    assert "report_to:\n- tensorboard\n- mlflow" in (directory / "study.yaml").read_text().replace("  -", "-")
    _, log = run({**study, "report_to": []}, directory)
    assert "[" not in log
    assert "runs again" not in log
    assert "report_to: []" in (directory / "study.yaml").read_text()


def mlflow_arguments(directory: Path) -> dict[str, Any]:
    """With what accelerate's tracker is made for a run; it is not begun."""
    tracker = object.__new__(TRACKERS["mlflow"])
    return tracker.arguments(TrackedRun("s", "r", {}, directory))


@pytest.mark.usefixtures("no_server")
def test_mlflow_goes_where_its_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert mlflow_arguments(tmp_path) == {"experiment_name": "s", "run_name": "r"}
    assert mlflow.get_tracking_uri() == "http://127.0.0.1:5000"


@pytest.mark.usefixtures("no_server")
def test_studies_of_one_process_have_stores_of_their_own(tmp_path: Path) -> None:
    for name in ("first", "second"):
        assert mlflow_arguments(tmp_path / name)["logging_dir"] == (tmp_path / name / "mlflow").as_uri()
        assert mlflow.get_tracking_uri() == f"sqlite:///{tmp_path}/{name}/mlflow.db"


@pytest.mark.parametrize(
    ("report_to", "line"),
    [
        (["tensorbord"], "there is no tracker 'tensorbord'; trackers: tensorboard, mlflow, wandb, trackio"),
        (["mlflow", "mlflow"], "report_to: trackers must be distinct"),
        ("mlflow", "report_to: input should be a list, not 'mlflow'"),
        ([1], "report_to.0: input should be a valid string, not 1"),
    ],
)
def test_wrong_trackers_are_refused(report_to: Any, line: str, digits_study: MakeStudy) -> None:
    with pytest.raises(lf.LeanformerError) as refused:
        lf.make_study(digits_study(report_to=report_to))
    assert line in str(refused.value)


def test_a_tracker_that_is_not_installed_is_refused_before_anything_is_made(
    digits_study: MakeStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ours, "find_spec", lambda name: None)
    study = lf.make_study(digits_study(report_to=["trackio"]))  # a run directory may come from another machine
    with pytest.raises(lf.LeanformerError) as refused:
        lf.run(study, tmp_path / "run")
    assert str(refused.value) == (
        "report_to: trackio is not installed; pip install 'leanformer[trackio]', or leave it out"
    )
    assert not (tmp_path / "run").exists()


def test_every_tracker_is_of_accelerate_and_has_an_extra() -> None:
    import tomllib

    content = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = content["project"]["optional-dependencies"]
    for name in TRACKERS:
        assert TRACKERS[name].name == name
        assert name in tracking.LOGGER_TYPE_TO_CLASS
        assert extras[name]


def test_to_know_the_trackers_loads_none_of_them() -> None:
    script = """
import sys
import leanformer.cli
from leanformer.core.sinks.tracking import TRACKERS
assert list(TRACKERS)[:4] == ["tensorboard", "mlflow", "wandb", "trackio"]
print([name for name in ("torch", "accelerate", *TRACKERS) if name in sys.modules])
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"

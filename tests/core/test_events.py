"""What happens in a study, and the sinks that show it, keep it or pass it on."""

from __future__ import annotations

import io
import json
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from rich.console import Console
from studies import results_of, without_timings

import leanformer as lf
from leanformer.core import events
from leanformer.core.events import BatchEnded, EpochEnded, Event, Reporter, TextLine, WarningGiven
from leanformer.core.progress import console_sink
from leanformer.core.sinks.json_lines import JsonLines
from leanformer.study.executors import Relay

MakeStudy = Callable[..., dict[str, Any]]


class Kept:
    """A sink that keeps all events."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.closed = 0

    def handle(self, event: Event) -> None:
        self.events.append(event)

    def close(self) -> None:
        self.closed += 1

    @property
    def names(self) -> list[str]:
        return [event.name for event in self.events]


class Failing(Kept):
    """A sink whose disk is full."""

    def handle(self, event: Event) -> None:
        super().handle(event)
        raise OSError(28, "No space left on device")


def tell(reporter: Reporter) -> None:
    """One of everything that a study reports."""
    with reporter:
        reporter.plan(2)
        reporter.skip()
        reporter.say("a line", "dim")
        reporter.start("minimal · seed 0", 2, settings={"seed": 0})
        reporter.step(0, 1, 1)
        record = {"epoch": 1, "train_loss": 0.5, "validation_accuracy": 0.75, "learning_rate": 0.01}
        reporter.epoch(record, 2, 100.0, "val acc 75.0%")
        reporter.warn("the loss was not finite")
        reporter.done()
        reporter.measured("minimal · seed 0", {"test_accuracy": 0.7})
        reporter.measured("minimal", {"decision": "accept"})
        reporter.wrote("report", Path("runs/digits/report.html"))


TOLD = [
    "study_started",
    "study_planned",
    "step_skipped",
    "text_line",
    "step_started",
    "batch_ended",
    "epoch_ended",
    "warning_given",
    "step_ended",
    "measured",
    "measured",
    "artifact_written",
    "study_ended",
]


def test_events_say_what_happened_when_and_where_and_can_be_sent_to_another_process() -> None:
    kept = Kept()
    tell(Reporter("digits", [kept], process=3))
    assert kept.names == TOLD
    assert kept.closed == 1
    times = [event.time for event in kept.events]
    assert times == sorted(times)
    of_step = [event for event in kept.events if event.step == "minimal · seed 0"]
    assert [event.name for event in of_step] == [*TOLD[4:9], "measured"]
    assert {event.process for event in of_step} == {3}
    assert pickle.loads(pickle.dumps(kept.events)) == kept.events
    epoch = kept.events[6]
    assert isinstance(epoch, EpochEnded)
    assert (epoch.epoch, epoch.epochs) == (1, 2)
    assert epoch.metrics == {"train_loss": 0.5, "validation_accuracy": 0.75, "learning_rate": 0.01}
    assert set(kept.names) == {kind(**_some(kind)).name for kind in Event.__subclasses__()}, "one of everything"


def _some(kind: type[Event]) -> dict[str, Any]:
    """Arguments that an event has to have; only its name is asked for."""
    return dict.fromkeys(set(kind.__dataclass_fields__) - set(Event.__dataclass_fields__))


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (lf.LeanformerError("no such model"), "failed", "LeanformerError: no such model"),
        (KeyboardInterrupt(), "stopped", ""),
        (SystemExit(143), "stopped", ""),
    ],
)
def test_how_a_study_ended(error: BaseException, status: str, reason: str) -> None:
    kept = Kept()
    with pytest.raises(type(error)), Reporter("digits", [kept]):
        raise error
    (ended,) = [event for event in kept.events if isinstance(event, events.StudyEnded)]
    assert (ended.status, ended.reason) == (status, reason)
    assert kept.closed == 1


def test_a_sink_that_fails_is_warned_of_once_and_gets_nothing_more() -> None:
    kept, failing = Kept(), Failing()
    tell(Reporter("digits", [failing, kept]))
    warnings = [event.message for event in kept.events if isinstance(event, WarningGiven)]
    assert warnings == [
        "Failing is off from here on: OSError: [Errno 28] No space left on device",
        "the loss was not finite",
    ]
    assert [name for name in kept.names if name != "warning_given"] == [
        name for name in TOLD if name != "warning_given"
    ]
    assert len(failing.events) == 1
    assert failing.closed == 1


def test_sinks_that_fail_together_and_at_the_end_end_no_study() -> None:
    class Unfinished(Kept):
        name = "the tracker"

        def close(self) -> None:
            raise TimeoutError("no answer")

    kept = Kept()
    tell(Reporter("digits", [kept, Failing(), Failing(), Unfinished()]))
    warnings = [event.message for event in kept.events if isinstance(event, WarningGiven)]
    assert len(warnings) == 4
    assert warnings[-1] == "the tracker is off from here on: TimeoutError: no answer"


def test_whoever_stops_a_study_stops_it_within_a_sink_too() -> None:
    class Stopped(Kept):
        def handle(self, event: Event) -> None:
            if isinstance(event, BatchEnded):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tell(Reporter("digits", [Stopped()]))


def lines_of(path: Path) -> list[dict[str, Any]]:
    content = path.read_text(encoding="utf-8")
    assert content.endswith("\n")
    return [json.loads(line) for line in content.splitlines()]


def test_every_event_but_the_batches_is_a_line_of_json(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    tell(Reporter("digits", [JsonLines(path)]))
    lines = lines_of(path)
    assert [line["event"] for line in lines] == [name for name in TOLD if name != "batch_ended"]
    (epoch,) = [line for line in lines if line["event"] == "epoch_ended"]
    assert epoch.pop("time").endswith("+00:00")
    assert epoch == {
        "event": "epoch_ended",
        "step": "minimal · seed 0",
        "process": 0,
        "epoch": 1,
        "epochs": 2,
        "metrics": {"train_loss": 0.5, "validation_accuracy": 0.75, "learning_rate": 0.01},
        "examples_per_second": 100.0,
        "summary": "val acc 75.0%",
    }


@pytest.mark.parametrize("half", ["", '{"event": "epo', "x" * 200_000, "half \n whole\nhalf"])
def test_what_goes_on_is_appended_and_a_half_line_is_cut_off(half: str, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    tell(Reporter("digits", [JsonLines(path)]))
    before = path.read_text(encoding="utf-8")
    path.write_text(before + half, encoding="utf-8")
    JsonLines(path).handle(TextLine(text="more"))
    whole = half[: half.rfind("\n") + 1]
    after = path.read_text(encoding="utf-8")
    assert after.startswith(before + whole)
    assert json.loads(after[len(before + whole) :])["text"] == "more"


def test_a_file_of_a_half_line_alone_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text("x" * 100_000)
    JsonLines(path).handle(TextLine(text="more"))
    assert [line["text"] for line in lines_of(path)] == ["more"]


def test_a_line_holds_whatever_a_name_holds(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    JsonLines(path).handle(TextLine(text="a\nb \udc80 ü"))
    (line,) = path.read_text(encoding="utf-8").split("\n")[:-1]
    assert json.loads(line)["text"] == "a\nb \udc80 ü"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
@pytest.mark.parametrize("what", ["link", "directory", "pipe"])
def test_the_record_is_a_plain_file_or_nothing(what: str, tmp_path: Path) -> None:
    path, other = tmp_path / "run.jsonl", tmp_path / "other"
    other.write_text("mine")
    if what == "link":
        path.symlink_to(other)
    elif what == "directory":
        path.mkdir()
    else:
        os.mkfifo(path)
    kept = Kept()
    tell(Reporter("digits", [JsonLines(path), kept]))
    (first, _) = [event.message for event in kept.events if isinstance(event, WarningGiven)]
    assert first.startswith("run.jsonl is off from here on: ")
    assert other.read_text() == "mine"
    assert path.is_symlink() or not path.is_file()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full disk to write to")
def test_a_full_disk_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JsonLines, "_open", lambda self: os.open("/dev/full", os.O_WRONLY))
    kept = Kept()
    tell(Reporter("digits", [JsonLines(tmp_path / "run.jsonl"), kept]))
    (first, _) = [event.message for event in kept.events if isinstance(event, WarningGiven)]
    assert first == "run.jsonl is off from here on: OSError: [Errno 28] No space left on device"


def test_plain_lines() -> None:
    shown = io.StringIO()
    tell(Reporter("digits", [console_sink("digits", Console(file=shown, width=80))]))
    assert shown.getvalue().splitlines() == [
        "a line",
        "digits: the loss was not finite",
        "digits: [2/2] minimal · seed 0  loss 0.500  val acc 75.0%  100 ex/s  (0s)",
    ]


def test_steps_of_several_processes_are_told_apart() -> None:
    shown = io.StringIO()
    sink = console_sink("digits", Console(file=shown, width=80))
    main = Reporter("digits", [sink])
    first, second = (Reporter("digits", [Relay(main.emit)], number) for number in (1, 2))
    main.plan(2)
    first.start("a · seed 0", 1)
    second.start("b · seed 0", 1)
    for reporter, loss in ((first, 1.0), (second, 2.0)):
        reporter.step(0, 1, 1)
        reporter.epoch({"epoch": 1, "train_loss": loss}, 1, 10.0, "")
    second.done()
    first.done()
    assert [line.split("  ")[:2] for line in shown.getvalue().splitlines()] == [
        ["digits: [1/2] b · seed 0", "loss 2.000"],
        ["digits: [2/2] a · seed 0", "loss 1.000"],
    ]


def test_a_worker_leaves_counting_to_others_and_sends_few_batches() -> None:
    kept = Kept()
    worker = Reporter("digits", [Relay(kept.handle)], process=2)
    worker.plan(5)
    worker.skip()
    worker.start("a · seed 0", 1)
    for batch in range(1, 1001):
        worker.step(0, batch, 1000)
    worker.done()
    batches = [event for event in kept.events if isinstance(event, BatchEnded)]
    assert 1 <= len(batches) < 100
    assert [name for name in kept.names if name != "batch_ended"] == ["step_started", "step_ended"]
    assert {event.process for event in kept.events} == {2}


def test_a_study_tells_its_sinks_and_the_record_goes_on(digits_study: MakeStudy, tmp_path: Path) -> None:
    study = digits_study(candidates={"no-mlp": {"plan": {"*.mlp": "none"}}}, seeds=[0])
    directory = tmp_path / "run"
    kept = Kept()
    result = lf.run(study, directory, Console(quiet=True), sinks=[kept, Failing()])
    first = lines_of(directory / "run.jsonl")
    assert [line["event"] for line in first] == [name for name in kept.names if name != "batch_ended"]
    assert first[0]["event"] == "study_started"
    assert (first[-1]["event"], first[-1]["status"]) == ("study_ended", "done")
    searched = [line for line in first if line["event"] == "step_started"]
    assert [line["step"] for line in searched] == [
        f"{name} · {step}" for name in ("baseline", "no-mlp") for step in ("rate 0.003", "rate 0.01", "seed 0")
    ]
    assert searched[3]["settings"]["learning_rate"] == 0.003
    assert searched[3]["settings"]["plan"] == {"*.mlp": "none"}
    measured = {line["step"]: line["values"] for line in first if line["event"] == "measured"}
    # Nothing of the test split is told before all trainings have ended.
    assert list(measured) == ["baseline", "no-mlp"]
    last_epoch = max(number for number, line in enumerate(first) if line["event"] == "epoch_ended")
    told = [number for number, line in enumerate(first) if line["event"] == "measured"]
    assert min(told) > last_epoch
    row = result.results["candidates"][0]
    assert f"{row['quality']['mean']:.4f}"[:6] not in json.dumps(first[: last_epoch + 1])
    assert measured["no-mlp"]["quality.mean"] == row["quality"]["mean"]
    assert measured["no-mlp"]["decision"] == row["decision"]
    epochs = [line for line in first if line["event"] == "epoch_ended"]
    rates = [line["metrics"]["learning_rate"] for line in epochs if line["step"] == "no-mlp · rate 0.01"]
    assert 0.01 > rates[0] > rates[1] > rates[2] >= 0  # it has warmed up before the end of the first epoch
    assert [line["kind"] for line in first if line["event"] == "artifact_written"][-2:] == ["results", "report"]
    # Once more: nothing is trained, and the record goes on.
    again = lf.run(study, directory, Console(quiet=True))
    lines = lines_of(directory / "run.jsonl")
    assert lines[: len(first)] == first
    assert not [line for line in lines[len(first) :] if line["event"] == "step_started"]
    assert without_timings(again.results) == without_timings(result.results) == without_timings(results_of(directory))


@pytest.mark.parametrize(
    ("sinks", "line"),
    [
        ("run.jsonl", "sinks: give a list of sinks, not 'run.jsonl'"),
        ([print], "has no method handle; docs/tracking.md shows a sink"),
    ],
)
def test_what_is_no_sink_is_refused_before_anything_is_made(
    sinks: Any, line: str, digits_study: MakeStudy, tmp_path: Path
) -> None:
    with pytest.raises(lf.LeanformerError) as refused:
        lf.run(digits_study(), tmp_path / "run", sinks=sinks)
    assert line in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_all_sinks_are_closed_though_somebody_stops_the_first() -> None:
    class Interrupted(Kept):
        def close(self) -> None:
            raise KeyboardInterrupt

    kept = Kept()
    with pytest.raises(KeyboardInterrupt):
        tell(Reporter("digits", [kept, Interrupted()]))
    assert kept.closed == 1


def test_a_sink_gets_the_events_of_several_threads_one_after_another() -> None:
    inside: list[str] = []

    class Slow(Kept):
        def handle(self, event: Event) -> None:
            inside.append("in")
            time.sleep(0.01)
            inside.append("out")

    reporter = Reporter("digits", [Slow()])
    threads = [Thread(target=reporter.say, args=("a line",)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert inside == ["in", "out"] * 5

"""What a person sees, and does not see, while something runs."""

from __future__ import annotations

import io
import time

import pytest
import transformers
from rich.console import Console

from leanformer.core.events import Reporter
from leanformer.core.progress import console_sink, quiet_libraries
from leanformer.core.sinks.bars import Bars


@pytest.mark.parametrize("bars", [True, False])
def test_libraries_are_quiet_inside_and_as_they_were_afterwards(bars: bool) -> None:
    level = transformers.logging.get_verbosity()
    before = transformers.logging.is_progress_bar_enabled()
    try:
        (transformers.logging.enable_progress_bar if bars else transformers.logging.disable_progress_bar)()
        with quiet_libraries():
            with quiet_libraries():
                assert not transformers.logging.is_progress_bar_enabled()
            assert not transformers.logging.is_progress_bar_enabled()
            assert transformers.logging.get_verbosity() == transformers.logging.ERROR
        assert transformers.logging.is_progress_bar_enabled() == bars
        assert transformers.logging.get_verbosity() == level
    finally:
        (transformers.logging.enable_progress_bar if before else transformers.logging.disable_progress_bar)()


def test_the_time_left_counts_only_what_was_done_since_a_training_went_on(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    shown = io.StringIO()
    reporter = Reporter("study", [console_sink("study", Console(file=shown, width=200))])
    reporter.start("form", epochs=5)
    reporter.step(epoch=2, step=6, steps_per_epoch=10)  # the first half of the third epoch was done before
    now = 130.0
    reporter.epoch({"epoch": 3, "train_loss": 1.0}, epochs=5, examples_per_second=8.0, shown="")
    assert "epoch 3/5" in shown.getvalue()
    assert "2m00s left" in shown.getvalue()  # half an epoch in half a minute


def test_a_bar_goes_on_from_what_was_done() -> None:
    now = 100.0
    sink = console_sink("study", Console(file=io.StringIO(), width=200, force_terminal=True))
    assert isinstance(sink, Bars)
    sink.live.get_time = lambda: now
    with Reporter("study", [sink]) as reporter:
        reporter.start("form", epochs=5)
        for step in (6, 7, 8, 9):
            now += 3.0
            reporter.step(epoch=2, step=step, steps_per_epoch=10)
        (bar,) = sink.live.tasks
    assert bar.completed == 2.9
    assert bar.speed == pytest.approx(0.1 / 3)  # epochs a second since it went on, without the 2.5 of before

"""Tests of the display of a run where stderr is not a terminal, and of what it reads from the lines of stages."""

from __future__ import annotations

import time

import pytest

from segpipe.progress import Progress
from segpipe.workspace.execution import display
from segpipe.workspace.execution.display import RunDisplay, RunState
from segpipe.workspace.execution.events import StageEnded, StageLine, StageStarted
from segpipe.workspace.execution.runner import StageRun
from segpipe.workspace.pipeline import Stage

STAGES = {"prepare": Stage("prepare", "", ()), "train@unet": Stage("train@unet", "", ("prepare",), "device")}


@pytest.fixture
def state() -> RunState:
    return RunState(STAGES, {"prepare": 5.0, "train@unet": 100.0}, 1, 2)


def test_one_line_per_stage_with_the_time_that_is_left(state, capsys):
    with RunDisplay() as shown:
        shown.begin(state)
        shown(StageStarted("prepare"))
        shown(StageLine("prepare", "prepare: 240 of 240 images in shards of 62 MB"))
        shown(StageEnded(StageRun("prepare", 0, 4.2)))
        shown(StageStarted("train@unet"))
        shown(StageLine("train@unet", "train unet  10/200  eta 1:30  loss 0.4"))
        shown(StageEnded(StageRun("train@unet", 0, 95.0)))
    assert capsys.readouterr().err.splitlines() == [
        "prepare              done in 4 s   (about 1:40 left)",
        "train@unet           done in 1:35",
    ]


def test_warnings_are_shown_and_verbose_shows_every_line(state, capsys):
    for verbose in (False, True):
        with RunDisplay(verbose) as shown:
            shown.begin(state)
            shown(StageStarted("prepare"))
            shown(StageLine("prepare", "reading"))
            shown(StageLine("prepare", "select: WARNING: the waiver ended"))
        printed = capsys.readouterr().err
        assert "WARNING: the waiver ended" in printed
        assert ("reading" in printed) == verbose


def test_a_failed_stage_is_shown_as_failed(state, capsys):
    with RunDisplay() as shown:
        shown.begin(state)
        shown(StageStarted("prepare"))
        shown(StageEnded(StageRun("prepare", 3, 2.0, "no data")))
    assert capsys.readouterr().err == "prepare              failed after 2 s\n"


def test_a_long_stage_is_reported_from_time_to_time(state, capsys, monkeypatch):
    monkeypatch.setattr(display, "LINE_EVERY_S", 0.01)
    monkeypatch.setattr(display, "_REFRESH_EVERY_S", 0.01)
    printed = ""
    with RunDisplay() as shown:
        shown.begin(state)
        shown(StageStarted("train@unet"))
        shown(StageLine("train@unet", "train unet  50/200  eta 1:30  loss 0.4"))
        deadline = time.monotonic() + 60
        while "left" not in printed and time.monotonic() < deadline:
            printed += capsys.readouterr().err
            time.sleep(0.01)
    assert "train@unet runs for 0 s: train unet 25%   (about " in printed


def test_the_lines_of_a_progress_display_are_understood(capsys, monkeypatch):
    """Whatever `segpipe.progress.Progress` prints without a terminal is read as progress."""
    monkeypatch.setattr("segpipe.progress._LINE_EVERY_S", 0.0)
    with Progress("train unet", 200) as progress:
        progress.advance(50, "loss 0.41, IoU 0.7")
        progress.advance(50)
    for line, count in zip(capsys.readouterr().err.splitlines(), (50, 100), strict=True):
        match = display._PROGRESS.match(line)
        assert match and (match["label"], int(match["done"]), int(match["total"])) == ("train unet", count, 200)
        assert match["note"] == "loss 0.41, IoU 0.7"


def test_the_rest_of_a_stage_follows_its_own_progress(state, monkeypatch):
    """50 of 200 steps at the start, 100 after 20 s: 40 s for the other 100."""
    clock = [0.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: clock[0])
    shown = RunDisplay()
    shown._state = state
    shown(StageStarted("train@unet"))
    shown(StageLine("train@unet", "train unet  50/200"))
    assert state.left_in("train@unet") == 100.0, "as expected before its speed is known"
    clock[0] = 80.0
    shown(StageLine("train@unet", "train unet  100/200"))
    assert state.left_in("train@unet") == pytest.approx(160.0), "slower than expected"
    shown(StageLine("train@unet", "validate  1/10"))
    assert state.left_in("train@unet") == pytest.approx(20.0), "another count began: again as expected"

"""Tests of `segpipe predict`: images or a video, their output, and Ctrl-C during a prediction."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.worlds.bundles import write_toy_bundle
from tests.worlds.command_line import call_command
from tests.worlds.videos import clip, frames_of


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_bundle(tmp_path_factory.mktemp("model") / "bundle")


@pytest.fixture
def segpipe(capsys, monkeypatch, bundle: Path, tmp_path: Path):
    """Run `segpipe predict ARGUMENTS` with that bundle, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: call_command(capsys, monkeypatch, "predict", "--model", str(bundle), *map(str, arguments))


def test_either_images_or_a_video(segpipe, tmp_path: Path) -> None:
    for arguments, words in (((), "neither images nor --video"), (("a.png", "--video", "b.mp4"), "images and --video")):
        code, _, err = segpipe(*arguments)
        assert code == 2 and f"found {words}, expected exactly one of them" in err


def test_a_video_ends_in_rates_and_a_table(segpipe, tmp_path: Path) -> None:
    path = clip(tmp_path / "drive.avi", 9, 40, 64)
    code, out, _ = segpipe("--video", path, "--out", "results")
    assert code == 0
    assert "9 frames of 64 x 40, smoothing 0.6, half-life 1.4 frames" in out
    assert all(word in out for word in ("decode", "prepare", "network", "smoothing", "draw", "write", "frames/s on"))
    assert out.splitlines()[-1] == "results/drive.mp4" and len(frames_of(tmp_path / "results" / "drive.mp4")) == 9


def test_json_and_masks(segpipe, tmp_path: Path) -> None:
    path = clip(tmp_path / "drive.avi", 5, 40, 64)
    code, out, _ = segpipe("--video", path, "--out", "o.avi", "--masks", "m", "--size", 32, "--smoothing", 0, "--json")
    report = json.loads(out)
    assert code == 0 and (report["frames"], report["size"], report["working_size"]) == (5, [64, 40], [32, 20])
    assert (
        report["overlay"] == "o.avi"
        and report["half_life_frames"] == 0
        and {"p50_ms", "p95_ms"} <= set(report["steps"][0])
    )
    masks = [cv2.imread(str(p), cv2.IMREAD_UNCHANGED) for p in sorted((tmp_path / "m").iterdir())]
    assert len(masks) == 5 and masks[0].shape == (40, 64) and set(np.unique(masks)) <= {0, 128, 255}


def test_the_readable_frames_of_a_truncated_video_are_kept(segpipe, tmp_path: Path) -> None:
    content = clip(tmp_path / "whole.avi", 40, 120, 160).read_bytes()
    (tmp_path / "half.avi").write_bytes(content[: len(content) // 2])
    code, out, err = segpipe("--video", "half.avi", "--out", "o.mp4", "--json")
    frames = json.loads(out)["frames"]
    assert (
        code == 3
        and f"half.avi: the video is truncated; the frames that could be read are in the output (found {frames} frames, expected 40"
        in err
    )
    assert len(frames_of(tmp_path / "o.mp4")) == frames > 5


def test_a_video_is_not_replaced_by_its_overlay(segpipe, tmp_path: Path) -> None:
    path = clip(tmp_path / "drive.avi", 3)
    before = path.read_bytes()
    code, _, err = segpipe("--video", path, "--out", "drive.avi")
    assert code == 2 and "would overwrite" in err and path.read_bytes() == before


def test_ctrl_c_completes_the_file(bundle: Path, tmp_path: Path) -> None:
    path = clip(tmp_path / "drive.avi", 1500, 96, 128)
    command = [
        sys.executable,
        "-m",
        "segpipe",
        "predict",
        "--model",
        str(bundle),
        "--video",
        str(path),
        "--out",
        "o.mp4",
    ]
    process = subprocess.Popen(
        [*command, "--masks", "m"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    end = time.monotonic() + 300
    while len(list((tmp_path / "m").glob("*.png"))) < 5 and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130 and "interrupted" in err, err
    played = len(frames_of(tmp_path / "o.mp4"))
    assert 5 <= played < 1500 and out.startswith(f"{played} frames of 128 x 96"), "the table is printed nevertheless"
    assert [p.name for p in tmp_path.glob(".o*")] == []

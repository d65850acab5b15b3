"""Tests that only copy from the demo workspace: a second clone, own images, this repository itself."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from segpipe.data.images import encode_png
from segpipe.files import sha256_file
from segpipe.workspace.params_file import set_params
from tests.e2e.commands import all_blocks, commands_of
from tests.e2e.conftest import ROOT, Demo, run, run_all, shorten

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2700)]
BLOCKS = all_blocks(ROOT)


def test_a_second_clone_makes_the_same_weights(demo, clone):
    run("segpipe", "data", "demo", cwd=clone)
    run("dvc", "repro", "train@unet", cwd=clone)
    assert sha256_file(clone / "models" / "unet" / "weights.safetensors") == demo.weights
    assert run("git", "status", "--porcelain", "plans", "data.dvc", "params.yaml", cwd=clone).out == ""


def test_own_images_from_a_folder_and_a_bad_one(demo, tmp_path):
    source = tmp_path / "images-and-masks"
    keys = sorted(p.name for p in (demo.root / "data" / "images").iterdir())[:40]
    for part in ("images", "masks"):
        (source / part).mkdir(parents=True)
        for key in keys:
            shutil.copy(demo.root / "data" / part / key, source / part / key)
    run("segpipe", "init", "my-cells", "--data", source, "--format", "folder", cwd=tmp_path)
    workspace = tmp_path / "my-cells"
    bad = workspace / "data" / "masks" / keys[0]
    bad.write_bytes(encode_png(np.full((3, 3), 9, np.uint8)))
    failed = run("segpipe", "run", cwd=workspace, check=False)
    assert failed.code == 3
    assert keys[0].split(".")[0] in failed.err
    assert "Traceback" not in failed.err + failed.out
    shutil.copy(source / "masks" / keys[0], bad)
    shorten(workspace, steps=2)
    set_params(workspace, {"gates.floor": {"metric": "iou.dataset.macro", "at_least": 0.99}})
    blocked = run("segpipe", "run", cwd=workspace, check=False)
    assert blocked.code == 4
    assert "floor" in (blocked.out + blocked.err).lower()
    assert run("git", "tag", cwd=workspace).out == ""


@pytest.fixture(scope="module")
def own_folder(demo: Demo, tmp_path_factory) -> Path:
    """A folder with images/, and docs/ to work in, so that the commands of a page find ../images."""
    folder = tmp_path_factory.mktemp("own_folder")
    for part in ("images", "masks"):
        (folder / "images" / part).mkdir(parents=True)
        for path in sorted((demo.root / "data" / part).iterdir())[:60]:
            shutil.copy(path, folder / "images" / part)
    (folder / "docs").mkdir()
    return folder


def own_data_commands(page: str) -> list[str]:
    """Return the commands of all blocks of a page about own data; they build on each other."""
    return [c for b in BLOCKS if b.context == "own-data" and b.location.startswith(f"{page}:") for c in b.commands]


def test_own_data(own_folder, background, tmp_path):
    commands = own_data_commands("docs/own-data.md")
    rest = iter(commands)
    assert all(command in rest for command in own_data_commands("README.md")), (
        "the five lines of the README are run here, in their order"
    )
    run_all(tuple(commands), own_folder / "docs", background, tmp_path, after={"cd my-cells": shorten})
    rebuilt = run("segpipe", "verify", "v0.1.0", "--rebuild", cwd=own_folder / "docs" / "my-cells")
    assert "training again gives the same weights" in rebuilt.out + rebuilt.err


@pytest.mark.parametrize("commands", commands_of(ROOT, "repro"))
def test_repro_in_the_repository_itself(commands, demo, background, tmp_path):
    shorten(demo.checkout)
    run_all(commands, demo.checkout, background, tmp_path)
    assert (demo.checkout / "bundle" / "model.onnx").exists()
    assert run("git", "diff", "--stat", "data.dvc", cwd=demo.checkout).out == "", (
        "the generator writes the data that data.dvc points to"
    )

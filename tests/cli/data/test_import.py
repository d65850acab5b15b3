"""Tests of `segpipe data import` and `segpipe data formats`: their options and their output."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from segpipe.cli.main import app
from segpipe.data.formats.registry import FORMATS

RUNNER = CliRunner()


@pytest.fixture
def workspace(tmp_path: Path, repo_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace without Git and DVC, and a source folder next to it."""
    root = tmp_path / "work"
    root.mkdir()
    (root / "params.yaml").write_text((repo_root / "params.yaml").read_text())
    versioned: list[Path] = []
    monkeypatch.setattr("segpipe.cli.data.import_.workspace_root", lambda: root)
    monkeypatch.setattr("segpipe.workspace.lock.lock", lambda _: nullcontext())
    monkeypatch.setattr("segpipe.workspace.git.git", lambda *_: None)
    monkeypatch.setattr("segpipe.workspace.pipeline.add_data", versioned.append)
    for name in ("a", "b"):
        for folder, suffix, value in (("scans", "", 3), ("drawn", "_L", 255)):
            path = tmp_path / "source" / folder / f"{name}{suffix}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.resize(np.array([0, value], np.uint8), (8, 9))).save(path)
    (tmp_path / "source" / "images.csv").write_text("image,modality\na.png,bright\n")
    return root


def test_options_reach_the_importer_and_the_report_is_printed(workspace: Path) -> None:
    source = workspace.parent / "source"
    options = ["--images", "scans", "--masks", str(source / "drawn"), "--suffix", "_L", "--classes", "cell=255, edge=0"]
    done = RUNNER.invoke(app, ["data", "import", str(source), *options, "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert (report["format"], report["images"], report["masks"]) == ("folder", 2, 2)
    assert [(spec["name"], spec["value"]) for spec in report["classes"]["classes"]] == [("cell", 255), ("edge", 0)]
    for words in (
        "recognised folder: the named folders",
        "255 cell, 0 edge",
        "images.csv: modality for 1 of 2",
        "Next: segpipe",
    ):
        assert words in done.stderr
    assert (workspace / "data" / "samples.csv").read_text() == "key,group,split,modality\na,,,bright\nb,,,\n"


def test_init_names_the_command_that_replaces_the_data_of_a_workspace(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segpipe.workspace.create.create_workspace", lambda _: False)
    source = workspace.parent / "source"
    (workspace / "data").mkdir()
    (workspace / "data" / "dataset.yaml").write_text("classes: []")
    error = RUNNER.invoke(app, ["init", str(workspace), "--data", str(source)]).exception
    assert f"{workspace}/data: holds data already" in str(error)
    assert f"segpipe -C {workspace} data import {source} --replace" in str(error)
    assert (workspace / "data" / "dataset.yaml").read_text() == "classes: []"


def test_an_option_that_the_layout_does_not_have(workspace: Path) -> None:
    source = str(workspace.parent / "source")
    done = RUNNER.invoke(app, ["data", "import", source, "--format", "voc", "--suffix", "_L"])
    assert "--suffix is not used by the layout voc" in str(done.exception)
    assert RUNNER.invoke(app, ["data", "import", source, "--tolerance", "300"]).exit_code == 2
    assert RUNNER.invoke(app, ["data", "import", source, "--ignore", "many"]).exit_code == 2


def test_all_layouts_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    table = RUNNER.invoke(app, ["data", "formats"]).stdout
    help_text = RUNNER.invoke(app, ["data", "import", "--help"]).stdout
    rows = json.loads(RUNNER.invoke(app, ["data", "formats", "--json"]).stdout)
    assert [row["name"] for row in rows] == [*FORMATS]
    for row in rows:
        assert set(row) == {"name", "summary", "options"}
        for text in (table, help_text):
            assert row["name"] in text
            assert row["summary"].split()[-1] in text


def test_candidates_fit_the_data_unless_the_user_chose_them(workspace: Path) -> None:
    from segpipe.config import load_params
    from segpipe.data.images import encode_nifti

    volumes = workspace.parent / "head scans"
    for part in ("images", "labels"):
        (volumes / part).mkdir(parents=True)
        for name in ("a", "b"):
            voxels = np.arange(60, dtype=np.uint8).reshape(3, 4, 5) % (2 if part == "labels" else 99)
            (volumes / part / f"{name}.nii.gz").write_bytes(encode_nifti(voxels))
    pictures = [str(workspace.parent / "source"), "--images", "scans", "--masks", "drawn", "--suffix", "_L"]

    def run_import(*arguments: str) -> str:
        done = RUNNER.invoke(app, ["data", "import", *arguments, "--replace"])
        assert done.exit_code == 0, done.output
        return done.stderr

    params = (workspace / "params.yaml").read_text()
    assert "params.yaml" not in run_import(*pictures)
    assert "the candidates are now unet3d, segresnet, kmeans" in run_import(str(volumes))
    assert set(load_params(workspace).candidates) == {"unet3d", "segresnet", "kmeans"}
    run_import(*pictures)
    assert (workspace / "params.yaml").read_text() == params
    (workspace / "params.yaml").write_text(mine := params.replace("  unet:\n", "  mine:\n"))
    assert "mine, deeplabv3plus cannot learn from volumes. Fix:" in run_import(str(volumes))
    assert (workspace / "params.yaml").read_text() == mine


def test_overlapping_classes_choose_networks_only(workspace: Path) -> None:
    from segpipe.config import load_params

    source = workspace.parent / "overlapping"
    for name in ("images", "masks/cell", "masks/nucleus"):
        (source / name).mkdir(parents=True)
        Image.fromarray(np.full((8, 8), 255, np.uint8)).save(source / name / "a.png")
    assert "--overlapping" in str(RUNNER.invoke(app, ["data", "import", str(source)]).exception)
    done = RUNNER.invoke(app, ["data", "import", str(source), "--overlapping", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["classes"]["overlapping"] is True
    assert "the candidates are now unet, deeplabv3plus" in done.stderr
    assert "kmeans" not in load_params(workspace).candidates

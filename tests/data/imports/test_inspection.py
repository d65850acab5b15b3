"""The inspection of a source: its readings with their commands, and a contact sheet."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from segpipe.cli.main import app
from segpipe.data.imports.inspection import inspect_source
from segpipe.data.imports.options import ImportOptions
from segpipe.errors import ConfigError, DataError
from tests.data.formats.readings.test_kinds import boxes, write
from tests.worlds.layouts import photo, save, values

RUNNER = CliRunner()


def test_each_reading_has_a_command_and_a_row_of_pictures(source: Path, tmp_path: Path) -> None:
    write(source, lambda n: boxes(3, n))
    inspection = inspect_source(source, "auto", ImportOptions(), tmp_path / "sheet.png")
    assert [shown.reading.kind for shown in inspection.readings] == ["instances", "classes"]
    assert inspection.taken is None
    sheet = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB"))
    middle = sheet[:, 60]  # a column through the first picture of both rows
    rows = np.flatnonzero((middle != 255).any(axis=1))
    assert (np.diff(rows) > 20).sum() == 1, "two pictures, one below the other"
    assert not sorted(source.glob("*.json")), "nothing is written to the source"


def test_the_command_prints_readings_and_imports_nothing(source: Path, tmp_path: Path) -> None:
    write(source, lambda n: boxes(8 + n, n))
    sheet = tmp_path / "sheet.png"
    done = RUNNER.invoke(app, ["data", "inspect", str(source), "--sheet", str(sheet)])
    assert done.exit_code == 0, done.output
    assert "[1] label-maps: each value is one instance" in done.stdout
    assert f"segpipe data import {source} --format label-maps" in done.stdout
    assert "against: each value is one connected part" in done.stdout
    assert sheet.exists()
    assert not (source.parent / "data").exists()


def test_a_table_that_an_import_uses_is_not_listed_as_unused(source: Path, tmp_path: Path) -> None:
    write(source, lambda n: boxes(8 + n, n))
    names = sorted(path.stem for path in (source / "images").iterdir())
    (source / "images.csv").write_text("image,stain\n" + "".join(f"{name},purple\n" for name in names))
    (source / "other.csv").write_text("a,b\n1,2\n")
    unused = inspect_source(source, "auto", ImportOptions(), tmp_path / "sheet.png").unused or []
    assert [(group.kind, group.files, group.example) for group in unused] == [(".csv", 1, "other.csv")]


def test_a_source_that_cannot_be_imported_says_so(source: Path, tmp_path: Path) -> None:
    photo(source / "images" / "a.png")
    (source / "coco.json").write_text('{"images": [], "annotations": [], "categories": [{"id": 1}]}')
    sheet = tmp_path / "sheet.png"
    inspection = inspect_source(source, "coco", ImportOptions(), sheet)
    assert inspection.unused is None and "coco.json" in (inspection.error or "")
    done = RUNNER.invoke(app, ["data", "inspect", str(source), "--format", "coco", "--sheet", str(sheet)])
    assert "An import would fail: " in done.stdout


def test_colours_without_a_palette_would_fail(source: Path, tmp_path: Path) -> None:
    write(source, lambda n: np.dstack([boxes(3, n) * 80, boxes(3, n), boxes(3, n)]))
    inspection = inspect_source(source, "auto", ImportOptions(), tmp_path / "sheet.png")
    assert inspection.readings[0].reading.kind == "colours"
    assert "--palette FILE" in (inspection.error or "") and inspection.unused is None


def test_a_file_cannot_be_inspected(tmp_path: Path) -> None:
    (tmp_path / "cells.zip").touch()
    with pytest.raises(DataError, match=r"cells\.zip: is not a folder"):
        inspect_source(tmp_path / "cells.zip", "auto", ImportOptions(), tmp_path / "sheet.png")


def test_layouts_that_fit_too_are_shown(source: Path, tmp_path: Path) -> None:
    photo(source / "images" / "a.png")
    save(source / "masks" / "a.png", values(0, [0, 1, 2]))
    entry = {"id": 1, "file_name": "a.png", "width": 25, "height": 18}
    square = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[2, 2, 9, 2, 9, 9, 2, 9]], "iscrowd": 0}
    content = {"images": [entry], "annotations": [square], "categories": [{"id": 1, "name": "cell"}]}
    (source / "instances.json").write_text(json.dumps(content))
    sheet = str(tmp_path / "sheet.png")
    done = RUNNER.invoke(app, ["data", "inspect", str(source), "--sheet", sheet])
    assert "[1] coco" in done.stdout
    assert (
        f"would fit too: folder, because of images/ with masks/: segpipe data import {source} --format folder"
        in done.stdout
    )
    done = RUNNER.invoke(app, ["data", "inspect", str(source), "--sheet", sheet, "--json"])
    assert [other["layout"] for other in json.loads(done.stdout)["others"]] == ["folder"]


def test_limits_are_those_of_the_workspace(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(source, lambda n: boxes(8 + n, n))
    command = ["data", "inspect", str(source), "--sheet", str(tmp_path / "sheet.png"), "--json"]
    workspace = tmp_path / "w"
    workspace.mkdir()
    (workspace / "dvc.yaml").write_text("stages: {}\n")
    (workspace / "params.yaml").write_text("candidates: {unet: {family: unet}}\ndata: {max_megapixels: 0.000001}\n")
    assert json.loads(RUNNER.invoke(app, command).stdout)["readings"][0]["reading"]["kind"] == "instances"
    monkeypatch.chdir(workspace)
    done = RUNNER.invoke(app, command)
    assert done.exit_code == 0, done.exception
    assert json.loads(done.stdout)["readings"][0]["reading"]["kind"] == "classes", "no mask may be decoded"


def test_the_sheet_names_files_and_classes(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo(source / "images" / "first-image.png")
    save(source / "masks" / "first-image.png", values(0, [0, 1, 2]))
    texts: list[str] = []
    draw_text = ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        ImageDraw.ImageDraw, "text", lambda self, at, text, **kw: (texts.append(text), draw_text(self, at, text, **kw))
    )
    inspect_source(source, "folder", ImportOptions(read={"kind": "classes"}), tmp_path / "sheet.png")
    assert "first-image.png" in texts and {"1", "2"} <= set(texts)


def test_options_of_an_import_are_taken_and_repeated(source: Path, tmp_path: Path) -> None:
    write(source, lambda n: boxes(8 + n, n))
    options = ["--group", "^(.)", "--to", "grey", "--unlabelled", "keep"]
    done = RUNNER.invoke(app, ["data", "inspect", str(source), "--sheet", str(tmp_path / "s.png"), *options])
    assert done.exit_code == 0 and "--to grey --group '^(.)' --unlabelled keep --format label-maps" in done.stdout
    both = RUNNER.invoke(app, ["data", "inspect", str(source), "--group", "^(.)", "--group-from-folder"])
    assert isinstance(both.exception, ConfigError) and "groups are named twice" in str(both.exception)


def test_of_large_images_every_nth_pixel_is_drawn(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from segpipe.data.imports import contact_sheet

    save(source / "images" / "a.png", np.full((1600, 3000, 3), 90, np.uint8))
    mask = np.zeros((1600, 3000), np.uint8)
    mask[400:1200, 500:2500] = 1
    save(source / "masks" / "a.png", mask)
    shapes: list[tuple[int, ...]] = []
    overlay = contact_sheet.overlay

    def recorded(image: np.ndarray, ids: np.ndarray, colors: np.ndarray) -> np.ndarray:
        shapes.append(image.shape)
        assert image.shape[:2] == ids.shape
        assert abs(ids.mean() - mask.mean()) < 0.01
        return overlay(image, ids, colors)

    monkeypatch.setattr(contact_sheet, "overlay", recorded)
    inspect_source(source, "auto", ImportOptions(), tmp_path / "sheet.png")
    assert shapes == [(534, 1000, 3)]

"""What the errors of an import advise works when it is followed, through the command line."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import segpipe.cli.data.import_ as import_command
from segpipe.cli.main import app
from segpipe.data.importer import ImportOptions, ImportReport, import_dataset
from segpipe.errors import SegpipeError
from tests.data.formats.readings.test_kinds import boxes, write
from tests.worlds.layouts import photo, save, values

RUNNER = CliRunner()
CHECKOUT = Path(__file__).resolve().parents[3]
Build = Callable[[Path], None]
SQUARE = [[2, 2, 9, 2, 9, 9, 2, 9]]


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for a source; the current folder is a workspace without Git and DVC, so that an import takes milliseconds."""
    workspace = tmp_path / "w"
    workspace.mkdir()
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(CHECKOUT / name, workspace / name)
    monkeypatch.chdir(workspace)

    def import_without_versions(root: Path, source: Path, format: str, options: ImportOptions) -> ImportReport:
        return import_dataset(source, root / "data", format, options)

    monkeypatch.setattr(import_command, "import_data", import_without_versions)
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def run(arguments: list[str]) -> SegpipeError | None:
    """Run a command; return its error, if it ends with one that users see."""
    result = RUNNER.invoke(app, arguments)
    if result.exception is None or isinstance(result.exception, SegpipeError):
        return result.exception
    if isinstance(result.exception, SystemExit) and result.exception.code == 0:
        return None
    raise AssertionError(result.output) from result.exception


def pairs(images: str, masks: str, names: str = "abcd", among: tuple[int, ...] = (0, 1, 2)) -> Build:
    """Return a function that writes pairs; the arguments are templates of paths."""

    def build(source: Path) -> None:
        for seed, name in enumerate(names):
            photo(source / images.format(name), seed)
            save(source / masks.format(name), values(seed, list(among)))

    return build


def colours(*shades: tuple[int, int, int]) -> Build:
    """Return a function that writes masks of these colours."""

    def build(source: Path) -> None:
        for seed in range(3):
            photo(source / "images" / f"{seed}.png", seed)
            index = values(seed, list(range(len(shades))))
            save(source / "masks" / f"{seed}.png", np.array(shades, np.uint8)[index])

    return build


def few_instances(source: Path) -> None:
    """Write masks that may hold classes or instances."""
    write(source, lambda n: boxes(3, n))


def turned(source: Path) -> None:
    """Write square images that are upside down, with masks of noise."""
    (source / "images").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 3
    for seed in range(4):
        noise = np.random.default_rng(seed).integers(0, 256, (20, 20, 3), np.uint8)
        Image.fromarray(noise).save(source / "images" / f"{seed}.jpg", exif=exif)
        save(source / "masks" / f"{seed}.png", np.random.default_rng(seed).integers(0, 3, (20, 20), np.uint8))


def coco(source: Path, folder: str = "images", annotations: str = "a.json") -> None:
    photo(source / folder / "a.png")
    entry = {"id": 1, "file_name": "a.png", "width": 25, "height": 18}
    square = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": SQUARE, "iscrowd": 0}
    content = {"images": [entry], "annotations": [square], "categories": [{"id": 1, "name": "cell"}]}
    (source / annotations).parent.mkdir(parents=True, exist_ok=True)
    (source / annotations).write_text(json.dumps(content))


def both(*builds: Build) -> Build:
    return lambda source: [build(source) for build in builds] and None


def text(name: str, content: str) -> Build:
    return lambda source: (source / name).write_text(content) and None


def in_folder(name: str, build: Build) -> Build:
    def inside(source: Path) -> None:
        (source / name).mkdir()
        build(source / name)

    return inside


FOLDERS = pairs("images/{}.png", "masks/{}.png")
PALETTE = "0 0 0 background\n200 0 0 road\n"
OFF_BY_5 = colours((0, 0, 0), (205, 0, 0))

CASES: dict[str, tuple[Build, str, str, list[str]]] = {
    "masks elsewhere": (pairs("images/{}.png", "drawn/{}.png"), "", "no folder of masks", ["--masks drawn"]),
    "two folders elsewhere": (pairs("scans/{}.png", "drawn/{}.png"), "", "no layout fits", ["--images scans --masks drawn"]),
    "masks of a suffix": (
        pairs("images/{}.png", "masks/{}_L.png", "a"),
        "",
        "no mask has the name of an image",
        ["--suffix _L", "--pattern images/(.) --mask-pattern masks/(.)_L"],
    ),
    "masks of a prefix": (pairs("images/{}.png", "masks/L_{}.png", "a"), "", "no mask has the name", ["--prefix L_"]),
    "wrong suffix": (
        pairs("images/{}.png", "masks/{}_L.png"),
        "--suffix _M",
        "no mask has this suffix",
        ["--pattern images/(.) --mask-pattern masks/(.)_L"],
    ),
    "one of two patterns": (
        pairs("{}_x.png", "{}_y.png"),
        "--pattern (.)_x",
        "only one of two",
        ["--pattern (.)_x --mask-pattern (.)_y"],
    ),
    "several folders of images": (
        both(FOLDERS, pairs("imgs/{}.png", "masks/{}.png")),
        "",
        "several folders could be the folder of images",
        ["--images images"],
    ),
    "colours without a palette": (
        both(colours((0, 0, 0), (200, 0, 0)), text("p.txt", PALETTE)),
        "",
        "which colour is which class",
        ["--palette SRC/p.txt"],
    ),
    "colours that are not in the palette": (
        both(OFF_BY_5, text("p.txt", PALETTE)),
        "--palette SRC/p.txt",
        "--tolerance",
        ["--palette SRC/p.txt --tolerance 8"],
    ),
    "stray colours": (
        both(colours((0, 0, 0), (200, 0, 0), (9, 9, 90)), text("p.txt", PALETTE)),
        "--palette SRC/p.txt",
        "--unknown-colours ignore",
        ["--palette SRC/p.txt --unknown-colours ignore"],
    ),
    "two palettes": (
        both(colours((0, 0, 0), (200, 0, 0)), text("palette.txt", PALETTE), text("labelmap.txt", "a:0,0,0::\nb:200,0,0::\n")),
        "--kind colours",
        "--palette",
        ["--palette SRC/palette.txt"],
    ),
    "one value": (pairs("images/{}.png", "masks/{}.png", among=(0,)), "", "cannot be guessed", ["--classes background,cell"]),
    "too few names": (FOLDERS, "--classes a,b", "--classes", ["--classes a,b,c", "--classes a,b --ignore 2"]),
    "a layout that does not use an option": (FOLDERS, "--format coco --suffix _L", "omit --suffix", ["--format folder"]),
    "a misspelt layout": (coco, "--format cocco", "did you mean `coco`", ["--format coco"]),
    "masks for each class that overlap": (
        lambda s: [photo(s / "images/a.png")]
        + [save(s / "masks" / c / "a.png", np.full((18, 25), 255, np.uint8)) for c in ("x", "y")]
        and None,
        "",
        "--overlapping",
        ["--overlapping"],
    ),
    "coco with images elsewhere": (
        lambda s: coco(s, "x/far/scans"),
        "--format coco --images nowhere",
        "no such folder",
        ["--format coco --images x/far/scans"],
    ),
    "a group that matches nothing": (FOLDERS, "--group ^images-", "matches no image", ["--group ^(.)", "--group ^(images)/"]),
    "groups from one folder": (FOLDERS, "--group-from-folder", "all images are in one folder", ["--group ^(.)"]),
    "groups named twice": (FOLDERS, "--group-from-folder --group ^(.)", "groups are named twice", ["--group ^(.)"]),
    "a regular expression that is not one": (FOLDERS, "--group (a", "not a regular expression", ['--group "^([^_]+)_?"']),
    "a table about other images": (
        both(FOLDERS, text("far.csv", "id,site\nx,1\n")),
        "--table SRC/far.csv",
        "omit --table",
        [""],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_advice_works_when_followed(source: Path, case: str) -> None:
    build, options, words, remedies = CASES[case]
    build(source)
    command = ["data", "import", str(source)]

    def arguments(text: str) -> list[str]:
        return [*command, *shlex.split(text.replace("SRC", str(source)))]

    error = run(arguments(options))
    assert error is not None and words in str(error), error
    assert "Fix: " in str(error) and "\n" not in str(error)
    for remedy in remedies:
        for option in re.findall(r"--[a-z-]+", remedy):
            assert option in f"{error} {options} --format", f"{option} is not advised: {error}"
        assert (followed := run([*arguments(remedy), "--replace"])) is None, f"{remedy}: {followed}"


@pytest.mark.parametrize("build", [few_instances, turned])
def test_each_command_that_chooses_a_reading_works(source: Path, build: Build) -> None:
    build(source)
    error = run(["data", "import", str(source), "--group", "^(.)"])
    assert error is not None and error.exit_code == 3
    commands = re.findall(r"`segpipe ([^`]+)`", str(error))
    assert len(commands) >= 2
    for command in commands:
        assert run([*shlex.split(command), "--replace"]) is None, command


@pytest.mark.parametrize(
    "build",
    [
        both(in_folder("one", FOLDERS), in_folder("two", FOLDERS)),
        both(in_folder("one", FOLDERS), in_folder("two", coco)),
        both(in_folder("one", coco), in_folder("two", coco)),
    ],
)
def test_the_advised_dataset_can_be_imported(source: Path, build: Build) -> None:
    build(source)
    error = run(["data", "import", str(source)])
    assert error is not None and error.exit_code == 3
    (path,) = re.findall(r"import one of them:? \(?([^);]+)", str(error))
    assert run(["data", "import", path]) is None


def test_a_part_of_a_dataset_names_the_whole(source: Path) -> None:
    FOLDERS(source)
    error = run(["data", "import", str(source / "images")])
    (path,) = re.findall(r"give the folder that it is a part of \((.+)\)", str(error))
    assert run(["data", "import", path]) is None


def test_existing_data_are_replaced_as_advised(source: Path) -> None:
    FOLDERS(source)
    assert run(["data", "import", str(source)]) is None
    error = run(["data", "import", str(source)])
    assert error is not None and "--replace" in str(error)
    assert run(["data", "import", str(source), "--replace"]) is None


@pytest.mark.parametrize(
    "case", ["M03_suffix_advice", "M05_flat_masks_nested_images", "M01b_string_category_ids", "M04_npy_alone"]
)
def test_reported_cases_are_imported_or_advise_what_works(source: Path, case: str) -> None:
    folder = CHECKOUT.parent / "shared" / "cases" / case
    if not folder.is_dir():
        pytest.skip("the reported cases (../shared/cases) are not on this machine")
    error = run(["data", "import", str(folder)])
    if error is not None:
        commands = re.findall(r"`segpipe ([^`]+)`", str(error))
        assert "Fix: " in str(error)
        for command in commands:
            assert run([*shlex.split(command), "--replace"]) is None, command

"""The import commands of docs/own-data.md: each is run on a small source that it was written for."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from segpipe.cli.main import app
from segpipe.config import DataParams
from segpipe.data.images import read_image
from tests.cli.data.test_advice import CHECKOUT, source  # noqa: F401
from tests.e2e.commands import all_blocks
from tests.worlds.layouts import items, mask_of, photo, save, values

RUNNER = CliRunner()
COMMANDS = [
    command for block in all_blocks(CHECKOUT) if block.context == "own-data-sources" for command in block.commands
]


def pairs(folder: Path, images: str, masks: str, names: str = "abc", among: tuple[int, ...] = (0, 1, 2)) -> None:
    """Write pairs; `{}` in the paths is the name, `{n}` its number."""
    for n, name in enumerate(names):
        photo(folder / images.format(name, n=n), n)
        save(folder / masks.format(name, n=n), values(n, list(among)))


@pytest.fixture
def sources(source: Path) -> Path:  # noqa: F811
    """The folder that holds the sources of the page, one for each name; the current folder is a workspace beside them."""
    top = source.parent
    pairs(top / "scans", "photos/{}.png", "drawn/{}.png")
    pairs(top / "letters", "images/{}.png", "masks/{}_L.png")
    pairs(top / "truth", "images/{}.png", "masks/gt_{}.png")
    for patient in ("anna", "bert"):
        pairs(top / "visits" / patient, "ct/0{n}.png", "seg/s0{n}.png")
    for patient in ("p01", "p02"):
        pairs(top / "patients", f"images/{patient}/{{}}.png", f"masks/{patient}/{{}}.png")
        pairs(top / "slides", f"images/slide{patient[-1]}_{{}}.png", f"masks/slide{patient[-1]}_{{}}.png")
        pairs(top / "sites", f"images/site{patient[-1]}/{{}}.png", f"masks/site{patient[-1]}/{{}}.png")
    names = [f"slide{slide}_{name}" for slide in "12" for name in "abc"]
    (top / "about.csv").write_text("image,group,split\n" + "".join(f"{n},g{n[5]},train\n" for n in names))
    pairs(top / "mixed", "images/{}.png", "masks/{}.png")
    save(top / "mixed" / "images" / "b.png", values(1, [5, 90, 200]))
    pairs(top / "lossy", "images/{}.png", "masks/{}.png", among=(0, 3, 250, 255))
    pairs(top / "streets", "images/{}.png", "masks/{}.png")
    for n, name in enumerate("abc"):
        colours = np.array([(0, 0, 0), (200, 0, 0), (203, 2, 0)], np.uint8)
        save(top / "streets" / "masks" / f"{name}.png", colours[values(n, [0, 1, 2])])
    (top / "streets" / "p.txt").write_text("0 0 0 background\n200 0 0 road\n")
    pairs(top / "membranes", "images/{}.png", "masks/{}.png", among=(0, 255))
    pairs(top / "borders", "images/{}.png", "masks/{}.png", among=(0, 1, 255))
    exif = Image.Exif()
    exif[0x0112] = 3
    pairs(top / "phone", "images/{}.png", "masks/{}.png")
    for path in (top / "phone" / "images").iterdir():
        Image.open(path).copy().save(path, exif=exif)
    return top


CHECKS = {
    "scans": lambda kept: len(kept) == 3,
    "letters": lambda kept: len(kept) == 3,
    "truth": lambda kept: len(kept) == 3,
    "visits": lambda kept: len(kept) == 6,
    "patients": lambda kept: {item.group for item in kept} == {"p01", "p02"},
    "slides": lambda kept: {item.group for item in kept} in ({"slide1", "slide2"}, {"g1", "g2"}),
    "sites": lambda kept: {item.group for item in kept} == {"site1", "site2"},
    "mixed": lambda kept: {read_image(item.image, DataParams()).shape[2] for item in kept} == {1},
    "lossy": lambda kept: {v for item in kept for v in np.unique(mask_of(item)).tolist()} == {0, 255},
    "streets": lambda kept: len(kept) == 3,
    "membranes": lambda kept: len(kept) == 3,
    "borders": lambda kept: len(kept) == 3,
    "phone": lambda kept: (mask_of(kept[0]) == values(0, [0, 1, 2])[::-1, ::-1]).all(),
}
"""What must hold for the imported items of each source."""


def test_the_page_has_commands_for_all_sources() -> None:
    assert {shlex.split(command)[3].removeprefix("../") for command in COMMANDS} == set(CHECKS)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_of_the_page_works(sources: Path, command: str) -> None:
    program, *arguments = shlex.split(command)
    assert program == "segpipe"
    result = RUNNER.invoke(app, arguments)
    assert result.exit_code == 0, result.exception
    kept = [item for _, item in sorted(items(sources / "w" / "data").items())]
    assert CHECKS[arguments[2].removeprefix("../")](kept)

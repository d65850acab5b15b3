"""--threshold, --unknown-colours, --exif and --unlabelled work with each layout that claims them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segpipe.data.formats.registry import FORMATS
from tests.worlds.layouts import HEIGHT, WIDTH, import_source, items, mask_of, photo, save

GREY = np.tile(np.array([0, 3, 250, 255, 120], np.uint8), (HEIGHT, WIDTH // 5))
COLOURS = np.stack([GREY, np.zeros_like(GREY), np.zeros_like(GREY)], axis=2)
PALETTE = "0 0 0 background\n255 0 0 road\n"
WITH_MASK_FILES = sorted(name for name, layout in FORMATS.items() if layout.has_mask_files)


def write(source: Path, layout: str, mask: np.ndarray, orientation: int = 1) -> None:
    """Write two pairs in a layout of mask files, and an image without a mask."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in "abc":
        image = photo(source / "images" / f"{name}.png", ord(name))
        Image.open(image).copy().save(image, exif=exif)
        if name != "c":
            save(source / "masks" / f"{name}.png", mask)
    if layout == "paired-list":
        (source / "train.txt").write_text("".join(f"images/{name}.png masks/{name}.png\n" for name in "ab"))


def masks(data: Path) -> list[np.ndarray]:
    """Return the labels of all imported items that have any."""
    return [mask_of(item) for item in items(data).values() if item.mask]


def test_the_layouts_with_mask_files_are_those_tested() -> None:
    assert {"folder", "label-maps", "colour-masks", "paired-list"} <= set(WITH_MASK_FILES)


@pytest.mark.parametrize("layout", [name for name in WITH_MASK_FILES if "threshold" in FORMATS[name].options])
def test_threshold(source: Path, data: Path, layout: str) -> None:
    write(source, layout, GREY)
    import_source(source, data, layout, read={"threshold": 100})
    for mask in masks(data):
        np.testing.assert_array_equal(mask, np.where(GREY >= 100, 255, 0))


@pytest.mark.parametrize("layout", [name for name in WITH_MASK_FILES if "unknown_colours" in FORMATS[name].options])
def test_unknown_colours(source: Path, data: Path, layout: str, tmp_path: Path) -> None:
    write(source, layout, COLOURS)
    (tmp_path / "p.txt").write_text(PALETTE)
    read = {"palette": str(tmp_path / "p.txt"), "tolerance": 5, "unknown_colours": "ignore"}
    report = import_source(source, data, layout, read=read)
    road = report.classes.classes[report.classes.names.index("road")].value
    ignored = report.classes.ignore[0]
    expected = np.select([GREY <= 5, GREY >= 250], [report.classes.classes[0].value, road], ignored)
    for mask in masks(data):
        np.testing.assert_array_equal(mask, expected)
    assert any("ignored" in note for note in report.notes)


@pytest.mark.parametrize("layout", [name for name in WITH_MASK_FILES if "exif" in FORMATS[name].options])
def test_exif(source: Path, data: Path, layout: str, tmp_path: Path) -> None:
    plain = np.triu(np.ones((HEIGHT, WIDTH), np.uint8)) * 2
    mask = np.dstack([plain * 127, plain * 0, plain * 0]) if layout == "colour-masks" else plain
    write(source, layout, mask, orientation=3)
    (tmp_path / "p.txt").write_text("0 0 0 background\n254 0 0 road\n")
    palette = {"palette": str(tmp_path / "p.txt")} if layout == "colour-masks" else {}
    import_source(source, data, layout, read={"exif": "apply", **palette})
    applied = masks(data)
    import_source(source, data, layout, read={"exif": "ignore", **palette}, replace=True)
    for upright, turned in zip(applied, masks(data), strict=True):
        np.testing.assert_array_equal(upright > 0, plain > 0)
        np.testing.assert_array_equal(turned, upright[::-1, ::-1])


@pytest.mark.parametrize("layout", ["folder", "label-maps"])
@pytest.mark.parametrize("to", [None, "grey"])
def test_unlabelled_images_are_kept_on_request(source: Path, data: Path, layout: str, to: str | None) -> None:
    write(source, layout, GREY % 3)
    assert import_source(source, data, layout).images == 2
    report = import_source(source, data, layout, unlabelled="keep", to=to, replace=True)
    assert (report.images, report.masks) == (3, 2)
    assert [item.mask is None for _, item in sorted(items(data).items())] == [False, False, True]

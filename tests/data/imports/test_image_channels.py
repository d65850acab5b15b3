"""--to rgb|grey, and grey images that are mixed with colour ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segpipe.config import DataParams
from segpipe.data.images import read_image
from segpipe.data.imports.image_channels import to_grey
from tests.worlds.layouts import HEIGHT, WIDTH, import_source, items, save, values

GREY = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH), np.uint8)
COLOUR = np.random.default_rng(2).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def write(source: Path, images: dict[str, np.ndarray]) -> None:
    for seed, (name, pixels) in enumerate(images.items()):
        save(source / "images" / name, pixels)
        save(source / "masks" / f"{Path(name).stem}.png", values(seed, [0, 1, 2]))


def pixels(data: Path) -> dict[str, np.ndarray]:
    return {key: read_image(item.image, DataParams()) for key, item in items(data).items()}


@pytest.mark.parametrize("ending", ["png", "bmp", "tif"])
def test_grey_among_colour_becomes_rgb(source: Path, data: Path, ending: str) -> None:
    write(source, {f"a.{ending}": GREY, "b.png": COLOUR, "c.png": np.dstack([GREY] * 3)})
    report = import_source(source, data)
    read = pixels(data)
    np.testing.assert_array_equal(read["a"], np.dstack([GREY] * 3))
    np.testing.assert_array_equal(read["b"], COLOUR)
    assert "grey images that are stored as RGB (three equal channels), like the 2 in colours: 1;" in "; ".join(
        report.notes
    )
    assert report.unused == []
    assert (data / "images" / "b.png").read_bytes() == (source / "images" / "b.png").read_bytes()


def test_three_equal_channels_among_grey_are_grey(source: Path, data: Path) -> None:
    write(source, {"a.png": GREY, "b.bmp": np.dstack([GREY] * 3), "c.webp": GREY[::-1]})
    Image.fromarray(np.dstack([GREY] * 3)).save(source / "images" / "c.webp", lossless=True)
    report = import_source(source, data)
    read = pixels(data)
    for key in "abc":
        np.testing.assert_array_equal(read[key], GREY[..., None])
    assert "images of three channels that are stored as grey, like the other 1: 2;" in "; ".join(report.notes)


def test_a_grey_palette_is_grey(source: Path, data: Path) -> None:
    write(source, {"a.png": GREY})
    save(source / "images" / "b.png", GREY, [(v, v, v) for v in range(256)])
    save(source / "masks" / "b.png", values(3, [0, 1, 2]))
    import_source(source, data)
    np.testing.assert_array_equal(pixels(data)["b"], GREY[..., None])


def test_images_of_one_kind_are_copied(source: Path, data: Path) -> None:
    write(source, {"a.png": np.dstack([GREY] * 3), "b.jpg": np.dstack([GREY] * 3)})
    assert "stored as" not in "; ".join(import_source(source, data).notes)
    for name in ("a.png", "b.jpg"):
        assert (data / "images" / name).read_bytes() == (source / "images" / name).read_bytes()


def test_the_user_decides(source: Path, data: Path) -> None:
    write(source, {"a.png": GREY, "b.png": COLOUR})
    import_source(source, data, to="grey")
    luma = np.asarray(Image.fromarray(COLOUR).convert("L"), np.int64)  # the oracle: fixed-point luma of Pillow
    assert np.abs(pixels(data)["b"][..., 0].astype(np.int64) - luma).max() <= 1
    np.testing.assert_array_equal(pixels(data)["a"], GREY[..., None])
    write(source, {"b.png": GREY})
    import_source(source, data, to="rgb", replace=True)
    assert {image.shape[2] for image in pixels(data).values()} == {3}


def test_16_bits_stay_16_bits(source: Path, data: Path) -> None:
    deep = np.random.default_rng(4).integers(0, 65536, (HEIGHT, WIDTH)).astype(np.uint16)
    write(source, {"a.png": deep, "b.png": COLOUR})
    import_source(source, data)
    np.testing.assert_array_equal(pixels(data)["a"], np.dstack([deep] * 3))


def test_a_turned_grey_image_fits_its_mask(source: Path, data: Path) -> None:
    write(source, {"b.png": COLOUR})
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(GREY).save(source / "images" / "a.jpg", exif=exif, quality=95)
    save(source / "masks" / "a.png", np.rot90(values(5, [0, 1, 2]), -1))
    import_source(source, data)
    upright = read_image(source / "images" / "a.jpg", DataParams())
    np.testing.assert_array_equal(pixels(data)["a"], np.repeat(upright, 3, axis=2))
    assert upright.shape == (WIDTH, HEIGHT, 1)


def test_luma_is_that_of_bt_601() -> None:
    pure = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8)
    assert to_grey(pure)[..., 0].tolist() == [[76, 150, 29, 255]]

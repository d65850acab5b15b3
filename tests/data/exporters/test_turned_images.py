"""Images with an orientation tag (EXIF or TIFF) are exported so that programs that ignore the tag see them under their masks."""

from __future__ import annotations

import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from segpipe.config import DataParams
from segpipe.data.dataset import load_dataset
from segpipe.data.exporters.labels import TURNED_IMAGES
from segpipe.data.exporters.registry import export_dataset
from segpipe.data.images import read_image
from segpipe.data.importer import ImportOptions, import_dataset
from tests.worlds.layouts import items, mask_of, save

LIMITS = DataParams()
ENDINGS = ("jpg", "png", "webp", "tif")
IMAGE_FOLDERS = {"coco": "images", "voc": "JPEGImages", "folder": "images", "nnunet": "imagesTr"}


def write_turned(path: Path, seed: int, orientation: int) -> np.ndarray:
    """Write an image whose tag says that it is turned, and return it upright, as Pillow shows it: (H, W, 3)."""
    stored = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, stored, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
    else:
        exif = Image.Exif()
        exif[0x0112] = orientation
        options = {"lossless": True} if path.suffix == ".webp" else {}
        Image.fromarray(stored).save(path, exif=exif, **options)
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def mask_for(upright: np.ndarray, seed: int) -> np.ndarray:
    mask = np.random.default_rng(seed + 100).integers(0, 3, upright.shape[:2]).astype(np.uint8)
    mask[0, :3] = (0, 1, 2)
    return mask


@pytest.fixture(params=ENDINGS)
def turned(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """Data of a workspace with one image for each orientation, and the upright images by key."""
    uprights = {}
    for orientation in range(1, 9):
        key = f"o{orientation}"
        uprights[key] = write_turned(tmp_path / "src" / "images" / f"{key}.{request.param}", orientation, orientation)
        save(tmp_path / "src" / "masks" / f"{key}.png", mask_for(uprights[key], orientation))
    import_dataset(tmp_path / "src", tmp_path / "data", "auto", ImportOptions())
    return tmp_path, uprights


def stored_pixels(path: Path) -> np.ndarray:
    """Return the pixels as a program sees them that ignores orientation tags."""
    if path.suffix == ".tif":
        return tifffile.imread(path)
    flags = cv2.IMREAD_IGNORE_ORIENTATION | cv2.IMREAD_COLOR_RGB
    return cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), flags)


@pytest.mark.parametrize("format", IMAGE_FOLDERS)
def test_exported_images_fit_their_masks_without_the_tag(
    turned: tuple[Path, dict[str, np.ndarray]], format: str
) -> None:
    folder, uprights = turned
    out = folder / "out"
    report = export_dataset(load_dataset(folder / "data"), out, format, LIMITS)
    assert report.images == 8 and not report.left_out
    if format != "nnunet":  # which always writes decoded pixels
        assert report.losses[TURNED_IMAGES] == 7
    for key, upright in uprights.items():
        exact = read_image(next((folder / "data" / "images").glob(f"{key}.*")), LIMITS)
        assert np.abs(exact.astype(int) - upright).max() <= 3  # decoders of JPEG differ in rounding
        if format == "nnunet":
            paths = sorted((out / "imagesTr").glob(f"{key}_*"))
            pixels = np.dstack([tifffile.imread(p) if p.suffix == ".tif" else np.asarray(Image.open(p)) for p in paths])
        else:
            (path,) = (out / IMAGE_FOLDERS[format]).glob(f"{key}.*")
            pixels = stored_pixels(path)
        difference = np.abs(pixels.astype(int) - exact).max()
        assert difference <= (3 if key == "o1" else 0), (key, format)


def test_files_of_coco_and_their_sizes(turned: tuple[Path, dict[str, np.ndarray]]) -> None:
    folder, uprights = turned
    export_dataset(load_dataset(folder / "data"), folder / "out", "coco", LIMITS)
    content = json.loads((folder / "out" / "annotations" / "instances_all.json").read_text())
    for entry in content["images"]:
        upright = uprights[Path(entry["file_name"]).stem]
        assert (entry["height"], entry["width"]) == upright.shape[:2]
        assert stored_pixels(folder / "out" / "images" / entry["file_name"]).shape[:2] == upright.shape[:2]


@pytest.mark.parametrize("format", ["coco", "voc", "folder", "nnunet"])
def test_import_after_export_gives_the_same_labels(turned: tuple[Path, dict[str, np.ndarray]], format: str) -> None:
    folder, uprights = turned
    export_dataset(load_dataset(folder / "data"), folder / "out", format, LIMITS)
    import_dataset(folder / "out", folder / "again", "auto", ImportOptions())
    again = items(folder / "again")
    for seed, (key, upright) in enumerate(uprights.items(), start=1):
        np.testing.assert_array_equal(mask_of(again[key]), mask_for(upright, seed))
        assert read_image(again[key].image, LIMITS).shape[:2] == upright.shape[:2]


def test_masks_with_a_tag_are_exported_upright(tmp_path: Path) -> None:
    upright = write_turned(tmp_path / "data" / "images" / "a.jpg", 1, 6)
    mask, exif = mask_for(upright, 1), Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "data" / "masks").mkdir()
    Image.fromarray(np.rot90(mask, 1).copy()).save(tmp_path / "data" / "masks" / "a.png", exif=exif)
    (tmp_path / "data" / "dataset.yaml").write_text(
        "classes: [{name: a, value: 0, color: [0, 0, 0]}, {name: b, value: 1, color: [1, 1, 1]}, {name: c, value: 2, color: [2, 2, 2]}]\n"
    )
    export_dataset(load_dataset(tmp_path / "data"), tmp_path / "out", "folder", LIMITS)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / "masks" / "a.png")), mask)


def test_16_bit_and_many_channels_stay_exact(tmp_path: Path) -> None:
    pixels = np.random.default_rng(3).integers(0, 65536, (20, 30, 5)).astype(np.uint16)
    (tmp_path / "data" / "images").mkdir(parents=True)
    tifffile.imwrite(
        tmp_path / "data" / "images" / "a.tif",
        pixels,
        photometric="minisblack",
        planarconfig="contig",
        extratags=[(274, "H", 1, 8, True)],
    )
    save(tmp_path / "data" / "masks" / "a.png", np.eye(30, 20, dtype=np.uint8))
    (tmp_path / "data" / "dataset.yaml").write_text(
        "classes: [{name: a, value: 0, color: [0, 0, 0]}, {name: b, value: 1, color: [1, 1, 1]}]\n"
    )
    export_dataset(load_dataset(tmp_path / "data"), tmp_path / "out", "folder", LIMITS)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out" / "images" / "a.tif"), np.rot90(pixels, 1))

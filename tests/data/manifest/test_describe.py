"""What rows say of images, masks and volumes, against Pillow, scikit-image, SciPy, nibabel and plain numpy."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import imagehash
import nibabel
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image
from scipy import ndimage

from segpipe.config import DataParams
from segpipe.data.manifest import connected_components
from segpipe.data.dataset import Item
from segpipe.data.manifest.describe import describe_item
from segpipe.data.images import encode_png
from segpipe.data.images.statistics import histogram, moments, perceptual_hash, reduce_to_grey, sharpness
from segpipe.data.manifest.connected_components import find_runs, component_sizes
from segpipe.data.manifest.table import to_frame, usable
from segpipe.samples import ClassTable

from tests.worlds.small_datasets import LIMITS, TABLE

RNG = np.random.default_rng(0)
MASKS = arrays(np.uint8, array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=7), elements=st.integers(0, 3))


@settings(max_examples=50, deadline=None)
@given(
    plane=st.one_of(
        arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12))),
        arrays(np.uint16, st.tuples(st.integers(1, 12), st.integers(1, 12))),
        arrays(
            np.float32, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.floats(-1000, 1000, width=32)
        ),
    )
)
def test_moments_of_a_plane(plane: np.ndarray) -> None:
    values = plane.astype(np.float64)
    expected = values.mean(), values.std(), *np.percentile(values, (0.5, 99.5), method="inverted_cdf")
    found = moments(np.stack([plane[::-1], plane], axis=2))
    np.testing.assert_allclose(found, np.stack([expected, expected], axis=1), rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_histogram_in_bands_is_a_histogram(monkeypatch: pytest.MonkeyPatch, dtype: type) -> None:
    from segpipe.data.images import statistics

    plane = RNG.integers(0, np.iinfo(dtype).max, (53, 31), dtype=dtype, endpoint=True)
    monkeypatch.setattr(statistics, "bands", lambda image, _: [image[i : i + 3] for i in range(0, len(image), 3)])
    levels = np.iinfo(dtype).max + 1
    np.testing.assert_array_equal(histogram(plane), np.bincount(plane.ravel(), minlength=levels))


@settings(max_examples=150, deadline=None)
@given(mask=MASKS, values=st.sets(st.integers(0, 3), min_size=1))
def test_regions_are_those_of_scipy(mask: np.ndarray, values: set[int]) -> None:
    runs = find_runs(mask)
    assert runs is not None
    np.testing.assert_array_equal(runs.pixels(), np.bincount(mask.ravel()))
    found, sizes = component_sizes(runs.of(sorted(values)))
    assert set(found.tolist()) <= values
    for value in values:
        labels, _ = ndimage.label(mask == value, np.ones((3,) * mask.ndim))
        assert sorted(sizes[found == value].tolist()) == sorted(np.bincount(labels.ravel())[1:].tolist())


def test_regions_of_a_mask_that_is_noise_are_not_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(connected_components, "MAX_RUNS", 100)
    mask = RNG.integers(0, 2, (40, 40), dtype=np.uint8)
    assert find_runs(mask) is None
    row = describe_item(
        write_pair(tmp_path, RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8), mask), tmp_path, TABLE, LIMITS
    )
    assert row["smallest_component"] is None
    assert row["class_pixels"] == np.bincount(mask.ravel()).tolist()


def test_hashes_are_those_of_imagehash_and_bear_small_changes() -> None:
    for blur in (0.5, 1, 2, 4):
        small = cv2.GaussianBlur(RNG.integers(0, 256, (32, 32), dtype=np.uint8), (0, 0), blur)
        assert perceptual_hash(reduce_to_grey(small[:, :, None])) == str(imagehash.phash(Image.fromarray(small)))
    tone = cv2.resize(RNG.normal(size=(9, 12)), (600, 450), interpolation=cv2.INTER_CUBIC)
    image = np.clip(128 + 40 * tone[:, :, None] + RNG.normal(0, 3, (450, 600, 3)), 0, 255).astype(np.uint8)
    other = np.ascontiguousarray(image[:, ::-1])
    half = cv2.resize(image, (301, 226), interpolation=cv2.INTER_AREA)
    squeezed = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_COLOR)
    first, *near, far = (imagehash.hex_to_hash(perceptual_hash(reduce_to_grey(i))) for i in (image, half, squeezed, other))
    assert max(first - hashed for hashed in near) <= 6
    assert first - far > 12
    for odd in (image[:, :, :2], image.astype(np.uint16) * 257, image.astype(np.float32), image[None].repeat(3, 0)):
        assert first - imagehash.hex_to_hash(perceptual_hash(reduce_to_grey(odd))) <= 6
    assert len(perceptual_hash(reduce_to_grey(RNG.normal(size=(200, 1, 7)).astype(np.float32)))) == 16


def test_sharpness_falls_with_blur_and_knows_no_brightness() -> None:
    noise = RNG.integers(0, 200, (80, 90, 3), dtype=np.uint8)
    grey = cv2.cvtColor(noise, cv2.COLOR_RGB2GRAY)
    low, high = np.percentile(grey.astype(float), (0.5, 99.5), method="inverted_cdf")
    edges = ndimage.correlate(grey.astype(float), np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]]))[1:-1, 1:-1]
    np.testing.assert_allclose(sharpness(noise), edges.var() / (high - low) ** 2)
    np.testing.assert_allclose(sharpness(noise.astype(np.uint16) * 300), sharpness(noise), rtol=0.01)
    np.testing.assert_allclose(sharpness(noise.astype(np.float32) - 7), sharpness(noise), rtol=0.01)
    np.testing.assert_allclose(sharpness(np.stack([noise, noise])), sharpness(noise))
    tiles = cv2.resize(noise[:10, :10], (160, 160), interpolation=cv2.INTER_NEAREST)
    blurred = [sharpness(tiles)] + [sharpness(cv2.GaussianBlur(tiles, (0, 0), sigma)) for sigma in (0.5, 1, 2, 4)]
    assert all(sharp > 1.5 * dull for sharp, dull in pairwise(blurred))
    for flat in (np.full((50, 50, 3), 9, np.uint8), noise[:2], noise[:, :2]):
        assert sharpness(flat) == 0
    large = RNG.integers(0, 200, (700, 900, 1), dtype=np.uint8)
    whole = cv2.Laplacian(large, cv2.CV_16S)[1:-1, 1:-1].var() / (198 - 1) ** 2
    np.testing.assert_allclose(sharpness(large), whole, rtol=0.03)


def write_pair(root: Path, image: np.ndarray, mask: np.ndarray, ids: np.ndarray | None = None) -> Item:
    paths = {}
    for name, array in (("image", image), ("mask", mask), ("instances", ids)):
        if array is not None:
            paths[name] = root / f"{name}.png"
            paths[name].write_bytes(encode_png(array))
    return Item("x", **paths)


def test_objects_and_notes(tmp_path: Path) -> None:
    ids = np.zeros((30, 40), np.uint16)
    ids[2:5, 2:6], ids[10:20, 10:20], ids[25, 30] = 300, 7, 9
    item = write_pair(tmp_path, RNG.integers(0, 256, (30, 40, 3), dtype=np.uint8), (ids > 0).astype(np.uint8), ids)
    Image.fromarray(RNG.integers(0, 256, (30, 40, 4), dtype=np.uint8), "RGBA").save(item.image)
    row = describe_item(item, tmp_path, TABLE, LIMITS)
    assert (row["n_instances"], row["instance_areas"]) == (3, [100, 1, 12])
    assert row["smallest_component"] == 1
    assert row["notes"] == ["alpha channel dropped"]
    assert (row["depth"], row["spacing"], row["orientation"], row["error"]) == (None, None, None, None)
    named = ClassTable.from_names(["sky", "cell"])
    assert describe_item(item, tmp_path, named, LIMITS)["smallest_component"] == 1
    assert describe_item(Item("x", item.image), tmp_path, TABLE, LIMITS)["smallest_component"] is None
    empty = describe_item(
        write_pair(tmp_path, np.zeros((9, 9), np.uint8), np.zeros((9, 9), np.uint8)), tmp_path, TABLE, LIMITS
    )
    assert empty["smallest_component"] is None


def write_volume(path: Path, voxels: np.ndarray, zooms: tuple[float, float, float]) -> Path:
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([-zooms[0], zooms[1], zooms[2], 1])), path)
    return path


def test_volumes(tmp_path: Path) -> None:
    voxels = RNG.normal(100, 20, (12, 11, 10)).astype(np.float32)
    labels = np.zeros((12, 11, 10), np.uint8)
    labels[2:4, 3, 4], labels[3, 4, 5], labels[9:11, 9:11, 8] = 1, 1, 1
    image = write_volume(tmp_path / "image.nii.gz", voxels, (0.5, 1, 2))
    item = Item("v", image, write_volume(tmp_path / "mask.nii.gz", labels, (0.5, 1, 3)))
    row = describe_item(item, tmp_path, TABLE, LIMITS)
    assert row["error"] is None
    assert [row[c] for c in ("depth", "height", "width", "channels", "dtype")] == [10, 11, 12, 1, "float32"]
    assert [row[c] for c in ("mask_depth", "mask_height", "mask_width")] == [10, 11, 12]
    assert (row["spacing"], row["mask_spacing"]) == ([2.0, 1.0, 0.5], [3.0, 1.0, 0.5])
    assert (row["orientation"], row["mask_orientation"]) == ("LAS", "LAS")
    np.testing.assert_allclose((row["mean"][0], row["std"][0]), (voxels.mean(), voxels.std()), rtol=1e-5)
    assert [row["low"][0], row["high"][0]] == np.percentile(voxels, (0.5, 99.5), method="inverted_cdf").tolist()
    assert row["class_pixels"] == np.bincount(labels.ravel()).tolist()
    assert row["smallest_component"] == 3  # joined by a corner
    frame = to_frame([row | {"split": "train"}, row | {"split": "train", "mask_depth": 9}, row | {"split": None}])
    assert usable(frame).tolist() == [True, False, False]


_PEAK = r"""
import re, sys
from pathlib import Path
from segpipe.config import DataParams
from segpipe.data.dataset import Item
from segpipe.data.manifest.describe import describe_item
from segpipe.samples import ClassTable
root, table = Path(sys.argv[1]), ClassTable.from_names(["background", "cell"])
paths = {name: root / f"{name}.png" for name in ("image", "mask")}
small = {name: root / f"small-{name}.png" for name in ("image", "mask")}
describe_item(Item("s", **small), root, table, DataParams())  # libraries are loaded before the peak is read
peak = lambda: int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])  # ru_maxrss would count the parent
before = peak()
row = describe_item(Item("x", **paths), root, table, DataParams())
assert row["error"] is None, row["error"]
print((peak() - before) * 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc")
def test_a_large_image_is_described_in_little_memory(tmp_path: Path) -> None:
    tone = RNG.integers(0, 256, (60, 60, 3), dtype=np.uint8)
    image = cv2.resize(tone, (5000, 5000), interpolation=cv2.INTER_NEAREST)
    for name, array in (
        ("image", image),
        ("mask", image[:, :, 0] // 128),
        ("small-image", tone),
        ("small-mask", tone[:, :, 0] // 128),
    ):
        (tmp_path / f"{name}.png").write_bytes(encode_png(np.ascontiguousarray(array)))
    told = subprocess.run([sys.executable, "-c", _PEAK, tmp_path], capture_output=True, text=True, check=True)
    assert 0.9 * image.nbytes < int(told.stdout) < 1.8 * image.nbytes


_EDGE = 2000
_TIFFS: dict[str, tuple[str, dict[str, Any]]] = {
    "tiles": ("uint8", {"photometric": "rgb", "compression": "adobe_deflate", "tile": (256, 256)}),
    "one strip": ("uint16", {"photometric": "minisblack", "compression": "adobe_deflate", "rowsperstrip": _EDGE}),
    "alpha": ("uint8", {"photometric": "rgb", "extrasamples": ["unassalpha"], "compression": "adobe_deflate"}),
    "planes": ("uint16", {"photometric": "rgb", "planarconfig": "separate", "compression": "adobe_deflate"}),
    "floats": ("float32", {"photometric": "minisblack", "compression": "adobe_deflate"}),
    "64 bits": ("float64", {"photometric": "minisblack", "compression": "adobe_deflate"}),
}
"""Kinds of TIFF files: number type, and how they are written."""

_TIFF_PEAKS = r"""
import ctypes, re, sys
from pathlib import Path
from segpipe.config import DataParams
from segpipe.data.dataset import Item
from segpipe.data.manifest.describe import describe_item
from segpipe.samples import ClassTable
status, table = Path("/proc/self/status"), ClassTable.from_names(["background", "cell"])
memory = lambda name: int(re.search(name + r":\s+(\d+)", status.read_text())[1]) * 1024
for path in [Path(sys.argv[1]), *map(Path, sys.argv[1:])]:  # the first one loads the libraries
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = memory("VmRSS")
    row = describe_item(Item("x", path), path.parent, table, DataParams())
    assert row["error"] is None, row["error"]
    print(memory("VmHWM") - before)
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="reads the peak from /proc")
def test_a_tiff_of_any_kind_is_described_in_twice_its_size(tmp_path: Path) -> None:
    """Noise, which no compression makes smaller: what lies in the file and what it is decoded to are the two; beside them, a few MB."""
    sizes, paths = {}, []
    for name, (dtype, options) in _TIFFS.items():
        channels = {"minisblack": 1, "rgb": 3}[options["photometric"]] + len(options.get("extrasamples", ()))
        shape = (_EDGE, _EDGE, channels)
        array = (
            (RNG.random(shape) * 250).astype(dtype) if "float" in dtype else RNG.integers(0, 250, shape).astype(dtype)
        )
        array = np.moveaxis(array, 2, 0) if "planarconfig" in options else array.squeeze()
        paths.append(tmp_path / f"{name}.tif")
        level = {"compressionargs": {"level": 1}} if "compression" in options else {}
        tifffile.imwrite(paths[-1], array, **options, **level)
        sizes[name] = array.nbytes
    told = subprocess.run([sys.executable, "-c", _TIFF_PEAKS, *paths], capture_output=True, text=True, check=True)
    peaks = dict(zip(sizes, map(int, told.stdout.split()[1:]), strict=True))
    assert {name: peak / sizes[name] for name, peak in peaks.items() if peak > 2 * sizes[name] + (18 << 20)} == {}


def test_rows_of_real_data_are_those_of_other_libraries(shared_data: Path) -> None:
    camvid, hippocampus = shared_data / "camvid", shared_data / "hippocampus"
    table = ClassTable.from_names([f"c{i}" for i in range(12)])
    for path in sorted((camvid / "val").iterdir())[::10]:
        row = describe_item(Item("x", path, camvid / "valannot" / path.name), camvid, table, DataParams())
        image, mask = np.asarray(Image.open(path)), np.asarray(Image.open(camvid / "valannot" / path.name))
        np.testing.assert_allclose(row["mean"], image.mean((0, 1)))
        np.testing.assert_allclose(row["std"], image.std((0, 1)))
        assert row["high"] == np.percentile(image.reshape(-1, 3), 99.5, axis=0, method="inverted_cdf").tolist()
        assert row["class_pixels"] == np.bincount(mask.ravel(), minlength=12).tolist()
        smallest = min(
            np.bincount(ndimage.label(mask == c, np.ones((3, 3)))[0].ravel())[1:].min() for c in np.unique(mask)
        )
        assert row["smallest_component"] == smallest
    volumes = sorted((hippocampus / "images").iterdir())[::80]
    for path in volumes:
        labels = hippocampus / "labels" / path.name
        row = describe_item(
            Item("x", path, labels), hippocampus, ClassTable.from_names(["background", "a", "b"]), DataParams()
        )
        loaded, truth = nibabel.load(path), np.asarray(nibabel.load(labels).dataobj)
        assert [row["width"], row["height"], row["depth"]] == list(loaded.shape)
        assert row["spacing"][::-1] == pytest.approx(loaded.header.get_zooms())
        assert row["orientation"] == "".join(nibabel.aff2axcodes(loaded.affine))
        assert row["mean"][0] == pytest.approx(np.asarray(loaded.dataobj, float).mean())
        assert row["class_pixels"] == np.bincount(truth.astype(int).ravel(), minlength=3).tolist()
        parts = [np.bincount(ndimage.label(truth == c, np.ones((3, 3, 3)))[0].ravel())[1:].min() for c in (1, 2)]
        assert row["smallest_component"] == min(parts)

"""GIF, NumPy arrays and OME-TIFF. The oracles are the arrays that were written."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from segpipe.config import DataParams
from segpipe.data.dataset import Item, load_sample
from segpipe.data.images import channel_names, decode_image, decode_image_with_notes, decode_mask, read_mask
from segpipe.data.manifest.describe import describe_item
from segpipe.errors import DataError
from segpipe.samples import IGNORE, ClassTable

RNG = np.random.default_rng(9)
LIMITS = DataParams()


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int64", "float32", "float64", ">f4", "bool"])
@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 1), (20, 30, 3), (20, 30, 5), (20, 6, 7, 2)])
def test_arrays_come_back(dtype: str, shape: tuple[int, ...]) -> None:
    array = (RNG.random(shape) * 200).astype(dtype)
    for content in (npy(array), npy(np.asfortranarray(array)), npz(image=array), npz(x=array, y=array)):
        image = decode_image(content, "x", LIMITS)
        assert image.shape == (*shape, 1) if len(shape) == 2 else shape
        assert image.dtype == (dtype if dtype in ("uint8", "uint16") else "uint8" if dtype == "bool" else "float32")
        np.testing.assert_array_equal(image.reshape(shape), array.astype(image.dtype))


def test_the_first_of_three_long_axes_is_what_the_settings_say() -> None:
    array = RNG.integers(0, 200, (5, 20, 30)).astype(np.uint8)
    channels, notes = decode_image_with_notes(npy(array), "x", DataParams(pages="channels"))
    np.testing.assert_array_equal(channels, np.moveaxis(array, 0, -1))
    assert notes == ["the first of three axes read as 5 channels"]
    volume = decode_image(npy(array), "x", DataParams(pages="volume"))
    np.testing.assert_array_equal(volume[..., 0], array)
    with pytest.raises(DataError, match="the first axis may be channels or slices"):
        decode_image(npy(array), "x", LIMITS)


def test_an_archive_with_image_and_mask_gives_both() -> None:
    image, mask = RNG.random((9, 8, 3)).astype(np.float32), RNG.integers(0, 3, (9, 8))
    np.testing.assert_array_equal(decode_image(npz(image=image, mask=mask), "x", LIMITS), image)
    np.testing.assert_array_equal(decode_mask(npz(image=image, mask=mask), "x", LIMITS), mask)
    with pytest.raises(DataError, match=r"no single array is the image \(found a, b"):
        decode_image(npz(a=image, b=image), "x", LIMITS)


def bomb() -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (60000, 60000)})
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("image.npy", header.getvalue() + bytes(1 << 20))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (npy(np.zeros((9, 9)))[:-3], "cut short"),
        (npy(np.array([{}], object)), "unsupported type of values"),
        (npy(np.zeros((3, 3), np.complex64)), "unsupported type of values"),
        (npy(np.zeros(7)), "the axes do not form an image"),
        (npy(np.zeros((0, 7))), "no pixels"),
        (npy(np.full((3, 3), np.nan)), "not finite"),
        (b"\x93NUMPYxx", "cannot be decoded"),
        (b"PK\x03\x04rest", "cannot be decoded"),
        (bomb(), "too many pixels"),
    ],
)
def test_damaged_and_foreign_arrays_are_data_errors(content: bytes, words: str) -> None:
    with pytest.raises(DataError, match=words):
        decode_image(content, "x", LIMITS)


def test_gif_as_image_and_as_mask() -> None:
    colours = RNG.integers(0, 256, (6, 3)).astype(np.uint8)
    indices = RNG.integers(0, 6, (20, 30)).astype(np.uint8)
    image = Image.fromarray(indices, "P")
    image.putpalette(colours.tobytes())
    stream = io.BytesIO()
    image.save(stream, "GIF", optimize=False)
    np.testing.assert_array_equal(decode_image(stream.getvalue(), "x", LIMITS), colours[indices])
    np.testing.assert_array_equal(decode_mask(stream.getvalue(), "x", LIMITS), indices)
    animation = io.BytesIO()
    image.save(animation, "GIF", save_all=True, append_images=[Image.fromarray(255 - indices)])
    with pytest.raises(DataError, match="holds several pages"):
        decode_image(animation.getvalue(), "x", LIMITS)


@pytest.mark.parametrize(
    ("axes", "shape"), [("CYX", (4, 9, 8)), ("ZYX", (4, 9, 8)), ("ZCYX", (3, 2, 9, 8)), ("CZYX", (2, 3, 9, 8))]
)
def test_ome_tiff_states_its_axes(axes: str, shape: tuple[int, ...]) -> None:
    array = RNG.integers(0, 60000, shape).astype(np.uint16)
    names = [f"marker {k}" for k in range(shape[axes.index("C")])] if "C" in axes else None
    stream = io.BytesIO()
    metadata = {"axes": axes} | ({"Channel": {"Name": names}} if names else {})
    tifffile.imwrite(stream, array, ome=True, photometric="minisblack", metadata=metadata)
    content = stream.getvalue()
    image = decode_image(content, "x", LIMITS)
    channels_last = {"CYX": (1, 2, 0), "ZYX": (0, 1, 2), "ZCYX": (0, 2, 3, 1), "CZYX": (1, 2, 3, 0)}[axes]
    expected = array.transpose(channels_last)
    np.testing.assert_array_equal(image, expected[..., None] if axes == "ZYX" else expected)
    assert channel_names(content, "x") == (names or [])


def test_an_ome_tiff_over_time_is_refused() -> None:
    stream = io.BytesIO()
    array = np.zeros((3, 9, 8), np.uint8)
    tifffile.imwrite(stream, array, ome=True, photometric="minisblack", metadata={"axes": "TYX"})
    with pytest.raises(DataError, match="holds several pages"):
        decode_image(stream.getvalue(), "x", LIMITS)


def test_imagej_channels_and_slices() -> None:
    array = RNG.integers(0, 255, (3, 2, 9, 8)).astype(np.uint8)
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, imagej=True, metadata={"axes": "ZCYX"})
    content = stream.getvalue()
    if len(tifffile.TiffFile(io.BytesIO(content)).pages) == 6:
        np.testing.assert_array_equal(decode_image(content, "x", LIMITS), array.transpose(0, 2, 3, 1))


def test_case_gif_masks(shared_cases: Path) -> None:
    folder = shared_cases / "X11_carvana_gif/train_masks"
    for path in sorted(folder.iterdir()):
        np.testing.assert_array_equal(read_mask(path, LIMITS), np.asarray(Image.open(path)))


def test_case_arrays_among_images(shared_cases: Path) -> None:
    folder = shared_cases / "W13_unread_kinds_lost_npy/images"
    for path in sorted(folder.glob("*.npy")):
        np.testing.assert_array_equal(decode_image(path.read_bytes(), path.name, LIMITS), np.atleast_3d(np.load(path)))


def geotiff(array: np.ndarray, nodata: str) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, photometric="minisblack", extratags=[(42113, "s", 0, nodata, True)])
    return stream.getvalue()


@pytest.mark.parametrize(("dtype", "nodata"), [("float32", "-9999"), ("uint16", "0"), ("float32", "nan")])
def test_pixels_without_data_count_neither_in_statistics_nor_in_labels(dtype: str, nodata: str, tmp_path: Path) -> None:
    valid = RNG.integers(100, 900, (30, 40)).astype(dtype)
    missing = np.zeros((30, 40), bool)
    missing[:, :12] = True
    (tmp_path / "x.tif").write_bytes(geotiff(np.where(missing, np.dtype(dtype).type(float(nodata)), valid), nodata))
    labels = RNG.integers(0, 2, (30, 40)).astype(np.uint8)
    Image.fromarray(labels).save(tmp_path / "m.png")
    item = Item("x", tmp_path / "x.tif", tmp_path / "m.png")
    table = ClassTable.from_names(["a", "b"])
    row = describe_item(item, tmp_path, table, LIMITS)
    assert row["error"] is None
    kept = valid[~missing].astype(np.float64)
    assert (row["minimum"], row["maximum"]) == ([kept.min()], [kept.max()])
    np.testing.assert_allclose([row["mean"][0], row["std"][0]], [kept.mean(), kept.std()], rtol=1e-6)
    counts = np.bincount(labels[~missing], minlength=2).tolist()
    assert (row["class_pixels"], row["ignored_pixels"]) == (counts, int(missing.sum()))
    assert row["unknown_values"] == "{}"
    assert row["notes"] == [f"30.0% of the pixels have no data ({float(nodata):g})"]
    sample = load_sample(item, table, LIMITS)
    assert sample.labels is not None
    np.testing.assert_array_equal(sample.labels, np.where(missing, IGNORE, labels))
    np.testing.assert_array_equal(sample.image[..., 0][~missing], valid[~missing])
    assert sample.image[..., 0][missing] == pytest.approx(kept.mean(), abs=1)


def test_case_geotiff_without_data(shared_cases: Path) -> None:
    for path in sorted((shared_cases / "W20_geotiff_nodata/images").iterdir()):
        stored = tifffile.imread(path)
        image, notes = decode_image_with_notes(path.read_bytes(), path.name, LIMITS)
        if (stored == -9999).any():
            assert image.min() > -9999 and any("have no data (-9999)" in note for note in notes)


@pytest.mark.parametrize(
    ("header", "dtype", "channels"),
    [
        (b"P6\n7 5\n255\n", "u1", 3),
        (b"P5\n7 5\n255\n", "u1", 1),
        (b"P5 7 5 3 ", "u1", 1),
        (b"P5\n# a comment\n7 5\n65535\n", ">u2", 1),
        (b"P6\n7 5\n65535\n", ">u2", 3),
    ],
)
def test_ppm_and_pgm(header: bytes, dtype: str, channels: int) -> None:
    """Values are those of the file, in 8 and 16 bits, and not scaled by the largest value of the header."""
    high = 4 if b" 3 " in header else 256 if dtype == "u1" else 65536
    array = np.random.default_rng(0).integers(0, high, (5, 7, channels)).astype(dtype)
    content = header + array.tobytes()
    decoded = decode_image(content, "x.ppm", 10) if channels == 3 else decode_mask(content, "x.pgm", 10)[..., None]
    np.testing.assert_array_equal(decoded, array)
    with pytest.raises(DataError, match=r"x\.ppm: cannot be decoded"):
        decode_image(content[:-3], "x.ppm", 10)

"""NRRD, MetaImage, HDF5, JPEG 2000 and JPEG XL. The oracles are the arrays that other libraries wrote, and nibabel for positions."""

from __future__ import annotations

import io
import sys
import zlib
from pathlib import Path

import h5py
import imagecodecs
import nibabel
import nrrd
import numpy as np
import pytest

from segpipe.config import DataParams
from segpipe.data.images import decode_geometry, decode_image, decode_image_with_notes, decode_mask, encode_nifti
from segpipe.errors import DataError, MissingError
from tests.data.images.test_geometry import VOXELS, in_order

LIMITS = DataParams()
RNG = np.random.default_rng(4)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def nrrd_bytes(path: Path, array: np.ndarray, **header: object) -> bytes:
    nrrd.write(str(path), array, header, compression_level=6)
    return path.read_bytes()


def metaimage(array: np.ndarray, affine_lps: np.ndarray, compressed: bool = False, **changes: str) -> bytes:
    """Write (i, j, k) voxels as ITK does: the rows of TransformMatrix are the directions of the axes."""
    spacing = np.linalg.norm(affine_lps[:3, :3], axis=0)
    names = {"uint8": "MET_UCHAR", "int16": "MET_SHORT", "float32": "MET_FLOAT"}
    data = array.tobytes("F")
    data = zlib.compress(data) if compressed else data
    fields = {
        "ObjectType": "Image",
        "NDims": str(array.ndim),
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": str(compressed),
        "TransformMatrix": " ".join(f"{v:.9g}" for v in (affine_lps[:3, :3] / spacing).T.ravel()),
        "Offset": " ".join(f"{v:.9g}" for v in affine_lps[:3, 3]),
        "ElementSpacing": " ".join(f"{v:.9g}" for v in spacing),
        "DimSize": " ".join(map(str, array.shape)),
        "ElementType": names[array.dtype.name],
        "ElementDataFile": "LOCAL",
    } | changes
    return "".join(f"{name} = {value}\n" for name, value in fields.items()).encode() + data


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SRA", "PIR"])
@pytest.mark.parametrize("kind", ["nrrd", "mha", "mha compressed"])
def test_volumes_agree_with_nifti_in_values_and_position(codes: str, kind: str, tmp_path: Path) -> None:
    file = in_order(VOXELS, codes)
    stored, affine_lps = np.asarray(file.dataobj), LPS @ file.affine
    if kind == "nrrd":
        directions = affine_lps[:3, :3].T
        position = {
            "space": "left-posterior-superior",
            "space directions": directions,
            "space origin": affine_lps[:3, 3],
        }
        content = nrrd_bytes(tmp_path / "x.nrrd", stored, kinds=["domain"] * 3, **position)
    else:
        content = metaimage(stored, affine_lps, compressed="compressed" in kind)
    image, notes = decode_image_with_notes(content, "x", LIMITS)
    np.testing.assert_array_equal(image[..., 0], VOXELS.transpose(2, 1, 0))
    assert notes == ([] if codes == "RAS" else [f"turned from {codes} to RAS"])
    geometry, expected = decode_geometry(content, "x"), decode_geometry(file.to_bytes(), "x")
    assert geometry is not None and expected is not None
    assert (geometry.orientation, geometry.spacing) == (codes, expected.spacing)
    np.testing.assert_allclose(geometry.affine, expected.affine, atol=1e-6)
    answer = nibabel.Nifti1Image.from_bytes(zlib.decompress(encode_nifti(image[..., 0], geometry), zlib.MAX_WBITS | 16))
    np.testing.assert_array_equal(np.asarray(answer.dataobj), stored)
    np.testing.assert_allclose(answer.affine, file.affine, atol=1e-6)


def test_nrrd_with_channels_first(tmp_path: Path) -> None:
    array = RNG.integers(0, 255, (3, 8, 9)).astype(np.uint8)  # channels, width, height
    content = nrrd_bytes(tmp_path / "x.nrrd", array, kinds=["vector", "domain", "domain"])
    np.testing.assert_array_equal(decode_image(content, "x", LIMITS), array.transpose(2, 1, 0))


def hdf5(**datasets: np.ndarray) -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for name, array in datasets.items():
            file.create_dataset(name.replace("__", "/"), data=array, compression="gzip" if array.ndim else None)
    return stream.getvalue()


def test_hdf5_datasets_by_name() -> None:
    image, mask = RNG.random((20, 30, 4)).astype(np.float32), RNG.integers(0, 3, (20, 30)).astype(np.uint8)
    np.testing.assert_array_equal(decode_image(hdf5(anything=image), "x", LIMITS), image)
    both = hdf5(scan__image=image, scan__label=mask, spacing=np.array([1.0, 2.0]))
    np.testing.assert_array_equal(decode_image(both, "x", LIMITS), image)
    np.testing.assert_array_equal(decode_mask(both, "x", LIMITS), mask)
    with pytest.raises(
        DataError, match=r"no single dataset is the image \(found a, b, expected one dataset, or one called image"
    ):
        decode_image(hdf5(a=image, b=image), "x", LIMITS)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(16, 24), (33, 50), (64, 64)])
def test_jpeg_2000_and_jpeg_xl_without_loss(dtype: str, channels: int, size: tuple[int, int]) -> None:
    array = RNG.integers(0, np.iinfo(dtype).max, (*size, channels)).astype(dtype)
    plain = array[..., 0] if channels == 1 else array
    for content in (
        imagecodecs.jpeg2k_encode(plain, reversible=True, level=0),
        imagecodecs.jpegxl_encode(plain, lossless=True),
    ):
        np.testing.assert_array_equal(decode_image(content, "x", LIMITS), array)


def test_alpha_of_jpeg_xl_is_dropped_with_a_note() -> None:
    array = RNG.integers(0, 255, (20, 30, 4)).astype(np.uint8)
    image, notes = decode_image_with_notes(imagecodecs.jpegxl_encode(array, lossless=True), "x", LIMITS)
    np.testing.assert_array_equal(image, array[..., :3])
    assert notes == ["alpha channel dropped"]


LARGE = np.zeros((1500, 1500), np.uint8)
SMALL = DataParams(max_megapixels=2)


def test_sizes_are_checked_before_decoding(tmp_path: Path) -> None:
    volume = np.zeros((150, 150, 150), np.int16)
    for content, words in (
        (imagecodecs.jpeg2k_encode(LARGE, level=0), "too many pixels"),
        (imagecodecs.jpegxl_encode(LARGE, lossless=True), "too many pixels"),
        (hdf5(image=LARGE), "too many pixels"),
        (metaimage(volume, np.eye(4), compressed=True), "too many voxels"),
        (nrrd_bytes(tmp_path / "x.nrrd", volume), "too many voxels"),
    ):
        with pytest.raises(DataError, match=words):
            decode_image(content, "x", SMALL)


def test_damaged_files_are_data_errors(tmp_path: Path) -> None:
    plain = np.ascontiguousarray(LARGE[:40, :50])
    contents = [
        imagecodecs.jpeg2k_encode(plain, level=0),
        imagecodecs.jpegxl_encode(plain, lossless=True),
        hdf5(image=plain),
        metaimage(VOXELS, np.eye(4)),
        metaimage(VOXELS, np.eye(4), compressed=True),
        nrrd_bytes(tmp_path / "x.nrrd", VOXELS),
    ]
    rng = np.random.default_rng(0)
    for content in contents:
        for trial in range(40):
            damaged = bytearray(content[: rng.integers(1, len(content))] if trial % 2 else content)
            for _ in range(3):
                damaged[rng.integers(0, len(damaged))] = rng.integers(0, 256)
            try:
                decode_image(bytes(damaged), "x", SMALL)
            except DataError as error:
                assert str(error).startswith("x: ")


@pytest.mark.parametrize(
    "content",
    [
        metaimage(VOXELS, np.eye(4), ElementDataFile="x.raw"),
        b"NRRD0004\ntype: short\ndimension: 3\nsizes: 5 4 3\nencoding: raw\nendian: little\ndata file: x.raw\n\n",
    ],
)
def test_data_in_another_file_are_refused(content: bytes) -> None:
    with pytest.raises(DataError, match="keeps its data in another file"):
        decode_image(content, "x", LIMITS)


def test_an_absent_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    content = hdf5(image=LARGE[:9, :9])
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingError, match=r'no module h5py\)\. Fix: pip install "segpipe\[hdf5\]"'):
        decode_image(content, "x", LIMITS)

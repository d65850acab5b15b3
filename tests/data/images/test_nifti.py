"""NIfTI files compared with nibabel, and errors for damaged files."""

from __future__ import annotations

import gzip
import io
import struct
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nibabel.affines import apply_affine

from segpipe.config import DataParams
from segpipe.data.images import (
    Geometry,
    decode_geometry,
    decode_image,
    decode_image_with_notes,
    decode_mask,
    encode_nifti,
    read_image,
    read_mask,
)
from segpipe.data.images.nifti import nifti_geometry
from segpipe.errors import DataError
from tests.worlds.property_tests import examples

RNG = np.random.default_rng(11)
LIMITS = DataParams()


def nifti(
    array: np.ndarray, affine: np.ndarray | None = None, image_class: type = nibabel.Nifti1Image, **header: object
) -> bytes:
    image = image_class(array, np.eye(4) if affine is None else affine, dtype=array.dtype)
    for name, value in header.items():
        image.header[name] = value
    return image.to_bytes()


def numbers(dtype: str, *shape: int) -> np.ndarray:
    return (RNG.random(shape) * 200).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "int32", "uint32", "float32", "float64"])
@pytest.mark.parametrize("shape", [(5, 6, 7), (5, 6, 1), (5, 6), (5, 6, 7, 3), (5, 6, 7, 1), (5, 6, 7, 1, 2)])
@pytest.mark.parametrize("zipped", [False, True])
def test_voxels_agree_with_nibabel(dtype: str, shape: tuple[int, ...], zipped: bool) -> None:
    content = nifti(numbers(dtype, *shape))
    expected = nibabel.Nifti1Image.from_bytes(content).get_fdata().reshape(*(*shape, 1)[:3], -1)
    image = decode_image(gzip.compress(content) if zipped else content, "x", LIMITS)
    assert image.dtype == (dtype if dtype in ("uint8", "uint16") else "float32")
    np.testing.assert_array_equal(image, expected.transpose(2, 1, 0, 3).astype(image.dtype))
    assert image.flags.c_contiguous


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("order", ["<", ">"])
def test_both_versions_and_byte_orders(kind: type, order: str) -> None:
    array = numbers("int16", 4, 5, 6)
    image = kind(array, np.diag([2, 3, 4, 1]))
    image = kind(array, np.diag([2, 3, 4, 1]), image.header.as_byteswapped(order))
    content = image.to_bytes()
    np.testing.assert_array_equal(decode_image(content, "x", LIMITS)[..., 0], array.T)
    geometry = decode_geometry(content, "x")
    assert geometry is not None
    assert geometry.spacing == (4, 3, 2)


def test_the_scale_of_the_header_is_applied_and_noted() -> None:
    array = numbers("int16", 4, 5, 6)
    image = nibabel.Nifti1Image(array, np.eye(4))
    image.header.set_slope_inter(0.5, -1024)
    content = bytearray(image.to_bytes())
    content[352:] = array.tobytes("F")  # scanners store raw values with a scale
    struct.pack_into("<ff", content, 112, 0.5, -1024)
    image, notes = decode_image_with_notes(bytes(content), "x", LIMITS)
    np.testing.assert_array_equal(image[..., 0], nibabel.Nifti1Image.from_bytes(bytes(content)).get_fdata().T)
    assert notes == ["values scaled as the header says: 0.5 x value + -1024"]


@examples(40)
@given(
    flips=st.permutations(range(3)),
    signs=st.tuples(*[st.sampled_from([-1, 1])] * 3),
    zooms=st.tuples(*[st.floats(0.25, 8).map(lambda v: round(v, 2))] * 3),
    dtype=st.sampled_from(["uint8", "uint16", "float32"]),
    channels=st.sampled_from([None, 1, 3]),
)
def test_geometry_agrees_with_nibabel_and_is_read_back_unchanged(
    flips: list[int], signs: tuple, zooms: tuple, dtype: str, channels: int | None
) -> None:
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, flips] * signs * zooms
    affine[:3, 3] = (-90.5, 126, -72)
    array = numbers(dtype, 3, 4, 5)
    content = nifti(array, affine)
    expected = nibabel.Nifti1Image.from_bytes(content)
    geometry = decode_geometry(content, "x")
    assert geometry is not None
    assert geometry.spacing == tuple(reversed(zooms))
    assert geometry.orientation == "".join(nibabel.aff2axcodes(expected.affine))
    np.testing.assert_array_equal(np.reshape(geometry.affine, (4, 4)), expected.affine)
    voxels = numbers(dtype, 5, 4, 3, *([] if channels is None else [channels]))
    encoded = encode_nifti(voxels, geometry)
    assert encoded == encode_nifti(voxels, geometry)
    np.testing.assert_array_equal(decode_image(encoded, "x", LIMITS).reshape(voxels.shape), voxels)
    written = decode_geometry(encoded, "x")
    assert written is not None
    assert (written.spacing, written.orientation) == (geometry.spacing, geometry.orientation)
    np.testing.assert_allclose(written.affine, geometry.affine, rtol=1e-6, atol=1e-6)


def test_lengths_in_other_units_become_millimetres() -> None:
    content = nifti(numbers("uint8", 3, 3, 3), np.diag([5, 5, 40, 1]), xyzt_units=3)
    geometry = decode_geometry(content, "x")
    assert geometry is not None
    np.testing.assert_allclose(geometry.spacing, (0.04, 0.005, 0.005))


def test_2d_images_have_no_geometry() -> None:
    assert decode_geometry(b"\x89PNG\r\n\x1a\n", "x") is None


def test_masks_may_be_floats_with_integer_values() -> None:
    labels = RNG.integers(0, 3, (4, 5, 6))
    for dtype in ("uint8", "int16", "int64", "float32", "float64"):
        mask = decode_mask(nifti(labels.astype(dtype)), "x", LIMITS)
        np.testing.assert_array_equal(mask, labels.T)
        assert mask.dtype == ("uint8" if dtype == "uint8" else "uint16")
    for invalid in (labels + 0.5, labels - 1.0, labels + 65536.0, np.where(labels > 1, np.nan, labels)):
        with pytest.raises(DataError, match="not class values"):
            decode_mask(nifti(invalid.astype(np.float32)), "labels/x.nii", LIMITS)


PLAIN = nifti(numbers("int16", 20, 20, 20))
ZIPPED = gzip.compress(PLAIN)


def patched(form: str, offset: int, *values: object) -> bytes:
    content = bytearray(PLAIN)
    struct.pack_into("<" + form, content, offset, *values)
    return bytes(content)


BROKEN = {
    "gzip of text": (gzip.compress(b"hello, not a volume"), "not a NIfTI"),
    "empty gzip": (gzip.compress(b""), "not a NIfTI"),
    "gzip cut in half": (ZIPPED[: len(ZIPPED) // 2], "cannot be decoded"),
    "gzip without its end": (ZIPPED[:-6], "cannot be decoded"),
    "gzip with a flipped checksum": (ZIPPED[:-8] + bytes([ZIPPED[-8] ^ 1]) + ZIPPED[-7:], "cannot be decoded"),
    "gzip of a cut volume": (gzip.compress(PLAIN[:-10]), "cut short"),
    "voxels missing": (PLAIN[:-10], "cut short.*bytes of voxels"),
    "header alone": (PLAIN[:348], "cut short before the voxels"),
    "half a header, zipped": (gzip.compress(PLAIN[:200]), "cut short in the header"),
    "the header of a pair": (patched("4s", 344, b"ni1\0"), "without voxel data"),
    "negative size": (patched("h", 42, -20), "do not form a volume"),
    "no axes": (patched("h", 40, 0), "do not form a volume"),
    "nine axes": (patched("h", 40, 9), "do not form a volume"),
    "two further axes": (patched("6h", 40, 5, 20, 10, 10, 2, 2), "do not form a volume"),
    "complex": (nifti(numbers("complex64", 3, 3, 3)), "unsupported type of voxels"),
    "unknown dtype": (patched("h", 70, 777), "cannot be decoded"),
    "voxels inside the header": (patched("f", 108, 10.0), "invalid position of the voxels"),
    "voxels far beyond the header": (patched("f", 108, 1e9), "invalid position of the voxels"),
    "too large": (patched("4h", 40, 3, 30000, 30000, 30000), "too many voxels"),
    "NaN": (nifti(np.full((3, 3, 3), np.nan, np.float32)), "not finite"),
    "infinity": (nifti(np.full((3, 3, 3), np.inf, np.float32)), "not finite"),
}


@pytest.mark.parametrize(("content", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_one_error_that_names_it(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        decode_image(content, "images/x.nii", LIMITS)
    assert str(caught.value).startswith("images/x.nii: ")
    assert caught.value.fix


@pytest.mark.parametrize(
    "content", [patched("f", 80, 0.0), patched("f", 84, float("nan")), patched("f", 280, float("inf"))]
)
def test_a_header_without_a_voxel_size_is_an_error(content: bytes) -> None:
    with pytest.raises(DataError, match="no voxel size"):
        decode_geometry(content, "x")


def test_members_of_a_gzip_file_are_joined_and_bytes_after_the_voxels_are_ignored() -> None:
    joined = gzip.compress(PLAIN[:1000]) + gzip.compress(PLAIN[1000:])
    np.testing.assert_array_equal(decode_image(joined, "x", LIMITS), decode_image(PLAIN, "x", LIMITS))
    np.testing.assert_array_equal(decode_image(PLAIN + bytes(50), "x", LIMITS), decode_image(PLAIN, "x", LIMITS))


def test_a_limit_for_2d_images_refuses_volumes() -> None:
    with pytest.raises(DataError, match="is a volume"):
        decode_image(ZIPPED, "upload", 40.0)


_PEAK = """
import sys
from pathlib import Path
import nibabel.nifti1, nibabel.nifti2
from segpipe.config import DataParams
from segpipe.data.images import decode_geometry, decode_image
from segpipe.errors import DataError

def peak():  # kB; the resource module would count the parent process, too
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])

before = peak()
content = Path(sys.argv[1]).read_bytes()
decode_geometry(content, "x")
try:
    print(decode_image(content, "x", DataParams(max_megapixels=10)).shape)
except DataError as error:
    print(error.what)
print(peak() - before)
"""


@pytest.mark.parametrize(
    ("header", "first_line"),
    [(patched("4h", 40, 3, 3000, 3000, 300), "the image has too many voxels"), (PLAIN, "(20, 20, 20, 1)")],
    ids=["announced by the header", "after the voxels"],
)
def test_a_gzip_bomb_is_not_unpacked(header: bytes, first_line: str, tmp_path: Path) -> None:
    stream = io.BytesIO()
    with gzip.GzipFile(fileobj=stream, mode="wb", compresslevel=1) as zipped:
        zipped.write(header)
        for _ in range(300):
            zipped.write(bytes(1 << 20))
    path = tmp_path / "bomb.nii.gz"
    path.write_bytes(stream.getvalue())
    process = subprocess.run([sys.executable, "-c", _PEAK, path], capture_output=True, text=True, check=True)
    result, peak_kb = process.stdout.splitlines()
    assert result == first_line
    assert int(peak_kb) < 20 << 10


def test_hippocampus_agrees_with_nibabel(shared_data: Path) -> None:
    folder = shared_data / "hippocampus"
    for path in sorted((folder / "images").iterdir())[::4]:
        expected = nibabel.load(path)
        np.testing.assert_array_equal(read_image(path, LIMITS)[..., 0], expected.get_fdata(dtype=np.float32).T)
        label = folder / "labels" / path.name
        np.testing.assert_array_equal(read_mask(label, LIMITS), nibabel.load(label).get_fdata().T)
        for file in (path, label):
            assert decode_geometry(file.read_bytes(), file.name) == Geometry(
                (1.0, 1.0, 1.0), "RAS", tuple(expected.affine.ravel())
            )


@examples(40)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(1, 1, 1), (5, 1, 7), (4, 6, 3)]))
def test_the_offset_is_the_largest_one_of_all_voxels(seed: int, shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(seed)
    affine, other_affine = (np.vstack([rng.normal(size=(3, 4)), [0, 0, 0, 1]]) for _ in range(2))
    affine[:3, :3] += 3 * np.eye(3)
    voxels = np.array(list(np.ndindex(shape[::-1])))
    moved = apply_affine(np.linalg.inv(affine) @ other_affine, voxels)
    geometry, other = (Geometry((1, 1, 1), "RAS", tuple(matrix.ravel())) for matrix in (affine, other_affine))
    assert geometry.offset(other, shape) == pytest.approx(np.abs(moved - voxels).max(), rel=1e-6)


def test_the_unit_of_length_does_not_change_the_position() -> None:
    affine = np.diag([0.5, 0.5, 2, 1])
    affine[:3, 3] = (3, -4, 5)
    in_mm = nifti_geometry(nifti(np.zeros((4, 4, 4), np.uint8), affine, xyzt_units=2), "a")
    in_um = nifti_geometry(
        nifti(np.zeros((4, 4, 4), np.uint8), np.diag([1000.0, 1000, 1000, 1]) @ affine, xyzt_units=3), "b"
    )
    assert in_um.spacing == in_mm.spacing
    assert in_mm.offset(in_um, (4, 4, 4)) == pytest.approx(0, abs=1e-4)

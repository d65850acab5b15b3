"""Volumes whose header and data are two files. The oracles are nibabel, pynrrd, and the arrays that were written."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import nibabel
import nrrd
import numpy as np
import pytest

from segpipe.config import DataParams
from segpipe.data.dataset import load_dataset, load_sample
from segpipe.data.images import decode_geometry, read_image, read_image_file, read_mask
from segpipe.errors import DataError
from tests.worlds.layouts import import_source

LIMITS = DataParams()
RNG = np.random.default_rng(6)
LAS = np.array([[-0.5, 0, 0, 9], [0, 0.75, 0, -4], [0, 0, 2, 1], [0, 0, 0, 1]])


def voxels(dtype: str = "<i2") -> np.ndarray:
    return RNG.integers(0, 200, (7, 6, 5)).astype(dtype)


def meta_header(dtype: str, further: str = "") -> str:
    return (
        f"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n{further}"
        f"Offset = 1 2 3\nElementSpacing = 0.5 0.75 2\nDimSize = 7 6 5\nElementType = {dtype}\n"
    )


@pytest.mark.parametrize("dtype", ["u1", "<i2", ">i2", "<f4"])
def test_nifti_pairs(dtype: str, tmp_path: Path) -> None:
    array = voxels(dtype)
    nibabel.Nifti1Pair(array, LAS).to_filename(tmp_path / "a.hdr")
    expected = nibabel.as_closest_canonical(nibabel.load(tmp_path / "a.img"))
    np.testing.assert_array_equal(read_image(tmp_path / "a.hdr", LIMITS)[..., 0], expected.get_fdata().T)
    geometry = decode_geometry(read_image_file(tmp_path / "a.hdr", LIMITS), "a")
    assert geometry is not None
    assert (geometry.orientation, geometry.spacing) == ("LAS", (2.0, 0.75, 0.5))
    np.testing.assert_allclose(np.reshape(geometry.affine, (4, 4)), expected.affine, atol=1e-5)


def test_scaled_nifti_pairs_and_compressed_data(tmp_path: Path) -> None:
    array = voxels()
    image = nibabel.Nifti1Pair(array, np.eye(4))
    image.header.set_slope_inter(2, -100)
    image.to_filename(tmp_path / "a.hdr")
    loaded = nibabel.load(tmp_path / "a.hdr").get_fdata()
    np.testing.assert_allclose(read_image(tmp_path / "a.hdr", LIMITS)[..., 0], loaded.T, rtol=1e-6)
    img = tmp_path / "a.img"
    (tmp_path / "a.img.gz").write_bytes(gzip.compress(img.read_bytes() + bytes(1 << 20)))
    img.unlink()
    np.testing.assert_allclose(read_image(tmp_path / "a.hdr", LIMITS)[..., 0], loaded.T, rtol=1e-6)


@pytest.mark.parametrize("kind", [nibabel.AnalyzeImage, nibabel.Spm99AnalyzeImage, nibabel.Spm2AnalyzeImage])
@pytest.mark.parametrize("dtype", ["u1", "<i2", ">f4"])
def test_analyze_pairs_state_no_orientation(kind: type, dtype: str, tmp_path: Path) -> None:
    array = voxels(dtype)
    header = kind.header_class(endianness=">" if dtype[0] == ">" else "<")
    header.set_data_dtype(dtype)
    kind(array, np.diag([0.5, 0.75, 2, 1]), header).to_filename(tmp_path / "a.img")
    np.testing.assert_array_equal(read_image(tmp_path / "a.hdr", LIMITS)[..., 0], array.T)
    geometry = decode_geometry(read_image_file(tmp_path / "a.hdr", LIMITS), "a")
    assert geometry is not None
    assert (geometry.orientation, geometry.spacing) == (None, (2.0, 0.75, 0.5))


@pytest.mark.parametrize("skip", [0, 5])
@pytest.mark.parametrize("compressed", [False, True])
def test_metaimage_with_its_data_beside_it(skip: int, compressed: bool, tmp_path: Path) -> None:
    array = voxels()
    data = array.T.tobytes()
    further = f"CompressedData = {compressed}\nHeaderSize = {skip}\n"
    header = meta_header("MET_SHORT", further) + "ElementDataFile = a b.raw\r\n"
    (tmp_path / "a b.raw").write_bytes(bytes(skip) + (zlib.compress(data) if compressed else data))
    (tmp_path / "x.mhd").write_text(header, newline="")
    image = read_image(tmp_path / "x.mhd", LIMITS)
    np.testing.assert_array_equal(image[..., 0], array.T[:, ::-1, ::-1])  # LPS is turned to RAS


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_nrrd_with_its_data_beside_it(encoding: str, tmp_path: Path) -> None:
    array = voxels()
    header = {"space": "right-anterior-superior", "space directions": np.diag([0.5, 0.75, 2]), "encoding": encoding}
    nrrd.write(str(tmp_path / "x.nhdr"), array, header, detached_header=True)
    assert len(list(tmp_path.iterdir())) == 2
    np.testing.assert_array_equal(read_image(tmp_path / "x.nhdr", LIMITS)[..., 0], array.T)


def test_faults_are_one_line_with_a_fix(tmp_path: Path) -> None:
    secret = tmp_path / "secret.raw"
    secret.write_bytes(bytes(1000))
    folder = tmp_path / "src"
    folder.mkdir()
    header = meta_header("MET_UCHAR")
    cases = {
        "alone.hdr": (
            bytes(nibabel.Nifti1Pair(voxels(), LAS).header.binaryblock),
            "header without voxel data.*alone.img",
        ),
        "envi.hdr": (b"ENVI\nsamples = 10\n", "is not the header of a volume.*convert the volume to .nii.gz"),
        "short.hdr": ((348).to_bytes(4, "little") + bytes(20), "is not the header of a volume"),
        "zero.hdr": ((348).to_bytes(4, "little") + bytes(344), "alone|header without voxel data|cannot be decoded"),
        "lost.mhd": (f"{header}ElementDataFile = lost.raw\n".encode(), "data file is missing .*found lost.raw"),
        "list.mhd": (f"{header}ElementDataFile = LIST\na.raw\n".encode(), "keeps its data in several files"),
        "pattern.mhd": (f"{header}ElementDataFile = a%03d.raw 1 5 1\n".encode(), "keeps its data in several files"),
        "out.mhd": (f"{header}ElementDataFile = ../secret.raw\n".encode(), "names a file outside its folder"),
        "absolute.mhd": (f"{header}ElementDataFile = {secret}\n".encode(), "names a file outside its folder"),
        "cut.mhd": (header.encode(), "cut short in the header"),
        "out.nhdr": (
            b"NRRD0004\ntype: uchar\ndimension: 1\nsizes: 9\ndata file: ../secret.raw\n",
            "outside its folder",
        ),
    }
    for name, (content, words) in cases.items():
        (folder / name).write_bytes(content)
        with pytest.raises(DataError, match=words) as error:
            read_image(folder / name, LIMITS)
        assert "\n" not in str(error.value) and "Fix: " in str(error.value)
    (folder / "big.hdr").write_bytes(bytes(nibabel.Nifti1Pair(np.zeros((90, 90, 90), "u1"), LAS).header.binaryblock))
    (folder / "big.img.gz").write_bytes(gzip.compress(bytes(90**3)))
    with pytest.raises(DataError, match="invalid position or size of the voxels"):
        read_image(folder / "big.hdr", LIMITS.model_copy(update={"max_file_mb": 0.1}))


@pytest.mark.parametrize("kind", ["nifti", "metaimage", "promise12"])
def test_pairs_of_files_are_imported_as_one_file(kind: str, tmp_path: Path) -> None:
    truth = {}
    for number in range(3):
        image, labels = voxels("u1"), RNG.integers(0, 3, (7, 6, 5)).astype("u1")
        truth[f"c{number}"] = (image, labels)
        for role, array in (("images", image), ("labels", labels)):
            end = "_segmentation" if role == "labels" else ""
            folder, stem = (
                (tmp_path / "src", f"c{number}{end}")
                if kind == "promise12"
                else (tmp_path / "src" / role, f"c{number}")
            )
            folder.mkdir(parents=True, exist_ok=True)
            if kind == "nifti":
                nibabel.Nifti1Pair(array, np.eye(4)).to_filename(folder / f"{stem}.img")
            else:
                header = meta_header("MET_UCHAR", "TransformMatrix = -1 0 0 0 -1 0 0 0 1\n")
                (folder / f"{stem}.mhd").write_text(f"{header}ElementDataFile = {stem}.raw\n")
                (folder / f"{stem}.raw").write_bytes(array.T.tobytes())
    report = import_source(tmp_path / "src", tmp_path / "data")
    assert (report.format, report.images, report.masks) == ("cases" if kind == "promise12" else "volumes", 3, 3)
    assert (report.skipped, report.unused) == ([], [])
    dataset = load_dataset(tmp_path / "data")
    assert {item.image.suffix for item in dataset.items} == {".nii" if kind == "nifti" else ".mha"}
    for item in dataset.items:
        sample = load_sample(item, dataset.classes, LIMITS)
        assert sample.labels is not None and item.mask is not None
        image, labels = truth[item.key]
        np.testing.assert_array_equal(sample.image[..., 0], image.T)
        np.testing.assert_array_equal(sample.labels, labels.T)
        np.testing.assert_array_equal(read_mask(item.mask, LIMITS), labels.T)

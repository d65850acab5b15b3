"""DICOM slices and series. The oracle is the volume and the affine that the series was written from."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from segpipe.config import DataParams
from segpipe.data.images import decode_image
from segpipe.data.images.formats.dicom import dicom_files, series_volume
from segpipe.errors import DataError

LIMITS = DataParams()
RNG = np.random.default_rng(8)
SERIES = generate_uid(entropy_srcs=["series"])


def slice_bytes(
    plane: np.ndarray,
    position: tuple[float, ...] = (0, 0, 0),
    orientation: tuple[float, ...] = (1, 0, 0, 0, 1, 0),
    intercept: float = -1024,
    series: str = SERIES,
) -> bytes:
    """Write a CT slice (rows, columns) of uint16, with pixels of 0.7 mm between rows and 0.5 mm between columns."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.SeriesInstanceUID, dataset.Modality = series, "CT"
    dataset.Rows, dataset.Columns = plane.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    dataset.PixelSpacing = [0.7, 0.5]
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = list(position), list(orientation)
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, intercept
    dataset.PixelData = plane.astype("<u2").tobytes()
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()


def test_a_slice_has_the_units_of_its_header() -> None:
    plane = RNG.integers(0, 4000, (20, 30))
    np.testing.assert_array_equal(decode_image(slice_bytes(plane), "x", LIMITS)[..., 0], plane - 1024.0)
    np.testing.assert_array_equal(decode_image(slice_bytes(plane, intercept=0), "x", LIMITS)[..., 0], plane)
    with pytest.raises(DataError, match="too many pixels"):
        decode_image(slice_bytes(np.zeros((1500, 1500))), "x", 1.0)


@pytest.mark.parametrize(
    ("orientation", "step", "codes"),
    [((1, 0, 0, 0, 1, 0), (0, 0, 2.5), "LPS"), ((0, 1, 0, 0, 0, -1), (-2.5, 0, 0), "PIR")],
)
def test_a_series_is_a_volume_in_its_place(
    orientation: tuple[float, ...], step: tuple[float, ...], codes: str, tmp_path: Path
) -> None:
    volume = RNG.integers(0, 4000, (6, 20, 30))  # slices, rows, columns
    origin = np.array([-10.0, 20.0, 5.0])
    for number in RNG.permutation(6):  # names in another order than positions, and without an ending
        position = tuple(origin + number * np.array(step))
        (tmp_path / f"{RNG.integers(1 << 30)}").write_bytes(slice_bytes(volume[number], position, orientation))
    (tmp_path / "notes.txt").write_text("not DICOM")
    files = dicom_files(tmp_path)
    assert len(files) == 6
    image = nibabel.Nifti1Image.from_bytes(gzip.decompress(series_volume(files, LIMITS)))
    np.testing.assert_array_equal(np.asarray(image.dataobj), volume.transpose(2, 1, 0) - 1024.0)
    affine = np.eye(4)
    affine[:3, 0] = np.array(orientation[:3]) * 0.5
    affine[:3, 1] = np.array(orientation[3:]) * 0.7
    affine[:3, 2], affine[:3, 3] = step, origin
    np.testing.assert_allclose(image.affine, np.diag([-1, -1, 1, 1]) @ affine, atol=1e-5)
    assert "".join(nibabel.aff2axcodes(image.affine)) == codes


def test_incomplete_and_mixed_series_are_refused(tmp_path: Path) -> None:
    for number in (0, 1, 3, 4):
        (tmp_path / f"{number}.dcm").write_bytes(slice_bytes(np.zeros((9, 9)), (0, 0, 2.0 * number)))
    with pytest.raises(
        DataError,
        match=r"slices are missing, or not at equal distances .*from 2 to 4 mm, the most unequal between 1.dcm and 3.dcm, expected 2 mm",
    ):
        series_volume(dicom_files(tmp_path), LIMITS)
    (tmp_path / "3.dcm").write_bytes(slice_bytes(np.zeros((9, 9)), (0, 0, 4), series="1.2.3"))
    with pytest.raises(DataError, match="not one series"):
        series_volume(dicom_files(tmp_path), LIMITS)


def test_damaged_slices_are_data_errors() -> None:
    content = slice_bytes(RNG.integers(0, 4000, (20, 30)))
    rng = np.random.default_rng(0)
    for trial in range(60):
        damaged = bytearray(content[: rng.integers(140, len(content))] if trial % 2 else content)
        damaged[rng.integers(132, len(damaged))] ^= 0x55
        try:
            decode_image(bytes(damaged), "x", LIMITS)
        except DataError as error:
            assert str(error).startswith("x: ")

"""DICOM images, and series of slices as volumes; needs the package pydicom (`segpipe[dicom]`)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segpipe.config import DataParams
from segpipe.data.images.bounds import Bounds, decoder_errors_as_data_errors, max_bytes
from segpipe.data.images.formats.requirement import require
from segpipe.data.images.formats.volume_array import LPS_TO_RAS, affine_of, geometry_of
from segpipe.errors import DataError
from segpipe.files import read_bytes

_PREAMBLE = 128
_GAP_TOLERANCE = 0.01
"""The largest difference, as a share of the distance of slices, between two distances."""


def is_dicom(content: bytes) -> bool:
    """Return whether the bytes begin like a DICOM file."""
    return content[_PREAMBLE : _PREAMBLE + 4] == b"DICM"


def decode_dicom(content: bytes, where: str, bounds: Bounds) -> tuple[np.ndarray, list[str]]:
    """Decode one DICOM image.

    Args:
        content: the bytes of the file.
        where: the name of the file in errors.
        bounds: the limits for the file.

    Returns:
        (H, W, C): the stored values, or float32 if the header scales them (Hounsfield units, for example). And the conversions.

    Raises:
        DataError: if the file is too large or damaged, has no pixels, or has several frames.
        MissingError: if pydicom is not installed.
    """
    pydicom = require("pydicom", "dicom", where)
    with decoder_errors_as_data_errors(where):
        dataset = pydicom.dcmread(io.BytesIO(content))
        return _pixels(dataset, where, bounds)


def series_volume(paths: Sequence[Path], limits: DataParams) -> bytes:
    """Read the slices of a series as one volume.

    Args:
        paths: the files of the slices, in any order.
        limits: how large files and the volume may be.

    Returns:
        The bytes of a gzipped NIfTI file, in the order of rows, columns and slices of the series.

    Raises:
        DataError: if the files are not one complete series of parallel slices at equal distances.
        MissingError: if pydicom is not installed.
    """
    from segpipe.data.images.nifti import encode_nifti

    where = str(paths[0].parent)
    pydicom = require("pydicom", "dicom", where)
    slices: list[tuple[np.ndarray, Any]] = []
    bounds = Bounds.from_limits(limits)
    for path in paths:
        with decoder_errors_as_data_errors(str(path)):
            dataset = pydicom.dcmread(io.BytesIO(read_bytes(path, max_bytes(limits))))
            array, _ = _pixels(dataset, str(path), bounds)
            bounds.check(where, array.shape[0], array.shape[1], array.shape[2], len(paths))
            slices.append((array[..., 0], dataset))
    with decoder_errors_as_data_errors(where):
        series = {str(dataset.SeriesInstanceUID) for _, dataset in slices}
        if len(series) > 1 or len({array.shape for array, _ in slices}) > 1:
            raise DataError(
                "the files are not one series", where=where, found=f"{len(series)} series", expected="one series in a folder",
                fix="put each series into a folder of its own",
            )  # fmt: skip
        volume, affine = _stack(slices, where)
        geometry = geometry_of(LPS_TO_RAS @ affine, (volume.shape[2], volume.shape[1], volume.shape[0]), where)
    return encode_nifti(geometry.to_canonical(volume), geometry)


def dicom_files(folder: Path) -> list[Path]:
    """List the DICOM files of a folder by their content, because many have no ending; in the order of their names."""
    files = []
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix.lower() in ("", ".dcm", ".ima", ".dicom"):
            with path.open("rb") as stream:
                if is_dicom(stream.read(_PREAMBLE + 4)):
                    files.append(path)
    return files


def _pixels(dataset: Any, where: str, bounds: Bounds) -> tuple[np.ndarray, list[str]]:
    if "PixelData" not in dataset:
        raise DataError(
            "has no pixels", where=where, found=str(dataset.get("Modality", "no modality")), fix="leave it out"
        )
    frames, channels = int(dataset.get("NumberOfFrames", 1) or 1), int(dataset.SamplesPerPixel)
    bounds.check(where, int(dataset.Rows), int(dataset.Columns), channels, frames)
    if frames > 1:
        raise DataError(
            "holds several frames", where=where, found=frames, expected="one slice per file",
            fix="convert it to NIfTI (dcm2niix)",
        )  # fmt: skip
    array = np.atleast_3d(dataset.pixel_array)
    notes = []
    if str(dataset.PhotometricInterpretation) == "MONOCHROME1":
        array = array.max() - array if "BitsStored" not in dataset else (1 << int(dataset.BitsStored)) - 1 - array
        notes.append("inverted: 0 stood for white")
    slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
    if (slope, intercept) != (1.0, 0.0):
        array = (array.astype(np.float64) * slope + intercept).astype(np.float32)
        notes.append(f"values scaled as the header says: {slope:g} x value + {intercept:g}")
    return array, notes


def _stack(slices: list[tuple[np.ndarray, Any]], where: str) -> tuple[np.ndarray, np.ndarray]:
    """Sort slices along their normal; return the volume (D, H, W) and its affine (4, 4) to mm in LPS."""
    along_row, along_column = np.reshape([float(v) for v in slices[0][1].ImageOrientationPatient], (2, 3))
    normal = np.cross(along_row, along_column)
    positions = np.array([[float(v) for v in dataset.ImagePositionPatient] for _, dataset in slices])
    for _, dataset in slices:
        if not np.allclose([float(v) for v in dataset.ImageOrientationPatient], [*along_row, *along_column], atol=1e-4):
            raise DataError("the slices are not parallel", where=where, fix="leave out scouts and other series")
    order = np.argsort(positions @ normal, kind="stable")
    gaps = np.diff((positions @ normal)[order])
    gap = float(np.median(gaps)) if len(gaps) else float(slices[0][1].get("SliceThickness", 0) or 0)
    if gap <= 0 or (len(gaps) and np.abs(gaps - gap).max() > _GAP_TOLERANCE * gap):
        raise DataError(
            "slices are missing, or not at equal distances", where=where,
            found=f"distances from {gaps.min(initial=gap):g} to {gaps.max(initial=gap):g} mm", expected=f"{gap:g} mm",
            fix="restore the missing files",
        )  # fmt: skip
    row_spacing, column_spacing = (float(v) for v in slices[0][1].PixelSpacing)  # between rows, between columns
    step = (positions[order[-1]] - positions[order[0]]) / max(1, len(order) - 1) if len(order) > 1 else gap * normal
    affine = affine_of(np.stack([along_row * column_spacing, along_column * row_spacing, step]), positions[order[0]])
    return np.stack([slices[index][0] for index in order]), affine

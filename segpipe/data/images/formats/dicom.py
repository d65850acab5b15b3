"""DICOM images, and series of slices as volumes; needs the package pydicom (`segpipe[dicom]`)."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segpipe.config import DataParams
from segpipe.data.images.bounds import Bounds, decoder_errors_as_data_errors, max_bytes
from segpipe.data.images.formats.requirement import require
from segpipe.data.images.formats.volume_array import LPS_TO_RAS, affine_of, geometry_of
from segpipe.data.images.geometry import Geometry
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
    planes: dict[Path, np.ndarray] = {}
    headers: dict[Path, Any] = {}
    bounds = Bounds.from_limits(limits)
    for path in paths:
        with decoder_errors_as_data_errors(str(path)):
            headers[path] = pydicom.dcmread(io.BytesIO(read_bytes(path, max_bytes(limits))))
            array, _ = _pixels(headers[path], str(path), bounds)
            del headers[path].PixelData
            bounds.check(where, array.shape[0], array.shape[1], array.shape[2], len(paths))
            planes[path] = array[..., 0]
    grid = series_grid(headers, where)
    return encode_nifti(grid.geometry.to_canonical(np.stack([planes[path] for path in grid.paths])), grid.geometry)


@dataclass(frozen=True)
class SeriesGrid:
    """The voxels of a series of parallel slices.

    Attributes:
        paths: the files of the slices, in the order of their positions.
        uids: the SOP Instance UID of each slice.
        positions: (D, 3), the centre of the first pixel of each slice, in mm in LPS.
        row, column: (3,), the directions along a row and along a column.
        spacing: the distance between rows and between columns, in mm.
        gap: the distance between slices, in mm.
        shape: (D, H, W).
        geometry: the position of the volume (D, H, W).
    """

    paths: tuple[Path, ...]
    uids: tuple[str, ...]
    positions: np.ndarray
    row: np.ndarray
    column: np.ndarray
    spacing: tuple[float, float]
    gap: float
    shape: tuple[int, int, int]
    geometry: Geometry


def series_grid(headers: Mapping[Path, Any], where: str) -> SeriesGrid:
    """Sort the slices of a series along their normal.

    Args:
        headers: the data sets of pydicom by file, with or without pixels.
        where: the name of the series in errors.

    Raises:
        DataError: the files are not one series of parallel slices of one size at equal distances.
    """
    with decoder_errors_as_data_errors(where):
        return _grid(dict(headers), where)


def _grid(headers: dict[Path, Any], where: str) -> SeriesGrid:
    files, slices = list(headers), list(headers.values())
    series = {str(dataset.SeriesInstanceUID) for dataset in slices}
    if len(series) > 1 or len({(int(d.Rows), int(d.Columns)) for d in slices}) > 1:
        raise DataError(
            "the files are not one series", where=where, found=f"{len(series)} series", expected="one series in a folder",
            fix="put each series into a folder of its own",
        )  # fmt: skip
    along_row, along_column = np.reshape([float(v) for v in slices[0].ImageOrientationPatient], (2, 3))
    normal = np.cross(along_row, along_column)
    for path, dataset in headers.items():
        if not np.allclose([float(v) for v in dataset.ImageOrientationPatient], [*along_row, *along_column], atol=1e-4):
            raise DataError(
                "the slices are not parallel", where=where, found=f"{files[0].name} and {path.name}",
                fix="leave out scouts and other series",
            )  # fmt: skip
    positions = np.array([[float(v) for v in dataset.ImagePositionPatient] for dataset in slices])
    order = np.argsort(positions @ normal, kind="stable")
    files, positions = [files[index] for index in order], positions[order]
    gap = _gap(files, positions @ normal, float(slices[0].get("SliceThickness", 0) or 0), where)
    row_spacing, column_spacing = (float(v) for v in slices[0].PixelSpacing)  # between rows, between columns
    step = (positions[-1] - positions[0]) / (len(files) - 1) if len(files) > 1 else gap * normal
    affine = affine_of(np.stack([along_row * column_spacing, along_column * row_spacing, step]), positions[0])
    depth, height, width = len(files), int(slices[0].Rows), int(slices[0].Columns)
    return SeriesGrid(
        tuple(files), tuple(str(slices[index].get("SOPInstanceUID", "")) for index in order), positions, along_row,
        along_column, (row_spacing, column_spacing), gap, (depth, height, width),
        geometry_of(LPS_TO_RAS @ affine, (width, height, depth), where),
    )  # fmt: skip


def _gap(files: list[Path], heights: np.ndarray, thickness: float, where: str) -> float:
    """Return the distance between slices, given their heights along the normal in ascending order, all in mm."""
    gaps = np.diff(heights)
    gap = float(np.median(gaps)) if len(gaps) else thickness
    if len(gaps) and gaps.min() <= _GAP_TOLERANCE * max(gap, 1e-6):
        first = int(gaps.argmin())
        raise DataError(
            "two slices lie at one position", where=where, found=f"{files[first].name} and {files[first + 1].name}",
            expected="one slice at each position", fix="put each time point or phase into a folder of its own",
        )  # fmt: skip
    if gap <= 0 or (len(gaps) and np.abs(gaps - gap).max() > _GAP_TOLERANCE * gap):
        worst = int(np.abs(gaps - gap).argmax()) if len(gaps) else 0
        between = f", the most unequal between {files[worst].name} and {files[worst + 1].name}" if len(gaps) else ""
        raise DataError(
            "slices are missing, or not at equal distances", where=where,
            found=f"distances from {gaps.min(initial=gap):g} to {gaps.max(initial=gap):g} mm{between}",
            expected=f"{gap:g} mm", fix="restore the missing files",
        )  # fmt: skip
    return gap


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

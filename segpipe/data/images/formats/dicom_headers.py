"""The headers of many DICOM files, sorted into series and segmentations; needs the package pydicom."""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segpipe.data.images.bounds import decoder_errors_as_data_errors
from segpipe.data.images.formats.dicom_seg import SEG_CLASSES
from segpipe.data.images.formats.requirement import require
from segpipe.errors import DataError

_TAGS = [
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "FrameOfReferenceUID",
    "PatientID",
    "Modality",
    "ImageType",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "ReferencedSeriesSequence",
]


@dataclass
class Series:
    """The headers of one series by file.

    uid: its Series Instance UID.
    """

    uid: str
    headers: dict[Path, Any] = field(default_factory=dict)

    @property
    def paths(self) -> tuple[Path, ...]:
        """Its files, in the order of their names."""
        return tuple(self.headers)

    @property
    def folder(self) -> Path:
        """The folder of all its files."""
        return Path(os.path.commonpath([path.parent for path in self.headers]))

    @property
    def patient(self) -> str:
        """The identifier of the patient; "" without one."""
        return str(self._first.get("PatientID", "") or "")

    @property
    def number(self) -> str:
        """Its number in the study."""
        return str(self._first.get("SeriesNumber", "") or "0")

    @property
    def frame_of_reference(self) -> str:
        """The UID of its coordinate system; "" without one."""
        return str(self._first.get("FrameOfReferenceUID", "") or "")

    @property
    def _first(self) -> Any:
        return next(iter(self.headers.values()))


@dataclass
class HeaderScan:
    """The result of reading many headers.

    series: the series of slices.
    segmentations: the header of each SEG file.
    skipped: the files that are neither, each with a reason.
    """

    series: list[Series] = field(default_factory=list)
    segmentations: dict[Path, Any] = field(default_factory=dict)
    skipped: list[tuple[Path, str]] = field(default_factory=list)


def read_header(path: Path, tags: list[str] | None = None) -> Any:
    """Read the header of a DICOM file, without its pixels.

    Args:
        path: the file.
        tags: the keywords of the elements that are needed; None for all.

    Returns:
        The data set of pydicom.

    Raises:
        MissingError: pydicom is not installed.
        DataError: the file cannot be read, or is damaged.
    """
    pydicom = require("pydicom", "dicom", str(path))
    with (
        decoder_errors_as_data_errors(str(path)),
        path.open("rb") as file,
        # mapped, because a file object would allocate as many bytes as a damaged header claims
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        return pydicom.dcmread(content, stop_before_pixels=True, specific_tags=tags)


def scan_headers(paths: list[Path]) -> HeaderScan:
    """Read the headers of DICOM files, without their pixels.

    Raises:
        MissingError: pydicom is not installed.
    """
    scan = HeaderScan()
    series: dict[str, Series] = {}
    for path in paths:
        try:
            with decoder_errors_as_data_errors(str(path)):
                header = read_header(path, _TAGS)
                reason = _reason(header)
                uid = str(header.get("SeriesInstanceUID", ""))
                _check_values(header)
        except DataError as error:
            scan.skipped.append((path, error.what))
            continue
        if str(header.get("SOPClassUID", "")) in SEG_CLASSES:
            scan.segmentations[path] = header
        elif reason:
            scan.skipped.append((path, reason))
        else:
            series.setdefault(uid, Series(uid)).headers[path] = header
    scan.series = list(series.values())
    return scan


def _check_values(header: Any) -> None:
    """Decode the values of a header, which pydicom does on first use: damaged ones raise here, and not later."""
    for element in header.iterall():
        str(element.value)


def _reason(header: Any) -> str | None:
    """Return why a file is no slice of a volume; None if it is one."""
    modality = str(header.get("Modality", "") or "no modality")
    if modality in ("RTSTRUCT", "RTDOSE", "RTPLAN"):
        return f"{modality} is not read; convert contours to DICOM SEG or NIfTI (3D Slicer, dcmrtstruct2nii)"
    if "Rows" not in header:
        return f"{modality} without pixels"
    if int(header.get("NumberOfFrames", 1) or 1) > 1:
        return "a multi-frame image is not read; convert it to NIfTI (dcm2niix)"
    if "LOCALIZER" in [str(word).upper() for word in header.get("ImageType") or []]:
        return "a localizer"
    if any(name not in header for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")):
        return f"{modality} without a position in the patient"
    return None

"""Small DICOM series and segmentations, written with pydicom from arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

SEG_STORAGE = "1.2.840.10008.5.1.4.1.1.66.4"
SPACING = (0.7, 0.5)
GAP = 2.5
ORIENTATION = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def uid(*names: object) -> str:
    """Return the identifier that belongs to these names."""
    return str(generate_uid(entropy_srcs=[str(name) for name in names]))


def _dataset(sop_class: str, instance: str) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = sop_class
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = instance
    return dataset


def write_series(folder: Path, volume: np.ndarray, name: str, prefix: str = "s", **tags: Any) -> list[Path]:
    """Write a series with slices at z = 0, 2.5, 5 ... mm.

    Args:
        folder: the folder of the files.
        volume: (D, H, W), uint16.
        name: gives the identifiers of the series.
        prefix: the beginning of the names of the files; a number and .dcm follow, unless it ends with "!".
        tags: further attributes of each slice.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index, plane in enumerate(volume):
        dataset = _dataset(CTImageStorage, uid(name, index))
        dataset.SeriesInstanceUID, dataset.Modality, dataset.PatientID = uid(name), "CT", name
        dataset.FrameOfReferenceUID, dataset.SeriesNumber = uid(name, "frame"), 3
        dataset.Rows, dataset.Columns = plane.shape
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit, dataset.PixelRepresentation = 15, 0
        dataset.PixelSpacing, dataset.ImageOrientationPatient = list(SPACING), list(ORIENTATION)
        dataset.ImagePositionPatient = [-3.0, 4.0, GAP * index]
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
        for tag, value in tags.items():
            setattr(dataset, tag, value)
        dataset.PixelData = plane.astype("<u2").tobytes()
        number = len(volume) - index  # names in another order than positions
        path = folder / (f"{prefix[:-1]}{number}" if prefix.endswith("!") else f"{prefix}{number}.dcm")
        pydicom.dcmwrite(path, dataset, enforce_file_format=True)
        paths.append(path)
    return paths


def write_seg(
    path: Path,
    segments: dict[int, tuple[str, np.ndarray]],
    series: str,
    kind: str = "BINARY",
    by: tuple[str, ...] = ("uid", "position"),
    referenced: bool = True,
) -> Path:
    """Write a segmentation of a series that `write_series` wrote.

    Args:
        path: the file.
        segments: label and (D, H, W) of each segment by its number: 0 and 1, or shares for `kind` FRACTIONAL.
        series: the name of the series.
        kind: BINARY, FRACTIONAL (of 8 bits, at most 200) or LABELMAP.
        by: how frames name their slices: "uid", "position" or both.
        referenced: whether the file names the series.
    """
    dataset = _dataset(SEG_STORAGE, uid(path.name, "seg"))
    dataset.SeriesInstanceUID, dataset.Modality, dataset.PatientID = uid(path.name, "series"), "SEG", series
    dataset.FrameOfReferenceUID = uid(series, "frame")
    dataset.SegmentationType = kind
    if referenced:
        item = Dataset()
        item.SeriesInstanceUID = uid(series)
        dataset.ReferencedSeriesSequence = Sequence([item])
    dataset.SegmentSequence = Sequence([_segment(number, label) for number, (label, _) in segments.items()])
    frames: list[np.ndarray] = []
    groups: list[Dataset] = []
    for number, (_, array) in segments.items():
        for index in reversed(range(len(array))):
            if array[index].any():
                frames.append(array[index])
                groups.append(_frame_group(number if kind != "LABELMAP" else None, index, series, by))
    dataset.PerFrameFunctionalGroupsSequence = Sequence(groups)
    dataset.SharedFunctionalGroupsSequence = Sequence([_shared_group()])
    stack = np.stack(frames)
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = stack.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
    dataset.BitsAllocated = dataset.BitsStored = 1 if kind == "BINARY" else 8
    dataset.HighBit = dataset.BitsStored - 1
    if kind == "BINARY":
        content = np.packbits(stack.astype(np.uint8).ravel(), bitorder="little").tobytes()
    else:
        dataset.MaximumFractionalValue = 200
        content = (np.round(stack * 200) if kind == "FRACTIONAL" else stack).astype(np.uint8).tobytes()
    dataset.PixelData = content + b"\0" * (len(content) % 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path


def _segment(number: int, label: str) -> Dataset:
    segment = Dataset()
    segment.SegmentNumber, segment.SegmentLabel = number, label
    return segment


def _frame_group(number: int | None, index: int, series: str, by: tuple[str, ...]) -> Dataset:
    group = Dataset()
    if number is not None:
        identification = Dataset()
        identification.ReferencedSegmentNumber = number
        group.SegmentIdentificationSequence = Sequence([identification])
    if "uid" in by:
        source, derivation = Dataset(), Dataset()
        source.ReferencedSOPInstanceUID = uid(series, index)
        derivation.SourceImageSequence = Sequence([source])
        group.DerivationImageSequence = Sequence([derivation])
    if "position" in by:
        plane = Dataset()
        plane.ImagePositionPatient = [-3.0, 4.0, GAP * index]
        group.PlanePositionSequence = Sequence([plane])
    return group


def _shared_group() -> Dataset:
    group, orientation, measures = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = list(ORIENTATION)
    measures.PixelSpacing, measures.SliceThickness = list(SPACING), GAP
    group.PlaneOrientationSequence, group.PixelMeasuresSequence = Sequence([orientation]), Sequence([measures])
    return group

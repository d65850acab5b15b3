"""DICOM Segmentation objects (SEG) as label volumes on the grid of the series that they segment; needs the package pydicom.

Defined in DICOM PS3.3 A.51 and C.8.20: each frame is one plane of one segment, packed in bits (BINARY), as shares (FRACTIONAL), or the
numbers of all segments (LABELMAP).
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segpipe.config import DataParams
from segpipe.data.images.bounds import Bounds, decoder_errors_as_data_errors, max_bytes
from segpipe.data.images.formats.dicom import SeriesGrid
from segpipe.data.images.formats.requirement import require
from segpipe.errors import DataError
from segpipe.files import read_bytes

SEG_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
"""The SOP classes Segmentation Storage and Label Map Segmentation Storage."""
_TOLERANCE = 0.1
"""The largest distance of a frame from its slice, as a share of a voxel."""
OVERLAP_NOTE = "voxels in two segments: the segment with the higher number counts"


def segment_names(dataset: Any) -> dict[int, str]:
    """Return the label of each segment of a SEG data set by its number.

    A segment without a label is called by the meaning of its type, or by its number.
    """
    names = {}
    for segment in dataset.SegmentSequence:
        number = int(segment.SegmentNumber)
        codes = segment.get("SegmentedPropertyTypeCodeSequence") or []
        meaning = str(codes[0].get("CodeMeaning", "")) if len(codes) else ""
        names[number] = str(segment.get("SegmentLabel", "") or "").strip() or meaning.strip() or f"segment {number}"
    return names


def draw_segments(
    path: Path, values: Mapping[str, int], grid: SeriesGrid, limits: DataParams
) -> tuple[npt.NDArray[np.uint8], Counter[str]]:
    """Draw the segments of one SEG file on the slices of a series.

    Args:
        path: the file.
        values: the value of each label (`segment_names`), from 1.
        grid: the series.
        limits: how large the file and the volume may be.

    Returns:
        labels: (D, H, W), the values, 0 where no segment is.
        notes: how many voxels lie in several segments.

    Raises:
        DataError: the file is damaged, or a frame does not lie on a slice of the series.
        MissingError: pydicom is not installed.
    """
    where = str(path)
    pydicom = require("pydicom", "dicom", where)
    notes: Counter[str] = Counter()
    with decoder_errors_as_data_errors(where):
        dataset = pydicom.dcmread(io.BytesIO(read_bytes(path, max_bytes(limits))))
        depth, height, width = grid.shape
        Bounds.from_limits(limits).check(where, height, width, 1, depth)
        if (int(dataset.Rows), int(dataset.Columns)) != (height, width):
            raise DataError(
                "the frames do not have the size of the slices", where=where,
                found=f"{int(dataset.Columns)} x {int(dataset.Rows)}", expected=f"{width} x {height}",
                fix="segment the series itself, not a resampled copy",
            )  # fmt: skip
        names = segment_names(dataset)
        kind = str(dataset.get("SegmentationType", "BINARY")).upper()
        maximum = float(dataset.get("MaximumFractionalValue", 255)) if kind == "FRACTIONAL" else 1.0
        labels = np.zeros(grid.shape, np.uint8)
        best = np.zeros(grid.shape, np.uint8)
        drawn = _frames_by_segment(dataset, grid, limits, where, kind)
        for number, slice_index, frame in drawn:
            if kind == "LABELMAP":
                table = np.zeros(int(frame.max()) + 1, np.uint8)
                for segment, name in names.items():
                    if segment < len(table):
                        table[segment] = values[name]
                labels[slice_index] = table[frame]
                continue
            inside = frame >= max(1.0, maximum / 2)
            taken = inside & (best[slice_index] > 0)
            notes[OVERLAP_NOTE] += int(taken.sum()) if kind == "BINARY" else 0
            wins = inside & (frame >= best[slice_index])
            labels[slice_index][wins] = values[names[number]]
            best[slice_index][wins] = frame[wins]
    return labels, +notes


def _frames_by_segment(
    dataset: Any, grid: SeriesGrid, limits: DataParams, where: str, kind: str
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield (number of the segment, index of the slice, pixels) of each frame, in the order of the numbers."""
    groups = list(dataset.PerFrameFunctionalGroupsSequence)
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [None])[0]
    planned = []
    for index, group in enumerate(groups):
        _check_plane(group, shared, grid, where, index)
        number = 0 if kind == "LABELMAP" else _segment_number(group, shared)
        planned.append((number, index, _slice_index(group, grid, where, index)))
    frames = _FrameReader(dataset, limits, where)
    for number, index, slice_index in sorted(planned):
        yield number, slice_index, frames.read(index)


class _FrameReader:
    """Reads one frame after another, so that not all have to be in memory unpacked."""

    def __init__(self, dataset: Any, limits: DataParams, where: str) -> None:
        self.shape = int(dataset.Rows), int(dataset.Columns)
        self.bits, self.where = int(dataset.BitsAllocated), where
        self.frames: np.ndarray | None = None
        if dataset.file_meta.TransferSyntaxUID.is_encapsulated or self.bits not in (1, 8):
            count = int(dataset.NumberOfFrames)
            Bounds.from_limits(limits).check(where, *self.shape, 1, count)
            self.frames = dataset.pixel_array.reshape(count, *self.shape)
        else:
            self.data = np.frombuffer(dataset.PixelData, np.uint8)

    def read(self, index: int) -> np.ndarray:
        """Return the pixels (H, W) of a frame."""
        if self.frames is not None:
            return self.frames[index]
        size = self.shape[0] * self.shape[1]
        start = index * size
        if self.bits == 8:
            flat = self.data[start : start + size]
        else:
            first = start // 8
            flat = np.unpackbits(self.data[first : -(-(start + size) // 8)], bitorder="little")[start - 8 * first :][
                :size
            ]
        if len(flat) < size:
            raise DataError("cannot be decoded: cut short", where=self.where, found=f"no pixels of frame {index + 1}")
        return flat.reshape(self.shape)


def _item(group: Any, shared: Any, name: str) -> Any:
    """Return the first item of a functional group, of the frame or shared by all frames; None if there is none."""
    for source in (group, shared):
        sequence = source.get(name) if source is not None else None
        if sequence:
            return sequence[0]
    return None


def _segment_number(group: Any, shared: Any) -> int:
    return int(_item(group, shared, "SegmentIdentificationSequence").ReferencedSegmentNumber)


def _check_plane(group: Any, shared: Any, grid: SeriesGrid, where: str, index: int) -> None:
    """Raise DataError if a frame states another orientation or another size of pixels than the series."""
    orientation, measures = (_item(group, shared, f"{name}Sequence") for name in ("PlaneOrientation", "PixelMeasures"))
    same = True
    if orientation is not None:
        stated = [float(v) for v in orientation.ImageOrientationPatient]
        same = bool(np.allclose(stated, [*grid.row, *grid.column], atol=1e-3))
    if measures is not None and "PixelSpacing" in measures:
        same = same and bool(np.allclose([float(v) for v in measures.PixelSpacing], grid.spacing, rtol=1e-2))
    if not same:
        raise DataError(
            "a frame does not lie on the grid of the series", where=where, found=f"frame {index + 1}, turned or scaled",
            expected="the orientation and pixel spacing of the slices", fix="segment the series itself, not a resampled copy",
        )  # fmt: skip


def _slice_index(group: Any, grid: SeriesGrid, where: str, index: int) -> int:
    """Return the slice of a frame, by the instance that it refers to and by its position; both must agree."""
    by_uid = {grid.uids.index(uid) for uid in _referenced_uids(group) if uid in grid.uids}
    plane = _item(group, None, "PlanePositionSequence")
    by_position: int | None = None
    if plane is not None:
        position = np.array([float(v) for v in plane.ImagePositionPatient])
        distances = np.abs(grid.positions - position)
        nearest = int(np.linalg.norm(grid.positions - position, axis=1).argmin())
        by_position = nearest if distances[nearest].max() <= _TOLERANCE * min(grid.gap, *grid.spacing) else None
        if by_position is None:
            raise DataError(
                "a frame does not lie on a slice of the series", where=where,
                found=f"frame {index + 1} at {', '.join(f'{v:g}' for v in position)} mm",
                expected=f"the position of a slice, such as {', '.join(f'{v:g}' for v in grid.positions[nearest])} mm",
                fix="restore the missing slices of the series, or segment it again",
            )  # fmt: skip
        if len(by_uid) == 1 and by_position not in by_uid:
            raise DataError(
                "a frame refers to one slice and lies on another", where=where,
                found=f"frame {index + 1}: {grid.paths[by_uid.pop()].name} and {grid.paths[by_position].name}",
                expected="the same slice", fix="correct the reference or the position",
            )  # fmt: skip
        return by_position
    if len(by_uid) != 1:
        raise DataError(
            "a frame does not say which slice it segments", where=where, found=f"frame {index + 1}",
            expected="a position, or a reference to one slice of the series", fix="export the segmentation again",
        )  # fmt: skip
    return by_uid.pop()


def _referenced_uids(group: Any) -> list[str]:
    return [
        str(source.ReferencedSOPInstanceUID)
        for derivation in group.get("DerivationImageSequence") or []
        for source in derivation.get("SourceImageSequence") or []
    ]

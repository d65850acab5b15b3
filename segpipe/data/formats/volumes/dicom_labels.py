"""The labels of DICOM series: segmentations by reference, and mask files by the names of files and folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from segpipe.config import DataParams
from segpipe.data.formats.folder_names import MASK_ENDINGS
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.source import VolumeDrawing
from segpipe.data.images import SUFFIXES, VOLUME_SUFFIXES, encode_nifti, read_mask, stem_of, suffix_of
from segpipe.data.images.bounds import decoder_errors_as_data_errors
from segpipe.data.images.formats.dicom import SeriesGrid, series_grid, series_volume
from segpipe.data.images.formats.dicom_headers import Series, read_header
from segpipe.data.images.formats.dicom_seg import draw_segments, segment_names
from segpipe.errors import DataError
from segpipe.words import listed

_MAX_CLASSES = 250


@dataclass(frozen=True)
class SeriesContent:
    """The content of the file of a series (`RawItem.content`)."""

    paths: tuple[Path, ...]
    limits: DataParams

    def __call__(self) -> bytes:
        """Return the bytes of a NIfTI file; errors as in `segpipe.data.images.formats.dicom.series_volume`."""
        return series_volume(self.paths, self.limits)


@dataclass(frozen=True)
class SegLabels:
    """Draws the segments of SEG files on a series (`RawItem.draw_volume`).

    segmentations: the SEG files.
    slices: the files of the series.
    values: (label, value) of each class.
    limits: how large files and the volume may be.
    """

    segmentations: tuple[Path, ...]
    slices: tuple[Path, ...]
    values: tuple[tuple[str, int], ...]
    limits: DataParams
    value_files: tuple[Path, ...] = ()

    def __call__(self) -> VolumeDrawing:
        """Draw the labels; errors as in `segpipe.data.images.formats.dicom_seg.draw_segments`."""
        grid = _grid(self.slices)
        values, notes = dict(self.values), Counter[str]()
        labels = np.zeros(grid.shape, np.uint8)
        for path in self.segmentations:
            drawn, more = draw_segments(path, values, grid, self.limits)
            notes += more
            taken = (drawn > 0) & (labels > 0)
            notes["voxels in two segmentations: the last file counts"] += int(taken.sum())
            labels[drawn > 0] = drawn[drawn > 0]
        return VolumeDrawing(_encoded(labels, grid), +notes)


@dataclass(frozen=True)
class SliceMasks:
    """Stacks one mask file per slice to a label volume (`RawItem.draw_volume`).

    value_files: the mask of each slice, in the order of `slices`.
    """

    value_files: tuple[Path, ...]
    slices: tuple[Path, ...]
    limits: DataParams

    def __call__(self) -> VolumeDrawing:
        """Read and stack the masks.

        Raises:
            DataError: a mask cannot be read or does not have the size of its slice.
        """
        grid = _grid(self.slices)
        by_slice = dict(zip(self.slices, self.value_files, strict=True))
        labels = np.zeros(grid.shape, np.uint16)
        for index, path in enumerate(grid.paths):
            mask = read_mask(by_slice[path], self.limits)
            if mask.shape != grid.shape[1:]:
                raise DataError(
                    "not the size of its slice", where=by_slice[path], found=" x ".join(map(str, mask.shape[::-1])),
                    expected=f"{grid.shape[2]} x {grid.shape[1]}", fix="export slices and masks at the same size",
                )  # fmt: skip
            labels[index] = mask
        return VolumeDrawing(_encoded(labels, grid))


@dataclass(frozen=True)
class UnusableLabels:
    """Labels that cannot be used (`RawItem.draw_volume`): their error is raised when they are written."""

    paths: tuple[Path, ...]
    error: DataError
    value_files: tuple[Path, ...] = ()

    def __call__(self) -> NoReturn:
        """Raise the error."""
        raise self.error


@dataclass(frozen=True)
class SegmentTable:
    """The classes of all segmentations of a source, by label: segment numbers have no meaning across files.

    names: the labels, in the order of the smallest number that each has.
    """

    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, paths: Iterable[Path]) -> SegmentTable:
        """Read the labels of SEG files; a file that cannot be read is left to the drawing, which reports it."""
        smallest: dict[str, int] = {}
        for path in paths:
            for number, name in _segments(path).items():
                smallest[name] = min(number, smallest.get(name, number))
        names = tuple(sorted(smallest, key=lambda name: (smallest[name], name)))
        if len(names) > _MAX_CLASSES:
            raise DataError(
                "too many labels", where="DICOM segmentations", found=f"{len(names)}: {listed(names, 4)}",
                expected=f"at most {_MAX_CLASSES}", fix="give segments of the same kind the same label",
            )  # fmt: skip
        return cls(names)

    @property
    def values(self) -> tuple[tuple[str, int], ...]:
        """The value of each label."""
        return tuple((name, value) for value, name in enumerate(self.names, start=1))


def _segments(path: Path) -> dict[int, str]:
    try:
        with decoder_errors_as_data_errors(str(path)):
            return segment_names(read_header(path, ["SegmentSequence"]))
    except DataError:
        return {}


@dataclass
class LabelFiles:
    """The label files of each series, by its UID: SEG files, volumes with all labels, and masks of single slices."""

    by_seg: dict[str, list[Path]] = field(default_factory=dict)
    by_volume: dict[str, list[Path]] = field(default_factory=dict)
    by_slice: dict[str, list[dict[str, Path]]] = field(default_factory=dict)

    def has_any(self, series: Series) -> bool:
        """Return whether a series has label files."""
        return any(series.uid in by_uid for by_uid in (self.by_seg, self.by_volume, self.by_slice))

    def segmentations(self, series: Series) -> tuple[Path, ...]:
        """Return the SEG files of a series."""
        return tuple(self.by_seg.get(series.uid, ()))

    def files(self, series: Series) -> tuple[Path, ...]:
        """Return the mask files of a series, if it has no SEG files."""
        if series.uid in self.by_seg:
            return ()
        return (
            *self.by_volume.get(series.uid, ()),
            *(path for masks in self.by_slice.get(series.uid, ()) for path in masks.values()),
        )

    def mask(self, series: Series, limits: DataParams) -> Path | SliceMasks | UnusableLabels | None:
        """Return the labels of a series from mask files; None if there are none."""
        volumes, folders = self.by_volume.get(series.uid, []), self.by_slice.get(series.uid, [])
        candidates = [*volumes, *(next(iter(masks.values())).parent for masks in folders)]
        if not candidates:
            return None
        if len(candidates) > 1:
            error = DataError(
                "several masks for one series", where=series.folder, found=" and ".join(path.name for path in candidates),
                fix="keep one of them",
            )  # fmt: skip
            return UnusableLabels(self.files(series), error)
        if volumes:
            return volumes[0]
        missing = [path.name for path in series.paths if path.stem not in folders[0]]
        if missing:
            error = DataError(
                "slices have no mask", where=candidates[0], found=f"{len(missing)}: {listed(missing, 3)}",
                expected="a mask for each slice", fix="add empty masks for slices without any label",
            )  # fmt: skip
            return UnusableLabels(self.files(series), error)
        return SliceMasks(tuple(folders[0][path.stem] for path in series.paths), series.paths, limits)


def find_label_files(probe: SourceProbe, volumes: list[Series], segmentations: Mapping[Path, Any]) -> LabelFiles:
    """Return the label files of each series.

    Args:
        probe: the source.
        volumes: the series.
        segmentations: the header of each SEG file.
    """
    label_files = LabelFiles()
    for path, header in segmentations.items():
        for uid in _referenced_series(header, volumes):
            label_files.by_seg.setdefault(uid, []).append(path)
    by_folder: dict[Path, dict[str, Path]] = {}
    for path in probe.listing.files_below(probe.source):
        if suffix_of(path) in VOLUME_SUFFIXES:
            for series in volumes:
                if _names_series(path, series, volumes, probe.source):
                    label_files.by_volume.setdefault(series.uid, []).append(path)
        elif suffix_of(path) in SUFFIXES and suffix_of(path) != ".dcm":
            by_folder.setdefault(path.parent, {})[path.stem] = path
    for series in volumes:
        stems = {path.stem for path in series.paths}
        for folder, masks in by_folder.items():
            is_named_alike = folder.name == series.folder.name or folder.parent in (series.folder, series.folder.parent)
            if is_named_alike and 2 * len(stems & masks.keys()) >= len(stems):
                used = {stem: path for stem, path in masks.items() if stem in stems}
                label_files.by_slice.setdefault(series.uid, []).append(used)
    return label_files


def _referenced_series(header: Any, volumes: list[Series]) -> list[str]:
    """Return the UIDs of the series that a SEG file segments; by its coordinate system if it names none."""
    known = {series.uid for series in volumes}
    named = [str(item.get("SeriesInstanceUID", "")) for item in header.get("ReferencedSeriesSequence") or []]
    if named:
        return [uid for uid in named if uid in known]
    frame = str(header.get("FrameOfReferenceUID", "") or "")
    same = [series.uid for series in volumes if frame and series.frame_of_reference == frame]
    return same if len(same) == 1 else []


def _names_series(path: Path, series: Series, volumes: list[Series], source: Path) -> bool:
    """Return whether a volume file is named like a folder of the series, or lies beside the series in the folder of its case."""
    parts = series.folder.relative_to(source).parts
    stem = stem_of(path).lower()
    names = {part.lower() for part in parts}
    if any(ending and stem.removesuffix(ending) in names for ending in MASK_ENDINGS) or stem in names:
        return True
    if path.parent == source:
        return False
    below = [other for other in volumes if other.folder.is_relative_to(path.parent)]
    return [other.uid for other in below] == [series.uid]


def _grid(slices: tuple[Path, ...]) -> SeriesGrid:
    return series_grid({path: read_header(path) for path in slices}, str(slices[0].parent))


def _encoded(labels: np.ndarray, grid: SeriesGrid) -> bytes:
    return encode_nifti(grid.geometry.to_canonical(labels), grid.geometry)

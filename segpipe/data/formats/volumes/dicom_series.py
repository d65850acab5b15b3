"""`dicom-series`: series of DICOM slices as volumes, with labels as DICOM SEG, as NIfTI, or as one mask file per slice.

```
SRC/CASE/*.dcm  and a SEG file anywhere below SRC that refers to the series
SRC/images/CASE/*.dcm  SRC/labels/CASE.nii.gz            also SRC/CASE/dicom/*.dcm with SRC/CASE/seg.nii.gz
SRC/images/CASE/a1.dcm  SRC/masks/CASE/a1.png            one mask per slice
```

Files are recognised by their content, because many have no ending, and sorted into series by their headers.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.source import DrawVolume, RawItem, ReadOptions, ReadResult
from segpipe.data.formats.volumes.dicom_labels import (
    LabelFiles,
    SegLabels,
    SegmentTable,
    SeriesContent,
    find_label_files,
)
from segpipe.data.images.formats.dicom import is_dicom
from segpipe.data.images.formats.dicom_headers import Series, scan_headers
from segpipe.errors import DataError
from segpipe.files import sha256_bytes
from segpipe.samples import ClassTable

SUFFIXES = ("", ".dcm", ".ima", ".dicom")
_MAX_FOLDERS_CHECKED = 200
_START_BYTES = 132


def recognise_dicom_series(probe: SourceProbe) -> str | None:
    """Return why the source has this layout: a folder with several DICOM files, and labels for them. None otherwise."""
    folders = [folder for folder, files in _dicom_folders(probe, quick=True).items() if len(files) > 1]
    if not folders:
        return None
    scan = scan_headers([path for files in _dicom_folders(probe).values() for path in files])
    volumes = [series for series in scan.series if len(series.headers) > 1]
    labels = find_label_files(probe, volumes, scan.segmentations)
    labelled = sum(labels.has_any(series) for series in volumes)
    if not labelled:
        return None
    return f"{len(volumes)} DICOM series of several slices, {labelled} with labels"


def read_dicom_series(probe: SourceProbe, options: ReadOptions) -> ReadResult:
    """Read the layout. Series that are no volumes (localizers, single slices) are left out with a reason.

    Raises:
        DataError: there is no series of several slices.
        MissingError: pydicom is not installed.
    """
    source = probe.source
    scan = scan_headers([path for files in _dicom_folders(probe).values() for path in files])
    result = ReadResult([], skipped=[(_relative(path, source), reason) for path, reason in scan.skipped])
    volumes = []
    for series in scan.series:
        if len(series.headers) > 1:
            volumes.append(series)
        else:
            result.skipped.append((_relative(series.paths[0], source), "a single slice, not a volume"))
    if not volumes:
        raise DataError(
            "no DICOM series of several slices",
            where=source,
            found=": ".join(result.skipped[0]) if result.skipped else "no DICOM files",
            expected="the slices of each series in a folder",
            fix="choose another --format (folder, for single slices)",
        )
    labels = find_label_files(probe, volumes, scan.segmentations)
    table = SegmentTable.of([path for series in volumes for path in labels.segmentations(series)])
    names = _names(volumes, source)
    groups = _groups(volumes)
    for series, name, group in zip(volumes, names, groups, strict=True):
        result.items.append(_item(series, name, group, labels, table, options))
    if table.names:
        result.classes = ClassTable.from_names(["background", *table.names])
        result.classes_from = "the labels of the DICOM segments"
        if any(labels.files(series) for series in volumes):
            raise DataError(
                "some series have DICOM segmentations and others have masks as files",
                where=source,
                found=next(_relative(files[0], source) for series in volumes if (files := labels.files(series))),
                fix="move one of both kinds out of the source",
            )
    used = {path for series in volumes for path in labels.segmentations(series)}
    unused = [path for path in scan.segmentations if path not in used]
    result.skipped += [
        (_relative(path, source), "a segmentation of a series that is not in the source") for path in unused
    ]
    return result


def _item(
    series: Series, name: str, group: str | None, labels: LabelFiles, table: SegmentTable, options: ReadOptions
) -> RawItem:
    image = series.paths[0].with_name(f"{name.rpartition('/')[2]}.nii.gz")
    item = RawItem(name, image, group=group, content=SeriesContent(series.paths, options.limits))
    if segmentations := labels.segmentations(series):
        return replace(item, draw_volume=SegLabels(segmentations, series.paths, table.values, options.limits))
    draw: DrawVolume | Path | None = labels.mask(series, options.limits)
    if isinstance(draw, Path):
        return replace(item, mask=draw)
    return replace(item, draw_volume=draw)


def _dicom_folders(probe: SourceProbe, quick: bool = False) -> dict[Path, list[Path]]:
    """Return the DICOM files below the source by their folder; `quick` looks at two files per folder, and at few folders."""
    folders: dict[Path, list[Path]] = {}
    candidates: dict[Path, list[Path]] = {}
    for path in probe.listing.files_below(probe.source):
        if path.suffix.lower() in SUFFIXES or path.suffix[1:].isdecimal():
            candidates.setdefault(path.parent, []).append(path)
    for folder in list(candidates)[: _MAX_FOLDERS_CHECKED if quick else None]:
        files = candidates[folder][: 2 if quick else None]
        if dicom_files := [path for path in files if _starts_like_dicom(path)]:
            folders[folder] = dicom_files
    return folders


def _starts_like_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return is_dicom(stream.read(_START_BYTES))
    except OSError:
        return False


def _names(volumes: list[Series], source: Path) -> list[str]:
    """Return a name for each series: its folder, and its number where a folder holds several."""
    folders = [_relative(series.folder, source) if series.folder != source else source.name for series in volumes]
    names = []
    for series, folder in zip(volumes, folders, strict=True):
        parts = folder.split("/")
        if len(parts) > 1 and parts[-1].lower() in ("dicom", "dicoms", "dcm", "dicom_anon", "slices", "series"):
            folder = "/".join(parts[:-1])
        names.append(
            folder
            if folders.count(_relative_or_name(series, source)) == 1
            else f"{folder}/{folder.rpartition('/')[2]}-{series.number}"
        )
    repeated = {name for name in names if names.count(name) > 1}
    return [
        f"{name}-{sha256_bytes(series.uid.encode())[:6]}" if name in repeated else name
        for name, series in zip(names, volumes, strict=True)
    ]


def _relative_or_name(series: Series, source: Path) -> str:
    return _relative(series.folder, source) if series.folder != source else source.name


def _groups(volumes: list[Series]) -> list[str | None]:
    """Return a group for each patient; the identifier itself is not kept, because it may be private. None if there is one patient."""
    patients = [series.patient for series in volumes]
    if len(set(patients)) < 2 or not all(patients):
        return [None] * len(volumes)
    return [f"patient-{sha256_bytes(patient.encode())[:8]}" for patient in patients]


def _relative(path: Path, source: Path) -> str:
    return path.relative_to(source).as_posix() if path.is_relative_to(source) else path.name

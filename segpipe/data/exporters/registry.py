"""The export formats. Each writes the dataset of a workspace in the format of another tool.

To add a format, write a module with a writer, and add an entry to `EXPORTERS` that states what the format preserves.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

from segpipe.config import DataParams
from segpipe.data.dataset import Dataset
from segpipe.data.exporters.coco import write_coco
from segpipe.data.exporters.folder import write_folder
from segpipe.data.exporters.mask_per_class import write_mask_per_class
from segpipe.data.exporters.nnunet import write_nnunet
from segpipe.data.exporters.report import ExportReport, FormatCapabilities
from segpipe.data.exporters.voc import write_voc
from segpipe.errors import ConfigError, DataError
from segpipe.files import atomic_folder

__all__ = ["EXPORTERS", "ExportReport", "Exporter", "FormatCapabilities", "export_dataset"]


@dataclass(frozen=True)
class Exporter:
    """An export format.

    Attributes:
        name: its name for `--format`.
        summary: one line about the files that it writes.
        capabilities: the properties of a dataset that it preserves.
        write: its writer, called with the dataset, the folder to write, the limits for reading files, the report to fill in, and the
            number of threads (None: one per core).
    """

    name: str
    summary: str
    capabilities: FormatCapabilities
    write: Callable[[Dataset, Path, DataParams, ExportReport, int | None], None]


EXPORTERS = {
    exporter.name: exporter
    for exporter in (
        Exporter(
            "coco",
            "images/ and annotations/instances_SPLIT.json with compressed run-length encoding",
            FormatCapabilities(
                values=True,
                instances=True,
                groups=True,
                splits=True,
                mixed_splits=True,
                any_classes=True,
                overlapping=True,
            ),
            write_coco,
        ),
        Exporter(
            "voc",
            "JPEGImages/, palette masks in SegmentationClass/ and SegmentationObject/, ImageSets/, labelmap.txt",
            FormatCapabilities(instances=True, splits=True, mixed_splits=True, any_classes=True),
            write_voc,
        ),
        Exporter(
            "folder",
            "images/, masks/, instances/, dataset.yaml and samples.csv: copies of the files",
            FormatCapabilities(
                values=True,
                instances=True,
                groups=True,
                splits=True,
                mixed_splits=True,
                volumes=True,
                any_classes=True,
                overlapping=True,
            ),
            write_folder,
        ),
        Exporter(
            "mask-per-class",
            "images/, masks/CLASS/ with a mask of 0 and 255 per class, dataset.yaml and samples.csv",
            FormatCapabilities(
                values=True, groups=True, splits=True, mixed_splits=True, exclusive=False, overlapping=True
            ),
            write_mask_per_class,
        ),
        Exporter(
            "nnunet",
            "nnU-Net v2: dataset.json, imagesTr/, labelsTr/, imagesTs/, labelsTs/, splits_final.json",
            FormatCapabilities(splits=True, volumes=True),
            write_nnunet,
        ),
    )
}


def export_dataset(
    dataset: Dataset,
    out: Path,
    format: str,
    limits: DataParams,
    *,
    splits: Collection[str] = (),
    replace_out: bool = False,
    jobs: int | None = None,
) -> ExportReport:
    """Export a dataset. The folder is written completely or not at all.

    An image that cannot be exported is left out and listed in the report.

    Args:
        dataset: the dataset.
        out: the folder to write.
        format: the name of an export format (`EXPORTERS`).
        limits: how large files may be, and how pages of TIFF files are read.
        splits: export only the images of these splits; by default all.
        replace_out: replace the content of `out`.
        jobs: the number of threads, by default one per core.

    Returns:
        The report: the images written, those left out, and what the format cannot store.

    Raises:
        ConfigError: if the format is unknown, or cannot store the classes of the dataset.
        DataError: if `out` contains files and `replace_out` is False, or if no image can be written.
    """
    if format not in EXPORTERS:
        matches = difflib.get_close_matches(format.lower(), EXPORTERS, n=1)
        fix = f"did you mean `{matches[0]}`?" if matches else "choose one of them"
        raise ConfigError("no such export format", found=format, expected=" or ".join(EXPORTERS), fix=fix)
    _check_overlap(dataset, format)
    if splits:
        dataset = replace(dataset, items=[item for item in dataset.items if item.split in splits])
        if not dataset.items:
            raise DataError(
                "no image is in these splits", where=dataset.root, found=", ".join(splits), fix="omit --split"
            )
    report = ExportReport(format)
    with atomic_folder(out, replace=replace_out) as folder:
        EXPORTERS[format].write(dataset, folder, limits, report, jobs)
        if not report.images:
            key, reason = report.left_out[0]
            raise DataError("no image could be written", where=dataset.root, found=f"{key}: {reason}")
    return report


def _check_overlap(dataset: Dataset, format: str) -> None:
    kind = "overlapping" if dataset.classes.overlapping else "exclusive"
    if not getattr(EXPORTERS[format].capabilities, kind):
        formats = [exporter.name for exporter in EXPORTERS.values() if getattr(exporter.capabilities, kind)]
        raise ConfigError(
            f"the format {format} cannot store a dataset with {kind} classes",
            where=dataset.root,
            expected=" or ".join(formats),
            fix=f"--format {formats[0]}",
        )

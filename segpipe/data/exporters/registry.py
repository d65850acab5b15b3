"""The way out: one module a layout; each writes the canonical `data/` of a workspace as other tools want it.

To add a layout: a module with a writer, and a line in `EXPORTERS` that says what the layout carries.
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
from segpipe.data.exporters.report import FormatCapabilities, ExportReport
from segpipe.data.exporters.voc import write_voc
from segpipe.errors import ConfigError, DataError
from segpipe.files import atomic_folder

__all__ = ["EXPORTERS", "Carries", "ExportReport", "Exporter", "export_dataset"]


@dataclass(frozen=True)
class Exporter:
    """A layout that can be written: its name, one line about it, what it carries, and its writer."""

    name: str
    summary: str
    carries: FormatCapabilities
    write: Callable[[Dataset, Path, DataParams, ExportReport, int | None], None]


EXPORTERS = {
    exporter.name: exporter
    for exporter in (
        Exporter(
            "coco", "images/ and annotations/instances_SPLIT.json with compressed run-length codes",
            FormatCapabilities(
                values=True, instances=True, groups=True, splits=True, mixed_splits=True, any_classes=True, overlapping=True
            ),
            write_coco,
        ),
        Exporter(
            "voc", "JPEGImages/, palette masks in SegmentationClass/ and SegmentationObject/, ImageSets/, labelmap.txt",
            FormatCapabilities(instances=True, splits=True, mixed_splits=True, any_classes=True), write_voc,
        ),
        Exporter(
            "folder", "images/, masks/, instances/, dataset.yaml and samples.csv: the files as they are",
            FormatCapabilities(
                values=True, instances=True, groups=True, splits=True, mixed_splits=True, volumes=True, any_classes=True,
                overlapping=True,
            ),
            write_folder,
        ),
        Exporter(
            "mask-per-class", "images/, masks/CLASS/ with a mask of 0 and 255 for each class, dataset.yaml and samples.csv",
            FormatCapabilities(values=True, groups=True, splits=True, mixed_splits=True, exclusive=False, overlapping=True),
            write_mask_per_class,
        ),
        Exporter(
            "nnunet", "nnU-Net v2: dataset.json, imagesTr/, labelsTr/, imagesTs/, labelsTs/, splits_final.json",
            FormatCapabilities(splits=True, volumes=True), write_nnunet,
        ),
    )
}


def export_dataset(
    dataset: Dataset, out: Path, format: str, limits: DataParams, *,
    splits: Collection[str] = (), replace_out: bool = False, jobs: int | None = None,
) -> ExportReport:
    """Write a dataset in another layout; `out` appears whole or not at all, written by `jobs` threads (default: one a processor).

    splits: only the images of these splits; all where there are none given.
    Raises ConfigError for a layout that is not known, DataError where `out` holds files and may not be replaced, and where not one
    image can be written. A single bad file stops nothing: it is left out and listed.
    """
    if format not in EXPORTERS:
        near = difflib.get_close_matches(format.lower(), EXPORTERS, n=1)
        fix = f"did you mean `{near[0]}`?" if near else "choose one of them"
        raise ConfigError("no such format to export to", found=format, expected=" or ".join(EXPORTERS), fix=fix)
    _check_overlap(dataset, format)
    if splits:
        dataset = replace(dataset, items=[item for item in dataset.items if item.split in splits])
        if not dataset.items:
            raise DataError(
                "no image is of these splits", where=dataset.root, found=", ".join(splits), fix="leave --split out"
            )
    report = ExportReport(format)
    with atomic_folder(out, replace=replace_out) as folder:
        EXPORTERS[format].write(dataset, folder, limits, report, jobs)
        if not report.images:
            key, reason = report.left_out[0]
            raise DataError("not one image could be written", where=dataset.root, found=f"{key}: {reason}")
    return report


def _check_overlap(dataset: Dataset, format: str) -> None:
    kind = "overlapping" if dataset.classes.overlapping else "exclusive"
    if not getattr(EXPORTERS[format].carries, kind):
        fitting = [exporter.name for exporter in EXPORTERS.values() if getattr(exporter.carries, kind)]
        raise ConfigError(
            f"{format} can't hold a dataset of {kind} classes", where=dataset.root, expected=" or ".join(fitting),
            fix=f"--format {fitting[0]}",
        )

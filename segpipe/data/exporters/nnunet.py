"""Export format `nnunet`: the raw data of nnU-Net v2: imagesTr/KEY_0000.EXT (one file per channel), labelsTr/KEY.EXT, dataset.json.

Labels are 0 (background), 1, 2 ... and, if the dataset ignores pixels, `ignore` as the highest label. 2D images are PNG (TIFF if the
dataset contains TIFF, which may be float), volumes .nii.gz with the geometry of their source. The test split is written to imagesTs/
and labelsTs/; train and val are the only fold of splits_final.json. If no image has a split but images have groups, the folds of
splits_final.json keep groups together.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segpipe.config import DataParams, SplitParams
from segpipe.data.dataset import Dataset, Item
from segpipe.data.exporters.coco import background_of
from segpipe.data.exporters.labels import copy_file, read_labels
from segpipe.data.exporters.report import ExportReport
from segpipe.data.exporters.workers import map_items
from segpipe.data.images import (
    Geometry,
    decode_geometry,
    encode_nifti,
    encode_png,
    encode_tiff,
    max_bytes,
    read_image,
    suffix_of,
)
from segpipe.data.splits import assign_folds
from segpipe.errors import DataError
from segpipe.files import read_bytes, write_json
from segpipe.samples import IGNORE, ClassTable

FOLDS = 5
_VOLUME = ".nii.gz"


@dataclass(frozen=True)
class _Settings:
    """The settings that all items share.

    Attributes:
        out: the folder to write.
        classes: the class table of the dataset.
        numbers: (256,), uint8, the label in nnU-Net of each class id.
        ending: the ending of image and label files.
        channels: the number of channels of every image.
        limits: how large files may be, and how pages of TIFF files are read.
    """

    out: Path
    classes: ClassTable
    numbers: npt.NDArray[np.uint8]
    ending: str
    channels: int
    limits: DataParams


def write_nnunet(dataset: Dataset, out: Path, limits: DataParams, report: ExportReport, jobs: int | None) -> None:
    """Write the dataset.

    An image whose number of channels differs from that of the first one is left out, and so is a 2D image among volumes.
    """
    labels, numbers = _numbering(dataset.classes, report)
    ending = _ending(dataset)
    channels = read_image(dataset.items[0].image, limits).shape[-1]
    for name in ("imagesTr", "labelsTr"):
        (out / name).mkdir()
    if any(item.split == "test" for item in dataset.items):
        for name in ("imagesTs", "labelsTs"):
            (out / name).mkdir()
    report.losses["images whose instances are not stored, only their classes"] += sum(
        item.instances is not None for item in dataset.items
    )
    settings = _Settings(out, dataset.classes, numbers, ending, channels, limits)
    written = []
    for item, losses in map_items(partial(_write_item, settings), dataset.items, report, jobs):
        report.losses += losses
        written.append(item)
    training = [item for item in written if item.split != "test"]
    content: dict[str, Any] = {
        "channel_names": _channel_names(channels, ending, dataset.channels),
        "labels": labels,
        "numTraining": len(training),
        "file_ending": ending,
    }
    write_json(out / "dataset.json", content)
    folds = _folds(training, report)
    if folds:
        write_json(out / "splits_final.json", folds)


def _numbering(classes: ClassTable, report: ExportReport) -> tuple[dict[str, int], npt.NDArray[np.uint8]]:
    """Return the labels of nnU-Net by name, and the label of each class id.

    The background of nnU-Net is 0 and must be named so; `ignore` is the last label.
    """
    background = background_of(classes)
    order = [c for c in range(len(classes)) if c != background]
    if reserved := [classes.names[c] for c in order if classes.names[c] in ("background", "ignore")]:
        raise DataError(
            "a class has a name that is reserved in nnU-Net",
            found=", ".join(reserved),
            fix="rename it in data/dataset.yaml",
        )
    if background is None:
        report.notes.append("nnU-Net requires a background: label 0 is one without pixels")
    elif classes.names[background] != "background":
        report.losses[f"the name of the class {classes.names[background]}, now background"] += 1
    renumbered = sum(classes.classes[c].value != number for number, c in enumerate(order, start=1))
    report.losses["classes whose pixel value changes"] += renumbered
    report.losses["colours of classes"] += len(classes)
    labels = {"background": 0} | {classes.names[c]: number for number, c in enumerate(order, start=1)}
    ignore = len(labels)
    if classes.ignore:
        labels["ignore"] = ignore
    numbers = np.zeros(256, np.uint8)
    numbers[order] = np.arange(1, len(order) + 1)
    numbers[IGNORE] = ignore
    return labels, numbers


def _ending(dataset: Dataset) -> str:
    suffixes = {suffix_of(item.image) for item in dataset.items}
    if suffixes & {".nii", _VOLUME}:
        return _VOLUME
    return ".tif" if suffixes & {".tif", ".tiff"} else ".png"


def _channel_names(channels: int, ending: str, names: tuple[str, ...]) -> dict[str, str]:
    if len(names) == channels:
        return {str(k): name for k, name in enumerate(names)}
    colours = channels == 3 and ending != _VOLUME
    return {str(k): "RGB"[k] if colours else f"channel {k}" for k in range(channels)}


def _write_item(settings: _Settings, item: Item) -> Counter[str]:
    if item.key != Path(item.key).name:
        raise DataError("its key is not a file name", found=item.key)
    labels = read_labels(item, settings.classes, settings.limits)
    if labels.losses and not settings.classes.ignore:
        raise DataError(
            "has pixels with unknown values, and the class table ignores no value",
            fix="correct the mask, or add the value to dataset.yaml",
        )
    image = read_image(item.image, settings.limits)
    if image.shape[:-1] != labels.class_ids.shape or (image.ndim == 4) != (settings.ending == _VOLUME):
        raise DataError(
            "image and mask differ in size, or the image is 2D among volumes",
            found=f"{image.shape}, {labels.class_ids.shape}",
        )
    if image.shape[-1] != settings.channels:
        raise DataError(
            "the number of channels differs from that of the first image",
            found=image.shape[-1],
            expected=settings.channels,
        )
    part = "Ts" if item.split == "test" else "Tr"
    geometry = None
    if settings.ending == _VOLUME:
        geometry = decode_geometry(read_bytes(item.image, max_bytes(settings.limits)), str(item.image))
        labels.losses["volumes without a voxel size, stored with 1 mm"] += geometry is None
    folder = settings.out / f"images{part}"
    if settings.channels == 1 and suffix_of(item.image) == settings.ending == _VOLUME:
        copy_file(item.image, folder / f"{item.key}_0000{_VOLUME}")
    else:
        for k in range(settings.channels):
            (folder / f"{item.key}_{k:04d}{settings.ending}").write_bytes(
                _encode(image[..., k], settings.ending, geometry)
            )
    numbers = settings.numbers[labels.class_ids]
    (settings.out / f"labels{part}" / f"{item.key}{settings.ending}").write_bytes(
        _encode(numbers, settings.ending, geometry)
    )
    return +labels.losses


def _encode(plane: np.ndarray, ending: str, geometry: Geometry | None) -> bytes:
    if ending == _VOLUME:
        return encode_nifti(plane, geometry)
    if ending == ".tif":
        return encode_tiff(plane[:, :, None])
    if plane.dtype == np.float32:
        raise DataError("has float pixels, which PNG cannot store", fix="store all images of the dataset as TIFF")
    return encode_png(plane)


def _folds(items: list[Item], report: ExportReport) -> list[dict[str, list[str]]]:
    """Return the folds of splits_final.json; an empty list if nnU-Net may choose its own."""
    if any(item.split for item in items):
        report.losses["images whose group is not stored, because splits are given"] += sum(
            item.group is not None for item in items
        )
        report.losses["images without a split, now in train"] += sum(item.split is None for item in items)
        val = [item.key for item in items if item.split == "val"]
        return [{"train": [item.key for item in items if item.split != "val"], "val": val}]
    if not any(item.group for item in items):
        return []
    rows = [{"key": item.key, "group": item.group, "sha256": None} for item in items]
    numbers = assign_folds(rows, SplitParams(folds=FOLDS))
    used = sorted({number for number in numbers if number is not None})
    if len(used) < 2:
        return []
    report.losses["images whose group is only stored as folds"] += sum(item.group is not None for item in items)
    assigned = list(zip(items, numbers, strict=True))
    return [
        {"train": [i.key for i, n in assigned if n != fold], "val": [i.key for i, n in assigned if n == fold]}
        for fold in used
    ]

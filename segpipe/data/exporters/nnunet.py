"""`nnunet`: the raw data of nnU-Net v2: imagesTr/KEY_0000.EXT (a file for each channel), labelsTr/KEY.EXT, dataset.json.

Labels are 0 (background), 1, 2 ... and, where pixels count nowhere, `ignore` as the highest. Pictures are PNG (TIFF where the data hold
TIFF, which may be float), volumes .nii.gz with the geometry of their source. The test split goes to imagesTs/ and labelsTs/; train and
val are the one fold of splits_final.json. Where nothing is split but images have groups, its folds keep groups whole.
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
class _Plan:
    """What holds for all items. `numbers`: (256,) the label of each class id."""

    out: Path
    classes: ClassTable
    numbers: npt.NDArray[np.uint8]
    ending: str
    channels: int
    limits: DataParams


def write_nnunet(dataset: Dataset, out: Path, limits: DataParams, report: ExportReport, jobs: int | None) -> None:
    """Write the layout. An image with other channels than the first one, or a picture among volumes, is left out."""
    labels, numbers = _numbering(dataset.classes, report)
    ending = _ending(dataset)
    channels = read_image(dataset.items[0].image, limits).shape[-1]
    for name in ("imagesTr", "labelsTr"):
        (out / name).mkdir()
    if any(item.split == "test" for item in dataset.items):
        for name in ("imagesTs", "labelsTs"):
            (out / name).mkdir()
    report.losses["images whose objects have no place here, their classes alone"] += sum(
        item.instances is not None for item in dataset.items
    )
    plan = _Plan(out, dataset.classes, numbers, ending, channels, limits)
    done = []
    for item, losses in map_items(partial(_write_item, plan), dataset.items, report, jobs):
        report.losses += losses
        done.append(item)
    training = [item for item in done if item.split != "test"]
    content: dict[str, Any] = {
        "channel_names": _channel_names(channels, ending),
        "labels": labels,
        "numTraining": len(training),
        "file_ending": ending,
    }
    write_json(out / "dataset.json", content)
    folds = _folds(training, report)
    if folds:
        write_json(out / "splits_final.json", folds)


def _numbering(classes: ClassTable, report: ExportReport) -> tuple[dict[str, int], npt.NDArray[np.uint8]]:
    """nnU-Net's labels, and the label of each class id. Its background is 0 and has that very name; `ignore` is the last."""
    ground = background_of(classes)
    order = [c for c in range(len(classes)) if c != ground]
    if clash := [classes.names[c] for c in order if classes.names[c] in ("background", "ignore")]:
        raise DataError(
            "nnU-Net means something else by this name of a class",
            found=", ".join(clash),
            fix="rename it in data/dataset.yaml",
        )
    if ground is None:
        report.notes.append("nnU-Net wants a background: label 0 is one, without pixels")
    elif classes.names[ground] != "background":
        report.losses[f"the name {classes.names[ground]}: nnU-Net calls it background"] += 1
    renumbered = sum(classes.classes[c].value != number for number, c in enumerate(order, start=1))
    report.losses["classes whose pixel value is another here"] += renumbered
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


def _channel_names(channels: int, ending: str) -> dict[str, str]:
    colours = channels == 3 and ending != _VOLUME
    return {str(k): "RGB"[k] if colours else f"channel {k}" for k in range(channels)}


def _write_item(plan: _Plan, item: Item) -> Counter[str]:
    if item.key != Path(item.key).name:
        raise DataError("its key is no file name", found=item.key)
    labels = read_labels(item, plan.classes, plan.limits)
    if labels.losses and not plan.classes.ignore:
        raise DataError(
            "has pixels of unknown values, and no value is ignored",
            fix="correct the mask, or name the value in dataset.yaml",
        )
    image = read_image(item.image, plan.limits)
    if image.shape[:-1] != labels.class_ids.shape or (image.ndim == 4) != (plan.ending == _VOLUME):
        raise DataError(
            "image and mask do not fit each other, or the rest of the data",
            found=f"{image.shape}, {labels.class_ids.shape}",
        )
    if image.shape[-1] != plan.channels:
        raise DataError("has other channels than the first image", found=image.shape[-1], expected=plan.channels)
    part = "Ts" if item.split == "test" else "Tr"
    geometry = None
    if plan.ending == _VOLUME:
        geometry = decode_geometry(read_bytes(item.image, max_bytes(plan.limits)), str(item.image))
        labels.losses["volumes without a voxel size, written with 1 mm"] += geometry is None
    folder = plan.out / f"images{part}"
    if plan.channels == 1 and suffix_of(item.image) == plan.ending == _VOLUME:
        copy_file(item.image, folder / f"{item.key}_0000{_VOLUME}")
    else:
        for k in range(plan.channels):
            (folder / f"{item.key}_{k:04d}{plan.ending}").write_bytes(_encode(image[..., k], plan.ending, geometry))
    numbers = plan.numbers[labels.class_ids]
    (plan.out / f"labels{part}" / f"{item.key}{plan.ending}").write_bytes(_encode(numbers, plan.ending, geometry))
    return +labels.losses


def _encode(plane: np.ndarray, ending: str, geometry: Geometry | None) -> bytes:
    if ending == _VOLUME:
        return encode_nifti(plane, geometry)
    if ending == ".tif":
        return encode_tiff(plane[:, :, None])
    if plane.dtype == np.float32:
        raise DataError("has float pixels, and PNG holds none", fix="store all images of the data as TIFF")
    return encode_png(plane)


def _folds(items: list[Item], report: ExportReport) -> list[dict[str, list[str]]]:
    """The folds of splits_final.json; none where nnU-Net may draw its own."""
    if any(item.split for item in items):
        report.losses["images whose group has no place beside a split that is given"] += sum(
            item.group is not None for item in items
        )
        report.losses["images without a split, counted to train"] += sum(item.split is None for item in items)
        val = [item.key for item in items if item.split == "val"]
        return [{"train": [item.key for item in items if item.split != "val"], "val": val}]
    if not any(item.group for item in items):
        return []
    rows = [{"key": item.key, "group": item.group, "sha256": None} for item in items]
    numbers = assign_folds(rows, SplitParams(folds=FOLDS))  # type: ignore[call-arg]
    used = sorted({number for number in numbers if number is not None})
    if len(used) < 2:
        return []
    report.losses["images whose group only shows in the folds"] += sum(item.group is not None for item in items)
    placed = list(zip(items, numbers, strict=True))
    return [
        {"train": [i.key for i, n in placed if n != fold], "val": [i.key for i, n in placed if n == fold]}
        for fold in used
    ]

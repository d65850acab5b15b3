"""Export format `voc`: JPEGImages/, palette PNGs in SegmentationClass/ and SegmentationObject/, ImageSets/, and labelmap.txt.

Pixel values are class ids, which number the lines of labelmap.txt; 255 (void) marks ignored pixels. Tools that read masks by colour
find the colours of labelmap.txt in the palettes. The splits are ImageSets/Segmentation/SPLIT.txt. Instances are numbered from 1 in each
image; an image with more instances than a palette has entries gets a 16-bit grey file.
"""

from __future__ import annotations

import io
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from segpipe.config import DataParams
from segpipe.data.dataset import Dataset, Item
from segpipe.data.exporters.labels import copy_image, read_2d_labels
from segpipe.data.exporters.report import ExportReport
from segpipe.data.exporters.workers import map_items
from segpipe.data.formats.masks.palette_files import voc_color
from segpipe.data.formats.masks.palettes import IGNORED_NAMES
from segpipe.data.images import encode_png
from segpipe.errors import DataError
from segpipe.files import safe_name, write_text
from segpipe.samples import IGNORE, ClassTable

VOID = 255
_CLASS_FOLDER, _INSTANCE_FOLDER, _LIST_FOLDER = "SegmentationClass", "SegmentationObject", "ImageSets/Segmentation"
Palette = npt.NDArray[np.uint8]
"""(256, 3), RGB."""


def write_voc(dataset: Dataset, out: Path, limits: DataParams, report: ExportReport, jobs: int | None) -> None:
    """Write the dataset.

    Raises:
        DataError: if labelmap.txt cannot contain the name of a class.
    """
    colors = _class_colors(dataset.classes, report)
    write_text(out / "labelmap.txt", _label_map(dataset.classes, colors))
    has_instances = any(item.instances for item in dataset.items)
    for name in ("JPEGImages", _CLASS_FOLDER, *([_INSTANCE_FOLDER] if has_instances else []), _LIST_FOLDER):
        (out / name).mkdir(parents=True)
    _count_losses(dataset, report)
    names = _names(dataset, report)
    lists: dict[str, list[str]] = {}
    work = partial(_write_item, out, names, dataset.classes, colors, limits)
    items = [item for item in dataset.items if item.key in names]
    for item, losses in map_items(work, items, report, jobs):
        report.losses += losses
        lists.setdefault(item.split or "", []).append(names[item.key])
    for split, keys in lists.items():
        if split:
            write_text(out / _LIST_FOLDER / f"{split}.txt", "".join(f"{key}\n" for key in keys))


def _count_losses(dataset: Dataset, report: ExportReport) -> None:
    report.losses["images whose group is not stored"] += sum(item.group is not None for item in dataset.items)
    renumbered = sum(spec.value != index for index, spec in enumerate(dataset.classes.classes))
    report.losses["classes whose pixel value changes to their position in labelmap.txt"] += renumbered
    report.losses["ignored pixel values, now 255"] += sum(value != VOID for value in dataset.classes.ignore)


def _names(dataset: Dataset, report: ExportReport) -> dict[str, str]:
    """Choose a file name without blanks for each key, because readers of the lists split lines at blanks.

    An image whose name without blanks is taken is left out.
    """
    names: dict[str, str] = {}
    taken = {item.key for item in dataset.items}
    for item in dataset.items:
        name = item.key if len(item.key.split()) == 1 else safe_name(item.key)
        if name != item.key and name in taken:
            report.left_out.append((item.key, "its name contains blanks, and the name without them is taken"))
            continue
        report.losses["names whose blanks are replaced"] += name != item.key
        taken.add(name)
        names[item.key] = name
    return names


def _write_item(
    out: Path, names: dict[str, str], classes: ClassTable, colors: Palette, limits: DataParams, item: Item
) -> Counter[str]:
    name = names[item.key]
    labels = read_2d_labels(item, classes, limits)
    losses = labels.losses
    (out / _CLASS_FOLDER / f"{name}.png").write_bytes(palette_png(labels.class_ids, colors))  # VOID equals IGNORE
    if labels.instances is not None:
        losses["pixels of instances that the mask marks as ignored"] += int(
            (labels.instances[labels.class_ids == IGNORE] > 0).sum()
        )
        numbers = _renumbered(labels.instances)
        content = palette_png(numbers.astype(np.uint8), _voc_colors()) if numbers.max() < VOID else encode_png(numbers)
        (out / _INSTANCE_FOLDER / f"{name}.png").write_bytes(content)
    copy_image(item, out / "JPEGImages", limits, losses, name)
    return losses


def palette_png(indices: npt.NDArray[np.uint8], colors: Palette) -> bytes:
    """Encode indices (H, W) with a palette (256, 3), RGB, as PNG; return its bytes."""
    image = Image.fromarray(indices, mode="L")
    image.putpalette(colors.tobytes())
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()


def _renumbered(instances: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """Renumber instances as 1, 2, 3 ..., without 255, which means void."""
    ids, index = np.unique(instances, return_inverse=True)
    numbers = np.arange(len(ids)) + (0 if ids[0] == 0 else 1)
    numbers += numbers >= VOID
    if numbers[-1] > np.iinfo(np.uint16).max:
        raise DataError("too many instances in an image", found=len(ids))
    return numbers.astype(np.uint16)[index].reshape(instances.shape)


def _voc_colors() -> Palette:
    return np.array([voc_color(index) for index in range(256)], np.uint8)


def _class_colors(classes: ClassTable, report: ExportReport) -> Palette:
    """Return the palette: the colours of the classes by class id, then those of VOC.

    A class whose colour is taken gets the next free colour of VOC.
    """
    colors = _voc_colors()
    taken = {voc_color(VOID)}
    spare = iter(map(voc_color, range(256)))
    class_colors = {spec.color for spec in classes.classes}
    for index, spec in enumerate(classes.classes):
        color = spec.color
        if color in taken:
            color = next(free for free in spare if free not in taken | class_colors)
            report.losses["class colours changed because another class has the same"] += 1
        taken.add(color)
        colors[index] = color
    return colors


def _label_map(classes: ClassTable, colors: Palette) -> str:
    lines = ["# label:color_rgb:parts:actions"]
    for name, color in zip(classes.names, colors.tolist(), strict=False):
        valid = name == name.strip(" \"'") and name[0] != "#" and not name[0].isdigit() and name.isprintable()
        if not valid or ":" in name or name.lower() in IGNORED_NAMES:
            raise DataError(
                "labelmap.txt cannot contain the name of a class",
                found=repr(name),
                expected="a name that begins with a letter, without colons and quotes",
                fix="rename it in data/dataset.yaml",
            )
        lines.append(f"{name}:{','.join(map(str, color))}::")
    lines.append(f"void:{','.join(map(str, voc_color(VOID)))}::")
    return "\n".join(lines) + "\n"

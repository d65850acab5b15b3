"""`voc`: JPEGImages/, SegmentationClass/ and SegmentationObject/ as palette PNGs, ImageSets/Segmentation/SPLIT.txt, labelmap.txt.

Pixel values are class ids, the lines of labelmap.txt in order, and 255 (void) counts nowhere; whoever reads masks by colour finds the
colours of labelmap.txt in the palettes. Objects are numbered anew in each image; where there are more than a palette holds, their
mask is 16-bit grey.
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
from segpipe.data.exporters.labels import copy_file, read_flat_labels
from segpipe.data.exporters.report import ExportReport
from segpipe.data.exporters.workers import map_items
from segpipe.data.formats.masks.palette_files import voc_color
from segpipe.data.formats.masks.palettes import IGNORED_NAMES
from segpipe.data.images import encode_png, suffix_of
from segpipe.errors import DataError
from segpipe.files import safe_name, write_text
from segpipe.samples import IGNORE, ClassTable

VOID = 255
_CLASSES, _OBJECTS, _LISTS = "SegmentationClass", "SegmentationObject", "ImageSets/Segmentation"
Palette = npt.NDArray[np.uint8]


def write_voc(dataset: Dataset, out: Path, limits: DataParams, report: ExportReport, jobs: int | None) -> None:
    """Write the layout. Raises DataError for a class whose name cannot stand in labelmap.txt."""
    colors = _colors(dataset.classes, report)
    write_text(out / "labelmap.txt", _label_map(dataset.classes, colors))
    objects = any(item.instances for item in dataset.items)
    for name in ("JPEGImages", _CLASSES, *([_OBJECTS] if objects else []), _LISTS):
        (out / name).mkdir(parents=True)
    _tell_losses(dataset, report)
    names = _names(dataset, report)
    lists: dict[str, list[str]] = {}
    work = partial(_write_item, out, names, dataset.classes, colors, limits)
    kept = [item for item in dataset.items if item.key in names]
    for item, losses in map_items(work, kept, report, jobs):
        report.losses += losses
        lists.setdefault(item.split or "", []).append(names[item.key])
    for split, keys in lists.items():
        if split:
            write_text(out / _LISTS / f"{split}.txt", "".join(f"{key}\n" for key in keys))


def _tell_losses(dataset: Dataset, report: ExportReport) -> None:
    report.losses["images whose group has no place here"] += sum(item.group is not None for item in dataset.items)
    renumbered = sum(spec.value != index for index, spec in enumerate(dataset.classes.classes))
    report.losses["classes whose pixel value is another here (their place in labelmap.txt)"] += renumbered
    report.losses["ignored pixel values, one here (255)"] += sum(value != VOID for value in dataset.classes.ignore)


def _names(dataset: Dataset, report: ExportReport) -> dict[str, str]:
    """A file name without blanks for each key (the lists are cut at blanks); a key for which there is none is left out."""
    names: dict[str, str] = {}
    taken = {item.key for item in dataset.items}
    for item in dataset.items:
        name = item.key if len(item.key.split()) == 1 else safe_name(item.key)
        if name != item.key and name in taken:
            report.left_out.append((item.key, "its name has blanks, and the name without them is taken"))
            continue
        report.losses["blanks in names, replaced"] += name != item.key
        taken.add(name)
        names[item.key] = name
    return names


def _write_item(
    out: Path, names: dict[str, str], classes: ClassTable, colors: Palette, limits: DataParams, item: Item
) -> Counter[str]:
    name = names[item.key]
    labels = read_flat_labels(item, classes, limits)
    losses = labels.losses
    (out / _CLASSES / f"{name}.png").write_bytes(palette_png(labels.class_ids, colors))  # IGNORE is VOID
    if labels.instances is not None:
        losses["pixels of objects where the mask says ignore"] += int(
            (labels.instances[labels.class_ids == IGNORE] > 0).sum()
        )
        numbers = _numbered(labels.instances)
        content = (
            palette_png(numbers.astype(np.uint8), _object_colors()) if numbers.max() < VOID else encode_png(numbers)
        )
        (out / _OBJECTS / f"{name}.png").write_bytes(content)
    copy_file(item.image, out / "JPEGImages" / f"{name}{suffix_of(item.image)}")
    return losses


def palette_png(indices: npt.NDArray[np.uint8], colors: Palette) -> bytes:
    """(H, W) indices and (256, 3) RGB colours -> the bytes of a palette PNG."""
    image = Image.fromarray(indices, mode="L")
    image.putpalette(colors.tobytes())
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()


def _numbered(instances: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """Object ids as 1, 2, 3 ..., 255 left out: it means void."""
    found, places = np.unique(instances, return_inverse=True)
    numbers = np.arange(len(found)) + (0 if found[0] == 0 else 1)
    numbers += numbers >= VOID
    if numbers[-1] > np.iinfo(np.uint16).max:
        raise DataError("too many objects in an image", found=len(found))
    return numbers.astype(np.uint16)[places].reshape(instances.shape)


def _object_colors() -> Palette:
    return np.array([voc_color(index) for index in range(256)], np.uint8)


def _colors(classes: ClassTable, report: ExportReport) -> Palette:
    """(256, 3): the colours of the classes by class id, then VOC's own. A colour that is taken gives way to a free one of VOC's."""
    colors = _object_colors()
    taken = {voc_color(VOID)}
    spare = iter(map(voc_color, range(256)))
    wanted = {spec.color for spec in classes.classes}
    for index, spec in enumerate(classes.classes):
        color = spec.color
        if color in taken:
            color = next(free for free in spare if free not in taken | wanted)
            report.losses["class colours that another class has, changed"] += 1
        taken.add(color)
        colors[index] = color
    return colors


def _label_map(classes: ClassTable, colors: Palette) -> str:
    lines = ["# label:color_rgb:parts:actions"]
    for name, color in zip(classes.names, colors.tolist(), strict=False):
        plain = name == name.strip(" \"'") and name[0] != "#" and not name[0].isdigit() and name.isprintable()
        if not plain or ":" in name or name.lower() in IGNORED_NAMES:
            raise DataError(
                "the name of a class cannot stand in labelmap.txt", found=repr(name),
                expected="a name that begins with a letter, without colons and quotes", fix="rename it in data/dataset.yaml",
            )
        lines.append(f"{name}:{','.join(map(str, color))}::")
    lines.append(f"void:{','.join(map(str, voc_color(VOID)))}::")
    return "\n".join(lines) + "\n"

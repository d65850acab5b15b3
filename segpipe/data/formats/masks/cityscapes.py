"""`cityscapes`: streets in many cities, with the official ids.

```
SRC/leftImg8bit/SPLIT/CITY/*_leftImg8bit.png
SRC/gtFine/SPLIT/CITY/*_gtFine_labelIds.png (or *_labelTrainIds.png), *_gtFine_instanceIds.png
```

The 19 classes of the benchmark get their train ids as values; everything else counts nowhere. A city is a group.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from segpipe.config import DataParams
from segpipe.data.formats.source import Drawing, RawItem, ReadOptions, ReadResult, check_size
from segpipe.data.images import read_mask
from segpipe.data.splits import SPLITS
from segpipe.errors import DataError
from segpipe.samples import ClassSpec, ClassTable

_IMAGES, _LABELS = "leftImg8bit", "gtFine"
_VOID = 255
_PER_CLASS = 1000
"""An instance's id is its class's id times this, plus its number; smaller ids are regions that are no single object."""


class Label(NamedTuple):
    """A class of the benchmark."""

    name: str
    id: int
    color: tuple[int, int, int]


BENCHMARK_LABELS = (
    Label("road", 7, (128, 64, 128)), Label("sidewalk", 8, (244, 35, 232)), Label("building", 11, (70, 70, 70)),
    Label("wall", 12, (102, 102, 156)), Label("fence", 13, (190, 153, 153)), Label("pole", 17, (153, 153, 153)),
    Label("traffic light", 19, (250, 170, 30)), Label("traffic sign", 20, (220, 220, 0)), Label("vegetation", 21, (107, 142, 35)),
    Label("terrain", 22, (152, 251, 152)), Label("sky", 23, (70, 130, 180)), Label("person", 24, (220, 20, 60)),
    Label("rider", 25, (255, 0, 0)), Label("car", 26, (0, 0, 142)), Label("truck", 27, (0, 0, 70)), Label("bus", 28, (0, 60, 100)),
    Label("train", 31, (0, 80, 100)), Label("motorcycle", 32, (0, 0, 230)), Label("bicycle", 33, (119, 11, 32)),
)
"""The classes of the benchmark in the order of their train ids."""

CLASSES = ClassTable(
    classes=tuple(ClassSpec(name=label.name, value=place, color=label.color) for place, label in enumerate(BENCHMARK_LABELS)),
    ignore=(_VOID,),
)


def recognise_cityscapes(source: Path) -> str | None:
    """Why `source` is of this layout: both folders, with splits and cities in them; None where it is not."""
    if any((source / _IMAGES / split).is_dir() and (source / _LABELS / split).is_dir() for split in SPLITS):
        return f"{_IMAGES}/SPLIT/CITY/ with {_LABELS}/SPLIT/CITY/"
    return None


def read_cityscapes(source: Path, options: ReadOptions) -> ReadResult:
    """Read the layout; DataError where there are no such folders."""
    if not (source / _IMAGES).is_dir() or not (source / _LABELS).is_dir():
        raise DataError(
            f"no {_IMAGES}/ with {_LABELS}/", where=source, expected="both, as the archives of Cityscapes unpack",
            fix="unpack them here, or choose another --format",
        )
    found = ReadResult([], CLASSES, classes_from="the 19 of Cityscapes")
    for folder in sorted(path for path in (source / _IMAGES).iterdir() if path.is_dir()):
        if folder.name not in SPLITS:
            found.skipped.append((f"{_IMAGES}/{folder.name}/", f"no split with {_LABELS}"))
            continue
        for image in sorted(folder.glob(f"*/*_{_IMAGES}.png")):
            found.items.append(_item(source, image, folder.name, options.limits))
    return found


def _item(source: Path, image: Path, split: str, limits: DataParams) -> RawItem:
    city, frame = image.parent.name, image.name.removesuffix(f"_{_IMAGES}.png")
    labels = {
        kind: source / _LABELS / split / city / f"{frame}_{_LABELS}_{kind}.png"
        for kind in ("labelIds", "labelTrainIds", "instanceIds")
    }
    there = {kind: path for kind, path in labels.items() if path.is_file()}
    name = f"{split}/{city}/{frame}"
    if "labelIds" not in there and "labelTrainIds" not in there:
        return RawItem(name, image, group=city, split=split)
    draw = _Frame(there.get("labelIds"), there.get("labelTrainIds"), there.get("instanceIds"), limits)
    return RawItem(name, image, group=city, split=split, draw=draw)


@dataclass(frozen=True)
class _Frame:
    """Draws the labels of a frame from its files, label ids first (a `segpipe.data.formats.source.Draw`)."""

    label_ids: Path | None
    train_ids: Path | None
    instance_ids: Path | None
    limits: DataParams

    def __call__(self, height: int, width: int) -> Drawing:
        path = self.label_ids or self.train_ids
        assert path is not None
        stored = read_mask(path, self.limits)
        check_size(path, stored, height, width)
        if stored.dtype != np.uint8:
            raise DataError("is no map of ids", where=path, found=stored.dtype, expected="8 bits")
        mask = _table(path == self.label_ids)[stored]
        if self.instance_ids is None:
            return Drawing(mask)
        instances = read_mask(self.instance_ids, self.limits).astype(np.uint16)
        check_size(self.instance_ids, instances, height, width)
        instances[(instances < _PER_CLASS) | (mask == _VOID)] = 0
        return Drawing(mask, instances)


def _table(from_ids: bool) -> np.ndarray:
    """Train ids, (256,), by label id or by train id."""
    table = np.full(256, _VOID, np.uint8)
    for place, label in enumerate(BENCHMARK_LABELS):
        table[label.id if from_ids else place] = place
    return table

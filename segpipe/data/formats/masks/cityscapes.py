"""`cityscapes`: street scenes of many cities, with the official label ids.

```
SRC/leftImg8bit/SPLIT/CITY/*_leftImg8bit.png
SRC/gtFine/SPLIT/CITY/*_gtFine_labelIds.png (or *_labelTrainIds.png), *_gtFine_instanceIds.png
```

The 19 classes of the benchmark get their train ids as values; everything else is ignored. Each city is a group.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from segpipe.config import DataParams
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.source import Drawing, RawItem, ReadOptions, ReadResult, check_size
from segpipe.data.images import read_mask
from segpipe.data.splits import SPLITS
from segpipe.errors import DataError
from segpipe.samples import ClassSpec, ClassTable

_IMAGES, _LABELS = "leftImg8bit", "gtFine"
_VOID = 255
_IDS_PER_CLASS = 1000
"""An instance id is the label id times this, plus a number; smaller ids mark regions that are not single instances."""


class Label(NamedTuple):
    """A class of the benchmark: its name, its official label id and its colour (RGB)."""

    name: str
    id: int
    color: tuple[int, int, int]


BENCHMARK_LABELS = (
    Label("road", 7, (128, 64, 128)),
    Label("sidewalk", 8, (244, 35, 232)),
    Label("building", 11, (70, 70, 70)),
    Label("wall", 12, (102, 102, 156)),
    Label("fence", 13, (190, 153, 153)),
    Label("pole", 17, (153, 153, 153)),
    Label("traffic light", 19, (250, 170, 30)),
    Label("traffic sign", 20, (220, 220, 0)),
    Label("vegetation", 21, (107, 142, 35)),
    Label("terrain", 22, (152, 251, 152)),
    Label("sky", 23, (70, 130, 180)),
    Label("person", 24, (220, 20, 60)),
    Label("rider", 25, (255, 0, 0)),
    Label("car", 26, (0, 0, 142)),
    Label("truck", 27, (0, 0, 70)),
    Label("bus", 28, (0, 60, 100)),
    Label("train", 31, (0, 80, 100)),
    Label("motorcycle", 32, (0, 0, 230)),
    Label("bicycle", 33, (119, 11, 32)),
)
"""The classes of the benchmark in the order of their train ids
(https://github.com/mcordts/cityscapesScripts/blob/master/cityscapesscripts/helpers/labels.py)."""

CLASSES = ClassTable(
    classes=tuple(
        ClassSpec(name=label.name, value=train_id, color=label.color) for train_id, label in enumerate(BENCHMARK_LABELS)
    ),
    ignore=(_VOID,),
)


def recognise_cityscapes(probe: SourceProbe) -> str | None:
    """Return why the source has this layout: folders of images and of labels with the same splits. None otherwise."""
    is_folder, source = probe.listing.is_folder, probe.source
    if any(is_folder(source / _IMAGES / split) and is_folder(source / _LABELS / split) for split in SPLITS):
        return f"{_IMAGES}/SPLIT/CITY/ with {_LABELS}/SPLIT/CITY/"
    return None


def read_cityscapes(probe: SourceProbe, options: ReadOptions) -> ReadResult:
    """Read the layout.

    Raises:
        DataError: one of the two folders is missing.
    """
    source, listing = probe.source, probe.listing
    if not listing.is_folder(source / _IMAGES) or not listing.is_folder(source / _LABELS):
        raise DataError(
            f"no {_IMAGES}/ with {_LABELS}/",
            where=source,
            expected="both, as the archives of Cityscapes unpack",
            fix="unpack them here, or choose another --format",
        )
    result = ReadResult([], CLASSES, classes_from="the 19 classes of Cityscapes")
    for folder in listing.folders(source / _IMAGES):
        if folder.name not in SPLITS:
            result.skipped.append((f"{_IMAGES}/{folder.name}/", f"not a split with {_LABELS}"))
            continue
        for city in listing.folders(folder):
            images = listing.matching(city, f"*_{_IMAGES}.png")
            result.items += [_item(probe, image, folder.name, options.limits) for image in images]
    return result


def _item(probe: SourceProbe, image: Path, split: str, limits: DataParams) -> RawItem:
    city, frame = image.parent.name, image.name.removesuffix(f"_{_IMAGES}.png")
    labels = {
        kind: probe.source / _LABELS / split / city / f"{frame}_{_LABELS}_{kind}.png"
        for kind in ("labelIds", "labelTrainIds", "instanceIds")
    }
    files = {kind: path for kind, path in labels.items() if probe.listing.is_file(path)}
    name = f"{split}/{city}/{frame}"
    if "labelIds" not in files and "labelTrainIds" not in files:
        return RawItem(name, image, group=city, split=split)
    draw = _FrameLabels(files.get("labelIds"), files.get("labelTrainIds"), files.get("instanceIds"), limits)
    return RawItem(name, image, group=city, split=split, draw=draw)


@dataclass(frozen=True)
class _FrameLabels:
    """Draws the labels of a frame from its files, preferably from label ids (a `segpipe.data.formats.source.Draw`)."""

    label_ids: Path | None
    train_ids: Path | None
    instance_ids: Path | None
    limits: DataParams

    def __call__(self, height: int, width: int) -> Drawing:
        path = self.label_ids or self.train_ids
        assert path is not None
        ids = read_mask(path, self.limits)
        check_size(path, ids, height, width)
        if ids.dtype != np.uint8:
            raise DataError("is not a map of label ids", where=path, found=ids.dtype, expected="8 bits")
        mask = _train_ids(from_label_ids=path == self.label_ids)[ids]
        if self.instance_ids is None:
            return Drawing(mask)
        instances = read_mask(self.instance_ids, self.limits).astype(np.uint16)
        check_size(self.instance_ids, instances, height, width)
        instances[(instances < _IDS_PER_CLASS) | (mask == _VOID)] = 0
        return Drawing(mask, instances)


def _train_ids(from_label_ids: bool) -> np.ndarray:
    """Return the train id, (256,), for each label id or, for files of train ids, for each train id."""
    table = np.full(256, _VOID, np.uint8)
    for train_id, label in enumerate(BENCHMARK_LABELS):
        table[label.id if from_label_ids else train_id] = train_id
    return table

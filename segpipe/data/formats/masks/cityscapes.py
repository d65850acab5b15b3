"""`cityscapes`: street scenes of many cities, with the official label ids.

```
SRC/leftImg8bit/SPLIT/CITY/*_leftImg8bit.png
SRC/gtFine/SPLIT/CITY/*_gtFine_labelIds.png (or *_labelTrainIds.png), *_gtFine_instanceIds.png
```

The 19 classes of the benchmark get their train ids as values; everything else is ignored. Each city is a group.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from segpipe.config import DataParams
from segpipe.data.formats.annotations.cityscapes_polygons import PolygonLabels, base_label, read_labels
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.source import Drawing, RawItem, ReadOptions, ReadResult, check_size
from segpipe.data.images import read_mask, stem_of
from segpipe.data.splits import SPLITS
from segpipe.errors import DataError
from segpipe.samples import MAX_CLASSES, ClassSpec, ClassTable, default_color

_IMAGES, _LABELS = "leftImg8bit", ("gtFine", "gtCoarse")
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

_VOID_LABELS = frozenset(
    (
        "unlabeled",
        "ego vehicle",
        "rectification border",
        "out of roi",
        "static",
        "dynamic",
        "ground",
        "parking",
        "rail track",
        "guard rail",
        "bridge",
        "tunnel",
        "polegroup",
        "caravan",
        "trailer",
        "license plate",
    )
)
"""The labels of Cityscapes that its benchmark ignores."""
_INSTANCE_LABELS = frozenset(("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"))

CLASSES = ClassTable(
    classes=tuple(
        ClassSpec(name=label.name, value=train_id, color=label.color) for train_id, label in enumerate(BENCHMARK_LABELS)
    ),
    ignore=(_VOID,),
)


@dataclass(frozen=True)
class _Roots:
    """The folders of splits of images and of labels, and the name of the labels (`gtFine`, or `gtCoarse` if there is no other)."""

    images: Path
    labels: Path
    name: str


def recognise_cityscapes(probe: SourceProbe) -> str | None:
    """Return why the source has this layout: folders of images and of labels with the same splits. None otherwise."""
    roots, is_folder = _find_roots(probe), probe.listing.is_folder
    if roots and any(is_folder(roots.images / split) and is_folder(roots.labels / split) for split in SPLITS):
        names = [path.relative_to(probe.source).as_posix() for path in (roots.images, roots.labels)]
        return f"{names[0]}/SPLIT/CITY/ with {names[1]}/SPLIT/CITY/"
    return None


def read_cityscapes(probe: SourceProbe, options: ReadOptions) -> ReadResult:
    """Read the layout. Polygons are drawn where there are no maps of label ids.

    Raises:
        DataError: one of the two folders is missing.
    """
    roots, listing = _find_roots(probe), probe.listing
    if roots is None:
        raise DataError(
            f"no {_IMAGES}/ with {_LABELS[0]}/",
            where=probe.source,
            expected="both, as the archives of Cityscapes unpack",
            fix="unpack them here, or choose another --format",
        )
    result = ReadResult([], CLASSES, classes_from="the 19 classes of Cityscapes")
    frames: list[_Frame] = []
    for folder in listing.folders(roots.images):
        if folder.name not in SPLITS:
            result.skipped.append((f"{_IMAGES}/{folder.name}/", f"not a split with {roots.name}"))
            continue
        for city in listing.folders(folder):
            images = [p for p in listing.image_files(city) if stem_of(p).endswith(f"_{_IMAGES}")]
            frames += [_frame(probe, roots, image, folder.name) for image in images]
    numbering = _numbering([frame.polygons for frame in frames if frame.polygons], result)
    result.items = [_item(frame, numbering, options.limits) for frame in frames]
    return result


def _find_roots(probe: SourceProbe) -> _Roots | None:
    """Return the folders of images and labels in the source, or in the folders of the archives side by side."""
    listing, source = probe.listing, probe.source
    parents = [source, *listing.folders(source)]
    images = next((p / _IMAGES for p in parents if listing.is_folder(p / _IMAGES)), None)
    labels = [(p / name, name) for name in _LABELS for p in parents if listing.is_folder(p / name)]
    return _Roots(images, *labels[0]) if images and labels else None


@dataclass(frozen=True)
class _Frame:
    """An image with the files of its labels, by their kind; `polygons` only where there is no map of ids."""

    image: Path
    name: str
    split: str
    files: dict[str, Path]
    polygons: Path | None


@dataclass(frozen=True)
class _Numbering:
    """The file value of each label of polygons, and the labels that are instances."""

    values: tuple[tuple[str, int], ...]
    instances: frozenset[str]


def _numbering(polygons: list[Path], result: ReadResult) -> _Numbering:
    """Return the values of the labels: those of Cityscapes, or one for each name if others occur. The result gets the classes."""
    known = {label.name: train_id for train_id, label in enumerate(BENCHMARK_LABELS)}
    labels: Counter[str] = Counter()
    for path in polygons:
        try:
            labels.update(read_labels(path))
        except DataError:  # drawing it reports the error
            continue
    classes = {base_label(label, known) for label in labels if label and label not in _VOID_LABELS}
    if not classes - known.keys():
        return _Numbering(tuple(known.items()), _INSTANCE_LABELS & known.keys())
    names = sorted(classes)
    if len(names) >= MAX_CLASSES or len(names) < 2:
        raise DataError("too few or too many labels of polygons", found=len(names), expected=f"2 to {MAX_CLASSES - 1}")
    colours = {label.name: label.color for label in BENCHMARK_LABELS}
    result.classes = ClassTable(
        classes=tuple(
            ClassSpec(name=name, value=value, color=colours.get(name, default_color(value)))
            for value, name in enumerate(names)
        ),
        ignore=(_VOID,),
    )
    result.classes_from = "the labels of the polygons"
    return _Numbering(tuple((name, value) for value, name in enumerate(names)), frozenset())


def _frame(probe: SourceProbe, roots: _Roots, image: Path, split: str) -> _Frame:
    city, stem = image.parent.name, stem_of(image).removesuffix(f"_{_IMAGES}")
    folder = roots.labels / split / city
    paths = {kind: folder / f"{stem}_{roots.name}_{kind}.png" for kind in ("labelIds", "labelTrainIds", "instanceIds")}
    files = {kind: path for kind, path in paths.items() if probe.listing.is_file(path)}
    polygons = folder / f"{stem}_{roots.name}_polygons.json"
    has_ids = not {"labelIds", "labelTrainIds"}.isdisjoint(files)
    only_polygons = polygons if not has_ids and probe.listing.is_file(polygons) else None
    return _Frame(image, f"{split}/{city}/{stem}", split, files, only_polygons)


def _item(frame: _Frame, numbering: _Numbering, limits: DataParams) -> RawItem:
    city, files = frame.image.parent.name, frame.files
    item = RawItem(frame.name, frame.image, group=city, split=frame.split)
    if frame.polygons:
        draw = PolygonLabels(frame.polygons, numbering.values, numbering.instances, _VOID)
        return replace(item, draw=draw)
    if "labelIds" not in files and "labelTrainIds" not in files:
        return item
    labels = _FrameLabels(files.get("labelIds"), files.get("labelTrainIds"), files.get("instanceIds"), limits)
    return replace(item, draw=labels)


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

"""`mask-per-instance`: one folder per image, with one mask file per instance (Data Science Bowl 2018).

```
SRC/ID/images/ID.png  SRC/ID/masks/*.png     also below train/, val/, test/ (stage1_train/ and the like)
```
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segpipe.config import DataParams
from segpipe.data.formats.mask_labels import INSTANCE_CLASSES
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.source import Drawing, RawItem, ReadOptions, ReadResult, check_size
from segpipe.data.images import read_image
from segpipe.data.splits import SPLITS
from segpipe.errors import DataError

OVERLAP = "pixels where instances overlap: the smaller instance is kept"
EMPTY = "masks without a set pixel"
_MAX_FOLDERS_CHECKED = 20
_MAX_INSTANCES = 65535


def recognise_mask_per_instance(probe: SourceProbe) -> str | None:
    """Return why the source has this layout: most folders have one image and masks of instances. None otherwise."""
    image_files = probe.listing.image_files
    folders = [folder for _, folder in itertools.islice(_item_folders(probe), _MAX_FOLDERS_CHECKED)]
    fitting = [f for f in folders if len(image_files(f / "images")) == 1 and image_files(f / "masks")]
    if not fitting or 2 * len(fitting) < len(folders):
        return None
    return f"{fitting[0].relative_to(probe.source).as_posix()}/ with one image in images/ and its instances in masks/"


def read_mask_per_instance(probe: SourceProbe, options: ReadOptions) -> ReadResult:
    """Read the layout. A folder that does not have exactly one image is left out.

    Raises:
        DataError: no folder has this layout.
    """
    result = ReadResult([], INSTANCE_CLASSES, classes_from="one class for all instances")
    items_by_parent: dict[str, list[RawItem]] = {}
    for split, folder in _item_folders(probe):
        images, masks = (probe.listing.image_files(folder / name) for name in ("images", "masks"))
        name = folder.relative_to(probe.source).as_posix()
        if len(images) != 1:
            result.skipped.append((f"{name}/images/", f"{len(images)} images, expected one"))
        else:
            draw = InstanceMasks(tuple(masks), options.limits) if masks else None
            items_by_parent.setdefault(folder.parent.name, []).append(RawItem(name, images[0], split=split, draw=draw))
    for parent, items in items_by_parent.items():
        if any(item.draw for item in items):
            result.items += items
        else:
            result.skipped.append((f"{parent}/", f"{len(items)} images without any mask"))
    if not result.items:
        raise DataError(
            "no folder with an image and a mask for each instance",
            where=probe.source,
            expected="ID/images/ID.png and ID/masks/*.png",
            fix="use this layout, or choose another --format",
        )
    return result


@dataclass(frozen=True)
class InstanceMasks:
    """Draws the instances of one image from one file per instance (a `segpipe.data.formats.source.Draw`)."""

    masks: tuple[Path, ...]
    limits: DataParams

    def __call__(self, height: int, width: int) -> Drawing:
        """Return mask values 0 and 1, and instance ids 1 .. n in the order of the file names, both (height, width).

        A smaller instance covers a larger one. Of each mask only the bounding box is kept in memory.

        Raises:
            DataError: a mask differs in size from its image or cannot be read, or there are too many.
        """
        if len(self.masks) > _MAX_INSTANCES:
            raise DataError(
                "too many instances",
                where=self.masks[0].parent,
                found=len(self.masks),
                expected=f"at most {_MAX_INSTANCES}",
            )
        notes: Counter[str] = Counter()
        shapes = []
        for number, path in enumerate(self.masks, start=1):
            is_set = read_image(path, self.limits).max(axis=-1) > 0
            check_size(path, is_set, height, width)
            if not is_set.any():
                notes[EMPTY] += 1
                continue
            box = tuple(
                slice(int(indices[0]), int(indices[-1]) + 1)
                for indices in (np.flatnonzero(is_set.any(axis)) for axis in (1, 0))
            )
            shapes.append((int(is_set.sum()), number, box, is_set[box].copy()))
        instances = np.zeros((height, width), np.uint16)
        for _, number, box, shape in sorted(shapes, key=lambda entry: -entry[0]):
            view = instances[box]
            if overlap := int((view[shape] > 0).sum()):
                notes[OVERLAP] += overlap
            view[shape] = number
        return Drawing((instances > 0).astype(np.uint8), instances, notes)


def _item_folders(probe: SourceProbe) -> Iterator[tuple[str | None, Path]]:
    """Yield the folders that hold images/, directly in the source or below folders of splits, each with its split."""
    listing = probe.listing
    for child in listing.folders(probe.source):
        split = _split_in_name(child.name)
        has_images = listing.is_folder(child / "images")
        if split is None and has_images:
            yield None, child
        elif split is not None and not has_images:
            yield from ((split, folder) for folder in listing.folders(child) if listing.is_folder(folder / "images"))


def _split_in_name(name: str) -> str | None:
    """Return the split that a folder is named after: `train`, `stage1_test`."""
    match = re.fullmatch(r"(?:stage\d+_)?(\w+)", name.lower())
    return match[1] if match and match[1] in SPLITS else None

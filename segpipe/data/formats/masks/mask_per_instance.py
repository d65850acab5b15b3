"""`mask-per-instance`: a folder for each image, with a mask file for each object (Data Science Bowl 2018).

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
from segpipe.data.formats.masks.label_maps import INSTANCE_CLASSES
from segpipe.data.formats.source import Drawing, RawItem, ReadOptions, ReadResult, check_size
from segpipe.data.images import image_files, read_image
from segpipe.data.splits import SPLITS
from segpipe.errors import DataError

OVERLAP = "pixels where objects overlap: the smaller object is kept"
EMPTY = "masks without a pixel"
_LOOKED_AT = 20
_MAX_OBJECTS = 65535


def recognise_mask_per_instance(source: Path) -> str | None:
    """Why `source` is of this layout: most folders have one image and masks of objects; None where it is not."""
    some = [folder for _, folder in itertools.islice(_folders(source), _LOOKED_AT)]
    fitting = [f for f in some if len(image_files(f / "images")) == 1 and image_files(f / "masks")]
    if not fitting or 2 * len(fitting) < len(some):
        return None
    return f"{fitting[0].relative_to(source).as_posix()}/ with one image in images/ and its objects in masks/"


def read_mask_per_instance(source: Path, options: ReadOptions) -> ReadResult:
    """Read the layout; DataError where no folder is of it. A folder without its one image is left out."""
    found = ReadResult([], INSTANCE_CLASSES, classes_from="one kind of object")
    items: dict[str, list[RawItem]] = {}
    for split, folder in _folders(source):
        images, masks = image_files(folder / "images"), image_files(folder / "masks")
        name = folder.relative_to(source).as_posix()
        if len(images) != 1:
            found.skipped.append((f"{name}/images/", f"{len(images)} images, expected one"))
        else:
            item = RawItem(name, images[0], split=split, draw=InstanceMasks(tuple(masks), options.limits) if masks else None)
            items.setdefault(folder.parent.name, []).append(item)
    for parent, together in items.items():
        if any(item.draw for item in together):
            found.items += together
        else:
            found.skipped.append((f"{parent}/", f"{len(together)} images, and not one mask"))
    if not found.items:
        raise DataError(
            "no folder with an image and a mask for each object", where=source, expected="ID/images/ID.png and ID/masks/*.png",
            fix="lay them out so, or choose another --format",
        )
    return found


@dataclass(frozen=True)
class InstanceMasks:
    """Draws one image's objects from their masks (a `segpipe.data.formats.source.Draw`)."""

    masks: tuple[Path, ...]
    limits: DataParams

    def __call__(self, height: int, width: int) -> Drawing:
        """Mask 0 and 1, instances 1 .. n in the order of the file names, (height, width), a smaller object over a larger one.

        Raises DataError for a mask of another size or one that cannot be read. Every mask is held by its bounding box alone.
        """
        if len(self.masks) > _MAX_OBJECTS:
            raise DataError(
                "too many objects", where=self.masks[0].parent, found=len(self.masks), expected=_MAX_OBJECTS
            )
        notes: Counter[str] = Counter()
        objects = []
        for number, path in enumerate(self.masks, start=1):
            marked = read_image(path, self.limits).max(axis=-1) > 0
            check_size(path, marked, height, width)
            if not marked.any():
                notes[EMPTY] += 1
                continue
            box = tuple(
                slice(int(where[0]), int(where[-1]) + 1)
                for where in (np.flatnonzero(marked.any(axis)) for axis in (1, 0))
            )
            objects.append((int(marked.sum()), number, box, marked[box].copy()))
        instances = np.zeros((height, width), np.uint16)
        for _, number, box, shape in sorted(objects, key=lambda found: -found[0]):
            view = instances[box]
            if overlap := int((view[shape] > 0).sum()):
                notes[OVERLAP] += overlap
            view[shape] = number
        return Drawing((instances > 0).astype(np.uint8), instances, notes)


def _folders(source: Path) -> Iterator[tuple[str | None, Path]]:
    """Folders that hold images/ and masks/, right in the source or below folders of splits, with the split."""
    for child in sorted(path for path in source.iterdir() if path.is_dir()):
        split = _split(child.name)
        if split is None:
            if (child / "images").is_dir():
                yield None, child
        elif not (child / "images").is_dir():
            yield from ((split, folder) for folder in sorted(child.iterdir()) if (folder / "images").is_dir())


def _split(name: str) -> str | None:
    """The split that a folder's name speaks of: `train`, `stage1_test`."""
    match = re.fullmatch(r"(?:stage\d+_)?(\w+)", name.lower())
    return match[1] if match and match[1] in SPLITS else None

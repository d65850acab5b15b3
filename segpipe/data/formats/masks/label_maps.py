"""`label-maps`: images and masks of object numbers (0 nothing, each other value one object; gaps are fine), paired by file name.

```
SRC/images/a.png  SRC/masks/a.png (8 or 16 bits)
```
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from segpipe.config import DataParams
from segpipe.data.formats.mask_kinds import recognise_pairs
from segpipe.data.formats.pairs import find_pairs
from segpipe.data.formats.source import Drawing, ReadOptions, ReadResult, check_size
from segpipe.data.images import read_mask
from segpipe.samples import ClassTable

INSTANCE_CLASSES = ClassTable.from_names(["background", "object"])
"""The classes of a source whose objects are all of one kind; `--classes nucleus` names it."""


def recognise_label_maps(source: Path) -> str | None:
    """Why `source` is of this layout: folders of images and of masks with numbers of objects; None where it is not."""
    found = recognise_pairs(source, "objects")
    return f"{found} of object numbers" if found else None


def read_label_maps(source: Path, options: ReadOptions) -> ReadResult:
    """Read the layout; errors as of `find_pairs`."""
    found = find_pairs(source, options)
    found.items = [
        replace(item, mask=None, instances=None, draw=LabelMap(item.mask, options.limits)) if item.mask else item
        for item in found.items
    ]
    found.classes, found.classes_from = INSTANCE_CLASSES, "one kind of object"
    return found


@dataclass(frozen=True)
class LabelMap:
    """Draws classes and instances of a mask of object numbers (a `segpipe.data.formats.source.Draw`)."""

    mask: Path
    limits: DataParams

    def __call__(self, height: int, width: int) -> Drawing:
        """Mask 0 and 1, instances as in the file, both (height, width); DataError for a mask of another size."""
        numbers = read_mask(self.mask, self.limits)
        check_size(self.mask, numbers, height, width)
        return Drawing((numbers > 0).astype(np.uint8), numbers.astype(np.uint16))

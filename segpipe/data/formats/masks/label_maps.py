"""`label-maps`: images and masks of instance ids (0 background, each other value one instance; gaps are allowed), paired by name.

```
SRC/images/a.png  SRC/masks/a.png (8 or 16 bits)
```
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from segpipe.config import DataParams
from segpipe.data.formats.masks.paired_folders import recognise_paired_folders
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.source import Drawing, ReadOptions, ReadResult, check_size
from segpipe.data.images import read_mask
from segpipe.samples import ClassTable

INSTANCE_CLASSES = ClassTable.from_names(["background", "object"])
"""The classes of a source whose instances are all of one class; `--classes nucleus` names it."""


def recognise_label_maps(probe: SourceProbe) -> str | None:
    """Return why the source has this layout: folders of images and of masks of instance ids. None otherwise."""
    folders = recognise_paired_folders(probe, "instances")
    return f"{folders} of instance ids" if folders else None


def read_label_maps(probe: SourceProbe, options: ReadOptions) -> ReadResult:
    """Read the layout; errors as in `segpipe.data.formats.pairs.find_pairs`."""
    result = probe.pairs(options)
    result.items = [
        replace(item, mask=None, instances=None, draw=LabelMap(item.mask, options.limits)) if item.mask else item
        for item in result.items
    ]
    result.classes, result.classes_from = INSTANCE_CLASSES, "one class for all instances"
    return result


@dataclass(frozen=True)
class LabelMap:
    """Draws class values and instances from a mask of instance ids (a `segpipe.data.formats.source.Draw`)."""

    mask: Path
    limits: DataParams

    def __call__(self, height: int, width: int) -> Drawing:
        """Return mask values 0 and 1, and the instance ids of the file, both (height, width).

        Raises:
            DataError: the mask differs in size from its image or cannot be read.
        """
        ids = read_mask(self.mask, self.limits)
        check_size(self.mask, ids, height, width)
        return Drawing((ids > 0).astype(np.uint8), ids.astype(np.uint16))

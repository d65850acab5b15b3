"""`folder`: images and masks of class values in folders side by side, paired by file name (`segpipe.data.formats.pairs`).

```
SRC/images/a.png  SRC/masks/a.png  [SRC/instances/a.png]  [SRC/dataset.yaml]  [SRC/samples.csv]
```

The canonical layout of `data/` is one of these, and comes in unchanged.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from segpipe.data.dataset import CLASSES_FILE, SAMPLES_FILE, read_classes, read_samples
from segpipe.data.formats.pairs import describe_pairs, find_pairs, first_masks, mask_kind
from segpipe.data.formats.source import ReadOptions, Source
from segpipe.data.images import stem_of


def recognise_folder(source: Path) -> str | None:
    """Why `source` is of this layout: folders of images and of masks of class values; None where it is not."""
    masks = first_masks(source)
    if not masks or not ((source / CLASSES_FILE).exists() or mask_kind(masks) == "classes"):
        return None
    return describe_pairs(source)


def read_folder(source: Path, options: ReadOptions) -> Source:
    """Read the layout; errors as of `find_pairs`, and DataError for a dataset.yaml or samples.csv that does not fit."""
    found = find_pairs(source, options)
    if (source / CLASSES_FILE).exists():
        found.classes, found.classes_from = read_classes(source / CLASSES_FILE), CLASSES_FILE
    if (source / SAMPLES_FILE).exists():
        rows = read_samples(source / SAMPLES_FILE, {stem_of(item.image) for item in found.items})
        given = [rows.get(stem_of(item.image), (None, None)) for item in found.items]
        found.items = [
            replace(item, group=group or item.group, split=split or item.split)
            for item, (group, split) in zip(found.items, given, strict=True)
        ]
    return found

"""`folder`: images and masks of class values in folders side by side, paired by file name (`segpipe.data.formats.pairs`).

```
SRC/images/a.png  SRC/masks/a.png  [SRC/instances/a.png]  [SRC/dataset.yaml]  [SRC/samples.csv]
```

The canonical layout of `data/` is one of these, and comes in unchanged.
"""

from __future__ import annotations

from pathlib import Path

from segpipe.data.formats.mask_kinds import recognise_pairs
from segpipe.data.formats.pairs import find_pairs
from segpipe.data.formats.source import ReadOptions, ReadResult


def recognise_folder(source: Path) -> str | None:
    """Why `source` is of this layout: folders of images and of masks of class values; None where it is not."""
    return recognise_pairs(source, "classes")


def read_folder(source: Path, options: ReadOptions) -> ReadResult:
    """Read the layout; errors as of `find_pairs`."""
    return find_pairs(source, options)

"""`folder`: images and masks of class values in two folders, paired by file name (`segpipe.data.formats.pairs`).

```
SRC/images/a.png  SRC/masks/a.png  [SRC/instances/a.png]  [SRC/dataset.yaml]  [SRC/samples.csv]
```

The canonical layout of `data/` is one of these and is imported unchanged.
"""

from __future__ import annotations

from segpipe.data.formats.masks.paired_folders import recognise_paired_folders
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.source import ReadOptions, ReadResult


def recognise_folder(probe: SourceProbe) -> str | None:
    """Return why the source has this layout: folders of images and of masks of class values. None otherwise."""
    return recognise_paired_folders(probe, "classes")


def read_folder(probe: SourceProbe, options: ReadOptions) -> ReadResult:
    """Read the layout; errors as in `segpipe.data.formats.pairs.find_pairs`."""
    return probe.pairs(options)

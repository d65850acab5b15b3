"""`folder`: images and masks in two folders, paired by file name (`segpipe.data.formats.pairs`).

```
SRC/images/a.png  SRC/masks/a.png  [SRC/instances/a.png]  [SRC/dataset.yaml]  [SRC/samples.csv]
```

The canonical layout of `data/` is one of these and is imported unchanged. What the pixels of the masks stand for is a matter of the
reading (`segpipe.data.formats.readings`); `label-maps` and `colour-masks` are this layout with a known kind of mask.
"""

from __future__ import annotations

from segpipe.data.dataset import CLASSES_FILE, SAMPLES_FILE
from segpipe.data.formats.class_lists import find_class_list
from segpipe.data.formats.masks.paired_names import recognise_paired_names
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.source import ReadOptions, ReadResult
from segpipe.data.images import VOLUME_SUFFIXES, suffix_of
from segpipe.errors import DataError, SegpipeError


def recognise_folder(probe: SourceProbe) -> str | None:
    """Return why the source has this layout: folders of images and of masks (not volumes). None if it has not."""
    try:
        pairs = probe.pairs()
    except DataError:
        return None
    if any(item.mask and suffix_of(item.mask) not in VOLUME_SUFFIXES for item in pairs.items):
        if recognise_paired_names(probe):
            return None
        return ", ".join(pairs.notes)
    return None


def explain_folder(probe: SourceProbe) -> DataError | None:
    """Return the error of a source with a class table or a table of samples that does not fit its images; None for other sources."""
    tables = [probe.source / name for name in (CLASSES_FILE, SAMPLES_FILE)]
    try:
        probe.pairs()
    except DataError as error:
        named = any(str(error.where or "").startswith(str(table)) for table in tables)
        return error if named else None
    except SegpipeError:
        return None
    return None


def read_folder(probe: SourceProbe, options: ReadOptions) -> ReadResult:
    """Read the layout; errors as in `segpipe.data.formats.pairs.find_pairs`."""
    result = probe.pairs(options)
    if result.classes is None:
        labels = {item.mask.parent.name for item in result.items if item.mask}
        find_class_list(
            probe.listing, probe.source, labels, lambda: {*probe.sample(result.items).pixels_by_value()}, result
        )
    return result

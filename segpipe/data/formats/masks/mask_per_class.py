"""`mask-per-class`: a folder of masks for each class, in which a mask is 0 where the class is not. Classes may overlap.

```
SRC/images/a.png  SRC/masks/cell/a.png  SRC/masks/nucleus/a.png    [SRC/masks/ignore/a.png]  [SRC/dataset.yaml]  [SRC/samples.csv]
```

An image without a mask of a class has none of it; one without any mask is not labelled. What masks of a class called `ignore` (or
void) show, counts nowhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segpipe.config import DataParams
from segpipe.data.classes import is_background, overlapping_table
from segpipe.data.dataset import CLASSES_FILE, read_classes
from segpipe.data.formats.pairs import IMAGE_FOLDERS, MASK_FOLDERS, SPLIT_FOLDERS, read_tables
from segpipe.data.formats.masks.palettes import IGNORED_NAMES
from segpipe.data.formats.source import Drawing, RawItem, ReadOptions, ReadResult, check_size
from segpipe.data.images import image_files, read_image, stem_of
from segpipe.errors import ConfigError, DataError
from segpipe.samples import IGNORE, ClassTable


def recognise_mask_per_class(source: Path) -> str | None:
    """Why `source` is of this layout: below the folder of masks, folders with masks of the images' names; None where it is not."""
    images, masks = (_first(source, names) for names in (IMAGE_FOLDERS, MASK_FOLDERS))
    classes = _classes(masks) if masks else {}
    if not images or not classes or any(name.lower() in SPLIT_FOLDERS for name in classes):
        return None
    stems = {stem_of(path) for path in image_files(images)}
    if not stems or any(not stems & files.keys() for files in classes.values()) or image_files(masks or source):
        return None
    return f"{images.name}/ with masks of {len(classes)} classes in {(masks or source).name}/{next(iter(classes))}/ and so on"


def read_mask_per_class(source: Path, options: ReadOptions) -> ReadResult:
    """Read the layout; DataError where it is none, ConfigError where the user has not said that classes overlap."""
    images = source / options.images if options.images else _first(source, IMAGE_FOLDERS)
    masks = source / options.masks if options.masks else _first(source, MASK_FOLDERS)
    files = _classes(masks) if masks else {}
    names = [name for name in files if name.lower() not in IGNORED_NAMES and not is_background(name)]
    if not images or not images.is_dir() or not names:
        raise DataError(
            "no folder of masks for each class", where=source, expected="images/a.png and masks/CLASS/a.png",
            fix="lay them out so, name the folders (--images DIR --masks DIR), or choose another --format",
        )
    written = source / CLASSES_FILE
    table = read_classes(written) if written.exists() else overlapping_table(names)
    if not (options.overlapping or written.exists()):
        raise ConfigError(
            "masks of classes in folders of their own may overlap, which has to be wanted: each class is then learned by itself",
            where=source, fix="add --overlapping, or draw the masks into one file an image (--format folder)",
        )
    _check_names(written, names, table)
    found = ReadResult([], table, classes_from="folders of masks")
    bits = {spec.name: spec.value for spec in table.classes}
    ignored = [files[name] for name in files if name.lower() in IGNORED_NAMES]
    stems = set()
    for image in image_files(images):
        stem = stem_of(image)
        own = tuple((files[name][stem], bits[name]) for name in names if stem in files[name])
        hidden = tuple(by_stem[stem] for by_stem in ignored if stem in by_stem)
        draw = ClassMasks(own, hidden, table, options.limits) if own or hidden else None
        found.items.append(RawItem(stem, image, draw=draw))
        stems.add(stem)
    for name, by_stem in files.items():
        left = [path for stem, path in by_stem.items() if stem not in stems]
        found.skipped += [(f"{name}/{path.name}", "a mask without an image") for path in left]
    read_tables(source, found)
    return found


def _check_names(written: Path, names: list[str], table: ClassTable) -> None:
    if not table.overlapping or not set(names) <= set(table.names):
        raise ConfigError(
            "the folders of masks do not fit the class table", where=written, found=", ".join(names),
            expected=", ".join(table.names[1:]), fix="correct the table (overlapping: true), or take it away",
        )


@dataclass(frozen=True)
class ClassMasks:
    """Draws the sets of classes of one image (a `segpipe.data.formats.source.Draw`).

    masks: the files of the classes, each with its bit. ignored: files that show what counts nowhere.
    """

    masks: tuple[tuple[Path, int], ...]
    ignored: tuple[Path, ...]
    table: ClassTable
    limits: DataParams

    def __call__(self, height: int, width: int) -> Drawing:
        """Bits, (height, width). Raises DataError for a mask of another size or one that cannot be read."""
        nothing, hidden = self.table.decode(np.array([0, IGNORE], np.uint8))
        mask = np.full((height, width), nothing)
        for path, bit in self.masks:
            mask[self._shown(path, height, width)] |= mask.dtype.type(bit)
        for path in self.ignored:
            mask[self._shown(path, height, width)] = hidden
        return Drawing(mask)

    def _shown(self, path: Path, height: int, width: int) -> np.ndarray:
        shown = read_image(path, self.limits).max(axis=-1) > 0
        check_size(path, shown, height, width)
        return shown


def _first(source: Path, names: tuple[str, ...]) -> Path | None:
    below = {path.name.lower(): path for path in source.iterdir() if path.is_dir()}
    return next((below[name] for name in names if name in below), None)


def _classes(masks: Path) -> dict[str, dict[str, Path]]:
    """The mask files of each class by the name that pairs them with an image; folders without one are none."""
    if not masks.is_dir():
        return {}
    folders = sorted(path for path in masks.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = {folder.name: {stem_of(path): path for path in image_files(folder)} for folder in folders}
    return {name: files for name, files in found.items() if files}

"""`mask-per-class`: one folder of masks per class, in which a mask is 0 where the class is absent. Classes may overlap.

```
SRC/images/a.png  SRC/masks/cell/a.png  SRC/masks/nucleus/a.png    [SRC/masks/ignore/a.png]  [SRC/dataset.yaml]  [SRC/samples.csv]
```

An image without a mask of a class does not contain it; an image without any mask is unlabelled. Pixels that are set in masks of a
class called `ignore` (or void) are ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segpipe.config import DataParams
from segpipe.data.classes import is_background, overlapping_table
from segpipe.data.dataset import CLASSES_FILE, read_classes
from segpipe.data.formats.folder_names import IMAGE_FOLDERS, MASK_FOLDERS, SPLIT_FOLDERS
from segpipe.data.formats.listing import FolderListing
from segpipe.data.formats.masks.name_words import mask_words
from segpipe.data.formats.masks.palettes import IGNORED_NAMES
from segpipe.data.formats.pairs import read_tables
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.source import Drawing, RawItem, ReadOptions, ReadResult, check_size
from segpipe.data.images import read_image, stem_of
from segpipe.errors import ConfigError, DataError
from segpipe.samples import IGNORE, ClassTable


def recognise_mask_per_class(probe: SourceProbe) -> str | None:
    """Return why the source has this layout: the folder of masks has subfolders with masks named as the images. None otherwise."""
    images, masks = (_first_folder(probe, names) for names in (IMAGE_FOLDERS, MASK_FOLDERS))
    files_by_class = _mask_files(probe.listing, masks) if masks else {}
    if not images or not masks or not files_by_class or any(name.lower() in SPLIT_FOLDERS for name in files_by_class):
        return None
    if len(files_by_class) == 1 and mask_words(next(iter(files_by_class))):
        return None  # a folder of all masks (annotations/trimaps/), and not of a class
    stems = {stem_of(path) for path in probe.listing.image_files(images)}
    if not stems or any(not stems & files.keys() for files in files_by_class.values()):
        return None
    if probe.listing.image_files(masks):
        return None
    return f"{images.name}/ with masks of {len(files_by_class)} classes in {masks.name}/{next(iter(files_by_class))}/ and so on"


def read_mask_per_class(probe: SourceProbe, options: ReadOptions) -> ReadResult:
    """Read the layout.

    Raises:
        DataError: the source does not have this layout.
        ConfigError: the user has not said that classes overlap, or dataset.yaml does not fit the folders.
    """
    source = probe.source
    images = source / options.images if options.images else _first_folder(probe, IMAGE_FOLDERS)
    masks = source / options.masks if options.masks else _first_folder(probe, MASK_FOLDERS)
    files_by_class = _mask_files(probe.listing, masks) if masks else {}
    names = [name for name in files_by_class if name.lower() not in IGNORED_NAMES and not is_background(name)]
    if not images or not images.is_dir() or not names:
        raise DataError(
            "no folder of masks for each class",
            where=source,
            expected="images/a.png and masks/CLASS/a.png",
            fix="use this layout, name the folders (--images DIR --masks DIR), or choose another --format",
        )
    classes_file = source / CLASSES_FILE
    table = read_classes(classes_file) if classes_file.exists() else overlapping_table(names)
    if not (options.overlapping or classes_file.exists()):
        raise ConfigError(
            "masks in one folder per class may overlap, and overlapping classes must be requested",
            where=source,
            expected="--overlapping, with which each class is learned separately",
            fix="add --overlapping, or draw the masks of each image into one file (--format folder)",
        )
    _check_names(classes_file, names, table)
    result = ReadResult([], table, classes_from="folders of masks")
    bits = {spec.name: spec.value for spec in table.classes}
    ignored_files = [files_by_class[name] for name in files_by_class if name.lower() in IGNORED_NAMES]
    stems = set()
    for image in probe.listing.image_files(images):
        stem = stem_of(image)
        class_masks = tuple((files_by_class[name][stem], bits[name]) for name in names if stem in files_by_class[name])
        ignore_masks = tuple(files[stem] for files in ignored_files if stem in files)
        draw = ClassMasks(class_masks, ignore_masks, table, options.limits) if class_masks or ignore_masks else None
        result.items.append(RawItem(stem, image, draw=draw))
        stems.add(stem)
    for name, files in files_by_class.items():
        unused = [path for stem, path in files.items() if stem not in stems]
        result.skipped += [(f"{name}/{path.name}", "a mask without an image") for path in unused]
    read_tables(source, result)
    return result


def _check_names(classes_file: Path, names: list[str], table: ClassTable) -> None:
    if not table.overlapping or not set(names) <= set(table.names):
        raise ConfigError(
            "the folders of masks do not fit the class table",
            where=classes_file,
            found=", ".join(names),
            expected=", ".join(table.names[1:]),
            fix="correct the table (overlapping: true), or remove it",
        )


@dataclass(frozen=True)
class ClassMasks:
    """Draws the sets of classes of one image from one file per class (a `segpipe.data.formats.source.Draw`).

    masks: the files of the classes, each with the bit of its class.
    ignore_masks: files whose set pixels are ignored.
    """

    masks: tuple[tuple[Path, int], ...]
    ignore_masks: tuple[Path, ...]
    table: ClassTable
    limits: DataParams

    def __call__(self, height: int, width: int) -> Drawing:
        """Return sums of bits, (height, width).

        Raises:
            DataError: a mask differs in size from its image or cannot be read.
        """
        background, ignored = self.table.decode(np.array([0, IGNORE], np.uint8))
        mask = np.full((height, width), background)
        for path, bit in self.masks:
            mask[self._set_pixels(path, height, width)] |= mask.dtype.type(bit)
        for path in self.ignore_masks:
            mask[self._set_pixels(path, height, width)] = ignored
        return Drawing(mask)

    def _set_pixels(self, path: Path, height: int, width: int) -> np.ndarray:
        is_set = read_image(path, self.limits).max(axis=-1) > 0
        check_size(path, is_set, height, width)
        return is_set


def _first_folder(probe: SourceProbe, names: tuple[str, ...]) -> Path | None:
    """Return the subfolder of the source with the first of these names, ignoring case."""
    folders = {path.name.lower(): path for path in probe.listing.folders(probe.source)}
    return next((folders[name] for name in names if name in folders), None)


def _mask_files(listing: FolderListing, masks: Path) -> dict[str, dict[str, Path]]:
    """Return the mask files of each class by the name that pairs them with an image. Folders without image files are left out."""
    if not listing.is_folder(masks):
        return {}
    files_by_class = {
        folder.name: {stem_of(path): path for path in listing.image_files(folder)} for folder in listing.folders(masks)
    }
    return {name: files for name, files in files_by_class.items() if files}

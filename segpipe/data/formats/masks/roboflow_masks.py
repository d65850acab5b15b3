"""`roboflow-masks`: the semantic masks that Roboflow exports, with the classes in a table beside them.

```
SRC/train/_classes.csv   SRC/train/a_jpg.rf.HASH.jpg   SRC/train/a_jpg.rf.HASH_mask.png     the same in valid/ and test/
```

`_classes.csv` holds a pixel value and a class in each line. Augmented copies of one image (`a_jpg.rf.HASH1`, `a_jpg.rf.HASH2`) are a group.
"""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

from segpipe.data.classes import is_background
from segpipe.data.formats.folder_names import SPLIT_FOLDERS
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.source import RawItem, ReadOptions, ReadResult
from segpipe.data.images import stem_of
from segpipe.errors import DataError
from segpipe.files import read_bytes
from segpipe.samples import ClassTable

CLASSES_FILE = "_classes.csv"
_MASK_ENDING = "_mask"
_MAX_TABLE_BYTES = 1 << 20
_MAX_VALUE = 65535


def recognise_roboflow_masks(probe: SourceProbe) -> str | None:
    """Return why the source has this layout: a table of classes with images and masks beside it. None otherwise."""
    for folder in _folders(probe):
        if _has_masks(probe, folder):
            name = (folder / CLASSES_FILE).relative_to(probe.source).as_posix()
            return f"{name} with images and their {_MASK_ENDING}.png"
    return None


def read_roboflow_masks(probe: SourceProbe, options: ReadOptions) -> ReadResult:
    """Read the layout.

    Raises:
        DataError: there is no table of classes, it is not valid, or two tables contradict each other.
    """
    folders = _folders(probe)
    if not folders:
        raise DataError(
            "no table of classes",
            where=probe.source,
            expected=f"{CLASSES_FILE} beside the images, or in train/, valid/ and test/",
            fix="export the dataset as semantic segmentation masks, or choose another --format",
        )
    result = ReadResult([], classes_from=CLASSES_FILE)
    classes: dict[int, str] = {}
    for folder in folders:
        path = folder / CLASSES_FILE
        result.used_files.add(path)
        for value, name in _read_classes(path).items():
            if classes.setdefault(value, name) != name:
                raise DataError(
                    "a pixel value has two meanings",
                    where=path,
                    found=f"{value}: {name}",
                    expected=f"{classes[value]}, as in {folders[0].name}/{CLASSES_FILE}",
                    fix="import the folders one by one, or export the dataset again",
                )
        _add_items(probe, folder, result)
    result.classes = _class_table(classes, folders[0] / CLASSES_FILE)
    originals = Counter(_original(item) for item in result.items)
    result.items = [item if originals[_original(item)] < 2 else _grouped(item) for item in result.items]
    if copies := sum(count for count in originals.values() if count > 1):
        result.notes.append(f"augmented copies of the same image, each group of them in one group: {copies}")
    return result


def _folders(probe: SourceProbe) -> list[Path]:
    """Return the folders with a table of classes: the source itself, or those of its splits."""
    splits = [folder for folder in probe.listing.folders(probe.source) if folder.name.lower() in SPLIT_FOLDERS]
    return [folder for folder in (probe.source, *splits) if probe.listing.is_file(folder / CLASSES_FILE)]


def _has_masks(probe: SourceProbe, folder: Path) -> bool:
    stems = {stem_of(path) for path in probe.listing.image_files(folder)}
    return any(stem.endswith(_MASK_ENDING) and stem.removesuffix(_MASK_ENDING) in stems for stem in stems)


def _add_items(probe: SourceProbe, folder: Path, result: ReadResult) -> None:
    split = SPLIT_FOLDERS.get(folder.name.lower()) if folder != probe.source else None
    files: dict[str, list[Path]] = {}
    for path in probe.listing.image_files(folder):
        files.setdefault(stem_of(path), []).append(path)
    for stem, paths in files.items():
        name = (folder.relative_to(probe.source) / stem).as_posix()
        image = stem.removesuffix(_MASK_ENDING)
        if stem.endswith(_MASK_ENDING) and image in files:
            continue
        masks = files.get(stem + _MASK_ENDING, [])
        if len(paths) > 1 or len(masks) > 1:
            names = " and ".join(path.name for path in (paths if len(paths) > 1 else masks))
            result.skipped.append((name, f"two files with one name ({names}): keep one of them"))
        elif stem.endswith(_MASK_ENDING) and not masks:
            result.skipped.append((name, "a mask without an image"))
        else:
            result.items.append(RawItem(name, paths[0], masks[0] if masks else None, split=split))


def _read_classes(path: Path) -> dict[int, str]:
    """Return {pixel value: class} of a table."""
    try:
        lines = read_bytes(path, _MAX_TABLE_BYTES).decode("utf-8-sig").splitlines()
        rows = [[field.strip() for field in row] for row in csv.reader(lines, skipinitialspace=True) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"is not a table: {error}", where=path, fix="save it as CSV in UTF-8") from error
    classes: dict[int, str] = {}
    for row in rows[1:] if rows and not rows[0][0].isdecimal() else rows:
        if len(row) < 2 or not row[0].isdecimal() or not int(row[0][:9]) <= _MAX_VALUE or not row[1]:
            raise DataError(
                "a line is not a pixel value and a class", where=path, found=", ".join(row)[:60], expected="1, leaf"
            )
        if classes.setdefault(int(row[0]), row[1]) != row[1]:
            raise DataError("a pixel value has two classes", where=path, found=row[0], fix="correct the table")
    return classes


def _class_table(classes: dict[int, str], where: Path) -> ClassTable:
    """Return the class table; a background is added if the table has no class 0."""
    values = sorted(classes)
    if 0 not in classes:
        values = [0, *values]
    names = [classes.get(value, "background") for value in values]
    if len(values) < 2 or len(set(names)) < len(names) or any(is_background(name) for name in names[1:]):
        raise DataError(
            "the classes cannot be read",
            where=where,
            found=", ".join(f"{value}: {name}" for value, name in sorted(classes.items()))[:80] or "no line",
            expected="the background with value 0, and each class once",
            fix="correct the table",
        )
    return ClassTable.from_names(names, values)


def _original(item: RawItem) -> str:
    """Return the name of the image that an item is an augmented copy of, with its split."""
    return f"{item.split}/{item.name.rpartition('/')[2].partition('.rf.')[0]}"


def _grouped(item: RawItem) -> RawItem:
    return RawItem(
        item.name, item.image, item.mask, group=item.name.rpartition("/")[2].partition(".rf.")[0], split=item.split
    )

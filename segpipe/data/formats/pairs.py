"""Images and masks in folders of their own, paired by file name: what several layouts have in common.

```
SRC/images/a.png        SRC/masks/a.png         also a_mask.png and the like, and at any depth
SRC/train/images/...    SRC/train/masks/...     and so for val and test
SRC/images/train/...    SRC/masks/train/...
SRC/instances/a.png     SRC/dataset.yaml        SRC/samples.csv                 if there are any, as in the canonical layout
```
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from segpipe.data.dataset import CLASSES_FILE, SAMPLES_FILE, read_classes, read_samples
from segpipe.data.formats.source import RawItem, ReadOptions, ReadResult, files_below
from segpipe.data.images import is_image_file, stem_of
from segpipe.errors import ConfigError, DataError

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "inputs", "input")
MASK_FOLDERS = (
    "masks", "mask", "labels", "label", "annotations", "annotation", "gt", "groundtruth", "ground_truth", "targets", "target",
)
MASK_ENDINGS = ("", "_mask", "_masks", "_label", "_labels", "_gt", "_seg", "_segmentation", "_target")
"""What a mask's name may have after its image's name."""

SPLIT_FOLDERS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test", "testing": "test",
}
"""What folders of splits are called."""


Part = tuple[str | None, Path, Path | None]
"""The split of a part of a source, its folder of images and that of masks."""


def is_part(name: str) -> bool:
    """Whether a folder is called as a part of a dataset is (train2017, images, annotations), and not as a dataset of its own."""
    return name.lower().rstrip("0123456789") in (*IMAGE_FOLDERS, *MASK_FOLDERS, *SPLIT_FOLDERS)


def explain_pairs(source: Path, options: ReadOptions) -> None:
    """Where there is a folder of images, but no pairs: the error of `find_pairs`, which says what is wrong."""
    if options.images or options.masks or _subfolder(source, IMAGE_FOLDERS):
        find_pairs(source, options)


def find_pairs(source: Path, options: ReadOptions) -> ReadResult:
    """The images of a source, each with its mask file where there is one.

    Raises DataError where there is no folder of images or none of masks, or several, where no mask is called as an image is, and for
    a dataset.yaml or samples.csv that does not fit; ConfigError where a folder that the user names is none.
    """
    parts = _parts(source, options)
    found = ReadResult([])
    for split, images, masks in parts:
        if masks is None:
            found.skipped.append((f"{_relative(images, source)}/", "no folder of masks beside it"))
        else:
            _pair(found, source, images, masks, split, options.suffix)
    _check_some(found, parts, source)
    nested = {item.name: _nested_split(item, parts) for item in found.items if item.split is None}
    if nested and all(nested.values()):
        found.items = [replace(item, split=item.split or nested[item.name]) for item in found.items]
    read_tables(source, found)
    return found


def _check_some(found: ReadResult, parts: list[Part], source: Path) -> None:
    """DataError where there are images, but not one has a mask."""
    if not found.items or any(item.mask for item in found.items):
        return
    image, masks = found.items[0].image, next(masks for _, _, masks in parts if masks)
    other = next((path for path in files_below(masks) if is_image_file(path) and path != image), None)
    shown = _relative(other, source) if other else f"no image file in {_relative(masks, source)}/"
    raise DataError(
        "no mask is called as an image is", where=source, found=f"{_relative(image, source)} and {shown}",
        expected=f"a mask called {stem_of(image)} or {stem_of(image)}_mask",
        fix="rename the masks, say what their names have behind their images' (--suffix), or choose another --format",
    )


def read_tables(source: Path, found: ReadResult) -> None:
    """What dataset.yaml and samples.csv of the canonical layout say."""
    if (source / CLASSES_FILE).exists():
        found.classes, found.classes_from = read_classes(source / CLASSES_FILE), CLASSES_FILE
    if _has_keys(source / SAMPLES_FILE):
        rows = read_samples(source / SAMPLES_FILE, {stem_of(item.image) for item in found.items})
        given = [rows.get(stem_of(item.image), (None, None)) for item in found.items]
        found.items = [
            replace(item, group=group, split=split or item.split)
            for item, (group, split) in zip(found.items, given, strict=True)
        ]


def _has_keys(path: Path) -> bool:
    """Whether a table is the canonical layout's, and not just called like it."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return "key" in stream.readline(4096).decode("utf-8-sig", "replace").strip().split(",")


def _parts(source: Path, options: ReadOptions) -> list[Part]:
    """The parts of a source."""
    if options.images or options.masks:
        images = _named(source, options.images, "images") or _subfolder(source, IMAGE_FOLDERS)
        masks = _named(source, options.masks, "masks") or _subfolder(source, MASK_FOLDERS)
        if images is None or masks is None:
            missing = "images" if images is None else "masks"
            raise ConfigError(f"no folder of {missing}", where=source, fix=f"name it: --{missing} DIR")
        return [(None, images, masks)]
    if (images := _subfolder(source, IMAGE_FOLDERS)) is not None:
        masks = _subfolder(source, MASK_FOLDERS)
        if masks is None:
            raise DataError("no folder of masks", where=source, expected="masks/ beside images/",
                            fix="name it masks/, say where it is (--masks DIR), or choose another --format")
        return [(None, images, masks)]
    children = sorted(path for path in source.iterdir() if path.is_dir() and path.name.lower() in SPLIT_FOLDERS)
    parts: list[Part] = []
    for child in children:
        if (images := _subfolder(child, IMAGE_FOLDERS)) is not None:
            parts.append((SPLIT_FOLDERS[child.name.lower()], images, _subfolder(child, MASK_FOLDERS)))
    if not any(masks for _, _, masks in parts):
        raise DataError(
            "no folders of images and masks", where=source,
            expected="images/ and masks/ in it, or in its train/, val/ and test/",
            fix="name them (--images DIR --masks DIR), or choose another --format",
        )
    return parts


def _named(source: Path, name: str | None, option: str) -> Path | None:
    if name is None:
        return None
    folder = source / name
    if not folder.is_dir():
        raise ConfigError(
            "is no folder", where=folder, fix=f"give --{option} a folder, relative to {source} or absolute"
        )
    return folder


def _subfolder(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The subfolder of one of these names, whatever its case, with image files in it; else the first of these names. DataError where
    several hold images: which of them is meant is for the user to say.
    """
    there = [path for path in sorted(folder.iterdir()) if path.is_dir() and path.name.lower() in names]
    there.sort(key=lambda path: names.index(path.name.lower()))
    filled = [path for path in there if any(map(is_image_file, files_below(path)))]
    if len(filled) > 1:
        raise DataError(
            f"several folders could be that of {names[0]}", where=folder, found=", ".join(path.name for path in filled),
            fix=f"say which one: --{names[0]} {filled[0].name} (or the other); or move the others away",
        )
    return next(iter(filled or there), None)


def _pair(found: ReadResult, source: Path, images: Path, masks: Path, split: str | None, suffix: str | None) -> None:
    """Add the pairs of two folders; every mask belongs to one image at most."""
    endings = MASK_ENDINGS if suffix is None else (suffix,)
    by_name = _by_stem(masks, source, found)
    files = _by_stem(images, source, found) if masks != images else dict(by_name)
    if masks == images:  # one folder for both: what another file's name explains is a mask
        files = {stem: path for stem, path in files.items() if not _is_mask(stem, files, endings)}
    siblings = images.parent / "instances"
    instances = _by_stem(siblings, source, found) if siblings.is_dir() and siblings != masks else {}
    used: set[Path] = set()
    before = len(found.items)
    for stem, image in files.items():
        fitting = [stem + e for e in endings if stem + e in by_name and (e in ("", suffix) or stem + e not in files)]
        own = [by_name[name] for name in fitting if by_name[name] != image]
        if len(own) > 1:
            names = " and ".join(path.name for path in own)
            found.skipped.append((_relative(own[0], source), f"two masks of one image ({names}): say which (--suffix)"))
        mask = own[0] if len(own) == 1 else None
        used |= set(own)
        name = Path(_relative(image, source)).parent / stem_of(image)
        found.items.append(RawItem(name.as_posix(), image, mask, instances.get(stem), split=split))
    left = set(by_name.values()) - used - (set(files.values()) if masks == images else set())
    found.skipped += [(_relative(path, source), "a mask without an image") for path in sorted(left)]
    found.notes.append(f"{_relative(images, source)}/ with {_relative(masks, source)}/")
    if suffix is not None and len(found.items) > before and not used:
        raise ConfigError(
            "no mask has this ending", where=masks, found=f"--suffix {suffix}",
            expected=f"{next(iter(files))}{suffix} and so on; there is {next(iter(by_name), 'nothing')}",
        )


def _is_mask(stem: str, stems: dict[str, Path], endings: tuple[str, ...]) -> bool:
    return any(ending and stem.endswith(ending) and stem.removesuffix(ending) in stems for ending in endings)


def _by_stem(folder: Path, source: Path, found: ReadResult) -> dict[str, Path]:
    """Image files at any depth under a folder, by their relative path without the ending; those that share one are left out."""
    by_stem: dict[str, list[Path]] = {}
    for path in files_below(folder):
        if is_image_file(path):
            by_stem.setdefault((path.relative_to(folder).parent / stem_of(path)).as_posix(), []).append(path)
    for paths in by_stem.values():
        if len(paths) > 1:
            names = " and ".join(path.name for path in paths)
            found.skipped.append((_relative(paths[0], source), f"two files of one name ({names}): keep one of them"))
    return {stem: paths[0] for stem, paths in by_stem.items() if len(paths) == 1}


def _nested_split(item: RawItem, parts: list[Part]) -> str | None:
    """The split that the first folder below the folder of images names."""
    below = next(item.image.relative_to(images) for _, images, _ in parts if item.image.is_relative_to(images))
    return SPLIT_FOLDERS.get(below.parts[0].lower()) if len(below.parts) > 1 else None


def _relative(path: Path, source: Path) -> str:
    """A path for the user; what the user placed outside the source is shown by the end of its path."""
    return path.relative_to(source).as_posix() if path.is_relative_to(source) else "/".join(path.parts[-2:])

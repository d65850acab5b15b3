"""Images and masks in folders of their own, paired by file name: the common part of several layouts.

```
SRC/images/a.png        SRC/masks/a.png         also a_mask.png and the like, and at any depth
SRC/train/images/...    SRC/train/masks/...     the same for val and test
SRC/images/train/...    SRC/masks/train/...
SRC/instances/a.png     SRC/dataset.yaml        SRC/samples.csv                 optional, as in the canonical layout
```
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from segpipe.data.dataset import CLASSES_FILE, SAMPLES_FILE, read_samples
from segpipe.data.dataset_file import read_dataset_file
from segpipe.data.formats.folder_names import IMAGE_FOLDERS, MASK_ENDINGS, MASK_FOLDERS, SPLIT_FOLDERS
from segpipe.data.formats.listing import FolderListing
from segpipe.data.formats.name_pairs import mask_stem, no_mask_error, pair_by_core, prefix_is_on_images
from segpipe.data.formats.name_patterns import pair_by_patterns
from segpipe.data.formats.source import RawItem, ReadOptions, ReadResult
from segpipe.data.images import is_image_file, stem_of
from segpipe.data.yaml_document import read_yaml
from segpipe.errors import ConfigError, DataError

_MAX_YAML_BYTES = 1 << 20

Part = tuple[str | None, Path, Path | None]
"""A part of a source: its split, its folder of images and its folder of masks."""


def has_image_folder(listing: FolderListing, source: Path) -> bool:
    """Return whether a source has a folder that is named like a folder of images.

    Raises:
        DataError: there are several such folders with images.
    """
    return _subfolder(listing, source, IMAGE_FOLDERS) is not None


def find_pairs(listing: FolderListing, source: Path, options: ReadOptions) -> ReadResult:
    """Return the images of a source, each with its mask file if it has one.

    Args:
        listing: the listing of the source or of a folder above it.
        source: the source folder.
        options: those of `PAIRING_FIELDS` are used.

    Raises:
        DataError: there is no folder of images or of masks, or several; no mask has the name of an image; dataset.yaml or
            samples.csv does not fit the images.
        ConfigError: a folder that the user names does not exist.
    """
    if options.pattern is not None or options.mask_pattern is not None:
        result = pair_by_patterns(listing, source, options)
        by_path = {item.name: _split_in_path(item.name) for item in result.items}
        if all(by_path.values()):
            result.items = [replace(item, split=by_path[item.name]) for item in result.items]
        read_tables(source, result)
        return result
    parts = _find_parts(listing, source, options)
    result = ReadResult([])
    for split, images, masks in parts:
        if masks is None:
            result.skipped.append((f"{_relative(images, source)}/", "no folder of masks next to it"))
        else:
            _add_pairs(result, listing, source, images, masks, split, options)
    _check_any_mask(result, listing, parts, source)
    nested = {item.name: _nested_split(item, parts) for item in result.items if item.split is None}
    if nested and all(nested.values()):
        result.items = [replace(item, split=item.split or nested[item.name]) for item in result.items]
    read_tables(source, result)
    return result


def read_tables(source: Path, result: ReadResult) -> None:
    """Apply dataset.yaml (classes) and samples.csv (groups, splits) of the canonical layout, if they exist.

    Raises:
        DataError: one of them is not valid, or samples.csv does not fit the images.
    """
    if (source / CLASSES_FILE).exists() and not is_yolo_file(source / CLASSES_FILE):
        result.used_files.add(source / CLASSES_FILE)
        content = read_dataset_file(source / CLASSES_FILE)
        result.classes, result.classes_from, result.channels = content.classes, CLASSES_FILE, content.channels
    if _has_key_column(source / SAMPLES_FILE):
        result.used_files.add(source / SAMPLES_FILE)
        rows = read_samples(source / SAMPLES_FILE, {stem_of(item.image) for item in result.items})
        assignments = [rows.get(stem_of(item.image), (None, None)) for item in result.items]
        result.items = [
            replace(item, group=group, split=split or item.split)
            for item, (group, split) in zip(result.items, assignments, strict=True)
        ]


def is_yolo_file(path: Path) -> bool:
    """Return whether a dataset.yaml is that of a YOLO dataset (`names`, `train`) and not a class table (`classes`)."""
    try:
        content = read_yaml(path, _MAX_YAML_BYTES)
    except DataError:
        return False
    return isinstance(content, dict) and "classes" not in content and "names" in content


def _has_key_column(path: Path) -> bool:
    """Return whether a table is that of the canonical layout, and not just a table with the same file name."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return "key" in stream.readline(4096).decode("utf-8-sig", "replace").strip().split(",")


def _check_any_mask(result: ReadResult, listing: FolderListing, parts: list[Part], source: Path) -> None:
    """Raise DataError if there are images, but none of them has a mask."""
    if not result.items or any(item.mask for item in result.items):
        return
    image, masks = result.items[0].image, next(masks for _, _, masks in parts if masks)
    other = next((path for path in listing.files_below(masks) if is_image_file(path) and path != image), None)
    example = _relative(other, source) if other else f"no image file in {_relative(masks, source)}/"
    raise DataError(
        "no mask has the name of an image",
        where=source,
        found=f"{_relative(image, source)} and {example}",
        expected=f"a mask called {stem_of(image)} or {stem_of(image)}_mask",
        fix="say how the names differ (--suffix _L, --prefix L_, or --pattern REGEX --mask-pattern REGEX), or choose another --format",
    )


def _find_parts(listing: FolderListing, source: Path, options: ReadOptions) -> list[Part]:
    if options.images or options.masks:
        images = _named_folder(source, options.images, "images") or _subfolder(listing, source, IMAGE_FOLDERS)
        masks = _named_folder(source, options.masks, "masks") or _subfolder(listing, source, MASK_FOLDERS)
        if images is None or masks is None:
            missing = "images" if images is None else "masks"
            raise ConfigError(f"no folder of {missing}", where=source, fix=f"name it: --{missing} DIR")
        return [(None, images, masks)]
    if (images := _subfolder(listing, source, IMAGE_FOLDERS)) is not None:
        masks = _subfolder(listing, source, MASK_FOLDERS)
        if masks is None:
            raise DataError(
                "no folder of masks",
                where=source,
                expected="masks/ next to images/",
                fix="name it masks/, give its path (--masks DIR), or choose another --format",
            )
        return [(None, images, masks)]
    parts: list[Part] = []
    for child in listing.folders(source):
        split = SPLIT_FOLDERS.get(child.name.lower())
        if split is not None and (images := _subfolder(listing, child, IMAGE_FOLDERS)) is not None:
            parts.append((split, images, _subfolder(listing, child, MASK_FOLDERS)))
    if not any(masks for _, _, masks in parts):
        raise DataError(
            "no folders of images and masks",
            where=source,
            expected="images/ and masks/ in it, or in its train/, val/ and test/",
            fix="name them (--images DIR --masks DIR), or choose another --format",
        )
    return parts


def _named_folder(source: Path, name: str | None, option: str) -> Path | None:
    if name is None:
        return None
    folder = source / name
    if not folder.is_dir():
        raise ConfigError(
            "is not a folder", where=folder, fix=f"give --{option} a folder, relative to {source} or absolute"
        )
    return folder


def _subfolder(listing: FolderListing, folder: Path, names: tuple[str, ...]) -> Path | None:
    """Return the subfolder with one of these names, ignoring case, that holds image files; if none does, the first by `names`.

    Raises:
        DataError: several of them hold images, and only the user knows which one is meant.
    """
    candidates = [path for path in listing.folders(folder) if path.name.lower() in names]
    candidates.sort(key=lambda path: names.index(path.name.lower()))
    filled = [path for path in candidates if any(map(is_image_file, listing.files_below(path)))]
    if len(filled) > 1:
        raise DataError(
            f"several folders could be the folder of {names[0]}",
            where=folder,
            found=", ".join(path.name for path in filled),
            fix=f"choose one, for example --{names[0]} {filled[0].name}, or move the others away",
        )
    return next(iter(filled or candidates), None)


def _add_pairs(
    result: ReadResult,
    listing: FolderListing,
    source: Path,
    images: Path,
    masks: Path,
    split: str | None,
    options: ReadOptions,
) -> None:
    """Add the images of one folder with their masks in another. Each mask belongs to at most one image."""
    suffix, prefix = options.suffix, options.prefix or ""
    endings = MASK_ENDINGS if suffix is None and not prefix else (suffix or "",)
    mask_files = _by_stem(listing, masks, source, result)
    image_files = _by_stem(listing, images, source, result) if masks != images else dict(mask_files)
    on_images = bool(prefix) and prefix_is_on_images(image_files, mask_files, prefix, endings[0])
    mask_names = {stem: mask_stem(stem, prefix, on_images) for stem in image_files}  # of the masks, without an ending
    if masks == images:  # one folder for both: a file whose name is that of another file with an ending is a mask
        prefixed = set(mask_names.values()) if prefix else set()
        image_files = {
            stem: path
            for stem, path in image_files.items()
            if stem.removesuffix(suffix or "") not in prefixed and not _is_mask(stem, image_files, endings)
        }
    siblings = images.parent / "instances"
    has_instances = siblings.is_dir() and siblings != masks
    instances = _by_stem(listing, siblings, source, result) if has_instances else {}
    used: set[Path] = set()
    items_before = len(result.items)
    by_core = (
        _pairs_by_core(image_files, mask_files, endings, result)
        if masks != images and suffix is None and not prefix
        else {}
    )
    for stem, image in image_files.items():
        stems = [
            mask_names[stem] + ending
            for ending in endings
            if mask_names[stem] + ending in mask_files
            and (ending in ("", suffix) or mask_names[stem] + ending not in image_files)
        ]
        candidates = [mask_files[name] for name in stems if mask_files[name] != image]
        if len(candidates) > 1:
            names = " and ".join(path.name for path in candidates)
            reason = f"two masks for one image ({names}): choose one with --suffix"
            result.skipped.append((_relative(candidates[0], source), reason))
        if stem in by_core:
            candidates = [mask_files[by_core[stem]]]
        mask = candidates[0] if len(candidates) == 1 else None
        used |= set(candidates)
        name = Path(_relative(image, source)).parent / stem_of(image)
        result.items.append(RawItem(name.as_posix(), image, mask, instances.get(stem), split=split))
    unused = set(mask_files.values()) - used - (set(image_files.values()) if masks == images else set())
    result.skipped += [(_relative(path, source), "a mask without an image") for path in sorted(unused)]
    result.notes.append(f"{_relative(images, source)}/ with {_relative(masks, source)}/")
    if (suffix is not None or prefix) and len(result.items) > items_before and not used:
        raise no_mask_error(masks, options, next(iter(image_files)), next(iter(mask_files), "(none)"))


def _pairs_by_core(
    images: dict[str, Path], masks: dict[str, Path], endings: tuple[str, ...], result: ReadResult
) -> dict[str, str]:
    """Return {image: mask} by the cores of their names, if not one mask has the name of an image; the result gets a note."""
    if any(stem + ending in masks for stem in images for ending in endings):
        return {}
    paired = pair_by_core(list(images), list(masks))
    if paired is None:
        return {}
    result.notes.append(paired[1])
    return paired[0]


def _is_mask(stem: str, stems: dict[str, Path], endings: tuple[str, ...]) -> bool:
    return any(ending and stem.endswith(ending) and stem.removesuffix(ending) in stems for ending in endings)


def _by_stem(listing: FolderListing, folder: Path, source: Path, result: ReadResult) -> dict[str, Path]:
    """Return the image files at any depth below a folder by their relative path without the ending.

    Files that share such a path are left out.
    """
    by_stem: dict[str, list[Path]] = {}
    for path in listing.files_below(folder):
        if is_image_file(path):
            by_stem.setdefault((path.relative_to(folder).parent / stem_of(path)).as_posix(), []).append(path)
    for paths in by_stem.values():
        if len(paths) > 1:
            names = " and ".join(path.name for path in paths)
            result.skipped.append((_relative(paths[0], source), f"two files with one name ({names}): keep one of them"))
    return {stem: paths[0] for stem, paths in by_stem.items() if len(paths) == 1}


def _nested_split(item: RawItem, parts: list[Part]) -> str | None:
    """Return the split that the first folder below the folder of images names."""
    relative = next(item.image.relative_to(images) for _, images, _ in parts if item.image.is_relative_to(images))
    return SPLIT_FOLDERS.get(relative.parts[0].lower()) if len(relative.parts) > 1 else None


def _split_in_path(name: str) -> str | None:
    """Return the split that the first folder of a path names which is named like one."""
    return next((SPLIT_FOLDERS[part.lower()] for part in name.split("/")[:-1] if part.lower() in SPLIT_FOLDERS), None)


def _relative(path: Path, source: Path) -> str:
    """Return a path for messages: relative to the source, or only the end of a path outside the source."""
    return path.relative_to(source).as_posix() if path.is_relative_to(source) else "/".join(path.parts[-2:])

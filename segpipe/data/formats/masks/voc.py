"""`voc`: the layout of Pascal VOC, and of the exports of CVAT and labelme in this layout.

```
SRC/JPEGImages/a.jpg  SRC/SegmentationClass/a.png  [SRC/SegmentationObject/a.png]
[SRC/ImageSets/Segmentation/{train,val,test}.txt]  [SRC/labelmap.txt or class_names.txt]
```

Masks are palette images of class values, or RGB images in the colours of labelmap.txt or of VOC; 255 is ignored.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segpipe.config import DataParams
from segpipe.data.formats.masks.palette_files import read_palette, voc_color
from segpipe.data.formats.masks.palettes import IGNORED_NAMES, Palette, make_palette
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.source import Drawing, RawItem, ReadOptions, ReadResult, check_size
from segpipe.data.images import read_image, read_mask, stem_of
from segpipe.data.images.raster import raster_header
from segpipe.data.splits import SPLITS
from segpipe.errors import DataError
from segpipe.files import read_bytes
from segpipe.words import listed

_IMAGE_FOLDERS = ("JPEGImages",)
_CLASS_FOLDERS = ("SegmentationClass", "SegmentationClassPNG", "SegmentationClassRaw")
_INSTANCE_FOLDERS = ("SegmentationObject", "SegmentationObjectPNG")
_VOID = 255
_MAX_DEPTH, _MAX_FOLDERS, _MAX_FOLDERS_SHOWN = 3, 200, 4
_MAX_LIST_BYTES = 1 << 26


def recognise_voc(probe: SourceProbe) -> str | None:
    """Return why the source has this layout: its folders have VOC's names. None otherwise."""
    roots = _roots(probe)
    if not roots:
        return None
    return f"{_first_filled(probe, roots[0], _IMAGE_FOLDERS).name}/ with {_first_filled(probe, roots[0], _CLASS_FOLDERS).name}/"


def read_voc(probe: SourceProbe, options: ReadOptions) -> ReadResult:
    """Read the layout. Images that have no mask and are in no list are left out; the folders of several years or tasks are merged.

    Raises:
        DataError: the folders are missing, or the classes of several differ; a list or the palette is not valid.
    """
    source, roots = probe.source, _roots(probe)
    if not roots:
        raise DataError(
            "no folders of VOC",
            where=source,
            expected="JPEGImages/ and SegmentationClass/ in it",
            fix="use this layout, or choose another --format",
        )
    parts = [_read_root(probe, root, options) for root in roots]
    result = parts[0]
    for root, part in zip(roots[1:], parts[1:], strict=True):
        if part.classes != result.classes:
            raise DataError(
                "the classes of several folders of VOC differ",
                where=source,
                found=", ".join(path.name for path in (roots[0], root)),
                expected="the same labelmap.txt",
                fix=f"import one of them: {roots[0]}",
            )
        result.items += part.items
        result.skipped += part.skipped
        result.notes += part.notes
        result.used_files |= part.used_files
    if len(roots) > 1:
        names = [root.relative_to(source).as_posix() for root in roots]
        result.notes.append(f"{len(roots)} folders merged: {listed(names, _MAX_FOLDERS_SHOWN)}")
        if not any(item.split for item in result.items):  # their lists would contradict groups
            roots_by_folder = {root / name: root for root in roots for name in _IMAGE_FOLDERS}
            result.items = [replace(item, group=roots_by_folder[item.image.parent].name) for item in result.items]
    return result


def _read_root(probe: SourceProbe, root: Path, options: ReadOptions) -> ReadResult:
    """Read the folders of one year or task."""
    source = probe.source
    palette, result = _palette(root, options)
    splits = _read_splits(root, result)
    folders = [_first_filled(probe, root, names) for names in (_IMAGE_FOLDERS, _CLASS_FOLDERS, _INSTANCE_FOLDERS)]
    images, masks, instances = (
        {stem_of(path): path for path in probe.listing.image_files(folder)} for folder in folders
    )
    lists = [root / "ImageSets" / "Segmentation" / f"{split}.txt" for split in SPLITS]
    result.used_files |= {*lists, root / "labelmap.txt", root / "class_names.txt"}
    for stem in sorted(images):
        if stem in masks or stem in splits:
            draw = _VocLabels(masks[stem], instances.get(stem), palette, options.limits) if stem in masks else None
            name = (images[stem].relative_to(source).parent / stem).as_posix()
            result.items.append(RawItem(name, images[stem], split=splits.get(stem), draw=draw))
    if unlabelled := len(images) - len(result.items):
        result.notes.append(f"images without a mask, left out: {unlabelled}")
    result.skipped += [
        (f"{folders[1].name}/{masks[stem].name}", "a mask without an image") for stem in sorted(masks.keys() - images)
    ]
    result.skipped += [
        (f"ImageSets/Segmentation/{splits[stem]}.txt", f"names a missing image: {stem[:80]!r}")
        for stem in sorted(splits.keys() - images)
    ]
    return result


def _first_filled(probe: SourceProbe, root: Path, names: tuple[str, ...]) -> Path:
    """Return the first folder with one of these names that holds images; if none does, the path of the first name."""
    return next((root / name for name in names if probe.listing.image_files(root / name)), root / names[0])


def _roots(probe: SourceProbe) -> list[Path]:
    """Return the folders that hold images and masks: the source, or folders below it (years in VOCdevkit/, tasks of CVAT)."""
    listing = probe.listing

    def has_images_and_masks(root: Path) -> bool:
        folders = (_first_filled(probe, root, names) for names in (_CLASS_FOLDERS, _IMAGE_FOLDERS))
        return all(listing.image_files(folder) for folder in folders)

    level = [probe.source]
    for _ in range(_MAX_DEPTH + 1):
        if roots := [folder for folder in level if has_images_and_masks(folder)]:
            return roots
        level = [child for folder in level for child in listing.folders(folder)][:_MAX_FOLDERS]
    return []


def _palette(root: Path, options: ReadOptions) -> tuple[Palette, ReadResult]:
    """Return the palette that the user gives, that of labelmap.txt or class_names.txt, or VOC's; and a result with its classes."""
    if options.palette is not None:
        palette = read_palette(options.palette)
    elif (root / "labelmap.txt").is_file():
        palette = read_palette(str(root / "labelmap.txt"))
    elif (root / "class_names.txt").is_file():
        palette = _palette_of_names(root / "class_names.txt")
    else:
        palette = read_palette("voc")
        return palette, ReadResult([], palette.classes, classes_from="Pascal VOC, because there is no labelmap.txt")
    return palette, ReadResult([], palette.classes, classes_from=palette.origin)


def _palette_of_names(path: Path) -> Palette:
    """Return a palette in VOC's colours from a file with one class name per line. Names such as __ignore__ get no colour."""
    names = [line.strip() for line in _read_lines(path) if line.strip()]
    class_names = [name for name in names if name.lower() not in IGNORED_NAMES]
    entries = [(name, voc_color(index)) for index, name in enumerate(class_names)]
    return make_palette([*entries, ("void", voc_color(_VOID))], path.name, path)


def _read_splits(root: Path, result: ReadResult) -> dict[str, str]:
    """Return {name: split} from the lists in ImageSets. Names are looked up among the images' names and never used as paths."""
    splits: dict[str, str] = {}
    for split in SPLITS:
        path = root / "ImageSets" / "Segmentation" / f"{split}.txt"
        if not path.is_file():
            continue
        names = {line.split()[0] for line in _read_lines(path) if line.split()}
        for name in sorted(names & splits.keys()):
            raise DataError(
                "an image is in two lists",
                where=path,
                found=name,
                expected=f"once; it is in {splits[name]}.txt",
                fix="remove one of the lines",
            )
        splits |= dict.fromkeys(names, split)
        result.notes.append(f"{path.name}: {len(names)} images")
    return splits


def _read_lines(path: Path) -> list[str]:
    try:
        return read_bytes(path, _MAX_LIST_BYTES).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError("is not a text file in UTF-8", where=path, fix="save it as UTF-8") from error


@dataclass(frozen=True)
class _VocLabels:
    """Draws the labels of an image from its class mask and, if there is one, its instance mask."""

    classes: Path
    instances: Path | None
    palette: Palette
    limits: DataParams

    def __call__(self, height: int, width: int) -> Drawing:
        mask = self._class_values()
        check_size(self.classes, mask, height, width)
        if self.instances is None:
            return Drawing(mask)
        instances = _instance_ids(self.instances, self.limits)
        check_size(self.instances, instances, height, width)
        instances[mask == _VOID] = 0
        return Drawing(mask, instances)

    def _class_values(self) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
        if _is_stored_in_colours(self.classes):
            return self.palette.encode(read_image(self.classes, self.limits), str(self.classes), tolerance=0).values
        return read_mask(self.classes, self.limits)


def _instance_ids(path: Path, limits: DataParams) -> npt.NDArray[np.uint16]:
    """Return instance ids, (H, W), 0 for none and for void: palette indices, or RGB colours numbered in sorted order."""
    if not _is_stored_in_colours(path):
        ids = read_mask(path, limits).astype(np.uint16)
        ids[ids == _VOID] = 0
        return ids
    image = read_image(path, limits)
    colours, inverse = np.unique(image.reshape(-1, image.shape[-1]), axis=0, return_inverse=True)
    is_none = [tuple(map(int, colour)) in ((0, 0, 0), voc_color(_VOID)) for colour in colours]
    ids_by_colour = np.where(is_none, 0, np.cumsum(np.logical_not(is_none)))
    return ids_by_colour[inverse].reshape(image.shape[:2]).astype(np.uint16)


def _is_stored_in_colours(path: Path) -> bool:
    """Return whether an image file stores colours, not one channel or palette indices; only the header is read."""
    try:
        with raster_header(path, path) as header:
            return header.mode in ("RGB", "RGBA", "CMYK", "YCbCr")
    except DataError:  # decoding reports the error
        return False

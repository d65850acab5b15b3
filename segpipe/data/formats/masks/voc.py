"""`voc`: the layout of Pascal VOC, and of what CVAT and labelme export as such.

```
SRC/JPEGImages/a.jpg  SRC/SegmentationClass/a.png  [SRC/SegmentationObject/a.png]
[SRC/ImageSets/Segmentation/{train,val,test}.txt]  [SRC/labelmap.txt or class_names.txt]
```

Masks are palette images of class values (or RGB, by the colours of labelmap.txt or VOC's own); 255 counts nowhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from segpipe.config import DataParams
from segpipe.data.formats.masks.palette_files import read_palette, voc_color
from segpipe.data.formats.masks.palettes import IGNORED_NAMES, Palette, make_palette
from segpipe.data.formats.source import Drawing, RawItem, ReadOptions, ReadResult, check_size
from segpipe.data.images import image_files, read_image, read_mask, stem_of
from segpipe.data.splits import SPLITS
from segpipe.errors import DataError
from segpipe.files import read_bytes

_IMAGES = ("JPEGImages",)
_CLASSES = ("SegmentationClass", "SegmentationClassPNG", "SegmentationClassRaw")
_OBJECTS = ("SegmentationObject", "SegmentationObjectPNG")
_VOID = 255
_MAX_LIST_BYTES = 1 << 26


def recognise_voc(source: Path) -> str | None:
    """Why `source` is of this layout: its folders have VOC's names; None where they have not."""
    tops = _tops(source)
    return f"{_folder(tops[0], _IMAGES).name}/ with {_folder(tops[0], _CLASSES).name}/" if tops else None


def read_voc(source: Path, options: ReadOptions) -> ReadResult:
    """Read the layout. Images that neither have a mask nor stand in a list are left aside.

    Raises DataError where the folders are not there, or are there for several years.
    """
    tops = _tops(source)
    if len(tops) != 1:
        raise DataError(
            "several folders of VOC" if tops else "no folders of VOC", where=source,
            found=", ".join(top.name for top in tops) or None, expected="JPEGImages/ and SegmentationClass/ in it",
            fix="give one of them" if tops else "lay it out so, or choose another --format",
        )
    top = tops[0]
    palette, found = _classes(top, options)
    splits = _splits(top, found)
    folders = [_folder(top, names) for names in (_IMAGES, _CLASSES, _OBJECTS)]
    images, masks, objects = ({stem_of(path): path for path in image_files(folder)} for folder in folders)
    for stem in sorted(images):
        if stem in masks or stem in splits:
            draw = _Labels(masks[stem], objects.get(stem), palette, options.limits) if stem in masks else None
            name = (images[stem].relative_to(source).parent / stem).as_posix()
            found.items.append(RawItem(name, images[stem], split=splits.get(stem), draw=draw))
    if aside := len(images) - len(found.items):
        found.notes.append(f"images without a mask, left aside: {aside}")
    found.skipped += [
        (f"{folders[1].name}/{masks[stem].name}", "a mask without an image") for stem in sorted(masks.keys() - images)
    ]
    found.skipped += [
        (f"ImageSets/Segmentation/{splits[stem]}.txt", f"names an image that is not there: {stem[:80]!r}")
        for stem in sorted(splits.keys() - images)
    ]
    return found


def _folder(top: Path, names: tuple[str, ...]) -> Path:
    """The first folder of one of these names that holds images, else the first name."""
    return next((top / name for name in names if image_files(top / name)), top / names[0])


def _tops(source: Path) -> list[Path]:
    """Folders that hold images and masks: the source, or those of years below it."""
    if image_files(_folder(source, _CLASSES)) and image_files(_folder(source, _IMAGES)):
        return [source]
    below = sorted([*source.glob("VOC*"), *source.glob("VOCdevkit/VOC*")])
    return [top for top in below if image_files(_folder(top, _CLASSES)) and image_files(_folder(top, _IMAGES))]


def _classes(top: Path, options: ReadOptions) -> tuple[Palette, ReadResult]:
    """The classes: of the user's palette, of labelmap.txt or class_names.txt, or else VOC's own."""
    if options.palette is not None:
        palette = read_palette(options.palette)
    elif (top / "labelmap.txt").is_file():
        palette = read_palette(str(top / "labelmap.txt"))
    elif (top / "class_names.txt").is_file():
        palette = _named(top / "class_names.txt")
    else:
        palette = read_palette("voc")
        return palette, ReadResult([], palette.classes, classes_from="Pascal VOC's own, for there is no labelmap.txt")
    return palette, ReadResult([], palette.classes, classes_from=palette.origin)


def _named(path: Path) -> Palette:
    """A palette in VOC's colours from a list of names, one a line; a name such as __ignore__ has none."""
    names = [line.strip() for line in _lines(path) if line.strip()]
    kept = [name for name in names if name.lower() not in IGNORED_NAMES]
    entries = [(name, voc_color(index)) for index, name in enumerate(kept)]
    return make_palette([*entries, ("void", voc_color(_VOID))], path.name, path)


def _splits(top: Path, found: ReadResult) -> dict[str, str]:
    """{name: split} of the lists there are. Names are looked up among the images' names, and never made into paths."""
    splits: dict[str, str] = {}
    for split in SPLITS:
        path = top / "ImageSets" / "Segmentation" / f"{split}.txt"
        if not path.is_file():
            continue
        names = {line.split()[0] for line in _lines(path) if line.split()}
        for twice in sorted(names & splits.keys()):
            raise DataError(
                "an image stands in two lists", where=path, found=twice, expected=f"once; it is in {splits[twice]}.txt",
                fix="remove one of the lines",
            )
        splits |= dict.fromkeys(names, split)
        found.notes.append(f"{path.name}: {len(names)} images")
    return splits


def _lines(path: Path) -> list[str]:
    try:
        return read_bytes(path, _MAX_LIST_BYTES).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError("is not a text file in UTF-8", where=path) from error


@dataclass(frozen=True)
class _Labels:
    """Draws the labels of an image from its class mask and, where there is one, its object mask."""

    classes: Path
    objects: Path | None
    palette: Palette
    limits: DataParams

    def __call__(self, height: int, width: int) -> Drawing:
        mask = self._class_values()
        check_size(self.classes, mask, height, width)
        if self.objects is None:
            return Drawing(mask)
        instances = _object_numbers(self.objects, self.limits)
        check_size(self.objects, instances, height, width)
        instances[mask == _VOID] = 0
        return Drawing(mask, instances)

    def _class_values(self) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
        if _stored_in_colours(self.classes):
            return self.palette.encode(read_image(self.classes, self.limits), str(self.classes), tolerance=0)[0]
        return read_mask(self.classes, self.limits)


def _object_numbers(path: Path, limits: DataParams) -> npt.NDArray[np.uint16]:
    """Object numbers, (H, W), 0 for none and for void: palette indices, or the places of RGB colours in order."""
    if not _stored_in_colours(path):
        numbers = read_mask(path, limits).astype(np.uint16)
        numbers[numbers == _VOID] = 0
        return numbers
    image = read_image(path, limits)
    colours, inverse = np.unique(image.reshape(-1, image.shape[-1]), axis=0, return_inverse=True)
    nothing = [tuple(map(int, colour)) in ((0, 0, 0), voc_color(_VOID)) for colour in colours]
    places = np.where(nothing, 0, np.cumsum(np.logical_not(nothing)))
    return places[inverse].reshape(image.shape[:2]).astype(np.uint16)  # type: ignore[no-any-return]


def _stored_in_colours(path: Path) -> bool:
    """Whether an image file stores colours, and not one channel or indices into a palette; by its header."""
    try:
        with Image.open(path) as header:
            return header.mode in ("RGB", "RGBA", "CMYK", "YCbCr")
    except (OSError, ValueError, SyntaxError):  # decoding will say what is wrong with it
        return False

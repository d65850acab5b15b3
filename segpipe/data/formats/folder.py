"""`folder`: images and masks side by side, paired by file name.

```
SRC/images/a.png  SRC/masks/a.png  [SRC/instances/a.png]  [SRC/dataset.yaml]  [SRC/samples.csv]
SRC/train/images/...  SRC/train/masks/...  and so for val and test
```
"""

from __future__ import annotations

from pathlib import Path

from segpipe.data.dataset import CLASSES_FILE, SAMPLES_FILE, read_classes, read_samples
from segpipe.data.formats.source import RawItem, ReadOptions, Source
from segpipe.data.images import SUFFIXES
from segpipe.data.splits import SPLITS
from segpipe.errors import DataError

IMAGE_FOLDERS = ("images", "image", "imgs", "img")
MASK_FOLDERS = ("masks", "mask", "labels", "label", "annotations", "gt")
MASK_ENDINGS = ("", "_mask", "_label", "_gt", "_seg")
"""What a mask's name may have after its image's name."""


def read_folder(source: Path, options: ReadOptions) -> Source:
    """Read the layout; DataError where there is no folder of images."""
    parts: list[tuple[str | None, Path]] = [(None, source)]
    if _subfolder(source, IMAGE_FOLDERS) is None:
        parts = [(split, source / split) for split in SPLITS if _subfolder(source / split, IMAGE_FOLDERS)]
    if not parts:
        raise DataError(
            "no folder of images", where=source, expected="images/ and masks/ in it, or in its train/, val/ and test/",
            fix="name the folders so, or choose another --format",
        )  # fmt: skip
    found = Source([])
    for split, part in parts:
        _read_part(found, source, part, split)
    if (source / CLASSES_FILE).exists():
        found.classes = read_classes(source / CLASSES_FILE)
    if len(parts) == 1 and (source / SAMPLES_FILE).exists():
        rows = read_samples(source / SAMPLES_FILE, {item.image.stem for item in found.items})
        found.items = [_with_row(item, *rows.get(item.image.stem, (None, None))) for item in found.items]
    return found


def _read_part(found: Source, source: Path, part: Path, split: str | None) -> None:
    images, masks = _subfolder(part, IMAGE_FOLDERS), _subfolder(part, MASK_FOLDERS)
    assert images is not None
    name = part.relative_to(source).as_posix()
    if masks is None:
        if split is None:
            raise DataError("no folder of masks", where=part, expected="masks/ beside images/", fix="name it masks/")
        found.skipped.append((f"{name}/{images.name}/", "no folder of masks beside it"))
        return
    found.notes.append(f"{images.relative_to(source).as_posix()}/ with {masks.relative_to(source).as_posix()}/")
    by_name = _by_name(masks)
    instances = _by_name(part / "instances")
    used = set()
    for stem, image in _by_name(images).items():
        mask = next((by_name[stem + ending] for ending in MASK_ENDINGS if stem + ending in by_name), None)
        used.add(mask)
        label = image.relative_to(source).with_suffix("").as_posix()
        found.items.append(RawItem(label, image, mask, instances.get(stem), split=split))
    for path in sorted(set(by_name.values()) - used):
        found.skipped.append((path.relative_to(source).as_posix(), "a mask without an image"))


def _subfolder(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The first subfolder of one of these names, whatever its case."""
    if not folder.is_dir():
        return None
    there = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir()}
    return next((there[name] for name in names if name in there), None)


def _by_name(folder: Path) -> dict[str, Path]:
    """Image files at any depth under a folder, by their relative path without the ending."""
    files = (p for p in sorted(folder.rglob("*")) if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    by_name: dict[str, Path] = {}
    for path in files:
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in by_name:
            raise DataError(
                "two files of one name", where=folder, found=f"{by_name[name].name} and {path.name}",
                fix="keep one of them, or rename it",
            )  # fmt: skip
        by_name[name] = path
    return by_name


def _with_row(item: RawItem, group: str | None, split: str | None) -> RawItem:
    return RawItem(item.name, item.image, item.mask, item.instances, group, split)

"""`yolo-seg`: data.yaml, images/SPLIT/ and labels/SPLIT/*.txt (or SPLIT/images/ and SPLIT/labels/), polygons as shares of the image.

data.yaml says `names` (a list, or {id: name}) and the images of `train`, `val` and `test`: a folder, a list of folders, or a text
file of image names; relative to its own folder, or to `path` in it. An image without a label file holds no object.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from segpipe.data.formats.annotations.listed_images import find_listed
from segpipe.data.formats.annotations.categories import Category, Numbering, number_classes
from segpipe.data.formats.annotations.painter import Annotation, Painter
from segpipe.data.formats.source import RawItem, ReadOptions, ReadResult, files_below
from segpipe.data.formats.annotations.yolo_labels import BOX, read_labels
from segpipe.data.images import SUFFIXES, stem_of
from segpipe.errors import DataError
from segpipe.files import read_bytes

_MAX_YAML_BYTES, _MAX_LIST_BYTES = 1 << 20, 1 << 28
_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def recognise_yolo_seg(source: Path) -> str | None:
    """Why `source` is of this layout; None where it is not."""
    path = _settings_file(source)
    return f"{path.name} with `names` and the folders of {', '.join(_given(_settings(path)))}" if path else None


def read_yolo_seg(source: Path, options: ReadOptions) -> ReadResult:
    """Read the layout. A broken line is left out with its reason.

    Raises DataError where there is no data.yaml, where it names no images that are there, and where all labels are boxes.
    """
    source = source.resolve()
    path = _settings_file(source)
    if path is None:
        raise DataError(
            "no data.yaml", where=source, expected="a YAML file with `names`, `train` and `val`",
            fix="write it, or choose another --format",
        )
    settings = _settings(path)
    numbering = number_classes(_categories(settings, path), False, path)
    found = ReadResult([], numbering.classes, classes_from=path.name)
    counts: Counter[str] = Counter()
    objects, taken = 0, set()
    for split, value in _given(settings).items():
        images = _images(source, path.parent, settings.get("path"), value, found)
        found.notes.append(f"{split}: {len(images)} images")
        for image in images:
            if image in taken:
                found.skipped.append((image.relative_to(source).as_posix(), "stands in two splits"))
                continue
            taken.add(image)
            objects += _add_item(found, source, image, _SPLITS[split], numbering, counts)
    boxes = [(name, reason) for name, reason in found.skipped if reason.startswith(BOX)]
    if boxes and not objects:
        raise DataError(
            "the labels are boxes, not outlines", where=source, found=f"{len(boxes)} lines such as {boxes[0][0]}",
            expected="class x1 y1 x2 y2 x3 y3 ...", fix="export the dataset for segmentation",
        )
    found.notes += [f"{text}: {count}" for text, count in counts.items()]
    return found


def _settings_file(source: Path) -> Path | None:
    """data.yaml, or the only other YAML file at the top that says the same."""
    named = [source / "data.yaml", source / "data.yml"]
    others = sorted(path for path in source.glob("*.y*ml") if path not in named)
    for group in (named, others):
        fitting = [path for path in group if path.is_file() and _is_settings(path)]
        if len(fitting) == 1:
            return fitting[0]
    return None


def _is_settings(path: Path) -> bool:
    try:
        settings = _settings(path)
    except DataError:
        return path.name in ("data.yaml", "data.yml")  # reading it will say what is wrong
    return bool(settings.get("names")) and bool(_given(settings))


def _settings(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(read_bytes(path, _MAX_YAML_BYTES))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"is not valid YAML: {error}", where=path) from error
    if not isinstance(content, dict):
        raise DataError("holds no settings", where=path, expected="names, train, val")
    return content


def _given(settings: dict[str, Any]) -> dict[str, Any]:
    return {split: settings[split] for split in _SPLITS if settings.get(split)}


def _categories(settings: dict[str, Any], where: Path) -> list[Category]:
    names = settings.get("names")
    pairs = list(names.items() if isinstance(names, dict) else enumerate(names if isinstance(names, list) else []))
    if not pairs or not all(
        type(k) is int and k >= 0 and isinstance(v, str | int) and str(v).strip() for k, v in pairs
    ):
        raise DataError(
            "the names of the classes cannot be read", where=where, found=repr(names)[:80],
            expected="names: [cell, nucleus] or names: {0: cell, 1: nucleus}",
        )
    return [Category(number, str(name)) for number, name in pairs]


def _images(source: Path, base: Path, root: object, value: object, found: ReadResult) -> list[Path]:
    """The image files that one split names, resolved, in order, none twice."""
    images: dict[Path, None] = {}
    for name in value if isinstance(value, list) else [value]:
        place = _place(source, base, root, str(name))
        if place is None:
            found.skipped.append(
                (str(name), "is in data.yaml, but no such folder or list of images lies in the source")
            )
        elif place.is_dir():
            images |= {p.resolve(): None for p in files_below(place) if p.suffix.lower() in SUFFIXES}
        else:
            images |= _listed(source, [place.parent, *([base / str(root)] if root else []), base], place, found)
    return [image for image in images if image.is_relative_to(source)]


def _place(source: Path, base: Path, root: object, name: str) -> Path | None:
    """Where a path of data.yaml leads. Tools write paths of the machine they ran on, and `../train/images` for `train/images`:
    such a path is taken from its end on, and never leads out of the source."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    bases = [base / str(root)] if root else []
    tails = [Path(*parts[start:]) for start in range(len(parts))]
    candidates = [folder / name for folder in (*bases, base)] + [base / tail for tail in tails]
    for path in candidates:
        try:
            there = path.resolve()
            if there.is_relative_to(source) and (there.is_dir() or (there.is_file() and there.suffix == ".txt")):
                return there
        except (OSError, ValueError, RuntimeError):  # a NUL, too long, a loop of links
            continue
    return None


def _listed(source: Path, folders: list[Path], path: Path, found: ReadResult) -> dict[Path, None]:
    images: dict[Path, None] = {}
    lines = read_bytes(path, _MAX_LIST_BYTES).decode("utf-8-sig", "replace").splitlines()
    for number, line in enumerate(lines, start=1):
        if name := line.strip():
            try:
                images[find_listed(source, folders, name, f"{path.name}:{number}")] = None
            except DataError as error:
                found.skipped.append((f"{path.name}:{number}", str(error)))
    return images


def _label_file(image: Path, source: Path) -> Path:
    """The last folder `images` of a path is `labels` for its label file; where there is none, that lies beside the image."""
    parts = list(image.relative_to(source).parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return source.joinpath(*parts).with_name(f"{stem_of(image)}.txt")


def _add_item(found: ReadResult, source: Path, image: Path, split: str, numbering: Numbering, counts: Counter[str]) -> int:
    """Add an image and its labels; how many objects it has."""
    name = (image.relative_to(source).parent / stem_of(image)).as_posix()
    labels = _label_file(image, source)
    objects: list[Annotation] = []
    if labels.is_file():
        shown = labels.relative_to(source).as_posix()
        try:
            objects, skipped, decided = read_labels(labels, numbering.values, shown)
        except DataError as error:
            found.skipped.append((shown, str(error)))
            found.items.append(RawItem(name, image, split=split))
            return 0
        found.skipped += skipped
        counts += decided
    else:
        counts["images without a label file, taken to hold no object"] += 1
    painter = Painter(objects, numbering, None, True, str(image))
    found.items.append(RawItem(name, image, split=split, draw=painter))
    return len(objects)

"""`yolo-seg`: data.yaml, images/SPLIT/ and labels/SPLIT/*.txt (or SPLIT/images/ and SPLIT/labels/), with polygons as fractions.

data.yaml holds `names` (a list, or {id: name}) and the images of `train`, `val` and `test`: a folder, a list of folders, or a text
file of image names, relative to the folder of data.yaml or to `path` in it. An image without a label file has no instances. Without
data.yaml, classes.txt (Label Studio) names the classes of images/ and labels/.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from segpipe.data.formats.annotations.categories import Category, Numbering, number_classes
from segpipe.data.formats.annotations.listed_images import find_listed
from segpipe.data.formats.annotations.painter import INCOMPLETE, Annotation, Painter
from segpipe.data.formats.annotations.yolo_labels import BOX, read_labels, uploaded_label_file
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.source import RawItem, ReadOptions, ReadResult
from segpipe.data.images import SUFFIXES, stem_of
from segpipe.data.yaml_document import read_yaml
from segpipe.errors import DataError
from segpipe.files import read_bytes

NAMES_FILE, _NOTES_FILE = "classes.txt", "notes.json"
_MAX_YAML_BYTES, _MAX_LIST_BYTES = 1 << 20, 1 << 28
_OUTSIDE = (
    "is a link that leads out of the source: copy the source with the files that its links lead to (cp -rL SRC COPY)"
)
_WITHOUT_FILE = "images without a label file, imported without instances"
_IMAGE_NAMES = ("images", "image", "imgs", "img")
_MAX_IMAGES_CHECKED = 2000
"""Images of a split among which recognition looks for a label file."""
_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""Keys of data.yaml, and the splits that they stand for."""


def recognise_yolo_seg(probe: SourceProbe) -> str | None:
    """Return why the source has this layout: a YAML file with class names and folders of images. None otherwise."""
    path = _settings_file(probe)
    if path is None or explain_yolo_seg(probe):
        return None
    return f"{path.name} with `names` and the folders of {', '.join(_split_settings(_read_settings(path)))}"


def explain_yolo_seg(probe: SourceProbe) -> DataError | None:
    """Return the error for a source whose data.yaml names images of which none has a label file; None for any other source."""
    path = _settings_file(probe)
    try:
        settings = _read_settings(path) if path else {}
    except DataError:
        return None  # reading the source reports it
    source = probe.source.resolve()
    first = None
    for value in _split_settings(settings).values():
        images = _find_images(probe, source, settings.get("path"), value, ReadResult([]))
        for image, link in list(images.items())[:_MAX_IMAGES_CHECKED]:
            first = first or (image, link)
            if _label_file(image, link, source) is not None:
                return None
    return _no_labels(source, path, first) if path and first else None


def _no_labels(source: Path, settings_file: Path, image: tuple[Path, Path]) -> DataError:
    places = [path.relative_to(source).as_posix() for path in _label_candidates(*image, source)]
    return DataError(
        "names images, but none of them has a label file",
        where=settings_file,
        found=f"no {' and no '.join(dict.fromkeys(places))}",
        expected="a text file of outlines for each image with instances",
        fix="add the folder of labels to the source; or, if masks are files, name their folder: --masks DIR",
    )


def read_yolo_seg(probe: SourceProbe, options: ReadOptions) -> ReadResult:
    """Read the layout. A broken line of a label file is left out with the reason.

    Raises:
        DataError: there is no data.yaml, it is not valid, or all labels are boxes.
    """
    source = probe.source.resolve()
    settings_file = _settings_file(probe)
    if settings_file is None:
        raise DataError(
            "no data.yaml",
            where=source,
            expected="a YAML file with `names`, `train` and `val`",
            fix="write it, or choose another --format",
        )
    path = source / settings_file.name
    settings = _read_settings(path)
    numbering = number_classes(_parse_categories(settings, path), False, path)
    notes = {source / _NOTES_FILE} if path.name == NAMES_FILE else set()  # it repeats the names
    result = ReadResult([], numbering.classes, classes_from=path.name, used_files={path, *notes})
    counts: Counter[str] = Counter()
    n_instances = 0
    added: set[Path] = set()
    for split, value in _split_settings(settings).items():
        images = _find_images(probe, path.parent, settings.get("path"), value, result)
        result.notes.append(f"{split}: {len(images)} images")
        for image in images:
            first_image = (image, images[image])
            if image in added:
                result.skipped.append((images[image].relative_to(source).as_posix(), "is in two splits"))
                continue
            added.add(image)
            n_instances += _add_item(result, source, (image, images[image]), _SPLITS[split], numbering, counts)
    boxes = [name for name, reason in result.skipped if reason.startswith(BOX)]
    if boxes and not n_instances:
        raise DataError(
            "the labels are boxes, not outlines",
            where=source,
            found=f"{len(boxes)} lines such as {boxes[0]}",
            expected="class x1 y1 x2 y2 x3 y3 ...",
            fix="export the dataset for segmentation",
        )
    if added and counts[_WITHOUT_FILE] == len(added):
        raise _no_labels(source, path, first_image)
    result.notes += [f"{text}: {count}" for text, count in counts.items() if count]
    return result


def _settings_file(probe: SourceProbe) -> Path | None:
    """Return data.yaml, or the only other YAML file in the source with the same keys."""
    files = [*probe.listing.matching(probe.source, "*.yaml"), *probe.listing.matching(probe.source, "*.yml")]
    standard = [path for path in files if path.stem == "data"]
    others = [path for path in files if path.stem != "data"]
    for group in (standard, others):
        fitting = [path for path in group if _is_settings_file(path)]
        if len(fitting) == 1:
            return fitting[0]
    names = probe.source / NAMES_FILE
    has_folders = all(probe.listing.is_folder(probe.source / name) for name in ("images", "labels"))
    return names if has_folders and probe.listing.is_file(names) else None


def _is_settings_file(path: Path) -> bool:
    try:
        settings = _read_settings(path)
    except DataError:
        return path.stem == "data"  # reading the source reports the error
    return bool(settings.get("names")) and bool(_split_settings(settings))


def _read_settings(path: Path) -> dict[str, Any]:
    if path.name == NAMES_FILE:  # an export of Label Studio: one class name a line, and no splits
        try:
            lines = read_bytes(path, _MAX_YAML_BYTES).decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise DataError(f"is not UTF-8 text: {error}", where=path, fix="save it as UTF-8") from error
        return {"names": [line.strip() for line in lines if line.strip()], "train": "images"}
    content = read_yaml(path, _MAX_YAML_BYTES)
    if not isinstance(content, dict):
        raise DataError("holds no settings", where=path, expected="names, train, val")
    return content


def _split_settings(settings: dict[str, Any]) -> dict[str, Any]:
    return {split: settings[split] for split in _SPLITS if settings.get(split)}


def _parse_categories(settings: dict[str, Any], where: Path) -> list[Category]:
    names = settings.get("names")
    pairs = list(names.items() if isinstance(names, dict) else enumerate(names if isinstance(names, list) else []))
    if not pairs or not all(
        type(k) is int and k >= 0 and isinstance(v, str | int) and str(v).strip() for k, v in pairs
    ):
        raise DataError(
            "the names of the classes cannot be read",
            where=where,
            found=repr(names)[:80],
            expected="names: [cell, nucleus] or names: {0: cell, 1: nucleus}",
        )
    return [Category(number, str(name)) for number, name in pairs]


def _find_images(probe: SourceProbe, base: Path, root: object, value: object, result: ReadResult) -> dict[Path, Path]:
    """Return the image files of one split, resolved, in order, none twice, each with the path by which it was found.

    Args:
        probe: the source.
        base: the folder of data.yaml, resolved.
        root: `path` in data.yaml.
        value: the entry of the split in data.yaml.
        result: gets a line for each entry that leads nowhere.
    """
    source = probe.source.resolve()
    images: dict[Path, Path] = {}
    for name in value if isinstance(value, list) else [value]:
        path = _locate(source, base, root, str(name))
        if path is None:
            result.skipped.append((str(name), "is in data.yaml, but the source has no such folder or list of images"))
        elif path.is_dir():
            folder = probe.source / path.relative_to(source)
            files = (file for file in probe.listing.files_below(folder) if file.suffix.lower() in SUFFIXES)
            images |= {file.resolve(): source / file.relative_to(probe.source) for file in files}
        else:
            images |= _read_list(source, [path.parent, *([base / str(root)] if root else []), base], path, result)
    outside = {image: link for image, link in images.items() if not image.is_relative_to(source)}
    result.skipped += [(link.relative_to(source).as_posix(), _OUTSIDE) for link in outside.values()]
    return {image: link for image, link in images.items() if image not in outside}


def _locate(source: Path, base: Path, root: object, name: str) -> Path | None:
    """Return the folder or list of images that a path in data.yaml means; None if the source has none.

    Tools write absolute paths of the machine they ran on, and `../train/images` for `train/images`: for such a path, the longest
    ending of it that exists in the source counts. It never leads out of the source.
    """
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    bases = [base / str(root)] if root else []
    endings = [Path(*parts[start:]) for start in range(len(parts))]
    candidates = [folder / name for folder in (*bases, base)] + [base / ending for ending in endings]
    for candidate in candidates:
        try:
            path = candidate.resolve()
            if path.is_relative_to(source) and (path.is_dir() or (path.is_file() and path.suffix == ".txt")):
                return path
        except (OSError, ValueError, RuntimeError):  # a NUL, too long, a loop of links
            continue
    return None


def _read_list(source: Path, folders: list[Path], path: Path, result: ReadResult) -> dict[Path, Path]:
    images: dict[Path, Path] = {}
    lines = read_bytes(path, _MAX_LIST_BYTES).decode("utf-8-sig", "replace").splitlines()
    for number, line in enumerate(lines, start=1):
        if name := line.strip():
            try:
                image = find_listed(source, folders, name, f"{path.name}:{number}")
                images[image] = image
            except DataError as error:
                result.skipped.append((f"{path.name}:{number}", str(error)))
    return images


def _label_file(image: Path, link: Path, source: Path) -> Path | None:
    """Return the label file of an image, wherever users of YOLO put it; None if there is none.

    Args:
        image: the image file, resolved.
        link: the path by which it was found, which may be a link.
        source: the source, resolved.
    """
    candidates = _label_candidates(image, link, source)
    label_file = next((path for path in candidates if path.is_file()), None)
    folders = dict.fromkeys(path.parent for path in candidates)
    return label_file or next((path for folder in folders if (path := uploaded_label_file(folder, link))), None)


def _label_candidates(image: Path, link: Path, source: Path) -> list[Path]:
    """Return where the label file may be: in a folder `labels` for `images` (in any case), or beside the image; for links, at both ends."""
    candidates: list[Path] = []
    for path in dict.fromkeys((link, image)):
        parts = list(path.relative_to(source).parts)
        name = f"{stem_of(path)}.txt"
        for index in range(len(parts) - 2, -1, -1):
            if parts[index].lower() in _IMAGE_NAMES:
                for labels in dict.fromkeys((_in_case_of("labels", parts[index]), "labels", "Labels", "LABELS")):
                    candidates.append(source.joinpath(*parts[:index], labels, *parts[index + 1 :]).with_name(name))
                break
        candidates.append(source.joinpath(*parts).with_name(name))
    return candidates


def _in_case_of(word: str, example: str) -> str:
    """Return a word with the case of letters of an example."""
    return word.upper() if example.isupper() else word.capitalize() if example[:1].isupper() else word


def _add_item(
    result: ReadResult, source: Path, found: tuple[Path, Path], split: str, numbering: Numbering, counts: Counter[str]
) -> int:
    """Add an image with its annotations; return how many there are."""
    image, link = found
    name = (link.relative_to(source).parent / stem_of(link)).as_posix()
    label_file = _label_file(image, link, source)
    annotations: list[Annotation] = []
    if label_file is not None:
        result.used_files.add(label_file)
        label_name = label_file.relative_to(source).as_posix()
        try:
            annotations, skipped, decisions = read_labels(label_file, numbering.values, label_name)
        except DataError as error:
            result.skipped.append((label_name, str(error)))
            result.items.append(RawItem(name, image, split=split))
            return 0
        result.skipped += skipped
        counts += decisions
        counts[INCOMPLETE] += bool(skipped)
    else:
        counts[_WITHOUT_FILE] += 1
    painter = Painter(annotations, numbering, None, True, str(image))
    result.items.append(RawItem(name, image, split=split, draw=painter))
    return len(annotations)

"""One label file of YOLO segmentation: a line `class x1 y1 x2 y2 ...` per instance, as fractions of the image's width and height."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from functools import lru_cache
from pathlib import Path

from segpipe.data.formats.annotations.listed_images import UPLOAD_PREFIX
from segpipe.data.formats.annotations.painter import CLIPPED, Annotation
from segpipe.data.formats.annotations.shapes import Polygons, parse_polygon, reaches_out
from segpipe.data.images import stem_of, suffix_of
from segpipe.errors import DataError
from segpipe.files import read_bytes

BOX = "is a box, not an outline"
_MAX_LABEL_BYTES = 1 << 26
_MAX_COORDINATE = 2
"""Fractions of an image may lie a little outside 0..1; numbers beyond this are pixels."""


def read_labels(
    path: Path, class_ids: Container[int], name: str
) -> tuple[list[Annotation], list[tuple[str, str]], Counter[str]]:
    """Return the content of a label file.

    Args:
        path: the label file.
        class_ids: the valid class ids.
        name: the file's name for the user.

    Returns:
        The annotations; (line, reason) for each line that was left out; decisions and how often each was made.

    Raises:
        DataError: the file is too large or not text.
    """
    try:
        lines = read_bytes(path, _MAX_LABEL_BYTES).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError("is not a text file in UTF-8", where=path, fix="save it as UTF-8") from error
    annotations: list[Annotation] = []
    skipped: list[tuple[str, str]] = []
    counts: Counter[str] = Counter()
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields:
            continue
        try:
            polygon, class_id = _parse_line(fields, class_ids)
            counts[CLIPPED] += reaches_out(polygon, 1, 1)
            annotations.append(Annotation(polygon, class_id))
        except DataError as error:
            skipped.append((f"{name}:{number}", str(error)))
    return annotations, skipped, +counts


def uploaded_label_file(folder: Path, image: Path) -> Path | None:
    """Return the label file of an image whose name Label Studio has preceded by that of an upload: `a1b2c3d4-t00.txt` for `t00.png`.

    Args:
        folder: a folder of label files.
        image: the image file, without that prefix.

    Returns:
        The file; None if there is none, if several fit, or if it belongs to an image with the whole name.
    """
    try:
        files = _uploaded_files(folder, folder.stat().st_mtime_ns).get(f"{stem_of(image)}.txt", [])
    except OSError:
        return None
    if len(files) != 1 or image.with_name(f"{stem_of(files[0])}{suffix_of(image)}").exists():
        return None
    return files[0]


@lru_cache(maxsize=64)
def _uploaded_files(folder: Path, modified: int) -> dict[str, list[Path]]:
    """Return the label files of a folder whose names have the prefix of an upload, by their names without it."""
    files: dict[str, list[Path]] = {}
    for path in folder.glob("*.txt"):
        if UPLOAD_PREFIX.match(path.name):
            files.setdefault(UPLOAD_PREFIX.sub("", path.name, count=1), []).append(path)
    return files


def _parse_line(fields: list[str], class_ids: Container[int]) -> tuple[Polygons, int]:
    if len(fields) == 5:
        raise DataError(
            BOX,
            found="4 numbers after the class",
            expected="class x1 y1 x2 y2 x3 y3 ...",
            fix="export the outlines (segmentation), not the detection labels",
        )
    try:
        class_id = float(fields[0])  # some tools write 0.0
        numbers = [float(field) for field in fields[1:]]
    except ValueError as error:
        raise DataError("is not a line of numbers", found=repr(" ".join(fields)[:60])) from error
    if class_id not in class_ids:
        raise DataError("has no valid class", found=fields[0][:20], expected="a class number from `names` in data.yaml")
    outline = parse_polygon(numbers)
    if (abs(outline) > _MAX_COORDINATE).any():
        raise DataError(
            "the coordinates are not fractions of the image",
            found=f"up to {abs(outline).max():g}",
            expected="0 to 1",
            fix="divide x by the image's width and y by its height",
        )
    return Polygons((outline,)), int(class_id)

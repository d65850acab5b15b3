"""One label file of YOLO segmentation: a line `class x1 y1 x2 y2 ...` for each object, shares of the image's width and height."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from pathlib import Path

from segpipe.data.formats.annotations.painter import CLIPPED, Annotation
from segpipe.data.formats.annotations.shapes import Polygons, parse_polygon, reaches_out
from segpipe.errors import DataError
from segpipe.files import read_bytes

BOX = "is a box, not an outline"
_MAX_LABEL_BYTES = 1 << 26


def read_labels(
    path: Path, known: Container[int], shown: str
) -> tuple[list[Annotation], list[tuple[str, str]], Counter[str]]:
    """The objects of a label file, (line, reason) for each line left out, and what was decided.

    known: the class ids there are. shown: the file's name for people. Raises DataError for a file that is too large or no text.
    """
    try:
        lines = read_bytes(path, _MAX_LABEL_BYTES).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError("is not a text file in UTF-8", where=path) from error
    objects: list[Annotation] = []
    skipped: list[tuple[str, str]] = []
    counts: Counter[str] = Counter()
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields:
            continue
        try:
            marked = _object(fields, known)
            assert isinstance(marked.shape, Polygons)
            counts[CLIPPED] += reaches_out(marked.shape, 1, 1)
            objects.append(marked)
        except DataError as error:
            skipped.append((f"{shown}:{number}", str(error)))
    return objects, skipped, +counts


def _object(fields: list[str], known: Container[int]) -> Annotation:
    if len(fields) == 5:
        raise DataError(
            BOX, found="4 numbers after the class", expected="class x1 y1 x2 y2 x3 y3 ...",
            fix="export the outlines (segmentation), not the detection labels",
        )
    try:
        category = float(fields[0])  # some tools write 0.0
        numbers = [float(field) for field in fields[1:]]
    except ValueError as error:
        raise DataError("is not a line of numbers", found=repr(" ".join(fields)[:60])) from error
    if category not in known:
        raise DataError("is of no class", found=fields[0][:20], expected="a number that `names` in data.yaml has")
    outline = parse_polygon(numbers)
    if (abs(outline) > 2).any():
        raise DataError(
            "the coordinates are no shares of the image", found=f"up to {abs(outline).max():g}", expected="0 to 1",
            fix="divide x by the image's width and y by its height",
        )
    return Annotation(Polygons((outline,)), int(category))

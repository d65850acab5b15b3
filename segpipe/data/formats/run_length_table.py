"""`run-length-table`: a CSV of image names and run-length codes, as competitions of Kaggle have it, and the images.

```
ImageId,ClassId,EncodedPixels        also ImageId_ClassId or Image_Label in one column, or no class
0002cc93b.jpg,1,29102 12 29346 24
```

A code is a list of starts (from 1) and lengths. Nearly all competitions number pixels column by column, a few row by row: the order in
which the outlines of a sample are shorter is taken, and reported. An empty code says that the image has no objects of this class.
Images that the table does not name are without labels.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from segpipe.config import DataParams
from segpipe.data.formats.class_lists import files_at_depth
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.source import Drawing, RawItem, ReadOptions, ReadResult
from segpipe.data.images import is_image_file, read_size, stem_of
from segpipe.errors import DataError
from segpipe.files import read_bytes
from segpipe.samples import MAX_CLASSES, ClassTable

_CODE_COLUMNS = ("encodedpixels", "encoded_pixels", "rle_mask", "rle")
_CLASS_COLUMNS = ("classid", "class_id", "class", "label", "category")
_JOINED_COLUMNS = ("imageid_classid", "image_label")
_MAX_BYTES = 1 << 30
_MAX_FIELD = 1 << 27
_MAX_DEPTH = 2
_SAMPLES = 8
_MAX_INSTANCES = 65535
_HEADER_BYTES = 4096

Codes = tuple[tuple[str, str], ...]
"""The class and the code of each row about one image."""


def recognise_run_length_table(probe: SourceProbe) -> str | None:
    """Return why the source has this layout: a table with a column of run-length codes. None otherwise."""
    tables = _tables(probe)
    return f"{tables[0].relative_to(probe.source).as_posix()} with run-length codes" if tables else None


def read_run_length_table(probe: SourceProbe, options: ReadOptions) -> ReadResult:
    """Read the layout. Rows that name no image are left out.

    Raises:
        DataError: there is no such table or are several, it cannot be read, or there are too many classes.
    """
    tables = _tables(probe)
    if len(tables) != 1:
        raise DataError(
            "several tables of run-length codes" if tables else "no table of run-length codes",
            where=probe.source,
            found=", ".join(path.name for path in tables) or None,
            expected="one CSV with a column EncodedPixels",
            fix="move the others away" if tables else "choose another --format",
        )
    rows = _read_rows(tables[0])
    images = _image_files(probe)
    codes: dict[Path, list[tuple[str, str]]] = defaultdict(list)
    result = ReadResult([], used_files={tables[0]})
    for name, class_name, code in rows:
        path = images.get(name) or images.get(PurePosixPath(name).name)
        if path is None:
            result.skipped.append((tables[0].name, f"names no image, or several: {name[:80]!r}"))
        else:
            codes[path].append((class_name, code))
    values, table = _classes({class_name for rows in codes.values() for class_name, _ in rows}, tables[0])
    result.classes, result.classes_from = table, tables[0].name
    by_columns = _is_by_columns(codes, options.limits, result)
    has_instances = any(len(rows) > len({name for name, _ in rows}) for rows in codes.values())
    for path in dict.fromkeys(images.values()):
        item = (path.relative_to(probe.source).parent / stem_of(path)).as_posix()
        draw = RunLengths(tuple(codes[path]), values, by_columns, has_instances, path.name) if path in codes else None
        result.items.append(RawItem(item, path, draw=draw))
    return result


@dataclass(frozen=True)
class RunLengths:
    """Draws the labels of one image from its run-length codes (a `segpipe.data.formats.source.Draw`).

    codes: the class and the code of each row, in the order of the table.
    values: the file value of each class.
    by_columns: whether pixels are numbered column by column.
    has_instances: whether each row is an instance.
    image: the name of the image, for errors.
    """

    codes: Codes
    values: tuple[tuple[str, int], ...]
    by_columns: bool
    has_instances: bool
    image: str

    def __call__(self, height: int, width: int) -> Drawing:
        """Return class values and, if the rows are instances, instance ids, both (height, width).

        Raises:
            DataError: a code is not valid, or leads out of the image.
        """
        values = dict(self.values)
        mask, instances = np.zeros(height * width, np.uint8), np.zeros(height * width, np.uint16)
        if len(self.codes) > _MAX_INSTANCES:
            raise DataError("too many rows about one image", where=self.image, found=len(self.codes))
        for number, (class_name, code) in enumerate(self.codes, start=1):
            for start, length in parse_code(code, height * width, self.image):
                mask[start : start + length] = values[class_name]
                instances[start : start + length] = number
        planes = [_plane(flat, height, width, self.by_columns) for flat in (mask, instances)]
        return Drawing(planes[0], planes[1] if self.has_instances else None)


def parse_code(code: str, size: int, where: str) -> npt.NDArray[np.int64]:
    """Return (start, length) of each run, (n, 2), with starts from 0.

    Args:
        code: starts (from 1) and lengths in turn, separated by blanks; empty for no pixels, as are `-1` and `nan`.
        size: the number of pixels of the image.
        where: the image, for errors.

    Raises:
        DataError: it is not such a list, or leads out of the image.
    """
    words = code.split()
    if not words or code.strip().lower() in ("-1", "nan", "1 0"):
        return np.empty((0, 2), np.int64)
    try:
        numbers = np.array(words, np.int64)
    except (ValueError, OverflowError) as error:
        raise DataError("the run-length code is not a list of numbers", where=where, found=repr(code[:40])) from error
    if len(numbers) % 2:
        raise DataError(
            "the run-length code has a start without a length", where=where, found=f"{len(numbers)} numbers"
        )
    runs = numbers.reshape(-1, 2) - np.array([1, 0])
    if (runs < 0).any() or (runs > size).any() or (runs.sum(axis=1) > size).any():
        raise DataError(
            "the run-length code leads out of the image",
            where=where,
            found=f"pixel {int(runs.sum(axis=1).max())}",
            expected=f"at most {size}",
            fix="use the images at the size for which the table was written",
        )
    return runs


def _tables(probe: SourceProbe) -> list[Path]:
    """Return the tables with a column of codes, without examples of submissions."""
    files = files_at_depth(probe.listing, probe.source, _MAX_DEPTH)
    tables = [path for path in files if path.suffix.lower() == ".csv" and "submission" not in path.name.lower()]
    return [path for path in tables if {*_header(path)} & {*_CODE_COLUMNS}]


def _header(path: Path) -> list[str]:
    try:
        with path.open("rb") as stream:
            line = stream.readline(_HEADER_BYTES).decode("utf-8-sig", "replace")
    except OSError:
        return []
    return [name.strip().strip('"').lower() for name in line.split(",")]


def _read_rows(path: Path) -> list[tuple[str, str, str]]:
    """Return the image, the class ("" without one) and the code of each row."""
    limit = csv.field_size_limit(_MAX_FIELD)  # of the whole process, so that it is restored
    try:
        text = read_bytes(path, _MAX_BYTES).decode("utf-8-sig")
        lines = [[field.strip() for field in row] for row in csv.reader(io.StringIO(text)) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"is not a CSV table in UTF-8: {error}", where=path) from error
    finally:
        csv.field_size_limit(limit)
    header = [name.lower() for name in lines[0]]
    code_at = next(header.index(name) for name in _CODE_COLUMNS if name in header)
    class_at = next((header.index(name) for name in _CLASS_COLUMNS if name in header), None)
    joined_at = next((header.index(name) for name in _JOINED_COLUMNS if name in header), None)
    image_at = 0 if joined_at is None else joined_at
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(header):
            raise DataError(
                "has another number of columns", where=f"{path}:{number}", found=len(line), expected=len(header)
            )
        image, class_name = line[image_at], line[class_at] if class_at is not None else ""
        if joined_at is not None:
            image, _, class_name = image.rpartition("_")
        rows.append((image, class_name, line[code_at]))
    return rows


def _image_files(probe: SourceProbe) -> dict[str, Path]:
    """Return the images below the source by their names, with and without their endings; names that several have are left out."""
    paths: dict[str, list[Path]] = {}
    for path in filter(is_image_file, probe.listing.files_below(probe.source)):
        for name in {path.name, stem_of(path)}:
            paths.setdefault(name, []).append(path)
    return {name: of_name[0] for name, of_name in paths.items() if len(of_name) == 1}


def _classes(names: set[str], where: Path) -> tuple[tuple[tuple[str, int], ...], ClassTable]:
    """Return the file value of each class, and the class table. Numbers from 1 are their own values."""
    if len(names) >= MAX_CLASSES or not names:
        raise DataError(
            "too few or too many classes", where=where, found=len(names), expected=f"1 to {MAX_CLASSES - 1}"
        )
    are_values = all(name.isascii() and name.isdigit() and 1 <= int(name) < MAX_CLASSES for name in names)
    ordered = sorted(names, key=int) if are_values else sorted(names)
    values = [int(name) for name in ordered] if are_values else [*range(1, len(ordered) + 1)]
    shown = [f"class {name}" if are_values else name or "foreground" for name in ordered]
    return tuple(zip(ordered, values, strict=True)), ClassTable.from_names(["background", *shown], [0, *values])


def _is_by_columns(codes: dict[Path, list[tuple[str, str]]], limits: DataParams, result: ReadResult) -> bool:
    """Return whether pixels are numbered column by column: whether the outlines of a sample are shorter so. The result gets a note."""
    labelled = [path for path, rows in codes.items() if any(code for _, code in rows)]
    lengths = np.zeros(2, np.int64)
    for path in labelled[:: max(1, len(labelled) // _SAMPLES)]:
        try:
            height, width = read_size(path, limits)[-2:]
            plane = np.zeros(height * width, bool)
            for _, code in codes[path]:
                for start, length in parse_code(code, height * width, path.name):
                    plane[start : start + length] = True
        except DataError:  # drawing it reports the error
            continue
        for way, by_columns in enumerate((True, False)):
            mask = _plane(plane, height, width, by_columns)
            lengths[way] += sum(int((np.diff(mask, axis=axis)).sum()) for axis in (0, 1))
    is_by_columns = bool(lengths[0] <= lengths[1])
    order_name = "column by column" if is_by_columns else "row by row"
    result.notes.append(
        f"pixels are numbered {order_name}: outlines of {min(lengths):,} pixels, otherwise {max(lengths):,}"
    )
    return is_by_columns


def _plane(flat: npt.NDArray[np.generic], height: int, width: int, by_columns: bool) -> np.ndarray:
    """Return numbered pixels as a plane, (height, width)."""
    return np.ascontiguousarray(flat.reshape(width, height).T) if by_columns else flat.reshape(height, width)

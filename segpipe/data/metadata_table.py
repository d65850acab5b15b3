"""Metadata tables that come with a source: one column names the image, the others are attributes to slice scores by."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from segpipe.data.images import is_image_file, stem_of
from segpipe.errors import ConfigError, DataError
from segpipe.files import read_bytes
from segpipe.words import listed

TABLE_FILES = ("samples.csv", "images.csv")
"""The file names under which a table is found in a source."""

_MAX_TABLE_BYTES = 1 << 28
_MAX_NAMES_SHOWN = 3
_LEADING_ZEROS = re.compile(r"(?<!\d)0+(?=\d)")
_DELIMITERS = ",;\t"
"""Spreadsheet programs write semicolons where the comma is the decimal mark. The most frequent one of the header is taken."""
ASSIGNMENT_COLUMNS = ("group", "split")
"""Columns that assign images to groups and splits; they are no attributes."""
_RESERVED_COLUMNS = ("key", *ASSIGNMENT_COLUMNS)


@dataclass(frozen=True)
class ImageTable:
    """The metadata of the images of a source.

    Attributes:
        path: the table that they come from.
        columns: the names of the metadata columns.
        rows: the values of the metadata columns, by the name of the image.
        assignments: the group and the split, if the table has these columns, by the name of the image.
    """

    path: Path
    columns: list[str]
    rows: dict[str, dict[str, str]]
    assignments: dict[str, dict[str, str]]

    def note(self, names: Sequence[str]) -> str:
        """Return a sentence for the import report about the columns that were read.

        Args:
            names: the names of the images that are imported.
        """
        assigned = next(iter(self.assignments.values()), {})
        without = [name for name in names if name not in self.rows]
        text = f"{self.path.name}: {', '.join([*self.columns, *assigned])} for {len(names) - len(without)} of {len(names)} images"
        return f"{text}; no row for {listed(without, _MAX_NAMES_SHOWN)}" if without else text


def find_table(source: Path, table: Path | None, names: Sequence[str]) -> ImageTable | None:
    """Find the metadata of the images of a source.

    Args:
        source: the folder that is imported; searched for `TABLE_FILES` if the user names no table.
        table: the table that the user names; None to search the source.
        names: the paths of the images, relative to the source and without their endings.

    Returns:
        The table; None if there is none, or none with a column of metadata, groups or splits.

    Raises:
        ConfigError: if no column of the table that the user names lists the images.
        DataError: if a table cannot be read, or has rows about one image that differ.
    """
    for path in [table] if table else [source / name for name in TABLE_FILES if (source / name).is_file()]:
        columns, rows = _read(path)
        joins = {column: _matches(column, rows, names) for column in columns}
        name_column = max(columns, key=lambda column: len(joins[column]), default=None)
        if name_column is None or 2 * len(joins[name_column]) < len(names):  # numbers may lack their leading zeros
            by_number = {column: _matches_by_number(column, rows, names, joins[column]) for column in columns}
            numbered = max(columns, key=lambda column: len(by_number[column]), default=None)
            if numbered is not None and 2 * len(by_number[numbered]) >= len(names):
                name_column, joins = numbered, by_number
        matches = joins[name_column] if name_column is not None else {}
        if table and not matches:
            raise ConfigError(
                "no column names the images",
                where=path,
                found=", ".join(columns),
                expected=f"a column that contains {PurePosixPath(names[0]).name}",
                fix="add it, or omit --table",
            )
        if name_column is not None:
            _check_joined(path, name_column, rows, matches, names, is_named=table is not None)
            _check_unique(path, name_column, rows, matches)
        metadata = [column for column in columns if column != name_column and column.lower() not in _RESERVED_COLUMNS]
        assigning = {column: column.lower() for column in columns if column.lower() in ASSIGNMENT_COLUMNS}
        if matches and (metadata or assigning):
            rows_by_name = {name: {column: row[column] for column in metadata} for name, row in matches.items()}
            assignments = {
                name: {role: row[column].strip() for column, role in assigning.items()} for name, row in matches.items()
            }
            return ImageTable(path, metadata, rows_by_name, assignments)
    return None


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    try:
        text = read_bytes(path, _MAX_TABLE_BYTES).decode("utf-8-sig")
        header = text.partition("\n")[0]
        reader = csv.DictReader(
            io.StringIO(text), restval="", strict=True, delimiter=max(_DELIMITERS, key=header.count)
        )
        rows = [{key: value for key, value in row.items() if key} for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"is not a CSV table in UTF-8: {error}", where=path) from error
    return [name for name in dict.fromkeys(reader.fieldnames or []) if name], rows


def _matches(column: str, rows: list[dict[str, str]], names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the row of each image whose name is in a column, with or without its first folders and its ending."""
    by_value = {_stem(row[column]): row for row in rows}
    counts = Counter(ending for name in names for ending in _path_endings(name))
    matches: dict[str, dict[str, str]] = {}
    for name in names:
        # a name without its folders says nothing if images in several folders have it
        endings = (ending for ending in _path_endings(name) if ending in by_value and counts[ending] == 1)
        if (ending := next(endings, None)) is not None:
            matches[name] = by_value[ending]
    return matches


def _matches_by_number(
    column: str, rows: list[dict[str, str]], names: Sequence[str], exact: dict[str, dict[str, str]]
) -> dict[str, dict[str, str]]:
    """Return the row of each image as `_matches` does, also if their numbers differ in leading zeros: 1 and 001, img_7 and img_07."""
    used = {id(row) for row in exact.values()}
    free_rows = [row for row in rows if id(row) not in used]
    free_names = [name for name in names if name not in exact]
    by_value = {_without_zeros(_stem(row[column])): row for row in free_rows}
    n_rows = Counter(_without_zeros(_stem(row[column])) for row in free_rows)
    n_names = Counter(_without_zeros(name.rpartition("/")[2]) for name in free_names)
    matches = dict(exact)
    for name in free_names:
        key = _without_zeros(name.rpartition("/")[2])
        if n_rows[key] == 1 and n_names[key] == 1:
            matches[name] = by_value[key]
    return matches


def _without_zeros(name: str) -> str:
    """Return a name whose numbers have no leading zeros."""
    return _LEADING_ZEROS.sub("", name)


def _check_joined(
    path: Path,
    column: str,
    rows: list[dict[str, str]],
    matches: dict[str, dict[str, str]],
    names: Sequence[str],
    is_named: bool,
) -> None:
    """Raise an error if most images have no row and most rows have no image: they are probably meant to belong together.

    Raises:
        ConfigError: for the table that the user names.
        DataError: for a table that lies in the source; the import leaves it out.
    """
    used = {_stem(row[column]) for row in matches.values()}
    unmatched = [row[column] for row in rows if _stem(row[column]) not in used]
    if not matches or 2 * len(matches) >= len(names) or 2 * len(unmatched) <= len(rows):
        return
    without = [name.rpartition("/")[2] for name in names if name not in matches]
    raise (ConfigError if is_named else DataError)(
        "most rows belong to no image",
        where=path,
        found=f"{column}: {listed(unmatched, _MAX_NAMES_SHOWN)} without an image, and the images "
        f"{listed(without, _MAX_NAMES_SHOWN)} without a row",
        expected=f"the names of the images in column {column}",
        fix="write them as the files are called, or omit --table" if is_named else "write them as the files are called",
    )


def _path_endings(name: str) -> list[str]:
    """Return a path without its first folders, the longest first: a/b/c, b/c, c."""
    parts = name.split("/")
    return ["/".join(parts[start:]) for start in range(len(parts))]


def _check_unique(path: Path, column: str, rows: list[dict[str, str]], matches: dict[str, dict[str, str]]) -> None:
    """Raise DataError if the table has another row about an image, with other values."""
    row_by_stem = {_stem(row[column]): row for row in matches.values()}
    for row in rows:
        other = row_by_stem.get(_stem(row[column]), row)
        if differing := [name for name in row if name != column and row[name] != other[name]]:
            raise DataError(
                f"two rows about one image differ in column {differing[0]}",
                where=path,
                found=row[column],
                expected="one row for each image",
                fix="keep one of them, or omit the column",
            )


def _stem(value: str) -> str:
    """Remove the ending of an image file from a name in a table."""
    path = PurePosixPath(value.strip())
    return (path.parent / stem_of(Path(path))).as_posix() if is_image_file(Path(path)) else value.strip()

"""Tables about images that come with a source: a column that names the image, and columns of anything else to slice by."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from segpipe.data.images import is_image_file, stem_of
from segpipe.errors import ConfigError, DataError
from segpipe.files import read_bytes

TABLE_FILES = ("samples.csv", "images.csv")
"""Names by which a table is found in a source."""

_MAX_BYTES = 1 << 28
_OWN = ("key", "group", "split")


@dataclass(frozen=True)
class ImageTable:
    """Further columns, and what they say of each image, in the order of the images; {} where nothing is said."""

    path: Path
    columns: list[str]
    rows: list[dict[str, str]]

    def note(self) -> str:
        """What was taken over, in words."""
        told = sum(map(bool, self.rows))
        return f"{self.path.name}: {', '.join(self.columns)} for {told} of {len(self.rows)} images"


def find_table(source: Path, given: Path | None, names: Sequence[str]) -> ImageTable | None:
    """The table that the user gives, or the one that lies in a source; None where there is none, or none with more columns.

    `names` are the images' paths without their endings. Raises ConfigError where no column of a given table names the images,
    DataError where a table cannot be read.
    """
    for path in [given] if given else [source / name for name in TABLE_FILES if (source / name).is_file()]:
        columns, rows = _read(path)
        named = max(columns, key=lambda column: len(_matches(column, rows, names)), default=None)
        matches = _matches(named, rows, names) if named is not None else {}
        if given and not matches:
            raise ConfigError(
                "no column names the images", where=path, found=", ".join(columns),
                expected=f"one with {PurePosixPath(names[0]).name} in it", fix="add it, or leave --table out",
            )
        kept = [column for column in columns if column != named and column.lower() not in _OWN]
        if matches and kept:
            told = [matches.get(name) for name in names]
            return ImageTable(path, kept, [{column: row[column] for column in kept} if row else {} for row in told])
    return None


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    try:
        reader = csv.DictReader(io.StringIO(read_bytes(path, _MAX_BYTES).decode("utf-8-sig")), restval="", strict=True)
        rows = [{key: value for key, value in row.items() if key} for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"is not a CSV table in UTF-8: {error}", where=path) from error
    return [name for name in dict.fromkeys(reader.fieldnames or []) if name], rows


def _matches(column: str, rows: list[dict[str, str]], names: Sequence[str]) -> dict[str, dict[str, str]]:
    """{name of an image: its row}, by a column that holds names with or without folders and endings."""
    by_value = {_stem(row[column]): row for row in rows}
    found = {name: by_value.get(name) or by_value.get(PurePosixPath(name).name) for name in names}
    return {name: row for name, row in found.items() if row is not None}


def _stem(value: str) -> str:
    """A name in a table as the name of an image: without its ending, where it has that of an image."""
    path = PurePosixPath(value.strip())
    return (path.parent / stem_of(Path(path))).as_posix() if is_image_file(Path(path)) else value.strip()

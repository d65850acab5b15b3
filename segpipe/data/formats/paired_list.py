"""`paired-list`: train.txt, val.txt and test.txt, each with a line ``image label`` for every pair, relative to their folder.

The layout of CamVid as SegNet used it, and of many others since.
"""

from __future__ import annotations

from pathlib import Path

from segpipe.data.formats.source import RawItem, ReadOptions, Source
from segpipe.data.splits import SPLITS
from segpipe.errors import DataError
from segpipe.files import read_bytes

_MAX_LIST_BYTES = 1 << 28


def read_paired_list(source: Path, options: ReadOptions) -> Source:
    """Read the lists; DataError for a line that is no pair, or that names a file outside `source` or one that is not there."""
    lists = [(split, source / f"{split}.txt") for split in SPLITS if (source / f"{split}.txt").is_file()]
    if not lists:
        raise DataError(
            "no list of pairs", where=source, expected="train.txt, val.txt or test.txt with lines `image label`",
            fix="write them, or choose another --format",
        )  # fmt: skip
    found = Source([])
    seen: dict[Path, str] = {}
    for split, path in lists:
        items = _read_list(source, path, split)
        for item in items:
            if item.image in seen:
                raise DataError(
                    "an image stands in the lists twice", where=path, found=item.name,
                    expected=f"once; it is in {seen[item.image]}.txt already", fix="remove one of the lines",
                )  # fmt: skip
            seen[item.image] = split
        found.items += items
        found.notes.append(f"{path.name}: {len(items)} pairs")
    return found


def _read_list(source: Path, path: Path, split: str) -> list[RawItem]:
    try:
        lines = read_bytes(path, _MAX_LIST_BYTES).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError("is not a text file in UTF-8", where=path) from error
    items = []
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields:
            continue
        where = f"{path}:{number}"
        if len(fields) != 2:
            raise DataError(
                "not a pair", where=where, found=repr(line[:80]), expected="`image label`, names without blanks"
            )
        image, mask = (_inside(source, field, where) for field in fields)
        name = image.relative_to(source.resolve()).with_suffix("").as_posix()
        items.append(RawItem(name, image, mask, split=split))
    return items


def _inside(source: Path, name: str, where: str) -> Path:
    """A file named by a list, resolved; it must lie in the source folder."""
    path = (source / name).resolve()
    if not path.is_relative_to(source.resolve()):
        raise DataError(
            "names a file outside its folder", where=where, found=name, expected=f"a path below {source}",
            fix="make the paths of the list relative to its folder",
        )  # fmt: skip
    if not path.is_file():
        raise DataError(
            "names a file that is not there", where=where, found=name, expected=f"a file below {source}",
            fix="make the paths of the list relative to its folder, or remove the line",
        )  # fmt: skip
    return path

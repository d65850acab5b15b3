"""`paired-list`: train.txt, val.txt and test.txt, each with a line ``image label`` for every pair, relative to their folder.

The layout of CamVid as SegNet used it, and of many others since. Names with blanks are parted by a tab.
"""

from __future__ import annotations

from pathlib import Path

from segpipe.data.formats.masks.colour_masks import draw_by_palette
from segpipe.data.formats.mask_kinds import mask_kind, some_masks
from segpipe.data.formats.source import RawItem, ReadOptions, ReadResult, resolve_inside
from segpipe.data.images import stem_of
from segpipe.data.splits import SPLITS
from segpipe.errors import DataError
from segpipe.files import read_bytes

_MAX_LIST_BYTES = 1 << 28


def recognise_paired_list(source: Path) -> str | None:
    """Why `source` is of this layout: its first list begins with a pair of files; None where it does not."""
    for path in _lists(source):
        with path.open("rb") as stream:
            fields = _fields(stream.readline(4096).decode("utf-8-sig", "replace"))
        if len(fields) == 2 and all((source / field).is_file() for field in fields):
            return f"{path.name} with lines `image label`"
    return None


def read_paired_list(source: Path, options: ReadOptions) -> ReadResult:
    """Read the lists; a line with a file that is not there is left out.

    Raises DataError for a line that is no pair, or that names a file outside `source`, and for an image that comes twice; for
    masks in colours errors as of `draw_by_palette`.
    """
    lists = _lists(source)
    if not lists:
        raise DataError(
            "no list of pairs", where=source, expected="train.txt, val.txt or test.txt with lines `image label`",
            fix="write them, or choose another --format",
        )
    found = ReadResult([])
    seen: dict[Path, str] = {}
    for path in lists:
        items = _read_list(source, path, found)
        for item in items:
            if item.image in seen:
                raise DataError(
                    "an image stands in the lists twice", where=path, found=item.name,
                    expected=f"once; it is in {seen[item.image]} already", fix="remove one of the lines",
                )
            seen[item.image] = path.name
        found.items += items
        found.notes.append(f"{path.name}: {len(items)} pairs")
    if options.palette is not None or mask_kind(some_masks(found.items)) == "colours":
        draw_by_palette(found, source, options)
    return found


def _lists(source: Path) -> list[Path]:
    return [source / f"{split}.txt" for split in SPLITS if (source / f"{split}.txt").is_file()]


def _fields(line: str) -> list[str]:
    return [field.strip() for field in line.split("\t")] if "\t" in line.strip() else line.split()


def _read_list(source: Path, list_file: Path, found: ReadResult) -> list[RawItem]:
    try:
        lines = read_bytes(list_file, _MAX_LIST_BYTES).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError("is not a text file in UTF-8", where=list_file) from error
    items: list[RawItem] = []
    top = source.resolve()
    for number, line in enumerate(lines, start=1):
        fields = _fields(line)
        if not fields:
            continue
        where = f"{list_file}:{number}"
        if len(fields) != 2:
            raise DataError(
                "not a pair", where=where, found=repr(line[:80]), expected="`image label`; a tab between names with blanks"
            )
        image, mask = paths = [resolve_inside(source, field, where) for field in fields]
        if missing := [field for field, path in zip(fields, paths, strict=True) if not path.is_file()]:
            found.skipped.append((where, f"names a file that is not there: {missing[0]}"))
            continue
        name = image.relative_to(top).parent / stem_of(image)
        items.append(RawItem(name.as_posix(), image, mask, split=list_file.stem))
    return items

"""`paired-list`: train.txt, val.txt and test.txt with one line ``image label`` per pair, relative to the folder of the lists.

This is the layout of CamVid as SegNet used it, and of many datasets since. Names with blanks are separated by a tab.
"""

from __future__ import annotations

from pathlib import Path

from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.source import RawItem, ReadOptions, ReadResult, resolve_inside
from segpipe.data.images import stem_of
from segpipe.data.splits import SPLITS
from segpipe.errors import DataError
from segpipe.files import read_bytes

_MAX_LIST_BYTES = 1 << 28
_MAX_FIRST_LINE_BYTES = 4096


def recognise_paired_list(probe: SourceProbe) -> str | None:
    """Return why the source has this layout: one of its lists begins with a pair of files. None otherwise."""
    for path in _list_files(probe):
        with path.open("rb") as stream:
            fields = _split_line(stream.readline(_MAX_FIRST_LINE_BYTES).decode("utf-8-sig", "replace"))
        if len(fields) == 2 and all((probe.source / field).is_file() for field in fields):
            return f"{path.name} with lines `image label`"
    return None


def read_paired_list(probe: SourceProbe, options: ReadOptions) -> ReadResult:
    """Read the lists; a line that names a missing file is left out.

    Raises:
        DataError: a line is not a pair or names a file outside the source, or an image occurs twice.
    """
    lists = _list_files(probe)
    if not lists:
        raise DataError(
            "no list of pairs",
            where=probe.source,
            expected="train.txt, val.txt or test.txt with lines `image label`",
            fix="write them, or choose another --format",
        )
    result = ReadResult([], used_files={*lists})
    list_names: dict[Path, str] = {}
    for path in lists:
        items = _read_list(probe.source, path, result)
        for item in items:
            if item.image in list_names:
                raise DataError(
                    "an image is in the lists twice",
                    where=path,
                    found=item.name,
                    expected=f"once; it is already in {list_names[item.image]}",
                    fix="remove one of the lines",
                )
            list_names[item.image] = path.name
        result.items += items
        result.notes.append(f"{path.name}: {len(items)} pairs")
    return result


def _list_files(probe: SourceProbe) -> list[Path]:
    paths = [probe.source / f"{split}.txt" for split in SPLITS]
    return [path for path in paths if probe.listing.is_file(path)]


def _split_line(line: str) -> list[str]:
    return [field.strip() for field in line.split("\t")] if "\t" in line.strip() else line.split()


def _read_list(source: Path, list_file: Path, result: ReadResult) -> list[RawItem]:
    try:
        lines = read_bytes(list_file, _MAX_LIST_BYTES).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError("is not a text file in UTF-8", where=list_file, fix="save it as UTF-8") from error
    items: list[RawItem] = []
    root = source.resolve()
    for number, line in enumerate(lines, start=1):
        fields = _split_line(line)
        if not fields:
            continue
        where = f"{list_file}:{number}"
        if len(fields) != 2:
            raise DataError(
                "not a pair",
                where=where,
                found=repr(line[:80]),
                expected="`image label`; a tab between names with blanks",
            )
        image, mask = paths = [resolve_inside(source, field, where) for field in fields]
        if missing := [field for field, path in zip(fields, paths, strict=True) if not path.is_file()]:
            result.skipped.append((where, f"names a missing file: {missing[0]}"))
            continue
        name = image.relative_to(root).parent / stem_of(image)
        items.append(RawItem(name.as_posix(), image, mask, split=list_file.stem))
    return items

"""The items of an import: their groups, their splits, and the names of their files in data/."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from segpipe.config import SplitParams
from segpipe.data.formats.folder_names import IMAGE_FOLDERS, SPLIT_FOLDERS
from segpipe.data.formats.name_patterns import NamePattern
from segpipe.data.formats.source import RawItem, ReadResult
from segpipe.data.metadata_table import ImageTable, find_table
from segpipe.data.splits import SPLITS, assign_split
from segpipe.errors import ConfigError, DataError
from segpipe.files import safe_name, sha256_bytes
from segpipe.words import listed


def find_image_table(source: Path, user_table: Path | None, result: ReadResult) -> ImageTable | None:
    """Return the table about the images of a source, and add its file to those that are used.

    Args:
        source: the folder that holds the dataset.
        user_table: the table that the user names; None to search the source. A table in the source that cannot be read is left out.
        result: the items that were read; gets the file of the table, or the reason why it is left out.

    Returns:
        The table; None if there is none about these images.

    Raises:
        ConfigError: no column of the table that the user names lists the images.
        DataError: the table that the user names cannot be read.
    """
    try:
        table = find_table(source, user_table, [item.name for item in result.items])
    except DataError as error:
        if user_table:
            raise
        result.skipped.append((str(error.where), str(error)))
        return None
    if table:
        result.used_files.add(table.path)
    return table


def with_groups(result: ReadResult, pattern: str | None) -> list[RawItem]:
    """Return the items of a result with the groups that a regular expression finds.

    Args:
        result: gets a note if some images are in no group.
        pattern: matched against the file name of each image, without its ending; against its path relative to the source if the
            pattern contains a slash. Its first group (or the whole match) names the group. None: the groups are not changed.

    Raises:
        ConfigError: it is not a regular expression, it takes too long, or it matches no image.
    """
    if pattern is None:
        return result.items
    compiled = NamePattern("--group", pattern)
    texts = [item.name if "/" in pattern else item.name.rpartition("/")[2] for item in result.items]
    groups = [compiled.first_group(text) for text in texts]
    if not any(groups):
        raise ConfigError(
            "the group pattern matches no image",
            found=pattern,
            expected=f"a pattern that matches {texts[0]}",
            fix="correct --group: without a slash it is matched against the name of the file, with one against its path in SRC",
        )
    return _grouped(result, groups)


def _grouped(result: ReadResult, groups: list[str | None]) -> list[RawItem]:
    """Return the items with these groups, and add a note about those that are in none."""
    ungrouped = [item.name for item, group in zip(result.items, groups, strict=True) if not group]
    if ungrouped:
        result.notes.append(f"in no group: {len(ungrouped)}, for example {ungrouped[0]}")
    return [replace(item, group=group) if group else item for item, group in zip(result.items, groups, strict=True)]


def with_folder_groups(result: ReadResult) -> list[RawItem]:
    """Return the items of a result, each in the group that its folder names.

    The group is the first folder below the one that all images have in common. Folders named like a split or a folder of images do
    not count. If there are deeper folders, a note says so: images of one patient stay together wherever the patient's folders are.

    Args:
        result: gets a note about what the groups are.

    Raises:
        ConfigError: all images are in one folder.
    """
    folders = [_group_folders(item.name) for item in result.items]
    common = 0
    while all(len(parts) > common for parts in folders) and len({parts[common] for parts in folders}) == 1:
        common += 1
    groups = [parts[common] if len(parts) > common else None for parts in folders]
    if not any(groups):
        raise ConfigError(
            "all images are in one folder, so folders name no groups",
            where="--group-from-folder",
            found="/".join(folders[0]) or "no subfolder",
            expected="images in several folders",
            fix="omit it, or take the groups from the names of the files: --group REGEX",
        )
    named = sorted({group for group in groups if group})
    note = f"groups from folders: {listed(named, 3)}"
    if deeper := next((parts for parts in folders if len(parts) > common + 1), None):
        path = "/".join(deeper[common:])
        note += (
            f" (their subfolders, such as {path}, are no groups of their own; --group REGEX with a slash names others)"
        )
    result.notes.append(note)
    return _grouped(result, groups)


def _group_folders(name: str) -> list[str]:
    """Return the folders of an image, without those that are named like a split or like a folder of images."""
    return [
        part for part in name.split("/")[:-1] if part.lower() not in SPLIT_FOLDERS and part.lower() not in IMAGE_FOLDERS
    ]


def with_assignments(result: ReadResult, table: ImageTable, groups: bool) -> ReadResult:
    """Return a result whose items have the groups and splits of a table. What the layout itself says counts more.

    Args:
        result: gets a note about names of splits that are not known.
        table: the table about the images.
        groups: whether the groups of the table are used.
    """
    unknown: Counter[str] = Counter()

    def assigned(item: RawItem) -> RawItem:
        values = table.assignments.get(item.name, {})
        name = values.get("split", "")
        split = SPLIT_FOLDERS.get(name.lower())
        if name and split is None:
            unknown[name] += 1
        group = (values.get("group") or None) if groups else None
        return replace(item, split=item.split or split, group=item.group or group)

    items = [assigned(item) for item in result.items]
    if unknown:
        result.notes.append(
            f"{table.path.name}: {unknown.total()} values of the column split are not used: {listed(sorted(unknown), 3)} "
            "(expected train, val or test)"
        )
    return replace(result, items=items)


def with_all_splits(items: list[RawItem], notes: list[str]) -> list[RawItem]:
    """Complete the splits of a source whose labelled images have a train split, but not all three: the others are taken from train.

    The assignment is by hash.
    """
    labelled = [item for item in items if item.mask or item.draw]
    splits = {item.split for item in labelled or items}
    if "train" not in splits or None in splits or splits == set(SPLITS):
        return items
    params = SplitParams()
    assigned = [assign_split(item.group or item.name, params) for item in items]
    missing = " and no ".join(split for split in SPLITS if split not in splits)
    notes.append(f"the source has no {missing} split: taken from train, by hash")
    return [
        replace(item, split=split) if item.split == "train" and split not in splits else item
        for item, split in zip(items, assigned, strict=True)
    ]


def unique_keys(items: list[RawItem]) -> list[str]:
    """Return a file name for each image, all different in any case of letters.

    It is the image's own name, preceded by as many of its folders as are necessary, and followed by a hash if that is not enough
    (`a b` and `a_b`).
    """
    parts = [[safe_name(part) for part in item.name.split("/")] for item in items]
    keys = [part[-1] for part in parts]
    for depth in range(2, max(map(len, parts)) + 1):
        counts = Counter(key.lower() for key in keys)
        keys = ["-".join(p[-depth:]) if counts[k.lower()] > 1 else k for p, k in zip(parts, keys, strict=True)]
    counts = Counter(key.lower() for key in keys)
    return [
        f"{key}-{sha256_bytes(item.name.encode())[:8]}" if counts[key.lower()] > 1 else key
        for item, key in zip(items, keys, strict=True)
    ]

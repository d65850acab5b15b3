"""From a source of some layout to the canonical `data/`, whole or not at all, with a report of everything that was chosen."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from segpipe.config import DataParams, SplitParams
from segpipe.data.classes import FoundClasses, find_classes
from segpipe.data.dataset import CLASSES_FILE, SAMPLES_FILE, format_classes, format_samples, whole_folder
from segpipe.data.formats import find_format
from segpipe.data.formats.source import RawItem, ReadOptions, Source
from segpipe.data.images import encode_png, read_mask
from segpipe.data.splits import SPLITS, assign_split
from segpipe.errors import ConfigError, DataError
from segpipe.files import safe_name
from segpipe.progress import track
from segpipe.samples import ClassTable

_SHOWN = 10


class ImportOptions(BaseModel):
    """What the user says of a source."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    classes: list[str] | None = None
    """Class names, in the order of their pixel values."""
    ignore: list[int] = []
    """Pixel values that count nowhere."""
    group: str | None = None
    """A regular expression; what it finds in an image's relative path (its first group, where it has one) is the group."""
    read: ReadOptions = ReadOptions()
    """Where things lie in the source, where the layout leaves that open."""
    replace: bool = False
    """Whether what stands in data/ may be replaced."""


class ImportReport(BaseModel):
    """What an import did, and what it left out."""

    format: str
    images: int
    masks: int
    splits: dict[str, int]
    groups: int
    classes: ClassTable
    classes_from: str
    skipped: list[tuple[str, str]]
    """(file, reason)"""
    notes: list[str]

    def lines(self) -> list[str]:
        """The report for people."""
        table = ", ".join(f"{spec.value} {spec.name}" for spec in self.classes.classes)
        ignored = f"; ignored: {', '.join(map(str, self.classes.ignore))}" if self.classes.ignore else ""
        given = ", ".join(f"{self.splits[split]} {split}" for split in SPLITS if split in self.splits)
        lines = [
            f"imported {self.images} images, {self.masks} with masks ({self.format})",
            f"classes ({self.classes_from}): {table}{ignored}",
            f"splits: {given or 'none given'}"
            + ("" if sum(self.splits.values()) == self.images else "; the rest by hash"),
        ]
        lines += [f"groups: {self.groups}"] if self.groups else []
        lines += self.notes
        lines += [f"left out: {name}: {reason}" for name, reason in self.skipped[:_SHOWN]]
        lines += [f"left out: {len(self.skipped) - _SHOWN} more"] if len(self.skipped) > _SHOWN else []
        return lines


def import_dataset(source: Path, data_dir: Path, format: str, options: ImportOptions) -> ImportReport:
    """Write `source`, laid out as `format`, to `data_dir` in the canonical layout. Files are copied; the source is left as it is.

    Raises DataError where the source is not of that layout, ConfigError where the options do not fit it, DataError where
    `data_dir` holds files and `options.replace` is not set. A single bad file stops nothing: validation names it later.
    """
    if not source.is_dir():
        raise DataError("is no folder", where=source, fix="give the folder that holds the dataset")
    limits = DataParams()  # type: ignore[call-arg]
    found = find_format(format).read(source, options.read)
    if not found.items:
        raise DataError("no images found", where=source, expected=f"a dataset of format {format}")
    items = _with_all_splits(_with_groups(found, options.group), found.notes)
    masks = [item.mask for item in items if item.mask]
    classes = find_classes(masks, found.classes, options.classes, options.ignore, limits)
    bare = [item for item in items if item.mask is None]
    if bare:
        found.notes.append(f"without a mask: {len(bare)}, {bare[0].name} for one; validation will name them")
    keys = _keys(items)
    with whole_folder(data_dir, options.replace) as folder:
        for name in ("images", "masks"):
            (folder / name).mkdir()
        for item, key in track(zip(items, keys, strict=True), "importing", len(items)):
            _write_item(folder, item, key, classes, limits, found)
        (folder / CLASSES_FILE).write_text(format_classes(classes.table), encoding="utf-8")
        if any(item.group or item.split for item in items):
            rows = [
                {"key": key, "group": item.group or "", "split": item.split or ""}
                for key, item in sorted(zip(keys, items, strict=True), key=lambda pair: pair[0])
            ]
            (folder / SAMPLES_FILE).write_text(format_samples(rows), encoding="utf-8")
    return ImportReport(
        format=format,
        images=len(items),
        masks=len(masks),
        splits=dict(Counter(item.split for item in items if item.split)),
        groups=len({item.group for item in items if item.group}),
        classes=classes.table,
        classes_from=classes.origin,
        skipped=found.skipped,
        notes=found.notes,
    )


def _with_groups(found: Source, pattern: str | None) -> list[RawItem]:
    if pattern is None:
        return found.items
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(
            f"not a regular expression: {error}", found=pattern, fix='for instance --group "^([^_]+)_"'
        ) from error
    matches = [compiled.search(item.name) for item in found.items]
    without = [item.name for item, match in zip(found.items, matches, strict=True) if match is None]
    if len(without) == len(matches):
        raise ConfigError(
            "the group pattern fits no image", found=pattern, expected=f"something that is found in {without[0]}",
        )  # fmt: skip
    if without:
        found.notes.append(f"in no group: {len(without)}, {without[0]} for one")
    return [
        replace(item, group=match[1] if match.re.groups else match[0]) if match else item
        for item, match in zip(found.items, matches, strict=True)
    ]


def _with_all_splits(items: list[RawItem], notes: list[str]) -> list[RawItem]:
    """Where a source is split, but not in three, what is missing is taken out of its training images, by hash."""
    given = {item.split for item in items}
    if "train" not in given or None in given or given == set(SPLITS):
        return items
    params = SplitParams()  # type: ignore[call-arg]
    drawn = [assign_split(item.group or item.name, params) for item in items]
    notes.append(
        f"the source has no {' and no '.join(s for s in SPLITS if s not in given)} split: taken out of train, by hash"
    )
    return [
        replace(item, split=split) if item.split == "train" and split not in given else item
        for item, split in zip(items, drawn, strict=True)
    ]


def _keys(items: list[RawItem]) -> list[str]:
    """A file name for each image, all different: its own, with as many of its folders before it as it takes."""
    parts = [[safe_name(part) for part in item.name.split("/")] for item in items]
    keys = [part[-1] for part in parts]
    for depth in range(2, max(map(len, parts)) + 1):
        counts = Counter(key.lower() for key in keys)
        keys = ["-".join(p[-depth:]) if counts[k.lower()] > 1 else k for p, k in zip(parts, keys, strict=True)]
    counts = Counter(key.lower() for key in keys)
    for item, key in zip(items, keys, strict=True):
        if counts[key.lower()] > 1:
            raise DataError("two images would get one key", where=item.image, found=key, fix="rename one of them")
    return keys


def _write_item(
    folder: Path, item: RawItem, key: str, classes: FoundClasses, limits: DataParams, found: Source
) -> None:
    shutil.copyfile(item.image, folder / "images" / f"{key}{item.image.suffix.lower()}")
    if item.mask is None:
        return
    try:
        if classes.objects:
            ids = read_mask(item.mask, limits)
            (folder / "instances").mkdir(exist_ok=True)
            (folder / "instances" / f"{key}.png").write_bytes(encode_png(ids))
            (folder / "masks" / f"{key}.png").write_bytes(encode_png((ids > 0).astype("uint8")))
        elif item.mask.suffix.lower() == ".png":
            shutil.copyfile(item.mask, folder / "masks" / f"{key}.png")
        else:
            (folder / "masks" / f"{key}.png").write_bytes(encode_png(read_mask(item.mask, limits)))
    except DataError as error:
        found.skipped.append((str(item.mask), str(error)))
    if item.instances is not None:
        (folder / "instances").mkdir(exist_ok=True)
        shutil.copyfile(item.instances, folder / "instances" / f"{key}.png")

"""From a source of some layout to the canonical `data/`, whole or not at all, with a report of everything that was chosen."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from segpipe.config import DataParams, SplitParams
from segpipe.data.classes import SourceClasses, find_classes
from segpipe.data.dataset import CLASSES_FILE, SAMPLES_FILE, format_classes, format_samples
from segpipe.data.formats.registry import AUTO, check_options, find_format
from segpipe.data.formats.recognise import recognise_format
from segpipe.data.formats.source import RawItem, ReadOptions, ReadResult
from segpipe.data.metadata_table import ImageTable, find_table
from segpipe.data.splits import SPLITS, assign_split
from segpipe.data.import_writer import WriteOutcome, write_items
from segpipe.errors import ConfigError, DataError
from segpipe.files import atomic_folder, safe_name, sha256_bytes
from segpipe.samples import ClassTable

_SHOWN = 10


class ImportOptions(BaseModel):
    """What the user says of a source."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    classes: list[str] | None = None
    """Class names in the order of their pixel values, or each as ``name=value``."""
    ignore: list[int] = []
    """Pixel values that count nowhere."""
    group: str | None = None
    """A regular expression; what it finds in an image's relative path (its first group, where it has one) is the group."""
    table: Path | None = None
    """A CSV table with a column that names the images; its other columns go to samples.csv. Default: one in the source."""
    read: ReadOptions = ReadOptions()
    """Where things lie in the source, where the layout leaves that open."""
    replace: bool = False
    """Whether what stands in data/ may be replaced."""


class ImportReport(BaseModel):
    """What an import did, and what it left out."""

    format: str
    recognised: str | None = None
    """Why the source was taken for this layout, where nobody named it."""
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
        lines = [f"recognised {self.format}: {self.recognised}"] if self.recognised else []
        table = ", ".join(f"{spec.value} {spec.name}" for spec in self.classes.classes)
        ignored = f"; ignored: {', '.join(map(str, self.classes.ignore))}" if self.classes.ignore else ""
        given = ", ".join(f"{self.splits[split]} {split}" for split in SPLITS if split in self.splits)
        lines += [
            f"imported {self.images} images, {self.masks} with masks ({self.format})",
            f"classes ({self.classes_from}): {table}{ignored}",
            f"splits: {given or 'none given'}"
            + ("" if sum(self.splits.values()) == self.images else "; the rest by hash"),
        ]
        lines += [f"groups: {self.groups}"] if self.groups else []
        lines += [note for note in self.notes if note != self.recognised]
        lines += [f"left out: {name}: {reason}" for name, reason in self.skipped[:_SHOWN]]
        lines += [f"left out: {len(self.skipped) - _SHOWN} more"] if len(self.skipped) > _SHOWN else []
        return lines


def import_dataset(
    source: Path, data_dir: Path, format: str, options: ImportOptions, jobs: int | None = None,
    limits: DataParams | None = None,
) -> ImportReport:
    """Write `source`, laid out as `format` (or `auto`), to `data_dir` in the canonical layout. Files are copied or, where labels
    are annotations, drawn, by `jobs` threads (default: one a processor); the source is left as it is. `limits`: how images
    and masks are read, where that is not by default (larger ones, pages of TIFF files).

    Raises DataError where the source is not of that layout, ConfigError where the options do not fit it, DataError where
    `data_dir` holds files and `options.replace` is not set. A single bad file stops nothing: it is left out and listed; the first
    one's error is raised where there is no good one.
    """
    if not source.is_dir():
        raise DataError("is no folder", where=source, fix="give the folder that holds the dataset")
    limits = limits or DataParams()  # type: ignore[call-arg]
    read = options.read.model_copy(update={"limits": limits})
    layout, recognised = recognise_format(source, read) if format == AUTO else (find_format(format), None)
    check_options(layout, read)
    found = layout.read(source, read)
    if not found.items:
        raise DataError(
            "no images found", where=source, found=found.skipped[0] if found.skipped else None,
            expected=f"a dataset of format {layout.name}",
        )
    items = _with_all_splits(_with_groups(found, options.group), found.notes)
    classes = _classes(found, options, limits)
    bare = [item for item in items if item.mask is None and item.draw is None]
    if bare:
        found.notes.append(f"without a mask: {len(bare)}, {bare[0].name} for one; validation will name them")
    if classes.table.overlapping and any(item.instances for item in items):
        items = [replace(item, instances=None) for item in items]
        found.notes.append("objects (instances/) are left out: where classes overlap, there is no one object a pixel")
    keys = _keys(items)
    table = _table(source, options.table, items, found)
    with atomic_folder(data_dir, replace=options.replace) as folder:
        for name in ("images", "masks", "instances"):
            (folder / name).mkdir()
        written = write_items(folder, items, keys, classes, limits, jobs or os.cpu_count() or 1)
        done = [item for item, outcome in zip(items, written, strict=True) if outcome.image]
        found.skipped += [told for outcome in written for told in outcome.skipped]
        if len(done) == 0 or (len(bare) < len(items) and not any(outcome.mask for outcome in written)):
            raise DataError(
                "not one image with its mask could be brought in", where=source,
                found="; ".join(f"{name}: {reason}" for name, reason in found.skipped[:1]),
            )
        if not any((folder / "instances").iterdir()):
            (folder / "instances").rmdir()
        (folder / CLASSES_FILE).write_text(format_classes(classes.table), encoding="utf-8")
        rows = _sample_rows(items, keys, written, table)
        if rows:
            (folder / SAMPLES_FILE).write_text(format_samples(rows), encoding="utf-8")
    decided: Counter[str] = sum((outcome.notes for outcome in written), Counter())
    return ImportReport(
        format=layout.name,
        recognised=recognised,
        images=len(done),
        masks=sum(outcome.mask for outcome in written),
        splits=dict(Counter(item.split for item in done if item.split)),
        groups=len({item.group for item in done if item.group}),
        classes=classes.table,
        classes_from=classes.origin,
        skipped=found.skipped,
        notes=[*found.notes, *(f"{words}: {count:,}" for words, count in sorted(decided.items()))],
    )


def _table(source: Path, given: Path | None, items: list[RawItem], found: ReadResult) -> ImageTable | None:
    """The table about the images; one that lies in the source by chance, and cannot be read, is left out."""
    try:
        table = find_table(source, given, [item.name for item in items])
    except DataError as error:
        if given:
            raise
        found.skipped.append((str(error.where), str(error)))
        return None
    found.notes += [table.note()] if table else []
    return table


def _sample_rows(
    items: list[RawItem], keys: list[str], written: list[WriteOutcome], table: ImageTable | None
) -> list[dict[str, str]]:
    """The rows of samples.csv in the order of keys; none where there is nothing to say."""
    further = table.rows if table else [{}] * len(items)
    rows = [
        {"key": key, "group": item.group or "", "split": item.split or ""}
        | {column: told.get(column, "") for column in (table.columns if table else [])}
        for key, item, outcome, told in zip(keys, items, written, further, strict=True)
        if outcome.image
    ]
    said = table is not None or any(row["group"] or row["split"] for row in rows)
    return sorted(rows, key=lambda row: row["key"]) if said else []


def _classes(found: ReadResult, options: ImportOptions, limits: DataParams) -> SourceClasses:
    masks = [item.mask for item in found.items if item.mask]
    drawn = any(item.draw for item in found.items)
    if not masks and not drawn:
        reason = f"{found.skipped[0][0]}: {found.skipped[0][1]}" if found.skipped else "images alone"
        raise DataError("no masks found", found=reason, expected="masks, to learn and to judge by")
    written = None if found.classes is None else SourceClasses(found.classes, found.classes_from)
    overlapping = bool(options.read.overlapping)
    return find_classes(masks, written, options.classes, options.ignore, limits, overlapping)


def _with_groups(found: ReadResult, pattern: str | None) -> list[RawItem]:
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
        )
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
    """A file name for each image, all different whatever the case: its own, with as many of its folders before it as it takes,
    and a hash behind it where that is not enough (`a b` and `a_b`).
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

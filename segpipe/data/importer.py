"""Import a source of any supported layout into the canonical `data/`, completely or not at all, and report all decisions."""

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
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.recognise import recognise_format
from segpipe.data.formats.registry import AUTO, check_options, find_format
from segpipe.data.formats.source import RawItem, ReadOptions, ReadResult
from segpipe.data.import_writer import WriteOutcome, write_items
from segpipe.data.mask_content import MaskReader
from segpipe.data.metadata_table import ImageTable, find_table
from segpipe.data.splits import SPLITS, assign_split
from segpipe.errors import ConfigError, DataError
from segpipe.files import atomic_folder, safe_name, sha256_bytes
from segpipe.samples import ClassTable

_MAX_SKIPPED_SHOWN = 10


class ImportOptions(BaseModel):
    """The user's options for an import."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    classes: list[str] | None = None
    """Class names in the order of their pixel values, or each as ``name=value``."""
    ignore: list[int] = []
    """Pixel values to ignore."""
    group: str | None = None
    """A regular expression. What it finds in an image's relative path (its first group, if it has one) is the image's group."""
    table: Path | None = None
    """A CSV table with a column that names the images; its other columns go to samples.csv. Default: a table in the source."""
    read: ReadOptions = ReadOptions()
    """The options about the files of the source."""
    replace: bool = False
    """True if existing files in data/ may be replaced."""


class ImportReport(BaseModel):
    """The outcome of an import, and what was left out."""

    format: str
    recognised: str | None = None
    """The reason why the source was recognised as this layout; None if the user named the layout."""
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
        """Return the report as lines of text."""
        lines = [f"recognised {self.format}: {self.recognised}"] if self.recognised else []
        table = ", ".join(f"{spec.value} {spec.name}" for spec in self.classes.classes)
        ignored = f"; ignored: {', '.join(map(str, self.classes.ignore))}" if self.classes.ignore else ""
        splits = ", ".join(f"{self.splits[split]} {split}" for split in SPLITS if split in self.splits)
        lines += [
            f"imported {self.images} images, {self.masks} with masks ({self.format})",
            f"classes ({self.classes_from}): {table}{ignored}",
            f"splits: {splits or 'none given'}"
            + ("" if sum(self.splits.values()) == self.images else "; the others are assigned by hash"),
        ]
        lines += [f"groups: {self.groups}"] if self.groups else []
        lines += [note for note in self.notes if note != self.recognised]
        lines += [f"left out: {name}: {reason}" for name, reason in self.skipped[:_MAX_SKIPPED_SHOWN]]
        more = len(self.skipped) - _MAX_SKIPPED_SHOWN
        return lines + ([f"left out: {more} more"] if more > 0 else [])


def import_dataset(
    source: Path,
    data_dir: Path,
    format: str,
    options: ImportOptions,
    jobs: int | None = None,
    limits: DataParams | None = None,
) -> ImportReport:
    """Write a source to `data_dir` in the canonical layout. The source is not changed.

    Files are copied or, if the labels are annotations, drawn. A broken file does not stop the import: it is left out and listed.

    Args:
        source: the folder that holds the dataset.
        data_dir: the folder to write; it appears as a whole or not at all.
        format: the name of a layout, or `auto` to recognise it.
        options: the user's options.
        jobs: the number of threads; by default one per processor.
        limits: limits on file sizes and the meaning of TIFF pages; by default those of an empty params.yaml.

    Raises:
        DataError: the source does not have this layout, no file is usable, or `data_dir` holds files and `options.replace` is not set.
        ConfigError: the options do not fit the source.
    """
    if not source.is_dir():
        raise DataError("is not a folder", where=source, fix="give the folder that holds the dataset")
    limits = limits or DataParams()
    read_options = options.read.model_copy(update={"limits": limits})
    probe = SourceProbe(source)
    layout, recognised = recognise_format(probe, read_options) if format == AUTO else (find_format(format), None)
    check_options(layout, read_options)
    result = layout.read(probe, read_options)
    if not result.items:
        raise DataError(
            "no images found",
            where=source,
            found=": ".join(result.skipped[0]) if result.skipped else None,
            expected=f"a dataset of format {layout.name}",
        )
    items = _with_all_splits(_with_groups(result, options.group), result.notes)
    classes = _find_classes(result, options, probe.mask_reader(limits))
    unlabelled = [item for item in items if item.mask is None and item.draw is None]
    if unlabelled:
        result.notes.append(
            f"without a mask: {len(unlabelled)}, for example {unlabelled[0].name}; validation lists them"
        )
    if classes.table.overlapping and any(item.instances for item in items):
        items = [replace(item, instances=None) for item in items]
        result.notes.append("instances/ is left out: if classes overlap, a pixel may belong to several instances")
    outcomes = _write(data_dir, items, classes, result, options, limits, jobs or os.cpu_count() or 1, source)
    imported = [item for item, outcome in zip(items, outcomes, strict=True) if outcome.image]
    decisions: Counter[str] = sum((outcome.notes for outcome in outcomes), Counter())
    return ImportReport(
        format=layout.name,
        recognised=recognised,
        images=len(imported),
        masks=sum(outcome.mask for outcome in outcomes),
        splits=dict(Counter(item.split for item in imported if item.split)),
        groups=len({item.group for item in imported if item.group}),
        classes=classes.table,
        classes_from=classes.origin,
        skipped=result.skipped,
        notes=[*result.notes, *(f"{decision}: {count:,}" for decision, count in sorted(decisions.items()))],
    )


def _write(
    data_dir: Path,
    items: list[RawItem],
    classes: SourceClasses,
    result: ReadResult,
    options: ImportOptions,
    limits: DataParams,
    jobs: int,
    source: Path,
) -> list[WriteOutcome]:
    """Write all files of `data_dir`; what is left out is added to `result`. Returns one outcome per item."""
    keys = _keys(items)
    table = _find_table(source, options.table, items, result)
    with atomic_folder(data_dir, replace=options.replace) as folder:
        for name in ("images", "masks", "instances"):
            (folder / name).mkdir()
        outcomes = write_items(folder, items, keys, classes, limits, jobs)
        result.skipped += [entry for outcome in outcomes for entry in outcome.skipped]
        any_labelled = any(item.mask or item.draw for item in items)
        if not any(outcome.image for outcome in outcomes) or (
            any_labelled and not any(outcome.mask for outcome in outcomes)
        ):
            raise DataError(
                "no image with its mask could be imported",
                where=source,
                found="; ".join(f"{name}: {reason}" for name, reason in result.skipped[:1]),
            )
        if not any((folder / "instances").iterdir()):
            (folder / "instances").rmdir()
        (folder / CLASSES_FILE).write_text(format_classes(classes.table), encoding="utf-8")
        rows = _sample_rows(items, keys, outcomes, table)
        if rows:
            (folder / SAMPLES_FILE).write_text(format_samples(rows), encoding="utf-8")
    return outcomes


def _find_table(source: Path, user_table: Path | None, items: list[RawItem], result: ReadResult) -> ImageTable | None:
    """Return the table about the images. A table in the source that the user did not name is skipped if it cannot be read."""
    try:
        table = find_table(source, user_table, [item.name for item in items])
    except DataError as error:
        if user_table:
            raise
        result.skipped.append((str(error.where), str(error)))
        return None
    result.notes += [table.note()] if table else []
    return table


def _sample_rows(
    items: list[RawItem], keys: list[str], outcomes: list[WriteOutcome], table: ImageTable | None
) -> list[dict[str, str]]:
    """Return the rows of samples.csv in the order of keys; none if no image has a group, a split or another column."""
    extra_rows = table.rows if table else [{}] * len(items)
    rows = [
        {"key": key, "group": item.group or "", "split": item.split or ""}
        | {column: extra.get(column, "") for column in (table.columns if table else [])}
        for key, item, outcome, extra in zip(keys, items, outcomes, extra_rows, strict=True)
        if outcome.image
    ]
    has_content = table is not None or any(row["group"] or row["split"] for row in rows)
    return sorted(rows, key=lambda row: row["key"]) if has_content else []


def _find_classes(result: ReadResult, options: ImportOptions, reader: MaskReader) -> SourceClasses:
    masks = [item.mask for item in result.items if item.mask]
    if not masks and not any(item.draw for item in result.items):
        reason = ": ".join(result.skipped[0]) if result.skipped else "only images"
        raise DataError("no masks found", found=reason, expected="masks, which training and evaluation need")
    written = None if result.classes is None else SourceClasses(result.classes, result.classes_from)
    overlapping = bool(options.read.overlapping)
    return find_classes(masks, written, options.classes, options.ignore, reader, overlapping)


def _with_groups(result: ReadResult, pattern: str | None) -> list[RawItem]:
    if pattern is None:
        return result.items
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(
            f"not a regular expression: {error}", found=pattern, fix='for instance --group "^([^_]+)_"'
        ) from error
    matches = [compiled.search(item.name) for item in result.items]
    ungrouped = [item.name for item, match in zip(result.items, matches, strict=True) if match is None]
    if len(ungrouped) == len(matches):
        raise ConfigError(
            "the group pattern matches no image", found=pattern, expected=f"a pattern that matches {ungrouped[0]}"
        )
    if ungrouped:
        result.notes.append(f"in no group: {len(ungrouped)}, for example {ungrouped[0]}")
    return [
        replace(item, group=match[1] if match.re.groups else match[0]) if match else item
        for item, match in zip(result.items, matches, strict=True)
    ]


def _with_all_splits(items: list[RawItem], notes: list[str]) -> list[RawItem]:
    """Complete the splits of a source that has a train split, but not all three: the others are taken from train, by hash."""
    splits = {item.split for item in items}
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


def _keys(items: list[RawItem]) -> list[str]:
    """Return a file name for each image, different even if case is ignored.

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

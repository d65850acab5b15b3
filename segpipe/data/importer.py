"""Import: from a source of some layout to the canonical `data/`, completely or not at all, with a report of all decisions."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from dataclasses import replace
from pathlib import Path

from segpipe.config import DataParams
from segpipe.data.classes import SourceClasses, find_classes
from segpipe.data.dataset import CLASSES_FILE, SAMPLES_FILE, format_classes, format_samples
from segpipe.data.formats.mask_labels import value_file
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.readings.apply import read_as
from segpipe.data.formats.readings.choose import choose_reading
from segpipe.data.formats.readings.expand import Hints
from segpipe.data.formats.readings.reading import Reading
from segpipe.data.formats.recognise import collect_readings
from segpipe.data.formats.registry import AUTO
from segpipe.data.formats.source import RawItem, ReadResult
from segpipe.data.import_writer import WriteOutcome, write_items
from segpipe.data.imports.image_channels import with_equal_channels
from segpipe.data.imports.items import (
    find_image_table,
    unique_keys,
    with_all_splits,
    with_assignments,
    with_folder_groups,
    with_groups,
)
from segpipe.data.imports.options import ImportOptions
from segpipe.data.imports.palettes_agree import check_palettes
from segpipe.data.imports.report import IMPORT_FILE, ImportRecord, ImportReport
from segpipe.data.imports.unused_files import UnusedFiles, count_unused
from segpipe.data.mask_content import MaskReader
from segpipe.data.metadata_table import ImageTable
from segpipe.errors import DataError
from segpipe.files import atomic_folder

_INSPECT = "`segpipe data inspect SRC` shows how its files are read; correct them, or choose another reading"

__all__ = ["ImportOptions", "ImportReport", "import_dataset"]


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
    probe = SourceProbe(source)
    reading = read_source(probe, format, options, limits)
    user_options, options = options, with_reading(options, reading)
    read_options = options.read.model_copy(update={"limits": limits})
    options = options.model_copy(update={"read": read_options})
    recognised = reading.pairing if format == AUTO else None
    result = _read_items(probe, reading, user_options, limits)
    table = find_image_table(source, options.table, result)
    items = _assigned_items(result, table, options)
    classes = _find_classes(result, options, probe.mask_reader(limits))
    items = _labelled(items, result, options.unlabelled)
    items = with_equal_channels(items, options.to, limits, result)
    if classes.table.overlapping and any(item.instances for item in items):
        items = [replace(item, instances=None) for item in items]
        result.notes.append("instances/ is left out: if classes overlap, a pixel may belong to several instances")
    if table:
        result.notes.append(table.note([item.name for item in items]))
    outcomes, unused = _write(
        data_dir, items, classes, result, options, reading, probe, table, jobs or os.cpu_count() or 1
    )
    imported = [item for item, outcome in zip(items, outcomes, strict=True) if outcome.image]
    decisions: Counter[str] = sum((outcome.notes for outcome in outcomes), Counter())
    return ImportReport(
        format=reading.layout,
        recognised=recognised,
        reading=reading,
        images=len(imported),
        masks=sum(outcome.mask for outcome in outcomes),
        splits=dict(Counter(item.split for item in imported if item.split)),
        groups=len({item.group for item in imported if item.group}),
        classes=classes.table,
        classes_from=classes.origin,
        skipped=result.skipped,
        unused=unused,
        notes=[*result.notes, *(f"{decision}: {count:,}" for decision, count in sorted(decisions.items()))],
    )


def _read_items(probe: SourceProbe, reading: Reading, options: ImportOptions, limits: DataParams) -> ReadResult:
    """Return the items of a source.

    Raises:
        DataError: there are none, or the palettes of masks differ although neither the user nor a class table says what values mean.
    """
    result = read_as(probe, reading, options.read.model_copy(update={"limits": limits}))
    if reading.kind == "classes" and result.classes is None and options.read.kind is None:
        check_palettes(probe.source, result.items, probe.mask_reader(limits), _advised_command(probe.source, options))
    if not result.items:
        raise DataError(
            "no images found",
            where=probe.source,
            found=": ".join(result.skipped[0]) if result.skipped else None,
            expected=f"a dataset of format {reading.layout}",
            fix=_INSPECT,
        )
    return result


def _advised_command(source: Path, options: ImportOptions) -> str:
    """Return the command that errors advise, without the options that choose a reading."""
    return options.command or shlex.join(["segpipe", "data", "import", str(source)])


def read_source(probe: SourceProbe, format: str, options: ImportOptions, limits: DataParams) -> Reading:
    """Return the reading of a source that the import takes.

    Args:
        probe: the source.
        format: the name of a layout, or `auto`.
        options: the user's options.
        limits: limits on file sizes and the meaning of TIFF pages.

    Raises:
        UnclearSource: several readings are clear, or none is.
        DataError: no layout fits.
        ConfigError: the options do not fit the source.
    """
    read_options = options.read.model_copy(update={"limits": limits})
    readings = collect_readings(probe, read_options, Hints(options.classes, tuple(options.ignore)), format)
    prefix = _advised_command(probe.source, options)
    return choose_reading(probe.source, readings, prefix, options.yes)


def with_reading(options: ImportOptions, reading: Reading) -> ImportOptions:
    """Return the user's options with those that belong to a reading."""
    extra = dict(reading.options)
    ignore = [*options.ignore, extra.pop("ignore")] if "ignore" in extra else options.ignore
    return options.model_copy(update={"read": options.read.model_copy(update=extra), "ignore": ignore})


def _assigned_items(result: ReadResult, table: ImageTable | None, options: ImportOptions) -> list[RawItem]:
    """Return the items of a result with their groups and splits."""
    has_groups = options.group is not None or options.group_from_folder
    assigned = with_assignments(result, table, not has_groups) if table else result
    grouped = with_folder_groups(assigned) if options.group_from_folder else with_groups(assigned, options.group)
    return with_all_splits(grouped, result.notes)


def _labelled(items: list[RawItem], result: ReadResult, unlabelled: str) -> list[RawItem]:
    """Return the items that are imported: those with labels and, if they are to be kept, those without."""
    without = [item for item in items if not item.is_labelled]
    if not without:
        return items
    text = f"without a mask: {len(without)}, for example {without[0].name}"
    if unlabelled == "keep":
        result.notes.append(f"{text}; validation lists them")
        return items
    result.notes.append(f"{text}; left out (--unlabelled keep imports them without labels)")
    return [item for item in items if item.is_labelled]


def _write(
    data_dir: Path,
    items: list[RawItem],
    classes: SourceClasses,
    result: ReadResult,
    options: ImportOptions,
    reading: Reading,
    probe: SourceProbe,
    table: ImageTable | None,
    jobs: int,
) -> tuple[list[WriteOutcome], list[UnusedFiles]]:
    """Write all files of `data_dir`; what is left out is added to `result`. Returns one outcome per item, and the unused files."""
    source, limits = probe.source, options.read.limits
    all_items = list(result.items)
    keys = unique_keys(items)
    with atomic_folder(data_dir, replace=options.replace) as folder:
        for name in ("images", "masks", "instances"):
            (folder / name).mkdir()
        outcomes = write_items(folder, items, keys, classes, limits, jobs, options.unlabelled == "keep")
        result.skipped += [entry for outcome in outcomes for entry in outcome.skipped]
        any_labelled = any(item.is_labelled for item in items)
        if not any(outcome.image for outcome in outcomes) or (
            any_labelled and not any(outcome.mask for outcome in outcomes)
        ):
            raise DataError(
                "not one image with its mask could be imported",
                where=source,
                found="; ".join(f"{name}: {reason}" for name, reason in result.skipped[:1]),
                fix=None if result.skipped and "Fix: " in result.skipped[0][1] else _INSPECT,
            )
        if not any((folder / "instances").iterdir()):
            (folder / "instances").rmdir()
        (folder / CLASSES_FILE).write_text(format_classes(classes.table, result.channels), encoding="utf-8")
        rows = _sample_rows(items, keys, outcomes, table)
        if rows:
            (folder / SAMPLES_FILE).write_text(format_samples(rows), encoding="utf-8")
        imported = [item for item, outcome in zip(items, outcomes, strict=True) if outcome.image]
        unused = count_unused(probe.listing, source, all_items, result, imported)
        record = ImportRecord(format=reading.layout, reading=reading, skipped=len(result.skipped), unused=unused)
        (folder / IMPORT_FILE).write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return outcomes, unused


def _sample_rows(
    items: list[RawItem], keys: list[str], outcomes: list[WriteOutcome], table: ImageTable | None
) -> list[dict[str, str]]:
    """Return the rows of samples.csv in the order of keys; none if no image has a group, a split or another column."""
    extra_rows: list[dict[str, str]] = [table.rows.get(item.name, {}) if table else {} for item in items]
    rows = [
        {"key": key, "group": item.group or "", "split": item.split or ""}
        | {column: extra.get(column, "") for column in (table.columns if table else [])}
        for key, item, outcome, extra in zip(keys, items, outcomes, extra_rows, strict=True)
        if outcome.image
    ]
    has_content = table is not None or any(row["group"] or row["split"] for row in rows)
    return sorted(rows, key=lambda row: row["key"]) if has_content else []


def _find_classes(result: ReadResult, options: ImportOptions, reader: MaskReader) -> SourceClasses:
    masks = [mask for item in result.items if (mask := item.mask or value_file(item.draw))]
    masks += [path for item in result.items if item.draw_volume for path in item.draw_volume.value_files]
    if not masks and not any(item.draw or item.draw_volume for item in result.items):
        reason = ": ".join(result.skipped[0]) if result.skipped else "only images"
        raise DataError(
            "no masks found", found=reason, expected="masks, which training and evaluation need", fix=_INSPECT
        )
    written = None if result.classes is None else SourceClasses(result.classes, result.classes_from)
    overlapping = bool(options.read.overlapping)
    classes = find_classes(masks, written, options.classes, options.ignore, reader, overlapping)
    result.notes += reader.notes()
    return classes

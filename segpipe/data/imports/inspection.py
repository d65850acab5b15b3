"""The inspection of a source: its readings and unused files, and a contact sheet, without importing anything."""

from __future__ import annotations

import shlex
from pathlib import Path

from pydantic import BaseModel

from segpipe.config import DataParams
from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.readings.apply import read_as
from segpipe.data.formats.readings.choose import UnclearSource, choose_reading
from segpipe.data.formats.readings.expand import Hints
from segpipe.data.formats.readings.reading import Reading
from segpipe.data.formats.recognise import collect_readings, fitting_layouts
from segpipe.data.formats.registry import AUTO
from segpipe.data.imports.contact_sheet import write_contact_sheet
from segpipe.data.imports.items import find_image_table
from segpipe.data.imports.options import ImportOptions
from segpipe.data.imports.unused_files import UnusedFiles, count_unused
from segpipe.errors import DataError, SegpipeError


class InspectedReading(BaseModel):
    """A reading, and the command that imports the source with it."""

    reading: Reading
    command: str


class OtherLayout(BaseModel):
    """A more general layout that a source has too, and the command that imports the source with it."""

    layout: str
    reason: str
    command: str


class Inspection(BaseModel):
    """The result of an inspection: the ways in which a source can be read.

    Attributes:
        readings: its readings, the best supported first.
        taken: the index of the reading that an import takes; None if it would ask.
        unused: the files that this reading (or else the first) does not use, by kind and reason; None if it cannot be read.
        error: why this reading (or else the first) cannot be read; None if it can.
        sheet: the file of the contact sheet.
        others: layouts that the source has too, and that are only used if the user asks for them.
    """

    readings: list[InspectedReading]
    taken: int | None
    unused: list[UnusedFiles] | None
    error: str | None = None
    sheet: Path
    others: list[OtherLayout] = []


def inspect_source(
    source: Path, format: str, options: ImportOptions, sheet: Path, limits: DataParams | None = None
) -> Inspection:
    """Collect the readings of a source, and write a contact sheet of them.

    Args:
        source: the folder that holds the dataset.
        format: the name of a layout, or `auto`.
        options: the user's options.
        sheet: the file of the contact sheet (PNG).
        limits: limits on file sizes and the meaning of TIFF pages; by default those of an empty params.yaml.

    Raises:
        DataError: the source is not a folder, or no layout fits.
        ConfigError: the options do not fit the source.
    """
    if not source.is_dir():
        raise DataError("is not a folder", where=source, fix="give the folder that holds the dataset")
    probe = SourceProbe(source)
    read_options = options.read.model_copy(update={"limits": limits or DataParams()})
    readings = collect_readings(probe, read_options, Hints(options.classes, tuple(options.ignore)), format)
    prefix = options.command or f"segpipe data import {shlex.quote(str(source))}"
    try:
        taken: int | None = readings.index(choose_reading(source, readings, prefix))
    except UnclearSource:
        taken = None
    write_contact_sheet(sheet, probe, readings, read_options, options.ignore)
    unused: list[UnusedFiles] | None = None
    message: str | None = None
    try:
        result = read_as(probe, readings[taken or 0], read_options)
        find_image_table(source, None, result)
        labelled = [item for item in result.items if item.mask or item.draw]
        unused = count_unused(probe.listing, source, result.items, result, labelled)
    except SegpipeError as error:
        message = str(error)
    shown = [InspectedReading(reading=reading, command=reading.command(prefix)) for reading in readings]
    others = [
        OtherLayout(layout=name, reason=reason, command=f"{prefix} --format {name}")
        for name, reason in (fitting_layouts(probe, read_options).items() if format == AUTO else ())
        if name not in {reading.layout for reading in readings} and not is_same_layout(name, readings)
    ]
    return Inspection(readings=shown, taken=taken, unused=unused, error=message, sheet=sheet, others=others)


def is_same_layout(name: str, readings: list[Reading]) -> bool:
    """Return whether a layout is that of a reading, which names it by the kind of its masks (`folder` as `label-maps`)."""
    return name == "folder" and any(reading.layout in ("label-maps", "colour-masks") for reading in readings)

"""The report of an import: what was imported, how the source was read, and what was left out."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ValidationError

from segpipe.data.formats.readings.reading import Reading
from segpipe.data.imports.unused_files import UnusedFiles
from segpipe.data.splits import SPLITS
from segpipe.errors import DataError
from segpipe.files import read_bytes
from segpipe.samples import ClassTable

IMPORT_FILE = "import.json"
"""The file in data/ that holds the reading of the source and the files of it that were not used."""
_MAX_RECORD_BYTES = 1 << 26
_MAX_SKIPPED_SHOWN, _MAX_GROUPS_SHOWN = 10, 12


class ImportReport(BaseModel):
    """The outcome of an import, and what was left out."""

    format: str
    recognised: str | None = None
    """The reason why the source was recognised as this layout; None if the user named the layout."""
    reading: Reading
    """The reading of the source that was taken, with its evidence."""
    images: int
    masks: int
    splits: dict[str, int]
    groups: int
    classes: ClassTable
    classes_from: str
    skipped: list[tuple[str, str]]
    """(file, reason)"""
    notes: list[str]
    unused: list[UnusedFiles] = []
    """The files below the source that were not used, by kind and reason."""

    def lines(self) -> list[str]:
        """Return the report as lines of text."""
        lines = [f"recognised {self.format}: {self.recognised}"] if self.recognised else []
        if self.reading.kind:
            lines.append(f"masks: {self.reading.kind_words()}")
        table = ", ".join(f"{spec.value} {spec.name}" for spec in self.classes.classes)
        ignored = f"; ignored: {', '.join(map(str, self.classes.ignore))}" if self.classes.ignore else ""
        splits = ", ".join(f"{self.splits[split]} {split}" for split in SPLITS if split in self.splits)
        lines += [
            f"imported {self.images} images, {self.masks} with masks ({self.format})",
            f"classes ({self.classes_from}): {table}{ignored}",
            f"splits: {splits or 'none given'}" + self._assigned_later(),
        ]
        lines += [f"groups: {self.groups}"] if self.groups else []
        notes = [note for note in self.notes if note != self.recognised]
        lines += [f"paired: {note}" if note == self.reading.pairing else note for note in notes]
        lines += [f"left out: {name}: {reason}" for name, reason in self.skipped[:_MAX_SKIPPED_SHOWN]]
        more = len(self.skipped) - _MAX_SKIPPED_SHOWN
        lines += [f"left out: {more} more"] if more > 0 else []
        lines += [group.line() for group in self.unused[:_MAX_GROUPS_SHOWN]]
        rest = self.unused[_MAX_GROUPS_SHOWN:]
        return lines + ([f"not used: {sum(group.files for group in rest):,} more files"] if rest else [])

    def _assigned_later(self) -> str:
        """Say that `ingest` assigns images to splits, if the source does not give the split of all."""
        if sum(self.splits.values()) == self.images:
            return ""
        return f"; `segpipe ingest` assigns the {'other ' if self.splits else ''}images"


class ImportRecord(BaseModel):
    """The content of data/import.json, which a page about the data shows."""

    format: str
    reading: Reading
    skipped: int
    """The number of files and entries that were left out."""
    unused: list[UnusedFiles]


def read_unused(data_dir: Path) -> list[UnusedFiles]:
    """Return the files of the source that the import of `data_dir` has not used; nothing if no record is there."""
    try:
        content = read_bytes(data_dir / IMPORT_FILE, _MAX_RECORD_BYTES)
        return ImportRecord.model_validate_json(content).unused
    except (DataError, ValidationError):  # data that were not imported, or a file of that name of the user's own
        return []

"""What a reader of a layout finds in a source folder. Nothing is opened yet but small tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from segpipe.samples import ClassTable


@dataclass(frozen=True)
class RawItem:
    """One image of a source. `name` is its path relative to the source without the ending; the importer makes a key of it."""

    name: str
    image: Path
    mask: Path | None = None
    instances: Path | None = None
    group: str | None = None
    split: str | None = None


@dataclass
class Source:
    """All of a source: items, the class table where the source brings one, files left out with the reason, words for the user."""

    items: list[RawItem]
    classes: ClassTable | None = None
    skipped: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

"""What a layout can hold, and what an export had to leave behind."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

_SHOWN = 10


@dataclass(frozen=True)
class FormatCapabilities:
    """What comes back unchanged when data in this layout are imported again. Class names, labels (as class ids), ignored pixels and
    images always do.

    values: the file values of the classes. instances: objects, as sets of pixels (where each is of one class).
    groups, splits: as samples.csv says; mixed_splits: images with a split beside images without one.
    volumes: 3D data. any_classes: class tables in which no class is a background. exclusive, overlapping: datasets whose pixels have
    one class, or several; others can't be written.
    """

    values: bool = False
    instances: bool = False
    groups: bool = False
    splits: bool = False
    mixed_splits: bool = False
    volumes: bool = False
    any_classes: bool = False
    exclusive: bool = True
    overlapping: bool = False


@dataclass
class ExportReport:
    """What an export wrote. `left_out` are (key, reason); `losses` says what the layout could not hold, with how often."""

    format: str
    images: int = 0
    left_out: list[tuple[str, str]] = field(default_factory=list)
    losses: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The report for people."""
        lines = [f"exported {self.images} images ({self.format})", *self.notes]
        lines += [f"not expressed: {text}: {count:,}" for text, count in sorted(self.losses.items()) if count]
        lines += [f"left out: {key}: {reason}" for key, reason in self.left_out[:_SHOWN]]
        lines += [f"left out: {len(self.left_out) - _SHOWN} more"] if len(self.left_out) > _SHOWN else []
        return lines

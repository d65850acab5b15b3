"""The capabilities of an export format, and the report of an export."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

_MAX_LISTED = 10


@dataclass(frozen=True)
class FormatCapabilities:
    """The properties of a dataset that are unchanged after an export and an import in this format.

    Images, class names, labels (as class ids) and ignored pixels are always unchanged.

    Attributes:
        values: the pixel values of the classes in mask files.
        instances: instances, as sets of pixels, if each has one class.
        groups: the groups of samples.csv.
        splits: the splits of samples.csv.
        mixed_splits: splits, even if some images have none.
        volumes: 3D data.
        any_classes: class tables without a background class.
        exclusive: the format can store datasets with one class per pixel.
        overlapping: the format can store datasets with several classes per pixel.
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
    """The result of an export.

    Attributes:
        format: the name of the format.
        images: the number of images written.
        left_out: the key of each image that was not written, and the reason.
        losses: what the format cannot store, with the number of cases.
        notes: further sentences for the user.
    """

    format: str
    images: int = 0
    left_out: list[tuple[str, str]] = field(default_factory=list)
    losses: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return the report as lines of text."""
        lines = [f"exported {self.images} images ({self.format})", *self.notes]
        lines += [f"not preserved: {text}: {count:,}" for text, count in sorted(self.losses.items()) if count]
        lines += [f"left out: {key}: {reason}" for key, reason in self.left_out[:_MAX_LISTED]]
        lines += [f"left out: {len(self.left_out) - _MAX_LISTED} more"] if len(self.left_out) > _MAX_LISTED else []
        return lines

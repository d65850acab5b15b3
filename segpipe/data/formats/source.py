"""What a reader of a layout finds in a source folder. Nothing is opened yet but small tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from segpipe.samples import ClassTable


class ReadOptions(BaseModel):
    """What the user says about where things lie in a source; every layout takes what concerns it and refuses the rest."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    images: str | None = None
    """The folder of images, relative to the source."""
    masks: str | None = None
    """The folder of masks (or the annotation file), relative to the source."""
    palette: Path | None = None
    """A file that says which colour is which class."""


@dataclass(frozen=True)
class Drawing:
    """Labels drawn from annotations that are no file of class values.

    mask: (H, W), uint8 or uint16 file values of the source's class table.
    instances: (H, W), uint16 object ids, 0 for none; None where the annotations know no objects.
    notes: what had to be decided, with how often: {"pixels where objects overlap: the smaller object is kept": 12}.
    """

    mask: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
    instances: npt.NDArray[np.uint16] | None = None
    notes: Counter[str] = field(default_factory=Counter)


Draw = Callable[[int, int], Drawing]
"""Draws the labels of one image, given its height and width; raises DataError where the annotations are broken."""


@dataclass(frozen=True)
class RawItem:
    """One image of a source. `name` is its path relative to the source without the ending; the importer makes a key of it.

    Its labels are a file of class values (`mask`) or are drawn (`draw`), or there are none; never both.
    """

    name: str
    image: Path
    mask: Path | None = None
    instances: Path | None = None
    group: str | None = None
    split: str | None = None
    draw: Draw | None = None


@dataclass
class Source:
    """All of a source: items, the class table where the source brings one, files left out with the reason, words for the user."""

    items: list[RawItem]
    classes: ClassTable | None = None
    skipped: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

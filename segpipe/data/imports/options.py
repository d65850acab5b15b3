"""The user's options for an import."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from segpipe.data.formats.source import ReadOptions


class ImportOptions(BaseModel):
    """The user's options for an import."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    classes: list[str] | None = None
    """Class names in the order of their pixel values, or each as ``name=value``."""
    ignore: list[int] = []
    """Pixel values to ignore."""
    group: str | None = None
    """A regular expression. What it finds in an image's name or relative path (its first group, if it has one) is the image's group."""
    group_from_folder: bool = False
    """True if the folder of an image is its group: the first folder below the one that all images have in common."""
    to: Literal["rgb", "grey"] | None = None
    """What all 2D images become. None: images are as they are; if grey ones are mixed with colour ones, they become RGB."""
    table: Path | None = None
    """A CSV table with a column that names the images; its other columns go to samples.csv. Default: a table in the source."""
    read: ReadOptions = ReadOptions()
    """The options about the files of the source."""
    unlabelled: Literal["omit", "keep"] = "omit"
    """What happens to an image without a mask, or whose mask cannot be used: left out, or kept without a mask."""
    yes: bool = False
    """True to take the first reading if several fit, instead of asking."""
    command: str | None = None
    """The command that errors advise, without the arguments that choose a reading; by default `segpipe data import SRC`."""
    replace: bool = False
    """True if existing files in data/ may be replaced."""

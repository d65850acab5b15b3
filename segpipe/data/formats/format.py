"""`Format`: what the import has to know of a layout. `segpipe.data.formats.registry` has the table of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from segpipe.data.formats.probe import SourceProbe
from segpipe.data.formats.readings.reading import Variant
from segpipe.data.formats.source import MaskKind, ReadOptions, ReadResult
from segpipe.errors import DataError

COMMON_OPTIONS = ("exif",)
"""The options of all layouts with mask files."""
MASK_OPTIONS = ("kind", "threshold", "palette", "tolerance", "unknown_colours", *COMMON_OPTIONS)
"""The options of layouts whose mask files may be of any kind."""


@dataclass(frozen=True)
class Format:
    """A layout that can be imported.

    name: its name for `--format`.
    summary: its files and folders, in one line.
    read: returns the items of a source; raises DataError if the source does not have this layout.
    recognise: returns why a source looks like this layout, in words; None if it does not.
    options: the names of the `ReadOptions` that `read` uses.
    rank: if `auto` recognises several layouts, the lowest rank decides. 0 is for folder structures that hardly occur by chance, even if
        they contain a general layout too; 1 is for the general ones; 2 for what is read only if nothing else fits. Between layouts of
        the same rank the user decides.
    in_subfolders: whether the layout is also recognised in subfolders of any name, in one of them or in all together. If several
        datasets lie side by side, such a layout would take the first one for the whole, so `auto` checks the subfolders.
    has_mask_files: whether its items have files of masks, whose kind is judged from their pixels.
    kind: the kind of mask, if the layout defines it. `auto` then leaves it to the pixels whether a source is read so.
    doubt: returns what speaks against a source that is recognised, and that only the user can confirm; None if nothing does.
    explain: returns the error that tells why a source that looks like this layout cannot be read; None if there is nothing to tell.
    variants: returns the ways to read its files, if they leave open which of them is the label, or which of several masks is meant.
    """

    name: str
    summary: str
    read: Callable[[SourceProbe, ReadOptions], ReadResult]
    recognise: Callable[[SourceProbe], str | None]
    options: tuple[str, ...] = ()
    rank: int = 1
    in_subfolders: Literal["no", "one", "all"] = "no"
    has_mask_files: bool = False
    kind: MaskKind | None = None
    explain: Callable[[SourceProbe], DataError | None] = lambda probe: None
    doubt: Callable[[SourceProbe], str | None] = lambda probe: None
    variants: Callable[[SourceProbe, ReadOptions], list[Variant]] = lambda probe, options: [Variant()]

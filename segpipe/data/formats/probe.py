"""One look at a source, shared by everything that recognises its layout and by the reader that imports it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from segpipe.config import DataParams
from segpipe.data.formats.listing import FolderListing
from segpipe.data.formats.pairs import find_pairs
from segpipe.data.formats.readings.mask_kinds import sample_items
from segpipe.data.formats.readings.sample import MaskSample
from segpipe.data.formats.source import NO_OPTIONS, PAIRING_FIELDS, RawItem, ReadOptions, ReadResult
from segpipe.data.mask_content import MaskReader
from segpipe.errors import SegpipeError

T = TypeVar("T")


class SourceProbe:
    """A cached view of a source folder: its listing, its pairs of images and masks, and the pixels of some of its masks.

    Everything is read on first use and cached: however many recognisers use it, no folder is listed twice and no mask is decoded
    twice. Evidence that several recognisers need belongs here.

    Args:
        source: the source folder.
        parent: the probe of a folder above it, whose listing and decoded masks it shares.
    """

    def __init__(self, source: Path, parent: SourceProbe | None = None) -> None:
        self.source = source
        self.listing: FolderListing = parent.listing if parent else FolderListing(source)
        self._readers: dict[DataParams, MaskReader] = parent._readers if parent else {}
        self._pairs: dict[tuple[str | None, ...], ReadResult | SegpipeError] = {}
        self._children: dict[Path, SourceProbe] = {}
        self._cache: dict[str, Any] = {}

    def child(self, folder: Path) -> SourceProbe:
        """Return the probe of a folder below the source, as a source of its own."""
        return self._children.setdefault(folder, SourceProbe(folder, self))

    def cached(self, key: str, make: Callable[[], T]) -> T:
        """Return what `make` returns, which is called only the first time that a recogniser or reader asks for this key."""
        if key not in self._cache:
            self._cache[key] = make()
        return cast("T", self._cache[key])

    def pairs(self, options: ReadOptions = NO_OPTIONS) -> ReadResult:
        """Return the images of the source, each with its mask file if it has one; see `segpipe.data.formats.pairs.find_pairs`.

        The result is a copy that the caller may change.
        """
        key = tuple(getattr(options, name) for name in PAIRING_FIELDS)
        if key not in self._pairs:
            try:
                self._pairs[key] = find_pairs(self.listing, self.source, options)
            except SegpipeError as error:
                self._pairs[key] = error
        result = self._pairs[key]
        if isinstance(result, SegpipeError):
            raise result
        return result.copy()

    def mask_reader(self, limits: DataParams) -> MaskReader:
        """Return the reader that keeps the content of each mask that it has decoded within these limits."""
        return self._readers.setdefault(limits, MaskReader(limits))

    def sample(
        self, items: Sequence[RawItem], ignored: Sequence[int] = (), limits: DataParams | None = None
    ) -> MaskSample:
        """Return the sample of mask files of these items by whose pixels the source is judged; volumes are not among them.

        Args:
            items: the items of the source.
            ignored: values that the user ignores.
            limits: limits on file sizes; by default those of an empty params.yaml.
        """
        return MaskSample(sample_items(items, self.listing), self.mask_reader(limits or DataParams()), ignored)

    def sample_items(self, items: Sequence[RawItem]) -> list[RawItem]:
        """Return the items whose masks are in the sample."""
        return sample_items(items, self.listing)

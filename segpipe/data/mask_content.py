"""The content of mask files (their pixel values, or colours), with each file decoded at most once."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from segpipe.config import DataParams
from segpipe.data.images import class_values, decode_stored, read_image_file
from segpipe.data.images.statistics import flat_rows, histogram
from segpipe.data.mask_facts import MaskFacts, mask_facts
from segpipe.errors import DataError


@dataclass(frozen=True)
class MaskContent:
    """The content of one mask file.

    counts: pixels by value; empty if the file does not hold class values.
    in_colours: whether its channels differ, so that colours, and not values, stand for classes.
    error: why it does not hold class values; None if it does.
    facts: further facts about a 2D mask, if they were asked for.
    planes: the number of volumes of 0 and 1, one per class, that the mask of a volume consists of; 1 for a usual mask.
    """

    counts: Counter[int] = field(default_factory=Counter)
    in_colours: bool = False
    error: DataError | None = None
    facts: MaskFacts | None = None
    planes: int = 1


class MaskReader:
    """Decodes mask files within given limits, and keeps the content of each."""

    def __init__(self, limits: DataParams) -> None:
        self.limits = limits
        self._contents: dict[str, MaskContent] = {}

    def notes(self) -> list[str]:
        """Return sentences about how the masks that were read so far have been understood."""
        split = [content.planes for content in self._contents.values() if content.planes > 1]
        return (
            [f"{len(split)} masks of {max(split)} volumes of 0 and 1: each volume read as one class"] if split else []
        )

    def read(self, path: Path, with_facts: bool = False) -> MaskContent:
        """Return the content of a mask file. If the file cannot be read, nothing is raised: the content has an error.

        Args:
            path: the file.
            with_facts: whether to add the facts. They cost more than the counts, so they are for a few masks of a source.
        """
        key = os.path.realpath(path)
        content = self._contents.get(key)
        if content is None or (with_facts and content.facts is None):
            content = self._contents[key] = _decode(path, self.limits, with_facts)
        return content


def _decode(path: Path, limits: DataParams, with_facts: bool) -> MaskContent:
    facts = None
    try:
        content = read_image_file(path, limits)
        array = decode_stored(content, str(path), limits)
        facts = mask_facts(array, content) if with_facts else None
    except DataError as error:
        return MaskContent(error=error)
    try:
        values = class_values(array, str(path))
    except DataError as error:
        return MaskContent(in_colours=_is_coloured(array), error=error, facts=facts)
    counts = histogram(flat_rows(values, labels=True))
    planes = array.shape[-1] if array.ndim == 4 else 1
    value_counts = Counter({int(value): int(counts[value]) for value in np.flatnonzero(counts)})
    return MaskContent(value_counts, facts=facts, planes=planes)


def _is_coloured(array: np.ndarray) -> bool:
    """Return whether channels differ; pixels that are NaN or infinite are not colours."""
    return bool(np.isfinite(array).all() and (array[..., 1:] != array[..., :1]).any())

"""Readings of masks beside images with an EXIF orientation: were they drawn on the turned image, or on its stored pixels?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segpipe.data.formats.readings.reading import Evidence
from segpipe.data.formats.source import RawItem
from segpipe.data.images import decode_orientation, max_bytes, read_image, suffix_of
from segpipe.data.images.raster import SIDEWAYS, as_upright
from segpipe.data.mask_content import MaskReader
from segpipe.errors import DataError
from segpipe.files import read_bytes

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff")
_MAX_COMPARED = 8
_MIN_RATIO = 1.25
"""Contours of masks lie this much better on the edges of their images in the right orientation than in the other one."""


@dataclass(frozen=True)
class Orientation:
    """A way in which masks and images with an EXIF orientation belong together: "apply" or "ignore" the orientation."""

    exif: str
    evidence: tuple[Evidence, ...]


def image_orientation(image: Path, reader: MaskReader) -> tuple[int, tuple[int, int]]:
    """Return the EXIF orientation of an image file (1 if it has none) and its stored height and width, (0, 0) if unknown."""
    if suffix_of(image) not in _SUFFIXES:
        return 1, (0, 0)
    try:
        content = read_bytes(image, max_bytes(reader.limits))
        return decode_orientation(content, str(image), reader.limits)
    except DataError:  # the import reports it
        return 1, (0, 0)


def read_orientations(items: Sequence[RawItem], reader: MaskReader) -> list[Orientation]:
    """Return how the masks of these items and the orientations of their images may belong together.

    Returns:
        Nothing if no image has an orientation; otherwise one or both ways, the better supported one first.
    """
    votes: list[str | None] = []
    orientations: set[int] = set()
    for item in items:
        orientation, stored = image_orientation(item.image, reader)
        facts = reader.read(item.mask, with_facts=True).facts if item.mask else None
        if orientation == 1 or facts is None or item.mask is None:
            continue
        orientations.add(orientation)
        if orientation in SIDEWAYS and stored[0] != stored[1]:
            votes.append({stored: "ignore", stored[::-1]: "apply"}.get(facts.size))
        elif len(votes) < _MAX_COMPARED:
            votes.append(_by_edges(item.image, item.mask, orientation, reader))
    if not votes:
        return []
    text = f"{len(votes)} of {len(items)} images looked at have an EXIF orientation ({', '.join(map(str, sorted(orientations)))})"
    counts = {name: votes.count(name) for name in ("apply", "ignore")}
    winner = max(counts, key=lambda name: counts[name])
    words = {
        "apply": "masks fit the images as viewers show them",
        "ignore": "masks fit the images as they are stored",
    }
    if counts[winner] > len(votes) / 2 and min(counts.values()) == 0:
        support = Evidence(text=f"{text}; {words[winner]} (sizes and edges of {counts[winner]})", origin="pixels")
        return [Orientation(winner, (support,))]
    doubt = f"{text}, and neither sizes nor edges tell whether the masks were turned with them"
    return [Orientation(name, (Evidence(text=doubt, origin="pixels"),)) for name in ("apply", "ignore")]


def _by_edges(image: Path, mask: Path, orientation: int, reader: MaskReader) -> str | None:
    """Return the way in which the contours of a mask lie on the edges of its image; None if both are about as good."""
    from segpipe.data.drawing import contours
    from segpipe.data.images import read_mask

    try:
        pixels = read_image(image, reader.limits).astype(np.float32).mean(axis=2)
        labels = read_mask(mask, reader.limits)
    except DataError:
        return None
    turned = as_upright(labels, orientation)
    if labels.shape != pixels.shape or turned.shape != pixels.shape or (labels == turned).all():
        return None
    gradient = np.hypot(*np.gradient(pixels))
    scores = {
        name: float(gradient[contours(np.ascontiguousarray(plane))].mean()) if plane.any() else 0.0
        for name, plane in (("apply", labels), ("ignore", turned))
    }
    better, worse = sorted(scores, key=lambda name: -scores[name])
    return better if scores[better] >= _MIN_RATIO * max(scores[worse], 1e-6) else None

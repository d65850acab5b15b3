"""The table of formats besides the usual ones: how each is recognised and decoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from segpipe.data.images.bounds import Bounds
from segpipe.data.images.formats.dicom import decode_dicom, is_dicom
from segpipe.data.images.formats.hdf5 import decode_hdf5, is_hdf5
from segpipe.data.images.formats.jpeg2000 import decode_jpeg2000, decode_jpegxl, is_jpeg2000, is_jpegxl
from segpipe.data.images.formats.metaimage import decode_metaimage, is_metaimage, metaimage_geometry
from segpipe.data.images.formats.nrrd import decode_nrrd, is_nrrd, nrrd_geometry
from segpipe.data.images.geometry import Geometry

Decode = Callable[[bytes, str, Bounds, bool], tuple[np.ndarray, list[str]]]
"""Bytes, name of the file, limits, and whether to look for a mask -> (H, W, C) or (D, H, W, C), and notes."""


@dataclass(frozen=True)
class FileKind:
    """A format of files.

    Attributes:
        matches: whether bytes begin like a file of this format.
        decode: decodes a file.
        geometry: reads the position of a volume; None for a format that has none.
    """

    matches: Callable[[bytes], bool]
    decode: Decode
    geometry: Callable[[bytes, str], Geometry | None] | None = None


KINDS = (
    FileKind(is_dicom, lambda content, where, bounds, _: decode_dicom(content, where, bounds)),
    FileKind(is_nrrd, lambda content, where, bounds, _: decode_nrrd(content, where, bounds), nrrd_geometry),
    FileKind(
        is_metaimage, lambda content, where, bounds, _: decode_metaimage(content, where, bounds), metaimage_geometry
    ),
    FileKind(is_hdf5, decode_hdf5),
    FileKind(is_jpeg2000, lambda content, where, bounds, _: decode_jpeg2000(content, where, bounds)),
    FileKind(is_jpegxl, lambda content, where, bounds, _: decode_jpegxl(content, where, bounds)),
)


def kind_of(content: bytes) -> FileKind | None:
    """Return the format of a file by its first bytes; None if it is not one of these."""
    return next((kind for kind in KINDS if kind.matches(content)), None)

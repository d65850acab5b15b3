"""GeoTIFF: pixels without data, and the place on Earth that a mask inherits from its image."""

from __future__ import annotations

import io
import logging

import numpy as np
import numpy.typing as npt

from segpipe.data.images.bounds import decoder_errors_as_data_errors
from segpipe.data.images.tiff import is_tiff

_NODATA_TAG = 42113
_GEO_TAGS = {33550: "d", 33922: "d", 34264: "d", 34735: "H", 34736: "d", 34737: "s"}
"""Tags that state the place (ModelPixelScale, ModelTiepoint, ModelTransformation and the three of geo keys), and their types."""

GeoTags = tuple[tuple[int, str, int, object], ...]
"""(number, type, count, value) of each tag."""


def nodata_pixels(array: np.ndarray, content: bytes, where: str) -> npt.NDArray[np.bool_] | None:
    """Return which pixels of a GeoTIFF have no data: those with the value of its tag GDAL_NODATA in all channels.

    Args:
        array: (H, W, C), the decoded file.
        content: the bytes of the file.
        where: the name of the file in errors.

    Returns:
        (H, W); None if there are none, and for every other kind of file.
    """
    value = _nodata_value(content, where)
    if value is None or array.ndim != 3:
        return None
    missing = np.ones(array.shape[:2], bool)
    for channel in np.moveaxis(array, 2, 0):  # one at a time, which takes less memory
        missing &= np.isnan(channel) if np.isnan(value) else channel == value
    return missing if missing.any() else None


def without_nodata(array: np.ndarray, content: bytes, where: str) -> tuple[np.ndarray, list[str]]:
    """Replace the pixels without data by the mean of the others, channel by channel.

    So they are neutral for the network. They count neither in statistics nor in the loss (`nodata_pixels`).

    Returns:
        The image, and a note if pixels were replaced.
    """
    missing = nodata_pixels(array, content, where)
    if missing is None:
        return array, []
    filled, valid = array.copy(), ~missing
    for channel in np.moveaxis(filled, 2, 0):
        channel[missing] = channel.mean(dtype=np.float64, where=valid).astype(array.dtype) if valid.any() else 0
    return filled, [f"{missing.mean():.1%} of the pixels have no data ({_nodata_value(content, where):g})"]


def geo_tags(content: bytes, where: str) -> GeoTags:
    """Return the tags that state the place of a GeoTIFF and its value for no data; () for every other kind of file."""
    if not is_tiff(content):
        return ()
    from tifffile import TiffFile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # damaged files become a DataError
    with decoder_errors_as_data_errors(where), io.BytesIO(content) as stream, TiffFile(stream) as file:
        tags = file.pages[0].aspage().tags
        values = [(number, kind, tags.valueof(number)) for number, kind in _GEO_TAGS.items() if number in tags]
    return tuple((number, kind, 1 if kind == "s" else len(value), value) for number, kind, value in values)


def encode_geotiff(mask: np.ndarray, tags: GeoTags) -> bytes:
    """Encode a mask (H, W), uint8 or uint16, as GeoTIFF (deflate) with the place of its image."""
    import tifffile

    stream = io.BytesIO()
    tifffile.imwrite(
        stream,
        mask,
        photometric="minisblack",
        compression="adobe_deflate",
        metadata=None,
        software="",
        maxworkers=1,
        extratags=[(number, kind, count, value, True) for number, kind, count, value in tags],
    )
    return stream.getvalue()


def _nodata_value(content: bytes, where: str) -> float | None:
    if not is_tiff(content):
        return None
    from tifffile import TiffFile

    with decoder_errors_as_data_errors(where), io.BytesIO(content) as stream, TiffFile(stream) as file:
        text = file.pages[0].aspage().tags.valueof(_NODATA_TAG, default=None)
    try:
        return None if text is None else float(str(text).strip("\0 "))
    except ValueError:
        return None

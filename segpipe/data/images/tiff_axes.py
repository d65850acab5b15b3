"""The meaning of the pages of a TIFF file, where the file states it: channels, slices and times of OME-TIFF and ImageJ."""

from __future__ import annotations

import io
import logging
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from segpipe.data.images.bounds import decoder_errors_as_data_errors

if TYPE_CHECKING:
    from tifffile import TiffFile

_MAX_DESCRIPTION = 1 << 22
_IMAGEJ_ORDER = "CZT"
_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True)
class PageAxes:
    """The meaning of the pages of a file.

    Attributes:
        order: the axes C (channel), Z (slice) and T (time), the one that changes fastest from page to page first.
        sizes: the number of channels (in pages of their own), slices and times.
        names: the names of the channels; empty if not every one has a name.
    """

    order: str
    sizes: dict[str, int]
    names: tuple[str, ...] = ()

    @property
    def pages(self) -> int:
        """The number of pages that the axes describe."""
        return self.sizes["C"] * self.sizes["Z"] * self.sizes["T"]

    def arrange(self, stack: np.ndarray) -> np.ndarray:
        """Arrange pages (pages, H, W, samples) as (H, W, C), or with several slices as (D, H, W, C). There must be one time."""
        height, width, samples = stack.shape[1:]
        slowest_first = [axis for axis in reversed(self.order) if axis != "T"]
        stack = stack.reshape(*(self.sizes[axis] for axis in slowest_first), height, width, samples)
        if slowest_first == ["C", "Z"]:
            stack = stack.swapaxes(0, 1)
        # now (Z, C, H, W, samples)
        volume = np.moveaxis(stack, 1, 3).reshape(self.sizes["Z"], height, width, -1)
        return np.ascontiguousarray(volume if self.sizes["Z"] > 1 else volume[0])


def channel_names(content: bytes, where: str) -> list[str]:
    """Return the names of the channels of an OME-TIFF or ImageJ file in their order; an empty list if not every channel has a name.

    Args:
        content: the bytes of the file.
        where: the name of the file in errors.

    Raises:
        DataError: if the tags of the file are damaged.
    """
    if content[:4] not in _MAGIC:
        return []
    from tifffile import TiffFile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # damaged files become a DataError
    with decoder_errors_as_data_errors(where), io.BytesIO(content) as stream, TiffFile(stream) as file:
        axes = page_axes(file)
        return list(axes.names) if axes is not None else []


def page_axes(file: TiffFile) -> PageAxes | None:
    """Return what a file says about its pages; None if it says nothing, or not in a way that fits the number of its pages."""
    count = len(file.pages)
    if file.is_ome and file.ome_metadata:
        axes = ome_axes(file.ome_metadata)
        return axes if axes is not None and axes.pages == count else None
    if file.is_imagej and file.imagej_metadata:
        metadata = file.imagej_metadata
        sizes = {
            axis: int(metadata.get(name, 1)) for axis, name in zip("CZT", ("channels", "slices", "frames"), strict=True)
        }
        labels = metadata.get("Labels") or []
        names = tuple(map(str, labels)) if len(labels) == sizes["C"] == count and all(labels) else ()
        axes = PageAxes(_IMAGEJ_ORDER, sizes, names)
        return axes if axes.pages == count else None
    return None


def ome_axes(description: str) -> PageAxes | None:
    """Return the axes of the first image of an OME-XML text; None if the text is damaged."""
    if len(description) > _MAX_DESCRIPTION or "<!ENTITY" in description:
        return None
    try:
        root = ElementTree.fromstring(description)  # noqa: S314 - as above
        pixels = next((element for element in root.iter() if element.tag.endswith("}Pixels")), None)
        if pixels is None:
            return None
        channels = [element for element in pixels if element.tag.endswith("}Channel")]
        samples = [int(channel.get("SamplesPerPixel") or 1) for channel in channels] or [1]
        sizes = {axis: int(pixels.get(f"Size{axis}") or 1) for axis in "CZT"}
    except (ElementTree.ParseError, ValueError):
        return None
    names = tuple(channel.get("Name") or "" for channel in channels)
    has_names = bool(names) and all(names) and max(samples) == 1 and len(names) == sizes["C"]
    order = (pixels.get("DimensionOrder") or "XYCZT")[2:]
    if sorted(order) != sorted("CZT") or sizes["C"] % max(samples) or min(sizes.values()) < 1:
        return None
    sizes["C"] //= max(samples)
    return PageAxes(order, sizes, names if has_names else ())

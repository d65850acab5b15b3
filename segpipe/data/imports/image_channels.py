"""One kind of images: where grey images are mixed with colour ones, all are brought to RGB or to grey while they are imported."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from segpipe.config import DataParams
from segpipe.data.formats.source import RawItem, ReadResult
from segpipe.data.images import decode_image, encode_png, encode_tiff, max_bytes, suffix_of
from segpipe.data.images.raster import raster_header
from segpipe.errors import DataError
from segpipe.files import read_bytes

_RASTER_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff")
_GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "F")
_COLOUR_MODES = ("RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "P", "PA")
_GREY_WEIGHTS = (0.299, 0.587, 0.114)
"""ITU-R BT.601: the luma of red, green and blue."""

To = Literal["rgb", "grey"]


def with_equal_channels(items: list[RawItem], to: To | None, limits: DataParams, result: ReadResult) -> list[RawItem]:
    """Return the items so that 2D images are all grey or all RGB, where both kinds are mixed or the user asks for one.

    A file with three equal channels is a grey image. If all images are grey in this sense, they become grey, which loses nothing;
    otherwise grey ones become RGB with three equal channels, which loses nothing either. Images with other numbers of channels,
    volumes and files that cannot be read stay as they are.

    Args:
        items: the items of an import.
        to: what the user asks for; None to decide.
        limits: limits on file sizes.
        result: gets a note about what is converted, and the files that are converted as used files.
    """
    kinds = [_stored_kind(item) for item in items]
    if to is None:
        if not {"grey", "rgb"} <= set(kinds):
            return items
        coloured = [item for item, kind in zip(items, kinds, strict=True) if kind == "rgb"]
        to = "rgb" if any(_has_colour(item, limits) for item in coloured) else "grey"
    changed = [kind is not None and kind != to for kind in kinds]
    if not any(changed):
        return items
    result.notes.append(_note(kinds, to))
    for item, is_changed in zip(items, changed, strict=True):
        if is_changed and item.content is None:
            result.used_files.add(item.image)
    return [
        _converted(item, to, limits) if is_changed else item for item, is_changed in zip(items, changed, strict=True)
    ]


def _note(kinds: list[To | None], to: To) -> str:
    grey, colour = kinds.count("grey"), kinds.count("rgb")
    if to == "rgb":
        return (
            f"grey images that are stored as RGB (three equal channels), like the {colour} in colours: {grey}; "
            "--to grey stores all as grey"
        )
    return (
        f"images of three channels that are stored as grey, like the other {grey}: {colour}; --to rgb stores all as RGB"
    )


def _stored_kind(item: RawItem) -> To | None:
    """Return whether a 2D image is stored in one channel or in colours, from its header; None for other files."""
    if suffix_of(item.image) not in _RASTER_SUFFIXES:
        return None
    try:
        with raster_header(item.image if item.content is None else io.BytesIO(item.content()), item.image) as image:
            if image.format == "TIFF" and getattr(image, "n_frames", 1) > 1:
                return None
            return "grey" if image.mode in _GREY_MODES else "rgb" if image.mode in _COLOUR_MODES else None
    except DataError:  # the import reports it
        return None


def _pixels(item: RawItem, limits: DataParams) -> np.ndarray:
    content = read_bytes(item.image, max_bytes(limits)) if item.content is None else item.content()
    return decode_image(content, str(item.image), limits)


def _has_colour(item: RawItem, limits: DataParams) -> bool:
    """Return whether the channels of an image differ; False for an image that cannot be read."""
    try:
        pixels = _pixels(item, limits)
    except DataError:
        return False
    return pixels.ndim == 3 and bool((pixels != pixels[..., :1]).any())


def _converted(item: RawItem, to: To, limits: DataParams) -> RawItem:
    """Return an item whose image is converted when it is written: as PNG, or as TIFF if its pixels are floats."""
    return replace(item, content=ConvertedImage(item.image, item.content, to, limits), image=_png(item.image))


def _png(path: Path) -> Path:
    name = path.name[: len(path.name) - len(suffix_of(path))]
    return path.with_name(f"{name}.tif" if suffix_of(path) in (".tif", ".tiff") else f"{name}.png")


@dataclass(frozen=True)
class ConvertedImage:
    """Returns the bytes of an image that is converted to grey or RGB.

    image: its file, or only its name if `content` is given.
    content: returns its bytes if no file holds them.
    to: what it becomes.
    limits: limits on file sizes.
    """

    image: Path
    content: Callable[[], bytes] | None
    to: To
    limits: DataParams

    def __call__(self) -> bytes:
        """Return the bytes of a PNG file, or of a TIFF file if the image is one; the image is turned upright.

        Raises:
            DataError: the image cannot be read, or has neither one nor three channels.
        """
        pixels = _pixels(RawItem(self.image.stem, self.image, content=self.content), self.limits)
        if pixels.ndim != 3 or pixels.shape[2] not in (1, 3):
            raise DataError(
                f"cannot be converted to {self.to}",
                where=self.image,
                found=f"shape {pixels.shape}",
                expected="an image of one or three channels",
                fix="omit --to",
            )
        converted = np.repeat(pixels[..., :1], 3, axis=2) if self.to == "rgb" and pixels.shape[2] == 1 else pixels
        if self.to == "grey":
            converted = to_grey(pixels)
        if suffix_of(self.image) in (".tif", ".tiff"):
            return encode_tiff(converted)
        return encode_png(converted if self.to == "rgb" else converted[..., 0])


def to_grey(pixels: np.ndarray) -> np.ndarray:
    """Return an image (H, W, 1 or 3) as grey, (H, W, 1), in the same dtype: its luma after ITU-R BT.601, rounded for whole numbers."""
    if pixels.shape[2] == 1 or not (pixels != pixels[..., :1]).any():
        return pixels[..., :1]
    grey = pixels.astype(np.float64) @ np.array(_GREY_WEIGHTS)
    return (np.rint(grey) if pixels.dtype.kind in "iu" else grey).astype(pixels.dtype)[..., None]

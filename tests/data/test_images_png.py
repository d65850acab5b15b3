"""PNG: rows that are unpacked before libpng sees them, in every kind of file."""

from __future__ import annotations

import io
import zlib

import cv2
import imagecodecs
import numpy as np
import pytest
from PIL import Image

from segpipe.data.images import png
from segpipe.data.images.png import decode_png, png_chunks
from segpipe.errors import DataError

from .test_images import chunk

RNG = np.random.default_rng(0)
PHOTO = cv2.GaussianBlur(RNG.integers(0, 256, (61, 83, 3), dtype=np.uint8), (5, 5), 0)
"""Smooth, so that encoders filter its rows in different ways."""


def by_pil(image: Image.Image, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", **options)
    return stream.getvalue()


def by_opencv(array: np.ndarray) -> bytes:
    return cv2.imencode(".png", array)[1].tobytes()


FILES = {
    "colours": by_pil(Image.fromarray(PHOTO)),
    "alpha": by_pil(Image.fromarray(PHOTO).convert("RGBA")),
    "a transparent colour": by_pil(Image.fromarray(PHOTO), transparency=(1, 2, 3)),
    "grey": by_pil(Image.fromarray(PHOTO).convert("L")),
    "grey with alpha": by_pil(Image.fromarray(PHOTO).convert("LA")),
    "a bit a pixel": by_pil(Image.fromarray(PHOTO).convert("1")),
    "a palette": by_pil(Image.fromarray(PHOTO).quantize(200)),
    "a palette of four bits": by_pil(Image.fromarray(PHOTO).quantize(13), bits=4),
    "16 bits": by_opencv(PHOTO.astype(np.uint16) * 251),
    "16 bits and alpha": by_opencv(np.dstack([PHOTO, PHOTO[..., 0]]).astype(np.uint16) * 251),
    "of many chunks": by_pil(Image.fromarray(np.tile(PHOTO, (9, 9, 1)) ^ RNG.integers(0, 9, (549, 747, 3), np.uint8))),
}


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_unpacked_or_not_pixels_are_the_same(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    unpacked = png._unpacked(content)
    assert unpacked is not None
    expected = imagecodecs.png_decode(content)
    np.testing.assert_array_equal(imagecodecs.png_decode(unpacked), expected)
    np.testing.assert_array_equal(
        np.asarray(Image.open(io.BytesIO(unpacked))), np.asarray(Image.open(io.BytesIO(content)))
    )
    found = decode_png(content, "x")
    monkeypatch.setattr(png, "_AT_ONCE", 0)
    assert png._unpacked(content) is None, "too large to be unpacked beside its image"
    np.testing.assert_array_equal(decode_png(content, "x"), found)


def of_colours(pixels: bytes, height: int, packed: bytes | None = None, interlaced: int = 0) -> bytes:
    """A PNG in colours, 7 pixels wide (or of one pixel where interlaced, whose only pass is the image itself)."""
    width = 1 if interlaced else 7
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, interlaced])
    packed = zlib.compress(pixels) if packed is None else packed
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


ROWS = b"".join(bytes([kind]) + RNG.bytes(21) for kind in (0, 1, 2, 3, 4))


def test_interlaced_files_are_left_to_the_decoder() -> None:
    content = of_colours(b"\0\1\2\3", 1, interlaced=1)
    assert png._unpacked(content) is None
    assert decode_png(content, "x").tolist() == [[[1, 2, 3]]]


def test_more_data_than_pixels_are_passed_over() -> None:
    content, longer = of_colours(ROWS, 5), of_colours(ROWS, 5, zlib.compress(ROWS) + b"and more")
    np.testing.assert_array_equal(decode_png(longer, "x"), decode_png(content, "x"))


@pytest.mark.parametrize(
    "packed",
    [
        pytest.param(zlib.compress(ROWS)[:-1] + b"?", id="a checksum of the rows"),
        pytest.param(zlib.compress(ROWS)[:-20], id="cut short"),
        pytest.param(zlib.compress(ROWS[:-22]), id="too few rows"),
        pytest.param(b"", id="nothing"),
        pytest.param(zlib.compress(b"\x09" + ROWS[1:]), id="a filter that there is not"),
    ],
)
def test_broken_rows_are_an_error(packed: bytes) -> None:
    with pytest.raises((DataError, imagecodecs.PngError)):
        decode_png(of_colours(ROWS, 5, packed), "x")


def test_a_checksum_of_sound_rows_counts() -> None:
    content = of_colours(ROWS, 5)
    end = len(content) - 12
    with pytest.raises(DataError, match="x: cannot be decoded: a checksum does not fit"):
        decode_png(content[: end - 1] + bytes([content[end - 1] ^ 1]) + content[end:], "x")


def test_what_is_unpacked_is_stored_whole() -> None:
    unpacked = png._unpacked(of_colours(ROWS, 5))
    assert unpacked is not None
    assert ROWS in unpacked
    assert [name for name, _ in png_chunks(unpacked)] == [b"IHDR", b"IDAT", b"IEND"]

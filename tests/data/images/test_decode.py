"""Reading and writing image files, compared with PIL and numpy, and errors for damaged files."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageOps

from segpipe.config import DataParams
from segpipe.data.images import (
    decode_image,
    decode_image_with_notes,
    decode_mask,
    decode_mask_with_notes,
    encode_png,
    image_files,
    read_image,
    read_mask,
    stem_of,
    suffix_of,
)
from segpipe.errors import DataError
from tests.worlds.property_tests import examples

RNG = np.random.default_rng(7)
RGB = RNG.integers(0, 256, (21, 34, 3), dtype=np.uint8)
GREY = RGB[:, :, 0]


def encoded(array: np.ndarray, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind, **options)
    return stream.getvalue()


def tiff(array: np.ndarray) -> bytes:
    encoded, content = cv2.imencode(".tiff", array[:, :, ::-1] if array.ndim == 3 else array)
    assert encoded
    return content.tobytes()


def png(depth: int, colour: int, rows: bytes, **chunks: bytes) -> bytes:
    """Write a PNG of 34 x 21 pixels chunk by chunk."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 34, 21, depth, colour, 0, 0, 0))
    further = b"".join(chunk(name.encode(), data) for name, data in chunks.items())
    return b"\x89PNG\r\n\x1a\n" + header + further + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_channels_and_depths_of_png(channels: int, depth: int) -> None:
    """All channels except alpha are read as stored. Two channels are grey and alpha."""
    pixels = RNG.integers(0, 2**depth, (21, 34, channels)).astype(f">u{depth // 8}")
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    image, notes = decode_image_with_notes(
        png(depth, colour, b"".join(b"\0" + row.tobytes() for row in pixels)), "a", DataParams()
    )
    np.testing.assert_array_equal(image, pixels[:, :, : channels - (channels % 2 == 0)])
    assert image.dtype == f"u{depth // 8}"
    assert notes == (["alpha channel dropped"] if channels % 2 == 0 else [])


def test_damaged_data_in_the_middle_of_a_jpeg_is_an_error() -> None:
    content = bytearray(encoded(np.tile(RGB, (8, 8, 1)), "JPEG"))
    content[len(content) // 2 : len(content) // 2 + 2] = b"\xff\x36"  # an invalid marker
    with pytest.raises(DataError, match="cannot be decoded"):
        decode_image(bytes(content), "a.jpg", DataParams())


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(encoded(RGB, "PNG"), RGB, id="png"),
        pytest.param(encoded(RGB, "BMP"), RGB, id="bmp"),
        pytest.param(encoded(RGB, "WEBP", lossless=True), RGB, id="webp"),
        pytest.param(encoded(RGB, "TIFF", compression="tiff_lzw"), RGB, id="tiff"),
        pytest.param(encoded(GREY, "PNG"), GREY[:, :, None], id="grey png"),
        pytest.param(encoded(np.dstack([RGB, GREY]), "PNG"), RGB, id="alpha dropped"),
        pytest.param(encoded(np.dstack([GREY, RGB[:, :, 1]]), "PNG"), GREY[:, :, None], id="grey with alpha"),
        pytest.param(
            encoded(GREY.astype(np.uint16) * 257, "PNG"), GREY[:, :, None].astype(np.uint16) * 257, id="16 bit"
        ),
        pytest.param(tiff(RGB.astype(np.uint16) * 200), RGB.astype(np.uint16) * 200, id="16 bit colour tiff"),
        pytest.param(tiff(RGB / np.float32(3)), RGB / np.float32(3), id="float colour tiff"),
        pytest.param(encoded(GREY / np.float32(3), "TIFF"), (GREY / np.float32(3))[:, :, None], id="float grey tiff"),
    ],
)
def test_pixels_are_read_as_they_were_written(content: bytes, expected: np.ndarray) -> None:
    image = decode_image(content, "x", 1)
    assert image.dtype == expected.dtype
    np.testing.assert_array_equal(image, expected)


def test_jpeg_agrees_with_pil_and_is_turned_upright() -> None:
    smooth = cv2.GaussianBlur(RGB, (0, 0), 4)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    plain, turned = encoded(smooth, "JPEG"), encoded(smooth, "JPEG", exif=exif)
    np.testing.assert_array_equal(decode_image(plain, "x", 1), np.asarray(Image.open(io.BytesIO(plain))))
    np.testing.assert_array_equal(decode_image(turned, "x", 1), np.rot90(decode_image(plain, "x", 1), -1))


def with_exif(array: np.ndarray, kind: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(array, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_the_exif_orientation_is_applied_to_images_and_masks(kind: str, orientation: int) -> None:
    content = with_exif(RGB, kind, orientation)
    with Image.open(io.BytesIO(content)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    turned, notes = decode_image_with_notes(content, "x", 1)
    np.testing.assert_array_equal(turned, expected)
    assert notes == ([] if orientation == 1 else [f"turned upright (orientation {orientation})"])
    if kind == "PNG":
        content = with_exif(GREY, kind, orientation)
        np.testing.assert_array_equal(decode_mask(content, "x", 1), decode_image(content, "x", 1)[:, :, 0])


def test_exif_at_the_end_of_a_png_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    content = encoded(RGB, "PNG")
    late = content[:-12] + chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) + content[-12:]
    np.testing.assert_array_equal(decode_image(late, "x", 1), RGB[::-1, ::-1])


INDEXED = Image.fromarray(RGB).quantize(5)


@pytest.mark.parametrize(
    ("image", "kind", "note"),
    [
        pytest.param(INDEXED, "PNG", "palette expanded to colours", id="palette png"),
        pytest.param(INDEXED, "BMP", "palette expanded to colours", id="palette bmp"),
        pytest.param(Image.fromarray(RGB).convert("CMYK"), "JPEG", "CMYK converted to RGB", id="cmyk jpeg"),
        pytest.param(Image.fromarray(np.dstack([RGB, GREY])), "PNG", "alpha channel dropped", id="alpha"),
        pytest.param(Image.fromarray(GREY > 99), "PNG", "1-bit grey spread over 0 to 255", id="one bit"),
        pytest.param(Image.fromarray(GREY > 99), "BMP", "1-bit grey spread over 0 to 255", id="one bit bmp"),
    ],
)
def test_conversions_are_noted_and_agree_with_pil(image: Image.Image, kind: str, note: str) -> None:
    stream = io.BytesIO()
    image.save(stream, kind)
    decoded, notes = decode_image_with_notes(stream.getvalue(), "x", 1)
    with Image.open(io.BytesIO(stream.getvalue())) as opened:
        expected = np.asarray(opened.convert("RGB"))
    np.testing.assert_array_equal(np.broadcast_to(decoded, expected.shape), expected)
    assert notes == [note]


def test_transparency_of_a_palette_is_dropped_and_noted() -> None:
    content = io.BytesIO()
    INDEXED.save(content, "PNG", transparency=0)
    image, notes = decode_image_with_notes(content.getvalue(), "x", 1)
    np.testing.assert_array_equal(image, np.asarray(INDEXED.convert("RGB")))
    assert notes == ["alpha channel dropped", "palette expanded to colours"]
    mask, notes = decode_mask_with_notes(content.getvalue(), "x", 1)
    np.testing.assert_array_equal(mask, np.asarray(INDEXED))
    assert notes == ["alpha channel dropped"]


def test_16_bit_png_keeps_its_bits_with_and_without_alpha() -> None:
    deep = RNG.integers(0, 65536, (21, 34, 4), dtype=np.uint16)
    for array, expected_notes in ((deep[:, :, :3], []), (deep, ["alpha channel dropped"])):
        encoded_ok, content = cv2.imencode(".png", array[:, :, [2, 1, 0, 3][: array.shape[2]]])
        assert encoded_ok
        image, notes = decode_image_with_notes(content.tobytes(), "x", 1)
        np.testing.assert_array_equal(image, deep[:, :, :3])
        assert notes == expected_notes


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_animation_is_refused(kind: str) -> None:
    content = encoded(RGB, kind, save_all=True, append_images=[Image.fromarray(RGB[::-1])])
    with pytest.raises(DataError, match=r"several pages.*2 frames"):
        decode_image(content, "x", DataParams())


@pytest.mark.parametrize(
    ("name", "stem", "suffix"),
    [
        ("a.png", "a", ".png"),
        ("a.b.TIF", "a.b", ".tif"),
        ("x.nii.gz", "x", ".nii.gz"),
        ("x.NII.GZ", "x", ".nii.gz"),
        ("x.nii", "x", ".nii"),
        ("x.gz", "x", ".gz"),
        ("bare", "bare", ""),
        ("with space é.nii.gz", "with space é", ".nii.gz"),
    ],
)
def test_file_names_are_split_into_stem_and_ending(name: str, stem: str, suffix: str) -> None:
    assert (stem_of(Path("folder.d") / name), suffix_of(Path("folder.d") / name)) == (stem, suffix)


@examples(30)
@given(
    array=st.one_of(
        arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))),
        arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9))),
        arrays(np.uint16, st.tuples(st.integers(1, 9), st.integers(1, 9))),
    )
)
def test_encode_png_loses_nothing(array: np.ndarray) -> None:
    image = decode_image(encode_png(array), "x", 1)
    np.testing.assert_array_equal(image if array.ndim == 3 else image[:, :, 0], array)


PNG = encoded(RNG.integers(0, 256, (60, 60, 3), dtype=np.uint8), "PNG")
JPEG = encoded(RNG.integers(0, 256, (60, 60, 3), dtype=np.uint8), "JPEG")


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of(width: int, height: int, pixels: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


BROKEN = {
    "empty": (b"", "the file is empty"),
    "text": (b"hello, not an image", "not an image in a supported format"),
    "ppm cut": (encoded(RGB, "PPM")[:-100], "cannot be decoded"),
    "ppm header alone": (b"P6\n60 60\n255\n", "cannot be decoded"),
    "png cut in half": (PNG[: len(PNG) // 2], "cannot be decoded"),
    "png without its end": (PNG[:-20], "cannot be decoded"),
    "png with a flipped bit": (PNG[:2000] + bytes([PNG[2000] ^ 1]) + PNG[2001:], "cannot be decoded"),
    "png with too few pixels": (png_of(60, 60, bytes(181 * 30)), "cannot be decoded"),
    "png header alone": (PNG[:33], "not an image"),
    "jpeg cut in half": (JPEG[: len(JPEG) // 2], "cannot be decoded"),
    "jpeg cut near its end": (JPEG[:-30], "cannot be decoded"),
    "jpeg header alone": (JPEG[:20], "cannot be decoded|not an image"),
    "bmp cut": (encoded(RGB, "BMP")[:-100], "cannot be decoded"),
    "tiff cut": (encoded(RGB, "TIFF")[:-100], "cannot be decoded"),
    "tiff header alone": (b"II*\0\x08\0\0\0", "cannot be decoded"),
    "webp cut": (encoded(RGB, "WEBP", lossless=True)[:-50], "cannot be decoded|not an image"),
    "bomb": (png_of(60_000, 60_000, b""), "too many pixels"),
    "not a number": (tiff(np.where(GREY > 99, np.float32("nan"), GREY.astype(np.float32))), "not finite"),
    "infinity": (tiff(np.where(GREY > 99, np.float32("inf"), GREY.astype(np.float32))), "not finite"),
}


@pytest.mark.parametrize(("content", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_one_error_that_names_it(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        decode_image(content, "images/x.png", 10)
    assert str(caught.value).startswith("images/x.png: ")
    assert caught.value.fix


def test_several_pages_are_refused() -> None:
    stream = io.BytesIO()
    Image.fromarray(GREY).save(stream, "TIFF", save_all=True, append_images=[Image.fromarray(GREY)])
    with pytest.raises(DataError, match="several pages"):
        decode_image(stream.getvalue(), "x", 1)


def test_limits_are_on_bytes_and_on_pixels(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(PNG)
    assert read_image(path, DataParams(max_megapixels=0.0036)).shape == (60, 60, 3)
    with pytest.raises(DataError, match="too many pixels"):
        read_image(path, DataParams(max_megapixels=0.0035))
    with pytest.raises(DataError, match="too large"):
        read_image(path, DataParams(max_file_mb=0.001))


VALUES = RNG.integers(0, 5, (20, 30), dtype=np.uint8)


def palette_png() -> bytes:
    image = Image.fromarray(VALUES)
    image.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0, 0, 0, 200, 9, 9, 9])
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(encoded(VALUES, "PNG"), VALUES, id="grey"),
        pytest.param(palette_png(), VALUES, id="palette gives indices, not colours"),
        pytest.param(encoded(np.dstack([VALUES] * 3), "PNG"), VALUES, id="three equal channels"),
        pytest.param(
            encoded(np.dstack([VALUES] * 3 + [VALUES * 0 + 255]), "PNG"), VALUES, id="equal channels and alpha"
        ),
        pytest.param(encoded(VALUES.astype(np.uint16) + 300, "PNG"), VALUES.astype(np.uint16) + 300, id="16 bit"),
        pytest.param(tiff(VALUES.astype(np.float32)), VALUES.astype(np.uint16), id="whole floats"),
        pytest.param(encoded(VALUES.astype(np.int32), "TIFF"), VALUES.astype(np.uint16), id="32 bit integers"),
        pytest.param(encoded(VALUES > 2, "PNG"), (VALUES > 2).astype(np.uint8) * 255, id="one bit"),
    ],
)
def test_mask_values(content: bytes, expected: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "m.png"
    path.write_bytes(content)
    mask = read_mask(path, DataParams())
    assert mask.dtype == expected.dtype
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(encoded(RGB, "PNG"), "in colours", id="colours"),
        pytest.param(tiff(VALUES + np.float32(0.5)), "not class values", id="fractions"),
        pytest.param(encoded(VALUES.astype(np.int32) - 1, "TIFF"), "not class values", id="negative"),
        pytest.param(encoded(VALUES.astype(np.int32) + 65536, "TIFF"), "not class values", id="too large"),
    ],
)
def test_files_that_are_not_masks_are_refused(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        decode_mask(content, "masks/x", 1)


def test_image_files_are_listed_in_name_order(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", ".hidden.png", "notes.txt", "c.tif", "d.nii.gz", "e.nii", "f.gz"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [p.name for p in image_files(tmp_path)] == ["a.jpg", "b.PNG", "c.tif", "d.nii.gz", "e.nii"]
    assert image_files(tmp_path / "nowhere") == []


def grey_png(array: np.ndarray, filters: list[int], damage: Callable[[bytes], bytes] = bytes, bits: int = 0) -> bytes:
    """Write a grey PNG, 8 or 16 bits, whose rows have these filters (0 none, 1 left, 2 above), as the PNG specification defines."""
    rows = (
        array.astype(array.dtype.newbyteorder(">")).view(np.uint8).reshape(len(array), -1, array.itemsize).astype(int)
    )
    left = np.pad(rows, ((0, 0), (1, 0), (0, 0)))[:, :-1]
    above = np.pad(rows, ((1, 0), (0, 0), (0, 0)))[:-1]
    stored = [(rows - (0 * rows, left, above)[f])[y] % 256 for y, f in enumerate(filters)]
    lines = b"".join(bytes([f]) + row.astype(np.uint8).tobytes() for f, row in zip(filters, stored, strict=True))
    header = struct.pack(">IIBBBBB", array.shape[1], array.shape[0], bits or 8 * array.itemsize, 0, 0, 0, 0)
    packed = damage(zlib.compress(lines))
    chunks = [(b"IHDR", header), (b"IDAT", packed[:30]), (b"IDAT", packed[30:]), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


@given(data=st.data(), dtype=st.sampled_from([np.uint8, np.uint16]), height=st.integers(1, 40), width=st.integers(1, 9))
def test_rows_of_grey_png_with_any_filters(data: st.DataObject, dtype: type, height: int, width: int) -> None:
    array = np.random.default_rng(height).integers(0, np.iinfo(dtype).max, (height, width), dtype, endpoint=True)
    uniform = st.integers(0, 2).map(lambda kind: [kind] * height)
    filters = data.draw(uniform | st.lists(st.integers(0, 2), min_size=height, max_size=height))
    content = grey_png(array, filters)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), array)
    np.testing.assert_array_equal(decode_mask(content, "x", 1), array)


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_rows_with_one_simple_filter_are_decoded_fast(monkeypatch: pytest.MonkeyPatch, kind: int) -> None:
    monkeypatch.setattr("imagecodecs.png_decode", None)
    array = np.arange(600, dtype=np.uint16).reshape(30, 20)
    np.testing.assert_array_equal(decode_mask(grey_png(array, [kind] * 30), "x", 1), array)


BROKEN_ROWS: dict[str, Callable[[bytes], bytes]] = {
    "a checksum that does not match": lambda packed: packed[:-1] + bytes([packed[-1] ^ 1]),
    "cut short": lambda packed: packed[:-20],
    "too few rows": lambda packed: zlib.compress(zlib.decompress(packed)[:-21]),
    "nothing": lambda packed: b"",
}


@pytest.mark.parametrize("damage", BROKEN_ROWS.values(), ids=BROKEN_ROWS)
def test_damaged_rows_of_grey_png_are_an_error(damage: Callable[[bytes], bytes]) -> None:
    array = np.arange(600, dtype=np.uint8).reshape(30, 20)
    with pytest.raises(DataError, match=r"x\.png: cannot be decoded"):
        decode_mask(grey_png(array, [1] * 30, damage), "x.png", 1)

"""TIFF files of all kinds, compared with the arrays they were written from, and errors for damaged files."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from segpipe.config import DataParams
from segpipe.data.images import decode_image, decode_image_with_notes, decode_mask, encode_tiff
from segpipe.errors import DataError
from tests.worlds.faulty_data import tiff

RNG = np.random.default_rng(5)
CHANNELS, VOLUME = DataParams(pages="channels"), DataParams(pages="volume")


def by_pil(image: Image.Image, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "TIFF", **options)
    return stream.getvalue()


def numbers(dtype: str, *shape: int) -> np.ndarray:
    return (RNG.random(shape) * 250).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "int16", "int32", "uint32", "float16", "float64"])
@pytest.mark.parametrize("compression", [None, "lzw", "adobe_deflate", "zstd", "packbits"])
@pytest.mark.parametrize("layout", [{}, {"tile": (16, 16)}, {"rowsperstrip": 7}, {"bigtiff": True}, {"byteorder": ">"}])
def test_grey_of_every_dtype_compression_and_layout(dtype: str, compression: str | None, layout: dict) -> None:
    array = numbers(dtype, 37, 41)
    image = decode_image(tiff(array, compression=compression, **layout), "x", 1)
    assert image.dtype == (dtype if dtype in ("uint8", "uint16") else "float32")
    assert image.dtype.isnative
    np.testing.assert_array_equal(image[:, :, 0], array.astype(image.dtype))


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_any_number_of_channels_interleaved_or_planar(channels: int, planar: str, dtype: str) -> None:
    array = numbers(dtype, 20, 30, channels)
    stored = np.moveaxis(array, 2, 0) if planar == "separate" and channels > 1 else array.squeeze()
    options: dict = {} if channels == 1 else {"planarconfig": planar, "extrasamples": (0,) * (channels - 1)}
    image, notes = decode_image_with_notes(tiff(stored, photometric="minisblack", **options), "x", 1)
    np.testing.assert_array_equal(image, array)
    assert notes == []
    np.testing.assert_array_equal(decode_image(encode_tiff(array), "x", 1), array)


def test_the_horizontal_predictor_is_undone() -> None:
    for dtype in ("uint8", "uint16", "float32"):
        array = numbers(dtype, 20, 30, 3)
        content = tiff(array, photometric="rgb", compression="lzw", predictor=True)
        np.testing.assert_array_equal(decode_image(content, "x", 1), array)


def test_alpha_palettes_inks_and_inverted_grey_are_converted_and_noted() -> None:
    rgb, alpha = numbers("uint8", 9, 12, 3), numbers("uint8", 9, 12, 1)
    image, notes = decode_image_with_notes(
        tiff(np.dstack([rgb, alpha]), photometric="rgb", extrasamples=["unassalpha"]), "x", 1
    )
    np.testing.assert_array_equal(image, rgb)
    assert notes == ["alpha channel dropped"]

    indexed = Image.fromarray(rgb).quantize(7)
    image, notes = decode_image_with_notes(by_pil(indexed), "x", 1)
    np.testing.assert_array_equal(image, np.asarray(indexed.convert("RGB")))
    assert notes == ["palette expanded to colours"]
    np.testing.assert_array_equal(decode_mask(by_pil(indexed), "x", 1), np.asarray(indexed))

    ink = Image.fromarray(np.dstack([rgb, alpha]), "CMYK")
    image, notes = decode_image_with_notes(by_pil(ink), "x", 1)
    assert np.abs(image.astype(int) - np.asarray(ink.convert("RGB"))).max() <= 1
    assert notes == ["CMYK converted to RGB"]

    for grey in (rgb[:, :, 0], rgb[:, :, 0] > 99):
        content = tiff(grey, photometric="miniswhite")
        image, notes = decode_image_with_notes(content, "x", 1)
        np.testing.assert_array_equal(image[:, :, 0], np.asarray(Image.open(io.BytesIO(content)).convert("L")))
        assert "inverted: 0 stood for white" in notes


def test_fax_and_jpeg_compression_agree_with_pil() -> None:
    grey = np.repeat(np.repeat(numbers("uint8", 12, 15), 8, 0), 8, 1)
    for compression in ("group3", "group4", "tiff_ccitt"):
        content = by_pil(Image.fromarray(grey > 120), compression=compression)
        image, notes = decode_image_with_notes(content, "x", 1)
        np.testing.assert_array_equal(image[:, :, 0], np.where(grey > 120, 255, 0))
        assert "1-bit grey spread over 0 to 255" in notes
    colours = np.dstack([grey, grey[::-1], grey[:, ::-1]])
    content = by_pil(Image.fromarray(colours), compression="jpeg", quality=95)
    np.testing.assert_allclose(decode_image(content, "x", 1), np.asarray(Image.open(io.BytesIO(content))), atol=2)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_tag_agrees_with_pil(orientation: int) -> None:
    content = tiff(numbers("uint8", 9, 12, 3), photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    with Image.open(io.BytesIO(content)) as image:
        expected = np.asarray(image)  # PIL turns TIFF by itself
    np.testing.assert_array_equal(decode_image(content, "x", 1), expected)


def test_pages_are_read_as_the_user_chooses() -> None:
    pages = numbers("uint16", 5, 20, 30)
    content = tiff(pages, photometric="minisblack")
    with pytest.raises(DataError, match=r"several pages.*data\.pages"):
        decode_image(content, "x", DataParams())
    with pytest.raises(DataError, match="several pages"):
        decode_image(content, "x", 1)
    image, notes = decode_image_with_notes(content, "x", CHANNELS)
    np.testing.assert_array_equal(image, np.moveaxis(pages, 0, 2))
    assert notes == ["5 pages read as channels"]
    volume, notes = decode_image_with_notes(content, "x", VOLUME)
    np.testing.assert_array_equal(volume, pages[..., None])
    assert notes == ["5 pages read as a volume"]
    np.testing.assert_array_equal(decode_mask(content, "x", VOLUME), pages)
    with pytest.raises(DataError, match="in colours"):
        decode_mask(content, "x", CHANNELS)
    colours = numbers("uint8", 4, 20, 30, 3)
    content = tiff(colours, photometric="rgb", metadata=None)
    np.testing.assert_array_equal(decode_image(content, "x", VOLUME), colours)
    np.testing.assert_array_equal(
        decode_image(content, "x", CHANNELS), colours.transpose(1, 2, 0, 3).reshape(20, 30, 12)
    )


def test_reduced_copies_are_not_pages() -> None:
    full = numbers("uint8", 64, 64, 3)
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        writer.write(full, photometric="rgb", subifds=0)
        writer.write(full[::2, ::2], photometric="rgb", subfiletype=1)
    np.testing.assert_array_equal(decode_image(stream.getvalue(), "x", 1), full)


def test_pages_of_different_sizes_are_refused() -> None:
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        writer.write(numbers("uint8", 20, 30), photometric="minisblack")
        writer.write(numbers("uint8", 20, 31), photometric="minisblack")
    with pytest.raises(DataError, match="differ"):
        decode_image(stream.getvalue(), "x", VOLUME)


def test_loss_of_precision_is_noted() -> None:
    large = np.array([[0, 1 << 24, (1 << 24) + 1]], np.int32)
    assert decode_image_with_notes(tiff(large), "x", 1)[1] == [
        "whole numbers above 16,777,216 rounded to 32-bit floats"
    ]
    assert decode_image_with_notes(tiff(large[:, :2]), "x", 1)[1] == []
    assert decode_image_with_notes(tiff(large / 3), "x", 1)[1] == ["64-bit floats rounded to 32 bits"]
    with pytest.raises(DataError, match="not finite"):
        decode_image(tiff(np.array([[1e300, 0]])), "x", 1)


def test_limits_count_pages_and_channels() -> None:
    content = tiff(numbers("uint8", 10, 100, 100), photometric="minisblack")
    assert decode_image(content, "x", DataParams(max_megapixels=0.1, pages="volume")).shape == (10, 100, 100, 1)
    with pytest.raises(DataError, match="too many voxels"):
        decode_image(content, "x", DataParams(max_megapixels=0.0999, pages="volume"))
    many = encode_tiff(numbers("uint8", 100, 100, 9))
    assert decode_image(many, "x", 0.03).shape == (100, 100, 9)
    with pytest.raises(DataError, match=r"too many pixels.*9 channels"):
        decode_image(many, "x", 0.0299)


def _patched(content: bytes, tag: int, value: int) -> bytes:
    """Return a little-endian TIFF with another value for a tag of its first page."""
    (start,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, start)
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        if struct.unpack_from("<H", content, entry)[0] == tag:
            return content[: entry + 8] + struct.pack("<I", value) + content[entry + 12 :]
    raise AssertionError(f"no tag {tag}")


PLAIN = tiff(numbers("uint8", 60, 60), metadata=None)
DEFLATED = tiff(numbers("uint8", 60, 60), compression="adobe_deflate", metadata=None)
JPEG = by_pil(Image.fromarray(numbers("uint8", 64, 64)), compression="jpeg")
BROKEN = {
    "jpeg wider than the image": (_patched(JPEG, 256, 8), "larger than the header of the image states"),
    "width of a bomb": (_patched(DEFLATED, 256, 60_000_000), "too many pixels|cannot be decoded"),
    "no width": (_patched(PLAIN, 256, 0), "no pixels|cannot be decoded"),
    "more rows than there are": (_patched(PLAIN, 257, 6000), "cannot be decoded"),
    "strip beyond the end": (_patched(PLAIN, 273, len(PLAIN) - 5), "cut short"),
    "empty strip": (_patched(PLAIN, 279, 0), "cut short"),
    "short strip": (_patched(PLAIN, 279, 700), "cannot be decoded"),
    "unknown compression": (_patched(PLAIN, 259, 34713), "unsupported compression of TIFF"),
    "unknown colours": (_patched(PLAIN, 262, 8), "unsupported colour space of TIFF"),
    "damaged deflate": (DEFLATED.replace(DEFLATED[500:520], bytes(20)), "cannot be decoded"),
    "directory that leads to itself": (
        PLAIN[:4] + struct.pack("<I", 8) + b"\0\0\x08\0\0\0" + PLAIN[14:],
        "no pixels|cannot be decoded",
    ),
}


@pytest.mark.parametrize(("content", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_one_error_that_names_it(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        decode_image(content, "images/x.tif", DataParams(max_megapixels=10, pages="volume"))
    assert str(caught.value).startswith("images/x.tif: ")
    assert caught.value.fix


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("compression", [None, "lzw", "adobe_deflate", "zstd"])
def test_a_file_cut_anywhere_is_an_error(cut: float, compression: str | None) -> None:
    content = tiff(numbers("uint8", 200, 200), compression=compression, rowsperstrip=20, metadata=None)
    with pytest.raises(DataError):
        decode_image(content[: int(len(content) * cut)], "x", 1)


_PEAK = """
import sys
from pathlib import Path
from segpipe.data.images import decode_image
from segpipe.errors import DataError

def peak():  # kB; the resource module would count the parent process, too
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])

before = peak()
try:
    decode_image(Path(sys.argv[1]).read_bytes(), "x", 10)
except DataError:
    pass
print(peak() - before)
"""


def test_a_strip_is_inflated_only_to_its_stated_size(tmp_path: Path) -> None:
    """A strip of 400 MB of zeros, deflated to 400 kB, in an image of 3,600 pixels."""
    bomb = zlib.compress(bytes(400 << 20), 9)
    content = _patched(_patched(DEFLATED, 273, len(DEFLATED)), 279, len(bomb)) + bomb
    path = tmp_path / "bomb.tif"
    path.write_bytes(content)
    process = subprocess.run([sys.executable, "-c", _PEAK, path], capture_output=True, text=True, check=True)
    peak_kb = int(process.stdout)  # includes the decoder library
    assert peak_kb < 150 << 10

"""The size of an image in its header, compared with its decoded pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from segpipe.config import DataParams
from segpipe.data.images import encode_nifti, read_image, read_size, tiff
from segpipe.errors import DataError
from tests.worlds.small_datasets import LIMITS

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 14, 3), np.uint8)


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "webp", "tif"])
@pytest.mark.parametrize("orientation", [None, 1, 2, 3, 4, 5, 6, 7, 8])
def test_all_orientations(tmp_path: Path, ending: str, orientation: int | None) -> None:
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.fromarray(PIXELS).save(tmp_path / f"a.{ending}", **({} if ending == "bmp" else {"exif": exif}))
    assert read_size(tmp_path / f"a.{ending}", LIMITS) == read_image(tmp_path / f"a.{ending}", LIMITS).shape[:2]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_all_modes_of_png(tmp_path: Path, mode: str) -> None:
    image = (
        Image.fromarray(PIXELS[..., 0].astype(np.uint16)) if mode == "I;16" else Image.fromarray(PIXELS).convert(mode)
    )
    image.save(tmp_path / "a.png")
    assert read_size(tmp_path / "a.png", LIMITS) == (9, 14)


def test_volumes(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(encode_nifti(np.zeros((3, 4, 5, 1), np.uint8)))
    assert read_size(tmp_path / "a.nii.gz", LIMITS) == read_image(tmp_path / "a.nii.gz", LIMITS).shape[:3]


@pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG\r\n\x1a\n", b"II*\0", b"\xff\xd8\xff"])
def test_files_that_are_not_images_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.png"):
        read_size(tmp_path / "a.png", LIMITS)


def test_the_limit_on_pixels_is_checked(tmp_path: Path) -> None:
    Image.new("1", (30000, 30000)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="too many pixels"):
        read_size(tmp_path / "a.png", LIMITS)


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"compression": "lzw", "tile": (16, 16)}])
def test_the_size_of_a_tiff_is_read_without_decoding_it(
    tmp_path: Path, options: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, photometric="rgb", **options)
    (tmp_path / "cut.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:-40])
    monkeypatch.setattr(tiff, "make_pixels", lambda *arguments: pytest.fail("decoded"))
    assert read_size(tmp_path / "a.tif", LIMITS) == (9, 14)
    with pytest.raises(DataError, match=r"at most 1e-05 megapixels"):
        read_size(tmp_path / "a.tif", DataParams(max_megapixels=1e-5))
    with pytest.raises(DataError, match=r"cut\.tif"):
        read_size(tmp_path / "cut.tif", LIMITS)

"""The content of single mask files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from segpipe.config import DataParams
from segpipe.data.images import encode_png
from segpipe.data.mask_content import MaskReader
from tests.worlds.file_access import recorded_access

VALUES = np.resize(np.array([0, 0, 5], np.uint8), (6, 6))
COLOURS = VALUES[..., None] * np.array([1, 2, 3], np.uint8)


def test_class_values(tmp_path: Path) -> None:
    (tmp_path / "grey.png").write_bytes(encode_png(VALUES))
    (tmp_path / "grey_as_rgb.png").write_bytes(encode_png(np.dstack([VALUES] * 3)))
    (tmp_path / "deep.png").write_bytes(encode_png(VALUES.astype(np.uint16) * 1000))
    indexed = Image.fromarray(VALUES, "P")
    indexed.putpalette([9, 8, 7] * 256)
    indexed.save(tmp_path / "indexed.png")
    reader = MaskReader(DataParams())
    for name, value in (("grey", 5), ("grey_as_rgb", 5), ("deep", 5000), ("indexed", 5)):
        content = reader.read(tmp_path / f"{name}.png")
        assert content.counts == {0: 24, value: 12}
        assert (content.in_colours, content.error) == (False, None)


@pytest.mark.parametrize(
    ("array", "in_colours", "message"),
    [
        (COLOURS, True, "in colours"),
        (COLOURS.astype(np.float32), True, "in colours"),
        (np.where(COLOURS == 0, np.float32(np.nan), COLOURS), False, "in colours"),
        (VALUES / np.float32(2), False, "class values"),
        (VALUES.astype(np.int32) - 1, False, "class values"),
    ],
)
def test_other_content(tmp_path: Path, array: np.ndarray, in_colours: bool, message: str) -> None:
    tifffile.imwrite(tmp_path / "mask.tif", array, photometric="rgb" if array.ndim == 3 else "minisblack")
    content = MaskReader(DataParams()).read(tmp_path / "mask.tif")
    assert (content.in_colours, content.counts) == (in_colours, {})
    assert message in str(content.error)


def test_a_broken_file_is_not_an_exception(tmp_path: Path) -> None:
    (tmp_path / "mask.png").write_bytes(b"broken")
    content = MaskReader(DataParams()).read(tmp_path / "mask.png")
    assert not content.in_colours
    assert "mask.png" in str(content.error)


def test_a_file_is_read_once_whatever_its_path(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "a.png").write_bytes(encode_png(VALUES))
    (tmp_path / "link").symlink_to("masks", target_is_directory=True)
    reader = MaskReader(DataParams())
    with recorded_access(tmp_path) as access:
        contents = [reader.read(tmp_path / folder / "a.png") for folder in ("masks", "link", "masks")]
    assert contents[0] is contents[1] is contents[2]
    assert access.opened == {tmp_path.resolve() / "masks" / "a.png": 1}

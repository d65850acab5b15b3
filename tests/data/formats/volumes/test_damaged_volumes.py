"""Sources of volumes with one damaged file: the others are imported, and the damage is at most an error of one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from segpipe.errors import DataError
from tests.data.formats.volumes.test_ome_zarr import add_labels, cells, write_image
from tests.worlds.dicom import write_seg, write_series
from tests.worlds.layouts import import_source

RNG = np.random.default_rng(11)
TRIALS = 25


def dicom(source: Path) -> None:
    segment = np.zeros((4, 6, 7), np.uint8)
    segment[1:3, 2:4, 2:5] = 1
    for name in ("a", "b"):
        write_series(source / name, RNG.integers(0, 99, (4, 6, 7)).astype(np.uint16), name)
        write_seg(source / name / "seg.dcm", {1: ("liver", segment)}, name)


def zarr(source: Path) -> None:
    for version in ("0.4", "0.5"):
        pixels = RNG.integers(0, 99, (2, 11, 12)).astype(np.uint8)
        image = write_image(source / f"{version}.zarr", pixels, "cyx", version, ("A", "B"))
        add_labels(image, {"cells": cells((11, 12), 1)}, "yx", version)


def nifti_pairs(source: Path) -> None:
    for folder in ("images", "labels"):
        (source / folder).mkdir(parents=True)
        for number in range(2):
            array = RNG.integers(0, 3, (5, 6, 7)).astype(np.uint8)
            nibabel.Nifti1Pair(array, np.eye(4)).to_filename(source / folder / f"{number}.img")


def cases(source: Path) -> None:
    for number in range(3):
        for role in ("t1", "t2", "seg"):
            path = source / f"c{number}" / f"c{number}_{role}.nii"
            path.parent.mkdir(parents=True, exist_ok=True)
            nibabel.Nifti1Image(RNG.integers(0, 3, (5, 6, 7)).astype(np.uint8), np.eye(4)).to_filename(path)


def damaged(content: bytes) -> bytes:
    """Return content with some bytes changed, zeroed or cut off."""
    array = bytearray(content)
    way = RNG.integers(4)
    if way == 0:
        return content[: RNG.integers(len(content))]
    for _ in range(int(RNG.choice([1, 4, 30]))):
        array[RNG.integers(len(array))] = 0 if way == 1 else RNG.integers(256)
    return bytes(array)


@pytest.mark.parametrize("write", [dicom, zarr, nifti_pairs, cases])
def test_a_damaged_file_is_one_line(write: Callable[[Path], None], tmp_path: Path) -> None:
    source = tmp_path / "src"
    write(source)
    files = sorted(path for path in source.rglob("*") if path.is_file())
    assert len(files) > 5
    options = {"read": {"kind": "classes"}} if write is zarr else {}
    complete = import_source(source, tmp_path / "data", **options)
    assert complete.masks == complete.images > 1
    for _ in range(TRIALS):
        path = files[RNG.integers(len(files))]
        content = path.read_bytes()
        path.write_bytes(damaged(content) if content else b"x")
        try:
            report = import_source(source, tmp_path / "data", replace=True, **options)
        except DataError as error:
            assert "\n" not in str(error)
        else:
            assert report.masks == report.images >= complete.images - 1
            assert all("\n" not in reason for _, reason in report.skipped)
        path.write_bytes(content)

"""Faults during an import: those of the source are listed, those of the target stop it, and no partial result remains."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segpipe.data.dataset import load_dataset
from segpipe.data.importer import ImportOptions, ImportReport, import_dataset
from segpipe.errors import DataError
from tests.worlds.layouts import import_source


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A source of four images with masks."""
    for index in range(4):
        for folder in ("images", "masks"):
            path = tmp_path / "source" / folder / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.resize(np.array([0, 1], np.uint8), (4, 5))).save(path)
    return tmp_path / "source"


def imported(source: Path) -> ImportReport:
    return import_source(source, source.parent / "work" / "data", "folder", unlabelled="keep")


def test_pipes_are_not_read(source: Path) -> None:
    (source / "images" / "3.png").unlink()
    os.mkfifo(source / "images" / "3.png")
    report = imported(source)
    assert (report.images, report.skipped) == (3, [("masks/3.png", "a mask without an image")])


def test_broken_links_are_listed(source: Path) -> None:
    for name, target in (("images/1.png", "gone.png"), ("masks/2.png", "2.png")):
        (source / name).unlink()
        (source / name).symlink_to(target)
    report = import_dataset(source, source.parent / "work" / "data", "auto", ImportOptions(unlabelled="keep"))
    assert (report.images, report.masks) == (3, 2)
    assert [(Path(name).relative_to(source).as_posix(), reason.split(":")[0]) for name, reason in report.skipped] == [
        ("images/1.png", "cannot be read"),
        ("masks/2.png", "cannot be read"),
    ]


def test_a_full_disk_stops_the_import_and_leaves_nothing(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = shutil.copyfile

    def copy_to_full_disk(file: Path, target: Path) -> None:
        if Path(target).name == "2.png":
            raise OSError(errno.ENOSPC, "No space left on device", str(file))
        copy(file, target)

    monkeypatch.setattr(shutil, "copyfile", copy_to_full_disk)
    with pytest.raises(OSError, match="No space left"):
        imported(source)
    assert not any((source.parent / "work").iterdir())


def test_no_thread_still_writes_after_an_error(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise it would write into the folder while that is being removed."""
    copy, begun, ended = shutil.copyfile, [], []
    is_slow_one_writing = threading.Event()

    def copy_slowly_or_fail(file: Path, target: Path) -> None:
        if Path(target).name == "0.png":
            assert is_slow_one_writing.wait(60)
            raise OSError(errno.ENOSPC, "No space left on device", str(file))
        begun.append(target)
        is_slow_one_writing.set()
        time.sleep(0.5)
        copy(file, target)
        ended.append(target)

    monkeypatch.setattr(shutil, "copyfile", copy_slowly_or_fail)
    with pytest.raises(OSError, match="No space left"):
        imported(source)
    assert begun and sorted(begun) == sorted(ended)


def test_an_interruption_leaves_nothing(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(file: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "copyfile", interrupted)
    with pytest.raises(KeyboardInterrupt):
        imported(source)
    assert not any((source.parent / "work").iterdir())


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n\0\0", b"BM\0\0", b"II*\0\xff\xff\xff\xff"])
@pytest.mark.parametrize("ending", [".png", ".tif", ".bmp"])
def test_broken_masks_do_not_stop_the_others(source: Path, content: bytes, ending: str) -> None:
    (source / "masks" / "1.png").unlink()
    (source / "masks" / f"1{ending}").write_bytes(content)
    report = imported(source)
    assert report.images == 4
    labelled = {item.key for item in load_dataset(source.parent / "work" / "data").items if item.mask}
    assert labelled >= {"0", "2", "3"}
    listed = [Path(name).name for name, _ in report.skipped]
    assert listed == ([] if ending == ".png" else [f"1{ending}"])


def test_only_broken_masks(source: Path) -> None:
    for path in (source / "masks").iterdir():
        path.write_bytes(b"broken")
    with pytest.raises(DataError, match=r"masks/0\.png"):
        imported(source)
    assert not (source.parent / "work").exists()

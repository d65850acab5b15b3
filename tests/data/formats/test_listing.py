"""The listing of a source, compared with the file system."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from segpipe.data.formats.listing import FolderListing
from segpipe.errors import DataError
from tests.worlds.file_access import recorded_access


def write_files(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x" * len(name))


def test_content_of_a_folder(source: Path) -> None:
    write_files(source, "b.png", "a.PNG", "c.nii.gz", "notes.txt", ".hidden.png", "images/x.png", ".git/config")
    (source / "gone.png").symlink_to("nowhere.png")
    (source / "loop.png").symlink_to("loop.png")
    (source / "linked").symlink_to("images", target_is_directory=True)
    os.mkfifo(source / "pipe.png")
    listing = FolderListing(source)
    assert {entry.path.name: entry.kind for entry in listing.entries(source)} == {
        ".git": "folder",
        ".hidden.png": "file",
        "a.PNG": "file",
        "b.png": "file",
        "c.nii.gz": "file",
        "gone.png": "broken link",
        "images": "folder",
        "linked": "folder",
        "loop.png": "broken link",
        "notes.txt": "file",
        "pipe.png": "other",
    }
    assert [path.name for path in listing.folders(source)] == ["images", "linked"]
    assert [path.name for path in listing.files(source)] == ["a.PNG", "b.png", "c.nii.gz", "notes.txt"]
    assert [path.name for path in listing.image_files(source)] == ["a.PNG", "b.png", "c.nii.gz"]
    assert [path.name for path in listing.matching(source, "*.png")] == ["b.png"]
    assert [path.relative_to(source).as_posix() for path in listing.files_below(source)] == [
        "a.PNG",
        "b.png",
        "c.nii.gz",
        "gone.png",
        "images/x.png",
        "linked/x.png",
        "loop.png",
        "notes.txt",
    ]


def test_paths_inside_and_outside(source: Path) -> None:
    write_files(source, "images/x.png")
    write_files(source.parent, "elsewhere/y.png")
    listing = FolderListing(source)
    assert listing.is_folder(source)
    assert listing.is_folder(source / "images")
    assert not listing.is_folder(source / "images" / "x.png")
    assert not listing.is_folder(source / "missing" / "deeper")
    assert listing.is_file(source / "images" / "x.png")
    assert not listing.is_file(source / "images" / "x.png" / "deeper")
    assert listing.size(source / "images" / "x.png") == len("images/x.png")
    for outside in (source.parent / "elsewhere", source / ".." / "elsewhere"):
        assert listing.is_folder(outside)
        assert listing.is_file(outside / "y.png")
        assert listing.size(outside / "y.png") == len("elsewhere/y.png")
        assert [path.name for path in listing.image_files(outside)] == ["y.png"]


def test_a_loop_of_folders_is_an_error(source: Path) -> None:
    write_files(source, "images/x.png")
    (source / "images" / "back").symlink_to(source, target_is_directory=True)
    with pytest.raises(DataError, match="back: a link leads back"):
        list(FolderListing(source).files_below(source))


def test_a_missing_folder(source: Path) -> None:
    listing = FolderListing(source)
    assert listing.files(source / "missing") == []
    assert listing.matching(source / "missing", "*") == []
    with pytest.raises(DataError, match="missing: cannot be read: No such file"):
        listing.entries(source / "missing")


@pytest.mark.parametrize("seed", range(5))
def test_random_trees_match_the_file_system(source: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for number in range(40):
        parts = [f"{'.' * bool(rng.random() < 0.1)}d{rng.integers(4)}" for _ in range(rng.integers(0, 4))]
        write_files(source, "/".join([*parts, f"f{number}{rng.choice(['.png', '.txt', '.nii.gz', ''])}"]))
    expected = {path: (path.is_file(), path.is_dir(), path.stat().st_size) for path in source.rglob("*")}
    hidden = {path for path in expected if any(part.startswith(".") for part in path.relative_to(source).parts)}
    listing = FolderListing(source)
    with recorded_access(source) as access:
        assert list(listing.files_below(source)) == sorted(p for p in expected.keys() - hidden if expected[p][0])
        for path, (is_file, is_folder, size) in expected.items():
            assert listing.is_file(path) == is_file
            assert listing.is_folder(path) == is_folder
            assert is_folder or listing.size(path) == size
    assert set(access.listed.values()) == {1}

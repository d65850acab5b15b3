"""Every file of a source that is not used is counted by kind and reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segpipe.data.formats.listing import Entry, FolderListing
from segpipe.data.formats.source import ReadResult
from segpipe.data.imports.unused_files import count_unused
from segpipe.errors import ConfigError, DataError
from tests.worlds.layouts import import_source, items, photo, save, values


def write(source: Path) -> None:
    for name in ("ab-1", "ab-2", "cd-1"):
        photo(source / "images" / f"{name}.png")
        save(source / "masks" / f"{name}.png", values(0, [0, 1, 2]))


def test_every_file_is_used_or_counted(source: Path, data: Path) -> None:
    write(source)
    for name in (
        "images/x.heic",
        "images/y.heic",
        "notes.txt",
        ".hidden",
        "images/.DS_Store",
        ".git/config",
        "old/deep/z.pdf",
    ):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(b"x")
    photo(source / "old" / "other.png")
    photo(source / "images" / "alone.png")
    save(source / "masks" / "lost.png", values(0, [0, 1]))
    (source / "images" / "link.png").symlink_to("nowhere.png")
    (source / "masks" / "cd-1.png").unlink()
    (source / "masks" / "cd-1.bmp").write_bytes(b"BM broken")
    report = import_source(source, data)
    counts = {(group.kind, group.reason): group.files for group in report.unused}
    total = sum(1 for path in source.rglob("*") if path.is_file() or path.is_symlink())
    assert sum(counts.values()) == total - 2 * report.images
    assert report.images == 2
    read = "a kind of file that is not read"
    assert counts[(".heic", read)] == 2
    assert counts[(".txt", read)] == counts[(".pdf", read)] == 1
    assert counts[(".png", "in a folder that is not part of the dataset")] == 1
    assert counts[(".png", "a link that leads nowhere")] == 1
    assert sum(files for (_, reason), files in counts.items() if reason == "hidden") == 3
    assert counts[(".png", "left out")] == 2  # alone.png, and the image cd-1.png
    assert counts[(".bmp", "left out")] == 1
    assert counts[(".png", "no partner")] == 1  # lost.png
    assert any("not used: 2 .heic files" in line and "images/x.heic" in line for line in report.lines())
    record = json.loads((data / "import.json").read_text())
    assert sum(group["files"] for group in record["unused"]) == sum(counts.values())


def test_a_source_that_is_used_completely_has_no_unused_files(source: Path, data: Path) -> None:
    write(source)
    assert import_source(source, data).unused == []
    again = import_source(data, data.parent / "again")
    assert [(group.kind, group.example) for group in again.unused] == [(".json", "import.json")]


def test_groups_match_the_name_of_the_file(source: Path, data: Path) -> None:
    write(source)
    import_source(source, data, group="^(.{2})")
    assert {key: item.group for key, item in items(data).items()} == {"ab-1": "ab", "ab-2": "ab", "cd-1": "cd"}
    import_source(source, data, group="^images/(..)-", replace=True)
    assert items(data)["cd-1"].group == "cd"
    with pytest.raises(ConfigError, match=r"matches no image.*expected a pattern that matches ab-1"):
        import_source(source, data, group="^images-", replace=True)


def test_an_image_whose_mask_is_refused_is_left_out_with_it_unless_it_is_to_be_kept(source: Path, data: Path) -> None:
    write(source)
    (source / "masks" / "ab-2.png").unlink()
    (source / "masks" / "ab-2.bmp").write_bytes(b"BM broken")
    assert import_source(source, data).images == 2
    assert not (data / "images" / "ab-2.png").exists()
    report = import_source(source, data, unlabelled="keep", replace=True)
    assert (report.images, report.masks) == (3, 2)


def test_a_folder_that_cannot_be_read_is_counted(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(source)
    (source / "secret").mkdir()
    read_entries = FolderListing.entries

    def entries(listing: FolderListing, folder: Path) -> list[Entry]:
        if folder.name == "secret":  # as without the permission to read it
            raise DataError("cannot be read", where=folder)
        return read_entries(listing, folder)

    monkeypatch.setattr(FolderListing, "entries", entries)
    (group,) = count_unused(
        FolderListing(source), source, [], ReadResult(items=[], used_files=set(source.rglob("*.png"))), []
    )
    assert (group.reason, group.example) == ("a folder that cannot be read", "secret")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "splits: none given; `segpipe ingest` assigns the images"),
        ({"ab-1": "train"}, "splits: 1 train; `segpipe ingest` assigns the other images"),
        ({"ab-1": "train", "ab-2": "val", "cd-1": "test"}, "splits: 1 train, 1 val, 1 test"),
    ],
)
def test_the_report_says_who_assigns_splits(source: Path, data: Path, given: dict[str, str], words: str) -> None:
    write(source)
    if given:
        rows = "".join(f"{name}.png,{split}\n" for name, split in given.items())
        (source / "images.csv").write_text(f"file,split\n{rows}")
    lines = import_source(source, data).lines()
    (line,) = [line for line in lines if line.startswith("splits: ")]
    assert line.startswith(words), lines

"""--group-from-folder: the first folder below the one that all images have in common is the group."""

from __future__ import annotations

from pathlib import Path

import pytest

from segpipe.errors import ConfigError
from tests.worlds.layouts import import_source, items, photo, save, values


def write(source: Path, names: list[str], masks: str = "masks") -> None:
    for seed, name in enumerate(names):
        photo(source / "images" / name, seed)
        save(source / masks / name, values(seed, [0, 1, 2]))


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (["p1/a.png", "p1/b.png", "p2/c.png"], {"a": "p1", "b": "p1", "c": "p2"}),
        (["site/p1/a.png", "site/p2/b.png"], {"a": "p1", "b": "p2"}),
        (["train/p1/a.png", "train/p2/b.png", "val/p3/c.png", "test/p4/d.png"], {"a": "p1", "b": "p2", "c": "p3", "d": "p4"}),
        (["p1/t1/a.png", "p1/t2/b.png", "p2/t1/c.png"], {"a": "p1", "b": "p1", "c": "p2"}),
        (["a.png", "p1/b.png"], {"a": None, "b": "p1"}),
    ],
)  # fmt: skip
def test_groups(source: Path, data: Path, names: list[str], groups: dict[str, str | None]) -> None:
    write(source, names)
    report = import_source(source, data, group_from_folder=True)
    assert {key: item.group for key, item in items(data).items()} == groups
    assert any(note.startswith("groups from folders: p1") for note in report.notes)


def test_deeper_folders_are_mentioned(source: Path, data: Path) -> None:
    write(source, ["s1/p1/a.png", "s1/p2/b.png", "s2/p1/c.png"])
    notes = import_source(source, data, group_from_folder=True).notes
    assert any("s1/p1, are no groups of their own" in note and "--group REGEX" in note for note in notes)


def test_one_folder_is_no_group(source: Path, data: Path) -> None:
    write(source, ["a.png", "b.png"])
    with pytest.raises(ConfigError, match=r"all images are in one folder.*--group REGEX"):
        import_source(source, data, group_from_folder=True)


def test_groups_with_patterns(source: Path, data: Path) -> None:
    for seed, patient in enumerate(("anna", "bert")):
        photo(source / patient / "scan" / "x1.png", seed)
        save(source / patient / "seg" / "x1.png", values(seed, [0, 1, 2]))
    read = {"pattern": "^(?P<p>.+)/scan/(?P<n>.+)", "mask_pattern": "^(?P<p>.+)/seg/(?P<n>.+)"}
    import_source(source, data, group_from_folder=True, read=read)
    assert sorted(str(item.group) for item in items(data).values()) == ["anna", "bert"]

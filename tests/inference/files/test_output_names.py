"""The names of outputs for the tree of a real case."""

from __future__ import annotations

from pathlib import Path

from segpipe.inference.files.output_names import list_files


def test_case_equal_names_in_folders(shared_cases: Path, tmp_path: Path) -> None:
    folder = shared_cases / "T06_equal_names_in_folders"
    files = list_files([folder], tmp_path, 2)
    assert {name: path.relative_to(folder).as_posix() for name, path in files.items()} == {
        "site1/img.jpg": "site1/img.jpg",
        "site1/img.png": "site1/img.png",
        "site2/a b": "site2/a b.png",
        "site2/img": "site2/img.png",
        "site2/img-2": "site2/img-2.png",
    }


def test_a_mixed_case_and_its_unread_files_are_counted(tmp_path: Path, capsys) -> None:
    for name in ("a/x.PNG", "a/notes.txt", "a/.x.png", "b.tif"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"")
    assert sorted(list_files([tmp_path / "in"], tmp_path / "out", 2)) == ["a/x", "b"]
    assert "not read: 1 .txt, 1 hidden files" in capsys.readouterr().err

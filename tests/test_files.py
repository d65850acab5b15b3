import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segpipe.errors import DataError
from segpipe.files import (
    atomic_folder,
    atomic_path,
    read_bytes,
    read_json,
    safe_name,
    sha256_bytes,
    sha256_file,
    sha256_tree,
    write_json,
    write_text,
)


def test_a_failed_write_keeps_the_old_file_and_leaves_no_temporary_file(tmp_path):
    target = tmp_path / "a.txt"
    write_text(target, "old")

    def fail():
        with atomic_path(target) as path:
            path.write_text("half")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        fail()
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_written_files_can_be_read_by_others(tmp_path):
    write_text(tmp_path / "deep" / "a.txt", "x")
    plain = tmp_path / "plain"
    plain.write_text("x")
    assert (tmp_path / "deep" / "a.txt").stat().st_mode == plain.stat().st_mode


def test_nan_is_not_json(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": math.nan})
    assert not (tmp_path / "a.json").exists()


def test_reading_is_bounded_and_names_the_file(tmp_path):
    big = tmp_path / "big"
    big.write_bytes(b"x" * 100)
    assert read_bytes(big, 100) == b"x" * 100
    with pytest.raises(DataError, match=r"big: file is too large \(found 100 bytes, expected at most 99\)"):
        read_bytes(big, 99)
    with pytest.raises(DataError, match="absent"):
        read_bytes(tmp_path / "absent", 9)
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(DataError, match=r"broken\.json: is not valid JSON"):
        read_json(tmp_path / "broken.json")


def test_json_round_trip(tmp_path):
    write_json(tmp_path / "a.json", {"ü": [1, 2.5, None]})
    assert read_json(tmp_path / "a.json") == {"ü": [1, 2.5, None]} == json.loads((tmp_path / "a.json").read_bytes())


def test_tree_hash_sees_names_and_contents(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "x").mkdir(parents=True)
        (tmp_path / name / "x" / "f").write_text("1")
    assert sha256_tree(tmp_path / "a") == sha256_tree(tmp_path / "b")
    (tmp_path / "b" / "x" / "f").rename(tmp_path / "b" / "x" / "g")
    assert sha256_tree(tmp_path / "a") != sha256_tree(tmp_path / "b")
    assert sha256_file(tmp_path / "a" / "x" / "f") == sha256_bytes(b"1")


@given(st.text())
def test_a_safe_name_is_never_a_path(name):
    safe = safe_name(name)
    assert safe
    assert not set("/\\\0") & set(safe)
    assert safe not in (".", "..")
    assert not safe.startswith(".")


def test_a_folder_appears_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "data"
    with pytest.raises(RuntimeError), atomic_folder(target, replace=False) as folder:
        (folder / "a").touch()
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with atomic_folder(target, replace=False) as folder:
        (folder / "a").touch()
        assert not target.exists()
    with pytest.raises(DataError, match="not empty"), atomic_folder(target, replace=False):
        pass
    with pytest.raises(RuntimeError), atomic_folder(target, replace=True):
        raise RuntimeError
    assert [p.name for p in target.iterdir()] == ["a"]
    with atomic_folder(target, replace=True) as folder:
        (folder / "b").touch()
    assert [p.name for p in target.iterdir()] == ["b"]
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


def test_the_old_folder_is_restored_if_the_new_one_cannot_be_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "data"
    target.mkdir()
    (target / "a").touch()
    rename = Path.rename

    def fails(self: Path, to: Path) -> Path:
        if self.name == ".data.new":
            raise OSError("no")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(OSError, match="no"), atomic_folder(target, replace=True):
        pass
    assert [p.name for p in target.iterdir()] == ["a"]


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".data.new").mkdir()
    (tmp_path / ".data.new" / "half").touch()
    (tmp_path / ".data.old").mkdir()
    (tmp_path / ".data.old" / "a").touch()
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "data"):
        raise RuntimeError
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")) == ["data", "data/a"], (
        "the old folder is restored"
    )

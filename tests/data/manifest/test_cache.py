"""Unchanged files are not opened again, changed files are, and a damaged or foreign cache is ignored."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from segpipe.config import DataParams
from segpipe.data.dataset import load_dataset
from segpipe.data.images import encode_png
from segpipe.data.manifest import build as build_module
from segpipe.data.manifest import cache as cache_module
from segpipe.data.manifest.build import build_manifest
from segpipe.data.manifest.table import write_manifest
from tests.worlds.small_datasets import LIMITS, SPLIT, MakeData


@pytest.fixture
def described(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of the items that are decoded from now on. Files count as unchanged at once, however recent they are."""
    keys: list[str] = []
    describe = cache_module.describe_item

    def counting(item: Any, *rest: Any) -> Any:
        keys.append(item.key)
        return describe(item, *rest)

    monkeypatch.setattr(cache_module, "describe_item", counting)
    monkeypatch.setattr(cache_module, "_RACY_S", 0.0)
    return keys


def build(data: Path, cache: Path | None, limits: DataParams = LIMITS) -> pd.DataFrame:
    return build_manifest(load_dataset(data), limits, SPLIT, 1, cache)


def written(frame: pd.DataFrame, path: Path) -> bytes:
    write_manifest(frame, path)
    return path.read_bytes()


def test_a_manifest_from_the_cache_has_the_same_bytes(
    make_data: MakeData, tmp_path: Path, described: list[str]
) -> None:
    data = make_data(6, samples=[{"key": "im02", "group": "a", "split": "val"}])
    (data / "instances").mkdir()
    (data / "instances" / "im00.png").write_bytes(encode_png(np.full((40, 50), 300, np.uint16)))
    (data / "masks" / "im05.png").unlink()
    fresh = written(build(data, None), tmp_path / "fresh")
    first = written(build(data, tmp_path / "cache"), tmp_path / "first")
    described.clear()
    again = written(build(data, tmp_path / "cache"), tmp_path / "again")
    assert described == []
    assert fresh == first == again


def test_files_that_did_not_change_are_not_even_opened(
    make_data: MakeData, tmp_path: Path, described: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_data(5)
    build(data, tmp_path / "cache")
    opened: list[str] = []
    monkeypatch.setattr(cache_module, "sha256_file", lambda path: opened.append(path.name) or "")
    described.clear()
    build(data, tmp_path / "cache")
    assert (described, opened) == ([], [])


def test_only_what_changed_is_decoded(make_data: MakeData, tmp_path: Path, described: list[str]) -> None:
    data, cache = make_data(6), tmp_path / "cache"

    def decoded(change: Any = None, limits: DataParams = LIMITS) -> list[str]:
        if change:
            change()
        described.clear()
        frame = build(data, cache, limits)
        keys = sorted(described)
        pd.testing.assert_frame_equal(frame, build(data, None, limits))
        return keys

    images, masks = data / "images", data / "masks"
    assert len(decoded()) == 6
    assert decoded() == []
    assert decoded(lambda: os.utime(images / "im01.png", ns=(1, 1))) == []  # hashed again: the same
    assert decoded(lambda: (masks / "im02.png").write_bytes((masks / "im03.png").read_bytes())) == ["im02"]
    assert decoded(lambda: [(f / "im04.png").rename(f / "other.png") for f in (images, masks)]) == []
    assert decoded(lambda: (masks / "im05.png").unlink()) == ["im05"]
    assert decoded(lambda: (data / "samples.csv").write_text("key,group,split\nim00,g,test\n")) == []
    everything = ["im00", "im01", "im02", "im03", "im05", "other"]
    assert decoded(limits=LIMITS.model_copy(update={"max_megapixels": 7.0})) == everything
    table = data / "dataset.yaml"
    assert decoded(lambda: table.write_text(table.read_text().replace("cell", "nucleus"))) == everything


def test_a_change_that_keeps_size_and_modification_time_is_detected(
    make_data: MakeData, tmp_path: Path, described: list[str]
) -> None:
    data = make_data(3)
    original, replacement = data / "images" / "im00.png", tmp_path / "replacement.bmp"
    build(data, tmp_path / "cache")
    content = bytearray(original.read_bytes())
    content[-20] ^= 1
    times = original.stat().st_atime_ns, original.stat().st_mtime_ns
    replacement.write_bytes(content)
    os.utime(replacement, ns=times)
    replacement.replace(original)
    described.clear()
    frame = build(data, tmp_path / "cache").set_index("key")
    assert described == ["im00"]
    assert "checksum" in frame.loc["im00", "error"]


def test_a_change_of_the_code_invalidates_the_rows(
    make_data: MakeData, tmp_path: Path, described: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_data(2)
    build(data, tmp_path / "cache")
    described.clear()
    code = cache_module._code_versions()
    assert all(
        name in code for name in ("describe.py", "images/statistics.py", "connected_components.py", "images/decode.py")
    )
    monkeypatch.setattr(cache_module, "_code_versions", lambda: code + " and more")
    build(data, tmp_path / "cache")
    assert described == ["im00", "im01"]


def test_recently_written_files_are_hashed_again(
    make_data: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "_RACY_S", 3600.0)
    data = make_data(3)
    build(data, tmp_path / "cache")
    hashed: list[str] = []
    sha256_file = cache_module.sha256_file
    monkeypatch.setattr(cache_module, "sha256_file", lambda path: hashed.append(path.name) or sha256_file(path))
    monkeypatch.setattr(cache_module, "describe_item", None)
    build(data, tmp_path / "cache")
    assert sorted(name for name in hashed if name.endswith(".png")) == sorted(2 * ["im00.png", "im01.png", "im02.png"])


def test_files_with_errors_are_decoded_again(make_data: MakeData, tmp_path: Path, described: list[str]) -> None:
    data = make_data(4)
    (data / "masks" / "im01.png").write_bytes(b"no image")
    first = build(data, tmp_path / "cache")
    described.clear()
    pd.testing.assert_frame_equal(build(data, tmp_path / "cache"), first)
    assert described == ["im01"]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "text", "empty", "swapped", "folder", "other columns"])
def test_a_damaged_cache_is_built_again(
    make_data: MakeData, tmp_path: Path, described: list[str], damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, cache = make_data(4), tmp_path / "cache"
    first = build(data, cache)
    rows, files = cache / "rows", cache / "files"
    content = rows.read_bytes()
    if damage == "folder":
        rows.unlink()
        rows.mkdir()
    elif damage == "swapped":
        shutil.copy(files, rows)
    elif damage == "other columns":
        monkeypatch.setattr(cache_module, "_MEASURED", cache_module._MEASURED[1:])
        build(data, cache)
        monkeypatch.undo()
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        rows.write_bytes({"truncated": content[:-9], "flipped": flipped, "text": b"hello", "empty": b""}[damage])
    described.clear()
    pd.testing.assert_frame_equal(build(data, cache), first)
    if damage != "other columns":
        assert len(described) == 4
    if damage != "folder":
        assert rows.read_bytes() == content


def test_rows_described_before_an_interruption_are_kept(
    make_data: MakeData, tmp_path: Path, described: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, map_in_processes = make_data(6), build_module.map_in_processes

    def interrupted(*arguments: Any) -> Any:
        for index, row in map_in_processes(*arguments):
            if index == 4:
                raise KeyboardInterrupt
            yield index, row

    monkeypatch.setattr(build_module, "map_in_processes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(data, tmp_path / "cache")
    monkeypatch.setattr(build_module, "map_in_processes", map_in_processes)
    described.clear()
    build(data, tmp_path / "cache")
    assert described == ["im04", "im05"]

"""The page about the data: offline, complete, the same for the same data."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from segpipe.data.dataset import load_dataset
from segpipe.data.manifest import build_manifest, write_manifest
from segpipe.data.stats import write_stats_page

from .conftest import LIMITS, SPLIT, MakeData


@pytest.fixture
def root(make_data: MakeData, repo_root: Path, tmp_path: Path) -> Path:
    data = make_data(12, samples=[{"key": "im03", "group": "<b>group & co</b>", "split": "val"}])
    (data / "images" / "im04.png").write_bytes(b"")
    shutil.copy(repo_root / "params.yaml", tmp_path)
    return tmp_path


def test_the_page(root: Path) -> None:
    out = write_stats_page(root, root / "reports" / "data.html")
    page = out.read_text()
    HTMLParser().feed(page)
    assert page.count("<figure>") == 11
    assert "&lt;b&gt;group &amp; co&lt;/b&gt;" in page
    assert "<b>group" not in page
    assert "1 more cannot be trained on" in page
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)
    assert "http" not in page
    assert write_stats_page(root, root / "again.html").read_text() == page


def test_the_manifest_of_ingest_is_taken_where_there_is_one(root: Path) -> None:
    frame = build_manifest(load_dataset(root / "data"), LIMITS, SPLIT)
    write_manifest(frame[:6], root / "artifacts" / "manifest.parquet")
    assert write_stats_page(root, root / "x.html").read_text().count("<figure>") == 5

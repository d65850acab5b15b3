"""Fixtures: the folder of a source, and the folder that it is imported to."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An empty folder for a source."""
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The folder that a source is imported to."""
    return tmp_path / "work" / "data"

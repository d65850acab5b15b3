"""Bundles of two toy models, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.release.toy import write_toy_bundle


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two bundles that answer differently."""
    folder = tmp_path_factory.mktemp("bundles")
    return [write_toy_bundle(folder / f"bundle-{seed}", seed) for seed in (0, 1)]


@pytest.fixture(scope="session")
def bundle(bundles: list[Path]) -> Path:
    """A bundle."""
    return bundles[0]

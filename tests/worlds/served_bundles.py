"""Fixtures: two released toy models, and an endpoint file that names one of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from segpipe.release.bundle import bundle_sha256
from segpipe.release.endpoint_file import Endpoint
from segpipe.release.packaging.bento_server import Server, start_server
from segpipe.serving.server import SERVICE
from segpipe.serving.settings import ENDPOINT, MAX_UPLOAD_MB
from tests.worlds.bundles import write_toy_bundle


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two bundles with different predictions."""
    folder = tmp_path_factory.mktemp("bundles")
    return [write_toy_bundle(folder / f"bundle-{seed}", seed) for seed in (0, 1)]


@pytest.fixture(scope="session")
def bundle(bundles: list[Path]) -> Path:
    """The first bundle."""
    return bundles[0]


def write_releases(folder: Path, bundles: list[Path]) -> Path:
    """Write both bundles as releases v0.1.0 and v0.2.0, and return the path of an endpoint file that names the first."""
    for number, bundle in enumerate(bundles, 1):
        shutil.copytree(bundle, folder / "releases" / f"v0.{number}.0" / "bundle")
    path = folder / "endpoints" / "prod.json"
    point(path, 1)
    return path


def point(path: Path, number: int, **changes: str) -> None:
    """Promote release v0.NUMBER.0; `changes` replace fields of the endpoint file."""
    bundle = path.parent.parent / "releases" / f"v0.{number}.0" / "bundle"
    fields = {
        "version": f"v0.{number}.0",
        "bundle": f"../releases/v0.{number}.0/bundle",
        "commit": "c" * 40,
        "bundle_sha256": bundle_sha256(bundle),
        "promoted_at": "2026-01-01T00:00:00+00:00",
    }
    Endpoint(**(fields | changes)).write(path)


@pytest.fixture
def endpoint(tmp_path: Path, bundles: list[Path]) -> Path:
    """An endpoint file for a single test."""
    return write_releases(tmp_path, bundles)


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory, bundles: list[Path]) -> Iterator[tuple[Server, Path]]:
    """A real server, shared by all tests, and the endpoint file that it follows."""
    folder = tmp_path_factory.mktemp("served")
    path = write_releases(folder, bundles)
    with start_server(SERVICE, settings={ENDPOINT: str(path), MAX_UPLOAD_MB: "1"}) as server:
        yield server, path

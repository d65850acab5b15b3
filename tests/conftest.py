"""What every test may ask for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.worlds import property_tests

ROOT = Path(__file__).resolve().parents[1]

# Quiet, offline, and away from the user's own state.
os.environ.update(
    DO_NOT_TRACK="1",
    GX_ANALYTICS_ENABLED="false",
    BENTOML_DO_NOT_TRACK="True",
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    NO_ALBUMENTATIONS_UPDATE="1",
    HF_HUB_OFFLINE="1",
    SEGPIPE_SPEED_CACHE="off",
    SEGPIPE_BENTO_ENVIRONMENTS=str(ROOT / ".venv" / "bento-environments"),
)
property_tests.load_profile()


@pytest.fixture(scope="session")
def shared_cases() -> Path:
    """The folder of small inputs, one for each kind of fault; the test is skipped where it is absent."""
    folder = ROOT.parent / "shared" / "cases"
    if not folder.is_dir():
        pytest.skip("the small inputs by kind of fault (../shared/cases) are not on this machine")
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real datasets beside the checkout; the test is skipped where it is absent."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("real datasets (../shared/data) are not on this machine")
    return folder


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Tests share the machine; and a training in a test must not change the threads of the next."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The top of this repository."""
    return ROOT


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """A workspace with a chain of one-line stages."""
    from tests.worlds import pipelines

    return pipelines.make(tmp_path / "ws", pipelines.chain())


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium, one for all tests (playwright allows one driver a thread); skipped where the system has none."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not found:
        pytest.skip("no Chromium on this machine (apt-get install chromium)")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=found, args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        )
        yield launched
        launched.close()

"""A Prefect server for the tests of flows."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Prefect server that the tests of a module and their child processes use, because a start takes seconds."""
    from flows.schedule import prefect_server

    with prefect_server(tmp_path_factory.mktemp("prefect")) as api, pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "PREFECT_API_URL", api)
        from prefect.settings import PREFECT_API_URL, temporary_settings

        with temporary_settings({PREFECT_API_URL: api}):
            yield api

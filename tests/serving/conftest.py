"""Fixtures: bundles behind a server."""

from tests.worlds.served_bundles import bundle, bundles, endpoint, served  # noqa: F401

"""A real server for the browser to visit."""

from tests.worlds.served_bundles import bundle, bundles, served  # noqa: F401  the same server as in tests/serving

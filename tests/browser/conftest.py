"""A real server for the browser to visit."""

from tests.serving.conftest import bundle, bundles, served  # noqa: F401  the same server as in tests/serving

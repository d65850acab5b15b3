"""Small datasets in the canonical layout."""

from tests.worlds.small_datasets import demo, make_data  # noqa: F401

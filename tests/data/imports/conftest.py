"""Folders to import from and into."""

from tests.worlds.import_folders import data, source  # noqa: F401

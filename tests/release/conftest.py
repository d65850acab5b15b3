"""Fixtures: a workspace with a bundle that can be released."""

from tests.worlds.released_workspace import bundle, bundles, nobody, root, template  # noqa: F401

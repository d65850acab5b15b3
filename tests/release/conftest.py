"""A workspace with a bundle, ready to be released."""

from tests.worlds.released_workspace import bundle, bundles, nobody, root, template  # noqa: F401
